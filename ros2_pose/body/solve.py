"""Maximum a posteriori fit of the body to 2D keypoints, batched over people.

Levenberg-Marquardt on the 85 unknowns of `kinematics`, with analytic derivatives:
whitened reprojection errors under a Cauchy loss, a pose prior, a prior on betas, a weak prior that
people stand upright in the image, and, on request, the state of the frame before. The posterior
covariance is the inverse Hessian at the solution (Laplace approximation). Everything is solved in
float64: the problem is tiny and the normal equations square its condition number.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import roma
import torch
from torch import Tensor

from ros2_pose.body import start
from ros2_pose.body.kinematics import (BETAS, ROOT, TURNS, UNKNOWNS, Posed, inverse_right_jacobian,
                                       joint_jacobian, keypoint_jacobian, pose_rig, project,
                                       rotvec_from_quat)
from ros2_pose.body.model import BodyModel, Rig
from ros2_pose.body.prior import PosePrior
from ros2_pose.body.state import BodyState
from ros2_pose.skeleton import COCO17, SMPL24

MIN_DEPTH_M = 0.3
_ARM_M = 0.2  # a keypoint may come this much nearer than that
_FIRST_LIMB = COCO17.index("left_shoulder")
_MIN_LIMB_POINTS = 4
_KEPT_HYPOTHESES = 2
_DAMPING = 1e-2
_LONGEST_TURN_RAD = 0.8  # of one joint in one iteration


@dataclass(frozen=True)
class FitSettings:
    """Weights of the fit; standard deviations unless said otherwise."""

    keypoint_error_m: float = 0.03  # what a keypoint means, on top of its own covariance
    robust_sigmas: float = 3.0  # Cauchy scale, in whitened units
    upright_rad: float = 0.4  # the body's up against the image's up
    previous_turn_rad: float = 0.3  # change of a joint's rotation since the previous state
    previous_root_m: float = 0.3  # change of place since the previous state
    previous_beta: float = 0.1  # change of shape since the previous state
    previous_weight: float = 1.0  # 0 forgets the previous state but as a starting point
    cold_iterations: tuple[int, int] = (5, 10)  # with all hypotheses, then with the best ones
    warm_iterations: int = 4
    retry_cost: float = 2.5  # a warm fit with a worse mean cost per keypoint starts cold, too


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


@dataclass(frozen=True)
class Problem:
    """What is fitted to what: P people."""

    rig: Rig
    prior: PosePrior
    beta_std: Tensor  # (10,)
    points: Tensor  # (P, 17, 2) at z = 1, zeros where missing
    cov: Tensor  # (P, 17, 2, 2), zeros where missing
    seen: Tensor  # (P, 17) bool
    previous: BodyState | None  # finite; None: no temporal prior
    settings: FitSettings
    whitener: Tensor | None = None  # (P, 17, 2, 2), zeros where missing

    def rows(self, index: Tensor) -> Problem:
        """The same for some of the people, possibly repeated."""
        return replace(
            self, points=self.points[index], cov=self.cov[index], seen=self.seen[index],
            previous=None if self.previous is None else self.previous.rows(index),
            whitener=None if self.whitener is None else self.whitener[index])

    def with_error_at(self, depth: Tensor) -> Problem:
        """With errors whitened for people at a depth (P,) m, where the keypoints' own definition
        is uncertain by `keypoint_error_m`."""
        extra = (self.settings.keypoint_error_m / depth) ** 2
        cov = self.cov + extra[:, None, None, None] * torch.eye(2).to(self.cov)
        return replace(self, whitener=torch.where(self.seen[..., None, None], whitener(cov), 0.0))


def whitener(cov: Tensor) -> Tensor:
    """(..., 2, 2) lower triangular W with W^T W = cov^-1."""
    a, b, c = cov[..., 0, 0], cov[..., 0, 1], cov[..., 1, 1]
    first = a.rsqrt()
    second = (c - b * b / a).rsqrt()
    rows = torch.stack([first, torch.zeros_like(a), -b / a * second, second], -1)
    return rows.unflatten(-1, (2, 2))


class Linear(NamedTuple):
    """The cost at a state, and its gradient and Gauss-Newton Hessian by the 85 unknowns."""

    cost: Tensor  # (P,)
    gradient: Tensor  # (P, 85)
    hessian: Tensor  # (P, 85, 85)


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


def make_problem(model: BodyModel, prior: PosePrior, points: Tensor, cov: Tensor,
                 settings: FitSettings) -> Problem:
    """Missing keypoints become zeros that are not seen."""
    seen = points.isfinite().all(2) & cov.isfinite().flatten(2).all(2)
    return Problem(model.rig(points), prior, model.beta_std.to(points),
                   torch.where(seen[..., None], points, 0.0),
                   torch.where(seen[..., None, None], cov, 0.0), seen, None, settings)


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
    """Levenberg-Marquardt: the state after some iterations, and its cost (P,)."""
    here = linearise(problem, state)
    damping = torch.full_like(here.cost, _DAMPING)
    for _ in range(iterations):
        candidate = _step(state, here, damping)
        there = linearise(problem, candidate)
        better = there.cost < here.cost  # false for NaN, too
        state = candidate.where(better, state)
        here = Linear(*(torch.where(better.view(-1, *[1] * (a.ndim - 1)), a, b)
                        for a, b in zip(there, here)))
        damping = torch.where(better, damping * 0.2, damping * 5).clamp(1e-6, 1e6)
    return state, here.cost


def _step(state: BodyState, here: Linear, damping: Tensor) -> BodyState:
    diagonal = here.hessian.diagonal(dim1=1, dim2=2)
    factor, _ = torch.linalg.cholesky_ex(
        here.hessian + torch.diag_embed(damping[:, None] * diagonal))
    step = -torch.cholesky_solve(here.gradient[..., None], factor)[..., 0]
    turns = step[:, TURNS].unflatten(1, (-1, 3))
    scale = (_LONGEST_TURN_RAD / turns.norm(dim=2).amax(1)).clamp(max=1)[:, None]
    return state.moved(turns * scale[..., None], step[:, BETAS] * scale, step[:, ROOT] * scale)


# ------------------------------------------------------------------------------------ cost


def linearise(problem: Problem, state: BodyState) -> Linear:
    """The negative log posterior (up to a constant) around a state; infinite too near the camera."""
    posed = pose_rig(problem.rig, roma.unitquat_to_rotmat(state.theta), state.betas, state.root)
    cost, gradient, hessian = _keypoint_term(problem, posed)
    terms = [_pose_term(problem.prior, state.theta),
             _upright_term(posed.turns[:, 0], problem.settings.upright_rad),
             _diagonal_term(BETAS, state.betas, problem.beta_std)]
    if problem.previous is not None:
        terms += _previous_terms(problem, state)
    for term in terms:
        cost = cost + term.cost
        gradient[:, term.unknowns] += term.gradient
        hessian[:, term.unknowns, term.unknowns] += term.hessian
    nearest = torch.minimum(posed.keypoints[..., 2].amin(1) + _ARM_M, posed.joints[:, 0, 2])
    return Linear(torch.where(nearest > MIN_DEPTH_M, cost, torch.inf), gradient, hessian)


class _Term(NamedTuple):
    unknowns: slice
    cost: Tensor  # (P,)
    gradient: Tensor  # (P, n)
    hessian: Tensor  # (P, n, n)


def _keypoint_term(problem: Problem, posed: Posed) -> Linear:
    residual, image_jacobian = whitened_errors(problem, posed)
    jacobian = image_jacobian @ keypoint_jacobian(problem.rig, posed)
    squared = residual.square().sum(2, keepdim=True)
    weight = 1 / (1 + squared / problem.settings.robust_sigmas**2)  # of the Cauchy loss
    transposed = (weight[..., None] * jacobian).flatten(1, 2).transpose(1, 2)
    return Linear(_cauchy(problem, squared[..., 0]),
                  (transposed @ residual.flatten(1)[..., None])[..., 0],
                  transposed @ jacobian.flatten(1, 2))


def _cauchy(problem: Problem, squared: Tensor) -> Tensor:
    scale2 = problem.settings.robust_sigmas**2
    return scale2 / 2 * torch.log1p(squared / scale2).sum(1)


def keypoint_cost(problem: Problem, state: BodyState) -> Tensor:
    """(P,) the part of the cost that the keypoints make."""
    posed = pose_rig(problem.rig, roma.unitquat_to_rotmat(state.theta), state.betas, state.root)
    return _cauchy(problem, whitened_errors(problem, posed)[0].square().sum(2))


def whitened_errors(problem: Problem, posed: Posed) -> tuple[Tensor, Tensor]:
    """(P, 17, 2) reprojection errors in standard deviations, and their derivative (P, 17, 2, 3)
    by the keypoints in 3D; zeros where a keypoint is missing."""
    image, jacobian = project(posed.keypoints, with_jacobian=True)
    error = (problem.whitener @ (image - problem.points)[..., None])[..., 0]
    return error, problem.whitener @ jacobian


def _pose_term(prior: PosePrior, theta: Tensor) -> _Term:
    rotvecs = rotvec_from_quat(theta[:, 1:])
    cost, gradient, hessian = prior.quadratic(rotvecs)
    chain = inverse_right_jacobian(rotvecs)  # (P, 23, 3, 3)
    back = chain.transpose(2, 3)
    gradient = (back @ gradient.view(-1, 23, 3, 1)).flatten(1)
    half = (back @ hessian.view(-1, 23, 3, 69)).view(-1, 69, 23, 3)
    hessian = (half.transpose(1, 2) @ chain).transpose(1, 2).reshape(-1, 69, 69)
    return _Term(slice(3, TURNS.stop), cost, gradient, hessian)


def _upright_term(turn: Tensor, std_rad: float) -> _Term:
    """The body's up axis against the image's, for rotations (P, 3, 3) body to camera."""
    residual = (turn[..., 1] - turn.new_tensor([0.0, -1.0, 0.0])) / std_rad
    by_turn = torch.stack([turn[..., 2], torch.zeros_like(turn[..., 0]), -turn[..., 0]], 1) / std_rad
    return _Term(slice(0, 3), residual.square().sum(1) / 2,
                 (by_turn @ residual[..., None])[..., 0], by_turn @ by_turn.transpose(1, 2))


def _diagonal_term(unknowns: slice, offset: Tensor, std: Tensor | float) -> _Term:
    """Independent Gaussians with zero mean."""
    residual = offset / std
    precision = (torch.ones_like(offset) / std**2).diag_embed()
    return _Term(unknowns, residual.square().sum(1) / 2, residual / std, precision)


def _previous_terms(problem: Problem, state: BodyState) -> list[_Term]:
    """How far a state is from the previous one. Of a rotation vector r the gradient is exact, as
    J^T r = r; the Hessian takes J = 1, which holds for small r."""
    settings, previous = problem.settings, problem.previous
    loose = settings.previous_weight**-0.5
    since = roma.quat_product(roma.quat_conjugation(previous.theta), state.theta)
    rotvecs = rotvec_from_quat(since).flatten(1)
    return [_diagonal_term(TURNS, rotvecs, loose * settings.previous_turn_rad),
            _diagonal_term(BETAS, state.betas - previous.betas, loose * settings.previous_beta),
            _diagonal_term(ROOT, state.root - previous.root, loose * settings.previous_root_m)]


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
