"""Google's MoveNet SinglePose Thunder in torch: the keypoints of one person in a crop."""

from __future__ import annotations

import torch
from torch import fx, nn

from ros2_pose.config import PoseConfig
from ros2_pose.networks.heads import Heads
from ros2_pose.networks.tfjs import load_tfjs
from ros2_pose.weights import fetch

_HEADS = [f"StatefulPartitionedCall/{name}/BiasAdd" for name in (
    "center_0/conv2d_4", "kpt_heatmap_0/conv2d_5", "kpt_offset_0/conv2d_7",
    "kpt_regress_0/conv2d_6")]


def load_heads() -> fx.GraphModule:
    """Return the module that computes the heads; see `Thunder.heads`."""
    return load_tfjs(fetch("movenet_thunder.json"), fetch("movenet_thunder.bin"), _HEADS)


class Thunder(nn.Module):
    """MoveNet SinglePose Thunder (Google, Apache-2.0), 6.2 M parameters, 17 COCO keypoints."""

    def __init__(self, config: PoseConfig = PoseConfig(),
                 device: torch.device | str = "cpu") -> None:
        """Load the network.

        Args:
            config: settings; read is `engine`, which computes on a CPU.
            device: torch device that the network computes on.
        """
        super().__init__()
        self._heads = Heads("thunder", load_heads(), config.engine, device)

    @torch.inference_mode()
    def heads(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute the heads (B, channels, h / 4, w / 4) of crops.

        Args:
            batch: (B, 3, h, w) uint8 or float, RGB, 0..255; h and w are multiples of 32.
        Returns:
            Logits of the centre (1) and of the keypoints (17), keypoint offsets (34) and keypoint
            displacements from the centre (34); y before x, in cells.
        """
        return self._heads(batch)
