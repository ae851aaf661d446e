"""Import a graph of operations, as files of trained networks hold it, as a torch module.

A reader of a file format (`tflite.py`, `tfjs.py`) lists operations of the kinds of `graph.py`. The
part that computes the named outputs becomes a `torch.fx.GraphModule`: batched, differentiable,
exportable. All tensors are NCHW there. A tensor's layout in the file, e.g. "NHWC", is a property of
its name alone: transposing changes the layout and computes nothing.

Input sizes must be multiples of the network's coarsest stride (32 px). TensorFlow's SAME padding is
then the same for every size, and part of the convolutions.
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn

from ros2_pose.errors import one_line
from ros2_pose.networks.graph import GraphError, Operation
from ros2_pose.networks.graph_passes import fold_biases, overwrite_where_possible
from ros2_pose.networks.padding import (
    NO_PADDING,
    Padding,
    made_symmetric,
    own_padding,
    total_padding,
)

_ARITHMETIC = {"add": operator.add, "sub": operator.sub, "mul": operator.mul,
               "div": operator.truediv}
_ACTIVATIONS = {"relu": F.relu, "relu6": F.relu6, "leaky_relu": F.leaky_relu}
_UNARY = {**_ACTIVATIONS, "sigmoid": torch.sigmoid}
_TORCH = "NCHW"
_COARSEST = 32  # px
_UNFIT = (RuntimeError, ValueError, TypeError, IndexError, KeyError, OverflowError)


def import_graph(operations: Sequence[Operation], constants: Mapping[str, np.ndarray],
                 outputs: Sequence[str]) -> fx.GraphModule:
    """Import the part of a graph that computes the named outputs.

    Args:
        operations: in an order in which they can be computed; one of them is the image.
        constants: values of the constant tensors by name, floating ones as float32.
        outputs: names of the tensors to cut at.
    Returns:
        Module that maps a float image batch (B, C, H, W), in the value range of the file's input,
        to a tuple of (B, C', H', W') tensors in the order of `outputs`.
    Raises:
        GraphError: a name is unknown, or an operation is not covered or does not fit its inputs.
    """
    with torch.no_grad():
        return _Importer(operations, constants).build(outputs)


class _Importer:
    """Converts the operations that the outputs depend on, one torch.fx node each."""

    def __init__(self, operations: Sequence[Operation], constants: Mapping[str, np.ndarray]):
        self.operations, self.constants = operations, constants
        self.modules, self.graph = nn.Module(), fx.Graph()
        self.nodes: dict[str, fx.Node] = {}
        self.layouts: dict[str, str] = {}
        # Padded tensors: what is padded, the padding and its value.
        self.padded: dict[str, tuple[fx.Node, Padding, float]] = {}
        # What each node gives for a small image: this checks the graph and tells sizes.
        self.examples: dict[fx.Node, Any] = {}
        self.reduction = np.ones(2)  # of the small image against the file's, y and x

    def build(self, outputs: Sequence[str]) -> fx.GraphModule:
        for op in self._needed(outputs):
            self._emit(op)
        self.graph.output(tuple(self._node(name) for name in outputs))
        fold_biases(self.graph, self.modules)
        overwrite_where_possible(self.graph, _ACTIVATIONS.values())
        return fx.GraphModule(self.modules, self.graph, "ImportedGraph")

    def _needed(self, outputs: Sequence[str]) -> list[Operation]:
        """Return the operations that the outputs depend on, in the order of the file."""
        producers = {name: op for op in self.operations for name in op.outputs}
        for name in outputs:
            if name not in producers:
                similar = difflib.get_close_matches(name, producers, 3)
                raise GraphError(f"no tensor is named {name!r}; similar names: {similar}")
        names: set[str] = set()
        todo = list(outputs)
        while todo:
            name = todo.pop()
            if name in producers and name not in names:
                names.add(name)
                todo += producers[name].inputs
        return [op for op in self.operations if names.intersection(op.outputs)]

    def _emit(self, op: Operation) -> None:
        emitter = _EMITTERS.get(op.kind)
        if emitter is None:
            raise GraphError(f"operator {op.kind!r} (tensor {op.outputs[0]!r}) is not covered; "
                             f"covered are {', '.join(_EMITTERS)}")
        try:
            emitter(self, op)
        except _UNFIT as error:
            raise GraphError(f"operator {op.kind!r} (tensor {op.outputs[0]!r}) does not fit its "
                             f"inputs: {one_line(error)}") from error

    def _image(self, op: Operation) -> None:
        if self.examples:
            raise GraphError(f"the graph has a second image ({op.outputs[0]!r}), expected one")
        layout = op.attributes["layout"]
        node = self.graph.placeholder("image")
        shape = dict(zip(layout, op.attributes["shape"], strict=True))
        size = np.array([shape["H"], shape["W"]])
        small = np.where(size % _COARSEST, size, _COARSEST)
        self.reduction = size / small
        self.examples[node] = torch.zeros(1, shape["C"], *small.tolist())
        self._set(op, node, layout)

    def _convolution(self, op: Operation) -> None:
        at = op.attributes
        x, before = self._without_padding(op, 0.0)
        weight = self._constant(op.inputs[1]).transpose(at["weight_axes"])
        if at["depthwise"]:
            weight = weight.reshape(-1, 1, *weight.shape[2:])
        own = own_padding(at["padding"], self.examples[x].shape[2:], weight.shape[2:],
                          at["strides"], at["dilations"])
        weight, padding = made_symmetric(weight, total_padding(before, own), at["dilations"])
        groups = self.examples[x].shape[1] if at["depthwise"] else 1
        conv = nn.Conv2d(weight.shape[1] * groups, len(weight), weight.shape[2:], at["strides"],
                         padding, at["dilations"], groups, bias=False, device="meta")
        conv.weight = nn.Parameter(torch.from_numpy(np.ascontiguousarray(weight)))
        if len(op.inputs) > 2:
            _set_bias(conv, self._constant(op.inputs[2]))
        node = self._call_module(conv, x, _convolved(conv, self.examples[x]))
        self._set(op, self._activate(op, node), at["layout"])

    def _without_padding(self, op: Operation, value: float) -> tuple[fx.Node, Padding]:
        """Return the first input, without padding by that value, and this padding.

        Padding is left where it is before an operation with SAME padding.
        """
        name, layout = op.inputs[0], op.attributes["layout"]
        if name in self.padded and op.attributes["padding"] != "SAME":
            x, pairs, padded_with = self.padded[name]
            if padded_with == value and self._layout(name) == layout:
                return x, pairs
        return self._node_in(name, layout), NO_PADDING

    def _max_pool(self, op: Operation) -> None:
        at = op.attributes
        x, before = self._without_padding(op, -np.inf)
        own = own_padding(at["padding"], self.examples[x].shape[2:], at["size"], at["strides"])
        y_pair, x_pair = total_padding(before, own)
        padding = (y_pair[0], x_pair[0])
        is_even = y_pair[0] == y_pair[1] and x_pair[0] == x_pair[1]
        if not is_even or any(2 * n > size for n, size in zip(padding, at["size"])):
            x = self._call(F.pad, x, (*x_pair, *y_pair), value=-np.inf)
            padding = (0, 0)
        self._set(op, self._call(F.max_pool2d, x, at["size"], at["strides"], padding), at["layout"])

    def _arithmetic(self, op: Operation) -> None:
        computed = [name for name in op.inputs if name not in self.constants]
        layout = self._layout(computed[0])
        arguments = [self._operand(name, layout) for name in op.inputs]
        node = self._call(_ARITHMETIC[op.kind], *arguments)
        self._set(op, self._activate(op, node), layout)

    def _operand(self, name: str, layout: str) -> fx.Node | float:
        """Return a computed tensor of that layout, or a constant: a number, or one a channel."""
        if name not in self.constants:
            return self._node_in(name, layout)
        value = self.constants[name]
        if value.size == 1:
            return float(value.reshape(()))
        return self._buffer(name, _in_full(value, layout), layout)

    def _buffer(self, tensor_name: str, value: np.ndarray, layout: str) -> fx.Node:
        if any(n > 1 for n, axis in zip(value.shape, layout, strict=True) if axis != "C"):
            raise GraphError("a constant that differs between pixels is not covered")
        name = re.sub(r"\W", "_", tensor_name)
        if hasattr(self.modules, name):
            name = f"{name}_{len(self.examples)}"
        tensor = torch.from_numpy(value.reshape(1, -1, 1, 1).copy())
        self.modules.register_buffer(name, tensor)
        node = self.graph.get_attr(name)
        self.examples[node] = tensor
        return node

    def _unary(self, op: Operation) -> None:
        x, layout = self._first(op)
        options = {"negative_slope": op.attributes["alpha"]} if op.kind == "leaky_relu" else {}
        self._set(op, self._call(_UNARY[op.kind], x, **options), layout)

    def _identity(self, op: Operation) -> None:
        self._set(op, *self._first(op))

    def _resize(self, op: Operation) -> None:
        at = op.attributes
        if at["align_corners"] or not at["half_pixel_centers"]:
            raise GraphError("resize is covered with half-pixel centres alone")
        x, layout = self._first(op)
        scale = at["scale"]
        if scale is None and at["size"] is not None:
            scale = np.divide(at["size"], self.reduction * self.examples[x].shape[2:])
        if scale is None:
            raise GraphError("resize is covered with a constant size or factor alone")
        scale_y, scale_x = map(float, scale)
        upsample = nn.Upsample(scale_factor=(scale_y, scale_x), mode="bilinear")
        self._set(op, self._call_module(upsample, x, upsample(self.examples[x])), layout)

    def _pad(self, op: Operation) -> None:
        """Take note of the padding, which becomes part of a convolution that uses it."""
        x, layout = self._first(op)
        pairs = dict(zip(layout, op.attributes["pairs"], strict=True))
        if any(any(pair) for axis, pair in pairs.items() if axis in "NC"):
            raise GraphError("padding of channels is not covered")
        (top, bottom), (left, right) = pairs["H"], pairs["W"]
        name = op.outputs[0]
        self.padded[name] = x, ((top, bottom), (left, right)), op.attributes["value"]
        self.layouts[name] = layout

    def _concat(self, op: Operation) -> None:
        layout = self._layout(op.inputs[0])
        nodes = [self._node_in(name, layout) for name in op.inputs]
        dim = _TORCH.index(layout[op.attributes["axis"]])
        self._set(op, self._call(torch.cat, nodes, dim), layout)

    def _split(self, op: Operation) -> None:
        x, layout = self._first(op)
        dim = _TORCH.index(layout[op.attributes["axis"]])
        parts = self._call(torch.split, x, list(op.attributes["sizes"]), dim)
        for number, name in enumerate(op.outputs):
            self.nodes[name] = self._call(operator.getitem, parts, number)
            self.layouts[name] = layout

    def _transpose(self, op: Operation) -> None:
        source, target = op.inputs[0], op.outputs[0]
        layout, order = self._layout(source), op.attributes["order"]
        if sorted(order) != list(range(len(layout))):
            raise ValueError(f"order {order} of axes {layout}")
        self.layouts[target] = "".join(layout[axis] for axis in order)
        if source in self.padded:
            self.padded[target] = self.padded[source]
        else:
            self.nodes[target] = self._node(source)

    def _squeeze(self, op: Operation) -> None:
        x, layout = self._first(op)
        if layout[op.attributes["axis"]] != "N":
            raise GraphError("squeezing is covered for the batch's axis alone")
        self._set(op, x, layout.replace("N", ""))

    def _unsqueeze(self, op: Operation) -> None:
        x, layout = self._first(op)
        if "N" in layout:
            raise GraphError("a second batch axis is not covered")
        axis = op.attributes["axis"] % (len(layout) + 1)
        self._set(op, x, layout[:axis] + "N" + layout[axis:])

    def _first(self, op: Operation) -> tuple[fx.Node, str]:
        return self._node(op.inputs[0]), self._layout(op.inputs[0])

    def _layout(self, name: str) -> str:
        if name not in self.layouts:
            raise GraphError(f"tensor {name!r} is not computed before it is used")
        return self.layouts[name]

    def _node_in(self, name: str, layout: str) -> fx.Node:
        """Return the node of a tensor that must have that layout."""
        if self._layout(name) != layout:
            raise GraphError(f"tensor {name!r} is {self.layouts[name]}, expected {layout!r}")
        return self._node(name)

    def _node(self, name: str) -> fx.Node:
        """Return the node of a tensor; padding is computed only if something asks for it."""
        self._layout(name)
        if name not in self.nodes:
            x, (y_pair, x_pair), value = self.padded[name]
            self.nodes[name] = self._call(F.pad, x, (*x_pair, *y_pair), value=value)
        return self.nodes[name]

    def _set(self, op: Operation, node: fx.Node, layout: str) -> None:
        self.nodes[op.outputs[0]], self.layouts[op.outputs[0]] = node, layout

    def _constant(self, name: str) -> np.ndarray:
        if name not in self.constants:
            raise GraphError(f"tensor {name!r} is computed, expected a constant")
        return self.constants[name]

    def _call(self, function: Callable, *arguments, **options) -> fx.Node:
        node = self.graph.call_function(function, arguments, options)
        known = fx.node.map_arg(arguments, self.examples.__getitem__)
        self.examples[node] = function(*known, **options)
        return node

    def _call_module(self, module: nn.Module, x: fx.Node, example: torch.Tensor) -> fx.Node:
        name = f"layer{len(self.modules._modules)}"
        self.modules.add_module(name, module)
        node = self.graph.call_module(name, (x,))
        self.examples[node] = example
        return node

    def _activate(self, op: Operation, node: fx.Node) -> fx.Node:
        activation = op.attributes.get("activation")
        if activation is None:
            return node
        if activation not in _ACTIVATIONS:
            raise GraphError(f"fused activation {activation!r} is not covered")
        options = {"negative_slope": op.attributes["alpha"]} if activation == "leaky_relu" else {}
        return self._call(_ACTIVATIONS[activation], node, **options)


_EMITTERS: dict[str, Callable[[_Importer, Operation], None]] = {
    "image": _Importer._image, "convolution": _Importer._convolution,
    "max_pool": _Importer._max_pool, "resize": _Importer._resize,
    "pad": _Importer._pad, "concat": _Importer._concat, "split": _Importer._split,
    "transpose": _Importer._transpose, "squeeze": _Importer._squeeze,
    "unsqueeze": _Importer._unsqueeze, "identity": _Importer._identity,
    **dict.fromkeys(_ARITHMETIC, _Importer._arithmetic),
    **dict.fromkeys(_UNARY, _Importer._unary),
}


def _set_bias(conv: nn.Conv2d, bias: np.ndarray) -> None:
    if bias.shape != (conv.out_channels,):
        raise ValueError(f"the bias has shape {bias.shape}, expected ({conv.out_channels},)")
    conv.bias = nn.Parameter(torch.from_numpy(bias.copy()))


def _convolved(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """Return zeros of the shape of conv(x): to compute it would take seconds for all layers."""
    if x.shape[1] != conv.in_channels:
        raise ValueError(f"{x.shape[1]} channels, expected {conv.in_channels}")
    size = [(n + 2 * int(padding) - spread * (kernel - 1) - 1) // stride + 1
            for n, padding, spread, kernel, stride in zip(
                x.shape[2:], conv.padding, conv.dilation, conv.kernel_size, conv.stride)]
    return x.new_zeros(len(x), conv.out_channels, *size)


def _in_full(value: np.ndarray, layout: str) -> np.ndarray:
    """Return a constant with an axis for each letter of the layout; numpy's broadcasting."""
    return value.reshape((1,) * (len(layout) - value.ndim) + value.shape)
