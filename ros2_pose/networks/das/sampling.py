"""Reading maps of joints at points of their own."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def sample(maps: Tensor, image: Tensor, points: Tensor, stride: int) -> Tensor:
    """Read maps bilinearly; 0 outside of them.

    Args:
        maps (B, K, C, h, w): C channels of K joints, of B images; cell centres at +0.5.
        image (N,): index of the image of each person.
        points (N, K, S, 2): x, y, px; S for each joint.
        stride: of the maps, px.
    Returns:
        (N, K, S, C).
    """
    size = points.new_tensor(maps.shape[:2:-1]) * stride
    grid = 2 * points / size - 1
    out = points.new_zeros(*points.shape[:3], maps.shape[2])
    for number in image.unique().tolist():
        rows = (image == number).nonzero()[:, 0]
        values = F.grid_sample(maps[number].to(grid.dtype), grid[rows].transpose(0, 1),
                               align_corners=False)
        out = out.index_copy(0, rows, values.permute(2, 0, 3, 1))
    return out


def disc(count: int) -> Tensor:
    """Return points (count, 2) that fill the unit disc evenly; the first is near its centre."""
    number = torch.arange(count)
    radius = ((number + 0.5) / count).sqrt() if count > 1 else torch.zeros(1)
    angle = number * math.pi * (3 - math.sqrt(5))
    return torch.stack([radius * angle.cos(), radius * angle.sin()], 1)
