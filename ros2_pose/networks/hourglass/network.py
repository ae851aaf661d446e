"""Layers of Benzine et al. 2019: stacked hourglasses with heat-maps, ORPM and tags, and fields.

Beyond the paper, each hourglass also gives part affinity fields (Cao et al. 2017), another way to
group joints, and the stem may be joined by MoveNet's features, which were learned from real people:
then heat-maps start as MoveNet's, and the network learns what is added to their logits.

Cell c of a map lies at c * stride px: strided convolutions see there.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ros2_pose.networks import movenet_backbone
from ros2_pose.networks.convolution import conv_norm_relu
from ros2_pose.networks.hourglass.config import HourglassConfig
from ros2_pose.networks.hourglass.joints import LIMBS, J, K
from ros2_pose.networks.movenet_backbone import HIGHEST, MoveNetBackbone
from ros2_pose.networks.trainable import TrainableNet
from ros2_pose.skeleton import COCO17

HEAT_STRIDE = 4  # px per cell of heat-maps
TAG_PX = 32.0  # px per unit of tags that are positions
_RARE = -4.0  # logit of a heat-map before training
_MOVENET_SCALES = ((movenet_backbone.HEATMAPS, HIGHEST), (movenet_backbone.DISPLACEMENTS, 16.0),
                   (movenet_backbone.CENTER, 4.0))  # channels and their typical values
_GROUPS = 8

Maps = dict[str, Tensor]
"""Outputs of one hourglass for B pictures: heat (B, 19, h, w) logits at stride 4; at the stride of
the hourglasses tags (B, 19, dims, h', w'), orpm (B, 24, 3, h', w') m and fields (B, limbs, 2, h',
w')."""


class HourglassNet(TrainableNet):
    """The layers that training and inference share."""

    NAME = "hourglass"
    CONFIG = HourglassConfig
    config: HourglassConfig
    model_std: Tensor

    def __init__(self, config: HourglassConfig = HourglassConfig()) -> None:
        super().__init__(config)
        width, stride = config.width, config.stride
        self.movenet = None
        self.stem = nn.Sequential(conv_norm_relu(3, width // 4, 2),
                                  conv_norm_relu(width // 4, width // 2, 2),
                                  conv_norm_relu(width // 2, width, stride // 4))
        if config.backbone == "movenet":
            self.movenet = MoveNetBackbone("all", regressions=True)
            levels = movenet_backbone.REGRESSION_CHANNELS
            finest = nn.Conv2d(levels[0], width, 3, stride // HEAT_STRIDE, 1)
            coarser = [nn.Conv2d(channels, width, 1) for channels in levels[1:]]
            self.lateral = nn.ModuleList(nn.Sequential(conv, nn.GroupNorm(_GROUPS, width))
                                         for conv in (finest, *coarser))
            self.heat_gain = nn.Parameter(torch.ones(len(COCO17)))
        self.enter = conv_norm_relu(width, width)
        self.hourglasses = nn.ModuleList(HourglassBlock(width, config.growth, config.halvings)
                                         for _ in range(config.stacks))
        self.leave = nn.ModuleList(conv_norm_relu(width, width) for _ in range(config.stacks))
        self.channels = {"heat": K, "tags": K * config.tag_dims, "orpm": 3 * J,
                         "fields": 2 * len(LIMBS)}
        outputs = sum(self.channels.values())
        self.heads = nn.ModuleList(nn.Conv2d(width, outputs, 1) for _ in range(config.stacks))
        # Of all hourglasses but the last: what the next one is given besides the features.
        self.again = nn.ModuleList(nn.Conv2d(outputs + width, width, 1)
                                   for _ in range(config.stacks - 1))
        self.mean_bones = nn.Parameter(torch.zeros(J, 3))  # m, of the people learned from
        # Measured after training, as `votes` and `floor`.
        self.register_buffer("model_std", torch.tensor(0.08))  # m, of the joints
        for head in self.heads:
            nn.init.normal_(head.weight, std=0.01)
            nn.init.zeros_(head.bias)

    @property
    def picture_size(self) -> int:
        """Side of the square pictures that it is trained on, px."""
        return self.config.input_size

    def is_given(self, name: str) -> bool:
        """Return whether a weight comes with a part that is not trained: checkpoints lack it."""
        return name.startswith("movenet.")

    def forward(self, images: Tensor, stacks: int | None = None) -> tuple[list[Maps], Tensor]:
        """Compute the maps of pictures.

        Args:
            images (B, 3, H, W): RGB, 0..255; H and W are multiples of 32.
            stacks: number of hourglasses computed; None: all.
        Returns:
            The maps of each hourglass, and offsets (B, 17, 2, h, w) y, x in cells from a cell of
            the heat-maps to the keypoint there; without MoveNet 0.
        """
        images = images.contiguous(memory_format=torch.channels_last)
        x = self.stem(images / 128 - 1)
        height, width = (side // HEAT_STRIDE for side in images.shape[-2:])
        count = images.shape[0]  # len() would become a constant of an exported graph
        prior = images.new_full((count, K, height, width), _RARE)
        offsets = images.new_zeros(count, len(COCO17), 2, height, width)
        if self.movenet is not None:
            with torch.no_grad():
                levels = self.movenet(images)
            x = x + self._joined(levels, x.shape[-2:])
            offsets = levels[0][:, movenet_backbone.OFFSETS].unflatten(1, (-1, 2))
            # In half precision, a probability near 1 would be 1.
            probability = levels[0][:, movenet_backbone.HEATMAPS].float() / HIGHEST
            known = probability.logit(1e-4) * self.heat_gain[:, None, None]
            prior = torch.cat([known, prior[:, len(COCO17):]], 1)
        x = self.enter(x)
        found: list[Maps] = []
        for number in range(stacks or self.config.stacks):
            features = self.leave[number](self.hourglasses[number](x))
            raw = self.heads[number](features)
            found.append(self._maps(raw, prior))
            if number < len(self.again):
                x = x + self.again[number](torch.cat([features, raw], 1))
        return found, offsets

    def _joined(self, levels: list[Tensor], size: torch.Size) -> Tensor:
        """Return MoveNet's features of all levels on the maps (B, width, h', w')."""
        finest = levels[0].clone()
        for channels, scale in _MOVENET_SCALES:
            finest[:, channels] /= scale
        joined = self.lateral[0](finest)
        for lateral, level in zip(self.lateral[1:], levels[1:]):
            joined = joined + F.interpolate(lateral(level), size, mode="bilinear")
        return joined

    def _maps(self, raw: Tensor, prior: Tensor) -> Maps:
        heat, tags, orpm, fields = raw.float().split(list(self.channels.values()), 1)
        if self.config.stride > HEAT_STRIDE:
            heat = twice_as_fine(heat)
        tags = tags.unflatten(1, (K, -1))
        if self.config.tags == "positions":
            tags = tags + self._positions(tags)
        return {"heat": prior + heat, "tags": tags, "orpm": orpm.unflatten(1, (J, 3)),
                "fields": fields.unflatten(1, (-1, 2))}

    def _positions(self, tags: Tensor) -> Tensor:
        """Return the positions (2, h', w') x, y of the cells of tags, in units of `TAG_PX`."""
        height, width = tags.shape[-2:]
        rows, columns = (torch.arange(n, device=tags.device, dtype=tags.dtype)
                         for n in (height, width))
        return torch.stack(torch.meshgrid(columns, rows, indexing="xy")) \
            * self.config.stride / TAG_PX


class HourglassBlock(nn.Module):
    """Halves maps several times and returns, with a skip connection at each size.

    Source: Newell et al. 2016.
    """

    def __init__(self, width: int, growth: int, halvings: int) -> None:
        super().__init__()
        inner = width + growth
        self.skip = conv_norm_relu(width, width)
        self.down = conv_norm_relu(width, inner, 2)
        self.inner = HourglassBlock(inner, growth, halvings - 1) if halvings > 1 \
            else conv_norm_relu(inner, inner)
        self.up = conv_norm_relu(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return maps of the size of x (B, width, h, w)."""
        coarse = self.up(self.inner(self.down(x)))
        return self.skip(x) + F.interpolate(coarse, x.shape[-2:], mode="nearest")


def twice_as_fine(maps: Tensor) -> Tensor:
    """Return maps (B, C, 2 h, 2 w): cell 2 c is at cell c of maps (B, C, h, w)."""
    height, width = maps.shape[-2:]
    padded = F.pad(maps, (0, 1, 0, 1), mode="replicate")
    fine = F.interpolate(padded, (2 * height + 1, 2 * width + 1), mode="bilinear",
                         align_corners=True)
    return fine[..., :-1, :-1]


def sampled(maps: Tensor, image: Tensor, points: Tensor, stride: int) -> Tensor:
    """Read maps at points, bilinearly; beyond the outermost cells, those cells.

    Args:
        maps (B, C, h, w): of B pictures.
        image (N,): index of the picture of each row of points.
        points (N, M, 2): x, y px; finite.
        stride: px per cell.
    Returns:
        (N, M, C).
    """
    last = torch.tensor(maps.shape[:-3:-1], device=maps.device) - 1  # w - 1, h - 1
    cells = torch.minimum((points / stride).clamp(min=0), last)
    low = torch.minimum(cells.floor().long(), (last - 1).clamp(min=0))
    share = cells - low
    high = torch.minimum(low + 1, last)
    row = image[:, None]

    def at(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        return maps[row, :, y, x] * weight[..., None]

    right, down = share.unbind(-1)
    return at(low[..., 0], low[..., 1], (1 - right) * (1 - down)) \
        + at(high[..., 0], low[..., 1], right * (1 - down)) \
        + at(low[..., 0], high[..., 1], (1 - right) * down) \
        + at(high[..., 0], high[..., 1], right * down)
