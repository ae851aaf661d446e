"""Counts, rates and latencies of the node, and the diagnostics message made of them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from ros2_pose.sync.image_sync import PATIENCE

OK, WARN, ERROR, STALE = (bytes([level]) for level in range(4))  # DiagnosticStatus.level
_LATENCIES = 100  # kept
_REPORTS = 5  # over which rates are computed: a slow camera has no image in some of them
_INTERVALS = 11  # arrivals kept; their mean interval sets the limit of silence
_SILENT_S = 1.5  # least time without an image that counts as silence


@dataclass
class NodeStatistics:
    """Counts since the start and recent latencies. Times are monotonic, s."""

    received: int = 0
    dropped: int = 0  # overwritten by a newer image before processing
    stale: int = 0  # stamp not later than that of the image before
    processed: int = 0
    bad_images: int = 0
    failures: int = 0
    people: int = 0  # in the last image
    problem: str = ""  # of the last image; empty if it was processed without one
    no_image: str = ""  # why images do not arrive or are lost; empty while they arrive
    last_error: str = ""
    latencies_s: deque[float] = field(default_factory=lambda: deque(maxlen=_LATENCIES))
    _reports: deque[tuple[float, int, int]] = field(
        default_factory=lambda: deque([(0.0, 0, 0)], maxlen=_REPORTS + 1))
    _arrivals_s: deque[float] = field(default_factory=lambda: deque(maxlen=_INTERVALS))

    def count_received(self, now_s: float) -> None:
        """Count an image that arrived now."""
        self.received += 1
        self._arrivals_s.append(now_s)

    def count_processed(self, people: int, latency_s: float) -> None:
        """Count an image that was processed, `latency_s` after its arrival."""
        self.processed += 1
        self.people = people
        self.latencies_s.append(latency_s)

    def rates_hz(self, now_s: float) -> tuple[float, float]:
        """Images received and processed a second, over the last few calls of this method."""
        self._reports.append((now_s, self.received, self.processed))
        then_s, received_then, processed_then = self._reports[0]
        span_s = max(now_s - then_s, 1e-6)
        return (self.received - received_then) / span_s, (self.processed - processed_then) / span_s

    def is_silent(self, now_s: float) -> bool:
        """Whether the last image is older than some mean intervals between images."""
        if not self._arrivals_s:
            return False
        age_s = now_s - self._arrivals_s[-1]
        intervals = len(self._arrivals_s) - 1
        if intervals == 0:
            return age_s > 2 * _SILENT_S
        mean_interval_s = (self._arrivals_s[-1] - self._arrivals_s[0]) / intervals
        return age_s > max(_SILENT_S, PATIENCE * mean_interval_s)

    def latency_ms(self) -> tuple[float, float]:
        """Median and 95th percentile of the last latencies, ms; NaN if there are none."""
        if not self.latencies_s:
            return np.nan, np.nan
        median, high = np.percentile(list(self.latencies_s), [50, 95]) * 1e3
        return median, high

    def status(self, now_s: float) -> tuple[bytes, str]:
        """Level and message of the diagnostics of an active node."""
        if self.received == 0:
            return WARN, self.no_image or "waiting for the first image"
        if self.is_silent(now_s):
            return STALE, self.no_image or "images stopped arriving"
        problem = self.problem or self.no_image
        return (WARN, problem) if problem else (OK, "processing images")


def diagnostics(make, header, name: str, values: dict, status: tuple[bytes, str]):
    """A diagnostic_msgs/DiagnosticArray of one node.

    Args:
        name: full name of the node.
        values: {key: value}, shown in this order.
        status: level and message.
    """
    pairs = [make("diagnostic_msgs/msg/KeyValue", key=key, value=_text(value))
             for key, value in values.items()]
    level, message = status
    entry = make("diagnostic_msgs/msg/DiagnosticStatus", level=level, name=name, message=message,
                 hardware_id="", values=pairs)
    return make("diagnostic_msgs/msg/DiagnosticArray", header=header, status=[entry])


def _text(value) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)
