"""Google's MoveNet MultiPose Lightning in torch, with a decoder of our own.

The original file finds six people at one scale and gives points with scores. Cut at its heads and
decoded here it finds any number, at several scales that are merged, and each keypoint carries the
covariance of its heat-map's votes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from ros2_pose import oks
from ros2_pose.config import PoseConfig
from ros2_pose.networks import onnx_engine
from ros2_pose.networks.base import PoseNetwork, input_size, padded_length
from ros2_pose.networks.kblock import joint_votes
from ros2_pose.networks.tflite import load_tflite
from ros2_pose.people import Frame, People
from ros2_pose.skeleton import COCO17
from ros2_pose.weights import fetch

_HEADS = ["center_0/conv2d_4/BiasAdd", "box_scale_0/conv2d_5/BiasAdd",
          "box_offset_0/conv2d_6/BiasAdd", "kpt_heatmap_0/conv2d_7/BiasAdd",
          "kpt_offset_0/conv2d_9/BiasAdd", "kpt_regress_0/conv2d_8/BiasAdd"]
_STRIDE = 4  # px of the input a cell of the heads
_REACH = 0.3  # the original's: a cell counts exp(-d^2 / (_REACH * shorter side)), d in cells
_COUNTED = 0.127  # the original's: keypoints scored lower do not count in a person's score
_VOTE_RADIUS = 3  # cells: the neighbourhood that votes for the uncertainty

# What is known of each kind of keypoint's errors: the weight of the votes' covariance, the floor,
# the share of outliers and the usual deviation; floor and deviation are in sizes of the person.
# Made by `python -m ros2_pose.evaluation.benchmarks.calibration ANNOTATIONS.json PICTURES --fit`
# from the 28 pictures with people of COCO train2017 in the development set, left and right
# together. They hold for the rooms of Pose2Sim and CMU Panoptic, too; sportsmen upside down (LSP)
# are worse by far.
_NOISE = {
    "nose": (0.16, 0.0069, 0.17, 0.023),
    "eye": (0.15, 0.0062, 0.15, 0.021),
    "ear": (0.15, 0.0073, 0.17, 0.024),
    "shoulder": (0.23, 0.0135, 0.19, 0.037),
    "elbow": (0.23, 0.0115, 0.19, 0.036),
    "wrist": (0.20, 0.0087, 0.18, 0.035),
    "hip": (0.16, 0.0386, 0.17, 0.053),
    "knee": (0.19, 0.0201, 0.16, 0.043),
    "ankle": (0.19, 0.0254, 0.18, 0.043),
}


def _of_joints(column: int) -> np.ndarray:
    """(17,) a column of the table."""
    return np.array([_NOISE[kind][column] for kind in COCO17.kinds])


@dataclass(frozen=True)
class KeypointNoise:
    """How the network errs at each COCO keypoint; the scatter of the labels is included.

    A person's size s is the root of `oks.area` of the box, as in COCO's similarity. An error is
    normal with covariance V = votes * C + (floor * s)^2, C the covariance of the heat-map's votes;
    with the chance `outliers` it is `wide` times as long: a hard pose, another's limb, left for
    right, a label gone astray. C goes with the cell. The floor goes with the person, because what a
    hip is people know to a share of the body, not to a pixel.

    The rest says how V varies, for simulations of the network: the geometric mean of its axes is
    s times a log-normal number around `usual`; its deviation has a part that the joints of a person
    share and a part of each joint's own.
    """

    votes: np.ndarray = field(default_factory=lambda: _of_joints(0))  # (17,)
    floor: np.ndarray = field(default_factory=lambda: _of_joints(1))  # (17,) of the size
    outliers: np.ndarray = field(default_factory=lambda: _of_joints(2))  # (17,) 0..1
    median_std: np.ndarray = field(default_factory=lambda: _of_joints(3))  # (17,) of the size
    wide: float = 3.16
    person_std: float = 0.29  # of that number's logarithm, between people
    joint_std: float = 0.12  # between the joints of a person
    stretch_std: float = 0.18  # of log(longer / shorter axis of V)

    def at(self, joints: np.ndarray) -> KeypointNoise:
        """Of a list of joints (N,) in place of the seventeen."""
        return replace(self, **{name: getattr(self, name)[joints]
                                for name in ("votes", "floor", "outliers", "median_std")})

    def cov(self, votes_cov: np.ndarray, areas: np.ndarray) -> np.ndarray:
        """V (..., 17, 2, 2), px^2, for C (..., 17, 2, 2), px^2, and s^2 (..., 17 or 1), px^2."""
        return self.votes[:, None, None] * votes_cov + self._floor(areas)

    def votes_cov(self, cov: np.ndarray, areas: np.ndarray) -> np.ndarray:
        """C of V: the inverse of `cov`."""
        return (cov - self._floor(areas)) / self.votes[:, None, None]

    def _floor(self, areas: np.ndarray) -> np.ndarray:
        return (self.floor**2 * areas)[..., None, None] * np.eye(2)

    def with_outliers(self, cov: np.ndarray) -> np.ndarray:
        """The covariance of all errors where V (P, 17, 2, 2) is that of the inliers."""
        return cov * (1 + self.outliers * (self.wide**2 - 1))[:, None, None]

    def draw(self, rng: np.random.Generator, people: int) -> tuple[np.ndarray, np.ndarray]:
        """Errors (P, 17, 2), in sizes, and their V (P, 17, 2, 2), in sizes squared.

        Multiply by s and s^2 for px. The V is what the network would say: it does not know which
        errors are outliers.
        """
        shape = (people, len(self.median_std))
        log_std = np.log(self.median_std) + self.person_std * rng.normal(size=(people, 1)) \
            + self.joint_std * rng.normal(size=shape)
        stretch = self.stretch_std / 2 * rng.normal(size=shape)
        axes = np.exp(log_std[..., None] + stretch[..., None] * (1, -1))
        angle = rng.uniform(0, np.pi, shape)
        along = np.stack([np.cos(angle), np.sin(angle)], -1)
        axes_rotmat = np.stack(
            [along, along[..., ::-1] * (-1, 1)], -1
        )  # (P, 17, 2, 2), a column an axis
        factor = axes_rotmat * axes[..., None, :]
        length = np.where(rng.random(shape) < self.outliers, self.wide, 1.0)
        error = factor @ (length[..., None] * rng.normal(size=(*shape, 2)))[..., None]
        return error[..., 0], factor @ factor.swapaxes(-1, -2)


KEYPOINT_NOISE = KeypointNoise()


class MoveNet(PoseNetwork):
    """MoveNet MultiPose Lightning (Google, Apache-2.0), 4.7 M parameters, 17 COCO keypoints.

    scales: long sides of the inputs, px. max_people: most people returned for a picture.
    score_threshold: people scored lower are left out. engine: what computes on a CPU, torch,
    onnxruntime or auto, which is onnxruntime where it is installed.

    A person's score is the original's (centre times mean of the keypoints) times the OKS that its
    covariances, outliers included, let expect: of two views of a person the sharper one wins, and
    precise people rank before blurred ones.
    """

    name = "movenet"

    def __init__(self, scales: tuple[int, ...] = (256, 512), score_threshold: float = 0.1,
                 max_people: int = 20, engine: str = "auto"):
        super().__init__()
        self.heads = load_tflite(fetch("movenet_multipose.tflite"), _HEADS)
        self.heads.to(memory_format=torch.channels_last).eval()
        self.scales, self.score_threshold, self.max_people = scales, score_threshold, max_people
        self.engine = None
        if engine == "onnxruntime" or engine == "auto" and onnx_engine.available():
            self.engine = onnx_engine.OnnxEngine(onnx_engine.MOVENET_GRAPH,
                                                 self.heads.state_dict())

    @classmethod
    def from_config(cls, config: PoseConfig, engine: str = "torch") -> MoveNet:
        return cls(config.scales, engine=engine)

    def prepare(self, image: np.ndarray) -> list[torch.Tensor]:
        """The picture at each scale, 0..255, padded at the right and bottom to multiples of 32."""
        return [self._resized(image, scale) for scale in self.scales]

    @staticmethod
    def _resized(image: np.ndarray, scale: int) -> torch.Tensor:
        width, height = input_size(image.shape[1::-1], scale)
        shrinks = width < image.shape[1]
        small = cv2.resize(image, (width, height),
                           interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        padded = np.zeros((padded_length(height), padded_length(width), 3), np.uint8)
        padded[:height, :width] = small
        return torch.from_numpy(padded).permute(2, 0, 1)

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Heads of a batch (B, 3, h, w), values 0..255, each (B, channels, h / 4, w / 4).

        Logits of the centre (1) and the keypoints (17); box height and width (2), box offset (2),
        keypoint offsets (34) and keypoint displacements from the centre (34), y before x, cells.
        """
        if self.engine is not None and batch.device.type == "cpu":
            return self.engine(batch)
        return self.heads(batch.float().contiguous(memory_format=torch.channels_last))

    def decode(self, raw: list, frame: Frame) -> People:
        """People of one picture: each scale by itself, then merged."""
        found, size = [], frame.image.shape[1::-1]
        for heads, scale in zip(raw, self.scales):
            people = _decode_scale(heads, self.max_people, self.score_threshold)
            found.append(_to_pixels(people, np.array(size) / input_size(size, scale) * _STRIDE))
        scores, keypoints, votes_cov, keypoint_scores, boxes = map(np.concatenate, zip(*found))
        areas = oks.area(boxes)
        cov = KEYPOINT_NOISE.cov(votes_cov, areas[:, None])
        scores = scores * oks.expected(KEYPOINT_NOISE.with_outliers(cov), keypoint_scores, areas)
        keep = oks.suppress(keypoints, areas, scores, self.score_threshold)[:self.max_people]
        return People(boxes[keep], scores[keep], keypoints[keep], cov[keep], keypoint_scores[keep])


def _decode_scale(heads, max_people: int, threshold: float):
    """Scores (P,), keypoints (P, 17, 2), their votes' covariances, keypoint scores, boxes (P, 4),
    in cells."""
    center, box_size, box_offset, heat, offset, displacement = heads
    rows, cols = _peaks(center[0].sigmoid(), max_people, threshold)
    cell = torch.stack([rows, cols], -1)  # (P, 2) y, x
    middle = cell + box_offset[:, rows, cols].T
    half = box_size[:, rows, cols].T.relu() / 2
    boxes = torch.cat([middle - half, middle + half], -1)  # y, x, y, x
    limit = torch.tensor(heat.shape[1:], device=heat.device).repeat(2)
    boxes = torch.minimum(boxes.clamp(min=0), limit)
    guess = cell[:, None] + displacement[:, rows, cols].T.unflatten(1, (-1, 2))
    points, cov, scores = _find_keypoints(heat.sigmoid(), offset, guess, boxes)
    counted = scores > _COUNTED
    mean = (scores * counted).sum(1) / counted.sum(1).clamp(min=1)
    return (center[0, rows, cols].sigmoid() * mean, points, cov, scores, boxes[:, [1, 0, 3, 2]])


def _peaks(heat: torch.Tensor, most: int, threshold: float):
    """Rows and columns of the local maxima of (h, w), best first.

    A person scores no more than the centre: a centre below the threshold need not be looked at.
    """
    highest = F.max_pool2d(heat[None, None], 3, 1, 1)[0, 0]
    peaks = torch.where((heat == highest) & (heat > threshold), heat, heat.new_zeros(()))
    scores, index = peaks.flatten().topk(min(2 * most, peaks.numel()))
    index = index[scores > 0]
    return index // heat.shape[1], index % heat.shape[1]


def _find_keypoints(heat, offset, guess, boxes):
    """Keypoints (P, 17, 2) x, y, covariances of their votes and scores (P, 17), in cells.

    heat (17, h, w) probabilities; offset (34, h, w); guess (P, 17, 2) as y, x; boxes (P, 4) as
    y, x, y, x. As in the original: the best cell near the guess and inside the box, moved by its
    offset. Only the window in which a cell can matter is looked at.
    """
    height, width = heat.shape[1:]
    spread = _REACH * min(height, width)
    radius = math.ceil(math.sqrt(spread * math.log(1000)))
    rows, cols = _window(guess, radius)  # (P, 17, n) each
    inside = _between(rows, height, boxes[:, 0], boxes[:, 2])[..., :, None] & \
        _between(cols, width, boxes[:, 1], boxes[:, 3])[..., None, :]
    joint = torch.arange(len(heat), device=heat.device)[:, None, None]
    r, c = rows.clamp(0, height - 1), cols.clamp(0, width - 1)
    patch = heat[joint, r[..., :, None], c[..., None, :]] * inside
    distance = ((rows - guess[..., :1]) ** 2)[..., :, None] + \
        ((cols - guess[..., 1:]) ** 2)[..., None, :]
    weighted = patch * torch.exp(-distance / spread)
    scores, best = weighted.flatten(2).max(-1)
    row = r.gather(2, best[..., None] // weighted.shape[-1])[..., 0]
    col = c.gather(2, best[..., None] % weighted.shape[-1])[..., 0]
    shift = offset.unflatten(0, (-1, 2))[joint[:, 0, 0], :, row, col]  # (P, 17, 2) y, x
    points = torch.stack([col + shift[..., 1], row + shift[..., 0]], -1)
    return points, _vote_covariance(weighted, best), scores


def _window(guess: torch.Tensor, radius: int):
    """Row and column numbers (P, 17, 2 radius + 1) of the cells around the guesses (P, 17, 2)."""
    steps = torch.arange(-radius, radius + 1, device=guess.device)
    centre = guess.round().long()
    return centre[..., :1] + steps, centre[..., 1:] + steps


def _between(cells, size: int, low, high):
    """(P, 17, n) cells that are in the map and within [low, high) (P,)."""
    return (cells >= 0) & (cells < size) & (cells >= low[:, None, None]) & \
        (cells < high[:, None, None])


def _vote_covariance(weighted: torch.Tensor, best: torch.Tensor) -> torch.Tensor:
    """Covariance (P, 17, 2, 2) x, y of the votes around the best cell, in cells^2.

    weighted (P, 17, n, n) heat that counts; best (P, 17) flat index of its maximum.
    """
    n = weighted.shape[-1]
    cells = torch.arange(n, device=best.device)
    near_row = (cells - best[..., None] // n).abs() <= _VOTE_RADIUS
    near_col = (cells - best[..., None] % n).abs() <= _VOTE_RADIUS
    near = near_row[..., :, None] & near_col[..., None, :]
    logits = weighted.clamp(min=1e-9).log().masked_fill(~near, -torch.inf)
    return joint_votes(logits)[1]


def _to_pixels(people, cell: np.ndarray):
    """Cells to px of the picture, torch to numpy; cell (2,): width and height of one in px."""
    scores, keypoints, cov, keypoint_scores, boxes = (
        tensor.cpu().numpy().astype(float) for tensor in people)
    return (scores, keypoints * cell, cov * np.outer(cell, cell), keypoint_scores,
            boxes * np.tile(cell, 2))
