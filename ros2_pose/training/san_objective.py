"""The Self-Attention Network with its losses: L1 of the means of the votes, and cross-entropy."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ros2_pose.body.model import BodyModel
from ros2_pose.body.placement import mean_lengths2, placed_joints
from ros2_pose.imaging.person_view import MARGIN
from ros2_pose.networks.san.network import CUBE_M, STRIDE, K, SanNet
from ros2_pose.networks.tian.smpl_head import camera_from_box
from ros2_pose.training.augment import CROP_FACTOR, Batch
from ros2_pose.training.config import TrainingConfig
from ros2_pose.training.losses import keypoint_percent, vote_loss

_FITTED_STD = 1.0  # cells, of joints of bodies that were fitted to labels
_LEAST_SHOWN = 4  # visible keypoints of a person who counts
_POSED, _GUESS_STD = 0.7, 0.04  # share of people found with keypoints; errors in box sides
_CROP_STEP = 32  # px: sides of a refiner's crops are multiples of it
_MM = 1000.0


class SanObjective(nn.Module):
    """The network and its losses as one module, as training on several GPUs requires."""

    def __init__(self, net: SanNet, config: TrainingConfig, body: BodyModel) -> None:
        super().__init__()
        self.net, self.config = net, config
        self._body = [body]  # in a list: not a submodule, it has nothing to train

    def forward(self, batch: Batch, seed: int) -> dict[str, Tensor]:
        """Compute the terms of the loss of a batch of crops with one person each.

        Args:
            batch: crops and their people; crops without a person do not count.
            seed: of the crops that are narrowed, and of what the finder told of the people.
        Returns:
            Terms, means over people: "keypoint", L1 of x, y and z, of all joints; "vote", the
            cross-entropy of the votes; "joint", L1 of the joints as they are placed in space;
            "total", their weighted sum; for the log "keypoint_percent" of the box's diagonal and
            "mpjpe_mm", of joints relative to the pelvis.
        """
        batch = _shown(batch)
        if not len(batch.boxes):
            return {"total": sum(0 * w.sum() for w in self.net.parameters() if w.requires_grad)}
        crops, guess = batch.images[batch.image].float(), None
        if self.net.training:
            crops, guess = narrowed(crops, batch.boxes, seed), guessed(batch, seed)
        out = self.net(crops, guess)
        truth, std = self.truth(batch)
        cell_m = CUBE_M * STRIDE / self.net.picture_size
        read = torch.cat([out["keypoints"], out["joints"][:, K:, :2]], 1)
        found = torch.cat([read, out["joints"][..., 2:] / cell_m], 2)
        error = self.placed(out, batch) - batch.joints
        terms = {"keypoint": (_known(found - truth) / (1 + std.square())).sum((1, 2)).mean(),
                 "joint": _known(error / cell_m).sum((1, 2)).mean(),
                 "vote": self._vote_loss(out, truth, std).mean()}
        total = self.config.keypoint_weight * terms["keypoint"] \
            + self.config.smpl_weight * terms["joint"] + self.config.vote_weight * terms["vote"]
        off = STRIDE * (out["keypoints"] - truth[:, :K, :2]).norm(dim=2)
        percent = keypoint_percent(off, batch.visible, batch.boxes)
        return terms | {"total": total, "keypoint_percent": percent.detach(),
                        "mpjpe_mm": _MM * error.detach().norm(dim=2).nanmean()}

    def truth(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the true x, y and z (N, 41, 3) of all joints, and their std (N, 41, 1), in cells.

        A cell along the line of sight has the extent of one across it if the crop shows 2.2 m.
        Values that are not known, and joints beyond the crop, are NaN.
        """
        cells = self.net.picture_size / STRIDE
        points = torch.cat([batch.keypoints, batch.projected_joints()], 1) / STRIDE
        inside = ((points > 0) & (points < cells)).all(2, keepdim=True)
        z = _along_view(self._positions(batch), batch, self.net.picture_size)
        depth = z[..., None] * cells / CUBE_M
        depth = torch.where(depth.abs() < cells / 2, depth, torch.nan)
        truth = torch.where(inside, torch.cat([points, depth], 2), torch.nan)
        std = batch.keypoint_std / STRIDE
        fitted = torch.where((std > 0).any(1, keepdim=True), _FITTED_STD, 0.0)
        joints_std = fitted.expand(-1, truth.shape[1] - K)
        return truth, torch.cat([std, joints_std], 1)[..., None].nan_to_num()

    def _positions(self, batch: Batch) -> Tensor:
        """Return keypoints and joints (N, 41, 3) m from the pelvis, camera axes; NaN: unknown."""
        posed = batch.theta.isfinite().flatten(1).all(1) & batch.betas.isfinite().all(1)
        keypoints = batch.keypoints.new_full((len(posed), K, 3), torch.nan)
        if posed.any():
            body = self._body[0](batch.theta[posed], batch.betas[posed], with_vertices=False)
            keypoints[posed] = body.keypoints - body.joints[:, :1]
        return torch.cat([keypoints, batch.joints], 1)

    def _vote_loss(self, out: dict[str, Tensor], truth: Tensor, std: Tensor) -> Tensor:
        """Return the cross-entropy (N,) of the votes for x, y and z."""
        across = (out["maps"].logsumexp(-2), out["maps"].logsumexp(-1))
        loss = vote_loss(across, truth[..., :2], std.expand(-1, -1, 2))
        ratio = out["depth"].shape[-1] * STRIDE / self.net.picture_size
        depth = ratio * truth[..., 2:] + out["depth"].shape[-1] / 2
        return loss + vote_loss((out["depth"],), depth, ratio * std)

    def placed(self, out: dict[str, Tensor], batch: Batch) -> Tensor:
        """Return the joints (N, 24, 3) m from the pelvis, camera axes; NaN: unknown camera."""
        joints = out["joints"][:, K:]
        rays, view = _rays(STRIDE * joints[..., :2], batch, self.net.picture_size)
        rays = rays / (rays * view[:, None]).sum(2, keepdim=True)
        lengths2 = out["size"].square() * mean_lengths2()
        placed, _ = placed_joints(rays, joints[..., 2] - joints[:, :1, 2], lengths2)
        placed = torch.where(batch.camera.isfinite().all(1)[:, None, None], placed, torch.nan)
        return placed - placed[:, :1]


def _known(error: Tensor) -> Tensor:
    """Return absolute errors (...), 0 where the truth is not known."""
    return torch.where(error.isfinite(), error, 0.0).abs()


def _shown(batch: Batch) -> Batch:
    """Return the batch without the people of whom the crop shows too little."""
    side = batch.images.shape[-1]
    inside = ((batch.keypoints > 0) & (batch.keypoints < side)).all(2)
    shown = (inside & batch.visible).sum(1) >= _LEAST_SHOWN
    per_person = Batch._fields[Batch._fields.index("image"):]
    return batch._replace(**{name: getattr(batch, name)[shown] for name in per_person})


def narrowed(crops: Tensor, boxes: Tensor, seed: int) -> Tensor:
    """Blacken what a narrow crop of the person would lack, in half of the crops (N, 3, S, S).

    Args:
        boxes (N, 4): of the people, px.
        seed: of the choice.
    """
    random = torch.Generator().manual_seed(seed)
    chosen = torch.rand(len(crops), generator=random).to(crops.device) < 0.5
    side = crops.shape[-1]
    size = boxes[:, 2:] - boxes[:, :2]
    share = MARGIN / CROP_FACTOR * size / size.amax(1, keepdim=True)
    half = (share * side / _CROP_STEP).ceil() * _CROP_STEP / 2
    centre = (boxes[:, 2:] + boxes[:, :2]) / 2
    pixels = torch.arange(side, device=crops.device) + 0.5
    kept_x, kept_y = (((pixels - centre[:, axis, None]).abs() < half[:, axis, None])
                      | ~chosen[:, None] for axis in (0, 1))
    return crops * (kept_y[:, None, :, None] & kept_x[:, None, None])


def guessed(batch: Batch, seed: int) -> Tensor:
    """Return keypoints (N, 17, 2) px as a finder states them; NaN for people found by a box."""
    random = torch.Generator().manual_seed(seed)
    chosen = torch.rand(len(batch.boxes), generator=random) < _POSED
    noise = torch.randn(batch.keypoints.shape, generator=random).to(batch.keypoints)
    size = (batch.boxes[:, 2:] - batch.boxes[:, :2]).amax(1)
    guess = batch.keypoints + _GUESS_STD * size[:, None, None] * noise
    return torch.where(chosen.to(guess.device)[:, None, None], guess, torch.nan)


def _along_view(positions: Tensor, batch: Batch, side: int) -> Tensor:
    """Return the components (N, J) of positions (N, J, 3) along the view to the crops' middle."""
    return (positions * _view(batch, side)[:, None]).sum(2)


def _view(batch: Batch, side: int) -> Tensor:
    """Return unit vectors (N, 3) to the middle of the crops; to the front without a camera."""
    whole = batch.boxes.new_tensor([[0.0, 0.0, side, side]]).expand(len(batch.boxes), -1)
    return camera_from_box(whole, batch.camera)[:, :, 2]


def _rays(points: Tensor, batch: Batch, side: int) -> tuple[Tensor, Tensor]:
    """Return rays (N, J, 3) through points (N, J, 2) px, at depth 1, and `_view`.

    Without a camera, they are those of any camera: NaN would spoil the gradients of others.
    """
    camera = torch.where(batch.camera.isfinite(), batch.camera, float(side))[:, None]
    across = (points - camera[..., 2:]) / camera[..., :2]
    return torch.cat([across, torch.ones_like(across[..., :1])], 2), _view(batch, side)
