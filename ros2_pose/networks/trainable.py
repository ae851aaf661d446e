"""The contract between a network's layers and training, checkpoints and calibration."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ros2_pose.config import ConfigError
from ros2_pose.skeleton import COCO17


class TrainableNet(nn.Module, ABC):
    """Layers that `ros2_pose train` trains; the registry names them beside their losses.

    Attributes:
        NAME: of the network in the registry.
        CONFIG: frozen dataclass of the architecture, the section `network` of a training file.
        PARTS: names of the modules that are trained, by the setting `parts` besides "all".
        ONE_PERSON: whether it is trained on crops of one person each instead of whole pictures.
        config: the architecture, of the class CONFIG.
        votes, floor (17,): measured after training; the variance of a keypoint is
            votes * c^2 + floor, c of the network's own votes, relative to `lengths`.
    """

    NAME: ClassVar[str]
    CONFIG: ClassVar[type[Any]]
    PARTS: ClassVar[dict[str, tuple[str, ...]]] = {}
    ONE_PERSON: ClassVar[bool] = False
    votes: Tensor
    floor: Tensor

    def __init__(self, config: Any) -> None:
        """Create untrained layers; a subclass adds its own.

        Args:
            config: the architecture, of the class CONFIG.
        """
        super().__init__()
        self.config = config
        self.register_buffer("votes", torch.ones(len(COCO17)))
        self.register_buffer("floor", torch.zeros(len(COCO17)))

    @property
    @abstractmethod
    def picture_size(self) -> int:
        """Side of the square pictures that it is trained on, px."""

    @property
    def backbone(self) -> nn.Module | None:
        """Layers that have a learning rate of their own."""
        return None

    def is_given(self, name: str) -> bool:
        """Return whether a weight comes with a part that is not trained: checkpoints lack it."""
        return False

    def load_pretrained(self, detector: str) -> None:
        """Load the weights that a training without `--init` starts from.

        Args:
            detector: the setting `detector` of the training.
        Raises:
            ConfigError: a detector is named, and the network has none.
        """
        if detector:
            raise ConfigError(f"detector: the network {self.NAME} starts from no detector; "
                              "remove the key")

    def lengths(self, boxes: Tensor) -> Tensor:
        """Return the lengths (N, 2) px, in x and y, that keypoint errors are relative to.

        Args:
            boxes (N, 4): x min, y min, x max, y max, px.
        """
        size = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1)
        return size.prod(1, keepdim=True).sqrt().expand(-1, 2)
