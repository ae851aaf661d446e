"""BodyState: the unknowns of the fit for P people."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ros2_pose.body.kinematics import turned


class BodyState(NamedTuple):
    """Pose, shape and place in the camera frame; NaN where a person has none."""

    theta: Tensor  # (P, 24, 4) unit quaternions x, y, z, w; theta[:, 0] turns body into camera
    betas: Tensor  # (P, 10)
    root: Tensor  # (P, 3) m, the pelvis

    @staticmethod
    def missing(like: Tensor) -> BodyState:
        """P people without a state; like (P, ...) gives P, dtype and device."""
        return BodyState(*(like.new_full((len(like), *shape), torch.nan)
                           for shape in ((24, 4), (10,), (3,))))

    @property
    def is_finite(self) -> Tensor:
        """(P,) bool."""
        return torch.stack([value.flatten(1).isfinite().all(1) for value in self]).all(0)

    def rows(self, index: Tensor) -> BodyState:
        """The states of some people, by mask or indices."""
        return BodyState(*(value[index] for value in self))

    def where(self, mask: Tensor, other: BodyState) -> BodyState:
        """Own state where mask (P,) is true, the other's elsewhere."""
        return BodyState(*(torch.where(mask.view(-1, *[1] * (a.ndim - 1)), a, b)
                           for a, b in zip(self, other)))

    def moved(self, rotvecs: Tensor, betas: Tensor, root: Tensor) -> BodyState:
        """Turned by small rotation vectors (P, 24, 3) on the right of rotations, and shifted."""
        return BodyState(turned(self.theta, rotvecs), self.betas + betas, self.root + root)
