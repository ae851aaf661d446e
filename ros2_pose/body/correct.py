"""The 2D-3D correction: points correct the body model's position, the model corrects the points.

Tian, Gao and Tan 2023. As printed, the aligned model replaces the points, also good ones; here
points and model are fused by their covariances. Conventions: see `align`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from ros2_pose.body.align import (
    FARTHEST_M,
    NEAREST_M,
    ROTATION_STD_RAD,
    align_model,
    gibbs_from_rotmat,
    mostly_agrees,
    rigid_jacobian,
)
from ros2_pose.body.correct_in_place import correct_in_place
from ros2_pose.body.gaussian import (
    VARIANCE_FLOOR,
    fuse,
    is_finite,
    is_known,
    is_seen,
    robust_weight,
    whitener,
)
from ros2_pose.body.kinematics import project_with_jacobian


def correct(points: Tensor, cov: Tensor, joints: Tensor, joint_cov: Tensor,
            align: bool = True) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Fuse points with the keypoints of a body model.

    Args:
        points (P, K, 2), cov (P, K, 2, 2): x/z, y/z; NaN: missing.
        joints (P, K, 3): m, the model's keypoints in camera axes.
        joint_cov: m^2; (P, K, 3, 3), or (P, K, 3, K, 3) with the keypoints' common errors, by
            which a hidden wrist follows a visible elbow.
        align: True: estimate the model's position, and its rotation, which is known to about
            0.2 rad. False: the model is in place, with the error of its covariance.
    Returns:
        points (P, K, 2) x/z, y/z, NaN where both points and model are missing;
        cov (P, K, 2, 2);
        joints (P, K, 3) m, which project onto the points, NaN where the model is missing;
        ok (P,) bool: people who are not ok keep their points and have no joints.
    """
    if not align and joint_cov.ndim == 4:
        return correct_in_place(points, cov, joints, joint_cov)
    given, given_cov = points, cov
    points, cov = points.double(), cov.double()
    joints, joint_cov = joints.double(), joint_cov.double()
    if align:
        joints, rotmat, position, agreement, ok = align_model(points, cov, joints,
                                                              _own_blocks(joint_cov))
        joint_cov = _rotated_cov(joint_cov, rotmat)
    seen = is_seen(points, cov)
    known = is_known(joints, _own_blocks(joint_cov)) & _is_in_range(joints)
    joints, joint_cov = _without_unknown(joints, joint_cov, known)
    model, by_joint = _image_and_depth(joints)
    model_cov = _transformed_cov(joint_cov, by_joint)
    if not align:
        agreement = _agreement(points, cov, model, _own_blocks(model_cov), seen & known)
        ok = mostly_agrees(agreement, seen & known) & known.any(1)
    cov = _inflated_cov(cov, _own_blocks(model_cov), agreement)
    if align:
        by_pose = by_joint @ rigid_jacobian(joints - position[:, None])  # (P, K, 3, 6)
        model, model_cov = _before_alignment(model, model_cov, by_pose, rotmat, position)
    model = torch.where(known[..., None], model, torch.nan)
    points = torch.where(seen[..., None], points, torch.nan)
    fused, fused_cov = _fuse_with_depth(points, cov, model, model_cov)
    return _checked(fused, fused_cov, model, ok, given, given_cov)


# ----------------------------------------------------------------------------- the model


def _is_in_range(joints: Tensor) -> Tensor:
    """(P, K) bool: joints (P, K, 3) m lie in front of the camera, within 200 m."""
    return (joints[..., 2] > NEAREST_M) & (joints.abs().amax(2) < FARTHEST_M)


def _without_unknown(joints: Tensor, joint_cov: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Finite values in place of unknown joints, so that NaN does not spread."""
    joints = torch.where(known[..., None], joints, 1.0)
    known = known.view(*known.shape, *[1] * (joint_cov.ndim - 2))
    if joint_cov.ndim == 5:
        known = known & known.permute(0, 2, 3, 1, 4)
    return joints, torch.where(known, joint_cov, 0.0)


def _image_and_depth(joints: Tensor) -> tuple[Tensor, Tensor]:
    """(P, K, 3) x/z, y/z, z of joints (P, K, 3) m, and the derivative (P, K, 3, 3).

    In these coordinates a point observes two of three, and the depth follows by correlation.
    """
    image, by_joint = project_with_jacobian(joints)
    depth_by_joint = torch.eye(3).to(joints)[2:].expand(*by_joint.shape[:2], 1, 3)
    return torch.cat([image, joints[..., 2:]], 2), torch.cat([by_joint, depth_by_joint], 2)


def _before_alignment(model: Tensor, model_cov: Tensor, by_pose: Tensor, rotmat: Tensor,
                      position: Tensor) -> tuple[Tensor, Tensor]:
    """The model before its alignment, linearised at the alignment, with a prior on its pose.

    The prior is that of the rotation, and a flat one of the position. So points are not counted
    twice, and keypoints share the errors of rotation and position: an iterated extended Kalman
    update, linearised at the alignment.

    Args:
        model (P, K, 3), model_cov (P, K, 3, 3) or (P, K, 3, K, 3): x/z, y/z, z, as aligned.
        by_pose (P, K, 3, 6): derivative of the model by its rotation and position.
        rotmat (P, 3, 3), position (P, 3) m: of the alignment.
    Returns:
        (P, K, 3) x/z, y/z, z and (P, K, 3, K, 3) covariance.
    """
    rotation = gibbs_from_rotmat(rotmat)[:, None, :, None]
    rotated_by = (by_pose[..., :3] @ rotation)[..., 0]
    position_std = position[:, 2:].expand(-1, 3)  # as large as the depth: flat
    pose_std = torch.cat([torch.full_like(position_std, ROTATION_STD_RAD), position_std], 1)
    half = by_pose * pose_std[:, None, None]
    shared_cov = torch.einsum("pkia,plja->pkilj", half, half)
    return model - rotated_by, _joint_blocks(model_cov) + shared_cov


# ---------------------------------------------------------------------------- agreement


def _agreement(points: Tensor, cov: Tensor, model: Tensor, model_cov: Tensor,
               usable: Tensor) -> Tensor:
    """(P, K) 0..1 robust weight of points given a model in place; 0: not usable."""
    total_cov = cov + model_cov[..., :2, :2] + VARIANCE_FLOOR * torch.eye(2).to(cov)
    residual = whitener(total_cov) @ (points - model[..., :2])[..., None]
    squared = residual.square().sum((2, 3))
    return torch.where(usable, robust_weight(squared), 0.0)


def _inflated_cov(cov: Tensor, model_cov: Tensor, agreement: Tensor) -> Tensor:
    """Covariances (P, K, 2, 2) of points, larger where they disagree with the model.

    They are such that the covariance of the difference is divided by the robust weight.
    """
    agreement = torch.where(agreement > 0, agreement, 1.0)  # 0: there is nothing to compare
    return cov + (cov + model_cov[..., :2, :2]) * (1 / agreement - 1)[..., None, None]


# ------------------------------------------------------------------------------- fusion


def _fuse_with_depth(points: Tensor, cov: Tensor, model: Tensor,
                     model_cov: Tensor) -> tuple[Tensor, Tensor]:
    """(P, K, 3) x/z, y/z, z and (P, K, 3, 3) their covariance, from points without a depth."""
    points = pad(points, (0, 1), value=torch.nan)
    cov = pad(cov, (0, 1, 0, 1))
    if model_cov.ndim == 4:
        return fuse(points, cov, model, model_cov)
    mean, mean_cov = fuse(points.flatten(1), _as_matrix(_joint_blocks(cov)),
                          model.flatten(1), _as_matrix(model_cov))
    return mean.view_as(model), _own_blocks(mean_cov.view_as(model_cov))


def _checked(fused: Tensor, fused_cov: Tensor, model: Tensor, ok: Tensor, points: Tensor,
             cov: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Place joints on the rays of the fused points; keep the given points of people not ok.

    Args:
        fused (P, K, 3), model (P, K, 3): x/z, y/z, z; NaN where missing.
        points (P, K, 2), cov (P, K, 2, 2): as given.
    Returns:
        points, cov, joints and ok, see `correct`.
    """
    known = is_finite(model, 2)
    ok = ok & (is_finite(fused, 2) | ~known).all(1)
    keep = ok[:, None, None]
    points = torch.where(keep, fused[..., :2].to(points.dtype), points)
    cov = torch.where(keep[..., None], fused_cov[..., :2, :2].to(cov.dtype), cov)
    depth = fused[..., 2:].clamp(model[..., 2:] / 2, model[..., 2:] * 2).to(points.dtype)
    joints = torch.cat([points * depth, depth], 2)
    return points, cov, torch.where(keep & known[..., None], joints, torch.nan), ok


# ------------------------------------------------------------- covariances of K keypoints


def _transformed_cov(cov: Tensor, jacobian: Tensor) -> Tensor:
    """J cov J^T for covariances (P, K, 3, 3) or (P, K, 3, K, 3) and J (P, K, 3, 3)."""
    if cov.ndim == 4:
        return jacobian @ cov @ jacobian.mT
    return torch.einsum("pkij,pkjlm,plnm->pkiln", jacobian, cov, jacobian)


def _rotated_cov(cov: Tensor, rotmat: Tensor) -> Tensor:
    """R cov R^T for covariances (P, K, 3, 3) or (P, K, 3, K, 3) and R (P, 3, 3)."""
    return _transformed_cov(cov, rotmat[:, None].expand(-1, cov.shape[1], -1, -1))


def _own_blocks(cov: Tensor) -> Tensor:
    """(P, K, D, D) each keypoint's own covariance, of (P, K, D, D) or (P, K, D, K, D)."""
    return cov if cov.ndim == 4 else cov.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)


def _joint_blocks(cov: Tensor) -> Tensor:
    """(P, K, D, K, D) joint covariance, of (P, K, D, D) or of itself."""
    if cov.ndim == 5:
        return cov
    return cov[:, :, :, None] * torch.eye(cov.shape[1]).to(cov)[:, None, :, None]


def _as_matrix(blocks: Tensor) -> Tensor:
    """(P, K D, K D) of (P, K, D, K, D)."""
    return blocks.flatten(3).flatten(1, 2)
