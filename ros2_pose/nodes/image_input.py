"""A camera's topics: subscriptions that match what its publishers offer, and why nothing comes.

A reliable subscriber never matches a best-effort camera, and a best-effort one loses most large
images of a reliable camera. So the offers are looked at again and again, as `ros2 topic echo` does
once, and the subscription is made anew when they change.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSPolicyKind, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from ros2_pose import messages
from ros2_pose.camera import Camera, CameraError
from ros2_pose.nodes.events import SubscriptionEventCallbacks
from ros2_pose.nodes.params import NodeConfig
from ros2_pose.pairing import DepthQueue

_LOOK_S = 0.5  # between two looks at the publishers
_REPEAT_S = 5.0  # a complaint is not repeated sooner
_DEPTH = 5  # callbacks only store, so this never fills
_WINDOW_S = 5.0  # over which images are compared with the calibrations that came with them
_LEAST_INFOS = 10  # in a window, to say anything
_DEPTH_GONE_S = 1.0  # without a depth image
_FEW = 0.8  # images for a calibration: fewer are lost on the way

_POLICIES = {"reliable": ReliabilityPolicy.RELIABLE, "best_effort": ReliabilityPolicy.BEST_EFFORT}


class Arrival(NamedTuple):
    """An image as it came."""

    message: Image | CompressedImage
    camera: Camera | None
    camera_problem: str  # why there is no camera, if a calibration came
    time: float  # monotonic, s
    depth: Image | None = None  # aligned with the image


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
            self.node.get_logger().warning(self.incompatible, throttle_duration_sec=_REPEAT_S)

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

    Depth is made from an image and may come after it: an image is held back until its depth or the
    next image comes, but not while no depth comes at all.
    """

    def __init__(self, node: Node, topic: str, reliability: str,
                 deliver: Callable[[Arrival], None]):
        self._deliver, self._queue = deliver, DepthQueue()
        self._held: Arrival | None = None
        self._last = -_DEPTH_GONE_S  # time of the last depth image
        super().__init__(node, Image, topic, self._hear, reliability)

    @property
    def lives(self) -> bool:
        """Whether depth images come."""
        return time.perf_counter() - self._last < _DEPTH_GONE_S

    def pair(self, arrival: Arrival) -> None:
        """Deliver an image with its depth, now or as soon as that is there."""
        held, self._held = self._held, None
        depth = self._of(arrival)
        if depth is not None or not self.lives:
            self._deliver(arrival._replace(depth=depth))
            return
        if held is not None:  # its depth did not come
            self._deliver(held)
        self._held = arrival

    def _hear(self, message: Image) -> None:
        self._last = time.perf_counter()
        self._queue.put(messages.stamp_of(message.header), message)
        if self._held is not None and (depth := self._of(self._held)) is not None:
            held, self._held = self._held, None
            self._deliver(held._replace(depth=depth))

    def _of(self, arrival: Arrival) -> Image | None:
        return self._queue.nearest(messages.stamp_of(arrival.message.header))


class CameraInput:
    """The image and calibration topics of a camera, what came of them, and what is wrong.

    The image topic is `image`, or `<image>/compressed` after remapping; the calibration is
    `camera_info` beside it, if `camera_info` is not remapped itself. A camera of several has its
    name before these and before `depth`.

    camera: made of the last calibration, None if there is none that can be used; camera_problem
    says why not. problem: why images do not come or get lost, empty while they do come.
    """

    def __init__(self, node: Node, name: str, settings: Callable[[], NodeConfig],
                 on_image: Callable[[Arrival], None], on_silence: Callable[[str], None]):
        """name: "" for the only camera. settings: the current ones. on_image must return at once;
        on_silence is told why no image came, again and again while none does."""
        self.node, self.name, self._settings = node, name, settings
        self._on_image, self._on_silence = on_image, on_silence
        self.camera: Camera | None = None
        self.camera_problem = self.problem = ""
        self._calibration: Any = None  # what the camera was made of
        self._window = _Window()
        self._silent_s, self._told_s = 0.0, 0.0
        compressed = settings().transport == "compressed"
        before = f"{name}/" if name else ""
        topic, info_topic = camera_topics(node, before, compressed)
        self.image = MatchedSubscription(node, CompressedImage if compressed else Image, topic,
                                         self._image, settings().reliability)
        self.info = MatchedSubscription(node, CameraInfo, info_topic, self._info, "auto")
        self.depth: DepthInput | None = None
        if settings().depth:
            self.depth = DepthInput(node, node.resolve_topic_name(f"{before}depth"),
                                    settings().reliability, on_image)
        self._timer = node.create_timer(_LOOK_S, self._look,
                                        clock=Clock(clock_type=ClockType.STEADY_TIME))

    def close(self) -> None:
        """Hear no more."""
        self.node.destroy_timer(self._timer)
        for heard in (self.image, self.info, self.depth):
            if heard is not None:
                heard.close()

    # Callbacks: store and return ----------------------------------------------------------------

    def _image(self, message) -> None:
        self._window.images += 1
        self._silent_s = self._told_s = 0.0
        arrival = Arrival(message, self.camera, self.camera_problem, time.perf_counter())
        if self.depth is None:
            self._on_image(arrival)
        else:
            self.depth.pair(arrival)

    def _info(self, info) -> None:
        self._window.infos += 1
        rectified = self._settings().rectified
        key = messages.calibration_key(info), rectified
        if key == self._calibration:
            return
        self._calibration = key
        try:
            self.camera, self.camera_problem = messages.camera_from_info(info, rectified), ""
        except CameraError as error:
            self.camera, self.camera_problem = None, f"CameraInfo: {error}"
            self.node.get_logger().warning(f"CameraInfo on {self.info.topic}: {error}",
                                           throttle_duration_sec=_REPEAT_S)

    # What is wrong ------------------------------------------------------------------------------

    def _look(self) -> None:
        for heard in (self.image, self.info, self.depth):
            if heard is not None:
                heard.match()
        self._silent_s += _LOOK_S
        self._told_s += _LOOK_S
        limit = self._settings().silence_s
        if self._silent_s >= limit:
            self.problem = self._why_silent()
            if self._told_s >= limit:
                self._told_s = 0.0
                self.node.get_logger().warning(self.problem)
                self._on_silence(self.problem)
        elif self._window.is_over():
            self.problem = self._why_few(self._window) or self._why_flat()
            if self.problem:
                self.node.get_logger().warning(self.problem, throttle_duration_sec=_REPEAT_S)
            self._window = _Window()

    def _why_silent(self) -> str:
        text = f"no image on {self.image.topic} for {self._silent_s:g} s: "
        offers = self.image.offers()
        if not offers:
            return text + ("nobody publishes it; remap image:=<your topic>, or set transport "
                           "(ros2 topic list shows what there is)")
        if self.image.incompatible:
            return text + self.image.incompatible
        return text + (f"{len(offers)} publisher(s), but nothing comes: {self.image.both_sides()}; "
                       "check that the camera runs, or that large images get through (README)")

    def _why_flat(self) -> str:
        if self.depth is None or self.depth.lives:
            return ""
        return (f"no depth image on {self.depth.topic}: distances come from the image alone; remap "
                f"depth:=<your topic>, or set depth to false; {self.depth.both_sides()}")

    def _why_few(self, window: _Window) -> str:
        """A camera sends a calibration with each image; that is small and comes through."""
        if window.infos < _LEAST_INFOS or window.images >= _FEW * window.infos:
            return ""
        return (f"{window.images} of {window.infos} images of {self.image.topic} arrived: large "
                "ones are lost on the way; let camera and node share memory (same host, "
                "containers with --ipc=host), raise net.core.rmem_max, or set transport to "
                "compressed")


class _Window:
    """What came in a few seconds."""

    def __init__(self) -> None:
        self.began, self.images, self.infos = time.perf_counter(), 0, 0

    def is_over(self) -> bool:
        return time.perf_counter() - self.began >= _WINDOW_S


def camera_topics(node: Node, before: str, compressed: bool) -> tuple[str, str]:
    """Full names of the image topic and the calibration topic, after remapping."""
    image = node.resolve_topic_name(f"{before}image").removesuffix("/compressed")
    info = node.resolve_topic_name(f"{before}camera_info")
    if info == node.resolve_topic_name(f"{before}camera_info", only_expand=True):  # not remapped
        info = image.rpartition("/")[0] + "/camera_info"
    return (f"{image}/compressed" if compressed else image), info
