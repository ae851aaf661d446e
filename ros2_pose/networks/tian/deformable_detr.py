"""Deformable DETR (Zhu et al. 2021) of `transformers` for people, on one of several backbones."""

from __future__ import annotations

import copy
import math
from typing import Any

from torch import Tensor, nn

from ros2_pose.errors import PoseError
from ros2_pose.networks import movenet_backbone
from ros2_pose.networks.resnet import IMAGENET_PIXELS, RESNETS, STAGE_CHANNELS
from ros2_pose.networks.tian import efficientnet_lite
from ros2_pose.networks.tian.config import TianConfig

_PERSON_SHARE = 0.01  # of queries, before training


# Of each backbone: channels of its features at strides 4, 8, 16 and 32.
_CHANNELS = {"movenet": movenet_backbone.CHANNELS,
             "efficientnet_lite0": efficientnet_lite.CHANNELS,
             "resnet18": STAGE_CHANNELS["basic"],
             "resnet50": STAGE_CHANNELS["bottleneck"]}
# Mean and standard deviation, RGB, 0..255, of the pixels that it was trained with.
_PIXELS = {"movenet": ((0.0,) * 3, (1.0,) * 3),
           "efficientnet_lite0": ((127.0,) * 3, (128.0,) * 3),
           "resnet18": IMAGENET_PIXELS,
           "resnet50": IMAGENET_PIXELS}


def channels(config: TianConfig) -> list[int]:
    """Return the channels of the backbone's features at strides 4, 8, 16 and 32."""
    return list(_CHANNELS[config.backbone])


def pixel_statistics(config: TianConfig) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation, RGB, 0..255, that the backbone's inputs are scaled by."""
    return _PIXELS[config.backbone]


def deformable_detr(config: TianConfig) -> Any:
    """Create the detector with initial weights.

    Its backbone `detr.model.backbone.model.levels` gives features at strides 4 to 32; attention
    samples those of strides 8 and more.

    Returns:
        `transformers.DeformableDetrForObjectDetection`.
    Raises:
        PoseError: transformers is not installed.
    """
    try:
        from transformers import DeformableDetrConfig, DeformableDetrForObjectDetection
    except ImportError as error:
        raise PoseError("network: tian needs more: pip install 'transformers>=5.20,<6'; "
                        "or set network to movenet") from error
    detr = DeformableDetrForObjectDetection(DeformableDetrConfig(
        backbone_config=_resnet_config(config), use_timm_backbone=False, num_labels=1,
        d_model=config.width, encoder_layers=config.encoder_layers,
        decoder_layers=config.decoder_layers, encoder_ffn_dim=config.ffn,
        decoder_ffn_dim=config.ffn, dropout=0.0, encoder_attention_heads=config.heads,
        decoder_attention_heads=config.heads, encoder_n_points=config.points,
        num_feature_levels=config.levels, num_queries=config.queries,
        with_box_refine=config.box_refine, two_stage=config.two_stage,
        two_stage_num_proposals=config.queries))
    detr.model.backbone.model = _WithoutFinest(_levels(config, detr.model.backbone.model))
    if config.box_refine and not config.two_stage:  # `transformers` ties these heads
        detr.class_embed = nn.ModuleList(copy.deepcopy(head) for head in detr.class_embed)
    for layer in detr.class_embed:
        nn.init.constant_(layer.bias, math.log(_PERSON_SHARE / (1 - _PERSON_SHARE)))
    for layer in detr.bbox_embed:
        nn.init.zeros_(layer.layers[-1].weight)
        nn.init.zeros_(layer.layers[-1].bias)
    return detr


def _resnet_config(config: TianConfig) -> Any:
    """Return a ResNet's configuration; for another backbone, one with as many channels."""
    from transformers import ResNetConfig
    kind, depths = RESNETS.get(config.backbone, ("basic", [1, 1, 1, 1]))
    return ResNetConfig(layer_type=kind, depths=depths, hidden_sizes=channels(config),
                        out_features=["stage2", "stage3", "stage4"])


def _levels(config: TianConfig, resnet: nn.Module) -> nn.Module:
    """Return the backbone; `resnet` is the one that `transformers` made by `_resnet_config`."""
    if config.backbone == "movenet":
        return movenet_backbone.MoveNetBackbone(config.frozen)
    if config.backbone == "efficientnet_lite0":
        return efficientnet_lite.EfficientNetLite()
    _freeze_first_stage(resnet)
    return _ResNetLevels(resnet)


def _freeze_first_stage(resnet: nn.Module) -> None:
    """Freeze the stem and the first stage, as the original; `transformers` freezes everything."""
    for name, weight in resnet.named_parameters():
        weight.requires_grad_(name.startswith("encoder.") and ".stages.0." not in name)


class _ResNetLevels(nn.Module):
    """Features of `transformers`' ResNet after each of its four stages."""

    def __init__(self, resnet: nn.Module) -> None:
        super().__init__()
        self.resnet = resnet

    def forward(self, x: Tensor) -> list[Tensor]:
        return list(self.resnet(x, output_hidden_states=True).hidden_states[1:])


class _WithoutFinest(nn.Module):
    """Levels that Deformable DETR attends to: all but the finest, which has too many tokens."""

    def __init__(self, levels: nn.Module) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.levels(x)[1:]
