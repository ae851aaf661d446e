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
from ros2_pose.networks.votes import expected_joints, thunder_votes
from ros2_pose.skeleton import COCO17

CELLS = 64  # of a joint's map, each way
_SIDE = thunder.STRIDE * CELLS  # px of a resampled square
_STRIDES = (1, 2, 4)  # of the pictures that squares are resampled from
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
            guess, _ = expected_joints(center, displacement)
        return thunder_votes(heat, offset, guess, self.heat_gain, self.guess_gain)
