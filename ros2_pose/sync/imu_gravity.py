"""The direction of gravity by an IMU, with a bounded history, without ROS."""

from __future__ import annotations

import math
from bisect import bisect_right

import numpy as np
from scipy.spatial.transform import Rotation

from ros2_pose.geometry import TransformError
from ros2_pose.messages.standard import stamp_of
from ros2_pose.sync.time_jump import jumps_back

STANDARD_GRAVITY = 9.81  # m/s^2
_MOST_DEVIATION = 1.0  # m/s^2 of the acceleration's norm from that of gravity, at rest
_FILTER_S = 0.3  # time constant of the low pass
_HELD_S = 0.5  # for which the last direction is valid while the IMU is shaken
_MOST_SAMPLES = 2048  # about two seconds of the fastest IMUs
_UP = np.array([0.0, 0.0, 1.0])  # in the world frame of an orientation (REP 103)


class ImuGravity:
    """Takes in the messages of one IMU and tells where up was at a stamp.

    The orientation is used if the IMU has one. If not, it is the acceleration, low-passed, of the
    times at which it has about the norm of gravity.
    """

    def __init__(self) -> None:
        self._restart("")

    def _restart(self, frame_id: str) -> None:
        """Forget everything; the next messages are of this frame."""
        self._frame_id = frame_id
        self._stamps: list[int] = []  # ns, rising
        self._ups: list[np.ndarray] = []  # (3,) unit vectors, IMU frame
        self._rest: tuple[int, np.ndarray] | None = None  # last time at rest, low-passed up

    def take_in(self, message) -> None:
        """Add a sensor_msgs/Imu; one that is not finite or out of order is ignored."""
        stamp, frame_id = stamp_of(message.header), message.header.frame_id.lstrip("/")
        newest = self._stamps[-1] if self._stamps else None
        if frame_id != self._frame_id or jumps_back(stamp, newest):
            self._restart(frame_id)
            newest = None
        if newest is not None and stamp <= newest:
            return
        up = _up_by_orientation(message)
        if up is None:
            up = self._up_by_acceleration(message, stamp)
        if up is not None:
            self._stamps.append(stamp)
            self._ups.append(up)
            if len(self._stamps) > _MOST_SAMPLES:
                del self._stamps[:-_MOST_SAMPLES // 2], self._ups[:-_MOST_SAMPLES // 2]

    def up_at(self, stamp: int, tolerance: int) -> tuple[str, np.ndarray]:
        """Return the IMU's frame and the direction against gravity in it, (3,), at a stamp.

        Args:
            stamp: ns.
            tolerance: ns by which the last message may be older.
        Raises:
            TransformError: gravity is not known then.
        """
        last = bisect_right(self._stamps, stamp) - 1
        if not self._frame_id:
            raise TransformError("imu: no message with a frame_id has come; check the topic")
        if last < 0 or self._stamps[last] < stamp - tolerance:
            raise TransformError("imu: no orientation, and no acceleration at rest, at the time of "
                                 "the image")
        return self._frame_id, self._ups[last]

    def _up_by_acceleration(self, message, stamp: int) -> np.ndarray | None:
        """(3,) low-passed up direction; None if it is not known, or too old."""
        a = message.linear_acceleration
        measured = np.array([a.x, a.y, a.z], float)
        norm = float(np.linalg.norm(measured))
        before = self._rest
        if before is not None and stamp - before[0] > _HELD_S * 1e9:
            before = None
        if not abs(norm - STANDARD_GRAVITY) < _MOST_DEVIATION:  # also NaN
            return None if before is None else before[1]
        up = measured / norm
        if before is not None:
            share = -math.expm1((before[0] - stamp) * 1e-9 / _FILTER_S)
            mixed = before[1] + share * (up - before[1])
            length = float(np.linalg.norm(mixed))
            up = mixed / length if length > 1e-3 else up
        self._rest = stamp, up
        return up


def _up_by_orientation(message) -> np.ndarray | None:
    """(3,) up direction in the IMU frame by its orientation; None without one.

    The identity with covariances of zero is the default of a message: it is not an orientation.
    """
    covariance = np.asarray(message.orientation_covariance, float)
    q = message.orientation
    quat_xyzw = np.array([q.x, q.y, q.z, q.w], float)
    is_default = (quat_xyzw == (0, 0, 0, 1)).all() and not covariance.any()
    if not covariance[0] >= 0 or is_default or not abs(np.linalg.norm(quat_xyzw) - 1) < 0.01:
        return None
    return Rotation.from_quat(quat_xyzw).inv().apply(_UP)
