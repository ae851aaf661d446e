"""Messages of std_msgs and geometry_msgs; no ROS here.

Functions that build a message take `make(type_name, **fields)`, which builds a message of any type,
for example make("std_msgs/msg/Header", stamp=..., frame_id="camera"). Every field is passed; arrays
of numbers are numpy arrays of the field's own type. The node passes a `make` of rclpy's classes,
replay one of the classes of `rosbags`, so that both publish the same. Functions that read a message
accept any object with the message's fields.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Make = Callable[..., Any]


def stamp_of(header) -> int:
    """Return the stamp of a std_msgs/Header, ns."""
    return header.stamp.sec * 1_000_000_000 + header.stamp.nanosec


def header_message(make: Make, stamp: int, frame_id: str):
    """Return a std_msgs/Header with a stamp, ns."""
    time = make("builtin_interfaces/msg/Time", sec=stamp // 1_000_000_000,
                nanosec=stamp % 1_000_000_000)
    return make("std_msgs/msg/Header", stamp=time, frame_id=frame_id)


def point_message(make: Make, xyz):
    """Return a geometry_msgs/Point of xyz (3,)."""
    return make("geometry_msgs/msg/Point", x=float(xyz[0]), y=float(xyz[1]), z=float(xyz[2]))


def vector_message(make: Make, xyz):
    """Return a geometry_msgs/Vector3 of xyz (3,)."""
    return make("geometry_msgs/msg/Vector3", x=float(xyz[0]), y=float(xyz[1]), z=float(xyz[2]))


def quaternion_message(make: Make, quat_xyzw):
    """Return a geometry_msgs/Quaternion of quat_xyzw (4,)."""
    x, y, z, w = map(float, quat_xyzw)
    return make("geometry_msgs/msg/Quaternion", x=x, y=y, z=z, w=w)


def pose_message(make: Make, xyz, quat_xyzw):
    """Return a geometry_msgs/Pose of position xyz (3,), m, and orientation quat_xyzw (4,)."""
    return make("geometry_msgs/msg/Pose", position=point_message(make, xyz),
                orientation=quaternion_message(make, quat_xyzw))
