"""The contract of a 2D pose network: pictures in, `People` out."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import nn

from ros2_pose.people import People


class PoseNetwork(ABC, nn.Module):
    """Base of every network. A subclass says how to prepare, what to compute and how to decode.

    What crosses the border is `People` alone; a network's own tensors stay inside. The result for
    a picture does not depend on which other pictures are in the batch.
    """

    name: str

    @abstractmethod
    def prepare(self, image: np.ndarray) -> list[torch.Tensor]:
        """Inputs (C, h, w) of a picture (H, W, 3) uint8 RGB: one for each pass through the net."""

    @abstractmethod
    def forward(self, batch: torch.Tensor):
        """Raw outputs for inputs (B, C, h, w) of one size."""

    @abstractmethod
    def decode(self, raw: list, size: tuple[int, int]) -> People:
        """People of one picture of `size` (width, height) from the raw outputs of its inputs."""

    @property
    def device(self) -> torch.device:
        """Where the network's parameters are."""
        return next(self.parameters()).device

    @torch.inference_mode()
    def detect(self, images: list[np.ndarray]) -> list[People]:
        """People of each picture (H, W, 3) uint8 RGB; pictures may differ in size."""
        inputs = [self.prepare(image) for image in images]
        raw = self._forward_by_size(inputs)
        return [self.decode(outputs, image.shape[1::-1]) for outputs, image in zip(raw, images)]

    def _forward_by_size(self, inputs: list[list[torch.Tensor]]) -> list[list]:
        """Run inputs of equal size as one batch; outputs in the order of `inputs`."""
        places: dict[tuple, list[tuple[int, int]]] = {}
        for i, passes in enumerate(inputs):
            for k, tensor in enumerate(passes):
                places.setdefault(tuple(tensor.shape), []).append((i, k))
        outputs: list[list] = [[None] * len(passes) for passes in inputs]
        for group in places.values():
            batch = torch.stack([inputs[i][k] for i, k in group]).to(self.device)
            raw = self(batch)
            for row, (i, k) in enumerate(group):
                outputs[i][k] = tuple(tensor[row] for tensor in raw)
        return outputs
