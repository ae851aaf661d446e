"""Places people and objects before a camera: on one floor, without collisions.

World frame: the camera at the origin, y up, the camera looks along -z before it pitches and rolls;
metres.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from ros2_pose.body.model import BodyModel
from ros2_pose.body.so3 import quat_from_rotmat, rotmat_from_rotvec
from ros2_pose.camera import Camera
from ros2_pose.data.synthetic.bodies import MAX_BEARING_RAD, BodySampler
from ros2_pose.skeleton import SMPL24

_FOV_DEG = (40.0, 100.0)
_PEOPLE_SHARES = (0.05, 0.28, 0.24, 0.17, 0.12, 0.08, 0.06)  # no person, one person, two, ...
_OBJECT_SHARES = (0.3, 0.2, 0.15, 0.12, 0.1, 0.08, 0.05)
_ATTEMPTS = 12  # to place a person
_MIN_DISTANCE_M = 0.45  # of any part of a person from the camera
_MAX_DISTANCE_M = 9.0
_EMPTY_EXTENT_M = 3.0  # of a scene without people and objects

# Half sizes of objects, at least and at most; those between camera and people are smaller.
_MIN_HALF_M = 0.08
_MAX_HALF_M, _MAX_HALF_BEFORE_M = (0.8, 1.0, 0.8), (0.3, 0.7, 0.3)
_OBJECT_GAP_M, _OBJECT_CAMERA_GAP_M = 0.04, 0.3

_THICK = ("pelvis", "spine1", "spine2", "spine3", "head")
_JOINT_RADII_M = np.array([0.15 if name in _THICK else 0.08 for name in SMPL24.names])
_PARENTS = np.maximum(SMPL24.parents, 0)
# Of the spheres of `_spheres`.
_RADII_M = np.concatenate([_JOINT_RADII_M, (_JOINT_RADII_M + _JOINT_RADII_M[_PARENTS]) / 2])


class Mesh(NamedTuple):
    """A surface in the world frame with the coordinates that its pattern sticks to."""

    vertices: np.ndarray  # (V, 3) m
    faces: np.ndarray  # (F, 3) vertex indices
    local: np.ndarray  # (V, 3) m, the object's own frame


@dataclass(frozen=True)
class Layout:
    """P people and some objects before one camera, world frame."""

    camera: Camera
    to_camera: np.ndarray  # (3, 3) rotation from the world to the camera frame
    height: float  # m of the camera above the floor
    rotmats: torch.Tensor  # (P, 24, 3, 3) relative to the parent, the first to the world
    betas: torch.Tensor  # (P, 10)
    root: np.ndarray  # (P, 3) m
    joints: np.ndarray  # (P, 24, 3) m
    vertices: np.ndarray  # (P, V, 3) m, without clothes
    objects: list[Mesh]

    @property
    def extent_m(self) -> float:
        """Largest horizontal coordinate of people and objects, m."""
        points = [self.vertices.reshape(-1, 3), *(mesh.vertices for mesh in self.objects)]
        extents = [np.abs(p[:, [0, 2]]).max() for p in points if len(p)]
        return float(max(extents, default=_EMPTY_EXTENT_M))


def random_camera(rng: np.random.Generator, width: int, height: int) -> Camera:
    """Draw a camera of a robot: nearly square pixels, principal point near the centre."""
    centred = Camera.from_fov(width, height, rng.uniform(*_FOV_DEG))
    cx, cy = (rng.normal(0.5, 0.02, 2) * (width, height)).tolist()
    fy = centred.fy * float(np.exp(rng.normal(0, 0.01)))
    return Camera(width, height, centred.fx, fy, cx, cy)


def arrange(model: BodyModel, bodies: BodySampler, rng: np.random.Generator, camera: Camera,
            count: int | None = None) -> Layout:
    """Place people and objects before a camera; fewer than wanted where there is no room.

    Args:
        count: number of people; None draws 0 to 6.
    """
    if count is None:
        count = int(rng.choice(len(_PEOPLE_SHARES), p=_PEOPLE_SHARES))
    drawn = max(count, 1)  # the height of the camera above the floor follows from one person
    rotmats = rotmat_from_rotvec(bodies.rotvecs(drawn))
    betas = bodies.betas(drawn)
    body = model(quat_from_rotmat(rotmats), betas)  # pelvis at the origin
    joints, vertices = body.joints.numpy(), body.vertices.numpy()
    pelvis_height = -vertices[..., 1].min(1)

    position, to_camera = bodies.views(torch.from_numpy(pelvis_height[:1]), _MAX_DISTANCE_M)
    x, y, z = position[0].numpy().astype(float)
    height = float(pelvis_height[0] - y)
    half_fov = np.arctan(camera.width / 2 / camera.fx)
    distance = float(np.hypot(x, z))
    bearing = np.arctan2(x, -z) * half_fov / MAX_BEARING_RAD
    root = _place_people(rng, joints, pelvis_height - height, _at(distance, bearing, y), half_fov)

    root = root[:count]
    rows = np.flatnonzero(np.isfinite(root[:, 0]))
    root, joints, vertices = root[rows], joints[rows], vertices[rows]
    joints = joints + root[:, None]
    objects = _place_objects(rng, joints, height, half_fov, distance)
    return Layout(camera, to_camera[0].numpy().astype(float), height, rotmats[rows], betas[rows],
                  root, joints, vertices + root[:, None], objects)


def _at(distance: float, bearing: float, y: float) -> np.ndarray:
    """(3,) m; bearing in rad, to the right of the camera's axis."""
    return np.array([distance * np.sin(bearing), y, -distance * np.cos(bearing)])


# ---------------------------------------------------------------------------------- people


def _place_people(rng: np.random.Generator, joints: np.ndarray, root_y: np.ndarray,
                  first: np.ndarray, half_fov: float) -> np.ndarray:
    """Find free positions for people, one after the other.

    Args:
        joints (P, 24, 3): m, relative to the pelvis. root_y (P,): m, of the pelvis.
        first (3,): m, for the first person; moved back where it is too near.
    Returns:
        (P, 3): m, positions of the pelves; NaN where there was no room.
    """
    spheres = _spheres(joints)
    root = np.full((len(joints), 3), np.nan)
    for person in range(len(joints)):
        for attempt in range(_ATTEMPTS):
            if person == 0:
                position = first * (1 + 0.15 * attempt, 1, 1 + 0.15 * attempt)
            else:
                position = _proposal(rng, root[:person], root_y[person], half_fov)
            others = spheres[:person] + root[:person, None]
            if _is_free(spheres[person] + position, others):
                root[person] = position
                break
    return root


def _proposal(rng: np.random.Generator, others: np.ndarray, y: float,
              half_fov: float) -> np.ndarray:
    """(3,) m beside one of the others (P, 3), or anywhere in view."""
    others = others[np.isfinite(others[:, 0])]
    if len(others) and rng.random() < 0.6:
        neighbour = others[rng.integers(len(others))] * (1, 0, 1)
        return neighbour + _at(rng.uniform(0.35, 1.8), rng.uniform(-np.pi, np.pi), y)
    distance = np.exp(rng.uniform(np.log(1.2), np.log(_MAX_DISTANCE_M)))
    return _at(distance, rng.uniform(-1.1, 1.1) * half_fov, y)


def _spheres(joints: np.ndarray) -> np.ndarray:
    """(P, 48, 3) centres of spheres that fill bodies: joints (P, 24, 3) and the bones' centres."""
    return np.concatenate([joints, (joints + joints[:, _PARENTS]) / 2], 1)


def _is_free(own: np.ndarray, others: np.ndarray) -> bool:
    """Return True if spheres (48, 3) touch neither the camera nor other people's (P, 48, 3)."""
    if (np.linalg.norm(own, axis=1) < _MIN_DISTANCE_M + _RADII_M).any():
        return False
    others = others[np.isfinite(others[:, 0, 0])]
    distance = np.linalg.norm(own[None, :, None] - others[:, None], axis=-1)
    return bool((distance > _RADII_M[:, None] + _RADII_M).all())


# --------------------------------------------------------------------------------- objects


def _place_objects(rng: np.random.Generator, joints: np.ndarray, camera_height: float,
                   half_fov: float, distance: float) -> list[Mesh]:
    """Place up to six boxes, cylinders and spheres, some of them nearer than the people.

    Args:
        joints (P, 24, 3): m, world frame. distance: m, of the first person.
    """
    spheres = _spheres(joints).reshape(-1, 3)
    radii = np.tile(_RADII_M, len(joints))[:, None]
    objects = []
    for _ in range(int(rng.choice(len(_OBJECT_SHARES), p=_OBJECT_SHARES))):
        is_before = rng.random() < 0.3
        range_m = (rng.uniform(0.35, 0.85) * distance if is_before
                   else rng.uniform(1.2, _MAX_DISTANCE_M))
        max_half = _MAX_HALF_BEFORE_M if is_before else _MAX_HALF_M
        half = np.exp(rng.uniform(np.log(_MIN_HALF_M), np.log(max_half)))
        above_floor = rng.uniform(0.3, 1.5) if rng.random() < 0.15 else 0.0
        floor = -camera_height + above_floor
        centre = _at(range_m, rng.uniform(-1, 1) * half_fov, floor + half[1])
        rotmat = _about_y(rng.uniform(-np.pi, np.pi))
        outside = np.abs((spheres - centre) @ rotmat) - half
        hits_person = (outside < radii + _OBJECT_GAP_M).all(1).any()
        min_distance = np.linalg.norm(half) + _OBJECT_CAMERA_GAP_M
        if not hits_person and np.linalg.norm(centre[[0, 2]]) > min_distance:
            unit, faces = _SHAPES[rng.choice(3, p=(0.7, 0.2, 0.1))]
            local = unit * half
            objects.append(Mesh(local @ rotmat.T + centre, faces, local))
    return objects


def _about_y(angle_rad: float) -> np.ndarray:
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def _box() -> tuple[np.ndarray, np.ndarray]:
    """Vertices (24, 3) and faces (12, 3) of a cube from -1 to 1; edges do not share normals."""
    vertices: list[np.ndarray] = []
    faces: list[tuple[int, int, int]] = []
    for axis in range(3):
        normal, u, v = np.roll(np.eye(3), -axis, axis=0)
        for sign in (-1.0, 1.0):
            base = len(vertices)
            vertices += [sign * normal + a * u + sign * b * v
                         for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
            faces += [(base, base + 1, base + 2), (base, base + 2, base + 3)]
    return np.array(vertices), np.array(faces)


def _solid_of_revolution(profile: np.ndarray, sectors: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and faces of a solid about y.

    Args:
        profile (N, 2): radius and y, upwards, from radius 0 to radius 0.
    """
    angles = np.arange(sectors) * 2 * np.pi / sectors
    radius, y = profile.T
    x = np.outer(radius, np.sin(angles))
    z = np.outer(radius, np.cos(angles))
    rings = np.stack([x, np.repeat(y[:, None], sectors, 1), z], -1)
    row, column = np.indices((len(profile) - 1, sectors)).reshape(2, -1)
    a, b = row * sectors + column, row * sectors + (column + 1) % sectors
    lower, upper = [a, b, b + sectors], [a, b + sectors, a + sectors]
    faces = np.concatenate([np.stack(lower, 1), np.stack(upper, 1)])
    return rings.reshape(-1, 3), faces


_LATITUDES = np.linspace(-np.pi / 2, np.pi / 2, 13)
_CYLINDER = np.array([(0, -1), (1, -1), (1, -1), (1, 1), (1, 1), (0, 1.0)])
_SHAPES = (_box(), _solid_of_revolution(_CYLINDER),
           _solid_of_revolution(np.stack([np.cos(_LATITUDES), np.sin(_LATITUDES)], 1)))
