"""Maximum a posteriori fit of the body to 2D (or 3D) keypoints, batched over people.

Levenberg-Marquardt on the cost of `fit_cost`, from the state of the previous frame (warm) or from
the hypotheses of `Lift` (cold). The posterior covariance is the inverse Hessian at the solution
(Laplace approximation). The fit is solved in float64: the problem is tiny, and the normal equations
square its condition number. It is solved in NumPy on the CPU: it consists of hundreds of calls on
small arrays, and a call costs two to three times as much in torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ros2_pose.body.correct import correct
from ros2_pose.body.fit_cost import MIN_DEPTH_M, Linearisation, linearise
from ros2_pose.body.fit_problem import (
    FitSettings,
    Problem,
    Sighting,
    build_problem,
    image_keypoints,
    with_hypothesis,
)
from ros2_pose.body.fit_result import BodyFit, body_fit, empty_fit
from ros2_pose.body.floor_contact import with_contact
from ros2_pose.body.levenberg_marquardt import minimise
from ros2_pose.body.lift import Lift, Lifted
from ros2_pose.body.model import BodyModel
from ros2_pose.body.prior import PosePrior
from ros2_pose.body.state import BodyState, rows_of, with_rows
from ros2_pose.body.temporal_prior import Previous, with_previous, without_previous
from ros2_pose.skeleton import COCO17, JointSet, common_joints

__all__ = ["MIN_DEPTH_M", "BodyFit", "BodyState", "FitSettings", "Fitter", "Previous", "Sighting"]

_LIMBS = COCO17.names[COCO17.index("left_shoulder"):]
_MIN_LIMB_POINTS = 4  # seen, for a person to be fitted
_PATIENCE_INTERVALS = 1.5  # between images: a slow camera tries a cold start at the second image


@dataclass(frozen=True, eq=False)
class Fitter:
    """Fits a body model to people: the lift proposes hypotheses, the posterior chooses.

    Immutable and cheap to make: it keeps nothing between calls, so that it can be shared. People
    do not influence each other.

    Args:
        model, prior, lift: the body, the distribution of its poses, and the network of hypotheses.
        settings: weights of the fit; see `with_settings`.
        joint_set: what the keypoints of sightings are. The lift sees those that COCO has, too.
    """

    model: BodyModel
    prior: PosePrior
    lift: Lift
    settings: FitSettings = FitSettings()
    joint_set: JointSet = COCO17

    def with_settings(self, settings: FitSettings) -> Fitter:
        """Return a fitter with other settings that shares body model, prior and lift."""
        return replace(self, settings=settings)

    @torch.no_grad()
    def fit(self, sighting: Sighting, previous: Previous | None = None) -> BodyFit:
        """Find the most probable bodies, on the CPU.

        Args:
            sighting: P people with K keypoints.
            previous: the same people in an earlier frame; NaN and None: start from the lift.
        Returns:
            BodyFit of P people in the dtype of the keypoints; NaN for people with too few seen.
        """
        with np.errstate(all="ignore"):  # what is not finite is flagged
            found = self._fit(sighting, previous)
        dtype = sighting.points.dtype
        if dtype == torch.float64:
            return found
        return BodyFit(*(value.to(dtype) if value.is_floating_point() else value
                         for value in found))

    def _fit(self, sighting: Sighting, previous: Previous | None) -> BodyFit:
        """`fit` in float64."""
        lifted, lift_state = self.propose(sighting, previous)
        problem = self.problem(sighting, lifted)
        enough = torch.from_numpy(problem.seen @ _is_limb(self.joint_set) >= _MIN_LIMB_POINTS)
        known = torch.zeros_like(enough) if previous is None else previous.state.is_finite
        warm, cold = enough & known, enough & ~known
        groups = []
        if previous is not None and warm.any():
            groups.append((warm, self._fit_warm(problem.rows(warm), rows_of(lifted, warm),
                                                previous.rows(warm))))
        if cold.any():
            own, state, local = self._fit_cold(problem.rows(cold), rows_of(lifted, cold))
            groups.append((cold, body_fit(own, state, local, torch.zeros_like(local.cost))))
        found = _joined(problem, groups)
        return found._replace(lift_state=torch.where(found.ok[:, None], lift_state, torch.nan))

    def correct(self, sighting: Sighting,
                found: BodyFit) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Fuse keypoints in the image with fitted bodies.

        The body's error is its posterior covariance and the error of the keypoints' definition;
        the keypoints' covariance is inflated as the posterior is.

        Returns:
            keypoints (P, K, 2) x/z, y/z, their cov (P, K, 2, 2), joints (P, K, 3) m that project
            onto them, and ok (P,) bool, see `body.correct`.
        """
        definition_cov = self.settings.keypoint_error_m**2 * torch.eye(3).to(found.keypoint_cov)
        points, cov = image_keypoints(sighting.points, self.settings.inflation * sighting.cov)
        model_cov = found.keypoint_cov + definition_cov
        return correct(points, cov, found.keypoints, model_cov, align=False)

    def propose(self, sighting: Sighting,
                previous: Previous | None = None) -> tuple[Lifted, Tensor]:
        """Return hypotheses (P, H, ...) of the lift and the sighting's own one, and the lift's
        state (P, S) after this image."""
        dtype = self.lift.enter.weight.dtype
        points, cov = image_keypoints(sighting.points, sighting.cov)
        points, cov = points.to(dtype), cov.to(dtype)
        if self.joint_set is not COCO17:
            points, cov = as_coco(points, cov, self.joint_set)
        state, age_s = (None, None) if previous is None else (previous.lift_state,
                                                              previous.lift_age_s)
        lifted, state = self.lift.remember(points, cov, sighting.up, state, age_s)
        lifted = lifted.to(torch.float64)
        if sighting.proposed is not None:
            lifted = _with_proposed(lifted, sighting.proposed)
        return lifted, state

    def problem(self, sighting: Sighting, lifted: Lifted) -> Problem:
        """Return the problem of P people, without hypothesis and previous frame."""
        likeliest = lifted.select(lifted.logits.argmax(1))
        return build_problem(self.model, self.prior, self.settings, self.joint_set, sighting,
                             likeliest)

    # --------------------------------------------------------------------------- strategy

    def _fit_warm(self, problem: Problem, lifted: Lifted, previous: Previous) -> BodyFit:
        """Fit from the previous states, and from the lift, too, after lasting disagreement.

        A single image that does not fit is more likely wrong than all images before it.
        """
        before = previous.state
        nearest = lifted.select(self._nearest_hypothesis(lifted, before.theta))
        image = with_hypothesis(problem, nearest, before.root[:, 2])
        temporal = with_previous(image, previous)
        state, local = minimise(temporal, before, self.settings.warm_iterations)
        local = without_previous(local, temporal, image)
        distance2 = _squared_distance(nearest, state.theta).sum(1)
        disagreement_s, retry = self._disagreement(problem, local, distance2, previous)
        if retry.any():
            _, cold_state, cold = self._fit_cold(problem.rows(retry), rows_of(lifted, retry))
            # The cost of the image alone: the previous frames favour the warm solution.
            warm = linearise(image.rows(retry), state.rows(retry))
            is_better = cold.cost < warm.cost
            restarted = retry.clone()
            restarted[retry] = is_better
            state = with_rows(state, restarted, rows_of(cold_state, is_better))
            local = with_rows(local, restarted, rows_of(cold, is_better))
        return body_fit(image, state, local, disagreement_s)

    def _disagreement(self, problem: Problem, local: Linearisation, distance2: Tensor,
                      previous: Previous) -> tuple[Tensor, Tensor]:
        """(P,) s for which bodies disagree with the image, and (P,) bool: long enough.

        The time starts anew after `patience_s`, or 1.5 intervals of a slow camera.

        Args:
            problem, local: of the P people, and the cost at their bodies.
            distance2 (P,): of their rotations to the nearest hypothesis, squared Mahalanobis.
            previous: the image before.
        """
        most_cost = torch.from_numpy(self.settings.retry_cost * problem.seen.sum(1))
        agrees = (local.keypoint_cost < most_cost) & (distance2 < self.settings.retry_distance2)
        disagreement_s = torch.where(agrees, 0.0, previous.disagreement_s + previous.seconds)
        patience_s = (_PATIENCE_INTERVALS * previous.seconds).clamp(min=self.settings.patience_s)
        retry = disagreement_s >= patience_s
        return torch.where(retry, 0.0, disagreement_s), retry

    def _fit_cold(self, problem: Problem,
                  lifted: Lifted) -> tuple[Problem, BodyState, Linearisation]:
        """Fit all hypotheses for a few iterations, then the best one of each person to the end.

        Returns:
            the problem with the best hypothesis, the solution, and the cost there.
        """
        depth_m = lifted.root[..., 2]  # alike for bodies that are placed on the floor
        lifted = with_contact(lifted, problem, self.model)
        people, hypotheses = lifted.logits.shape
        first, second = self.settings.cold_iterations
        person = torch.arange(people, device=lifted.logits.device)
        each = person.repeat_interleave(hypotheses)  # a row for each hypothesis, (P * H,)
        start = lifted.states()
        flat = Lifted(*(value.flatten(0, 1) for value in lifted))
        depth_m = depth_m.repeat(1, hypotheses // depth_m.shape[1]).flatten()
        every = with_hypothesis(problem.rows(each), flat, depth_m)
        state, local = minimise(every, start, first)
        cost = local.cost.view(people, -1) + self._hypothesis_cost(lifted)
        best = cost.argmin(1) + hypotheses * person
        chosen = every.rows(best)
        return chosen, *minimise(chosen, state.rows(best), second)

    def _hypothesis_cost(self, lifted: Lifted) -> Tensor:
        """(P, H) negative log probability of hypotheses, and of their Gaussians' normalisation."""
        log_normalisation = 3 * self.settings.lift_weight * lifted.rotation_std.log().sum(2)
        return log_normalisation - lifted.logits.log_softmax(1)

    def _nearest_hypothesis(self, lifted: Lifted, theta: Tensor) -> Tensor:
        """(P,) index of the hypothesis that is most probable given rotations theta (P, 24, 4)."""
        squared = _squared_distance(lifted, theta[:, None])
        cost = self.settings.lift_weight * squared.sum(2) / 2 + self._hypothesis_cost(lifted)
        return cost.argmin(1)


def _squared_distance(lifted: Lifted, theta: Tensor) -> Tensor:
    """Squared Mahalanobis distances (...) of rotations theta (..., 4) from hypotheses."""
    cosine = (lifted.theta * theta).sum(-1)  # of half the angle between them
    chord2 = 4 * (1 - cosine.square())  # squared length of the chord, see `fit_kinematics`
    return chord2 / lifted.rotation_std.square()


def _joined(problem: Problem, groups: list[tuple[Tensor, BodyFit]]) -> BodyFit:
    """All people of a problem, from groups of them: a mask (P,) each, and their bodies."""
    if len(groups) == 1 and groups[0][0].all():
        return groups[0][1]
    found = empty_fit(problem)
    for people, bodies in groups:
        found = with_rows(found, people, bodies)
    return found


@lru_cache
def _is_limb(joint_set: JointSet) -> np.ndarray:
    """(K,) 1 for keypoints of arms and legs, shoulders and hips, else 0."""
    return np.array([int(name in _LIMBS) for name in joint_set.names])


def as_coco(points: Tensor, cov: Tensor, joint_set: JointSet) -> tuple[Tensor, Tensor]:
    """Keypoints (P, K, 2), cov (P, K, 2, 2) in COCO's order; NaN where the set lacks a joint."""
    coco, own = common_joints(COCO17, joint_set)
    coco_points = points.new_full((len(points), len(COCO17), 2), torch.nan)
    coco_cov = points.new_full((len(points), len(COCO17), 2, 2), torch.nan)
    coco_points[:, coco] = points[:, own]
    coco_cov[:, coco] = cov[:, own]
    return coco_points, coco_cov


def _with_proposed(lifted: Lifted, proposed: Lifted) -> Lifted:
    """Append a hypothesis (P, 1, ...) as probable as those of the lift together.

    Where it is not finite, it is the first one again, with probability 0.
    """
    total_logit = lifted.logits.logsumexp(1, keepdim=True)
    values = [torch.cat([own, other.to(own)], 1)
              for own, other in zip(lifted, proposed._replace(logits=total_logit))]
    is_finite = torch.stack([value[:, -1:].isfinite().flatten(1).all(1) for value in values]).all(0)
    for value in values:
        value[~is_finite, -1] = value[~is_finite, 0]
    extended = Lifted(*values)
    extended.logits[~is_finite, -1] = -torch.inf
    return extended
