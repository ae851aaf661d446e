"""Algorithm 1 of Tian et al. 2023 as printed, for comparison with `body.align`."""

from __future__ import annotations

import torch
from torch import Tensor


def align_as_printed(points: Tensor, sigma: Tensor, model: Tensor,
                     iterations: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """Rotate and place a body model so that it matches points; no point may be missing.

    The paper does not say over what it takes the standard deviation of points: here, all numbers.

    Args:
        points (P, K, 2): x/z, y/z.
        sigma (P, K): their standard deviation c; ones for the unweighted version.
        model (P, K, 3): m.
    Returns:
        points (P, K, 2) of the model, projected; R (P, 3, 3), image to model axes, may be a
        reflection; depths (P, K), z in units of the model's standard deviation.
    Source:
        Tian et al. 2023, Algorithm 1, eqs. 6-16.
    """
    mean, std = _mean_and_std(points)
    flat = (points - mean) / std
    model_mean, model_std = _mean_and_std(model)
    shape = (model - model_mean) / model_std
    depths = torch.zeros_like(flat[..., :1])
    for _ in range(iterations):
        moment = (torch.cat([flat, depths], 2) / sigma[..., None]).mT @ shape  # P W Q^T
        u, _, vh = torch.linalg.svd(moment)
        rotmat = vh.mT @ u.mT  # R of eq. 15
        rotated = shape @ rotmat  # R^T q of eq. 16, in rows
        depths = rotated[..., 2:]
    return rotated[..., :2] * std + mean, rotmat, depths[..., 0]


def _mean_and_std(values: Tensor) -> tuple[Tensor, Tensor]:
    """(P, 1, D) mean and (P, 1, 1) standard deviation of values (P, K, D)."""
    mean = values.mean(1, keepdim=True)
    return mean, (values - mean).square().mean((1, 2), keepdim=True).sqrt()
