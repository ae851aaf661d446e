"""Synchronisation by stamps: depth with colour images, and the images of several cameras.

Stamps are integers, ns, see `Frame`. There is no clock here and nothing blocks: callbacks put items
and return at once, from any thread. How far stamps of one time may differ, half the interval
between two images, is learned from the stamps. A stamp that is not later than the one before is
ignored; one that is much earlier restarts everything, see `time_jump`.
"""

from __future__ import annotations

import threading
from collections import deque
from statistics import median
from typing import Any

from ros2_pose.sync.time_jump import JUMP_S, jumps_back

_LONGEST_S = 5.0  # a longer time without images does not count as an interval
PATIENCE = 2.5  # intervals between images that timeouts allow for: one image may be missed
_KEPT = 8  # depth images
_INTERVALS = 15  # between images, of which the median is taken
_DUE = 0.9  # of a period after its last image, a camera's next one may come
_STOPPED = 5  # periods without an image after which a camera is not waited for


class Stream:
    """Stamps of one topic: the newest one, and the interval between two."""

    def __init__(self, intervals: int = _INTERVALS) -> None:
        """Create a stream without stamps.

        Args:
            intervals: number of the last intervals that the period is estimated from.
        """
        self._intervals: deque[int] = deque(maxlen=intervals)
        self.newest: int | None = None
        self.ignored = 0  # stamps that were not later than the newest

    @property
    def period(self) -> float | None:
        """Median interval between images, ns; None until two have come."""
        return median(self._intervals) if self._intervals else None

    @property
    def longest(self) -> int:
        """Longest of the last intervals, ns; 0 until two images have come."""
        return max(self._intervals, default=0)

    def patience_s(self, least_s: float) -> float:
        """Return a timeout, s: at least `least_s`, and a few intervals of a slow camera."""
        return max(least_s, PATIENCE * 1e-9 * (self.period or 0))

    def jumps_back(self, stamp: int) -> bool:
        """Return True if a stamp (ns) says that time has started again."""
        return jumps_back(stamp, self.newest, self.patience_s(JUMP_S))

    def advance(self, stamp: int) -> bool:
        """Take in a stamp (ns); return False if it is not later than the newest one."""
        if self.newest is not None:
            if stamp <= self.newest:
                self.ignored += 1
                return False
            if stamp - self.newest <= _LONGEST_S * 1e9:
                self._intervals.append(stamp - self.newest)
        self.newest = stamp
        return True

    def restart(self) -> None:
        """Forget the newest stamp but not the intervals."""
        self.newest = None


class StampFilter:
    """Selects the images of one camera that are processed: those with rising stamps.

    An image that came twice or out of order is left out. One that jumps back in time belongs to a
    recording that starts again, and is processed.
    """

    def __init__(self) -> None:
        self._stream = Stream()

    @property
    def ignored(self) -> int:
        """Number of images left out."""
        return self._stream.ignored

    def behind_s(self, stamp: int) -> float:
        """Return how much earlier a stamp (ns) is than that of the last image taken, s."""
        return 0.0 if self._stream.newest is None else (self._stream.newest - stamp) * 1e-9

    def take(self, stamp: int) -> bool:
        """Return True if the image with a stamp (ns) is to be processed."""
        if self._stream.jumps_back(stamp):
            self._stream.restart()
        return self._stream.advance(stamp)


class DepthQueue:
    """The last few depth images, from which a colour image takes the nearest in time.

    The callback of the depth topic calls `put`. The worker, when it begins with a colour image,
    calls `nearest(stamp)` for `Frame.depth`; a depth image that has not come by then is not waited
    for. With depth that is always later than colour, let the worker begin when both are there.
    """

    def __init__(self, kept: int = _KEPT) -> None:
        """Create an empty queue of at most `kept` depth images."""
        self._lock = threading.Lock()
        self._stream = Stream()
        self._kept: deque[tuple[int, Any]] = deque(maxlen=kept)

    def put(self, stamp: int, depth: Any) -> None:
        """Keep a depth image, of any type, with its stamp (ns)."""
        with self._lock:
            if self._stream.jumps_back(stamp):
                self._stream.restart()
                self._kept.clear()
            if self._stream.advance(stamp):
                self._kept.append((stamp, depth))

    def nearest(self, stamp: int) -> Any | None:
        """Return the depth image nearest to a stamp (ns), within half a period; else None.

        Until the period is known, only an image with that very stamp is returned.
        """
        with self._lock:
            if not self._kept:
                return None
            slop = (self._stream.period or 0) / 2
            at, depth = min(self._kept, key=lambda kept: abs(kept[0] - stamp))
            return depth if abs(at - stamp) <= slop else None


class CameraSync:
    """Groups the images of N cameras into frame sets, each image once and in the order of time.

    A frame set is a tuple with an item for each camera, None for one without an image of this time.
    Every camera's callback calls `put(camera, stamp, item)` and, if that returns a frame set,
    leaves it in the worker's slot; the worker gives its frames to `MultiPipeline.step`.

    A frame set is complete when all cameras with a due image have given it, all within
    half a period; at the latest when an image comes that belongs to the next set. So a camera that
    drops an image delays the others by one period; a camera that has stopped, is slower, or runs in
    another phase does not delay them.
    """

    def __init__(self, cameras: int) -> None:
        self._lock = threading.Lock()
        self._streams = [Stream() for _ in range(cameras)]
        self._open: dict[int, tuple[int, Any]] = {}  # stamp and item by camera: the incomplete set
        self._given: int | None = None  # stamp of the last complete set, ns

    def put(self, camera: int, stamp: int, item: Any) -> tuple[Any | None, ...] | None:
        """Take in a camera's image with its stamp (ns); return the newest set that is complete.

        An image that is not later than its camera's last one, or than the last complete set, is
        ignored.
        """
        with self._lock:
            stream = self._streams[camera]
            if stream.jumps_back(stamp):
                self._restart()
            if not stream.advance(stamp):
                return None
            if self._given is not None and stamp <= self._given:
                return None
            before = None if self._fits(camera, stamp) else self._close()
            self._open[camera] = (stamp, item)
            return self._close() if self._is_complete() else before

    def _restart(self) -> None:
        for stream in self._streams:
            stream.restart()
        self._open.clear()
        self._given = None

    def _slop(self) -> float:
        """How far the stamps of one set may differ, ns; 0 until a period is known."""
        return min((s.period for s in self._streams if s.period), default=0) / 2

    def _fits(self, camera: int, stamp: int) -> bool:
        """Whether an image can be part of the open set."""
        stamps = [at for at, _ in self._open.values()]
        return camera not in self._open and \
            max([*stamps, stamp]) - min([*stamps, stamp]) <= self._slop()

    def _is_complete(self) -> bool:
        """Whether the open set has the images of all cameras that are due."""
        stamps = [at for at, _ in self._open.values()]
        end, now = min(stamps) + self._slop(), max(stamps)
        missing = [stream for number, stream in enumerate(self._streams)
                   if number not in self._open]
        return not any(_is_due(stream, now, end) for stream in missing)

    def _close(self) -> tuple[Any | None, ...]:
        """The open set; the next one may begin."""
        items = tuple(self._open[number][1] if number in self._open else None
                      for number in range(len(self._streams)))
        self._given = max(at for at, _ in self._open.values())
        self._open.clear()
        return items


def _is_due(stream: Stream, now: int, end: int | float) -> bool:
    """Whether a camera that has not stopped by `now` may give an image until `end`, ns."""
    if stream.newest is None or not stream.period:
        return False
    has_stopped = now - stream.newest > _STOPPED * stream.period
    return not has_stopped and stream.newest + _DUE * stream.period <= end
