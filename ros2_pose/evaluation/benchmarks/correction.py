"""The 2D-3D correction (Tian et al. 2023): errors of hidden and visible joints of simulated people.

    python -m ros2_pose.evaluation.benchmarks.correction

No data is needed: poses are drawn from the pose prior, on the open body model, with random shape
and facing, 2.5 to 6 m away. Fourteen joints are measured with Gaussian errors: a standard deviation
of 1 % of the person's height for 80 % of them, of 10 % for the others ("hidden"). In the body to
correct them by, every joint and the pelvis are rotated at random, so that it is a plausible body
with an error of 62 mm (mean distance of the fourteen joints, relative to the pelvis), about what
networks reach. Its covariance is that of these rotations, linearised at the wrong body. So both
covariances are exact; those of real networks are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ros2_pose.body.align import align_model
from ros2_pose.body.correct import correct
from ros2_pose.body.fit_kinematics import ROTATIONS, fit_rig
from ros2_pose.body.kinematics import pose_rig, project
from ros2_pose.body.model import BodyModel
from ros2_pose.body.prior import PosePrior
from ros2_pose.body.so3 import rotmat_from_quat, rotmat_from_rotvec
from ros2_pose.evaluation import harness
from ros2_pose.evaluation.benchmarks.align_as_printed import align_as_printed
from ros2_pose.evaluation.harness import Benchmark, Options, Row
from ros2_pose.skeleton import SMPL24

_MEASURED = [joint for joint, kind in enumerate(SMPL24.kinds)
             if kind in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist", "neck", "head")]
_DEPTH_M = (2.5, 6.0)
_ASIDE = (0.3, 0.1)  # how far from the optical axis, right and down, at most; x/z, y/z
_TILT_RAD = 0.1
_SIGMA_VISIBLE, _SIGMA_HIDDEN = 0.01, 0.10  # of the person's height, each axis
_HIDDEN_SHARE = 0.2
_BODY_ERROR_M = 0.062
_PEOPLE = 3000
_TARGETS = {"points as measured": "all about 3.55 %",
            "repaired, with fusion": "all 1.7 %; visible no worse",
            "repaired, fusion by shared errors": "all 1.7 %; visible no worse"}


class SimulatedPeople(NamedTuple):
    """P simulated people, float64, camera axes; 14 joints."""

    truth: Tensor  # (P, 14, 2) at z = 1
    points: Tensor  # (P, 14, 2) as measured
    sigma: Tensor  # (P, 14) of the measurement, each axis
    hidden: Tensor  # (P, 14) bool
    body: Tensor  # (P, 14, 3) m, the wrong body, pelvis at the origin
    body_cov: Tensor  # (P, 14, 3, 14, 3) m^2
    height: Tensor  # (P,) of the person in the image at z = 1


def correction(options: Options) -> Iterator[Row]:
    """Errors of the measured joints, and after each kind of correction."""
    people = options.people or _PEOPLE
    sample = simulated_people(people, options.seed)
    for name, points in _estimates(sample).items():
        error = 100 * (points - sample.truth).norm(dim=2) / sample.height[:, None]
        yield Row(name, f"{people} simulated people, body error {1000 * _BODY_ERROR_M:.0f} mm; "
                  "mean 2D error of 14 joints in % of the person's height, of all, hidden and "
                  "visible joints",
                  {"all, %": float(error.mean()), "hidden, %": float(error[sample.hidden].mean()),
                   "visible, %": float(error[~sample.hidden].mean())}, _TARGETS.get(name, ""))


def _estimates(sample: SimulatedPeople) -> dict[str, Tensor]:
    """(P, 14, 2) image points at z = 1 by each method."""
    points, sigma, body = sample.points, sample.sigma, sample.body
    cov = sigma.square()[..., None, None] * torch.eye(2).to(sigma)
    joint_cov = sample.body_cov.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)
    return {
        "points as measured": points,
        "as printed, w = 1": align_as_printed(points, torch.ones_like(sigma), body)[0],
        "as printed, w = 1/c": align_as_printed(points, sigma, body)[0],
        "repaired, without fusion": project(align_model(points, cov, body, joint_cov)[0]),
        "repaired, with fusion": correct(points, cov, body, joint_cov)[0],
        "repaired, fusion by shared errors": correct(points, cov, body, sample.body_cov)[0]}


BENCHMARKS = {"correction": Benchmark(correction, (), ("people", "seed"))}


# ------------------------------------------------------------------------------ the people


def simulated_people(people: int, seed: int) -> SimulatedPeople:
    """The people of the experiment."""
    generator = torch.Generator().manual_seed(seed)
    model = BodyModel.load()
    betas = _normal(generator, people, 10) * model.beta_std.double()
    rotmats = torch.cat([_facings(generator, people), _poses(generator, people)], 1)
    root = _positions(generator, people)
    rig = model.rig(betas)
    joints = pose_rig(rig, rotmats, betas, torch.zeros_like(root)).joints
    body, body_cov = _wrong_bodies(rig, rotmats, betas, joints, _normal(generator, people, 24, 3))
    truth = project((joints + root[:, None])[:, _MEASURED])
    height = _statures(model, betas) / root[:, 2]
    hidden = torch.rand(truth.shape[:2], generator=generator) < _HIDDEN_SHARE
    sigma = torch.where(hidden, _SIGMA_HIDDEN, _SIGMA_VISIBLE) * height[:, None]
    points = truth + sigma[..., None] * _normal(generator, *truth.shape)
    return SimulatedPeople(truth, points, sigma, hidden, body, body_cov, height)


def _wrong_bodies(rig, rotmats: Tensor, betas: Tensor, joints: Tensor,
                  rotvecs: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate the joints of bodies so that they are wrong by 62 mm in the mean.

    Args:
        rotmats (P, 24, 3, 3), betas (P, 10), joints (P, 24, 3): the true bodies, m.
        rotvecs (P, 24, 3): random rotations, scaled here to the wanted error.

    Returns: joints (P, 14, 3) m of the wrong bodies, and the covariance (P, 14, 3, 14, 3) m^2 of
        their errors.
    """
    std_rad, nowhere = 0.06, torch.zeros_like(joints[:, 0])
    for _ in range(5):  # the error is all but proportional
        wrong = rotmats @ rotmat_from_rotvec(std_rad * rotvecs)
        posed = pose_rig(rig, wrong, betas, nowhere)
        error = (posed.joints - joints)[:, _MEASURED].norm(dim=2).mean()
        std_rad = std_rad * float(_BODY_ERROR_M / error)
    arrays = fit_rig(rig)
    pose = arrays.pose(wrong.numpy(), betas.numpy(), nowhere.numpy())
    transpose = torch.from_numpy(arrays.landmark_jacobian(pose))  # (P, 85, 3, landmarks)
    by_rotation = std_rad * transpose[:, ROTATIONS].permute(0, 3, 2, 1)[:, _MEASURED]
    flat = by_rotation.flatten(1, 2)
    cov = (flat @ flat.mT).view(*by_rotation.shape[:3], *by_rotation.shape[1:3])
    return posed.joints[:, _MEASURED], cov


def _poses(generator: torch.Generator, people: int) -> Tensor:
    """(P, 23, 3, 3) joint rotations drawn from the pose prior."""
    white = _normal(generator, people, 69)
    return rotmat_from_quat(PosePrior.load().pose(white))


def _facings(generator: torch.Generator, people: int) -> Tensor:
    """(P, 1, 3, 3) body to camera: upright but for a small tilt, with a random yaw."""
    yaw = torch.zeros(people, 3, dtype=torch.float64)
    yaw[:, 1] = 2 * np.pi * _uniform(generator, people)
    tilt = rotmat_from_rotvec(_TILT_RAD * _normal(generator, people, 3))
    upright = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
    return (tilt @ rotmat_from_rotvec(yaw) @ upright)[:, None]


def _positions(generator: torch.Generator, people: int) -> Tensor:
    """(P, 3) m: position of the pelvis, camera frame."""
    near, far = _DEPTH_M
    depth = near + (far - near) * _uniform(generator, people, 1)
    aside = (2 * _uniform(generator, people, 2) - 1) * torch.tensor(_ASIDE).to(depth)
    return torch.cat([aside * depth, depth], 1)


def _statures(model: BodyModel, betas: Tensor) -> Tensor:
    """(P,) m: stature, from sole to crown."""
    height, by_beta = (value.to(betas) for value in model.stature)
    return height + betas @ by_beta


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _uniform(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=generator, dtype=torch.float64)


if __name__ == "__main__":
    harness.main(BENCHMARKS, __doc__)
