"""RangiLyu's NanoDet-g in torch, reduced to people: boxes of the people in an image.

Source: github.com/RangiLyu/nanodet, whose head is that of Generalized Focal Loss (Li et al. 2020):
the distance of each side of a box from a cell is the mean of a distribution over 0..10 strides.
"""

from __future__ import annotations

from copy import copy

import numpy as np
import torch
from torch import nn

from ros2_pose import boxes as box_math
from ros2_pose.config import PoseConfig
from ros2_pose.networks.base import Finder, input_size, letterbox
from ros2_pose.networks.engine import on_host
from ros2_pose.networks.heads import Heads
from ros2_pose.networks.refiner import rows_by_shape
from ros2_pose.networks.tfjs import load_tfjs
from ros2_pose.people import Frame, People
from ros2_pose.skeleton import COCO17
from ros2_pose.weights import fetch

_STRIDES = (8, 16, 32)  # px
_HEADS = [f"PartitionedCall/Add_{number}" for number in (29, 33, 37)]
_CLASSES, _PERSON = 80, 0
_BINS = 11
_MEAN_BGR, _STD_BGR = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)
_LONG_SIDE = 416  # px
_LEAST_SCORE = 0.25
_MOST_CANDIDATES = 500
_OVERLAP = 0.15  # sides of the picture by which neighbouring tiles overlap
_SIDE_PX = 3  # a box so near to a tile's side is cut off
_SAME_PERSON = 0.6  # intersection over union


class PersonHeads(nn.Module):
    """NanoDet's layers for RGB images, 0..255, and for the class person alone."""

    def __init__(self) -> None:
        """Load the layers.

        The order of the colours and their standard deviation become part of the first layer.
        """
        super().__init__()
        self.layers = load_tfjs(fetch("nanodet.json"), fetch("nanodet.bin"), _HEADS)
        self.register_buffer("mean", torch.tensor(_MEAN_BGR[::-1]).reshape(1, 3, 1, 1))
        convolutions = [m for m in self.layers.modules() if isinstance(m, nn.Conv2d)]
        weight = convolutions[0].weight / torch.tensor(_STD_BGR).reshape(1, 3, 1, 1)
        convolutions[0].weight = nn.Parameter(weight.detach().flip(1))
        for node in self.layers.graph.output_node().args[0]:
            _keep_person(self.layers.get_submodule(node.target))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute the maps (B, 1 + 4 * 11, h / stride, w / stride) at strides 8, 16 and 32.

        Channels: logit of a person; logits of the distances of a box's left, top, right and bottom
        side.
        """
        return self.layers(images - self.mean)


def _keep_person(conv: nn.Conv2d) -> None:
    """Drop a last layer's channels of the other classes."""
    kept = [_PERSON, *range(_CLASSES, conv.out_channels)]
    conv.weight = nn.Parameter(conv.weight.detach()[kept])
    conv.bias = nn.Parameter(conv.bias.detach()[kept])
    conv.out_channels = len(kept)


def load_heads() -> PersonHeads:
    """Return the module that computes the heads."""
    return PersonHeads()


class NanoDet(nn.Module, Finder):
    """NanoDet-g (RangiLyu, Apache-2.0), 3.8 M parameters, trained on COCO; people alone."""

    def __init__(self, config: PoseConfig = PoseConfig(),
                 device: torch.device | str = "cpu") -> None:
        """Load the network.

        Args:
            config: settings; read are those of the engine, see `Heads`.
            device: torch device that the network computes on.
        """
        nn.Module.__init__(self)
        self.config = config
        self._tile: tuple[int, int, int] | None = None  # tiles a side, row, column
        self.configure(config.score_threshold, config.max_people)
        self.heads = Heads("nanodet", load_heads(), config, device, _LONG_SIDE)

    def searches(self) -> list[Finder]:
        """Return a detector of the whole picture, and one for each of its tiles, for small people.
        """
        count = self.config.tiles
        parts: list[Finder] = [self]
        if count > 1:
            parts += [self._of_tile((count, row, col))
                      for row in range(count) for col in range(count)]
        return parts

    def _of_tile(self, tile: tuple[int, int, int]) -> NanoDet:
        other = copy(self)
        other._tile = tile
        return other

    def find_people(self, frames: list[Frame]) -> list[People]:
        """Find the boxes of the people in each frame; see `Finder.find_people`."""
        tiles = [self._tile_of(frame.image) for frame in frames]
        in_tiles = self._find_boxes([frame.image[low[1]:high[1], low[0]:high[0]]
                                     for frame, (low, high) in zip(frames, tiles)])
        found = []
        for frame, (low, high), (boxes, scores) in zip(frames, tiles, in_tiles):
            boxes = boxes + np.tile(low, 2)
            whole = ~_is_cut_off(boxes, low, high, np.array(frame.image.shape[1::-1]))
            boxes, scores = boxes[whole][:self.max_people], scores[whole][:self.max_people]
            unknown = np.full((len(boxes), len(COCO17), 3), np.nan)
            found.append(People(boxes, scores, unknown[..., :2],
                                np.full((len(boxes), len(COCO17), 2, 2), np.nan), unknown[..., 2]))
        return found

    def _tile_of(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Limits (2,) x, y px of the part of an image (H, W, 3) that is searched."""
        size = np.array(image.shape[1::-1])
        if self._tile is None:
            return np.zeros(2, int), size
        count, row, col = self._tile
        return _tile_limits(size, count, np.array([col, row]))

    def find_boxes(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find people.

        Args:
            image: (H, W, 3) uint8 RGB.
        Returns:
            Boxes (N, 4) x min, y min, x max, y max, px of the image, within it, and scores (N,),
            best first; people with a score of at least 0.25.
        """
        return self._find_boxes([image])[0]

    @torch.inference_mode()
    def _find_boxes(self, images: list[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Find people in each image (H, W, 3); on a GPU those of one shape are a batch."""
        inputs = [letterbox(image, _LONG_SIDE) for image in images]
        groups = [[row] for row in range(len(images))] if self.heads.device.type == "cpu" \
            else rows_by_shape(inputs)
        found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for rows in groups:
            batch = inputs[rows[0]][None] if len(rows) == 1 \
                else np.stack([inputs[row] for row in rows])
            maps = on_host(self.heads(
                torch.from_numpy(batch).to(self.heads.device).permute(0, 3, 1, 2)))
            for number, row in enumerate(rows):
                found[row] = _people_in([level[number].numpy() for level in maps],
                                        images[row].shape[1::-1])
        return [found[row] for row in range(len(images))]


def _people_in(maps: list[np.ndarray], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes and scores as `NanoDet.find_boxes` does.

    Args:
        maps: (1 + 4 * 11, h, w) of each stride; see `PersonHeads`.
        size: width and height of the image, px.
    """
    found = [_decode(level, stride) for level, stride in zip(maps, _STRIDES)]
    boxes, scores = map(np.concatenate, zip(*found))
    limits = np.tile(size, 2)
    scaled = limits / np.tile(input_size(size, _LONG_SIDE), 2)
    boxes = np.clip(boxes * scaled, 0, limits)
    best = np.argsort(-scores, kind="stable")[:_MOST_CANDIDATES]
    boxes, scores = boxes[best], scores[best]
    kept = box_math.suppress(boxes, scores, _SAME_PERSON)
    return boxes[kept], scores[kept]


def _is_cut_off(boxes: np.ndarray, low: np.ndarray, high: np.ndarray,
                size: np.ndarray) -> np.ndarray:
    """Return (N,) bool: boxes (N, 4) px that end at a tile's side within the picture.

    Args:
        low, high (2,): limits of the tile, x, y px.
        size (2,): of the picture, px.
    """
    at_low = (boxes[:, :2] < low + _SIDE_PX) & (low > 0)
    at_high = (boxes[:, 2:] > high - _SIDE_PX) & (high < size)
    return np.any(at_low | at_high, axis=1)


def _tile_limits(size: np.ndarray, count: int,
                 number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the first pixel and the one after the last (2,) x, y of a tile of an image.

    Args:
        size (2,): width and height, px.
        count: tiles a side; they overlap.
        number (2,): column and row of the tile.
    """
    step = size * (1 - _OVERLAP) / count
    low = np.floor(number * step).astype(int)
    high = np.minimum(np.ceil(number * step + step + size * _OVERLAP).astype(int), size)
    return low, high


def _decode(maps: np.ndarray, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the boxes (N, 4) of one level, px of the input, and their scores (N,).

    Args:
        maps: (1 + 4 * 11, h, w); see `PersonHeads`.
        stride: px per cell.
    """
    scores = 1 / (1 + np.exp(-np.clip(maps[0].astype(float), -50, 50)))
    rows, cols = np.nonzero(scores >= _LEAST_SCORE)
    logits = maps[1:, rows, cols].astype(float).reshape(4, _BINS, -1)
    weights = np.exp(logits - logits.max(1, keepdims=True))
    strides = (weights * np.arange(_BINS)[:, None]).sum(1) / weights.sum(1)
    left, top, right, bottom = strides * stride
    x, y = (cols + 0.5) * stride, (rows + 0.5) * stride
    return np.stack([x - left, y - top, x + right, y + bottom], -1), scores[rows, cols]
