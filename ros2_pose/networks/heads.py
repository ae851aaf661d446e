"""The convolutional part of a network, from image to heads, in torch or in ONNX Runtime."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import nn

from ros2_pose.config import PoseConfig
from ros2_pose.networks import engine as engines
from ros2_pose.networks import onnx_engine

log = logging.getLogger(__name__)

_FOLDER = Path(__file__).parent / "data"
_ON_CPU = PoseConfig(device="cpu")


def graph_file(name: str) -> Path:
    """Return the shipped graph, without weights, of a network; `export.py` writes it."""
    return _FOLDER / f"{name}.onnx"


class Heads(nn.Module):
    """Computes the heads of a network in the engine that the settings choose, see `engine.py`.

    In torch it is differentiable.

    Attributes:
        module: the torch module; it stays on the CPU if ONNX Runtime computes.
        engine: ONNX Runtime with the module's weights; None if torch computes.
    """

    def __init__(self, name: str, module: nn.Module, config: PoseConfig = _ON_CPU,
                 device: torch.device | str = "cpu", long_side: int = 512) -> None:
        """Prepare the computation.

        Args:
            name: of the graph that is shipped for ONNX Runtime.
            module: maps float images (B, 3, h, w), RGB, 0..255, to a tuple of maps.
            config: settings; read are `engine`, `device`, `require_gpu` and `fp16`.
            device: torch device that computes, if torch does.
            long_side: of the largest images, px; some engines compile for sizes up to it.
        Raises:
            EngineError: an engine is asked for that is missing or cannot run.
        """
        super().__init__()
        self._config = config
        self.engine: onnx_engine.OnnxEngine | None = None
        module = module.eval()
        names = engines.candidates(config, device)
        for number, candidate in enumerate(names):
            if candidate == engines.TORCH:
                break
            try:
                self.engine = onnx_engine.create(graph_file(name), module.cpu(), candidate,
                                                 config.fp16, long_side)
                break
            except onnx_engine.EngineError as error:
                if number + 1 == len(names):
                    raise
                log.warning("%s; %s computes instead", error, names[number + 1])
        on = "cpu" if self.engine else device
        self.module = module.to(on, memory_format=torch.channels_last)

    @property
    def device(self) -> torch.device:
        """Device that images are taken on without a copy."""
        return next(self.module.parameters()).device

    @property
    def in_use(self) -> tuple[str, str]:
        """What computes images on `device`: the engine's name, and "cpu" or "cuda"."""
        if self.engine is not None and self.device.type == "cpu":
            return self.engine.name, self.engine.device
        half = " fp16" if engines.is_half(self._config, self.device) else ""
        return engines.TORCH + half, self.device.type

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute the heads (B, channels, h', w') of images, on their device.

        Args:
            images: (B, 3, h, w) uint8 or float, RGB, 0..255; h and w are multiples of 32. Fastest
                if the memory is (B, h, w, 3), as of a picture.
        """
        given = images.device
        images = images.to(self.device)
        if self.engine is not None and images.device.type == "cpu":
            return tuple(maps.to(given) for maps in self.engine(images))
        images = images.float().contiguous(memory_format=torch.channels_last)
        if not engines.is_half(self._config, self.device):
            return tuple(maps.to(given) for maps in self.module(images))
        with engines.autocast(self._config, self.device):
            return tuple(maps.float().to(given) for maps in self.module(images))


def engines_in_use(module: nn.Module, config: PoseConfig) -> set[tuple[str, str]]:
    """Return what computes a network's layers: names of engines and their devices.

    Args:
        module: the network, or a part of it.
        config: settings; read is `fp16`.
    """
    heads = [part for part in module.modules() if isinstance(part, Heads)]
    in_heads = {id(value) for part in heads for value in part.parameters()}
    others = {value.device for value in module.parameters() if id(value) not in in_heads}
    half = {device: " fp16" if engines.is_half(config, device) else "" for device in others}
    return {part.in_use for part in heads} | {
        (engines.TORCH + half[device], device.type) for device in others}
