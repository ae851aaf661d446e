"""A recording opened by what it is: a bag, a video, a picture or a folder of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ros2_pose.camera import Camera
from ros2_pose.errors import one_line
from ros2_pose.node_config import NodeConfig
from ros2_pose.offline.file_kinds import (
    BAG,
    OTHER,
    PICTURE,
    UNKNOWN,
    VIDEO,
    ZSTD,
    Kind,
    kind_of_file,
)
from ros2_pose.offline.sources import (
    PICTURES,
    VIDEOS,
    PictureSource,
    SourceError,
    VideoSource,
    picture_files,
)


class RecordingOptions(NamedTuple):
    """What is to be read of a recording; the topics of a bag as `BagSource` takes them."""

    camera: Camera | None = None  # instead of the recording's own
    settings: NodeConfig = NodeConfig()
    image_topic: str = ""
    camera_info_topic: str = ""
    depth_topic: str = ""
    fps: float = 30.0  # of pictures


def open_recording(path: Path, wanted: RecordingOptions):
    """What reads a recording.

    Returns:
        A BagSource, VideoSource or PictureSource.
    Raises:
        SourceError: says what the file is if it is none of these, or why it cannot be read.
    """
    try:
        return _folder(path, wanted) if path.is_dir() else _file(path, wanted)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or one_line(error)}") from error


def _folder(path: Path, wanted: RecordingOptions):
    from ros2_pose.offline.rosbag_files import METADATA, files_of_bag
    if not (path / METADATA).exists() and any(
            p.suffix.lower() in PICTURES and not p.name.startswith(".") for p in path.iterdir()):
        return _pictures(path, picture_files(path), wanted)
    if files_of_bag(path):
        return _bag(path, wanted)
    return _pictures(path, picture_files(path), wanted)


def _file(path: Path, wanted: RecordingOptions):
    from ros2_pose.offline.rosbag_files import METADATA, bag_name
    if not path.exists():
        raise SourceError(f"{path} does not exist")
    if not path.is_file():
        raise SourceError(f"{path} is neither a file nor a folder: record it first")
    kind, suffix = kind_of_file(path), path.suffix.lower()
    if kind.group == BAG or path.name == METADATA or (kind.group == ZSTD and bag_name(path)):
        return _bag(path, wanted)
    if kind.group == VIDEO or (kind.group == UNKNOWN and suffix in VIDEOS):
        _refuse_bag_settings(path, wanted)
        return VideoSource(path, wanted.camera)
    if kind.group == PICTURE or (kind.group == UNKNOWN and suffix in PICTURES):
        return _pictures(path, [path], wanted)
    raise SourceError(_what_it_is(path, kind))


def _what_it_is(path: Path, kind: Kind) -> str:
    text = f"{path} is not a video, a picture or a bag but {kind.name}"
    if kind.group == OTHER:
        return text
    return f"{text}: it may be damaged, or of another program"


def _bag(path: Path, wanted: RecordingOptions):
    from ros2_pose.offline.rosbag_reader import BagSource
    return BagSource(path, wanted.image_topic, wanted.camera_info_topic, wanted.camera,
                     wanted.settings, wanted.depth_topic)


def _pictures(path: Path, files: list[Path], wanted: RecordingOptions) -> PictureSource:
    _refuse_bag_settings(path, wanted)
    return PictureSource(files, wanted.camera, wanted.fps)


def _refuse_bag_settings(path: Path, wanted: RecordingOptions) -> None:
    """What only a bag can give is not left out without a word."""
    settings = wanted.settings
    asked = {"depth": settings.depth or wanted.depth_topic, "target_frame": settings.target_frame,
             "fixed_frame": settings.fixed_frame, "image_topic": wanted.image_topic,
             "camera_info_topic": wanted.camera_info_topic}
    for name, value in asked.items():
        if value:
            raise SourceError(f"{name}: {path} is no bag, and has neither topics nor /tf; leave "
                              f"--{name.replace('_', '-')} out")
