"""Fits the shipped pose prior (`ros2_pose.body.prior`) to motion capture.

    python -m ros2_pose.assets.train_pose_prior --mocap cmu_theta_10hz.npz

The data is the CMU Graphics Lab Motion Capture Database (mocap.cs.cmu.edu) as an npz made by
`ros2_pose.data.bvh`; a fifth of the trials is held back. What that data lacks is added by rule, see
`widened_covariance` and `with_other_legs`. (A mixture of 4 or 8 Gaussians, as in Bogo et al. 2016,
was tried: it fits worse to new people.)
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from ros2_pose.body.prior import FILE
from ros2_pose.data.mocap import held_back, mirrored, plausible, with_collars
from ros2_pose.skeleton import SMPL24

log = logging.getLogger(__name__)

_DOF = 3 * (len(SMPL24) - 1)

# Standard deviation in radians added to what the data shows, for other people, other actions and
# other definitions of the joints. Small, because `lift` knows better what a picture may show; but
# collars, toes and hands do not move in the data at all.
_NOISE_RAD = {"hip": 0.06, "knee": 0.05, "ankle": 0.05, "foot": 0.1, "spine1": 0.03, "spine2": 0.03,
              "spine3": 0.03, "neck": 0.04, "head": 0.05, "collar": 0.12, "shoulder": 0.08,
              "elbow": 0.06, "wrist": 0.1, "hand": 0.2}

_STANDING_SHARE = 0.4
_SITTING_SHARE = 0.15


def with_other_legs(theta: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Append copies of some of the poses with straight legs, and of some that sit.

    Walking, sport and climbing fill the data; people around a robot mostly stand or sit.

    Args:
        theta (N, 24, 3): rotation vectors, rad.
    Returns:
        (M, 24, 3): the poses of theta, then those with changed legs.
    """
    standing = _with_legs(_random_subset(theta, _STANDING_SHARE, rng), rng,
                          hip_rad=(-0.1, 0.0, 0.05), hip_std_rad=(0.2, 0.15, 0.08),
                          knee_rad=0.1, knee_std_rad=0.15)
    sitting = _with_legs(_random_subset(theta, _SITTING_SHARE, rng), rng,
                         hip_rad=(-1.4, 0.0, 0.15), hip_std_rad=(0.35, 0.25, 0.2),
                         knee_rad=1.5, knee_std_rad=0.45)
    return np.concatenate([theta, standing, sitting])


def _random_subset(theta: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    return theta[rng.choice(len(theta), int(share * len(theta)), replace=False)]


def _with_legs(theta: np.ndarray, rng: np.random.Generator, hip_rad: tuple[float, float, float],
               hip_std_rad: tuple[float, float, float], knee_rad: float,
               knee_std_rad: float) -> np.ndarray:
    """Replace hips, knees and ankles by random ones; the feet stay about level."""
    theta = theta.copy()
    for side, sign in (("left", 1.0), ("right", -1.0)):
        hip = rng.normal(hip_rad, hip_std_rad, (len(theta), 3))
        knee = np.abs(rng.normal(knee_rad, knee_std_rad, len(theta)))
        ankle = -np.clip(hip[:, 0] + knee, -0.6, 0.7) + rng.normal(0, 0.12, len(theta))
        theta[:, SMPL24.index(f"{side}_ankle")] = ankle[:, None] * (1.0, 0.0, 0.0)
        theta[:, SMPL24.index(f"{side}_hip")] = hip * (1.0, sign, sign)
        theta[:, SMPL24.index(f"{side}_knee")] = knee[:, None] * (1.0, 0.0, 0.0)
    return theta


def training_chords(theta: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """Make the poses that the prior is learned from.

    Args:
        theta (N, 24, 3): rotation vectors of motion capture, rad.
        sources (N,): trial names.
    Returns:
        (M, 69): chords (2 q_xyz with q_w >= 0) of the 23 joints below the pelvis.
    """
    theta = theta[~held_back(sources)].astype(np.float64)
    theta = with_collars(theta[plausible(theta)])
    theta = with_other_legs(theta, np.random.default_rng(0))
    theta = np.concatenate([theta, mirrored(theta)])
    quat_xyzw = Rotation.from_rotvec(theta[:, 1:].reshape(-1, 3)).as_quat()
    sign = np.where(quat_xyzw[:, 3:] < 0, -1, 1)
    return (2 * sign * quat_xyzw[:, :3]).reshape(-1, _DOF)


def widened_covariance(chords: np.ndarray) -> np.ndarray:
    """(69, 69) covariance of chords (N, 69), plus the variances of `_NOISE_RAD`."""
    noise = [_NOISE_RAD[kind] for kind in SMPL24.kinds[1:]]
    return np.cov(chords.T) + np.diag(np.repeat(noise, 3) ** 2)


def build(mocap: str | Path) -> dict[str, np.ndarray]:
    """Make the arrays of the prior's file from an npz of motion capture.

    Returns:
        mean (23, 3) float32: chords; whitener (2415,) float32: the lower triangle of W (69, 69),
        row by row, with W^T W = precision.
    """
    with np.load(mocap, allow_pickle=False) as file:
        chords = training_chords(file["theta"], file["src"])
    whitener = np.linalg.inv(np.linalg.cholesky(widened_covariance(chords)))
    return {"mean": chords.mean(0).reshape(-1, 3).astype(np.float32),
            "whitener": whitener[np.tril_indices(_DOF)].astype(np.float32)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mocap", required=True, help="npz with theta (N, 24, 3) and src (N,)")
    parser.add_argument("--out", type=Path, default=FILE)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arrays: dict[str, Any] = build(args.mocap)
    np.savez_compressed(args.out, **arrays)
    log.info("%s: %.0f kB", args.out, args.out.stat().st_size / 1e3)


if __name__ == "__main__":
    main()
