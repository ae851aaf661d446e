"""Folders of results: each is complete or absent, and records what it was made from."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ros2_pose.offline.batch import BatchError
from ros2_pose.offline.replayer import Replayer

if TYPE_CHECKING:
    from ros2_pose.offline.replay import ReplaySummary

RECORD = "batch.json"  # in each folder of results
_WORK = ".batch"  # in the folder of all results: what is not finished
_FILES = {"jsonl": "people.jsonl", "json": "people.json", "mp4": "overlay.mp4",
          "avi": "overlay.avi", "mkv": "overlay.mkv", "rrd": "people.rrd", "bag": "people_bag"}
FORMATS = tuple(_FILES)
NEW, FINISHED = "new", "finished"


class ResultFolders:
    """The results of a batch: a folder by each recording's name.

    Results are written in a hidden folder and moved to their place when they are complete. They
    are made again if the recording (its files' sizes and times of modification) or a setting has
    changed; the former ones stay until then.
    """

    def __init__(self, out: Path, formats: list[str], replayer: Replayer,
                 files: dict[str, str]):
        """Set up.

        Args:
            formats: some of FORMATS.
            files: of the settings, by setting; they count as changed when they are written.
        """
        self.out, self.formats = out, sorted(set(formats), key=FORMATS.index)
        settings = {**asdict(replayer.settings), **asdict(replayer.config), **replayer.recording,
                    "storage": replayer.storage, "formats": self.formats,
                    **{name: [path, *files_of(Path(path)).values()]
                       for name, path in files.items() if Path(path).is_file()}}
        self.settings = json.loads(json.dumps(settings))  # as it is when read again

    def state(self, name: str, source: Path) -> str:
        """Return NEW, FINISHED, or why results that are there have to be made again.

        Raises:
            BatchError: the results there are those of another recording, or none of a batch.
        """
        folder = self.out / name
        for outer in Path(name).parents:
            if (self.out / outer / RECORD).exists():
                raise BatchError(f"{self.out / outer} holds the results of another recording: "
                                 f"those of {source} cannot be in it; give another --out")
        if not folder.exists():
            return NEW
        recorded = self.recorded(name)
        if recorded is None:
            raise BatchError(f"{folder} exists, but is no result of a batch: give another --out, "
                             "or remove it")
        if recorded["input"] != files_of(source):
            if recorded["source"] != os.path.abspath(source):
                raise BatchError(f"{folder} holds the results of {recorded['source']}, not of "
                                 f"{source}: give another --out, or remove it")
            return "the recording has changed"
        before = recorded["settings"]
        changed = sorted(key for key in {*before, *self.settings}
                         if before.get(key) != self.settings.get(key))
        return f"changed settings: {', '.join(changed)}" if changed else FINISHED

    def recorded(self, name: str) -> dict | None:
        """Return the record of a result: what it was made from, counts and problems."""
        try:
            record = json.loads((self.out / name / RECORD).read_text())
        except (OSError, ValueError):
            return None
        return record if isinstance(record, dict) and "problem" in record else None

    def write(self, name: str, source: Path,
              fill: Callable[[list[Path]], ReplaySummary]) -> dict:
        """Make a recording's results and move them to their place.

        Args:
            fill: writes result files to the paths that it is given.
        Returns:
            The record. Its key `problem` is empty, or says in one line what is wrong with the
            recording.
        Raises:
            PoseError: there are no results.
        """
        record = {"source": os.path.abspath(source), "input": files_of(source),
                  "settings": self.settings}
        work = self.out / _WORK / uuid.uuid4().hex
        work.mkdir(parents=True)
        try:
            summary = fill([work / _FILES[form] for form in self.formats])
            if summary.write_failed:
                raise BatchError(summary.stopped)
            record |= _outcome(summary)
            (work / RECORD).write_text(json.dumps(record, indent=1) + "\n")
            _move(work, self.out / name)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return record

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other batches out of the folder, and unfinished results only as long as this runs.

        Raises:
            BatchError: another batch works in it, or it cannot be written.
        """
        work = self.out / _WORK
        try:
            work.mkdir(parents=True, exist_ok=True)
            file = open(work / "lock", "w")
        except OSError as error:
            raise BatchError(f"{self.out} cannot be written: {error.strerror}") from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise BatchError(f"another batch is writing to {self.out}: wait for it, or give "
                                 "another --out") from error
            _clear(work)
            try:
                yield
            finally:
                _clear(work)


def files_of(path: Path) -> dict[str, list[int]]:
    """Return size (bytes) and time of modification (ns) of a file or of a folder's files."""
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return {file.relative_to(path).as_posix(): [file.stat().st_size, file.stat().st_mtime_ns]
            for file in files}


def _outcome(summary: ReplaySummary) -> dict:
    """What a record says about a replay."""
    problems = list(summary.problems)
    if summary.unreadable:
        problems.append(f"{summary.unreadable} of {summary.images} images are unreadable")
    return {"images": summary.images, "unreadable": summary.unreadable,
            "ignored": summary.ignored, "people": summary.people, "problem": "; ".join(problems)}


def _move(work: Path, folder: Path) -> None:
    """Move complete results to their place, in a single step; former ones are removed."""
    for path in [*work.rglob("*"), work]:  # a power cut must not leave a file empty
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    folder.parent.mkdir(parents=True, exist_ok=True)
    former = work.with_name(f"{work.name}_former")
    if folder.exists():
        folder.rename(former)
    work.rename(folder)
    shutil.rmtree(former, ignore_errors=True)


def _clear(work: Path) -> None:
    for path in work.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
