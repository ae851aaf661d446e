"""Depth images, transforms, gravity and floor of a bag, looked up at an image's stamp.

Messages are recorded in the order of arrival: a transform of an image's time may come well after
the image. Therefore depth and transforms are read some seconds ahead of the images.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
from rosbags.highlevel import AnyReader

from ros2_pose.geometry import Transform, TransformError
from ros2_pose.messages.image import ImageError, depth_from_image
from ros2_pose.messages.standard import stamp_of
from ros2_pose.node_config import NodeConfig
from ros2_pose.offline.rosbag_files import messages_of
from ros2_pose.people import Ground
from ros2_pose.sync.ground import GroundFinder
from ros2_pose.sync.image_sync import DepthQueue
from ros2_pose.sync.tf_buffer import TransformBuffer

_TF_TYPES = ("tf2_msgs/msg/TFMessage", "tf/msg/tfMessage")
_TF_AHEAD_S = (1.0, 3.0, 10.0)  # tried in turn
_TF_HISTORY_S = 30.0
_DEPTH_AHEAD_S = 1.0
_IMU_AHEAD_S = 0.5
_DEPTH_KEPT = 96  # images: those of about a second before and after


class _ReadAhead:
    """Messages of some topics of a bag, each yielded once, up to a time that only rises."""

    def __init__(self, reader: AnyReader, topics: Collection[str]):
        self._messages = messages_of(reader, topics)
        self._next = next(self._messages, None)

    def until(self, received: float) -> Iterator[tuple[str, Any]]:
        """Yield (topic, message) of all messages received by then, ns, not yielded before."""
        while self._next is not None and self._next[1] <= received:
            topic, _, message = self._next
            self._next = next(self._messages, None)
            yield topic, message


class BagTransforms:
    """Transforms of a bag by stamp; static ones are valid from the beginning."""

    def __init__(self, reader: AnyReader):
        topics = {c.topic for c in reader.connections if c.msgtype in _TF_TYPES}
        static = {topic for topic in topics if topic.endswith("tf_static")}
        self._buffer = TransformBuffer(_TF_HISTORY_S)
        for _, _, message in messages_of(reader, static):
            self._buffer.take_in(message, is_static=True)
        self._dynamic = _ReadAhead(reader, topics - static)

    def lookup(self, target: str, header, received: int, tolerance_s: float,
               ahead: tuple[float, ...] = _TF_AHEAD_S) -> Transform:
        """Transform from the header's frame, at its stamp, to the target frame.

        Args:
            received: when the message with the header was received, ns.
            tolerance_s: how much older the newest transform may be if no later one is recorded.
            ahead: s to read ahead, tried in turn; empty: what was read before must do.
        Raises:
            TransformError: names the missing transform.
        """
        for ahead_s in ahead:
            for _, message in self._dynamic.until(received + ahead_s * 1e9):
                self._buffer.take_in(message, is_static=False)
            try:
                return self._buffer.lookup_from(target, header)
            except TransformError:
                continue
        return self._buffer.lookup_from(target, header, round(tolerance_s * 1e9))


class BagGround:
    """Gravity and floor of a bag's images, by its transforms and an IMU, as in the node."""

    def __init__(self, reader: AnyReader, imu_topic: str, settings: NodeConfig,
                 transforms: BagTransforms):
        self._settings, self._transforms = settings, transforms
        self._finder = GroundFinder(settings.floor_frame, settings.reference_frame,
                                    bool(imu_topic))
        self._imu = _ReadAhead(reader, {imu_topic})

    def lookup(self, header, received: int) -> tuple[Ground | None, str]:
        """Ground of an image, and why it is not known; see `GroundFinder.find`."""
        if self._finder.imu is not None:
            for _, message in self._imu.until(received + _IMU_AHEAD_S * 1e9):
                self._finder.imu.take_in(message)
        tolerance_s = self._settings.tf_tolerance_s

        def transform(target: str, header) -> Transform:
            # The reference may be unknown, and is asked for after the floor: read for that already.
            is_optional = self._finder.reference_frame == target != self._finder.floor_frame
            ahead = () if is_optional else _TF_AHEAD_S
            return self._transforms.lookup(target, header, received, tolerance_s, ahead)
        return self._finder.find(header, stamp_of(header), transform, round(tolerance_s * 1e9))


class BagDepth:
    """Depth images of a bag by the stamp of the colour image that they are aligned with."""

    def __init__(self, reader: AnyReader, topic: str):
        self.topic = topic
        self._ahead, self._queue = _ReadAhead(reader, [topic]), DepthQueue(_DEPTH_KEPT)

    def lookup(self, stamp: int, received: int) -> tuple[np.ndarray | None, str]:
        """Depth of a colour image.

        Args:
            stamp, received: ns, of the colour image.
        Returns:
            (H, W) float32 m, or None and the reason.
        """
        for _, message in self._ahead.until(received + _DEPTH_AHEAD_S * 1e9):
            self._queue.put(stamp_of(message.header), message)
        message = self._queue.nearest(stamp)
        if message is None:
            return None, f"no depth image of the image's time on {self.topic}: distances come " \
                         "from the image alone"
        try:
            return depth_from_image(message), ""
        except ImageError as error:
            return None, f"depth: {error}"
