"""What a trained network's uncertainties are worth, measured on people it has not learned from.

A deviation of votes is a shape, not an error: variances are votes * c^2 + floor, for each keypoint
the two numbers under which the true errors are likeliest (both in parts of the box, whose size an
error grows with). How far rotations are off is measured likewise.
"""

from __future__ import annotations

import logging

import numpy as np
import torch
from scipy.optimize import minimize
from tqdm import trange

from ros2_pose.data.sample import OUTSIDE, Samples
from ros2_pose.geometry import angle_between
from ros2_pose.metrics.matching import PELVIS, EvaluatedImage, known, match
from ros2_pose.metrics.pose import at_root, distances
from ros2_pose.networks.tian.detector import Tian, TianNet
from ros2_pose.skeleton import COCO17

log = logging.getLogger(__name__)

_LEAST = 100  # errors of a keypoint, to learn from them
_GATE = 4.0  # deviations beyond which an error is a mistake and says nothing of the others


def calibrate(net: TianNet, samples: Samples, pictures: int) -> None:
    """Set a network's `votes`, `floor`, `turn_std` and `model_std` by the first samples."""
    net.votes.fill_(1.0)
    net.floor.fill_(0.0)
    deviations, errors, angles, shifts = _collect(Tian(net), samples, min(pictures, len(samples)))
    for joint in range(len(COCO17)):
        c, e = deviations[:, joint].ravel(), errors[:, joint].ravel()
        usable = np.isfinite(c) & np.isfinite(e)
        if usable.sum() < _LEAST:
            log.warning("%s: %d errors are too few to calibrate by; its votes count as they are",
                        COCO17.names[joint], usable.sum())
            continue
        net.votes[joint], net.floor[joint] = fit_variance(c[usable], e[usable])
    if np.isfinite(angles).any():
        typical = np.nanmedian(angles, 0) / _MEDIAN_LENGTH
        net.turn_std.copy_(torch.from_numpy(typical).clamp(min=0.05))
    if np.isfinite(shifts).any():
        net.model_std.fill_(float(np.nanmedian(shifts)) / _MEDIAN_LENGTH)


_MEDIAN_LENGTH = 1.538  # of a vector of three normal numbers


def _collect(detector: Tian, samples: Samples, pictures: int):
    """Deviations and errors (N, 17, 2) in parts of the box, angles (N, 24) rad, and how far joints
    are off about the pelvis (N, 24) m; NaN: unknown."""
    parts = tuple([np.zeros((0, *shape))] for shape in ((17, 2), (17, 2), (24,), (24,)))
    for number in trange(pictures, desc="calibrating", leave=False):
        sample = samples[number]
        people = detector.detect([sample.frame])[0]
        found, true = match(EvaluatedImage.of(people, sample)).pairs
        people, truth = people[list(found)], sample.people[list(true)]
        side = (people.boxes[:, 2:] - people.boxes[:, :2])[:, None] * detector.net.config.box_factor
        inside = (truth.keypoint_scores > OUTSIDE)[..., None]
        parts[0].append(np.sqrt(people.keypoint_cov.diagonal(axis1=2, axis2=3)) / side)
        parts[1].append(np.where(inside, people.keypoints - truth.keypoints, np.nan) / side)
        parts[2].append(_angles(known(people, "theta", 24, 4), known(truth, "theta", 24, 4)))
        parts[3].append(distances(*(at_root(known(which, "joints", 24, 3), PELVIS)
                                    for which in (people, truth))))
    return tuple(map(np.concatenate, parts))


def _angles(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(N, 24) rad between rotations (N, 24, 4)."""
    return angle_between(torch.from_numpy(found), torch.from_numpy(truth)).numpy()


def fit_variance(deviation: np.ndarray, error: np.ndarray) -> tuple[float, float]:
    """votes and floor of errors (N,) whose variances are votes * deviation^2 + floor.

    Of maximum likelihood; errors that cannot be by the first answer are left out of the second.
    """
    votes, floor = _likeliest(deviation, error)
    near = error**2 < _GATE**2 * (votes * deviation**2 + floor)
    return _likeliest(deviation[near], error[near])


def _likeliest(deviation: np.ndarray, error: np.ndarray) -> tuple[float, float]:
    def cost(logs: np.ndarray) -> float:
        variance = np.exp(logs[0]) * deviation**2 + np.exp(logs[1])
        return float(np.mean(np.log(variance) + error**2 / variance))

    start = np.log([0.5, 0.5 * np.mean(error**2) + 1e-9])
    found = minimize(cost, start, method="Nelder-Mead", bounds=[(-12, 4), (-18, 0)])
    return tuple(np.exp(found.x))
