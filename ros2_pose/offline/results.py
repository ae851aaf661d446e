"""Result files of a replay: names checked before the work begins, sinks chosen by suffix."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from ros2_pose.errors import PoseError, one_line
from ros2_pose.node_config import NodeConfig
from ros2_pose.offline.rosbag_files import BAG_SUFFIXES
from ros2_pose.offline.sinks import (
    VIDEO_CODECS,
    BagSink,
    JsonArray,
    JsonLines,
    OverlayVideo,
    open_video,
)
from ros2_pose.pipeline import Pipeline

_JSON_LINES, _JSON = (".jsonl", ".ndjson"), ".json"
_RERUN = ".rrd"
_FILE_SUFFIX = re.compile(r"\.(?=.*[a-z])[a-z0-9]{1,8}")  # excludes dates and versions
_FORMATS = (f"people as {_JSON_LINES[0]} or {_JSON}, a video as "
            f"{', '.join(VIDEO_CODECS)}, a Rerun recording as {_RERUN}, a bag as a name without "
            "suffix")


class ResultError(PoseError):
    """A result that cannot be written; the message names it, the reason and the remedy."""


def check_results(results: list[Path], source: Path) -> None:
    """Check that the results can be written.

    Args:
        results: files, and folders of bags.
        source: the recording, which must not be overwritten.
    Raises:
        ResultError: for the first result that cannot be written.
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
    """Whether a result with this name is a bag: its name has no file suffix."""
    return not _FILE_SUFFIX.fullmatch(path.suffix.lower())


def _check_name(path: Path) -> None:
    suffix = path.suffix.lower()
    if suffix in BAG_SUFFIXES:
        raise ResultError(f"{path}: a bag is written as a folder: name it {path.with_suffix('')}, "
                          "with --storage mcap or sqlite3 (ROS 1 bags can only be read)")
    if suffix in VIDEO_CODECS and not _can_write_video(suffix):
        raise ResultError(f"{path}: OpenCV on this machine cannot write {suffix}: use .mp4 or .avi")
    if not is_bag(path) and suffix not in (*_JSON_LINES, _JSON, _RERUN, *VIDEO_CODECS):
        raise ResultError(f"{path}: {suffix} is not written; the formats are {_FORMATS}")


def _can_write_video(suffix: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        writer = open_video(Path(folder) / f"probe{suffix}", 25.0, (64, 64))
        opened = writer.isOpened()
        writer.release()
    return opened


def _same(a: Path, b: Path) -> bool:
    """Whether two paths name the same file, which need not exist."""
    try:
        return a.samefile(b)
    except OSError:
        return a.resolve() == b.resolve()


def _check_folder(path: Path) -> None:
    """Raise ResultError if the result's folder is missing or not writable."""
    folder = path.parent
    if is_bag(path):  # missing parent folders are created with the bag
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


def open_sink(path: Path, fps: float, pipeline: Pipeline, settings: NodeConfig, storage: str):
    """Open the sink for a result by its suffix.

    Args:
        fps: images a second of a video.
        storage: format of a bag, sqlite3 or mcap.
    """
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
    return BagSink(path, storage, pipeline, settings)
