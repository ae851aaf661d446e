"""Architecture of the network of Wang et al. 2022: the section `network` of a training file."""

from __future__ import annotations

from dataclasses import dataclass

from ros2_pose.config import ConfigError, setting

STRIDES = (8, 16, 32, 64)  # of the pyramid's levels, px


@dataclass(frozen=True)
class DasConfig:
    """Architecture of the network; stored in its checkpoints."""

    backbone: str = setting("movenet", "network that the image's features come from",
                            choices=("movenet", "resnet18", "resnet50"))
    frozen: str = setting("all", "which of MoveNet's features are not trained; fine: those of "
                          "strides below 8", choices=("all", "fine", "nothing"))
    strides: tuple[int, ...] = setting((8,), "of the levels on which people are found, px, finest "
                                       "first", low=8, high=64)
    reaches: tuple[int, ...] = setting((0,), "on each level, from which distance of the farthest "
                                       "joint from the centre on people are found, px", low=0,
                                       high=4096)
    center: str = setting("pelvis", "where people are found: at the pelvis, or the middle of the "
                          "box", choices=("pelvis", "box"))
    input_size: int = setting(512, "long side of the pictures that are read, px", low=64, high=4096)
    crop: int = setting(384, "side of the squares that it is trained on, px", low=64, high=4096)
    width: int = setting(96, "channels of the features", low=16, high=1024)
    layers: int = setting(2, "convolutions of each branch", low=1, high=8)
    hidden: int = setting(256, "width of the layers that see a whole pose", low=16, high=2048)
    recursions: int = setting(1, "updates of the joints", low=0, high=8)
    sources: int = setting(4, "points that an update reads around the centre, and around the "
                           "joint", low=1, high=32)
    lift: bool = setting(True, "joints in space start from the lift's estimate (body/lift.py)")
    flow: bool = setting(True, "errors have a learned distribution instead of Laplace's")

    def __post_init__(self) -> None:
        if not self.strides or any(stride not in STRIDES for stride in self.strides) \
                or list(self.strides) != sorted(set(self.strides)):
            raise ConfigError(f"strides: {list(self.strides)} must be increasing, of "
                              f"{', '.join(map(str, STRIDES))}")
        if len(self.reaches) != len(self.strides) or self.reaches[0] != 0 \
                or list(self.reaches) != sorted(self.reaches):
            raise ConfigError(f"reaches: {list(self.reaches)} must be 0 and increasing numbers, "
                              f"one for each of strides {list(self.strides)}")
        for name in ("input_size", "crop"):
            if getattr(self, name) % 32:
                raise ConfigError(f"{name}: {getattr(self, name)} must be a multiple of 32")
