"""Subscriptions to a camera's topics, with the reliability that its publishers offer.

A reliable subscriber never matches a best-effort camera, and a best-effort one loses most large
images of a reliable camera. So the offers are looked at again and again, as `ros2 topic echo` does
once, and the subscription is made anew when they change.
"""

from __future__ import annotations

from typing import Callable

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

_LOOK_S = 0.5  # between two looks at the publishers
_SILENCE_S = 10.0  # without an image, until a warning says so
_DEPTH = 5  # callbacks only store, so this never fills

_POLICIES = {"reliable": ReliabilityPolicy.RELIABLE, "best_effort": ReliabilityPolicy.BEST_EFFORT}


class MatchedSubscription:
    """A subscription of one topic whose reliability follows the publishers'."""

    def __init__(self, node: Node, kind: type, topic: str, callback: Callable, wanted: str):
        self.node, self.kind, self.topic, self.callback = node, kind, topic, callback
        self.wanted = wanted
        self.policy: ReliabilityPolicy | None = None
        self._subscription = None
        self.match()

    def match(self) -> None:
        """Subscribe anew if the publishers now ask for it."""
        policy = self._policy_to_use()
        if policy == self.policy:
            return
        if self._subscription is not None:
            self.node.destroy_subscription(self._subscription)
        self.policy = policy
        profile = QoSProfile(depth=_DEPTH, reliability=policy)
        self._subscription = self.node.create_subscription(self.kind, self.topic, self.callback,
                                                           profile)

    def offers(self) -> list[ReliabilityPolicy]:
        """What each publisher of the topic offers."""
        publishers = self.node.get_publishers_info_by_topic(self.topic)
        return [info.qos_profile.reliability for info in publishers]

    def _policy_to_use(self) -> ReliabilityPolicy:
        if self.wanted != "auto":
            return _POLICIES[self.wanted]
        offers = self.offers()
        if not offers:
            return self.policy or ReliabilityPolicy.BEST_EFFORT  # which matches whoever comes
        reliable = all(offer == ReliabilityPolicy.RELIABLE for offer in offers)
        return _POLICIES["reliable" if reliable else "best_effort"]


class CameraInput:
    """The image and calibration topics of a camera.

    The image topic is `image`, or `<image>/compressed` after remapping; the calibration is
    `camera_info` beside it, if `camera_info` is not remapped itself.
    """

    def __init__(self, node: Node, settings, on_image: Callable, on_info: Callable):
        """settings: a NodeConfig. Both callbacks take a message and must return at once."""
        self.node, self._on_image = node, on_image
        self._received, self._silent_s = 0, 0.0
        compressed = settings.transport == "compressed"
        topic, info_topic = camera_topics(node, compressed)
        self.image = MatchedSubscription(node, CompressedImage if compressed else Image, topic,
                                         self._image, settings.reliability)
        self.info = MatchedSubscription(node, CameraInfo, info_topic, on_info, "auto")
        node.create_timer(_LOOK_S, self._look, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _image(self, message) -> None:
        self._received += 1
        self._on_image(message)

    def _look(self) -> None:
        self.image.match()
        self.info.match()
        self._silent_s = 0.0 if self._received else self._silent_s + _LOOK_S
        self._received = 0
        if self._silent_s >= _SILENCE_S:
            self._silent_s = 0.0
            self.node.get_logger().warning(self._why_silent())

    def _why_silent(self) -> str:
        offers = self.image.offers()
        text = f"no image on {self.image.topic} for {_SILENCE_S:g} s: "
        if not offers:
            return text + "nobody publishes it; remap image:=<your topic>, or set transport"
        offered = ", ".join(offer.name.lower() for offer in offers)
        return text + (f"its {len(offers)} publisher(s) offer {offered}, the subscription is "
                       f"{self.image.policy.name.lower()}; check that the camera runs")


def camera_topics(node: Node, compressed: bool) -> tuple[str, str]:
    """Full names of the image topic and the calibration topic, after remapping."""
    image = node.resolve_topic_name("image").removesuffix("/compressed")
    info = node.resolve_topic_name("camera_info")
    if info == node.resolve_topic_name("camera_info", only_expand=True):  # not remapped
        info = image.rpartition("/")[0] + "/camera_info"
    return (f"{image}/compressed" if compressed else image), info
