"""What the Self-Attention Network reads crops with: Thunder's layers, or a ResNet."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from ros2_pose.config import PoseConfig
from ros2_pose.errors import PoseError
from ros2_pose.networks.heads import Heads
from ros2_pose.networks.resnet import IMAGENET_PIXELS, RESNETS, STAGE_CHANNELS
from ros2_pose.networks.san.config import SanConfig
from ros2_pose.networks.tfjs import load_tfjs
from ros2_pose.networks.thunder import HEADS
from ros2_pose.weights import fetch

_MODEL = "StatefulPartitionedCall/center_net_mobile_net_v2fpn_feature_extractor/model_1"
# Features at strides 32, 16, 8 and 4: outputs of the encoder and of the feature pyramid.
_LEVELS = (("model/block_16_project_BN/FusedBatchNormV3",),
           ("model/block_12_add/add", "re_lu/Relu"),
           ("model/block_5_add/add", "re_lu_1/Relu"),
           ("re_lu_2/Relu",))


def load_features() -> fx.GraphModule:
    """Return the module that computes Thunder's heads and then the features of each level."""
    names = [f"{_MODEL}/{name}" for level in _LEVELS for name in level]
    return load_tfjs(fetch("movenet_thunder.json"), fetch("movenet_thunder.bin"), [*HEADS, *names])


class ThunderFeatures(nn.Module):
    """Thunder's features, coarsest first, and its heads; nothing is trained.

    Attributes:
        channels: of the features at strides 32, 16, 8 and 4.
    """

    channels = (560, 168 + 32, 56 + 24, 24)

    def __init__(self) -> None:
        super().__init__()
        self.graph = Heads("thunder_features", load_features().requires_grad_(False))

    def set_engine(self, config: PoseConfig, device: torch.device | str, long_side: int) -> None:
        """Choose what computes crops of up to `long_side` px by the settings, see `Heads`."""
        self.graph = Heads("thunder_features", self.graph.module, config, device, long_side)

    @torch.no_grad()
    def forward(self, crops: Tensor) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        """Compute crops (N, 3, h, w), RGB, 0..255.

        Returns:
            Features (N, channels, h / stride, w / stride) with mean 0 and deviation 1 of a crop's,
            because they differ in scale; and the heads of `Thunder.heads`.
        """
        outputs = self.graph(crops)
        heads, maps = outputs[:len(HEADS)], iter(outputs[len(HEADS):])
        levels = [F.group_norm(torch.cat([next(maps) for _ in level], 1), 1) for level in _LEVELS]
        return levels, heads


class ResNetFeatures(nn.Module):
    """A ResNet's features, coarsest first; it has no heads.

    Attributes:
        channels: of the features at strides 32, 16, 8 and 4.
    """

    channels = STAGE_CHANNELS["bottleneck"][::-1]

    def __init__(self, name: str) -> None:
        super().__init__()
        try:
            from transformers import ResNetConfig, ResNetModel
        except ImportError as error:
            raise PoseError("a ResNet needs more: pip install 'transformers>=5.20,<6'; or set "
                            "backbone to thunder") from error
        layer_type, depths = RESNETS[name]
        self.resnet = ResNetModel(ResNetConfig(layer_type=layer_type, depths=depths))
        for name, values in zip(("mean", "std"), IMAGENET_PIXELS):
            self.register_buffer(name, torch.tensor(values).view(3, 1, 1), persistent=False)

    def load_imagenet(self, source: str) -> None:
        """Load weights trained on ImageNet: a name on Hugging Face or a folder."""
        self.resnet.load_state_dict(type(self.resnet).from_pretrained(source).state_dict())

    def forward(self, crops: Tensor) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        """Compute the features of crops (N, 3, h, w), RGB, 0..255; no heads."""
        normalised = (crops.float() - self.mean) / self.std
        levels = self.resnet(normalised, output_hidden_states=True).hidden_states[:0:-1]
        return list(levels), ()


def san_backbone(config: SanConfig) -> ThunderFeatures | ResNetFeatures:
    """Create the backbone that the config names."""
    return ThunderFeatures() if config.backbone == "thunder" else ResNetFeatures(config.backbone)
