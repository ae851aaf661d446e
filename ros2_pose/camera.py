"""Pinhole and fisheye cameras with lens distortion: project, back-project, crop, resize, rotate.

Camera frame: x right, y down, z forward, m. Pixel centres are at +0.5: the image covers
[0, width] x [0, height]. OpenCV and ROS have the centre of the first pixel at 0, so that their cx
and cy are smaller by 0.5; `Camera.from_opencv` adds it.

"Ray" means x/z and y/z of a point, without distortion. A lens model is valid up to the angle off
the axis at which its pixel radius stops growing. Beyond it, and beyond 89 degrees, points have no
pixel and pixels no ray: NaN.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np

from ros2_pose.errors import PoseError

FISHEYE = "equidistant"
# Names of lens models in CameraInfo and calibration files. All names of the second group mean
# OpenCV's polynomial model, or a pinhole if there are no coefficients.
_FISHEYE_NAMES = (FISHEYE, "fisheye", "kannala_brandt", "kannala_brandt4", "kb4")
_RADTAN_NAMES = ("", "plumb_bob", "rational_polynomial", "thin_prism", "thin_prism_polynomial",
                 "tilted", "radtan", "brown_conrady", "opencv", "pinhole", "perspective", "none")
# Of OpenCV's k1 k2 p1 p2 k3 k4 k5 k6 s1 s2 s3 s4 tau_x tau_y: those odd in x change their sign.
_MIRROR_SIGNS = (1, 1, 1, -1, 1, 1, 1, 1, -1, -1, 1, 1, 1, -1)
_RADTAN_LENGTHS = (4, 5, 8, 12, 14)  # numbers of coefficients that OpenCV's model accepts

_WIDEST_RAD = np.radians(89.0)  # x/z and y/z of a ray grow without bound towards 90 degrees
_SAMPLES = 2048  # of a lens's radial curve
_NEWTON_STEPS = 12
_REPROJECTION_PX = 0.05  # largest error of a valid ray's pixel


class CameraError(PoseError):
    """A calibration cannot be used; the message names the reason and the remedy."""


def is_fisheye(model: str, coefficients=()) -> bool:
    """Return whether a lens model is OpenCV's fisheye model, not its polynomial model.

    Args:
        model: the name, as in CameraInfo.distortion_model.
        coefficients: (K,) of the distortion; RealSense's models are accepted if all are zero.
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
    raise CameraError(f"distortion model {model!r} is not supported (plumb_bob, "
                      f"rational_polynomial, thin_prism and {FISHEYE} or fisheye are): rectify the "
                      "images and set rectified")


@dataclass(frozen=True)
class Camera:
    """Intrinsics of an image.

    Args:
        width, height: size of the image, px.
        fx, fy, cx, cy: focal lengths and principal point, px, pixel centres at +0.5.
        distortion: OpenCV's coefficients for the sensor's rows; empty if all are zero.
        fisheye: the pixel radius grows with the angle off the axis (OpenCV's fisheye, ROS's
            equidistant), not with its tangent.
        quarter_turns: number of rotations of the image by 90 degrees counter-clockwise (as by
            np.rot90) relative to the sensor.
        centre_m: (3,) position of the optical centre in the frame of the points; not 0 for the
            right camera of a stereo pair if that frame is the left camera's.
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
                              "(0 means an uncalibrated camera): calibrate it or set fov_deg")
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
        """Return a camera of size width x height, px, from intrinsics of OpenCV or CameraInfo.

        Args:
            K: (3, 3) intrinsic matrix, px, centre of the first pixel at 0.
            distortion: OpenCV's coefficients; those omitted at the end are zero.
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
        """Return an undistorted camera, size in px, with a horizontal field of view, degrees."""
        if not 0 < fov_deg < 180:
            raise CameraError(f"fov_deg {fov_deg:g} must lie between 0 and 180")
        f = width / 2 / np.tan(np.radians(fov_deg) / 2)
        return Camera(width, height, f, f, width / 2, height / 2)

    @property
    def K(self) -> np.ndarray:
        """Intrinsic matrix (3, 3), px, pixel centres at +0.5."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1.0]])

    @property
    def is_pinhole(self) -> bool:
        """Whether pixels are a linear function of x/z and y/z."""
        return not self.fisheye and not self.distortion

    def project(self, points: np.ndarray) -> np.ndarray:
        """Return the pixels (..., 2), px, of points (..., 3), m; NaN behind the camera and where
        the lens model is not valid."""
        points = np.asarray(points, float)
        flat = points.reshape(-1, 3) - self.centre_m
        ahead = flat[:, 2] > 1e-6
        rays = np.full((len(flat), 2), np.nan)
        rays[ahead] = flat[ahead, :2] / flat[ahead, 2:]
        return self.distort(rays).reshape(*points.shape[:-1], 2)

    def distort(self, rays: np.ndarray) -> np.ndarray:
        """Return the pixels (..., 2), px, of rays (..., 2): the inverse of `normalise`."""
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
        """Distorted points (N, 2) at f = 1 of rays (N, 2), and their Jacobians (N, 2, 2)."""
        if self.fisheye:
            return self._on_fisheye_plane(rays)
        rotmat = rotation_of(self.quarter_turns)[:2, :2]
        points = np.concatenate([rays @ rotmat, np.ones((len(rays), 1))], axis=1)
        plane, jacobian = cv2.projectPoints(points, np.zeros(3), np.zeros(3), np.eye(3),
                                            np.array(self.distortion))
        by_translation = jacobian[:, 3:5].reshape(-1, 2, 2)  # x and y; equals that by x/z and y/z
        return plane[:, 0] @ rotmat.T, rotmat @ by_translation @ rotmat.T

    def _on_fisheye_plane(self, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`_on_plane` for a fisheye: the radius is distorted, the direction stays."""
        ray_radius = np.maximum(np.hypot(*rays.T), 1e-9)
        plane_radius, by_angle = self._fisheye_radius(np.arctan(ray_radius))
        direction = rays / ray_radius[:, None]
        radial_part = direction[:, :, None] * direction[:, None]
        tangential_part = np.eye(2) - radial_part
        by_ray_radius = (by_angle / (1 + ray_radius**2))[:, None, None]
        ratio = (plane_radius / ray_radius)[:, None, None]
        jacobian = by_ray_radius * radial_part + ratio * tangential_part
        return direction * plane_radius[:, None], jacobian

    def _fisheye_radius(self, angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Radii (N,) at angles (N,), rad, and derivatives (Kannala and Brandt 2006, eq. 6)."""
        series, derivative = np.ones_like(angle), np.ones_like(angle)
        for power, k in enumerate(self.distortion, 1):
            term = k * (angle**2)**power
            series = series + term
            derivative = derivative + (2 * power + 1) * term
        return angle * series, derivative

    def _radial(self, radius: np.ndarray) -> np.ndarray:
        """Radii (N,) on the image plane of rays of radii (N,), by the radial coefficients alone."""
        if self.fisheye:
            return self._fisheye_radius(np.arctan(radius))[0]
        k = np.zeros(14)
        k[:len(self.distortion)] = self.distortion
        square = radius**2
        numerator = 1 + square * (k[0] + square * (k[1] + square * k[4]))
        denominator = 1 + square * (k[5] + square * (k[6] + square * k[7]))
        is_valid = denominator > 1e-6
        return radius * np.where(is_valid, numerator / np.where(is_valid, denominator, 1), -1.0)

    @cached_property
    def _radial_curve(self) -> tuple[np.ndarray, np.ndarray]:
        """Radii (N,) of rays and on the image plane, both increasing, where the model is valid."""
        ray_radius = np.tan(np.linspace(0, _WIDEST_RAD, _SAMPLES))
        plane_radius = self._radial(ray_radius)
        falls = np.flatnonzero(np.diff(plane_radius) <= 0)
        count = falls[0] + 1 if len(falls) else _SAMPLES
        return ray_radius[:count], plane_radius[:count]

    @property
    def _largest_radius(self) -> float:
        """Largest radius hypot(x/z, y/z) of a ray for which the lens model is valid."""
        return float(self._radial_curve[0][-1])

    def normalise(self, pixels: np.ndarray) -> np.ndarray:
        """Return the rays (..., 2), undistorted x/z and y/z, of pixels (..., 2), px.

        NaN where a pixel is NaN or beyond the lens model's validity.
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
        """Rays (N, 2) of points (N, 2) on the image plane at f = 1, by Newton's method."""
        ray_radii, plane_radii = self._radial_curve
        radius = np.maximum(np.hypot(*plane.T), 1e-12)
        rays = plane * (np.interp(radius, plane_radii, ray_radii) / radius)[:, None]
        for _ in range(_NEWTON_STEPS):
            reached, jacobian = self._on_plane(rays)
            residual = plane - reached
            if np.abs(residual).max() < 1e-9:
                break
            step = (_inverse(jacobian) @ residual[..., None])[..., 0]
            longest = 0.3 * (1 + np.hypot(*rays.T))
            step *= np.minimum(1, longest / np.maximum(np.hypot(*step.T), 1e-12))[:, None]
            rays = rays + step
        residual_px = (plane - self._on_plane(rays)[0]) * (self.fx, self.fy)
        has_converged = np.hypot(*residual_px.T) <= _REPROJECTION_PX
        is_valid = has_converged & (np.hypot(*rays.T) <= self._largest_radius)
        return np.where(is_valid[:, None], rays, np.nan)

    def normalise_with_cov(self, pixels: np.ndarray, cov: np.ndarray):
        """Return rays (..., 2) and their covariances (..., 2, 2), linearised at the pixels.

        Args:
            pixels: (..., 2) px.
            cov: (..., 2, 2) px^2.
        """
        rays = self.normalise(pixels)
        jacobian = _inverse(self._derivative(rays))
        return rays, jacobian @ cov @ np.swapaxes(jacobian, -1, -2)

    def distort_with_cov(self, rays: np.ndarray, cov: np.ndarray):
        """Return pixels (..., 2), px, and covariances, px^2: inverse of `normalise_with_cov`."""
        rays = np.asarray(rays, float)
        jacobian = self._derivative(rays)
        return self.distort(rays), jacobian @ cov @ np.swapaxes(jacobian, -1, -2)

    def _derivative(self, rays: np.ndarray) -> np.ndarray:
        """Jacobians (..., 2, 2) of `distort`, px, at rays (..., 2); NaN for unknown rays."""
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
        """Return the camera of the image scaled to width x height, px."""
        sx, sy = width / self.width, height / self.height
        return replace(self, width=width, height=height, fx=self.fx * sx, fy=self.fy * sy,
                       cx=self.cx * sx, cy=self.cy * sy)

    def cropped(self, left: int, top: int, width: int, height: int) -> Camera:
        """Return the camera of a region of the image, px."""
        return replace(self, width=width, height=height, cx=self.cx - left, cy=self.cy - top)

    def mirrored(self) -> Camera:
        """Return the camera of the image (width px wide) with left and right exchanged."""
        distortion = self.distortion
        if not self.fisheye:
            distortion = tuple(float(sign * k) for sign, k in zip(_MIRROR_SIGNS, distortion))
        x, y, z = self.centre_m
        return replace(self, cx=self.width - self.cx, distortion=distortion, centre_m=(-x, y, z),
                       quarter_turns=-self.quarter_turns % 4)

    def rotated(self, quarter_turns: int) -> Camera:
        """Return the camera of the image after np.rot90: quarter_turns x 90 deg counter-clockwise.

        Its points are in the camera frame rotated likewise about z, see `rotation_of`.
        """
        camera = self
        for _ in range(quarter_turns % 4):
            x, y, z = camera.centre_m
            camera = replace(camera, width=camera.height, height=camera.width, fx=camera.fy,
                             fy=camera.fx, cx=camera.cy, cy=camera.width - camera.cx,
                             quarter_turns=(camera.quarter_turns + 1) % 4, centre_m=(y, -x, z))
        return camera

    def at_origin(self) -> Camera:
        """Return the camera with its optical centre at the origin, 0, 0, 0 m."""
        return replace(self, centre_m=(0.0, 0.0, 0.0))


def rotation_of(quarter_turns: int) -> np.ndarray:
    """Return the rotation matrix (3, 3) from a camera's frame to that of `Camera.rotated`."""
    rotmat = np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]])
    return np.linalg.matrix_power(rotmat, quarter_turns % 4)


def _coefficients(values, fisheye: bool) -> tuple[float, ...]:
    """Distortion coefficients of a length that OpenCV accepts; empty if all are zero."""
    coefficients = [float(value) for value in values]
    if not any(coefficients):
        return ()
    lengths = (4,) if fisheye else _RADTAN_LENGTHS
    while len(coefficients) > lengths[-1] and coefficients[-1] == 0:
        coefficients.pop()
    if len(coefficients) > 4:
        length = next((n for n in lengths if n >= len(coefficients)), len(coefficients))
        coefficients += [0.0] * (length - len(coefficients))
    return tuple(coefficients)


def _inverse(matrices: np.ndarray) -> np.ndarray:
    """Inverses of matrices (..., 2, 2); huge values for singular ones."""
    (a, b), (c, d) = np.moveaxis(matrices, (-2, -1), (0, 1))
    determinant = a * d - b * c
    determinant = np.where(np.abs(determinant) < 1e-12, 1e-12, determinant)
    return np.moveaxis(np.array([[d, -b], [-c, a]]) / determinant, (0, 1), (-2, -1))
