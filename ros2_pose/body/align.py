"""Rotation and position of a body model that match its keypoints to points in an image.

Tian, Gao and Tan 2023, Algorithm 1 (eqs. 6-16), with four corrections: weights are those of maximum
likelihood; rotations are proper (det R = 1); the scale is estimated again after each rotation;
depths start as the model's. Gauss-Newton steps in full perspective follow.

Points lie on the plane z = 1 (normalised and undistorted: x/z, y/z); camera frame: x right, y down,
z forward, metres. P people with K keypoints, independent of each other. Computed in float64,
returned in the dtype of the points.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ros2_pose.body.fit_cost import MIN_DEPTH_M
from ros2_pose.body.gaussian import (
    VARIANCE_FLOOR,
    is_known,
    is_seen,
    robust_weight,
    whitener,
)
from ros2_pose.body.kinematics import project_with_jacobian

ROTATION_STD_RAD = 0.2  # of the model's rotation before the alignment
NEAREST_M, FARTHEST_M = 0.1, 200.0
_LEAST_KEYPOINTS = 4
LEAST_AGREEMENT = 0.5  # mean robust weight of the usable keypoints
_LARGEST_DEPTH_STD = 0.3  # relative to the depth, of a depth that counts as known
_WEAK_ITERATIONS = 3  # those of the paper
_PERSPECTIVE_ITERATIONS = 6
_LONGEST_ROTATION_RAD = 0.5  # in one iteration


class _Match(NamedTuple):
    """Points and model keypoints; zeros where one of both is not usable."""

    points: Tensor  # (P, K, 2)
    cov: Tensor  # (P, K, 2, 2)
    joints: Tensor  # (P, K, 3) m, without their mean
    joint_cov: Tensor  # (P, K, 3, 3) m^2
    usable: Tensor  # (P, K) bool
    mean: Tensor  # (P, 1, 3) m, subtracted from the joints


def align_model(points: Tensor, cov: Tensor, joints: Tensor,
                joint_cov: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Rotate and place a body model: Algorithm 1, corrected, then Gauss-Newton in perspective.

    Minimises the reprojection error in standard deviations of points and model together, with
    robust weights, and a prior on the rotation.

    Args:
        points (P, K, 2), cov (P, K, 2, 2): NaN where missing.
        joints (P, K, 3): m, the model's keypoints in any position; NaN where missing.
        joint_cov (P, K, 3, 3): m^2.
    Returns:
        joints (P, K, 3) m, the aligned model;
        rotmat (P, 3, 3), the rotation of the model about its mean, det = 1;
        position (P, 3) m, of the mean of the model's usable keypoints;
        agreement (P, K), the robust weight of each point, 0 to 1, 0 where not usable;
        ok (P,) bool: enough points, most of which agree, and a known depth.
    """
    joints_given = joints.double()
    match = _match(points.double(), cov.double(), joints_given, joint_cov.double())
    rotmat, position = _align_weak_perspective(match)
    for _ in range(_PERSPECTIVE_ITERATIONS):
        gradient, hessian, _ = _linearise(match, rotmat, position)
        rotmat, position = _gauss_newton_step(gradient, hessian, rotmat, position)
    _, hessian, agreement = _linearise(match, rotmat, position)
    aligned = (joints_given - match.mean) @ rotmat.mT + position[:, None]
    ok = _is_aligned(match, hessian, agreement, position)
    dtype = points.dtype
    return aligned.to(dtype), rotmat.to(dtype), position.to(dtype), agreement.to(dtype), ok


def _match(points: Tensor, cov: Tensor, joints: Tensor, joint_cov: Tensor) -> _Match:
    """Points and joints that are both usable, joints about their mean."""
    usable = is_seen(points, cov) & is_known(joints, joint_cov)
    mask = usable[..., None]
    mean = torch.where(mask, joints, 0.0).sum(1, keepdim=True)
    mean = mean / usable.sum(1).clamp(min=1)[:, None, None]
    floor = VARIANCE_FLOOR * torch.eye(2).to(cov)
    return _Match(
        points=torch.where(mask, points, 0.0),
        cov=torch.where(mask[..., None], cov, 1.0) + floor,
        joints=torch.where(mask, joints - mean, 0.0),
        joint_cov=torch.where(mask[..., None], joint_cov, 0.0),
        usable=usable,
        mean=mean,
    )


def mostly_agrees(agreement: Tensor, usable: Tensor) -> Tensor:
    """Test whether most keypoints agree.

    Args:
        agreement (P, K): 0..1 robust weights.
        usable (P, K): bool.
    Returns:
        (P,) bool: the mean weight of the usable keypoints is high enough.
    """
    return (agreement * usable).sum(1) >= LEAST_AGREEMENT * usable.sum(1)


# ------------------------------------------------------------- the paper's closed form


def _align_weak_perspective(match: _Match) -> tuple[Tensor, Tensor]:
    """Rotation and position by weighted orthogonal Procrustes under weak perspective.

    Each iteration computes weights 1 / (c^2 + (scale sigma_m)^2) times a robust weight, the
    rotation of the model onto the points with the model's depths, and the scale (1 / depth).

    Returns:
        rotmat (P, 3, 3) and position (P, 3) m.
    Source:
        Tian et al. 2023, eqs. 9-16.
    """
    scale, residual = _first_scale(match)
    rotated = match.joints
    variance = match.cov.diagonal(dim1=2, dim2=3).mean(2)
    joint_variance = match.joint_cov[..., :2, :2].diagonal(dim1=2, dim2=3).mean(2)
    for _ in range(_WEAK_ITERATIONS):
        total_variance = variance + joint_variance * scale.square()
        squared = residual.square().sum(2) / total_variance
        weight = match.usable * robust_weight(squared) / total_variance
        weight = (weight / weight.sum(1, keepdim=True))[..., None]
        image_mean = (weight * match.points).sum(1, keepdim=True)
        joint_mean = (weight * match.joints).sum(1, keepdim=True)
        image, shape = match.points - image_mean, match.joints - joint_mean
        depths = (rotated - (weight * rotated).sum(1, keepdim=True))[..., 2:]
        target = torch.cat([image / scale[..., None], depths], 2)  # image in m, with depths
        rotmat = _proper_rotmat((weight * target).mT @ shape)
        rotated = match.joints @ rotmat.mT
        flat = (shape @ rotmat.mT)[..., :2]
        scale = (weight * image * flat).sum((1, 2)) / (weight * flat.square()).sum((1, 2))
        scale = scale.clamp(1 / FARTHEST_M, 1 / NEAREST_M)[:, None]
        residual = image - scale[..., None] * flat
    ray = torch.cat([image_mean, torch.ones_like(image_mean[..., :1])], 2)
    return rotmat, (ray / scale[..., None] - joint_mean @ rotmat.mT)[:, 0]


def _first_scale(match: _Match) -> tuple[Tensor, Tensor]:
    """Scale (P, 1) in 1/m and residuals (P, K, 2) of the model as it is, by medians (robust)."""
    image = match.points - _median(match.points, match.usable)
    shape = match.joints - _median(match.joints, match.usable)
    extent = torch.stack([image.norm(dim=2), shape[..., :2].norm(dim=2)], 2)
    extent = _median(extent, match.usable)
    scale = (extent[..., 0] / extent[..., 1]).clamp(1 / FARTHEST_M, 1 / NEAREST_M)
    return scale, image - scale[..., None] * shape[..., :2]


def _median(values: Tensor, usable: Tensor) -> Tensor:
    """(P, 1, D) lower median of the usable ones of values (P, K, D)."""
    values = torch.where(usable[..., None], values, torch.inf).sort(1).values
    middle = (usable.sum(1) - 1).clamp(min=0) // 2
    return values.take_along_dim(middle[:, None, None], 1)


def _proper_rotmat(moment: Tensor) -> Tensor:
    """(P, 3, 3) the rotation R, det R = 1, that maximises tr(R^T moment)."""
    u, _, vh = torch.linalg.svd(moment.nan_to_num(0.0, 0.0, 0.0))
    sign = torch.linalg.det(u @ vh)
    return torch.cat([u[..., :2], u[..., 2:] * sign[:, None, None]], 2) @ vh


# ---------------------------------------------------------------------- full perspective


def _linearise(match: _Match, rotmat: Tensor,
               position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Gauss-Newton equations of the reprojection error at a rotation and position of the model.

    The unknowns are a rotation about the camera's axes (rad) and the position (m).

    Returns:
        gradient (P, 6) that points downhill, Hessian (P, 6, 6), and robust weights (P, K).
    """
    lever_arms = match.joints @ rotmat.mT
    placed = lever_arms + position[:, None]
    placed = torch.cat([placed[..., :2], placed[..., 2:].clamp(min=NEAREST_M)], 2)
    image, by_joint = project_with_jacobian(placed)
    by_model = by_joint @ rotmat[:, None]
    whiten = whitener(match.cov + by_model @ match.joint_cov @ by_model.mT)
    residual = (whiten @ (match.points - image)[..., None])[..., 0]
    agreement = match.usable * robust_weight(residual.square().sum(2))
    jacobian = (whiten @ by_joint @ rigid_jacobian(lever_arms)).flatten(1, 2)  # (P, 2 K, 6)
    weighted = jacobian.unflatten(1, (-1, 2)) * agreement[..., None, None]
    weighted_transpose = weighted.flatten(1, 2).mT
    gradient = (weighted_transpose @ residual.flatten(1)[..., None])[..., 0]
    hessian = weighted_transpose @ jacobian
    prior_offset = torch.cat([gibbs_from_rotmat(rotmat), torch.zeros_like(position)], 1)
    prior_precision = torch.tensor([ROTATION_STD_RAD**-2] * 3 + [0.0] * 3).to(prior_offset)
    return (gradient - prior_precision * prior_offset, hessian + torch.diag(prior_precision),
            agreement)


def rigid_jacobian(lever_arms: Tensor) -> Tensor:
    """Differentiate joints by a rotation about the camera's axes and by the position.

    Args:
        lever_arms (P, K, 3): m, from the centre of rotation.
    Returns:
        (P, K, 3, 6) m/rad, m/m.
    """
    axes = torch.eye(3).to(lever_arms).expand(*lever_arms.shape, 3)
    return torch.cat([torch.linalg.cross(axes, lever_arms[..., None, :]).mT, axes], 3)


def _gauss_newton_step(gradient: Tensor, hessian: Tensor, rotmat: Tensor,
                       position: Tensor) -> tuple[Tensor, Tensor]:
    """Rotation and position after a step, shortened where it rotates far or halves the depth."""
    factor, _ = torch.linalg.cholesky_ex(hessian)
    step = torch.cholesky_solve(gradient[..., None], factor)[..., 0].nan_to_num(0.0, 0.0, 0.0)
    rotation_scale = _LONGEST_ROTATION_RAD / step[:, :3].norm(dim=1)
    depth_scale = position[:, 2].abs() / (2 * step[:, 5].abs())
    scale = torch.minimum(rotation_scale, depth_scale).clamp(max=1)
    step = step * scale[:, None].nan_to_num(0.0)
    return _rotmat_from_gibbs(step[:, :3]) @ rotmat, position + step[:, 3:]


def gibbs_from_rotmat(rotmat: Tensor) -> Tensor:
    """Return twice the Gibbs vector of rotations: a rotation vector for small angles.

    Args:
        rotmat (P, 3, 3).
    Returns:
        (P, 3) 2 tan(angle / 2) axis.
    """
    skew = rotmat - rotmat.mT
    sine = torch.stack([skew[:, 2, 1], skew[:, 0, 2], skew[:, 1, 0]], 1)
    cosine = rotmat.diagonal(dim1=1, dim2=2).sum(1, keepdim=True)
    return 2 * sine / (1 + cosine).clamp(min=0.1)


def _rotmat_from_gibbs(gibbs: Tensor) -> Tensor:
    """(P, 3, 3) rotations, the inverse of `gibbs_from_rotmat`."""
    cross = torch.linalg.cross(gibbs[:, None], torch.eye(3).to(gibbs)[None]).mT
    square = 1 + gibbs.square().sum(1)[:, None, None] / 4
    return torch.eye(3).to(gibbs) + (cross + cross @ cross / 2) / square


def _is_aligned(match: _Match, hessian: Tensor, agreement: Tensor, position: Tensor) -> Tensor:
    """(P,) bool: enough keypoints, most of which agree, in range and with a known depth."""
    factor, failed = torch.linalg.cholesky_ex(hessian)
    z_axis = torch.eye(6).to(position)[:, 5:].expand(len(position), -1, -1)
    depth_std = torch.cholesky_solve(z_axis, factor)[:, 5, 0].sqrt()
    depth = position[:, 2]
    is_enough = match.usable.sum(1) >= _LEAST_KEYPOINTS
    is_in_range = (depth > MIN_DEPTH_M) & (depth < FARTHEST_M)
    is_depth_known = (failed == 0) & (depth_std < _LARGEST_DEPTH_STD * depth)
    return is_enough & mostly_agrees(agreement, match.usable) & is_in_range & is_depth_known
