"""Where people and things stand before the camera: on one floor, not in each other.

World frame: the camera at the origin, y up, the camera looks along -z before it pitches and rolls;
metres.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from ros2_pose.body.model import BodyModel
from ros2_pose.camera import Camera
from ros2_pose.data.synthetic.bodies import BodySampler
from ros2_pose.geometry import quat_from_rotmat, rotmat_from_rotvec
from ros2_pose.skeleton import SMPL24

_FOV_DEG = (40.0, 100.0)
_COUNT_SHARES = (0.05, 0.28, 0.24, 0.17, 0.12, 0.08, 0.06)  # nobody, one person, two, ...
_THING_SHARES = (0.3, 0.2, 0.15, 0.12, 0.1, 0.08, 0.05)
_TRIES = 12
_LEAST_DISTANCE_M = 0.45  # of any part of anybody from the camera
_FURTHEST_M = 9.0
_NEAR_HALF_M, _HALF_M = (0.3, 0.7, 0.3), (0.8, 1.0, 0.8)  # things' half sizes, at most
_THICK = ("pelvis", "spine1", "spine2", "spine3", "head")
_RADII_M = np.array([0.15 if name in _THICK else 0.08 for name in SMPL24.names])
_PARENTS = np.maximum(SMPL24.parents, 0)


class Mesh(NamedTuple):
    """A surface in the world frame; local: what patterns stick to."""

    vertices: np.ndarray  # (V, 3) m
    faces: np.ndarray  # (F, 3)
    local: np.ndarray  # (V, 3) m


@dataclass(frozen=True)
class Layout:
    """P people and some things before one camera. People: rotations to the world frame."""

    camera: Camera
    to_camera: np.ndarray  # (3, 3)
    height: float  # m of the camera over the floor
    rotmats: torch.Tensor  # (P, 24, 3, 3), the first to the world frame
    betas: torch.Tensor  # (P, 10)
    root: np.ndarray  # (P, 3) m
    joints: np.ndarray  # (P, 24, 3) m
    vertices: np.ndarray  # (P, V, 3) m, naked
    things: list[Mesh]

    @property
    def reach(self) -> float:
        """m: everything is nearer than this along each axis."""
        points = [self.vertices.reshape(-1, 3), *(thing.vertices for thing in self.things)]
        return float(max((np.abs(p[:, [0, 2]]).max() for p in points if len(p)), default=3.0))


def random_camera(rng: np.random.Generator, width: int, height: int) -> Camera:
    """Fields of view as robots' cameras have, nearly square pixels, the axis off the middle."""
    plain = Camera.from_fov(width, height, rng.uniform(*_FOV_DEG))
    cx, cy = (rng.normal(0.5, 0.02, 2) * (width, height)).tolist()
    return Camera(width, height, plain.fx, plain.fy * float(np.exp(rng.normal(0, 0.01))), cx, cy)


def arrange(model: BodyModel, bodies: BodySampler, rng: np.random.Generator, camera: Camera,
            count: int | None = None) -> Layout:
    """Put people, by default 0 to 6, and things before a camera; fewer where there is no room."""
    count = int(rng.choice(len(_COUNT_SHARES), p=_COUNT_SHARES)) if count is None else count
    posed = _posed(model, bodies, max(count, 1))  # also an empty room has a camera at some height
    pelvis = -posed.vertices[..., 1].min(1)
    position, to_camera = bodies.views(torch.from_numpy(pelvis[:1]), _FURTHEST_M)
    position, to_camera = position[0].numpy().astype(float), to_camera[0].numpy().astype(float)
    height = float(pelvis[0] - position[1])
    half_fov = np.arctan(camera.width / 2 / camera.fx)
    distance = float(np.hypot(position[0], position[2]))
    lead = _at(distance, np.arctan2(position[0], -position[2]) * half_fov / 0.6, position[1])
    root = _placed(rng, posed.joints, pelvis - height, lead, half_fov)[:count]
    rows = np.flatnonzero(np.isfinite(root[:, 0]))
    joints = posed.joints[rows] + root[rows, None]
    things = _things(rng, joints, height, half_fov, distance)
    return Layout(camera, to_camera, height, posed.rotmats[rows], posed.betas[rows], root[rows],
                  joints, posed.vertices[rows] + root[rows, None], things)


# ---------------------------------------------------------------------------------- people


class _Posed(NamedTuple):
    rotmats: torch.Tensor
    betas: torch.Tensor
    joints: np.ndarray
    vertices: np.ndarray


def _posed(model: BodyModel, bodies: BodySampler, count: int) -> _Posed:
    """People about their pelves."""
    rotmats, betas = rotmat_from_rotvec(bodies.rotvecs(count)), bodies.betas(count)
    body = model(quat_from_rotmat(rotmats), betas)
    return _Posed(rotmats, betas, body.joints.numpy(), body.vertices.numpy())


def _at(distance: float, bearing: float, y: float) -> np.ndarray:
    return np.array([distance * np.sin(bearing), y, -distance * np.cos(bearing)])


def _placed(rng, joints: np.ndarray, y: np.ndarray, lead: np.ndarray,
            half_fov: float) -> np.ndarray:
    """(P, 3) pelves of people whose joints (P, 24, 3) are about them; NaN: there was no room."""
    balls = _balls(joints)
    root = np.full((len(joints), 3), np.nan)
    for i in range(len(joints)):
        for attempt in range(_TRIES):
            if i == 0:
                position = lead * (1 + 0.15 * attempt, 1, 1 + 0.15 * attempt)
            else:
                position = _proposal(rng, root[:i], y[i], half_fov)
            if _is_free(balls[i] + position, balls[:i] + root[:i, None]):
                root[i] = position
                break
    return root


def _proposal(rng, others: np.ndarray, y: float, half_fov: float) -> np.ndarray:
    """Beside somebody, or anywhere in view."""
    others = others[np.isfinite(others[:, 0])]
    if len(others) and rng.random() < 0.6:
        beside = others[rng.integers(len(others))] * (1, 0, 1)
        return beside + _at(rng.uniform(0.35, 1.8), rng.uniform(-np.pi, np.pi), y)
    distance = np.exp(rng.uniform(np.log(1.2), np.log(_FURTHEST_M)))
    return _at(distance, rng.uniform(-1.1, 1.1) * half_fov, y)


def _balls(joints: np.ndarray) -> np.ndarray:
    """(P, 48, 3) centres of balls that fill bodies: joints (P, 24, 3) and the bones' middles."""
    return np.concatenate([joints, (joints + joints[:, _PARENTS]) / 2], 1)


_BALL_RADII_M = np.concatenate([_RADII_M, (_RADII_M + _RADII_M[_PARENTS]) / 2])


def _is_free(own: np.ndarray, others: np.ndarray) -> bool:
    """Whether a person's balls (48, 3) touch neither the camera nor the others' (P, 48, 3)."""
    if (np.linalg.norm(own, axis=1) < _LEAST_DISTANCE_M + _BALL_RADII_M).any():
        return False
    others = others[np.isfinite(others[:, 0, 0])]
    apart = np.linalg.norm(own[None, :, None] - others[:, None], axis=-1)
    return bool((apart > _BALL_RADII_M[:, None] + _BALL_RADII_M).all())


# ---------------------------------------------------------------------------------- things


def _things(rng, joints: np.ndarray, camera_height: float, half_fov: float,
            distance: float) -> list[Mesh]:
    """Up to six pieces of furniture, some before the people, most anywhere."""
    balls, radii = _balls(joints).reshape(-1, 3), np.tile(_BALL_RADII_M, len(joints))[:, None]
    things = []
    for _ in range(int(rng.choice(7, p=_THING_SHARES))):
        before = rng.random() < 0.3
        far = rng.uniform(0.35, 0.85) * distance if before else rng.uniform(1.2, _FURTHEST_M)
        half = np.exp(rng.uniform(np.log(0.08), np.log(_NEAR_HALF_M if before else _HALF_M)))
        floor = -camera_height + (rng.uniform(0.3, 1.5) if rng.random() < 0.15 else 0.0)
        middle = _at(far, rng.uniform(-1, 1) * half_fov, floor + half[1])
        rotmat = _about_y(rng.uniform(-np.pi, np.pi))
        apart = np.abs((balls - middle) @ rotmat) - half
        hits = (apart < radii + 0.04).all(1).any()
        if not hits and np.linalg.norm(middle[[0, 2]]) > np.linalg.norm(half) + 0.3:
            local, faces = _SHAPES[rng.choice(3, p=(0.7, 0.2, 0.1))]
            things.append(Mesh((local * half) @ rotmat.T + middle, faces, local * half))
    return things


def _about_y(angle: float) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def _box() -> tuple[np.ndarray, np.ndarray]:
    """A cube from -1 to 1, corners apart at its edges, so that normals are not shared."""
    vertices, faces = [], []
    for axis in range(3):
        for sign in (-1.0, 1.0):
            u, v = np.eye(3)[(axis + 1) % 3], np.eye(3)[(axis + 2) % 3]
            corners = [sign * np.eye(3)[axis] + a * u + sign * b * v
                       for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
            base = len(vertices)
            vertices += corners
            faces += [(base, base + 1, base + 2), (base, base + 2, base + 3)]
    return np.array(vertices), np.array(faces)


def _turned(profile: np.ndarray, sectors: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """A solid of revolution about y: profile (N, 2) of radius and y, upwards from 0 to 0."""
    angles = np.arange(sectors) * 2 * np.pi / sectors
    rings = np.stack([np.outer(profile[:, 0], np.sin(angles)),
                      np.repeat(profile[:, 1:], sectors, 1),
                      np.outer(profile[:, 0], np.cos(angles))], -1)
    row, column = np.indices((len(profile) - 1, sectors)).reshape(2, -1)
    a, b = row * sectors + column, row * sectors + (column + 1) % sectors
    faces = np.concatenate([np.stack([a, b, b + sectors], 1),
                            np.stack([a, b + sectors, a + sectors], 1)])
    return rings.reshape(-1, 3), faces


_POLAR = np.linspace(-np.pi / 2, np.pi / 2, 13)
_SHAPES = (
    _box(),
    _turned(np.array([(0, -1), (1, -1), (1, -1), (1, 1), (1, 1), (0, 1.0)])),
    _turned(np.stack([np.cos(_POLAR), np.sin(_POLAR)], 1)))
