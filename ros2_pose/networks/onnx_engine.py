"""Runs a convolutional torch module in ONNX Runtime, on a CPU half again as fast as torch."""

from __future__ import annotations

import importlib.util
import io
import warnings

import torch
from torch import nn

from ros2_pose.errors import PoseError

_OPSET = 17


class EngineError(PoseError):
    """An engine that is asked for but not there."""


def available() -> bool:
    """Whether the packages are installed."""
    return all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))


class OnnxEngine:
    """A function like `module`: images (B, C, h, w) on the CPU to a tuple of maps.

    module: takes one batch of images, of any size in multiples of its stride, and gives a tuple.
    example: (1, C, h, w) float32. Raises EngineError if a package is missing.
    """

    def __init__(self, module: nn.Module, example: torch.Tensor):
        if not available():
            raise EngineError("engine: onnxruntime needs more: pip install onnx onnxruntime; "
                              "or set engine to auto or torch")
        import onnxruntime
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # As for OpenMP's threads (see process.py): the cores have other work.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(_exported(module, example), options,
                                                     providers=["CPUExecutionProvider"])

    def __call__(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        images = batch.float().contiguous().numpy()
        return tuple(map(torch.from_numpy, self._session.run(None, {"images": images})))


def _exported(module: nn.Module, example: torch.Tensor) -> bytes:
    """The module as an ONNX model for any batch and size."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():  # of the exporter's own future, nothing for a user to mend
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(_Plain(module), example)
        torch.onnx.export(traced, (example,), buffer, input_names=["images"], dynamo=False,
                          dynamic_axes={"images": {0: "batch", 2: "height", 3: "width"}},
                          opset_version=_OPSET)
    return buffer.getvalue()


class _Plain(nn.Module):
    """The exporter takes a torch.fx.GraphModule's graph for its own; this hides it."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, images: torch.Tensor):
        return self.module(images)
