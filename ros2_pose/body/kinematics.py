"""Positions of posed landmarks, their projection, and differences of rotations, in torch.

Rotations are compared by the chord c = 2 q_xyz of a unit quaternion with q_w >= 0, twice its vector
part. Its length is 2 sin(angle / 2), the chord of the arc; for small angles it is the rotation
vector, and its derivative is a polynomial.
Source: Markley 2003, Attitude Error Representations for Kalman Filtering (twice the vector part).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ros2_pose.body.model import Posed, Rig
from ros2_pose.body.so3 import constant, identity, quat_product


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


# ------------------------------------------------------------------------------- rotations


def with_positive_scalar(quat_xyzw: Tensor) -> Tensor:
    """Return those quaternions (..., 4) of the same rotations that have q_w >= 0."""
    scalar = quat_xyzw[..., 3:]
    return quat_xyzw * torch.copysign(torch.ones_like(scalar), scalar)


def chord_difference(reference_xyzw: Tensor, quat_xyzw: Tensor) -> tuple[Tensor, Tensor]:
    """Return the chord of the rotation from a reference to another rotation.

    Args:
        reference_xyzw (..., 4), quat_xyzw (..., 4): unit quaternions.
    Returns:
        (..., 3) chord of reference^-1 quat, and (..., 1) the cosine of half its angle.
    """
    inverse = reference_xyzw * constant(_conjugate_signs, quat_xyzw)
    relative = with_positive_scalar(quat_product(inverse, quat_xyzw))
    return 2 * relative[..., :3], relative[..., 3:]


def _conjugate_signs() -> Tensor:
    return torch.tensor([-1.0, -1.0, -1.0, 1.0])
