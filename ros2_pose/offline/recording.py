"""Opening of a recording by its content: a bag, a video, a picture or a folder of pictures."""

from __future__ import annotations

from pathlib import Path

from ros2_pose.camera import Camera
from ros2_pose.errors import one_line
from ros2_pose.node_config import NodeConfig
from ros2_pose.offline.file_kinds import BAG, OTHER, PICTURE, UNKNOWN, VIDEO, ZSTD, kind_of_file
from ros2_pose.offline.sources import (
    PICTURES,
    VIDEOS,
    PictureSource,
    SourceError,
    VideoSource,
    picture_files,
)


def open_recording(path: Path, *, camera: Camera | None = None, settings: NodeConfig = NodeConfig(),
                   image_topic: str = "", camera_info_topic: str = "", depth_topic: str = "",
                   fps: float = 30.0):
    """Open a recording.

    Args:
        camera: replaces the recording's own calibration.
        settings, image_topic, camera_info_topic, depth_topic: of a bag, see `BagSource`.
        fps: of pictures, images a second.
    Returns:
        A BagSource, VideoSource or PictureSource.
    Raises:
        SourceError: names what the file is if it is none of these, or why it cannot be read.
    """
    try:
        group = _group_of_folder(path) if path.is_dir() else _group_of_file(path)
        if group == BAG:
            from ros2_pose.offline.rosbag_reader import BagSource  # imports rosbags: slow
            return BagSource(path, image_topic, camera_info_topic, camera, settings, depth_topic)
        pictures = picture_files(path) if path.is_dir() else [path]
        _refuse_bag_options(path, {
            "depth": settings.depth or depth_topic, "target_frame": settings.target_frame,
            "fixed_frame": settings.fixed_frame, "floor_frame": settings.floor_frame,
            "imu": settings.imu, "image_topic": image_topic,
            "camera_info_topic": camera_info_topic})
        if group == VIDEO:
            return VideoSource(path, camera)
        return PictureSource(pictures, camera, fps)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror or one_line(error)}") from error


def _group_of_folder(path: Path) -> str:
    """BAG, or else PICTURE."""
    from ros2_pose.offline.rosbag_files import METADATA, files_of_bag
    has_pictures = any(p.suffix.lower() in PICTURES and not p.name.startswith(".")
                       for p in path.iterdir())
    is_bag = (path / METADATA).exists() or (not has_pictures and bool(files_of_bag(path)))
    return BAG if is_bag else PICTURE


def _group_of_file(path: Path) -> str:
    """BAG, VIDEO or PICTURE. Raises SourceError for any other file."""
    from ros2_pose.offline.rosbag_files import METADATA, has_bag_name
    if not path.exists():
        raise SourceError(f"{path} does not exist")
    if not path.is_file():
        raise SourceError(f"{path} is neither a file nor a folder: record it first")
    kind, suffix = kind_of_file(path), path.suffix.lower()
    if kind.group == BAG or path.name == METADATA or (kind.group == ZSTD and has_bag_name(path)):
        return BAG
    if kind.group == VIDEO or (kind.group == UNKNOWN and suffix in VIDEOS):
        return VIDEO
    if kind.group == PICTURE or (kind.group == UNKNOWN and suffix in PICTURES):
        return PICTURE
    hint = "" if kind.group == OTHER else ": it may be damaged, or of another program"
    raise SourceError(f"{path} is not a video, a picture or a bag but {kind.name}{hint}")


def _refuse_bag_options(path: Path, options: dict[str, object]) -> None:
    """Raise SourceError for options that only a bag can fulfil, rather than ignore them."""
    for name, value in options.items():
        if value:
            raise SourceError(f"{name}: {path} is not a bag, and has neither topics nor /tf; leave "
                              f"--{name.replace('_', '-')} out")
