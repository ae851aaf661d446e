"""The network together with its losses (eq. 17 of Tian et al. 2023): a batch in, terms out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ros2_pose.body.model import BodyModel
from ros2_pose.networks.tian import roi
from ros2_pose.networks.tian.network import GAUSSIAN_CELLS, Described, TianNet
from ros2_pose.networks.tian.smpl_head import camera_from_box, root_rotated
from ros2_pose.training import losses
from ros2_pose.training.augment import Batch
from ros2_pose.training.config import TrainingConfig
from ros2_pose.training.detection import Truth, detection_loss

_JITTER_SHIFT, _JITTER_SIZE = 0.06, 0.1  # of true boxes: errors of detected ones
_WEIGHTED = ("detection", "keypoint", "vote", "shape", "pose", "smpl")  # terms of the total
_MM = 1000.0


class Objective(nn.Module):
    """The network and its losses as one module, as training on several GPUs requires."""

    def __init__(self, net: TianNet, config: TrainingConfig, body: BodyModel) -> None:
        super().__init__()
        self.net, self.config = net, config
        self._body = [body]  # in a list: not a submodule, it has nothing to train

    def forward(self, batch: Batch, seed: int) -> dict[str, Tensor]:
        """Compute the terms of the loss of a batch.

        Args:
            batch: images and their people.
            seed: of the boxes' jitter.
        Returns:
            Terms, means over people; "total", their weighted sum; "keypoint_percent" and
            "mpjpe_mm" for the log.
        """
        terms = {}
        images = batch.images.float()
        found = self.net.detect(images)
        detection, matches = detection_loss(found, _truths(batch))
        if self.config.parts != "people":
            terms["detection"] = detection
        if self.config.parts != "detection" and len(batch.boxes):
            boxes = jittered(batch.boxes, seed)
            queries = _queries_of(found.queries, matches, batch)
            described = self.net.describe(images, found.maps, boxes, batch.image, queries)
            terms |= self._keypoint_terms(described, boxes, batch)
            terms |= self._body_terms(described, boxes, batch)
        total = 0 * found.maps[0].sum()  # gives a batch without people a gradient, too
        for name in _WEIGHTED:
            if name in terms:
                total = total + getattr(self.config, f"{name}_weight") * terms[name]
        return terms | {"total": total}

    def _keypoint_terms(self, described: Described, boxes: Tensor,
                        batch: Batch) -> dict[str, Tensor]:
        """Terms of the keypoints that lie in the regions of boxes (N, 4) px."""
        cells = self.net.config.cells
        regions = self.net.regions(boxes)
        cell = roi.cell_size(regions, cells)[:, None]
        truth = (batch.keypoints - regions[:, None, :2]) / cell
        inside = ((truth > 0) & (truth < cells)).all(2, keepdim=True)
        truth = torch.where(inside, truth, torch.nan)
        truth_std = batch.keypoint_std[..., None] / cell
        terms = {}
        if self.net.config.keypoints == "kblock":
            loss = losses.kblock_loss(described.points, described.std, truth,
                                      self.config.regulariser, truth_std)
            if self.config.vote_weight:
                votes = self.net.axis_votes(described.maps)
                terms["vote"] = losses.vote_loss(votes, truth, truth_std).mean()
        else:
            loss = losses.heatmap_loss(described.maps, truth, GAUSSIAN_CELLS)
        terms["keypoint"] = loss.mean()
        error_px = ((described.points - truth) * cell).norm(dim=2).detach()
        terms["keypoint_percent"] = losses.keypoint_percent(error_px, batch.visible, batch.boxes)
        return terms

    def _body_terms(self, described: Described, boxes: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Terms of the people with a known body, in boxes (N, 4) px."""
        known = batch.theta.isfinite().flatten(1).all(1)
        if not known.any():
            return {}
        quats, betas = described.quats[known], described.betas[known]
        camera_rotmat = camera_from_box(boxes[known], batch.camera[known])
        true_quats = root_rotated(batch.theta[known], camera_rotmat.mT)
        unit = nn.functional.normalize(quats, dim=2)
        if self.config.as_printed:
            pose = losses.pose_loss_as_printed(quats, true_quats)
        else:
            pose = losses.pose_loss(unit, true_quats) + losses.unit_norm_loss(quats)
        true_betas = batch.betas[known]
        true_betas = torch.where(true_betas.isfinite(), true_betas, betas.detach())
        theta = root_rotated(unit, camera_rotmat)
        joints = self._body[0](theta, betas, with_vertices=False).joints
        true_joints = batch.joints[known]
        error_m = (joints - true_joints).norm(dim=2).detach()
        return {"shape": losses.shape_loss(betas, true_betas).mean(), "pose": pose.mean(),
                "smpl": losses.smpl_loss(joints, true_joints).mean(),
                "mpjpe_mm": _MM * error_m.nanmean()}


def jittered(boxes: Tensor, seed: int) -> Tensor:
    """Return true boxes (N, 4) px with the errors of detected ones."""
    random = torch.Generator().manual_seed(seed)
    move, grow = torch.randn(2, len(boxes), 2, generator=random).to(boxes)
    size = boxes[:, 2:] - boxes[:, :2]
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2 + _JITTER_SHIFT * move * size
    half = size / 2 * (_JITTER_SIZE * grow).exp()
    return torch.cat([centre - half, centre + half], 1)


def _truths(batch: Batch) -> list[Truth]:
    """Return the true boxes of each image, relative to it."""
    side = batch.images.shape[-1]
    truths: list[Truth] = []
    for i, ignored in enumerate(batch.ignored):
        people = _by_centre(batch.boxes[batch.image == i] / side)
        truths.append((people, _by_centre(ignored / side) if batch.complete[i] else None))
    return truths


def _by_centre(boxes: Tensor) -> Tensor:
    """Return boxes (N, 4) by corners as x, y of the centre, width and height."""
    return torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], 1)


def _queries_of(queries: Tensor, matches: list[tuple[Tensor, Tensor]], batch: Batch) -> Tensor:
    """Return the query (N, width) matched with each person; see `match` for the matches."""
    out = queries.new_zeros(len(batch.boxes), queries.shape[-1])
    for i, (query, person) in enumerate(matches):
        rows = (batch.image == i).nonzero()[:, 0]
        out[rows[person]] = queries[i, query]
    return out
