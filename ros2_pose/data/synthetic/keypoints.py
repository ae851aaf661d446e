"""Draws synthetic people as uncertain 2D keypoints with exact truth, to train `Lift` on.

Bodies and cameras come from `bodies`; a simulated detector measures them. One random generator
draws everything: the same seed gives the same people.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ros2_pose.body.kinematics import pose_rig
from ros2_pose.body.model import BodyModel
from ros2_pose.body.so3 import rotmat_from_rotvec
from ros2_pose.data.synthetic.bodies import BodySampler, above_floor
from ros2_pose.skeleton import COCO17, SMPL24

_MIN_DEPTH_M = 0.35  # of any joint before the camera
_LIMBS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")


class Projections(NamedTuple):
    """P people: a detector's keypoints with their covariances, and the truth."""

    points: Tensor  # (P, 17, 2) on the plane z = 1, NaN where not detected
    cov: Tensor  # (P, 17, 2, 2) of points
    rotmats: Tensor  # (P, 24, 3, 3) relative to the parent, the first to the camera
    betas: Tensor  # (P, 10)
    root: Tensor  # (P, 3) m, camera frame
    joints: Tensor  # (P, 24, 3) m, camera frame
    keypoints: Tensor  # (P, 17, 3) m, camera frame, without error


class Projector(BodySampler):
    """Draws people and projects them.

    Args:
        poses (N, 24, 3): rotation vectors, rad, see `bodies.read_poses`.
        vary: False draws the poses unchanged.
    """

    def __init__(self, model: BodyModel, poses: Tensor, seed: int = 0, vary: bool = True) -> None:
        super().__init__(model, poses, torch.Generator().manual_seed(seed), vary)

    def draw(self, people: int) -> Projections:
        """Draw a number of people, each before another camera."""
        rotvecs = self.rotvecs(people)
        betas = self.betas(people)
        rotmats = rotmat_from_rotvec(rotvecs)
        pelvis, root = self._before_camera(rotmats, betas)
        rotmats = torch.cat([pelvis[:, None], rotmats[:, 1:]], 1)
        posed = pose_rig(self.model.rig(betas), rotmats, betas, root)
        points, cov = self.detected(posed.keypoints, posed.joints)
        return Projections(points, cov, rotmats, betas, root, posed.joints, posed.keypoints)

    def _before_camera(self, rotmats: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
        """(P, 3, 3) rotation and (P, 3) position, m, of the pelvis in the camera frame."""
        origin = betas.new_zeros(len(betas), 3)
        joints = pose_rig(self.model.rig(betas), rotmats, betas, origin).joints
        position, to_camera = self.views(above_floor(joints))
        return self._placed(rotmats[:, 0], joints, position, to_camera)

    @staticmethod
    def _placed(pelvis: Tensor, joints: Tensor, position: Tensor,
                to_camera: Tensor) -> tuple[Tensor, Tensor]:
        """Rotation (P, 3, 3) and position (P, 3), m, of the pelvis in the camera frame.

        Args:
            pelvis (P, 3, 3), joints (P, 24, 3) m from the pelvis, position (P, 3) m: world axes.
            to_camera (P, 3, 3): rotation from these to the camera frame.
        """
        root = (to_camera @ position[..., None])[..., 0]
        depth_from_root = (to_camera[:, None] @ joints[..., None])[..., 2, 0]  # (P, 24)
        nearest = depth_from_root.amin(1)
        root[:, 2] = torch.maximum(root[:, 2], _MIN_DEPTH_M - nearest)
        return to_camera @ pelvis, root

    # ------------------------------------------------------------------------- detection

    def detected(self, keypoints: Tensor, joints: Tensor) -> tuple[Tensor, Tensor]:
        """Simulate a detector.

        Args:
            keypoints (P, 17, 3), joints (P, 24, 3): m, camera frame.
        Returns:
            (P, 17, 2) on the plane z = 1, NaN where not detected, and (P, 17, 2, 2) covariances.
        """
        truth = self._as_labelled(keypoints, joints)
        points = truth[..., :2] / truth[..., 2:]
        return self._measured(points, *self._disturbance(points))

    def _disturbance(self, points: Tensor) -> tuple[Tensor, ...]:
        """Draw what a detector does to keypoints.

        Args:
            points (P, 17, 2): on the plane z = 1.
        Returns:
            std (P, 17, 2): stated standard deviations, in units of the person's extent.
            error (P, 17, 2): in the same unit.
            seen (P, 17): bool.
            order (P, 17): of which keypoint each one has the position: sides may be swapped.
        """
        std, error = self._errors(len(points))
        return std, error, self._seen(points), self._order_of_sides(len(points))

    @staticmethod
    def _measured(points: Tensor, std: Tensor, error: Tensor, seen: Tensor,
                  order: Tensor) -> tuple[Tensor, Tensor]:
        """Apply a disturbance to points: what `detected` returns."""
        extent = (points - points.mean(1, keepdim=True)).square().sum(2).mean(1).sqrt()
        points = points + extent[:, None, None] * error
        points = points.gather(1, order[..., None].expand_as(points))
        cov = (extent[:, None, None] * std).square().diag_embed()
        return torch.where(seen[..., None], points, torch.nan), cov

    def _as_labelled(self, keypoints: Tensor, joints: Tensor) -> Tensor:
        """(P, 17, 3) m: keypoints as annotators of other datasets would place them.

        They lie between our keypoints and the joints' centres, one to three centimetres off.
        """
        people = len(keypoints)
        centres = keypoints.clone()
        centres[:, _AT_JOINT[0]] = joints[:, _AT_JOINT[1]]
        blend = self.uniform(0.0, 1.0, people, 1, 1) * self.chance(0.5, people)[:, None, None]
        off = 0.03 * self.normal(people, 17, 3) * self.normal(people, 1, 1).abs().clamp(max=2)
        return torch.lerp(keypoints, centres, blend) + off

    def _errors(self, people: int) -> tuple[Tensor, Tensor]:
        """(P, 17, 2) stated standard deviations, and (P, 17, 2) errors of a heavy-tailed
        distribution; both in units of the person's extent in the image."""
        prior_mean = self.uniform(math.log(0.004), math.log(0.1), people, 1).exp()
        own = prior_mean * (0.5 * self.normal(people, 17)).exp() * _DIFFICULTY
        unsure = torch.rand(people, 17, generator=self.random) < 0.08
        own = torch.where(unsure, own * 4, own).clamp(max=0.6)
        std = own[..., None] * (0.15 * self.normal(people, 17, 2)).exp()
        freedom = 3.0  # of Student's t
        chi2 = self.normal(people, 17, int(freedom)).square().sum(2, keepdim=True)
        error = std * self.normal(people, 17, 2) * (freedom / chi2.clamp(min=0.1)).sqrt()
        gross = (torch.rand(people, 17, generator=self.random) < 0.02)[..., None]
        error = torch.where(gross, 0.5 * self.normal(people, 17, 2), error)
        return std, error

    def _order_of_sides(self, people: int) -> Tensor:
        """(P, 17) of keypoints: left and right of elbows and wrists, or of legs, are exchanged
        in a few people."""
        orders = torch.arange(17).repeat(people, 1)
        for names, share in ((("elbow", "wrist"), 0.01), (("knee", "ankle"), 0.015),
                             (("hip", "knee", "ankle"), 0.01)):
            order = torch.arange(17)
            for name in names:
                left, right = COCO17.index(f"left_{name}"), COCO17.index(f"right_{name}")
                order[left], order[right] = right, left
            swap = self.chance(share, people)[:, None]
            orders = torch.where(swap, orders[:, order], orders)
        return orders

    def _seen(self, points: Tensor) -> Tensor:
        """(P, 17) bool: not hidden by the image's border, objects or the person."""
        people = len(points)
        has_gaps = self.chance(0.3, people)
        random = torch.rand(people, 17, generator=self.random)
        is_gap = random < self.uniform(0.0, 0.5, people, 1)
        seen = ~(has_gaps[:, None] & is_gap)
        is_cut = self.chance(0.22, people)
        seen &= ~(is_cut[:, None] & self._beyond_border(points))
        faces_away = self.chance(0.3, people)
        seen[:, _FACE] &= ~faces_away[:, None]
        is_hidden = torch.rand(people, 5, generator=self.random) < 0.25
        seen[:, _FACE] &= ~is_hidden
        for part in _HIDDEN_TOGETHER:
            hidden = self.chance(0.05, people)
            seen[:, part] &= ~hidden[:, None]
        too_few = seen[:, 5:].sum(1) < 4
        seen[too_few] = True
        return seen

    def _beyond_border(self, points: Tensor) -> Tensor:
        """(P, 17) bool: beyond a horizontal or vertical line through the person."""
        people = len(points)
        half_turns = torch.tensor([0.0, 0.0, 0.0, 0.5, 1.0, 1.5])  # mostly below the line
        choice = torch.randint(len(half_turns), (people,), generator=self.random)
        angle = half_turns[choice] * math.pi
        along = points[..., 0] * angle.sin()[:, None] + points[..., 1] * angle.cos()[:, None]
        low, high = along.amin(1), along.amax(1)
        limit = low + (high - low) * self.uniform(0.35, 1.0, people)
        return along > limit[:, None]


def _smpl(*names: str) -> list[int]:
    return [SMPL24.index(name) for name in names]


def _coco(*names: str) -> list[int]:
    return [COCO17.index(name) for name in names]


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

# Error of a keypoint relative to the others (MoveNet on COCO's pictures).
_DIFFICULTY = torch.tensor([{"hip": 1.5, "shoulder": 1.1, "elbow": 1.1, "ankle": 1.1, "knee": 1.1,
                             "wrist": 1.0}.get(kind, 0.5) for kind in COCO17.kinds])
