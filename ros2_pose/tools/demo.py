"""The demo: a recording of real people, played by a process, seen by the node, written to a bag.

Leaves in its folder: input/ and output/ (bags), overlay.mp4, overview.png, and the nodes' logs.
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

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
from ros2_pose.offline.rosbag_reader import BagSource, BagWriter, typestore
from ros2_pose.people import TRACKED, People
from ros2_pose.tools.node_process import NodeProcessError, observer, own_domain, process, wait_until

_RATE = 0.05  # of real time: 60 images a second become 3, which two slow CPU cores answer
_START_S, _DRAIN_S = 120.0, 3.0
_VIDEO_FPS = 20.0
_PEOPLE = "/ros2_pose/people"
_OUTPUTS = {_PEOPLE: PeopleMessage, "/ros2_pose/markers": MarkerArray, "/tf": TFMessage,
            "/ros2_pose/skeleton_info": SkeletonInfo}


def run(out: Path) -> int:
    """Run the demo into the folder `out` and print its table; 0 if people were found."""
    for name in ("input", "output"):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in ("times.json", "overlay.mp4", "overview.png"):
        (out / name).unlink(missing_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    print(f"demo: making {out}/input, a bag of the clip")
    demo_clip.write_bag(out / "input")
    print(f"demo: pose_node and bag_player talk over DDS; what the node says goes to {out}/output")
    published = _record(out)
    answers = _of_images(read_people(out / "output"), published)
    print(f"demo: drawing {out}/overlay.mp4 and {out}/overview.png")
    _draw(out, answers)
    print(_table(answers, published))
    return 0 if any(_tracked(people) for people, _ in answers.values()) else 1


def _record(out: Path) -> list[int]:
    """Play the input past the node and record what it says; times of publication of the images."""
    node_arguments = ("--ros-args", "-r", "image:=/camera/image_raw", "-p", "transport:=compressed")
    player_arguments = (str(out / "input"), "--wait", "--rate", str(_RATE),
                        "--times", str(out / "times.json"))
    with own_domain() as domain, observer(domain) as node, \
            process("nodes.pose_node", *node_arguments, domain=domain,
                    log=out / "node.log") as pose, \
            _Recorder(node, out / "output") as recorder:
        wait_until(lambda: "/ros2_pose/skeleton_info" in recorder.counts, "skeleton_info from the "
                   f"node, see {out}/node.log", _START_S, pose)
        with process("tools.bag_player", *player_arguments, domain=domain,
                     log=out / "player.log") as player:
            _watch(player, pose, recorder)
    if not (out / "times.json").exists():
        raise NodeProcessError(
            f"the node or the player ended before the last image: see {out}/node.log "
            f"and {out}/player.log"
        )
    return json.loads((out / "times.json").read_text())[demo_clip.IMAGE_TOPIC]


def _watch(player, pose, recorder: _Recorder) -> None:
    """Show progress until the player is done and the last answers have come."""
    with tqdm(total=100, desc="answered", unit="image") as bar:
        while player.poll() is None and pose.poll() is None:
            bar.update(recorder.answered - bar.n)
            time.sleep(0.1)
        time.sleep(_DRAIN_S)
        bar.update(recorder.answered - bar.n)


class _Recorder:
    """Takes in the node's outputs and writes them to a bag at the end.

    Not at once, because SQLite wants to be written by one thread.

    counts: messages by topic. answered: of those on ~/people, how many answer an image.
    """

    def __init__(self, node, path: Path):
        self.path, self.counts, self.answered, self.taken = path, {}, 0, []
        for topic, kind in _OUTPUTS.items():
            latched = kind is SkeletonInfo
            profile = QoSProfile(
                depth=100, reliability=ReliabilityPolicy.RELIABLE,
                durability=DurabilityPolicy.TRANSIENT_LOCAL if latched
                else DurabilityPolicy.VOLATILE)
            node.create_subscription(kind, topic, self._keep(topic, kind, latched), profile,
                                     raw=True)

    def _keep(self, topic: str, kind: type, latched: bool):
        name = f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"

        def keep(data: bytes) -> None:
            self.taken.append((topic, name, data, time.time_ns(), latched))
            self.counts[topic] = self.counts.get(topic, 0) + 1
            if topic == _PEOPLE:
                self.answered += looked(deserialize_message(data, kind))
        return keep

    def __enter__(self) -> _Recorder:
        return self

    def __exit__(self, *_) -> None:
        bag = BagWriter(self.path)
        for message in self.taken:
            bag.put_raw(*message)
        bag.close()


def read_people(bag: Path) -> dict[int, tuple[People, int]]:
    """By image stamp, ns: who was there, and when the answer arrived, ns since 1970.

    Messages that answer no image are left out; of several answers to one, the first counts.
    """
    answers = {}
    with AnyReader([bag], default_typestore=typestore()) as reader:
        wanted = [c for c in reader.connections if c.topic == _PEOPLE]
        for connection, received, data in reader.messages(wanted):
            message = reader.deserialize(data, connection.msgtype)
            if looked(message):
                people = people_from_message(message)
                answers.setdefault(stamp_of(message.header), (people, received))
    return answers


def _of_images(answers: dict[int, tuple[People, int]],
               published: list[int]) -> dict[int, tuple[People, int]]:
    """The answers whose stamp is that of a published image."""
    stamps = {demo_clip.stamp(number) for number in range(len(published))}
    return {stamp: answer for stamp, answer in answers.items() if stamp in stamps}


def _draw(out: Path, answers: dict[int, tuple[People, int]]) -> None:
    """The overlay video, and the picture of the moment with most people beside its map."""
    body, video = BodyModel.load(), None
    best = max(answers, key=lambda stamp: (_tracked(answers[stamp][0]), -stamp), default=None)
    for shot in tqdm(BagSource(out / "input"), "drawing", unit="image"):
        if shot.stamp not in answers:
            continue
        people = answers[shot.stamp][0]
        picture = draw.beside(draw.overlay(shot.frame.image, people, shot.frame.camera, body),
                              draw.view_from_above(people, 960, reach=8.0))
        if shot.stamp == best:
            cv2.imwrite(str(out / "overview.png"), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        if video is None:
            video = cv2.VideoWriter(str(out / "overlay.mp4"), cv2.VideoWriter_fourcc(*"mp4v"),
                                    _VIDEO_FPS, picture.shape[1::-1])
        video.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    if video is not None:
        video.release()


def _tracked(people: People) -> int:
    return int((people.tracking_state == TRACKED).sum())


def _table(answers: dict[int, tuple[People, int]], published: list[int]) -> str:
    sent = {demo_clip.stamp(number): time for number, time in enumerate(published)}
    answers = _of_images(answers, published)
    latency = [(received - sent[stamp]) * 1e-6 for stamp, (_, received) in answers.items()]
    arrivals = [received for _, received in answers.values()]
    seconds = (max(arrivals) - min(arrivals)) * 1e-9 if len(arrivals) > 1 else np.nan
    ids = sorted({i for people, _ in answers.values()
                  for i, state in zip(people.ids, people.tracking_state) if state == TRACKED})
    rows = {"frames in": len(published), "frames answered": len(answers),
            "people at once, most": max((_tracked(people) for people, _ in answers.values()),
                                           default=0),
            "ids": " ".join(ids),
            "frames a second, answered": f"{(len(arrivals) - 1) / (seconds or np.nan):.1f}",
            "latency p50 / p95, ms": " / ".join(f"{np.percentile(latency or [np.nan], p):.0f}"
                                                for p in (50, 95))}
    width = max(map(len, rows))
    return "\n".join(f"{name:{width}}  {value}" for name, value in rows.items())
