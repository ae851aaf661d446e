"""Google's MoveNet MultiPose Lightning in torch, with a decoder of its own.

The original file returns six people at one scale, as keypoints with scores. Cut at its heads and
decoded here, it returns any number of people, at several scales that are merged, and each keypoint
has the covariance of its heat-map's votes.
"""

from __future__ import annotations

import math
from copy import copy

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx

from ros2_pose import oks
from ros2_pose.config import PoseConfig
from ros2_pose.networks.base import Finder, TorchNetwork, input_size, letterbox
from ros2_pose.networks.engine import on_host
from ros2_pose.networks.heads import Heads
from ros2_pose.networks.kblock import joint_votes
from ros2_pose.networks.keypoint_noise import MOVENET_NOISE, KeypointNoise
from ros2_pose.networks.tflite import load_tflite
from ros2_pose.people import Frame, People
from ros2_pose.weights import fetch

_HEADS = ["center_0/conv2d_4/BiasAdd", "box_scale_0/conv2d_5/BiasAdd",
          "box_offset_0/conv2d_6/BiasAdd", "kpt_heatmap_0/conv2d_7/BiasAdd",
          "kpt_offset_0/conv2d_9/BiasAdd", "kpt_regress_0/conv2d_8/BiasAdd"]
_STRIDE = 4  # input px per cell of the heads
_REACH = 0.3  # the original's: a cell has the weight exp(-d^2 / (_REACH * shorter side)), in cells
_LEAST_SCORE = 0.127  # the original's: lower keypoint scores are left out of a person's score
_VOTE_RADIUS = 3  # cells: the neighbourhood that votes for the covariance


class MoveNet(TorchNetwork):
    """MoveNet MultiPose Lightning (Google, Apache-2.0), 4.7 M parameters, 17 COCO keypoints.

    A person's score is the original's (centre times mean of the keypoint scores) times the OKS to
    be expected from its covariances, outliers included: of two detections of a person the sharper
    one is kept, and precise people rank before blurred ones.
    """

    def __init__(self, config: PoseConfig = PoseConfig(),
                 device: torch.device | str = "cpu") -> None:
        """Load the network.

        Args:
            config: settings; read are `scales`, the long sides of the inputs in px, and those of
                the engine, see `Heads`.
            device: torch device that the network computes on.
        """
        super().__init__(config, device)
        self.scales = config.scales
        self.heads = Heads("movenet", load_heads(), config, device, max(config.scales))

    @classmethod
    def title(cls, config: PoseConfig) -> str:
        """Return the network and its scales, e.g. "movenet at 256, 512 px"."""
        return f"{config.network} at {', '.join(map(str, config.scales))} px"

    @property
    def keypoint_noise(self) -> KeypointNoise:
        """Error model of its keypoints."""
        return MOVENET_NOISE

    def searches(self) -> list[Finder]:
        """Return a network for each scale; they share the weights."""
        parts: list[Finder] = []
        for scale in sorted(self.scales):
            part = copy(self)
            part.scales = (scale,)
            parts.append(part)
        return parts

    def prepare(self, image: np.ndarray) -> list[torch.Tensor]:
        """Return the image (3, h, w) at each scale, 0..255.

        It is padded at the right and bottom to multiples of 32 px.
        """
        return [torch.from_numpy(letterbox(image, scale)).permute(2, 0, 1)
                for scale in self.scales]

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute the heads (B, channels, h / 4, w / 4) of a batch (B, 3, h, w), values 0..255.

        Returns:
            Logits of the centre (1), box height and width (2), box offset (2), logits of the
            keypoints (17), keypoint offsets (34) and keypoint displacements from the centre (34);
            y before x, in cells.
        """
        return self.heads(batch)

    def decode(self, raw: list[tuple], frame: Frame) -> People:
        """Return the people of one frame: each scale is decoded by itself, then merged by NMS."""
        size = (frame.image.shape[1], frame.image.shape[0])
        scales = []
        for heads, scale in zip(raw, self.scales):
            cell_px = np.array(size) / input_size(size, scale) * _STRIDE
            detections = _decode_scale(heads, self.max_people, self.score_threshold)
            scales.append(_to_px(detections, cell_px))
        scores, keypoints, votes_cov, keypoint_scores, boxes = map(np.concatenate, zip(*scales))
        areas = oks.area(boxes)
        cov = MOVENET_NOISE.cov(votes_cov, areas[:, None], keypoint_scores)
        scores = scores * oks.expected(MOVENET_NOISE.with_outliers(cov), keypoint_scores, areas)
        keep = oks.suppress(keypoints, areas, scores, self.score_threshold)[:self.max_people]
        return People(boxes[keep], scores[keep], keypoints[keep], cov[keep], keypoint_scores[keep])


def load_heads() -> fx.GraphModule:
    """Return the module that computes the heads; see `MoveNet.forward`."""
    return load_tflite(fetch("movenet_multipose.tflite"), _HEADS)


def _decode_scale(heads: tuple[torch.Tensor, ...], max_people: int,
                  threshold: float) -> tuple[torch.Tensor, ...]:
    """Decode the heads (channels, h, w) of one input; see `MoveNet.forward`.

    Returns:
        Scores (P,), keypoints (P, 17, 2), covariances of their votes (P, 17, 2, 2), keypoint scores
        (P, 17) and boxes (P, 4) x min, y min, x max, y max; in cells.
    """
    center, box_size, box_offset, heat, offset, displacement = heads
    rows, cols = _peaks(center[0].sigmoid(), max_people, threshold)
    cell = torch.stack([rows, cols], -1)  # (P, 2) y, x
    middle = cell + box_offset[:, rows, cols].T
    half = box_size[:, rows, cols].T.relu() / 2
    boxes = torch.cat([middle - half, middle + half], -1)  # y, x, y, x
    height, width = heat.shape[1:]
    boxes = torch.stack([side.clamp(0, limit) for side, limit in
                         zip(boxes.unbind(-1), (height, width, height, width))], -1)

    guess = cell[:, None] + displacement[:, rows, cols].T.unflatten(1, (-1, 2))
    points, cov, keypoint_scores = _find_keypoints(heat.sigmoid(), offset, guess, boxes)
    counted = keypoint_scores > _LEAST_SCORE
    mean = (keypoint_scores * counted).sum(1) / counted.sum(1).clamp(min=1)
    scores = center[0, rows, cols].sigmoid() * mean
    return scores, points, cov, keypoint_scores, boxes[:, [1, 0, 3, 2]]


def _peaks(heat: torch.Tensor, max_people: int,
           threshold: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows and columns (N,) of the local maxima of heat (h, w), best first.

    A person's score is at most the centre's: centres below the threshold are left out.
    """
    highest = F.max_pool2d(heat[None, None], 3, 1, 1)[0, 0]
    peaks = torch.where((heat == highest) & (heat > threshold), heat, heat.new_zeros(()))
    scores, index = peaks.flatten().topk(min(2 * max_people, peaks.numel()))
    index = index[scores > 0]
    return index // heat.shape[1], index % heat.shape[1]


def _find_keypoints(heat: torch.Tensor, offset: torch.Tensor, guess: torch.Tensor,
                    boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Find the keypoints of people, as the original does.

    A keypoint is the best cell near the guess and inside the box, moved by its offset. Only the
    window in which a cell can matter is computed.

    Args:
        heat (17, h, w): probabilities.
        offset (34, h, w): from a cell to the keypoint, y before x, cells.
        guess (P, 17, 2): y, x, cells.
        boxes (P, 4): y min, x min, y max, x max, cells.
    Returns:
        Keypoints (P, 17, 2) x, y, covariances of their votes (P, 17, 2, 2) and scores (P, 17), in
        cells.
    """
    height, width = heat.shape[1:]
    falloff = _REACH * min(height, width)  # cells^2
    radius = math.ceil(math.sqrt(falloff * math.log(1000)))
    steps = torch.arange(-radius, radius + 1, device=guess.device)
    centre = guess.round().long()
    rows, cols = centre[..., :1] + steps, centre[..., 1:] + steps  # (P, 17, n) each
    row_inside = _is_between(rows, height, boxes[:, 0], boxes[:, 2])
    col_inside = _is_between(cols, width, boxes[:, 1], boxes[:, 3])

    joint = torch.arange(len(heat), device=heat.device)
    r, c = rows.clamp(0, height - 1), cols.clamp(0, width - 1)
    patch = heat[joint[:, None, None], r[..., :, None], c[..., None, :]]
    patch = patch * (row_inside[..., :, None] & col_inside[..., None, :])
    row_distance2, col_distance2 = (rows - guess[..., :1]) ** 2, (cols - guess[..., 1:]) ** 2
    distance2 = row_distance2[..., :, None] + col_distance2[..., None, :]
    weighted = patch * torch.exp(-distance2 / falloff)

    scores, best = weighted.flatten(2).max(-1)
    row = r.gather(2, best[..., None] // len(steps))[..., 0]
    col = c.gather(2, best[..., None] % len(steps))[..., 0]
    shift = offset.unflatten(0, (-1, 2))[joint, :, row, col]  # (P, 17, 2) y, x
    points = torch.stack([col + shift[..., 1], row + shift[..., 0]], -1)
    return points, _vote_covariance(weighted, best), scores


def _is_between(cells: torch.Tensor, size: int, low: torch.Tensor,
                high: torch.Tensor) -> torch.Tensor:
    """Return (P, 17, n) bool: cells in the map of that size and within [low, high) (P,)."""
    in_map = (cells >= 0) & (cells < size)
    return in_map & (cells >= low[:, None, None]) & (cells < high[:, None, None])


def _vote_covariance(weighted: torch.Tensor, best: torch.Tensor) -> torch.Tensor:
    """Return the covariance (P, 17, 2, 2) x, y of the votes around the best cell, in cells^2.

    Args:
        weighted (P, 17, n, n): weighted probabilities of the window.
        best (P, 17): flat index of its maximum.
    """
    n = weighted.shape[-1]
    cells = torch.arange(n, device=best.device)
    near_row = (cells - best[..., None] // n).abs() <= _VOTE_RADIUS
    near_col = (cells - best[..., None] % n).abs() <= _VOTE_RADIUS
    near = near_row[..., :, None] & near_col[..., None, :]
    logits = weighted.clamp(min=1e-9).log().masked_fill(~near, -torch.inf)
    return joint_votes(logits)[1]


def _to_px(detections: tuple[torch.Tensor, ...], cell_px: np.ndarray) -> tuple[np.ndarray, ...]:
    """Convert the result of `_decode_scale` to px of the image and to numpy.

    Args:
        detections: in cells.
        cell_px (2,): width and height of a cell in px.
    """
    scores, keypoints, cov, keypoint_scores, boxes = (
        tensor.numpy().astype(float) for tensor in on_host(detections))
    return (scores, keypoints * cell_px, cov * np.outer(cell_px, cell_px), keypoint_scores,
            boxes * np.tile(cell_px, 2))
