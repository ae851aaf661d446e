"""The k-block: votes of a heat-map become a position and its uncertainty.

Tian, Gao and Tan 2023, section 2.2: every row and column of a joint's heat-map votes for a
coordinate with its softmax weight. The position is the mean of the votes. The paper takes as
uncertainty the standard deviation of the weighted votes z_j * e_j, which is large for a certain and
small for a uniform vote; here it is the standard deviation of the vote distribution,
c^2 = sum_j z_j (e_j - mu)^2, which is 0 for a single vote.
"""

from __future__ import annotations

import torch

_LEAST_VARIANCE = 1e-12  # cells^2: at 0 the square root has no gradient


def axis_votes(logits: torch.Tensor, positions: torch.Tensor | None = None):
    """Mean and variance of the votes along the last axis.

    logits (..., n): unnormalised log-votes; -inf excludes a cell. positions (n,) or (..., n) of the
    cells, by default their centres 0.5, 1.5, ... Returns mean (...) and variance (...).
    Also reads per-axis classifiers (SimCC) as a k-block.
    """
    n = logits.shape[-1]
    if positions is None:
        positions = torch.arange(n, dtype=logits.dtype, device=logits.device) + 0.5
    votes = logits.softmax(-1)
    mean = (votes * positions).sum(-1)
    variance = (votes * (positions - mean[..., None]) ** 2).sum(-1)
    return mean, variance


def kblock(heatmap: torch.Tensor, temperature: float = 1.0):
    """Position and uncertainty of each joint from its heat-map, the two axes independently.

    heatmap (..., h, w): logits, one map a joint. temperature divides the per-axis logits, which are
    means over the other axis (the paper's sums, without their growth with the resolution).
    Returns mean (..., 2) as u, v and standard deviation (..., 2) as c_u, c_v, both in cells, cell
    centres at +0.5. Source: Tian et al. 2023, section 2.2, with the distribution's deviation.
    """
    u, var_u = axis_votes(heatmap.mean(-2) / temperature)
    v, var_v = axis_votes(heatmap.mean(-1) / temperature)
    variance = torch.stack([var_u, var_v], -1).clamp(min=_LEAST_VARIANCE)
    return torch.stack([u, v], -1), variance.sqrt()


def joint_votes(logits: torch.Tensor, left_top: torch.Tensor | None = None):
    """Mean and full covariance when every cell of a map or a part of it votes for itself.

    logits (..., h, w): unnormalised log-votes; -inf excludes a cell. left_top (..., 2): u, v of the
    part's first cell. Returns mean (..., 2) as u, v and covariance (..., 2, 2), in cells and
    cells^2, cell centres at +0.5. For logits a_u[j] + a_v[i] the axes are independent and this is
    the k-block of those axes.
    """
    h, w = logits.shape[-2:]
    votes = logits.flatten(-2).softmax(-1).unflatten(-1, (h, w))
    u, var_u, offset_u = _marginal(votes.sum(-2))
    v, var_v, offset_v = _marginal(votes.sum(-1))
    cross = torch.einsum("...ij,...i,...j->...", votes, offset_v, offset_u)
    mean = torch.stack([u, v], -1)
    cov = torch.stack([torch.stack([var_u, cross], -1), torch.stack([cross, var_v], -1)], -2)
    return (mean if left_top is None else mean + left_top), cov


def _marginal(votes: torch.Tensor):
    """Mean (...), variance (...), offsets from the mean (..., n) of normalised votes (..., n)."""
    positions = torch.arange(votes.shape[-1], dtype=votes.dtype, device=votes.device) + 0.5
    mean = (votes * positions).sum(-1)
    offsets = positions - mean[..., None]
    return mean, (votes * offsets**2).sum(-1), offsets
