"""Lift: hypotheses of bodies from uncertain 2D keypoints, by a small network.

In one view a pose has several explanations (a limb bent towards the camera or away, a body facing
the camera or turned away), so the network gives a few hypotheses, each with a probability and a
standard deviation; the fit chooses. It is trained by `ros2_pose.training.train_lift` on synthetic
people alone.

The network sees each person in a virtual camera that points at the person: keypoints are rays
relative to the mean ray, divided by their standard deviation over the body. Position in the image
and distance reach it only as four explicit numbers.

The network remembers: a recurrent state of each person carries what earlier images have shown, at
any rate and over gaps. It holds the hypotheses of the image before, too; a gate for each joint
blends them with the new ones. Without a state it sees one image.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ros2_pose.body.model import BodyModel
from ros2_pose.body.so3 import quat_from_rotmat, rotmat_from_columns
from ros2_pose.body.state import BodyState
from ros2_pose.skeleton import COCO17, SMPL24

FILE = Path(__file__).parent / "data" / "lift.pt"
HYPOTHESES = 3
# how the names of the recurrent weights begin
MEMORY = ("memory.", "forgetting", "recall.", "recall_bodies.", "gate.")
_K, _J = len(COCO17), len(SMPL24)
_OUTPUTS = {"rotations": 6 * _J, "betas": 10, "root": 3, "log_rotation_std": _J, "log_root_std": 3}
_BODY = 6 * _J + 10  # numbers of a body that is remembered: columns of rotations, betas
_LEAST_RAYS_STD = 1e-4  # no person is as small; avoids a division by zero
_MEAN_LOG_BODY_STD = -1.1  # logarithm of the std of a body's keypoints, m
_LEAST_REL_STD = 1e-3  # of a keypoint, relative to the std of the rays
_NEAREST_RAY = 0.05  # least z of a ray in the virtual camera
_LEAST_UP_IN_IMAGE = 0.1  # a camera that looks straight up or down is not rolled
_ROOT_CLAMP = 5.0  # of the root's log distance
_LOG_STD_RANGE = -4.5, 1.0
_LEAST_INTERVAL_S = 1e-3  # between images, that the memory is told
_CLOCK = 2  # inputs: whether there is a state, and the logarithm of its age
_RANK = 128  # of the layer that recalls bodies
_CLOSED = -3.0  # logit of a gate before training
_REMEMBERED_S = 3.0  # after which it forgets: it was not trained on longer gaps


class Lifted(NamedTuple):
    """H hypotheses of each of P people in the camera frame."""

    theta: Tensor  # (P, H, 24, 4) unit quaternions x, y, z, w, as in `BodyState`
    betas: Tensor  # (P, H, 10)
    root: Tensor  # (P, H, 3) m
    rotation_std: Tensor  # (P, H, 24) rad, of a joint's rotation about any axis
    root_std: Tensor  # (P, H, 3) relative to the distance: right, down, logarithm of the distance
    logits: Tensor  # (P, H) of the hypotheses' probabilities

    def states(self) -> BodyState:
        """Return (P * H) states, a person's hypotheses after each other."""
        return BodyState(*(value.flatten(0, 1) for value in (self.theta, self.betas, self.root)))

    def select(self, hypothesis: Tensor) -> Lifted:
        """Return one hypothesis of each person, by index (P,); fields without the dimension H."""
        people = torch.arange(len(hypothesis), device=hypothesis.device)
        return Lifted(*(value[people, hypothesis] for value in self))

    def to(self, dtype: torch.dtype) -> Lifted:
        """Return the same in another precision."""
        return Lifted(*(value.to(dtype) for value in self))


class Lift(nn.Module):
    """A residual MLP from the features of `person_view` to `Lifted`, with a recurrent state."""

    def __init__(self, width: int = 576, blocks: int = 3, memory: int = 384) -> None:
        super().__init__()
        self.enter = nn.Linear(6 * _K + 4, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(),
                          nn.Linear(width, width)) for _ in range(blocks))
        self.memory = nn.GRUCell(width + _CLOCK, memory)
        self.forgetting = nn.Parameter(torch.full((memory,), -3.0))  # log of rates, 1/s
        self.recall = nn.Linear(memory, width)
        self.recall_bodies = nn.Sequential(nn.Linear(HYPOTHESES * _BODY, _RANK, bias=False),
                                           nn.Linear(_RANK, width, bias=False))
        self.gate = nn.Linear(width + _CLOCK, HYPOTHESES * (_J + 1))  # of each joint, and of betas
        nn.init.zeros_(self.recall.weight)
        nn.init.zeros_(self.recall.bias)
        nn.init.zeros_(self.recall_bodies[1].weight)
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(self.gate.bias, _CLOSED)
        self.leave = nn.Sequential(nn.LayerNorm(width),
                                   nn.Linear(width, HYPOTHESES * (sum(_OUTPUTS.values()) + 1)))

    @staticmethod
    def load(path: str | Path = FILE) -> Lift:
        """Load the shipped network, or one trained by `ros2_pose.training.train_lift`."""
        weights = torch.load(path, map_location="cpu", weights_only=True)
        width, _ = weights["enter.weight"].shape
        blocks = len({name.split(".")[1] for name in weights if name.startswith("blocks.")})
        network = Lift(width, blocks, len(weights["forgetting"]))
        network.load_state_dict({name: value.float() for name, value in weights.items()})
        return network.eval().requires_grad_(False)

    def forward(self, points: Tensor, cov: Tensor, up: Tensor | None = None) -> Lifted:
        """Propose bodies from one image; see `remember`."""
        return self.remember(points, cov, up)[0]

    def remember(self, points: Tensor, cov: Tensor, up: Tensor | None = None,
                 state: Tensor | None = None,
                 seconds: Tensor | None = None) -> tuple[Lifted, Tensor]:
        """Propose bodies from an image and from what is remembered of the images before.

        Args:
            points (P, 17, 2): COCO keypoints, normalised and undistorted: x/z, y/z. NaN: missing.
            cov (P, 17, 2, 2): their covariance in the same unit. NaN: missing.
            up (3,): the world's up in the camera frame, if the camera may be rolled.
            state (P, S): of the image before; NaN for a person without one.
            seconds (P,): since then.
        Returns:
            Hypotheses, and the state (P, S) after this image.
        """
        features, rotmat, rays_std = person_view(points, cov, up)
        state, clock = self._known(state, seconds, len(features))
        latent, bodies = state.split([self.memory.hidden_size, HYPOTHESES * _BODY], 1)
        bodies = _rotated_bodies(bodies.unflatten(1, (HYPOTHESES, _BODY)), rotmat)
        first, *others = self.blocks
        hidden = self.enter(features)
        hidden = hidden + first(hidden)
        latent = self._next_latent(hidden, latent, clock)
        is_known = clock[:, :1]
        hidden = hidden + self.recall(latent) + is_known * self.recall_bodies(bodies.flatten(1))
        for block in others:
            hidden = hidden + block(hidden)
        out = self.leave(hidden).unflatten(1, (HYPOTHESES, -1))
        *values, logit = out.split([*_OUTPUTS.values(), 1], 2)
        outputs = dict(zip(_OUTPUTS, values))
        gate = is_known * self.gate(torch.cat([hidden, clock], 1)).sigmoid()
        bodies = _blended(outputs, bodies, gate.unflatten(1, (HYPOTHESES, -1)))
        outputs["rotations"] = bodies[..., :6 * _J] - _T_POSE_COLUMNS.to(bodies).flatten()
        outputs["betas"] = bodies[..., 6 * _J:]
        bodies = _rotated_bodies(bodies, rotmat.transpose(1, 2))
        state = torch.cat([latent, bodies.flatten(1)], 1)
        return _to_camera(outputs, logit[..., 0], rotmat, rays_std), state

    def _known(self, state: Tensor | None, seconds: Tensor | None,
               people: int) -> tuple[Tensor, Tensor]:
        """Replace missing states by zeros.

        Returns:
            state (P, S), and the clock (P, 2): whether it is known, and log seconds since then.
        """
        weight = self.recall.weight
        if state is None or seconds is None:
            return (weight.new_zeros(people, self.memory.hidden_size + HYPOTHESES * _BODY),
                    weight.new_zeros(people, _CLOCK))
        known = (state.isfinite().all(1) & (seconds <= _REMEMBERED_S))[:, None]
        seconds = seconds.clamp(min=_LEAST_INTERVAL_S)[:, None].to(weight)
        clock = torch.cat([known.to(weight), torch.where(known, seconds.log(), 0.0)], 1)
        return torch.where(known, state.to(weight), 0.0), clock

    def _next_latent(self, hidden: Tensor, latent: Tensor, clock: Tensor) -> Tensor:
        """Latent state (P, M) after an image with features hidden (P, width); it decays."""
        kept = (-self.forgetting.exp() * clock[:, 1:].exp()).exp()
        return self.memory(torch.cat([hidden, clock], 1), latent * kept)


def lifted_joints(lift: Lift, body: BodyModel, points: Tensor, std: Tensor, focal: Tensor | float,
                  middle: Tensor, least_depth_m: float) -> tuple[Tensor, Tensor, Tensor]:
    """Lift keypoints in pixels to the joints of the most probable bodies.

    Args:
        lift, body: the networks.
        points, std (P, 17, 2): keypoints and their standard deviations, px; NaN: missing.
        focal: length, px; middle (2,): principal point, px.
        least_depth_m: of a joint that is projected, m.
    Returns:
        Joints (P, 24, 3) m from the pelvis, camera axes; their pixels (P, 24, 2); and positions of
        the pelvis (P, 3) m, camera frame.
    """
    lifted = lift((points - middle) / focal, (std / focal).square().diag_embed())
    best = lifted.select(lifted.logits.argmax(1))
    joints = body(best.theta, best.betas, with_vertices=False).joints
    joints = joints - joints[:, :1]
    placed = joints + best.root[:, None]
    pixels = focal * placed[..., :2] / placed[..., 2:].clamp(min=least_depth_m) + middle
    return joints, pixels, best.root


def person_view(points: Tensor, cov: Tensor,
                up: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Describe each person as seen by a virtual camera that points at the person.

    Args:
        points (P, 17, 2), cov (P, 17, 2, 2), up (3,): see `Lift.forward`.
    Returns:
        features (P, 6 * 17 + 4): for each keypoint whether it is seen, its position, logarithmic
            standard deviations and correlation; then log rays_std and the ray to the person.
        rotmat (P, 3, 3): from the camera to the virtual camera.
        rays_std (P,): standard deviation of a person's rays about their mean, m at 1 m.
    """
    level = torch.eye(3).to(points) if up is None else _roll_to_level(up.to(points))
    seen = points.isfinite().all(2) & cov.isfinite().flatten(2).all(2)
    weight = seen.to(points) / seen.sum(1, keepdim=True).clamp(min=1)
    points = torch.where(seen[..., None], points, 0.0)
    cov = torch.where(seen[..., None, None], cov, 0.0)
    mean_ray = (weight[..., None] * points).sum(1) @ level[:2, :2].T
    towards_person = rotmat_towards(mean_ray)
    rotmat = towards_person @ level
    image, cov = _rotated_image(points, cov, rotmat)
    mean = (weight[..., None] * image).sum(1, keepdim=True)
    variance = (weight * (image - mean).square().sum(2)).sum(1)
    rays_std = variance.sqrt().clamp(min=_LEAST_RAYS_STD)
    relative = (image - mean) / rays_std[:, None, None]
    relative_cov = cov / rays_std[:, None, None, None].square()
    keypoints = torch.cat([relative, _log_std_and_correlation(relative_cov)], 2)
    keypoints = torch.where(seen[..., None], keypoints, 0.0)
    keypoints = torch.cat([seen[..., None].to(points), keypoints], 2).flatten(1)
    size_and_ray = torch.cat([rays_std[:, None].log(), towards_person[:, 2]], 1)
    return torch.cat([keypoints, size_and_ray], 1), rotmat, rays_std


def _rotated_image(points: Tensor, cov: Tensor, rotmat: Tensor) -> tuple[Tensor, Tensor]:
    """Points (P, K, 2) and cov (P, K, 2, 2) in a camera rotated by rotmat (P, 3, 3)."""
    rays = torch.cat([points, torch.ones_like(points[..., :1])], 2)
    rays = rays @ rotmat.transpose(1, 2)
    depth = rays[..., 2:].clamp(min=_NEAREST_RAY)
    image = rays[..., :2] / depth
    by_point = rotmat[:, None, :2, :2] - image[..., None] * rotmat[:, None, 2:, :2]
    by_point = by_point / depth[..., None]
    return image, by_point @ cov @ by_point.transpose(2, 3)


def _roll_to_level(up: Tensor) -> Tensor:
    """(3, 3) roll about the optical axis after which up (3,) points upwards in the image."""
    right, upwards = up[0], -up[1]
    length = torch.hypot(right, upwards)
    if length < _LEAST_UP_IN_IMAGE:
        return torch.eye(3).to(up)
    sine, cosine = right / length, upwards / length
    roll = torch.eye(3).to(up)
    roll[0, 0] = roll[1, 1] = cosine
    roll[0, 1], roll[1, 0] = sine, -sine
    return roll


def rotmat_towards(ray: Tensor) -> Tensor:
    """Return rotations that bring rays onto the optical axis, without a roll.

    Args:
        ray (P, 2): x/z, y/z.
    Returns:
        (P, 3, 3) from the camera to one that points along the ray.
    """
    forward = torch.nn.functional.normalize(
        torch.cat([ray, torch.ones_like(ray[:, :1])], 1), dim=1)
    right = torch.nn.functional.normalize(
        torch.stack([forward[:, 2], torch.zeros_like(forward[:, 0]), -forward[:, 0]], 1), dim=1)
    return torch.stack([right, torch.linalg.cross(forward, right), forward], 1)


def _log_std_and_correlation(cov: Tensor) -> Tensor:
    """(..., 3) log standard deviations and correlation of covariances (..., 2, 2)."""
    variance = cov.diagonal(dim1=-2, dim2=-1).clamp(min=_LEAST_REL_STD**2)
    correlation = cov[..., 0, 1] / variance.prod(-1).sqrt()
    return torch.cat([variance.log() / 2, correlation[..., None]], -1)


def _rotmats(rotations: Tensor) -> Tensor:
    """Rotation matrices (P, H, 24, 3, 3) of outputs (P, H, 144) relative to a T-pose."""
    columns = rotations.unflatten(2, (_J, 3, 2)) + _T_POSE_COLUMNS.to(rotations)
    return rotmat_from_columns(columns)


def _blended(outputs: dict[str, Tensor], before: Tensor, gate: Tensor) -> Tensor:
    """Blend the bodies that the network puts out with those (P, H, B) of the image before.

    Args:
        gate (P, H, 25): share of the bodies before, for each joint and for the betas.
    Returns:
        (P, H, B) columns of rotations and betas, in the virtual camera.
    """
    share = torch.cat([gate[..., :_J].repeat_interleave(6, 2),
                       gate[..., _J:].expand(-1, -1, 10)], 2)
    columns = _rotmats(outputs["rotations"])[..., :2].flatten(2)
    return torch.lerp(torch.cat([columns, outputs["betas"]], 2), before, share)


def _rotated_bodies(bodies: Tensor, rotmat: Tensor) -> Tensor:
    """Rotate the pelvis of bodies (P, H, B), columns and betas, by rotmat (P, 3, 3)."""
    pelvis = rotmat[:, None] @ bodies[..., :6].unflatten(2, (3, 2))
    return torch.cat([pelvis.flatten(2), bodies[..., 6:]], 2)


def _to_camera(outputs: dict[str, Tensor], logits: Tensor, rotmat: Tensor,
               rays_std: Tensor) -> Lifted:
    """Transform outputs (P, H, ...) from the virtual cameras and their units to the camera."""
    to_camera = rotmat.transpose(1, 2)[:, None]
    rotmats = _rotmats(outputs["rotations"])
    root_rotmat = (to_camera @ rotmats[:, :, 0])[:, :, None]
    rotmats = torch.cat([root_rotmat, rotmats[:, :, 1:]], 2)
    rays_std = rays_std[:, None, None]
    ray = outputs["root"][..., :2] * rays_std
    log_body_std = outputs["root"][..., 2:].clamp(-_ROOT_CLAMP, _ROOT_CLAMP) + _MEAN_LOG_BODY_STD
    body_std = log_body_std.exp()  # m; divided by that of the rays it is the distance
    root = torch.cat([ray, torch.ones_like(body_std)], 2) * (body_std / rays_std)
    root = (to_camera @ root[..., None])[..., 0]
    rotation_std = outputs["log_rotation_std"].clamp(*_LOG_STD_RANGE).exp()
    root_std = outputs["log_root_std"].clamp(*_LOG_STD_RANGE).exp()
    return Lifted(quat_from_rotmat(rotmats), outputs["betas"], root, rotation_std, root_std, logits)


# First two columns of the rotations of a T-pose that faces the camera: an output of zeros.
_T_POSE_COLUMNS = torch.eye(3, 2).repeat(_J, 1, 1)
_T_POSE_COLUMNS[0] = torch.tensor([[1.0, 0.0], [0.0, -1.0], [0.0, 0.0]])
