"""How well ids are kept: ours, nearest neighbour and ByteTrack on the same detections.

    python -m ros2_pose.evaluation.benchmarks.tracking [--data DIR] [--pets gt.txt]
                                                   [--rows mupots,pets]

mupots: the true 2D tracks of MuPoTS (`devset/mupots_ts01_10_gt.npz`) as a detector might give
them, simulated with one seed: noise and scores of MoveNet, missed detections, people hidden for 0.5
to 2 s, and absences of 3 to 6 s. Ours is the whole pipeline except the network, with bodies and
metric positions. A hidden or absent person does not count as missed; each detection belongs to its
person by construction.

pets: PETS 2009 S2.L1, view 1 (`devset/videos/pets_vtest.avi`), every image, detections of the
default network, computed once for all trackers. Give the ground truth in MOTChallenge's form:
`PETS09-S2L1/gt/gt.txt` of 2D MOT 2015. That camera is not calibrated here: ours is 2D alone.

ByteTrack is that of the package trackers (pip install trackers); without it the row is skipped.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from ros2_pose import oks
from ros2_pose.boxes import overlaps
from ros2_pose.camera import Camera
from ros2_pose.config import PoseConfig
from ros2_pose.data.mupots import FPS, MupotsSequence, read_sequences
from ros2_pose.evaluation import harness
from ros2_pose.evaluation.baselines import ByteTrack, NearestNeighbour
from ros2_pose.evaluation.benchmarks.mupots import FILE as MUPOTS
from ros2_pose.evaluation.harness import Benchmark, EvaluationError, Options, Row
from ros2_pose.imaging.contrast import grey_ramp
from ros2_pose.metrics.mot import FrameIds, Identities, count, total
from ros2_pose.networks.base import PoseNetwork
from ros2_pose.networks.keypoint_noise import KEYPOINT_NOISE
from ros2_pose.networks.registry import create_network
from ros2_pose.offline.sources import VideoSource
from ros2_pose.people import LOST, Frame, People
from ros2_pose.pipeline import CONTINUES, Pipeline
from ros2_pose.skeleton import COCO17, MUPOTS17

log = logging.getLogger(__name__)

PETS = "devset/videos/pets_vtest.avi"
_BEGINS = 0.5  # times score_threshold: the score from which a track may begin, in all trackers

# A tracker: detections of an image in; rows of the tracked ones and their ids out.
Follow = Callable[[People], tuple[list[int], list]]


class Recording(NamedTuple):
    """Detections image by image, and the truth: ids of G people and similarities (G, F)."""

    fps: float
    size: tuple[int, int]  # width, height, px
    camera: Camera | None
    detections: list[People]
    truth: list[tuple[list[int], np.ndarray]]


# -------------------------------------------------------------------------------- trackers


class RecordedDetections(PoseNetwork):
    """A network that returns `people`, the detections recorded for the next image."""

    def __init__(self, config: PoseConfig):
        super().__init__(config)
        self.people = People.nobody()

    def find_people(self, frames: list[Frame]) -> list[People]:
        """The detections, for each frame."""
        return [self.people for _ in frames]


class Ours:
    """The pipeline behind its network, as a tracker; lost people are left out."""

    def __init__(self, pipeline: Pipeline, recording: Recording,
                 network: RecordedDetections | None = None):
        self.pipeline, self.recording = pipeline, recording
        self.image = grey_ramp(*recording.size)
        self.number = 0
        pipeline.reset()
        self.network = network or RecordedDetections(pipeline.config)
        pipeline.network = self.network

    def __call__(self, people: People) -> tuple[list[int], list]:
        self.network.people = people
        stamp = round(1e9 * self.number / self.recording.fps)
        self.number += 1
        seen = self.pipeline.step(Frame(self.image, self.recording.camera, stamp))
        seen = seen[seen.tracking_state != LOST]
        rows = [int(np.abs(people.boxes - box).sum(1).argmin()) for box in seen.boxes]
        assert seen.ids is not None and seen.age is not None
        # Ids are reused; the time of birth tells two people with the same id apart.
        return rows, [(one, round(stamp * 1e-9 - age, 3)) for one, age in zip(seen.ids, seen.age)]


def trackers(recording: Recording, pipeline: Pipeline) -> dict[str, Callable[[], Follow]]:
    """Makers of all trackers, by name; all keep lost people equally long."""
    config = pipeline.config
    kept = round(config.lost_s * recording.fps)
    strong, weak = config.score_threshold * _BEGINS, config.score_threshold * CONTINUES
    return {"nearest neighbour": lambda: NearestNeighbour(strong, kept),
            "ByteTrack (trackers)": lambda: ByteTrack(strong, weak, config.lost_s, recording.fps),
            "ours": lambda: Ours(pipeline, recording)}


def judge(recording: Recording, follow: Follow) -> Identities:
    """Run a tracker on a recording and count its errors."""
    frame_ids: list[FrameIds] = []
    for people, (ids, similarity) in zip(tqdm(recording.detections, leave=False), recording.truth):
        rows, found = follow(people)
        frame_ids.append((ids, found, similarity[:, rows]))
    return count(frame_ids)


# -------------------------------------------------------------------- simulated detections


_MISSED_SHARE = 0.04  # of the detections
_WEAK_SHARE = 0.1  # of the detections: scores too low to begin a track
_FALSE_SHARE = 0.05  # of the images: a weak false detection
_GAP_EVERY_S, _GAP_S = 5.0, (0.5, 2.0)  # a person is hidden: mean interval, duration
_ABSENCE_S = (3.0, 6.0)  # once for each person, where the sequence is long enough
_STRONG, _WEAK, _FALSE = (0.32, 0.75), (0.1, 0.3), (0.1, 0.25)  # scores
_KEYPOINT_SCORE = 0.7
_HEAD_SCORE = 0.1  # of face keypoints: the truth has only the middle of the head
_WIDER = 0.1  # margin of a box around its keypoints on each side, in their extent
_BOX_STD = 0.02  # of the box's sides
_IN_MUPOTS = [MUPOTS17.index(name if name in MUPOTS17.names else "head") for name in COCO17.names]
_FACE = np.array([name not in MUPOTS17.names for name in COCO17.names])


def mupots_recordings(sequences: list[MupotsSequence], seed: int) -> Iterator[Recording]:
    """The sequences as a detector might see them."""
    for number, sequence in enumerate(sequences):
        rng = np.random.default_rng((seed, number))
        K = sequence.K
        size = (round(2 * K[0, 2]), round(2 * K[1, 2]))
        camera = Camera(*size, K[0, 0], K[1, 1], K[0, 2], K[1, 2])
        points = sequence.pixels[:, :, _IN_MUPOTS].astype(float)
        images, people = sequence.valid.shape
        there = sequence.valid & ~hidden(images, people, rng)
        yield simulated(points, there, size, camera, rng)


def hidden(images: int, people: int, rng: np.random.Generator) -> np.ndarray:
    """(T, P) bool: the person is occluded or absent."""
    out = np.zeros((images, people), bool)
    length = images / FPS
    for person in range(people):
        starts = rng.uniform(0, length, rng.poisson(length / _GAP_EVERY_S))
        spans = [(start, rng.uniform(*_GAP_S)) for start in starts]
        away = rng.uniform(*_ABSENCE_S)
        if length > 2 * away:
            spans.append((rng.uniform(0.25, 0.75) * (length - away), away))
        for start, span in spans:
            out[round(start * FPS):round((start + span) * FPS), person] = True
    return out


def simulated(points: np.ndarray, there: np.ndarray, size: tuple[int, int],
              camera: Camera | None, rng: np.random.Generator) -> Recording:
    """Simulate detections of people with keypoints (T, P, 17, 2) px who are present (T, P)."""
    detections, truth = [], []
    for keypoints, present in zip(points, there):
        people, source = _detected(keypoints[present], size, rng)
        similarity = source == np.arange(present.sum())[:, None]
        detections.append(people)
        truth.append((np.flatnonzero(present).tolist(), similarity.astype(float)))
    return Recording(FPS, size, camera, detections, truth)


def _detected(points: np.ndarray, size: tuple[int, int],
              rng: np.random.Generator) -> tuple[People, np.ndarray]:
    """Detections of people with keypoints (P, 17, 2) px, and (F,) their persons; -1: false."""
    source = np.flatnonzero(rng.random(len(points)) >= _MISSED_SHARE)
    scores = np.where(rng.random(len(source)) < _WEAK_SHARE, rng.uniform(*_WEAK, len(source)),
                      rng.uniform(*_STRONG, len(source)))
    points = points[source]
    if len(points) and rng.random() < _FALSE_SHARE:
        elsewhere = points[:1] + rng.uniform(-0.5, 0.5, 2) * size
        points, source = np.concatenate([points, elsewhere]), np.append(source, -1)
        scores = np.append(scores, rng.uniform(*_FALSE))
    low, high = points.min(1), points.max(1)
    margin = _WIDER * (high - low)
    boxes = np.concatenate([low - margin, high + margin], 1)
    scale = np.sqrt(oks.area(boxes))
    error, cov = KEYPOINT_NOISE.draw(rng, len(points))
    boxes = boxes + _BOX_STD * scale[:, None] * rng.normal(size=boxes.shape)
    keypoint_scores = np.where(_FACE, _HEAD_SCORE, _KEYPOINT_SCORE)
    people = People(boxes, scores, points + scale[:, None, None] * error,
                    scale[:, None, None, None] ** 2 * cov,
                    np.tile(keypoint_scores, (len(points), 1)))
    order = rng.permutation(len(points))
    return people[order], source[order]


# ------------------------------------------------------------------------------------ PETS


def pets_recording(video: Path, truth: Path, pipeline: Pipeline) -> Recording:
    """Detections of the default network in a video, beside the truth in MOTChallenge's form."""
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
    """Read ids and boxes (G, 4) px, x min, y min, x max, y max, of every image.

    Lines are `image (from 1), id, left, top, width, height, counts, ...`; those with `counts` 0 are
    left out.
    """
    lines = np.loadtxt(path, delimiter=",", ndmin=2)
    if lines.shape[1] > 6:
        lines = lines[lines[:, 6] != 0]
    out = []
    for number in range(1, images + 1):
        rows = lines[lines[:, 0] == number]
        boxes = np.concatenate([rows[:, 2:4], rows[:, 2:4] + rows[:, 4:6]], 1)
        out.append(([int(one) for one in rows[:, 1]], boxes))
    return out


# ------------------------------------------------------------------------------ benchmarks


def mupots(options: Options) -> Iterator[Row]:
    """MuPoTS, the drop-outs of several seeds together."""
    sequences = read_sequences(options.data / MUPOTS)
    recordings = [recording for seed in range(options.seed, options.seed + options.seeds)
                  for recording in mupots_recordings(sequences, seed)]
    yield from _rows(f"MuPoTS 1-10, {options.seeds} seed(s) of drop-outs", recordings, Pipeline())


def pets(options: Options) -> Iterator[Row]:
    """PETS, view 1."""
    assert options.pets is not None
    pipeline = Pipeline()
    recording = pets_recording(options.data / PETS, options.pets, pipeline)
    yield from _rows("PETS 2009 S2.L1 view 1, 795 images", [recording], pipeline)


def _rows(protocol: str, recordings: list[Recording], pipeline: Pipeline) -> Iterator[Row]:
    for name in trackers(recordings[0], pipeline):
        log.info("%s: %s", protocol, name)
        try:
            counts = total(judge(recording, trackers(recording, pipeline)[name]())
                           for recording in recordings)
        except EvaluationError as error:
            yield Row(name, f"skipped: {error}")
            continue
        yield Row(name, protocol, {
            "id switches": counts.switches, "IDF1, %": 100 * counts.idf1,
            "fragmentations": counts.fragmentations, "MOTA, %": 100 * counts.mota,
            "true people": counts.true})


BENCHMARKS = {"mupots": Benchmark(mupots, (MUPOTS,), ("seeds", "seed")),
              "pets": Benchmark(pets, (PETS, "--pets"), ("pets",))}

if __name__ == "__main__":
    harness.main(BENCHMARKS, __doc__)
