"""The k-block: votes of a heat-map become a position and its uncertainty.

Every row and column of a joint's heat-map votes for a coordinate with its softmax weight. The
position is the mean of the votes. The paper takes as uncertainty the standard deviation of the
weighted votes z_j * e_j, which is large for a certain and small for a uniform vote; here it is the
standard deviation of the vote distribution, c^2 = sum_j z_j (e_j - mu)^2, 0 for a single vote.

Source: Tian, Gao and Tan 2023, section 2.2.
"""

from __future__ import annotations

import torch

_LEAST_VARIANCE = 1e-12  # cells^2: at 0 the square root has no gradient


def axis_votes(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and variance (...) of the votes along the last axis.

    Also reads per-axis classifiers (SimCC) as a k-block.

    Args:
        logits (..., n): unnormalised log-votes; -inf excludes a cell. Cell centres are at +0.5.
    """
    mean, variance, _ = _marginal(logits.softmax(-1))
    return mean, variance


def kblock(heatmap: torch.Tensor, temperature: float | torch.Tensor = 1.0
           ) -> tuple[torch.Tensor, torch.Tensor]:
    """Read position and uncertainty of each joint from its heat-map, the axes independently.

    Args:
        heatmap (..., h, w): logits, one map a joint.
        temperature: divides the per-axis logits, which are means over the other axis (the paper's
            sums would grow with the resolution).
    Returns:
        Mean (..., 2) u, v and standard deviation (..., 2), in cells, cell centres at +0.5.
    """
    u, var_u = axis_votes(heatmap.mean(-2) / temperature)
    v, var_v = axis_votes(heatmap.mean(-1) / temperature)
    variance = torch.stack([var_u, var_v], -1).clamp(min=_LEAST_VARIANCE)
    return torch.stack([u, v], -1), variance.sqrt()


def joint_votes(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and full covariance when every cell of a map votes for itself.

    For logits a_u[j] + a_v[i] the axes are independent and this is the k-block of those axes.

    Args:
        logits (..., h, w): unnormalised log-votes; -inf excludes a cell.
    Returns:
        Mean (..., 2) u, v in cells and covariance (..., 2, 2) in cells^2, cell centres at +0.5.
    """
    h, w = logits.shape[-2:]
    votes = logits.flatten(-2).softmax(-1).unflatten(-1, (h, w))
    u, var_u, offset_u = _marginal(votes.sum(-2))
    v, var_v, offset_v = _marginal(votes.sum(-1))
    cross = torch.einsum("...ij,...i,...j->...", votes, offset_v, offset_u)
    mean = torch.stack([u, v], -1)
    cov = torch.stack([torch.stack([var_u, cross], -1), torch.stack([cross, var_v], -1)], -2)
    return mean, cov


def _marginal(votes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return mean and variance (...) of normalised votes (..., n), and the cells' offsets from it.
    """
    positions = torch.arange(votes.shape[-1], dtype=votes.dtype, device=votes.device) + 0.5
    mean = (votes * positions).sum(-1)
    offsets = positions - mean[..., None]
    return mean, (votes * offsets**2).sum(-1), offsets
