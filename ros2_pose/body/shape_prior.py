"""Prior of the body shape: adults and children, and people with a known height.

In one view the distance is proportional to the height. The height of an adult, and so the distance,
is known to about 5 % without a measurement; a given height brings both down to a centimetre or two.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ros2_pose.body.gaussian import add_information
from ros2_pose.body.model import BodyModel

_CHILDREN = 0.1  # share of the population under 18
_CHILD_BETA, _CHILD_BETA_STD = -1.9, 0.8  # of the first beta, the height, of children
_PROPOSED_STD = 0.6  # of a proposed first beta, when it tells children from adults
_HEIGHT_STD_M = 0.01  # of a given height


def shape_prior(model: BodyModel, proposed: Tensor, adult_height_m: float,
                height_m: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the Gaussian prior of betas.

    Args:
        proposed (P, 10): betas that the lift or a network proposes. They only tell children from
            adults.
        adult_height_m: the mean of adults.
        height_m (P,): known heights of people; NaN: unknown.
    Returns:
        mean (P, 10) and precision (P, 10, 10).
    """
    base_m, by_beta = model.stature
    adult_beta = float((adult_height_m - base_m) / by_beta[0])
    mean, precision = _adult_or_child(model, proposed, adult_beta)
    if height_m is not None:
        mean, precision = _with_height(model, mean, precision, height_m)
    return mean, precision


def _adult_or_child(model: BodyModel, proposed: Tensor,
                    adult_beta: float) -> tuple[Tensor, Tensor]:
    """Mean and precision of the mixture of adults and children, weighted by the proposal.

    The first beta of the mixture is one Gaussian of the same mean and variance (moment matching).
    """
    std = model.beta_std.to(proposed)
    first = proposed[:, 0]
    adult = _log_normal(first, adult_beta, math.hypot(float(std[0]), _PROPOSED_STD))
    child = _log_normal(first, _CHILD_BETA, math.hypot(_CHILD_BETA_STD, _PROPOSED_STD))
    child_share = torch.sigmoid(child - adult + math.log(_CHILDREN / (1 - _CHILDREN)))
    adult_share = 1 - child_share
    mean = torch.zeros_like(proposed)
    mean[:, 0] = child_share * _CHILD_BETA + adult_share * adult_beta
    variance = std.square().expand_as(proposed).clone()
    within = adult_share * std[0] ** 2 + child_share * _CHILD_BETA_STD**2
    between = child_share * adult_share * (_CHILD_BETA - adult_beta) ** 2
    variance[:, 0] = within + between
    return mean, variance.reciprocal().diag_embed()


def _log_normal(value: Tensor, mean: float, std: float) -> Tensor:
    """Logarithm of the normal density up to a constant."""
    return -((value - mean) / std) ** 2 / 2 - math.log(std)


def _with_height(model: BodyModel, mean: Tensor, precision: Tensor,
                 height_m: Tensor) -> tuple[Tensor, Tensor]:
    """Add a linear measurement of the betas for people with a known height."""
    base_m, by_beta = (value.to(mean) for value in model.stature)
    known = height_m.isfinite()
    height_precision = torch.where(known, _HEIGHT_STD_M**-2, 0.0).to(mean)
    growth_m = torch.where(known, height_m.to(mean) - base_m, 0.0)
    return add_information(
        mean, precision,
        more_precision=height_precision[:, None, None] * by_beta[:, None] * by_beta,
        more_information=(height_precision * growth_m)[:, None] * by_beta)
