"""Writer of new bags in sqlite3 or mcap, by the library `rosbags`."""

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

from ros2_pose.offline.rosbag_files import typestore
from ros2_pose.offline.sources import SourceError

STORAGE = {"sqlite3": StoragePlugin.SQLITE3, "mcap": StoragePlugin.MCAP}
_BAG_VERSION: Final = 8  # readable by the tools of Humble and later distributions


def make(type_name: str, **fields):
    """Make a message of `rosbags`; see messages/standard.py.

    Args:
        type_name: such as "std_msgs/msg/Header".
        fields: values by field name.
    """
    return typestore().types[type_name](**fields)


class BagWriter:
    """A new bag, written message by message."""

    def __init__(self, path: Path, storage: str = "sqlite3"):
        """Create the bag in the format sqlite3 or mcap. Raises SourceError if the path exists."""
        if path.exists():
            raise SourceError(f"{path} exists already: give another name for the new bag")
        self.writer = Writer(path, version=_BAG_VERSION, storage_plugin=STORAGE[storage])
        self.writer.open()
        self.connections: dict[str, Connection] = {}

    def put(self, topic: str, message, received: int, latched: bool = False) -> None:
        """Write a message of `rosbags`, received at a time in ns."""
        type_name = message.__msgtype__
        data = typestore().serialize_cdr(message, type_name)
        self.put_raw(topic, type_name, data, received, latched)

    def put_raw(self, topic: str, type_name: str, data, received: int,
                latched: bool = False) -> None:
        """Write a serialized message, received at a time in ns."""
        if topic not in self.connections:
            self.connections[topic] = self.writer.add_connection(
                topic, type_name, typestore=typestore(), offered_qos_profiles=[_qos(latched)])
        self.writer.write(self.connections[topic], received, data)

    def close(self) -> None:
        """Complete the bag."""
        self.writer.close()


def _qos(latched: bool) -> Qos:
    endless = QosTime(9223372036, 854775807)
    durability = QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE
    return Qos(QosHistory.KEEP_LAST, 1 if latched else 5, QosReliability.RELIABLE, durability,
               endless, endless, QosLiveliness.AUTOMATIC, endless, False)
