"""What readers of network files and the importer exchange: operations.

Kinds and their attributes; a tuple of two is y before x, an axis counts in the file's layout:
    image: layout; shape, in the file's layout
    convolution: strides, dilations, padding ("SAME", "VALID" or two pairs before, after), layout,
        depthwise, weight_axes (the axes of the weights that become O, I, y, x), activation, alpha
    max_pool: size, strides, padding, layout
    add, sub, mul, div: activation, alpha; relu, relu6, sigmoid, identity: none; leaky_relu: alpha
    resize: scale, or size at the shape of the file's image; half_pixel_centers, align_corners
    pad: pairs, one an axis; value
    concat: axis; split: axis, sizes; transpose: order; squeeze, unsqueeze: axis
An attribute is None where the file computes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ros2_pose.errors import PoseError


class GraphError(PoseError):
    """A network's file that is damaged, or a graph that the importer does not cover."""


class Operation(NamedTuple):
    """One operation of a graph; see the kinds above."""

    kind: str
    inputs: tuple[str, ...]  # names of tensors, computed or constant
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
