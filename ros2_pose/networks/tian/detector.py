"""The network of Tian, Gao and Tan 2023 as one that the pipeline can use.

`network.py` has its layers. The 2D-3D correction, Algorithm 1, is applied on request where the
camera is known; the pipeline does without it, because its body layer corrects.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ros2_pose import oks
from ros2_pose.body.align import align_model
from ros2_pose.body.correct import correct
from ros2_pose.body.model import BodyModel
from ros2_pose.camera import Camera
from ros2_pose.config import PoseConfig
from ros2_pose.networks.base import PoseNetwork, TorchNetwork, grey_letterbox, input_size
from ros2_pose.networks.checkpoint import load_layers
from ros2_pose.networks.engine import on_host
from ros2_pose.networks.tian import roi
from ros2_pose.networks.tian.network import TianNet
from ros2_pose.networks.tian.smpl_head import camera_from_ray, root_rotated
from ros2_pose.people import Frame, People

_LOST = 0.25  # of the box: a standard deviation at which a joint counts as not found
_VARIANTS = {"fpn": "FPN", "direct": "direct multi-scale"}  # titles by `TianConfig.features`


class Tian(TorchNetwork):
    """Detector of people with keypoints and, where the camera is known, SMPL bodies."""

    def __init__(self, config: PoseConfig = PoseConfig(), device: torch.device | str = "cpu",
                 net: TianNet | None = None, correct: bool = False) -> None:
        """Load the network.

        Args:
            config: settings; read is `checkpoint`.
            device: torch device that the network computes on.
            net: layers to use in place of the checkpoint's.
            correct: apply Algorithm 1, repaired, where the camera is known.
        """
        super().__init__(config, device)
        self.net = load_layers(config.checkpoint, TianNet) if net is None else net
        self.net.eval().to(device, memory_format=torch.channels_last)
        self.correct, self.body = correct, BodyModel.load()

    @classmethod
    def title(cls, config: PoseConfig) -> str:
        """Return the network and its checkpoint, e.g. "tian, as shipped"."""
        return f"{config.network}, {config.checkpoint or 'as shipped'}"

    @property
    def rotation_std(self) -> Tensor:
        """Standard deviation (24,) of theta's rotations, rad, as measured after training."""
        return self.net.rotation_std

    def variants(self) -> dict[str, PoseNetwork]:
        """Return the network alone and with the correction: rows of Table 1 of the paper."""
        title = _VARIANTS[self.net.config.features]
        corrected = Tian(self.config, self.device, self.net, correct=True)
        corrected.configure(self.score_threshold, self.max_people)
        return {title: self, f"{title} + correction": corrected}

    def prepare(self, image: np.ndarray) -> list[Tensor]:
        """Return the image (3, h, w) at the network's size, 0..255, padded for its strides."""
        return [grey_letterbox(image, self.net.picture_size, self.net.config.shrink)]

    def forward(self, batch: Tensor) -> tuple[list[Tensor], ...]:
        """Detect and describe the people of images (B, 3, h, w).

        Returns:
            Lists with one tensor an image: scores (P,), boxes (P, 4) px, keypoints (P, 17, 2) px
            and their variances px^2, in px of the input; quat_xyzw (P, 24, 4) and betas (P, 10).
        """
        batch = batch.float()
        found = self.net.detect(batch)
        logits, relative_boxes = found.layers[-1]
        count = min(self.max_people, found.queries.shape[1])
        scores, queries = logits.sigmoid().topk(count, dim=1)
        image, rank = (scores >= self.score_threshold).nonzero(as_tuple=True)
        query = queries[image, rank]
        size = batch.new_tensor(batch.shape[:1:-1]).repeat(2)
        boxes = roi.corners(relative_boxes[image, query]) * size
        described = self.net.describe(batch, found.maps, boxes, image, found.queries[image, query])
        keypoints, variance = self.net.in_px(boxes, described)
        values = (scores[image, rank], boxes, keypoints, variance, described.quats,
                  described.betas)
        return tuple([value[image == i] for i in range(len(batch))] for value in values)

    def decode(self, raw: list[tuple], frame: Frame) -> People:
        """Return the people of one frame; with theta, betas, root and joints if it has a camera."""
        height, width = frame.image.shape[:2]
        input_px = torch.tensor(input_size((width, height), self.net.config.picture_size))
        scale = torch.tensor((width, height)).double() / input_px
        scores, boxes, points, variance, quats, betas = (v.double() for v in on_host(raw[0]))
        side = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1)[:, None]
        relative_std = (variance.sqrt() / side).amax(2)
        keypoint_scores = (1 - relative_std / _LOST).clamp(0, 1)
        # The joints of a false or cut detection are uncertain.
        scores = scores * keypoint_scores.mean(1).sqrt()
        people = People(boxes=(boxes * scale.repeat(2)).numpy().clip(0, (width, height) * 2),
                        scores=scores.numpy(), keypoints=(points * scale).numpy(),
                        keypoint_cov=(variance * scale**2).diag_embed().numpy(),
                        keypoint_scores=keypoint_scores.numpy())
        keep = oks.suppress(people.keypoints, oks.area(people.boxes), people.scores,
                            self.score_threshold)
        people = people[keep]
        if frame.camera is None or not len(people):
            return people
        return self._with_bodies(people, quats[keep], betas[keep], frame.camera)

    def _with_bodies(self, people: People, quats: Tensor, betas: Tensor,
                     camera: Camera) -> People:
        """Add the SMPL head's bodies, placed to fit the keypoints by Algorithm 1, repaired.

        Args:
            people: without bodies.
            quats (P, 24, 4): quat_xyzw, the root's in the frame of the ray through the box.
            betas (P, 10): SMPL shape.
            camera: of the frame.
        """
        centre = (people.boxes[:, :2] + people.boxes[:, 2:]) / 2
        camera_rotmat = camera_from_ray(torch.from_numpy(camera.normalise(centre)))
        theta = root_rotated(F.normalize(quats, dim=2), camera_rotmat)
        model = self.body(theta.float(), betas.float(), with_vertices=False)
        points, cov = (torch.from_numpy(value) for value in
                       camera.normalise_with_cov(people.keypoints, people.keypoint_cov))
        model_points = model.keypoints.double()
        model_cov = float(self.net.model_std)**2 * torch.eye(3).expand(*points.shape[:2], 3, 3)

        aligned, rotmat, _, _, is_aligned = align_model(points, cov, model_points, model_cov)
        root = (aligned - model_points @ rotmat.mT).nanmean(1)
        joints = model.joints.double() @ rotmat.mT + root[:, None]
        bodies = {"theta": root_rotated(theta, rotmat), "betas": betas, "root": root,
                  "joints": joints}
        for name, value in bodies.items():
            ok = is_aligned.view(-1, *[1] * (value.dim() - 1))
            bodies[name] = torch.where(ok, value, torch.nan)
        people = people.with_fields(**{name: value.numpy() for name, value in bodies.items()})
        if not self.correct:
            return people

        points, cov, _, is_corrected = correct(points, cov, model_points, model_cov)
        pixels, pixel_cov = camera.distort_with_cov(points.numpy(), cov.numpy())
        ok = is_corrected.numpy()[:, None, None]
        return people.with_fields(
            keypoints=np.where(ok, pixels, people.keypoints),
            keypoint_cov=np.where(ok[..., None], pixel_cov, people.keypoint_cov))
