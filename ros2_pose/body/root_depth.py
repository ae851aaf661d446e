"""Distance of people from their size in the image, without a body: k times a learned gamma.

A square of 2 m that fills the square around a person in the image is at the distance
k = sqrt(fx fy A_real / A_image). A small network corrects it by gamma for the pose, what is hidden
and how the person is seen. In the paper gamma comes from the image's features; here from the
keypoints, so that it serves the people of any network and costs a tenth of a millisecond. It is
trained by `ros2_pose.training.train_root_depth` on simulated people.

Source: Moon, Chang and Lee 2019, "Camera Distance-aware Top-down Approach for 3D Multi-person Pose
Estimation from a Single RGB Image", eqs 1-3.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ros2_pose.body.lift import person_view, rotmat_towards
from ros2_pose.skeleton import COCO17

FILE = Path(__file__).parent / "data" / "root_depth.pt"
_SIDE_M = 2.0  # of the square that stands for a person
_ENLARGED = 1.25  # the square in the image relative to the hull of the keypoints
_K = len(COCO17)
_KEYPOINT_FEATURES = 6  # of each in `person_view`: whether it is seen, x, y, ...
_LOG_STD_RANGE = -4.5, 1.0
_ANY_ROTATION = math.pi**2 / 3  # rad^2, variance of an angle of which nothing is known


class RootDepth(nn.Module):
    """An MLP from the features of `person_view` to gamma, the ray to the pelvis, and their errors.
    """

    def __init__(self, width: int = 192) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(_KEYPOINT_FEATURES * _K + 4, width), nn.GELU(), nn.Linear(width, width),
            nn.GELU(), nn.Linear(width, width), nn.GELU(), nn.Linear(width, 6))

    @staticmethod
    def load(path: str | Path = FILE) -> RootDepth:
        """Load the shipped network, or one trained by `ros2_pose.training.train_root_depth`."""
        weights = torch.load(path, map_location="cpu", weights_only=True)
        network = RootDepth(len(weights["layers.0.bias"]))
        network.load_state_dict({name: value.float() for name, value in weights.items()})
        return network.eval().requires_grad_(False)

    def forward(self, points: Tensor, cov: Tensor,
                up: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Estimate the positions of P pelvises.

        Args:
            points (P, 17, 2): COCO keypoints, normalised and undistorted: x/z, y/z. NaN: missing.
            cov (P, 17, 2, 2): their covariance in the same unit. NaN: missing.
            up (3,): the world's up in the camera frame, if the camera may be rolled.
        Returns:
            Positions (P, 3) m, camera frame; standard deviations (P, 3) relative to the distance:
            across and down the ray, and of the distance's logarithm.
        """
        features, rotmat, rays_std = person_view(points, cov, up)
        log_gamma, *ray, std = self.layers(features).split([1, 1, 1, 3], 1)
        ray = torch.cat(ray, 1) * rays_std[:, None]
        distance = k_value(features, rays_std) * log_gamma[:, 0].exp()
        root = torch.cat([ray, torch.ones_like(distance)[:, None]], 1) * distance[:, None]
        return (root[:, None] @ rotmat)[:, 0], std.clamp(*_LOG_STD_RANGE).exp()


def k_value(features: Tensor, rays_std: Tensor) -> Tensor:
    """Return the distances k (P,) m at which people of 2 m would be as large.

    Args:
        features (P, 106), rays_std (P,): see `person_view`.
    Source: Moon et al. 2019, eq. 2; the area is that of the square around the keypoints, in the
        plane at a distance of 1 m, so that the focal lengths are in it.
    """
    keypoints = features[:, :_KEYPOINT_FEATURES * _K].unflatten(1, (_K, _KEYPOINT_FEATURES))
    seen, relative = keypoints[..., :1] > 0, keypoints[..., 1:3]
    low = torch.where(seen, relative, torch.inf).amin(1)
    high = torch.where(seen, relative, -torch.inf).amax(1)
    side = (high - low).amax(1).clamp(min=1e-3) * rays_std * _ENLARGED
    return torch.where(seen.any(1)[:, 0], _SIDE_M / side, torch.nan)


def root_with_cov(network: RootDepth, points: Tensor, cov: Tensor,
                  up: Tensor | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Estimate positions and their covariances as `People` has them.

    Args:
        network: the network.
        points, cov, up: see `RootDepth.forward`.
    Returns:
        root (P, 3) m, camera frame, and root_cov (P, 6, 6) m, rad; NaN with fewer than two
        keypoints. Of the rotation nothing is known: its variance is that of any angle.
    """
    root, std = (value.double() for value in network(points.float(), cov.float(), up))
    ray_from_camera = rotmat_towards(root[:, :2] / root[:, 2:])
    std = std * root.norm(dim=1, keepdim=True)
    position_cov = ray_from_camera.mT @ std.square().diag_embed() @ ray_from_camera
    is_known = (points.isfinite().all(2).sum(1) >= 2) & (root[:, 2] > 0)
    root_cov = _ANY_ROTATION * torch.eye(6).double().repeat(len(root), 1, 1)
    root_cov[:, :3, :3] = position_cov
    root[~is_known], root_cov[~is_known] = torch.nan, torch.nan
    return root.numpy(), root_cov.numpy()
