"""A second look at people: the picture around each, resampled and read by MoveNet Thunder's layers.

Features of the whole picture are too coarse for the wrists of a small person. Here the square
around each person is resampled from a picture of twice the detector's resolution. Thunder's layers,
which were trained on real people and are not trained further, give log-votes for each joint; the
votes that the network itself has read from the pyramid are added to them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ros2_pose.networks import thunder
from ros2_pose.networks.tian import roi
from ros2_pose.skeleton import COCO17

CELLS = 64  # of a joint's map, each way
_SIDE = thunder.STRIDE * CELLS  # px of a resampled square
_STRIDES = (1, 2, 4)  # of the pictures that squares are resampled from
_WINDOW = 3  # cells around the peak that state its position
_K = len(COCO17)


class SecondLook(nn.Module):
    """Log-votes of N people's joints, from the picture around them."""

    def __init__(self) -> None:
        super().__init__()
        self.graph = thunder.load_heads().requires_grad_(False)
        self.heat_gain = nn.Parameter(torch.ones(_K))
        self.guess_gain = nn.Parameter(torch.ones(_K))

    def forward(self, pictures: Tensor, squares: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Read the joints inside squares.

        Args:
            pictures (B, 3, h, w): RGB, 0..255.
            squares (N, 4): px of the picture; black outside of it, as Thunder was trained.
            image (N,): index of the picture of each square.
        Returns:
            Log-votes (N, 17, cells, cells), and the positions (N, 17, 2, cells, cells) x, y that
            cells vote for, in cells.
        """
        levels = [pictures if stride == 1 else F.avg_pool2d(pictures, stride)
                  for stride in _STRIDES]
        with torch.no_grad():
            crops = roi.roi_align(levels, squares, image, _SIDE, _STRIDES)
            center, heat, offset, displacement = self.graph(crops)
            guess = _guess(center, displacement)
        rows = torch.arange(CELLS, device=heat.device, dtype=heat.dtype)
        distance2 = ((rows - guess[..., 0, None])**2)[..., :, None] \
            + ((rows - guess[..., 1, None])**2)[..., None, :]
        near = (distance2.sqrt() + thunder.WIDTH).log()
        votes = self.heat_gain[:, None, None] * F.logsigmoid(heat) \
            - self.guess_gain[:, None, None] * near
        shift = offset.unflatten(1, (_K, 2)).flip(2)
        places = torch.stack(torch.meshgrid(rows, rows, indexing="xy"))
        return votes, places + shift


def _guess(center: Tensor, displacement: Tensor) -> Tensor:
    """Where Thunder expects the joints (N, 17, 2) y, x of the person in the middle, in cells."""
    cells = torch.arange(CELLS, device=center.device, dtype=center.dtype)
    from_middle = (cells - CELLS / 2)**2
    distance = (from_middle[:, None] + from_middle[None]).sqrt()
    best = (center[:, 0].sigmoid() / (distance + thunder.WIDTH)).flatten(1).argmax(1)
    row, column = best // CELLS, best % CELLS
    person = torch.arange(len(center), device=center.device)
    moved = displacement[person, :, row, column].unflatten(1, (_K, 2))
    return moved + torch.stack([row, column], 1)[:, None]


def read_votes(votes: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Read each joint at the peak of its votes.

    Args:
        votes (N, K, h, w): log-votes; places (N, K, 2, h, w): what each cell votes for, cells.
    Returns:
        Points (N, K, 2) x, y: mean of the votes near the peak; standard deviations (N, K, 2) of all
        votes from there, in cells.
    """
    height, width = votes.shape[-2:]
    best = votes.flatten(2).argmax(2)
    row, column = best // width, best % width
    rows = torch.arange(height, device=votes.device)
    columns = torch.arange(width, device=votes.device)
    near = ((rows - row[..., None]).abs() <= _WINDOW)[..., :, None] \
        & ((columns - column[..., None]).abs() <= _WINDOW)[..., None, :]
    local = votes.masked_fill(~near, -torch.inf).flatten(2).softmax(2)
    points = (places.flatten(3) * local[:, :, None]).sum(3)
    share = votes.flatten(2).softmax(2)
    squared = (places.flatten(3) - points[..., None]).square()
    return points, (squared * share[:, :, None]).sum(3).sqrt()
