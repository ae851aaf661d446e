"""Keypoints read from heat-maps: peaks for people not known yet, and the best cell near a guess.

Points are x, y px of the input; cell c lies at c * stride px.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ros2_pose.networks.hourglass.network import HEAT_STRIDE
from ros2_pose.networks.kblock import joint_votes

_RIVALS = 2  # cells: a peak is the maximum of the cells so near
_TIE = 1e-6  # score by which neighbours differ at least
_VOTE_RADIUS = 3  # cells: the neighbourhood that votes for position and covariance
_NEAR_RADIUS = 10  # cells: the neighbourhood of a guess that is searched

Peaks = tuple[Tensor, Tensor, Tensor, Tensor]
"""N peaks: keypoint (N,), points (N, 2) px, covariances of their votes (N, 2, 2) px^2, and
scores (N,) 0..1."""


def find_peaks(heat: Tensor, offsets: Tensor | None, least: float, most: int) -> Peaks:
    """Return the local maxima of all heat-maps, of each at most `most`, best first.

    Args:
        heat (19, h, w): logits.
        offsets (17, 2, h, w): y, x cells, from a cell to the keypoint there; None: positions are
            the means of votes.
        least: score of a peak.
        most: number of peaks of a heat-map.
    """
    size = 2 * _RIVALS + 1
    order = torch.arange(size * size, device=heat.device).view(size, size)
    rows, columns = (torch.arange(n, device=heat.device) % size for n in heat.shape[1:])
    scores = heat.sigmoid() + _TIE * order[rows[:, None], columns]  # of equal cells, one
    highest = F.max_pool2d(scores[None], size, 1, _RIVALS)[0]
    scores = torch.where((scores == highest) & (scores >= least), scores, 0.0).flatten(1)
    best, cell = scores.topk(min(most, scores.shape[1]), dim=1)
    keypoint, rank = (best > 0).nonzero(as_tuple=True)
    cell = cell[keypoint, rank]
    row, column = cell // heat.shape[2], cell % heat.shape[2]
    points, cov = _read(heat, offsets, keypoint, row, column)
    return keypoint, points, cov, best[keypoint, rank].clamp(max=1)


def _read(heat: Tensor, offsets: Tensor | None, keypoint: Tensor, row: Tensor,
          column: Tensor) -> tuple[Tensor, Tensor]:
    """Return points (N, 2) px and covariances (N, 2, 2) px^2 at cells of the heat-maps."""
    votes = window(heat, keypoint, row, column, _VOTE_RADIUS)
    mean, cov = joint_votes(F.logsigmoid(votes))
    cells = torch.stack([column, row], 1)
    points = cells + mean - (_VOTE_RADIUS + 0.5)
    if offsets is not None:
        known = keypoint < len(offsets)
        shift = offsets[keypoint.clamp(max=len(offsets) - 1), :, row, column].flip(1)
        points = torch.where(known[:, None], cells + shift, points)
    return points * HEAT_STRIDE, cov * HEAT_STRIDE**2


def window(maps: Tensor, number: Tensor, row: Tensor, column: Tensor, radius: int) -> Tensor:
    """Return the cells (N, 2 radius + 1, 2 radius + 1) around cells of maps (C, h, w).

    Args:
        number (N,): of the map; row, column (N,): of the cell. Beyond the maps, cells are -inf.
    """
    padded = F.pad(maps, (radius,) * 4, value=-torch.inf)
    steps = torch.arange(2 * radius + 1, device=maps.device)
    return padded[number[:, None, None], (row[:, None] + steps)[:, :, None],
                  (column[:, None] + steps)[:, None]]


def find_near(heat: Tensor, offsets: Tensor | None, keypoint: Tensor, guess: Tensor,
              reach_px: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Find keypoints near guesses: the cell of the greatest score times a Gaussian of the distance.

    Args:
        heat, offsets: see `find_peaks`.
        keypoint (N,), guess (N, 2) px.
        reach_px (N,): standard deviation of the Gaussian.
    Returns:
        Points (N, 2) px, covariances of their votes (N, 2, 2) px^2 and scores (N,): the product.
    """
    last = torch.tensor(heat.shape[:0:-1], device=heat.device) - 1
    centre = torch.minimum((guess / HEAT_STRIDE).round().clamp(min=0), last).long()
    column, row = centre.unbind(1)
    steps = torch.arange(-_NEAR_RADIUS, _NEAR_RADIUS + 1, device=heat.device)
    x, y = ((centre[..., None] + steps) * HEAT_STRIDE - guess[..., None]).unbind(1)
    squared = y[:, :, None].square() + x[:, None].square()
    scores = window(heat, keypoint, row, column, _NEAR_RADIUS).sigmoid() \
        * (-squared / (2 * reach_px.square())[:, None, None]).exp()
    best, index = scores.flatten(1).max(1)
    row = (row + index // len(steps) - _NEAR_RADIUS).clamp(0, heat.shape[1] - 1)
    column = (column + index % len(steps) - _NEAR_RADIUS).clamp(0, heat.shape[2] - 1)
    points, cov = _read(heat, offsets, keypoint, row, column)
    return points, cov, best
