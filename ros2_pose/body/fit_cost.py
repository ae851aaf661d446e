"""What the fit minimises: the negative log posterior of 85 unknowns, and its derivatives.

Whitened errors of the keypoints under a Cauchy loss; the pose prior; Gaussians on rotations (around
what `Lift` says, around the frame before, around upright) and on shape and place (population,
known height, measured depth, the frame before); and feet on the floor where one is known.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ros2_pose.body.kinematics import (
    BETAS,
    ROOT,
    ROTATIONS,
    Posed,
    chord_and_jacobian,
    chord_difference,
    keypoint_jacobian,
    pose_rig,
    project,
)
from ros2_pose.body.model import Rig
from ros2_pose.body.prior import PosePrior
from ros2_pose.body.state import BodyState
from ros2_pose.config import PoseConfig
from ros2_pose.geometry import rotmat_from_quat
from ros2_pose.skeleton import JointSet

MIN_DEPTH_M = 0.3
_ARM_M = 0.2  # a keypoint may come this much nearer than that


@dataclass(frozen=True)
class FitSettings:
    """Weights of the fit; standard deviations unless said otherwise."""

    keypoint_error_m: float = 0.03  # what a keypoint means, on top of its own covariance
    robust_sigmas: float = 3.0  # Cauchy scale, in whitened units
    upright_rad: float = 0.4  # the body's up against the world's up
    prior_weight: float = 0.5  # of the pose prior, which knows nothing of the picture
    lift_weight: float = 1.0  # of the rotations that the lift proposes, by its own uncertainty
    rotation_rate_rad_s: float = 3.0  # how fast a joint turns
    least_rotation_rad: float = 0.03  # of change between frames, however fast they come
    speed_m_s: float = 2.0  # how fast a pelvis moves
    least_step_m: float = 0.05
    shape_frames: int = 100  # over so many frames a track's shape is averaged
    shape_std: float = 0.4  # of a beta as one frame shows it
    adult_height_m: float = PoseConfig.adult_height_m  # the mean where the camera is
    ankle_height_m: float = 0.09  # of a foot that stands
    floor_std_m: float = 0.04
    inflation: float = 1.5  # of the posterior's variances: people vary in more ways than the model
    cold_iterations: tuple[int, int] = (4, 8)  # with all hypotheses, then with the best one
    warm_iterations: int = 2
    retry_cost: float = 2.5  # a warm fit with a worse mean cost per keypoint is astray ...
    patience_s: float = 0.3  # ... and after so long starts cold, too


class RotationPriors(NamedTuple):
    """Gaussians around R reference rotations of each joint; a precision of 0 is no pull."""

    quats: Tensor  # (P, R, 24, 4)
    precision: Tensor  # (P, R, 24) 1/rad^2


@dataclass(frozen=True)
class Problem:
    """What is fitted to what: P people."""

    rig: Rig
    prior: PosePrior
    settings: FitSettings
    joint_set: JointSet
    points: Tensor  # (P, K, 2) at z = 1, or (P, K, 3) m; zeros where missing
    cov: Tensor  # (P, K, D, D), zeros where missing
    seen: Tensor  # (P, 17) bool
    up: Tensor  # (P, 3) the world's up in the camera frame
    floor: Tensor | None  # (4,) n, d with n x + d the height above it, m
    rotation_priors: RotationPriors
    prior_mean: Tensor  # (P, 13) the mean of a Gaussian on betas and root ...
    prior_precision: Tensor  # (P, 13, 13) ... and its precision
    whitener: Tensor | None = None  # (P, K, D, D), zeros where missing

    def rows(self, index: Tensor) -> Problem:
        """The same for some of the people, by mask or by indices, possibly repeated."""
        if index.dtype == torch.bool and index.all():
            return self
        return replace(
            self,
            rotation_priors=RotationPriors(*(value[index] for value in self.rotation_priors)),
            **{
                f.name: value[index]
                for f in fields(self)
                if f.name in _PER_PERSON and (value := getattr(self, f.name)) is not None
            },
        )

    def with_error_at(self, depth: Tensor) -> Problem:
        """With errors whitened for people at a depth (P,) m, where the keypoints' own definition
        is uncertain by `keypoint_error_m`."""
        size = self.points.shape[2]
        extra = self.settings.keypoint_error_m / (depth if size == 2 else torch.ones_like(depth))
        cov = self.cov + extra.square()[:, None, None, None] * torch.eye(size).to(self.cov)
        return replace(self, whitener=torch.where(self.seen[..., None, None], whitener(cov), 0.0))


_PER_PERSON = ("points", "cov", "seen", "up", "prior_mean", "prior_precision", "whitener")


def whitener(cov: Tensor) -> Tensor:
    """(..., D, D) lower triangular W with W^T W = cov^-1; D = 2 or 3."""
    if cov.shape[-1] != 2:
        factor = torch.linalg.cholesky_ex(cov).L
        return torch.linalg.solve_triangular(factor, torch.eye(cov.shape[-1]).to(cov), upper=False)
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
    of_keypoints: Tensor  # (P,) the part of the cost that the keypoints make
    global_rotmats: Tensor  # (P, 24, 3, 3) accumulated rotations, body part to camera


def linearise(problem: Problem, state: BodyState) -> Linear:
    """The cost (up to a constant) around a state; infinite too near the camera."""
    posed = pose_rig(problem.rig, rotmat_from_quat(state.theta), state.betas, state.root)
    of_keypoints, gradient, hessian = _keypoint_term(problem, posed)
    cost = of_keypoints
    for term in (
        _pose_term(problem, state.theta, posed.global_rotmats),
        _rotation_prior_term(problem, state, posed),
        _upright_term(problem, posed.global_rotmats[:, 0]),
        _shape_prior_term(problem, state),
    ):
        cost = cost + term.cost
        gradient[:, term.unknowns] += term.gradient
        if term.hessian.ndim == 2:
            hessian.diagonal(dim1=1, dim2=2)[:, term.unknowns] += term.hessian
        else:
            hessian[:, term.unknowns, term.unknowns] += term.hessian
    nearest = torch.minimum(posed.keypoints[..., 2].amin(1) + _ARM_M, posed.joints[:, 0, 2])
    cost = torch.where(nearest > MIN_DEPTH_M, cost, torch.inf)
    return Linear(cost, gradient, hessian, of_keypoints, posed.global_rotmats)


class _Term(NamedTuple):
    """A cost of some unknowns."""

    unknowns: slice
    cost: Tensor  # (P,)
    gradient: Tensor  # (P, n)
    hessian: Tensor  # (P, n, n), or its diagonal (P, n)


def _keypoint_term(problem: Problem, posed: Posed) -> tuple[Tensor, Tensor, Tensor]:
    residual, by_keypoint = whitened_errors(problem, posed)
    if problem.floor is not None:
        residual, by_keypoint = _with_floor(problem, posed, residual, by_keypoint)
    jacobian = keypoint_jacobian(problem.rig, posed, by_keypoint)
    squared = residual.square().sum(2, keepdim=True)
    weight = 1 / (1 + squared / problem.settings.robust_sigmas**2)  # of the Cauchy loss
    transposed = (weight[..., None] * jacobian).flatten(1, 2).transpose(1, 2)
    return (_cauchy(problem, squared[..., 0]),
            (transposed @ residual.flatten(1)[..., None])[..., 0],
            transposed @ jacobian.flatten(1, 2))


def _cauchy(problem: Problem, squared: Tensor) -> Tensor:
    scale2 = problem.settings.robust_sigmas**2
    return scale2 / 2 * torch.log1p(squared / scale2).sum(1)


def whitened_errors(problem: Problem, posed: Posed) -> tuple[Tensor, Tensor]:
    """(P, K, D) errors of the keypoints in standard deviations, and their derivative
    (P, K, D, 3) by the keypoints in 3D; zeros where a keypoint is missing."""
    if problem.points.shape[2] == 3:
        error = posed.keypoints - problem.points
        return (problem.whitener @ error[..., None])[..., 0], problem.whitener
    image, jacobian = project(posed.keypoints, with_jacobian=True)
    error = (problem.whitener @ (image - problem.points)[..., None])[..., 0]
    return error, problem.whitener @ jacobian


def _with_floor(problem: Problem, posed: Posed, residual: Tensor,
                by_keypoint: Tensor) -> tuple[Tensor, Tensor]:
    """One more error of each keypoint: of the lower ankle, its height where feet stand."""
    normal, offset = problem.floor[:3], problem.floor[3]
    ankles = [problem.joint_set.index(f"{side}_ankle") for side in ("left", "right")]
    height = posed.keypoints @ normal + offset - problem.settings.ankle_height_m
    lower = torch.zeros_like(height)
    lower[:, ankles] = torch.nn.functional.one_hot(height[:, ankles].argmin(1), 2).to(height)
    lower = lower / problem.settings.floor_std_m
    return (torch.cat([residual, (height * lower)[..., None]], 2),
            torch.cat([by_keypoint, lower[..., None, None] * normal], 2))


def _pose_term(problem: Problem, theta: Tensor, global_rotmats: Tensor) -> _Term:
    """The pose prior, whose derivatives are by chords, by turns about the camera's axes."""
    chords, chain = chord_and_jacobian(theta[:, 1:])
    chain = chain @ global_rotmats[:, 1:].transpose(2, 3)  # (P, 23, 3, 3)
    cost, gradient, hessian = problem.prior.quadratic(chords)
    back = problem.settings.prior_weight * chain.transpose(2, 3)
    gradient = (back @ gradient.view(-1, 23, 3, 1)).flatten(1)
    half = (back @ hessian.view(-1, 23, 3, 69)).view(-1, 69, 23, 3)
    hessian = (half.transpose(1, 2) @ chain).transpose(1, 2).reshape(-1, 69, 69)
    return _Term(slice(3, ROTATIONS.stop), problem.settings.prior_weight * cost, gradient, hessian)


def _rotation_prior_term(problem: Problem, state: BodyState, posed: Posed) -> _Term:
    """Gaussians around reference rotations.

    The gradient is exact: by a turn on the right, of |c|^2 / 2 for a chord c it is cos(angle/2) c.
    The Hessian takes 1 instead of the chain, which holds for small differences.
    """
    chord, cosine = chord_difference(problem.rotation_priors.quats, state.theta[:, None])
    towards = problem.rotation_priors.precision[..., None] * chord
    cost = (towards * chord).flatten(1).sum(1) / 2
    gradient = (posed.global_rotmats @ (cosine * towards).sum(1)[..., None]).flatten(1)
    return _Term(ROTATIONS, cost, gradient,
                 problem.rotation_priors.precision.sum(1).repeat_interleave(3, dim=1))


def _upright_term(problem: Problem, rotmat: Tensor) -> _Term:
    """The body's up axis against the world's, for rotations (P, 3, 3) body to camera."""
    up = rotmat[..., 1]
    precision = problem.settings.upright_rad ** -2
    gradient = precision * torch.linalg.cross(problem.up, up)
    hessian = precision * (torch.eye(3).to(up) - up[:, :, None] * up[:, None])
    return _Term(slice(0, 3), precision * (1 - (up * problem.up).sum(1)), gradient, hessian)


def _shape_prior_term(problem: Problem, state: BodyState) -> _Term:
    offset = torch.cat([state.betas, state.root], 1) - problem.prior_mean
    towards = (problem.prior_precision @ offset[..., None])[..., 0]
    return _Term(slice(BETAS.start, ROOT.stop), (offset * towards).sum(1) / 2, towards,
                 problem.prior_precision)
