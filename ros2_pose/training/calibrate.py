"""Calibrate a trained network's uncertainties on people that it was not trained on.

    python -m ros2_pose.training.calibrate run/mine.pt --data labelled OUT validation

measures them anew on other pictures, best ones that people have marked: pseudo-labels are the
teacher's errors, too. It prints how many errors lie where the uncertainties of the other half of
the pictures say, and writes the checkpoint.

The standard deviation c of a keypoint's votes is not that of its error: the variance of the error
is votes * c^2 + floor, with the two numbers of maximum likelihood for each kind of keypoint
(relative to the box, because errors grow with it). The errors of rotations are measured, too.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.stats import chi2
from tqdm import trange

from ros2_pose.body.so3 import angle_between
from ros2_pose.config import ConfigError, PoseConfig
from ros2_pose.data.datasets import opened
from ros2_pose.data.sample import OUTSIDE, Samples
from ros2_pose.metrics.matching import PELVIS, EvaluatedImage, known, matched_pairs
from ros2_pose.metrics.pose import at_root, distances
from ros2_pose.networks.base import PoseNetwork
from ros2_pose.networks.checkpoint import load_checkpoint, save_checkpoint
from ros2_pose.networks.registry import network_class
from ros2_pose.networks.trainable import TrainableNet
from ros2_pose.skeleton import COCO17

log = logging.getLogger(__name__)

_LEAST = 50  # errors of a keypoint, to learn from them
_FITS = 4  # after the first one
_GATE = 4.0  # standard deviations beyond which an error is an outlier
_MEDIAN_LENGTH = 1.538  # of a vector of three standard normal numbers


def calibrate(net: TrainableNet, samples: Samples, pictures: int) -> tuple[float, float]:
    """Set a network's `votes` and `floor`; of one with bodies, `turn_std` and `model_std`, too.

    Args:
        net: trained network; its buffers are written.
        samples: images with truth, not trained on.
        pictures: greatest number of images used.

    Returns:
        Shares of the keypoints inside their 68 and 95 % ellipses, each half of the people by the
        constants of the other half.
    Raises:
        ConfigError: it is a refiner, which has constants in the code.
    """
    if net.ONE_PERSON:
        raise ConfigError(f"{net.NAME} is a refiner: fit its constants by python -m "
                          "ros2_pose.evaluation.benchmarks.calibration ANNOTATIONS.json PICTURES "
                          f"--fit --refiner {net.NAME}")
    net.votes.fill_(1.0)
    net.floor.fill_(0.0)
    detector = network_class(net.NAME)(PoseConfig(), net.votes.device, net)  # type: ignore
    deviations, errors, angles, shifts = _collect(net, detector, samples,
                                                  min(pictures, len(samples)))
    votes, floor = fit_keypoints(deviations, errors)
    net.votes.copy_(torch.from_numpy(votes))
    net.floor.copy_(torch.from_numpy(floor))
    buffers = dict(net.named_buffers())
    if "turn_std" in buffers and np.isfinite(angles).any():
        typical = np.nanmedian(angles, 0) / _MEDIAN_LENGTH
        buffers["turn_std"].copy_(torch.from_numpy(typical).clamp(min=0.05))
    if "model_std" in buffers and np.isfinite(shifts).any():
        buffers["model_std"].fill_(float(np.nanmedian(shifts)) / _MEDIAN_LENGTH)
    distance2 = cross_validated(deviations, errors)
    distance2 = distance2[np.isfinite(distance2)]
    inside = [float(np.mean(distance2 <= chi2.ppf(share, 2))) if len(distance2) else np.nan
              for share in (0.68, 0.95)]
    return inside[0], inside[1]


def fit_keypoints(deviations: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return votes and floor (17,), equal for a left joint and its right one.

    Args:
        deviations, errors (N, 17, 2): of keypoints relative to the box; NaN: unknown.
    """
    votes, floor = np.ones(len(COCO17)), np.zeros(len(COCO17))
    kinds = np.array(COCO17.kinds)
    for kind in dict.fromkeys(COCO17.kinds):
        c, e = deviations[:, kinds == kind].ravel(), errors[:, kinds == kind].ravel()
        usable = np.isfinite(c) & np.isfinite(e)
        if usable.sum() < _LEAST:
            log.warning("%s: %d errors are too few to calibrate; its votes stay uncalibrated",
                        kind, usable.sum())
            continue
        votes[kinds == kind], floor[kinds == kind] = fit_variance(c[usable], e[usable])
    return votes, floor


def cross_validated(deviations: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Squared Mahalanobis distances of keypoints, each half by the constants of the other half.

    Args:
        deviations, errors (N, 17, 2): see `fit_keypoints`.

    Returns:
        (N, 17), NaN: unknown.
    """
    distance2 = np.full(errors.shape[:2], np.nan)
    halves = np.arange(len(errors)) < len(errors) / 2
    for half in (halves, ~halves):
        votes, floor = fit_keypoints(deviations[~half], errors[~half])
        variance = votes[:, None] * deviations[half]**2 + floor[:, None]
        distance2[half] = (errors[half]**2 / variance).sum(2)
    return distance2


def _collect(net: TrainableNet, detector: PoseNetwork, samples: Samples,
             pictures: int) -> tuple[np.ndarray, ...]:
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
        side = net.lengths(torch.from_numpy(people.boxes)).numpy()[:, None]
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

    Outliers by one fit are left out of the next.

    Args:
        deviation (N,): standard deviations of votes.
        error (N,): errors, in the same unit.
    """
    votes, floor = _likeliest(deviation, error)
    for _ in range(_FITS):
        near = error**2 < _GATE**2 * (votes * deviation**2 + floor)
        votes, floor = _likeliest(deviation[near], error[near])
    return votes, floor


def _likeliest(deviation: np.ndarray, error: np.ndarray) -> tuple[float, float]:
    def cost(logs: np.ndarray) -> float:
        variance = np.exp(logs[0]) * deviation**2 + np.exp(logs[1])
        return float(np.mean(np.log(variance) + error**2 / variance))

    start = np.log([0.5, 0.5 * np.mean(error**2) + 1e-9])
    found = minimize(cost, start, method="Nelder-Mead", bounds=[(-12, 4), (-18, 0)])
    votes, floor = np.exp(found.x)
    return votes, floor


def main(arguments: list[str] | None = None) -> None:
    """Calibrate a checkpoint as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="that ros2_pose train wrote")
    parser.add_argument("--data", nargs="+", required=True, metavar="WORD",
                        help="NAME FOLDER [SPLIT] of pictures that it was not trained on")
    parser.add_argument("--pictures", type=int, default=10**6, help="at most so many (all)")
    parser.add_argument("--out", type=Path, help="checkpoint to write; by default, the one given")
    options = parser.parse_args(arguments)
    net, samples = load_checkpoint(options.checkpoint), opened(options.data)
    inside = calibrate(net, samples, options.pictures)
    print("inside the 68 / 95 % ellipses, each half of the people by the other half's constants: "
          f"{100 * inside[0]:.1f} / {100 * inside[1]:.1f} %")
    save_checkpoint(options.out or options.checkpoint, net,
                    torch.load(options.checkpoint, weights_only=True)["commit"])


if __name__ == "__main__":
    main()
