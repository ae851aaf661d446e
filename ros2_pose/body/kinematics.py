"""Positions of posed landmarks and their projection, in torch; see also `fit_kinematics`."""

from __future__ import annotations

import torch
from torch import Tensor

from ros2_pose.body.model import Posed, Rig
from ros2_pose.body.so3 import identity


def pose_rig(rig: Rig, rotmats: Tensor, betas: Tensor, root: Tensor) -> Posed:
    """Pose a rig, see `Rig.posed`."""
    return rig.posed(rotmats, betas, root)


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
    by_xy = identity(2, points).expand(*image.shape, 2)
    return image, torch.cat([by_xy, -image[..., None]], -1) * inverse_depth[..., None]
