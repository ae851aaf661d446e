"""The body layer on MuPoTS-3D: bodies from true and from noisy 2D joints of annotated people."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ros2_pose.body.fitter import BodyFit, Sighting, as_coco
from ros2_pose.body.root_depth import RootDepth, root_with_cov
from ros2_pose.data.mupots import MupotsPeople, read_people
from ros2_pose.evaluation.benchmarks.fitting import fit_all, fitter, isotropic, statures
from ros2_pose.evaluation.harness import Curve, Options, Row
from ros2_pose.evaluation.plots import reliability
from ros2_pose.metrics.mupots import median_by_person, mupots_pck
from ros2_pose.metrics.pose import coverage, median_depth_error
from ros2_pose.networks.keypoint_noise import KEYPOINT_NOISE
from ros2_pose.skeleton import COCO17, MUPOTS17

FILE = "devset/mupots_ts01_10_gt.npz"
_JOINT_STD_M = 0.02  # of annotated joints
_POINT_STD = 0.01  # of true 2D joints, in sizes of the person
_FLOOR_ROUNDS, _FLOOR_LEAST_M = 20, 0.005  # of the reweighted least squares, and least residual
_LIMBS = tuple(name for name, side in zip(MUPOTS17.names, MUPOTS17.sides) if side != "middle")
_PELVIS = MUPOTS17.index("pelvis")

_DETECTOR = "noise of the default network as calibrated (networks.keypoint_noise.KEYPOINT_NOISE)"
_COCO_SIZE = 1.65  # a person's size by COCO's definition, in RMS distances of the joints
# Joints that COCO does not have get the noise of these.
_NOISE_AS = {"pelvis": "left_hip", "spine": "left_hip", "neck": "left_shoulder",
             "head": "left_ear", "head_top": "left_ear"}


def true_joints(options: Options) -> Iterator[Row]:
    """Bodies from true 2D joints, with and without the person's height."""
    truth = read_people(options.data / FILE, options.stride)
    statures = true_statures(options, truth)
    std = torch.from_numpy(_POINT_STD * _size(truth.rays))[:, None].expand(-1, len(MUPOTS17))
    for used, names in (("17 joints", MUPOTS17.names), ("12 limb joints", _LIMBS)):
        points = torch.from_numpy(truth.rays).clone()
        points[:, [name not in names for name in MUPOTS17.names]] = torch.nan
        for known, height, target in (("unknown", None, "83 / 30"), ("given", statures, "83 / 45")):
            sighting = Sighting(points, isotropic(std, 2), height)
            found = fit_all(fitter(options, joint_set=MUPOTS17), sighting)
            yield _row(f"MuPoTS, true 2D, {used}, height {known}", truth, found, options,
                       f"PCK_rel / PCK_abs {target} %")


def true_joints_on_floor(options: Options) -> Iterator[Row]:
    """Bodies from true 2D joints and each sequence's floor, heights unknown."""
    truth = read_people(options.data / FILE, options.stride)
    std = torch.from_numpy(_POINT_STD * _size(truth.rays))[:, None].expand(-1, len(MUPOTS17))
    fit = fitter(options, joint_set=MUPOTS17)
    found = None
    for number in np.unique(truth.sequence):
        rows = torch.from_numpy(truth.sequence == number)
        floor = _floor(truth.poses[rows.numpy()], fit.settings.ankle_height_m)
        sighting = Sighting(torch.from_numpy(truth.rays)[rows], isotropic(std[rows], 2),
                            up=floor[:3], floor=floor)
        part = fit_all(fit, sighting)
        if found is None:
            found = BodyFit(*(value.new_zeros(len(rows), *value.shape[1:]) for value in part))
        for values, value in zip(found, part):
            values[rows] = value
    assert found is not None
    row = _row("MuPoTS, true 2D, 17 joints, height unknown, floor given", truth, found, options,
               "PCK_abs 45 %")
    yield row._replace(protocol="floor of a sequence: plane under the true lower ankles of all its "
                       f"people (least absolute deviations); {row.protocol}")


def _floor(poses: np.ndarray, ankle_height_m: float) -> Tensor:
    """Plane (4,), see `Sighting.floor`, under the lower ankles of true poses (N, 17, 3) m."""
    ankles = poses[:, [MUPOTS17.index(f"{side}_ankle") for side in ("left", "right")]]
    lower = ankles[np.arange(len(ankles)), ankles[..., 1].argmax(1)]
    sides = np.c_[lower[:, [0, 2]], np.ones(len(lower))]  # y = sides @ slope
    weight = np.ones(len(lower))
    for _ in range(_FLOOR_ROUNDS):
        slope = np.linalg.lstsq(weight[:, None] * sides, weight * lower[:, 1], rcond=None)[0]
        weight = 1 / np.sqrt(np.abs(sides @ slope - lower[:, 1]).clip(min=_FLOOR_LEAST_M))
    normal = np.array([slope[0], -1.0, slope[1], slope[2]]) / np.hypot(1, np.hypot(*slope[:2]))
    return torch.from_numpy(normal + [0, 0, 0, ankle_height_m])


def true_statures(options: Options, truth: MupotsPeople) -> Tensor:
    """(N,) m: stature of the body that fits a person's true 3D joints, median over the frames.

    This one number of the truth is what the rows "height given" are given.
    """
    positions = torch.from_numpy(truth.poses).double()
    cov = isotropic(torch.full(positions.shape[:2], _JOINT_STD_M), 3).to(positions)
    found = fit_all(fitter(options, joint_set=MUPOTS17), Sighting(positions, cov))
    return torch.from_numpy(median_by_person(statures(found.betas).numpy(), truth))


def _row(name: str, truth: MupotsPeople, found: BodyFit, options: Options, target: str) -> Row:
    poses = found.keypoints.numpy()
    relative, absolute = mupots_pck(poses, truth)
    plain_relative, plain_absolute = mupots_pck(poses, truth, rescale=False)
    depth = median_depth_error(poses[:, _PELVIS, 2], truth.poses[:, _PELVIS, 2])
    return Row(name, f"sequences 1-10, every {options.stride}th frame, {len(poses)} people; "
               "PCK at 150 mm, 14 joints, official bone rescaling, and without it; median root "
               "depth error; DAS, from pixels: 82.7 / 39.2; ours starts from 2D joints",
               {"PCK_rel, %": relative, "PCK_abs, %": absolute,
                "PCK_rel without rescaling, %": plain_relative,
                "PCK_abs without rescaling, %": plain_absolute,
                "root depth error, %": 100 * depth}, target)


def _size(rays: np.ndarray) -> np.ndarray:
    """(N,) root mean square distance of people's points (N, K, 2) from their centroid."""
    return np.sqrt(np.square(rays - rays.mean(1, keepdims=True)).sum(2).mean(1))


def noisy_joints(options: Options) -> Iterator[Row | Curve]:
    """Bodies from 2D joints with a detector's noise, and the coverage of their covariances."""
    truth = read_people(options.data / FILE, options.stride)
    rng = np.random.default_rng(options.seed)
    error, cov = _as_detected(truth.rays, rng)
    fit = fitter(options, joint_set=MUPOTS17)
    sighting = Sighting(torch.from_numpy(truth.rays + error), torch.from_numpy(cov))
    found = fit_all(fit, sighting)
    row = _row("MuPoTS, noisy 2D, 17 joints, height unknown", truth, found, options, "")
    yield row._replace(protocol=f"{_DETECTOR}; {row.protocol}")
    root, _ = root_with_cov(RootDepth.load(), *as_coco(sighting.points, sighting.cov, MUPOTS17))
    yield Row("root depth, MuPoTS, noisy 2D, without a body (k times gamma)",
              "the same people as the row before: median relative error of the pelvis' depth",
              {"root depth error, %":
               100 * median_depth_error(root[:, 2], truth.poses[:, _PELVIS, 2])})
    corrected, corrected_cov, _, _ = fit.correct(sighting, found)
    definition_cov = fit.settings.keypoint_error_m**2 * np.eye(3)
    gaussians = {
        "3D joints, camera frame": (found.keypoints.numpy() - truth.poses,
                                    found.keypoint_cov.numpy() + definition_cov),
        "2D joints, corrected": (corrected.numpy() - truth.rays, corrected_cov.numpy()),
        "2D joints, as detected": (error, cov)}
    for name, (errors, covs) in gaussians.items():
        yield Row(f"coverage, {name}",
                  "the same people; errors inside the ellipsoids of 68 and 95 %, the uncertainty "
                  "of the keypoint's definition included",
                  {f"inside {100 * share:.0f} %, %": 100 * coverage(errors, covs, share)
                   for share in (0.68, 0.95)}, "68 / 95 %")
        yield reliability(f"MuPoTS, {name}", errors, covs)


def _as_detected(rays: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Errors (N, 17, 2) of points (N, 17, 2) at z = 1, and the covariances stated for them."""
    joints = np.array([COCO17.index(_NOISE_AS.get(name, name)) for name in MUPOTS17.names])
    error, cov = KEYPOINT_NOISE.at(joints).draw(rng, len(rays))
    size = _COCO_SIZE * _size(rays)[:, None, None]
    return size * error, size[..., None] ** 2 * cov
