"""Computes a convolutional torch module in ONNX Runtime: 1.5 times as fast as torch on a CPU.

The graph is shipped without weights (`export.py` writes it), and the weights are those of the
torch module. So a robot needs onnxruntime alone: the onnx package would bring a newer numpy.

The graph takes images as cameras store them, a pixel's colours side by side, and transposes them
itself: torch takes milliseconds for it, because it wakes all its threads.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from ros2_pose.errors import PoseError


class EngineError(PoseError):
    """An engine that is configured but cannot run."""


def available() -> bool:
    """Return whether ONNX Runtime is installed."""
    return importlib.util.find_spec("onnxruntime") is not None


def is_chosen(engine: str) -> bool:
    """Return whether the setting `engine` means ONNX Runtime; auto does where it is installed."""
    return engine == "onnxruntime" or (engine == "auto" and available())


class OnnxEngine:
    """A graph in ONNX Runtime with the weights of a torch module."""

    def __init__(self, graph: Path, weights: Mapping[str, torch.Tensor]):
        """Load a graph and give it weights.

        Args:
            graph: ONNX file; its initializers are marked as external data.
            weights: value of each initializer by name, as `state_dict()` of the module gives them;
                copied.
        Raises:
            EngineError: onnxruntime is missing, or graph and weights do not belong together.
        """
        if not available():
            raise EngineError("engine: onnxruntime is not installed: pip install --no-deps "
                              "onnxruntime; or set engine to auto or torch")
        import onnxruntime
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # Idle threads must not spin, as OpenMP's (see runtime_env.py): the cores have other work.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # An OrtValue does not own its memory: the arrays live until the session has copied them.
        arrays = [value.contiguous().cpu().numpy() for value in weights.values()]
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in arrays]
        options.add_external_initializers(list(weights), values)
        try:
            self._session = onnxruntime.InferenceSession(graph.read_bytes(), options,
                                                         providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no common base
            raise EngineError(f"{graph.name} does not fit the network "
                              f"({str(error).splitlines()[0]}): "
                              "run python -m ros2_pose.networks.export") from error

    def __call__(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute the maps (B, channels, h', w') of images (B, 3, h, w), uint8 or float."""
        images = np.ascontiguousarray(batch.permute(0, 2, 3, 1).numpy(), np.float32)
        return tuple(map(torch.from_numpy, self._session.run(None, {"images": images})))
