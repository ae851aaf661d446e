"""The cost of the fit: the negative log posterior of 85 unknowns, with gradient and Hessian.

Its terms: whitened keypoint residuals under a Cauchy loss; the height of the lower foot above a
known floor, as a mixture of contact and none; the pose prior; Gaussians on rotations (the lift's
hypothesis, the previous frame, the body's up axis) and on shape and root (population, known height,
measured depth, the previous frame). The order of the unknowns is that of `kinematics`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ros2_pose.body.fit_problem import Problem
from ros2_pose.body.floor_contact import contact_cost, lower_ankle
from ros2_pose.body.kinematics import (
    ROTATIONS,
    SHAPE_AND_ROOT,
    chord_and_jacobian,
    chord_difference,
    keypoint_jacobian,
    pose_rig,
    project_with_jacobian,
)
from ros2_pose.body.model import Posed
from ros2_pose.body.so3 import rotmat_from_quat
from ros2_pose.body.state import BodyState

MIN_DEPTH_M = 0.3  # of the pelvis
_ROOT_ROTATION = slice(0, 3)
_BODY_ROTATIONS = slice(3, ROTATIONS.stop)  # those of all joints but the root
_NEARER_KEYPOINT_M = 0.2  # a keypoint may be this much nearer than MIN_DEPTH_M


class Linearisation(NamedTuple):
    """The cost at a state, with gradient and Gauss-Newton Hessian by the 85 unknowns."""

    cost: Tensor  # (P,) up to a constant; infinite too near the camera
    gradient: Tensor  # (P, 85)
    hessian: Tensor  # (P, 85, 85)
    keypoint_cost: Tensor  # (P,) the keypoints' part of the cost
    global_rotmats: Tensor  # (P, 24, 3, 3) body part to camera


def linearise(problem: Problem, state: BodyState) -> Linearisation:
    """Evaluate the cost and its derivatives at the states of P people."""
    posed = pose_rig(problem.rig, rotmat_from_quat(state.theta), state.betas, state.root)
    keypoint_cost, floor_cost, gradient, hessian = _keypoint_and_floor_terms(problem, posed)
    priors = (
        (_BODY_ROTATIONS, _pose_prior(problem, state.theta, posed.global_rotmats)),
        (ROTATIONS, _rotation_prior(problem, state.theta, posed.global_rotmats)),
        (_ROOT_ROTATION, _upright_prior(problem, posed.global_rotmats[:, 0])),
        (SHAPE_AND_ROOT, _shape_and_root_prior(problem, state)),
    )
    cost = keypoint_cost + floor_cost
    for unknowns, (prior_cost, prior_gradient, prior_hessian) in priors:
        cost = cost + prior_cost
        gradient[:, unknowns] += prior_gradient
        hessian[:, unknowns, unknowns] += prior_hessian
    nearest_keypoint_m = posed.keypoints[..., 2].amin(1)
    pelvis_m = posed.joints[:, 0, 2]
    nearest_m = torch.minimum(nearest_keypoint_m + _NEARER_KEYPOINT_M, pelvis_m)
    cost = torch.where(nearest_m > MIN_DEPTH_M, cost, torch.inf)
    return Linearisation(cost, gradient, hessian, keypoint_cost, posed.global_rotmats)


# ------------------------------------------------------------------------------ keypoints


def _keypoint_and_floor_terms(problem: Problem,
                              posed: Posed) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Costs (P,) of keypoints and floor, and gradient (P, 85) and Hessian (P, 85, 85) of both.

    The Cauchy loss s^2/2 log(1 + r^2/s^2) of a keypoint's residual r weighs it by 1 / (1 + r^2/s^2)
    (iteratively reweighted least squares).
    """
    residual, by_keypoint = whitened_residuals(problem, posed)
    squared = residual.square().sum(2, keepdim=True)
    scale2 = problem.settings.robust_sigmas**2
    weight = (1 / (1 + squared / scale2)).expand_as(residual)
    cost = scale2 / 2 * torch.log1p(squared[..., 0] / scale2).sum(1)
    floor_cost = torch.zeros_like(cost)
    if problem.floor is not None:
        height, by_ankle = lower_ankle(problem, problem.floor, posed)
        floor_cost, floor_weight = contact_cost(problem, height)
        residual = torch.cat([residual, height[..., None]], 2)
        weight = torch.cat([weight, floor_weight[:, None, None].expand_as(height[..., None])], 2)
        by_keypoint = torch.cat([by_keypoint, by_ankle], 2)
    jacobian = keypoint_jacobian(problem.rig, posed, by_keypoint)  # (P, K, R, 85)
    weighted_transpose = (weight[..., None] * jacobian).flatten(1, 2).transpose(1, 2)
    gradient = (weighted_transpose @ residual.flatten(1)[..., None])[..., 0]
    hessian = weighted_transpose @ jacobian.flatten(1, 2)
    return cost, floor_cost, gradient, hessian


def whitened_residuals(problem: Problem, posed: Posed) -> tuple[Tensor, Tensor]:
    """Return the keypoints' residuals in standard deviations.

    Returns:
        (P, K, D) residuals and (P, K, D, 3) their derivative by the keypoints in 3D, 1/m; zeros
        where a keypoint is missing.
    """
    whiten = problem.whitener
    if whiten is None:
        raise ValueError("the problem has no whitener: call with_hypothesis before")
    if problem.points.shape[2] == 3:
        error = posed.keypoints - problem.points
        return (whiten @ error[..., None])[..., 0], whiten
    image, jacobian = project_with_jacobian(posed.keypoints)
    residual = (whiten @ (image - problem.points)[..., None])[..., 0]
    return residual, whiten @ jacobian


# ------------------- priors: cost (P,), gradient (P, n) and Hessian (P, n, n) by n unknowns


def _pose_prior(problem: Problem, theta: Tensor,
                global_rotmats: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The pose prior, a function of chords, by rotations about the camera's axes (chain rule)."""
    chords, by_local_rotvec = chord_and_jacobian(theta[:, 1:])
    jacobian = by_local_rotvec @ global_rotmats[:, 1:].transpose(2, 3)  # (P, 23, 3, 3) blocks of J
    cost, by_chord, chord_hessian = problem.pose_prior.quadratic(chords)
    weight = problem.settings.prior_weight
    weighted_transpose = weight * jacobian.transpose(2, 3)
    gradient = (weighted_transpose @ by_chord.view(-1, 23, 3, 1)).flatten(1)
    # J^T H J, a row of blocks at a time, then a column of blocks at a time.
    left = (weighted_transpose @ chord_hessian.view(-1, 23, 3, 69)).view(-1, 69, 23, 3)
    hessian = (left.transpose(1, 2) @ jacobian).transpose(1, 2).reshape(-1, 69, 69)
    return weight * cost, gradient, hessian


def _rotation_prior(problem: Problem, theta: Tensor,
                    global_rotmats: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gaussians on the chord c of the rotation from each reference rotation.

    The gradient is exact: the derivative of |c|^2 / 2 by a small rotation on the right is
    cos(angle / 2) c. The Hessian is that of small differences: the precision.
    """
    chord, half_cosine = chord_difference(problem.rotation_xyzw, theta[:, None])
    weighted = problem.rotation_precision[..., None] * chord  # (P, R, 24, 3)
    cost = (weighted * chord).flatten(1).sum(1) / 2
    own_gradient = (half_cosine * weighted).sum(1)[..., None]  # in each joint's own axes
    gradient = (global_rotmats @ own_gradient).flatten(1)
    precision = problem.rotation_precision.sum(1).repeat_interleave(3, dim=1)
    return cost, gradient, precision.diag_embed()


def _upright_prior(problem: Problem, root_rotmat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The body's up axis against the world's, for rotations (P, 3, 3) of body to camera."""
    body_up = root_rotmat[..., 1]
    precision = problem.settings.upright_rad ** -2
    cost = precision * (1 - (body_up * problem.up).sum(1))
    gradient = precision * torch.linalg.cross(problem.up, body_up)
    hessian = precision * (torch.eye(3).to(body_up) - body_up[:, :, None] * body_up[:, None])
    return cost, gradient, hessian


def _shape_and_root_prior(problem: Problem, state: BodyState) -> tuple[Tensor, Tensor, Tensor]:
    """The Gaussian on betas and root."""
    offset = torch.cat([state.betas, state.root], 1) - problem.prior_mean
    gradient = (problem.prior_precision @ offset[..., None])[..., 0]
    cost = (offset * gradient).sum(1) / 2
    return cost, gradient, problem.prior_precision
