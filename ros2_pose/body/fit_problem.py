"""The fit as an estimation problem: what was observed of P people, the priors, and the settings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ros2_pose.body.fit_kinematics import rotmat_form
from ros2_pose.body.gaussian import whitener
from ros2_pose.body.kinematics import project_with_jacobian
from ros2_pose.body.lift import Lifted
from ros2_pose.body.model import BodyModel, Rig
from ros2_pose.body.prior import PosePrior
from ros2_pose.body.shape_prior import shape_prior
from ros2_pose.config import PoseConfig
from ros2_pose.skeleton import JointSet

_LEVEL_UP = np.array([0.0, -1.0, 0.0])  # the world's up in the frame of a level camera
_EYE = np.eye(4)
_FLOAT64 = torch.empty(0, dtype=torch.float64)


@dataclass(frozen=True)
class FitSettings:
    """Weights of the fit. Standard deviations unless said otherwise."""

    keypoint_error_m: float = 0.03  # of a keypoint's definition, on top of its own covariance
    robust_sigmas: float = 3.0  # scale of the Cauchy loss, in standard deviations
    upright_rad: float = 0.4  # angle between the body's up axis and the world's
    prior_weight: float = 0.25  # factor of the pose prior, which does not depend on the image
    lift_weight: float = 1.0  # factor of the rotations that the lift proposes
    rotation_rate: float = 2.0  # change of a joint's rotation with time, relative to mocap's
    least_rotation_rad: float = 0.03  # change of a joint's rotation at any frame rate
    speed_m_s: float = 2.0  # of the pelvis
    least_step_m: float = 0.05  # of the pelvis at any frame rate
    shape_frames: int = 100  # number of frames over which a track's shape is averaged
    shape_std: float = 0.4  # of a beta as measured by one frame
    adult_height_m: float = PoseConfig.adult_height_m  # mean height of adults
    ankle_height_m: float = 0.09  # height of the ankle above the floor of a standing foot
    floor_std_m: float = 0.04  # of that height, where the foot stands on the floor
    floor_tilt_rad: float = 0.012  # error of the floor's direction
    contact_probability: float = 0.6  # that the lower foot stands on the floor
    no_contact_range_m: float = 0.5  # of heights, alike probable, of a foot that does not
    inflation: float = 1.5  # factor of the posterior variances, for errors of the body model
    cold_iterations: tuple[int, int] = (4, 8)  # with all hypotheses, then with the best one
    warm_iterations: int = 2
    retry_cost: float = 2.5  # mean cost per keypoint from which a warm fit disagrees
    retry_distance2: float = 15.0  # of the rotations to a hypothesis, from which it does, too
    patience_s: float = 0.3  # time of disagreement after which a cold start is tried


class Sighting(NamedTuple):
    """Observations of P people in one image; NaN where a value is unknown for a person."""

    points: Tensor  # (P, K, 2) keypoints, normalised, undistorted: x/z, y/z; or (P, K, 3) m
    cov: Tensor  # (P, K, 2, 2) or (P, K, 3, 3) their covariance
    height: Tensor | None = None  # (P,) m, of the person standing
    depth: Tensor | None = None  # (P,) m, measured z of the pelvis
    depth_std: Tensor | None = None  # (P,) m
    up: Tensor | None = None  # (3,) the world's up in the camera frame; None: the camera is level
    floor: Tensor | None = None  # (4,) n, d with n x + d the height above it, m; camera frame
    proposed: Lifted | None = None  # one more hypothesis (P, 1), from the keypoint network


@dataclass(frozen=True)
class Problem:
    """Observations and priors of P people; K keypoints in D = 2 or 3 dimensions.

    `build_problem` leaves open what depends on the hypothesis: `with_hypothesis` adds it.
    """

    rig: Rig
    pose_prior: PosePrior
    settings: FitSettings
    joint_set: JointSet
    points: np.ndarray  # (P, K, D) x/z, y/z or m; zeros where missing
    cov: np.ndarray  # (P, K, D, D); zeros where missing
    seen: np.ndarray  # (P, K) bool
    floor: np.ndarray | None  # (4,) n, d with n x + d the height above it, m
    prior_mean: np.ndarray  # (P, 13) of a Gaussian on betas and root
    prior_precision: np.ndarray  # (P, 13, 13)
    rotation_form: np.ndarray  # (P, 24, 4, 4) Q: rotations q cost q^T Q q, see `rotation_form`
    rotation_precision: np.ndarray  # (P, 24) 1/rad^2 of the Gaussians on rotations in it
    whitener: np.ndarray | None = None  # (P, K, D, D), zeros where missing
    contact_std: np.ndarray | None = None  # (P,) m, of the height of a foot that is on the floor

    def rows(self, index: Tensor | np.ndarray) -> Problem:
        """Return the problem of some people.

        Args:
            index (P,) bool, or (N,) int: a mask, or indices, possibly repeated.
        """
        chosen = np.asarray(index)
        if chosen.dtype == bool and chosen.all():
            return self
        values = {name: getattr(self, name) for name in _PER_PERSON}
        return replace(self, **{name: value[chosen] for name, value in values.items()
                                if value is not None})


_PER_PERSON = ("points", "cov", "seen", "prior_mean", "prior_precision", "rotation_form",
               "rotation_precision", "whitener", "contact_std")


def build_problem(model: BodyModel, pose_prior: PosePrior, settings: FitSettings,
                  joint_set: JointSet, sighting: Sighting, likeliest: Lifted) -> Problem:
    """Build the problem of P people without what depends on hypothesis and previous frame.

    Args:
        joint_set: the K keypoints of the sighting.
        likeliest (P, ...): the most probable hypothesis of each person, without the dimension H.
    """
    points, cov = sighting.points.double().numpy(), sighting.cov.double().numpy()
    seen = np.isfinite(points).all(2) & np.isfinite(cov).all((2, 3))
    people = len(points)
    up = _LEVEL_UP if sighting.up is None else sighting.up.double().numpy()
    prior_mean, prior_precision = _shape_and_root_prior(model, settings, sighting, likeliest)
    form = np.zeros((people, 24, 4, 4))
    form[:, 0] = _upright_form(up, settings.upright_rad**-2)
    return Problem(
        rig=model.rig(_FLOAT64, joint_set),
        pose_prior=pose_prior,
        settings=settings,
        joint_set=joint_set,
        points=np.where(seen[..., None], points, 0.0),
        cov=np.where(seen[..., None, None], cov, 0.0),
        seen=seen,
        floor=None if sighting.floor is None else sighting.floor.double().numpy(),
        prior_mean=prior_mean,
        prior_precision=prior_precision,
        rotation_form=form,
        rotation_precision=np.zeros((people, 24)),
    )


def _shape_and_root_prior(model: BodyModel, settings: FitSettings, sighting: Sighting,
                          likeliest: Lifted) -> tuple[np.ndarray, np.ndarray]:
    """Mean (P, 13) and precision (P, 13, 13) of betas and root, besides the keypoints.

    The root has a prior only along the optical axis, and only where its depth was measured.
    """
    proposed, height = likeliest.betas.double().numpy(), sighting.height
    betas, betas_precision = shape_prior(
        model, proposed if model.is_open else np.zeros_like(proposed), settings.adult_height_m,
        None if height is None else height.double().numpy())
    mean = np.concatenate([betas, likeliest.root.double().numpy()], 1)
    precision = np.zeros((len(mean), 13, 13))
    precision[:, :10, :10] = betas_precision
    if sighting.depth is not None and sighting.depth_std is not None:
        depth, depth_std = sighting.depth.double().numpy(), sighting.depth_std.double().numpy()
        measured = np.isfinite(depth / depth_std)
        mean[measured, 12] = depth[measured]
        precision[measured, 12, 12] = depth_std[measured]**-2
    return mean, precision


def with_hypothesis(problem: Problem, hypothesis: Lifted, depth_m: Tensor) -> Problem:
    """Add the rotations of one hypothesis as a prior, and what depends on the distance.

    That is the whitener of the keypoint errors, and the error of the floor's height.

    Args:
        hypothesis (P, ...): one hypothesis of each person, without the dimension H.
        depth_m (P,): expected depth of each person, at which the error of the keypoints'
            definition, `keypoint_error_m`, is seen.
    """
    size = problem.points.shape[2]
    definition_std = problem.settings.keypoint_error_m / (depth_m.numpy() if size == 2 else 1.0)
    definition_cov = np.square(definition_std).reshape(-1, 1, 1, 1) * _EYE[:size, :size]
    whiten = whitener(torch.from_numpy(problem.cov + definition_cov)).numpy()
    precision = problem.settings.lift_weight / np.square(hypothesis.rotation_std.numpy())
    form = rotation_form(hypothesis.theta.numpy(), precision)
    return replace(
        problem,
        rotation_form=problem.rotation_form + form,
        rotation_precision=problem.rotation_precision + precision,
        whitener=np.where(problem.seen[..., None, None], whiten, 0.0),
        contact_std=np.hypot(problem.settings.floor_tilt_rad * depth_m.numpy(),
                             problem.settings.floor_std_m),
    )


def rotation_form(reference_xyzw: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Return Gaussians on the chords from reference rotations, as quadratic forms.

    The chord from r to q is as long as 2 sin(a / 2) with cos(a / 2) = r^T q, so that its cost
    precision |chord|^2 / 2 is q^T Q q with Q = 2 precision (1 - r r^T), for unit quaternions.

    Args:
        reference_xyzw (P, 24, 4), precision (P, 24) 1/rad^2.
    Returns:
        Q (P, 24, 4, 4).
    """
    outer = reference_xyzw[..., None] * reference_xyzw[..., None, :]
    squared_norm = np.einsum("pjii->pj", outer)[..., None, None]  # 1 up to rounding
    return (2 * precision)[..., None, None] * (squared_norm * _EYE - outer)


def _upright_form(up: np.ndarray, precision: float) -> np.ndarray:
    """(4, 4) Q with q^T Q q = precision (1 - up^T R(q) e_y) for unit quaternions q."""
    by_rotmat = np.zeros((3, 3))
    by_rotmat[:, 1] = up
    return precision * (_EYE - rotmat_form(by_rotmat))


def image_keypoints(points: Tensor, cov: Tensor) -> tuple[Tensor, Tensor]:
    """Return keypoints in 2D: 2D ones as they are, 3D ones projected.

    Args:
        points (P, K, 2): x/z, y/z; or (P, K, 3): m.
        cov (P, K, 2, 2) or (P, K, 3, 3).
    Returns:
        (P, K, 2) x/z, y/z and (P, K, 2, 2).
    """
    if points.shape[2] == 2:
        return points, cov
    image, jacobian = project_with_jacobian(points)
    return image, jacobian @ cov @ jacobian.transpose(2, 3)
