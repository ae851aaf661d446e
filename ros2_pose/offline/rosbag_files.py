"""Files of a bag, found and opened: folders, single files, compressed files, ROS 1 bags."""

from __future__ import annotations

import importlib
import logging
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

from rosbags.highlevel import AnyReader
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from ros2_pose.offline.file_kinds import BAG, ROS1, ZSTD, kind_of_file
from ros2_pose.offline.sources import SourceError, in_natural_order

log = logging.getLogger(__name__)

METADATA = "metadata.yaml"
BAG_SUFFIXES = (".mcap", ".db3", ".bag")
_COMPRESSED_SUFFIXES = (".zstd", ".zst")
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"  # no CDR message begins with this


@cache
def typestore():
    """Message types of Jazzy and of ros2_pose, for `rosbags`."""
    store = get_typestore(Stores.ROS2_JAZZY)
    for path in sorted(_message_folder().glob("*.msg")):
        store.register(get_types_from_msg(path.read_text(), f"ros2_pose/msg/{path.stem}"))
    return store


def _message_folder() -> Path:
    """Folder of ros2_pose's .msg files: beside the sources, or in the installed share folder."""
    package = Path(__file__).resolve().parents[1]
    candidates = [package.parent / "msg"]
    candidates += [up / "share" / "ros2_pose" / "msg" for up in package.parents]
    for candidate in candidates:
        if (candidate / "People.msg").exists():
            return candidate
    raise SourceError("ros2_pose's message definitions are in none of "
                      f"{', '.join(map(str, candidates))}: reinstall the package")


def has_bag_name(path: Path) -> bool:
    """Whether a file has the suffix of a bag's file, possibly compressed."""
    name = path.name.lower()
    for suffix in _COMPRESSED_SUFFIXES:
        name = name.removesuffix(suffix)
    return name.endswith(BAG_SUFFIXES)


def files_of_bag(path: Path) -> list[Path]:
    """Paths to open for a bag: its folder, or its files if there is no metadata.yaml.

    Args:
        path: a folder, or a file of a bag.
    Returns:
        The paths; empty for a folder that holds no bag.
    Raises:
        SourceError: the folder holds the files of several bags.
    """
    if not path.is_file():
        return [path] if (path / METADATA).exists() else _files_without_metadata(path)
    metadata = path.parent / METADATA
    if path.name == METADATA or (
            metadata.is_file() and path.name in metadata.read_text(errors="replace")):
        log.info("%s is part of the bag %s, which is read", path, path.parent)
        return [path.parent]
    return [path]


def _files_without_metadata(folder: Path) -> list[Path]:
    found = in_natural_order([p for p in folder.iterdir() if p.is_file() and has_bag_name(p)
                              and not p.name.startswith(".")])
    bags = {re.sub(r"_[0-9]+(?=\.)", "", p.name) for p in found}  # bag_0.db3, bag_1.db3, ...
    if len(bags) > 1:
        raise SourceError(f"{folder} holds several bags and no {METADATA}: name one of "
                          f"{', '.join(p.name for p in found)}")
    return found


@contextmanager
def opened(files: list[Path], count: int = 1) -> Iterator[list[AnyReader]]:
    """Open `count` independent readers of the paths that `files_of_bag` returned."""
    with ExitStack() as stack:
        readable = [stack.enter_context(_readable(path)) for path in files]
        yield [stack.enter_context(AnyReader(readable, default_typestore=typestore()))
               for _ in range(count)]


@contextmanager
def _readable(path: Path) -> Iterator[Path]:
    """Path of the decompressed file, with the suffix by which rosbags chooses its reader."""
    kind = None if path.is_dir() else kind_of_file(path)
    if kind is None or path.suffix == kind.suffix:
        yield path
        return
    with TemporaryDirectory() as folder:
        file = Path(folder) / "file"
        if kind.group == ZSTD:
            with _zstd().open(path, "rb") as packed, open(file, "wb") as unpacked:
                shutil.copyfileobj(packed, unpacked)
            kind = kind_of_file(file)
        else:
            file.symlink_to(path.resolve())
        if kind.group != BAG:
            raise SourceError(f"{path} is not a bag but {kind.name}")
        yield file.rename(file.with_suffix(kind.suffix))


def is_ros1(files: list[Path]) -> bool:
    """Whether a bag is a ROS 1 bag."""
    try:
        return kind_of_file(files[0]) == ROS1
    except OSError:  # a folder
        return False


def messages_of(reader: AnyReader, topics: Collection[str]) -> Iterator[tuple[str, int, Any]]:
    """Read the messages of some topics in the order of reception.

    Yields:
        (topic, received, message); received: ns.
    """
    wanted = [c for c in reader.connections if c.topic in topics]
    if not wanted:  # rosbags would read all topics
        return
    for connection, received, data in reader.messages(wanted):
        if data[:4] == _ZSTD_MAGIC:  # only a missing metadata.yaml hides this
            data = _zstd().decompress(bytes(data))
        yield connection.topic, received, reader.deserialize(data, connection.msgtype)


def _zstd() -> ModuleType:
    """The zstd module that rosbags itself uses."""
    for name in ("compression.zstd", "backports.zstd", "zstandard"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise SourceError("a bag compressed by zstd needs a module for it: pip install backports.zstd")
