"""The node as a separate process, and an observer node at the other end of its topics.

Shared by demo, bench, soak and tests. Discovery is limited to this machine and to a ROS domain of
its own; processes are ended by their pids.
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

_STOP_S = 10.0  # limit for a process to end after SIGINT
_POLL_S = 0.05
_DOMAINS = 100
_first_domains = itertools.count(os.getpid())


class NodeProcessError(PoseError):
    """A process ended unexpectedly or a wait took too long; the message says which."""


@contextmanager
def own_domain() -> Iterator[int]:
    """Reserve a ROS domain id, 1 to 100, that no other run on this machine uses.

    The reservation is a file lock, which a killed process releases. Each call begins with another
    id, because killed participants stay known in their domain for a while.
    """
    first = next(_first_domains)
    for domain in (1 + (first + i) % _DOMAINS for i in range(_DOMAINS)):
        try:
            file = open(Path(tempfile.gettempdir()) / f"ros2_pose_domain_{domain}", "a")
        except PermissionError:  # of another user
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
    """Run `python -m ros2_pose.<module>`; at the end interrupt it, or kill it if that fails."""
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
    """Create a node in this process, spun by a thread, in a context of its own."""
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
    """Poll until a condition holds.

    Args:
        what: is waited for, for the error.
        child: must not end meanwhile.
    Raises:
        NodeProcessError: after `seconds`, or when the child process ends.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if child is not None and child.poll() is not None:
            raise NodeProcessError(f"waiting for {what}, the process ended with {child.returncode}")
        if time.monotonic() > deadline:
            raise NodeProcessError(f"no {what} within {seconds:g} s")
        time.sleep(_POLL_S)
