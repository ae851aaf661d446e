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
from ros2_pose.networks.engine import on_host
from ros2_pose.networks.heads import Heads
from ros2_pose.networks.kblock import joint_votes
from ros2_pose.networks.keypoint_noise import THUNDER_NOISE
from ros2_pose.networks.refiner import Guide, Refined, Refiner, rows_by_shape
from ros2_pose.networks.tfjs import load_tfjs
from ros2_pose.weights import fetch

HEADS = [f"StatefulPartitionedCall/{name}/BiasAdd" for name in (
    "center_0/conv2d_4", "kpt_heatmap_0/conv2d_5", "kpt_offset_0/conv2d_7",
    "kpt_regress_0/conv2d_6")]
STRIDE = 4  # px of the crop per cell of the heads
WIDTH = 1.8  # cells: the original's; a probability is divided by its distance plus this
_VOTE_RADIUS = 3  # cells: the neighbourhood that votes for the covariance


def load_heads() -> fx.GraphModule:
    """Return the module that computes the heads; see `Thunder.heads`."""
    return load_tfjs(fetch("movenet_thunder.json"), fetch("movenet_thunder.bin"), HEADS)


class Thunder(nn.Module, Refiner):
    """MoveNet SinglePose Thunder (Google, Apache-2.0), 6.2 M parameters, 17 COCO keypoints."""

    long_side = 256
    noise = THUNDER_NOISE

    def __init__(self, config: PoseConfig = PoseConfig(),
                 device: torch.device | str = "cpu") -> None:
        """Load the network.

        Args:
            config: settings; read are those of the engine, see `Heads`.
            device: torch device that the network computes on.
        """
        nn.Module.__init__(self)
        self.config = config
        self._heads = Heads("thunder", load_heads(), config, device, self.long_side)

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
        """Find one person in each crop; see `Refiner.refine`.

        On a GPU crops of one shape are a batch, which is decoded there. On a CPU each is computed
        by itself: a batch is no faster.
        """
        if self._heads.device.type != "cpu":
            return self._refined_in_batches(crops, guides)
        found = []
        for crop, guide in zip(crops, guides):
            batch = torch.from_numpy(crop[None]).permute(0, 3, 1, 2)
            found.append(decode([head[0].numpy() for head in self.heads(batch)], guide))
        return found

    @torch.inference_mode()
    def _refined_in_batches(self, crops: list[np.ndarray], guides: list[Guide]) -> list[Refined]:
        """Compute crops of one shape together; one copy to the host for each shape."""
        found: dict[int, Refined] = {}
        for rows in rows_by_shape(crops):
            pixels = torch.from_numpy(np.stack([crops[row] for row in rows]))
            heads = self.heads(pixels.to(self._heads.device).permute(0, 3, 1, 2))
            found |= zip(rows, decode_batch(heads, [guides[row] for row in rows]))
        return [found[row] for row in range(len(crops))]


def decode(heads: list[np.ndarray], guide: Guide) -> Refined:
    """Decode the heads of one crop near what its guide states.

    A keypoint is the cell with the largest probability / (distance to the guide + width), moved by
    its offset. Without keypoints in the guide, the person's centre is found in the same way near
    the middle of the box, and the regression from there is the guide.

    Args:
        heads: logits of the centre (1, h, w) and of the keypoints (17, h, w), offsets (34, h, w)
            and displacements from the centre (34, h, w); y before x, cells.
        guide: px of the crop.
    Source: the decoding of MoveNet SinglePose, guided by its own centre and regression alone.
    """
    center, heat, offset, displacement = heads
    center_scores, rows, cols = _best_near(_sigmoid(center), guide.middle[None, ::-1] / STRIDE)
    if np.isfinite(guide.keypoints).all():
        guess = guide.keypoints[:, ::-1] / STRIDE
    else:
        guess = displacement[:, rows[0], cols[0]].reshape(-1, 2) + (rows[0], cols[0])
    probability = _sigmoid(heat)
    scores, rows, cols = _best_near(probability, guess)
    joint = np.arange(len(heat))
    shift = offset.reshape(-1, 2, *heat.shape[1:])[joint, :, rows, cols]
    points = np.stack([cols + shift[:, 1], rows + shift[:, 0]], -1) * float(STRIDE)
    cov = _vote_covariance(probability, rows, cols) * STRIDE**2
    return Refined(points, cov, scores.astype(float), float(center_scores[0]))


def decode_batch(heads: tuple[torch.Tensor, ...], guides: list[Guide]) -> list[Refined]:
    """Decode the heads of N crops on their device, each as `decode` does.

    Args:
        heads: those of `decode`, (N, channels, h, w) each; y before x, cells.
        guides: N, px of the crops.
    """
    center, heat, offset, displacement = (head.float() for head in heads)
    known = np.stack([np.concatenate([guide.middle[None], guide.keypoints]) for guide in guides])
    given = torch.from_numpy(known[..., ::-1] / STRIDE).float().to(heat.device)
    center_scores, row, col = _best_near_in_batch(center.sigmoid(), given[:, :1])
    cell = (row * center.shape[3] + col).expand(-1, displacement.shape[1])[..., None]
    own = displacement.flatten(2).gather(2, cell).unflatten(1, (-1, 2))[..., 0]
    guess = torch.where(given[:, 1:].isfinite().all(1, keepdim=True).all(2, keepdim=True),
                        given[:, 1:], own + torch.stack([row, col], -1))
    probability = heat.sigmoid()
    scores, rows, cols = _best_near_in_batch(probability, guess)
    cell = (rows * heat.shape[3] + cols)[..., None, None].expand(-1, -1, 2, -1)
    shift = offset.unflatten(1, (-1, 2)).flatten(3).gather(3, cell)[..., 0]  # y, x
    points = torch.stack([cols + shift[..., 1], rows + shift[..., 0]], -1) * STRIDE
    cov = _vote_covariance_in_batch(probability, rows, cols) * STRIDE**2
    values = on_host([points, cov, scores, center_scores[:, 0]])
    return [Refined(keypoints, votes_cov, keypoint_scores, float(center_score))
            for keypoints, votes_cov, keypoint_scores, center_score in
            zip(*(value.double().numpy() for value in values))]


def _best_near_in_batch(probability: torch.Tensor, guess: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return the probability, row and column (N, K) of the best cell near each guess.

    Args:
        probability (N, K, h, w).
        guess (N, K, 2): y, x, cells.
    """
    height, width = probability.shape[2:]
    row_distance2, col_distance2 = (
        (torch.arange(n, device=guess.device) - guess[..., axis, None]).square()
        for axis, n in enumerate((height, width)))
    distance = (row_distance2[..., :, None] + col_distance2[..., None, :]).sqrt()
    best = (probability / (distance + WIDTH)).flatten(2).argmax(2)
    scores = probability.flatten(2).gather(2, best[..., None])[..., 0]
    return scores, best // width, best % width


def _vote_covariance_in_batch(probability: torch.Tensor, rows: torch.Tensor,
                              cols: torch.Tensor) -> torch.Tensor:
    """Return the covariance (N, K, 2, 2) x, y of the votes around cells (N, K), in cells^2.

    Args:
        probability (N, K, h, w); rows, cols (N, K): cells.
    """
    height, width = probability.shape[2:]
    steps = torch.arange(-_VOTE_RADIUS, _VOTE_RADIUS + 1, device=rows.device)
    near_rows, near_cols = (rows[..., None] + steps)[..., None], cols[..., None, None] + steps
    inside = (near_rows >= 0) & (near_rows < height) & (near_cols >= 0) & (near_cols < width)
    cells = near_rows.clamp(0, height - 1) * width + near_cols.clamp(0, width - 1)
    votes = probability.flatten(2).gather(2, cells.flatten(2)).view(cells.shape)
    logits = votes.clamp(min=1e-9).log().masked_fill(~inside, -torch.inf)
    return joint_votes(logits)[1]


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(logits, -50, 50)))


def _best_near(probability: np.ndarray,
               guess: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the probability, row and column (N,) of the best cell near each guess.

    Args:
        probability (N, h, w).
        guess (N, 2): y, x, cells.
    """
    height, width = probability.shape[1:]
    guess = guess.astype(np.float32)
    row_distance2 = (np.arange(height, dtype=np.float32) - guess[:, :1]) ** 2
    col_distance2 = (np.arange(width, dtype=np.float32) - guess[:, 1:]) ** 2
    distance = np.sqrt(row_distance2[:, :, None] + col_distance2[:, None])
    best = (probability / (distance + WIDTH)).reshape(len(guess), -1).argmax(1)
    rows, cols = best // width, best % width
    return probability[np.arange(len(guess)), rows, cols], rows, cols


def _vote_covariance(probability: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Return the covariance (N, 2, 2) x, y of the votes around cells of (N, h, w), in cells^2."""
    height, width = probability.shape[1:]
    steps = np.arange(-_VOTE_RADIUS, _VOTE_RADIUS + 1)
    near_rows, near_cols = rows[:, None] + steps, cols[:, None] + steps
    inside = (((near_rows >= 0) & (near_rows < height))[:, :, None]
              & ((near_cols >= 0) & (near_cols < width))[:, None])
    number = np.arange(len(probability))[:, None, None]
    votes = probability[number, near_rows.clip(0, height - 1)[:, :, None],
                        near_cols.clip(0, width - 1)[:, None]]
    logits = np.where(inside, np.log(np.maximum(votes, 1e-9)), -np.inf)
    return joint_votes(torch.from_numpy(logits))[1].numpy().astype(float)
