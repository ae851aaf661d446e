"""Subscriptions that match what publishers offer, of images and of their depth.

A reliable subscriber never matches a best-effort camera, and a best-effort one loses most large
images of a reliable camera. So the offers are looked at again and again, as `ros2 topic echo` does
once, and the subscription is made anew when they change.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from rclpy.node import Node
from rclpy.qos import QoSPolicyKind, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image

from ros2_pose.camera import Camera
from ros2_pose.messages.standard import stamp_of
from ros2_pose.nodes.qos_events import SubscriptionEventCallbacks
from ros2_pose.sync.image_sync import DepthQueue, Stream

REPEAT_S = 5.0  # a complaint is not repeated sooner
_DEPTH = 5  # callbacks only store, so this never fills
_DEPTH_GONE_S = 1.0  # without a depth image; of a slow camera, some of its intervals
_MOST_HELD = 30  # images that wait for their depth

_POLICIES = {"reliable": ReliabilityPolicy.RELIABLE, "best_effort": ReliabilityPolicy.BEST_EFFORT}


class Arrival(NamedTuple):
    """An image as it came."""

    message: Image | CompressedImage
    camera: Camera | None
    camera_problem: str  # why there is no camera, if a calibration came
    time: float  # monotonic, s
    depth: Image | None = None  # aligned with the image
    depth_problem: str = ""  # why there is none, if one is wanted


class MatchedSubscription:
    """A subscription of one topic whose reliability follows the publishers'."""

    def __init__(self, node: Node, kind: type, topic: str, callback: Callable, wanted: str):
        self.node, self.kind, self.topic, self.callback = node, kind, topic, callback
        self.wanted = wanted
        self.policy: ReliabilityPolicy | None = None
        self.incompatible = ""  # the last publisher that cannot be heard, and why
        self._subscription = None
        self.match()

    def match(self) -> None:
        """Subscribe anew if the publishers now ask for it."""
        policy = self._policy_to_use()
        if policy == self.policy:
            return
        self.close()
        self.policy, self.incompatible = policy, ""
        profile = QoSProfile(depth=_DEPTH, reliability=policy)
        events = SubscriptionEventCallbacks(incompatible_qos=self._on_incompatible)
        self._subscription = self.node.create_subscription(self.kind, self.topic, self.callback,
                                                           profile, event_callbacks=events)

    def close(self) -> None:
        """Subscribe no more."""
        if self._subscription is not None:
            self.node.destroy_subscription(self._subscription)
            self._subscription = None

    def offers(self) -> list[ReliabilityPolicy]:
        """What each publisher of the topic offers."""
        publishers = self.node.get_publishers_info_by_topic(self.topic)
        return [info.qos_profile.reliability for info in publishers]

    def both_sides(self) -> str:
        """What publishers offer and what is asked for, for a complaint."""
        offered = ", ".join(offer.name.lower() for offer in self.offers()) or "nothing"
        return f"its publishers offer {offered}, the subscription is {self.policy.name.lower()}"

    def _on_incompatible(self, event) -> None:
        kind = QoSPolicyKind(event.last_policy_kind).name.lower()
        self.incompatible = (f"a publisher of {self.topic} cannot be heard, its {kind} does not "
                             f"fit: {self.both_sides()}; set the parameter reliability to auto")
        if self.wanted != "auto":  # or the next look mends it
            self.node.get_logger().warning(self.incompatible, throttle_duration_sec=REPEAT_S)

    def _policy_to_use(self) -> ReliabilityPolicy:
        if self.wanted != "auto":
            return _POLICIES[self.wanted]
        offers = self.offers()
        if not offers:
            return self.policy or ReliabilityPolicy.BEST_EFFORT  # which matches whoever comes
        reliable = all(offer == ReliabilityPolicy.RELIABLE for offer in offers)
        return _POLICIES["reliable" if reliable else "best_effort"]


class DepthInput(MatchedSubscription):
    """A camera's depth topic: gives each image the depth of its time.

    Depth is made from an image and may come after it. An image is held back until its depth comes,
    for the time `wait_s` and at least until the next image, but not while no depth comes at all.
    Images are delivered in the order in which they came.
    """

    def __init__(self, node: Node, topic: str, reliability: str,
                 deliver: Callable[[Arrival], None], wait_s: Callable[[], float]):
        self._deliver, self._wait_s, self._queue = deliver, wait_s, DepthQueue()
        self._held: deque[Arrival] = deque()
        self._arrivals = Stream()  # ns of depth images, by a monotonic clock
        self._newest_ns = 0  # stamp
        super().__init__(node, Image, topic, self._hear, reliability)

    @property
    def lives(self) -> bool:
        """Whether depth images come."""
        if self._arrivals.newest is None:
            return False
        since_s = time.perf_counter() - 1e-9 * self._arrivals.newest
        return since_s < self._arrivals.patience_s(_DEPTH_GONE_S)

    @property
    def problem(self) -> str:
        """Why no depth comes at all; empty while it comes."""
        return "" if self.lives else (
            f"no depth image on {self.topic}: distances come from the image alone; remap "
            f"depth:=<your topic>, or set depth to false; {self.both_sides()}")

    def pair(self, arrival: Arrival) -> None:
        """Deliver an image with its depth, now or as soon as that is there."""
        depth = self._of(arrival)
        if depth is not None or not self.lives:
            self._release(len(self._held))
            self._deliver(self._with(arrival, depth))
            return
        self._held.append(arrival)
        self.expire()

    def expire(self, next_image: bool = True) -> None:
        """Deliver what has waited long enough. next_image: the last one held is the newest."""
        wait_s = self._wait_s() if next_image else max(self._wait_s(), _DEPTH_GONE_S)
        late = time.perf_counter() - wait_s
        waiting = list(self._held)[:-1] if next_image else self._held
        over = sum(arrival.time < late for arrival in waiting)
        self._release(max(over, len(self._held) - _MOST_HELD))

    def _release(self, count: int) -> None:
        """Deliver the oldest images held, without depth."""
        for _ in range(count):
            self._deliver(self._with(self._held.popleft(), None))

    def _hear(self, message: Image) -> None:
        self._arrivals.advance(time.perf_counter_ns())
        self._newest_ns = stamp_of(message.header)
        self._queue.put(self._newest_ns, message)
        for number, arrival in enumerate(list(self._held)):
            if (depth := self._of(arrival)) is not None:
                self._release(number)
                self._deliver(self._with(self._held.popleft(), depth))
                return

    def _of(self, arrival: Arrival) -> Image | None:
        return self._queue.nearest(stamp_of(arrival.message.header))

    def _with(self, arrival: Arrival, depth: Image | None) -> Arrival:
        if depth is not None:
            return arrival._replace(depth=depth)
        lag_s = 1e-9 * (stamp_of(arrival.message.header) - self._newest_ns)
        problem = self.problem or (
            f"no depth of this image: the newest on {self.topic} is {lag_s:.3f} s older; let both "
            "have the same stamps, or raise depth_wait_s if it only comes late")
        return arrival._replace(depth_problem=problem)
