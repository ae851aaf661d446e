"""What a bag holds beside the images: depth images and transforms, looked up at an image's time.

They are read some seconds ahead of the images, for they are recorded in the order of their
arrival: a transform of an image's time may come well after the image.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from rosbags.highlevel import AnyReader

from ros2_pose.messages.image import ImageError, depth_from_image
from ros2_pose.messages.standard import stamp_of
from ros2_pose.offline.rosbag_files import messages_of
from ros2_pose.offline.sources import SourceError
from ros2_pose.sync.image_sync import DepthQueue
from ros2_pose.sync.tf_buffer import Transform, TransformBuffer, TransformError

_TF_TYPES = ("tf2_msgs/msg/TFMessage", "tf/msg/tfMessage")
_TF_AHEAD_S = (1.0, 3.0, 10.0)  # tried in turn
_TF_HISTORY_S = 30.0
_DEPTH_AHEAD_S = 1.0
_DEPTH_KEPT = 96  # images: those of about a second before and after


class _Ahead:
    """Messages of some topics of a bag, each given once, up to a time that only rises."""

    def __init__(self, reader: AnyReader, topics: Collection[str]):
        self._messages = messages_of(reader, topics)
        self._next = next(self._messages, None)

    def until(self, received: float) -> Iterator[tuple[str, Any]]:
        """(topic, message) of all received by then, ns, that were not given yet."""
        while self._next is not None and self._next[1] <= received:
            topic, _, message = self._next
            self._next = next(self._messages, None)
            yield topic, message


class BagTransforms:
    """The transforms of a bag, by stamp; static ones hold from the beginning."""

    def __init__(self, reader: AnyReader):
        topics = {c.topic for c in reader.connections if c.msgtype in _TF_TYPES}
        static = {topic for topic in topics if topic.endswith("tf_static")}
        self._buffer = TransformBuffer(_TF_HISTORY_S)
        for _, _, message in messages_of(reader, static):
            self._buffer.take_in(message, is_static=True)
        self._moving = _Ahead(reader, topics - static)

    def lookup(self, target: str, header, received: int, tolerance_s: float) -> Transform:
        """Takes points of the header's frame, at its stamp, to the target frame.

        Args:
            received: ns, when the message of the header was.
            tolerance_s: how much older the newest transform may be if none of that time follows.
        Raises:
            TransformError: says which transform is missing.
        """
        for ahead in _TF_AHEAD_S:
            for _, message in self._moving.until(received + ahead * 1e9):
                self._buffer.take_in(message, is_static=False)
            try:
                return self._buffer.lookup_from(target, header)
            except TransformError:
                continue
        return self._buffer.lookup_from(target, header, round(tolerance_s * 1e9))


class BagDepth:
    """The depth images of a bag, by the stamp of the image that they are aligned with."""

    def __init__(self, reader: AnyReader, topic: str):
        self.topic = topic
        self._ahead, self._queue = _Ahead(reader, [topic]), DepthQueue(_DEPTH_KEPT)

    def of(self, stamp: int, received: int):
        """Depth (H, W) float32 m, or None; and why there is none.

        Args:
            stamp, received: ns, of the colour image.
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


def choose_depth_topic(reader: AnyReader, wanted: str, image_type: str) -> str:
    """The depth topic: the one asked for, or the only one with depth in its name.

    Raises:
        SourceError: if there is none, or several.
    """
    offered = sorted(t for t, info in reader.topics.items() if info.msgtype == image_type)
    if wanted and wanted not in offered:
        raise SourceError(f"no depth images on {wanted}; the bag has {image_type} on: "
                          f"{', '.join(offered) or 'no topic'} (compressed depth is not read)")
    likely = [wanted] if wanted else [t for t in offered if "depth" in t.lower()]
    if len(likely) != 1:
        raise SourceError(f"which depth topic is aligned with the images? Say it with "
                          f"--depth-topic; the bag has {image_type} on: "
                          f"{', '.join(offered) or 'no topic'}")
    return likely[0]
