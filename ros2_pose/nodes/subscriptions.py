"""Subscriptions of a camera: images with their calibration and depth, and why none arrive."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from ros2_pose.camera import Camera, CameraError
from ros2_pose.messages.camera_info import calibration_key, camera_from_info, warning_of_offset
from ros2_pose.messages.standard import stamp_of
from ros2_pose.node_config import NodeConfig
from ros2_pose.nodes.qos import LOG_INTERVAL_S, MatchedSubscription
from ros2_pose.sync.image_sync import DepthQueue, Stream

_CHECK_INTERVAL_S = 0.5  # between two checks of publishers and silence
_INFO_WAIT_S = 1.0  # the first image waits so long for a calibration that has a publisher
_WINDOW_S = 5.0  # images are compared with their calibrations over this time ...
_MIN_INFOS = 10  # ... and, for a slow camera, over at least so many calibrations
_MIN_ARRIVED = 0.8  # images per calibration; fewer means that images are lost
_DEPTH_GONE_S = 1.0  # without a depth image; for a slow camera, some of its intervals
_MAX_WAITING = 30  # images that wait for their depth


class ImageArrival(NamedTuple):
    """A received image with its calibration and depth."""

    message: Image | CompressedImage
    camera: Camera | None
    camera_problem: str  # why a received calibration cannot be used
    received_s: float  # monotonic time, s
    depth: Image | None = None  # aligned with the image
    depth_problem: str = ""  # why a wanted depth image is missing


class CameraSubscriptions:
    """Subscriptions of one camera's image, calibration and depth topics.

    The image topic is `image`, or `<image>/compressed` after remapping; the calibration is
    `camera_info` beside it unless `camera_info` is remapped itself. With several cameras, the
    camera's name stands before these topics and before `depth`.

    Attributes:
        camera: from the last calibration; None if none can be used, see `camera_problem`.
        silent_s: time since the last image, s.
        problem: why images do not arrive or are lost; empty while they arrive.
    """

    def __init__(self, node: Node, name: str, settings: Callable[[], NodeConfig],
                 on_image: Callable[[ImageArrival], None], on_silence: Callable[[str], None]):
        """Subscribe.

        Args:
            name: of the camera; empty for a single camera.
            settings: returns the current settings.
            on_image: receives each image; must return at once.
            on_silence: receives the reason repeatedly while no image arrives.
        """
        self.node, self.name, self._settings = node, name, settings
        self._on_image, self._on_silence = on_image, on_silence
        self.camera: Camera | None = None
        self.camera_problem = self.problem = ""
        self._calibration_key: Any = None
        self._window = _ArrivalWindow()
        self._uncalibrated: list[tuple[Any, float]] = []  # first images, monotonic time, s
        self._arrivals = Stream()  # of images, monotonic ns
        self._info_waited = False  # long enough for the first calibration
        self.silent_s = 0.0
        self._since_report_s = 0.0
        self._subscribe(f"{name}/" if name else "")
        self._timer = node.create_timer(_CHECK_INTERVAL_S, self._check,
                                        clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _subscribe(self, prefix: str) -> None:
        settings = self._settings()
        compressed = settings.transport == "compressed"
        topic, info_topic = camera_topics(self.node, prefix, compressed)
        self.image = MatchedSubscription(self.node, CompressedImage if compressed else Image,
                                         topic, self._receive_image, settings.reliability)
        self.info = MatchedSubscription(self.node, CameraInfo, info_topic, self._receive_info,
                                        "auto")
        self.depth: DepthSubscription | None = None
        if settings.depth:
            self.depth = DepthSubscription(
                self.node, self.node.resolve_topic_name(f"{prefix}depth"), settings.reliability,
                self._on_image, lambda: self._settings().depth_wait_s)

    def close(self) -> None:
        """Destroy the subscriptions and the timer."""
        self._uncalibrated = []
        self.node.destroy_timer(self._timer)
        for subscription in self._subscriptions():
            subscription.close()

    def _subscriptions(self) -> list[MatchedSubscription]:
        return [s for s in (self.image, self.info, self.depth) if s is not None]

    # Callbacks: store and return ----------------------------------------------------------------

    def _receive_image(self, message) -> None:
        self._window.images += 1
        self._arrivals.advance(time.perf_counter_ns())
        self.silent_s = self._since_report_s = 0.0
        self._uncalibrated.append((message, time.perf_counter()))
        if not self._awaits_calibration():
            self._deliver()

    def _awaits_calibration(self) -> bool:
        """Whether the first calibration has a publisher but has not arrived yet."""
        if self.camera is not None or self.camera_problem or not self._uncalibrated:
            return False
        if self._info_waited or not self.info.offers():
            return False
        waited_s = time.perf_counter() - self._uncalibrated[0][1]
        self._info_waited = waited_s >= _INFO_WAIT_S
        return not self._info_waited

    def _deliver(self) -> None:
        """Pass on the waiting images with the current calibration."""
        waiting, self._uncalibrated = self._uncalibrated, []
        for message, received_s in waiting:
            arrival = ImageArrival(message, self.camera, self.camera_problem, received_s)
            if self.depth is None:
                self._on_image(arrival)
            else:
                self.depth.pair(arrival)

    def _receive_info(self, info) -> None:
        self._window.infos += 1
        rectified = self._settings().rectified
        key = calibration_key(info), rectified
        if key == self._calibration_key:
            return
        self._calibration_key = key
        try:
            self.camera, self.camera_problem = camera_from_info(info, rectified), ""
            if text := warning_of_offset(self.camera, info.header.frame_id):
                self.node.get_logger().warning(text)
        except CameraError as error:
            self.camera, self.camera_problem = None, f"CameraInfo: {error}"
            self.node.get_logger().warning(f"CameraInfo on {self.info.topic}: {error}",
                                           throttle_duration_sec=LOG_INTERVAL_S)
        self._deliver()

    # Monitoring ---------------------------------------------------------------------------------

    def _check(self) -> None:
        """Timer callback: match the publishers, release waiting images, find problems."""
        for subscription in self._subscriptions():
            subscription.match()
        if self._uncalibrated and not self._awaits_calibration():
            self._deliver()
        if self.depth is not None:
            self.depth.expire(next_image=False)
        self.silent_s += _CHECK_INTERVAL_S
        self._since_report_s += _CHECK_INTERVAL_S
        limit_s = self._arrivals.patience_s(self._settings().silence_s)
        if self.silent_s >= limit_s:
            self.problem = self._why_silent()
            if self._since_report_s >= limit_s:
                self._since_report_s = 0.0
                self.node.get_logger().warning(self.problem)
                self._on_silence(self.problem)
        elif self._window.is_over():
            self._check_window()

    def _check_window(self) -> None:
        """Find lost images or missing depth in the window that ends; begin the next one."""
        self.problem = self._why_few()
        if not self.problem and self.depth is not None:
            self.problem = self.depth.problem
        if self.problem:
            self.node.get_logger().warning(self.problem, throttle_duration_sec=LOG_INTERVAL_S)
        if not 0 < self._window.infos < _MIN_INFOS:  # the window of a slow camera goes on
            self._window = _ArrivalWindow()

    def _why_silent(self) -> str:
        text = f"no image on {self.image.topic} for {self.silent_s:g} s: "
        offers = self.image.offers()
        if not offers:
            return text + ("the topic has no publisher; remap image:=<your topic>, or set "
                           "transport (ros2 topic list shows the topics)")
        if self.image.incompatible:
            return text + self.image.incompatible
        return text + (f"{len(offers)} publisher(s), but no message arrives: "
                       f"{self.image.describe_reliability()}; check that the camera runs, or that "
                       "large images get through (README)")

    def _why_few(self) -> str:
        """Compare with calibrations: one is sent with each image, is small and gets through."""
        images, infos = self._window.images, self._window.infos
        if infos < _MIN_INFOS or images >= _MIN_ARRIVED * infos:
            return ""
        return (f"{images} of {infos} images of {self.image.topic} arrived: large images are lost "
                "in transport; let camera and node share memory (same host, containers with "
                "--ipc=host), raise net.core.rmem_max, or set transport to compressed")


class _ArrivalWindow:
    """Counts of images and calibrations that arrived within some seconds."""

    def __init__(self) -> None:
        self.began_s = time.perf_counter()
        self.images = self.infos = 0

    def is_over(self) -> bool:
        return time.perf_counter() - self.began_s >= _WINDOW_S


def camera_topics(node: Node, prefix: str, compressed: bool) -> tuple[str, str]:
    """Full names of the image topic and the calibration topic, after remapping.

    Args:
        prefix: of a camera's topics, "<name>/" or empty.
        compressed: whether the image topic is `<image>/compressed`.
    """
    image = node.resolve_topic_name(f"{prefix}image").removesuffix("/compressed")
    info = node.resolve_topic_name(f"{prefix}camera_info")
    if info == node.resolve_topic_name(f"{prefix}camera_info", only_expand=True):  # not remapped
        info = image.rpartition("/")[0] + "/camera_info"
    return (f"{image}/compressed" if compressed else image), info


class DepthSubscription(MatchedSubscription):
    """Subscription of a camera's depth topic; pairs each image with the depth of its time.

    Depth is computed from an image and may arrive after it. An image waits for its depth for
    `wait_s` and at least until the next image, but not while no depth arrives at all. Images are
    delivered in the order of arrival.
    """

    def __init__(self, node: Node, topic: str, reliability: str,
                 deliver: Callable[[ImageArrival], None], wait_s: Callable[[], float]):
        """Subscribe. `deliver` receives the paired images; `wait_s` returns the current limit."""
        self._deliver, self._wait_s = deliver, wait_s
        self._queue = DepthQueue()
        self._waiting: deque[ImageArrival] = deque()
        self._arrivals = Stream()  # of depth images, monotonic ns
        self._newest_ns = 0  # stamp
        super().__init__(node, Image, topic, self._receive, reliability)

    @property
    def is_alive(self) -> bool:
        """Whether depth images arrive."""
        if self._arrivals.newest is None:
            return False
        since_s = time.perf_counter() - 1e-9 * self._arrivals.newest
        return since_s < self._arrivals.patience_s(_DEPTH_GONE_S)

    @property
    def problem(self) -> str:
        """Why no depth arrives at all; empty while it arrives."""
        if self.is_alive:
            return ""
        return (f"no depth image on {self.topic}: distances come from the image alone; remap "
                f"depth:=<your topic>, or set depth to false; {self.describe_reliability()}")

    def pair(self, arrival: ImageArrival) -> None:
        """Deliver an image with its depth, now or as soon as the depth arrives."""
        depth = self._depth_of(arrival)
        if depth is not None or not self.is_alive:
            self._release(len(self._waiting))
            self._deliver(self._with_depth(arrival, depth))
            return
        self._waiting.append(arrival)
        self.expire()

    def expire(self, next_image: bool = True) -> None:
        """Deliver images that have waited long enough, without depth.

        Args:
            next_image: called for a new image, which is the last one waiting and stays.
        """
        if next_image:
            wait_s, candidates = self._wait_s(), list(self._waiting)[:-1]
        else:
            wait_s, candidates = max(self._wait_s(), _DEPTH_GONE_S), list(self._waiting)
        received_before_s = time.perf_counter() - wait_s
        expired = sum(arrival.received_s < received_before_s for arrival in candidates)
        self._release(max(expired, len(self._waiting) - _MAX_WAITING))

    def _release(self, count: int) -> None:
        """Deliver the oldest waiting images without depth."""
        for _ in range(count):
            self._deliver(self._with_depth(self._waiting.popleft(), None))

    def _receive(self, message: Image) -> None:
        self._arrivals.advance(time.perf_counter_ns())
        self._newest_ns = stamp_of(message.header)
        self._queue.put(self._newest_ns, message)
        for older, arrival in enumerate(list(self._waiting)):
            depth = self._depth_of(arrival)
            if depth is not None:
                self._release(older)
                self._deliver(self._with_depth(self._waiting.popleft(), depth))
                return

    def _depth_of(self, arrival: ImageArrival) -> Image | None:
        return self._queue.nearest(stamp_of(arrival.message.header))

    def _with_depth(self, arrival: ImageArrival, depth: Image | None) -> ImageArrival:
        if depth is not None:
            return arrival._replace(depth=depth)
        lag_s = 1e-9 * (stamp_of(arrival.message.header) - self._newest_ns)
        problem = self.problem or (
            f"no depth for this image: the newest on {self.topic} is {lag_s:.3f} s older; give "
            "both the same stamps, or raise depth_wait_s if depth arrives late")
        return arrival._replace(depth_problem=problem)
