"""What it costs in accuracy and identities to follow people instead of searching each image.

    python -m ros2_pose.evaluation.benchmarks.following [--data DIR] [--pets gt.txt]
                                                    [--rows mupots,pets,video]

Each benchmark runs the pipeline twice: with `search_every` 1, and with 0, its default. The mupots
and pets benchmarks have the data of `benchmarks.tracking`; in MuPoTS, of which there are no
pictures here, a simulated detection is given where the image is searched or a person is expected.
The video benchmark has the clips and scores of `benchmarks.video`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from ros2_pose import oks
from ros2_pose.boxes import overlaps
from ros2_pose.config import PoseConfig
from ros2_pose.data.mupots import read_sequences
from ros2_pose.evaluation import harness
from ros2_pose.evaluation.benchmarks import tracking, video
from ros2_pose.evaluation.harness import Benchmark, Options, Row
from ros2_pose.metrics.mot import FrameIds, Identities, count, total
from ros2_pose.offline.sources import VideoSource
from ros2_pose.people import LOST, Frame, People
from ros2_pose.pipeline import Pipeline

_SCHEDULES = {"each image searched": 1, "people followed": 0}  # search_every
_EXPECTED = 0.3  # OKS from which a simulated detection is that of a person expected


class _SimulatedSearch(tracking.RecordedDetections):
    """A network that gives `people` where an image is searched, or where one is expected."""

    def __init__(self, config: PoseConfig):
        super().__init__(config)
        self.searched = self.images = 0

    @property
    def search_parts(self) -> int:
        """One: a simulated search finds people of every size."""
        return 1

    @property
    def most_followed(self) -> int:
        """Number of people that can be followed without a search."""
        return self.config.max_people

    def find_people(self, frames: list[Frame]) -> list[People]:
        """Return the people for each frame."""
        return [self._seen(frame) for frame in frames]

    def _seen(self, frame: Frame) -> People:
        self.images += 1
        if frame.search is None or frame.search:
            self.searched += 1
            return self.people
        assert frame.expected is not None
        similar = oks.similarity(self.people.keypoints[:, None], frame.expected.keypoints[None],
                                 oks.area(self.people.boxes)[:, None])
        return self.people[(similar >= _EXPECTED).any(1)]


def mupots(options: Options) -> Iterator[Row]:
    """MuPoTS with drop-outs: identities if simulated detections are seen by the schedule alone."""
    sequences = read_sequences(options.data / tracking.MUPOTS)
    recordings = [recording for seed in range(options.seed, options.seed + options.seeds)
                  for recording in tracking.mupots_recordings(sequences, seed)]
    for name, every in _SCHEDULES.items():
        pipeline = Pipeline(PoseConfig(search_every=every))
        network = _SimulatedSearch(pipeline.config)
        counts = total(tracking.judge(recording, tracking.Ours(pipeline, recording, network))
                       for recording in recordings)
        yield _identities(name, f"MuPoTS 1-10, {options.seeds} seed(s) of drop-outs", counts,
                          network.searched / network.images)


def pets(options: Options) -> Iterator[Row]:
    """PETS, view 1: the whole pipeline on the video, in 2D."""
    assert options.pets is not None
    path = options.data / tracking.PETS
    for name, every in _SCHEDULES.items():
        pipeline = Pipeline(PoseConfig(search_every=every, body=False))
        frames: list[FrameIds] = []
        searched = 0
        truth = tracking.read_motchallenge(options.pets, len(list(VideoSource(path))))
        for shot, (ids, boxes) in zip(tqdm(VideoSource(path), name, unit="image"), truth):
            assert shot.frame is not None
            prepared = pipeline.prepare(shot.frame)
            searched += len(prepared.upright.search or ())
            found = pipeline.network.detect([prepared.upright])[0]
            people = pipeline.follow(found, prepared)
            seen = people[people.tracking_state != LOST]
            assert seen.ids is not None and seen.age is not None
            born_s = shot.stamp * 1e-9 - seen.age  # ids are reused
            own = [(one, round(float(born), 3)) for one, born in zip(seen.ids, born_s)]
            frames.append((ids, own, overlaps(boxes, seen.boxes)))
        share = searched / (len(frames) * pipeline.network.search_parts)
        yield _identities(name, f"PETS 2009 S2.L1 view 1, {len(frames)} images, in 2D",
                          count(frames), share)


def _identities(name: str, protocol: str, counts: Identities, searched: float) -> Row:
    return Row(name, protocol, {
        "id switches": counts.switches, "IDF1, %": 100 * counts.idf1,
        "fragmentations": counts.fragmentations, "MOTA, %": 100 * counts.mota,
        "searched, % of images and parts": 100 * searched})


def clips(options: Options) -> Iterator[Row]:
    """Pose2Sim's clips: accuracy and smoothness of the bodies."""
    for name, every in _SCHEDULES.items():
        pipeline = Pipeline(PoseConfig(search_every=every))
        scores = []
        for path in video.CLIPS:
            clip = video.read_clip(options.data / f"{path}.json")
            scores.append(video.score(video.follow(pipeline, clip, options.frames), clip))
        yield Row(name, f"Pose2Sim, four clips, first {options.frames} frames",
                  {metric: float(np.mean([one[metric] for one in scores])) for metric in scores[0]})


BENCHMARKS = {
    "following/mupots": Benchmark(mupots, (tracking.MUPOTS,), ("seeds", "seed")),
    "following/pets": Benchmark(pets, (tracking.PETS, "--pets"), ("pets",)),
    "following/video": Benchmark(clips, video.FILES, ("frames",)),
}

if __name__ == "__main__":
    harness.main(BENCHMARKS, __doc__)
