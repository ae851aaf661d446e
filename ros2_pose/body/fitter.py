"""Maximum a posteriori fit of the body to 2D (or 3D) keypoints, batched over people.

Levenberg-Marquardt on `cost`, from the state of the frame before or from what `Lift` proposes. The
posterior covariance is the inverse Hessian at the solution (Laplace approximation). Everything is
solved in float64: the problem is tiny and the normal equations square its condition number.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from ros2_pose.body.correct import Corrected, correct
from ros2_pose.body.fit_cost import (
    MIN_DEPTH_M,
    FitSettings,
    Linear,
    Problem,
    RotationPriors,
    linearise,
    whitened_errors,
)
from ros2_pose.body.kinematics import (
    BETAS,
    ROOT,
    ROTATIONS,
    UNKNOWNS,
    Posed,
    chord_difference,
    joint_jacobian,
    keypoint_jacobian,
    pose_rig,
    project,
)
from ros2_pose.body.lift import Lift, Lifted
from ros2_pose.body.model import BodyModel
from ros2_pose.body.prior import PosePrior
from ros2_pose.body.shape_prior import usual_shape
from ros2_pose.body.state import BodyState
from ros2_pose.geometry import rotmat_from_quat
from ros2_pose.skeleton import COCO17, SMPL24, JointSet, common_joints

__all__ = ["MIN_DEPTH_M", "BodyFit", "BodyState", "FitSettings", "Fitter", "Previous", "Sighting"]

_LIMBS = COCO17.names[COCO17.index("left_shoulder"):]
_MIN_LIMB_POINTS = 4
_DAMPING = 1e-2
_SMALL_GAIN = 0.05  # of the negative log posterior: nothing beside its uncertainty
_LONGEST_ROTATION_RAD = 0.8  # of one joint in one iteration
_UP = (0.0, -1.0, 0.0)  # of a level camera


class Sighting(NamedTuple):
    """What is known of P people in one image; NaN where it is not known of a person."""

    points: Tensor  # (P, 17, 2) COCO keypoints, normalised, undistorted: x/z, y/z; or (P, 17, 3) m
    cov: Tensor  # (P, 17, 2, 2) or (P, 17, 3, 3) their covariance
    height: Tensor | None = None  # (P,) m, of the person standing
    depth: Tensor | None = None  # (P,) m, measured z of the pelvis
    depth_std: Tensor | None = None  # (P,) m
    up: Tensor | None = None  # (3,) the world's up in the camera frame; None: the camera is level
    floor: Tensor | None = None  # (4,) n, d with n x + d the height above it, m; camera frame
    proposed: Lifted | None = None  # one more hypothesis (P, 1), from whoever saw the picture


class Previous(NamedTuple):
    """P people as they were in an earlier image; a person with NaN starts from nothing."""

    state: BodyState
    seconds: Tensor  # (P,) since then
    frames: Tensor  # (P,) in how many images they have been fitted
    disagreement_s: Tensor  # (P,) s, as of `BodyFit`

    def rows(self, people: Tensor) -> Previous:
        """Some of the people (P,) bool, in the precision that fits are solved in."""
        return Previous(BodyState(*(value[people].double() for value in self.state)),
                        self.seconds[people], self.frames[people], self.disagreement_s[people])


class BodyFit(NamedTuple):
    """Fitted people in the camera frame, metres; rows that are not `ok` hold NaN."""

    theta: Tensor  # (P, 24, 4) x, y, z, w
    betas: Tensor  # (P, 10)
    root: Tensor  # (P, 3)
    root_cov: Tensor  # (P, 6, 6) of x, y, z, rotation about the camera's x, y, z; m, rad
    joints: Tensor  # (P, 24, 3)
    joint_cov: Tensor  # (P, 24, 3, 3)
    joint_observed: Tensor  # (P, 24) bool
    keypoints: Tensor  # (P, 17, 3)
    keypoint_cov: Tensor  # (P, 17, 3, 3) of the body's point; what the keypoint means is not in it
    cost: Tensor  # (P,) negative log posterior up to a constant
    disagreement_s: Tensor  # (P,) s for which the body has not agreed with what was seen
    ok: Tensor  # (P,) bool

    @property
    def state(self) -> BodyState:
        """What the next frame's fit starts from."""
        return BodyState(self.theta, self.betas, self.root)


class Solution(NamedTuple):
    """The most probable state of a problem, and the cost around it."""

    problem: Problem
    state: BodyState
    here: Linear


class Fitter:
    """Fits a body model to people: the lift proposes, the posterior decides.

    It keeps nothing between calls. People do not influence each other.
    """

    def __init__(self, model: BodyModel, prior: PosePrior, lift: Lift,
                 settings: FitSettings = FitSettings(), joint_set: JointSet = COCO17) -> None:
        """joint_set: what keypoints of sightings are; the lift sees those that COCO has, too."""
        self.model, self.prior, self.lift, self.settings = model, prior, lift, settings
        self.joint_set = joint_set
        self._limbs = [i for i, name in enumerate(joint_set.names) if name in _LIMBS]
        self._in_coco = common_joints(COCO17, joint_set)

    def with_settings(self, settings: FitSettings) -> Fitter:
        """Return a fitter with other settings that shares body model, prior and lift."""
        return Fitter(self.model, self.prior, self.lift, settings, self.joint_set)

    def fit(self, sighting: Sighting, previous: Previous | None = None) -> BodyFit:
        """The most probable bodies; people of whom too little is known come back as NaN."""
        lifted = self.propose(sighting)
        problem = self.problem(sighting, lifted)
        enough = problem.seen[:, self._limbs].sum(1) >= _MIN_LIMB_POINTS
        known = torch.zeros_like(enough) if previous is None else previous.state.is_finite
        found = _nobody(problem)
        if (warm := enough & known).any():
            solution, disagreement_s = self._follow(problem.rows(warm), _rows(lifted, warm),
                                            previous.rows(warm))
            found = _put(found, warm, _result(*solution, disagreement_s))
        if (cold := enough & ~known).any():
            solution = self._begin(problem.rows(cold), _rows(lifted, cold))
            found = _put(found, cold, _result(*solution, torch.zeros_like(solution.here.cost)))
        return BodyFit(*(value.to(sighting.points.dtype) if value.is_floating_point() else value
                         for value in found))

    def correct(self, sighting: Sighting, found: BodyFit) -> Corrected:
        """Keypoints in the image by pixels and bodies together, and 3D that projects onto them.

        The model errs by its posterior and by what a keypoint means; pixels, too, by more than
        they say.
        """
        meaning = self.settings.keypoint_error_m**2 * torch.eye(3).to(found.keypoint_cov)
        return correct(*_image_of(sighting.points, self.settings.inflation * sighting.cov),
                       found.keypoints, found.keypoint_cov + meaning, align=False)

    def propose(self, sighting: Sighting) -> Lifted:
        """The lift's hypotheses, and the one that came with the sighting."""
        dtype = self.lift.enter.weight.dtype
        points, cov = (value.to(dtype) for value in _image_of(sighting.points, sighting.cov))
        if self.joint_set is not COCO17:
            coco, own = self._in_coco
            positions = points.new_full((len(points), len(COCO17), 2), torch.nan)
            spread = points.new_full((len(points), len(COCO17), 2, 2), torch.nan)
            positions[:, coco], spread[:, coco] = points[:, own], cov[:, own]
            points, cov = positions, spread
        lifted = self.lift(points, cov, sighting.up).to(torch.float64)
        return lifted if sighting.proposed is None else _with_one_more(lifted, sighting.proposed)

    # --------------------------------------------------------------------------- strategy

    def _follow(self, problem: Problem, lifted: Lifted,
                previous: Previous) -> tuple[Solution, Tensor]:
        """From where people were, and again from nothing those who have long gone astray: of one
        image that does not fit, the image is likelier wrong than all before it. And (P,) s astray.
        """
        before = previous.state
        image = self.with_lift(problem, of_each(lifted, self._nearest(lifted, before.theta)))
        image = image.with_error_at(before.root[:, 2])
        temporal = with_previous(image, previous)
        found = minimise(temporal, before, self.settings.warm_iterations)
        found = Solution(image, found.state, _without_previous(found.here, temporal, image))
        agrees = found.here.of_keypoints < self.settings.retry_cost * problem.seen.sum(1)
        disagreement_s = torch.where(agrees, 0.0, previous.disagreement_s + previous.seconds)
        patience = (1.5 * previous.seconds).clamp(min=self.settings.patience_s)
        lost = disagreement_s >= patience  # of a slow camera: in the second image
        disagreement_s = torch.where(lost, 0.0, disagreement_s)
        if lost.any():
            again = self._begin(problem.rows(lost), _rows(lifted, lost))
            followed = linearise(image.rows(lost), found.state.rows(lost))
            better = again.here.cost < followed.cost
            lost[lost.clone()] = better
            found = Solution(found.problem, _put(found.state, lost, _rows(again.state, better)),
                             _put(found.here, lost, _rows(again.here, better)))
        return found, disagreement_s

    def _begin(self, problem: Problem, lifted: Lifted) -> Solution:
        """From all hypotheses for a few iterations, then the best one to the end."""
        people, hypotheses = lifted.logits.shape
        first, second = self.settings.cold_iterations
        every = torch.arange(people, device=lifted.logits.device).repeat_interleave(hypotheses)
        start = lifted.states()
        many = self.with_lift(problem.rows(every),
                              Lifted(*(value.flatten(0, 1) for value in lifted)))
        many = many.with_error_at(start.root[:, 2])
        found = minimise(many, start, first)
        best = (found.here.cost.view(people, -1) + self._squared_mahalanobis(lifted)).argmin(1)
        best = best + hypotheses * torch.arange(people, device=best.device)
        return minimise(many.rows(best), found.state.rows(best), second)

    def _squared_mahalanobis(self, lifted: Lifted) -> Tensor:
        """(P, H) what a hypothesis costs by itself: its improbability, and its vagueness."""
        vague = 3 * self.settings.lift_weight * lifted.rotation_std.log().sum(2)
        return vague - lifted.logits.log_softmax(1)

    def _nearest(self, lifted: Lifted, theta: Tensor) -> Tensor:
        """(P,) the hypothesis that agrees best with rotations theta (P, 24, 4)."""
        chord, _ = chord_difference(lifted.quats, theta[:, None])
        squared = chord.square().sum(3) / lifted.rotation_std.square()
        return (
            self.settings.lift_weight * squared.sum(2) / 2 + self._squared_mahalanobis(lifted)
        ).argmin(1)

    # ---------------------------------------------------------------------------- problem

    def problem(self, sighting: Sighting, lifted: Lifted) -> Problem:
        """All but what depends on the hypothesis and on the frame before."""
        points, cov = sighting.points.double(), sighting.cov.double()
        seen = points.isfinite().all(2) & cov.isfinite().flatten(2).all(2)
        people, zeros = len(points), points.new_zeros
        up = points.new_tensor(_UP) if sighting.up is None else sighting.up.to(points)
        likeliest = of_each(lifted, lifted.logits.argmax(1))
        return Problem(
            self.model.rig(points, self.joint_set), self.prior, self.settings, self.joint_set,
            torch.where(seen[..., None], points, 0.0),
            torch.where(seen[..., None, None], cov, 0.0), seen, up.expand(people, 3),
            None if sighting.floor is None else sighting.floor.to(points),
            RotationPriors(zeros(people, 0, 24, 4), zeros(people, 0, 24)),
            *self._usual(sighting, likeliest))

    def _usual(self, sighting: Sighting, lifted: Lifted) -> tuple[Tensor, Tensor]:
        """(P, 13), (P, 13, 13): what is known of shape and place beside the keypoints."""
        proposed = lifted.betas if self.model.is_open else torch.zeros_like(lifted.betas)
        betas, certainty = usual_shape(self.model, proposed, self.settings.adult_height_m,
                                       sighting.height)
        prior_mean = torch.cat([betas, lifted.root], 1)
        precision = torch.zeros(len(prior_mean), 13, 13).to(prior_mean)
        precision[:, :10, :10] = certainty
        if sighting.depth is None:
            return prior_mean, precision
        known = (sighting.depth / sighting.depth_std).isfinite()
        prior_mean[:, 12] = torch.where(known, sighting.depth.to(prior_mean), prior_mean[:, 12])
        precision[:, 12, 12] = (
            torch.where(known, sighting.depth_std.to(prior_mean), torch.inf) ** -2
        )
        return prior_mean, precision

    def with_lift(self, problem: Problem, lifted: Lifted) -> Problem:
        """With one hypothesis a person, as of `of_each`."""
        precision = self.settings.lift_weight / lifted.rotation_std.square()
        return replace(
            problem, rotation_priors=RotationPriors(lifted.quats[:, None], precision[:, None])
        )


def with_previous(problem: Problem, previous: Previous) -> Problem:
    """With Gaussians around the frame before, as wide as people move in that time; a shape does
    not move: it is the average over the frames."""
    settings, rotation_priors = problem.settings, problem.rotation_priors
    seconds = previous.seconds.to(rotation_priors.precision)[:, None]
    rotation_std_rad = settings.least_rotation_rad + settings.rotation_rate_rad_s * seconds
    step = settings.least_step_m + settings.speed_m_s * seconds
    rotation_precision = (rotation_std_rad**-2)[..., None].expand(-1, 1, 24)
    precision = torch.cat([rotation_priors.precision, rotation_precision], 1)
    rotation_priors = RotationPriors(
        torch.cat([rotation_priors.quats, previous.state.theta[:, None]], 1), precision
    )
    frames = previous.frames.to(rotation_priors.precision).clamp(max=settings.shape_frames)
    certainty = (frames / settings.shape_std**2)[:, None].expand(-1, 10)
    more = torch.cat([certainty, (step**-2).expand(-1, 3)], 1)
    before = torch.cat([previous.state.betas, previous.state.root], 1)
    total = problem.prior_precision + more.diag_embed()
    both = (problem.prior_precision @ problem.prior_mean[..., None])[..., 0] + more * before
    return replace(
        problem,
        rotation_priors=rotation_priors,
        prior_mean=torch.linalg.solve(total, both[..., None])[..., 0],
        prior_precision=total,
    )


def _without_previous(here: Linear, temporal: Problem, image: Problem) -> Linear:
    """The curvature of one image's cost alone. What is wrong in this image (a height, above all)
    was wrong in those before: a hundred of them know it no better, and must not say so."""
    hessian = here.hessian.clone()
    rotvecs = temporal.rotation_priors.precision.sum(1) - image.rotation_priors.precision.sum(1)
    hessian.diagonal(dim1=1, dim2=2)[:, ROTATIONS] -= rotvecs.repeat_interleave(3, dim=1)
    shape_and_place = slice(BETAS.start, ROOT.stop)
    hessian[:, shape_and_place, shape_and_place] -= \
        temporal.prior_precision - image.prior_precision
    return here._replace(hessian=hessian)


def _image_of(points: Tensor, cov: Tensor) -> tuple[Tensor, Tensor]:
    """Keypoints in 2D: as they are, or as a camera sees those in 3D."""
    if points.shape[2] == 2:
        return points, cov
    image, jacobian = project(points, with_jacobian=True)
    return image, jacobian @ cov @ jacobian.transpose(2, 3)


def of_each(lifted: Lifted, hypothesis: Tensor) -> Lifted:
    """One hypothesis (P,) of each person: fields without the dimension H."""
    people = torch.arange(len(hypothesis), device=hypothesis.device)
    return Lifted(*(value[people, hypothesis] for value in lifted))


def _with_one_more(lifted: Lifted, proposed: Lifted) -> Lifted:
    """With a hypothesis as probable as those of the lift together, where it is finite."""
    together = lifted.logits.logsumexp(1, keepdim=True)
    values = [torch.cat([own, one.to(own)], 1)
              for own, one in zip(lifted, proposed._replace(logits=together))]
    lacking = ~torch.stack([value[:, -1:].isfinite().flatten(1).all(1) for value in values]).all(0)
    for value in values:
        value[lacking, -1] = value[lacking, 0]
    values[-1][lacking, -1] = -torch.inf
    return Lifted(*values)


def _rows(values, people: Tensor):
    """The rows (P,) bool of a tuple of tensors."""
    return values if people.all() else type(values)(*(value[people] for value in values))


def _put(into, people: Tensor, values):
    """A tuple of tensors with rows (P,) bool replaced by those of another."""
    if people.all():
        return values
    return type(into)(*(torch.index_put(old, (people,), new.to(old))
                        for old, new in zip(into, values)))


def minimise(problem: Problem, state: BodyState, iterations: int) -> Solution:
    """Levenberg-Marquardt, at most so many iterations.

    Whoever gains little any more stays as he is, so that nobody's result depends on the others.
    """
    here = linearise(problem, state)
    damping = torch.full_like(here.cost, _DAMPING)
    done = torch.zeros_like(here.cost, dtype=torch.bool)
    for _ in range(iterations):
        candidate = _step(state, here, damping)
        there = linearise(problem, candidate)
        gain = here.cost - there.cost
        better = (gain > 0) & ~done  # false for NaN, too
        done |= better & (gain < _SMALL_GAIN)
        state = candidate.where(better, state)
        here = Linear(*(torch.where(better.view(-1, *[1] * (a.ndim - 1)), a, b)
                        for a, b in zip(there, here)))
        damping = torch.where(better, damping * 0.2, damping * 5).clamp(1e-6, 1e6)
        if done.all():
            break
    return Solution(problem, state, here)


def _step(state: BodyState, here: Linear, damping: Tensor) -> BodyState:
    diagonal = here.hessian.diagonal(dim1=1, dim2=2)
    factor, _ = torch.linalg.cholesky_ex(
        here.hessian + torch.diag_embed(damping[:, None] * diagonal))
    step = -torch.cholesky_solve(here.gradient[..., None], factor)[..., 0]
    rotvecs = step[:, ROTATIONS].unflatten(1, (-1, 3))
    scale = (_LONGEST_ROTATION_RAD / rotvecs.norm(dim=2).amax(1)).clamp(max=1)[:, None]
    own = (here.global_rotmats.transpose(2, 3) @ (rotvecs * scale[..., None])[..., None])[..., 0]
    return state.moved(own, step[:, BETAS] * scale, step[:, ROOT] * scale)


# ---------------------------------------------------------------------------------- result


def _result(problem: Problem, state: BodyState, here: Linear, disagreement_s: Tensor) -> BodyFit:
    """Joints and covariances at the solution; NaN for people whose cost has no minimum there."""
    posed = pose_rig(problem.rig, rotmat_from_quat(state.theta), state.betas, state.root)
    root_cov, joint_cov, keypoint_cov = _covariances(problem, posed, here.hessian)
    ok = here.cost.isfinite() & root_cov.isfinite().flatten(1).all(1)
    found = BodyFit(*state, root_cov, posed.joints, joint_cov, _observed(problem, posed),
                    posed.keypoints, keypoint_cov, here.cost, disagreement_s, ok)
    return found if ok.all() else _put(_nobody(problem), ok, _rows(found, ok))


def _covariances(problem: Problem, posed: Posed, hessian: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(P, 6, 6) of the root's place and turn, (P, 24, 3, 3) of joints, (P, K, 3, 3) of keypoints.

    J H^-1 J^T = Y^T Y with L Y = J^T and H = L L^T, of which only the blocks on the diagonal are
    needed. The diagonal of H is scaled to one before; NaN where H is not positive definite.
    """
    people, keypoints = problem.seen.shape
    root = torch.eye(UNKNOWNS).to(hessian)[[*range(UNKNOWNS)[ROOT], 0, 1, 2]]
    axes = torch.eye(3).to(hessian).expand(people, keypoints, 3, 3)
    jacobian = torch.cat([root.expand(people, -1, -1),
                          joint_jacobian(problem.rig, posed).flatten(1, 2),
                          keypoint_jacobian(problem.rig, posed, axes).flatten(1, 2)], 1)
    scale = hessian.diagonal(dim1=1, dim2=2).rsqrt()
    factor, failed = torch.linalg.cholesky_ex(hessian * (scale[:, :, None] * scale[:, None]))
    half = torch.linalg.solve_triangular(factor, (jacobian * scale[:, None]).mT, upper=False)
    half = torch.where(failed[:, None, None] != 0, torch.nan, half)
    half = half * problem.settings.inflation**0.5
    of_root, of_positions = half[..., :6], half[..., 6:].unflatten(2, (-1, 3)).permute(0, 2, 1, 3)
    positions = of_positions.mT @ of_positions
    return of_root.mT @ of_root, *positions.split([len(SMPL24), keypoints], 1)


def _nobody(problem: Problem) -> BodyFit:
    """Of as many people as there are, nothing."""
    people, keypoints = problem.seen.shape
    shapes = ((24, 4), (10,), (3,), (6, 6), (24, 3), (24, 3, 3), (24,), (keypoints, 3),
              (keypoints, 3, 3), (), (), ())
    found = BodyFit(*(problem.points.new_full((people, *shape), torch.nan) for shape in shapes))
    return found._replace(joint_observed=found.joint_observed > 0, ok=found.ok > 0)


def _observed(problem: Problem, posed: Posed) -> Tensor:
    """(P, 24) bool: the joint's own keypoints are seen, and the fit agrees with them."""
    squared = whitened_errors(problem, posed)[0].square().sum(2)
    agrees = problem.seen & (squared < problem.settings.robust_sigmas**2)
    evidence = _evidence(problem.joint_set).to(squared)
    return (agrees.to(squared) @ evidence.T > evidence.sum(1) - 0.5) & (evidence.sum(1) > 0)


@lru_cache
def _evidence(joint_set: JointSet) -> Tensor:
    """(24, K) 1 where a keypoint shows a joint; a joint in the middle needs all that lie around."""
    around = {"pelvis": ("left_hip", "right_hip"), "neck": ("left_shoulder", "right_shoulder"),
              "head": ("nose",)}
    return torch.tensor([[float(keypoint in around.get(joint, (joint,)))
                          for keypoint in joint_set.names] for joint in SMPL24.names])
