"""Features of a box: the pyramid they come from, where they are sampled, what is read from them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIDES = (4, 8, 16, 32)


class Pyramid(nn.Module):
    """Feature maps of one width at strides 4 to 32 from those of a backbone.

    top_down: every level also knows what the coarser ones know (Lin et al. 2017, "Feature Pyramid
    Networks"); without, each is by itself (the "direct multi-scale" of Tian et al. 2023, Table 1).
    """

    def __init__(self, channels: Sequence[int], width: int, top_down: bool) -> None:
        super().__init__()
        # Normalised, because levels of a backbone differ in scale, and the finest would drown the
        # others, which know more.
        self.lateral = nn.ModuleList(nn.Sequential(nn.Conv2d(c, width, 1), nn.GroupNorm(8, width))
                                     for c in channels)
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in channels)
        self.top_down = top_down

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        maps = [conv(f) for conv, f in zip(self.lateral, features)]
        if self.top_down:
            for fine in reversed(range(len(maps) - 1)):
                above = F.interpolate(maps[fine + 1], maps[fine].shape[-2:], mode="nearest")
                maps[fine] = maps[fine] + above
        return [conv(m) for conv, m in zip(self.smooth, maps)]


def level_of(boxes: Tensor, cells: int) -> Tensor:
    """(N,) the coarsest level of the pyramid that is not coarser than cells of boxes (N, 4) px.

    Lin et al. 2017, eq. 1, is for 7 cells: with more, it would blur what is to be localised.
    """
    side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).clamp(min=1).sqrt()
    level = (side / cells / STRIDES[0]).log2().floor()
    return level.clamp(0, len(STRIDES) - 1).long()


def roi_align(maps: list[Tensor], boxes: Tensor, image: Tensor, cells: int) -> Tensor:
    """(N, C, cells, cells) features inside boxes (N, 4) px x min, y min, x max, y max.

    maps: the pyramid of B images, (B, C, h, w) each. image (N,): whose each box is. One bilinear
    sample in the middle of each cell (He et al. 2017, "Mask R-CNN"); outside of the image is 0.
    """
    out = boxes.new_zeros(len(boxes), maps[0].shape[1], cells, cells)
    middle = (torch.arange(cells, device=boxes.device) + 0.5) / cells
    x = boxes[:, :1] + (boxes[:, 2:3] - boxes[:, :1]) * middle  # (N, cells)
    y = boxes[:, 1:2] + (boxes[:, 3:] - boxes[:, 1:2]) * middle
    level = level_of(boxes, cells)
    for number, (features, stride) in enumerate(zip(maps, STRIDES)):
        rows = (level == number).nonzero()[:, 0]
        if not len(rows):
            continue
        height, width = features.shape[-2:]
        u, v = 2 * x[rows] / (width * stride) - 1, 2 * y[rows] / (height * stride) - 1
        grid = torch.stack([u[:, None].expand(-1, cells, -1), v[:, :, None].expand(-1, -1, cells)],
                           -1)
        out[rows] = F.grid_sample(features[image[rows]].to(grid.dtype), grid, align_corners=False)
    return out


def corners(boxes: Tensor) -> Tensor:
    """(..., 4) x min, y min, x max, y max of boxes given by centre and size."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], -1)


def enlarged(boxes: Tensor, factor: float) -> Tensor:
    """(N, 4) boxes about the same centres."""
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
    return torch.cat([centre - factor * half, centre + factor * half], 1)


def cell_size(enlarged: Tensor, cells: int) -> Tensor:
    """(N, 2) px width and height of one of the cells of boxes (N, 4) px."""
    return (enlarged[:, 2:] - enlarged[:, :2]) / cells


class MapHead(nn.Module):
    """A map for each joint from a box's features, and a vector that sums the box up.

    Twice smaller and back again, with what was there before (an hourglass, Newell et al. 2016):
    whether a hand belongs to the one whose box this is, is not to be seen from the hand alone.
    """

    def __init__(self, width: int, layers: int, joints: int, cells: int) -> None:
        super().__init__()
        self.place = nn.Parameter(0.1 * torch.randn(width, cells, cells))  # where in the box
        self.enter = _conv(width, width)
        self.down = nn.ModuleList([_conv(width, 2 * width, 2), _conv(2 * width, 2 * width, 2)])
        self.middle = nn.Sequential(*(_conv(2 * width, 2 * width) for _ in range(layers)))
        self.up = nn.ModuleList([_conv(2 * width, 2 * width), _conv(2 * width, width)])
        self.leave = _conv(width, width)
        self.joints = nn.Conv2d(width, joints, 1)
        self.summary = 4 * 4 * 2 * width

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(N, joints, h, w) and (N, summary) of features (N, width, h, w)."""
        fine = self.enter(features + self.place)
        half = self.down[0](fine)
        coarse = self.middle(self.down[1](half))
        half = half + F.interpolate(self.up[0](coarse), half.shape[-2:], mode="nearest")
        fine = fine + F.interpolate(self.up[1](half), fine.shape[-2:], mode="nearest")
        return self.joints(self.leave(fine)), F.adaptive_avg_pool2d(coarse, 4).flatten(1)


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.GroupNorm(8, outputs),
                         nn.ReLU())
