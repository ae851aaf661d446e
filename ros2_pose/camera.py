"""Pinhole cameras with lens distortion: project, back-project, crop and resize.

Camera frame: x right, y down, z forward, metres. Pixel centres lie at +0.5: the image covers
[0, width] x [0, height]. OpenCV and ROS calibrations put the centre of the first pixel at 0, so
their cx and cy are smaller by 0.5; `Camera.from_opencv` adds it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from ros2_pose.errors import PoseError

FISHEYE = "equidistant"
# OpenCV's k1 k2 p1 p2 k3 k4 k5 k6 s1 s2 s3 s4 tau_x tau_y: what is odd in x changes its sign.
_MIRROR_SIGNS = (1, 1, 1, -1, 1, 1, 1, 1, -1, -1, 1, 1, 1, -1)
_RADTAN_LENGTHS = (4, 5, 8, 12, 14)  # what OpenCV's radial-tangential-prism model accepts


class CameraError(PoseError):
    """A calibration that cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Camera:
    """Intrinsics of one image: focal lengths and principal point in px, distortion as OpenCV's."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, ...] = ()
    fisheye: bool = False

    def __post_init__(self) -> None:
        numbers = (self.fx, self.fy, self.cx, self.cy, *self.distortion)
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
        """From a matrix K (3, 3) in the convention of OpenCV and CameraInfo (pixel centre at 0)."""
        K = np.asarray(K, float).reshape(3, 3)
        coefficients = tuple(float(d) for d in np.ravel(distortion))
        coefficients = coefficients if any(coefficients) else ()
        return Camera(int(width), int(height), float(K[0, 0]), float(K[1, 1]),
                      float(K[0, 2]) + 0.5, float(K[1, 2]) + 0.5, coefficients, bool(fisheye))

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

    def project(self, points: np.ndarray) -> np.ndarray:
        """Pixels (..., 2) of points (..., 3) in the camera frame; NaN behind the camera."""
        points = np.asarray(points, float)
        flat = points.reshape(-1, 3)
        ahead = flat[:, 2] > 1e-6
        pixels = np.full((len(flat), 2), np.nan)
        if ahead.any():
            pixels[ahead] = self._distort(flat[ahead, :2] / flat[ahead, 2:])
        return pixels.reshape(*points.shape[:-1], 2)

    def _distort(self, normalised: np.ndarray) -> np.ndarray:
        """(N, 2) on the plane z = 1 to pixels."""
        if not self.distortion:
            return normalised * (self.fx, self.fy) + (self.cx, self.cy)
        if self.fisheye:
            return cv2.fisheye.distortPoints(normalised[:, None], self.K,
                                             np.array(self.distortion))[:, 0]
        points = np.concatenate([normalised, np.ones((len(normalised), 1))], axis=1)
        return cv2.projectPoints(points, np.zeros(3), np.zeros(3), self.K,
                                 np.array(self.distortion))[0][:, 0]

    def normalise(self, pixels: np.ndarray) -> np.ndarray:
        """Undistorted (x/z, y/z) (..., 2) of pixels (..., 2): the rays. NaN stays NaN."""
        pixels = np.asarray(pixels, float)
        flat = pixels.reshape(-1, 2)
        known = np.isfinite(flat).all(axis=1)
        rays = np.full(flat.shape, np.nan)
        if known.any():
            rays[known] = self._undistort(flat[known])
        return rays.reshape(pixels.shape)

    def _undistort(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels (N, 2) to (N, 2) on the plane z = 1."""
        if not self.distortion:
            return (pixels - (self.cx, self.cy)) / (self.fx, self.fy)
        coefficients = np.array(self.distortion)
        criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 50, 1e-10)
        if self.fisheye:
            return cv2.fisheye.undistortPoints(pixels[:, None], self.K, coefficients,
                                               criteria=criteria)[:, 0]
        return cv2.undistortPointsIter(pixels[:, None], self.K, coefficients, None, None,
                                       criteria)[:, 0]

    def normalise_with_cov(self, pixels: np.ndarray, cov: np.ndarray):
        """Rays (..., 2) and their covariance (..., 2, 2) from pixels and their covariance in px^2.

        The covariance goes through the local derivative of `normalise`, by central differences.
        """
        rays = self.normalise(pixels)
        return rays, _carried(self.normalise, pixels, cov, step=0.5)

    def distort_with_cov(self, rays: np.ndarray, cov: np.ndarray):
        """Pixels (..., 2) and their covariance (..., 2, 2): `normalise_with_cov` undone."""
        def pixels_of(values):
            return self._distort(values.reshape(-1, 2)).reshape(values.shape)

        rays = np.asarray(rays, float)
        return (pixels_of(rays),
                _carried(pixels_of, rays, cov, step=0.5 / self.fx))

    def resized(self, width: int, height: int) -> Camera:
        """The camera of the same image scaled to width x height."""
        sx, sy = width / self.width, height / self.height
        return replace(self, width=width, height=height, fx=self.fx * sx, fy=self.fy * sy,
                       cx=self.cx * sx, cy=self.cy * sy)

    def cropped(self, left: int, top: int, width: int, height: int) -> Camera:
        """The camera of a part of the image."""
        return replace(self, width=width, height=height, cx=self.cx - left, cy=self.cy - top)

    def mirrored(self) -> Camera:
        """The camera of the image with left and right changed round."""
        signs = np.ones(len(self.distortion)) if self.fisheye else \
            _MIRROR_SIGNS[:len(self.distortion)]
        return replace(self, cx=self.width - self.cx,
                       distortion=tuple(float(s * d) for s, d in zip(signs, self.distortion)))


def _carried(function, values: np.ndarray, cov: np.ndarray, step: float) -> np.ndarray:
    """(..., 2, 2) covariances through the derivative of a function, by central differences."""
    columns = [(function(values + step * axis) - function(values - step * axis)) / (2 * step)
               for axis in np.eye(2)]
    jacobian = np.stack(columns, axis=-1)
    return jacobian @ cov @ np.swapaxes(jacobian, -1, -2)


def read_calibration(path: str | Path) -> Camera:
    """The camera of a calibration file; see `calibration_file.read_calibration`."""
    from ros2_pose import calibration_file  # which needs this module
    return calibration_file.read_calibration(path)
