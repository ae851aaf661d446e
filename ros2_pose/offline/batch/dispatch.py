"""Hands recordings to workers, one at a time to each, and survives the death of workers."""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from ros2_pose.offline.batch import BatchError

log = logging.getLogger(__name__)

# Events of workers, with their values.
READY = "ready"  # None: networks are loaded
IMAGES = "images"  # int: so many more images of the recording are processed
DONE = "done"  # dict: the record of the results
FAILED = "failed"  # str: why the recording has no results
UNUSABLE = "unusable"  # str: why no recording can be processed with these settings
DIED = "died"  # str: how the worker ended

_ATTEMPTS = 2  # of a recording, if workers die


class Workers(Protocol):
    """Workers that are numbered from 0. Each is READY before it is given a recording."""

    count: int

    def give(self, worker: int, name: str, source: Path) -> None:
        """Let a worker process a recording."""

    def replace(self, worker: int) -> None:
        """Start a new worker instead of one that died."""

    def events(self) -> list[tuple[int, str, Any]]:
        """Wait for events of workers: (worker, kind, value)."""


class Dispatch:
    """A queue of recordings and the workers that process it."""

    def __init__(self, recordings: dict[str, Path], workers: Workers):
        """Set up.

        Args:
            recordings: paths by name, in the order in which they are begun.
            workers: started.
        """
        self.workers = workers
        self._waiting = deque(recordings.items())
        self._given: dict[int, tuple[str, Path]] = {}  # by worker
        self._idle: list[int] = []
        self._living = workers.count
        self._attempts: Counter[str] = Counter()

    def run(self) -> Iterator[tuple[str, str, Any]]:
        """Process all recordings.

        Yields:
            (name, kind, value): IMAGES while a recording is processed; DONE or FAILED once.
        Raises:
            BatchError: no recording can be processed with these settings, or no worker lives.
        """
        while self._waiting or self._given:
            for worker, kind, value in self.workers.events():
                if kind == UNUSABLE:
                    raise BatchError(str(value))
                if kind == DIED:
                    yield from self._buried(worker, str(value))
                    continue
                name, _ = self._given.get(worker, ("", None))
                if kind != IMAGES:
                    self._given.pop(worker, None)
                    self._idle.append(worker)
                if name:
                    yield name, kind, value
            self._give()

    def _give(self) -> None:
        while self._waiting and self._idle:
            worker = self._idle.pop(0)
            name, source = self._waiting.popleft()
            self._given[worker] = name, source
            self.workers.give(worker, name, source)

    def _buried(self, worker: int, how: str) -> Iterator[tuple[str, str, Any]]:
        """Put the recording of a dead worker into the queue again, or yield its failure."""
        if worker in self._idle:
            self._idle.remove(worker)
        given = self._given.pop(worker, None)
        if given is None:  # it could not even start, and nor would the next one
            self._living -= 1
            if not self._living:
                raise BatchError(f"no worker could be started: {how}")
            log.warning("a worker %s before its first recording; %d go on", how, self._living)
            return
        name, source = given
        self._attempts[name] += 1
        if self._attempts[name] < _ATTEMPTS:
            log.warning("%s: its worker %s; it is tried again", name, how)
            self._waiting.append((name, source))
        else:
            yield name, FAILED, f"its worker {how}, in each of {_ATTEMPTS} attempts"
        if self._waiting and not self._idle:
            self.workers.replace(worker)
        else:
            self._living -= 1
