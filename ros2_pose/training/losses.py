"""Losses on SMPL parameters that several networks share (Tian et al. 2023, eqs 1-5)."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def shape_loss(betas: Tensor, truth: Tensor) -> Tensor:
    """(...,) L_shape (eq. 3) of (..., 10): quadratic up to a difference of 1.5, then linear."""
    return 2 / 3 * torch.nn.functional.smooth_l1_loss(betas, truth, beta=1.5,
                                                      reduction="none").sum(-1)


def pose_loss(quats: Tensor, truth: Tensor) -> Tensor:
    """(...,) L_pose (eq. 5) without its norm term, for unit quaternions (..., 24, 4).

    q and -q are one rotation (the paper's form punishes one of them): the nearer counts.
    """
    same, opposite = (quats - truth).abs().sum(-1), (quats + truth).abs().sum(-1)
    return torch.minimum(same, opposite).sum(-1)


def gaussian_nll(squared: Tensor, std: Tensor, dimensions: int = 1) -> Tensor:
    """(...) L_KB without its regulariser (eq. 2), of an isotropic Gaussian: squared errors (...) in
    so many dimensions, and standard deviations (...)."""
    return dimensions * (std.log() + math.log(2 * math.pi) / 2) + squared / (2 * std.square())
