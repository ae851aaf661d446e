"""Architecture of the network of Tian et al. 2023: the section `network` of a training file."""

from __future__ import annotations

from dataclasses import dataclass

from ros2_pose.config import ConfigError, setting


@dataclass(frozen=True)
class TianConfig:
    """Architecture of the network; stored in its checkpoints."""

    backbone: str = setting("efficientnet_lite0", "network that the image's features come from",
                            choices=("movenet", "efficientnet_lite0", "resnet18", "resnet50"))
    frozen: str = setting("all", "which of MoveNet's features are not trained; fine: those of "
                          "strides below 8", choices=("all", "fine", "nothing"))
    input_size: int = setting(256, "long side of the input, px", low=64, high=2048)
    width: int = setting(128, "of Deformable DETR's tokens", low=32, high=512)
    encoder_layers: int = setting(1, "of Deformable DETR", low=1, high=12)
    decoder_layers: int = setting(3, "of Deformable DETR", low=1, high=12)
    heads: int = setting(8, "of attention", low=1, high=16)
    points: int = setting(2, "sampled by a head of the encoder on each level", low=1, high=8)
    ffn: int = setting(256, "width of the feed-forward layers", low=32, high=4096)
    levels: int = setting(3, "of features that attention samples", low=3, high=5)
    queries: int = setting(30, "number of queries: most people that can be found", low=1, high=900)
    two_stage: bool = setting(True, "queries start from the encoder's proposals")
    box_refine: bool = setting(True, "each layer of the decoder refines the last one's boxes")
    features: str = setting("fpn", "that boxes are sampled from: the feature pyramid, or each "
                            "level of the backbone by itself (Table 1 of the paper)",
                            choices=("fpn", "direct"))
    keypoints: str = setting("kblock", "how a map gives a joint's position: votes, or the peak of "
                             "a Gaussian", choices=("kblock", "heatmap"))
    cells: int = setting(32, "of a joint's map, each way", low=8, high=128)
    roi_width: int = setting(64, "channels of a box's features", low=16, high=512)
    roi_layers: int = setting(2, "convolutions on a box's features", low=0, high=8)
    second_look: bool = setting(False, "the picture is given at twice input_size, and the square "
                                "around each person read by MoveNet Thunder's layers, too")
    box_factor: float = setting(1.25, "size of the sampled region relative to the box",
                                low=1.0, high=2.0)

    def __post_init__(self) -> None:
        if self.input_size % 32:
            raise ConfigError(f"input_size: {self.input_size} must be a multiple of 32")
        if self.two_stage and not self.box_refine:
            raise ConfigError("two_stage needs box_refine: set box_refine to true, or two_stage to "
                              "false")
        if self.second_look and (self.keypoints, self.cells) != ("kblock", 64):
            raise ConfigError("second_look needs keypoints: kblock and cells: 64, those of "
                              "Thunder's maps")

    @property
    def shrink(self) -> int:
        """Picture px for each px of the detector's input."""
        return 2 if self.second_look else 1

    @property
    def picture_size(self) -> int:
        """Long side of the pictures that the network is given, px."""
        return self.shrink * self.input_size
