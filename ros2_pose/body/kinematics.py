"""Joints and keypoints of a posed rig, and their derivatives by rotations, betas and root.

The 85 unknowns: a turn (24, 3) of each joint, applied on the right of its rotation
(R <- R exp([turn])), betas (10,), root (3,) m.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ros2_pose.body.model import Rig, attached_points, joints_from_turns, turns_from_local
from ros2_pose.skeleton import SMPL24

TURNS = slice(0, 3 * len(SMPL24))
BETAS = slice(TURNS.stop, TURNS.stop + 10)
ROOT = slice(BETAS.stop, BETAS.stop + 3)
UNKNOWNS = ROOT.stop


@dataclass(frozen=True)
class Posed:
    """Bodies in the camera frame: accumulated rotations, joints and a rig's attached points."""

    turns: Tensor  # (P, 24, 3, 3)
    joints: Tensor  # (P, 24, 3) m
    points: Tensor  # (P, N, 3) m
    keypoints: Tensor  # (P, 17, 3) m


def pose_rig(rig: Rig, rotmats: Tensor, betas: Tensor, root: Tensor) -> Posed:
    """Pose a rig: local rotations (P, 24, 3, 3), betas (P, 10), root (P, 3) m."""
    rest = rig.joints_rest(betas)
    turns = turns_from_local(rotmats)
    joints = joints_from_turns(rig, turns, rest) + root[:, None]
    points = attached_points(rig, betas, turns, joints)
    return Posed(turns, joints, points, rig.point_share @ points)


def keypoint_jacobian(rig: Rig, posed: Posed) -> Tensor:
    """(P, 17, 3, 85) of keypoints. A turn w of joint a moves what hangs on it by
    (G_a w) x (point - joint_a)."""
    share = rig.share_below
    arms = (share.flatten(0, 1) @ posed.points).unflatten(1, share.shape[:2])
    arms = arms - share.sum(2)[..., None] * posed.joints[:, None]
    by_beta = joints_by_beta(rig, posed.turns)[:, rig.point_joint]
    by_beta = by_beta + posed.turns[:, rig.point_joint] @ rig.offset_by_beta
    by_beta = (rig.point_share @ by_beta.flatten(2)).unflatten(2, (3, 10))
    return _assemble(arms, posed.turns, by_beta)


def joint_jacobian(rig: Rig, posed: Posed) -> Tensor:
    """(P, 24, 3, 85) of joints."""
    below = rig.is_below.T
    arms = below[..., None] * (posed.joints[:, :, None] - posed.joints[:, None])
    return _assemble(arms, posed.turns, joints_by_beta(rig, posed.turns))


def joints_by_beta(rig: Rig, turns: Tensor) -> Tensor:
    """(P, 24, 3, 10) derivative of the joints: a joint is the sum of the bones that lead to it."""
    bones = turns[:, rig.parents] @ rig.bone_by_beta
    return (rig.is_below.T @ bones.flatten(2)).reshape(bones.shape)


def _assemble(arms: Tensor, turns: Tensor, by_beta: Tensor) -> Tensor:
    """arms (P, K, 24, 3) from each joint to what it moves, by_beta (P, K, 3, 10)."""
    axes = turns.transpose(2, 3)[:, None]  # (P, 1, 24, axis, xyz)
    by_turn = torch.linalg.cross(axes, arms[..., None, :])
    by_turn = by_turn.permute(0, 1, 4, 2, 3).flatten(3)
    by_root = torch.eye(3).to(arms).expand(*by_beta.shape[:3], 3)
    return torch.cat([by_turn, by_beta, by_root], 3)


def project(points: Tensor, with_jacobian: bool = False):
    """Points (..., 3) m on the plane z = 1, (..., 2), and optionally the derivative (..., 2, 3)."""
    inverse = 1 / points[..., 2:]
    image = points[..., :2] * inverse
    if not with_jacobian:
        return image
    flat = torch.eye(2).to(points).expand(*image.shape, 2)
    return image, torch.cat([flat, -image[..., None]], -1) * inverse[..., None]


def rotvec_from_quat(quat_xyzw: Tensor) -> Tensor:
    """(..., 3) rad, at most a half turn, of unit quaternions (..., 4)."""
    sine, cosine = quat_xyzw[..., :3], quat_xyzw[..., 3:]
    length = sine.norm(dim=-1, keepdim=True)
    angle_by_sine = 2 * torch.atan2(length, cosine.abs()) / length.clamp(min=1e-12)
    angle_by_sine = torch.where(length > 1e-7, angle_by_sine, 2.0)
    return sine * torch.where(cosine < 0, -angle_by_sine, angle_by_sine)


def inverse_right_jacobian(rotvecs: Tensor) -> Tensor:
    """(..., 3, 3) J with log(exp(r) exp(w)) = r + J w for small w (Sola et al. 2018, eq. 144)."""
    angle = rotvecs.norm(dim=-1).clamp(min=1e-4)[..., None, None]
    cross = torch.tensordot(rotvecs, _CROSS.to(rotvecs), 1)
    half = angle / 2
    square = (1 - half / torch.tan(half)) / angle.square()
    return torch.eye(3).to(rotvecs) + cross / 2 + square * (cross @ cross)


_CROSS = torch.tensor([[[0, 0, 0], [0, 0, -1], [0, 1, 0]],
                       [[0, 0, 1], [0, 0, 0], [-1, 0, 0]],
                       [[0, -1, 0], [1, 0, 0], [0, 0, 0]]])  # [r]x = sum_i r_i _CROSS[i]
