"""Record what replay gives, so that two states of the code can be compared.

    scripts/run python test/tools/record_replays.py before     # then change the code
    scripts/run python test/tools/record_replays.py after
    scripts/run python test/tools/record_replays.py --compare before after

Replays the demo's bag, the demo's video and a recording of two cameras. The comparison prints
whether the files are the same to the byte and, for people, the largest difference of a number.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
from pathlib import Path

import numpy as np
from rosbags.highlevel import AnyReader
from scipy.spatial.transform import Rotation

from ros2_pose import cli
from ros2_pose.camera import rotation_of
from ros2_pose.config import PoseConfig
from ros2_pose.geometry import Transform
from ros2_pose.multiview.pipeline import MultiPipeline
from ros2_pose.offline import demo_clip
from ros2_pose.offline.rosbag_files import typestore
from ros2_pose.people import Frame

_IMAGES = 40


def record(out: Path) -> None:
    """Replay everything into the folder `out`."""
    out.mkdir(parents=True)
    bag, video = out / "in", str(demo_clip.fetch("demo_cam02.mp4"))
    demo_clip.write_bag(bag, count=_IMAGES)
    cli.main(["replay", str(bag), str(out / "bag.jsonl"), str(out / "bag")])
    cli.main(["replay", video, str(out / "video.jsonl"), str(out / "video.mp4"), "--fov-deg", "40"])
    (out / "bag.sha256").write_text(_digest_of_bag(out / "bag"))
    _record_two_cameras(out / "two_cameras.jsonl")


def _digest_of_bag(path: Path) -> str:
    """The messages of a bag in order, topic, stamp and bytes, as one number."""
    digest = hashlib.sha256()
    with AnyReader([path], default_typestore=typestore()) as reader:
        for connection, stamp, data in reader.messages():
            digest.update(f"{connection.topic} {stamp}\n".encode() + bytes(data))
    return digest.hexdigest()


def _record_two_cameras(path: Path) -> None:
    """The clip, seen by its camera and by one in the same place that is turned by a quarter."""
    camera = demo_clip.camera()
    upright = Transform.from_matrix([[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 1.5], [0, 0, 0, 1]])
    turned = Transform(upright.rotation * Rotation.from_matrix(rotation_of(3).T),
                       upright.translation_m)
    pipeline = MultiPipeline(2, PoseConfig(), floor_m=0.0)
    with open(path, "w", encoding="utf-8") as file:
        for number, picture in zip(range(_IMAGES), demo_clip.pictures()):
            stamp = demo_clip.stamp(number)
            frames = [Frame(picture, camera, stamp, camera_to_fixed=upright),
                      Frame(np.ascontiguousarray(np.rot90(picture, 3)), camera.rotated(3), stamp,
                            camera_to_fixed=turned)]
            scene = pipeline.step(frames)
            fields = {name: _plain(value) for name, value in vars(scene.people).items()}
            file.write(json.dumps(fields) + "\n")


def _plain(value):
    return value.tolist() if isinstance(value, np.ndarray) else value


def compare(before: Path, after: Path) -> int:
    """Print the differences; returns 0 if there are none above 1e-6."""
    worst = 0.0
    for path in sorted(before.glob("*.*")):
        other = after / path.name
        if path.read_bytes() == other.read_bytes():
            print(f"{path.name}: the same bytes")
        elif path.suffix == ".jsonl":
            difference = max(_difference(json.loads(a), json.loads(b)) for a, b in
                             zip(path.open(), other.open(), strict=True))
            print(f"{path.name}: numbers differ by {difference:.3g}")
            worst = max(worst, difference)
        else:
            print(f"{path.name}: differs")
    return 0 if worst <= 1e-6 else 1


def _difference(a, b) -> float:
    """The largest difference of two numbers at the same place; infinite where all else differs."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return max((_difference(a[key], b[key]) for key in a), default=0.0)
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return max((_difference(*pair) for pair in zip(a, b)), default=0.0)
    if isinstance(a, float) and isinstance(b, float):
        return 0.0 if math.isnan(a) and math.isnan(b) else abs(a - b)
    return 0.0 if a == b else math.inf


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--compare", action="store_true")
    options = parser.parse_args()
    if options.compare:
        return compare(*options.folders)
    record(*options.folders)
    return 0


if __name__ == "__main__":
    sys.exit(main())
