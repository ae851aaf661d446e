"""MoveNet's own features as a backbone: they know real people.

A network that learns from synthetic pictures alone learns synthetic pictures. With this backbone
frozen, what learns sees them as it will see real ones; but it also sees of synthetic people only
what MoveNet does. What is finer than stride 8, edges and the like, can stay by itself: it serves
any picture, and half of the backbone's training is spent there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ros2_pose.networks.tflite import load_tflite
from ros2_pose.weights import fetch

CHANNELS = (24 + 17, 72, 176, 304)
_MODEL = "center_net_mobile_net_v2fpn_feature_extractor/model_1"
_HEATMAPS = "kpt_heatmap_0/conv2d_7/BiasAdd"
# What MoveNet's heads read (stride 4); at strides 8, 16 and 32 what its encoder knows, and what its
# own pyramid makes of that.
_OUTPUTS = [f"{_MODEL}/{name}" for name in (
    "re_lu_2/Relu", "model/block_5_add/add", "re_lu_1/Relu", "model/block_12_add/add",
    "re_lu/Relu", "model/block_15_add/add", "conv2d/BiasAdd")]
_HIGHEST = 6.0  # of a heat-map, as of other features (ReLU6)

FROZEN = ("all", "fine", "nothing")
_FINE = tuple(f"layer{number}." for number in (*range(9), 10))  # 9 leads to MoveNet's pyramid


class MoveNetBackbone(nn.Module):
    """(B, 3, H, W), 0..255, to features of `CHANNELS` at strides 4 to 32."""

    def __init__(self, frozen: str = "all") -> None:
        """frozen: what does not learn, one of `FROZEN`."""
        super().__init__()
        self.graph = load_tflite(fetch("movenet_multipose.tflite"), [_HEATMAPS, *_OUTPUTS])
        for name, weight in self.graph.named_parameters():
            weight.requires_grad_(frozen == "nothing" or
                                  frozen == "fine" and not name.startswith(_FINE))

    def forward(self, x: Tensor) -> list[Tensor]:
        heatmaps, finest, *others = self.graph(x)
        finest = torch.cat([finest, _HIGHEST * heatmaps.sigmoid()], 1)
        return [finest, *(torch.cat(pair, 1) for pair in zip(others[::2], others[1::2]))]
