"""Pose prior: which joint rotations are likely, learned from motion capture.

A full-covariance Gaussian over the chords (2 q_xyz) of the 23 joint rotations, and one-sided limits
of knees and elbows. Fitted to motion capture by `ros2_pose.assets.train_pose_prior`.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

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

_LONGEST_HALF_CHORD = 0.95  # of a unit quaternion's vector part: 144 degrees


class PosePrior(torch.nn.Module):
    """A Gaussian over the chords 2 q_xyz (see `fit_kinematics`) of 23 rotations, with limits.

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
        """The shipped prior, or one built by `ros2_pose.assets.train_pose_prior`."""
        with np.load(path, allow_pickle=False) as file:
            whitener = np.zeros((_DOF, _DOF))
            whitener[_LOWER] = file["whitener"]
            return PosePrior(file["mean"], whitener)

    def quadratic(self, chords: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Evaluate the negative log density up to a constant, and its derivatives by chords.

        Args:
            chords (B, 69): 2 q_xyz of each joint but the root.
        Returns:
            cost (B,), gradient (B, 69) and Gauss-Newton Hessian (B, 69, 69).
        """
        mean, precision = self._arrays
        offset = chords - mean
        weighted_offset = offset @ precision
        # Overstretch of knees and elbows in standard deviations.
        beyond = (_HINGE_SLOPE * chords - _HINGE_SLACK_RAD / _HINGE_STD_RAD).clip(min=0)
        cost = ((offset * weighted_offset).sum(1) + (beyond * beyond).sum(1)) / 2
        gradient = weighted_offset + beyond * _HINGE_SLOPE
        hessian = np.repeat(precision[None], len(chords), 0)
        diagonal = hessian.reshape(len(chords), -1)[:, ::_DOF + 1]
        diagonal += _HINGE_SLOPE**2 * (beyond > 0)
        return cost, gradient, hessian

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """The mean (69,) and the precision (69, 69)."""
        return self.mean.flatten().cpu().numpy(), self.precision.cpu().numpy()

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
_BENT_SIGN[[3 * (SMPL24.index(joint) - 1) + axis for joint, axis, _ in HINGES]] = [
    sign for _, _, sign in HINGES]
_HINGE_SLOPE = -_BENT_SIGN / _HINGE_STD_RAD
