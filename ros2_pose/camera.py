"""Pinhole and fisheye cameras with lens distortion: project, back-project, crop, resize, rotate.

Camera frame: x right, y down, z forward, metres. Pixel centres lie at +0.5: the image covers
[0, width] x [0, height]. OpenCV and ROS calibrations put the centre of the first pixel at 0, so
their cx and cy are smaller by 0.5; `Camera.from_opencv` adds it.

A lens model holds up to some angle off the axis, where its pixel radius stops growing. Beyond it,
and beyond 89 degrees, a point has no pixel and a pixel no ray: both are NaN.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np

from ros2_pose.errors import PoseError

FISHEYE = "equidistant"
# The names of lens models in CameraInfo and calibration files. A pinhole without coefficients goes
# by many names; with coefficients only OpenCV's polynomial is meant by the second group.
_FISHEYE_NAMES = (FISHEYE, "fisheye", "kannala_brandt", "kannala_brandt4", "kb4")
_RADTAN_NAMES = ("", "plumb_bob", "rational_polynomial", "thin_prism", "thin_prism_polynomial",
                 "tilted", "radtan", "brown_conrady", "opencv", "pinhole", "perspective", "none")
# OpenCV's k1 k2 p1 p2 k3 k4 k5 k6 s1 s2 s3 s4 tau_x tau_y: what is odd in x changes its sign.
_MIRROR_SIGNS = (1, 1, 1, -1, 1, 1, 1, 1, -1, -1, 1, 1, 1, -1)
_RADTAN_LENGTHS = (4, 5, 8, 12, 14)  # what OpenCV's radial-tangential-prism model accepts

_WIDEST_RAD = np.radians(89.0)  # x/z and y/z of a ray grow without bound towards 90 degrees
_SAMPLES = 2048  # of the radial curve of a lens
_NEWTON_STEPS = 12
_REPROJECTION_PX = 0.05  # a ray whose pixel is farther from the one asked for is none
_IDENTITY = np.eye(3)


class CameraError(PoseError):
    """A calibration that cannot be used; the message says why and what to do."""


def is_fisheye(model: str, coefficients=()) -> bool:
    """Whether a lens model's name means OpenCV's fisheye model rather than its pinhole models.

    Args:
        model: the name, as in CameraInfo.distortion_model.
        coefficients: of the distortion; names of other pinhole models pass if all are zero.
    Raises:
        CameraError: for a model that is neither.
    """
    name = model.strip().lower().replace("-", "_").replace(" ", "_")
    if name in _FISHEYE_NAMES:
        return True
    if name in _RADTAN_NAMES:
        return False
    if name in ("inverse_brown_conrady", "modified_brown_conrady") and not np.any(coefficients):
        return False  # RealSense's names for images without distortion
    raise CameraError(f"distortion model {model!r} is none of plumb_bob, rational_polynomial, "
                      f"thin_prism, {FISHEYE} (fisheye): rectify the images and set rectified")


@dataclass(frozen=True)
class Camera:
    """Intrinsics of one image: focal lengths and principal point in px, distortion as OpenCV's.

    Args:
        distortion: OpenCV's coefficients; empty: all are zero. They are of the sensor's rows.
        fisheye: the pixel radius grows with the angle (OpenCV's fisheye, ROS's equidistant), not
            with its tangent.
        quarter_turns: how often the image was rotated by 90 degrees counter-clockwise (as
            np.rot90) since it left the sensor.
        centre_m: (3,) position of the optical centre in the frame that points are given in: not 0
            for the right camera of a stereo pair whose frame is the left one's.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, ...] = ()
    fisheye: bool = False
    quarter_turns: int = 0
    centre_m: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        numbers = (self.fx, self.fy, self.cx, self.cy, *self.distortion, *self.centre_m)
        if not np.all(np.isfinite(numbers)):
            raise CameraError(f"calibration is not finite: fx, fy, cx, cy, distortion = {numbers}; "
                              "calibrate the camera or set fov_deg")
        if self.fx <= 0 or self.fy <= 0:
            raise CameraError(f"focal length fx={self.fx:g}, fy={self.fy:g} must be positive "
                              "(0 marks an uncalibrated camera): calibrate it or set fov_deg")
        if self.width <= 0 or self.height <= 0:
            raise CameraError(f"image size {self.width}x{self.height} must be positive")
        self._check_distortion()

    def _check_distortion(self) -> None:
        count = len(self.distortion)
        if self.fisheye and count not in (0, 4):
            raise CameraError(f"the {FISHEYE} model takes 4 distortion coefficients, got {count}")
        if not self.fisheye and count and count not in _RADTAN_LENGTHS:
            raise CameraError(f"{count} distortion coefficients; OpenCV takes {_RADTAN_LENGTHS}")

    @staticmethod
    def from_opencv(width: int, height: int, K: np.ndarray, distortion=(), fisheye=False) -> Camera:
        """From a matrix K (3, 3) in the convention of OpenCV and CameraInfo (pixel centre at 0).

        distortion: coefficients left out at the end are zero.
        """
        K = np.asarray(K, float)
        if K.size != 9:
            raise CameraError(f"the camera matrix has {K.size} numbers, expected 9 (3 rows of fx 0 "
                              "cx, 0 fy cy, 0 0 1)")
        K = K.reshape(3, 3)
        return Camera(int(width), int(height), float(K[0, 0]), float(K[1, 1]),
                      float(K[0, 2]) + 0.5, float(K[1, 2]) + 0.5,
                      _coefficients(np.ravel(distortion), fisheye), bool(fisheye))

    @staticmethod
    def from_fov(width: int, height: int, fov_deg: float) -> Camera:
        """An undistorted camera with the given horizontal field of view, degrees."""
        if not 0 < fov_deg < 180:
            raise CameraError(f"fov_deg {fov_deg:g} must lie between 0 and 180")
        f = width / 2 / np.tan(np.radians(fov_deg) / 2)
        return Camera(width, height, f, f, width / 2, height / 2)

    @property
    def K(self) -> np.ndarray:
        """(3, 3) intrinsic matrix, pixel centres at +0.5."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1.0]])

    @property
    def is_pinhole(self) -> bool:
        """Whether pixels are a linear function of x/z and y/z."""
        return not self.fisheye and not self.distortion

    def project(self, points: np.ndarray) -> np.ndarray:
        """Pixels (..., 2) of points (..., 3) m; NaN behind the camera and where the lens model
        does not hold."""
        points = np.asarray(points, float)
        flat = points.reshape(-1, 3) - self.centre_m
        ahead = flat[:, 2] > 1e-6
        rays = np.full((len(flat), 2), np.nan)
        rays[ahead] = flat[ahead, :2] / flat[ahead, 2:]
        return self.distort(rays).reshape(*points.shape[:-1], 2)

    def distort(self, rays: np.ndarray) -> np.ndarray:
        """Pixels (..., 2) of undistorted rays (..., 2), x/z and y/z: the inverse of `normalise`."""
        rays = np.asarray(rays, float)
        flat = rays.reshape(-1, 2)
        pixels = np.full(flat.shape, np.nan)
        known = np.isfinite(flat).all(axis=1)
        if not self.is_pinhole:
            known &= np.hypot(*flat.T) <= self._largest_radius
        if known.any():
            plane = flat[known] if self.is_pinhole else self._on_plane(flat[known])[0]
            pixels[known] = plane * (self.fx, self.fy) + (self.cx, self.cy)
        return pixels.reshape(rays.shape)

    def _on_plane(self, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where rays (N, 2) meet the image plane of a camera with f = 1, (N, 2), and the
        derivative of that (N, 2, 2)."""
        if self.fisheye:
            return self._on_fisheye_plane(rays)
        rotmat = rotation_of(self.quarter_turns)[:2, :2]
        points = np.concatenate([rays @ rotmat, np.ones((len(rays), 1))], axis=1)
        plane, derivatives = cv2.projectPoints(points, np.zeros(3), np.zeros(3), _IDENTITY,
                                               np.array(self.distortion))
        by_x_and_y = derivatives[:, 3:5].reshape(-1, 2, 2)  # those by the translation
        return plane[:, 0] @ rotmat.T, rotmat @ by_x_and_y @ rotmat.T

    def _on_fisheye_plane(self, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        radius = np.maximum(np.hypot(*rays.T), 1e-9)
        out, slope = self._fisheye_radius(np.arctan(radius))
        along = rays / radius[:, None]
        radial = along[:, :, None] * along[:, None]
        ratio, slope = (out / radius)[:, None, None], (slope / (1 + radius**2))[:, None, None]
        return along * out[:, None], slope * radial + ratio * (np.eye(2) - radial)

    def _fisheye_radius(self, angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Radius on the plane at angles off the axis, rad, and its derivative (Kannala and Brandt
        2006, eq. 6)."""
        square, series, slope = angle**2, np.ones_like(angle), np.ones_like(angle)
        for power, k in enumerate(self.distortion, 1):
            term = k * square**power
            series, slope = series + term, slope + (2 * power + 1) * term
        return angle * series, slope

    def _radial(self, radius: np.ndarray) -> np.ndarray:
        """Radius on the plane (N,) of rays of radius (N,), by the radial coefficients alone."""
        if self.fisheye:
            return self._fisheye_radius(np.arctan(radius))[0]
        k = np.zeros(14)
        k[:len(self.distortion)] = self.distortion
        square = radius**2
        above = 1 + square * (k[0] + square * (k[1] + square * k[4]))
        below = 1 + square * (k[5] + square * (k[6] + square * k[7]))
        return radius * np.where(below > 1e-6, above / np.where(below > 1e-6, below, 1), -1.0)

    @cached_property
    def _radial_curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Radii of rays, rising, and on the plane, rising: as far as the lens model holds."""
        rays = np.tan(np.linspace(0, _WIDEST_RAD, _SAMPLES))
        plane = self._radial(rays)
        falls = np.flatnonzero(np.diff(plane) <= 0)
        count = falls[0] + 1 if len(falls) else _SAMPLES
        return rays[:count], plane[:count]

    @property
    def _largest_radius(self) -> float:
        """The largest radius hypot(x/z, y/z) of a ray that the lens model holds for."""
        return float(self._radial_curve[0][-1])

    def normalise(self, pixels: np.ndarray) -> np.ndarray:
        """Undistorted (x/z, y/z) (..., 2) of pixels (..., 2): the rays.

        NaN where a pixel is NaN or the lens model gives no ray for it.
        """
        pixels = np.asarray(pixels, float)
        flat = pixels.reshape(-1, 2)
        known = np.isfinite(flat).all(axis=1)
        rays = np.full(flat.shape, np.nan)
        if known.any():
            plane = (flat[known] - (self.cx, self.cy)) / (self.fx, self.fy)
            rays[known] = plane if self.is_pinhole else self._undistort(plane)
        return rays.reshape(pixels.shape)

    def _undistort(self, plane: np.ndarray) -> np.ndarray:
        """Points on the plane (N, 2) to rays (N, 2): Newton's method from the radial curve."""
        rays_radius, plane_radius = self._radial_curve
        radius = np.maximum(np.hypot(*plane.T), 1e-12)
        rays = plane * (np.interp(radius, plane_radius, rays_radius) / radius)[:, None]
        for _ in range(_NEWTON_STEPS):
            reached, jacobian = self._on_plane(rays)
            error = plane - reached
            if np.abs(error).max() < 1e-9:
                break
            step = (_inverse(jacobian) @ error[..., None])[..., 0]
            longest = 0.3 * (1 + np.hypot(*rays.T))
            step *= np.minimum(1, longest / np.maximum(np.hypot(*step.T), 1e-12))[:, None]
            rays = rays + step
        off = np.hypot(*((plane - self._on_plane(rays)[0]) * (self.fx, self.fy)).T)
        found = (off <= _REPROJECTION_PX) & (np.hypot(*rays.T) <= self._largest_radius)
        return np.where(found[:, None], rays, np.nan)

    def normalise_with_cov(self, pixels: np.ndarray, cov: np.ndarray):
        """Rays (..., 2) and their covariance (..., 2, 2) from pixels and their covariance in px^2.

        The covariance goes through the local derivative of `normalise`.
        """
        rays = self.normalise(pixels)
        jacobian = _inverse(self._derivative(rays))
        return rays, jacobian @ cov @ np.swapaxes(jacobian, -1, -2)

    def distort_with_cov(self, rays: np.ndarray, cov: np.ndarray):
        """Pixels (..., 2) and their covariance (..., 2, 2): `normalise_with_cov` undone."""
        rays = np.asarray(rays, float)
        jacobian = self._derivative(rays)
        return self.distort(rays), jacobian @ cov @ np.swapaxes(jacobian, -1, -2)

    def _derivative(self, rays: np.ndarray) -> np.ndarray:
        """(..., 2, 2) of `distort`, px; NaN for rays (..., 2) that are not known."""
        scale = np.diag((self.fx, self.fy))
        if self.is_pinhole:
            return np.broadcast_to(scale, (*rays.shape, 2))
        flat = rays.reshape(-1, 2)
        known = np.isfinite(flat).all(axis=1)
        out = np.full((len(flat), 2, 2), np.nan)
        if known.any():
            out[known] = scale @ self._on_plane(flat[known])[1]
        return out.reshape(*rays.shape, 2)

    def resized(self, width: int, height: int) -> Camera:
        """The camera of the same image scaled to width x height."""
        sx, sy = width / self.width, height / self.height
        return replace(self, width=width, height=height, fx=self.fx * sx, fy=self.fy * sy,
                       cx=self.cx * sx, cy=self.cy * sy)

    def cropped(self, left: int, top: int, width: int, height: int) -> Camera:
        """The camera of a part of the image."""
        return replace(self, width=width, height=height, cx=self.cx - left, cy=self.cy - top)

    def mirrored(self) -> Camera:
        """The camera of the image with left and right exchanged."""
        signs = np.ones(len(self.distortion)) if self.fisheye else \
            _MIRROR_SIGNS[:len(self.distortion)]
        x, y, z = self.centre_m
        mirrored = tuple(float(sign * k) for sign, k in zip(signs, self.distortion))
        return replace(self, cx=self.width - self.cx, distortion=mirrored, centre_m=(-x, y, z),
                       quarter_turns=-self.quarter_turns % 4)

    def rotated(self, quarter_turns: int) -> Camera:
        """The camera of the image after np.rot90(image, quarter_turns): counter-clockwise.

        Points are then given in the camera frame rotated alike about z, see `rotation_of`.
        """
        camera = self
        for _ in range(quarter_turns % 4):
            x, y, z = camera.centre_m
            camera = replace(camera, width=camera.height, height=camera.width, fx=camera.fy,
                             fy=camera.fx, cx=camera.cy, cy=camera.width - camera.cx,
                             quarter_turns=(camera.quarter_turns + 1) % 4, centre_m=(y, -x, z))
        return camera

    def at_origin(self) -> Camera:
        """The same lens with its optical centre at 0, 0, 0."""
        return replace(self, centre_m=(0.0, 0.0, 0.0))


def rotation_of(quarter_turns: int) -> np.ndarray:
    """(3, 3) rotation that takes points of a camera to those of `Camera.rotated`."""
    rotmat = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    return np.linalg.matrix_power(rotmat, quarter_turns % 4)


def _coefficients(values, fisheye: bool) -> tuple[float, ...]:
    """Distortion coefficients of a length that OpenCV takes; empty if all are zero."""
    coefficients = [float(value) for value in values]
    if not any(coefficients):
        return ()
    lengths = (4,) if fisheye else _RADTAN_LENGTHS
    while len(coefficients) > lengths[-1] and coefficients[-1] == 0:
        coefficients.pop()
    if len(coefficients) > 4:
        wanted = next((n for n in lengths if n >= len(coefficients)), len(coefficients))
        coefficients += [0.0] * (wanted - len(coefficients))
    return tuple(coefficients)


def _inverse(matrices: np.ndarray) -> np.ndarray:
    """(..., 2, 2) inverses; huge, not an error, of matrices that are singular."""
    (a, b), (c, d) = np.moveaxis(matrices, (-2, -1), (0, 1))
    determinant = a * d - b * c
    determinant = np.where(np.abs(determinant) < 1e-12, 1e-12, determinant)
    return np.moveaxis(np.array([[d, -b], [-c, a]]) / determinant, (0, 1), (-2, -1))
