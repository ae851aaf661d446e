"""Simplify an imported graph."""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection

from torch import fx, nn


def fold_biases(graph: fx.Graph, modules: nn.Module) -> None:
    """Make constants that are added to the result of a convolution its bias."""
    for node in graph.find_nodes(op="call_function", target=operator.add):
        x, value = node.args
        if not (isinstance(x, fx.Node) and isinstance(value, fx.Node) and len(x.users) == 1
                and x.op == "call_module" and value.op == "get_attr"):
            continue
        conv, bias = modules.get_submodule(x.target), modules.get_buffer(value.target)
        if isinstance(conv, nn.Conv2d) and conv.bias is None and bias.numel() == conv.out_channels:
            conv.bias = nn.Parameter(bias.flatten())
            node.replace_all_uses_with(x)
            graph.erase_node(node)
            graph.erase_node(value)
            delattr(modules, value.target)


def overwrite_where_possible(graph: fx.Graph, functions: Collection[Callable]) -> None:
    """Let functions overwrite the result of a layer or a sum that nothing else reads.

    Args:
        functions: with the option `inplace`.
    """
    for node in graph.nodes:
        if node.target in functions:
            source = node.args[0]
            is_sum = source.op == "call_module" or source.target == operator.add
            if is_sum and len(source.users) == 1:
                node.kwargs = {**node.kwargs, "inplace": True}
