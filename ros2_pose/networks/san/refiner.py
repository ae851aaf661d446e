"""The Self-Attention Network as a refiner of people found by others, in 2D and 3D."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ros2_pose.config import PoseConfig
from ros2_pose.networks.checkpoint import load_layers
from ros2_pose.networks.keypoint_noise import SAN_NOISE
from ros2_pose.networks.refiner import Guide, Refined, Refiner
from ros2_pose.networks.san.backbone import ThunderFeatures
from ros2_pose.networks.san.network import STRIDE, K, SanNet


class San(nn.Module, Refiner):
    """Finds the 17 COCO keypoints and the 24 SMPL joints of the person that its guide describes."""

    noise = SAN_NOISE

    def __init__(self, config: PoseConfig = PoseConfig(), device: torch.device | str = "cpu",
                 net: SanNet | None = None) -> None:
        """Load the network.

        Args:
            config: settings; read are `checkpoint` and those of the engine, see `Heads`.
            device: torch device that the network computes on.
            net: layers to use in place of the checkpoint's.
        """
        nn.Module.__init__(self)
        self.config = config
        self.net = load_layers(config.checkpoint, SanNet) if net is None else net
        self.net.eval().to(device)
        self.long_side = self.net.config.input_size
        self._device = torch.device(device)
        if isinstance(self.net.features, ThunderFeatures):
            self.net.features.set_engine(config, device, self.long_side)

    def refine(self, crops: list[np.ndarray], guides: list[Guide]) -> list[Refined]:
        """Compute each crop by itself: on a CPU a batch is no faster; see `Refiner.refine`."""
        return [self._refined(crop, guide) for crop, guide in zip(crops, guides)]

    @torch.inference_mode()
    def _refined(self, crop: np.ndarray, guide: Guide) -> Refined:
        """Find the person in a crop, which is given to the network as a square."""
        square, corner = squared(crop, self.long_side)
        batch = torch.from_numpy(square[None]).permute(0, 3, 1, 2).to(self._device)
        known = np.isfinite(guide.keypoints).all()
        guess = self._tensor(guide.keypoints + corner) if known else None
        out = self.net(batch, guess, self._tensor(guide.middle + corner))
        values = {name: out[name][0].double().cpu().numpy() for name in
                  ("keypoints", "keypoint_std", "joints", "size", "keypoint_scores",
                   "center_scores")}
        joints = values["joints"][K:] * (STRIDE, STRIDE, 1) - (*corner, 0)
        cov = (STRIDE * values["keypoint_std"])[..., None]**2 * np.eye(2)
        return Refined(STRIDE * values["keypoints"] - corner, cov, values["keypoint_scores"],
                       float(values["center_scores"]), joints, float(values["size"]))

    def _tensor(self, points: np.ndarray) -> Tensor:
        """Return points (..., 2) px as a batch of one (1, ..., 2)."""
        return torch.from_numpy(points[None]).float().to(self._device)


def squared(crop: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a crop (h, w, 3) in the middle of a black square, as in training, and its corner.

    Args:
        side: of the square, px; a crop of another size keeps its size.
    Returns:
        The square, and the corner (2,) x, y of the crop in it, px.
    """
    height, width = crop.shape[:2]
    rows, columns = max(side - height, 0), max(side - width, 0)
    top, left = rows // 2, columns // 2
    square = np.pad(crop, ((top, rows - top), (left, columns - left), (0, 0)))
    return square, np.array((left, top))
