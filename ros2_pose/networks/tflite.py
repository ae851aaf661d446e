"""Import a TensorFlow Lite file as a torch module: its operators in the terms of graph.py.

Weights stored as float16 behind a DEQUANTIZE operator are constants like others.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import fx

from ros2_pose.errors import one_line
from ros2_pose.networks.graph import GraphError, Operation
from ros2_pose.networks.graph_import import import_graph
from ros2_pose.networks.tflite_file import Operator, Table, Tensor, read_tflite

_ACTIVATIONS = {0: None, 1: "relu", 3: "relu6"}  # ActivationFunctionType of the schema
_PADDINGS = {0: "SAME", 1: "VALID"}  # Padding of the schema
_LAYOUT = "NHWC"
_DAMAGED = (IndexError, ValueError, RecursionError, struct.error)
_IMAGE_SHAPE = (1, 256, 256, 3)  # of a file of which the input may have any size
_ARITHMETIC = {"ADD": "add", "SUB": "sub", "MUL": "mul", "DIV": "div"}
_UNARY = {"RELU": "relu", "RELU6": "relu6", "LOGISTIC": "sigmoid", "CAST": "identity"}


def load_tflite(path: str | Path, outputs: Sequence[str]) -> fx.GraphModule:
    """Import the part of a tflite graph that computes the named outputs.

    Args:
        path: the file.
        outputs: names of the tensors to cut at (of fused ones, the first name).
    Returns:
        Module that maps a float image batch (B, C, H, W), in the value range of the file's input,
        to a tuple of (B, C', H', W') tensors in the order of `outputs`.
    Raises:
        GraphError: the file is damaged, a name is unknown or an operator is not covered.
    """
    tensors, operators, inputs = read_tflite(path)
    try:
        reader = _TfliteReader(tensors, operators)
        image = Operation("image", (), (reader.names[inputs[0]],),
                          {"layout": _LAYOUT, "shape": _IMAGE_SHAPE})
        operations = [reader.operation(op) for op in operators if op.kind != "DEQUANTIZE"]
    except _DAMAGED as error:
        raise GraphError(f"{path} is damaged ({one_line(error)}): delete it and fetch it again"
                         ) from error
    return import_graph([image, *operations], reader.constants, outputs)


class _TfliteReader:
    """Turns operators of the file into operations of the importer."""

    def __init__(self, tensors: list[Tensor], operators: list[Operator]):
        self.producer = {tensor: op for op in operators for tensor in op.outputs}
        self.tensors = tensors
        self.names = self._unique_names()
        values = {name: self._value(tensor) for tensor, name in enumerate(self.names)}
        self.constants = {name: value for name, value in values.items() if value is not None}

    def _unique_names(self) -> list[str]:
        """Return the first name of each computed tensor if it is unique, an indexed one of others.

        Weights in files of trained networks are named by these indices.
        """
        first = [name.split(";")[0] for name, _ in self.tensors]
        computed = [tensor in self.producer and self.producer[tensor].kind != "DEQUANTIZE"
                    for tensor in range(len(first))]
        count = Counter(name for name, is_computed in zip(first, computed) if is_computed)
        return [name if is_computed and count[name] == 1 else f"constant{tensor}"
                for tensor, (name, is_computed) in enumerate(zip(first, computed))]

    def _value(self, tensor: int) -> np.ndarray | None:
        """Return the value of a constant tensor, float16 as float32; None if it is computed."""
        op = self.producer.get(tensor)
        if op is not None:
            return self._value(op.inputs[0]) if op.kind == "DEQUANTIZE" else None
        value = self.tensors[tensor][1]
        if value is None:
            return None
        return value.astype(np.float32) if value.dtype == np.float16 else value

    def operation(self, op: Operator) -> Operation:
        """Return the operation of an operator, with its own name as kind if it is not covered."""
        inputs = tuple(self.names[tensor] for tensor in op.inputs if tensor >= 0)
        outputs = tuple(self.names[tensor] for tensor in op.outputs)
        kind, attributes = self._convert(op)
        return Operation(kind, inputs[:1] if kind == "resize" else inputs, outputs, attributes)

    def _convert(self, op: Operator) -> tuple[str, dict[str, Any]]:
        """Return kind and attributes."""
        if op.kind in _UNARY:
            return _UNARY[op.kind], {}
        if op.kind in _ARITHMETIC:
            return _ARITHMETIC[op.kind], {"activation": _activation(_options(op).number(0, "b"))}
        if op.kind in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            return "convolution", _convolution(op)
        if op.kind == "RESIZE_BILINEAR":
            options = _options(op)
            return "resize", {"scale": self._scale(op.inputs[1]), "size": self._known(op.inputs[1]),
                              "align_corners": bool(options.number(2, "b")),
                              "half_pixel_centers": bool(options.number(3, "b"))}
        return op.kind, {}

    def _scale(self, size: int) -> list[float] | None:
        """Return the factor of a size that is computed as size of the input times a constant."""
        op = self.producer.get(size)
        return self._known(op.inputs[1]) if op is not None and op.kind == "MUL" else None

    def _known(self, tensor: int) -> list[float] | None:
        value = self._value(tensor)
        return None if value is None else value.tolist()


def _convolution(op: Operator) -> dict[str, Any]:
    options, depthwise = _options(op), op.kind == "DEPTHWISE_CONV_2D"
    # Field 3 of DepthwiseConv2DOptions is depth_multiplier; the later fields move by one.
    activation = 4 if depthwise else 3
    padding = options.number(0, "b")
    dilations = (options.number(activation + 2, "i", 1), options.number(activation + 1, "i", 1))
    return {
        "padding": _PADDINGS.get(padding, f"number {padding}"),
        "strides": (options.number(2, "i"), options.number(1, "i")),
        "dilations": dilations,
        "layout": _LAYOUT,
        "depthwise": depthwise,
        # OHWI; depthwise 1HWO
        "weight_axes": (3, 0, 1, 2) if depthwise else (0, 3, 1, 2),
        "activation": _activation(options.number(activation, "b")),
    }


def _activation(number: int) -> str | None:
    return _ACTIVATIONS.get(number, f"number {number}")


def _options(op: Operator) -> Table:
    if op.options is None:
        raise GraphError(f"operator {op.kind} lacks its options")
    return op.options
