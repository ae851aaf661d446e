"""Simulated people in a room seen by several cameras: association and accuracy of the fusion.

Bodies have mocap poses held back from all training; cameras hang in the corners of the room. Each
view gives keypoints with the noise that `Lift` is trained with; people are missed, occluded by
others, and one is hallucinated now and then. Each moment stands alone, nothing is tracked.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import numpy as np
import torch
from tqdm import tqdm

from ros2_pose.body.fitter import BodyFit, Fitter, Sighting
from ros2_pose.body.kinematics import pose_rig
from ros2_pose.body.so3 import rotmat_from_rotvec
from ros2_pose.camera import Camera
from ros2_pose.data.synthetic.bodies import read_poses
from ros2_pose.data.synthetic.keypoints import Projector
from ros2_pose.evaluation.benchmarks.fitting import MOCAP, body_model, fitter
from ros2_pose.evaluation.harness import Curve, Options, Row
from ros2_pose.evaluation.plots import reliability
from ros2_pose.geometry import Transform
from ros2_pose.metrics.pose import at_root, coverage, distances
from ros2_pose.multiview.fusion import Fuser, View
from ros2_pose.people import INFERRED, People
from ros2_pose.skeleton import SMPL24

_PEOPLE = 5
_ROOM_M, _CORNER_M = 2.0, 4.0  # half sides of the squares of people and of cameras
_CAMERA = Camera.from_fov(1280, 720, 80.0)
_HEIGHTS_M = (1.2, 2.5)  # of cameras
_LEAST_APART_M = 0.6
_MISSED_SHARE = 0.08  # of the detections
_GHOST_SHARE = 0.3  # moments in which one view has a false detection
_OCCLUDED_RAD = 0.06  # a person behind another within this angle is not found
_LEAST_KEYPOINTS = 8  # inside the image, for a detection
_Y_UP_TO_Z_UP = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
_NOT_FOUND = -2


# What one camera finds: its pose in the room (4, 4); of N detections the true person (N,), -1:
# false; points (N, 17, 2) at z = 1; and their covariances (N, 17, 2, 2).
Found = tuple[np.ndarray, np.ndarray, torch.Tensor, torch.Tensor]


def crowd(projector: Projector, people: int, cameras: int,
          rng: np.random.Generator) -> tuple[np.ndarray, list[Found]]:
    """Simulate one moment: people in random poses and positions, and what each camera finds.

    Returns: joints (P, 24, 3) m of the people, in a room with z up; and what each camera finds.
    """
    rotvecs, betas = projector.rotvecs(people + 1), projector.betas(people + 1)
    yaw = torch.from_numpy(rng.uniform(-np.pi, np.pi, people + 1)).float()
    rotmat = rotmat_from_rotvec(torch.stack([0 * yaw, 0 * yaw, yaw], 1)) @ _Y_UP_TO_Z_UP
    rotmats = rotmat_from_rotvec(rotvecs)
    rotmats[:, 0] = rotmat @ rotmats[:, 0]
    rig = projector.model.rig(betas)
    posed = pose_rig(rig, rotmats, betas, betas.new_zeros(people + 1, 3))
    shift = torch.from_numpy(_positions(people + 1, rng)).float()
    shift[:, 2] = -posed.joints[..., 2].amin(1)
    keypoints, joints = (value + shift[:, None] for value in (posed.keypoints, posed.joints))
    poses = [_corner(number, rng) for number in range(cameras)]
    ghost = rng.integers(cameras) if rng.random() < _GHOST_SHARE else -1
    views = [_found(projector, keypoints, joints, pose, rng, number == ghost)
             for number, pose in enumerate(poses)]
    return joints[:people].numpy(), views


def _positions(people: int, rng: np.random.Generator) -> np.ndarray:
    """(P, 3) m on the floor, at least 0.6 m apart."""
    positions = np.zeros((0, 3))
    while len(positions) < people:
        position = np.append(rng.uniform(-_ROOM_M, _ROOM_M, 2), 0.0)
        if (np.linalg.norm(positions - position, axis=1) > _LEAST_APART_M).all():
            positions = np.concatenate([positions, position[None]])
    return positions


def _corner(number: int, rng: np.random.Generator) -> np.ndarray:
    """(4, 4) camera pose in the room: in a corner, directed to the middle."""
    angle = np.pi / 2 * number + np.pi / 4 + rng.normal(0, 0.15)
    position = np.append(_CORNER_M * np.sqrt(2) * np.array([np.cos(angle), np.sin(angle)]),
                      rng.uniform(*_HEIGHTS_M))
    forward = np.array([0.0, 0.0, 1.0]) - position
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], 1)
    pose[:3, 3] = position
    return pose


def _found(projector: Projector, keypoints: torch.Tensor, joints: torch.Tensor, pose: np.ndarray,
           rng: np.random.Generator, with_ghost: bool) -> Found:
    """What one camera finds of people (P + 1); the last one does not exist (a false detection)."""
    rotmat, centre = (torch.from_numpy(value).float() for value in (pose[:3, :3], pose[:3, 3]))
    local, local_joints = ((value - centre) @ rotmat for value in (keypoints, joints))
    points, cov = projector.detected(local, local_joints)
    pixels = _CAMERA.project(local.numpy())
    inside = ((pixels > 0) & (pixels < (_CAMERA.width, _CAMERA.height))).all(2)
    points = torch.where(torch.from_numpy(inside)[..., None], points, torch.nan)
    middle = local.mean(1).numpy()
    bearing, depth = middle[:, 0] / middle[:, 2], middle[:, 2]
    occluded = (np.abs(bearing[:, None] - bearing) < _OCCLUDED_RAD) & (depth[:, None] > depth)
    chance = rng.random(len(depth))
    large_enough = inside.sum(1) >= _LEAST_KEYPOINTS
    shown = ~occluded[:, :-1].any(1) & (chance > _MISSED_SHARE) & large_enough
    shown[-1] = with_ghost and large_enough[-1]
    rows = np.flatnonzero(shown)
    return pose, np.where(rows == len(depth) - 1, -1, rows), points[rows], cov[rows]


def crowds(options: Options) -> Iterator[Row | Curve]:
    """Associate and fuse simulated people in 2, 3 and 4 views."""
    people = options.people or _PEOPLE
    poses = read_poses(options.data / MOCAP, held=True)
    projector = Projector(body_model(), poses, options.seed, vary=False)
    fit = fitter(options)
    for cameras in (2, 3, 4):
        rng = np.random.default_rng(options.seed + cameras)
        outcomes = [_outcome(fit, *crowd(projector, people, cameras, rng))
                    for _ in tqdm(range(options.moments), f"{cameras} cameras")]
        errors, covs = (np.concatenate([outcome[name] for outcome in outcomes])
                        for name in ("errors", "covs"))
        yield Row(f"{cameras} cameras",
                  f"{options.moments} moments of {people} people of held-back mocap in a room of "
                  f"{2 * _ROOM_M:.0f} m; pairs of views associated, people found twice; absolute "
                  "MPJPE of people fused from two and more views (relative to the pelvis), and of "
                  "single views, 24 joints; joints inside the 68 and 95 % ellipsoids",
                  _values(outcomes, errors, covs))
        yield reliability(f"crowd, {cameras} cameras", errors, covs)


def _values(outcomes: list[dict], errors: np.ndarray, covs: np.ndarray) -> dict[str, float]:
    single = np.concatenate([outcome["single"] for outcome in outcomes])
    together, right, true, doubles, present = (
        sum(outcome[name] for outcome in outcomes)
        for name in ("together", "right", "true", "doubles", "present"))
    fused = 1000 * np.linalg.norm(errors, axis=2).mean(1)
    relative = 1000 * distances(at_root(errors, 0), np.zeros_like(errors)).mean(1)
    return {"precision, %": 100 * right / max(together, 1), "recall, %": 100 * right / max(true, 1),
            "found twice, %": 100 * doubles / max(present, 1),
            "MPJPE median, mm": np.nanmedian(fused), "MPJPE, mm": np.nanmean(fused),
            "relative, mm": np.nanmean(relative),
            "single view, mm": np.nanmean(1000 * np.linalg.norm(single, axis=2).mean(1)),
            "inside 68 %, %": 100 * coverage(errors, covs, 0.68),
            "inside 95 %, %": 100 * coverage(errors, covs, 0.95)}


def _outcome(fit: Fitter, true_joints: np.ndarray, found: list[Found]) -> dict:
    """Associate and fuse the views of one moment, given the true joints (P, 24, 3) m.

    Returns: counts of pairs of views put together, of those rightly, and of pairs that should be;
        people found more than once (doubles) and found at all (present); errors (M, 24, 3) m and
        covariances (M, 24, 3, 3) m^2 of people fused from two or more views; single (S, 24, 3) m,
        errors of all single views.
    """
    views = [_view(fit, points, cov, pose) for pose, _, points, cov in found]
    true_people = [of for _, of, _, _ in found]
    fuser = Fuser(fit)
    rows = fuser.associate(views)
    people, _ = fuser.fuse(views, rows)
    # (F, V) the true person of each fused person's detection in each view
    who = np.stack([np.where(column >= 0, np.append(of, _NOT_FOUND)[column], _NOT_FOUND)
                    for of, column in zip(true_people, rows.T)], 1)
    assert people.joints is not None and people.joint_cov is not None
    present = np.unique(who[who >= 0])
    together, right = _pairs(who)
    fused_as = who.max(1)
    fused = ((who >= 0).sum(1) > 1) & (fused_as >= 0)
    single = [_joints_in_room(view)[of >= 0] - true_joints[of[of >= 0]]
              for view, of in zip(views, true_people)]
    return {
        "together": together, "right": right,
        "true": sum(views * (views - 1) // 2 for views in ((who == p).sum() for p in present)),
        "doubles": sum((who == person).any(1).sum() - 1 for person in present),
        "present": len(present), "errors": people.joints[fused] - true_joints[fused_as[fused]],
        "covs": people.joint_cov[fused], "single": np.concatenate(single)}


def _joints_in_room(view: View) -> np.ndarray:
    """(N, 24, 3) m"""
    joints = view.in_common.joints
    assert joints is not None
    return joints


def _pairs(who: np.ndarray) -> tuple[int, int]:
    """Pairs of views that were put together (F, V), and those that show one true person."""
    together = right = 0
    for row in who:
        for a, b in combinations(row[row != _NOT_FOUND].tolist(), 2):
            together += 1
            right += a == b >= 0
    return together, right


def _view(fitter: Fitter, points: torch.Tensor, cov: torch.Tensor, pose: np.ndarray) -> View:
    """People found by one camera, with bodies fitted to that view alone."""
    up = torch.from_numpy(pose[2, :3].copy())
    found = fitter.fit(Sighting(points.double(), cov.double(), up=up))
    pixels, pixel_cov = _CAMERA.distort_with_cov(points.numpy(), cov.numpy())
    return View(_people(found, pixels, pixel_cov), _CAMERA, Transform.from_matrix(pose))


def _people(found: BodyFit, pixels: np.ndarray, cov: np.ndarray) -> People:
    """The fitted bodies and keypoints (P, 17, 2) px as `People`."""
    count = len(pixels)
    known = np.isfinite(pixels).all(2)
    boxes = np.concatenate([np.nanmin(pixels, 1), np.nanmax(pixels, 1)], 1) if count \
        else np.zeros((0, 4))
    fields = {name: getattr(found, name).numpy()
              for name in ("theta", "betas", "root", "root_cov", "joints", "joint_cov")}
    return People(boxes, np.ones(count), pixels, cov, known.astype(float),
                  joint_source=np.full((count, len(SMPL24)), INFERRED), **fields)
