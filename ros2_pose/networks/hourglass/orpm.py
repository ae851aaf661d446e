"""Occlusion-robust pose maps: 3D joints of people, read where their keypoints are.

The map of a joint holds its position relative to its parent in the kinematic tree, m, in the axes
of the ray through the person. It is stored at the joint's own keypoint, at the other keypoints of
its limb, and at neck and pelvis.

Source: Benzine et al. 2019, section 3.2; Mehta et al. 2018.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ros2_pose.networks.hourglass.joints import PARENTS, READ_OUT, J


def read_bones(values: Tensor, valid: Tensor, mean_bones: Tensor, naive: bool = False) -> Tensor:
    """Read each joint at the first valid one of the keypoints at which it is stored.

    Args:
        values (N, 19, 24, 3): m, the maps of all joints at the keypoints.
        valid (N, 19) bool: keypoints that can be read at.
        mean_bones (24, 3): m, for joints without a valid keypoint.
        naive: read at the joint's own keypoint, valid or not; joints without one at the neck.
    Returns:
        (N, 24, 3) m, positions relative to the parents.
    """
    bones = []
    for joint, places in enumerate(READ_OUT):
        if naive:
            bones.append(values[:, places[0], joint])
            continue
        bone = mean_bones[joint].expand(len(values), 3)
        for place in reversed(places):
            bone = torch.where(valid[:, place, None], values[:, place, joint], bone)
        bones.append(bone)
    return torch.stack(bones, 1)


def is_valid(points: Tensor, scores: Tensor, size: Tensor, least_score: float,
             least_px: float) -> Tensor:
    """Return bool (P, 19): keypoints at which the maps belong to the person.

    They are certain, in the picture, and no keypoint of that kind of another person is near.

    Args:
        points (P, 19, 2): x, y px of the people of one picture; NaN where not found.
        scores (P, 19): 0..1.
        size (2,): width and height px.
        least_score: of a certain keypoint.
        least_px: distance from which keypoints of two people are apart.
    """
    found = points.isfinite().all(2) & (scores >= least_score)
    inside = ((points >= 0) & (points < size)).all(2)
    apart = (points[:, None] - points[None]).norm(dim=3)
    apart = torch.where(found[None] & found[:, None], apart, torch.inf)
    itself = torch.eye(len(points), dtype=torch.bool, device=points.device)
    apart = apart.masked_fill(itself[..., None], torch.inf)
    near = (apart < least_px).any(1) if len(points) else found
    return found & inside & ~near


def joints_from_bones(bones: Tensor) -> Tensor:
    """Return joints (N, 24, 3) m from the pelvis of positions relative to the parents."""
    joints = [torch.zeros_like(bones[:, 0])]
    for joint in range(1, J):
        joints.append(joints[PARENTS[joint]] + bones[:, joint])
    return torch.stack(joints, 1)


def bones_from_joints(joints: Tensor) -> Tensor:
    """Return positions (N, 24, 3) m relative to the parents; 0 of the pelvis."""
    return joints - joints[:, list(PARENTS)]
