"""BodyState: the unknowns of the fit for P people; and rows of tuples of per-person tensors."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from ros2_pose.body.gaussian import is_finite

PerPerson = TypeVar("PerPerson", bound=Any)  # a NamedTuple of tensors (P, ...)


def rows_of(values: PerPerson, people: Tensor) -> PerPerson:
    """Return the rows of some people (P,) bool from a NamedTuple of tensors (P, ...)."""
    if people.all():
        return values
    return values._make(value[people] for value in values)


def with_rows(values: PerPerson, people: Tensor, new: PerPerson) -> PerPerson:
    """Return a NamedTuple of tensors (P, ...) with the rows `people` (P,) bool taken from `new`."""
    if people.all():
        return new
    return values._make(torch.index_put(old, (people,), rows.to(old))
                        for old, rows in zip(values, new))


class BodyState(NamedTuple):
    """Pose, shape and position of P people in the camera frame; NaN for a person without them."""

    theta: Tensor  # (P, 24, 4) unit quaternions x, y, z, w; theta[:, 0] rotates body to camera
    betas: Tensor  # (P, 10)
    root: Tensor  # (P, 3) m, the pelvis

    @staticmethod
    def missing(like: Tensor) -> BodyState:
        """Return a state of NaN for P people with the dtype and device of `like` (P, ...)."""
        return BodyState(*(like.new_full((len(like), *shape), torch.nan)
                           for shape in ((24, 4), (10,), (3,))))

    @property
    def is_finite(self) -> Tensor:
        """(P,) bool: the person has a state."""
        return is_finite(torch.cat([value.flatten(1) for value in self], 1), 1)

    def rows(self, index: Tensor) -> BodyState:
        """Return the states of some people.

        Args:
            index (P,) bool, or (N,) int: a mask, or indices.
        """
        return BodyState(*(value[index] for value in self))
