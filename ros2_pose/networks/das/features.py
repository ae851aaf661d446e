"""Features and first estimates that DAS starts from."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ros2_pose.errors import PoseError
from ros2_pose.networks import movenet_backbone as movenet
from ros2_pose.networks.das.config import DasConfig
from ros2_pose.networks.movenet_backbone import MoveNetBackbone
from ros2_pose.networks.resnet import IMAGENET_PIXELS, RESNETS, STAGE_CHANNELS
from ros2_pose.skeleton import COCO17

START_STRIDE = 4  # px, of MoveNet's maps
CENTER_STRIDE = 2 * START_STRIDE  # px, of the logits of the centre
START_CHANNELS = 5  # of a keypoint: heat, offset x, y from a cell near it, x, y from the centre
_HALF_CELL = START_STRIDE / 2  # MoveNet counts cells from the first one's centre
_STAGES = ["stage2", "stage3", "stage4"]  # of a ResNet, strides 8, 16 and 32
_TYPICAL_CELLS = 16.0  # length of a displacement, cells: features have the size of 1


class MoveNetFeatures(nn.Module):
    """MoveNet's features at strides 8, 16 and 32, and its own estimates of keypoints."""

    channels = (4 * movenet.REGRESSION_CHANNELS[0] + movenet.CHANNELS[1], *movenet.CHANNELS[2:])

    def __init__(self, config: DasConfig) -> None:
        super().__init__()
        self.backbone = MoveNetBackbone(config.frozen, regressions=True)
        self.is_frozen = config.frozen == "all"

    def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Compute the features of images (B, 3, H, W), RGB, 0..255.

        Returns:
            Features (B, channels, h, w) at strides 8, 16 and 32; first estimates (B, 17,
            START_CHANNELS, h, w) px at stride 4, see `start_points`; logits of the centre
            (B, 1, h, w) at stride 8.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.is_frozen):
            finest, *coarser = self.backbone(images)
        center = finest[:, movenet.CENTER]
        heat = finest[:, movenet.HEATMAPS] / movenet.HIGHEST
        offsets, displacements = (
            START_STRIDE * finest[:, part].unflatten(1, (-1, 2)).flip(2)  # y, x to x, y
            for part in (movenet.OFFSETS, movenet.DISPLACEMENTS))
        start = torch.cat([heat[:, :, None], offsets, displacements], 2)
        scale = finest.new_ones(1, finest.shape[1], 1, 1)
        scale[:, movenet.DISPLACEMENTS] = 1 / _TYPICAL_CELLS
        fine = F.pixel_unshuffle(finest * scale, 2)  # loses nothing
        return [torch.cat([fine, coarser[0]], 1), *coarser[1:]], start, F.avg_pool2d(center, 2)


class ResNetMaps(nn.Module):
    """A ResNet's features at strides 8, 16 and 32; it has no estimates of keypoints.

    Its batch normalisation stays as it was trained: batches are small.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: str) -> None:
        """Create the layers with random weights.

        Args:
            backbone: the setting, resnet18 or resnet50.
        Raises:
            PoseError: transformers is not installed.
        """
        super().__init__()
        layer_type, depths = RESNETS[backbone]
        widths = list(STAGE_CHANNELS[layer_type])
        self.channels = widths[1:]
        self.backbone: Any = _transformers().ResNetBackbone(_transformers().ResNetConfig(
            layer_type=layer_type, depths=depths, hidden_sizes=widths, out_features=_STAGES))
        for name, values in zip(("mean", "std"), IMAGENET_PIXELS):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def load(self, name: str) -> None:
        """Load weights trained on ImageNet: a name on Hugging Face, or a folder."""
        self.backbone = _transformers().ResNetBackbone.from_pretrained(name, out_features=_STAGES)

    def train(self, mode: bool = True) -> ResNetMaps:
        """Set the mode of all layers but those of batch normalisation."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Return what `MoveNetFeatures` does, with zeros for the estimates that it lacks."""
        maps = self.backbone((images - self.mean) / self.std).feature_maps
        none = images.new_zeros(len(images), len(COCO17), START_CHANNELS, 1, 1)
        return list(maps), none, none[:, :1, 0]


def _transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise PoseError("backbone: a ResNet needs more: pip install 'transformers>=5.20,<6'; or "
                        "set backbone to movenet") from error
    return transformers


def start_points(points: Tensor) -> Tensor:
    """Return where points (..., 2) px are in maps of first estimates, px, cell centres at +0.5."""
    return points + _HALF_CELL
