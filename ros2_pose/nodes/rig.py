"""The real node as a process of its own, with us at the other end of its topics.

What demo, bench and tests share. Everything stays on this machine (loopback discovery) in a domain
of its own; processes are ended by their pids.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
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


class RigError(PoseError):
    """A process of the rig ended or a wait took too long; the message says which."""


def own_domain() -> int:
    """A ROS domain id that other rigs on this machine are unlikely to use, 1 to 100."""
    return 1 + os.getpid() % 100


@contextmanager
def process(module: str, *arguments: str, domain: int, log: Path) -> Iterator[subprocess.Popen]:
    """Run `python -m ros2_pose.nodes.<module>`; interrupted at the end, killed if that fails."""
    environment = os.environ | {"ROS_DOMAIN_ID": str(domain),
                                "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    with open(log, "w") as output:
        child = subprocess.Popen([sys.executable, "-m", f"ros2_pose.nodes.{module}", *arguments],
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
        if child is not None and child.poll() not in (None, 0):
            raise RigError(f"waiting for {what}, the process ended with {child.returncode}")
        if time.monotonic() > until:
            raise RigError(f"no {what} within {seconds:g} s")
        time.sleep(_POLL_S)
