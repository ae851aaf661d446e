"""Soak test: the node at 30 images a second for long, with limits on growth and latency.

This process publishes and receives as the bench does; the node's resources are read from /proc.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ros2_pose.msg import People as PeopleMessage
from ros2_pose.tools.bench import START_S, TOPIC, WARM_UP, ImagePublisher, pictures_of_clip
from ros2_pose.tools.node_process import observer, own_domain, process

_HZ = 30.0
_WARM_UP_S = 120.0  # not measured: caches fill, allocators settle
_SPANS = 6  # rows of the table
_MAX_GROWTH_MB, _MAX_LATENCY_RATIO = 20.0, 1.2
_NAME = "ros2_pose"


@dataclass
class Span:
    """Resources and answers in one part of the run."""

    ends_s: float
    memory_mb: float = np.nan  # resident, at the end
    threads: int = 0
    files: int = 0  # open file descriptors
    endpoints: int = 0  # publishers and subscriptions of the node
    latency_ms: list[float] = field(default_factory=list)
    behind: list[int] = field(default_factory=list)  # images published after the one answered


def run(minutes: float) -> int:
    """Run for some minutes and print the table. Returns 1 if anything grew or slowed down."""
    spans: list[Span] = []
    answered = 0
    log = Path(tempfile.gettempdir()) / f"ros2_pose_soak_{os.getpid()}.log"
    with own_domain() as domain, observer(domain, "soak") as node, \
            process("nodes.pose_node", "--ros-args", "-r", f"image:={TOPIC}/image_raw",
                    domain=domain, log=log) as child:
        camera = ImagePublisher(node, list(pictures_of_clip()))

        def on_people(message) -> None:
            nonlocal answered
            answer = camera.match_answer(message)
            if answer is None:
                return
            answered += 1
            if spans:
                latency_ms, behind = answer
                spans[-1].latency_ms.append(latency_ms)
                spans[-1].behind.append(behind)

        node.create_subscription(PeopleMessage, f"/{_NAME}/people", on_people, 10)
        camera.publish_until(lambda: answered >= WARM_UP, log, START_S, child)
        _publish_for(camera, min(_WARM_UP_S, 30 * minutes), "warming up")
        for number in range(_SPANS):
            spans.append(Span((number + 1) * 60 * minutes / _SPANS))
            _publish_for(camera, 60 * minutes / _SPANS, f"soak, part {number + 1} of {_SPANS}")
            _read_resources(child.pid, node, spans[-1])
    log.unlink(missing_ok=True)
    exceeded = exceeded_limits(spans)
    print(table(spans) + "\n\n" + ("\n".join(exceeded) or "nothing grew, nothing slowed down"))
    return 1 if exceeded else 0


def _publish_for(camera: ImagePublisher, seconds: float, what: str) -> None:
    begin_s = time.perf_counter()
    for number in tqdm(range(int(seconds * _HZ)), what, unit="image", leave=False,
                       mininterval=10):
        camera.publish()
        time.sleep(max(0.0, begin_s + (number + 1) / _HZ - time.perf_counter()))


def _read_resources(pid: int, node, span: Span) -> None:
    """Read memory, threads and files of the process, and the node's endpoints on the ROS graph."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    span.memory_mb = int(status["VmRSS"].split()[0]) / 1024
    span.threads = int(status["Threads"])
    span.files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    publishers = node.get_publisher_names_and_types_by_node(_NAME, "/")
    subscriptions = node.get_subscriber_names_and_types_by_node(_NAME, "/")
    span.endpoints = len(publishers) + len(subscriptions)


def table(spans: list[Span]) -> str:
    """Table of the parts of the run in Markdown."""
    lines = [f"pose_node over DDS, raw 640x480 at {_HZ:g} Hz, {os.cpu_count()} CPU cores", "",
             "| until, min | memory, MB | threads | files | endpoints | answered, Hz | "
             "latency p50, ms | p95 | images behind, p95 |",
             "|---|---|---|---|---|---|---|---|---|"]
    for before, span in zip([Span(0.0), *spans], spans):
        answered_hz = len(span.latency_ms) / (span.ends_s - before.ends_s)
        p50, p95 = np.percentile(span.latency_ms or [np.nan], (50, 95))
        behind = _percentile_95(span.behind)
        lines.append(f"| {span.ends_s / 60:.1f} | {span.memory_mb:.0f} | {span.threads} | "
                     f"{span.files} | {span.endpoints} | {answered_hz:.1f} | {p50:.0f} | "
                     f"{p95:.0f} | {behind:.0f} |")
    return "\n".join(lines)


def _percentile_95(values: Sequence[float]) -> float:
    """95th percentile; NaN if there are no values."""
    return float(np.percentile(values, 95)) if values else np.nan


def exceeded_limits(spans: list[Span]) -> list[str]:
    """What grew or slowed down between the first part and the last, one line each."""
    first, last = spans[0], spans[-1]
    exceeded = []
    if last.memory_mb - first.memory_mb > _MAX_GROWTH_MB:
        exceeded.append(f"memory grew by {last.memory_mb - first.memory_mb:.0f} MB")
    for name in ("threads", "files", "endpoints"):
        before, after = getattr(first, name), getattr(last, name)
        if after > before:
            exceeded.append(f"{name}: {before} became {after}")
    ratio = _percentile_95(last.latency_ms) / _percentile_95(first.latency_ms)
    if not ratio <= _MAX_LATENCY_RATIO:  # also NaN: a part without answers
        exceeded.append(f"latency p95 became {ratio:.2f} times as long")
    return exceeded
