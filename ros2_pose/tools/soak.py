"""Soak test: the node at 30 images a second for long, with limits on growth and latency.

This process publishes and receives as the bench does; the node's resources are read from /proc.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ros2_pose.evaluation.tables import Row, tables
from ros2_pose.msg import People as PeopleMessage
from ros2_pose.tools.bench import START_S, TOPIC, WARM_UP, ImagePublisher, pictures_of_clip
from ros2_pose.tools.node_process import observer, own_domain, process

_HZ = 30.0
_WARM_UP_S = 120.0  # not measured: caches fill, allocators settle
_PARTS = 6  # rows of the table
_MAX_GROWTH_MB, _MAX_LATENCY_RATIO = 20.0, 1.2
_NAME = "ros2_pose"
_PROTOCOL = (f"pose_node over DDS, raw 640x480 at {_HZ:g} Hz, {os.cpu_count()} CPU cores; "
             "resources at the end of each part")
_MEMORY, _LATENCY = "memory, MB", "p95"  # columns


def run(minutes: float) -> int:
    """Run for some minutes and print the table. Returns 1 if anything grew or slowed down."""
    rows: list[Row] = []  # one for each part of the run
    answers: list[tuple[float, int]] = []  # of one part, see `row`
    log = Path(tempfile.gettempdir()) / f"ros2_pose_soak_{os.getpid()}.log"
    with own_domain() as domain, observer(domain, "soak") as node, \
            process("nodes.pose_node", "--ros-args", "-r", f"image:={TOPIC}/image_raw",
                    domain=domain, log=log) as child:
        camera = ImagePublisher(node, list(pictures_of_clip()))

        def on_people(message) -> None:
            answer = camera.match_answer(message)
            if answer is not None:
                answers.append(answer)

        node.create_subscription(PeopleMessage, f"/{_NAME}/people", on_people, 10)
        camera.publish_until(lambda: len(answers) >= WARM_UP, log, START_S, child)
        _publish_for(camera, min(_WARM_UP_S, 30 * minutes), "warming up")
        for number in range(1, _PARTS + 1):
            answers.clear()
            _publish_for(camera, 60 * minutes / _PARTS, f"soak, part {number} of {_PARTS}")
            rows.append(row(number * minutes / _PARTS, 60 * minutes / _PARTS, answers,
                            _resources(child.pid, node)))
    log.unlink(missing_ok=True)
    exceeded = exceeded_limits(rows[0].values, rows[-1].values)
    print(tables(rows) + "\n\n" + ("\n".join(exceeded) or "nothing grew, nothing slowed down"))
    return 1 if exceeded else 0


def _publish_for(camera: ImagePublisher, seconds: float, what: str) -> None:
    begin_s = time.perf_counter()
    for number in tqdm(range(int(seconds * _HZ)), what, unit="image", leave=False,
                       mininterval=10):
        camera.publish()
        time.sleep(max(0.0, begin_s + (number + 1) / _HZ - time.perf_counter()))


def _resources(pid: int, node) -> dict[str, float]:
    """Resident memory, threads and open files of the process; publishers and subscriptions."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    publishers = node.get_publisher_names_and_types_by_node(_NAME, "/")
    subscriptions = node.get_subscriber_names_and_types_by_node(_NAME, "/")
    return {_MEMORY: int(status["VmRSS"].split()[0]) / 1024,
            "threads": int(status["Threads"]),
            "files": len(list(Path(f"/proc/{pid}/fd").iterdir())),
            "endpoints": len(publishers) + len(subscriptions)}


def row(ends_min: float, seconds: float, answers: list[tuple[float, int]],
        resources: dict[str, float]) -> Row:
    """Row of the table for one part of the run.

    Args:
        ends_min: end of this part since the begin of the first one, minutes.
        seconds: its duration.
        answers: latency in ms, and images published after the one answered.
        resources: of the node at the end.
    """
    latencies_ms = [latency_ms for latency_ms, _ in answers]
    return Row(f"until {ends_min:.1f} min", _PROTOCOL, resources | {
        "answered, Hz": len(answers) / seconds,
        "latency p50, ms": _percentile(latencies_ms, 50), _LATENCY: _percentile(latencies_ms, 95),
        "images behind, p95": _percentile([behind for _, behind in answers], 95)})


def _percentile(values: Sequence[float], percent: float) -> float:
    """A percentile; NaN if there are no values."""
    return float(np.percentile(values, percent)) if values else np.nan


def exceeded_limits(first: Mapping, last: Mapping) -> list[str]:
    """What grew or slowed down between the first part and the last, one line each.

    Args:
        first, last: values of their rows.
    """
    exceeded = []
    growth_mb = last[_MEMORY] - first[_MEMORY]
    if growth_mb > _MAX_GROWTH_MB:
        exceeded.append(f"memory grew by {growth_mb:.0f} MB")
    for name in ("threads", "files", "endpoints"):
        before, after = first[name], last[name]
        if after > before:
            exceeded.append(f"{name}: {before} became {after}")
    ratio = last[_LATENCY] / first[_LATENCY]
    if not ratio <= _MAX_LATENCY_RATIO:  # also NaN: a part without answers
        exceeded.append(f"latency p95 became {ratio:.2f} times as long")
    return exceeded
