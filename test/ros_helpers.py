"""For tests of the node: a camera and a listener on a ROS domain of their own, and the node.

Every test talks over DDS on this machine alone (LOCALHOST), on a domain that no other test uses.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ros2_pose.msg import People
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from ros2_pose.config import PoseConfig
from ros2_pose.messages.image import image_message
from ros2_pose.messages.standard import header_message
from ros2_pose.nodes.message_factory import make
from ros2_pose.people import People as CorePeople
from ros2_pose.tools.node_process import own_domain

FRAME = "camera_optical_frame"
INSTALL = Path(__file__).parents[1] / "install"
BEST_EFFORT = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
RELIABLE = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


PICTURE = np.zeros((48, 64, 3), np.uint8)


class FakePipeline:
    """Reports the same people for every frame and keeps what it was given."""

    device, body, network_name, body_name = "cpu", None, "fake", "open_body"
    engine = "torch on cpu"

    def __init__(self, config: PoseConfig, people: CorePeople | None = None):
        self.config = config
        self.people = people if people is not None else CorePeople.nobody()
        self.frames = []
        self.before = lambda frame: None

    def configure(self, config: PoseConfig) -> None:
        self.config = config

    def camera(self, frame):
        return frame.camera, ""

    def reset(self) -> None:
        self.resets = getattr(self, "resets", 0) + 1

    def step(self, frame) -> CorePeople:
        self.frames.append(frame)
        self.before(frame)
        return self.people


class Graph:
    """A ROS context on a domain of its own, and a node in it that plays camera and listener."""

    def __init__(self) -> None:
        self._own_domain = own_domain()
        self.domain = self._own_domain.__enter__()
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=self.domain)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.node = self.add(Node("tester", context=self.context))
        self.heard: dict[str, list] = {}
        self._stamps = itertools.count(1)
        self.listen(People, "/ros2_pose/people")

    def add(self, node: Node) -> Node:
        """Spin a node along."""
        self.executor.add_node(node)
        return node

    def listen(self, kind: type, topic: str, qos=10) -> list:
        """A list to which every message of the topic is added."""
        self.heard[topic] = []
        self.node.create_subscription(kind, topic, self.heard[topic].append, qos)
        return self.heard[topic]

    @property
    def people(self) -> list:
        """The People messages so far."""
        return self.heard["/ros2_pose/people"]

    def camera(self, qos=RELIABLE, kind=Image, topic="/image"):
        """A publisher of images."""
        return self.node.create_publisher(kind, topic, qos)

    def until(self, condition, seconds: float = 30.0, each=lambda: None, pause: float = 0.05):
        """Spin until the condition holds, with `each` done every `pause` seconds; its value."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            each()
            then = time.monotonic() + pause
            while time.monotonic() < then:
                self.executor.spin_once(timeout_sec=0.01)
                if found := condition():
                    return found
        raise AssertionError(f"not within {seconds:g} s; heard "
                             f"{ {topic: len(got) for topic, got in self.heard.items()} }")

    def matched(self, publisher) -> None:
        """Wait for the node's subscription."""
        self.until(lambda: publisher.get_subscription_count() > 0)

    def header(self):
        """A header later than all before it, by a thirtieth of a second each."""
        return header_message(make, 10**9 + next(self._stamps) * 33_333_333, FRAME)

    def image(self, picture: np.ndarray):
        """A raw image message."""
        return image_message(make, self.header(), picture)

    def ask(self, publisher, message, seconds: float = 30.0):
        """Publish a message until it is answered; the answer, which has the same stamp."""
        stamp = message.header.stamp

        def answer():
            return next((p for p in self.people if p.header.stamp == stamp
                         and p.status != People.STATUS_NO_IMAGE), None)
        self.matched(publisher)
        return self.until(answer, seconds, lambda: publisher.publish(message), pause=1.0)

    def close(self) -> None:
        """Leave the domain."""
        for node in list(self.executor.get_nodes()):
            node.destroy_node()
        self.executor.shutdown()
        rclpy.shutdown(context=self.context)
        self._own_domain.__exit__(None, None, None)


def camera_info(width: int, height: int, focal: float | None = None) -> CameraInfo:
    """A pinhole camera; without focal length one of 60 degrees."""
    f = focal or width / 2 / np.tan(np.radians(30))
    k = [f, 0.0, width / 2 - 0.5, 0.0, f, height / 2 - 0.5, 0.0, 0.0, 1.0]
    p = [*k[:3], 0.0, *k[3:6], 0.0, *k[6:], 0.0]
    info = CameraInfo(width=width, height=height, distortion_model="plumb_bob", d=[0.0] * 5,
                      k=k, p=p)
    info.header.frame_id = FRAME
    return info


def compressed(graph: Graph, data: bytes, form: str = "jpeg") -> CompressedImage:
    """A compressed image message."""
    return make("sensor_msgs/msg/CompressedImage", header=graph.header(), format=form,
                data=np.frombuffer(data, np.uint8))


@contextmanager
def installed_node(graph: Graph, folder: Path, *arguments: str):
    """The installed pose_node as a process of its own, started in `folder`; its Popen.

    At the end it is interrupted and must leave with 0 within ten seconds.
    """
    env = {**os.environ, "ROS_DOMAIN_ID": str(graph.domain), "ROS_LOG_DIR": str(folder),
           "PYTHONPATH": os.environ["PYTHONPATH"].replace(str(INSTALL.parent) + ":", "")}
    command = [sys.executable, str(INSTALL / "lib" / "ros2_pose" / "pose_node"), "--ros-args"]
    for argument in arguments:
        command += ["-r" if ":=/" in argument else "-p", argument]
    process = subprocess.Popen(command, cwd=folder, env=env, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        yield process
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=10)[0]
        assert process.returncode == 0, output
        assert "Traceback" not in output, output
    finally:
        process.kill()
        process.communicate()
