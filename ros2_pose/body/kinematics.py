"""Joints and keypoints of a posed rig, and their derivatives by rotations, betas and root.

The 85 unknowns: a turn (24, 3) rad of each joint and all that hangs on it, about the camera's axes
through that joint; betas (10,); root (3,) m.

Rotations are compared by their *chord*, 2 q_xyz for a unit quaternion q with q_w >= 0: its length
is 2 sin(angle / 2), so that it is a rotation vector for small angles, and its derivative is a
polynomial.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ros2_pose.body.model import Rig, attached_points, global_rotmats_of, joints_from_rotmats
from ros2_pose.geometry import constant, quat_product
from ros2_pose.skeleton import SMPL24

ROTATIONS = slice(0, 3 * len(SMPL24))
BETAS = slice(ROTATIONS.stop, ROTATIONS.stop + 10)
ROOT = slice(BETAS.stop, BETAS.stop + 3)
UNKNOWNS = ROOT.stop


@dataclass(frozen=True)
class Posed:
    """Bodies in the camera frame: accumulated rotations, joints and a rig's attached points."""

    global_rotmats: Tensor  # (P, 24, 3, 3)
    joints: Tensor  # (P, 24, 3) m
    points: Tensor  # (P, N, 3) m
    keypoints: Tensor  # (P, 17, 3) m


def pose_rig(rig: Rig, rotmats: Tensor, betas: Tensor, root: Tensor) -> Posed:
    """Pose a rig: local rotations (P, 24, 3, 3), betas (P, 10), root (P, 3) m."""
    rest = rig.joints_rest(betas)
    global_rotmats = global_rotmats_of(rotmats)
    joints = joints_from_rotmats(rig, global_rotmats, rest) + root[:, None]
    points = attached_points(rig, betas, global_rotmats, joints)
    return Posed(global_rotmats, joints, points, rig.point_share @ points)


def keypoint_jacobian(rig: Rig, posed: Posed, by_keypoint: Tensor) -> Tensor:
    """(P, 17, R, 85) of R quantities of each keypoint, whose derivatives by the keypoint's place
    are by_keypoint (P, 17, R, 3). A turn w of a joint moves what hangs on it by w x arm."""
    arms = (rig.share_below_flat @ posed.points).unflatten(1, rig.share_below.shape[:2])
    arms = arms - rig.share_below_sum * posed.joints[:, None]
    by_rotation = torch.linalg.cross(arms[:, :, None], by_keypoint[..., None, :]).flatten(3)
    by_beta = joints_by_beta(rig, posed.global_rotmats)[:, rig.point_joint]
    by_beta = by_beta + posed.global_rotmats[:, rig.point_joint] @ rig.offset_by_beta
    by_beta = (rig.point_share @ by_beta.flatten(2)).unflatten(2, (3, 10))
    return torch.cat([by_rotation, by_keypoint @ by_beta, by_keypoint], 3)


def joint_jacobian(rig: Rig, posed: Posed) -> Tensor:
    """(P, 24, 3, 85) of joints."""
    arms = rig.is_below.T[..., None] * (posed.joints[:, :, None] - posed.joints[:, None])
    axes = torch.eye(3).to(arms)
    by_rotation = torch.linalg.cross(arms[:, :, None], axes[None, None, :, None]).flatten(3)
    by_root = axes.expand(*by_rotation.shape[:3], 3)
    return torch.cat([by_rotation, joints_by_beta(rig, posed.global_rotmats), by_root], 3)


def joints_by_beta(rig: Rig, global_rotmats: Tensor) -> Tensor:
    """(P, 24, 3, 10) derivative of the joints: a joint is the sum of the bones that lead to it."""
    bones = global_rotmats[:, rig.parents] @ rig.bone_by_beta
    return (rig.is_below.T @ bones.flatten(2)).reshape(bones.shape)


def project(points: Tensor, with_jacobian: bool = False):
    """Points (..., 3) m on the plane z = 1, (..., 2), and optionally the derivative (..., 2, 3)."""
    inverse = 1 / points[..., 2:]
    image = points[..., :2] * inverse
    if not with_jacobian:
        return image
    flat = torch.eye(2).to(points).expand(*image.shape, 2)
    return image, torch.cat([flat, -image[..., None]], -1) * inverse[..., None]


# ------------------------------------------------------------------------------- rotations


def chord_and_jacobian(quat: Tensor) -> tuple[Tensor, Tensor]:
    """(..., 3) chord of unit quaternions (..., 4), and (..., 3, 3) its derivative by a small
    rotation vector w in quat exp(w)."""
    quat = torch.where(quat[..., 3:] < 0, -quat, quat)
    jacobian = quat @ constant(_chord_terms, quat)
    return 2 * quat[..., :3], jacobian.unflatten(-1, (3, 3))


def chord_difference(since: Tensor, quat: Tensor) -> tuple[Tensor, Tensor]:
    """(..., 3) chord of the turn from one rotation to another (..., 4), on the right of the first,
    and (..., 1) the cosine of half its angle."""
    relative = quat_product(since * constant(_conjugate_signs, quat), quat)
    relative = torch.where(relative[..., 3:] < 0, -relative, relative)
    return 2 * relative[..., :3], relative[..., 3:]


def turned(quat: Tensor, global_rotmats: Tensor) -> Tensor:
    """(..., 4) quat exp(turn), to first order and exactly a rotation, for turns (..., 3) rad."""
    small = torch.nn.functional.pad(global_rotmats / 2, (0, 1), value=1.0)
    product = quat_product(quat, small)
    return product / product.norm(dim=-1, keepdim=True)


def _chord_terms() -> Tensor:
    """(4, 9): d(2 q_xyz)/dw = q_w 1 + [q_xyz]x for q exp(w)."""
    out = torch.zeros(4, 3, 3)
    out[3] = torch.eye(3)
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        out[i, k, j], out[i, j, k] = 1, -1
    return out.view(4, 9)


def _conjugate_signs() -> Tensor:
    return torch.tensor([-1.0, -1.0, -1.0, 1.0])
