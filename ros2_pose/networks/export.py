"""Write the networks as ONNX, and compare what they compute with torch. Needs pip install onnx.

    python -m ros2_pose.networks.export                    the graphs that ONNX Runtime loads
    python -m ros2_pose.networks.export --whole FOLDER     networks with their weights

The graphs are shipped without weights: run it after a change of a network or of the importer
(`graph_import.py`), and commit the files. Networks with their weights are for other programs, such
as TensorRT's. They map images (B, h, w, 3), RGB, 0..255, to maps, for any B, h and w; tian for h
and w of --size alone. What depends on the number of people in an image is not part of them.
"""

from __future__ import annotations

import argparse
import copy
import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ros2_pose.errors import PoseError
from ros2_pose.networks import movenet, nanodet, thunder
from ros2_pose.networks.checkpoint import load_layers
from ros2_pose.networks.heads import Heads, graph_file
from ros2_pose.networks.onnx_engine import OnnxEngine, relative_difference
from ros2_pose.networks.registry import layers_class
from ros2_pose.networks.san import backbone

# Loaders of the torch modules by the name of their graph.
NETWORKS = {"movenet": movenet.load_heads, "thunder": thunder.load_heads,
            "nanodet": nanodet.load_heads, "thunder_features": backbone.load_features}

_AXES = {0: "batch", 1: "height", 2: "width"}
_OPSET = 17  # onnxruntime 1.12 and later
_PREFIX = "module."
_TOLERANCE = 1e-4  # of a map's greatest value
_SIZES = ((1, 64, 96), (3, 160, 64))  # batch, height and width of compared inputs
_WHOLE_SIZES = ((1, 256, 320), (3, 320, 192))  # ... of trained networks: multiples of 64 px


class ExportError(PoseError):
    """ONNX Runtime computes something else than torch."""


# ---------------------------------------------------------------------------- trained networks


def _das(net: nn.Module, images: Tensor) -> dict[str, Tensor]:
    levels = net(images)
    return {"start": levels[0]["start"],
            **{f"{name}_{stride}": value for maps, stride in zip(levels, net.config.strides)
               for name, value in maps.items() if name != "start"}}


def _hourglass(net: nn.Module, images: Tensor) -> dict[str, Tensor]:
    found, offsets = net(images)
    return {**found[-1], "offsets": offsets} if net.movenet is not None else dict(found[-1])


def _tian(net: nn.Module, images: Tensor) -> dict[str, Tensor]:
    found = net.detect(images)
    logits, boxes = found.layers[-1]
    levels = {f"features_{number}": maps for number, maps in enumerate(found.maps)}
    return {"logits": logits, "boxes": boxes, "queries": found.queries, **levels}


def _san(net: nn.Module, crops: Tensor) -> dict[str, Tensor]:
    levels, heads = net.features(crops)
    coarsest = net.attention(levels[0])
    heads = {f"thunder_{number}": maps for number, maps in enumerate(heads)}
    volumes = net.decoder([coarsest, *levels[1:]])
    return {"volumes": volumes, "size": net.size(coarsest.mean((2, 3))), **heads}


# What is exported of the layers of `registry.trainable_networks`: outputs by name. The network paf
# has the layers of hourglass.
TRAINED: dict[str, Callable[[nn.Module, Tensor], dict[str, Tensor]]] = {
    "das": _das, "hourglass": _hourglass, "tian": _tian, "san": _san}
_OF_ONE_SIZE = ("tian",)  # the positions of its queries become constants


class _Maps(nn.Module):
    """The exported part of a trained network: maps images (B, 3, h, w) to a tuple of maps.

    Attributes:
        names: of the maps.
        sizes: batch, height and width of compared inputs; the first one is traced.
        axes: of the inputs that may have any length.
    """

    def __init__(self, net: nn.Module, name: str, size: tuple[int, int]):
        super().__init__()
        self.net, self._outputs = net, TRAINED[name]
        self.sizes, self.axes = _WHOLE_SIZES, _AXES
        if name in _OF_ONE_SIZE:
            self.sizes, self.axes = ((1, *size[::-1]), (3, *size[::-1])), {0: "batch"}
        for part in net.modules():
            if isinstance(part, Heads):
                part.engine = None  # torch is traced
        with torch.no_grad():
            self.names = list(self._outputs(net, torch.zeros(1, 3, *self.sizes[0][1:])))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self._outputs(self.net, images).values())


def whole_networks() -> list[str]:
    """Return the names of the networks that can be written with their weights."""
    return [*(name for name in NETWORKS if name != "thunder_features"), *TRAINED]


def load_whole(name: str, checkpoint: str = "", size: tuple[int, int] = (512, 384)) -> nn.Module:
    """Return the exported part of a network, in torch.

    Args:
        name: one of `whole_networks`.
        checkpoint: of a trained one; empty: the shipped one.
        size: width and height, px, of the images of a network that is exported for one size.
    """
    module = _Maps(load_layers(checkpoint, layers_class(name)), name, size) if name in TRAINED \
        else NETWORKS[name]()
    return module.eval().requires_grad_(False)


# ---------------------------------------------------------------------------- export


def structure(module: nn.Module) -> bytes:
    """ONNX model of a module for any batch and size, its weights left out.

    Args:
        module: maps float images (B, 3, h, w) to a tuple of maps; its weights keep their names.
    Returns:
        Serialized ModelProto; maps images (B, h, w, 3) to the same maps. Each initializer is marked
        as external data without a file.
    """
    import onnx
    model = onnx.load_from_string(exported(_with_random_weights(module)))
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


def exported(module: nn.Module) -> bytes:
    """ONNX model of a module with its weights, for any batch and size.

    Args:
        module: maps float images (B, 3, h, w) to a tuple of maps; `names` are those of the maps.
    """
    _, *size = getattr(module, "sizes", _SIZES)[0]
    example = torch.zeros(1, *size, 3)
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():  # about the exporter's future
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(_Interleaved(module), example, check_trace=False)
        torch.onnx.export(traced, (example,), buffer, input_names=["images"], dynamo=False,
                          output_names=getattr(module, "names", None),
                          dynamic_axes={"images": getattr(module, "axes", _AXES)},
                          opset_version=_OPSET)
    return buffer.getvalue()


def _with_open_shapes(model: bytes) -> bytes:
    """Return a model without the sizes of its outputs: the exporter guesses some, and errs."""
    import onnx
    opened = onnx.load_from_string(model)
    for output in opened.graph.output:
        for length in output.type.tensor_type.shape.dim:
            length.Clear()
    return opened.SerializeToString(deterministic=True)


class _Interleaved(nn.Module):
    """Takes images (B, h, w, 3).

    It also hides a torch.fx.GraphModule, the graph of which the exporter mistakes for its own.
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, images: torch.Tensor):
        return self.module(images.permute(0, 3, 1, 2))


# ---------------------------------------------------------------------------- comparison


def check(file: Path, module: nn.Module) -> str:
    """Compare a graph without weights with the torch module on noise; see `compare`."""
    return compare(file.name, OnnxEngine(file, module.state_dict()), module)


def check_whole(file: Path, module: nn.Module) -> str:
    """Compare a model with its weights with the torch module on noise; see `compare`."""
    import onnxruntime
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> list[Tensor]:
        pixels = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
        return [torch.from_numpy(maps) for maps in session.run(None, {"images": pixels})]

    return compare(file.name, run, module)


def compare(name: str, engine: Callable[[Tensor], Sequence[Tensor]], module: nn.Module) -> str:
    """Compare an engine with the torch module on noise of several sizes.

    Args:
        name: of the file.
        engine, module: map images (B, 3, h, w) to the same maps.
    Returns:
        The largest difference, relative to a map's greatest value, in words.
    Raises:
        ExportError: they differ by more than 1e-4 of a map's greatest value.
    """
    generator = torch.Generator().manual_seed(0)
    worst, what = 0.0, ""
    for batch, height, width in getattr(module, "sizes", _SIZES):
        images = 255 * torch.rand(batch, 3, height, width, generator=generator)
        with torch.inference_mode():
            pairs = list(zip(engine(images), module(images), strict=True))
        names = getattr(module, "names", [f"output {number}" for number in range(len(pairs))])
        for output, (a, b) in zip(names, pairs):
            found = relative_difference(a, b)
            if not (found <= worst or np.isnan(worst)):
                worst, what = found, f"{output}, {batch} images of {width} x {height} px"
    text = f"{name} differs from torch by {worst:.1g} of the greatest value ({what})"
    if not worst < _TOLERANCE:
        raise ExportError(f"{text}, more than {_TOLERANCE:g}")
    return text


def write(folder: Path) -> None:
    """Write the graph of each network without weights and compare it with torch."""
    for name, load in NETWORKS.items():
        module = load().eval()
        path = folder / graph_file(name).name
        path.write_bytes(structure(module))
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB; {check(path, module)}")


def write_whole(folder: Path, names: list[str], checkpoint: str = "",
                size: tuple[int, int] = (512, 384)) -> None:
    """Write networks with their weights and compare them with torch; delete what differs.

    Args:
        folder: for NAME.onnx of each.
        names: of `whole_networks`.
        checkpoint: of a trained one; empty: the shipped ones.
        size: width and height, px, of the images of a network that is exported for one size.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        module, path = load_whole(name, checkpoint, size), folder / f"{name}.onnx"
        path.write_bytes(_with_open_shapes(exported(module)))
        try:
            text = check_whole(path, module)
        except Exception:
            path.unlink()
            raise
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB; {text}", flush=True)


def main() -> None:
    """Write what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, prog="export",
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=graph_file("movenet").parent,
                        metavar="FOLDER", help="by default that of the shipped graphs")
    parser.add_argument("--whole", action="store_true", help="with weights")
    parser.add_argument("--networks", nargs="+", choices=whole_networks(), metavar="NAME",
                        help=f"of --whole, only these of: {', '.join(whole_networks())}")
    parser.add_argument("--checkpoint", default="", metavar="FILE",
                        help="of --whole with one network that ros2_pose train wrote")
    parser.add_argument("--size", nargs=2, type=int, default=(512, 384), metavar=("W", "H"),
                        help=f"of the images of {', '.join(_OF_ONE_SIZE)}, px, multiples of 64")
    options = parser.parse_args()
    if not options.whole:
        write(options.folder)
        return
    names = options.networks or whole_networks()
    if options.checkpoint and (len(names) != 1 or names[0] not in TRAINED):
        parser.error(f"--checkpoint is of one network: --networks with one of {', '.join(TRAINED)}")
    write_whole(options.folder, names, options.checkpoint, tuple(options.size))


if __name__ == "__main__":
    main()
