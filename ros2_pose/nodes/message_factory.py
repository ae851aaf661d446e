"""Construction of rclpy messages and decoding of image messages.

The content of messages is defined in ros2_pose/messages/, for rclpy and rosbags alike.
"""

from __future__ import annotations

import array
import importlib
import logging
from functools import cache
from typing import Any

import numpy as np

from ros2_pose.imaging.contrast import to_8_bits
from ros2_pose.messages.image import ENCODINGS, ImageError, check_size, rgb_from_image

log = logging.getLogger(__name__)


def make(type_name: str, **fields) -> Any:
    """Make an rclpy message.

    Numpy arrays for sequence fields become array.array, which rclpy takes over unchecked; it
    checks every element of anything else.

    Args:
        type_name: such as "std_msgs/msg/Header".
        fields: values by field name.
    """
    cls = message_class(type_name)
    for name in _sequences(cls) & fields.keys():
        if isinstance(fields[name], np.ndarray):
            fields[name] = array.array(fields[name].dtype.char, fields[name].tobytes())
    return cls(**fields)


@cache
def message_class(type_name: str) -> Any:
    """Import an rclpy message class by its name, such as "std_msgs/msg/Header"."""
    package, folder, name = type_name.split("/")
    return getattr(importlib.import_module(f"{package}.{folder}"), name)


@cache
def _sequences(cls: Any) -> frozenset[str]:
    """Names of the fields of a message class that are sequences."""
    types = cls.get_fields_and_field_types()
    return frozenset(name for name, kind in types.items() if kind.startswith("sequence"))


def read_image(message) -> np.ndarray:
    """Decode a sensor_msgs/Image to (H, W, 3) uint8 RGB.

    Encodings that ros2_pose.messages.image does not know are decoded by cv_bridge if installed.

    Raises:
        ImageError: names the value and the remedy.
    """
    if message.encoding in ENCODINGS:
        return rgb_from_image(message)
    bridge = _cv_bridge()
    if bridge is None:
        return rgb_from_image(message)  # which raises
    check_size(message)
    try:
        decoded = bridge.imgmsg_to_cv2(_without_padding(bridge, message), "rgb8")
        return to_8_bits(np.asarray(decoded), 255.0)
    except Exception as error:  # cv_bridge raises its own, OpenCV's and C++'s
        raise ImageError(f"encoding {message.encoding!r} cannot be read ({error}); publish one of "
                         f"{', '.join(ENCODINGS)}") from error


@cache
def _cv_bridge():
    """A CvBridge; None if it is missing or fails, being built for another numpy or OpenCV."""
    try:
        from cv_bridge import CvBridge
        return CvBridge()
    except Exception as error:  # libraries of incompatible builds raise anything
        log.debug("cv_bridge is not used: %s", str(error))
        return None


def _without_padding(bridge, message):
    """Remove padding after each row, which cv_bridge reads as pixels."""
    dtype, channels = bridge.encoding_to_dtype_with_channels(message.encoding)
    row_bytes = message.width * channels * np.dtype(dtype).itemsize
    if not 0 < row_bytes < message.step:
        return message
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    return make("sensor_msgs/msg/Image", header=message.header, height=message.height,
                width=message.width, encoding=message.encoding, step=row_bytes,
                is_bigendian=message.is_bigendian, data=rows[:, :row_bytes].reshape(-1))
