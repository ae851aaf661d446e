"""Layers of Wang et al. 2022: people and their 3D joints in one pass.

Each location of a level says whether it is the centre of a person, how deep the pelvis is, and
where the joints are. Beyond the paper, the layers start from MoveNet's own estimates of keypoints,
and see a whole pose (`pose.PoseLayer`); scales and depths are relative to the size of the pose, so
that one level covers all sizes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ros2_pose.networks.convolution import conv_norm_relu
from ros2_pose.networks.das.config import STRIDES, DasConfig
from ros2_pose.networks.das.features import CENTER_STRIDE, MoveNetFeatures, ResNetMaps
from ros2_pose.networks.das.flow import RealNvp
from ros2_pose.networks.das.lifting import LiftedPose
from ros2_pose.networks.das.pose import (
    JOINT_CHANNELS,
    KEYPOINT_CHANNELS,
    FirstEstimate,
    J,
    K,
    Pose,
    PoseLayer,
    Update,
)
from ros2_pose.networks.das.sampling import sample
from ros2_pose.networks.tian.roi import Pyramid
from ros2_pose.networks.trainable import TrainableNet

_PERSON_LOGIT = -3.0  # of centres before training
_REACH = 0.12  # of the first update's sources, see `pose.Update`
_GIVEN = ("flows.", "space.lift.", "space.body.")
LEAST_PEAK = 3  # cells each way in which a centre is the best one


class DasNet(TrainableNet):
    """The layers that training and inference share."""

    NAME = "das"
    CONFIG = DasConfig
    config: DasConfig

    def __init__(self, config: DasConfig = DasConfig()) -> None:
        super().__init__(config)
        width = config.width
        self.features: MoveNetFeatures | ResNetMaps = (
            MoveNetFeatures(config) if config.backbone == "movenet"
            else ResNetMaps(config.backbone))
        self.pyramid = Pyramid(self.features.channels, width, top_down=True)
        self.coarsest = nn.Conv2d(width, width, 3, 2, 1) if 64 in config.strides else None
        self.center_branch = _branch(width, config.layers)
        self.pose_branch = _branch(width, config.layers)
        self.center = nn.Conv2d(width, 2, 1)  # confidence, centerness
        self.center_gain = nn.Parameter(torch.tensor(1.0))  # of MoveNet's logits
        self.maps = nn.Conv2d(width, K * KEYPOINT_CHANNELS + J * JOINT_CHANNELS, 1)
        nn.init.normal_(self.maps.weight, std=1e-3)
        nn.init.zeros_(self.maps.bias)
        nn.init.normal_(self.center.weight, std=0.01)
        nn.init.constant_(self.center.bias, _PERSON_LOGIT)
        self.first = FirstEstimate()
        self.updates = nn.ModuleList(Update(width, config.sources, _REACH / (1 + number))
                                     for number in range(config.recursions))
        self.poses = nn.ModuleList(PoseLayer(width, config.hidden)
                                   for _ in range(1 + config.recursions))
        self.space = LiftedPose(width, config.hidden) if config.lift else None
        # Of the standardised errors of keypoints and joints, of each estimate; for training alone.
        self.flows = nn.ModuleList(
            nn.ModuleDict({"keypoints": RealNvp(2), "joints": RealNvp(3)})
            for _ in range(1 + config.recursions + config.lift)) if config.flow else None

    @property
    def picture_size(self) -> int:
        """Side of the squares that it is trained on, px."""
        return self.config.crop

    @property
    def backbone(self) -> nn.Module:
        """Layers of the backbone."""
        return self.features.backbone

    def load_pretrained(self, detector: str) -> None:
        """Load a ResNet trained on ImageNet; MoveNet's layers come with their weights.

        Args:
            detector: of a ResNet, a name on Hugging Face or a folder; empty: random.
        """
        if detector and isinstance(self.features, ResNetMaps):
            self.features.load(detector)
        else:
            super().load_pretrained(detector)

    def is_given(self, name: str) -> bool:
        """Return whether checkpoints lack a weight: of a frozen backbone, of the lift, or of the
        flows, which serve training alone."""
        is_frozen = self.config.backbone == "movenet" and self.config.frozen == "all"
        return name.startswith(_GIVEN) or (is_frozen and name.startswith("features.backbone."))

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        """Compute the maps of images (B, 3, H, W), RGB, 0..255; H and W are multiples of 32.

        Returns:
            For each level of `config.strides`, by name: logits (B, 2, h, w) of the centre's
            confidence and of the centerness, "centers"; features (B, width, h, w), "features";
            and of keypoints and joints (B, 17 or 24, channels, h, w), see `pose.py`, "start",
            "keypoints" and "joints".
        """
        features, start, center = self.features(
            images.contiguous(memory_format=torch.channels_last))
        levels = self.pyramid(features)
        if self.coarsest is not None:
            levels = [*levels, self.coarsest(levels[-1])]
        out = []
        for level, stride in zip(levels, STRIDES):
            if stride not in self.config.strides:
                continue
            people = self.pose_branch(level)
            keypoints, joints = self.maps(people).split([K * KEYPOINT_CHANNELS,
                                                         J * JOINT_CHANNELS], 1)
            centers = self.center(self.center_branch(level))
            given = center if stride == CENTER_STRIDE \
                else F.adaptive_max_pool2d(center, level.shape[-2:])
            centers = torch.cat([centers[:, :1] + self.center_gain * given, centers[:, 1:]], 1)
            out.append({"centers": centers, "features": people, "start": start,
                        "keypoints": keypoints.unflatten(1, (K, -1)),
                        "joints": joints.unflatten(1, (J, -1))})
        return out

    def describe(self, maps: dict[str, Tensor], stride: int, image: Tensor,
                 centers: Tensor) -> list[Pose]:
        """Estimate the poses of N people.

        Args:
            maps: of a level, of B images.
            stride: of the level, px.
            image (N,): index of the image of each person.
            centers (N, 2): centres of cells, px.
        Returns:
            Poses: the first estimate, each of its updates and that in space, the best last; see
            `pose.py`.
        """
        features = sample(maps["features"][:, None], image, centers[:, None, None],
                          stride)[:, 0, 0]
        pose = self.poses[0](features, self.first(maps, image, centers, stride))
        poses = [pose]
        for update, layer in zip(self.updates, self.poses[1:]):
            pose = layer(features, update(maps, image, centers, stride, features, pose))
            poses.append(pose)
        if self.space is not None:
            height, width = maps["centers"].shape[-2:]
            picture = centers.new_tensor((width, height)) * stride
            poses.append(self.space(features, pose, picture))
        return poses


def scores_of(maps: dict[str, Tensor]) -> Tensor:
    """Return the scores (B, h, w) of the locations of a level: confidence times centerness."""
    confidence, centerness = maps["centers"].sigmoid().unbind(1)
    return confidence * centerness


def locations(maps: dict[str, Tensor], stride: int) -> Tensor:
    """Return the centres (h, w, 2) of the cells of a level, x, y, px."""
    height, width = maps["centers"].shape[-2:]
    x, y = (stride * (torch.arange(n, device=maps["centers"].device) + 0.5)
            for n in (width, height))
    return torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], 2)


def _branch(width: int, layers: int) -> nn.Sequential:
    return nn.Sequential(*(part for _ in range(layers) for part in conv_norm_relu(width, width)))
