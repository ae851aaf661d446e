"""MoveNet's features as a backbone: they were trained on real people.

A network that is trained on synthetic images alone does not generalise to real ones. With this
backbone frozen, the trained layers get features of synthetic images that resemble those of real
ones, but no more of synthetic people than MoveNet extracts. The layers below stride 8 (edges and
textures) can be frozen alone: they serve any image and take half of the training time.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ros2_pose.networks.tflite import load_tflite
from ros2_pose.weights import fetch

CHANNELS = (24 + 17, 72, 176, 304)
# Channels of the finest level with `regressions`: features, heat-maps, and as `MoveNet.forward`
# returns them offsets, displacements and the centre's logits.
HEATMAPS, OFFSETS = slice(24, 41), slice(41, 75)
DISPLACEMENTS, CENTER = slice(75, 109), slice(109, 110)
REGRESSION_CHANNELS = (110, *CHANNELS[1:])
_MODEL = "center_net_mobile_net_v2fpn_feature_extractor/model_1"
_HEATMAP_HEAD = "kpt_heatmap_0/conv2d_7/BiasAdd"
# Input of MoveNet's heads (stride 4); at strides 8, 16 and 32 the outputs of its encoder and of its
# feature pyramid.
_OUTPUTS = [f"{_MODEL}/{name}" for name in (
    "re_lu_2/Relu", "model/block_5_add/add", "re_lu_1/Relu", "model/block_12_add/add",
    "re_lu/Relu", "model/block_15_add/add", "conv2d/BiasAdd")]
_REGRESSIONS = ["kpt_offset_0/conv2d_9/BiasAdd", "kpt_regress_0/conv2d_8/BiasAdd",
                "center_0/conv2d_4/BiasAdd"]
HIGHEST = 6.0  # value of a heat-map's maximum, as of other features (ReLU6)

# Layers at stride 4: the first ones (9 feeds MoveNet's pyramid), and from 57 on the last ones of
# the pyramid and the heat-maps: Adam's steps are too large for their small weights.
_FINE = tuple(f"layer{number}." for number in (*range(9), 10, *range(57, 68)))


class MoveNetBackbone(nn.Module):
    """Features of `CHANNELS` at strides 4, 8, 16 and 32 of images (B, 3, H, W), 0..255."""

    def __init__(self, frozen: str = "all", regressions: bool = False) -> None:
        """Load MoveNet's layers.

        Args:
            frozen: layers that are not trained: "all", "fine" (below stride 8, and the heat-maps)
                or "nothing".
            regressions: the finest level has MoveNet's regressions, too: `REGRESSION_CHANNELS`.
        """
        super().__init__()
        more = _REGRESSIONS if regressions else []
        self.regressions = len(more)
        self.graph = load_tflite(fetch("movenet_multipose.tflite"),
                                 [_HEATMAP_HEAD, *more, *_OUTPUTS])
        for name, weight in self.graph.named_parameters():
            is_fine = name.startswith(_FINE)
            weight.requires_grad_(frozen == "nothing" or (frozen == "fine" and not is_fine))

    def forward(self, x: Tensor) -> list[Tensor]:
        heatmaps, *outputs = self.graph(x)
        regressions, (finest, *others) = (outputs[:self.regressions], outputs[self.regressions:])
        finest = torch.cat([finest, HIGHEST * heatmaps.sigmoid(), *regressions], 1)
        coarser = [torch.cat(pair, 1) for pair in zip(others[::2], others[1::2])]
        return [finest, *coarser]
