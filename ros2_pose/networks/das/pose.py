"""Joints of people from dense maps: the first estimate, and its recursive update.

A pose is a dict of tensors of N people, px and m:
    keypoints (N, 17, 2): px, COCO order.
    offsets (N, 24, 3): of the SMPL joints; x, y from where the keypoints put them, relative to the
        size, and z, m, of which the pelvis's is subtracted in `joints`.
    evidence (N, 17, 2): height of the heat-map at the keypoint, and standard deviation of the
        sources' estimates relative to the size.
    size (N,): px, twice the root mean square distance of the keypoints from their mean.
and, by `PoseLayer`:
    joints (N, 24, 3): x, y px, z from the pelvis, m.
    keypoint_std (N, 17, 2): px.
    joint_std (N, 24, 3): x, y px, z m.
    log_depth (N,): logarithm of the pelvis's depth by the focal length, m / px.
    boxes (N, 4): x min, y min, x max, y max, px.

Source: Wang et al. 2022, sections 3.2 and 3.3.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ros2_pose.networks.das.features import START_STRIDE, start_points
from ros2_pose.networks.das.sampling import disc, sample
from ros2_pose.skeleton import COCO17, SMPL24

K, J = len(COCO17), len(SMPL24)
KEYPOINT_CHANNELS = 6  # from the centre x, y; from a point near the joint x, y; gate; confidence
JOINT_CHANNELS = 7  # offset x, y, z; change of it x, y, z; confidence
Z_M = 0.5  # greatest standard deviation of z, m

Pose = dict[str, Tensor]
_LEAST_SIZE = 4.0  # px
_MEDIAN_SIZE_M = 1.0  # of a person, as `size` measures it
_STD_LOGIT = -1.5  # of standard deviations before training
_HEAT_GAIN, _HEAT_MIDDLE = 10.0, 0.2  # of the gate, before training
_LEAST_HEAT = 1e-3

# COCO keypoints in the middle of which an SMPL joint is taken to be, where the names differ.
_BESIDE = {"pelvis": "hip hip hip", "spine1": "hip hip shoulder", "spine2": "hip shoulder",
           "spine3": "hip shoulder shoulder", "neck": "shoulder shoulder ear", "head": "ear ear",
           "collar": "shoulder", "foot": "ankle", "hand": "wrist"}


def joints_from_keypoints() -> Tensor:
    """Return the weights (24, 17) of the keypoints in a first estimate of the SMPL joints."""
    weights = torch.zeros(J, K)
    for row, (kind, side) in enumerate(zip(SMPL24.kinds, SMPL24.sides)):
        for near in _BESIDE.get(kind, kind).split():
            sides = ("left", "right") if side == "middle" else (side,)
            for one in sides:
                weights[row, COCO17.index(f"{one}_{near}")] += 1
    return weights / weights.sum(1, keepdim=True)


def size_of(keypoints: Tensor) -> Tensor:
    """Return the size (N,) px of poses; no gradient passes it."""
    keypoints = keypoints.detach()
    distance2 = (keypoints - keypoints.mean(1, keepdim=True)).square().sum(2)
    return 2 * distance2.mean(1).clamp(min=(_LEAST_SIZE / 2)**2).sqrt()


class PoseLayer(nn.Module):
    """Changes a pose by what it sees of all of it, and adds scales, root depth and a box."""

    weights: Tensor

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.register_buffer("weights", joints_from_keypoints(), persistent=False)
        self.parts = [2 * K, 3 * J, 2 * K, 3 * J, 1, 4]
        inputs = width + 4 * K + 3 * J
        self.layers = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(),
                                    nn.Linear(hidden, hidden), nn.ReLU(),
                                    nn.Linear(hidden, sum(self.parts)))
        nn.init.normal_(self.layers[-1].weight, std=1e-3)
        nn.init.zeros_(self.layers[-1].bias)

    def forward(self, features: Tensor, pose: Pose) -> Pose:
        """Return the whole pose of N people from features (N, width) at their centres."""
        size = size_of(pose["keypoints"])
        middle = pose["keypoints"].mean(1, keepdim=True)
        shape = (pose["keypoints"] - middle) / size[:, None, None]
        seen = torch.cat([features, *(part.flatten(1) for part in
                                      (shape, pose["evidence"], pose["offsets"]))], 1)
        move, lift, keypoint_std, joint_std, depth, box = self.layers(seen).split(self.parts, 1)
        keypoints = pose["keypoints"] + size[:, None, None] * move.unflatten(1, (K, 2))
        offsets = pose["offsets"] + lift.unflatten(1, (J, 3))
        return with_joints({
            "keypoints": keypoints, "offsets": offsets, "evidence": pose["evidence"], "size": size,
            "keypoint_std": _scale(keypoint_std).unflatten(1, (K, 2)) * size[:, None, None],
            "joint_std": joint_scales(joint_std, size),
            "log_depth": depth[:, 0] - (size / _MEDIAN_SIZE_M).log(),
            "boxes": _around(keypoints, size[:, None] * box)}, self.weights)


def joint_scales(raw: Tensor, size: Tensor) -> Tensor:
    """Return the joints' standard deviations (N, 24, 3): x, y px, z m.

    Args:
        raw (N, 72): of a layer.
        size (N,): of the poses, px.
    """
    unit = torch.stack([size, size, torch.full_like(size, Z_M)], 1)[:, None]
    exact = torch.zeros(J, 3, dtype=torch.bool, device=raw.device)
    exact[0, 2] = True  # z of the pelvis is 0: there is nothing to learn
    return torch.where(exact, 1.0, _scale(raw).unflatten(1, (J, 3))) * unit


def with_joints(pose: Pose, weights: Tensor) -> Pose:
    """Return the pose with the joints that keypoints and offsets say.

    Args:
        weights (24, 17): see `joints_from_keypoints`.
    """
    x_y = weights @ pose["keypoints"] + pose["size"][:, None, None] * pose["offsets"][..., :2]
    z = pose["offsets"][..., 2:] - pose["offsets"][:, :1, 2:]
    return pose | {"joints": torch.cat([x_y, z], 2)}


class FirstEstimate(nn.Module):
    """Reads a pose at the centre itself, as without recursion."""

    def forward(self, maps: dict[str, Tensor], image: Tensor, centers: Tensor,
                stride: int) -> Pose:
        """Read the poses of N people.

        Args:
            maps: of a level, see `DasNet.forward`.
            image (N,): index of the image of each person.
            centers (N, 2): px.
            stride: of the level, px.
        """
        points = centers[:, None, None]
        start = sample(maps["start"], image, start_points(points.expand(-1, K, -1, -1)),
                       START_STRIDE)[:, :, 0]
        learned = sample(maps["keypoints"], image, points.expand(-1, K, -1, -1), stride)[:, :, 0]
        offsets = sample(maps["joints"], image, points.expand(-1, J, -1, -1), stride)[:, :, 0, :3]
        keypoints = centers[:, None] + start[..., 3:5] + stride * learned[..., :2]
        return {"keypoints": keypoints, "offsets": offsets,
                "evidence": torch.zeros_like(keypoints)}


class Update(nn.Module):
    """The recursive update: sources around the centre and around each joint estimate it again.

    At a source, a gate chooses between the joint as seen from the centre and as seen from a point
    near it. Sources are averaged by the softmax of their confidences; offsets of SMPL joints are
    averaged without a displacement, as z in the paper. Where MoveNet is the backbone, its heat-maps
    are a part of gate and confidence.
    """

    disc: Tensor

    def __init__(self, width: int, sources: int, reach: float) -> None:
        """Create the layers.

        Args:
            width: channels of the features.
            sources: number of points around the centre, and around each joint.
            reach: radius of those around a joint before training, relative to the size.
        """
        super().__init__()
        self.sources = sources
        self.register_buffer("disc", disc(sources), persistent=False)
        self.place = nn.Linear(width, (K + J) * 2 * sources * 2)
        nn.init.normal_(self.place.weight, std=1e-3)
        nn.init.zeros_(self.place.bias)
        self.log_reach = nn.Parameter(torch.full((K + J,), math.log(reach)))
        self.prior = nn.Parameter(torch.zeros(K + J, 2))  # confidence of the two kinds of sources
        self.gate_gain = nn.Parameter(torch.tensor(_HEAT_GAIN))
        self.heat_gain = nn.Parameter(torch.tensor(2.0))

    def forward(self, maps: dict[str, Tensor], image: Tensor, centers: Tensor, stride: int,
                features: Tensor, pose: Pose) -> Pose:
        """Return the updated pose; arguments are those of `FirstEstimate` and `PoseLayer`."""
        points = self.points(centers, stride, features, pose)
        start = sample(maps["start"], image, start_points(points[:, :K]), START_STRIDE)
        learned = sample(maps["keypoints"], image, points[:, :K], stride)
        keypoints, evidence = self._keypoints(points[:, :K], start, learned, stride,
                                              pose["size"])
        values = sample(maps["joints"], image, points[:, K:], stride)
        weight = (values[..., 6] + self._prior()[K:]).softmax(2)
        change = (weight[..., None] * values[..., 3:6]).sum(2)
        return pose | {"keypoints": keypoints, "evidence": evidence,
                       "offsets": pose["offsets"] + change}

    def points(self, centers: Tensor, stride: int, features: Tensor, pose: Pose) -> Tensor:
        """Return the sources (N, 41, 2 S, 2) px: S around the centre, S around each joint."""
        place = self.place(features).unflatten(1, (K + J, 2, self.sources, 2)) + self.disc
        targets = torch.cat([pose["keypoints"], pose["joints"][..., :2]], 1)
        reach = self.log_reach.exp() * pose["size"][:, None]
        around_center = centers[:, None, None] + stride * place[:, :, 0]
        around_joint = targets[:, :, None] + reach[..., None, None] * place[:, :, 1]
        return torch.cat([around_center, around_joint], 2)

    def _keypoints(self, points: Tensor, start: Tensor, learned: Tensor, stride: int,
                   size: Tensor) -> tuple[Tensor, Tensor]:
        """Return keypoints (N, 17, 2) px and their evidence from what was read at sources."""
        heat = start[..., 0]
        from_center = start[..., 3:5] + stride * learned[..., :2]
        from_near = start[..., 1:3] + stride * learned[..., 2:4]
        gate = torch.sigmoid(learned[..., 4] + self.gate_gain * (heat - _HEAT_MIDDLE))[..., None]
        estimates = points + (1 - gate) * from_center + gate * from_near
        confidence = learned[..., 5] + self._prior()[:K] \
            + self.heat_gain * heat.clamp(min=_LEAST_HEAT).log()
        weight = confidence.softmax(2)
        keypoints = (weight[..., None] * estimates).sum(2)
        variance = (weight * (estimates - keypoints[:, :, None]).square().sum(3)).sum(2)
        std = (variance + 1e-6).sqrt() / size[:, None]
        return keypoints, torch.stack([(weight * heat).sum(2), std], 2)

    def _prior(self) -> Tensor:
        """Return what is added to the sources' confidences, (41, 2 S)."""
        return self.prior.repeat_interleave(self.sources, 1)


def _scale(raw: Tensor) -> Tensor:
    """Return standard deviations, relative to their greatest value."""
    return torch.sigmoid(raw + _STD_LOGIT) + 1e-3


def _around(keypoints: Tensor, margins: Tensor) -> Tensor:
    """Return the boxes (N, 4) of keypoints (N, 17, 2), wider by margins (N, 4) at their sides."""
    keypoints = keypoints.detach()
    low, high = keypoints.amin(1) - margins[:, :2], keypoints.amax(1) + margins[:, 2:]
    return torch.cat([torch.minimum(low, high - 1), high], 1)
