"""Architecture of the stacked hourglasses: the section `network` of a training file."""

from __future__ import annotations

from dataclasses import dataclass

from ros2_pose.config import ConfigError, setting


@dataclass(frozen=True)
class HourglassConfig:
    """Architecture of the network; stored in its checkpoints."""

    backbone: str = setting("movenet", "where features come from besides the learned stem: "
                            "MoveNet's layers, which are not trained; learned: the stem alone",
                            choices=("movenet", "learned"))
    input_size: int = setting(256, "side of the squares that it is trained on, px", low=64,
                              high=2048)
    stride: int = setting(8, "px per cell of the hourglasses' maps, 4 or 8", low=4, high=8)
    stacks: int = setting(4, "number of hourglasses", low=1, high=8)
    width: int = setting(96, "channels of the finest maps", low=16, high=512)
    growth: int = setting(0, "further channels at each halving", low=0, high=256)
    halvings: int = setting(3, "of the maps in each hourglass", low=1, high=5)
    tag_dims: int = setting(2, "numbers in a tag", low=1, high=8)
    tags: str = setting("positions", "what tags are: positions in the picture, moved by the "
                        "network (needs 2 tag_dims), or free numbers",
                        choices=("positions", "free"))

    def __post_init__(self) -> None:
        if self.stride not in (4, 8):
            raise ConfigError(f"stride: {self.stride} must be 4 or 8")
        coarsest = self.stride * 2**self.halvings
        if self.input_size % max(coarsest, 32):
            raise ConfigError(f"input_size: {self.input_size} must be a multiple of "
                              f"{max(coarsest, 32)}, or halvings fewer")
        if self.tags == "positions" and self.tag_dims != 2:
            raise ConfigError(f"tag_dims: {self.tag_dims} must be 2 where tags are positions")
