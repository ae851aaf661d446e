"""Where rclpy's messages meet the core: how they are made, and how images are read.

What goes into a message is written once, in ros2_pose/messages/people.py, markers.py and images.py.
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
    """An rclpy message by its name, "std_msgs/msg/Header", and its fields.

    Numpy arrays become array.array where a field is a sequence: rclpy takes those over as they
    are and looks at every element of anything else.
    """
    cls = message_class(type_name)
    for name in _sequences(cls) & fields.keys():
        if isinstance(fields[name], np.ndarray):
            fields[name] = array.array(fields[name].dtype.char, fields[name].tobytes())
    return cls(**fields)


@cache
def message_class(type_name: str) -> type:
    """An rclpy message class by its name, "std_msgs/msg/Header"."""
    package, folder, name = type_name.split("/")
    return getattr(importlib.import_module(f"{package}.{folder}"), name)


@cache
def _sequences(cls: type) -> frozenset[str]:
    """The names of a message's fields that are sequences."""
    kinds = cls.get_fields_and_field_types()
    return frozenset(f for f, kind in kinds.items() if kind.startswith("sequence"))


def read_image(message) -> np.ndarray:
    """The picture of a sensor_msgs/Image, (height, width, 3) uint8 RGB. Raises ImageError.

    Encodings that the core does not know are left to cv_bridge, where that is installed.
    """
    if message.encoding in ENCODINGS or not (bridge := _cv_bridge()):
        return rgb_from_image(message)
    check_size(message)
    try:
        return to_8_bits(np.asarray(bridge.imgmsg_to_cv2(_without_padding(bridge, message),
                                                         "rgb8")), 255.0)
    except Exception as error:  # cv_bridge raises its own, OpenCV's and C++'s
        raise ImageError(f"encoding {message.encoding!r} cannot be read ({error}); publish one of "
                         f"{', '.join(ENCODINGS)}") from error


@cache
def _cv_bridge():
    """A CvBridge, None where there is none or it fails: built for another numpy or OpenCV."""
    try:
        from cv_bridge import CvBridge
        return CvBridge()
    except Exception as error:  # whatever a library built for another one does
        log.debug("cv_bridge is not used: %s", str(error))
        return None


def _without_padding(bridge, message):
    """The message without bytes after each row: cv_bridge takes those for pixels."""
    kind, channels = bridge.encoding_to_dtype_with_channels(message.encoding)
    row = message.width * channels * np.dtype(kind).itemsize
    if not 0 < row < message.step:
        return message
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    return make("sensor_msgs/msg/Image", header=message.header, height=message.height,
                width=message.width, encoding=message.encoding, step=row,
                is_bigendian=message.is_bigendian, data=rows[:, :row].reshape(-1))
