"""Error models of keypoints by kind of keypoint: of MoveNet and of Thunder as decoded here.

The networks state covariances by them; simulations of the default network draw errors from one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ros2_pose.skeleton import COCO17

_USUAL_SCORE = 0.6  # keypoint score at which `by_score` changes nothing


@dataclass(frozen=True)
class KeypointNoise:
    """Errors of the network at each COCO keypoint; the scatter of the labels is included.

    The size s of a person is the square root of `oks.area` of the box, as in OKS. An error is
    normally distributed with covariance

        V = (votes * C + (floor * s)^2) * exp(by_score * (score - 0.6)),

    where C is the covariance of the heat-map's votes and `score` the keypoint's; with probability
    `outliers` it is `wide` times as long (a hard pose, another person's limb, left and right
    confused, a wrong label). C scales with the heat-map's cell, the floor with the person:
    annotators know where a hip is to a share of the body. The lower a heat-map's peak, the more of
    a guess is its place, however sharp it is.

    The other fields say how V varies between people, for simulations of the network: the geometric
    mean of its axes is s times a log-normal number with median `median_std`, of which one part is
    common to the joints of a person and one part is of each joint.
    """

    votes: np.ndarray  # (17,)
    floor: np.ndarray  # (17,) in sizes
    outliers: np.ndarray  # (17,) probability
    median_std: np.ndarray  # (17,) in sizes
    wide: float  # length of outliers relative to V
    person_std: float  # of the log-normal number's logarithm, between people
    joint_std: float  # the same between the joints of a person
    stretch_std: float  # of log(longer / shorter axis of V)
    by_score: float = 0.0  # change of the variance's logarithm by a keypoint score of 1

    def at(self, joints: np.ndarray) -> KeypointNoise:
        """Return the model of a list of joints (N,), N in place of 17 in every field."""
        return replace(self, votes=self.votes[joints], floor=self.floor[joints],
                       outliers=self.outliers[joints], median_std=self.median_std[joints])

    def cov(self, votes_cov: np.ndarray, areas: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Return V (..., 17, 2, 2) px^2.

        Args:
            votes_cov (..., 17, 2, 2): C, px^2.
            areas (..., 17 or 1): s^2, px^2.
            scores (..., 17): keypoint scores, 0..1.
        """
        cov = self.votes[:, None, None] * votes_cov + self._floor_cov(areas)
        return cov * self._by_score(scores)

    def votes_cov(self, cov: np.ndarray, areas: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Return C (..., 17, 2, 2) px^2 of V: the inverse of `cov`."""
        cov = cov / self._by_score(scores)
        return (cov - self._floor_cov(areas)) / self.votes[:, None, None]

    def _by_score(self, scores: np.ndarray) -> np.ndarray:
        return np.exp(self.by_score * (scores - _USUAL_SCORE))[..., None, None]

    def _floor_cov(self, areas: np.ndarray) -> np.ndarray:
        return (self.floor**2 * areas)[..., None, None] * np.eye(2)

    def with_outliers(self, cov: np.ndarray) -> np.ndarray:
        """Return the covariance (P, 17, 2, 2) of all errors from V, that of the inliers."""
        return cov * (1 + self.outliers * (self.wide**2 - 1))[:, None, None]

    def draw(self, rng: np.random.Generator, people: int) -> tuple[np.ndarray, np.ndarray]:
        """Draw errors and the covariances that the network would state for them.

        Returns:
            Errors (P, 17, 2) in sizes and V (P, 17, 2, 2) in sizes squared: multiply by s and s^2
            for px. V is that of inliers: the network does not know which errors are outliers.
        """
        shape = (people, len(self.median_std))
        person = self.person_std * rng.normal(size=(people, 1))
        joint = self.joint_std * rng.normal(size=shape)
        log_std = np.log(self.median_std) + person + joint
        stretch = self.stretch_std / 2 * rng.normal(size=shape)
        axes = np.exp(log_std[..., None] + stretch[..., None] * (1, -1))

        angle = rng.uniform(0, np.pi, shape)
        first = np.stack([np.cos(angle), np.sin(angle)], -1)
        second = first[..., ::-1] * (-1, 1)
        factor = np.stack([first, second], -1) * axes[..., None, :]  # factor factor^T = V

        length = np.where(rng.random(shape) < self.outliers, self.wide, 1.0)
        error = factor @ (length[..., None] * rng.normal(size=(*shape, 2)))[..., None]
        return error[..., 0], factor @ factor.swapaxes(-1, -2)


def _model(by_kind: dict[str, tuple[float, float, float, float]], wide: float,
           person_std: float, joint_std: float, stretch_std: float,
           by_score: float = 0.0) -> KeypointNoise:
    """Return the model with votes, floor, outliers and median_std by kind of keypoint."""
    votes, floor, outliers, median_std = np.array([by_kind[kind] for kind in COCO17.kinds]).T
    return KeypointNoise(votes, floor, outliers, median_std, wide, person_std, joint_std,
                         stretch_std, by_score)


# All were printed by `python -m ros2_pose.evaluation.benchmarks.calibration ANNOTATIONS.json
# PICTURES --fit --network ...`, left and right together. MoveNet's by the 28 pictures with people
# of COCO train2017 in the development set; they also hold for the rooms of Pose2Sim and CMU
# Panoptic, while athletes upside down (LSP) are far worse.
MOVENET_NOISE = _model({
    "nose": (0.16, 0.0069, 0.17, 0.023),
    "eye": (0.15, 0.0062, 0.15, 0.021),
    "ear": (0.15, 0.0073, 0.17, 0.024),
    "shoulder": (0.23, 0.0135, 0.19, 0.037),
    "elbow": (0.23, 0.0115, 0.19, 0.036),
    "wrist": (0.20, 0.0087, 0.18, 0.035),
    "hip": (0.16, 0.0386, 0.17, 0.053),
    "knee": (0.19, 0.0201, 0.16, 0.043),
    "ankle": (0.19, 0.0254, 0.18, 0.043),
}, wide=3.16, person_std=0.29, joint_std=0.12, stretch_std=0.18)

# Thunder's, guided by the finders, by the 54 pictures with people of the development set.
THUNDER_NOISE = _model({
    "nose": (0.38, 0.0072, 0.08, 0.021),
    "eye": (0.29, 0.0042, 0.07, 0.018),
    "ear": (0.34, 0.0083, 0.08, 0.023),
    "shoulder": (0.62, 0.0104, 0.08, 0.035),
    "elbow": (0.40, 0.0053, 0.10, 0.030),
    "wrist": (0.30, 0.0057, 0.09, 0.026),
    "hip": (0.48, 0.0377, 0.09, 0.052),
    "knee": (0.41, 0.0073, 0.08, 0.030),
    "ankle": (0.44, 0.0076, 0.08, 0.030),
}, wide=4.17, person_std=0.23, joint_std=0.20, stretch_std=0.18, by_score=-1.38)

# SAN's as a refiner (`--refiner san`), by the same pictures.
SAN_NOISE = _model({
    "nose": (0.03, 0.0163, 0.18, 0.021),
    "eye": (0.03, 0.0129, 0.17, 0.017),
    "ear": (0.03, 0.0177, 0.18, 0.021),
    "shoulder": (0.06, 0.0277, 0.18, 0.032),
    "elbow": (0.04, 0.0229, 0.20, 0.028),
    "wrist": (0.04, 0.0187, 0.19, 0.027),
    "hip": (0.05, 0.0403, 0.20, 0.043),
    "knee": (0.06, 0.0239, 0.20, 0.028),
    "ankle": (0.09, 0.0222, 0.19, 0.028),
}, wide=2.69, person_std=0.26, joint_std=0.22, stretch_std=0.17, by_score=-1.99)

KEYPOINT_NOISE = THUNDER_NOISE  # of the default network
