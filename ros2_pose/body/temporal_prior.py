"""The temporal prior: people change little from one frame to the next, their shape not at all."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ros2_pose.body.fit_cost import Linearisation
from ros2_pose.body.fit_kinematics import ROTATIONS, SHAPE_AND_ROOT
from ros2_pose.body.fit_problem import Problem, rotation_form
from ros2_pose.body.gaussian import add_information
from ros2_pose.body.state import BodyState
from ros2_pose.skeleton import SMPL24

_EYE = np.eye(13)  # of betas and root

# Change of a rotation within 0.1 s, rad/s: root mean square about one axis, of motion capture (CMU,
# the trials that are learned from; a test measures them again). Its feet and hands do not move.
_RATE_RAD_S = {"pelvis": 0.67, "hip": 1.10, "spine1": 0.58, "knee": 1.09, "spine2": 0.11,
               "ankle": 1.11, "spine3": 0.11, "foot": 0.3, "neck": 0.33, "collar": 0.20,
               "head": 0.62, "shoulder": 1.60, "elbow": 1.04, "wrist": 1.08, "hand": 0.3}
ROTATION_RATE_RAD_S = np.array([_RATE_RAD_S[kind] for kind in SMPL24.kinds])


class Previous(NamedTuple):
    """P people in an earlier image; a person with NaN is started from the lift."""

    state: BodyState
    seconds: Tensor  # (P,) time since then
    frames: Tensor  # (P,) number of images in which they have been fitted
    disagreement_s: Tensor  # (P,) s, see `BodyFit`
    lift_state: Tensor | None = None  # (P, S) see `Lift.remember`; NaN for a person without one
    lift_age_s: Tensor | None = None  # (P,) time since the image of that state

    def rows(self, people: Tensor) -> Previous:
        """Return some of the people (P,) bool, in the precision of the fit, float64."""
        if people.all():
            return self._replace(state=BodyState(*(value.double() for value in self.state)))
        return Previous(BodyState(*(value[people].double() for value in self.state)),
                        self.seconds[people], self.frames[people], self.disagreement_s[people])


def with_previous(problem: Problem, previous: Previous) -> Problem:
    """Add Gaussian priors around the previous frame.

    Rotations and root change by a random amount that grows with time. The shape is constant: the
    prior is as certain as an average over the frames so far, at most `shape_frames`.
    """
    settings = problem.settings
    theta, betas, root = (value.double().numpy() for value in previous.state)
    seconds = previous.seconds.double().numpy()[:, None]
    rotation_std_rad = settings.least_rotation_rad \
        + settings.rotation_rate * ROTATION_RATE_RAD_S * seconds
    root_std_m = settings.least_step_m + settings.speed_m_s * seconds
    rotation_precision = rotation_std_rad**-2
    frames = previous.frames.double().numpy()[:, None].clip(max=settings.shape_frames)
    precision = np.concatenate([np.repeat(frames / settings.shape_std**2, 10, 1),
                                np.repeat(root_std_m**-2, 3, 1)], 1)
    shape_and_root = np.concatenate([betas, root], 1)
    prior_mean, prior_precision = add_information(
        problem.prior_mean, problem.prior_precision,
        more_precision=precision[:, :, None] * _EYE,
        more_information=precision * shape_and_root)
    return replace(
        problem,
        rotation_form=problem.rotation_form + rotation_form(theta, rotation_precision),
        rotation_precision=problem.rotation_precision + rotation_precision,
        prior_mean=prior_mean,
        prior_precision=prior_precision,
    )


def without_previous(local: Linearisation, temporal: Problem, image: Problem) -> Linearisation:
    """Remove the temporal prior's part of the Hessian, for the covariance of one image alone.

    An error of one image (above all of the height) is an error of all images before it: a hundred
    of them are not more certain than one, and the covariance must not shrink with their number.

    Args:
        local: the cost of `temporal` at the solution.
        temporal, image: the problem with and without the temporal prior.
    """
    hessian = local.hessian.numpy().copy()
    diagonal = np.einsum("pii->pi", hessian)  # a view
    rotations = temporal.rotation_precision - image.rotation_precision
    diagonal[:, ROTATIONS] -= np.repeat(rotations, 3, 1)
    hessian[:, SHAPE_AND_ROOT, SHAPE_AND_ROOT] -= temporal.prior_precision - image.prior_precision
    return local._replace(hessian=torch.from_numpy(hessian))
