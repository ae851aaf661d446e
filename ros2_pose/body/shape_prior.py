"""How tall and of what shape people are, before anybody is looked at: adults and children.

Height is what distance hangs on in one view. Of an adult nobody has measured, it is known to about
5 %, and so is the distance; a height that is given brings both down to a centimetre or two.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ros2_pose.body.model import BodyModel

_CHILDREN = 0.1  # share
_CHILD_BETA, _CHILD_BETA_STD = -1.9, 0.8  # of the first beta, the height, of people under 18
_PROPOSED_STD = 0.6  # how well a proposal of the first beta tells children from adults
_HEIGHT_STD_M = 0.01  # of a height that is given


def usual_shape(model: BodyModel, proposed: Tensor, adult_height_m: float,
                height: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean (P, 10) and precision (P, 10, 10) of the betas of P people.

    proposed: (P, 10) betas that somebody who looked (`Lift`) proposes; only whether they are a
    child's or an adult's matters. adult_height_m: the mean of adults. height: (P,) m of people
    whose height is known, else NaN.
    """
    base, by_beta = model.stature
    mean, precision = _adult_or_child(model, proposed, float((adult_height_m - base) / by_beta[0]))
    if height is not None:
        mean, precision = _with_height(model, mean, precision, height)
    return mean, precision


def _adult_or_child(model: BodyModel, proposed: Tensor,
                    adult_beta: float) -> tuple[Tensor, Tensor]:
    """The mixture of both, as probable as the proposal makes them, as one Gaussian."""
    std = model.beta_std.to(proposed)
    first = proposed[:, 0]
    adult = _log_normal(first, adult_beta, math.hypot(float(std[0]), _PROPOSED_STD))
    child = _log_normal(first, _CHILD_BETA, math.hypot(_CHILD_BETA_STD, _PROPOSED_STD))
    share = torch.sigmoid(child - adult + math.log(_CHILDREN / (1 - _CHILDREN)))
    mean = torch.zeros_like(proposed)
    mean[:, 0] = share * _CHILD_BETA + (1 - share) * adult_beta
    variance = std.square().expand_as(proposed).clone()
    variance[:, 0] = (1 - share) * std[0] ** 2 + share * _CHILD_BETA_STD**2 \
        + share * (1 - share) * (_CHILD_BETA - adult_beta) ** 2
    return mean, variance.reciprocal().diag_embed()


def _log_normal(value: Tensor, mean: float, std: float) -> Tensor:
    """Up to a constant."""
    return -((value - mean) / std) ** 2 / 2 - math.log(std)


def _with_height(model: BodyModel, mean: Tensor, precision: Tensor,
                 height: Tensor) -> tuple[Tensor, Tensor]:
    """One linear measurement of the betas more, for those whose height is known."""
    base, by_beta = (value.to(mean) for value in model.stature)
    known = height.isfinite()
    certainty = torch.where(known, _HEIGHT_STD_M**-2, 0.0).to(mean)
    more = certainty[:, None, None] * by_beta[:, None] * by_beta
    towards = certainty * torch.where(known, height.to(mean) - base, 0.0)
    total = precision + more
    right = (precision @ mean[..., None])[..., 0] + towards[:, None] * by_beta
    return torch.linalg.solve(total, right[..., None])[..., 0], total
