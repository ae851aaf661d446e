"""Reader of bags by the library `rosbags`: images, calibration, depth and camera poses."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from copy import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rosbags.highlevel import AnyReader

from ros2_pose.camera import Camera, CameraError
from ros2_pose.errors import one_line
from ros2_pose.geometry import Transform, TransformError
from ros2_pose.messages.camera_info import calibration_key, camera_from_info, warning_of_offset
from ros2_pose.messages.image import ImageError, rgb_from_compressed, rgb_from_image
from ros2_pose.messages.standard import stamp_of
from ros2_pose.node_config import NodeConfig
from ros2_pose.offline.rosbag_files import files_of_bag, is_ros1, messages_of, opened
from ros2_pose.offline.rosbag_lookup import BagDepth, BagGround, BagTransforms
from ros2_pose.offline.sources import RecordedFrame, SourceError
from ros2_pose.people import Frame

log = logging.getLogger(__name__)

_IMAGE, _COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
_INFO, _IMU = "sensor_msgs/msg/CameraInfo", "sensor_msgs/msg/Imu"


class BagSource:
    """Images of a bag, each with the newest calibration before it, its depth and its camera pose.

    Attributes:
        fps: images a second, for a video made of them.
        count: number of images by the bag's metadata.
    """

    def __init__(self, path: Path, image_topic: str = "", camera_info_topic: str = "",
                 camera: Camera | None = None, settings: NodeConfig = NodeConfig(),
                 depth_topic: str = ""):
        """Choose the topics and read the first calibration.

        Args:
            path: the bag's folder, or a file of it; also a ROS 1 bag.
            image_topic: may be empty if there is only one.
            camera_info_topic: by default `camera_info` beside the image topic.
            camera: replaces the bag's calibration.
            settings: rectified, depth, target_frame, fixed_frame, floor_frame, imu and
                tf_tolerance_s are used.
            depth_topic: by default the only one with depth in its name.
        Raises:
            SourceError: the bag cannot be read, or holds no such topic.
        """
        self.path, self.camera, self.settings = path, camera, settings
        self._files = files_of_bag(path)
        if not self._files:
            raise SourceError(f"{path} holds no bag: neither metadata.yaml nor .mcap, .db3 or .bag")
        self._first_calibration = _Calibration(camera, settings.rectified)
        with self._reading(lambda: "as a bag") as (reader,):
            self.image_topic = _choose_image_topic(reader, image_topic)
            self.info_topic = _choose_info_topic(reader, self.image_topic, camera_info_topic,
                                                 camera)
            self.depth_topic = ""
            if settings.depth or depth_topic:
                self.depth_topic = _choose_depth_topic(reader, depth_topic)
            self.imu_topic = settings.imu and f"/{settings.imu.lstrip('/')}"
            if self.imu_topic and self.imu_topic not in _topics_of(reader, _IMU):
                raise SourceError(f"no {_IMU} on {self.imu_topic}; the bag has it on: "
                                  f"{', '.join(_topics_of(reader, _IMU)) or 'no topic'}")
            self.count = reader.topics[self.image_topic].msgcount
            self.fps = _fps(reader, self.count)
            if camera is None:
                self._read_first_calibration(reader)
        self._check_rectified()

    @contextmanager
    def _reading(self, progress: Callable[[], str], count: int = 1) -> Iterator[list[AnyReader]]:
        """Open `count` readers of the bag; convert any library's errors to SourceError.

        Args:
            progress: how far the bag was read, for the error.
        """
        try:
            with opened(self._files, count) as readers:
                yield readers
        except (SourceError, GeneratorExit, KeyboardInterrupt):
            raise
        except Exception as error:  # sqlite's, mcap's, yaml's, struct's and rosbags' own
            remedy = "rosbag reindex" if is_ros1(self._files) else "ros2 bag reindex"
            raise SourceError(f"{self.path} cannot be read {progress()}: {one_line(error)}; if it "
                              f"was cut off, `{remedy}` may repair it") from error

    def __iter__(self) -> Iterator[RecordedFrame]:
        calibration, number = copy(self._first_calibration), 0
        needs_tf = self.settings.needs_tf
        readers_count = 1 + 2 * needs_tf + bool(self.depth_topic)
        with self._reading(lambda: f"further than image {number} of {self.count}",
                           readers_count) as readers:
            transforms = BagTransforms(readers[1]) if needs_tf else None
            ground = None if transforms is None else BagGround(readers[2], self.imu_topic,
                                                               self.settings, transforms)
            depth = BagDepth(readers[-1], self.depth_topic) if self.depth_topic else None
            topics = {self.image_topic, self.info_topic}
            for topic, received, message in messages_of(readers[0], topics):
                if topic == self.image_topic:
                    yield self._recorded_frame(message, received, number, calibration, transforms,
                                               ground, depth)
                    number += 1
                elif self.camera is None:
                    calibration.update(message)

    def _recorded_frame(self, message, received: int, number: int, calibration: _Calibration,
                        transforms: BagTransforms | None, ground: BagGround | None,
                        depth: BagDepth | None) -> RecordedFrame:
        """Decode an image message and look up its depth, transforms and ground."""
        header = message.header
        stamp, frame_id = stamp_of(header), header.frame_id
        is_raw = hasattr(message, "encoding")
        try:
            image = rgb_from_image(message) if is_raw else rgb_from_compressed(message)
        except ImageError as error:
            return RecordedFrame(stamp, frame_id, str(number), None, str(error), received)
        depth_m, note = depth.lookup(stamp, received) if depth is not None else (None, "")
        camera_to_fixed, fixed_problem = self._lookup(transforms, self.settings.still_frame,
                                                      header, received)
        seen, ground_problem = ground.lookup(header, received) if ground else (None, "")
        frame = Frame(image, calibration.camera, stamp, depth_m, camera_to_fixed, seen)
        target = self.settings.target_frame
        if target.lstrip("/") in ("", frame_id.lstrip("/")):
            target = ""
        target_from_camera, target_problem = self._lookup(transforms, target, header, received)
        return RecordedFrame(
            stamp, frame_id, str(number), frame, "", received,
            note=note or fixed_problem or ground_problem, camera_problem=calibration.problem,
            lacks_pose=bool(fixed_problem), target_frame_id=target,
            target_from_camera=target_from_camera, target_problem=target_problem)

    def _lookup(self, transforms: BagTransforms | None, frame_id: str, header,
                received: int) -> tuple[Transform | None, str]:
        """Transform from the header's frame to another; or None, and why it is not known."""
        if not frame_id or transforms is None:
            return None, ""
        try:
            return transforms.lookup(frame_id, header, received, self.settings.tf_tolerance_s), ""
        except TransformError as error:
            return None, str(error)

    def _read_first_calibration(self, reader: AnyReader) -> None:
        """Use the bag's first calibration for images before it."""
        for _, _, info in messages_of(reader, [self.info_topic]):
            self._first_calibration.update(info)
            return

    def _check_rectified(self) -> None:
        """Warn if the topic's name contradicts the setting `rectified`."""
        if self.camera is not None or self._first_calibration.camera is None:
            return
        words = set(re.split("[/_]", self.image_topic.lower()))
        is_rectified_by_name = bool(words & {"rect", "rectified", "undistorted"})
        if is_rectified_by_name and not self.settings.rectified \
                and self._first_calibration.differs_if_rectified:
            log.warning("by its name %s has rectified images, but K and D of %s are used: add "
                        "--rectified to use P", self.image_topic, self.info_topic)
        if self.settings.rectified and not is_rectified_by_name and "raw" in words:
            log.warning("by its name %s has images that are not rectified, but P of %s is used: "
                        "leave --rectified out to use K and D", self.image_topic, self.info_topic)


class _Calibration:
    """The camera of the newest CameraInfo message.

    Attributes:
        camera: None if it is not known or cannot be used.
        problem: why the CameraInfo cannot be used.
        differs_if_rectified: whether the other value of `rectified` gives another camera.
    """

    def __init__(self, camera: Camera | None, rectified: bool):
        self.camera, self._rectified = camera, rectified
        self.problem = ""
        self.differs_if_rectified = False
        self._key: tuple[Any, ...] = ()

    def update(self, info) -> None:
        """Take over a CameraInfo message, if it differs from the last one."""
        info = _with_lower_case_names(info)
        key = calibration_key(info)
        if key == self._key:
            return
        self._key = key
        self.problem, self.differs_if_rectified = "", False
        try:
            self.camera = camera_from_info(info, self._rectified)
        except CameraError as error:
            log.warning("CameraInfo: %s", error)
            self.camera, self.problem = None, f"CameraInfo: {error}"
            return
        if text := warning_of_offset(self.camera, info.header.frame_id):
            log.warning("%s", text)
        with suppress(CameraError):  # only the chosen one must be usable
            self.differs_if_rectified = camera_from_info(info, not self._rectified) != self.camera


def _with_lower_case_names(info):
    """A CameraInfo with ROS 2's field names: ROS 1 names the matrices D, K, R and P."""
    if not hasattr(info, "K"):
        return info
    return SimpleNamespace(**{name.lower(): value for name, value in vars(info).items()})


def _fps(reader: AnyReader, count: int) -> float:
    """Images a second, for a video made of them."""
    seconds = reader.duration * 1e-9
    if count < 2 or seconds <= 0:
        return 30.0
    return min(max((count - 1) / seconds, 1.0), 120.0)


# Choice of topics -------------------------------------------------------------------------------


def _topics_of(reader: AnyReader, *types: str) -> list[str]:
    return sorted(topic for topic, info in reader.topics.items() if info.msgtype in types)


def _choose_image_topic(reader: AnyReader, wanted: str) -> str:
    """The image topic that is asked for, or the only one."""
    offered = [topic for topic in _topics_of(reader, _IMAGE, _COMPRESSED)
               if not topic.endswith("/compressedDepth")]
    other_topics = "" if offered else _describe_other_topics(reader)
    if wanted:
        if wanted not in offered:
            raise SourceError(f"no images on {wanted}; the bag has images on: "
                              f"{', '.join(offered) or 'no topic'}{other_topics}")
        return wanted
    if not offered:
        raise SourceError(f"the bag has images on no topic{other_topics}")
    if len(offered) > 1:
        raise SourceError(f"the bag has images on {', '.join(offered)}: choose one with "
                          "--image-topic (only the node processes several cameras at once)")
    return offered[0]


def _describe_other_topics(reader: AnyReader) -> str:
    """Topics of a bag without images, for an error."""
    topics = [f"{topic} ({info.msgtype})" for topic, info in sorted(reader.topics.items())]
    listed = ", ".join(topics[:8]) or "nothing"
    videos = [topic for topic, info in sorted(reader.topics.items())
              if re.search("video|ffmpeg|theora", info.msgtype or "", re.I)]
    if videos:
        return (f"; encoded video as on {', '.join(videos)} cannot be read ({listed}): decode it "
                "into sensor_msgs/CompressedImage, or export it as a video file")
    return f"; sensor_msgs/Image and CompressedImage are supported, it has: {listed}"


def _choose_info_topic(reader: AnyReader, image_topic: str, wanted: str,
                       camera: Camera | None) -> str:
    """The calibration topic; logs a warning without one, if no camera is given."""
    offered = _topics_of(reader, _INFO)
    if wanted and wanted not in offered:
        raise SourceError(f"no CameraInfo on {wanted}; the bag has CameraInfo on: "
                          f"{', '.join(offered) or 'no topic'}")
    chosen = wanted or _info_topic_beside(image_topic)
    if camera is None and chosen not in offered:
        alternatives = "".join(f"; or --camera-info-topic {topic}" for topic in offered)
        log.warning("no CameraInfo on %s: 2D only, unless --calibration or --fov-deg is given%s",
                    chosen, alternatives)
    return chosen


def _info_topic_beside(image_topic: str) -> str:
    """The camera_info of an image topic: a/image_raw/compressed and a/image have a/camera_info."""
    return image_topic.removesuffix("/compressed").rpartition("/")[0] + "/camera_info"


def _choose_depth_topic(reader: AnyReader, wanted: str) -> str:
    """The depth topic that is asked for, or the only one with depth in its name."""
    offered = _topics_of(reader, _IMAGE)
    listed = ", ".join(offered) or "no topic"
    if wanted:
        if wanted not in offered:
            raise SourceError(f"no depth images on {wanted}; the bag has {_IMAGE} on: {listed} "
                              "(compressed depth is not supported)")
        return wanted
    likely = [topic for topic in offered if "depth" in topic.lower()]
    if len(likely) != 1:
        raise SourceError("the depth topic that is aligned with the images is not known: name it "
                          f"with --depth-topic; the bag has {_IMAGE} on: {listed}")
    return likely[0]
