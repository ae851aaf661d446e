"""EfficientNet-Lite0 (Tan and Le 2019) as a backbone: features at strides 4 to 32.

Batch norms are folded into the convolutions when ImageNet's weights are read: as frozen ones, as
Deformable DETR trains with, they are part of them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ros2_pose.weights import fetch

CHANNELS = (24, 40, 112, 320)
IMAGENET = "efficientnet_lite0.pth"

# Expansion, channels, repeats, stride, kernel of each stage.
_STAGES = ((1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3),
           (6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3))
_STEM = 32
_OUT_STAGES = (1, 2, 4, 6)
_FROZEN_STAGES = 2  # edges and colours: the same in every picture, and the dearest to train
_EPSILON = 1e-3  # of the batch norms


class _Conv(nn.Conv2d):
    """A convolution whose borders are TensorFlow's, where the weights are from."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__(inputs, outputs, kernel, stride, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        beside = self.kernel_size[0] - self.stride[0]
        if beside % 2 == 0:
            return F.conv2d(x, self.weight, self.bias, self.stride, beside // 2,
                            groups=self.groups)
        low, high = beside // 2, beside - beside // 2
        return super().forward(F.pad(x, (low, high, low, high)))


class _Block(nn.Module):
    """Inverted residual: widen, look around, narrow (Sandler et al. 2018)."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int):
        super().__init__()
        wide = inputs * expansion
        self.expand = _Conv(inputs, wide, 1) if expansion > 1 else None
        self.depthwise = _Conv(wide, wide, kernel, stride, wide)
        self.project = _Conv(wide, outputs, 1)
        self.is_residual = inputs == outputs and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        wide = x if self.expand is None else F.relu6(self.expand(x))
        out = self.project(F.relu6(self.depthwise(wide)))
        return x + out if self.is_residual else out


class EfficientNetLite(nn.Module):
    """(B, 3, H, W) normalised as ImageNet's to features of `CHANNELS` at strides 4 to 32."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Conv(3, _STEM, 3, 2)
        self.stages = nn.ModuleList()
        inputs = _STEM
        for expansion, channels, repeats, stride, kernel in _STAGES:
            blocks = [_Block(inputs if i == 0 else channels, channels, expansion, kernel,
                             stride if i == 0 else 1) for i in range(repeats)]
            self.stages.append(nn.Sequential(*blocks))
            inputs = channels
        for module in (self.stem, *self.stages[:_FROZEN_STAGES]):
            module.requires_grad_(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = F.relu6(self.stem(x))
        found = []
        for number, stage in enumerate(self.stages):
            x = stage(x)
            if number in _OUT_STAGES:
                found.append(x)
        return found

    def load_imagenet(self) -> None:
        """Start from the weights that know ImageNet; they are fetched once."""
        given = torch.load(fetch(IMAGENET), map_location="cpu", weights_only=True)
        folded = {}
        for name, conv, norm in self._names():
            scale = given[f"{norm}.weight"] / (given[f"{norm}.running_var"] + _EPSILON).sqrt()
            folded[f"{name}.weight"] = given[f"{conv}.weight"] * scale[:, None, None, None]
            folded[f"{name}.bias"] = given[f"{norm}.bias"] - given[f"{norm}.running_mean"] * scale
        self.load_state_dict(folded)

    def _names(self):
        """Each convolution's name here, and its and its batch norm's in the published file."""
        yield "stem", "_conv_stem", "_bn0"
        number = 0
        for s, stage in enumerate(self.stages):
            for b, block in enumerate(stage):
                here, there = f"stages.{s}.{b}", f"_blocks.{number}"
                if block.expand is not None:
                    yield f"{here}.expand", f"{there}._expand_conv", f"{there}._bn0"
                yield f"{here}.depthwise", f"{there}._depthwise_conv", f"{there}._bn1"
                yield f"{here}.project", f"{there}._project_conv", f"{there}._bn2"
                number += 1
