"""Where a skeleton is that is seen in 2D with relative depths: at the distance that fits its size.

The bones' lengths are taken to be those of the mean body in total: a person 5 % taller is placed
5 % too near.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from ros2_pose.body.model import BodyModel
from ros2_pose.skeleton import SMPL24

_NEAREST_M, _FARTHEST_M = 0.1, 200.0
_PARENTS, _CHILDREN = map(list, zip(*SMPL24.edges))


@lru_cache(maxsize=1)
def mean_lengths2() -> float:
    """Return the sum of the squared lengths of the bones of the open body's mean shape, m^2."""
    rest = BodyModel.load().joints_rest(torch.zeros(1, 10))[0]
    return float((rest[_PARENTS] - rest[_CHILDREN]).square().sum())


def placed_joints(rays: Tensor, depths: Tensor, lengths2: Tensor | float) -> tuple[Tensor, Tensor]:
    """Place joints along their rays such that the bones have the given lengths in total.

    A bone is a vector D d + e with the distance D of the root, so that the sum of the squared
    lengths is a quadratic function of D.

    Args:
        rays (N, 24, 3): directions, scaled to a component of 1 along the line of sight.
        depths (N, 24): m, along the line of sight, relative to the root.
        lengths2: sum of the squared lengths of the bones, m^2; (N,) or of everyone.
    Returns:
        joints (N, 24, 3) m, and ok (N,) bool: there is such a distance, and it is plausible. NaN
        where not ok.
    """
    offsets = rays * depths[..., None]
    d = rays[:, _CHILDREN] - rays[:, _PARENTS]
    e = offsets[:, _CHILDREN] - offsets[:, _PARENTS]
    a, b, c = d.square().sum((1, 2)), (d * e).sum((1, 2)), e.square().sum((1, 2)) - lengths2
    distance = ((b.square() - a * c).clamp(min=1e-12).sqrt() - b) / a.clamp(min=1e-12)
    ok = (c < 0) & (distance > _NEAREST_M) & (distance < _FARTHEST_M)
    joints = rays * distance[:, None, None] + offsets
    return torch.where(ok[:, None, None], joints, torch.nan), ok
