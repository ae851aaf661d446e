"""Demo recording: three people in a laboratory, one calibrated camera, 100 images at 60 Hz.

Source: Pose2Sim project (BSD-3-Clause), fetched by package name; see weights.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np

from ros2_pose.camera import Camera
from ros2_pose.messages.camera_info import camera_info_message
from ros2_pose.messages.standard import header_message
from ros2_pose.offline.rosbag_writer import BagWriter, make
from ros2_pose.weights import fetch

FPS = 60.0
FRAME_ID = "camera_optical_frame"
IMAGE_TOPIC, INFO_TOPIC = "/camera/image_raw/compressed", "/camera/camera_info"
_SIZE = (544, 960)  # px; half of the original
_START = 1_700_000_000_000_000_000  # ns, the first stamp
_JPEG_QUALITY = 92
_SUBPIXELS = 64  # Qualisys counts in 64ths of a pixel


def pictures() -> Iterator[np.ndarray]:
    """Yield the images (960, 544, 3) uint8 RGB, in order."""
    video = cv2.VideoCapture(str(fetch("demo_cam02.mp4")))
    while True:
        success, picture = video.read()
        if not success:
            return
        small = cv2.resize(picture, _SIZE, interpolation=cv2.INTER_AREA)
        yield cv2.cvtColor(small, cv2.COLOR_BGR2RGB)


def stamp(number: int) -> int:
    """Stamp of an image by its number, ns."""
    return _START + round(number / FPS * 1e9)


def camera() -> Camera:
    """Calibration of the images."""
    root = ElementTree.parse(fetch("demo_calibration.qca.txt"))
    size = root.find(".//camera[@serial='cam02']/fov_video")
    intrinsics = root.find(".//camera[@serial='cam02']/intrinsic")
    assert size is not None and intrinsics is not None
    value = {name: float(text) for name, text in intrinsics.attrib.items()}
    K = np.array([[value["focalLengthU"], 0, value["centerPointU"]],
                  [0, value["focalLengthV"], value["centerPointV"]],
                  [0, 0, _SUBPIXELS]])
    distortion = [value[name] for name in ("radialDistortion1", "radialDistortion2",
                                           "tangentalDistortion1", "tangentalDistortion2")]
    width, height = int(size.attrib["right"]) + 1, int(size.attrib["bottom"]) + 1
    return Camera.from_opencv(width, height, K / _SUBPIXELS, distortion).resized(*_SIZE)


def write_bag(path: Path, storage: str = "sqlite3", count: int | None = None) -> None:
    """Write a bag with the clip's first `count` images as JPEG and their CameraInfo.

    Args:
        storage: sqlite3 or mcap.
        count: by default all images.
    """
    calibration, bag = camera(), BagWriter(path, storage)
    try:
        for number, picture in enumerate(islice(pictures(), count)):
            header = header_message(make, stamp(number), FRAME_ID)
            bag.put(INFO_TOPIC, camera_info_message(make, header, calibration), stamp(number))
            bag.put(IMAGE_TOPIC, _compressed(header, picture), stamp(number))
    finally:
        bag.close()


def _compressed(header, picture: np.ndarray):
    """Make a sensor_msgs/CompressedImage of a picture (H, W, 3) uint8 RGB."""
    _, data = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR),
                           [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return make("sensor_msgs/msg/CompressedImage", header=header,
                format="rgb8; jpeg compressed bgr8", data=data.reshape(-1))
