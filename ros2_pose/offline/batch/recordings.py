"""Recordings below the inputs of a batch, and a name for each."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from ros2_pose.offline.batch import BatchError
from ros2_pose.offline.batch.results import RECORD
from ros2_pose.offline.rosbag_files import METADATA, files_of_bag, has_bag_name
from ros2_pose.offline.sources import PICTURES, VIDEOS, SourceError, in_natural_order

log = logging.getLogger(__name__)


def find_recordings(inputs: list[Path], out: Path) -> dict[str, Path]:
    """Find the recordings that the inputs are or hold.

    A recording that is reached twice, also by a link, is taken once.

    Args:
        inputs: bags, videos, pictures, and folders of them at any depth.
        out: folder of the results; what is in it is no recording.
    Returns:
        Paths by name, as the inputs spell them. A name is the path of the recording below the
        folder given, or its last part; names that clash get more of their parent folders.
    Raises:
        BatchError: an input is missing, lies in `out` or holds no recording, or two recordings
            cannot be named apart.
    """
    missing = [str(path) for path in inputs if not path.exists()]
    if missing:
        raise BatchError(f"{', '.join(missing)}: no such file or folder; nothing was processed")
    found: dict[Path, tuple[Path, int]] = {}  # by real path: path, and parts of it in the name
    for path in inputs:
        if path.resolve().is_relative_to(out.resolve()):
            raise BatchError(f"{path} is in the folder of the results, {out}: give another --out")
        recordings = list(_recordings_at(path, out.resolve()))
        if not recordings:
            raise BatchError(f"{path} holds no bag, video or picture")
        for recording in recordings:
            parts = 1
            if recording != path and recording.is_relative_to(path):
                parts = len(recording.relative_to(path).parts)
            found.setdefault(recording.resolve(), (recording, parts))
    return _named(list(found.values()))


def _recordings_at(path: Path, out: Path) -> Iterator[Path]:
    if path.is_dir():
        yield from _recordings_in(path, out, set())
    elif has_bag_name(path) or path.name == METADATA:
        yield from files_of_bag(path)  # the whole bag, for a file of one
    else:
        yield path


def _recordings_in(folder: Path, out: Path, visited: set[Path]) -> Iterator[Path]:
    """Bags and videos in and below a folder; the folder itself if it is a bag or holds pictures."""
    real = folder.resolve()
    if real == out or real in visited or (folder / RECORD).exists():
        return
    visited.add(real)
    if (folder / METADATA).exists():
        yield folder
        return
    visible = [path for path in folder.iterdir() if not path.name.startswith(".")]
    files = in_natural_order([path for path in visible if path.is_file()])
    found = [*_bags(folder, [path for path in files if has_bag_name(path)]),
             *(path for path in files if path.suffix.lower() in VIDEOS)]
    for below in in_natural_order([path for path in visible if path.is_dir()]):
        found += _recordings_in(below, out, visited)
    pictures = sum(path.suffix.lower() in PICTURES for path in files)
    if pictures and found:
        log.info("%s: %d pictures beside other recordings are left out", folder, pictures)
    yield from found or ([folder] if pictures else [])


def _bags(folder: Path, files: list[Path]) -> list[Path]:
    """The folder if its files are the parts of one bag, otherwise each file."""
    try:
        return [folder] if len(files) > 1 and files_of_bag(folder) else files
    except SourceError:
        return files


def _named(found: list[tuple[Path, int]]) -> dict[str, Path]:
    """Give each path its last parts as a name: as many as are asked for, more if names clash."""
    parts = [Path(os.path.abspath(path)).parts[1:] or ("root",) for path, _ in found]
    lengths = [length for _, length in found]
    while True:
        names = ["/".join(part[-length:]) for part, length in zip(parts, lengths)]
        clashing = _clashing(names)
        if not clashing:
            return {name: path for name, (path, _) in zip(names, found)}
        longer = [row for row in clashing if lengths[row] < len(parts[row])]
        if not longer:
            first, second = (found[row][0] for row in clashing[:2])
            raise BatchError(f"{first} and {second} lie in each other, and so would their "
                             "results: process them one after the other, with another --out")
        for row in longer:
            lengths[row] += 1


def _clashing(names: list[str]) -> list[int]:
    """Rows of the names that are equal to another, or the folder of another."""
    rows: set[int] = set()
    order = sorted(range(len(names)), key=lambda row: names[row].split("/"))
    for row, following in zip(order, order[1:]):
        if f"{names[following]}/".startswith(f"{names[row]}/"):
            rows |= {row, following}
    return sorted(rows)
