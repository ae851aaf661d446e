"""The convolutional part of a network, from image to heads, in torch or in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from ros2_pose.networks import onnx_engine

_FOLDER = Path(__file__).parent / "data"


def graph_file(name: str) -> Path:
    """Return the shipped graph, without weights, of a network; `export.py` writes it."""
    return _FOLDER / f"{name}.onnx"


class Heads(nn.Module):
    """Computes the heads of a network.

    On a CPU with ONNX Runtime if that is chosen, else in torch, where it is differentiable.

    Attributes:
        module: the torch module.
        engine: ONNX Runtime with the module's weights; None if torch computes.
    """

    def __init__(self, name: str, module: nn.Module, engine: str,
                 device: torch.device | str = "cpu") -> None:
        """Prepare the computation.

        Args:
            name: of the graph that is shipped for ONNX Runtime.
            module: maps float images (B, 3, h, w), RGB, 0..255, to a tuple of maps.
            engine: setting `engine` of `PoseConfig`; read on a CPU.
            device: torch device that computes.
        Raises:
            EngineError: onnxruntime is asked for and missing, or its graph does not fit.
        """
        super().__init__()
        self.module = module.to(device, memory_format=torch.channels_last).eval()
        self.engine: onnx_engine.OnnxEngine | None = None
        if torch.device(device).type == "cpu" and onnx_engine.is_chosen(engine):
            self.engine = onnx_engine.OnnxEngine(graph_file(name), module.state_dict())

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute the heads (B, channels, h', w') of images.

        Args:
            images: (B, 3, h, w) uint8 or float, RGB, 0..255; h and w are multiples of 32. Fastest
                if the memory is (B, h, w, 3), as of a picture.
        """
        if self.engine is not None and images.device.type == "cpu":
            return self.engine(images)
        return self.module(images.float().contiguous(memory_format=torch.channels_last))
