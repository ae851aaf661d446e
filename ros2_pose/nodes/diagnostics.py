"""What the node did since its start and of late, and the diagnostics that tell it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from ros2_pose.sync.image_sync import PATIENCE

OK, WARN, ERROR, STALE = (bytes([level]) for level in range(4))  # DiagnosticStatus.level
_RECENT = 100  # latencies kept
_REPORTS = 5  # over which rates are taken: a slow camera has no image in some
_INTERVALS = 11  # arrivals, whose mean distance says how long to wait for the next
_SILENT_S = 1.5  # without an image is silence, but of a slow camera


@dataclass
class Statistics:
    """Counts since the start, and what the last report has not told yet. All times in s."""

    received: int = 0
    dropped: int = 0  # replaced by a newer image before they were looked at
    stale: int = 0  # not later than the image before them
    answered: int = 0
    bad_images: int = 0
    failures: int = 0
    people: int = 0
    problem: str = ""  # of the last image; empty if it was fine
    no_image: str = ""  # why images do not come or get lost; empty if they do come
    last_error: str = ""
    latencies: deque = field(default_factory=lambda: deque(maxlen=_RECENT))
    _reports: deque = field(default_factory=lambda: deque([(0.0, 0, 0)], maxlen=_REPORTS + 1))
    _arrivals: deque = field(default_factory=lambda: deque(maxlen=_INTERVALS))

    def came(self, now: float) -> None:
        """An image came, at a monotonic time."""
        self.received += 1
        self._arrivals.append(now)

    def good(self, people: int, latency: float) -> None:
        """An image was answered, `latency` after it came."""
        self.answered += 1
        self.people = people
        self.latencies.append(latency)

    def rates(self, now: float) -> tuple[float, float]:
        """Images received and answered a second over the last few calls, at a monotonic time."""
        self._reports.append((now, self.received, self.answered))
        then, received_then, answered_then = self._reports[0]
        span = max(now - then, 1e-6)
        return (self.received - received_then) / span, (self.answered - answered_then) / span

    def is_silent(self, now: float) -> bool:
        """Whether no image came for longer than usual, at a monotonic time."""
        if len(self._arrivals) < 2:
            return bool(self._arrivals) and now - self._arrivals[-1] > 2 * _SILENT_S
        prior_mean = (self._arrivals[-1] - self._arrivals[0]) / (len(self._arrivals) - 1)
        return now - self._arrivals[-1] > max(_SILENT_S, PATIENCE * prior_mean)

    def latency_ms(self) -> tuple[float, float]:
        """Median and 95th percentile of the last latencies, ms; NaN if there are none."""
        recent = list(self.latencies)
        return tuple(np.percentile(recent, [50, 95]) * 1e3) if recent else (np.nan, np.nan)

    def status(self, now: float) -> tuple[bytes, str]:
        """Level and message of the diagnostics of an active node, at a monotonic time."""
        if self.received == 0:
            return WARN, self.no_image or "waiting for the first image"
        if self.is_silent(now):
            return STALE, self.no_image or "no images any more"
        problem = self.problem or self.no_image
        return (WARN, problem) if problem else (OK, "looking")


def diagnostics(make, header, name: str, values: dict, status: tuple[bytes, str]):
    """A diagnostic_msgs/DiagnosticArray of one node; values are shown in their order."""
    pairs = [make("diagnostic_msgs/msg/KeyValue", key=key, value=_text(value))
             for key, value in values.items()]
    level, message = status
    entry = make("diagnostic_msgs/msg/DiagnosticStatus", level=level, name=name, message=message,
                 hardware_id="", values=pairs)
    return make("diagnostic_msgs/msg/DiagnosticArray", header=header, status=[entry])


def _text(value) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)
