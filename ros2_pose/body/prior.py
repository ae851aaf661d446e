"""Pose prior: which joint rotations are likely, learned from motion capture.

    python -m ros2_pose.body.prior --mocap cmu_theta_10hz.npz

A full-covariance Gaussian over the chords (2 q_xyz) of the 23 joint rotations, and one-sided limits
of knees and elbows. (A mixture, as in Bogo et al. 2016, was tried: 4 or 8 components fit worse to
new people.)
Learned from the CMU Graphics Lab Motion Capture Database (mocap.cs.cmu.edu); a fifth of the trials
is held back. What that data lacks is added by rule: see `widened_covariance` and `with_other_legs`.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from ros2_pose.skeleton import SMPL24

log = logging.getLogger(__name__)
FILE = Path(__file__).parent / "data" / "pose_prior.npz"
_DOF = 3 * (len(SMPL24) - 1)

# Standard deviation in radians added to what the data shows, for other people, other actions and
# other definitions of the joints. Little, because `lift` knows better what a picture may show; but
# collars, toes and hands do not move in the data at all.
_NOISE_RAD = {"hip": 0.06, "knee": 0.05, "ankle": 0.05, "foot": 0.1, "spine1": 0.03, "spine2": 0.03,
              "spine3": 0.03, "neck": 0.04, "head": 0.05, "collar": 0.12, "shoulder": 0.08,
              "elbow": 0.06, "wrist": 0.1, "hand": 0.2}

# Knees and elbows bend one way: (joint, component of the rotation vector, sign that is bent).
_HINGES = (("left_knee", 0, 1), ("right_knee", 0, 1), ("left_elbow", 1, -1), ("right_elbow", 1, 1))
_HINGE_SLACK_RAD = 0.1
_HINGE_STD_RAD = 0.07

_LONGEST_HALF_CHORD = 0.95  # of a unit quaternion's vector part: 144 degrees

_STANDING_SHARE = 0.4
_SITTING_SHARE = 0.15


class PosePrior(torch.nn.Module):
    """A Gaussian over the chords (2 q_xyz, see `kinematics`) of 23 joint rotations, with limits.

    Buffers: mean (23, 3); whitener (69, 69), lower triangular W with W^T W = precision;
    precision (69, 69).
    """

    def __init__(self, mean: np.ndarray, whitener: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float64))
        self.register_buffer("whitener", torch.as_tensor(whitener, dtype=torch.float64))
        self.register_buffer("precision", self.whitener.T @ self.whitener)

    @staticmethod
    def load(path: str | Path = FILE) -> PosePrior:
        """The shipped prior, or one built by this module's command."""
        with np.load(path, allow_pickle=False) as file:
            whitener = np.zeros((_DOF, _DOF))
            whitener[_LOWER] = file["whitener"]
            return PosePrior(file["mean"], whitener)

    def quadratic(self, chords: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Evaluate the negative log density up to a constant, and its derivatives by chords.

        Args:
            chords (B, 23, 3): 2 q_xyz of each joint but the root.
        Returns:
            cost (B,), gradient (B, 69) and Gauss-Newton Hessian (B, 69, 69).
        """
        precision = self.precision.to(chords)
        offset = (chords - self.mean.to(chords)).flatten(1)
        weighted_offset = offset @ precision
        beyond, slope = _beyond_hinges(chords.flatten(1))
        cost = ((offset * weighted_offset).sum(1) + beyond.square().sum(1)) / 2
        gradient = weighted_offset + beyond * slope
        hessian = precision + slope.square().diag_embed()
        return cost, gradient, hessian

    def pose(self, white: Tensor) -> Tensor:
        """Map white noise to poses of the prior's distribution, without the limits.

        Args:
            white (B, 69): offset from the mean in whitened units, standard normal for samples.
        Returns:
            (B, 23, 4) unit quaternions x, y, z, w; chords longer than 1.9 are shortened.
        """
        offset = torch.linalg.solve_triangular(self.whitener.to(white), white.T, upper=False).T
        vector_part = (self.mean.to(white) + offset.unflatten(1, (-1, 3))) / 2
        length = vector_part.norm(dim=2, keepdim=True)
        vector_part = vector_part * (_LONGEST_HALF_CHORD / length).clamp(max=1)
        scalar_part = (1 - vector_part.square().sum(2, keepdim=True)).sqrt()
        return torch.cat([vector_part, scalar_part], 2)


_LOWER = np.tril_indices(_DOF)
_BENT_SIGN = np.zeros(_DOF)
_BENT_SIGN[[3 * (SMPL24.index(joint) - 1) + axis for joint, axis, _ in _HINGES]] = [
    sign for _, _, sign in _HINGES]
_HINGE_SLOPE = torch.as_tensor(-_BENT_SIGN / _HINGE_STD_RAD)


def _beyond_hinges(chords: Tensor) -> tuple[Tensor, Tensor]:
    """Overstretch (B, 69) of knees and elbows in standard deviations, and its derivative."""
    slope = _HINGE_SLOPE.to(chords)
    beyond = slope * chords - _HINGE_SLACK_RAD / _HINGE_STD_RAD
    is_beyond = beyond > 0
    return beyond * is_beyond, slope * is_beyond


# ---------------------------------------------------------------------------------- learning


def held_back(sources: np.ndarray) -> np.ndarray:
    """(N,) True where a pose belongs to the fifth of the trials that nothing is learned from."""
    return np.isin(sources, np.unique(sources)[4::5])


def mirrored(theta: np.ndarray) -> np.ndarray:
    """Rotation vectors (N, 24, 3) of the same people seen in a mirror."""
    return theta[:, SMPL24.mirror] * np.array([1.0, -1.0, -1.0])


def with_collars(theta: np.ndarray) -> np.ndarray:
    """Rotation vectors (N, 24, 3) whose collars follow the arms, which stay where they are.

    The data's collars are rigid in the T-pose. Of an arm's elevation the shoulder girdle does
    about a fifth here (scapulohumeral rhythm), within limits.
    """
    theta = theta.copy()
    for side, sign in (("left", 1.0), ("right", -1.0)):
        collar, shoulder = SMPL24.index(f"{side}_collar"), SMPL24.index(f"{side}_shoulder")
        rotation = Rotation.from_rotvec(theta[:, shoulder])
        elevation = np.arcsin(np.clip(rotation.apply([sign, 0.0, 0.0])[:, 1], -1, 1))
        up = sign * np.clip(0.2 * elevation, np.radians(-15), np.radians(20))
        girdle = Rotation.from_rotvec(up[:, None] * [0.0, 0.0, 1.0])
        theta[:, collar] = girdle.as_rotvec()
        theta[:, shoulder] = (girdle.inv() * rotation).as_rotvec()
    return theta


def with_other_legs(theta: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The poses and, after them, some of them again with straight legs, and some that sit.

    Walking, sport and climbing fill the data; people around a robot mostly stand or sit.
    """
    standing = _with_legs(_some(theta, _STANDING_SHARE, rng), rng, hip_rad=(-0.1, 0.0, 0.05),
                          hip_std_rad=(0.2, 0.15, 0.08), knee_rad=0.1, knee_std_rad=0.15)
    sitting = _with_legs(_some(theta, _SITTING_SHARE, rng), rng, hip_rad=(-1.4, 0.0, 0.15),
                         hip_std_rad=(0.35, 0.25, 0.2), knee_rad=1.5, knee_std_rad=0.45)
    return np.concatenate([theta, standing, sitting])


def _some(theta: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    return theta[rng.choice(len(theta), int(share * len(theta)), replace=False)]


def _with_legs(theta, rng, hip_rad, hip_std_rad, knee_rad, knee_std_rad) -> np.ndarray:
    theta = theta.copy()
    for side, sign in (("left", 1.0), ("right", -1.0)):
        hip = rng.normal(hip_rad, hip_std_rad, (len(theta), 3))
        knee = np.abs(rng.normal(knee_rad, knee_std_rad, len(theta)))
        level = -np.clip(hip[:, 0] + knee, -0.6, 0.7) + rng.normal(0, 0.12, len(theta))
        theta[:, SMPL24.index(f"{side}_ankle")] = level[:, None] * (1.0, 0.0, 0.0)
        theta[:, SMPL24.index(f"{side}_hip")] = hip * (1.0, sign, sign)
        theta[:, SMPL24.index(f"{side}_knee")] = knee[:, None] * (1.0, 0.0, 0.0)
    return theta


def plausible(theta: np.ndarray) -> np.ndarray:
    """(N,) False where the retargeted data has flipped a joint over."""
    angle = np.linalg.norm(theta[:, 1:], axis=2)
    bends_back = [(theta[:, SMPL24.index(joint), axis] * sign) < -0.5
                  for joint, axis, sign in _HINGES]
    return (angle < 2.8).all(1) & ~np.any(bends_back, 0)


def training_chords(theta: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """(N, 69) what the prior is learned from, out of mocap theta (M, 24, 3) and trial names."""
    theta = theta[~held_back(sources)].astype(np.float64)
    theta = with_collars(theta[plausible(theta)])
    theta = with_other_legs(theta, np.random.default_rng(0))
    theta = np.concatenate([theta, mirrored(theta)])[:, 1:].reshape(-1, 3)
    quats = Rotation.from_rotvec(theta).as_quat()
    return (2 * np.where(quats[:, 3:] < 0, -1, 1) * quats[:, :3]).reshape(-1, _DOF)


def widened_covariance(chords: np.ndarray) -> np.ndarray:
    """(69, 69) covariance of chords (N, 69), plus `_NOISE_RAD`."""
    noise = [_NOISE_RAD[kind] for kind in SMPL24.kinds[1:]]
    return np.cov(chords.T) + np.diag(np.repeat(noise, 3) ** 2)


def build(mocap: str | Path) -> dict[str, np.ndarray]:
    """The arrays of the prior's file."""
    with np.load(mocap, allow_pickle=False) as file:
        chords = training_chords(file["theta"], file["src"])
    whitener = np.linalg.inv(np.linalg.cholesky(widened_covariance(chords)))
    return {"mean": chords.mean(0).reshape(-1, 3).astype(np.float32),
            "whitener": whitener[_LOWER].astype(np.float32)}


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
