"""Rosbag2 bags, sqlite3 and mcap, read and written by `rosbags`: no ROS installation needed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

from rosbags.highlevel import AnyReader
from rosbags.interfaces import (Connection, Qos, QosDurability, QosHistory, QosLiveliness,
                                QosReliability, QosTime)
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from ros2_pose import messages
from ros2_pose.body_frames import tf_message
from ros2_pose.camera import Camera, CameraError
from ros2_pose.images import ImageError, rgb_from_compressed, rgb_from_image
from ros2_pose.markers import marker_array
from ros2_pose.people import Frame, People
from ros2_pose.pipeline import Pipeline
from ros2_pose.sources import Shot, SourceError

log = logging.getLogger(__name__)

_IMAGE, _COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
_STORAGE = {"sqlite3": StoragePlugin.SQLITE3, "mcap": StoragePlugin.MCAP}
_BAG_VERSION: Final = 8  # what Humble's and later distributions' tools read
_MARKER_LIFETIME_S = 0.5


@cache
def typestore():
    """Jazzy's message types and our own."""
    store = get_typestore(Stores.ROS2_JAZZY)
    for path in sorted(_definitions().glob("*.msg")):
        store.register(get_types_from_msg(path.read_text(), f"ros2_pose/msg/{path.stem}"))
    return store


def _definitions() -> Path:
    """The folder of our .msg files: beside the sources, or where the package was installed."""
    package = Path(__file__).resolve().parent
    places = [package.parent / "msg", *(up / "share" / "ros2_pose" / "msg"
                                        for up in package.parents)]
    for place in places:
        if (place / "People.msg").exists():
            return place
    raise SourceError("ros2_pose's message definitions are in none of "
                      f"{', '.join(map(str, places))}"
                      ": install the package anew")


def make(type_name: str, **fields):
    """A message of `rosbags` by its type and fields; see messages.py."""
    return typestore().types[type_name](**fields)


class BagSource:
    """The images of a bag, each with the newest calibration before it.

    image_topic may be left out if there is one image topic alone; camera_info_topic is by default
    `camera_info` beside it. camera replaces what the bag says. Raises SourceError.
    """

    fps = 30.0  # of videos made from it

    def __init__(self, path: Path, image_topic: str = "", camera_info_topic: str = "",
                 camera: Camera | None = None):
        self.path, self.camera = path, camera
        with self._reading(lambda: "as a bag") as reader:
            self.image_topic = _choose(reader, image_topic)
            self.info_topic = camera_info_topic or _beside(self.image_topic)
            self.count = reader.topics[self.image_topic].msgcount
            self.first_camera = camera or self._first_camera(reader)

    @contextmanager
    def _reading(self, how_far: Callable[[], str]) -> Iterator[AnyReader]:
        """The bag, open. What any library finds damaged becomes a SourceError."""
        try:
            with AnyReader([self.path], default_typestore=typestore()) as reader:
                yield reader
        except (SourceError, GeneratorExit, KeyboardInterrupt):
            raise
        except Exception as error:  # sqlite's, mcap's, yaml's, struct's and rosbags' own
            raise SourceError(f"{self.path} cannot be read {how_far()}: {error}; if it was cut "
                              "off, `ros2 bag reindex` may save it") from error

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Shot]:
        camera, number = self.first_camera, 0
        with self._reading(lambda: f"further than image {number} of {self.count}") as reader:
            wanted = [c for c in reader.connections
                      if c.topic in (self.image_topic, self.info_topic)]
            for connection, received, data in reader.messages(wanted):
                message = reader.deserialize(data, connection.msgtype)
                if connection.topic == self.image_topic:
                    yield _shot(message, connection.msgtype, camera, received, number)
                    number += 1
                elif self.camera is None:
                    camera = _camera(message)

    def _first_camera(self, reader) -> Camera | None:
        """The first calibration: an image may come before it."""
        for connection, _, data in reader.messages(
                [c for c in reader.connections if c.topic == self.info_topic]):
            return _camera(reader.deserialize(data, connection.msgtype))
        return None


def _choose(reader, wanted: str) -> str:
    """The image topic: the one asked for, or the only one."""
    offered = sorted(t for t, info in reader.topics.items()
                     if info.msgtype in (_IMAGE, _COMPRESSED))
    if wanted and wanted not in offered:
        raise SourceError(f"no images on {wanted}; the bag has images on: "
                          f"{', '.join(offered) or 'no topic'}")
    if not wanted and len(offered) != 1:
        raise SourceError(f"the bag has images on {', '.join(offered) or 'no topic'}: "
                          "say which with --image-topic")
    return wanted or offered[0]


def _beside(image_topic: str) -> str:
    """The camera_info of an image topic: a/image_raw/compressed and a/image have a/camera_info."""
    return image_topic.removesuffix("/compressed").rpartition("/")[0] + "/camera_info"


def _camera(info) -> Camera | None:
    try:
        return messages.camera_from_info(info)
    except CameraError as error:
        log.warning("CameraInfo: %s", error)
        return None


def _shot(message, kind: str, camera: Camera | None, received: int, number: int) -> Shot:
    stamp, frame_id = messages.stamp_of(message.header), message.header.frame_id
    read = rgb_from_image if kind == _IMAGE else rgb_from_compressed
    try:
        frame = Frame(read(message), camera, stamp)
    except ImageError as error:
        return Shot(stamp, frame_id, str(number), None, str(error), received)
    return Shot(stamp, frame_id, str(number), frame, "", received)


class BagWriter:
    """A new bag, written message by message. Raises SourceError if its name is taken."""

    def __init__(self, path: Path, storage: str = "sqlite3"):
        if path.exists():
            raise SourceError(f"{path} exists already: give another name for the new bag")
        self.writer = Writer(path, version=_BAG_VERSION, storage_plugin=_STORAGE[storage])
        self.writer.open()
        self.connections: dict[str, Connection] = {}

    def put(self, topic: str, message, received: int, latched: bool = False) -> None:
        """Write a message of `rosbags`; received: ns."""
        kind = message.__msgtype__
        self.put_raw(topic, kind, typestore().serialize_cdr(message, kind), received, latched)

    def put_raw(self, topic: str, kind: str, data, received: int, latched: bool = False) -> None:
        """Write a serialised message of the type `kind`."""
        if topic not in self.connections:
            self.connections[topic] = self.writer.add_connection(
                topic, kind, typestore=typestore(), offered_qos_profiles=[_qos(latched)])
        self.writer.write(self.connections[topic], received, data)

    def close(self) -> None:
        self.writer.close()


class BagSink:
    """Writes a bag of what the node would publish: people, markers, /tf and skeleton_info.

    pipeline: where the people come from; tells the names of its network and body.
    """

    def __init__(self, path: Path, storage: str, pipeline: Pipeline):
        self.path, self.pipeline = path, pipeline
        self.bag = BagWriter(path, storage)
        self.shown: set[str] = set()
        self.received = 0

    def write(self, shot: Shot, people: People | None) -> None:
        """Take in one image; people is None if it could not be read."""
        header = messages.header(make, shot.stamp, shot.frame_id)
        if not self.received:
            info = messages.skeleton_info(make, header, self.pipeline.network_name,
                                          self.pipeline.body_name)
            self.bag.put("/ros2_pose/skeleton_info", info, shot.received, latched=True)
        self.received += 1
        self.bag.put("/ros2_pose/people", self._people(header, shot, people), shot.received)
        if people is None:
            return
        markers, self.shown = marker_array(make, header, people, self.shown, _MARKER_LIFETIME_S,
                                           self.pipeline.body)
        self.bag.put("/ros2_pose/markers", markers, shot.received)
        self.bag.put("/tf", tf_message(make, header, people), shot.received)

    def _people(self, header, shot: Shot, people: People | None):
        if people is None:
            look = messages.Look(0, 0, messages.STATUS_BAD_IMAGE, shot.problem, self.received)
            return messages.people_message(make, header, People.nobody(), look)
        height, width = shot.frame.image.shape[:2]
        look = messages.Look(width, height, messages.status_of(people), people.note, self.received)
        return messages.people_message(make, header, people, look)

    def close(self) -> None:
        self.bag.close()


def _qos(latched: bool) -> Qos:
    endless = QosTime(9223372036, 854775807)
    durability = QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE
    return Qos(QosHistory.KEEP_LAST, 1 if latched else 5, QosReliability.RELIABLE, durability,
               endless, endless, QosLiveliness.AUTOMATIC, endless, False)
