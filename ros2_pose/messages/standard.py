"""Standard messages (std_msgs, geometry_msgs), filled and read; no ROS here.

Functions that build a message take `make(type_name, **fields)`, which builds one of any type, for
example make("std_msgs/msg/Header", stamp=..., frame_id="camera"). Every field is named; arrays of
numbers are numpy arrays of the field's own type. The node passes rclpy's classes, replay those of
`rosbags`: so both say the same of a frame. What is read is anything that has the fields.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Make = Callable[..., Any]


def stamp_of(header) -> int:
    """Nanoseconds of a header's stamp."""
    return header.stamp.sec * 1_000_000_000 + header.stamp.nanosec


def header_message(make: Make, stamp: int, frame_id: str):
    """A std_msgs/Header for a stamp in nanoseconds."""
    time = make("builtin_interfaces/msg/Time", sec=stamp // 1_000_000_000,
                nanosec=stamp % 1_000_000_000)
    return make("std_msgs/msg/Header", stamp=time, frame_id=frame_id)


def point_message(make: Make, xyz):
    """A geometry_msgs/Point."""
    return make("geometry_msgs/msg/Point", x=float(xyz[0]), y=float(xyz[1]), z=float(xyz[2]))


def vector_message(make: Make, xyz):
    """A geometry_msgs/Vector3."""
    return make("geometry_msgs/msg/Vector3", x=float(xyz[0]), y=float(xyz[1]), z=float(xyz[2]))


def quaternion_message(make: Make, xyzw):
    """A geometry_msgs/Quaternion."""
    return make("geometry_msgs/msg/Quaternion",
                **{name: float(value) for name, value in zip("xyzw", xyzw)})


def pose_message(make: Make, xyz, xyzw):
    """A geometry_msgs/Pose."""
    return make("geometry_msgs/msg/Pose", position=point_message(make, xyz),
                orientation=quaternion_message(make, xyzw))
