"""Demo: a bag player publishes a recording of real people, and the node's output goes to a bag.

Writes to its folder: input/ and output/ (bags), overlay.mp4, overview.png, and the nodes' logs.
"""

from __future__ import annotations

import json
import shutil
import time
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.serialization import deserialize_message
from rosbags.highlevel import AnyReader
from tf2_msgs.msg import TFMessage
from tqdm import tqdm
from visualization_msgs.msg import MarkerArray

from ros2_pose import draw
from ros2_pose.body.model import BodyModel
from ros2_pose.messages.people import looked, people_from_message
from ros2_pose.messages.standard import stamp_of
from ros2_pose.msg import People as PeopleMessage
from ros2_pose.msg import SkeletonInfo
from ros2_pose.offline import demo_clip
from ros2_pose.offline.rosbag_files import typestore
from ros2_pose.offline.rosbag_reader import BagSource
from ros2_pose.offline.rosbag_writer import BagWriter
from ros2_pose.people import TRACKED, People
from ros2_pose.tools.node_process import NodeProcessError, observer, own_domain, process, wait_until

_RATE = 0.05  # of real time: 3 images a second, which two slow CPU cores can process
_START_S, _DRAIN_S = 120.0, 3.0
_VIDEO_FPS = 20.0
_PEOPLE = "/ros2_pose/people"
_OUTPUTS = {_PEOPLE: PeopleMessage, "/ros2_pose/markers": MarkerArray, "/tf": TFMessage,
            "/ros2_pose/skeleton_info": SkeletonInfo}


def run(out: Path) -> int:
    """Run the demo into the folder `out` and print its table. Returns 0 if people were tracked."""
    for name in ("input", "output"):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in ("times.json", "overlay.mp4", "overview.png"):
        (out / name).unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    print(f"demo: writing {out}/input, a bag of the clip")
    demo_clip.write_bag(out / "input")
    print(f"demo: bag_player publishes to pose_node over DDS; its output goes to {out}/output")
    published = _record(out)
    answers = _of_images(read_people(out / "output"), published)
    print(f"demo: drawing {out}/overlay.mp4 and {out}/overview.png")
    _draw(out, answers)
    print(_table(answers, published))
    return 0 if any(_tracked(people) for people, _ in answers.values()) else 1


def _record(out: Path) -> list[int]:
    """Play the input and record the node's output. Returns publication times of the images, ns."""
    node_arguments = ("--ros-args", "-r", "image:=/camera/image_raw", "-p", "transport:=compressed")
    player_arguments = (str(out / "input"), "--wait", "--rate", str(_RATE),
                        "--times", str(out / "times.json"))
    with own_domain() as domain, observer(domain) as node, \
            process("nodes.pose_node", *node_arguments, domain=domain,
                    log=out / "node.log") as pose, \
            _OutputRecorder(node, out / "output") as recorder:
        wait_until(lambda: "/ros2_pose/skeleton_info" in recorder.counts,
                   f"skeleton_info from the node, see {out}/node.log", _START_S, pose)
        with process("tools.bag_player", *player_arguments, domain=domain,
                     log=out / "player.log") as player:
            _watch(player, pose, recorder)
    if not (out / "times.json").exists():
        raise NodeProcessError(
            f"the node or the player ended before the last image: see {out}/node.log "
            f"and {out}/player.log"
        )
    return json.loads((out / "times.json").read_text())[demo_clip.IMAGE_TOPIC]


def _watch(player, pose, recorder: _OutputRecorder) -> None:
    """Show progress until the player has ended and the last answers have arrived."""
    with tqdm(total=100, desc="answered", unit="image") as bar:
        while player.poll() is None and pose.poll() is None:
            bar.update(recorder.answered - bar.n)
            time.sleep(0.1)
        time.sleep(_DRAIN_S)
        bar.update(recorder.answered - bar.n)


class _OutputRecorder:
    """Collects the node's outputs and writes them to a bag at the end, from one thread for SQLite.

    Attributes:
        counts: messages by topic.
        answered: messages on ~/people that answer an image.
    """

    def __init__(self, node, path: Path):
        self.path = path
        self.counts: dict[str, int] = {}
        self.answered = 0
        self._messages: list[tuple[str, str, bytes, int, bool]] = []  # arguments of put_raw
        for topic, message_type in _OUTPUTS.items():
            latched = message_type is SkeletonInfo
            durability = (DurabilityPolicy.TRANSIENT_LOCAL if latched
                          else DurabilityPolicy.VOLATILE)
            profile = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE,
                                 durability=durability)
            node.create_subscription(message_type, topic,
                                     partial(self._receive, topic, message_type, latched), profile,
                                     raw=True)

    def _receive(self, topic: str, message_type: type, latched: bool, data: bytes) -> None:
        type_name = f"{message_type.__module__.split('.')[0]}/msg/{message_type.__name__}"
        self._messages.append((topic, type_name, data, time.time_ns(), latched))
        self.counts[topic] = self.counts.get(topic, 0) + 1
        if topic == _PEOPLE:
            self.answered += looked(deserialize_message(data, message_type))

    def __enter__(self) -> _OutputRecorder:
        return self

    def __exit__(self, *_) -> None:
        bag = BagWriter(self.path)
        for message in self._messages:
            bag.put_raw(*message)
        bag.close()


def read_people(bag: Path) -> dict[int, tuple[People, int]]:
    """Read the answers of the node from a bag.

    Messages that do not answer an image are left out; of several answers to one, the first counts.

    Returns:
        {stamp of the image, ns: (people, time of arrival, ns since 1970)}.
    """
    answers: dict[int, tuple[People, int]] = {}
    with AnyReader([bag], default_typestore=typestore()) as reader:
        wanted = [c for c in reader.connections if c.topic == _PEOPLE]
        for connection, received, data in reader.messages(wanted):
            message: Any = reader.deserialize(data, connection.msgtype)
            if looked(message):
                people = people_from_message(message)
                answers.setdefault(stamp_of(message.header), (people, received))
    return answers


def _of_images(answers: dict[int, tuple[People, int]],
               published: list[int]) -> dict[int, tuple[People, int]]:
    """The answers with the stamp of a published image."""
    stamps = {demo_clip.stamp(number) for number in range(len(published))}
    return {stamp: answer for stamp, answer in answers.items() if stamp in stamps}


def _draw(out: Path, answers: dict[int, tuple[People, int]]) -> None:
    """Draw the overlay video, and the picture with most people; beside each is a map."""
    body, video = BodyModel.load(), None
    best = max(answers, key=lambda stamp: (_tracked(answers[stamp][0]), -stamp), default=None)
    for recorded in tqdm(BagSource(out / "input"), "drawing", unit="image"):
        if recorded.stamp not in answers or recorded.frame is None:
            continue
        people = answers[recorded.stamp][0]
        drawn = draw.overlay(recorded.frame.image, people, recorded.frame.camera, body)
        picture = draw.beside(drawn, draw.view_from_above(people, 960, reach=8.0))
        if recorded.stamp == best:
            cv2.imwrite(str(out / "overview.png"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        if video is None:
            video = cv2.VideoWriter(str(out / "overlay.mp4"), cv2.VideoWriter_fourcc(*"mp4v"),
                                    _VIDEO_FPS, picture.shape[1::-1])
        video.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    if video is not None:
        video.release()


def _tracked(people: People) -> int:
    """Number of tracked people."""
    if people.tracking_state is None:
        return 0
    return int((people.tracking_state == TRACKED).sum())


def _table(answers: dict[int, tuple[People, int]], published: list[int]) -> str:
    """Table of frames, people and latency; published: publication times of the images, ns."""
    answers = _of_images(answers, published)
    sent_ns = {demo_clip.stamp(number): time_ns for number, time_ns in enumerate(published)}
    latency_ms, arrivals_ns, ids = [], [], set()
    most_people = 0
    for stamp, (people, received_ns) in answers.items():
        latency_ms.append((received_ns - sent_ns[stamp]) * 1e-6)
        arrivals_ns.append(received_ns)
        most_people = max(most_people, _tracked(people))
        if people.ids is not None and people.tracking_state is not None:
            ids |= {name for name, state in zip(people.ids, people.tracking_state)
                    if state == TRACKED}
    seconds = (max(arrivals_ns) - min(arrivals_ns)) * 1e-9 if len(arrivals_ns) > 1 else np.nan
    p50, p95 = np.percentile(latency_ms or [np.nan], (50, 95))
    rows: dict[str, object] = {
        "frames in": len(published), "frames answered": len(answers),
        "people at once, most": most_people, "ids": " ".join(sorted(ids)),
        "frames a second, answered": f"{(len(arrivals_ns) - 1) / (seconds or np.nan):.1f}",
        "latency p50 / p95, ms": f"{p50:.0f} / {p95:.0f}"}
    width = max(map(len, rows))
    return "\n".join(f"{name:{width}}  {value}" for name, value in rows.items())
