"""The Self-Attention Network as a refiner of people found by others, in 2D and 3D."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from ros2_pose.config import PoseConfig
from ros2_pose.networks.checkpoint import load_layers
from ros2_pose.networks.engine import on_host
from ros2_pose.networks.keypoint_noise import SAN_NOISE
from ros2_pose.networks.refiner import Guide, Refined, Refiner, rows_by_shape
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
        """Find one person in each crop; see `Refiner.refine`.

        Crops are given to the network as squares; on a GPU those of one size are a batch. On a CPU
        each is computed by itself: a batch is no faster.
        """
        squares = [squared(crop, self.long_side) for crop in crops]
        groups = [[row] for row in range(len(crops))] if self._device.type == "cpu" \
            else rows_by_shape([square for square, _ in squares])
        found: dict[int, Refined] = {}
        for rows in groups:
            corners = np.stack([squares[row][1] for row in rows])
            found |= zip(rows, self._refined(np.stack([squares[row][0] for row in rows]), corners,
                                             [guides[row] for row in rows]))
        return [found[row] for row in range(len(crops))]

    @torch.inference_mode()
    def _refined(self, squares: np.ndarray, corners: np.ndarray,
                 guides: list[Guide]) -> list[Refined]:
        """Find the people in squares (N, h, w, 3), in which crops have corners (N, 2) x, y px."""
        batch = torch.from_numpy(squares).to(self._device).permute(0, 3, 1, 2)
        keypoints = [guide.keypoints if np.isfinite(guide.keypoints).all()
                     else np.full((K, 2), np.nan) for guide in guides]
        guess, middle = (self._tensor(np.stack(points) + corners[:, None]) for points in
                         (keypoints, [guide.middle[None] for guide in guides]))
        out = self.net(batch, guess, middle[:, 0])
        values = on_host([out[name] for name in (
            "keypoints", "keypoint_std", "keypoint_scores", "center_scores", "joints", "size")])
        found = []
        for corner, *person in zip(corners, *(value.double().numpy() for value in values)):
            points, std, scores, center_score, joints, size = person
            joints = joints[K:] * (STRIDE, STRIDE, 1) - (*corner, 0)
            cov = (STRIDE * std)[..., None]**2 * np.eye(2)
            found.append(Refined(STRIDE * points - corner, cov, scores, float(center_score), joints,
                                 float(size)))
        return found

    def _tensor(self, points: np.ndarray) -> Tensor:
        """Return points (N, ..., 2) px on the network's device."""
        return torch.from_numpy(points).float().to(self._device)


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
