"""A camera's topics: its images with calibration and depth, and why nothing comes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from ros2_pose.camera import Camera, CameraError
from ros2_pose.messages.camera_info import calibration_key, camera_from_info, warning_of_offset
from ros2_pose.node_config import NodeConfig
from ros2_pose.nodes.subscriptions import REPEAT_S, Arrival, DepthInput, MatchedSubscription
from ros2_pose.sync.image_sync import Stream

_LOOK_S = 0.5  # between two looks at the publishers
_INFO_WAIT_S = 1.0  # that a first image waits for a calibration that somebody publishes
_WINDOW_S = 5.0  # over which images are compared with the calibrations that came with them ...
_LEAST_INFOS = 10  # ... or until so many came, of a slow camera
_FEW = 0.8  # images for a calibration: fewer are lost on the way


class CameraInput:
    """The image and calibration topics of a camera, what came of them, and what is wrong.

    The image topic is `image`, or `<image>/compressed` after remapping; the calibration is
    `camera_info` beside it, if `camera_info` is not remapped itself. A camera of several has its
    name before these and before `depth`.

    camera: made of the last calibration, None if there is none that can be used; camera_problem
    says why not. silent_s: without an image. problem: why images do not come or get lost, empty
    while they do come.
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
        self._uncalibrated: list[tuple[Any, float]] = []  # first images and when they came, s
        self._arrivals = Stream()  # of images, ns of a monotonic clock
        self._waited = False  # long enough for a calibration
        self.silent_s, self._told_s = 0.0, 0.0
        compressed = settings().transport == "compressed"
        before = f"{name}/" if name else ""
        topic, info_topic = camera_topics(node, before, compressed)
        self.image = MatchedSubscription(node, CompressedImage if compressed else Image, topic,
                                         self._image, settings().reliability)
        self.info = MatchedSubscription(node, CameraInfo, info_topic, self._info, "auto")
        self.depth: DepthInput | None = None
        if settings().depth:
            self.depth = DepthInput(node, node.resolve_topic_name(f"{before}depth"),
                                    settings().reliability, on_image,
                                    lambda: settings().depth_wait_s)
        self._timer = node.create_timer(_LOOK_S, self._look,
                                        clock=Clock(clock_type=ClockType.STEADY_TIME))

    def close(self) -> None:
        """Hear no more."""
        self._uncalibrated = []
        self.node.destroy_timer(self._timer)
        for heard in (self.image, self.info, self.depth):
            if heard is not None:
                heard.close()

    # Callbacks: store and return ----------------------------------------------------------------

    def _image(self, message) -> None:
        self._window.images += 1
        self._arrivals.advance(time.perf_counter_ns())
        self.silent_s = self._told_s = 0.0
        self._uncalibrated.append((message, time.perf_counter()))
        if not self._awaits_calibration():
            self._deliver()

    def _awaits_calibration(self) -> bool:
        """Whether somebody publishes a calibration whose first message is still on its way."""
        if self.camera is not None or self.camera_problem or not self._uncalibrated:
            return False
        if self._waited or not self.info.offers():
            return False
        self._waited = time.perf_counter() - self._uncalibrated[0][1] >= _INFO_WAIT_S
        return not self._waited

    def _deliver(self) -> None:
        """Pass on the images that came, with the calibration that there is."""
        arrived, self._uncalibrated = self._uncalibrated, []
        for message, came in arrived:
            arrival = Arrival(message, self.camera, self.camera_problem, came)
            if self.depth is None:
                self._on_image(arrival)
            else:
                self.depth.pair(arrival)

    def _info(self, info) -> None:
        self._window.infos += 1
        rectified = self._settings().rectified
        key = calibration_key(info), rectified
        if key == self._calibration:
            return
        self._calibration = key
        try:
            self.camera, self.camera_problem = camera_from_info(info, rectified), ""
            if text := warning_of_offset(self.camera, info.header.frame_id):
                self.node.get_logger().warning(text)
        except CameraError as error:
            self.camera, self.camera_problem = None, f"CameraInfo: {error}"
            self.node.get_logger().warning(f"CameraInfo on {self.info.topic}: {error}",
                                           throttle_duration_sec=REPEAT_S)
        self._deliver()

    # What is wrong ------------------------------------------------------------------------------

    def _look(self) -> None:
        for heard in (self.image, self.info, self.depth):
            if heard is not None:
                heard.match()
        if self._uncalibrated and not self._awaits_calibration():
            self._deliver()
        if self.depth is not None:
            self.depth.expire(next_image=False)
        self.silent_s += _LOOK_S
        self._told_s += _LOOK_S
        limit = self._arrivals.patience_s(self._settings().silence_s)
        if self.silent_s >= limit:
            self.problem = self._why_silent()
            if self._told_s >= limit:
                self._told_s = 0.0
                self.node.get_logger().warning(self.problem)
                self._on_silence(self.problem)
        elif self._window.is_over():
            self.problem = self._why_few(self._window) or \
                (self.depth.problem if self.depth is not None else "")
            if self.problem:
                self.node.get_logger().warning(self.problem, throttle_duration_sec=REPEAT_S)
            if not 0 < self._window.infos < _LEAST_INFOS:  # of a slow camera it goes on
                self._window = _Window()

    def _why_silent(self) -> str:
        text = f"no image on {self.image.topic} for {self.silent_s:g} s: "
        offers = self.image.offers()
        if not offers:
            return text + ("nobody publishes it; remap image:=<your topic>, or set transport "
                           "(ros2 topic list shows what there is)")
        if self.image.incompatible:
            return text + self.image.incompatible
        return text + (f"{len(offers)} publisher(s), but nothing comes: {self.image.both_sides()}; "
                       "check that the camera runs, or that large images get through (README)")

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
