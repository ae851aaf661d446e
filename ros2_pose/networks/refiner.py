"""The contract between a top-down network and what finds people: crops in, keypoints out.

A refiner computes the 17 keypoints of one person in each crop. What found the person guides it, so
that it does not report a neighbour in the same crop.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
import torch

from ros2_pose.config import PoseConfig
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
    """

    keypoints: np.ndarray
    votes_cov: np.ndarray
    keypoint_scores: np.ndarray
    center_score: float


class Refiner(ABC):
    """Base class of every network of `registry.REFINERS`.

    Attributes:
        long_side: px of a crop's longer side; the shorter one is a multiple of 32 px.
        noise: errors of its keypoints, by which covariances are stated.
    """

    long_side: int
    noise: KeypointNoise

    @abstractmethod
    def __init__(self, config: PoseConfig, device: torch.device | str = "cpu") -> None:
        """Load the network.

        Args:
            config: settings of the pipeline; frozen.
            device: torch device that the network computes on.
        """

    @abstractmethod
    def refine(self, crops: list[np.ndarray], guides: list[Guide]) -> list[Refined]:
        """Find one person in each crop.

        Args:
            crops: images (h, w, 3) uint8 RGB, people upright; sizes may differ.
            guides: one a crop.
        Returns:
            One person a crop; the result for a crop does not depend on the others.
        """
