"""New bags, sqlite3 or mcap, written by `rosbags`, and what replay says in one."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from rosbags.interfaces import (
    Connection,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer

from ros2_pose.body.model import BodyModel
from ros2_pose.messages.markers import marker_array
from ros2_pose.messages.people import (
    STATUS_BAD_IMAGE,
    FrameReport,
    people_message,
    skeleton_info_message,
    status_of,
)
from ros2_pose.messages.standard import header_message
from ros2_pose.messages.tf import tf_message
from ros2_pose.node_config import NodeConfig
from ros2_pose.offline.rosbag_files import typestore
from ros2_pose.offline.sources import RecordedFrame, SourceError
from ros2_pose.people import People
from ros2_pose.pipeline import Pipeline
from ros2_pose.sync.image_sync import Stream

STORAGE = {"sqlite3": StoragePlugin.SQLITE3, "mcap": StoragePlugin.MCAP}
_BAG_VERSION: Final = 8  # what Humble's and later distributions' tools read


def make(type_name: str, **fields):
    """A message of `rosbags` by its type and fields; see messages/standard.py."""
    return typestore().types[type_name](**fields)


class BagWriter:
    """A new bag, written message by message. Raises SourceError if its name is taken."""

    def __init__(self, path: Path, storage: str = "sqlite3"):
        if path.exists():
            raise SourceError(f"{path} exists already: give another name for the new bag")
        self.writer = Writer(path, version=_BAG_VERSION, storage_plugin=STORAGE[storage])
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

    of_image = False  # people are told where the settings want them

    def __init__(self, path: Path, storage: str, pipeline: Pipeline,
                 settings: NodeConfig = NodeConfig()):
        self.path, self.pipeline, self.settings = path, pipeline, settings
        self.bag = BagWriter(path, storage)
        self.shown: set[str] = set()
        self.received = 0
        self._stream = Stream()  # of the images' stamps
        self._surface_stamp: int | None = None  # ns, of the last body surfaces

    def write(self, shot: RecordedFrame, people: People | None) -> None:
        """Take in one image; people is None if it could not be read."""
        header = header_message(make, shot.stamp, shot.frame_id)
        if not self.received:
            info = skeleton_info_message(make, header, self.pipeline.network_name,
                                          self.pipeline.body_name)
            self.bag.put("/ros2_pose/skeleton_info", info, shot.received, latched=True)
        self.received += 1
        self.bag.put("/ros2_pose/people", self._people(header, shot, people), shot.received)
        if people is None:
            return
        self._stream.advance(shot.stamp)
        lifetime_s = self._stream.patience_s(self.settings.marker_lifetime_s)
        markers, self.shown = marker_array(make, header, people, self.shown, lifetime_s,
                                           self._body_to_show(shot.stamp))
        self.bag.put("/ros2_pose/markers", markers, shot.received)
        if self.settings.tf and shot.frame_id:
            self.bag.put("/tf", tf_message(make, header, people, self.settings.frame_names),
                         shot.received)

    def _body_to_show(self, stamp: int) -> BodyModel | None:
        """The body model, as often as surfaces are to be shown."""
        rate, last = self.settings.body_marker_hz, self._surface_stamp
        if not rate or (last is not None and 0 <= stamp - last < 0.9e9 / rate):  # stamps jitter
            return None
        self._surface_stamp = stamp
        return self.pipeline.body

    def _people(self, header, shot: RecordedFrame, people: People | None):
        if people is None:
            look = FrameReport(0, 0, STATUS_BAD_IMAGE, shot.problem, self.received)
            return people_message(make, header, People.nobody(), look)
        height, width = shot.frame.image.shape[:2]
        look = FrameReport(width, height, status_of(people), people.note, self.received)
        return people_message(make, header, people, look)

    def close(self) -> None:
        self.bag.close()


def _qos(latched: bool) -> Qos:
    endless = QosTime(9223372036, 854775807)
    durability = QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE
    return Qos(QosHistory.KEEP_LAST, 1 if latched else 5, QosReliability.RELIABLE, durability,
               endless, endless, QosLiveliness.AUTOMATIC, endless, False)
