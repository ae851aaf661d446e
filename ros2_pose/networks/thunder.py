"""Google's MoveNet SinglePose Thunder in torch, as a refiner of people found by others.

The original looks for the person nearest to the middle of a square of 256 px. Cut at its heads and
decoded here, it looks for the person that its guide describes, in crops of any shape, and each
keypoint has the covariance of its heat-map's votes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import fx, nn

from ros2_pose.config import PoseConfig
from ros2_pose.networks.heads import Heads
from ros2_pose.networks.kblock import joint_votes
from ros2_pose.networks.keypoint_noise import THUNDER_NOISE
from ros2_pose.networks.refiner import Guide, Refined, Refiner
from ros2_pose.networks.tfjs import load_tfjs
from ros2_pose.weights import fetch

_HEADS = [f"StatefulPartitionedCall/{name}/BiasAdd" for name in (
    "center_0/conv2d_4", "kpt_heatmap_0/conv2d_5", "kpt_offset_0/conv2d_7",
    "kpt_regress_0/conv2d_6")]
_STRIDE = 4  # px of the crop per cell of the heads
_WIDTH = 1.8  # cells: the original's; a probability is divided by its distance plus this
_VOTE_RADIUS = 3  # cells: the neighbourhood that votes for the covariance


def load_heads() -> fx.GraphModule:
    """Return the module that computes the heads; see `Thunder.heads`."""
    return load_tfjs(fetch("movenet_thunder.json"), fetch("movenet_thunder.bin"), _HEADS)


class Thunder(nn.Module, Refiner):
    """MoveNet SinglePose Thunder (Google, Apache-2.0), 6.2 M parameters, 17 COCO keypoints."""

    long_side = 256
    noise = THUNDER_NOISE

    def __init__(self, config: PoseConfig = PoseConfig(),
                 device: torch.device | str = "cpu") -> None:
        """Load the network.

        Args:
            config: settings; read is `engine`, which computes on a CPU.
            device: torch device that the network computes on.
        """
        nn.Module.__init__(self)
        self._heads = Heads("thunder", load_heads(), config.engine, device)
        self._device = torch.device(device)

    @torch.inference_mode()
    def heads(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute the heads (B, channels, h / 4, w / 4) of crops.

        Args:
            batch: (B, 3, h, w) uint8 or float, RGB, 0..255; h and w are multiples of 32.
        Returns:
            Logits of the centre (1) and of the keypoints (17), keypoint offsets (34) and keypoint
            displacements from the centre (34); y before x, in cells.
        """
        return self._heads(batch)

    def refine(self, crops: list[np.ndarray], guides: list[Guide]) -> list[Refined]:
        """Compute each crop by itself: on a CPU a batch is no faster; see `Refiner.refine`."""
        found = []
        for crop, guide in zip(crops, guides):
            batch = torch.from_numpy(crop[None]).permute(0, 3, 1, 2)
            heads = self.heads(batch.to(self._device))
            found.append(decode([head[0].cpu() for head in heads], guide))
        return found

def decode(heads: list[torch.Tensor], guide: Guide) -> Refined:
    """Decode the heads of one crop near what its guide states.

    A keypoint is the cell with the largest probability / (distance to the guide + width), moved by
    its offset. The width is the original's plus the guide's standard deviation. Without keypoints
    in the guide, the person's centre is found in the same way near the middle of the box, and the
    regression from there is the guide.

    Args:
        heads: logits of the centre (1, h, w) and of the keypoints (17, h, w), offsets (34, h, w)
            and displacements from the centre (34, h, w); y before x, cells.
        guide: px of the crop.
    Source: the decoding of MoveNet SinglePose, guided by its own centre and regression alone.
    """
    center, heat, offset, displacement = heads
    middle = _cells(guide.middle[None])
    center_score, row, col = _best_near(center.sigmoid(), middle, torch.tensor([_WIDTH]))
    if np.isfinite(guide.keypoints).all():
        guess, std = _cells(guide.keypoints), torch.from_numpy(guide.std).float() / _STRIDE
    else:
        moved = displacement[:, row[0], col[0]].unflatten(0, (-1, 2))
        guess, std = moved + torch.stack([row, col], -1), torch.zeros(len(heat))
    probability = heat.sigmoid()
    scores, row, col = _best_near(probability, guess, _WIDTH + std)
    shift = offset.unflatten(0, (-1, 2))[torch.arange(len(heat)), :, row, col]
    points = torch.stack([col + shift[:, 1], row + shift[:, 0]], -1) * _STRIDE
    cov = _vote_covariance(probability, row, col) * _STRIDE**2
    return Refined(points.numpy().astype(float), cov.numpy().astype(float),
                   scores.numpy().astype(float), float(center_score[0]))


def _cells(points: np.ndarray) -> torch.Tensor:
    """Convert points (N, 2) x, y in px of the crop to (N, 2) y, x in cells."""
    return torch.from_numpy(points[:, ::-1] / _STRIDE).float()


def _best_near(probability: torch.Tensor, guess: torch.Tensor,
               width: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the probability, row and column (N,) of the best cell near each guess.

    Args:
        probability (N, h, w).
        guess (N, 2): y, x, cells.
        width (N,): cells.
    """
    height, cells_wide = probability.shape[1:]
    row_distance = torch.arange(height) - guess[:, :1]
    col_distance = torch.arange(cells_wide) - guess[:, 1:]
    distance = torch.hypot(row_distance[:, :, None], col_distance[:, None])
    weighted = (probability / (distance + width[:, None, None])).flatten(1)
    best = weighted.argmax(1)
    return (probability.flatten(1).gather(1, best[:, None])[:, 0], best // cells_wide,
            best % cells_wide)


def _vote_covariance(probability: torch.Tensor, row: torch.Tensor,
                     col: torch.Tensor) -> torch.Tensor:
    """Return the covariance (N, 2, 2) x, y of the votes around cells of (N, h, w), in cells^2."""
    steps = torch.arange(-_VOTE_RADIUS, _VOTE_RADIUS + 1)
    rows, cols = row[:, None] + steps, col[:, None] + steps
    height, width = probability.shape[1:]
    inside = (((rows >= 0) & (rows < height))[:, :, None]
              & ((cols >= 0) & (cols < width))[:, None])
    number = torch.arange(len(probability))[:, None, None]
    votes = probability[number, rows.clamp(0, height - 1)[:, :, None],
                        cols.clamp(0, width - 1)[:, None]]
    logits = votes.clamp(min=1e-9).log().masked_fill(~inside, -torch.inf)
    return joint_votes(logits)[1]
