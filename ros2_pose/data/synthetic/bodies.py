"""Draws random bodies and views for synthetic data: poses, shapes, and cameras of robots.

Poses come from motion capture. They are mixed and perturbed: a few hundred walks and games do not
cover what people do around a robot. Shapes are those of adults and children.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ros2_pose.body.model import BodyModel
from ros2_pose.body.so3 import rotmat_from_rotvec, rotvec_product
from ros2_pose.data.mocap import held_back, mirrored, plausible, with_collars
from ros2_pose.skeleton import SMPL24

_CHILD_SHARE = 0.12  # of the people
MAX_BEARING_RAD = 0.6  # of a person in `BodySampler.views`


def read_poses(mocap: str | Path, held: bool = False) -> Tensor:
    """Read the plausible poses of motion capture, and the same mirrored.

    Args:
        mocap: an npz with theta (N, 24, 3), rotation vectors, rad, y up, and src (N,), trial names.
        held: True for the trials held back, False for those that are learned from.
    Returns:
        (M, 24, 3) float32: rad.
    """
    with np.load(mocap, allow_pickle=False) as file:
        theta = file["theta"][held_back(file["src"]) == held].astype(np.float64)
    theta = with_collars(theta[plausible(theta)])
    return torch.from_numpy(np.concatenate([theta, mirrored(theta)])).float()


class BodySampler:
    """Draws poses, shapes and views with one random generator.

    Args:
        poses (N, 24, 3): rotation vectors, rad, see `read_poses`.
        vary: False draws the poses unchanged.
    """

    def __init__(self, model: BodyModel, poses: Tensor, random: torch.Generator,
                 vary: bool = True) -> None:
        self.model, self.poses, self.random, self.vary = model, poses, random, vary

    def index(self, people: int) -> Tensor:
        """(P,) random rows of poses."""
        return torch.randint(len(self.poses), (people,), generator=self.random)

    def normal(self, *shape: int) -> Tensor:
        """Draw from the standard normal distribution."""
        return torch.randn(shape, generator=self.random)

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """Draw uniformly from low to high."""
        return low + (high - low) * torch.rand(shape, generator=self.random)

    def chance(self, share: float, people: int) -> Tensor:
        """(P,) bool: True with probability share."""
        return torch.rand(people, generator=self.random) < share

    def rotvecs(self, people: int) -> Tensor:
        """(P, 24, 3) rotation vectors, rad, world frame with y up."""
        return self._varied(people) if self.vary else self.drawn(people)

    def drawn(self, people: int) -> Tensor:
        """(P, 24, 3) rotation vectors, rad, of random poses of the motion capture."""
        return self.poses[self.index(people)].clone()

    def _varied(self, people: int) -> Tensor:
        """(P, 24, 3) rotation vectors, rad: several poses combined, and perturbed."""
        poses = self.drawn(people)
        for part, share in ((_LEGS, 0.3), (_ARM["left"], 0.25), (_ARM["right"], 0.25)):
            other = self.drawn(people)
            swap = self.chance(share, people)[:, None, None]
            poses[:, part] = torch.where(swap, other[:, part], poses[:, part])
        for share, hip, hip_std, knee, knee_std in (
                (0.15, -0.1, 0.2, 0.1, 0.15),  # stand
                (0.15, -1.4, 0.35, 1.5, 0.45),  # sit
                (0.05, -1.9, 0.35, 2.2, 0.3)):  # crouch
            chosen = self.chance(share, people)
            poses[chosen] = self._with_legs(poses[chosen], hip, hip_std, knee, knee_std)
            poses[chosen, 0] *= 0.3  # with legs like these the pelvis is nearly upright
        chosen = self.chance(0.15, people)
        poses[chosen] = self._with_free_arms(poses[chosen])
        bend = self.chance(0.15, people).float() * self.uniform(0.0, 0.5, people)
        poses[:, _SPINE, 0] += bend[:, None]
        scale = self.normal(people).abs() * 0.5
        poses[:, 1:] += self.normal(people, 23, 3) * _LOOSENESS * scale[:, None, None]
        return self._posture(poses)

    def _with_legs(self, poses: Tensor, hip: float, hip_std: float, knee: float,
                   knee_std: float) -> Tensor:
        """Replace legs: hip and knee angles, rad, about the same on both sides."""
        people = len(poses)
        both = self.normal(people, 1)
        for side, sign in (("left", 1.0), ("right", -1.0)):
            own = self.normal(people, 4) * 0.6
            bend = hip + hip_std * (0.8 * both[:, 0] + own[:, 0])
            hip_rotvec = torch.stack([bend, 0.3 * own[:, 1], sign * 0.1 + 0.25 * own[:, 2]], 1)
            knee_bend = (knee + knee_std * (own[:, 3] - 0.8 * both[:, 0])).clamp(0.0, 2.6)
            ankle = -(bend + knee_bend).clamp(-0.6, 0.7) + 0.15 * own[:, 1]  # the foot is level
            poses[:, SMPL24.index(f"{side}_hip")] = hip_rotvec
            poses[:, SMPL24.index(f"{side}_knee")] = _rotvec(0, knee_bend)
            poses[:, SMPL24.index(f"{side}_ankle")] = _rotvec(0, ankle)
        return poses

    def _with_free_arms(self, poses: Tensor) -> Tensor:
        """Replace arms: upper arms in the range of a shoulder, elbows bent at random."""
        people = len(poses)
        for side, sign in (("left", 1.0), ("right", -1.0)):
            lift = self.uniform(-1.4, 1.3, people)  # from level, radians
            ahead = self.uniform(-0.4, 1.7, people)
            twist = self.uniform(-1.0, 1.0, people)
            shoulder_rotvec = rotvec_product(
                _rotvec(1, -sign * ahead), _rotvec(2, sign * lift), _rotvec(0, twist))
            poses[:, SMPL24.index(f"{side}_shoulder")] = shoulder_rotvec
            poses[:, SMPL24.index(f"{side}_elbow")] *= 0.2
            poses[:, SMPL24.index(f"{side}_elbow"), 1] = -sign * self.uniform(0.0, 2.3, people)
        return poses

    def _posture(self, poses: Tensor) -> Tensor:
        """Turn the pelvis to a random heading and tilt it; some people lie."""
        people = len(poses)
        lies = self.chance(0.04, people)
        tilt = self.normal(people, 3) * torch.tensor([0.12, 0.0, 0.08])
        tilt[lies] = 0.0
        count = int(lies.sum())
        tilt[lies, 0] = math.pi / 2 * self.normal(count).sign() + 0.3 * self.normal(count)
        root = rotvec_product(tilt, poses[:, 0])
        heading = _rotvec(1, self.uniform(-math.pi, math.pi, people))
        return torch.cat([rotvec_product(heading, root)[:, None], poses[:, 1:]], 1)

    def betas(self, people: int) -> Tensor:
        """(P, 10) betas of adults and children; the first beta is the height."""
        betas = self.normal(people, 10) * self.model.beta_std
        betas[:, 0] *= 1.15  # more varied than the body model's adults, which are of one population
        children = self.chance(_CHILD_SHARE, people)
        betas[children, 0] = self.uniform(-3.2, -0.6, int(children.sum()))
        return betas

    def views(self, pelvis_height: Tensor,
              max_distance_m: float = 15.0) -> tuple[Tensor, Tensor]:
        """Draw a camera for each person.

        Args:
            pelvis_height (P,): m above the floor.
            max_distance_m: along the floor.
        Returns:
            position (P, 3): m, of the pelvis, in a level frame at the camera: y up, the camera
            looks along -z before it pitches and rolls.
            to_camera (P, 3, 3): rotation from this frame to the camera frame.
        """
        people = len(pelvis_height)
        distance = self.uniform(math.log(1.0), math.log(max_distance_m), people).exp()
        height = self.uniform(0.2, 2.0, people)
        overhead = self.chance(0.15, people)
        height = torch.where(overhead, self.uniform(2.0, 4.5, people), height)
        close = self.chance(0.05, people)
        distance = torch.where(close, self.uniform(0.5, 1.0, people), distance)
        bearing = self.uniform(-MAX_BEARING_RAD, MAX_BEARING_RAD, people)
        position = torch.stack([distance * bearing.sin(), pelvis_height - height,
                                -distance * bearing.cos()], 1)
        towards_person = torch.atan2(position[:, 1], -position[:, 2])
        aim = towards_person + self.uniform(-0.35, 0.35, people)
        level = self.chance(0.3, people)  # a robot's camera looks straight ahead
        pitch = torch.where(level & (aim.abs() < 0.5), 0.05 * self.normal(people), aim)
        roll = torch.where(self.chance(0.35, people), 0.3, 0.04) * self.normal(people)
        roll = torch.where(self.chance(0.04, people), self.uniform(-3.1, 3.1, people), roll)
        return position, _about(2, roll) @ _WORLD_TO_CAMERA @ _about(0, -pitch)


def above_floor(joints: Tensor) -> Tensor:
    """(P,) m: height of the pelvis above a floor on which the lowest joint stands.

    Args:
        joints (P, 24, 3): m, y up, pelvis at the origin.
    """
    return -joints[..., 1].amin(1) + 0.05


def _about(axis: int, angles: Tensor) -> Tensor:
    """(P, 3, 3) rotations about x, y or z by angles (P,) rad."""
    return rotmat_from_rotvec(_rotvec(axis, angles))


def _rotvec(axis: int, angles: Tensor) -> Tensor:
    """(P, 3) rotation vectors about x, y or z by angles (P,) rad."""
    rotvec = torch.zeros(len(angles), 3)
    rotvec[:, axis] = angles
    return rotvec


def _smpl(*names: str) -> list[int]:
    return [SMPL24.index(name) for name in names]


_WORLD_TO_CAMERA = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
_LEGS = _smpl(*(f"{s}_{j}" for s in ("left", "right") for j in ("hip", "knee", "ankle", "foot")))
_ARM = {s: _smpl(*(f"{s}_{j}" for j in ("collar", "shoulder", "elbow", "wrist", "hand")))
        for s in ("left", "right")}
_SPINE = _smpl("spine1", "spine2", "spine3")

# Standard deviation of a joint's perturbation at scale 1, rad: least in the spine, most in arms.
_PERTURBATION_RAD = {"hip": 0.3, "knee": 0.2, "ankle": 0.2, "foot": 0.2, "spine1": 0.1,
                     "spine2": 0.1, "spine3": 0.1, "neck": 0.2, "head": 0.25, "collar": 0.12,
                     "shoulder": 0.35, "elbow": 0.3, "wrist": 0.3, "hand": 0.2}
_LOOSENESS = torch.tensor([[_PERTURBATION_RAD[kind]] * 3 for kind in SMPL24.kinds[1:]])
