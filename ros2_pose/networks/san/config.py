"""Architecture of the Self-Attention Network: the section `network` of a training file."""

from __future__ import annotations

from dataclasses import dataclass

from ros2_pose.config import ConfigError, setting


@dataclass(frozen=True)
class SanConfig:
    """Architecture of the network; stored in its checkpoints. The defaults are the paper's."""

    backbone: str = setting("resnet50", "network that the crop's features come from; thunder: "
                            "MoveNet Thunder's, which are not trained; its heat-maps vote, too",
                            choices=("thunder", "resnet50", "resnet152"))
    input_size: int = setting(256, "side of the crops that it is trained on, px", low=64, high=1024)
    widths: tuple[int, ...] = setting((256, 256, 256), "channels after each deconvolution",
                                      low=8, high=1024)
    depth_cells: int = setting(64, "of a joint's volume along the line of sight", low=4, high=128)
    attention: bool = setting(True, "self-attention on the coarsest features; false: the paper's "
                              "ablation")
    laterals: bool = setting(False, "the backbone's finer features are added after each "
                             "deconvolution, which is not in the paper")
    lift: bool = setting(False, "the body that explains the keypoints found votes for the SMPL "
                         "joints, too, which is not in the paper")

    def __post_init__(self) -> None:
        if self.input_size % 32:
            raise ConfigError(f"input_size: {self.input_size} must be a multiple of 32")
        if len(self.widths) != 3:
            raise ConfigError(f"widths: {list(self.widths)} must be three numbers, one a "
                              "deconvolution")
        if any(width % 8 for width in self.widths):
            raise ConfigError(f"widths: {list(self.widths)} must be multiples of 8")
