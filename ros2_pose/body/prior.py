"""Pose prior: which joint rotations are likely, learned from motion capture.

    python -m ros2_pose.body.prior --mocap cmu_theta_10hz.npz

A mixture of full-covariance Gaussians over the 23 joint rotation vectors, as in Bogo et al. 2016
(SMPLify, section 3.2), of which the nearest one counts, and one-sided limits of knees and elbows.
Learned from the CMU Graphics Lab Motion Capture Database (mocap.cs.cmu.edu); a fifth of the trials
is held back. What that data lacks is added by rule: see `widened_covariance` and `with_sitting`.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from ros2_pose.skeleton import SMPL24

log = logging.getLogger(__name__)
FILE = Path(__file__).parent / "data" / "pose_prior.npz"
_DOF = 3 * (len(SMPL24) - 1)

# Standard deviation in radians added to what the data shows, for other people, other actions and
# other definitions of the joints. Collars, toes and hands do not move in the data at all.
_NOISE_RAD = {"hip": 0.2, "knee": 0.15, "ankle": 0.15, "foot": 0.2, "spine1": 0.1, "spine2": 0.1,
              "spine3": 0.1, "neck": 0.12, "head": 0.15, "collar": 0.12, "shoulder": 0.25,
              "elbow": 0.2, "wrist": 0.3, "hand": 0.2}

# Knees and elbows bend one way: (joint, component of the rotation vector, sign that is bent).
_HINGES = (("left_knee", 0, 1), ("right_knee", 0, 1), ("left_elbow", 1, -1), ("right_elbow", 1, 1))
_HINGE_SLACK_RAD = 0.1
_HINGE_STD_RAD = 0.07

_SITTING_SHARE = 0.15
_COMPONENTS = 4


class Quadratic(NamedTuple):
    """A cost near a point: value, gradient and Gauss-Newton Hessian."""

    cost: Tensor  # (B,)
    gradient: Tensor  # (B, 69)
    hessian: Tensor  # (B, 69, 69)


class PosePrior(torch.nn.Module):
    """means (K, 69) rad, whiteners (K, 69, 69), offsets (K,): -log density up to a constant."""

    def __init__(self, means: np.ndarray, whiteners: np.ndarray, offsets: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("means", torch.as_tensor(means, dtype=torch.float64))
        self.register_buffer("whiteners", torch.as_tensor(whiteners, dtype=torch.float64))
        self.register_buffer("offsets", torch.as_tensor(offsets, dtype=torch.float64))
        self.register_buffer("precisions", self.whiteners.transpose(1, 2) @ self.whiteners)

    @staticmethod
    def load(path: str | Path = FILE) -> PosePrior:
        """The shipped prior, or one built by this module's command."""
        with np.load(path, allow_pickle=False) as file:
            factors = file["whiteners"].astype(np.float64)
            whiteners = np.zeros((len(factors), _DOF, _DOF))
            whiteners[:, _LOWER[0], _LOWER[1]] = factors
            return PosePrior(file["means"], whiteners, file["offsets"])

    @property
    def mean(self) -> Tensor:
        """(23, 3) rad, the centre of the likeliest component."""
        return self.means[self.offsets.argmin()].reshape(-1, 3)

    def residual(self, rotvecs: Tensor) -> Tensor:
        """(B, 69) whitened distance to the nearest component of rotvecs (B, 23, 3) rad."""
        distance = self._distances(rotvecs)
        nearest = self._nearest(distance)
        return distance[torch.arange(len(distance), device=distance.device), nearest]

    def quadratic(self, rotvecs: Tensor) -> Quadratic:
        """The prior's cost at rotvecs (B, 23, 3) rad, with its derivatives by them."""
        distance = self._distances(rotvecs)
        nearest = self._nearest(distance)
        rows = torch.arange(len(distance), device=distance.device)
        residual, whitener = distance[rows, nearest], self.whiteners.to(rotvecs)[nearest]
        beyond, slope = _beyond_hinges(rotvecs)
        cost = residual.square().sum(1) / 2 + self.offsets.to(rotvecs)[nearest]
        gradient = (residual[:, None] @ whitener)[:, 0] + beyond * slope
        hessian = self.precisions.to(rotvecs)[nearest] + torch.diag_embed(slope.square())
        return Quadratic(cost + beyond.square().sum(1) / 2, gradient, hessian)

    def _distances(self, rotvecs: Tensor) -> Tensor:
        offset = rotvecs.reshape(-1, 1, _DOF) - self.means.to(rotvecs)
        return torch.einsum("kij,bkj->bki", self.whiteners.to(rotvecs), offset)

    def _nearest(self, distances: Tensor) -> Tensor:
        return (distances.square().sum(2) / 2 + self.offsets.to(distances)).argmin(1)


_LOWER = np.tril_indices(_DOF)
_HINGE_INDEX = [3 * (SMPL24.index(joint) - 1) + axis for joint, axis, _ in _HINGES]
_HINGE_SIGN = [float(sign) for _, _, sign in _HINGES]


def _beyond_hinges(rotvecs: Tensor) -> tuple[Tensor, Tensor]:
    """Whitened overstretch (B, 69) of knees and elbows, and its derivative (diagonal)."""
    flat = rotvecs.reshape(-1, _DOF)
    sign = flat.new_zeros(_DOF)
    sign[_HINGE_INDEX] = flat.new_tensor(_HINGE_SIGN)
    stretch = -sign * flat - _HINGE_SLACK_RAD
    is_beyond = (stretch > 0) & (sign != 0)
    zero = flat.new_zeros(())
    return (torch.where(is_beyond, stretch / _HINGE_STD_RAD, zero),
            torch.where(is_beyond, -sign / _HINGE_STD_RAD, zero))


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
        turn = Rotation.from_rotvec(theta[:, shoulder])
        elevation = np.arcsin(np.clip(turn.apply([sign, 0.0, 0.0])[:, 1], -1, 1))
        up = sign * np.clip(0.2 * elevation, np.radians(-15), np.radians(20))
        girdle = Rotation.from_rotvec(up[:, None] * [0.0, 0.0, 1.0])
        theta[:, collar] = girdle.as_rotvec()
        theta[:, shoulder] = (girdle.inv() * turn).as_rotvec()
    return theta


def with_sitting(theta: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The poses and, after them, some of them again with hips and knees bent to sit or crouch."""
    seated = theta[rng.random(len(theta)) < _SITTING_SHARE].copy()
    for side, sign in (("left", 1.0), ("right", -1.0)):
        hip = np.stack([rng.normal(-1.4, 0.35, len(seated)), rng.normal(0, 0.25, len(seated)),
                        sign * rng.normal(0.15, 0.2, len(seated))], 1)
        theta_knee = rng.normal(1.5, 0.45, len(seated)).clip(0, 2.4)
        seated[:, SMPL24.index(f"{side}_hip")] = hip
        seated[:, SMPL24.index(f"{side}_knee")] = theta_knee[:, None] * [1.0, 0.0, 0.0]
    return np.concatenate([theta, seated])


def plausible(theta: np.ndarray) -> np.ndarray:
    """(N,) False where the retargeted data has flipped a joint over."""
    angle = np.linalg.norm(theta[:, 1:], axis=2)
    bends_back = [(theta[:, SMPL24.index(joint), axis] * sign) < -0.5
                  for joint, axis, sign in _HINGES]
    return (angle < 2.8).all(1) & ~np.any(bends_back, 0)


def training_rotvecs(theta: np.ndarray, sources: np.ndarray) -> np.ndarray:
    """(N, 69) what the prior is learned from, out of mocap theta (M, 24, 3) and trial names."""
    theta = theta[~held_back(sources)].astype(np.float64)
    theta = with_collars(theta[plausible(theta)])
    theta = with_sitting(theta, np.random.default_rng(0))
    return np.concatenate([theta, mirrored(theta)])[:, 1:].reshape(-1, _DOF)


def widened_covariance(rotvecs: np.ndarray, share: np.ndarray) -> np.ndarray:
    """(69, 69) covariance of poses (N, 69) with weights (N,), plus `_NOISE_RAD`."""
    noise = [_NOISE_RAD[name.split("_")[-1]] for name in SMPL24.names[1:]]
    return np.cov(rotvecs.T, aweights=share) + np.diag(np.repeat(noise, 3) ** 2)


def learn(rotvecs: np.ndarray, components: int = _COMPONENTS, rounds: int = 30) -> dict:
    """Means, whiteners (lower triangles) and offsets of the mixture, by EM from k-means seeds."""
    seeds = np.random.default_rng(1).choice(len(rotvecs), components, replace=False)
    means = rotvecs[seeds]
    distance = ((rotvecs[:, None] - means) ** 2).sum(2)
    shares = np.eye(components)[distance.argmin(1)]
    for _ in range(rounds):
        covariances = [widened_covariance(rotvecs, share + 1e-9) for share in shares.T]
        means = (shares.T @ rotvecs) / shares.sum(0)[:, None]
        whiteners = np.array([np.linalg.cholesky(np.linalg.inv(c)).T for c in covariances])
        log_share = np.log(shares.mean(0) + 1e-12)
        determinants = np.log(np.diagonal(whiteners, axis1=1, axis2=2)).sum(1)
        offsets = -log_share - determinants
        z = np.einsum("kij,nkj->nki", whiteners, rotvecs[:, None] - means)
        energy = (z**2).sum(2) / 2 + offsets
        shares = np.exp(energy.min(1, keepdims=True) - energy)
        shares /= shares.sum(1, keepdims=True)
    log.info("shares of the components: %s", shares.mean(0).round(3))
    return {"means": means, "covariances": np.array(covariances), "offsets": offsets}


def build(mocap: str | Path) -> dict[str, np.ndarray]:
    """The arrays of the prior's file."""
    with np.load(mocap, allow_pickle=False) as file:
        mixture = learn(training_rotvecs(file["theta"], file["src"]))
    whiteners = [np.linalg.inv(np.linalg.cholesky(c)) for c in mixture["covariances"]]
    return {"means": mixture["means"].astype(np.float32),
            "whiteners": np.array(whiteners)[:, _LOWER[0], _LOWER[1]].astype(np.float32),
            "offsets": (mixture["offsets"] - mixture["offsets"].min()).astype(np.float32)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mocap", required=True, help="npz with theta (N, 24, 3) and src (N,)")
    parser.add_argument("--out", type=Path, default=FILE)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    np.savez_compressed(args.out, **build(args.mocap))
    log.info("%s: %.0f kB", args.out, args.out.stat().st_size / 1e3)


if __name__ == "__main__":
    main()
