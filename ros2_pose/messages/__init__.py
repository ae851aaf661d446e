"""ROS messages from and to the package's types, without importing ROS.

`from ros2_pose.messages import people_from_message` and so on. Two modules are not loaded here:
`messages.markers`, which needs torch, and `messages.external`, people in other packages' messages.
"""

from ros2_pose.messages.camera_info import camera_from_info, camera_info_message
from ros2_pose.messages.image import (
    ImageError,
    depth_from_image,
    image_message,
    rgb_from_compressed,
    rgb_from_image,
)
from ros2_pose.messages.people import (
    STATUS_2D_ONLY,
    STATUS_BAD_IMAGE,
    STATUS_FAILED,
    STATUS_NAMES,
    STATUS_NO_IMAGE,
    STATUS_OK,
    STATUS_PARTIAL,
    FrameReport,
    looked,
    people_from_message,
    people_message,
    skeleton_info_message,
    status_of,
)
from ros2_pose.messages.standard import header_message, stamp_of
from ros2_pose.messages.tf import FrameNames, tf_message

__all__ = [
    "STATUS_2D_ONLY", "STATUS_BAD_IMAGE", "STATUS_FAILED", "STATUS_NAMES", "STATUS_NO_IMAGE",
    "STATUS_OK", "STATUS_PARTIAL", "FrameNames", "FrameReport", "ImageError", "camera_from_info",
    "camera_info_message", "depth_from_image", "header_message", "image_message", "looked",
    "people_from_message", "people_message", "rgb_from_compressed", "rgb_from_image",
    "skeleton_info_message", "stamp_of", "status_of", "tf_message",
]
