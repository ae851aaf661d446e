"""Import a TensorFlow.js graph model as a torch module.

The model is a JSON file with the graph and the weights' manifest, and a binary file with the
weights one behind the other. Weights are float32, float16 without a scale (stored to halve the
file) or int32. Strings of attributes are base64.

Source: `tfjs-core/src/io/types.ts` and `tfjs-converter/src/data/compiled_api.ts` of
github.com/tensorflow/tfjs; the operators' attributes: tensorflow.org/api_docs/python/tf/raw_ops.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import fx

from ros2_pose.errors import one_line
from ros2_pose.networks.graph import GraphError, Operation
from ros2_pose.networks.graph_import import import_graph

_DTYPES = {"float32": "<f4", "float16": "<f2", "int32": "<i4"}
_DAMAGED = (ValueError, KeyError, TypeError, IndexError, AttributeError, OverflowError,
            RecursionError)
_ACTIVATIONS = {"Relu": "relu", "Relu6": "relu6", "LeakyRelu": "leaky_relu"}
_CONVOLUTIONS = ("Conv2D", "_FusedConv2D", "DepthwiseConv2dNative", "FusedDepthwiseConv2dNative")
# Kinds of graph.py; those of operators that have attributes get them in `_TfjsReader`.
_PLAIN = {"AddV2": "add", "Add": "add", "Sub": "sub", "Mul": "mul", "RealDiv": "div",
          "Sigmoid": "sigmoid", "Relu": "relu", "Relu6": "relu6", "Cast": "identity",
          "Identity": "identity"}


def load_tfjs(graph: str | Path, weights: str | Path, outputs: Sequence[str]) -> fx.GraphModule:
    """Import the part of a graph model that computes the named outputs.

    Args:
        graph: the JSON file.
        weights: the binary file.
        outputs: names of the tensors to cut at; of the outputs of a split "name:1" and so on.
    Returns:
        Module that maps a float image batch (B, C, H, W), in the value range of the file's input,
        to a tuple of (B, C', H', W') tensors in the order of `outputs`.
    Raises:
        GraphError: a file is damaged, a name is unknown or an operator is not covered.
    """
    try:
        model = json.loads(Path(graph).read_bytes())
        entries = [entry for group in model["weightsManifest"] for entry in group["weights"]]
        reader = _TfjsReader(_read_weights(Path(weights).read_bytes(), entries))
        operations = [reader.operation(node) for node in model["modelTopology"]["node"]
                      if node["op"] != "Const"]
    except _DAMAGED as error:
        raise GraphError(f"{graph} or {Path(weights).name} is damaged ({one_line(error)}): delete "
                         "both and fetch them again") from error
    return import_graph(operations, reader.constants, outputs)


def _read_weights(data: bytes, entries: Sequence[Mapping]) -> dict[str, np.ndarray]:
    """Return the constants by name; float16 as float32."""
    constants, position = {}, 0
    for entry in entries:
        stored = entry.get("quantization", entry)
        if "scale" in stored or stored["dtype"] not in _DTYPES:
            raise ValueError(f"weights {entry['name']!r} are stored as {stored}")
        dtype = np.dtype(_DTYPES[stored["dtype"]])
        count = math.prod(entry["shape"])
        value = np.frombuffer(data, dtype, count, position).reshape(entry["shape"])
        position += value.nbytes
        constants[entry["name"]] = value.astype(np.float32 if dtype.kind == "f" else np.int32)
    if position != len(data):
        raise ValueError(f"{len(data)} bytes of weights, expected {position}")
    return constants


class _TfjsReader:
    """Turns nodes of the graph into operations of the importer."""

    def __init__(self, constants: dict[str, np.ndarray]):
        self.constants = constants

    def operation(self, node: Mapping) -> Operation:
        """Return the operation of a node, with its TensorFlow name as kind if it is not covered."""
        name, op = node["name"], node["op"]
        attributes = {key: _value(value) for key, value in node.get("attr", {}).items()}
        names = [item.removesuffix(":0") for item in node.get("input", []) if item[0] != "^"]
        kind, inputs, options = self._convert(op, names, attributes)
        outputs = [name, *(f"{name}:{i}" for i in range(1, attributes.get("num_split", 1)))]
        return Operation(kind, tuple(inputs), tuple(outputs), options)

    def _convert(self, op: str, inputs: list[str],
                 at: Mapping[str, Any]) -> tuple[str, list[str], dict[str, Any]]:
        """Return kind, data inputs and attributes."""
        if op in _PLAIN:
            return _PLAIN[op], inputs, {}
        if op in _CONVOLUTIONS:
            return "convolution", inputs, _convolution(op, at)
        first = inputs[:1]
        if op == "Placeholder":
            return "image", [], _image(at["shape"])
        if op == "MaxPool":
            return "max_pool", first, {**_window(at), "size": _spatial(at["ksize"], _layout(at))}
        if op == "BiasAdd":
            return "add", [inputs[0], self._along_channels(inputs[1], _layout(at))], {}
        if op == "LeakyRelu":
            return "leaky_relu", first, {"alpha": at.get("alpha", 0.2)}
        if op == "ResizeBilinear":
            return "resize", first, {"scale": None, "size": self._known(inputs[1]), **{
                key: at.get(key, False) for key in ("half_pixel_centers", "align_corners")}}
        if op in ("Pad", "PadV2"):
            value = self._known(inputs[2]) if op == "PadV2" else 0.0
            return "pad", first, {"pairs": self._known(inputs[1]), "value": value}
        if op == "ConcatV2":
            return "concat", inputs[:-1], {"axis": self._known(inputs[-1])}
        if op == "SplitV":
            return "split", first, {"sizes": self._known(inputs[1]), "axis": self._known(inputs[2])}
        if op == "Transpose":
            return "transpose", first, {"order": self._known(inputs[1])}
        if op == "ExpandDims":
            return "unsqueeze", first, {"axis": self._known(inputs[1])}
        if op in ("Squeeze", "Unpack"):
            axes = at.get("squeeze_dims") or [at.get("axis", 0)]
            return "squeeze", first, {"axis": axes[0] if len(axes) == 1 else None}
        return op, inputs, {}

    def _along_channels(self, name: str, layout: str) -> str:
        """Return the name of a constant (C,) in the shape that numpy's broadcasting needs."""
        if layout == "NHWC" or name not in self.constants:
            return name
        self.constants[f"{name} (C, 1, 1)"] = self.constants[name].reshape(-1, 1, 1)
        return f"{name} (C, 1, 1)"

    def _known(self, name: str) -> Any:
        """Return a constant as numbers in lists; None if it is computed."""
        value = self.constants.get(name)
        return None if value is None else value.tolist()


def _value(attribute: Mapping) -> Any:
    """Return an attribute's value: text, number, bool, list of these or a shape."""
    (kind, value), = attribute.items()
    if kind == "list":
        return [_value({key: item}) for key, items in value.items() for item in items]
    if kind == "s":
        return base64.b64decode(value, validate=True).decode()
    if kind == "shape":
        return [int(dim["size"]) for dim in value.get("dim", [])]
    return {"i": int, "f": float}.get(kind, lambda x: x)(value)


def _image(shape: Sequence[int]) -> dict[str, Any]:
    """Return the attributes of an image; an unknown batch or size is taken as 1 and 256 px."""
    layout = "NCHW" if shape[1] in (1, 3) else "NHWC"
    usual = {"N": 1, "C": 3, "H": 256, "W": 256}
    shape = [n if n > 0 else usual[axis] for n, axis in zip(shape, layout, strict=True)]
    return {"layout": layout, "shape": shape}


def _layout(at: Mapping[str, Any]) -> str:
    return at.get("data_format", "NHWC")


def _spatial(values: Sequence, layout: str) -> tuple:
    """Return the values of y and x of a list with a value an axis."""
    return values[layout.index("H")], values[layout.index("W")]


def _window(at: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes that convolutions and pooling share."""
    layout, padding = _layout(at), at["padding"]
    if padding == "EXPLICIT":
        pairs = list(zip(at["explicit_paddings"][::2], at["explicit_paddings"][1::2]))
        padding = _spatial(pairs, layout)
    return {"strides": _spatial(at["strides"], layout), "padding": padding, "layout": layout}


def _convolution(op: str, at: Mapping[str, Any]) -> dict[str, Any]:
    depthwise = "Depthwise" in op
    fused = [item for item in at.get("fused_ops", []) if item != "BiasAdd"]
    return {
        **_window(at),
        "dilations": _spatial(at.get("dilations") or [1, 1, 1, 1], _layout(at)),
        "depthwise": depthwise,
        # HWIO; depthwise HWCM
        "weight_axes": (2, 3, 0, 1) if depthwise else (3, 2, 0, 1),
        "activation": _ACTIVATIONS.get(fused[0], "+".join(fused)) if fused else None,
        "alpha": at.get("leakyrelu_alpha", 0.2),
    }
