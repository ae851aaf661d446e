"""Trackers to compare ours with, written small: the nearest neighbour, and one like ByteTrack.

Each is a callable: the detections of an image in, and the rows of those that are tracked, with
their ids, out.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from ros2_pose.boxes import overlaps
from ros2_pose.evaluation.metrics.matching import greedy
from ros2_pose.people import People

_REACH = 0.5  # box heights that the middle of a box moves between two images, at most
_FIRST, _SECOND, _THIRD = 0.2, 0.5, 0.3  # least overlaps of ByteTrack's three associations
_POSITION_STD, _RATE_STD = 1 / 20, 1 / 160  # of ByteTrack's filter, in box heights
_SHAPE_STD, _SHAPE_RATE_STD, _SHAPE_NOISE = 1e-2, 1e-5, 1e-1  # of width / height


class NearestNeighbour:
    """Everyone is the nearest of those before, nearest pairs first.

    score: what a detection must score. kept: images for which someone unseen is remembered.
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
    """(A, B) distance of the boxes' middles, in heights of b."""
    middles = [(boxes[:, :2] + boxes[:, 2:]) / 2 for boxes in (a, b)]
    return np.linalg.norm(middles[0][:, None] - middles[1], axis=2) / (b[:, 3] - b[:, 1])


class ByteLike:
    """After ByteTrack (Zhang et al. 2022): strong detections choose among all tracks by overlap
    with the prediction of a Kalman filter, then weak ones among those still seen a moment ago; who
    is seen a second time is reported.

    score: what is strong. weak: what is looked at. kept: images for which someone unseen is
    remembered.
    """

    def __init__(self, score: float, weak: float, kept: int):
        self.score, self.weak, self.kept = score, weak, kept
        self.tracks: list[_Box] = []
        self.image = self.issued = 0

    def __call__(self, people: People) -> tuple[list[int], list[int]]:
        self.image += 1
        for track in self.tracks:
            track.predict(still=track.seen < self.image - 1)
        strong = np.flatnonzero(people.scores >= self.score)
        weak = np.flatnonzero((people.scores >= self.weak) & (people.scores < self.score))
        known = [t for t in self.tracks if t.number]
        pairs, strong, known = _associate(known, strong, people, _FIRST)
        recent = [t for t in known if t.seen == self.image - 1]
        more, _, _ = _associate(recent, weak, people, _SECOND)
        new, strong, failed = _associate([t for t in self.tracks if not t.number], strong, people,
                                         _THIRD)
        for track, row in pairs + more + new:
            track.update(people.boxes[row])
            track.seen = self.image
            track.number = track.number or self._new()
        self.tracks = [t for t in self.tracks if t not in failed
                       and self.image - t.seen <= self.kept]
        born = [_Box(people.boxes[row], self.image) for row in strong]
        if self.image == 1:
            for track in born:
                track.number = self._new()
        self.tracks += born
        shown = pairs + more + new + [(t, row) for t, row in zip(born, strong) if t.number]
        return [int(row) for _, row in shown], [t.number for t, _ in shown]

    def _new(self) -> int:
        self.issued += 1
        return self.issued


def _associate(tracks: list[_Box], rows: np.ndarray, people: People, least: float):
    """Pairs (track, row), and the rows and tracks left."""
    boxes = np.array([track.box for track in tracks]).reshape(-1, 4)
    similarity = overlaps(boxes, people.boxes[rows])
    similarity = np.where(similarity >= least, similarity, 0)
    pairs = [(t, r) for t, r in zip(*linear_sum_assignment(-similarity)) if similarity[t, r] > 0]
    taken, used = {r for _, r in pairs}, {t for t, _ in pairs}
    return ([(tracks[t], rows[r]) for t, r in pairs],
            np.array([row for r, row in enumerate(rows) if r not in taken], int),
            [track for t, track in enumerate(tracks) if t not in used])


class _Box:
    """Kalman filter on middle, width / height and height of a box, with rates per image."""

    def __init__(self, box: np.ndarray, image: int):
        self.number, self.seen = 0, image
        self.state = np.concatenate([_measured(box), np.zeros(4)])
        self.cov = np.diag(np.concatenate([2 * self._stds(_POSITION_STD, _SHAPE_STD),
                                           10 * self._stds(_RATE_STD, _SHAPE_RATE_STD)])**2)

    def _stds(self, share: float, shape: float) -> np.ndarray:
        height = self.state[3]
        return np.array([share * height, share * height, shape, share * height])

    @property
    def box(self) -> np.ndarray:
        x, y, shape, height = self.state[:4]
        half = np.array([shape * height, height]) / 2
        return np.array([x, y, x, y]) + np.concatenate([-half, half])

    def predict(self, still: bool) -> None:
        """still: as ByteTrack does for who is not seen, the height does not change."""
        if still:
            self.state[7] = 0
        step = np.eye(8) + np.eye(8, k=4)
        noise = np.concatenate([self._stds(_POSITION_STD, _SHAPE_STD),
                                self._stds(_RATE_STD, _SHAPE_RATE_STD)])
        self.state = step @ self.state
        self.cov = step @ self.cov @ step.T + np.diag(noise**2)

    def update(self, box: np.ndarray) -> None:
        noise = np.diag(self._stds(_POSITION_STD, _SHAPE_NOISE)**2)
        gain = self.cov[:, :4] @ np.linalg.inv(self.cov[:4, :4] + noise)
        self.state = self.state + gain @ (_measured(box) - self.state[:4])
        self.cov = self.cov - gain @ self.cov[:4]


def _measured(box: np.ndarray) -> np.ndarray:
    width, height = box[2:] - box[:2]
    return np.array([*(box[:2] + box[2:]) / 2, width / height, height])
