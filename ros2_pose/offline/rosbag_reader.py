"""Bags read by `rosbags`, which needs no ROS installation: images, calibration, depth, poses."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

from rosbags.highlevel import AnyReader

from ros2_pose.camera import Camera, CameraError
from ros2_pose.errors import one_line
from ros2_pose.messages.camera_info import calibration_key, camera_from_info, warning_of_offset
from ros2_pose.messages.image import ImageError, rgb_from_compressed, rgb_from_image
from ros2_pose.messages.standard import stamp_of
from ros2_pose.node_config import NodeConfig
from ros2_pose.offline.rosbag_files import files_of_bag, is_of_ros1, messages_of, opened, typestore
from ros2_pose.offline.rosbag_lookup import BagDepth, BagTransforms, choose_depth_topic
from ros2_pose.offline.rosbag_writer import BagSink, BagWriter, make
from ros2_pose.offline.sources import RecordedFrame, SourceError, TargetFrame
from ros2_pose.people import Frame
from ros2_pose.sync.tf_buffer import Transform, TransformError

__all__ = ["BagSink", "BagSource", "BagWriter", "make", "typestore"]

log = logging.getLogger(__name__)

_IMAGE, _COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
_INFO = "sensor_msgs/msg/CameraInfo"


class BagSource:
    """The images of a bag, each with the newest calibration before it, and its depth and camera
    pose if the settings ask for them.

    fps is for videos made of it, count how many images it says that it holds.
    """

    def __init__(self, path: Path, image_topic: str = "", camera_info_topic: str = "",
                 camera: Camera | None = None, settings: NodeConfig = NodeConfig(),
                 depth_topic: str = ""):
        """Look at what the bag holds.

        Args:
            path: its folder, or a file of it; also one of ROS 1.
            image_topic: may be left out if there is one image topic alone.
            camera_info_topic: by default `camera_info` beside the image topic.
            camera: replaces what the bag says.
            settings: rectified, depth, target_frame, fixed_frame and tf_tolerance_s hold here.
            depth_topic: of the depth images; by default the one that is called so.
        Raises:
            SourceError: if it cannot be read, or holds no such topic.
        """
        self.path, self.camera, self.settings = path, camera, settings
        self._files = files_of_bag(path)
        if not self._files:
            raise SourceError(f"{path} holds no bag: neither metadata.yaml nor .mcap, .db3 or .bag")
        with self._reading(lambda: "as a bag") as (reader,):
            self.image_topic = _choose(reader, image_topic)
            self.info_topic = _choose_info(reader, self.image_topic, camera_info_topic, camera)
            self.count = reader.topics[self.image_topic].msgcount
            self.fps = _fps(reader, self.count)
            self.depth_topic = ""
            if settings.depth or depth_topic:
                self.depth_topic = choose_depth_topic(reader, depth_topic, _IMAGE)
            self._first = self._first_calibration(reader)
        self._hint_rectified()

    @contextmanager
    def _reading(self, how_far: Callable[[], str], count: int = 1) -> Iterator[list[AnyReader]]:
        """Readers of the bag. What any library finds damaged becomes a SourceError."""
        try:
            with opened(self._files, count) as readers:
                yield readers
        except (SourceError, GeneratorExit, KeyboardInterrupt):
            raise
        except Exception as error:  # sqlite's, mcap's, yaml's, struct's and rosbags' own
            remedy = "rosbag reindex" if is_of_ros1(self._files) else "ros2 bag reindex"
            raise SourceError(f"{self.path} cannot be read {how_far()}: {one_line(error)}; if it "
                              f"was cut off, `{remedy}` may save it") from error

    def __iter__(self) -> Iterator[RecordedFrame]:
        calibration, number = self._first, 0
        moves = bool(self.settings.still_frame or self.settings.target_frame)
        count = 1 + moves + bool(self.depth_topic)
        with self._reading(lambda: f"further than image {number} of {self.count}",
                           count) as readers:
            surroundings = _Surroundings(
                self.settings, BagTransforms(readers[1]) if moves else None,
                BagDepth(readers[-1], self.depth_topic) if self.depth_topic else None)
            topics = {self.image_topic, self.info_topic}
            for topic, received, message in messages_of(readers[0], topics):
                if topic == self.image_topic:
                    yield _shot(message, calibration, received, number, surroundings)
                    number += 1
                elif self.camera is None:
                    calibration = calibration.renewed(message, self.settings.rectified)

    def _first_calibration(self, reader: AnyReader) -> _Calibration:
        """The first in the bag: an image may come before it."""
        nothing = _Calibration(self.camera)
        if self.camera is None:
            for _, _, info in messages_of(reader, [self.info_topic]):
                return nothing.renewed(info, self.settings.rectified)
        return nothing

    def _hint_rectified(self) -> None:
        """Say so if the topic's name and the setting contradict each other."""
        if self.camera is not None or self._first.camera is None:
            return
        words = set(re.split("[/_]", self.image_topic.lower()))
        by_name = bool(words & {"rect", "rectified", "undistorted"})
        if by_name and not self.settings.rectified and self._first.differs_rectified:
            log.warning("by its name %s has rectified images, but K and D of %s are used: add "
                        "--rectified to use P", self.image_topic, self.info_topic)
        if self.settings.rectified and not by_name and "raw" in words:
            log.warning("by its name %s has images that are not rectified, but P of %s is used: "
                        "leave --rectified out to use K and D", self.image_topic, self.info_topic)


class _Calibration(NamedTuple):
    """The camera that holds for the next image."""

    camera: Camera | None
    problem: str = ""  # of a CameraInfo that cannot be used
    key: tuple = ()  # of the CameraInfo
    differs_rectified: bool = False  # whether it would be another camera for rectified images

    def renewed(self, info, rectified: bool) -> _Calibration:
        """With a CameraInfo taken in."""
        info = _in_lower_case(info)
        key = calibration_key(info)
        if key == self.key:
            return self
        try:
            camera = camera_from_info(info, rectified)
        except CameraError as error:
            log.warning("CameraInfo: %s", error)
            return _Calibration(None, f"CameraInfo: {error}", key)
        if text := warning_of_offset(camera, info.header.frame_id):
            log.warning("%s", text)
        try:
            return _Calibration(camera, "", key,
                                camera_from_info(info, not rectified) != camera)
        except CameraError:
            return _Calibration(camera, "", key)


def _in_lower_case(info):
    """A CameraInfo with ROS 2's field names: ROS 1 calls the matrices D, K, R and P."""
    if not hasattr(info, "K"):
        return info
    return SimpleNamespace(**{name.lower(): value for name, value in vars(info).items()})


class _Surroundings(NamedTuple):
    """What is looked up for each image."""

    settings: NodeConfig
    transforms: BagTransforms | None
    depth: BagDepth | None

    def lookup(self, frame_id: str, header, received: int) -> tuple[Transform | None, str]:
        """From the header's frame to another, or None and why."""
        if not frame_id or self.transforms is None:
            return None, ""
        try:
            return self.transforms.lookup(frame_id, header, received,
                                          self.settings.tf_tolerance_s), ""
        except TransformError as error:
            return None, str(error)


def _shot(message, calibration: _Calibration, received: int, number: int,
          around: _Surroundings) -> RecordedFrame:
    header = message.header
    stamp, frame_id = stamp_of(header), header.frame_id
    read = rgb_from_image if hasattr(message, "encoding") else rgb_from_compressed
    try:
        image = read(message)
    except ImageError as error:
        return RecordedFrame(stamp, frame_id, str(number), None, str(error), received)
    depth, note = around.depth.of(stamp, received) if around.depth else (None, "")
    pose, pose_note = around.lookup(around.settings.still_frame, header, received)
    target = None
    if around.settings.target_frame.lstrip("/") not in ("", frame_id.lstrip("/")):
        target = TargetFrame(around.settings.target_frame,
                      *around.lookup(around.settings.target_frame, header, received))
    frame = Frame(image, calibration.camera, stamp, depth, pose.matrix if pose else None)
    return RecordedFrame(stamp, frame_id, str(number), frame, "", received, note or pose_note,
                calibration.problem, bool(pose_note), target)


def _fps(reader: AnyReader, count: int) -> float:
    """Images a second, for a video made of them."""
    seconds = reader.duration * 1e-9
    return min(max((count - 1) / seconds, 1.0), 120.0) if count > 1 and seconds > 0 else 30.0


def _choose(reader, wanted: str) -> str:
    """The image topic: the one asked for, or the only one."""
    offered = sorted(t for t, info in reader.topics.items()
                     if info.msgtype in (_IMAGE, _COMPRESSED)
                     and not t.endswith("/compressedDepth"))
    if wanted and wanted not in offered:
        raise SourceError(f"no images on {wanted}; the bag has images on: "
                          f"{', '.join(offered) or 'no topic'}{_others(reader, offered)}")
    if not wanted and not offered:
        raise SourceError(f"the bag has images on no topic{_others(reader, offered)}")
    if not wanted and len(offered) != 1:
        raise SourceError(f"the bag has images on {', '.join(offered)}: say which with "
                          "--image-topic (several cameras at once are for the node alone)")
    return wanted or offered[0]


def _others(reader, offered: list[str]) -> str:
    """What a bag without images holds, for an error."""
    if offered:
        return ""
    others = [f"{t} ({info.msgtype})" for t, info in sorted(reader.topics.items())]
    videos = [t for t, info in sorted(reader.topics.items())
              if re.search("video|ffmpeg|theora", info.msgtype or "", re.I)]
    if videos:
        return (f"; encoded video as on {', '.join(videos)} is not read ({', '.join(others[:8])}): "
                "decode it into sensor_msgs/CompressedImage, or export it as a video file")
    return (f"; sensor_msgs/Image and CompressedImage are read, it has: "
            f"{', '.join(others[:8]) or 'nothing'}")


def _choose_info(reader, image_topic: str, wanted: str, camera: Camera | None) -> str:
    """The calibration's topic; a warning if there is none."""
    offered = sorted(t for t, info in reader.topics.items() if info.msgtype == _INFO)
    if wanted and wanted not in offered:
        raise SourceError(f"no CameraInfo on {wanted}; the bag has CameraInfo on: "
                          f"{', '.join(offered) or 'no topic'}")
    chosen = wanted or _beside(image_topic)
    if camera is None and chosen not in offered:
        log.warning("no CameraInfo on %s: 2D only, unless --calibration or --fov-deg is given%s",
                    chosen, "".join(f"; or --camera-info-topic {t}" for t in offered))
    return chosen


def _beside(image_topic: str) -> str:
    """The camera_info of an image topic: a/image_raw/compressed and a/image have a/camera_info."""
    return image_topic.removesuffix("/compressed").rpartition("/")[0] + "/camera_info"
