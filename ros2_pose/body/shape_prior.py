"""Prior of the body shape: adults and children, and people with a known height.

In one view the distance is proportional to the height. The height of an adult, and so the distance,
is known to about 5 % without a measurement; a given height brings both down to a centimetre or two.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import expit

from ros2_pose.body.gaussian import add_information
from ros2_pose.body.model import BodyModel

_CHILDREN = 0.1  # share of the population under 18
_CHILD_BETA, _CHILD_BETA_STD = -1.9, 0.8  # of the first beta, the height, of children
_PROPOSED_STD = 0.6  # of a proposed first beta, when it tells children from adults
_HEIGHT_STD_M = 0.01  # of a given height


def shape_prior(model: BodyModel, proposed: np.ndarray, adult_height_m: float,
                height_m: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
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
    mean, precision = _adult_or_child(model.beta_std.double().numpy(), proposed, adult_beta)
    if height_m is not None:
        mean, precision = _with_height(model, mean, precision, height_m)
    return mean, precision


def _adult_or_child(std: np.ndarray, proposed: np.ndarray,
                    adult_beta: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and precision of the mixture of adults and children, weighted by the proposal.

    The first beta of the mixture is one Gaussian of the same mean and variance (moment matching).

    Args:
        std (10,): of the betas of adults.
    """
    first = proposed[:, 0]
    adult = _log_normal(first, adult_beta, math.hypot(std[0], _PROPOSED_STD))
    child = _log_normal(first, _CHILD_BETA, math.hypot(_CHILD_BETA_STD, _PROPOSED_STD))
    child_share = expit(child - adult + math.log(_CHILDREN / (1 - _CHILDREN)))
    adult_share = 1 - child_share
    mean = np.zeros_like(proposed)
    mean[:, 0] = child_share * _CHILD_BETA + adult_share * adult_beta
    within = adult_share * std[0] ** 2 + child_share * _CHILD_BETA_STD**2
    between = child_share * adult_share * (_CHILD_BETA - adult_beta) ** 2
    precision = np.repeat(np.diag(std**-2)[None], len(mean), 0)
    precision[:, 0, 0] = 1 / (within + between)
    return mean, precision


def _log_normal(value: np.ndarray, mean: float, std: float) -> np.ndarray:
    """Logarithm of the normal density up to a constant."""
    return -((value - mean) / std) ** 2 / 2 - math.log(std)


def _with_height(model: BodyModel, mean: np.ndarray, precision: np.ndarray,
                 height_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Add a linear measurement of the betas for people with a known height."""
    base_m, by_beta = (value.double().numpy() for value in model.stature)
    known = np.isfinite(height_m)
    height_precision = np.where(known, _HEIGHT_STD_M**-2, 0.0)
    growth_m = np.where(known, height_m - base_m, 0.0)
    return add_information(
        mean, precision,
        more_precision=height_precision[:, None, None] * by_beta[:, None] * by_beta,
        more_information=(height_precision * growth_m)[:, None] * by_beta)
