"""The fit as an estimation problem: what was observed of P people, the priors, and the settings."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ros2_pose.body.gaussian import whitener
from ros2_pose.body.kinematics import project_with_jacobian
from ros2_pose.body.lift import Lifted
from ros2_pose.body.model import BodyModel, Rig
from ros2_pose.body.prior import PosePrior
from ros2_pose.body.shape_prior import shape_prior
from ros2_pose.config import PoseConfig
from ros2_pose.skeleton import JointSet

_LEVEL_UP = (0.0, -1.0, 0.0)  # the world's up in the frame of a level camera


@dataclass(frozen=True)
class FitSettings:
    """Weights of the fit. Standard deviations unless said otherwise."""

    keypoint_error_m: float = 0.03  # of a keypoint's definition, on top of its own covariance
    robust_sigmas: float = 3.0  # scale of the Cauchy loss, in standard deviations
    upright_rad: float = 0.4  # angle between the body's up axis and the world's
    prior_weight: float = 0.5  # factor of the pose prior, which does not depend on the image
    lift_weight: float = 1.0  # factor of the rotations that the lift proposes
    rotation_rate_rad_s: float = 3.0  # change of a joint's rotation per second
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
    points: Tensor  # (P, K, D) x/z, y/z or m; zeros where missing
    cov: Tensor  # (P, K, D, D); zeros where missing
    seen: Tensor  # (P, K) bool
    up: Tensor  # (P, 3) the world's up in the camera frame
    floor: Tensor | None  # (4,) n, d with n x + d the height above it, m
    prior_mean: Tensor  # (P, 13) of a Gaussian on betas and root
    prior_precision: Tensor  # (P, 13, 13)
    rotation_xyzw: Tensor  # (P, R, 24, 4) R reference rotations of each joint
    rotation_precision: Tensor  # (P, R, 24) 1/rad^2 of Gaussians around them; 0: no prior
    whitener: Tensor | None = None  # (P, K, D, D), zeros where missing
    contact_std: Tensor | None = None  # (P,) m, of the height of a foot that stands on the floor

    def rows(self, index: Tensor) -> Problem:
        """Return the problem of some people.

        Args:
            index (P,) bool, or (N,) int: a mask, or indices, possibly repeated.
        """
        if index.dtype == torch.bool and index.all():
            return self
        selected = {name: getattr(self, name)[index] for name in _PER_PERSON}
        chosen = {name: value[index] for name in ("whitener", "contact_std")
                  if (value := getattr(self, name)) is not None}
        return replace(self, **selected, **chosen)


_PER_PERSON = ("points", "cov", "seen", "up", "prior_mean", "prior_precision", "rotation_xyzw",
               "rotation_precision")


def build_problem(model: BodyModel, pose_prior: PosePrior, settings: FitSettings,
                  joint_set: JointSet, sighting: Sighting, likeliest: Lifted) -> Problem:
    """Build the problem of P people without what depends on hypothesis and previous frame.

    Args:
        joint_set: the K keypoints of the sighting.
        likeliest (P, ...): the most probable hypothesis of each person, without the dimension H.
    """
    points, cov = sighting.points.double(), sighting.cov.double()
    seen = points.isfinite().all(2) & cov.isfinite().flatten(2).all(2)
    people = len(points)
    up = points.new_tensor(_LEVEL_UP) if sighting.up is None else sighting.up.to(points)
    prior_mean, prior_precision = _shape_and_root_prior(model, settings, sighting, likeliest)
    return Problem(
        rig=model.rig(points, joint_set),
        pose_prior=pose_prior,
        settings=settings,
        joint_set=joint_set,
        points=torch.where(seen[..., None], points, 0.0),
        cov=torch.where(seen[..., None, None], cov, 0.0),
        seen=seen,
        up=up.expand(people, 3),
        floor=None if sighting.floor is None else sighting.floor.to(points),
        prior_mean=prior_mean,
        prior_precision=prior_precision,
        rotation_xyzw=points.new_zeros(people, 0, 24, 4),
        rotation_precision=points.new_zeros(people, 0, 24),
    )


def _shape_and_root_prior(model: BodyModel, settings: FitSettings, sighting: Sighting,
                          likeliest: Lifted) -> tuple[Tensor, Tensor]:
    """Mean (P, 13) and precision (P, 13, 13) of betas and root, besides the keypoints.

    The root has a prior only along the optical axis, and only where its depth was measured.
    """
    proposed = likeliest.betas if model.is_open else torch.zeros_like(likeliest.betas)
    betas, betas_precision = shape_prior(model, proposed, settings.adult_height_m, sighting.height)
    mean = torch.cat([betas, likeliest.root], 1)
    precision = torch.zeros(len(mean), 13, 13).to(mean)
    precision[:, :10, :10] = betas_precision
    if sighting.depth is not None and sighting.depth_std is not None:
        measured = (sighting.depth / sighting.depth_std).isfinite()
        depth_std = torch.where(measured, sighting.depth_std.to(mean), torch.inf)
        mean[:, 12] = torch.where(measured, sighting.depth.to(mean), mean[:, 12])
        precision[:, 12, 12] = depth_std**-2
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
    definition_std = problem.settings.keypoint_error_m / (
        depth_m if size == 2 else torch.ones_like(depth_m))
    definition_cov = definition_std.square()[:, None, None, None] * torch.eye(size).to(problem.cov)
    whiten = whitener(problem.cov + definition_cov)
    tilt_m = problem.settings.floor_tilt_rad * depth_m
    precision = problem.settings.lift_weight / hypothesis.rotation_std.square()
    return replace(
        problem,
        rotation_xyzw=hypothesis.theta[:, None],
        rotation_precision=precision[:, None],
        whitener=torch.where(problem.seen[..., None, None], whiten, 0.0),
        contact_std=(tilt_m.square() + problem.settings.floor_std_m**2).sqrt(),
    )


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
