"""Frame rate and latency of the node, end to end over DDS, with 640x480 images.

This process publishes raw images of three or five people and receives the answers; the node runs in
a process of its own. Latency is from the publication of an image to the arrival of its people. The
yardstick of the machine's speed is MoveNet's original file in LiteRT at the same scales, measured
before and after each row.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import cv2
import numpy as np
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from tqdm import tqdm

from ros2_pose.camera import Camera
from ros2_pose.config import PoseConfig
from ros2_pose.evaluation.benchmarks.keypoints import reference_detector
from ros2_pose.evaluation.harness import EvaluationError
from ros2_pose.evaluation.tables import Row, tables
from ros2_pose.messages.camera_info import camera_info_message
from ros2_pose.messages.image import image_message
from ros2_pose.messages.people import looked
from ros2_pose.messages.standard import header_message, stamp_of
from ros2_pose.msg import People as PeopleMessage
from ros2_pose.nodes.message_factory import make
from ros2_pose.offline import demo_clip
from ros2_pose.people import Frame, People
from ros2_pose.pipeline import Pipeline
from ros2_pose.tools.node_process import observer, own_domain, process, wait_until

_SIZE = (640, 480)
_TOP, _HEIGHT = 228, 408  # crop of the clip, px, 544 wide: 4 to 3
_CROWD_TOP, _CROWD_HEIGHT = 32, 604  # rows of the clip in an image of five people, px
_THREE, _TWO = 437, 369  # its columns with all three and with two people, px
_LOST_S = 2.0  # after which an image without an answer is taken for lost
START_S, WARM_UP = 120.0, 10  # time limit for so many first answers
TOPIC = "/camera"
_YARDSTICKS = 10  # images for each measurement of the yardstick


def run(seconds: float) -> int:
    """Run every trial for some seconds and print the table. Returns the exit status."""
    three, five = list(pictures_of_clip()), list(crowded_pictures())
    print(_stages(three))
    yardstick_ms = _yardstick(three[0])
    rows = []
    for trial in tqdm(_trials(), "bench", unit="row"):
        before_ms = yardstick_ms()
        trial.run(five if trial.crowded else three, seconds)
        rows.append(trial.row((before_ms + yardstick_ms()) / 2))
    print(tables(rows))
    return 0


def pictures_of_clip() -> Iterator[np.ndarray]:
    """Yield the clip's images, cropped and scaled to (480, 640, 3) uint8 RGB."""
    for picture in demo_clip.pictures():
        yield cv2.resize(picture[_TOP:_TOP + _HEIGHT], _SIZE, interpolation=cv2.INTER_LINEAR)


def crowded_pictures() -> Iterator[np.ndarray]:
    """Yield images of five people (480, 640, 3) uint8 RGB: the clip beside two of its people."""
    for picture in demo_clip.pictures():
        rows = picture[_CROWD_TOP:_CROWD_TOP + _CROWD_HEIGHT]
        beside = np.concatenate([rows[:, :_THREE], rows[:, _TWO::-1]], axis=1)
        yield cv2.resize(beside, _SIZE, interpolation=cv2.INTER_AREA)


def camera() -> Camera:
    """Calibration of `pictures_of_clip`."""
    full = demo_clip.camera()
    return full.cropped(0, _TOP, full.width, _HEIGHT).resized(*_SIZE)


def _trials() -> list[Trial]:
    searched = {"search_every": "1"}
    return [
        Trial("people followed"),
        Trial("people followed", crowded=True),
        Trial("each image searched", searched),
        Trial("each image searched", searched, crowded=True),
        Trial("one scale, 256 px", {"scales": "[256]"}),
        Trial("MoveNet alone", {"network": "movenet"}),
        Trial("2D only", {"body": "false"}),
        Trial("camera at 10 Hz", published_hz=10.0),
        Trial("camera at 30 Hz", published_hz=30.0),
    ]


class Trial:
    """A run of the node with the same images and settings throughout: one row of the table.

    Args:
        name: of the row.
        parameters: of the node.
        published_hz: images a second; 0: each image when the one before is answered.
        crowded: five people instead of three.

    Attributes:
        latency_ms, people: of each answer.
        start_s: from the start of the process to the first people.
    """

    def __init__(self, name: str, parameters: Mapping[str, str] | None = None,
                 published_hz: float = 0.0, crowded: bool = False) -> None:
        self.name, self.published_hz, self.crowded = name, published_hz, crowded
        self.latency_ms: list[float] = []
        self.people: list[int] = []
        self.start_s = math.nan
        self._arguments = ["--ros-args", "-r", f"image:={TOPIC}/image_raw"]
        for key, value in (parameters or {}).items():
            self._arguments += ["-p", f"{key}:={value}"]
        self._seconds = 0.0

    def run(self, pictures: list, seconds: float) -> None:
        """Publish images for some seconds and collect the answers.

        Raises: NodeProcessError if the node ends, or does not answer within `START_S`.
        """
        def on_people(message) -> None:
            answer = source.match_answer(message)
            if answer is not None:
                self.latency_ms.append(answer[0])
                self.people.append(len(message.people))
                if message.people and math.isnan(self.start_s):
                    self.start_s = time.perf_counter() - begin_s

        log = Path(tempfile.gettempdir()) / f"ros2_pose_bench_{os.getpid()}.log"
        begin_s = time.perf_counter()
        with own_domain() as domain, observer(domain, "bench") as node, \
                process("nodes.pose_node", *self._arguments, domain=domain, log=log) as child:
            source = ImagePublisher(node, pictures)
            node.create_subscription(PeopleMessage, "/ros2_pose/people", on_people, 10)
            source.publish_until(lambda: len(self.latency_ms) >= WARM_UP, log, START_S, child)
            self.latency_ms.clear()
            self.people.clear()
            source.publish_for(seconds, self.published_hz)
        log.unlink(missing_ok=True)
        self._seconds = seconds

    def row(self, yardstick_ms: float) -> Row:
        """Row of the table, with the yardstick of the same minutes, NaN without LiteRT."""
        p50, p95, p99 = np.percentile(self.latency_ms or [math.nan], (50, 95, 99))
        count = len(self.latency_ms)
        frame_ms = 1e3 * self._seconds / count if count else math.nan
        people = float(np.mean(self.people)) if self.people else math.nan
        published = f"{self.published_hz:g}" if self.published_hz else "when answered"
        return Row(self.name, f"pose_node over DDS, raw {_SIZE[0]}x{_SIZE[1]}, {os.cpu_count()} "
                   "CPU cores; yardstick: MoveNet's original file in LiteRT",
                   {"people": f"{people:.1f}", "published, Hz": published,
                    "a frame, ms": f"{frame_ms:.0f}",
                    "in yardsticks": f"{frame_ms / yardstick_ms:.2f}",
                    "yardstick, ms": f"{yardstick_ms:.0f}", "latency p50, ms": f"{p50:.0f}",
                    "p95": f"{p95:.0f}", "p99": f"{p99:.0f}",
                    "start to people, s": f"{self.start_s:.1f}"})


class ImagePublisher:
    """Publishes the clip's images repeatedly, each with its calibration.

    Attributes:
        sent: (monotonic time s, number) of each published image, by stamp.
    """

    def __init__(self, node: Node, pictures: list) -> None:
        self.sent: dict[int, tuple[float, int]] = {}
        self._answered: set[int] = set()
        self._pictures, self._camera = pictures, camera()
        self._images = node.create_publisher(Image, f"{TOPIC}/image_raw", QoSProfile(depth=2))
        self._infos = node.create_publisher(CameraInfo, f"{TOPIC}/camera_info",
                                            QoSProfile(depth=2))

    def publish(self) -> None:
        """Publish the next image."""
        number = len(self.sent)
        stamp = demo_clip.stamp(number)
        header = header_message(make, stamp, demo_clip.FRAME_ID)
        self._infos.publish(camera_info_message(make, header, self._camera))
        message = image_message(make, header, self._pictures[number % len(self._pictures)])
        self.sent[stamp] = time.perf_counter(), number
        self._images.publish(message)

    def publish_until(self, condition: Callable[[], bool], log: Path, seconds: float,
                      child) -> None:
        """Publish images until the condition holds. Raises NodeProcessError after `seconds`.

        Args:
            log: of the node, named in the error.
            child: subprocess.Popen of the node, which must not end meanwhile.
        """
        def publish_and_check() -> bool:
            self.publish()
            return condition()

        wait_until(publish_and_check, f"answers, see {log}", seconds, child)

    def publish_for(self, seconds: float, hz: float) -> None:
        """Publish images for some seconds, at `hz`; 0: each when the one before is answered.

        An image that is not answered within `_LOST_S` is followed by the next.
        """
        begin_s, begin = time.perf_counter(), len(self.sent)
        while (elapsed_s := time.perf_counter() - begin_s) < seconds:
            due = elapsed_s * hz >= len(self.sent) - begin if hz else self._is_idle()
            if due:
                self.publish()
            time.sleep(0.001)

    def _is_idle(self) -> bool:
        """Whether the latest image is answered, or is taken for lost."""
        if not self.sent:
            return True
        stamp, (time_s, _) = next(reversed(self.sent.items()))
        return stamp in self._answered or time.perf_counter() - time_s > _LOST_S

    def match_answer(self, message) -> tuple[float, int] | None:
        """Match a ros2_pose/People to one of the images.

        Returns:
            Latency in ms, and number of images published after the answered one. None if the
            message does not answer an image (see `looked`), or one that was answered before.
        """
        stamp = stamp_of(message.header)
        if not looked(message) or stamp not in self.sent or stamp in self._answered:
            return None
        self._answered.add(stamp)
        time_s, number = self.sent[stamp]
        return 1e3 * (time.perf_counter() - time_s), len(self.sent) - 1 - number


def _stages(pictures: list) -> str:
    """Time of network and of the rest of a frame, in this process: medians over the clip."""
    pipeline, calibration = Pipeline(), camera()
    detect, network_s, step_s = pipeline.network.detect, [], []

    def timed_detect(frames: list[Frame]) -> list[People]:
        begin_s = time.perf_counter()
        people = detect(frames)
        network_s.append(time.perf_counter() - begin_s)
        return people

    pipeline.network.detect = timed_detect  # type: ignore[method-assign]
    for number, picture in enumerate(pictures):
        begin_s = time.perf_counter()
        pipeline.step(Frame(picture, calibration, demo_clip.stamp(number)))
        step_s.append(time.perf_counter() - begin_s)
    network_ms = 1e3 * np.median(network_s)
    rest_ms = 1e3 * np.median(np.subtract(step_s, network_s))
    return (f"\na frame: network {network_ms:.0f} ms, tracker and bodies {rest_ms:.0f} ms, on "
            f"{pipeline.device} ({pipeline.engine})")


def _yardstick(picture: np.ndarray) -> Callable[[], float]:
    """A function that measures MoveNet's original file in LiteRT, ms; NaN without LiteRT."""
    try:
        detect = reference_detector(PoseConfig())
    except EvaluationError as error:
        print(f"no yardstick: {error}")
        return lambda: math.nan

    def measure_ms() -> float:
        elapsed_s = []
        for _ in range(_YARDSTICKS):
            begin_s = time.perf_counter()
            detect(picture)
            elapsed_s.append(time.perf_counter() - begin_s)
        return 1e3 * float(np.median(elapsed_s))
    return measure_ms
