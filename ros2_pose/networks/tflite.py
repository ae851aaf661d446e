"""Import a TensorFlow Lite file as a torch module.

Covers the dozen operators that convolutional pose networks consist of. The graph is cut at the
tensors that the caller names, so that decoding stays outside, and becomes a `torch.fx.GraphModule`:
batched, differentiable, exportable. Tensors are NHWC in the file and NCHW here. Input sizes must
be multiples of the network's coarsest stride: TensorFlow's SAME padding is then the same for every
size, and part of the convolutions.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn

from ros2_pose.networks.tflite_file import Operator, Table, Tensor, TfliteError, read_tflite

_NONE, _RELU, _RELU6 = 0, 1, 3  # ActivationFunctionType of the schema
_ACTIVATIONS = {_NONE: None, _RELU: F.relu, _RELU6: F.relu6}  # fused: may work in place
_SAME = 0  # Padding of the schema
_ARITHMETIC = {"ADD": torch.add, "SUB": torch.sub, "MUL": torch.mul, "DIV": torch.div}
_UNARY = {"RELU": F.relu, "RELU6": F.relu6, "LOGISTIC": torch.sigmoid}


def load_tflite(path: str | Path, outputs: list[str]) -> fx.GraphModule:
    """Import the part of a tflite graph that computes the named outputs.

    Args:
        path: the file.
        outputs: names of the tensors to cut at (of fused ones, the first name).
    Returns:
        Module that maps a float image batch (B, C, H, W), in the value range of the file's input,
        to a tuple of (B, C, H', W') tensors in the order of `outputs`.
    Raises:
        TfliteError: the file is damaged, a name is unknown or an operator is not covered.
    """
    return _Importer(*read_tflite(path)).build(outputs)


class _Importer:
    """Converts the operators that the outputs depend on, one torch.fx node each."""

    def __init__(self, tensors: list[Tensor], operators: list[Operator], inputs: list[int]):
        """Prepare the import of a graph; arguments: see `read_tflite`."""
        self.tensors, self.operators, self.inputs = tensors, operators, inputs
        self.producer = {tensor: op for op in operators for tensor in op.outputs}
        self.modules, self.graph = nn.Module(), fx.Graph()
        self.nodes: dict[int, fx.Node] = {}

    def build(self, outputs: list[str]) -> fx.GraphModule:
        wanted = [self._find(name) for name in outputs]
        self.nodes[self.inputs[0]] = self.graph.placeholder("image")
        needed = self._ancestors(wanted)
        for op in self.operators:
            if id(op) in needed:
                self._emit(op)
        self.graph.output(tuple(self.nodes[tensor] for tensor in wanted))
        return fx.GraphModule(self.modules, self.graph, "Tflite")

    def _find(self, name: str) -> int:
        found = [i for i, op in self.producer.items() if self._name(i).split(";")[0] == name
                 and op.kind != "DEQUANTIZE"]
        if len(found) != 1:
            raise TfliteError(f"{len(found)} tensors are named {name!r}, expected one")
        return found[0]

    def _name(self, tensor: int) -> str:
        return self.tensors[tensor][0]

    def _ancestors(self, tensors: list[int]) -> set[int]:
        """Return the ids of the operators that the tensors depend on, without constants."""
        needed, todo = set(), list(tensors)
        while todo:
            tensor = todo.pop()
            op = self.producer.get(tensor)
            if op is None or id(op) in needed or self._constant(tensor) is not None:
                continue
            needed.add(id(op))
            todo += op.inputs[:1] if op.kind == "RESIZE_BILINEAR" else op.inputs
        return needed

    def _constant(self, tensor: int) -> np.ndarray | None:
        """Return the value of a constant tensor, float16 as float32; None if it is computed."""
        op = self.producer.get(tensor)
        if op is not None:
            return self._constant(op.inputs[0]) if op.kind == "DEQUANTIZE" else None
        value = self.tensors[tensor][1]
        if value is None:
            return None
        return value.astype(np.float32) if value.dtype == np.float16 else value.copy()

    def _required_constant(self, tensor: int) -> np.ndarray:
        value = self._constant(tensor)
        if value is None:
            raise TfliteError(f"tensor {self._name(tensor)!r} is computed, expected a constant")
        return value

    def _emit(self, op: Operator) -> None:
        kind = op.kind
        x = self.nodes.get(op.inputs[0])
        if kind in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            node = self._convolution(op, x, depthwise=kind == "DEPTHWISE_CONV_2D")
        elif kind == "RESIZE_BILINEAR":
            node = self._resize(op, x)
        elif kind in _ARITHMETIC:
            node = self._arithmetic(op, _ARITHMETIC[kind])
        elif kind in _UNARY:
            node = self.graph.call_function(_UNARY[kind], (x,))
        elif kind == "CAST":
            node = x
        else:
            raise TfliteError(f"operator {kind} (tensor {self._name(op.outputs[0])!r}) is not "
                              f"covered; covered are the convolutions, RESIZE_BILINEAR, CAST, "
                              f"{', '.join([*_ARITHMETIC, *_UNARY])}")
        self.nodes[op.outputs[0]] = node

    def _convolution(self, op, x, depthwise: bool):
        options = _options(op)
        # Field 3 of DepthwiseConv2DOptions is depth_multiplier; the later fields move by one.
        activation = 4 if depthwise else 3
        stride = (options.number(2, "i"), options.number(1, "i"))
        dilation = (options.number(activation + 2, "i", 1), options.number(activation + 1, "i", 1))
        weight = self._required_constant(op.inputs[1])
        bias = self._required_constant(op.inputs[2])
        # OHWI in the file; depthwise 1HWO
        weight = weight.transpose((3, 0, 1, 2) if depthwise else (0, 3, 1, 2))
        padding = (0, 0)
        if options.number(0, "b") == _SAME:
            weight, padding = _padded_as_same(weight, stride, dilation)
        groups = len(weight) if depthwise else 1
        conv = nn.Conv2d(weight.shape[1] * groups, len(weight), weight.shape[2:], stride, padding,
                         dilation, groups)
        conv.weight = nn.Parameter(torch.from_numpy(np.ascontiguousarray(weight)))
        conv.bias = nn.Parameter(torch.from_numpy(bias))
        return self._activate(self._module(conv, x), options.number(activation, "b"))

    def _resize(self, op, x):
        align_corners, half_pixel_centers = (_options(op).number(field, "b") for field in (2, 3))
        if align_corners or not half_pixel_centers:
            raise TfliteError("RESIZE_BILINEAR is covered with half-pixel centres alone")
        scale = self._constant(self.producer[op.inputs[1]].inputs[1])
        if scale is None:
            raise TfliteError("RESIZE_BILINEAR is covered with a constant factor alone")
        return self._module(nn.Upsample(scale_factor=tuple(map(float, scale)), mode="bilinear"), x)

    def _arithmetic(self, op, function):
        arguments = tuple(self._operand(tensor) for tensor in op.inputs)
        node = self.graph.call_function(function, arguments)
        return self._activate(node, _options(op).number(0, "b"))

    def _operand(self, tensor: int):
        """Return a computed node, or a constant: a number, or (1, C, 1, 1), a value a channel."""
        if tensor in self.nodes:
            return self.nodes[tensor]
        value = self._required_constant(tensor)
        if value.size == 1:
            return float(value)
        name = f"constant{tensor}"
        self.modules.register_buffer(name, torch.from_numpy(value.reshape(1, -1, 1, 1)))
        return self.graph.get_attr(name)

    def _module(self, module: nn.Module, x):
        name = f"layer{len(self.modules._modules)}"
        self.modules.add_module(name, module)
        return self.graph.call_module(name, (x,))

    def _activate(self, node, activation: int):
        if activation not in _ACTIVATIONS:
            raise TfliteError(f"fused activation {activation} is not covered")
        function = _ACTIVATIONS[activation]
        return node if function is None else self.graph.call_function(function, (node,),
                                                                          {"inplace": True})


def _padded_as_same(weight: np.ndarray, stride: tuple, dilation: tuple):
    """Return weights (O, I, h, w) and symmetric padding equivalent to SAME padding.

    This holds for input sizes that are multiples of the stride. SAME puts an odd row of padding at
    the end, torch pads both sides alike: the kernel gets a first row of zeros instead.
    """
    zeros, padding = [(0, 0), (0, 0)], []
    for size, step, spread in zip(weight.shape[2:], stride, dilation):
        total = max((size - 1) * spread + 1 - step, 0)
        before, after = total // 2, total - total // 2
        if spread > 1 and before != after:
            raise TfliteError("an uneven SAME padding of a dilated convolution is not covered")
        zeros.append((after - before, 0))
        padding.append(after)
    return np.pad(weight, zeros), tuple(padding)


def _options(op: Operator) -> Table:
    if op.options is None:
        raise TfliteError(f"operator {op.kind} lacks its options")
    return op.options
