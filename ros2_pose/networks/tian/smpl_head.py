"""The SMPL head (Tian et al. 2023, section 2.3) and the frame that it states the facing in.

An image region shows how a person faces relative to the ray through the box's centre, not relative
to the optical axis. So the head works in the ray's frame: z along the ray, x level.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ros2_pose.body.lift import rotmat_towards
from ros2_pose.body.so3 import quat_from_rotmat, quat_product
from ros2_pose.skeleton import SMPL24

_J = len(SMPL24)


class SmplHead(nn.Module):
    """Estimates theta (24 quaternions) and betas (10) of a person as changes of an initial body."""

    def __init__(self, inputs: int, width: int = 512) -> None:
        super().__init__()
        inputs += 4 * _J + 10 + _J  # the initial body
        self.layers = nn.Sequential(nn.Linear(inputs, width), nn.LayerNorm(width), nn.GELU(),
                                    nn.Linear(width, width), nn.LayerNorm(width), nn.GELU())
        self.out = nn.Linear(width, 4 * _J + 10)
        nn.init.zeros_(self.out.bias)
        nn.init.normal_(self.out.weight, std=0.01)

    def forward(self, features: Tensor, quats: Tensor, betas: Tensor,
                rotation_std: Tensor) -> tuple[Tensor, Tensor]:
        """Estimate the bodies of N people.

        Args:
            features (N, inputs): of the people.
            quats (N, 24, 4): quat_xyzw of the initial bodies, the root's in the ray's frame.
            betas (N, 10): of the initial bodies.
            rotation_std (N, 24): standard deviation of the initial rotations, rad.
        Returns:
            quat_xyzw (N, 24, 4), not of unit length, the root's in the ray's frame; betas (N, 10).
        """
        inputs = torch.cat([features, quats.flatten(1), betas.flatten(1), rotation_std.flatten(1)],
                           1)
        changes, betas_change = self.out(self.layers(inputs)).split([4 * _J, 10], 1)
        return quats + changes.unflatten(1, (_J, 4)), betas + betas_change


# quat_xyzw (24, 4) of the T-pose that faces the camera.
_FACING_CAMERA = torch.tensor([0.0, 0, 0, 1]).repeat(_J, 1)
_FACING_CAMERA[0] = torch.tensor([1.0, 0, 0, 0])


def with_canonical_signs(quats: Tensor) -> Tensor:
    """Return (N, 24, 4) with, of q and -q, which are one rotation, that nearer to the T-pose's."""
    is_opposite = (quats * _FACING_CAMERA.to(quats)).sum(2, keepdim=True) < 0
    return torch.where(is_opposite, -quats, quats)


def root_rotated(theta: Tensor, rotmat: Tensor) -> Tensor:
    """Return theta (N, 24, 4) quat_xyzw with the root rotated by rotmat (N, 3, 3).

    Other joints are relative to their parents and stay.
    """
    root = quat_product(quat_from_rotmat(rotmat)[:, None], theta[:, :1])
    return torch.cat([root, theta[:, 1:]], 1)


def camera_from_ray(ray: Tensor) -> Tensor:
    """Return rotmat (N, 3, 3) from the frame of rays (N, 2), at depth 1, to the camera's."""
    return rotmat_towards(ray).mT


def camera_from_box(boxes: Tensor, camera: Tensor) -> Tensor:
    """Return rotmat (N, 3, 3) from the frame of the ray through a box's centre to the camera's.

    Args:
        boxes (N, 4): x min, y min, x max, y max, px.
        camera (N, 4): fx, fy, cx, cy, px; NaN where it is not known, which gives the identity.
    """
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    ray = (centre - camera[:, 2:]) / camera[:, :2]
    known = ray.isfinite().all(1)
    rotmat = camera_from_ray(torch.where(known[:, None], ray, 0.0))
    return torch.where(known[:, None, None], rotmat, torch.eye(3).to(rotmat))
