"""Layers of Tian, Gao and Tan 2023: Deformable DETR, feature pyramid, k-block and SMPL head.

One pass detects people (Deformable DETR's queries), samples each one's box from the feature
pyramid, reads 17 keypoints with their uncertainties from it (k-block), and estimates theta and
betas (SMPL head).

Beyond the paper, the SMPL head also sees the box's features and the votes, because a query alone
says little of limbs, and starts from the body that the lift (`body/lift.py`), which was trained on
a hundred times more poses than there are pictures, estimates from the votes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ros2_pose.body.lift import Lift
from ros2_pose.networks.kblock import kblock
from ros2_pose.networks.tian import roi
from ros2_pose.networks.tian.config import TianConfig
from ros2_pose.networks.tian.deformable_detr import channels, deformable_detr, pixel_statistics
from ros2_pose.networks.tian.second_look import SecondLook
from ros2_pose.networks.tian.smpl_head import (
    SmplHead,
    camera_from_box,
    root_rotated,
    with_canonical_signs,
)
from ros2_pose.networks.trainable import TrainableNet
from ros2_pose.networks.votes import read_votes
from ros2_pose.skeleton import COCO17, SMPL24

_K, _J = len(COCO17), len(SMPL24)
_STD_CELLS = (0.3, 16.0)  # bounds of the votes' standard deviation, of 32 cells
GAUSSIAN_CELLS = 2.0  # standard deviation of a heat-map's target, in cells


class Detected(NamedTuple):
    """Outputs of Deformable DETR and the pyramid for B images.

    The detections of a layer are logits (B, Q) of being a person, and boxes (B, Q, 4): centre and
    size, relative to the image.
    """

    layers: list[tuple[Tensor, Tensor]]  # of the decoder; the last one's are the result
    proposals: tuple[Tensor, Tensor] | None  # of the encoder, one a token
    queries: Tensor  # (B, Q, width)
    maps: list[Tensor]  # (B, roi_width, h, w) the pyramid, strides 4 to 32


class Described(NamedTuple):
    """Keypoints and bodies of N people in their boxes."""

    maps: Tensor  # (N, 17, cells, cells) logits; with a second look, log-votes of the cells
    points: Tensor  # (N, 17, 2) x, y in cells of the region
    std: Tensor  # (N, 17, 2) cells
    quats: Tensor  # (N, 24, 4) quat_xyzw, not of unit length; the root's in the ray's frame
    betas: Tensor  # (N, 10)


class TianNet(TrainableNet):
    """The layers that training and inference share."""

    NAME = "tian"
    CONFIG = TianConfig
    PARTS = {"detection": ("detr",), "people": ("pyramid", "map_head", "log_temperature",
                                                "smpl_head", "second_look")}
    config: TianConfig
    turn_std: Tensor
    model_std: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, config: TianConfig = TianConfig()) -> None:
        super().__init__(config)
        self.detr = deformable_detr(config)
        self.pyramid = roi.Pyramid(channels(config), config.roi_width, config.features == "fpn")
        self.roi_cells = config.cells // config.shrink
        self.map_head = roi.MapHead(config.roi_width, config.roi_layers, _K, self.roi_cells)
        self.second_look = SecondLook() if config.second_look else None
        # The k-block's votes are sums, at first.
        self.log_temperature = nn.Parameter(torch.tensor(-math.log(self.roi_cells)))
        self.lift = Lift.load()
        self.smpl_head = SmplHead(config.width + self.map_head.summary + 4 * _K)
        # Measured after training, as `votes` and `floor`.
        self.register_buffer("turn_std", torch.full((_J,), 0.4))  # rad; the name in checkpoints
        self.register_buffer("model_std", torch.tensor(0.06))  # m, of the SMPL head's keypoints
        mean, std = pixel_statistics(config)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    @property
    def rotation_std(self) -> Tensor:
        """Standard deviation (24,) of theta's rotations, rad."""
        return self.turn_std

    @property
    def picture_size(self) -> int:
        """Long side of the pictures, px."""
        return self.config.picture_size

    @property
    def backbone(self) -> nn.Module:
        """Layers of the backbone."""
        return self.detr.model.backbone

    def load_pretrained(self, detector: str) -> None:
        """Load a Deformable DETR trained on COCO, or else a backbone trained on ImageNet.

        Args:
            detector: its name on Hugging Face or a folder; empty: the backbone alone.
        """
        if detector:
            from ros2_pose.networks.tian.coco_detr import load_coco
            load_coco(self, detector)
        elif self.config.backbone == "efficientnet_lite0":
            self.detr.model.backbone.model.levels.load_imagenet()

    def lengths(self, boxes: Tensor) -> Tensor:
        """Return width and height (N, 2) px of the regions that boxes (N, 4) are read from."""
        regions = self.regions(boxes)
        return regions[:, 2:] - regions[:, :2]

    def is_given(self, name: str) -> bool:
        """Return whether a weight comes with a part that is not trained: checkpoints lack it."""
        if name.startswith(("lift.", "second_look.graph.")):
            return True
        backbone_stays = self.config.backbone == "movenet" and self.config.frozen == "all"
        return backbone_stays and name.startswith("detr.model.backbone.")

    def detect(self, images: Tensor) -> Detected:
        """Detect people in images (B, 3, H, W), RGB, 0..255; H and W are `picture_size` at most."""
        if self.config.shrink > 1:
            images = F.avg_pool2d(images, self.config.shrink)
        normalised = (images - self.mean) / self.std
        normalised = normalised.contiguous(memory_format=torch.channels_last)
        features: list[Tensor] = []  # of the backbone, which the pyramid reads, too
        backbone = self.detr.model.backbone.model.levels
        hook = backbone.register_forward_hook(lambda _, __, levels: features.extend(levels))
        try:
            found = self.detr.model(normalised)
        finally:
            hook.remove()
        proposals = None
        if found.enc_outputs_class is not None:
            proposals = (found.enc_outputs_class[..., 0],
                         found.enc_outputs_coord_logits.sigmoid())
        return Detected(self._layers(found), proposals, found.last_hidden_state,
                        self.pyramid(features))

    def _layers(self, found) -> list[tuple[Tensor, Tensor]]:
        """Apply the decoder's heads: each layer moves the boxes that it started from."""
        layers, reference = [], found.init_reference_points
        for number in range(found.intermediate_hidden_states.shape[1]):
            hidden = found.intermediate_hidden_states[:, number]
            logits = self.detr.class_embed[number](hidden)[..., 0]
            start = torch.logit(reference, 1e-5)
            start = F.pad(start, (0, 4 - start.shape[-1]))  # of points, sizes start at 0.5
            boxes = (self.detr.bbox_embed[number](hidden) + start).sigmoid()
            layers.append((logits, boxes))
            reference = found.intermediate_reference_points[:, number]
        return layers

    def describe(self, images: Tensor, maps: list[Tensor], boxes: Tensor, image: Tensor,
                 queries: Tensor) -> Described:
        """Estimate keypoints and bodies of N people.

        Args:
            images (B, 3, H, W): RGB, 0..255.
            maps: the pyramid (B, roi_width, h, w) of B images.
            boxes (N, 4): x min, y min, x max, y max, px of the images.
            image (N,): index of the image of each box.
            queries (N, width): that found the boxes.
        """
        regions = self.regions(boxes)
        features = roi.roi_align(maps, regions / self.config.shrink, image, self.roi_cells)
        joints, summary = self.map_head(features)
        joints = joints.float()  # half precision would resolve votes to a tenth of a cell
        places = None
        if self.second_look is not None:
            votes, places = self.second_look(images, regions, image)
            joints = votes + self._upsampled(joints)
        points, std = self.read(joints, places)
        votes = torch.cat([points, std], 2).flatten(1) / self.config.cells - 0.5
        size = boxes.new_tensor(images.shape[:1:-1])
        initial_body = self._lifted(boxes, points, std, size)
        features = torch.cat([queries, summary, votes], 1)
        quats, betas = self.smpl_head(features, *initial_body)
        return Described(joints, points, std, quats, betas)

    def regions(self, boxes: Tensor) -> Tensor:
        """Return the regions (N, 4) that people in boxes (N, 4) are read from."""
        boxes = roi.square(boxes) if self.config.second_look else boxes
        return roi.enlarged(boxes, self.config.box_factor)

    def axis_votes(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits of the votes (N, 17, cells) for x and y, of `Described.maps`."""
        if self.second_look is not None:
            return maps.logsumexp(-2), maps.logsumexp(-1)
        return self._kblock_votes(maps)

    def _kblock_votes(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Return the k-block's logits (N, 17, w) for x and (N, 17, h) for y of maps (.., h, w)."""
        temperature = self.log_temperature.exp()
        return maps.mean(-2) / temperature, maps.mean(-1) / temperature

    def _upsampled(self, maps: Tensor) -> Tensor:
        """Return the k-block's votes of maps (N, 17, roi_cells, roi_cells), on all cells."""
        x, y = (F.interpolate(votes, self.config.cells, mode="linear")
                for votes in self._kblock_votes(maps))
        return x[..., None, :] + y[..., :, None]

    def read(self, maps: Tensor, places: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Read joints from maps (N, 17, cells, cells).

        Args:
            places (N, 17, 2, cells, cells): what cells vote for, with a second look.

        Returns:
            Points x, y and standard deviations (N, 17, 2), in cells.
        """
        if self.second_look is not None:
            assert places is not None
            return read_votes(maps, places)
        if self.config.keypoints == "heatmap":
            return _peaks(maps)
        points, std = kblock(maps, self.log_temperature.exp())
        scale = self.config.cells / 32
        return points, std.clamp(_STD_CELLS[0] * scale, _STD_CELLS[1] * scale)

    @torch.no_grad()
    def _lifted(self, boxes: Tensor, points: Tensor, std: Tensor,
                size: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Lift keypoints to bodies, seen by a camera with a focal length of the longer side.

        The real focal length changes the perspective alone, and that a little.

        Args:
            boxes (N, 4): px.
            points, std (N, 17, 2): cells of the regions.
            size (2,): width and height of the images, px.
        Returns:
            quat_xyzw (N, 24, 4), the root's in the ray's frame; betas (N, 10); rotation_std
            (N, 24) rad.
        """
        regions = self.regions(boxes)
        cell, focal = roi.cell_size(regions, self.config.cells)[:, None], size.max()
        pixels = regions[:, None, :2] + points * cell
        variance = (std * cell / focal).square()
        with torch.autocast(boxes.device.type, enabled=False):
            lifted = self.lift((pixels - size / 2) / focal, variance.diag_embed())
        best = lifted.logits.argmax(1)
        people = torch.arange(len(boxes), device=boxes.device)
        camera = torch.cat([focal.expand(2), size / 2]).expand(len(boxes), -1)
        ray_from_camera = camera_from_box(boxes, camera).mT
        quats = root_rotated(lifted.theta[people, best], ray_from_camera)
        return (with_canonical_signs(quats), lifted.betas[people, best],
                lifted.rotation_std[people, best])

    def in_px(self, boxes: Tensor, described: Described) -> tuple[Tensor, Tensor]:
        """Return keypoints (N, 17, 2) px and their variances px^2 of people in boxes (N, 4) px."""
        regions = self.regions(boxes)
        side = (regions[:, 2:] - regions[:, :2])[:, None]
        cells = self.config.cells
        variance = self.votes[:, None] * (described.std / cells).square() + self.floor[:, None]
        return regions[:, None, :2] + described.points / cells * side, variance * side.square()


def _peaks(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Return the peaks (N, 17, 2) of heat-maps and their standard deviations (N, 17, 2), cells.

    A peak is the highest cell, moved by a quarter of a cell towards its higher neighbour; the lower
    it is, the greater its standard deviation. Source: Newell et al. 2016.
    """
    height, width = maps.shape[-2:]
    best, index = maps.flatten(2).max(2)
    row, column = index // width, index % width
    padded = F.pad(maps, (1, 1, 1, 1), value=-math.inf)
    people = torch.arange(len(maps), device=maps.device)[:, None]
    joint = torch.arange(maps.shape[1], device=maps.device)

    def towards_higher(down: int, right: int) -> Tensor:
        after = padded[people, joint, row + 1 + down, column + 1 + right]
        before = padded[people, joint, row + 1 - down, column + 1 - right]
        return torch.sign(after - before) / 4

    points = torch.stack([column + 0.5 + towards_higher(0, 1), row + 0.5 + towards_higher(1, 0)], 2)
    std = GAUSSIAN_CELLS / best.clamp(0.1, 1)
    return points, std[..., None].expand(-1, -1, 2)
