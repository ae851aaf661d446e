"""Joints in space from keypoints and their uncertainties: the lift's estimate, changed.

Beyond the paper: the lift (`body/lift.py`) was trained on a hundred times more poses than there are
pictures. A layer that sees its estimate, the maps' own and the features changes it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ros2_pose.body.lift import Lift, lifted_joints
from ros2_pose.body.model import BodyModel
from ros2_pose.networks.das.pose import J, K, Pose, joint_scales, joints_from_keypoints, with_joints

_LEAST_DEPTH_M = 0.3
_FARTHEST = 3.0  # sizes or m that an offset may have


class LiftedPose(nn.Module):
    """Starts joints and root depth of poses from the lift; keypoints and boxes stay.

    The camera has a focal length of the longer side and looks through the middle: the true focal
    length changes the perspective alone, and that a little.
    """

    weights: Tensor

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.register_buffer("weights", joints_from_keypoints(), persistent=False)
        self.lift, self.body = Lift.load(), BodyModel.load()
        self.requires_grad_(False)
        inputs = width + 3 * 2 * K + 2 * 3 * J + 1
        self.layers = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(),
                                    nn.Linear(hidden, hidden), nn.ReLU(),
                                    nn.Linear(hidden, 2 * 3 * J + 1))
        nn.init.normal_(self.layers[-1].weight, std=1e-3)
        nn.init.zeros_(self.layers[-1].bias)

    def forward(self, features: Tensor, pose: Pose, picture: Tensor) -> Pose:
        """Return poses of N people with new joints, their scales and root depths.

        Args:
            features (N, width): at the centres.
            pose: whole, see `pose.py`.
            picture (2,): width and height of the images, px.
        """
        with torch.autocast(features.device.type, enabled=False):
            offsets, log_depth = self.lifted(pose, picture)
        size = pose["size"][:, None, None]
        middle = pose["keypoints"].mean(1, keepdim=True)
        shape, std = (pose["keypoints"] - middle) / size, pose["keypoint_std"] / size
        seen = [features, *(part.flatten(1) for part in (shape, std, pose["evidence"],
                                                         pose["offsets"], offsets)),
                (pose["log_depth"] - log_depth)[:, None]]
        move, scale, depth = self.layers(torch.cat(seen, 1)).split([3 * J, 3 * J, 1], 1)
        return with_joints(pose | {"offsets": offsets + move.unflatten(1, (J, 3)),
                                   "joint_std": joint_scales(scale, pose["size"]),
                                   "log_depth": log_depth + depth[:, 0]}, self.weights)

    @torch.no_grad()
    def lifted(self, pose: Pose, picture: Tensor) -> tuple[Tensor, Tensor]:
        """Return the lift's offsets (N, 24, 3) and log_depth (N,) of the most probable body."""
        focal = picture.max()
        joints, pixels, root = lifted_joints(self.lift, self.body, pose["keypoints"],
                                             pose["keypoint_std"], focal, picture / 2,
                                             _LEAST_DEPTH_M)
        depth = root[:, 2].clamp(min=_LEAST_DEPTH_M)
        beside = (pixels - self.weights @ pose["keypoints"]) / pose["size"][:, None, None]
        offsets = torch.cat([beside, joints[..., 2:]], 2).clamp(-_FARTHEST, _FARTHEST)
        return offsets, (depth / focal).log()
