"""Maximum a posteriori fit of the body to 2D keypoints, batched over people.

Levenberg-Marquardt on `cost`, from the state of the frame before or from several facings. The
posterior covariance is the inverse Hessian at the solution (Laplace approximation). Everything is
solved in float64: the problem is tiny and the normal equations square its condition number.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import roma
import torch
from torch import Tensor

from ros2_pose.body import start
from ros2_pose.body.cost import (MIN_DEPTH_M, FitSettings, Linear, Problem, keypoint_cost,
                                 linearise, make_problem, whitened_errors)
from ros2_pose.body.kinematics import (BETAS, ROOT, TURNS, UNKNOWNS, Posed, joint_jacobian,
                                       pose_rig)
from ros2_pose.body.model import BodyModel
from ros2_pose.body.prior import PosePrior
from ros2_pose.body.state import BodyState
from ros2_pose.skeleton import COCO17, SMPL24

__all__ = ["MIN_DEPTH_M", "BodyFit", "BodyState", "FitSettings", "fit"]

_FIRST_LIMB = COCO17.index("left_shoulder")
_MIN_LIMB_POINTS = 4
_KEPT_HYPOTHESES = 2
_DAMPING = 1e-2
_SMALL_GAIN = 0.05  # of the negative log posterior: nothing beside its uncertainty
_LONGEST_TURN_RAD = 0.8  # of one joint in one iteration


class BodyFit(NamedTuple):
    """Fitted people in the camera frame, metres; rows that are not `ok` hold NaN."""

    theta: Tensor  # (P, 24, 4) x, y, z, w
    betas: Tensor  # (P, 10)
    root: Tensor  # (P, 3)
    root_cov: Tensor  # (P, 6, 6) of x, y, z, rotation about the camera's x, y, z; m, rad
    joints: Tensor  # (P, 24, 3)
    joint_cov: Tensor  # (P, 24, 3, 3)
    joint_observed: Tensor  # (P, 24) bool
    keypoints: Tensor  # (P, 17, 3)
    cost: Tensor  # (P,) negative log posterior up to a constant
    ok: Tensor  # (P,) bool

    @property
    def state(self) -> BodyState:
        """What the next frame's fit starts from."""
        return BodyState(self.theta, self.betas, self.root)


def fit(model: BodyModel, prior: PosePrior, points: Tensor, cov: Tensor,
        previous: BodyState | None = None, settings: FitSettings = FitSettings()) -> BodyFit:
    """Fit bodies to keypoints.

    points: (P, 17, 2) COCO keypoints, normalised and undistorted: x/z, y/z. NaN: missing.
    cov: (P, 17, 2, 2) their covariance in the same unit. NaN: missing.
    previous: where to start from, and the temporal prior; a person with NaN starts cold.
    """
    problem = make_problem(model, prior, points.double(), cov.double(), settings)
    ok = problem.seen[:, _FIRST_LIMB:].sum(1) >= _MIN_LIMB_POINTS
    state = BodyState.missing(problem.points)
    if previous is not None:
        previous = BodyState(*(value.double() for value in previous))
        warm = ok & previous.is_finite
        if warm.any():
            state = state.put(warm, _fit_warm(problem.rows(warm), previous.rows(warm)))
    cold = ok & ~state.is_finite
    if cold.any():
        state = state.put(cold, _fit_cold(problem.rows(cold)))
    return BodyFit(*(value.to(points.dtype) if value.is_floating_point() else value
                     for value in _result(problem, state, ok)))


# -------------------------------------------------------------------------------- strategy


def _fit_warm(problem: Problem, previous: BodyState) -> BodyState:
    """From the previous state, and again from nothing for those who do not follow it."""
    settings = problem.settings
    image = problem.with_error_at(previous.root[:, 2])
    temporal = image if settings.previous_weight == 0 else replace(image, previous=previous)
    state, _ = minimise(temporal, previous, settings.warm_iterations)
    lost = ~(keypoint_cost(image, state) < settings.retry_cost * problem.seen.sum(1))
    if lost.any():
        again, image = _fit_cold(problem.rows(lost)), image.rows(lost)
        followed = state.rows(lost)
        worse = linearise(image, again).cost > linearise(image, followed).cost
        state = state.put(lost, followed.where(worse, again))
    return state


def _fit_cold(problem: Problem) -> BodyState:
    """From all hypotheses for a few iterations, then the best ones to the end."""
    first, second = problem.settings.cold_iterations
    people = torch.arange(len(problem.points), device=problem.points.device)
    begin = start.hypotheses(problem.rig, problem.prior, problem.points, problem.seen)
    depth = begin.root[:, 2].view(len(people), start.HYPOTHESES).median(1).values
    problem = problem.with_error_at(depth)
    state, cost = minimise(problem.rows(people.repeat_interleave(start.HYPOTHESES)), begin, first)
    best = cost.view(-1, start.HYPOTHESES).topk(_KEPT_HYPOTHESES, largest=False).indices
    chosen = (best + start.HYPOTHESES * people[:, None]).flatten()
    state, cost = minimise(problem.rows(people.repeat_interleave(_KEPT_HYPOTHESES)),
                           state.rows(chosen), second)
    best = cost.view(-1, _KEPT_HYPOTHESES).argmin(1)
    return state.rows(best + _KEPT_HYPOTHESES * people)


def minimise(problem: Problem, state: BodyState, iterations: int) -> tuple[BodyState, Tensor]:
    """Levenberg-Marquardt: the state after at most so many iterations, and its cost (P,).

    Whoever gains little any more stays as he is, so that nobody's result depends on the others.
    """
    here = linearise(problem, state)
    damping = torch.full_like(here.cost, _DAMPING)
    done = torch.zeros_like(here.cost, dtype=torch.bool)
    for _ in range(iterations):
        candidate = _step(state, here, damping)
        there = linearise(problem, candidate)
        gain = here.cost - there.cost
        better = (gain > 0) & ~done  # false for NaN, too
        done |= better & (gain < _SMALL_GAIN)
        state = candidate.where(better, state)
        here = Linear(*(torch.where(better.view(-1, *[1] * (a.ndim - 1)), a, b)
                        for a, b in zip(there, here)))
        damping = torch.where(better, damping * 0.2, damping * 5).clamp(1e-6, 1e6)
        if done.all():
            break
    return state, here.cost


def _step(state: BodyState, here: Linear, damping: Tensor) -> BodyState:
    diagonal = here.hessian.diagonal(dim1=1, dim2=2)
    factor, _ = torch.linalg.cholesky_ex(
        here.hessian + torch.diag_embed(damping[:, None] * diagonal))
    step = -torch.cholesky_solve(here.gradient[..., None], factor)[..., 0]
    turns = step[:, TURNS].unflatten(1, (-1, 3))
    scale = (_LONGEST_TURN_RAD / turns.norm(dim=2).amax(1)).clamp(max=1)[:, None]
    return state.moved(turns * scale[..., None], step[:, BETAS] * scale, step[:, ROOT] * scale)


# ---------------------------------------------------------------------------------- result


def _result(problem: Problem, state: BodyState, ok: Tensor) -> BodyFit:
    """Covariances and joints of the people who were fitted, NaN for the others."""
    chosen = ok & state.is_finite
    problem, state = problem.rows(chosen).with_error_at(state.root[chosen, 2]), state.rows(chosen)
    posed = pose_rig(problem.rig, roma.unitquat_to_rotmat(state.theta), state.betas, state.root)
    here = linearise(problem, state)
    covariance = _inverse(here.hessian)
    values = (*state, _root_cov(covariance, posed.turns[:, 0]), posed.joints,
              _joint_cov(covariance, joint_jacobian(problem.rig, posed)),
              _observed(problem, posed), posed.keypoints, here.cost)
    sound = here.cost.isfinite() & covariance.isfinite().flatten(1).all(1)
    ok = chosen.clone()
    ok[chosen] = sound
    return BodyFit(*(_spread(value[sound], ok) for value in values), ok)


def _inverse(hessian: Tensor) -> Tensor:
    """Inverse by Cholesky after scaling the diagonal to one; NaN where not positive definite."""
    scale = hessian.diagonal(dim1=1, dim2=2).rsqrt()
    scale = scale[:, :, None] * scale[:, None]
    factor, failed = torch.linalg.cholesky_ex(hessian * scale)
    failed = failed[:, None, None] != 0
    factor = torch.where(failed, torch.eye(factor.shape[1]).to(factor), factor)
    return torch.where(failed, torch.nan, torch.cholesky_inverse(factor) * scale)


def _joint_cov(covariance: Tensor, jacobian: Tensor) -> Tensor:
    """(P, 24, 3, 3) from that of the unknowns and the jacobian (P, 24, 3, 85)."""
    spread = (jacobian.flatten(1, 2) @ covariance).view_as(jacobian)
    return spread @ jacobian.transpose(2, 3)


def _root_cov(covariance: Tensor, turn: Tensor) -> Tensor:
    """(P, 6, 6) place and rotation about the camera's axes; the unknowns turn about the body's."""
    chosen = torch.tensor([*range(UNKNOWNS)[ROOT], 0, 1, 2], device=covariance.device)
    block = covariance[:, chosen[:, None], chosen]
    axes = torch.eye(6).to(block).repeat(len(block), 1, 1)
    axes[:, 3:, 3:] = turn
    return axes @ block @ axes.transpose(1, 2)


def _observed(problem: Problem, posed: Posed) -> Tensor:
    """(P, 24) bool: the joint's own keypoints are seen, and the fit agrees with them."""
    squared = whitened_errors(problem, posed)[0].square().sum(2)
    agrees = problem.seen & (squared < problem.settings.robust_sigmas**2)
    columns = [agrees[:, keypoints].all(1) if keypoints else torch.zeros_like(agrees[:, 0])
               for keypoints in _EVIDENCE]
    return torch.stack(columns, 1)


def _evidence(joint: str) -> list[int]:
    """COCO keypoints that show an SMPL joint; for a joint in the middle, all that lie around."""
    around = {"pelvis": ("left_hip", "right_hip"), "neck": ("left_shoulder", "right_shoulder"),
              "head": ("nose",)}
    names = around.get(joint, (joint,))
    return [COCO17.index(name) for name in names if name in COCO17.names]


_EVIDENCE = [_evidence(joint) for joint in SMPL24.names]


def _spread(values: Tensor, ok: Tensor) -> Tensor:
    """Rows of the people who are ok, put among NaN (or False) rows for the others."""
    blank = False if values.dtype == torch.bool else torch.nan
    out = torch.full((len(ok), *values.shape[1:]), blank, dtype=values.dtype, device=ok.device)
    out[ok] = values
    return out
