"""Where a fit starts when nothing is known but 2D keypoints: facing hypotheses and their place."""

from __future__ import annotations

import math

import roma
import torch
from torch import Tensor

from ros2_pose.body.kinematics import pose_rig
from ros2_pose.body.model import Rig
from ros2_pose.body.prior import PosePrior
from ros2_pose.body.state import BodyState

YAWS = 4
HYPOTHESES = 2 * YAWS  # each upright, and rolled in the image as the keypoints are
_DEPTH_RANGE_M = (0.5, 60.0)


def hypotheses(rig: Rig, prior: PosePrior, points: Tensor, seen: Tensor) -> BodyState:
    """(P * HYPOTHESES) states of the prior's mean pose, P people after each other.

    points: (P, 17, 2) on the plane z = 1; seen: (P, 17) bool.
    """
    facing = _facings(points)
    local = roma.rotvec_to_rotmat(prior.mean.to(points)).expand(YAWS, -1, -1, -1)
    shape = _keypoints(rig, facing, local)  # (YAWS, 17, 3)
    points, seen = points[:, None], seen[:, None].to(points)
    rolls = torch.stack([torch.zeros_like(_roll(shape, points, seen)),
                         _roll(shape, points, seen)], 2)  # (P, YAWS, 2)
    rolls = _about_axis(2, rolls)
    shape = (rolls[..., None, :, :] @ shape[:, None, :, :, None])[..., 0]  # (P, YAWS, 2, 17, 3)
    root = _place(shape, points[:, None], seen[:, None]).flatten(0, 2)
    turn = roma.rotmat_to_unitquat((rolls @ facing[:, None]).flatten(0, 2))
    theta = roma.rotvec_to_unitquat(prior.mean.to(points)).expand(len(root), -1, -1)
    theta = torch.cat([turn[:, None], theta], 1)
    return BodyState(theta, root.new_zeros(len(root), 10), root)


def _facings(like: Tensor) -> Tensor:
    """(YAWS, 3, 3) body to camera, upright: facing the camera, to the side, away, to the other."""
    yaws = torch.arange(YAWS).to(like) * (2 * math.pi / YAWS)
    return _about_axis(1, yaws) @ torch.diag(like.new_tensor([1.0, -1.0, -1.0]))


def _about_axis(axis: int, angles: Tensor) -> Tensor:
    """(..., 3, 3) rotations about the camera's x, y or z."""
    rotvec = torch.zeros(*angles.shape, 3).to(angles)
    rotvec[..., axis] = angles
    return roma.rotvec_to_rotmat(rotvec)


def _keypoints(rig: Rig, facing: Tensor, local: Tensor) -> Tensor:
    rotmats = torch.cat([facing[:, None], local], 1)
    zeros = facing.new_zeros(len(facing), 10)
    return pose_rig(rig, rotmats, zeros, zeros[:, :3]).keypoints


def _centred(values: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (..., 2) of the seen of values (..., 17, 2), and the values without it."""
    count = seen.sum(-1, keepdim=True).clamp(min=1)
    mean = (values * seen[..., None]).sum(-2) / count
    return mean, (values - mean[..., None, :]) * seen[..., None]


def _roll(shape: Tensor, points: Tensor, seen: Tensor) -> Tensor:
    """(P, YAWS) rad in the image that best turns a shape onto the points (2D Procrustes)."""
    model, image = _centred(shape[..., :2], seen)[1], _centred(points, seen)[1]
    cross = model[..., 0] * image[..., 1] - model[..., 1] * image[..., 0]
    return torch.atan2(cross.sum(-1), (model * image).sum((-2, -1)))


def _place(shape: Tensor, points: Tensor, seen: Tensor) -> Tensor:
    """(..., 3) root that makes a shape as large as the points, in their place."""
    model_mean, model = _centred(shape[..., :2], seen)
    image_mean, image = _centred(points, seen)
    size = image.square().sum((-2, -1)).sqrt().clamp(min=1e-6)
    depth = (model.square().sum((-2, -1)).sqrt() / size).clamp(*_DEPTH_RANGE_M)
    xy = image_mean * depth[..., None] - model_mean
    return torch.cat([xy, depth[..., None]], -1)
