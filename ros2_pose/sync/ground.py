"""Gravity and floor of images: by TF, by an IMU, or by the settings of the camera's mounting."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ros2_pose.config import PoseConfig
from ros2_pose.geometry import Transform, TransformError
from ros2_pose.people import Ground
from ros2_pose.sync.imu_gravity import ImuGravity

Lookup = Callable[..., Transform]  # (target frame, header): see `TransformBuffer.lookup_from`

_Z = np.array([0.0, 0.0, 1.0])
_MOST_TILT_RAD = np.radians(30)  # of the floor frame's z against gravity
_LEAST_M, _MOST_M = 0.02, 20.0  # height of a camera above the floor
# Changes from image to image that are no jump: a constant, and a rate by the time between them.
_STEP_RAD, _STEP_RAD_S = 0.35, 6.0
_STEP_M, _STEP_M_S = 0.3, 3.0
_MEMORY_S = 1.0  # after which everything is believed again


class GroundFinder:
    """Finds the ground of each image by TF and an IMU; one for all cameras of a node.

    The floor is the plane z = 0 of the floor frame, and its z axis is up. A floor that cannot be
    right is not used: a camera below it or far above it, a z axis far from gravity, and a
    direction or height that has jumped since the last image.

    Attributes:
        floor_frame, reference_frame: as given, without a leading slash.
        imu: gravity while TF gives no floor, and another check of z; None without an IMU.
    """

    def __init__(self, floor_frame: str, reference_frame: str, has_imu: bool = False):
        """Set up.

        Args:
            floor_frame: name of the floor frame; empty: TF is not used.
            reference_frame: a world-fixed frame with z up, to check the floor frame's z axis where
                TF knows both.
            has_imu: whether `imu` is given messages.
        """
        self.floor_frame = floor_frame.lstrip("/")
        self.reference_frame = reference_frame.lstrip("/")
        self.imu = ImuGravity() if has_imu else None
        self._last: dict[str, tuple[int, Ground]] = {}  # stamp, ground; by camera frame

    def find(self, header, stamp: int, lookup: Lookup, tolerance: int) -> tuple[Ground | None, str]:
        """Find the ground of an image, in its camera frame.

        Args:
            header, stamp: of the image; ns.
            lookup: returns the transform from the header's frame to a target frame, at its stamp.
            tolerance: ns by which the last message of the IMU may be older.
        Returns:
            The ground; None if neither TF nor the IMU knows it, so that the settings of the
            camera's mounting apply. And what is wrong, empty if nothing is.
        """
        gravity, imu_problem = self._gravity(header, stamp, lookup, tolerance)
        if not self.floor_frame:
            return _by_gravity(gravity), imu_problem
        source = "imu" if gravity is not None else ""
        try:
            floor_from_camera = lookup(self.floor_frame, header)
        except TransformError as error:
            return _by_gravity(gravity), _text(str(error), source, imu_problem)
        ground = ground_of_camera(floor_from_camera, _Z, 0.0)
        if gravity is None:
            gravity = self._reference_up(header, lookup)
            source = repr(self.reference_frame) if gravity is not None else ""
        if reason := self._wrong_direction(header.frame_id, stamp, ground, gravity):
            return _by_gravity(gravity), _text(reason, source, imu_problem)
        if reason := self._wrong_height(header.frame_id, stamp, floor_from_camera):
            return Ground(ground.up), f"no floor: {reason}"
        self._last[header.frame_id] = stamp, ground
        return ground, ""

    def _gravity(self, header, stamp: int, lookup: Lookup,
                 tolerance: int) -> tuple[np.ndarray | None, str]:
        """(3,) up in the camera frame by the IMU; None and the reason without it."""
        if self.imu is None:
            return None, ""
        try:
            imu_frame, up = self.imu.up_at(stamp, tolerance)
            is_camera = imu_frame == header.frame_id.lstrip("/")
            return up if is_camera else lookup(imu_frame, header).rotation.inv().apply(up), ""
        except TransformError as error:
            return None, str(error)

    def _reference_up(self, header, lookup: Lookup) -> np.ndarray | None:
        """(3,) z of the reference frame in the camera frame; None if TF does not know it."""
        if self.reference_frame in ("", self.floor_frame):
            return None
        try:
            return lookup(self.reference_frame, header).rotmat[2]
        except TransformError:
            return None

    def _wrong_direction(self, camera_frame: str, stamp: int, ground: Ground,
                         gravity: np.ndarray | None) -> str:
        """Why the floor frame's z axis cannot be up; empty if it can."""
        if not np.isfinite(ground.up).all():
            return f"the transform to {self.floor_frame!r} is not finite"
        if gravity is not None and (tilt := _angle(ground.up, gravity)) > _MOST_TILT_RAD:
            return f"z of {self.floor_frame!r} is {np.degrees(tilt):.0f} degrees off gravity"
        known = self._before(camera_frame, stamp)
        if known is not None:
            seconds, before = known
            if (turn := _angle(ground.up, before.up)) > _STEP_RAD + _STEP_RAD_S * seconds:
                return (f"z of {self.floor_frame!r} has jumped by {np.degrees(turn):.0f} degrees "
                        f"within {seconds:.2f} s")
        return ""

    def _wrong_height(self, camera_frame: str, stamp: int, floor_from_camera: Transform) -> str:
        """Why the camera's height above the floor cannot be right; empty if it can."""
        height_m = float(floor_from_camera.translation_m[2])
        if not _LEAST_M < height_m < _MOST_M:  # also NaN
            return (f"the camera is {height_m:.2f} m above the floor of {self.floor_frame!r}, "
                    f"expected {_LEAST_M:g} to {_MOST_M:g} m: name a frame on the floor with z up")
        known = self._before(camera_frame, stamp)
        if known is not None and known[1].height_m is not None:
            seconds, before_m = known[0], known[1].height_m
            if abs(height_m - before_m) > _STEP_M + _STEP_M_S * seconds:
                return (f"the camera's height in {self.floor_frame!r} has jumped from "
                        f"{before_m:.2f} to {height_m:.2f} m within {seconds:.2f} s")
        return ""

    def _before(self, camera_frame: str, stamp: int) -> tuple[float, Ground] | None:
        """Time since the last good ground, s, and that ground; None if it is too old."""
        if camera_frame not in self._last:
            return None
        before, ground = self._last[camera_frame]
        seconds = (stamp - before) * 1e-9
        return (seconds, ground) if 0 <= seconds <= _MEMORY_S else None


def ground_of_camera(camera_to_fixed: Transform, up: np.ndarray, floor_m: float | None) -> Ground:
    """Return the ground that a camera sees by its extrinsics.

    Args:
        up (3,): unit vector against gravity in the fixed frame.
        floor_m: height of the floor along `up` in the fixed frame; None if not known.
    """
    height_m = None
    if floor_m is not None:
        above_m = float(camera_to_fixed.translation_m @ up) - floor_m
        height_m = above_m if above_m > 0 else None
    return Ground(camera_to_fixed.rotmat.T @ up, height_m)


def ground_from_config(config: PoseConfig) -> Ground:
    """Return the ground of a camera with the mounting that the settings describe."""
    pitch, roll = np.radians((config.camera_pitch_deg, config.camera_roll_deg))
    up = np.array([-np.sin(roll) * np.cos(pitch), -np.cos(roll) * np.cos(pitch), -np.sin(pitch)])
    return Ground(up, config.camera_height_m if config.camera_height_m > 0 else None)


def _by_gravity(up: np.ndarray | None) -> Ground | None:
    """Ground without a floor; None if gravity is not known either."""
    return None if up is None else Ground(up)


def _text(reason: str, source: str, imu_problem: str) -> str:
    """What is wrong with the floor, and what gravity follows from instead."""
    text = f"no floor, gravity by {source or 'the other settings'}: {reason}"
    return f"{text}; {imu_problem}" if imu_problem else text


def _angle(a: np.ndarray, b: np.ndarray) -> float:
    """Angle between two unit vectors (3,), rad."""
    return float(np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b))
