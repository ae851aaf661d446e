"""The losses of Tian, Gao and Tan 2023 (eqs 1-5 and 17), repaired, and as printed if it differs.

Sums over coordinates, joints and coefficients are the paper's; each person's loss is by itself.
What is not known of a person is NaN in the truth and does not count.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

REGULARISER = 0.2  # omega_c of eq. 2
UNIT_NORM = 1.0  # omega_p of eq. 5


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


def pose_loss_as_printed(quats: Tensor, truth: Tensor) -> Tensor:
    """(...,) L_pose (eq. 5) of (..., 24, 4): one sign counts, and one norm, that of all joints."""
    return (quats - truth).abs().sum((-2, -1)) \
        + UNIT_NORM * (1 - quats.square().sum((-2, -1))).abs()


def unit_norm_loss(quats: Tensor) -> Tensor:
    """(...,) the norm term of L_pose (eq. 5), for each joint of (..., 24, 4) by itself."""
    return UNIT_NORM * (1 - quats.square().sum(-1)).abs().sum(-1)


def gaussian_nll(squared: Tensor, std: Tensor, dimensions: int = 1) -> Tensor:
    """(...) L_KB without its regulariser (eq. 2), of an isotropic Gaussian: squared errors (...) in
    so many dimensions, and standard deviations (...)."""
    return dimensions * (std.log() + math.log(2 * math.pi) / 2) + squared / (2 * std.square())


def kblock_loss(points: Tensor, std: Tensor, truth: Tensor, regulariser: str = "floor") -> Tensor:
    """(N,) L_KB (eq. 2) of points (N, K, 2) with deviations c (N, K, 2), in cells; truth likewise.

    The paper's regulariser has lost its fraction bar in print: "floor" is omega / (2 c^2), which
    keeps c from 0 (least at c^2 = error^2 + omega); "ceiling" is omega c^2 / 2, which keeps c
    small. Missing joints are NaN in the truth.
    """
    known = truth.isfinite()
    squared = (points - torch.where(known, truth, points.detach())).square()
    extra = {"floor": 1 / (2 * std.square()), "ceiling": std.square() / 2}[regulariser]
    loss = gaussian_nll(squared, std) + REGULARISER * extra
    return torch.where(known, loss, 0.0).sum((-2, -1))


def vote_loss(maps: Tensor, temperature: Tensor, truth: Tensor) -> Tensor:
    """(N,) cross-entropy of the k-block's votes with those of who votes for truth (N, K, 2) cells,
    give or take one; summed over joints and axes. maps (N, K, h, w).

    Not in the paper. L_KB moves a mean by error / c^2: next to nothing while c is large; and votes
    for left and right alike have their mean in the middle, which pleases it. Here they do not.
    """
    known = truth.isfinite()
    loss = 0.0
    for logits, goal in ((maps.mean(-2), truth[..., 0]), (maps.mean(-1), truth[..., 1])):
        cells = torch.arange(logits.shape[-1], device=maps.device) + 0.5
        goal = torch.where(goal.isfinite(), goal, 0.0)[..., None]
        wanted = (-(cells - goal).square() / 2).softmax(-1)
        loss = loss - (wanted * (logits / temperature).log_softmax(-1)).sum(-1)
    return torch.where(known.all(-1), loss, 0.0).sum(-1)


def smpl_loss(joints: Tensor, truth: Tensor) -> Tensor:
    """(...,) L_SMPL m^2: squared distances of joints (..., J, 3) m; NaN: unknown."""
    known = truth.isfinite()
    return torch.where(known, joints - torch.where(known, truth, joints.detach()), 0.0
                       ).square().sum((-2, -1))


def heatmap_loss(maps: Tensor, truth: Tensor, std_cells: float) -> Tensor:
    """(N,) what the k-block is compared with: squared differences of maps (N, K, h, w) from a
    Gaussian bump of height 1 at truth (N, K, 2) in cells, summed over cells and joints."""
    known = truth.isfinite().all(-1)
    rows = torch.arange(maps.shape[-2], device=maps.device) + 0.5
    columns = torch.arange(maps.shape[-1], device=maps.device) + 0.5
    x, y = torch.where(known[..., None], truth, 0.0).unbind(-1)
    bump_x = (-(columns - x[..., None]).square() / (2 * std_cells**2)).exp()
    bump_y = (-(rows - y[..., None]).square() / (2 * std_cells**2)).exp()
    off = (maps - bump_y[..., :, None] * bump_x[..., None, :]).square().sum((-2, -1))
    return torch.where(known, off, 0.0).sum(-1)
