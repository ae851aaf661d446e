"""Lift: first bodies from uncertain 2D keypoints, by a small network.

In one view a pose has several explanations (a limb bent towards the camera or away, a body facing
or turned away), so the network gives a few hypotheses, each with its probability and its own
uncertainty; the fit chooses. Trained by `ros2_pose.training.train_lift` on synthetic people alone.

The network looks at everybody through a camera turned towards him: keypoints are rays relative to
the mean ray, divided by their spread, so that neither the place in the image nor the distance
changes what it sees but through three explicit numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ros2_pose.body.state import BodyState
from ros2_pose.geometry import quat_from_rotmat, rotmat_from_columns
from ros2_pose.skeleton import COCO17, SMPL24

FILE = Path(__file__).parent / "data" / "lift.pt"
HYPOTHESES = 3
_K, _J = len(COCO17), len(SMPL24)
_PARTS = {"rotations": 6 * _J, "betas": 10, "root": 3, "log_turn_std": _J, "log_root_std": 3}
_SMALLEST_SPREAD = 1e-4  # of rays; people are larger, and nothing is divided by zero
_USUAL_LOG_SPREAD = -1.1  # of a body's keypoints, m, logarithm
_LEAST_REL_STD = 1e-3  # of the spread; nobody knows a keypoint better


class LiftInput(NamedTuple):
    """How people are seen by a camera turned towards each of them."""

    features: Tensor  # (P, 6 * 17 + 4)
    rotmat: Tensor  # (P, 3, 3) from the camera to the one turned towards the person
    rays_std: Tensor  # (P,) of the rays, m at 1 m


class Lifted(NamedTuple):
    """What the network says of P people, H hypotheses each, in the camera frame."""

    quats: Tensor  # (P, H, 24, 4) x, y, z, w of each joint relative to its parent; [0], to camera
    betas: Tensor  # (P, H, 10)
    root: Tensor  # (P, H, 3) m
    rotation_std: Tensor  # (P, H, 24) rad, of a joint's rotation about any axis
    root_std: Tensor  # (P, H, 3) to the side, down, log distance; in its parts
    logits: Tensor  # (P, H) of the hypotheses' probabilities

    def states(self) -> BodyState:
        """(P * H) states, a person's hypotheses after each other."""
        return BodyState(*(value.flatten(0, 1) for value in (self.quats, self.betas, self.root)))

    def to(self, dtype: torch.dtype) -> Lifted:
        """The same in another precision."""
        return Lifted(*(value.to(dtype) for value in self))


class Lift(nn.Module):
    """A residual MLP from a `View` to `Lifted`."""

    def __init__(self, width: int = 576, blocks: int = 3) -> None:
        super().__init__()
        self.enter = nn.Linear(6 * _K + 4, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(),
                          nn.Linear(width, width)) for _ in range(blocks))
        self.leave = nn.Sequential(nn.LayerNorm(width),
                                   nn.Linear(width, HYPOTHESES * (sum(_PARTS.values()) + 1)))

    @staticmethod
    def load(path: str | Path = FILE) -> Lift:
        """The shipped network, or one trained by `ros2_pose.training.train_lift`."""
        weights = torch.load(path, map_location="cpu", weights_only=True)
        width, _ = weights["enter.weight"].shape
        network = Lift(width, sum(name.endswith("1.weight") for name in weights) - 1)
        network.load_state_dict({name: value.float() for name, value in weights.items()})
        return network.eval().requires_grad_(False)

    def forward(self, points: Tensor, cov: Tensor, up: Tensor | None = None) -> Lifted:
        """Lift people.

        points: (P, 17, 2) COCO keypoints, normalised and undistorted: x/z, y/z. NaN: missing.
        cov: (P, 17, 2, 2) their covariance in the same unit. NaN: missing.
        up: (3,) the world's up in the camera frame, if the camera may be rolled.
        """
        seen_from = view(points, cov, up)
        hidden = self.enter(seen_from.features)
        for block in self.blocks:
            hidden = hidden + block(hidden)
        out = self.leave(hidden).unflatten(1, (HYPOTHESES, -1))
        *parts, logit = out.split([*_PARTS.values(), 1], 2)
        return _to_camera(dict(zip(_PARTS, parts)), logit[..., 0], seen_from)


def view(points: Tensor, cov: Tensor, up: Tensor | None = None) -> LiftInput:
    """Turn a camera towards each person; arguments as of `Lift.forward`."""
    level = torch.eye(3).to(points) if up is None else _level(up.to(points))
    seen = points.isfinite().all(2) & cov.isfinite().flatten(2).all(2)
    share = seen.to(points) / seen.sum(1, keepdim=True).clamp(min=1)
    points = torch.where(seen[..., None], points, 0.0)
    rays = torch.cat([points, torch.ones_like(points[..., :1])], 2)
    turned = towards((share[..., None] * points).sum(1) @ level[:2, :2].T)
    rotmat = turned @ level
    rays = rays @ rotmat.transpose(1, 2)
    depth = rays[..., 2:].clamp(min=0.05)
    image = rays[..., :2] / depth
    by_point = (rotmat[:, None, :2, :2] - image[..., None] * rotmat[:, None, 2:, :2]) / depth[
        ..., None
    ]
    cov = by_point @ torch.where(seen[..., None, None], cov, 0.0) @ by_point.transpose(2, 3)
    mean = (share[..., None] * image).sum(1, keepdim=True)
    rays_std = (share * (image - mean).square().sum(2)).sum(1).sqrt().clamp(min=_SMALLEST_SPREAD)
    where = torch.cat([(image - mean) / rays_std[:, None, None],
                       _spread_of(cov / rays_std[:, None, None, None].square())], 2)
    where = torch.where(seen[..., None], where, 0.0)
    features = torch.cat([seen[..., None].to(points), where], 2).flatten(1)
    size = torch.cat([rays_std[:, None].log(), turned[:, 2]], 1)
    return LiftInput(torch.cat([features, size], 1), rotmat, rays_std)


def _level(up: Tensor) -> Tensor:
    """(3, 3) roll about the line of sight after which up (3,) is upwards in the image."""
    across, along = up[0], -up[1]
    length = torch.hypot(across, along)
    if length < 0.1:  # straight down or up: any roll is as good
        return torch.eye(3).to(up)
    sine, cosine = across / length, along / length
    roll = torch.eye(3).to(up)
    roll[0, 0] = roll[1, 1] = cosine
    roll[0, 1], roll[1, 0] = sine, -sine
    return roll


def towards(centre: Tensor) -> Tensor:
    """(P, 3, 3) turns that bring the ray through centre (P, 2) onto the axis, without a roll."""
    forward = torch.nn.functional.normalize(
        torch.cat([centre, torch.ones_like(centre[:, :1])], 1), dim=1)
    right = torch.nn.functional.normalize(
        torch.stack([forward[:, 2], torch.zeros_like(forward[:, 0]), -forward[:, 0]], 1), dim=1)
    return torch.stack([right, torch.linalg.cross(forward, right), forward], 1)


def _spread_of(cov: Tensor) -> Tensor:
    """(..., 3) log standard deviations and correlation of covariances (..., 2, 2)."""
    variance = cov.diagonal(dim1=-2, dim2=-1).clamp(min=_LEAST_REL_STD**2)
    correlation = cov[..., 0, 1] / variance.prod(-1).sqrt()
    return torch.cat([variance.log() / 2, correlation[..., None]], -1)


def _to_camera(parts: dict[str, Tensor], logits: Tensor, seen_from: LiftInput) -> Lifted:
    """Out of the turned cameras, and out of units of spread."""
    back = seen_from.rotmat.transpose(1, 2)[:, None]
    rotmats = rotmat_from_columns(parts["rotations"].unflatten(2, (_J, 3, 2)) + _NEUTRAL.to(
        logits))
    rotmats = torch.cat([(back @ rotmats[:, :, 0])[:, :, None], rotmats[:, :, 1:]], 2)
    rays_std = seen_from.rays_std[:, None, None]
    across = parts["root"][..., :2] * rays_std
    far = (parts["root"][..., 2:].clamp(-5, 5) + _USUAL_LOG_SPREAD).exp()
    root = torch.cat([across, torch.ones_like(far)], 2) * (far / rays_std)
    root = (back @ root[..., None])[..., 0]
    rotation_std, root_std = (parts[name].clamp(-4.5, 1.0).exp()
                          for name in ("log_turn_std", "log_root_std"))
    return Lifted(quat_from_rotmat(rotmats), parts["betas"], root, rotation_std, root_std,
                  logits)


# Facing the camera, limbs as in the T-pose: what a network that knows nothing would say.
_NEUTRAL = torch.eye(3, 2).repeat(_J, 1, 1)
_NEUTRAL[0] = torch.tensor([[1.0, 0.0], [0.0, -1.0], [0.0, 0.0]])
