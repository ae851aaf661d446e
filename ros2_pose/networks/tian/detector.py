"""The network of Tian, Gao and Tan 2023: Deformable DETR, a pyramid, the k-block, an SMPL head.

One pass finds people (Deformable DETR's queries), samples each one's box from the feature pyramid,
reads 17 keypoints with their uncertainties from it (k-block), and gives theta and betas (SMPL
head). The 2D-3D correction, Algorithm 1, is applied where the camera is known.

Beyond the paper: the SMPL head also sees the box's features and the votes, because a query alone
knows little of limbs, and starts from what the lift (`body/lift.py`), which has seen a hundred
times more poses than any pictures show, makes of the votes; it tells the facing relative to the
ray through the box's centre, because that is what a picture shows.
"""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ros2_pose import oks
from ros2_pose.body.align import align_model
from ros2_pose.body.correct import correct
from ros2_pose.body.lift import Lift, towards
from ros2_pose.body.model import BodyModel
from ros2_pose.camera import Camera
from ros2_pose.config import ConfigError, PoseConfig, from_dict, setting
from ros2_pose.errors import PoseError
from ros2_pose.geometry import quat_from_rotmat, quat_product
from ros2_pose.networks import efficientnet_lite, movenet_backbone
from ros2_pose.networks.base import PoseNetwork, input_size, padded_length
from ros2_pose.networks.kblock import kblock
from ros2_pose.networks.tian import roi
from ros2_pose.people import Frame, People
from ros2_pose.skeleton import COCO17, SMPL24

_K, _J = len(COCO17), len(SMPL24)
# Mean and deviation, RGB, of the 0..255 that a backbone was trained with.
_IMAGENET = (123.7, 116.3, 103.5), (58.4, 57.1, 57.4)
_PIXELS = {"movenet": ((0.0,) * 3, (1.0,) * 3), "efficientnet_lite0": ((127.0,) * 3, (128.0,) * 3)}
_RESNETS = {"resnet18": ("basic", (2, 2, 2, 2), (64, 128, 256, 512)),
            "resnet50": ("bottleneck", (3, 4, 6, 3), (256, 512, 1024, 2048))}
_OTHERS = {"movenet": movenet_backbone, "efficientnet_lite0": efficientnet_lite}
_STD_CELLS = (0.3, 16.0)  # least and greatest deviation of votes in 32 cells
SHIPPED = Path(__file__).parents[1] / "data" / "tian_tiny.pt"
PAD = 114  # grey beside a picture
_LOST = 0.25  # of the box: votes that deviate so much have not found a joint
GAUSSIAN_CELLS = 2.0  # deviation of the bump that a heat-map head learns, of 32 cells


class CheckpointError(PoseError):
    """A checkpoint that is none, or of another network; the message says which."""


@dataclass(frozen=True)
class TianConfig:
    """What the network is made of."""

    backbone: str = setting("efficientnet_lite0", "what sees the picture",
                            choices=("movenet", "efficientnet_lite0", *_RESNETS))
    frozen: str = setting("all", "which of MoveNet's features stay as they are; fine: of strides "
                          "below 8", choices=movenet_backbone.FROZEN)
    input_size: int = setting(256, "long side of the input, px", low=64, high=2048)
    width: int = setting(128, "of Deformable DETR's tokens", low=32, high=512)
    encoder_layers: int = setting(1, "of Deformable DETR", low=1, high=12)
    decoder_layers: int = setting(3, "of Deformable DETR", low=1, high=12)
    heads: int = setting(8, "of attention", low=1, high=16)
    points: int = setting(2, "that a head of the encoder looks at on each level", low=1, high=8)
    ffn: int = setting(256, "width between the layers", low=32, high=4096)
    levels: int = setting(3, "of features that attention looks at", low=3, high=5)
    queries: int = setting(30, "people at most, and room to choose", low=1, high=900)
    two_stage: bool = setting(True, "queries start from what the encoder proposes")
    box_refine: bool = setting(True, "each layer of the decoder starts from the last one's boxes")
    features: str = setting("fpn", "what boxes are sampled from: the pyramid, or each level of the "
                            "backbone by itself (Table 1 of the paper)", choices=("fpn", "direct"))
    keypoints: str = setting("kblock", "how a map tells a joint's place: votes, or the peak of a "
                             "Gaussian", choices=("kblock", "heatmap"))
    cells: int = setting(32, "of a joint's map, each way", low=8, high=128)
    roi_width: int = setting(64, "of a box's features", low=16, high=512)
    roi_layers: int = setting(2, "of convolutions on a box's features", low=0, high=8)
    box_factor: float = setting(1.25, "how much larger than the box its features are sampled",
                                low=1.0, high=2.0)

    def __post_init__(self) -> None:
        if self.input_size % 32:
            raise ConfigError(f"input_size: {self.input_size} must be a multiple of 32")
        if self.two_stage and not self.box_refine:
            raise ConfigError("two_stage: what the encoder proposes is refined: set box_refine, or "
                              "two_stage to false")


class Layer(NamedTuple):
    """Detections of one layer for B images: logits (B, Q), boxes (B, Q, 4) as centre and size in
    parts of the image."""

    logits: Tensor
    boxes: Tensor


class Detected(NamedTuple):
    """What Deformable DETR and the pyramid say of B images."""

    layers: list[Layer]  # of the decoder, the last is the answer
    proposals: Layer | None  # of the encoder, one a token
    queries: Tensor  # (B, Q, width)
    maps: list[Tensor]  # the pyramid


class Described(NamedTuple):
    """N people."""

    maps: Tensor  # (N, 17, cells, cells) logits
    points: Tensor  # (N, 17, 2) in cells of the enlarged box
    std: Tensor  # (N, 17, 2) cells
    quats: Tensor  # (N, 24, 4) x, y, z, w, not of unit length; facing relative to the box's ray
    betas: Tensor  # (N, 10)


class _Start(NamedTuple):
    """N bodies that the SMPL head starts from."""

    quats: Tensor  # (N, 24, 4) facing relative to the box's ray
    betas: Tensor  # (N, 10)
    rotation_std: Tensor  # (N, 24) rad


class TianNet(nn.Module):
    """Layers alone: what training and inference share."""

    def __init__(self, config: TianConfig = TianConfig()) -> None:
        super().__init__()
        self.config = config
        self.detr = _deformable_detr(config)
        self.pyramid = roi.Pyramid(_channels(config), config.roi_width, config.features == "fpn")
        self.map_head = roi.MapHead(config.roi_width, config.roi_layers, _K, config.cells)
        self.log_temperature = nn.Parameter(torch.tensor(-math.log(config.cells)))  # sums, at first
        self.lift = Lift.load()
        self.smpl_head = _SmplHead(config.width + self.map_head.summary + 4 * _K)
        # Measured after training: variances are votes * c^2 + floor, in parts of the box.
        self.register_buffer("votes", torch.ones(_K))
        self.register_buffer("floor", torch.zeros(_K))
        self.register_buffer("turn_std", torch.full((_J,), 0.4))  # rad, of theta
        self.register_buffer("model_std", torch.tensor(0.06))  # m, of the SMPL head's keypoints
        mean, std = _PIXELS.get(config.backbone, _IMAGENET)
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def is_given(self, name: str) -> bool:
        """Whether a weight came with a part that does not learn: nobody needs it twice."""
        stays = self.config.backbone == "movenet" and self.config.frozen == "all"
        return name.startswith(("lift.", "detr.model.backbone.") if stays else "lift.")

    @property
    def _backbone(self) -> nn.Module:
        return self.detr.model.backbone.model.levels

    def _normalised(self, images: Tensor) -> Tensor:
        return ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def detect(self, images: Tensor, mask: Tensor | None = None) -> Detected:
        """People in images (B, 3, H, W), 0..255; mask (B, H, W) is 0 where an image is padded."""
        features: list[Tensor] = []  # what Deformable DETR sees, the pyramid takes, too
        hook = self._backbone.register_forward_hook(lambda _, __, levels: features.extend(levels))
        try:
            found = self.detr.model(self._normalised(images), pixel_mask=mask)
        finally:
            hook.remove()
        layers, start = [], found.init_reference_points
        for number in range(found.intermediate_hidden_states.shape[1]):
            hidden = found.intermediate_hidden_states[:, number]
            move = self.detr.bbox_embed[number](hidden)
            guess = torch.logit(start, 1e-5)
            boxes = (move + F.pad(guess, (0, 4 - guess.shape[-1]))).sigmoid()
            layers.append(Layer(self.detr.class_embed[number](hidden)[..., 0], boxes))
            start = found.intermediate_reference_points[:, number]
        proposals = None
        if found.enc_outputs_class is not None:
            proposals = Layer(found.enc_outputs_class[..., 0],
                              found.enc_outputs_coord_logits.sigmoid())
        return Detected(layers, proposals, found.last_hidden_state, self.pyramid(features))

    def describe(self, maps: list[Tensor], boxes: Tensor, image: Tensor,
                 queries: Tensor) -> Described:
        """Boxes (N, 4) px of images (N,), found by queries (N, width)."""
        enlarged = roi.enlarged(boxes, self.config.box_factor)
        joints, summary = self.map_head(roi.roi_align(maps, enlarged, image, self.config.cells))
        joints = joints.float()  # half precision would count votes to a tenth of a cell
        points, std = self.read(joints)
        votes = torch.cat([points, std], 2).flatten(1) / self.config.cells - 0.5
        height, width = maps[0].shape[-2:]
        start = self._lifted(boxes, points, std, roi.STRIDES[0] * boxes.new_tensor((width, height)))
        quats, betas = self.smpl_head(torch.cat([queries, summary, votes], 1), start)
        return Described(joints, points, std, quats, betas)

    def read(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Points and deviations (N, 17, 2) in cells, of maps (N, 17, cells, cells)."""
        if self.config.keypoints == "heatmap":
            return _peaks(maps)
        points, std = kblock(maps, self.log_temperature.exp())
        scale = self.config.cells / 32
        return points, std.clamp(_STD_CELLS[0] * scale, _STD_CELLS[1] * scale)

    @torch.no_grad()
    def _lifted(self, boxes: Tensor, points: Tensor, std: Tensor, size: Tensor) -> _Start:
        """What the lift takes people for whose keypoints (N, 17, 2) are in cells of boxes, seen by
        a usual camera: the real one's focal length changes perspective alone, and that a little."""
        enlarged = roi.enlarged(boxes, self.config.box_factor)
        cell, focal = roi.cell_size(enlarged, self.config.cells)[:, None], size.max()
        pixels = enlarged[:, None, :2] + points * cell
        variance = (std * cell / focal).square()
        with torch.autocast(boxes.device.type, enabled=False):
            lifted = self.lift((pixels - size / 2) / focal, variance.diag_embed())
        best = lifted.logits.argmax(1)
        people = torch.arange(len(boxes), device=boxes.device)
        quats, std = lifted.quats[people, best], lifted.rotation_std[people, best]
        camera = torch.cat([focal.expand(2), size / 2]).expand(len(boxes), -1)
        quats = along_ray(quats, camera_facing(boxes, camera).mT)
        opposite = (quats * _NEUTRAL.to(quats)).sum(2, keepdim=True) < 0  # q and -q are the same
        return _Start(torch.where(opposite, -quats, quats), lifted.betas[people, best], std)

    def in_px(self, boxes: Tensor, described: Described) -> tuple[Tensor, Tensor]:
        """Keypoints (N, 17, 2) px of people in boxes (N, 4) px, and their variances, px^2."""
        enlarged = roi.enlarged(boxes, self.config.box_factor)
        side = (enlarged[:, 2:] - enlarged[:, :2])[:, None]
        cells = self.config.cells
        variance = self.votes[:, None] * (described.std / cells).square() + self.floor[:, None]
        return enlarged[:, None, :2] + described.points / cells * side, variance * side.square()


class _SmplHead(nn.Module):
    """Theta (24 quaternions) and betas (10) of a person (Tian et al. 2023, section 2.3), as
    changes of a first guess."""

    def __init__(self, inputs: int, width: int = 512) -> None:
        super().__init__()
        inputs += 4 * _J + 10 + _J  # the first guess
        self.layers = nn.Sequential(nn.Linear(inputs, width), nn.LayerNorm(width), nn.GELU(),
                                    nn.Linear(width, width), nn.LayerNorm(width), nn.GELU())
        self.out = nn.Linear(width, 4 * _J + 10)
        nn.init.zeros_(self.out.bias)
        nn.init.normal_(self.out.weight, std=0.01)

    def forward(self, features: Tensor, start: _Start) -> tuple[Tensor, Tensor]:
        known = torch.cat([features, *(value.flatten(1) for value in start)], 1)
        quats, betas = self.out(self.layers(known)).split([4 * _J, 10], 1)
        return start.quats + quats.unflatten(1, (_J, 4)), start.betas + betas


# Facing the camera in the T-pose.
_NEUTRAL = torch.tensor([0.0, 0, 0, 1]).repeat(_J, 1)
_NEUTRAL[0] = torch.tensor([1.0, 0, 0, 0])


def _deformable_detr(config: TianConfig):
    """Deformable DETR (Zhu et al. 2021) of `transformers`, for one class."""
    try:
        from transformers import (
            DeformableDetrConfig,
            DeformableDetrForObjectDetection,
            ResNetConfig,
        )
    except ImportError as error:
        raise PoseError("network: tian needs more: pip install 'transformers>=5.20,<6'; "
                        "or set network to movenet") from error
    kind, depths, _ = _RESNETS.get(config.backbone) or ("basic", (1, 1, 1, 1), ())
    # Another backbone takes the place of a ResNet of as many channels.
    backbone = ResNetConfig(layer_type=kind, depths=list(depths), hidden_sizes=_channels(config),
                            out_features=["stage2", "stage3", "stage4"])
    detr = DeformableDetrForObjectDetection(DeformableDetrConfig(
        backbone_config=backbone, use_timm_backbone=False, num_labels=1, d_model=config.width,
        encoder_layers=config.encoder_layers, decoder_layers=config.decoder_layers,
        encoder_ffn_dim=config.ffn, decoder_ffn_dim=config.ffn, dropout=0.0,
        encoder_attention_heads=config.heads, decoder_attention_heads=config.heads,
        encoder_n_points=config.points, num_feature_levels=config.levels,
        num_queries=config.queries, with_box_refine=config.box_refine,
        two_stage=config.two_stage, two_stage_num_proposals=config.queries))
    if config.backbone in _RESNETS:
        _freeze_first_stage(detr.model.backbone.model)
        levels: nn.Module = _ResNetLevels(detr.model.backbone.model)
    else:
        levels = movenet_backbone.MoveNetBackbone(config.frozen) if config.backbone == "movenet" \
            else efficientnet_lite.EfficientNetLite()
    detr.model.backbone.model = _Coarse(levels)
    if config.box_refine and not config.two_stage:  # each layer's own, which `transformers` ties
        detr.class_embed = nn.ModuleList(copy.deepcopy(head) for head in detr.class_embed)
    for layer in detr.class_embed:
        nn.init.constant_(layer.bias, -math.log(99))  # one query in a hundred is a person
    for layer in detr.bbox_embed:
        nn.init.zeros_(layer.layers[-1].weight)
        nn.init.zeros_(layer.layers[-1].bias)
    return detr


def _channels(config: TianConfig) -> list[int]:
    """Of the backbone's features at strides 4, 8, 16 and 32."""
    return list(_RESNETS[config.backbone][2] if config.backbone in _RESNETS
                else _OTHERS[config.backbone].CHANNELS)


class _ResNetLevels(nn.Module):
    """The features of `transformers`' ResNet after each of its four stages."""

    def __init__(self, resnet: nn.Module) -> None:
        super().__init__()
        self.resnet = resnet

    def forward(self, x: Tensor) -> list[Tensor]:
        return list(self.resnet(x, output_hidden_states=True).hidden_states[1:])


class _Coarse(nn.Module):
    """What Deformable DETR attends to: all levels but the finest, of too many tokens."""

    def __init__(self, levels: nn.Module) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, x: Tensor) -> list[Tensor]:
        return self.levels(x)[1:]


def _freeze_first_stage(resnet: nn.Module) -> None:
    """As the original does; `transformers`, meaning the same, freezes all of it."""
    for name, weight in resnet.named_parameters():
        weight.requires_grad_(name.startswith("encoder.") and ".stages.0." not in name)


def _peaks(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Points (N, 17, 2), deviations (N, 17, 2) in cells: the highest cell, moved a quarter towards
    its higher neighbour (Newell et al. 2016); the lower the peak, the less sure."""
    height, width = maps.shape[-2:]
    best, index = maps.flatten(2).max(2)
    row, column = index // width, index % width
    padded = F.pad(maps, (1, 1, 1, 1), value=-math.inf)

    def towards_higher(down: int, right: int) -> Tensor:
        people = torch.arange(len(maps), device=maps.device)[:, None]
        joint = torch.arange(maps.shape[1], device=maps.device)
        after = padded[people, joint, row + 1 + down, column + 1 + right]
        before = padded[people, joint, row + 1 - down, column + 1 - right]
        return torch.sign(after - before) / 4

    points = torch.stack([column + 0.5 + towards_higher(0, 1), row + 0.5 + towards_higher(1, 0)], 2)
    std = GAUSSIAN_CELLS / best.clamp(0.1, 1)
    return points, std[..., None].expand(-1, -1, 2)


class Tian(PoseNetwork):
    """The network as one that the pipeline can use.

    correct: apply Algorithm 1, repaired, where the camera is known; the pipeline does without,
    because its body layer corrects.
    """

    name = "tian"

    def __init__(self, net: TianNet, correct: bool = False, score_threshold: float = 0.3,
                 max_people: int = 20) -> None:
        super().__init__()
        self.net = net.eval().to(memory_format=torch.channels_last)
        self.rotation_std = self.net.turn_std
        self.correct, self.body = correct, BodyModel.load()
        self.score_threshold, self.max_people = score_threshold, max_people

    @classmethod
    def from_config(cls, config: PoseConfig, engine: str = "torch") -> Tian:
        return cls(load_checkpoint(config.checkpoint or SHIPPED))

    def prepare(self, image: np.ndarray) -> list[Tensor]:
        """The picture at the network's size, 0..255, padded to multiples of 32."""
        width, height = input_size(image.shape[1::-1], self.net.config.input_size)
        method = cv2.INTER_AREA if width < image.shape[1] else cv2.INTER_LINEAR
        padded = np.full((padded_length(height), padded_length(width), 3), PAD, np.uint8)
        padded[:height, :width] = cv2.resize(image, (width, height), interpolation=method)
        return [torch.from_numpy(padded).permute(2, 0, 1)]

    def forward(self, batch: Tensor) -> tuple[list, ...]:
        """Of each of B pictures (B, 3, h, w): scores (P,), boxes (P, 4), keypoints (P, 17, 2) and
        variances in px of the input, quaternions (P, 24, 4) and betas (P, 10)."""
        found = self.net.detect(batch.float())
        scores, queries = found.layers[-1].logits.sigmoid().topk(
            min(self.max_people, found.queries.shape[1]), dim=1)
        image, rank = (scores >= self.score_threshold).nonzero(as_tuple=True)
        query = queries[image, rank]
        size = batch.new_tensor(batch.shape[:1:-1], dtype=torch.float32).repeat(2)
        boxes = roi.corners(found.layers[-1].boxes[image, query]) * size
        described = self.net.describe(found.maps, boxes, image, found.queries[image, query])
        values = (scores[image, rank], boxes, *self.net.in_px(boxes, described),
                  described.quats, described.betas)
        return tuple([value[image == i] for i in range(len(batch))] for value in values)

    def decode(self, raw: list, frame: Frame) -> People:
        """People of one frame; theta, betas and what follows from them need its camera."""
        height, width = frame.image.shape[:2]
        scale = torch.tensor((width, height)).double() \
            / torch.tensor(input_size((width, height), self.net.config.input_size))
        scores, boxes, points, variance, quats, betas = (v.cpu().double() for v in raw[0])
        side = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1)[:, None]
        spread = (variance.sqrt() / side).amax(2)
        certain = (1 - spread / _LOST).clamp(0, 1)
        # Where there is nobody, or half of somebody, joints are hard to find.
        scores = scores * certain.mean(1).sqrt()
        people = People((boxes * scale.repeat(2)).numpy().clip(0, (width, height) * 2),
                        scores.numpy(), (points * scale).numpy(),
                        (variance * scale**2).diag_embed().numpy(), certain.numpy())
        keep = oks.suppress(people.keypoints, oks.area(people.boxes), people.scores,
                            self.score_threshold)
        people = people[keep]
        if frame.camera is None or not len(people):
            return people
        return self._with_bodies(people, quats[keep], betas[keep], frame.camera)

    def _with_bodies(self, people: People, quats: Tensor, betas: Tensor,
                     camera: Camera) -> People:
        """With what the SMPL head says, placed where the keypoints are (Algorithm 1, repaired)."""
        middle = (people.boxes[:, :2] + people.boxes[:, 2:]) / 2
        rotmat = towards(torch.from_numpy(camera.normalise(middle))).mT
        theta = along_ray(F.normalize(quats, dim=2), rotmat)
        model = self.body(theta.float(), betas.float(), with_vertices=False)
        points, cov = (torch.from_numpy(value) for value in
                       camera.normalise_with_cov(people.keypoints, people.keypoint_cov))
        spread = float(self.net.model_std)**2 * torch.eye(3).expand(*points.shape[:2], 3, 3)
        positions = model.keypoints.double()
        aligned = align_model(points, cov, positions, spread)
        rotation, ok = aligned.rotation, aligned.ok[:, None]
        root = (aligned.joints - positions @ rotation.mT).nanmean(1)
        theta = along_ray(theta, rotation)
        joints = model.joints.double() @ rotation.mT + root[:, None]
        unknown = torch.nan
        people = people.with_fields(theta=torch.where(ok[..., None], theta, unknown).numpy(),
                                    betas=torch.where(ok, betas, unknown).numpy(),
                                    root=torch.where(ok, root, unknown).numpy(),
                                    joints=torch.where(ok[..., None], joints, unknown).numpy())
        if not self.correct:
            return people
        corrected = correct(points, cov, positions, spread)
        pixels, cov = camera.distort_with_cov(corrected.points.numpy(), corrected.cov.numpy())
        right = corrected.ok.numpy()[:, None, None]
        return people.with_fields(
            keypoints=np.where(right, pixels, people.keypoints),
            keypoint_cov=np.where(right[..., None], cov, people.keypoint_cov))


def turned(rotmat: Tensor, quats: Tensor) -> Tensor:
    """(N, J, 4) quaternions after a turn (N, 3, 3)."""
    return quat_product(quat_from_rotmat(rotmat)[:, None], quats)


def along_ray(theta: Tensor, rotmat: Tensor) -> Tensor:
    """(N, 24, 4) theta in the frame into which `turn` (N, 3, 3) brings it."""
    return torch.cat([turned(rotmat, theta[:, :1]), theta[:, 1:]], 1)


def camera_facing(boxes: Tensor, camera: Tensor) -> Tensor:
    """(N, 3, 3) turns into the camera frame of what is seen along the ray through boxes (N, 4) px.

    camera (N, 4) fx, fy, cx, cy px; NaN where it is not known: no turn.
    """
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    ray = (middle - camera[:, 2:]) / camera[:, :2]
    known = ray.isfinite().all(1)
    rotmat = towards(torch.where(known[:, None], ray, 0.0)).mT
    return torch.where(known[:, None, None], rotmat, torch.eye(3).to(rotmat))


def save_checkpoint(path: str | Path, net: TianNet, commit: str) -> None:
    """Weights in half precision, what they are weights of, and the source they come from."""
    weights = {name: value.half() for name, value in net.state_dict().items()
               if not net.is_given(name)}
    torch.save({"network": Tian.name, "config": asdict(net.config), "commit": commit,
                "weights": weights}, path)


def load_checkpoint(path: str | Path, config: TianConfig | None = None) -> TianNet:
    """A network saved by `save_checkpoint`.

    config: what it must be. Raises CheckpointError for a file that is none, or another network's.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        found = from_dict(TianConfig, saved["config"])
        weights = {name: value.float() for name, value in saved["weights"].items()}
    except Exception as error:
        raise CheckpointError(f"{path} is not a checkpoint of the network tian ({error}): give one "
                              "that ros2_pose train wrote") from error
    if config is not None and config != found:
        wrong = [f"{name} is {value}, expected {getattr(config, name)}"
                 for name, value in asdict(found).items() if value != getattr(config, name)]
        raise CheckpointError(f"{path} is of another network: {'; '.join(wrong)}")
    net = TianNet(found)
    given = {name: value for name, value in net.state_dict().items() if net.is_given(name)}
    try:
        net.load_state_dict(given | weights)
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit its own config: {error}") from error
    return net.eval().requires_grad_(False)
