"""The stacked hourglasses together with their losses: a batch in, terms out.

Every hourglass has the same loss (intermediate supervision); terms are means over hourglasses.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ros2_pose.body.model import BodyModel
from ros2_pose.networks.hourglass.joints import LIMBS, is_stored, with_anchors
from ros2_pose.networks.hourglass.network import HEAT_STRIDE, HourglassNet, Maps, sampled
from ros2_pose.networks.hourglass.orpm import bones_from_joints, joints_from_bones, read_bones
from ros2_pose.networks.tian.smpl_head import camera_from_box
from ros2_pose.training import hourglass_losses as losses
from ros2_pose.training.augment import Batch
from ros2_pose.training.config import TrainingConfig

_JITTER_PX = 3.0  # of the points at which maps are read in training: errors of detections
# Weights of the terms: gradients of similar size on the shared layers.
_WEIGHTS = {"heat": 0.03, "pull": 2.0, "push": 3.0, "fields": 3.0, "orpm": 30.0, "mean": 1.0}
_MM = 1000.0


class HourglassObjective(nn.Module):
    """The network and its losses as one module, as training on several GPUs requires."""

    def __init__(self, net: HourglassNet, config: TrainingConfig, body: BodyModel) -> None:
        super().__init__()
        self.net, self.config = net, config
        self._stored = is_stored()

    def forward(self, batch: Batch, seed: int) -> dict[str, Tensor]:
        """Compute the terms of the loss of a batch.

        Args:
            batch: images and their people.
            seed: of the errors of the points at which maps are read.
        Returns:
            Terms; "total", their weighted sum; "mpjpe_mm" for the log, of the last hourglass read
            at true keypoints.
        """
        found, _ = self.net(batch.images.float())
        truth = self._truth(batch, seed)
        stacks = [self._terms_of(maps, truth, batch) for maps in found]
        terms = {name: torch.stack([one[name] for one in stacks]).mean() for name in stacks[0]}
        bones, known = truth["bones"], truth["posed"]
        if known.any():
            error = self.net.mean_bones - bones[known]
            terms["mean"] = torch.where(error.isfinite(), error, 0.0).square().sum((1, 2)).mean()
        total = 0 * found[-1]["heat"].sum()
        for name, weight in _WEIGHTS.items():
            if name in terms:
                total = total + weight * terms[name]
        if known.any():
            terms["mpjpe_mm"] = _MM * self._error_m(found[-1], truth, batch)
        return terms | {"total": total}

    def _truth(self, batch: Batch, seed: int) -> dict[str, Tensor]:
        """Return what all hourglasses are compared with.

        Returns:
            points (N, 19, 2) px, at which maps are read; known (N, 19) bool, points in the
            picture; posed (N,) bool, people with known 3D; bones (N, 24, 3) m in the axes of
            their rays; and the targets heat and fields with the cells heat_counts and
            field_counts that count.
        """
        images, side = len(batch.images), batch.images.shape[-1]
        keypoints = with_anchors(batch.keypoints)
        labelled = keypoints.isfinite().all(2)
        known = labelled & ((keypoints >= 0) & (keypoints < side)).all(2)
        random = torch.Generator().manual_seed(seed)
        jitter = _JITTER_PX * torch.randn(keypoints.shape, generator=random).to(keypoints)
        rotmat = camera_from_box(batch.boxes, batch.camera)
        truth = {"points": torch.where(known[..., None], keypoints, 0.0) + jitter, "known": known,
                 "bones": bones_from_joints(batch.joints @ rotmat),
                 "posed": batch.joints.isfinite().any(2).any(1)}
        std = with_anchors(batch.keypoint_std[..., None].expand(-1, -1, 2))[..., 0]
        of_picture = (batch.boxes, batch.image, batch.ignored, batch.complete)
        size, stride = (side // HEAT_STRIDE,) * 2, HEAT_STRIDE
        truth["heat"] = losses.highest(losses.gaussians(keypoints, std, size, stride),
                                       batch.image, images)
        truth["heat_counts"] = losses.counted(labelled, *of_picture, size, stride)
        stride = self.net.config.stride
        size = (side // stride,) * 2
        truth["fields"] = losses.limb_fields(keypoints, LIMBS, batch.image, images, size, stride)
        both = labelled[:, [a for a, _ in LIMBS]] & labelled[:, [b for _, b in LIMBS]]
        truth["field_counts"] = losses.counted(both, *of_picture, size, stride)
        return truth

    def _terms_of(self, maps: Maps, truth: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """Return the terms of one hourglass."""
        images, known = len(batch.images), truth["known"]
        tags = sampled(maps["tags"].flatten(1, 2), batch.image, truth["points"],
                       self.net.config.stride)
        own = _own(tags.unflatten(2, (known.shape[1], -1)))
        pull, push = losses.tag_loss(own, known, batch.image, images)
        terms = {"heat": losses.heat_loss(maps["heat"], truth["heat"], truth["heat_counts"],
                                          len(batch.boxes)),
                 "pull": pull, "push": push,
                 "fields": losses.field_loss(maps["fields"], truth["fields"],
                                             truth["field_counts"])}
        posed = truth["posed"]
        if posed.any():
            terms["orpm"] = losses.bone_loss(self._values(maps, truth, batch),
                                             truth["bones"][posed], known[posed],
                                             self._stored.to(known.device))
        return terms

    def _values(self, maps: Maps, truth: dict[str, Tensor], batch: Batch) -> Tensor:
        """Return the 3D maps (N, 19, 24, 3) m at the keypoints of N people with known 3D."""
        posed = truth["posed"]
        values = sampled(maps["orpm"].flatten(1, 2), batch.image[posed], truth["points"][posed],
                         self.net.config.stride)
        return values.unflatten(2, (-1, 3))

    @torch.no_grad()
    def _error_m(self, maps: Maps, truth: dict[str, Tensor], batch: Batch) -> Tensor:
        """Return the mean error of joints relative to the pelvis, m."""
        posed = truth["posed"]
        bones = read_bones(self._values(maps, truth, batch), truth["known"][posed],
                           self.net.mean_bones)
        true = joints_from_bones(truth["bones"][posed].nan_to_num(0.0))
        return (joints_from_bones(bones) - true).norm(dim=2)[:, 1:].mean()


def _own(tags: Tensor) -> Tensor:
    """Return (N, K, dims), of tags (N, K, K, dims) at K keypoints those of the keypoint's map."""
    return tags.diagonal(dim1=1, dim2=2).mT
