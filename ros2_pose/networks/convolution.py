"""The layers that trained networks are made of most: convolution, normalisation, ReLU."""

from __future__ import annotations

from torch import nn

_GROUPS = 8


def conv_norm_relu(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """Return a convolution of 3x3 cells with group normalisation, which serves small batches."""
    groups = _GROUPS if outputs % _GROUPS == 0 else 1
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1),
                         nn.GroupNorm(groups, outputs), nn.ReLU())
