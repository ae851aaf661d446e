"""Trackers to compare ours with: nearest neighbour, and ByteTrack from a maintained package.

Each is a callable: detections of an image in; rows of the tracked ones and their ids out.
"""

from __future__ import annotations

import numpy as np

from ros2_pose.evaluation.harness import EvaluationError
from ros2_pose.metrics.matching import greedy
from ros2_pose.people import People

_REACH = 0.5  # farthest movement of a box centre between two images, in box heights
_BUFFER_FPS = 30  # the package counts its buffer in frames at this rate


class NearestNeighbour:
    """Each detection continues the nearest track, nearest pairs first.

    score: least score of a detection. kept: images for which an unseen track is kept.
    """

    def __init__(self, score: float, kept: int):
        self.score, self.kept = score, kept
        self.tracks: dict[int, tuple[np.ndarray, int]] = {}  # id: box, image last seen in
        self.image = self.issued = 0

    def __call__(self, people: People) -> tuple[list[int], list[int]]:
        self.image += 1
        self.tracks = {one: (box, seen) for one, (box, seen) in self.tracks.items()
                       if self.image - seen <= self.kept}
        rows = np.flatnonzero(people.scores >= self.score)
        ids = list(self.tracks)
        boxes = np.array([box for box, _ in self.tracks.values()]).reshape(-1, 4)
        near = -_apart(people.boxes[rows], boxes)
        taken = greedy(near, near.max(1, initial=-np.inf), -_REACH)
        out = [ids[t] if t >= 0 else self._new() for t in taken]
        self.tracks |= {one: (people.boxes[row], self.image) for one, row in zip(out, rows)}
        return list(rows), out

    def _new(self) -> int:
        self.issued += 1
        return self.issued


def _apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(A, B) distance of the centres of boxes (A, 4) and (B, 4) px, in heights of b."""
    middles = [(boxes[:, :2] + boxes[:, 2:]) / 2 for boxes in (a, b)]
    return np.linalg.norm(middles[0][:, None] - middles[1], axis=2) / (b[:, 3] - b[:, 1])


class ByteTrack:
    """ByteTrack (Zhang et al. 2022) as the package trackers implements it, in our interface.

    strong: score from which a detection may begin a track and takes part in the first association.
    weak: score from which it may continue one. kept_s: how long an unseen track is kept, s.

    Raises EvaluationError if the package is not installed.
    """

    def __init__(self, strong: float, weak: float, kept_s: float, fps: float):
        try:
            import supervision
            from trackers import ByteTrackTracker
        except ImportError as error:
            raise EvaluationError("ByteTrack needs a package: pip install trackers") from error
        self.weak, self.detections = weak, supervision.Detections
        self.tracker = ByteTrackTracker(
            lost_track_buffer=round(kept_s * _BUFFER_FPS), frame_rate=fps,
            track_activation_threshold=strong, high_conf_det_threshold=strong)

    def __call__(self, people: People) -> tuple[list[int], list[int]]:
        rows = np.flatnonzero(people.scores >= self.weak)
        tracked = self.tracker.update(self.detections(
            xyxy=people.boxes[rows], confidence=people.scores[rows], data={"row": rows}))
        if not len(tracked):
            return [], []
        known = tracked.tracker_id >= 0
        return tracked.data["row"][known].tolist(), tracked.tracker_id[known].tolist()
