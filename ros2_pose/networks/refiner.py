"""The contract between a top-down network and what finds people: crops in, keypoints out.

A refiner computes the 17 keypoints of one person in each crop. What found the person guides it, so
that it does not report a neighbour in the same crop.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from ros2_pose.body.placement import mean_lengths2, placed_joints
from ros2_pose.camera import Camera
from ros2_pose.config import PoseConfig
from ros2_pose.imaging.crop import Crop
from ros2_pose.networks.heads import engines_in_use
from ros2_pose.networks.keypoint_noise import KeypointNoise


class Guide(NamedTuple):
    """What is known of the person in a crop before the crop is looked at.

    Attributes:
        keypoints (17, 2): px of the crop, COCO order; all NaN if only the box is known.
        middle (2,): middle of the person's box, px of the crop.
    """

    keypoints: np.ndarray
    middle: np.ndarray


class Refined(NamedTuple):
    """The person found in a crop; px of the crop, pixel centres at +0.5.

    Attributes:
        keypoints (17, 2): px, COCO order.
        votes_cov (17, 2, 2): covariance of the heat-map's votes, px^2.
        keypoint_scores (17,): 0..1.
        center_score: score of the person's centre, 0..1.
        joints (24, 3): SMPL order; x, y px of the crop, z m from the pelvis, along the line of
            sight to the middle of the crop. None from a network in 2D.
        size: of the bones between these joints in total, relative to the mean body's.
    """

    keypoints: np.ndarray
    votes_cov: np.ndarray
    keypoint_scores: np.ndarray
    center_score: float
    joints: np.ndarray | None = None
    size: float = 1.0


class Refiner(ABC):
    """Base class of every network of `registry.REFINERS`.

    Attributes:
        long_side: px of a crop's longer side; the shorter one is a multiple of 32 px.
        noise: errors of its keypoints, by which covariances are stated.
        config: settings that it was created with.
    """

    config: PoseConfig
    long_side: int
    noise: KeypointNoise

    @abstractmethod
    def __init__(self, config: PoseConfig, device: torch.device | str = "cpu") -> None:
        """Load the network.

        Args:
            config: settings of the pipeline; frozen.
            device: torch device that the network computes on.
        """

    @property
    def engines(self) -> set[tuple[str, str]]:
        """What computes its layers: names of engines, each with its device, "cpu" or "cuda"."""
        return engines_in_use(self, self.config) if isinstance(self, nn.Module) else set()

    @abstractmethod
    def refine(self, crops: list[np.ndarray], guides: list[Guide]) -> list[Refined]:
        """Find one person in each crop.

        Args:
            crops: images (h, w, 3) uint8 RGB, people upright; sizes may differ.
            guides: one a crop.
        Returns:
            One person a crop; the result for a crop does not depend on the others.
        """


def refine_each(refiner: Refiner, crops: list[np.ndarray],
                guides: list[Guide]) -> list[Callable[[], Refined]]:
    """Refine crops (h, w, 3) together; if that fails, each by itself.

    Returns:
        For each crop a function that returns its person, or raises its own error.
    """
    try:
        return [partial(_same, found) for found in refiner.refine(crops, guides)]
    except Exception:  # one of the crops may be the cause
        return [partial(_alone, refiner, crop, guide) for crop, guide in zip(crops, guides)]


def _same(found: Refined) -> Refined:
    return found


def _alone(refiner: Refiner, crop: np.ndarray, guide: Guide) -> Refined:
    return refiner.refine([crop], [guide])[0]


def rows_by_shape(images: list[np.ndarray]) -> list[list[int]]:
    """Return the rows of images (h, w, 3) of the same shape, a list for each shape."""
    shapes = dict.fromkeys(image.shape for image in images)
    return [[row for row, image in enumerate(images) if image.shape == shape] for shape in shapes]


def joints_in_camera(refined: Refined, crop: Crop, camera: Camera) -> np.ndarray:
    """Place the joints that a refiner found in space, at the distance that fits their size.

    Args:
        refined: with joints.
        crop: that they were found in.
        camera: of the picture.
    Returns:
        (24, 3) m in the camera frame; NaN if there is no such distance, or the lens does not reach
        so far.
    """
    joints = refined.joints
    assert joints is not None
    middle = np.array(crop.image.shape[1::-1]) / 2
    pixels = crop.to_picture(np.concatenate([joints[:, :2], middle[None]]))
    rays = np.c_[camera.normalise(pixels), np.ones(len(pixels))]
    view = rays[-1] / np.linalg.norm(rays[-1])
    rays = rays[:-1] / (rays[:-1] @ view)[:, None]
    depths = joints[:, 2] - joints[0, 2]
    placed, _ = placed_joints(torch.from_numpy(rays[None]), torch.from_numpy(depths[None]),
                              refined.size**2 * mean_lengths2())
    return placed[0].numpy()
