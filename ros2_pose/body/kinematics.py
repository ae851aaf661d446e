"""Joints and keypoints of a posed rig, and their derivatives by rotations, betas and root.

The 85 unknowns of a body are, in this order:
    rotations (24, 3): rad, a small rotation of each joint, with all joints below it, about the
        camera's axes through that joint;
    betas (10,);
    root (3,): m.

Rotations are compared by the chord c = 2 q_xyz of a unit quaternion with q_w >= 0, twice its vector
part. Its length is 2 sin(angle / 2), the chord of the arc; for small angles it is the rotation
vector, and its derivative is a polynomial.
Source: Markley 2003, Attitude Error Representations for Kalman Filtering (twice the vector part).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ros2_pose.body.model import (
    Posed,
    Rig,
    attached_points,
    global_rotmats_of,
    joints_from_rotmats,
)
from ros2_pose.body.so3 import constant, quat_product
from ros2_pose.skeleton import SMPL24

ROTATIONS = slice(0, 3 * len(SMPL24))
BETAS = slice(ROTATIONS.stop, ROTATIONS.stop + 10)
ROOT = slice(BETAS.stop, BETAS.stop + 3)
SHAPE_AND_ROOT = slice(BETAS.start, ROOT.stop)
UNKNOWNS = ROOT.stop


def pose_rig(rig: Rig, rotmats: Tensor, betas: Tensor, root: Tensor) -> Posed:
    """Pose a rig.

    Args:
        rotmats (P, 24, 3, 3): rotation of each joint relative to its parent; [0]: body to camera.
        betas (P, 10).
        root (P, 3): m, the pelvis in the camera frame.
    """
    rest = rig.joints_rest(betas)
    global_rotmats = global_rotmats_of(rotmats)
    joints = joints_from_rotmats(rig, global_rotmats, rest) + root[:, None]
    points = attached_points(rig, betas, global_rotmats, joints)
    return Posed(global_rotmats, joints, points, rig.point_share @ points)


def keypoint_jacobian(rig: Rig, posed: Posed, by_keypoint: Tensor) -> Tensor:
    """Differentiate quantities of keypoints by the 85 unknowns (chain rule).

    A rotation w of a joint moves a point below it by w x lever arm.

    Args:
        by_keypoint (P, K, R, 3): derivative of R quantities by their keypoint's position.
    Returns:
        (P, K, R, 85).
    """
    # Lever arm of a keypoint from a joint: from the part of the keypoint that hangs on the joint.
    lever_arms = (rig.share_below_flat @ posed.points).unflatten(1, rig.share_below.shape[:2])
    lever_arms = lever_arms - rig.share_below_sum * posed.joints[:, None]  # (P, K, 24, 3)
    by_rotation = torch.linalg.cross(lever_arms[:, :, None], by_keypoint[..., None, :]).flatten(3)
    point_by_beta = joints_by_beta(rig, posed.global_rotmats)[:, rig.point_joint]
    point_by_beta = point_by_beta + posed.global_rotmats[:, rig.point_joint] @ rig.offset_by_beta
    keypoint_by_beta = (rig.point_share @ point_by_beta.flatten(2)).unflatten(2, (3, 10))
    by_root = by_keypoint
    return torch.cat([by_rotation, by_keypoint @ keypoint_by_beta, by_root], 3)


def joint_jacobian(rig: Rig, posed: Posed) -> Tensor:
    """(P, 24, 3, 85) derivative of the joints, m, by the 85 unknowns."""
    lever_arms = rig.is_below.T[..., None] * (posed.joints[:, :, None] - posed.joints[:, None])
    axes = torch.eye(3).to(lever_arms)
    by_rotation = torch.linalg.cross(lever_arms[:, :, None], axes[None, None, :, None]).flatten(3)
    by_root = axes.expand(*by_rotation.shape[:3], 3)
    return torch.cat([by_rotation, joints_by_beta(rig, posed.global_rotmats), by_root], 3)


def joints_by_beta(rig: Rig, global_rotmats: Tensor) -> Tensor:
    """(P, 24, 3, 10) derivative of the joints, m, by betas: the sum over the bones above them.

    Args:
        global_rotmats (P, 24, 3, 3): body part to camera.
    """
    bones = global_rotmats[:, rig.parents] @ rig.bone_by_beta
    return (rig.is_below.T @ bones.flatten(2)).reshape(bones.shape)


def project(points: Tensor) -> Tensor:
    """Project points (..., 3) m onto the plane z = 1: (..., 2) x/z, y/z."""
    return points[..., :2] * (1 / points[..., 2:])


def project_with_jacobian(points: Tensor) -> tuple[Tensor, Tensor]:
    """Project points and differentiate the projection.

    Args:
        points (..., 3): m, camera frame.
    Returns:
        (..., 2) x/z, y/z and (..., 2, 3) its derivative by the points.
    """
    inverse_depth = 1 / points[..., 2:]
    image = points[..., :2] * inverse_depth
    by_xy = torch.eye(2).to(points).expand(*image.shape, 2)
    return image, torch.cat([by_xy, -image[..., None]], -1) * inverse_depth[..., None]


# ------------------------------------------------------------------------------- rotations


def chord_and_jacobian(quat_xyzw: Tensor) -> tuple[Tensor, Tensor]:
    """Return chords of rotations and their derivatives.

    Args:
        quat_xyzw (..., 4): unit quaternions q.
    Returns:
        (..., 3) chord and (..., 3, 3) its derivative by a small rotation vector w in q exp(w).
    """
    quat_xyzw = torch.where(quat_xyzw[..., 3:] < 0, -quat_xyzw, quat_xyzw)
    jacobian = quat_xyzw @ constant(_chord_terms, quat_xyzw)
    return 2 * quat_xyzw[..., :3], jacobian.unflatten(-1, (3, 3))


def chord_difference(reference_xyzw: Tensor, quat_xyzw: Tensor) -> tuple[Tensor, Tensor]:
    """Return the chord of the rotation from a reference to another rotation.

    Args:
        reference_xyzw (..., 4), quat_xyzw (..., 4): unit quaternions.
    Returns:
        (..., 3) chord of reference^-1 quat, and (..., 1) the cosine of half its angle.
    """
    inverse = reference_xyzw * constant(_conjugate_signs, quat_xyzw)
    relative = quat_product(inverse, quat_xyzw)
    relative = torch.where(relative[..., 3:] < 0, -relative, relative)
    return 2 * relative[..., :3], relative[..., 3:]


def rotated(quat_xyzw: Tensor, rotvec: Tensor) -> Tensor:
    """Multiply rotations by small rotations on the right: q exp(w) to first order, normalised.

    Args:
        quat_xyzw (..., 4): unit quaternions q.
        rotvec (..., 3): small rotation vectors w, rad.
    Returns:
        (..., 4) unit quaternions x, y, z, w.
    """
    small = torch.nn.functional.pad(rotvec / 2, (0, 1), value=1.0)
    product = quat_product(quat_xyzw, small)
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
