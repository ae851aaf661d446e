"""Where the camera was when it took an image, and people in the frames that were asked for.

/tf is heard by callbacks and never waited for. If the camera's place is not known at the image's
stamp, the newest one stands in for up to tf_tolerance_s: a localisation that comes with a delay
must not cost every image its people. Beyond that nobody's place is said at all, rather than a
wrong one: people keep their pixels, and a note says which transform is missing and since when.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from tf2_msgs.msg import TFMessage

from ros2_pose.geometry import Transform, TransformError
from ros2_pose.nodes.message_factory import make
from ros2_pose.nodes.params import NodeConfig
from ros2_pose.people import People
from ros2_pose.sync.tf_buffer import TransformBuffer

_DEPTH = 100  # tf2's
_DYNAMIC = QoSProfile(depth=_DEPTH)
_STATIC = QoSProfile(depth=_DEPTH, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class PeopleInFrame(NamedTuple):
    """People in the frame that a header names."""

    header: Any
    people: People


class PeopleByFrame(NamedTuple):
    """The people of an image in each frame that someone wants them in."""

    seen: PeopleInFrame  # the image's
    shown: PeopleInFrame  # target_frame
    navigated: PeopleInFrame  # navigation_frame
    note: str  # which of them is not known and why; empty if all are


class TfListener:
    """The transforms of /tf and /tf_static, heard if the settings name a frame."""

    def __init__(self, node: Node, settings: Callable[[], NodeConfig]):
        self.node, self._settings = node, settings
        self._buffer, self._lock = TransformBuffer(), threading.Lock()
        self._ours: set[str] = set()  # frames of people that we publish
        self.fixed_problem = ""  # why the last image's pose in the fixed frame is not known
        self._subscriptions = []
        if settings().target_frame or settings().still_frame:
            self._subscriptions = [
                node.create_subscription(TFMessage, "/tf", self._hear, _DYNAMIC),
                node.create_subscription(TFMessage, "/tf_static", self._hear_static, _STATIC)]

    def close(self) -> None:
        """Hear no more."""
        for subscription in self._subscriptions:
            self.node.destroy_subscription(subscription)

    def ignore(self, names: Iterable[str]) -> None:
        """Do not take in these frames: what we say ourselves comes back to us."""
        self._ours.update(names)

    def lookup(self, target: str, header) -> Transform:
        """From the header's frame, at its stamp, to the target frame; returns at once.

        Raises TransformError, which says what is missing.
        """
        tolerance = round(self._settings().tf_tolerance_s * 1e9)
        with self._lock:
            return self._buffer.lookup_from(target, header, tolerance)

    def camera_to_fixed(self, header) -> Transform | None:
        """From the image's frame to the one that stands still; None if it is not known."""
        self.fixed_problem, still = "", self._settings().still_frame
        try:
            return self.lookup(still, header) if still else None
        except TransformError as error:
            self.fixed_problem = str(error)
            return None

    def views(self, header, people: People) -> PeopleByFrame:
        """The people of an image, in its frame, in every frame that is asked for."""
        shown = self._located(header, people, self._settings().target_frame)
        navigated = self._located(header, people, self._settings().navigation_frame)
        note = shown.people.note or navigated.people.note or self.fixed_problem
        return PeopleByFrame(PeopleInFrame(header, people), shown, navigated, note)

    def _located(self, header, people: People, frame_id: str) -> PeopleInFrame:
        """People in a frame; without bodies and with a note if no way leads there."""
        frame_id = frame_id.lstrip("/")
        if frame_id in ("", header.frame_id):
            return PeopleInFrame(header, people)
        there = make("std_msgs/msg/Header", stamp=header.stamp, frame_id=frame_id)
        try:
            transform = self.lookup(frame_id, header)
        except TransformError as error:
            return PeopleInFrame(there, people.without_bodies(people.note or str(error)))
        return PeopleInFrame(there, people.moved(transform))

    # Callbacks: store and return ----------------------------------------------------------------

    def _hear(self, message) -> None:
        with self._lock:
            self._buffer.take_in(message, is_static=False, left_out=self._ours)

    def _hear_static(self, message) -> None:
        with self._lock:
            self._buffer.take_in(message, is_static=True, left_out=self._ours)
