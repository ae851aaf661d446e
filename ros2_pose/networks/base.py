"""The contract of a 2D pose network: pictures in, `People` out."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import nn

from ros2_pose.config import PoseConfig
from ros2_pose.people import Frame, People


class PoseNetwork(ABC, nn.Module):
    """Base of every network. A subclass says how to prepare, what to compute and how to decode.

    What crosses the border is `People` alone; a network's own tensors stay inside. The result for
    a picture does not depend on which other pictures are in the batch.
    """

    name: str
    rotation_std: torch.Tensor | None = None  # (24,) rad, of theta, if it gives one

    score_threshold: float
    max_people: int

    def configure(self, score_threshold: float, max_people: int) -> None:
        """Set what may change while running; the pipeline calls it before the first frame.

        Args:
            score_threshold: people with a lower score are not returned, 0..1.
            max_people: greatest number of people returned for one image.
        """
        self.score_threshold, self.max_people = score_threshold, max_people

    @classmethod
    @abstractmethod
    def from_config(cls, config: PoseConfig, engine: str = "torch") -> PoseNetwork:
        """The network that settings ask for. engine: what computes on a CPU, where there is a
        choice."""

    @abstractmethod
    def prepare(self, image: np.ndarray) -> list[torch.Tensor]:
        """Inputs (C, h, w) of a picture (H, W, 3) uint8 RGB: one for each pass through the net."""

    @abstractmethod
    def forward(self, batch: torch.Tensor):
        """Raw outputs for inputs (B, C, h, w) of one size."""

    @abstractmethod
    def decode(self, raw: list, frame: Frame) -> People:
        """People of one frame from the raw outputs of its inputs."""

    @property
    def device(self) -> torch.device:
        """Where the network's parameters are."""
        return next(self.parameters()).device

    @torch.inference_mode()
    def detect(self, frames: list[Frame]) -> list[People]:
        """People of each frame; pictures may differ in size."""
        raw = self._forward_by_size([self.prepare(frame.image) for frame in frames])
        return [self.decode(outputs, frame) for outputs, frame in zip(raw, frames)]

    def _forward_by_size(self, inputs: list[list[torch.Tensor]]) -> list[list]:
        """Run inputs of equal size as one batch; outputs in the order of `inputs`."""
        rows: dict[tuple, list[tuple[int, int]]] = {}
        for i, passes in enumerate(inputs):
            for k, tensor in enumerate(passes):
                rows.setdefault(tuple(tensor.shape), []).append((i, k))
        outputs: list[list] = [[None] * len(passes) for passes in inputs]
        for group in rows.values():
            batch = torch.stack([inputs[i][k] for i, k in group]).to(self.device)
            raw = self(batch)
            for row, (i, k) in enumerate(group):
                outputs[i][k] = tuple(tensor[row] for tensor in raw)
        return outputs


def input_size(size: tuple[int, int], scale: int) -> tuple[int, int]:
    """Width and height of a picture whose long side is scaled to `scale`."""
    factor = scale / max(size)
    return max(round(size[0] * factor), 1), max(round(size[1] * factor), 1)


def padded_length(length: int) -> int:
    """The next multiple of 32, the networks' coarsest stride."""
    return -(-length // 32) * 32
