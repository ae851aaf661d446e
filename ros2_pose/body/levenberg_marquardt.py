"""Levenberg-Marquardt on the cost of the fit, batched over people who do not influence each other.

Source: Madsen, Nielsen and Tingleff 2004, Methods for Non-Linear Least Squares Problems, sec. 3.2;
the damping is scaled by the Hessian's diagonal (Marquardt 1963).
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import torch
from scipy.linalg import lapack

from ros2_pose.body.fit_cost import FitCost, Linearisation, State
from ros2_pose.body.fit_kinematics import BETAS, ROOT, ROTATIONS, rotated
from ros2_pose.body.fit_problem import Problem
from ros2_pose.body.state import BodyState

Arrays = TypeVar("Arrays", bound=tuple[np.ndarray, ...])  # (P, ...) each

_FIRST_DAMPING = 1e-2
_DAMPING_ACCEPTED, _DAMPING_REJECTED = 0.2, 5.0  # factors after a step
_DAMPING_RANGE = 1e-6, 1e6
_CONVERGED_GAIN = 0.05  # of the negative log posterior: small beside its uncertainty
_LONGEST_ROTATION_RAD = 0.8  # of one joint in one iteration


def minimise(problem: Problem, start: BodyState,
             iterations: int) -> tuple[BodyState, Linearisation]:
    """Minimise the cost from a state, with at most so many iterations.

    A person with a converged cost is left as it is while others go on, so that a result does not
    depend on the other people in the batch.

    Returns:
        the states of P people, and the cost there.
    """
    cost = FitCost(problem)
    theta, betas, root = (value.numpy() for value in start)
    state: State = theta, betas, root
    local = cost.linearise(state)
    damping = np.full_like(local.cost, _FIRST_DAMPING)
    active = np.arange(len(damping))  # people that have not converged
    for _ in range(iterations):
        own = Linearisation(*_rows(local, active))
        candidate = _step(_rows(state, active), own, damping[active])
        candidate_local = cost.rows(active).linearise(candidate)
        gain = own.cost - candidate_local.cost
        accepted = gain > 0  # False for a gain of NaN: such a step is rejected
        moved = active[accepted]
        state = _with_rows(state, moved, candidate, accepted)
        local = Linearisation(*_with_rows(local, moved, candidate_local, accepted))
        factor = np.where(accepted, _DAMPING_ACCEPTED, _DAMPING_REJECTED)
        damping[active] = (damping[active] * factor).clip(*_DAMPING_RANGE)
        active = active[~(accepted & (gain < _CONVERGED_GAIN))]
        if not len(active):
            break
    return BodyState(*map(torch.from_numpy, state)), local.to_tensors()


def _rows(values: Arrays, people: np.ndarray) -> Arrays:
    """Rows of arrays (P, ...) by index (N,), increasing."""
    if len(people) == len(values[0]):
        return values
    return tuple(value[people] for value in values)  # type: ignore[return-value]


def _with_rows(values: Arrays, people: np.ndarray, others: Arrays, chosen: np.ndarray) -> Arrays:
    """Arrays (P, ...) with new rows at indices (N,): those of `others` where chosen is true."""
    if len(people) == len(values[0]):
        return others
    result = tuple(value.copy() for value in values)
    for value, other in zip(result, others):
        value[people] = other[chosen]
    return result  # type: ignore[return-value]


def _step(state: State, local: Linearisation, damping: np.ndarray) -> State:
    """The state after a damped Gauss-Newton step, shortened where a joint rotates far."""
    theta, betas, root = state
    damped = local.hessian.copy()
    damped.reshape(len(damped), -1)[:, ::damped.shape[1] + 1] *= 1 + damping[:, None]  # diagonal
    step = -_solved(damped, local.gradient)
    rotvecs = step[:, ROTATIONS].reshape(len(step), -1, 3)  # about the camera's axes
    longest_rad = np.sqrt((rotvecs * rotvecs).sum(2).max(1))
    scale = np.minimum(_LONGEST_ROTATION_RAD / longest_rad, 1)[:, None]
    own_rotvecs = ((rotvecs * scale[..., None])[:, :, None] @ local.global_rotmats)[:, :, 0]
    return rotated(theta, own_rotvecs), betas + step[:, BETAS] * scale, root + step[:, ROOT] * scale


def _solved(hessian: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """(P, 85) H^-1 g by Cholesky's method; NaN where H (P, 85, 85), overwritten, is not positive.
    """
    solution = np.empty_like(gradient)
    for person in range(len(hessian)):
        _, solution[person], failed = lapack.dposv(hessian[person].T, gradient[person],
                                                   overwrite_a=True)
        if failed:
            solution[person] = np.nan
    return solution
