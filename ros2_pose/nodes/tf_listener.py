"""Camera poses and ground from TF, and people in the frames that the parameters name.

/tf is received by callbacks and never waited for. If a transform is not known at the image's stamp,
the newest one is used if it is older by at most tf_tolerance_s: a localisation that publishes with
a delay must not cost every image its people. Beyond that no position is published at all, rather
than a wrong one: people keep their pixels, and a note names the missing transform and since when.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Imu
from tf2_msgs.msg import TFMessage

from ros2_pose.geometry import Transform, TransformError
from ros2_pose.messages.standard import stamp_of
from ros2_pose.node_config import NodeConfig
from ros2_pose.nodes.message_factory import make
from ros2_pose.people import Ground, People
from ros2_pose.sync.ground import GroundFinder
from ros2_pose.sync.tf_buffer import TransformBuffer

_QUEUE_DEPTH = 100  # tf2's
_DYNAMIC = QoSProfile(depth=_QUEUE_DEPTH)
_STATIC = QoSProfile(depth=_QUEUE_DEPTH, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_IMU = QoSProfile(depth=_QUEUE_DEPTH, reliability=ReliabilityPolicy.BEST_EFFORT)

StampedPeople = tuple[Any, People]  # std_msgs/Header, and people in the frame that it names


class PeopleByFrame(NamedTuple):
    """The people of an image in each frame that is published."""

    in_image_frame: StampedPeople
    in_target_frame: StampedPeople
    in_navigation_frame: StampedPeople
    note: str  # which transform is missing and why; empty if all are known


class TfListener:
    """Buffer of /tf, /tf_static and an IMU; subscribes only if the settings name a frame or topic.

    Attributes:
        fixed_problem: why the last image's camera pose in the fixed frame is not known.
        ground_problem: why the last image's floor is not known or not used.
    """

    def __init__(self, node: Node, settings: Callable[[], NodeConfig]):
        self.node, self._settings = node, settings
        self._buffer, self._lock = TransformBuffer(), threading.RLock()
        self._own_frames: set[str] = set()  # published by this node
        self.fixed_problem = self.ground_problem = ""
        config = settings()
        self._ground = GroundFinder(config.floor_frame, config.reference_frame, bool(config.imu))
        self._subscriptions = []
        if config.needs_tf:
            self._subscriptions = [
                node.create_subscription(TFMessage, "/tf", self._receive, _DYNAMIC),
                node.create_subscription(TFMessage, "/tf_static", self._receive_static, _STATIC)]
        if config.imu:
            self._subscriptions.append(
                node.create_subscription(Imu, config.imu, self._receive_imu, _IMU))

    def close(self) -> None:
        """Destroy the subscriptions."""
        for subscription in self._subscriptions:
            self.node.destroy_subscription(subscription)

    def ignore_frames(self, names: Iterable[str]) -> None:
        """Do not store these child frames: this node publishes them and receives them back."""
        self._own_frames.update(names)

    def lookup(self, target: str, header) -> Transform:
        """Transform from the header's frame, at its stamp, to the target frame; never waits.

        Raises:
            TransformError: names what is missing.
        """
        tolerance_ns = round(self._settings().tf_tolerance_s * 1e9)
        with self._lock:
            return self._buffer.lookup_from(target, header, tolerance_ns)

    def camera_to_fixed(self, header) -> Transform | None:
        """Camera pose: transform from the image's frame to the fixed frame; None if unknown."""
        self.fixed_problem = ""
        fixed_frame = self._settings().still_frame
        if not fixed_frame:
            return None
        try:
            return self.lookup(fixed_frame, header)
        except TransformError as error:
            self.fixed_problem = str(error)
            return None

    def ground(self, header) -> Ground | None:
        """Gravity and floor in the image's frame; None if neither TF nor the IMU knows them."""
        tolerance_ns = round(self._settings().tf_tolerance_s * 1e9)
        with self._lock:
            ground, self.ground_problem = self._ground.find(header, stamp_of(header), self.lookup,
                                                            tolerance_ns)
        return ground

    def people_by_frame(self, header, people: People) -> PeopleByFrame:
        """Transform the people of an image, given in its frame, to each published frame."""
        settings = self._settings()
        target = self._transformed(header, people, settings.target_frame)
        navigation = self._transformed(header, people, settings.navigation_frame)
        note = target[1].note or navigation[1].note or self.fixed_problem \
            or self.ground_problem
        return PeopleByFrame((header, people), target, navigation, note)

    def _transformed(self, header, people: People, frame_id: str) -> StampedPeople:
        """People in a frame; without bodies and with a note if the transform is not known."""
        frame_id = frame_id.lstrip("/")
        if frame_id in ("", header.frame_id):
            return header, people
        target_header = make("std_msgs/msg/Header", stamp=header.stamp, frame_id=frame_id)
        try:
            transform = self.lookup(frame_id, header)
        except TransformError as error:
            return target_header, people.without_bodies(people.note or str(error))
        return target_header, people.moved(transform)

    # Callbacks: store and return ----------------------------------------------------------------

    def _receive(self, message) -> None:
        with self._lock:
            self._buffer.take_in(message, is_static=False, left_out=self._own_frames)

    def _receive_static(self, message) -> None:
        with self._lock:
            self._buffer.take_in(message, is_static=True, left_out=self._own_frames)

    def _receive_imu(self, message) -> None:
        with self._lock:
            if self._ground.imu is not None:
                self._ground.imu.take_in(message)
