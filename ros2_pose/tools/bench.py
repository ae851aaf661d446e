"""Frames a second and latency of the real node, end to end over DDS, at a robot camera's size.

This process publishes raw 640x480 images of at most three people and takes the answers in; the
node runs in its own. Latency is from the publication of an image to the arrival of its people.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from tqdm import tqdm

from ros2_pose.config import PoseConfig
from ros2_pose.evaluation.benchmarks.keypoints import reference_detector
from ros2_pose.evaluation.harness import EvaluationError
from ros2_pose.messages.camera_info import camera_info_message
from ros2_pose.messages.image import image_message
from ros2_pose.messages.people import looked
from ros2_pose.messages.standard import header_message, stamp_of
from ros2_pose.msg import People as PeopleMessage
from ros2_pose.nodes.message_factory import make
from ros2_pose.offline import demo_clip
from ros2_pose.people import Frame
from ros2_pose.pipeline import Pipeline
from ros2_pose.tools.node_process import observer, own_domain, process, wait_until

_SIZE = (640, 480)
_TOP, _HEIGHT = 228, 408  # rows of the clip, 544 wide, that are shown: 4 to 3
START_S, WARM_UP = 120.0, 10  # until so many answers
TOPIC = "/camera"
_ROWS = (  # name, images published a second, parameters
    ("as fast as it can", 30.0, {}),
    ("camera at 10 Hz", 10.0, {}),
    ("one scale, 256 px", 30.0, {"scales": "[256]"}),
    ("2D only", 30.0, {"body": "false"}),
)


@dataclass
class BenchRow:
    """What a run of the node came to."""

    name: str
    published_hz: float
    answered_hz: float
    latency_ms: np.ndarray
    people: float


def run(seconds: float) -> int:
    """Run every row for so long and print the table."""
    pictures = list(pictures_of_clip())
    rows = [_measure(name, hz, parameters, pictures, seconds)
            for name, hz, parameters in tqdm(_ROWS, "bench", unit="row")]
    print(_table(rows))
    print(_stages(pictures))
    print(_yardstick(pictures[0]))
    return 0


def pictures_of_clip():
    """The clip's images, cut and scaled to 640x480."""
    for picture in demo_clip.pictures():
        yield cv2.resize(picture[_TOP:_TOP + _HEIGHT], _SIZE, interpolation=cv2.INTER_LINEAR)


def camera():
    """Of those images."""
    whole = demo_clip.camera()
    return whole.cropped(0, _TOP, whole.width, _HEIGHT).resized(*_SIZE)


def _measure(name: str, hz: float, parameters: dict, pictures: list, seconds: float) -> BenchRow:
    latency, people = [], []
    arguments = ["--ros-args", "-r", f"image:={TOPIC}/image_raw"]
    for key, value in parameters.items():
        arguments += ["-p", f"{key}:={value}"]

    def answered(message) -> None:
        if (answer := source.answer(message)) is not None:
            latency.append(answer.delay_ms)
            people.append(len(message.people))
    log = Path(tempfile.gettempdir()) / f"ros2_pose_bench_{os.getpid()}.log"
    with own_domain() as domain, observer(domain, "bench") as node, \
            process("nodes.pose_node", *arguments, domain=domain, log=log) as child:
        source = ImagePublisher(node, pictures)
        node.create_subscription(PeopleMessage, "/ros2_pose/people", answered, 10)
        wait_until(lambda: source.publish() or len(latency) >= WARM_UP, f"answers, see {log}",
                   START_S, child)
        latency.clear()
        begin, count = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - begin) < seconds:
            if elapsed * hz >= count:
                source.publish()
                count += 1
            time.sleep(0.001)
    log.unlink(missing_ok=True)
    return BenchRow(name, hz, len(latency) / seconds, np.array(latency or [np.nan]),
               float(np.mean(people)))


class Answer(NamedTuple):
    """The answer to an image."""

    delay_ms: float  # since the image was published
    behind: int  # images published after it


class ImagePublisher:
    """Publishes the clip's images over and over, each with its calibration.

    sent: monotonic time, s, and number of each image published, by its stamp.
    """

    def __init__(self, node: Node, pictures: list) -> None:
        self.sent: dict[int, tuple[float, int]] = {}
        self._answered: set[int] = set()
        self._pictures, self._camera = pictures, camera()
        self._images = node.create_publisher(Image, f"{TOPIC}/image_raw", QoSProfile(depth=2))
        self._infos = node.create_publisher(CameraInfo, f"{TOPIC}/camera_info",
                                            QoSProfile(depth=2))

    def publish(self) -> None:
        """The next image."""
        number = len(self.sent)
        stamp = demo_clip.stamp(number)
        header = header_message(make, stamp, demo_clip.FRAME_ID)
        self._infos.publish(camera_info_message(make, header, self._camera))
        message = image_message(make, header, self._pictures[number % len(self._pictures)])
        self.sent[stamp] = time.perf_counter(), number
        self._images.publish(message)

    def answer(self, message) -> Answer | None:
        """The answer that a ros2_pose/People is to one of these images.

        None if it answers no image (see `looked`), none of these, or one that has been
        answered before.
        """
        stamp = stamp_of(message.header)
        if not looked(message) or stamp not in self.sent or stamp in self._answered:
            return None
        self._answered.add(stamp)
        time_s, number = self.sent[stamp]
        return Answer(1e3 * (time.perf_counter() - time_s), len(self.sent) - 1 - number)


def _table(rows: list[BenchRow]) -> str:
    lines = [f"pose_node over DDS, raw {_SIZE[0]}x{_SIZE[1]}, {os.cpu_count()} CPU cores", "",
             "| | published, Hz | answered, Hz | latency p50, ms | p95 | p99 | people |",
             "|---|---|---|---|---|---|---|"]
    for row in rows:
        p50, p95, p99 = np.percentile(row.latency_ms, (50, 95, 99))
        lines.append(f"| {row.name} | {row.published_hz:g} | {row.answered_hz:.1f} | {p50:.0f} | "
                     f"{p95:.0f} | {p99:.0f} | {row.people:.1f} |")
    return "\n".join(lines)


def _stages(pictures: list) -> str:
    """Where a frame's time goes, measured in this process: median of the clip."""
    pipeline, calibration = Pipeline(), camera()
    network, step = [], []
    for number, picture in enumerate(pictures):
        begin = time.perf_counter()
        pipeline.network.detect([Frame(picture)])
        network.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        pipeline.step(Frame(picture, calibration, demo_clip.stamp(number)))
        step.append(time.perf_counter() - begin)
    network_ms, step_ms = 1e3 * np.median(network), 1e3 * np.median(step)
    return (f"\na frame: network {network_ms:.0f} ms, tracker and bodies "
            f"{step_ms - network_ms:.0f} ms, on {pipeline.device}")


def _yardstick(picture: np.ndarray) -> str:
    """How fast this machine is: MoveNet's original file alone in LiteRT, at the same scales."""
    config, elapsed = PoseConfig(), []
    try:
        detect = reference_detector(config)
    except EvaluationError as error:
        return f"no yardstick: {error}"
    for _ in range(20):
        begin = time.perf_counter()
        detect(picture)
        elapsed.append(time.perf_counter() - begin)
    return (f"yardstick: MoveNet's original file alone in LiteRT, {config.scales} px, takes "
            f"{1e3 * np.median(elapsed):.0f} ms on this machine")
