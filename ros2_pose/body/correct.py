"""The 2D-3D correction: pixels repair the body model's place, the model repairs hidden pixels.

Tian, Gao and Tan 2023. As printed, the aligned model replaces good pixels; here pixels and model
are fused by their covariances. Conventions as in `align`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from ros2_pose.body.align import (
    FARTHEST_M,
    FLOOR,
    NEAREST_M,
    ROTATION_RAD,
    Alignment,
    align_model,
    by_pose,
    gibbs,
    is_finite,
    is_known,
    is_seen,
    most_agree,
    robust_weight,
)
from ros2_pose.body.fit_cost import whitener
from ros2_pose.body.kinematics import project


class Corrected(NamedTuple):
    """Points and model as one. Who is not ok keeps points and covariances, and has no joints."""

    points: Tensor  # (P, K, 2) at z = 1; NaN where neither pixels nor model know
    cov: Tensor  # (P, K, 2, 2)
    joints: Tensor  # (P, K, 3) m, exactly behind the points; NaN where the model does not know
    ok: Tensor  # (P,) bool


def correct(points: Tensor, cov: Tensor, joints: Tensor, joint_cov: Tensor,
            align: bool = True) -> Corrected:
    """Correct points by a body model, and the model by points.

    points (P, K, 2), cov (P, K, 2, 2); NaN: missing. joints (P, K, 3) m, the model's keypoints in
    camera axes; joint_cov their uncertainty, m^2: (P, K, 3, 3), or (P, K, 3, K, 3) with what
    keypoints have in common, by which a hidden wrist follows a visible elbow.
    align: the model's place means nothing, its facing is right to about 0.2 rad; both are found.
    Otherwise it is in place, and its covariance says how well.
    """
    given, given_cov = points, cov
    points, cov, joints, joint_cov = (v.double() for v in (points, cov, joints, joint_cov))
    if align:
        found = align_model(points, cov, joints, _own_blocks(joint_cov))
        joints, joint_cov = found.joints, _turned(joint_cov, found.rotation)
    known = is_known(joints, _own_blocks(joint_cov)) & _is_in_sight(joints)
    seen = is_seen(points, cov)
    joints, joint_cov = _without_unknown(joints, joint_cov, known)
    model, by_joint = _image_and_depth(joints)
    model_cov = _carried(joint_cov, by_joint)
    if align:
        cov, ok = _doubted(cov, _own_blocks(model_cov), found.agreement), found.ok
        model, model_cov = _with_free_pose(model, model_cov, by_joint, joints, found)
    else:
        cov, ok = _compared(points, cov, model, _own_blocks(model_cov), seen & known)
        ok = ok & known.any(1)
    model = torch.where(known[..., None], model, torch.nan)
    points = torch.where(seen[..., None], points, torch.nan)
    fused, fused_cov = _fused_with_depth(points, cov, model, model_cov)
    return _checked(fused, fused_cov, model, ok, given, given_cov)


def _is_in_sight(joints: Tensor) -> Tensor:
    """(P, K) bool: in front of the camera, and nowhere absurd."""
    return (joints[..., 2] > NEAREST_M) & (joints.abs().amax(2) < FARTHEST_M)


def fuse(points: Tensor, cov: Tensor, model_points: Tensor, model_cov: Tensor):
    """The most probable positions given two independent Gaussian ones, and their covariance.

    points (..., D), cov (..., D, D), and likewise of the model: D = 2 for a keypoint on its own,
    more for what hangs together. NaN: missing, each coordinate on its own; what only one knows is
    taken from there, what nobody knows stays NaN. In one dimension p + kappa (m - p) with
    kappa = c^2 / (c^2 + sigma_m^2); here as a gain, which also takes variances of zero.
    """
    dtype = points.dtype
    points, cov, model, spread = (v.double() for v in (points, cov, model_points, model_cov))
    seen = is_finite(points + cov.diagonal(dim1=-2, dim2=-1))
    known = is_finite(model + spread.diagonal(dim1=-2, dim2=-1))
    spread = torch.where(_pairs(known), spread, 0.0)
    eye = torch.eye(points.shape[-1]).to(cov)
    both = seen & known
    total = torch.where(_pairs(both), spread + cov + FLOOR * eye, eye)
    factor, failed = torch.linalg.cholesky_ex(total)
    error = torch.where(both, points - model, 0.0)[..., None]
    gain = torch.linalg.solve_triangular(
        factor, torch.cat([spread * both[..., None], error], -1), upper=False)
    half, error = gain[..., :-1].mT, gain[..., -1:]
    mean = torch.where(known, model + (half @ error)[..., 0], points)
    left = torch.where(_pairs(seen & ~known), cov, spread - half @ half.mT)
    sound = (seen | known) & (failed == 0)[..., None]
    return (torch.where(sound, mean, torch.nan).to(dtype),
            torch.where(_pairs(sound), left, torch.nan).to(dtype))


def _pairs(mask: Tensor) -> Tensor:
    """(..., D, D) bool: both of the pair."""
    return mask[..., None] & mask[..., None, :]


def _without_unknown(joints: Tensor, joint_cov: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers that can be computed with where the model does not know, so that no NaN spreads."""
    joints = torch.where(known[..., None], joints, 1.0)
    known = known.view(*known.shape, *[1] * (joint_cov.ndim - 2))
    if joint_cov.ndim == 5:
        known = known & known.permute(0, 2, 3, 1, 4)
    return joints, torch.where(known, joint_cov, 0.0)


def _image_and_depth(joints: Tensor) -> tuple[Tensor, Tensor]:
    """(P, K, 3) x/z, y/z, z of joints (P, K, 3) m, and the derivative (P, K, 3, 3).

    In these coordinates a pixel is an observation of two of three, and the depth follows.
    """
    image, by_joint = project(joints, with_jacobian=True)
    along = torch.eye(3).to(joints)[2:].expand(*by_joint.shape[:2], 1, 3)
    return torch.cat([image, joints[..., 2:]], 2), torch.cat([by_joint, along], 2)


def _carried(cov: Tensor, jacobian: Tensor) -> Tensor:
    """Covariances (P, K, 3, 3) or (P, K, 3, K, 3) through derivatives (P, K, 3, 3)."""
    if cov.ndim == 4:
        return jacobian @ cov @ jacobian.mT
    return torch.einsum("pkij,pkjlm,plnm->pkiln", jacobian, cov, jacobian)


def _turned(cov: Tensor, rotation: Tensor) -> Tensor:
    return _carried(cov, rotation[:, None].expand(-1, cov.shape[1], -1, -1))


def _own_blocks(cov: Tensor) -> Tensor:
    """(P, K, D, D) of (P, K, D, D) or (P, K, D, K, D)."""
    return cov if cov.ndim == 4 else cov.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)


def _in_blocks(cov: Tensor) -> Tensor:
    """(P, K, D, K, D) of (P, K, D, D) or of the same."""
    if cov.ndim == 5:
        return cov
    return cov[:, :, :, None] * torch.eye(cov.shape[1]).to(cov)[:, None, :, None]


def _with_free_pose(model: Tensor, model_cov: Tensor, by_joint: Tensor, joints: Tensor,
                     found: Alignment) -> tuple[Tensor, Tensor]:
    """The model before it was turned, linear around the alignment, with turn and place unknown.

    So pixels are not counted twice, and keypoints share the errors of turn and place (an iterated
    extended Kalman filter: the alignment is its last but one iteration).
    """
    moved = by_joint @ by_pose(joints - found.position[:, None])
    back = (moved[..., :3] @ gibbs(found.rotation)[:, None, :, None])[..., 0]
    far = found.position[:, 2:].expand(-1, 3)  # as good as anywhere
    deviation = torch.cat([torch.full_like(far, ROTATION_RAD), far], 1)
    moved = moved * deviation[:, None, None]
    shared = torch.einsum("pkia,plja->pkilj", moved, moved)
    return model - back, _in_blocks(model_cov) + shared


def _compared(points: Tensor, cov: Tensor, model: Tensor, model_cov: Tensor,
              usable: Tensor) -> tuple[Tensor, Tensor]:
    """Covariances of the points given a model in place, and who agrees by and large (P,)."""
    whiten = whitener(cov + model_cov[..., :2, :2] + FLOOR * torch.eye(2).to(cov))
    squared = (whiten @ (points - model[..., :2])[..., None]).square().sum((2, 3))
    agreement = torch.where(usable, robust_weight(squared), 0.0)
    return _doubted(cov, model_cov, agreement), most_agree(agreement, usable)


def _doubted(cov: Tensor, model_cov: Tensor, agreement: Tensor) -> Tensor:
    """Covariances (P, K, 2, 2) by which points count, against the model, as much as they agree."""
    agreement = torch.where(agreement > 0, agreement, 1.0)  # nothing to disagree with
    return cov + (cov + model_cov[..., :2, :2]) * (1 / agreement - 1)[..., None, None]


def _fused_with_depth(points: Tensor, cov: Tensor, model: Tensor,
                      model_cov: Tensor) -> tuple[Tensor, Tensor]:
    """(P, K, 3) x/z, y/z, z and covariances (P, K, 3, 3)."""
    pixels, pixel_cov = pad(points, (0, 1), value=torch.nan), pad(cov, (0, 1, 0, 1))
    if model_cov.ndim == 4:
        return fuse(pixels, pixel_cov, model, model_cov)
    mean, left = fuse(pixels.flatten(1), _as_matrix(_in_blocks(pixel_cov)), model.flatten(1),
                      _as_matrix(model_cov))
    return mean.view_as(model), _own_blocks(left.view_as(model_cov))


def _as_matrix(blocks: Tensor) -> Tensor:
    """(P, K D, K D) of (P, K, D, K, D)."""
    return blocks.flatten(3).flatten(1, 2)


def _checked(fused: Tensor, fused_cov: Tensor, model: Tensor, ok: Tensor, points: Tensor,
             cov: Tensor) -> Corrected:
    """Joints put behind the fused points; points as they were for those whose numbers went wrong.

    fused (P, K, 3) x/z, y/z, z; model (P, K, 3) the same, NaN where it does not know.
    """
    known = is_finite(model, 2)
    ok = ok & (is_finite(fused, 2) | ~known).all(1)
    keep = ok[:, None, None]
    points = torch.where(keep, fused[..., :2].to(points.dtype), points)
    cov = torch.where(keep[..., None], fused_cov[..., :2, :2].to(cov.dtype), cov)
    depth = fused[..., 2:].clamp(model[..., 2:] / 2, model[..., 2:] * 2).to(points.dtype)
    joints = torch.cat([points * depth, depth], 2)
    return Corrected(points, cov, torch.where(keep & known[..., None], joints, torch.nan), ok)
