"""Write the graphs that ONNX Runtime loads, without weights. For developers: needs onnx.

    pip install onnx
    python -m ros2_pose.networks.export [FOLDER]

Run it after a change of a network or of the importer (`graph_import.py`), and commit the files.
"""

from __future__ import annotations

import copy
import io
import sys
import warnings
from pathlib import Path

import torch
from torch import nn

from ros2_pose.errors import PoseError
from ros2_pose.networks import movenet, nanodet, thunder
from ros2_pose.networks.heads import graph_file
from ros2_pose.networks.onnx_engine import OnnxEngine
from ros2_pose.networks.san import backbone

# Loaders of the torch modules by the name of their graph.
NETWORKS = {"movenet": movenet.load_heads, "thunder": thunder.load_heads,
            "nanodet": nanodet.load_heads, "thunder_features": backbone.load_features}

_OPSET = 17  # onnxruntime 1.12 and later
_PREFIX = "module."
_TOLERANCE = 1e-4  # of a map's greatest value
_SIZES = ((1, 64, 96), (3, 160, 64))  # batch, height and width of compared inputs


class ExportError(PoseError):
    """ONNX Runtime computes something else than torch."""


def structure(module: nn.Module) -> bytes:
    """ONNX model of a module for any batch and size, its weights left out.

    Args:
        module: maps float images (B, 3, h, w) to a tuple of maps; its weights keep their names.
    Returns:
        Serialized ModelProto; maps images (B, h, w, 3) to the same maps. Each initializer is marked
        as external data without a file.
    """
    import onnx
    model = onnx.load_from_string(_exported(_with_random_weights(module)))
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
    """Return a copy with random weights: the exporter merges equal ones."""
    other = copy.deepcopy(module)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for value in other.state_dict().values():
            value.copy_(torch.rand(value.shape, generator=generator))
    return other


def _exported(module: nn.Module) -> bytes:
    example = torch.zeros(1, 64, 64, 3)
    buffer = io.BytesIO()
    with warnings.catch_warnings():  # about the exporter's future
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(_Interleaved(module), example)
        torch.onnx.export(traced, (example,), buffer, input_names=["images"], dynamo=False,
                          dynamic_axes={"images": {0: "batch", 1: "height", 2: "width"}},
                          opset_version=_OPSET)
    return buffer.getvalue()


class _Interleaved(nn.Module):
    """Takes images (B, h, w, 3).

    It also hides a torch.fx.GraphModule, the graph of which the exporter mistakes for its own.
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, images: torch.Tensor):
        return self.module(images.permute(0, 3, 1, 2))


def check(file: Path, module: nn.Module) -> None:
    """Compare a graph with the torch module on noise.

    Raises:
        ExportError: they differ.
    """
    engine = OnnxEngine(file, module.state_dict())
    generator = torch.Generator().manual_seed(0)
    for batch, height, width in _SIZES:
        images = 255 * torch.rand(batch, 3, height, width, generator=generator)
        with torch.inference_mode():
            pairs = zip(engine(images), module(images), strict=True)
            worst = max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)
        if not worst < _TOLERANCE:
            raise ExportError(f"{file.name} differs from torch by {worst:.1g} of the greatest value"
                              f" for {batch} images of {width} x {height} px")


def write(folder: Path) -> None:
    """Write the graph of each network and compare it with torch."""
    for name, load in NETWORKS.items():
        module = load().eval()
        path = folder / graph_file(name).name
        path.write_bytes(structure(module))
        check(path, module)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else graph_file("movenet").parent)
