"""Layers of the Self-Attention Network (Appl. Sci. 2021, 11, 1826).

Self-attention relates all cells of a crop's coarsest features, three deconvolutions enlarge them,
and a volume of votes for each joint gives x, y and z by its marginals (integral regression). One
network learns the 17 COCO keypoints, of which pictures are labelled by hand, and the 24 SMPL
joints.

Beyond the paper, on Thunder's backbone: Thunder's heat-maps vote for the keypoints, too, by learned
gains, and finer features are added after each deconvolution. The features are not trained. A body
that explains the keypoints votes for the SMPL joints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ros2_pose.config import ConfigError
from ros2_pose.networks.kblock import axis_votes
from ros2_pose.networks.san.backbone import ResNetFeatures, san_backbone
from ros2_pose.networks.san.config import SanConfig
from ros2_pose.networks.san.lifted import LiftedVotes
from ros2_pose.networks.trainable import TrainableNet
from ros2_pose.networks.votes import expected_joints, near_peak, read_votes, thunder_votes
from ros2_pose.skeleton import COCO17, SMPL24

STRIDE = 4  # px of the crop per cell of the votes
CUBE_M = 2.2  # extent of the volumes along the line of sight, with the pelvis in the middle
K = len(COCO17)
_ALL = K + len(SMPL24)
_LEAST = 1e-30  # share of votes
_SHARPNESS = 10.0  # factor of the volumes: their weights alone would grow too slowly


class SelfAttention(nn.Module):
    """The SAN block: every cell attends to all cells, and the result is added by a learned share.

    Source: eqs. 1-4; Zhang et al. 2019, "Self-Attention Generative Adversarial Networks".
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels // 8, 1)
        self.key = nn.Conv2d(channels, channels // 8, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.delta = nn.Parameter(torch.zeros(()))

    def attention(self, x: Tensor) -> Tensor:
        """Return the weights (N, cells, cells): row i has what cell i takes of each cell.

        As in the paper, the products are not divided by the root of their length.
        """
        return (self.query(x).flatten(2).transpose(1, 2) @ self.key(x).flatten(2)).softmax(2)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, C, h, w) of x (N, C, h, w)."""
        attended = self.value(x).flatten(2) @ self.attention(x).transpose(1, 2)
        return self.delta * attended.view_as(x) + x


class Decoder(nn.Module):
    """Three deconvolutions from the coarsest features to a volume of log-votes of each joint."""

    def __init__(self, channels: tuple[int, ...], config: SanConfig) -> None:
        super().__init__()
        inputs = (channels[0], *config.widths)
        self.up = nn.ModuleList(nn.ConvTranspose2d(i, o, 4, 2, 1, bias=False)
                                for i, o in zip(inputs, config.widths))
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for width in config.widths)
        pairs = zip(channels[1:], config.widths) if config.laterals else ()
        self.laterals = nn.ModuleList(nn.Conv2d(i, o, 1) for i, o in pairs)
        self.depth_cells = config.depth_cells
        self.volume = nn.Linear(config.widths[-1], _ALL * config.depth_cells, bias=False)
        nn.init.normal_(self.volume.weight, std=0.001)

    def forward(self, levels: list[Tensor]) -> Tensor:
        """Return volumes (N, 41, depth_cells, h, w) of features, coarsest first, of 1/4 px."""
        x = levels[0]
        for number, (up, norm) in enumerate(zip(self.up, self.norms)):
            x = up(x)
            if len(self.laterals):
                x = x + self.laterals[number](levels[number + 1])
            x = norm(x).relu()
        volumes = self.volume.weight @ x.flatten(2)  # a convolution of 1x1, in the order needed
        return _SHARPNESS * volumes.view(x.shape[0], _ALL, self.depth_cells, *x.shape[2:])


class SanNet(TrainableNet):
    """The layers that training and inference share."""

    NAME = "san"
    CONFIG = SanConfig
    ONE_PERSON = True
    config: SanConfig

    def __init__(self, config: SanConfig = SanConfig()) -> None:
        super().__init__(config)
        self.features = san_backbone(config)
        channels = self.features.channels
        self.attention = SelfAttention(channels[0]) if config.attention else nn.Identity()
        self.decoder = Decoder(channels, config)
        self.size = nn.Linear(channels[0], 1)
        nn.init.zeros_(self.size.weight)
        nn.init.zeros_(self.size.bias)
        self.lifted = LiftedVotes() if config.lift else None
        self.heat_gain = nn.Parameter(torch.ones(K))
        self.guess_gain = nn.Parameter(torch.ones(K))

    @property
    def picture_size(self) -> int:
        """Side of the crops that it is trained on, px."""
        return self.config.input_size

    @property
    def backbone(self) -> nn.Module:
        """Layers that have a learning rate of their own."""
        return self.features

    def is_given(self, name: str) -> bool:
        """Return whether a weight comes with a part that is not trained: checkpoints lack it."""
        return name.startswith(("features.graph.", "lifted.lift.", "lifted.body."))

    def load_pretrained(self, detector: str) -> None:
        """Load a ResNet trained on ImageNet: a name on Hugging Face or a folder; empty: nothing."""
        if not detector:
            return
        if not isinstance(self.features, ResNetFeatures):
            raise ConfigError("detector: the backbone thunder is trained already; remove the key")
        self.features.load_imagenet(detector)

    def forward(self, crops: Tensor, guess: Tensor | None = None,
                middle: Tensor | None = None) -> dict[str, Tensor]:
        """Read one person in each crop (N, 3, h, w), RGB, 0..255; h and w are multiples of 32.

        Args:
            guess (N, 17, 2): x, y, px of the crop, where the keypoints are expected; NaN: unknown.
            middle (N, 2): x, y, px of the crop, the middle of the person's box; without it, the
                person is in the middle of the crop.
        Returns:
            "maps" (N, 41, h, w) and "depth" (N, 41, depth_cells): log-votes of the joints, COCO's
            keypoints first, for x, y and for z;
            "keypoints", "keypoint_std" (N, 17, 2): x, y near the peak of the maps, cells;
            "joints" (N, 41, 3): means of the votes, x, y in cells, z in m from the pelvis along the
            line of sight;
            "size" (N,): of the bones between these joints, relative to the mean body's: the means
            of uncertain votes are closer to each other than the joints;
            "keypoint_scores" (N, 17) and "center_scores" (N,): 0..1.
        """
        levels, heads = self.features(crops)
        coarsest = self.attention(levels[0])
        volumes = self.decoder([coarsest, *levels[1:]]).float()
        shares = volumes.flatten(2).softmax(2).view_as(volumes)
        maps, depth = ((_LEAST + shares.sum(axes)).log() for axes in (2, (3, 4)))
        maps, places, center = self._with_thunder(maps, heads, guess, middle)
        points, std = read_votes(maps[:, :K], places)
        scores = _scores(maps[:, :K].detach(), heads)
        if self.lifted is not None:
            maps, depth = self._with_lifted(maps, depth, points, std, scores)
        return {"maps": maps, "depth": depth, "keypoints": points, "keypoint_std": std,
                "joints": _integral(maps, depth), "keypoint_scores": scores,
                "size": self.size(coarsest.mean((2, 3)))[:, 0].float().exp(),
                "center_scores": scores.mean(1) if center is None else center}

    def _with_thunder(self, maps: Tensor, heads: tuple[Tensor, ...], guess: Tensor | None,
                      middle: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Add Thunder's votes for the keypoints to maps (N, 41, h, w), if there are heads.

        Returns:
            Maps (N, 41, h, w); positions (N, 17, 2, h, w) that the keypoints' cells vote for,
            cells; scores (N,) of the people's centres, None without heads.
        """
        if not heads:
            rows, columns = (torch.arange(side, device=maps.device) + 0.5 for side in
                             maps.shape[-2:])
            places = torch.stack(torch.meshgrid(columns, rows, indexing="xy"))
            return maps, places.expand(len(maps), K, -1, -1, -1), None
        center, heat, offset, displacement = heads
        near = None if middle is None else middle.flip(1) / STRIDE
        own, scores = expected_joints(center, displacement, near)
        expected = own if guess is None else guess.flip(2) / STRIDE
        expected = torch.where(expected.isfinite(), expected, own)
        votes, places = thunder_votes(heat, offset, expected, self.heat_gain, self.guess_gain)
        return torch.cat([maps[:, :K] + votes, maps[:, K:]], 1), places, scores

    def _with_lifted(self, maps: Tensor, depth: Tensor, points: Tensor, std: Tensor,
                     scores: Tensor) -> tuple[Tensor, Tensor]:
        """Add the lifted body's votes for the SMPL joints to maps and depth."""
        assert self.lifted is not None
        rows, columns = maps.shape[2:]
        count = depth.shape[2]
        joints = self.lifted.joints(STRIDE * points, STRIDE * std, scores,
                                    (STRIDE * columns, STRIDE * rows))
        cells = torch.cat([joints[..., :2] / STRIDE, (joints[..., 2:] / CUBE_M + 0.5) * count], 2)
        spread = std.detach().square().mean((1, 2))
        across, along = self.lifted(cells, spread, (count, rows, columns))
        return (torch.cat([maps[:, :K], maps[:, K:] + across], 1),
                torch.cat([depth[:, :K], depth[:, K:] + along], 1))


def _integral(maps: Tensor, depth: Tensor) -> Tensor:
    """Return the means (N, 41, 3) of the votes: x, y in cells, z in m from the pelvis.

    Source: eqs. 5-6; Sun et al. 2018, "Integral Human Pose Regression".
    """
    x, y, z = (axis_votes(votes)[0] for votes in (maps.logsumexp(-2), maps.logsumexp(-1), depth))
    return torch.stack([x, y, (z / depth.shape[-1] - 0.5) * CUBE_M], -1)


def _scores(maps: Tensor, heads: tuple[Tensor, ...]) -> Tensor:
    """Return the scores (N, 17) of keypoints with maps (N, 17, h, w) of log-votes.

    They are Thunder's probabilities at the peaks; without heads, the share of the votes near them.
    """
    if heads:
        best = maps.flatten(2).argmax(2, keepdim=True)
        return heads[1].sigmoid().flatten(2).gather(2, best)[..., 0]
    shares = maps.flatten(2).softmax(2).view_as(maps)
    return torch.where(near_peak(maps), shares, 0.0).sum((2, 3))
