"""Half an hour of the real node at 30 images a second: does anything grow, does anything slow down?

This process publishes and listens as the bench does; what the node holds is read from /proc.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ros2_pose.msg import People as PeopleMessage
from ros2_pose.tools.bench import START_S, TOPIC, WARM_UP, ImagePublisher, pictures_of_clip
from ros2_pose.tools.node_process import observer, own_domain, process, wait_until

_HZ = 30.0
_WARM_UP_S = 120.0  # until what is held counts: caches fill, allocators settle
_SPANS = 6  # rows of the table
_MOST_GROWTH_MB, _MOST_SLOWER = 20.0, 1.2  # what the project promises
_NAME = "ros2_pose"


@dataclass
class Span:
    """A part of the run."""

    ends_s: float
    memory_mb: float = np.nan  # resident, at the end
    threads: int = 0
    files: int = 0  # open file descriptors
    endpoints: int = 0  # publishers and subscriptions on the graph
    latency_ms: list[float] = field(default_factory=list)
    behind: list[int] = field(default_factory=list)  # images published after the one answered


def run(minutes: float) -> int:
    """Run for so long and print the table; 1 if anything grew or slowed down."""
    spans, answers = [], []
    log = Path(tempfile.gettempdir()) / f"ros2_pose_soak_{os.getpid()}.log"
    with own_domain() as domain, observer(domain, "soak") as node, \
            process("nodes.pose_node", "--ros-args", "-r", f"image:={TOPIC}/image_raw",
                    domain=domain, log=log) as child:
        camera = ImagePublisher(node, list(pictures_of_clip()))

        def answered(message) -> None:
            if (answer := camera.answer(message)) is None:
                return
            answers.append(answer)
            if spans:
                spans[-1].latency_ms.append(answer.delay_ms)
                spans[-1].behind.append(answer.behind)
        node.create_subscription(PeopleMessage, f"/{_NAME}/people", answered, 10)
        wait_until(lambda: camera.publish() or len(answers) >= WARM_UP, f"answers, see {log}",
                   START_S, child)
        _publish_for(camera, min(_WARM_UP_S, 30 * minutes), "warming up")
        for number in range(_SPANS):
            spans.append(Span((number + 1) * 60 * minutes / _SPANS))
            _publish_for(camera, 60 * minutes / _SPANS, f"soak, part {number + 1} of {_SPANS}")
            _look_at(child.pid, node, spans[-1])
    log.unlink(missing_ok=True)
    missed = verdict(spans)
    print(table(spans) + "\n\n" + ("\n".join(missed) or "nothing grew, nothing slowed down"))
    return 1 if missed else 0


def _publish_for(camera: ImagePublisher, seconds: float, what: str) -> None:
    begin = time.perf_counter()
    for number in tqdm(range(int(seconds * _HZ)), what, unit="image", leave=False,
                       mininterval=10):
        camera.publish()
        time.sleep(max(0.0, begin + (number + 1) / _HZ - time.perf_counter()))


def _look_at(pid: int, node, span: Span) -> None:
    """What the process holds, and what of it is on the graph."""
    status = dict(line.split(":", 1) for line in
                  Path(f"/proc/{pid}/status").read_text().splitlines())
    span.memory_mb = int(status["VmRSS"].split()[0]) / 1024
    span.threads = int(status["Threads"])
    span.files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    span.endpoints = len(node.get_publisher_names_and_types_by_node(_NAME, "/")) \
        + len(node.get_subscriber_names_and_types_by_node(_NAME, "/"))


def table(spans: list[Span]) -> str:
    """The parts of the run as markdown."""
    lines = [f"pose_node over DDS, raw 640x480 at {_HZ:g} Hz, {os.cpu_count()} CPU cores", "",
             "| until, min | memory, MB | threads | files | endpoints | answered, Hz | "
             "latency p50, ms | p95 | images behind, p95 |",
             "|---|---|---|---|---|---|---|---|---|"]
    for before, span in zip([Span(0.0), *spans], spans):
        p50, p95 = np.percentile(span.latency_ms or [np.nan], (50, 95))
        lines.append(f"| {span.ends_s / 60:.1f} | {span.memory_mb:.0f} | {span.threads} | "
                     f"{span.files} | {span.endpoints} | "
                     f"{len(span.latency_ms) / (span.ends_s - before.ends_s):.1f} | {p50:.0f} | "
                     f"{p95:.0f} | {np.percentile(span.behind or [np.nan], 95):.0f} |")
    return "\n".join(lines)


def verdict(spans: list[Span]) -> list[str]:
    """What grew or slowed down between the first part and the last, a line each."""
    first, last = spans[0], spans[-1]
    missed = []
    if last.memory_mb - first.memory_mb > _MOST_GROWTH_MB:
        missed.append(f"memory grew by {last.memory_mb - first.memory_mb:.0f} MB")
    for what in ("threads", "files", "endpoints"):
        if getattr(last, what) > getattr(first, what):
            missed.append(f"{what}: {getattr(first, what)} became {getattr(last, what)}")
    slower = np.percentile(last.latency_ms or [np.inf], 95) \
        / np.percentile(first.latency_ms or [np.nan], 95)
    if not slower <= _MOST_SLOWER:
        missed.append(f"latency p95 became {slower:.2f} times as long")
    return missed
