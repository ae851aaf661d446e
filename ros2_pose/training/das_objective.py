"""The network of Wang et al. 2022 together with its losses (eq. 10): a batch in, terms out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ros2_pose.body.model import BodyModel
from ros2_pose.networks.das.network import DasNet, locations
from ros2_pose.networks.das.pose import Z_M, Pose
from ros2_pose.training import das_losses as losses
from ros2_pose.training.augment import Batch
from ros2_pose.training.config import TrainingConfig
from ros2_pose.training.losses import keypoint_percent

# The authors' weights; boxes are not in the paper.
_WEIGHTS = {"center": 1.0, "centerness": 1.0, "depth": 1.0, "keypoint": 2.0, "joint": 2.0,
            "box": 1.0}
_DESCRIBED = 0.35  # share of the positive locations at which poses are estimated, to save time
_LEAST_DEPTH_M = 0.1
_PERCENT, _MM = 100.0, 1000.0


class DasObjective(nn.Module):
    """The network and its losses as one module, as training on several GPUs requires."""

    def __init__(self, net: DasNet, config: TrainingConfig, body: BodyModel) -> None:
        super().__init__()
        self.net, self.config = net, config

    def forward(self, batch: Batch, seed: int) -> dict[str, Tensor]:
        """Compute the terms of the loss of a batch.

        Args:
            batch: images and their people.
            seed: of the choice of positive locations at which poses are estimated.
        Returns:
            Terms; "total", their weighted sum; "keypoint_percent" and "mpjpe_mm" for the log.
        """
        levels = self.net(batch.images.float())
        centers = losses.centers_of(batch, self.net.config.center)
        level_of = losses.levels_of(batch, centers, self.net.config.reaches)
        terms = {"center": levels[0]["centers"].new_zeros(()),
                 "centerness": levels[0]["centers"].new_zeros(())}
        people, poses, count = [], [], 0
        random = torch.Generator().manual_seed(seed)
        for number, (maps, stride) in enumerate(zip(levels, self.net.config.strides)):
            person, centerness, counts = targets(batch, centers, level_of == number,
                                                 locations(maps, stride), stride)
            is_person = person >= 0
            logits = maps["centers"].float()
            terms["center"] += losses.focal_loss(logits[:, 0], is_person, counts)
            terms["centerness"] += F.binary_cross_entropy_with_logits(
                logits[:, 1][is_person], centerness[is_person], reduction="sum")
            count += int(is_person.sum())
            described = is_person & (torch.rand(is_person.shape, generator=random)
                                     < _DESCRIBED).to(is_person.device)
            image, row, column = described.nonzero(as_tuple=True)
            if len(image):
                places = locations(maps, stride)[row, column]
                poses.append(self.net.describe(maps, stride, image, places))
                people.append(person[described])
        terms = {name: term / max(count, 1) for name, term in terms.items()}
        if poses:
            terms |= self._pose_terms(_joined(poses), torch.cat(people), batch)
        total = sum(0 * map_.sum() for map_ in levels[0].values())
        for name, weight in _WEIGHTS.items():
            if name in terms:
                total = total + weight * terms[name]
        return terms | {"total": total}

    def _pose_terms(self, poses: list[Pose], person: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Return the terms of poses, each estimate of them, of people (M,) of the batch."""
        keypoints, joints = batch.keypoints[person], projected(batch)[person]
        label_std = batch.keypoint_std[person][..., None]
        log_depth = true_log_depth(batch)[person]
        terms: dict[str, Tensor] = {}
        for pose, flows in zip(poses, self.net.flows or [None] * len(poses)):
            unit = pose["size"][:, None, None]
            unit_3d = torch.cat([unit, unit, torch.full_like(unit, Z_M)], 2)
            found = {
                "keypoint": losses.joint_loss(
                    pose["keypoints"], pose["keypoint_std"], keypoints, unit,
                    flows and flows["keypoints"], label_std),
                "joint": losses.joint_loss(pose["joints"], pose["joint_std"], joints, unit_3d,
                                           flows and flows["joints"]),
                "depth": losses.depth_loss(pose["log_depth"], log_depth),
                "box": F.smooth_l1_loss(pose["boxes"] / unit[..., 0],
                                        batch.boxes[person] / unit[..., 0], beta=0.1)}
            for name, term in found.items():
                terms[name] = terms.get(name, 0.0) + term
        return terms | self._errors(poses[-1], keypoints, person, batch)

    @torch.no_grad()
    def _errors(self, pose: Pose, keypoints: Tensor, person: Tensor,
                batch: Batch) -> dict[str, Tensor]:
        """Return errors of the last poses, for the log; none where no truth is known."""
        error_px = (pose["keypoints"] - keypoints).norm(dim=2)
        joints = in_metres(pose, batch.camera[person])
        joints = joints - joints[:, :1]
        depth_error = (pose["log_depth"] - true_log_depth(batch)[person]).abs()
        errors = {"keypoint_percent": keypoint_percent(error_px, batch.visible[person],
                                                     batch.boxes[person]),
                  "depth_percent": _PERCENT * depth_error.nanmean(),
                  "mpjpe_mm": _MM * (joints - batch.joints[person]).norm(dim=2).nanmean()}
        return {name: error for name, error in errors.items() if error.isfinite()}


def targets(batch: Batch, centers: Tensor, on_level: Tensor, places: Tensor,
            stride: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the locations of a level are to learn.

    Args:
        batch: B images, N people.
        centers (N, 2): px.
        on_level (N,): bool, people of this level.
        places (h, w, 2): centres of the level's cells, px.
        stride: of the level, px.
    Returns:
        Index of the person (B, h, w), -1 for none; centerness (B, h, w); and bool (B, h, w), the
        locations that count: not those in ignored boxes, nor any without a person in images where
        not everyone is labelled.
    """
    people, nearness, counted = [], [], []
    for number, ignored in enumerate(batch.ignored):
        rows = ((batch.image == number) & on_level).nonzero()[:, 0]
        person, centerness = losses.positives(places, centers[rows], stride)
        is_person = person >= 0
        people.append(torch.where(is_person, rows[person] if len(rows) else person, -1))
        nearness.append(centerness)
        is_free = ~losses.is_inside(places, ignored) & batch.complete[number]
        counted.append(is_person | is_free)
    return torch.stack(people), torch.stack(nearness), torch.stack(counted)


def projected(batch: Batch) -> Tensor:
    """Return the SMPL joints (N, 24, 3) of the truth: x, y px, z from the pelvis, m."""
    return torch.cat([batch.projected_joints(), batch.joints[..., 2:]], 2)


def true_log_depth(batch: Batch) -> Tensor:
    """Return the logarithms (N,) of the pelvis's depth by the focal length, m / px."""
    depth = torch.where(batch.root[:, 2] > _LEAST_DEPTH_M, batch.root[:, 2], torch.nan)
    return (depth / batch.camera[:, :2].prod(1).sqrt()).log()


def in_metres(pose: Pose, camera: Tensor) -> Tensor:
    """Return the joints (N, 24, 3) m of poses in the frames of cameras (N, 4) fx, fy, cx, cy."""
    depth = pose["log_depth"].exp() * camera[:, :2].prod(1).sqrt()
    z = depth[:, None] + pose["joints"][..., 2]
    rays = (pose["joints"][..., :2] - camera[:, None, 2:]) / camera[:, None, :2]
    return torch.cat([rays * z[..., None], z[..., None]], 2)


def _joined(poses: list[list[Pose]]) -> list[Pose]:
    """Return the poses of all levels together, for each estimate."""
    return [{name: torch.cat([part[name] for part in parts]) for name in parts[0]}
            for parts in zip(*poses)]
