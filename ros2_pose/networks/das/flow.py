"""RealNVP: the learned distribution of standardised errors, for training alone.

Source: Dinh et al. 2017; Li et al. 2021, "Human Pose Regression with Residual Log-likelihood
Estimation".
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_COUPLINGS, _WIDTH = 6, 64


class RealNvp(nn.Module):
    """A density of vectors: normal numbers after invertible layers.

    Each layer changes the coordinates that its mask leaves out, by a scale and a shift that depend
    on the others.
    """

    masks: Tensor

    def __init__(self, dimensions: int) -> None:
        """Create the layers for vectors with that number of dimensions, 2 or 3."""
        super().__init__()
        masks = {2: [[0, 1], [1, 0]], 3: [[0, 0, 1], [1, 1, 0], [0, 1, 0], [1, 0, 1],
                                          [1, 0, 0], [0, 1, 1]]}[dimensions]
        repeated = (masks * _COUPLINGS)[:_COUPLINGS]
        self.register_buffer("masks", torch.tensor(repeated).float(), persistent=False)
        self.scales = nn.ModuleList(_mlp(dimensions, nn.Tanh()) for _ in range(_COUPLINGS))
        self.shifts = nn.ModuleList(_mlp(dimensions, nn.Identity()) for _ in range(_COUPLINGS))

    def normalised(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the normal numbers (N, D) of vectors x (N, D), and log |det dz/dx| (N,)."""
        log_det = x.new_zeros(len(x))
        for mask, scale_of, shift_of in zip(self.masks, self.scales, self.shifts):
            kept, changes = mask * x, 1 - mask
            scale, shift = changes * scale_of(kept), changes * shift_of(kept)
            x = kept + changes * (x - shift) * torch.exp(-scale)
            log_det = log_det - scale.sum(1)
        return x, log_det

    def log_density(self, x: Tensor) -> Tensor:
        """Return the logarithm (N,) of the density at vectors x (N, D)."""
        z, log_det = self.normalised(x)
        return log_det - z.square().sum(1) / 2 - x.shape[1] * math.log(2 * math.pi) / 2


def _mlp(dimensions: int, last: nn.Module) -> nn.Sequential:
    layers = nn.Sequential(nn.Linear(dimensions, _WIDTH), nn.LeakyReLU(),
                           nn.Linear(_WIDTH, _WIDTH), nn.LeakyReLU(),
                           nn.Linear(_WIDTH, dimensions), last)
    nn.init.xavier_uniform_(layers[4].weight, gain=0.01)
    return layers
