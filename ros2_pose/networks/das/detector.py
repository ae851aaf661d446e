"""The network of Wang et al. 2022 as one that the pipeline can use."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ros2_pose import oks
from ros2_pose.camera import Camera
from ros2_pose.config import PoseConfig
from ros2_pose.networks.base import TorchNetwork, grey_letterbox, input_size
from ros2_pose.networks.checkpoint import load_layers
from ros2_pose.networks.das.network import LEAST_PEAK, DasNet, locations, scores_of
from ros2_pose.networks.engine import on_host
from ros2_pose.people import Frame, People

_LOST = 0.25  # of the box: a standard deviation at which a joint counts as not found
_LEAST_DEPTH_M = 0.05
_FIELDS = ("boxes", "keypoints", "keypoint_std", "joints", "log_depth")


class Das(TorchNetwork):
    """Detector of people with keypoints and, where the camera is known, joints in space."""

    def __init__(self, config: PoseConfig = PoseConfig(), device: torch.device | str = "cpu",
                 net: DasNet | None = None) -> None:
        """Load the network.

        Args:
            config: settings; read is `checkpoint`.
            device: torch device that the network computes on.
            net: layers to use in place of the checkpoint's.
        """
        super().__init__(config, device)
        self.net = load_layers(config.checkpoint, DasNet) if net is None else net
        self.net.eval().to(device, memory_format=torch.channels_last)

    @classmethod
    def title(cls, config: PoseConfig) -> str:
        """Return the network and its checkpoint, e.g. "das, as shipped"."""
        return f"{config.network}, {config.checkpoint or 'as shipped'}"

    def prepare(self, image: np.ndarray) -> list[Tensor]:
        """Return the image (3, h, w) at the network's size, 0..255, padded for its strides."""
        return [grey_letterbox(image, self.net.config.input_size)]

    def forward(self, batch: Tensor) -> tuple[list[Tensor], ...]:
        """Detect and describe the people of images (B, 3, h, w).

        Returns:
            Lists with one tensor an image: confidences (P,), and of the pose (`das/pose.py`) boxes,
            keypoints, keypoint_std, joints and log_depth, in px of the input.
        """
        levels = self.net(batch.float())
        found = [self._on_level(maps, stride)
                 for maps, stride in zip(levels, self.net.config.strides)]
        image, *values = (torch.cat(parts) for parts in zip(*found))
        return tuple([value[image == i] for i in range(len(batch))] for value in values)

    def _on_level(self, maps: dict[str, Tensor], stride: int) -> tuple[Tensor, ...]:
        """Return image (P,), confidence (P,) and the poses of the best peaks of a level."""
        scores = scores_of(maps)
        highest = F.max_pool2d(scores[:, None], LEAST_PEAK, 1, LEAST_PEAK // 2)[:, 0]
        peaks = torch.where(scores == highest, scores, 0.0).flatten(1)
        best, index = peaks.topk(min(2 * self.max_people, peaks.shape[1]), dim=1)
        confidence = maps["centers"][:, 0].sigmoid().flatten(1).gather(1, index)
        # A person's score is at most the root of the confidence, see `_score`.
        is_clear = (best > 0) & (confidence.sqrt() > self.score_threshold)
        image, rank = is_clear.nonzero(as_tuple=True)
        places = locations(maps, stride).flatten(0, 1)[index[image, rank]]
        pose = self.net.describe(maps, stride, image, places)[-1]
        return (image, confidence[image, rank], *(pose[name] for name in _FIELDS))

    def decode(self, raw: list[tuple], frame: Frame) -> People:
        """Return the people of one frame; with root and joints if it has a camera."""
        height, width = frame.image.shape[:2]
        input_px = torch.tensor(input_size((width, height), self.net.config.input_size))
        scale = torch.tensor((width, height)).double() / input_px
        confidence, boxes, keypoints, std, joints, log_depth = (v.double() for v in on_host(raw[0]))
        boxes = boxes * scale.repeat(2)
        sides = self.net.lengths(boxes)[:, None]
        variance = self.net.votes.cpu()[:, None] * (std * scale).square() \
            + self.net.floor.cpu()[:, None] * sides.square()
        relative_std = (variance.sqrt() / sides).amax(2)
        keypoint_scores = (1 - relative_std / _LOST).clamp(0, 1).numpy()
        cov = variance.diag_embed().numpy()
        people = People(boxes=boxes.numpy().clip(0, (width, height) * 2),
                        scores=_score(confidence.numpy(), keypoint_scores, cov, boxes.numpy()),
                        keypoints=(keypoints * scale).numpy(), keypoint_cov=cov,
                        keypoint_scores=keypoint_scores)
        keep = oks.suppress(people.keypoints, oks.area(people.boxes), people.scores,
                            self.score_threshold)[:self.max_people]
        people = people[keep]
        if frame.camera is None or not len(people):
            return people
        pixels = (joints[keep, :, :2] * scale).numpy()
        depth = log_depth[keep].exp() / scale.prod().sqrt()  # m by px of the picture
        return people.with_fields(**in_space(pixels, joints[keep, :, 2].numpy(), depth.numpy(),
                                             frame.camera))


def _score(confidence: np.ndarray, keypoint_scores: np.ndarray, cov: np.ndarray,
           boxes: np.ndarray) -> np.ndarray:
    """Return the scores (P,) of people: the joints of a false or cut detection are uncertain.

    The paper's confidence times centerness chooses locations. It ranks people worse: centerness is
    nearly the same at all peaks, while the expected OKS says how good the joints are.

    Args:
        confidence (P,): of the centres.
        keypoint_scores (P, 17), cov (P, 17, 2, 2), boxes (P, 4): see `People`.
    """
    expected = oks.expected(cov, np.ones_like(keypoint_scores), oks.area(boxes))
    return np.sqrt(confidence * keypoint_scores.mean(1)) * expected


def in_space(pixels: np.ndarray, z: np.ndarray, depth: np.ndarray,
             camera: Camera) -> dict[str, np.ndarray]:
    """Return the fields root (P, 3) and joints (P, 24, 3) of `People`, m, in the camera frame.

    People with a joint that is not in front of the camera are NaN.

    Args:
        pixels (P, 24, 2): joints, px.
        z (P, 24): from the pelvis, m.
        depth (P,): of the pelvis, relative to the focal length, m / px.
        camera: of the frame.
    """
    ahead = (depth * np.sqrt(camera.fx * camera.fy))[:, None] + z
    rays = camera.normalise(pixels)
    joints = np.concatenate([rays * ahead[..., None], ahead[..., None]], 2)
    is_known = np.isfinite(joints).all((1, 2)) & (ahead > _LEAST_DEPTH_M).all(1)
    joints = np.where(is_known[:, None, None], joints, np.nan)
    return {"root": joints[:, 0], "joints": joints}
