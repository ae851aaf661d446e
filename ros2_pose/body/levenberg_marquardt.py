"""Levenberg-Marquardt on the cost of the fit, batched over people who do not influence each other.

Source: Madsen, Nielsen and Tingleff 2004, Methods for Non-Linear Least Squares Problems, sec. 3.2;
the damping is scaled by the Hessian's diagonal (Marquardt 1963).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ros2_pose.body.fit_cost import Linearisation, linearise
from ros2_pose.body.fit_problem import Problem
from ros2_pose.body.kinematics import BETAS, ROOT, ROTATIONS
from ros2_pose.body.state import BodyState, where_rows

_FIRST_DAMPING = 1e-2
_DAMPING_ACCEPTED, _DAMPING_REJECTED = 0.2, 5.0  # factors after a step
_DAMPING_RANGE = 1e-6, 1e6
_CONVERGED_GAIN = 0.05  # of the negative log posterior: small beside its uncertainty
_LONGEST_ROTATION_RAD = 0.8  # of one joint in one iteration


def minimise(problem: Problem, state: BodyState,
             iterations: int) -> tuple[BodyState, Linearisation]:
    """Minimise the cost from a state, with at most so many iterations.

    A person with a converged cost is left as it is while others go on, so that a result does not
    depend on the other people in the batch.

    Returns:
        the states of P people, and the cost there.
    """
    local = linearise(problem, state)
    damping = torch.full_like(local.cost, _FIRST_DAMPING)
    converged = torch.zeros_like(local.cost, dtype=torch.bool)
    for _ in range(iterations):
        candidate = _step(state, local, damping)
        candidate_local = linearise(problem, candidate)
        gain = local.cost - candidate_local.cost
        accepted = (gain > 0) & ~converged  # False for a gain of NaN
        converged |= accepted & (gain < _CONVERGED_GAIN)
        state = where_rows(accepted, candidate, state)
        local = where_rows(accepted, candidate_local, local)
        damping = torch.where(accepted, damping * _DAMPING_ACCEPTED, damping * _DAMPING_REJECTED)
        damping = damping.clamp(*_DAMPING_RANGE)
        if converged.all():
            break
    return state, local


def _step(state: BodyState, local: Linearisation, damping: Tensor) -> BodyState:
    """The state after a damped Gauss-Newton step, shortened where a joint rotates far."""
    diagonal = local.hessian.diagonal(dim1=1, dim2=2)
    damped = local.hessian + torch.diag_embed(damping[:, None] * diagonal)
    factor, _ = torch.linalg.cholesky_ex(damped)
    step = -torch.cholesky_solve(local.gradient[..., None], factor)[..., 0]
    rotvecs = step[:, ROTATIONS].unflatten(1, (-1, 3))  # about the camera's axes
    scale = (_LONGEST_ROTATION_RAD / rotvecs.norm(dim=2).amax(1)).clamp(max=1)[:, None]
    rotvecs = (rotvecs * scale[..., None])[..., None]
    own_rotvecs = (local.global_rotmats.transpose(2, 3) @ rotvecs)[..., 0]  # about the joint's axes
    return state.moved(own_rotvecs, step[:, BETAS] * scale, step[:, ROOT] * scale)
