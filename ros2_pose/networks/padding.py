"""Padding of convolutions, as TensorFlow and torch define it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ros2_pose.networks.graph import GraphError

Padding = tuple[tuple[int, int], tuple[int, int]]  # cells before and after; y, then x
NO_PADDING: Padding = ((0, 0), (0, 0))
_MOST = 64  # cells; more is a sign of a damaged file


def own_padding(padding: str | Padding, lengths: Sequence[int], kernel: Sequence[int],
                strides: Sequence[int], dilations: Sequence[int] = (1, 1)) -> Padding:
    """Return the padding of an operation with a kernel; arguments are y before x.

    Args:
        padding: "SAME", "VALID" or the pairs themselves.
        lengths: of the input; multiples of the strides, so that SAME does not depend on them.
        kernel, strides, dilations: in cells.
    Raises:
        GraphError: SAME padding would depend on the size of the image.
    """
    if not isinstance(padding, str):
        (top, bottom), (left, right) = padding
        return (top, bottom), (left, right)
    if padding == "VALID":
        return NO_PADDING
    if padding != "SAME":
        raise GraphError(f"padding {padding!r} is not covered")
    if any(length % stride for length, stride in zip(lengths, strides)):
        raise GraphError("SAME padding that depends on the size of the image is not covered")
    pairs = [_split(max((n - 1) * spread + 1 - stride, 0))
             for n, spread, stride in zip(kernel, dilations, strides)]
    return pairs[0], pairs[1]


def _split(total: int) -> tuple[int, int]:
    """Return how SAME splits padding: an odd cell is at the end."""
    return total // 2, total - total // 2


def total_padding(a: Padding, b: Padding) -> Padding:
    """Return the padding by a and then by b."""
    (top, bottom), (left, right) = a
    (more_top, more_bottom), (more_left, more_right) = b
    return (top + more_top, bottom + more_bottom), (left + more_left, right + more_right)


def made_symmetric(weight: np.ndarray, padding: Padding,
                   dilations: Sequence[int]) -> tuple[np.ndarray, tuple[int, int]]:
    """Return weights (O, I, h, w) and symmetric padding y, x with the effect of uneven padding.

    Torch pads both sides alike: where a side has less padding, the kernel gets zeros on it.

    Raises:
        GraphError: it would take a part of a dilated step, or too much padding.
    """
    zeros, symmetric = [(0, 0), (0, 0)], []
    for (before, after), spread in zip(padding, dilations):
        missing, rest = divmod(after - before, spread)
        if rest:
            raise GraphError("uneven padding of a dilated convolution is not covered")
        if min(before, after) < 0 or max(before, after) > _MOST:
            raise GraphError(f"padding of {before} cells before and {after} after is not covered")
        zeros.append((max(missing, 0), max(-missing, 0)))
        symmetric.append(max(before, after))
    return np.pad(weight, zeros), (symmetric[0], symmetric[1])
