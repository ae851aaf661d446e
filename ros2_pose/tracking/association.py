"""Tracks, and which detections can be of the same person: gates and likeness in the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ros2_pose import oks
from ros2_pose.boxes import overlaps
from ros2_pose.geometry import Transform
from ros2_pose.people import People
from ros2_pose.skeleton import COCO17
from ros2_pose.sync.image_sync import PATIENCE
from ros2_pose.tracking.kalman import ConstantVelocityFilter, gate, seconds

_MATCH = 0.15  # similarity from which a detection may continue a track
_SAME = 0.35  # similarity to a tracked person from which a newcomer is its double
_SAME_BOX, _SIMILARITY_IN_BOX = 0.7, 0.2  # overlap of boxes and similarity that say so, too
_SWAPPED = 0.15  # so much more alike with left and right changed round says they are
_SWAPPED_S = 0.15  # swapped for longer than this, the person is taken to be as detected
_TURNING_S = 0.3  # to turn round takes longer

_TRUNK = [COCO17.index(f"{side}_{joint}") for side in ("left", "right")
          for joint in ("shoulder", "hip")]
_STATURE_M = 1.7  # how far people move in the image, in heights, follows from this
_SPEED, _PROCESS_NOISE = 1.0, 0.3  # m/s, m^2/s^3, as of `Motion`
_TRUNK_STD = 0.03  # heights: the trunk is no point, and bends
_SWING, _MOST_SWING = 0.5, 0.15  # heights/s, heights: limbs move about the trunk
_SIZE_STD, _SIZE_RATE = 0.1, 0.1  # of the logarithm of the height in the image, and per second
_POSITION_GATE = gate(2, 1 - 1e-6)  # keypoints err by more than they say, now and then


@dataclass(eq=False)
class Track:
    """One person over time. body is whatever the body layer wants to start from next time."""

    born: int  # ns
    seen: int  # ns, the last image that showed the person
    keypoints: np.ndarray  # (17, 2) px
    box: np.ndarray  # (4,) px
    evidence: float  # sum of the scores
    middle: ConstantVelocityFilter  # of the trunk in the image, px
    hits: int = 1
    swapped_since: int | None = None  # ns, the image since which left is taken for right
    number: int = 0  # of the id; 0 until the person is reported
    body: Any = None
    shape: np.ndarray | None = None  # (10,) betas
    root: ConstantVelocityFilter | None = None  # m, where the tracker counts as standing still
    last: People | None = None  # the person alone, as last reported
    camera_to_fixed: Transform | None = None  # when `last` was reported

    @staticmethod
    def of(people: People, row: int, stamp: int) -> Track:
        """Someone new."""
        per_metre = float(height(people.boxes[row])) / _STATURE_M
        positions, covs = trunks(people)
        middle = ConstantVelocityFilter(positions[row], covs[row], stamp, _SPEED * per_metre,
                        _PROCESS_NOISE * per_metre**2)
        return Track(stamp, stamp, people.keypoints[row], people.boxes[row], people.scores[row],
                     middle)

    @property
    def id(self) -> str:
        """"p1", "p2", ..."""
        return f"p{self.number}"

    def displacement(self, stamp: int) -> np.ndarray:
        """(2,) px that the person has gone since last seen, if nothing has changed."""
        return self.middle.velocity * seconds(stamp - self.seen)

    def predicted(self, stamp: int) -> np.ndarray:
        """Keypoints (17, 2), px, at another time."""
        return self.keypoints + self.displacement(stamp)

    def see(self, people: People, row: int, stamp: int) -> None:
        """Take in what an image shows of the person."""
        if stamp > self.seen:
            positions, covs = trunks(people)
            self.middle.update(positions[row], covs[row], stamp)
        self.keypoints, self.box, self.seen = people.keypoints[row], people.boxes[row], stamp
        self.evidence += people.scores[row]
        self.hits += 1

    def shift(self, step: np.ndarray) -> None:
        """Move by (2,) px, as the image does when the camera turns."""
        self.keypoints, self.box = self.keypoints + step, self.box + np.tile(step, 2)
        self.middle.shift(step)


def height(boxes: np.ndarray) -> np.ndarray:
    """(...) px of boxes (..., 4), never 0."""
    return np.maximum(boxes[..., 3] - boxes[..., 1], 1.0)


def trunks(people: People) -> tuple[np.ndarray, np.ndarray]:
    """Middles (P, 2), px, of shoulders and hips by their covariances, and covariance (P, 2, 2)."""
    points, cov = people.keypoints[:, _TRUNK], people.keypoint_cov[:, _TRUNK]
    variance = np.trace(cov, axis1=-2, axis2=-1) / 2
    weight = 1 / np.where(np.isfinite(variance) & (variance > 0), variance, np.inf)
    enough = weight.sum(1) > 0
    weight = np.where(enough[:, None], weight, 1.0)
    share = weight / weight.sum(1, keepdims=True)
    own = (_TRUNK_STD * height(people.boxes)) ** 2
    spread = np.where(enough, 1 / weight.sum(1), 0) + own
    return (share[..., None] * points).sum(1), spread[:, None, None] * np.eye(2)


def similarities(tracks: list[Track], people: People, stamp: int) -> np.ndarray:
    """(T, P) how sure it is that each detection continues each track; 0 where it cannot.

    It cannot outside the gate of the trunk's place, or too unlike the keypoints predicted, what is
    uncertain allowed for. What counts is the similarity to be expected if the place predicted errs
    as it says it does: someone long out of sight fits everywhere a little, and takes nobody's
    detection from those whose place is known well.
    """
    positions, covs = trunks(people)
    areas = oks.area(people.boxes)
    detected = np.trace(people.keypoint_cov, axis1=-2, axis2=-1) / 2
    out = np.zeros((len(tracks), len(people)))
    for row, track in enumerate(tracks):
        dt = seconds(stamp - track.seen)
        position_cov = track.middle.predicted(stamp)[1][:2, :2]
        swing = (min(_SWING * dt, _MOST_SWING) * height(track.box)) ** 2
        variance = detected + swing + np.trace(position_cov) / 2
        similarity = oks.similarity_either_way(people.keypoints, track.predicted(stamp), areas,
                                          variance).max(0)
        able = (similarity >= _MATCH) & (
            track.middle.squared_mahalanobis(positions, covs, stamp) <= _POSITION_GATE
        )
        own = areas[:, None] * oks.FALL_OFF**2
        growth = np.log(height(people.boxes) / height(track.box))
        as_tall = np.exp(-(growth / (_SIZE_STD + _SIZE_RATE * dt)) ** 2 / 2)
        out[row] = np.where(able, similarity * as_tall * (own / (own + variance)).mean(1), 0)
    return out


def is_swapped(track: Track, people: People, row: int, stamp: int) -> bool:
    """Whether a track's detection took left for right: nobody turns round between two images."""
    as_found, swapped = oks.similarity_either_way(
        people.keypoints[row], track.predicted(stamp), oks.area(people.boxes[row]))
    recent = seconds(stamp - track.seen) < _TURNING_S
    looks_swapped = bool(recent and swapped > as_found + _SWAPPED)
    since = stamp if track.swapped_since is None else track.swapped_since
    patience_s = max(_SWAPPED_S, PATIENCE * seconds(stamp - track.seen))
    looks_swapped &= seconds(stamp - since) <= patience_s
    track.swapped_since = since if looks_swapped else None
    return looks_swapped


def is_double(people: People, row: int, others: list[int]) -> bool:
    """Whether a detection is a second, poorer view of one of the others."""
    areas = oks.area(people.boxes)[others]
    similarity = oks.similarity_either_way(people.keypoints[row], people.keypoints[others],
                                      areas).max(0)
    overlap = overlaps(people.boxes[[row]], people.boxes[others])[0]
    return bool(
        (
            (similarity >= _SAME) | ((overlap >= _SAME_BOX) & (similarity >= _SIMILARITY_IN_BOX))
        ).any()
    )
