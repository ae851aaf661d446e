"""Where rclpy's messages meet the core: how they are made, and how images are read.

What goes into a message is written once, in ros2_pose/messages.py, markers.py and images.py.
"""

from __future__ import annotations

import array
import importlib
import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from ros2_pose.images import ENCODINGS, ImageError, check_size, rgb_from_image

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


def image_reader() -> Callable[[Any], np.ndarray]:
    """Function from sensor_msgs/Image to (height, width, 3) uint8 RGB.

    It uses cv_bridge where that works, and the core's own reading where it does not: built against
    numpy 1 it fails beside numpy 2, built against OpenCV 4 it fails beside OpenCV 5.
    """
    bridge = _working_cv_bridge()
    if bridge is None:
        return rgb_from_image
    return lambda message: _through_cv_bridge(bridge, message)


def _working_cv_bridge():
    """A CvBridge that converts a picture correctly, None if there is none."""
    try:
        from cv_bridge import CvBridge
        bridge = CvBridge()
        picture = np.arange(12, dtype=np.uint8)
        message = make("sensor_msgs/msg/Image", height=2, width=2, step=6, encoding="bgr8",
                       data=picture)
        found = bridge.imgmsg_to_cv2(message, "rgb8")
        if np.array_equal(found, picture.reshape(2, 2, 3)[..., ::-1]):
            return bridge
        log.warning("cv_bridge converts wrongly: images are read without it")
    except ImportError as error:
        log.info("no usable cv_bridge (%s): images are read without it", error)
    except Exception as error:  # whatever a library built for another numpy or OpenCV does
        log.warning("cv_bridge does not work here (%s): images are read without it", error)
    return None


def _through_cv_bridge(bridge, message) -> np.ndarray:
    check_size(message)
    if message.encoding == "rgb8":
        return rgb_from_image(message)  # a view; cv_bridge would copy
    try:
        return np.asarray(bridge.imgmsg_to_cv2(message, "rgb8"))
    except Exception as error:  # cv_bridge raises its own, OpenCV's and C++'s
        raise ImageError(f"encoding {message.encoding!r} cannot be read ({error}); publish one of "
                         f"{', '.join(ENCODINGS)}") from error
