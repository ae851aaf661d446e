"""Log-votes for the joints of a person in a crop: those of Thunder's heads, and reading votes."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ros2_pose.networks.thunder import WIDTH

_WINDOW = 3  # cells around the peak that state its position


def thunder_votes(heat: Tensor, offset: Tensor, guess: Tensor, heat_gain: Tensor,
                  guess_gain: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log-votes of Thunder's heads, fewer with the distance from an expected position.

    Args:
        heat (N, K, h, w): logits; offset (N, 2 K, h, w): y, x, cells.
        guess (N, K, 2): y, x, cells, where the joints are expected.
        heat_gain, guess_gain (K,): weights of the heat-map and of the distance.
    Returns:
        Log-votes (N, K, h, w), and the positions (N, K, 2, h, w) x, y that cells vote for, cells.
    """
    rows, columns = (torch.arange(side, device=heat.device, dtype=heat.dtype)
                     for side in heat.shape[-2:])
    distance2 = ((rows - guess[..., 0, None])**2)[..., :, None] \
        + ((columns - guess[..., 1, None])**2)[..., None, :]
    near = (distance2.sqrt() + WIDTH).log()
    votes = heat_gain[:, None, None] * F.logsigmoid(heat) - guess_gain[:, None, None] * near
    shift = offset.unflatten(1, (heat.shape[1], 2)).flip(2)
    return votes, torch.stack(torch.meshgrid(columns, rows, indexing="xy")) + shift


def expected_joints(center: Tensor, displacement: Tensor,
                    middle: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return where Thunder expects the joints of a person, and the score of the person's centre.

    Args:
        center (N, 1, h, w): logits; displacement (N, 2 K, h, w): y, x, cells, from the centre.
        middle (N, 2): y, x, cells; the nearest person counts. None: the middle of the crop.
    Returns:
        Positions (N, K, 2) y, x, cells, and scores (N,) 0..1.
    """
    height, width = center.shape[-2:]
    if middle is None:
        middle = center.new_tensor([[height / 2, width / 2]]).expand(len(center), -1)
    rows, columns = (torch.arange(side, device=center.device, dtype=center.dtype)
                     for side in (height, width))
    distance = ((rows - middle[:, :1])[:, :, None]**2
                + (columns - middle[:, 1:])[:, None]**2).sqrt()
    probability = center[:, 0].sigmoid()
    best = (probability / (distance + WIDTH)).flatten(1).argmax(1)
    row, column = best // width, best % width
    person = torch.arange(len(center), device=center.device)
    moved = displacement[person, :, row, column].unflatten(1, (-1, 2))
    return moved + torch.stack([row, column], 1)[:, None], probability[person, row, column]


def read_votes(votes: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Read each joint at the peak of its votes.

    Args:
        votes (N, K, h, w): log-votes.
        places (N, K, 2, h, w): x, y that each cell votes for, cells.
    Returns:
        Points (N, K, 2) x, y: mean of the votes near the peak; standard deviations (N, K, 2) of all
        votes from there, in cells.
    """
    local = votes.masked_fill(~near_peak(votes), -torch.inf).flatten(2).softmax(2)
    points = (places.flatten(3) * local[:, :, None]).sum(3)
    share = votes.flatten(2).softmax(2)
    squared = (places.flatten(3) - points[..., None]).square()
    return points, (squared * share[:, :, None]).sum(3).sqrt()


def near_peak(votes: Tensor) -> Tensor:
    """Return whether cells are near the peak of their map: (N, K, h, w) bool."""
    height, width = votes.shape[-2:]
    best = votes.flatten(2).argmax(2)
    row, column = best // width, best % width
    rows = torch.arange(height, device=votes.device)
    columns = torch.arange(width, device=votes.device)
    return ((rows - row[..., None]).abs() <= _WINDOW)[..., :, None] \
        & ((columns - column[..., None]).abs() <= _WINDOW)[..., None, :]
