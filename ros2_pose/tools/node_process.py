"""The real node as a process of its own, with us at the other end of its topics.

What demo, bench and tests share. Everything stays on this machine (loopback discovery) in a domain
of its own; processes are ended by their pids.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from ros2_pose.errors import PoseError

_STOP_S = 10.0  # for a process to end after SIGINT
_POLL_S = 0.05
_DOMAINS = 100
_starts = itertools.count(os.getpid())


class NodeProcessError(PoseError):
    """A process of the rig ended or a wait took too long; the message says which."""


@contextmanager
def own_domain() -> Iterator[int]:
    """A ROS domain id, 1 to 100, that no other rig on this machine has at the same time.

    A locked file says whose it is, so that a killed process leaves none behind. Another one each
    time: participants that were killed are still remembered for a while where they were.
    """
    first = next(_starts)
    for domain in (1 + (first + i) % _DOMAINS for i in range(_DOMAINS)):
        try:
            file = open(Path(tempfile.gettempdir()) / f"ros2_pose_domain_{domain}", "a")
        except PermissionError:  # another user's
            continue
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield domain
            return
    raise NodeProcessError(
        f"all ROS domain ids up to {_DOMAINS} are taken by other runs of this package"
    )


@contextmanager
def process(module: str, *arguments: str, domain: int, log: Path) -> Iterator[subprocess.Popen]:
    """Run `python -m ros2_pose.<module>`; interrupted at the end, killed if that fails."""
    environment = os.environ | {"ROS_DOMAIN_ID": str(domain),
                                "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    with open(log, "w") as output:
        child = subprocess.Popen([sys.executable, "-m", f"ros2_pose.{module}", *arguments],
                                 env=environment, stdout=output, stderr=subprocess.STDOUT,
                                 start_new_session=True)
        try:
            yield child
        finally:
            _stop(child)


def _stop(child: subprocess.Popen) -> None:
    if child.poll() is None:
        child.send_signal(signal.SIGINT)
    try:
        child.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


@contextmanager
def observer(domain: int, name: str = "observer") -> Iterator[Node]:
    """A node of this process, spun by a thread, in a context of its own."""
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain)
    node = Node(name, context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    try:
        yield node
    finally:
        executor.shutdown()
        thread.join()
        node.destroy_node()
        rclpy.try_shutdown(context=context)


def wait_until(condition: Callable[[], object], what: str, seconds: float,
               child: subprocess.Popen | None = None) -> None:
    """Poll until the condition holds. Raises RigError, at once if the child process has ended."""
    until = time.monotonic() + seconds
    while not condition():
        if child is not None and child.poll() is not None:
            raise NodeProcessError(f"waiting for {what}, the process ended with {child.returncode}")
        if time.monotonic() > until:
            raise NodeProcessError(f"no {what} within {seconds:g} s")
        time.sleep(_POLL_S)
