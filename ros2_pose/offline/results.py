"""What replay writes, by the names of the results; checked before the work begins."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import cv2

from ros2_pose.errors import PoseError, one_line
from ros2_pose.node_config import NodeConfig
from ros2_pose.pipeline import Pipeline

_JSON_LINES, _JSON = (".jsonl", ".ndjson"), ".json"
_RERUN = ".rrd"
# OpenCV's codes of a codec that each container takes.
VIDEO_CODECS = {".mp4": "mp4v", ".m4v": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG",
                ".webm": "VP80"}
_BAG_FILES = (".mcap", ".db3", ".bag")
_FILE_SUFFIX = re.compile(r"\.(?=.*[a-z])[a-z0-9]{1,8}")  # not a date or a version
_WHAT_IS_WRITTEN = (f"people as {_JSON_LINES[0]} or {_JSON}, a video as "
                    f"{', '.join(VIDEO_CODECS)}, a Rerun recording as {_RERUN}, a bag as a name "
                    "without suffix")


class ResultError(PoseError):
    """A result that cannot be written; the message names it, the reason and the remedy."""


def check_results(results: list[Path], source: Path) -> None:
    """Find what would prevent the results from being written.

    Args:
        results: files, and folders of bags.
        source: the recording, which must not be overwritten.
    Raises:
        ResultError: for the first one that cannot be written.
    """
    for number, path in enumerate(results):
        _check_name(path)
        if any(_same(path, other) for other in results[:number]):
            raise ResultError(f"{path} is named twice: each result needs a name of its own")
        if _same(path, source):
            raise ResultError(f"{path} is the recording itself: give the result another name")
        _check_folder(path)
        if is_bag(path):
            if path.exists() or path.is_symlink():
                raise ResultError(f"{path} exists already: give another name for the new bag")
        elif path.is_dir():
            raise ResultError(f"{path} is a folder, not a file: give the result another name")


def is_bag(path: Path) -> bool:
    """Whether a result of this name is a bag."""
    return not _FILE_SUFFIX.fullmatch(path.suffix.lower())


def _check_name(path: Path) -> None:
    suffix = path.suffix.lower()
    if suffix in _BAG_FILES:
        raise ResultError(f"{path}: a bag is written as a folder: name it {path.with_suffix('')}, "
                          "with --storage mcap or sqlite3 (bags of ROS 1 are read alone)")
    if suffix in VIDEO_CODECS and not _can_write_video(suffix):
        raise ResultError(f"{path}: the OpenCV of this machine cannot write {suffix}: use .mp4 or "
                          ".avi")
    if not is_bag(path) and suffix not in (*_JSON_LINES, _JSON, _RERUN, *VIDEO_CODECS):
        raise ResultError(f"{path}: {suffix} is not written; written are {_WHAT_IS_WRITTEN}")


def _can_write_video(suffix: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        writer = open_video(Path(folder) / f"probe{suffix}", 25.0, (64, 64))
        opened = writer.isOpened()
        writer.release()
    return opened


def open_video(path: Path, fps: float, size: tuple[int, int]) -> cv2.VideoWriter:
    """A writer of a video whose suffix is one of VIDEO_CODECS; size: width, height, px."""
    code = cv2.VideoWriter_fourcc(*VIDEO_CODECS[path.suffix.lower()])
    return cv2.VideoWriter(str(path), code, fps, size)


def _same(a: Path, b: Path) -> bool:
    """Whether two names mean one file; neither need exist."""
    try:
        return a.samefile(b)
    except OSError:
        return a.resolve() == b.resolve()


def _check_folder(path: Path) -> None:
    folder = path.parent
    if is_bag(path):  # a folder itself, made with those above it
        folder = next(up for up in path.absolute().parents if up.exists())
    if not folder.exists():
        raise ResultError(f"{path}: the folder {folder} does not exist: make it first")
    if not folder.is_dir():
        raise ResultError(f"{path}: {folder} is a file, not a folder")
    try:
        if path.is_file():
            with open(path, "r+b"):
                return
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ResultError(f"{path} cannot be written: {error.strerror or one_line(error)}") \
            from error


def sink_of(path: Path, fps: float, pipeline: Pipeline, settings: NodeConfig, storage: str):
    """What writes a result, by the suffix of its name.

    Args:
        fps: images a second of a video.
        storage: of a bag, sqlite3 or mcap.
    """
    from ros2_pose.offline.replay import JsonArray, JsonLines, OverlayVideo
    suffix = path.suffix.lower()
    if suffix in _JSON_LINES:
        return JsonLines(path)
    if suffix == _JSON:
        return JsonArray(path)
    if suffix in VIDEO_CODECS:
        return OverlayVideo(path, fps, pipeline, settings.overlay_bodies)
    if suffix == _RERUN:
        from ros2_pose.offline.rerun import RerunLog
        return RerunLog(path, pipeline)
    from ros2_pose.offline.rosbag_reader import BagSink
    return BagSink(path, storage, pipeline, settings)
