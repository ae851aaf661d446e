"""Which images belong together: colour with depth, and those of several cameras, by their stamps.

Stamps are integers, nanoseconds, as of `Frame`. There is no clock here, and nothing waits:
callbacks put and return at once, from any thread. How far stamps may lie apart, half the time
between two images, is learned from the stamps themselves. A stamp that is not later than the one
before is ignored; one that is earlier by much (`JUMP_S`, or some periods of a slow camera) is a
recording that starts again, and clears all.
"""

from __future__ import annotations

import threading
from collections import deque
from statistics import median
from typing import Any, NamedTuple

JUMP_S = 1.0  # a stamp earlier by less is late; by more, time has started again
_LONGEST_S = 5.0  # between images; after a longer time without any they begin anew
PATIENCE = 2.5  # intervals between images, that nothing ends before: one may be missed
_KEPT = 8  # depth images
_INTERVALS = 15  # between images, of which the median is taken
_DUE = 0.9  # of a period after its last image, a camera's next one may come
_STOPPED = 5  # periods without an image


class Stream:
    """The stamps of one topic: the newest, and the usual time between two."""

    def __init__(self, intervals: int = _INTERVALS) -> None:
        """intervals: the last so many say what is usual."""
        self._intervals: deque[int] = deque(maxlen=intervals)
        self.newest: int | None = None
        self.ignored = 0  # images that came again, or too late

    @property
    def period(self) -> float | None:
        """ns between images; None until two have come."""
        return median(self._intervals) if self._intervals else None

    @property
    def longest(self) -> int:
        """ns, the longest of the last intervals; 0 until two images have come."""
        return max(self._intervals, default=0)

    def patience_s(self, least_s: float) -> float:
        """A time of at least so many seconds, and of some intervals of a slow camera."""
        return max(least_s, PATIENCE * 1e-9 * (self.period or 0))

    def jumps_back(self, stamp: int) -> bool:
        """Whether a stamp says that time has started again."""
        return self.newest is not None and stamp < self.newest - self.patience_s(JUMP_S) * 1e9

    def advance(self, stamp: int) -> bool:
        """Take in a stamp; False for one that is not later than the newest."""
        if self.newest is not None:
            if stamp <= self.newest:
                self.ignored += 1
                return False
            if stamp - self.newest <= _LONGEST_S * 1e9:
                self._intervals.append(stamp - self.newest)
        self.newest = stamp
        return True

    def restart(self) -> None:
        """Forget when the last image was, not how often they come."""
        self.newest = None


class StampFilter:
    """Which images of one camera are looked at: those later than all before, by their stamps.

    One that is not later than the last by less than JUMP_S, or some periods of a slow camera, came
    again or out of order, and is left out. One that is earlier by more belongs to a recording that
    starts again.
    """

    def __init__(self) -> None:
        self._stream = Stream()

    @property
    def ignored(self) -> int:
        """Images left out."""
        return self._stream.ignored

    def behind_s(self, stamp: int) -> float:
        """How much earlier a stamp (ns) is than that of the last image taken, s."""
        return 0.0 if self._stream.newest is None else (self._stream.newest - stamp) * 1e-9

    def take(self, stamp: int) -> bool:
        """Whether the image of a stamp (ns) is to be looked at."""
        if self._stream.jumps_back(stamp):
            self._stream.restart()
        return self._stream.advance(stamp)


class DepthQueue:
    """The last few depth images, among which a colour image finds its own.

    The callback of the depth topic calls `put`. The worker, when it begins with a colour image,
    takes `nearest(stamp)` for `Frame.depth`: what has not come by then is not waited for. With
    depth that is always later than colour, let the worker begin when both are there.
    """

    def __init__(self, kept: int = _KEPT) -> None:
        """kept: how many depth images at most."""
        self._lock = threading.Lock()
        self._stream = Stream()
        self._kept: deque[tuple[int, Any]] = deque(maxlen=kept)

    def put(self, stamp: int, depth: Any) -> None:
        """Keep a depth image, whatever it is."""
        with self._lock:
            if self._stream.jumps_back(stamp):
                self._stream.restart()
                self._kept.clear()
            if self._stream.advance(stamp):
                self._kept.append((stamp, depth))

    def nearest(self, stamp: int) -> Any | None:
        """The depth image nearest to a stamp, within half a period; None: there is none.

        Until the period is known, only one of the very stamp.
        """
        with self._lock:
            if not self._kept:
                return None
            slop = (self._stream.period or 0) / 2
            at, depth = min(self._kept, key=lambda kept: abs(kept[0] - stamp))
            return depth if abs(at - stamp) <= slop else None


class FrameSet(NamedTuple):
    """Images that belong together."""

    stamp: int  # the newest one's
    items: tuple[Any | None, ...]  # of each camera; None: it has none for this moment


class CameraSync:
    """Puts the images of N cameras together, each image once and in the order of time.

    Every camera's callback calls `put(camera, stamp, frame)` and, if that returns a `Moment`,
    leaves it in the worker's slot; the worker gives `moment.items` to `MultiPipeline.step`. A timer
    calls `stopped(now)` for diagnostics.

    A moment is complete when all cameras whose next image is due have given theirs, all within half
    a period; at the latest when an image comes that is part of the next. So a camera that drops an
    image costs the others one period, one that has stopped, runs slower or in another phase
    nothing.
    """

    def __init__(self, cameras: int) -> None:
        self._lock = threading.Lock()
        self._streams = [Stream() for _ in range(cameras)]
        self._open: dict[int, tuple[int, Any]] = {}  # by camera, of the moment that is not complete
        self._given: int | None = None  # stamp of the last moment
        self.restarts = 0  # times that stamps jumped back

    @property
    def ignored(self) -> tuple[int, ...]:
        """Of each camera, the images that came again, or after the moment that they belong to: a
        camera that is a whole period slower to arrive than the others is never in time."""
        return tuple(stream.ignored for stream in self._streams)

    def put(self, camera: int, stamp: int, item: Any) -> FrameSet | None:
        """Take in a camera's image; the newest moment that is complete now, if one is."""
        with self._lock:
            stream = self._streams[camera]
            if stream.jumps_back(stamp):
                self._restart()
            if not stream.advance(stamp):
                return None
            if self._given is not None and stamp <= self._given:
                stream.ignored += 1
                return None
            before = None if self._fits(camera, stamp) else self._close()
            self._open[camera] = (stamp, item)
            return self._close() if self._complete() else before

    def stopped(self, now: int) -> dict[int, int | None]:
        """Cameras that give no images, and the stamp (ns) of the last; None: there never was one.

        now: the present on the clock of the stamps, or the newest stamp of any camera.
        """
        with self._lock:
            return {number: stream.newest for number, stream in enumerate(self._streams)
                    if not self._lives(stream, now)}

    def _restart(self) -> None:
        for stream in self._streams:
            stream.restart()
        self._open.clear()
        self._given = None
        self.restarts += 1

    def _slop(self) -> float:
        """ns by which images of one moment may differ; as long as nothing is known, nothing."""
        return min((s.period for s in self._streams if s.period), default=0) / 2

    def _fits(self, camera: int, stamp: int) -> bool:
        """Whether an image can be part of the moment that is open."""
        stamps = [at for at, _ in self._open.values()]
        return camera not in self._open and \
            max([*stamps, stamp]) - min([*stamps, stamp]) <= self._slop()

    def _complete(self) -> bool:
        """Whether no camera is due that has not given its image."""
        end = min(at for at, _ in self._open.values()) + self._slop()
        now = max(at for at, _ in self._open.values())
        return not any(self._lives(stream, now) and stream.newest + _DUE * stream.period <= end
                       for number, stream in enumerate(self._streams)
                       if number not in self._open and stream.period)

    @staticmethod
    def _lives(stream: Stream, now: int) -> bool:
        longest = _STOPPED * stream.period if stream.period else JUMP_S * 1e9
        return stream.newest is not None and now - stream.newest <= longest

    def _close(self) -> FrameSet:
        """The open moment; the next may begin."""
        items = tuple(self._open[number][1] if number in self._open else None
                      for number in range(len(self._streams)))
        self._given = max(at for at, _ in self._open.values())
        self._open.clear()
        return FrameSet(self._given, items)
