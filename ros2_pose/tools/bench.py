"""Frame rate and latency of the node, end to end over DDS, with 640x480 images.

This process publishes raw images of up to three people and receives the answers; the node runs in a
process of its own. Latency is from the publication of an image to the arrival of its people.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
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
START_S, WARM_UP = 120.0, 10  # time limit for so many first answers
TOPIC = "/camera"
_ROWS: tuple[tuple[str, float, dict[str, str]], ...] = (  # name, published Hz, parameters
    ("as fast as it can", 30.0, {}),
    ("camera at 10 Hz", 10.0, {}),
    ("each image searched", 30.0, {"search_every": "1"}),
    ("one scale, 256 px", 30.0, {"scales": "[256]"}),
    ("MoveNet alone", 30.0, {"network": "movenet"}),
    ("2D only", 30.0, {"body": "false"}),
)


def run(seconds: float) -> int:
    """Run every row for some seconds and print the table. Returns the exit status."""
    pictures = list(pictures_of_clip())
    rows = [_measure(name, hz, parameters, pictures, seconds)
            for name, hz, parameters in tqdm(_ROWS, "bench", unit="row")]
    print(tables(rows))
    print(_stages(pictures))
    print(_yardstick(pictures[0]))
    return 0


def pictures_of_clip() -> Iterator[np.ndarray]:
    """Yield the clip's images, cropped and scaled to (480, 640, 3) uint8 RGB."""
    for picture in demo_clip.pictures():
        yield cv2.resize(picture[_TOP:_TOP + _HEIGHT], _SIZE, interpolation=cv2.INTER_LINEAR)


def camera() -> Camera:
    """Calibration of `pictures_of_clip`."""
    full = demo_clip.camera()
    return full.cropped(0, _TOP, full.width, _HEIGHT).resized(*_SIZE)


def _measure(name: str, hz: float, parameters: dict, pictures: list, seconds: float) -> Row:
    """Publish images at `hz` for some seconds and measure the answers."""
    latency_ms: list[float] = []
    people: list[int] = []
    arguments = ["--ros-args", "-r", f"image:={TOPIC}/image_raw"]
    for key, value in parameters.items():
        arguments += ["-p", f"{key}:={value}"]

    def on_people(message) -> None:
        answer = source.match_answer(message)
        if answer is not None:
            latency_ms.append(answer[0])
            people.append(len(message.people))

    log = Path(tempfile.gettempdir()) / f"ros2_pose_bench_{os.getpid()}.log"
    with own_domain() as domain, observer(domain, "bench") as node, \
            process("nodes.pose_node", *arguments, domain=domain, log=log) as child:
        source = ImagePublisher(node, pictures)
        node.create_subscription(PeopleMessage, "/ros2_pose/people", on_people, 10)
        source.publish_until(lambda: len(latency_ms) >= WARM_UP, log, START_S, child)
        latency_ms.clear()
        begin_s, count = time.perf_counter(), 0
        while (elapsed_s := time.perf_counter() - begin_s) < seconds:
            if elapsed_s * hz >= count:
                source.publish()
                count += 1
            time.sleep(0.001)
    log.unlink(missing_ok=True)
    return _row(name, hz, len(latency_ms) / seconds, latency_ms, float(np.mean(people)))


def _row(name: str, published_hz: float, answered_hz: float, latency_ms: list[float],
         people: float) -> Row:
    """Row of the table, for a run of the node with N answers of latencies (N,) ms."""
    p50, p95, p99 = np.percentile(latency_ms or [np.nan], (50, 95, 99))
    return Row(name, f"pose_node over DDS, raw {_SIZE[0]}x{_SIZE[1]}, {os.cpu_count()} CPU cores",
               {"published, Hz": f"{published_hz:g}", "answered, Hz": f"{answered_hz:.1f}",
                "latency p50, ms": f"{p50:.0f}", "p95": f"{p95:.0f}", "p99": f"{p99:.0f}",
                "people": f"{people:.1f}"})


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
            f"{pipeline.device}")


def _yardstick(picture: np.ndarray) -> str:
    """Speed of this machine: MoveNet's original file alone in LiteRT, at the same scales."""
    config, elapsed_s = PoseConfig(), []
    try:
        detect = reference_detector(config)
    except EvaluationError as error:
        return f"no yardstick: {error}"
    for _ in range(20):
        begin_s = time.perf_counter()
        detect(picture)
        elapsed_s.append(time.perf_counter() - begin_s)
    return (f"yardstick: MoveNet's original file alone in LiteRT, {config.scales} px, takes "
            f"{1e3 * np.median(elapsed_s):.0f} ms on this machine")
