"""How well ids are kept: our tracker beside two simple ones, on the same detections.

    python -m ros2_pose.evaluation.benchmarks.tracking [--data DIR] [--pets gt.txt]
                                                   [--rows mupots,pets]

mupots: the true 2D tracks of MuPoTS (`devset/mupots_ts01_10_gt.npz`) as a detector might see them,
made up by one seed: noise and scores as MoveNet's, images in which it misses someone, gaps as of
people hidden for 0.5 to 2 s, and absences of 3 to 6 s. Ours is the whole pipeline but the network:
bodies, places in metres and all. A person who is hidden or away is not there to be found; each
detection is its person's by construction.

pets: PETS 2009 S2.L1, view 1 (`devset/videos/pets_vtest.avi`), every image, by the default network,
once for all trackers. The truth, in MOTChallenge's form, is yours to give: `PETS09-S2L1/gt/gt.txt`
of 2D MOT 2015. That camera is not calibrated here: ours is 2D alone.

Rows whose data is not there say so in the table.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from ros2_pose import oks
from ros2_pose.boxes import overlaps
from ros2_pose.camera import Camera
from ros2_pose.evaluation.baselines import ByteLike, NearestNeighbour
from ros2_pose.evaluation.metrics.mot import FrameIds, Identities, count
from ros2_pose.imaging.contrast import grey_ramp
from ros2_pose.networks.keypoint_noise import KEYPOINT_NOISE
from ros2_pose.networks.registry import create_network
from ros2_pose.offline.sources import VideoSource
from ros2_pose.people import LOST, Frame, People
from ros2_pose.pipeline import CONTINUES, Pipeline
from ros2_pose.skeleton import COCO17, MUPOTS17

log = logging.getLogger(__name__)

_MUPOTS = "devset/mupots_ts01_10_gt.npz"
_PETS = "devset/videos/pets_vtest.avi"
_BEGINS = 0.5  # of score_threshold: from where ours watches someone, and the others begin

# A tracker takes the detections of an image and gives the rows of those tracked, and their ids.
Follow = Callable[[People], tuple[list[int], list]]


class Recording(NamedTuple):
    """What a detector found, image by image, and the truth: ids, and (G, F) how alike each is to
    each detection."""

    fps: float
    size: tuple[int, int]  # width, height, px
    camera: Camera | None
    detections: list[People]
    truth: list[tuple[list[int], np.ndarray]]


class TrackingRow(NamedTuple):
    """A line of the table."""

    data: str
    tracker: str
    counts: Identities | None = None


# -------------------------------------------------------------------------------- trackers


class Ours:
    """The pipeline behind its network, people lost from sight left out."""

    name = "made up"

    def __init__(self, pipeline: Pipeline, recording: Recording):
        self.pipeline, self.recording = pipeline, recording
        self.image = grey_ramp(*recording.size)
        self.number = 0
        pipeline.reset()
        pipeline.network = self

    def detect(self, frames: list[Frame]) -> list[People]:
        """The network's part: what was found before."""
        return [self.people for _ in frames]

    def __call__(self, people: People) -> tuple[list[int], list]:
        self.people = people
        stamp = round(1e9 * self.number / self.recording.fps)
        self.number += 1
        seen = self.pipeline.step(Frame(self.image, self.recording.camera, stamp))
        seen = seen[seen.tracking_state != LOST]
        rows = [int(np.abs(people.boxes - box).sum(1).argmin()) for box in seen.boxes]
        # Ids are given again; the age says that somebody else has it now.
        return rows, [(one, round(stamp * 1e-9 - age, 3)) for one, age in zip(seen.ids, seen.age)]


def trackers(recording: Recording, pipeline: Pipeline) -> dict[str, Follow]:
    """Ours and those beside it, by name; all remember people out of sight equally long."""
    config = pipeline.config
    kept = round(config.lost_s * recording.fps)
    strong, weak = config.score_threshold * _BEGINS, config.score_threshold * CONTINUES
    return {"nearest neighbour": NearestNeighbour(strong, kept),
            "like ByteTrack": ByteLike(strong, weak, kept),
            "ours": Ours(pipeline, recording)}


def judge(recording: Recording, follow: Follow) -> Identities:
    """Follow a recording and count."""
    frame_ids = []
    for people, (ids, similarity) in zip(tqdm(recording.detections, leave=False), recording.truth):
        rows, found = follow(people)
        frame_ids.append(FrameIds(ids, found, similarity[:, rows]))
    return count(frame_ids)


# ---------------------------------------------------------------------------- made-up views


@dataclass(frozen=True)
class DropOuts:
    """How a detector loses people; seconds, and chances per image and person."""

    seed: int = 0
    missed: float = 0.04  # a single image
    weak: float = 0.1  # scores too little to be new
    gap_every_s: float = 5.0
    gap_s: tuple[float, float] = (0.5, 2.0)
    absence_s: tuple[float, float] = (3.0, 6.0)  # once a person, where the sequence is long enough
    false: float = 0.05  # a weak detection where nobody is, per image


_FPS = 30.0  # of MuPoTS
_STRONG, _WEAK, _FALSE = (0.32, 0.75), (0.1, 0.3), (0.1, 0.25)  # scores
_HEAD_SCORE = 0.1  # of face keypoints: the truth has only the head's middle
_WIDER = 0.1  # a box is larger than its keypoints' by so much of their extent on each side
_BOX_STD = 0.02  # of the box's sides
_IN_MUPOTS = [MUPOTS17.index(name if name in MUPOTS17.names else "head") for name in COCO17.names]
_FACE = np.array([name not in MUPOTS17.names for name in COCO17.names])


def mupots_recordings(path: Path, drop: DropOuts) -> Iterator[Recording]:
    """The sequences of MuPoTS as a detector might see them."""
    with np.load(path, allow_pickle=False) as file:
        sequences = sorted({name.split("_")[0] for name in file if name.startswith("TS")})
        for number, name in enumerate(sequences):
            rng = np.random.default_rng((drop.seed, number))
            focal, centre = np.split(file[f"{name}_K"].astype(float), 2)
            size = (round(2 * centre[0]), round(2 * centre[1]))
            camera = Camera(*size, *focal, *centre)
            points = file[f"{name}_p2"][:, :, _IN_MUPOTS].astype(float)
            there = file[f"{name}_valid"].astype(bool) & ~hidden(*points.shape[:2], drop, rng)
            yield _as_seen(points, there, size, camera, drop, rng)


def hidden(images: int, people: int, drop: DropOuts, rng: np.random.Generator) -> np.ndarray:
    """(T, P) bool: who is behind something, or away."""
    out = np.zeros((images, people), bool)
    length = images / _FPS
    for person in range(people):
        starts = rng.uniform(0, length, rng.poisson(length / drop.gap_every_s))
        spans = [(start, rng.uniform(*drop.gap_s)) for start in starts]
        away = rng.uniform(*drop.absence_s)
        if length > 2 * away:
            spans.append((rng.uniform(0.25, 0.75) * (length - away), away))
        for start, span in spans:
            out[round(start * _FPS):round((start + span) * _FPS), person] = True
    return out


def _as_seen(points: np.ndarray, there: np.ndarray, size: tuple[int, int], camera: Camera,
             drop: DropOuts, rng: np.random.Generator) -> Recording:
    found = [_detected(points[t, there[t]], size, drop, rng) for t in range(len(points))]
    truth = []
    for (_, source), present in zip(found, there):
        truth.append(([int(p) for p in np.flatnonzero(present)],
                      (source == np.arange(present.sum())[:, None]).astype(float)))
    return Recording(_FPS, size, camera, [people for people, _ in found], truth)


def _detected(points: np.ndarray, size: tuple[int, int], drop: DropOuts,
              rng: np.random.Generator) -> tuple[People, np.ndarray]:
    """Detections of people with keypoints (P, 17, 2), and (F,) whose each is; -1: nobody's."""
    source = np.flatnonzero(rng.random(len(points)) >= drop.missed)
    scores = np.where(rng.random(len(source)) < drop.weak, rng.uniform(*_WEAK, len(source)),
                      rng.uniform(*_STRONG, len(source)))
    points = points[source]
    if len(points) and rng.random() < drop.false:
        elsewhere = points[:1] + rng.uniform(-0.5, 0.5, 2) * size
        points, source = np.concatenate([points, elsewhere]), np.append(source, -1)
        scores = np.append(scores, rng.uniform(*_FALSE))
    low, high = points.min(1), points.max(1)
    margin = _WIDER * (high - low)
    boxes = np.concatenate([low - margin, high + margin], 1)
    scale = np.sqrt(oks.area(boxes))
    error, cov = KEYPOINT_NOISE.draw(rng, len(points))
    boxes = boxes + _BOX_STD * scale[:, None] * rng.normal(size=boxes.shape)
    people = People(boxes, scores, points + scale[:, None, None] * error,
                    scale[:, None, None, None] ** 2 * cov,
                    np.tile(np.where(_FACE, _HEAD_SCORE, 0.7), (len(points), 1)))
    order = rng.permutation(len(points))
    return people[order], source[order]


# ------------------------------------------------------------------------------------ PETS


def pets_recording(video: Path, truth: Path, pipeline: Pipeline) -> Recording:
    """The video as the default network sees it, beside the truth in MOTChallenge's form."""
    config = pipeline.config
    network = create_network(config)
    network.configure(config.score_threshold * CONTINUES, network.max_people)
    source = VideoSource(video)
    shots = list(tqdm(source, video.stem, unit="image"))
    found = [network.detect([shot.frame])[0] for shot in tqdm(shots, "detecting", unit="image")]
    fps = 1e9 * (len(shots) - 1) / (shots[-1].stamp - shots[0].stamp)
    people = read_motchallenge(truth, len(shots))
    similarity = [(ids, overlaps(boxes, one.boxes)) for (ids, boxes), one in zip(people, found)]
    return Recording(fps, shots[0].frame.image.shape[1::-1], None, found, similarity)


def read_motchallenge(path: Path, images: int) -> list[tuple[list[int], np.ndarray]]:
    """Ids and boxes (G, 4) px of every image: `image from 1, id, left, top, width, height, ...`;
    a seventh number of 0 says not to count."""
    lines = np.loadtxt(path, delimiter=",", ndmin=2)
    if lines.shape[1] > 6:
        lines = lines[lines[:, 6] != 0]
    out = []
    for number in range(1, images + 1):
        rows = lines[lines[:, 0] == number]
        boxes = np.concatenate([rows[:, 2:4], rows[:, 2:4] + rows[:, 4:6]], 1)
        out.append(([int(one) for one in rows[:, 1]], boxes))
    return out


# ----------------------------------------------------------------------------------- table


@dataclass(frozen=True)
class TrackingBenchmark:
    """What is measured."""

    data: Path
    pets: Path | None = None
    seeds: int = 3
    pipeline: Pipeline = field(default_factory=Pipeline)

    def missing(self, *files: str) -> str:
        """What is not there of the data, for a person to read; empty if all is."""
        lacking = [name for name in files if not (self.data / name).exists()]
        return f"skipped: no {', '.join(lacking)} in {self.data}" if lacking else ""


def mupots(bench: TrackingBenchmark) -> Iterator[TrackingRow]:
    """MuPoTS, drop-outs of several seeds together."""
    if missing := bench.missing(_MUPOTS):
        yield TrackingRow("mupots", missing)
        return
    recordings = [recording for seed in range(bench.seeds)
                  for recording in mupots_recordings(bench.data / _MUPOTS, DropOuts(seed))]
    yield from _rows(f"MuPoTS 1-10, {bench.seeds} seed(s) of drop-outs", recordings, bench)


def pets(bench: TrackingBenchmark) -> Iterator[TrackingRow]:
    """PETS, view 1."""
    if missing := bench.missing(_PETS):
        yield TrackingRow("pets", missing)
        return
    if bench.pets is None:
        yield TrackingRow("pets", "skipped: name the truth with --pets PETS09-S2L1/gt/gt.txt")
        return
    recording = pets_recording(bench.data / _PETS, bench.pets, bench.pipeline)
    yield from _rows("PETS 2009 S2.L1 view 1, 795 images", [recording], bench)


def _rows(
    data: str, recordings: list[Recording], bench: TrackingBenchmark
) -> Iterator[TrackingRow]:
    for name in trackers(recordings[0], bench.pipeline):
        log.info("%s: %s", data, name)
        counts = (judge(recording, trackers(recording, bench.pipeline)[name])
                  for recording in recordings)
        yield TrackingRow(data, name, sum(counts, Identities()))


PARTS = {"mupots": mupots, "pets": pets}


def table(rows: list[TrackingRow]) -> str:
    """Rows as a Markdown table."""
    head = ["| data | tracker | id switches | IDF1 | fragmentations | MOTA | true people |",
            "|---|---|---|---|---|---|---|"]
    return "\n".join(head + [f"| {row.data} | {row.tracker} | {_figures(row.counts)} |"
                             for row in rows])


def _figures(counts: Identities | None) -> str:
    if counts is None:
        return "- | - | - | - | -"
    return (f"{counts.switches} | {100 * counts.idf1:.1f} | {counts.fragmentations} | "
            f"{100 * counts.mota:.1f} | {counts.true}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("ROS2_POSE_DATA", "../shared"),
                        help="folder of the data; default: ROS2_POSE_DATA, else ../shared")
    parser.add_argument("--pets", type=Path, help="truth of PETS09-S2L1, MOTChallenge's gt.txt")
    parser.add_argument(
        "--seeds", type=int, default=TrackingBenchmark.seeds, help="of MuPoTS' drop-outs"
    )
    parser.add_argument("--rows", type=lambda text: text.split(","), default=list(PARTS),
                        help=f"some of {','.join(PARTS)}")
    args = parser.parse_args()
    if unknown := [name for name in args.rows if name not in PARTS]:
        parser.error(f"{', '.join(unknown)}: not among {', '.join(PARTS)}")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    bench = TrackingBenchmark(Path(args.data), args.pets, args.seeds)
    print(table([row for name in args.rows for row in PARTS[name](bench)]))


if __name__ == "__main__":
    main()
