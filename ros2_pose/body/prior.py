"""Pose prior: which joint rotations are likely, learned from motion capture.

A full-covariance Gaussian over the chords (2 q_xyz) of the 23 joint rotations, and one-sided limits
of knees and elbows. Fitted to motion capture by `ros2_pose.assets.train_pose_prior`.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ros2_pose.skeleton import SMPL24

FILE = Path(__file__).parent / "data" / "pose_prior.npz"
_DOF = 3 * (len(SMPL24) - 1)

# Knees and elbows bend one way: (joint, component of the rotation vector, sign that is bent).
HINGES = (("left_knee", 0, 1), ("right_knee", 0, 1), ("left_elbow", 1, -1), ("right_elbow", 1, 1))
_HINGE_SLACK_RAD = 0.1
_HINGE_STD_RAD = 0.07

_LONGEST_HALF_CHORD = 0.95


class Quadratic(NamedTuple):
    """A cost near a point: value, gradient and Gauss-Newton Hessian."""

    cost: Tensor  # (B,)
    gradient: Tensor  # (B, 69)
    hessian: Tensor  # (B, 69, 69)


class PosePrior(torch.nn.Module):
    """mean (23, 3), a chord; whitener (69, 69), lower triangular W with W^T W = precision."""

    def __init__(self, mean: np.ndarray, whitener: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("mean", torch.as_tensor(mean, dtype=torch.float64))
        self.register_buffer("whitener", torch.as_tensor(whitener, dtype=torch.float64))
        self.register_buffer("precision", self.whitener.T @ self.whitener)

    @staticmethod
    def load(path: str | Path = FILE) -> PosePrior:
        """The shipped prior, or one built by `ros2_pose.assets.train_pose_prior`."""
        with np.load(path, allow_pickle=False) as file:
            whitener = np.zeros((_DOF, _DOF))
            whitener[_LOWER] = file["whitener"]
            return PosePrior(file["mean"], whitener)

    def residual(self, chords: Tensor) -> Tensor:
        """(B, 69) whitened distance of chords (B, 23, 3) to the mean pose."""
        return (chords - self.mean.to(chords)).flatten(1) @ self.whitener.T.to(chords)

    def quadratic(self, chords: Tensor) -> Quadratic:
        """The prior's cost at chords (B, 23, 3), with its derivatives by them."""
        offset = (chords - self.mean.to(chords)).flatten(1)
        pull = offset @ self.precision.to(chords)
        beyond, slope = _beyond_hinges(chords.flatten(1))
        cost = ((offset * pull).sum(1) + beyond.square().sum(1)) / 2
        hessian = self.precision.to(chords) + slope.square().diag_embed()
        return Quadratic(cost, pull + beyond * slope, hessian)

    def pose(self, white: Tensor) -> Tensor:
        """(B, 23, 4) unit quaternions x, y, z, w whose `residual` is white (B, 69): poses as likely
        as white is under a standard normal distribution (no chord grows longer than 1.9)."""
        offset = torch.linalg.solve_triangular(self.whitener.to(white), white.T, upper=False).T
        half = (self.mean.to(white) + offset.unflatten(1, (-1, 3))) / 2
        half = half * (_LONGEST_HALF_CHORD / half.norm(dim=2, keepdim=True)).clamp(max=1)
        return torch.cat([half, (1 - half.square().sum(2, keepdim=True)).sqrt()], 2)


_LOWER = np.tril_indices(_DOF)
_BENT_SIGN = np.zeros(_DOF)
_BENT_SIGN[[3 * (SMPL24.index(joint) - 1) + axis for joint, axis, _ in HINGES]] = [
    sign for _, _, sign in HINGES]
_HINGE_SLOPE = torch.as_tensor(-_BENT_SIGN / _HINGE_STD_RAD)


def _beyond_hinges(chords: Tensor) -> tuple[Tensor, Tensor]:
    """Whitened overstretch (B, 69) of knees and elbows, and its derivative (diagonal)."""
    slope = _HINGE_SLOPE.to(chords)
    beyond = slope * chords - _HINGE_SLACK_RAD / _HINGE_STD_RAD
    is_beyond = beyond > 0
    return beyond * is_beyond, slope * is_beyond
