"""What the fit minimises: the negative log posterior of 85 unknowns, and its derivatives.

Whitened reprojection errors under a Cauchy loss, a pose prior, a prior on betas, a weak prior that
people stand upright in the image, and, on request, the state of the frame before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import roma
import torch
from torch import Tensor

from ros2_pose.body.kinematics import (BETAS, ROOT, TURNS, Posed, inverse_right_jacobian,
                                       keypoint_jacobian, pose_rig, project, rotvec_from_quat)
from ros2_pose.body.model import BodyModel, Rig
from ros2_pose.body.prior import PosePrior
from ros2_pose.body.state import BodyState

MIN_DEPTH_M = 0.3
_ARM_M = 0.2  # a keypoint may come this much nearer than that


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


def make_problem(model: BodyModel, prior: PosePrior, points: Tensor, cov: Tensor,
                 settings: FitSettings) -> Problem:
    """Missing keypoints become zeros that are not seen."""
    seen = points.isfinite().all(2) & cov.isfinite().flatten(2).all(2)
    return Problem(model.rig(points), prior, model.beta_std.to(points),
                   torch.where(seen[..., None], points, 0.0),
                   torch.where(seen[..., None, None], cov, 0.0), seen, None, settings)


def linearise(problem: Problem, state: BodyState) -> Linear:
    """The cost (up to a constant) around a state; infinite too near the camera."""
    posed = pose_rig(problem.rig, roma.unitquat_to_rotmat(state.theta), state.betas, state.root)
    cost, gradient, hessian = _keypoint_term(problem, posed)
    for term in (_pose_term(problem.prior, state.theta),
                 _upright_term(posed.turns[:, 0], problem.settings.upright_rad)):
        cost = cost + term.cost
        gradient[:, term.unknowns] += term.gradient
        hessian[:, term.unknowns, term.unknowns] += term.hessian
    for pull in _pulls(problem, state):
        towards = pull.offset * pull.precision
        cost = cost + (pull.offset * towards).sum(1) / 2
        gradient[:, pull.unknowns] += towards
        hessian.diagonal(dim1=1, dim2=2)[:, pull.unknowns] += pull.precision
    nearest = torch.minimum(posed.keypoints[..., 2].amin(1) + _ARM_M, posed.joints[:, 0, 2])
    return Linear(torch.where(nearest > MIN_DEPTH_M, cost, torch.inf), gradient, hessian)


class _Term(NamedTuple):
    """A cost of some unknowns."""

    unknowns: slice
    cost: Tensor  # (P,)
    gradient: Tensor  # (P, n)
    hessian: Tensor  # (P, n, n)


class _Pull(NamedTuple):
    """Independent Gaussians on some unknowns: a cost whose Hessian is diagonal."""

    unknowns: slice
    offset: Tensor  # (P, n) from where they pull to
    precision: Tensor | float  # (n,) or one for all


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
    by_turn = torch.stack([turn[..., 2], torch.zeros_like(turn[..., 0]), -turn[..., 0]], 1)
    by_turn = by_turn / std_rad
    return _Term(slice(0, 3), residual.square().sum(1) / 2,
                 (by_turn @ residual[..., None])[..., 0], by_turn @ by_turn.transpose(1, 2))


def _pulls(problem: Problem, state: BodyState) -> list[_Pull]:
    """The prior on betas and, if there is one, how far a state is from the previous one.

    Of a rotation vector r since the previous state the gradient is exact, as J^T r = r; the
    Hessian takes J = 1, which holds for small r.
    """
    pulls = [_Pull(BETAS, state.betas, problem.beta_std**-2)]
    settings, previous = problem.settings, problem.previous
    if previous is None:
        return pulls
    since = roma.quat_product(roma.quat_conjugation(previous.theta), state.theta)
    weight = settings.previous_weight
    return pulls + [
        _Pull(TURNS, rotvec_from_quat(since).flatten(1), weight * settings.previous_turn_rad**-2),
        _Pull(BETAS, state.betas - previous.betas, weight * settings.previous_beta**-2),
        _Pull(ROOT, state.root - previous.root, weight * settings.previous_root_m**-2)]
