"""Write the graphs that ONNX Runtime loads, without weights. For developers: needs onnx.

    pip install onnx
    python -m ros2_pose.networks.export [FILE]

Run it after a change of the network or of its importer (`tflite.py`), and commit the file.
"""

from __future__ import annotations

import copy
import io
import sys
import warnings
from pathlib import Path

import torch
from torch import nn

from ros2_pose.config import PoseConfig
from ros2_pose.networks.movenet import MoveNet
from ros2_pose.networks.onnx_engine import MOVENET_GRAPH

_OPSET = 17  # onnxruntime 1.12 and later
_PREFIX = "module."


def structure(module: nn.Module, example: torch.Tensor) -> bytes:
    """ONNX model of a module for any batch and size, its weights left out.

    Args:
        module: maps images (B, C, h, w) to a tuple of maps; its weights keep their names.
        example: (1, C, h, w) float32.
    Returns:
        Serialized ModelProto. Each initializer is marked as external data without a file.
    """
    import onnx
    model = onnx.load_from_string(_exported(_with_random_weights(module), example))
    # Named apart from nodes' outputs, which keep the prefix "/module/".
    names = {i.name: i.name.removeprefix(_PREFIX) for i in model.graph.initializer}
    for initializer in model.graph.initializer:
        dims, kind, name = list(initializer.dims), initializer.data_type, initializer.name
        initializer.Clear()
        initializer.dims.extend(dims)
        initializer.data_type, initializer.name = kind, names[name]
        initializer.data_location = onnx.TensorProto.EXTERNAL
        initializer.external_data.add(key="location", value="weights")
    for node in model.graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    return model.SerializeToString(deterministic=True)


def _with_random_weights(module: nn.Module) -> nn.Module:
    """A copy in which no two weights are alike: the exporter merges equal ones."""
    other = copy.deepcopy(module)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in other.state_dict().values():
            value.copy_(torch.rand(value.shape, generator=generator))
    return other


def _exported(module: nn.Module, example: torch.Tensor) -> bytes:
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


def movenet_structure() -> bytes:
    """The graph of MoveNet's heads."""
    return structure(MoveNet(PoseConfig(engine="torch")).heads, torch.zeros(1, 3, 64, 64))


if __name__ == "__main__":
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else MOVENET_GRAPH
    path.write_bytes(movenet_structure())
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
