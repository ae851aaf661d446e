"""A tracked person: what is remembered of it from frame to frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ros2_pose.geometry import Transform
from ros2_pose.people import People
from ros2_pose.skeleton import COCO17
from ros2_pose.tracking.kalman import VelocityFilter, seconds

_TRUNK = [COCO17.index(f"{side}_{joint}") for side in ("left", "right")
          for joint in ("shoulder", "hip")]
_TRUNK_STD = 0.03  # heights: the trunk is no point, and bends
_STATURE_M = 1.7  # converts metres to heights in the image
_SWING, _MOST_SWING = 0.5, 0.15  # heights/s, heights: limbs move about the trunk
_SPEED, _PROCESS_NOISE = 1.0, 0.3  # m/s, m^2/s^3, see `VelocityFilter`


@dataclass(eq=False)
class Track:
    """One person over time, updated in place by the tracker."""

    born: int  # ns, the first frame
    seen: int  # ns, the last frame that showed the person
    detection: People  # the person alone, in that frame
    evidence: float  # sum of the scores
    trunk: VelocityFilter  # the trunk's middle in the image, px
    hits: int = 1  # frames that showed the person
    swapped_since: int | None = None  # ns, the frame since which left is mistaken for right
    number: int = 0  # of the id; 0 until the person is reported
    body: Any = None  # the body layer's, from which the next fit starts
    shape: np.ndarray | None = None  # (10,) betas
    root: VelocityFilter | None = None  # m, fixed frame (camera frame if that is unknown)
    joints: VelocityFilter | None = None  # (24, 3), in the same unit and frame
    last: People | None = None  # the person alone, as last reported
    camera_to_fixed: Transform | None = None  # when `last` was reported

    @staticmethod
    def start(people: People, row: int, stamp: int) -> Track:
        """Begin a track with a detection of a frame with a stamp (ns)."""
        px_per_m = float(height(people.boxes[row])) / _STATURE_M
        positions, covs = trunks(people)
        trunk = VelocityFilter(positions[row], covs[row], stamp, _SPEED * px_per_m,
                               _PROCESS_NOISE * px_per_m**2)
        return Track(stamp, stamp, people[[row]], people.scores[row], trunk)

    @property
    def keypoints(self) -> np.ndarray:
        """Keypoints (17, 2), px, when last seen."""
        return self.detection.keypoints[0]

    @property
    def box(self) -> np.ndarray:
        """Box (4,), px, when last seen."""
        return self.detection.boxes[0]

    @property
    def id(self) -> str:
        """"p1", "p2", ..."""
        return f"p{self.number}"

    def displacement(self, stamp: int) -> np.ndarray:
        """Return the predicted motion in the image since last seen, (2,) px."""
        return self.trunk.velocity * seconds(stamp - self.seen)

    def predicted(self, stamp: int) -> np.ndarray:
        """Return the keypoints (17, 2), px, predicted for a stamp (ns)."""
        return self.keypoints + self.displacement(stamp)

    def predicted_cov(self, stamp: int) -> np.ndarray:
        """Return the covariances (17, 2, 2), px^2, of `predicted`: of detection, trunk and limbs.
        """
        position_cov = self.trunk.predicted(stamp)[2]
        return self.detection.keypoint_cov[0] + position_cov + self.swing_px(stamp)**2 * np.eye(2)

    def swing_px(self, stamp: int) -> float:
        """Return the standard deviation, px, of a limb's motion about the trunk since last seen."""
        unseen_s = seconds(stamp - self.seen)
        return min(_SWING * unseen_s, _MOST_SWING) * float(height(self.box))

    def update(self, people: People, row: int, stamp: int) -> None:
        """Take in the person's detection in a frame with a stamp (ns)."""
        if stamp > self.seen:
            positions, covs = trunks(people)
            self.trunk.update(positions[row], covs[row], stamp)
        self.detection, self.seen = people[[row]], stamp
        self.evidence += people.scores[row]
        self.hits += 1

    def shift(self, step: np.ndarray) -> None:
        """Move by (2,) px, as the image does when the camera rotates."""
        self.detection = self.detection.with_fields(
            keypoints=self.detection.keypoints + step,
            boxes=self.detection.boxes + np.tile(step, 2))
        self.trunk.shift(step)


def height(boxes: np.ndarray) -> np.ndarray:
    """Return heights (...) of boxes (..., 4) x min, y min, x max, y max; px, at least 1."""
    return np.maximum(boxes[..., 3] - boxes[..., 1], 1.0)


def trunks(people: People) -> tuple[np.ndarray, np.ndarray]:
    """Return the middles of shoulders and hips, weighted by their covariances.

    Returns:
        positions (P, 2) px, and covariances (P, 2, 2) px^2.
    """
    points, cov = people.keypoints[:, _TRUNK], people.keypoint_cov[:, _TRUNK]
    variance = np.trace(cov, axis1=-2, axis2=-1) / 2
    weight = 1 / np.where(np.isfinite(variance) & (variance > 0), variance, np.inf)
    enough = weight.sum(1) > 0
    weight = np.where(enough[:, None], weight, 1.0)
    share = weight / weight.sum(1, keepdims=True)
    middle = (share[..., None] * points).sum(1)
    own = (_TRUNK_STD * height(people.boxes)) ** 2
    total = np.where(enough, 1 / weight.sum(1), 0) + own
    return middle, total[:, None, None] * np.eye(2)
