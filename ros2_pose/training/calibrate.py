"""Calibrate a trained network's uncertainties on people that it was not trained on.

The standard deviation c of a keypoint's votes is not that of its error: the variance of the error
is votes * c^2 + floor, with the two numbers of maximum likelihood for each keypoint (relative to
the box, because errors grow with it). The errors of rotations are measured, too.
"""

from __future__ import annotations

import logging

import numpy as np
import torch
from scipy.optimize import minimize
from tqdm import trange

from ros2_pose.body.so3 import angle_between
from ros2_pose.data.sample import OUTSIDE, Samples
from ros2_pose.metrics.matching import PELVIS, EvaluatedImage, known, matched_pairs
from ros2_pose.metrics.pose import at_root, distances
from ros2_pose.networks.tian.detector import Tian
from ros2_pose.networks.tian.network import TianNet
from ros2_pose.skeleton import COCO17

log = logging.getLogger(__name__)

_LEAST = 100  # errors of a keypoint, to learn from them
_GATE = 4.0  # standard deviations beyond which an error is an outlier
_MEDIAN_LENGTH = 1.538  # of a vector of three standard normal numbers


def calibrate(net: TianNet, samples: Samples, pictures: int) -> None:
    """Set a network's `votes`, `floor`, `rotation_std` and `model_std`.

    Args:
        net: trained network; its buffers are written.
        samples: images with truth, not trained on.
        pictures: greatest number of images used.
    """
    net.votes.fill_(1.0)
    net.floor.fill_(0.0)
    detector = Tian(device=net.votes.device, net=net)
    deviations, errors, angles, shifts = _collect(detector, samples, min(pictures, len(samples)))
    for joint in range(len(COCO17)):
        c, e = deviations[:, joint].ravel(), errors[:, joint].ravel()
        usable = np.isfinite(c) & np.isfinite(e)
        if usable.sum() < _LEAST:
            log.warning("%s: %d errors are too few to calibrate; its votes stay uncalibrated",
                        COCO17.names[joint], usable.sum())
            continue
        net.votes[joint], net.floor[joint] = fit_variance(c[usable], e[usable])
    if np.isfinite(angles).any():
        typical = np.nanmedian(angles, 0) / _MEDIAN_LENGTH
        net.turn_std.copy_(torch.from_numpy(typical).clamp(min=0.05))
    if np.isfinite(shifts).any():
        net.model_std.fill_(float(np.nanmedian(shifts)) / _MEDIAN_LENGTH)


def _collect(detector: Tian, samples: Samples, pictures: int) -> tuple[np.ndarray, ...]:
    """Compare the first samples' people with the network's.

    Returns:
        Standard deviations and errors (N, 17, 2) of keypoints relative to the box, errors of
        rotations (N, 24) rad, and of joints relative to the pelvis (N, 24) m; NaN: unknown.
    """
    parts = tuple([np.zeros((0, *shape))] for shape in ((17, 2), (17, 2), (24,), (24,)))
    for number in trange(pictures, desc="calibrating", leave=False):
        sample = samples[number]
        people = detector.detect([sample.frame])[0]
        found, true = matched_pairs(EvaluatedImage.of(people, sample))
        people, truth = people[list(found)], sample.people[list(true)]
        regions = detector.net.regions(torch.from_numpy(people.boxes)).numpy()
        side = (regions[:, 2:] - regions[:, :2])[:, None]
        inside = (truth.keypoint_scores > OUTSIDE)[..., None]
        parts[0].append(np.sqrt(people.keypoint_cov.diagonal(axis1=2, axis2=3)) / side)
        parts[1].append(np.where(inside, people.keypoints - truth.keypoints, np.nan) / side)
        parts[2].append(_angles(known(people, "theta", 24, 4), known(truth, "theta", 24, 4)))
        parts[3].append(distances(*(at_root(known(which, "joints", 24, 3), PELVIS)
                                    for which in (people, truth))))
    return tuple(map(np.concatenate, parts))


def _angles(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the angles (N, 24) rad between rotations (N, 24, 4), quat_xyzw."""
    return angle_between(torch.from_numpy(found), torch.from_numpy(truth)).numpy()


def fit_variance(deviation: np.ndarray, error: np.ndarray) -> tuple[float, float]:
    """Return votes and floor of maximum likelihood, with variances votes * deviation^2 + floor.

    Outliers by a first fit are left out of the second.

    Args:
        deviation (N,): standard deviations of votes.
        error (N,): errors, in the same unit.
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
    votes, floor = np.exp(found.x)
    return votes, floor
