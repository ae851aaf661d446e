"""How well distances are known by a floor from TF: people who stand on it, and others."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from ros2_pose.body.fitter import BodyFit, FitSettings, Previous, Sighting
from ros2_pose.body.kinematics import project
from ros2_pose.body.so3 import quat_from_rotmat, rotmat_from_quat, rotmat_from_rotvec
from ros2_pose.body.state import BodyState
from ros2_pose.data.synthetic.bodies import BodySampler, read_poses
from ros2_pose.evaluation.benchmarks.fitting import (
    MOCAP,
    PIXEL_STD,
    body_model,
    fit_all,
    fitter,
    isotropic,
    normal,
    statures,
)
from ros2_pose.evaluation.harness import Options, Row
from ros2_pose.skeleton import SMPL24

_PEOPLE = 300
_CAMERA_M = 1.5  # above the floor
_DISTANCE_M = (2.0, 6.0)
_TILT_DEG, _SMALL_TILT_DEG = 1.0, 0.5  # error of the transform, about a horizontal axis
_UPRIGHT_RAD = 0.3  # of the pelvis of people who stand
_STRAIGHT_SHARE = 0.1  # of the poses are of people who stand: those with the straightest knees
_WORLD_TO_CAMERA = torch.diag(torch.tensor([1.0, -1.0, -1.0]))  # y up to y down


class PeopleOnFloor(BodySampler):
    """Draws adults before a level camera; in poses y is up."""

    def standing(self, people: int) -> Tensor:
        """(P, 24, 3) rad, poses with straight legs and an upright pelvis."""
        knees = self.poses[:, [SMPL24.index("left_knee"), SMPL24.index("right_knee")]]
        is_upright = rotmat_from_rotvec(self.poses[:, 0])[:, 1, 1] > np.cos(_UPRIGHT_RAD)
        bend = torch.where(is_upright, knees.norm(dim=2).amax(1), torch.inf)
        rows = bend.argsort()[:max(1, round(_STRAIGHT_SHARE * len(bend)))]
        return self.poses[rows[torch.randint(len(rows), (people,), generator=self.random)]].clone()

    def bent(self, people: int, hip: float, knee: float) -> Tensor:
        """(P, 24, 3) rad, standing poses with bent legs: sitting or crouching people."""
        poses = self._with_legs(self.standing(people), hip, 0.3, knee, 0.3)
        poses[:, 0] *= 0.3
        return poses

    def tilts(self, people: int, angle_deg: float) -> Tensor:
        """(P, 3, 3) rotations by an angle about random horizontal axes, camera frame."""
        angle = self.uniform(-np.pi, np.pi, people)
        axis = torch.stack([angle.cos(), torch.zeros_like(angle), angle.sin()], 1)
        return rotmat_from_rotvec(float(np.radians(angle_deg)) * axis)

    def before_camera(self, rotvecs: Tensor) -> BodyState:
        """Give poses (P, 24, 3) rad a shape, a heading and a place on the floor; camera frame."""
        people = len(rotvecs)
        betas = self.normal(people, 10) * self.model.beta_std
        rotmats = rotmat_from_rotvec(rotvecs)
        heading = torch.zeros(people, 3)
        heading[:, 1] = self.uniform(-np.pi, np.pi, people)
        rotmats[:, 0] = _WORLD_TO_CAMERA @ rotmat_from_rotvec(heading) @ rotmats[:, 0]
        quats = quat_from_rotmat(rotmats)
        low = self.model(quats, betas, torch.zeros(people, 3)).vertices[..., 1].amax(1)
        distance = self.uniform(*_DISTANCE_M, people)
        bearing = self.uniform(-0.4, 0.4, people)
        root = torch.stack([distance * bearing.sin(), _CAMERA_M - low,
                            distance * bearing.cos()], 1)
        return BodyState(quats, betas, root)


# How people are posed, and the height of their lowest point above the floor, m.
_CASES: dict[str, tuple[Callable[[PeopleOnFloor, int], Tensor], float]] = {
    "standing": (PeopleOnFloor.standing, 0.0),
    "sitting": (lambda people, count: people.bent(count, -1.4, 1.5), 0.0),
    "crouching": (lambda people, count: people.bent(count, -1.9, 2.2), 0.0),
    "jumping, 0.3 m up": (PeopleOnFloor.standing, 0.3),
    "on a box, 0.4 m up": (PeopleOnFloor.standing, 0.4),
    "on stairs, 0.18 m down": (PeopleOnFloor.standing, -0.18)}
_TRACKED = ("standing", "jumping, 0.3 m up", "on a box, 0.4 m up", "on stairs, 0.18 m down")
_STANDING_IMAGES, _MOVING_IMAGES, _INTERVAL_S = 10, 3, 0.1


def floor(options: Options) -> Iterator[Row]:
    """Distances of adults with the floor from TF, tilted by an error, and without it."""
    people = PeopleOnFloor(body_model(), read_poses(options.data / MOCAP, held=True),
                           torch.Generator().manual_seed(options.seed))
    count = options.people or _PEOPLE
    for name, (draw, lowest_m) in _CASES.items():
        upright = people.before_camera(draw(people, count))
        rotmats = people.tilts(count, _TILT_DEG)
        yield _row(options, name, [_seen(upright, lowest_m, rotmats)])
        if name == "standing":
            less = people.tilts(count, _SMALL_TILT_DEG)
            yield _row(options, name, [_seen(upright, lowest_m, less)], _SMALL_TILT_DEG)
        if name in _TRACKED:
            heights_m = [0.0] * _STANDING_IMAGES
            heights_m += [lowest_m * number / _MOVING_IMAGES
                          for number in range(1, _MOVING_IMAGES + 1)]
            images = [_seen(upright, height_m, rotmats) for height_m in heights_m]
            yield _row(options, f"{name}, before on the floor", images)


def _seen(upright: BodyState, raised_m: float, rotmats: Tensor) -> BodyState:
    """People in the frame of a camera that is tilted, raised above the floor."""
    root = upright.root - torch.tensor([0.0, raised_m, 0.0])
    theta = quat_from_rotmat(torch.cat([
        rotmats[:, None] @ rotmat_from_quat(upright.theta[:, :1]),
        rotmat_from_quat(upright.theta[:, 1:])], 1))
    return BodyState(theta, upright.betas, (rotmats @ root[..., None])[..., 0])


def _row(options: Options, name: str, images: list[BodyState],
         tilt_deg: float = _TILT_DEG) -> Row:
    """Row of people in the frame of a camera that takes itself for level.

    Args:
        images: of successive images; the last one counts.
        tilt_deg: of the camera.
    """
    with_floor = _fitted(options, images, torch.tensor([0.0, -1.0, 0.0, _CAMERA_M]))
    errors, inside, stature = zip(*(_errors(found, images[-1])
                                    for found in (with_floor, _fitted(options, images, None))))
    start = "cold" if len(images) == 1 else f"after {len(images) - 1} images"
    return Row(f"distance by a floor with {tilt_deg:g} degree of tilt error, {name}",
               f"{len(images[0].root)} held-back mocap poses, adults, 2-6 m, camera {_CAMERA_M:g} "
               "m above the floor, which TF gives with a tilt error in a random direction; noise "
               f"of {PIXEL_STD:g} of the focal length, {start}; median relative error of the "
               "distance, and share of the errors of depth within one standard deviation; median "
               "relative error of the stature",
               {"error, %": errors[0], "without floor, %": errors[1],
                "stature, %": stature[0], "without floor stature, %": stature[1],
                "within 1 sigma, %": inside[0], "without floor within 1 sigma, %": inside[1]},
               "2 %; stature 3 %" if name.startswith("standing") else "no worse than without")


def _fitted(options: Options, images: list[BodyState], floor: Tensor | None) -> BodyFit:
    """Bodies in the last image; floor (4,): see `Sighting`."""
    fit = fitter(options, FitSettings(keypoint_error_m=0.005))
    found = None
    for number, truth in enumerate(images):
        points = project(body_model()(*truth, with_vertices=False).keypoints)
        points = points + PIXEL_STD * normal(options.seed + number, *points.shape)
        sighting = Sighting(points, isotropic(torch.full(points.shape[:2], PIXEL_STD), 2),
                            up=torch.tensor([0.0, -1.0, 0.0]), floor=floor)
        if found is None:
            found = fit_all(fit, sighting)
            continue
        like = found.cost
        found = fit.fit(sighting, Previous(
            found.state, torch.full_like(like, _INTERVAL_S), torch.full_like(like, number),
            found.disagreement_s))
    assert found is not None
    return found


def _errors(found: BodyFit, truth: BodyState) -> tuple[float, float, float]:
    """Median relative error of the distance, %; share of depths within one sigma, %; median
    relative error of the stature, %."""
    relative = (found.root.norm(dim=1) / truth.root.norm(dim=1) - 1).abs()
    inside = (found.root[:, 2] - truth.root[:, 2]).abs() < found.root_cov[:, 2, 2].sqrt()
    stature = (statures(found.betas) / statures(truth.betas) - 1).abs()
    return (100 * float(relative.nanmedian()), 100 * float(inside.double().mean()),
            100 * float(stature.nanmedian()))
