"""Targets and losses of Wang et al. 2022, with the constants of the authors' code.

Unknown values are NaN in the truth and do not count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ros2_pose.networks.das.flow import RealNvp
from ros2_pose.skeleton import COCO17
from ros2_pose.training.augment import Batch

POSITIVE_STRIDES = 1.5  # half side of the square of positive locations around a centre
_CENTERNESS = 2.5  # alpha of its fall-off
_ALPHA, _GAMMA = 0.25, 2.0  # of the focal loss
_DEPTH_BETA = 1 / 9
_HIPS = [COCO17.index("left_hip"), COCO17.index("right_hip")]


def centers_of(batch: Batch, kind: str) -> Tensor:
    """Return the centres (N, 2) px of people: the pelvis if the picture shows it, or their boxes'.

    Args:
        kind: the setting `center` of `DasConfig`.
    """
    middle = (batch.boxes[:, :2] + batch.boxes[:, 2:]) / 2
    if kind == "box":
        return middle
    pelvis = batch.keypoints[:, _HIPS].mean(1)
    shown = ((pelvis >= 0) & (pelvis < batch.images.shape[-1])).all(1, keepdim=True)
    return torch.where(shown, pelvis, middle)


def levels_of(batch: Batch, centers: Tensor, reaches: Sequence[int]) -> Tensor:
    """Return the level (N,) of people by the greatest distance of a keypoint from the centre."""
    distance = (batch.keypoints - centers[:, None]).norm(dim=2)
    distance = torch.where(distance.isfinite(), distance, 0.0)
    greatest = distance.amax(1) if len(distance) else distance.new_zeros(0)
    return torch.bucketize(greatest, distance.new_tensor(reaches[1:]))


def positives(places: Tensor, centers: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Assign the locations of one level of one image to its people: the closest centre wins.

    Args:
        places (h, w, 2): centres of the cells, px.
        centers (P, 2): of the people of this level and image, px.
        stride: of the level, px.
    Returns:
        Index of the person (h, w), -1 for none, and centerness (h, w).
    """
    if not len(centers):
        none = places.new_full(places.shape[:2], -1, dtype=torch.long)
        return none, places.new_zeros(places.shape[:2])
    away = places[None] - centers[:, None, None]
    within = away.abs().amax(3) <= POSITIVE_STRIDES * stride
    distance = torch.where(within, away.norm(dim=3), torch.inf)
    nearest, person = distance.min(0)
    longest = math.sqrt(2) * POSITIVE_STRIDES * stride
    return (torch.where(nearest.isfinite(), person, -1),
            torch.exp(-_CENTERNESS * nearest / longest))


def is_inside(places: Tensor, boxes: Tensor) -> Tensor:
    """Return bool (h, w): locations (h, w, 2) px in one of boxes (M, 4) px."""
    x, y = places[..., None, :].unbind(-1)
    inside = (x >= boxes[:, 0]) & (y >= boxes[:, 1]) & (x < boxes[:, 2]) & (y < boxes[:, 3])
    return inside.any(-1)


def focal_loss(logits: Tensor, is_person: Tensor, counts: Tensor) -> Tensor:
    """Return the focal loss, summed over locations that count.

    Args:
        logits, is_person, counts: all of one shape; the latter two bool.
    """
    wrong = torch.where(is_person, 1 - logits.sigmoid(), logits.sigmoid())
    share = torch.where(is_person, _ALPHA, 1 - _ALPHA)
    entropy = F.binary_cross_entropy_with_logits(logits, is_person.to(logits), reduction="none")
    return torch.where(counts, share * wrong**_GAMMA * entropy, 0.0).sum()


def residual_likelihood(error: Tensor, std: Tensor, flow: RealNvp | None) -> Tensor:
    """Return the negative residual log-likelihood (M,) of errors, less a constant.

    It is that of Laplace's distribution with scale std, and that of the learned distribution of
    error / std; without a flow Laplace's alone.

    Args:
        error, std (M, D): in the same unit.
        flow: of D dimensions.
    Source: Li et al. 2021, eq. 9; Wang et al. 2022, eq. 9.
    """
    standardised = error / std
    log_std = std.log().sum(1)
    laplace = log_std + standardised.abs().sum(1)
    if flow is None:
        return laplace
    return laplace + log_std - flow.log_density(standardised)


def joint_loss(found: Tensor, std: Tensor, truth: Tensor, unit: Tensor, flow: RealNvp | None,
               truth_std: Tensor | float = 0.0) -> Tensor:
    """Return the mean loss of the known joints of N people; 0 if none is known.

    Args:
        found, std, truth (N, K, D): joints with a NaN in the truth are unknown.
        unit (N, 1, D): what errors are relative to, so that a person's size does not matter.
        flow: of D dimensions, or None.
        truth_std: standard deviation of the truth, (N, K, D) or 0.
    """
    known = truth.isfinite().all(2)
    total_std = ((std / unit).square() + (truth_std / unit)**2).sqrt()
    error = (found - torch.where(known[..., None], truth, 0.0)) / unit
    if not known.any():
        return 0 * error.sum()
    return residual_likelihood(error[known], total_std[known], flow).mean()


def depth_loss(log_depth: Tensor, truth: Tensor) -> Tensor:
    """Return the mean loss of depths by the focal length, (N,) logarithms; NaN: unknown.

    Of logarithms, unlike the paper's: errors of near and far people count alike.
    """
    known = truth.isfinite()
    if not known.any():
        return 0 * log_depth.sum()
    return F.smooth_l1_loss(log_depth[known], truth[known], beta=_DEPTH_BETA)
