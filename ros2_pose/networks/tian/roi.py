"""Features of boxes: the feature pyramid, sampling from it, and joints' maps read from the samples.

Boxes are (N, 4) x min, y min, x max, y max in px of the input, unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ros2_pose.networks.convolution import conv_norm_relu

STRIDES = (4, 8, 16, 32)


class Pyramid(nn.Module):
    """Feature maps of one width at strides 4 to 32 from those of a backbone.

    Source: Lin et al. 2017, "Feature Pyramid Networks".
    """

    def __init__(self, channels: Sequence[int], width: int, top_down: bool) -> None:
        """Create the layers.

        Args:
            channels: of the backbone's features, finest first.
            width: channels of the pyramid.
            top_down: add the coarser levels to each level; without, each is by itself ("direct
                multi-scale" of Tian et al. 2023, Table 1).
        """
        super().__init__()
        # Levels of a backbone differ in scale: without normalisation the finest would dominate.
        self.lateral = nn.ModuleList(nn.Sequential(nn.Conv2d(c, width, 1), nn.GroupNorm(8, width))
                                     for c in channels)
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in channels)
        self.top_down = top_down

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Return maps (B, width, h, w) of features (B, channels, h, w), finest first."""
        maps = [conv(f) for conv, f in zip(self.lateral, features)]
        if self.top_down:
            for fine in reversed(range(len(maps) - 1)):
                above = F.interpolate(maps[fine + 1], maps[fine].shape[-2:], mode="nearest")
                maps[fine] = maps[fine] + above
        return [conv(m) for conv, m in zip(self.smooth, maps)]


def level_of(boxes: Tensor, cells: int, strides: Sequence[int] = STRIDES) -> Tensor:
    """Return the coarsest level (N,) of the pyramid that is not coarser than cells of the boxes.

    Eq. 1 of Lin et al. 2017 is for 7 cells; with more cells, it would choose too coarse levels.
    """
    side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).clamp(min=1).sqrt()
    level = (side / cells / strides[0]).log2().floor()
    return level.clamp(0, len(strides) - 1).long()


def roi_align(maps: list[Tensor], boxes: Tensor, image: Tensor, cells: int,
              strides: Sequence[int] = STRIDES) -> Tensor:
    """Sample the features (N, C, cells, cells) inside boxes, bilinearly at the cells' centres.

    Args:
        maps: the pyramid (B, C, h, w) of B images, finest first.
        boxes (N, 4): px; features outside of the image are 0.
        image (N,): index of the image of each box.
        cells: number of cells, each way.
        strides: of the maps, px; each twice the one before.
    Source: He et al. 2017, "Mask R-CNN".
    """
    out = boxes.new_zeros(len(boxes), maps[0].shape[1], cells, cells)
    middle = (torch.arange(cells, device=boxes.device) + 0.5) / cells
    x = boxes[:, :1] + (boxes[:, 2:3] - boxes[:, :1]) * middle  # (N, cells)
    y = boxes[:, 1:2] + (boxes[:, 3:] - boxes[:, 1:2]) * middle
    level = level_of(boxes, cells, strides)
    for number, (features, stride) in enumerate(zip(maps, strides)):
        rows = (level == number).nonzero()[:, 0]
        if not len(rows):
            continue
        height, width = features.shape[-2:]
        u = 2 * x[rows] / (width * stride) - 1  # -1..1, as grid_sample expects
        v = 2 * y[rows] / (height * stride) - 1
        u, v = u[:, None].expand(-1, cells, -1), v[:, :, None].expand(-1, -1, cells)
        grid = torch.stack([u, v], -1)
        out[rows] = F.grid_sample(features[image[rows]].to(grid.dtype), grid, align_corners=False)
    return out


def corners(boxes: Tensor) -> Tensor:
    """Return x min, y min, x max, y max of boxes (..., 4) given as centre and size."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], -1)


def enlarged(boxes: Tensor, factor: float) -> Tensor:
    """Return boxes (N, 4) enlarged about their centres."""
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    return torch.cat([centre - factor * half, centre + factor * half], 1)


def square(boxes: Tensor) -> Tensor:
    """Return the squares (N, 4) around the centres of boxes (N, 4), as long as their long sides."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).amax(1, keepdim=True) / 2
    return torch.cat([centre - half, centre + half], 1)


def cell_size(enlarged: Tensor, cells: int) -> Tensor:
    """Return width and height (N, 2) px of the cells of enlarged boxes (N, 4) px."""
    return (enlarged[:, 2:] - enlarged[:, :2]) / cells


class MapHead(nn.Module):
    """Estimates a map of each joint from a box's features, and a feature vector of the box.

    An hourglass: two halvings and back with skip connections, because which person a hand belongs
    to cannot be seen from the hand alone. Source: Newell et al. 2016.
    """

    def __init__(self, width: int, layers: int, joints: int, cells: int) -> None:
        super().__init__()
        # A learned embedding of the position in the box.
        self.place = nn.Parameter(0.1 * torch.randn(width, cells, cells))
        self.enter = conv_norm_relu(width, width)
        self.down = nn.ModuleList([conv_norm_relu(width, 2 * width, 2),
                                   conv_norm_relu(2 * width, 2 * width, 2)])
        self.middle = nn.Sequential(*(conv_norm_relu(2 * width, 2 * width) for _ in range(layers)))
        self.up = nn.ModuleList([conv_norm_relu(2 * width, 2 * width),
                                 conv_norm_relu(2 * width, width)])
        self.leave = conv_norm_relu(width, width)
        self.joints = nn.Conv2d(width, joints, 1)
        self.summary = 4 * 4 * 2 * width

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return maps (N, joints, h, w) and vectors (N, summary) of features (N, width, h, w)."""
        fine = self.enter(features + self.place)
        half = self.down[0](fine)
        coarse = self.middle(self.down[1](half))
        half = half + F.interpolate(self.up[0](coarse), half.shape[-2:], mode="nearest")
        fine = fine + F.interpolate(self.up[1](half), fine.shape[-2:], mode="nearest")
        return self.joints(self.leave(fine)), F.adaptive_avg_pool2d(coarse, 4).flatten(1)
