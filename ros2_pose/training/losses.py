"""The losses of Tian, Gao and Tan 2023 (eqs 1-5 and 17), repaired, and as printed if it differs.

Sums over coordinates, joints and coefficients are the paper's; a loss is per person. Unknown values
are NaN in the truth and do not count.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

REGULARISER = 0.2  # omega_c of eq. 2
UNIT_NORM = 1.0  # omega_p of eq. 5


def shape_loss(betas: Tensor, truth: Tensor) -> Tensor:
    """Return L_shape (...) of betas (..., 10): quadratic up to a difference of 1.5, then linear.

    Source: eq. 3.
    """
    return 2 / 3 * torch.nn.functional.smooth_l1_loss(betas, truth, beta=1.5,
                                                      reduction="none").sum(-1)


def pose_loss(quats: Tensor, truth: Tensor) -> Tensor:
    """Return L_pose (...) without its norm term, for unit quaternions (..., 24, 4).

    q and -q are one rotation, the nearer counts; the paper's form penalises one of them.

    Source: eq. 5.
    """
    same, opposite = (quats - truth).abs().sum(-1), (quats + truth).abs().sum(-1)
    return torch.minimum(same, opposite).sum(-1)


def pose_loss_as_printed(quats: Tensor, truth: Tensor) -> Tensor:
    """Return L_pose (...) of quaternions (..., 24, 4) with one sign and one norm of all joints.

    Source: eq. 5 as printed.
    """
    return (quats - truth).abs().sum((-2, -1)) \
        + UNIT_NORM * (1 - quats.square().sum((-2, -1))).abs()


def unit_norm_loss(quats: Tensor) -> Tensor:
    """Return the norm term (...) of L_pose (eq. 5), for each joint of (..., 24, 4) by itself."""
    return UNIT_NORM * (1 - quats.square().sum(-1)).abs().sum(-1)


def gaussian_nll(squared: Tensor, std: Tensor, dimensions: int = 1) -> Tensor:
    """Return L_KB (...) without its regulariser (eq. 2): -log of an isotropic Gaussian's density.

    Args:
        squared (...): squared errors.
        std (...): standard deviations.
        dimensions: of the Gaussian.
    """
    return dimensions * (std.log() + math.log(2 * math.pi) / 2) + squared / (2 * std.square())


def kblock_loss(points: Tensor, std: Tensor, truth: Tensor, regulariser: str = "floor",
                truth_std: Tensor | float = 0.0) -> Tensor:
    """Return L_KB (N,) of keypoints.

    Args:
        points, std, truth (N, K, 2): in cells; std is c of the paper, missing joints are NaN in the
            truth.
        regulariser: the paper's lacks its fraction bar in print. "floor" is omega / (2 c^2), which
            keeps c from 0 (minimum at c^2 = error^2 + omega); "ceiling" is omega c^2 / 2, which
            keeps c small.
        truth_std: (N, K, 2) or 0, of a truth that is itself uncertain, cells: then the errors have
            the variance c^2 + truth_std^2, and c is that of the network alone.
    Source: eq. 2.
    """
    known = truth.isfinite()
    squared = (points - torch.where(known, truth, points.detach())).square()
    extra = {"floor": 1 / (2 * std.square()), "ceiling": std.square() / 2}[regulariser]
    total_std = (std.square() + truth_std**2).sqrt()
    loss = gaussian_nll(squared, total_std) + REGULARISER * extra
    return torch.where(known, loss, 0.0).sum((-2, -1))


def vote_loss(votes: tuple[Tensor, ...], truth: Tensor,
              truth_std: Tensor | None = None) -> Tensor:
    """Return the cross-entropy (N,) of the k-block's votes with a Gaussian of 1 cell at the truth.

    Not in the paper. The gradient of L_KB on a mean is error / c^2, which is small while c is
    large, and L_KB accepts equal votes for the left and the right joint, which have their mean
    between them; the cross-entropy does not.

    Args:
        votes: logits (N, K, cells) for each axis: for x (N, K, w), for y (N, K, h).
        truth (N, K, axes): cells.
        truth_std (N, K, axes): cells; makes the Gaussian wider.
    """
    known = truth.isfinite()
    variance = 1.0 if truth_std is None else 1 + truth_std.square()
    widths = (variance * torch.ones_like(truth)).unbind(-1)
    loss = truth.new_zeros(())
    for logits, goal, width in zip(votes, truth.unbind(-1), widths):
        cells = torch.arange(logits.shape[-1], device=truth.device) + 0.5
        goal = torch.where(goal.isfinite(), goal, 0.0)[..., None]
        wanted = (-(cells - goal).square() / (2 * width[..., None])).softmax(-1)
        loss = loss - (wanted * logits.log_softmax(-1)).sum(-1)
    return torch.where(known.all(-1), loss, 0.0).sum(-1)


def smpl_loss(joints: Tensor, truth: Tensor) -> Tensor:
    """Return L_SMPL (...) m^2, the sum of squared distances of joints (..., J, 3) m."""
    known = truth.isfinite()
    error = joints - torch.where(known, truth, joints.detach())
    return torch.where(known, error, 0.0).square().sum((-2, -1))


def heatmap_loss(maps: Tensor, truth: Tensor, std_cells: float) -> Tensor:
    """Return the loss (N,) of heat-maps, the alternative to the k-block.

    It is the squared difference from a Gaussian of height 1, summed over cells and joints.

    Args:
        maps (N, K, h, w): heat-maps.
        truth (N, K, 2): cells.
        std_cells: standard deviation of the Gaussian.
    """
    known = truth.isfinite().all(-1)
    rows = torch.arange(maps.shape[-2], device=maps.device) + 0.5
    columns = torch.arange(maps.shape[-1], device=maps.device) + 0.5
    x, y = torch.where(known[..., None], truth, 0.0).unbind(-1)
    bump_x = (-(columns - x[..., None]).square() / (2 * std_cells**2)).exp()
    bump_y = (-(rows - y[..., None]).square() / (2 * std_cells**2)).exp()
    target = bump_y[..., :, None] * bump_x[..., None, :]
    error = (maps - target).square().sum((-2, -1))
    return torch.where(known, error, 0.0).sum(-1)


def keypoint_percent(error_px: Tensor, visible: Tensor, boxes: Tensor) -> Tensor:
    """Return the mean error of visible keypoints in % of the boxes' diagonals, for logs.

    Args:
        error_px (N, K): px, NaN: unknown.
        visible (N, K): bool.
        boxes (N, 4): x min, y min, x max, y max, px.
    """
    diagonal = (boxes[:, 2:] - boxes[:, :2]).norm(dim=1, keepdim=True)
    return torch.where(visible, 100 * error_px / diagonal, torch.nan).nanmean()
