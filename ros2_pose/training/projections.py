"""Endless synthetic people as uncertain 2D keypoints, with exact truth: what `Lift` learns from.

Poses come from motion capture, mixed and perturbed, because a few hundred walks and games do not
hold what people do around a robot; bodies from the body model's shapes, adults and children;
cameras stand where robots carry them. All of it random by one generator: same seed, same people.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import roma
import torch
from torch import Tensor

from ros2_pose.body.kinematics import pose_rig
from ros2_pose.body.model import BodyModel
from ros2_pose.body.prior import held_back, mirrored, plausible, with_collars
from ros2_pose.skeleton import COCO17, SMPL24

_CHILDREN = 0.12  # share of the people
_LIMBS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")


class Projections(NamedTuple):
    """P people: what a detector would say of them, and the truth."""

    points: Tensor  # (P, 17, 2) on the plane z = 1, NaN where not seen
    cov: Tensor  # (P, 17, 2, 2)
    rotmats: Tensor  # (P, 24, 3, 3), the first to the camera
    betas: Tensor  # (P, 10)
    root: Tensor  # (P, 3) m, camera frame
    joints: Tensor  # (P, 24, 3) m, camera frame
    keypoints: Tensor  # (P, 17, 3) m, camera frame, without any error


def read_poses(mocap: str | Path, held: bool = False) -> Tensor:
    """(N, 24, 3) rad: the poses of an npz (theta (N, 24, 3), y up; src (N,) trial names) that are
    learned from, or those held back."""
    with np.load(mocap, allow_pickle=False) as file:
        theta = file["theta"][held_back(file["src"]) == held].astype(np.float64)
    theta = with_collars(theta[plausible(theta)])
    return torch.from_numpy(np.concatenate([theta, mirrored(theta)])).float()


class Projector:
    """Draws people.

    poses: (N, 24, 3) rotation vectors as of `read_poses`. vary: False draws the poses as they are.
    """

    def __init__(self, model: BodyModel, poses: Tensor, seed: int = 0, vary: bool = True) -> None:
        self.model, self.poses, self.vary = model, poses, vary
        self.random = torch.Generator().manual_seed(seed)

    def draw(self, people: int) -> Projections:
        """So many people, each before a camera of his own."""
        rotvecs = self._poses(people) if self.vary else self.poses[self._index(people)].clone()
        betas = self._betas(people)
        rotmats = roma.rotvec_to_rotmat(rotvecs)
        turned, root = self._before_camera(rotmats, betas)
        rotmats = torch.cat([turned[:, None], rotmats[:, 1:]], 1)
        posed = pose_rig(self.model.rig(betas), rotmats, betas, root)
        points, cov = self._detected(posed.keypoints, posed.joints)
        return Projections(points, cov, rotmats, betas, root, posed.joints, posed.keypoints)

    # ---------------------------------------------------------------------------- bodies

    def _index(self, people: int) -> Tensor:
        return torch.randint(len(self.poses), (people,), generator=self.random)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.random)

    def _uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=self.random)

    def _chance(self, share: float, people: int) -> Tensor:
        return torch.rand(people, generator=self.random) < share

    def _poses(self, people: int) -> Tensor:
        """(P, 24, 3) rotation vectors: parts of several poses put together, and perturbed."""
        poses = self.poses[self._index(people)].clone()
        for part, share in ((_LEGS, 0.3), (_ARM["left"], 0.25), (_ARM["right"], 0.25)):
            other = self.poses[self._index(people)]
            swap = self._chance(share, people)[:, None, None]
            poses[:, part] = torch.where(swap, other[:, part], poses[:, part])
        for share, hip, hip_std, knee, knee_std in (
                (0.15, -0.1, 0.2, 0.1, 0.15),  # stand
                (0.15, -1.4, 0.35, 1.5, 0.45),  # sit
                (0.05, -1.9, 0.35, 2.2, 0.3)):  # crouch
            chosen = self._chance(share, people)
            poses[chosen] = self._with_legs(poses[chosen], hip, hip_std, knee, knee_std)
            poses[chosen, 0] *= 0.3  # who dances tilts his pelvis more
        chosen = self._chance(0.15, people)
        poses[chosen] = self._with_free_arms(poses[chosen])
        bend = self._chance(0.15, people).float() * self._uniform(0.0, 0.5, people)
        poses[:, _SPINE, 0] += bend[:, None]
        scale = self._normal(people).abs() * 0.5
        poses[:, 1:] += self._normal(people, 23, 3) * _LOOSENESS[1:] * scale[:, None, None]
        return self._posture(poses)

    def _with_legs(self, poses: Tensor, hip: float, hip_std: float, knee: float,
                   knee_std: float) -> Tensor:
        """Legs about alike, each a little different."""
        people = len(poses)
        both = self._normal(people, 1)
        for side, sign in (("left", 1.0), ("right", -1.0)):
            own = self._normal(people, 4) * 0.6
            bend = hip + hip_std * (0.8 * both[:, 0] + own[:, 0])
            out = torch.stack([bend, 0.3 * own[:, 1], sign * 0.1 + 0.25 * own[:, 2]], 1)
            knees = (knee + knee_std * (own[:, 3] - 0.8 * both[:, 0])).clamp(0.0, 2.6)
            ankle = -(bend + knees).clamp(-0.6, 0.7) + 0.15 * own[:, 1]  # the foot is level
            poses[:, SMPL24.index(f"{side}_ankle")] = torch.nn.functional.pad(
                ankle[:, None], (0, 2))
            poses[:, SMPL24.index(f"{side}_hip")] = out
            poses[:, SMPL24.index(f"{side}_knee")] = torch.nn.functional.pad(knees[:, None], (0, 2))
        return poses

    def _with_free_arms(self, poses: Tensor) -> Tensor:
        """Upper arms anywhere a shoulder lets them, elbows bent at will."""
        people = len(poses)
        for side, sign in (("left", 1.0), ("right", -1.0)):
            lift = self._uniform(-1.4, 1.3, people)  # from level, radians
            ahead = self._uniform(-0.4, 1.7, people)
            twist = self._uniform(-1.0, 1.0, people)
            turn = roma.rotvec_composition((
                torch.stack([0 * ahead, -sign * ahead, 0 * ahead], 1),
                torch.stack([0 * lift, 0 * lift, sign * lift], 1),
                torch.stack([twist, 0 * twist, 0 * twist], 1)))
            poses[:, SMPL24.index(f"{side}_shoulder")] = turn
            poses[:, SMPL24.index(f"{side}_elbow")] *= 0.2
            poses[:, SMPL24.index(f"{side}_elbow"), 1] = -sign * self._uniform(0.0, 2.3, people)
        return poses

    def _posture(self, poses: Tensor) -> Tensor:
        """The pelvis: turned anywhere, tilted as the data is and a little more; some people lie."""
        people = len(poses)
        lies = self._chance(0.04, people)
        tilt = self._normal(people, 3) * torch.tensor([0.12, 0.0, 0.08])
        tilt[lies] = 0.0
        tilt[lies, 0] = math.pi / 2 * self._normal(int(lies.sum())).sign() \
            + 0.3 * self._normal(int(lies.sum()))
        root = roma.rotvec_composition((tilt, poses[:, 0]))
        heading = torch.nn.functional.pad(self._uniform(-math.pi, math.pi, people, 1), (1, 1))
        return torch.cat([roma.rotvec_composition((heading, root))[:, None], poses[:, 1:]], 1)

    def _betas(self, people: int) -> Tensor:
        """(P, 10) shapes of adults and children (the first beta is the height)."""
        betas = self._normal(people, 10) * self.model.beta_std
        betas[:, 0] *= 1.15  # the body model's adults are of one population; the world is wider
        children = self._chance(_CHILDREN, people)
        betas[children, 0] = self._uniform(-3.2, -0.6, int(children.sum()))
        return betas

    # --------------------------------------------------------------------------- cameras

    def _before_camera(self, rotmats: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
        """(P, 3, 3) the pelvis' rotation and (P, 3) place m, both in the camera frame.

        World: y up, the floor at 0, everybody on it; the camera looks along -z before it pitches.
        """
        people = len(betas)
        posed = pose_rig(self.model.rig(betas), rotmats, betas, betas.new_zeros(people, 3))
        above_floor = -posed.joints[..., 1].amin(1) + 0.05
        distance = self._uniform(math.log(1.0), math.log(15.0), people).exp()
        height = self._uniform(0.2, 2.0, people)
        overhead = self._chance(0.15, people)
        height = torch.where(overhead, self._uniform(2.0, 4.5, people), height)
        close = self._chance(0.05, people)
        distance = torch.where(close, self._uniform(0.5, 1.0, people), distance)
        side = self._uniform(-0.6, 0.6, people)  # bearing in the camera, rad
        place = torch.stack([distance * side.sin(), above_floor - height,
                             -distance * side.cos()], 1)
        aim = torch.atan2(place[:, 1], -place[:, 2]) + self._uniform(-0.35, 0.35, people)
        level = self._chance(0.3, people)  # a robot's camera looks straight ahead
        pitch = torch.where(level & (aim.abs() < 0.5), 0.05 * self._normal(people), aim)
        roll = torch.where(self._chance(0.35, people), 0.3, 0.04) * self._normal(people)
        roll = torch.where(self._chance(0.04, people), self._uniform(-3.1, 3.1, people), roll)
        to_camera = _about(2, roll) @ _WORLD_TO_CAMERA @ _about(0, -pitch)
        root = (to_camera @ place[..., None])[..., 0]
        nearest = (to_camera[:, None] @ posed.joints[..., None])[..., 2, 0].amin(1)
        root[:, 2] = torch.maximum(root[:, 2], 0.35 - nearest)
        return to_camera @ rotmats[:, 0], root

    # ------------------------------------------------------------------------- detection

    def _detected(self, keypoints: Tensor, joints: Tensor) -> tuple[Tensor, Tensor]:
        """(P, 17, 2) what a detector finds, NaN where nothing, and its covariances."""
        truth = self._as_labelled(keypoints, joints)
        points = truth[..., :2] / truth[..., 2:]
        size = (points - points.mean(1, keepdim=True)).square().sum(2).mean(1).sqrt()
        std, error = self._errors(len(points))
        seen = self._seen(points, joints)
        points = points + size[:, None, None] * error
        points = self._with_swapped_sides(points)
        cov = (size[:, None, None] * std).square().diag_embed()
        return torch.where(seen[..., None], points, torch.nan), cov

    def _as_labelled(self, keypoints: Tensor, joints: Tensor) -> Tensor:
        """Keypoints (P, 17, 3) as other people's labels would place them: between our keypoints and
        the joints' centres, a centimetre or three off, on bodies of slightly other proportions."""
        people = len(keypoints)
        centres = keypoints.clone()
        centres[:, _AT_JOINT[0]] = joints[:, _AT_JOINT[1]]
        blend = self._uniform(0.0, 1.0, people, 1, 1) * self._chance(0.5, people)[:, None, None]
        off = 0.03 * self._normal(people, 17, 3) * self._normal(people, 1, 1).abs().clamp(max=2)
        return torch.lerp(keypoints, centres, blend) + off

    def _errors(self, people: int) -> tuple[Tensor, Tensor]:
        """(P, 17, 2) standard deviations as a detector states them, and heavy-tailed errors that
        fit them more or less; both in units of the person's spread."""
        usual = self._uniform(math.log(0.004), math.log(0.1), people, 1).exp()
        own = usual * (0.5 * self._normal(people, 17)).exp() * _DIFFICULTY
        unsure = torch.rand(people, 17, generator=self.random) < 0.08
        own = torch.where(unsure, own * 4, own).clamp(max=0.6)
        std = own[..., None] * (0.15 * self._normal(people, 17, 2)).exp()
        freedom = 3.0  # of Student's t
        chi2 = self._normal(people, 17, int(freedom)).square().sum(2, keepdim=True)
        error = std * self._normal(people, 17, 2) * (freedom / chi2.clamp(min=0.1)).sqrt()
        gross = (torch.rand(people, 17, generator=self.random) < 0.02)[..., None]
        error = torch.where(gross, 0.5 * self._normal(people, 17, 2), error)
        return std, error

    def _with_swapped_sides(self, points: Tensor) -> Tensor:
        """Now and then a detector takes left for right, of an arm, the legs or all."""
        people = len(points)
        for names, share in ((("elbow", "wrist"), 0.01), (("knee", "ankle"), 0.015),
                             (("hip", "knee", "ankle"), 0.01)):
            order = torch.arange(17)
            for name in names:
                left, right = COCO17.index(f"left_{name}"), COCO17.index(f"right_{name}")
                order[left], order[right] = right, left
            swap = self._chance(share, people)[:, None, None]
            points = torch.where(swap, points[:, order], points)
        return points

    def _seen(self, points: Tensor, joints: Tensor) -> Tensor:
        """(P, 17) bool: what neither the image's border, nor things, nor the person hides."""
        people = len(points)
        seen = torch.ones(people, 17, dtype=torch.bool)
        seen &= ~(self._chance(0.3, people)[:, None]
                  & (torch.rand(people, 17, generator=self.random)
                     < self._uniform(0.0, 0.5, people, 1)))
        cut = self._chance(0.22, people)
        seen &= ~(cut[:, None] & self._beyond_border(points))
        seen[:, _FACE] &= ~self._chance(0.3, people)[:, None]
        hidden_face = (torch.rand(people, 5, generator=self.random) < 0.25)
        seen[:, _FACE] &= ~hidden_face
        for part in _HIDDEN_TOGETHER:
            hidden = self._chance(0.05, people)
            seen[:, part] &= ~hidden[:, None]
        few = seen[:, 5:].sum(1) < 4
        seen[few] = True
        return seen

    def _beyond_border(self, points: Tensor) -> Tensor:
        """(P, 17) bool: below, above or beside a line through the person."""
        people = len(points)
        angle = torch.tensor([0.0, 0.0, 0.0, 0.5, 1.0, 1.5])[
            torch.randint(6, (people,), generator=self.random)] * math.pi
        along = points[..., 0] * angle.sin()[:, None] + points[..., 1] * angle.cos()[:, None]
        low, high = along.amin(1), along.amax(1)
        limit = low + (high - low) * self._uniform(0.35, 1.0, people)
        return along > limit[:, None]


def _about(axis: int, angles: Tensor) -> Tensor:
    """(P, 3, 3) rotations about x, y or z by angles (P,)."""
    rotvec = torch.zeros(len(angles), 3)
    rotvec[:, axis] = angles
    return roma.rotvec_to_rotmat(rotvec)


def _smpl(*names: str) -> list[int]:
    return [SMPL24.index(name) for name in names]


def _coco(*names: str) -> list[int]:
    return [COCO17.index(name) for name in names]


_WORLD_TO_CAMERA = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
_LEGS = _smpl(*(f"{s}_{j}" for s in ("left", "right") for j in ("hip", "knee", "ankle", "foot")))
_ARM = {s: _smpl(*(f"{s}_{j}" for j in ("collar", "shoulder", "elbow", "wrist", "hand")))
        for s in ("left", "right")}
_SPINE = _smpl("spine1", "spine2", "spine3")
_AT_JOINT = (_coco(*(f"{s}_{j}" for s in ("left", "right") for j in _LIMBS)),
             _smpl(*(f"{s}_{j}" for s in ("left", "right") for j in _LIMBS)))
_FACE = slice(0, 5)
_HIDDEN_TOGETHER = (
    _coco("left_ankle", "right_ankle"),
    _coco("left_knee", "left_ankle", "right_knee", "right_ankle"),
    _coco("left_hip", "left_knee", "left_ankle", "right_hip", "right_knee", "right_ankle"),
    _coco("left_elbow", "left_wrist"), _coco("right_elbow", "right_wrist"),
    _coco("left_shoulder", "left_elbow", "left_wrist", "left_hip", "left_knee", "left_ankle"),
    _coco("right_shoulder", "right_elbow", "right_wrist", "right_hip", "right_knee",
          "right_ankle"))

# How much a joint's rotation is perturbed at scale 1, radians: least in the spine, most in wrists.
_LOOSENESS = torch.tensor([[0.0] * 3] + [
    [{"hip": 0.3, "knee": 0.2, "ankle": 0.2, "foot": 0.2, "spine1": 0.1, "spine2": 0.1,
      "spine3": 0.1, "neck": 0.2, "head": 0.25, "collar": 0.12, "shoulder": 0.35, "elbow": 0.3,
      "wrist": 0.3, "hand": 0.2}[name.split("_")[-1]]] * 3 for name in SMPL24.names[1:]])
# How much worse than others a detector finds a keypoint (MoveNet on COCO's pictures).
_DIFFICULTY = torch.tensor([{"hip": 1.5, "shoulder": 1.1, "elbow": 1.1, "ankle": 1.1, "knee": 1.1,
                             "wrist": 1.0}.get(name.split("_")[-1], 0.5) for name in COCO17.names])
