"""Turn and place a body model so that it matches points: Algorithm 1, as printed and repaired.

Tian, Gao and Tan 2023, eqs. 6-16. As printed, weights are not those of maximum likelihood,
rotations may be reflections, sizes are compared once although the model turns afterwards, depths
start flat. Repaired, all of that is put right, and perspective Gauss-Newton steps follow.

Points lie on the plane z = 1 (normalised and undistorted: x/z, y/z); cameras as elsewhere: x right,
y down, z forward, metres. P people with K keypoints, each person on his own. Computed in float64,
returned in the dtype of the points.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ros2_pose.body.fit_cost import MIN_DEPTH_M, whitener
from ros2_pose.body.kinematics import project

ROTATION_RAD = 0.2  # standard deviation of the model's facing before it is aligned
FLOOR = 1e-12  # variance added to pixels, so that exact ones can be weighed, too
NEAREST_M, FARTHEST_M = 0.1, 200.0
_FEWEST = 4  # keypoints that an alignment needs
_AGREEING = 0.5  # share of the keypoints seen that must agree with the model
_GATE_SIGMAS = 3.0  # beyond this a keypoint counts ever less
_WORST_DEPTH = 0.3  # standard deviation over depth of a place that is still one
_WEAK_ITERATIONS = 3  # the paper's
_STEPS = 6
_LONGEST_ROTATION_RAD = 0.5


class Printed(NamedTuple):
    """What Algorithm 1 gives as printed."""

    points: Tensor  # (P, K, 2) the model, projected
    rotation: Tensor  # (P, 3, 3) R of eq. 15, image to model axes; may be a reflection
    depths: Tensor  # (P, K) z in units of the model's deviation


class Alignment(NamedTuple):
    """A body model turned and placed to match points."""

    rotation: Tensor  # (P, 3, 3) R that turned the model; det R = 1
    position: Tensor  # (P, 3) m, where the mean of the model's usable keypoints went
    joints: Tensor  # (P, K, 3) m, the aligned model
    agreement: Tensor  # (P, K) 0..1 weight of each point after robust matching; 0: not usable
    ok: Tensor  # (P,) bool: enough points, most of which agree, and a depth well known


# ------------------------------------------------------------------------------ as printed


def align_as_printed(points: Tensor, sigma: Tensor, model: Tensor, iterations: int = 3) -> Printed:
    """Algorithm 1 of Tian et al. 2023, for comparison only; nothing may be missing.

    points (P, K, 2); sigma (P, K) their standard deviation c, ones for the unweighted version;
    model (P, K, 3). The paper does not say over what it takes the deviation: here, all numbers.
    """
    centre, spread = _mean_and_deviation(points)
    flat, shape = (points - centre) / spread, _standardised(model)
    depths = torch.zeros_like(flat[..., :1])
    for _ in range(iterations):
        moment = (torch.cat([flat, depths], 2) / sigma[..., None]).mT @ shape  # P W Q^T
        u, _, vh = torch.linalg.svd(moment)
        rotation = vh.mT @ u.mT
        turned = shape @ rotation  # R^T q of eq. 16, in rows
        depths = turned[..., 2:]
    return Printed(turned[..., :2] * spread + centre, rotation, depths[..., 0])


def _mean_and_deviation(values: Tensor) -> tuple[Tensor, Tensor]:
    """(P, 1, D) mean and (P, 1, 1) deviation of values (P, K, D)."""
    mean = values.mean(1, keepdim=True)
    return mean, (values - mean).square().mean((1, 2), keepdim=True).sqrt()


def _standardised(values: Tensor) -> Tensor:
    mean, deviation = _mean_and_deviation(values)
    return (values - mean) / deviation


# -------------------------------------------------------------------------------- repaired


def align_model(points: Tensor, cov: Tensor, joints: Tensor, joint_cov: Tensor) -> Alignment:
    """Turn and place a body model: Algorithm 1 repaired, then Gauss-Newton steps in perspective.

    points (P, K, 2), cov (P, K, 2, 2), joints (P, K, 3) m, joint_cov (P, K, 3, 3) m^2, NaN where
    missing. Minimises the reprojection error in standard deviations, of points and model together,
    with less weight beyond 3, and a prior on the turn.
    """
    match = _matched(*(value.double() for value in (points, cov, joints, joint_cov)))
    rotation, position = _align_weakly(match)
    for _ in range(_STEPS):
        rotation, position = _stepped(_linearised(match, rotation, position), rotation, position)
    here = _linearised(match, rotation, position)
    aligned = (joints.double() - match.centre) @ rotation.mT + position[:, None]
    ok = _is_placed(match, here, position)
    rotation, position, aligned, agreement = (
        value.to(points.dtype) for value in (rotation, position, aligned, here.agreement))
    return Alignment(rotation, position, aligned, agreement, ok)


class _Match(NamedTuple):
    """Points and model keypoints, zeros where not both are usable."""

    points: Tensor  # (P, K, 2)
    cov: Tensor  # (P, K, 2, 2)
    joints: Tensor  # (P, K, 3) m, without their mean
    joint_cov: Tensor  # (P, K, 3, 3) m^2
    usable: Tensor  # (P, K) bool
    centre: Tensor  # (P, 1, 3) m, the mean taken away


class _Linear(NamedTuple):
    """Reprojection around a pose of the model, by turn (3, rad, camera axes) and place (3, m)."""

    gradient: Tensor  # (P, 6)
    hessian: Tensor  # (P, 6, 6)
    agreement: Tensor  # (P, K) robust weight


def _matched(points: Tensor, cov: Tensor, joints: Tensor, joint_cov: Tensor) -> _Match:
    usable = is_seen(points, cov) & is_known(joints, joint_cov)
    mask = usable[..., None]
    centre = torch.where(mask, joints, 0.0).sum(1, keepdim=True)
    centre = centre / usable.sum(1).clamp(min=1)[:, None, None]
    floor = FLOOR * torch.eye(2).to(cov)
    return _Match(torch.where(mask, points, 0.0), torch.where(mask[..., None], cov, 1.0) + floor,
                  torch.where(mask, joints - centre, 0.0),
                  torch.where(mask[..., None], joint_cov, 0.0), usable, centre)


def is_finite(values: Tensor, dims: int | tuple[int, ...] = ()) -> Tensor:
    """bool: all along some dimensions, or each."""
    return (values.abs().amax(dims) if dims else values.abs()) < torch.inf


def is_seen(points: Tensor, cov: Tensor) -> Tensor:
    """(P, K) bool: a position, and a covariance that is one; not so where anything is NaN."""
    a, b, c = cov[..., 0, 0], cov[..., 0, 1], cov[..., 1, 1]
    sound = (torch.minimum(a, c) >= 0) & (a * c >= b * b)
    return sound & is_finite(points, 2) & is_finite(cov, (2, 3))


def is_known(joints: Tensor, joint_cov: Tensor) -> Tensor:
    """(P, K) bool: a position and a covariance with variances that are none below zero."""
    variances = joint_cov.diagonal(dim1=2, dim2=3)
    return is_finite(joints, 2) & is_finite(joint_cov, (2, 3)) & (variances.amin(2) >= 0)


def robust_weight(squared: Tensor) -> Tensor:
    """0..1 weight of squared errors in standard deviations: whole up to the gate."""
    return (_GATE_SIGMAS**2 / squared.clamp(min=1e-12)).clamp(max=1)


# ------------------------------------------------------- the paper's closed form, repaired


def _align_weakly(match: _Match) -> tuple[Tensor, Tensor]:
    """Rotation and place by weighted orthogonal Procrustes under weak perspective (eqs. 9-16).

    Depths start as the model's; means, rotation and scale are those of the weights
    1 / (c^2 + sigma_m^2), which robust matching lowers.
    """
    scale, error, turned = _first_guess(match)
    variance = match.cov.diagonal(dim1=2, dim2=3).mean(2)
    variance_m = match.joint_cov[..., :2, :2].diagonal(dim1=2, dim2=3).mean(2)
    for _ in range(_WEAK_ITERATIONS):
        total = variance + variance_m * scale.square()
        weight = match.usable * robust_weight(error.square().sum(2) / total) / total
        weight = (weight / weight.sum(1, keepdim=True))[..., None]
        image_mean = (weight * match.points).sum(1, keepdim=True)
        model_mean = (weight * match.joints).sum(1, keepdim=True)
        image, shape = match.points - image_mean, match.joints - model_mean
        depths = (turned - (weight * turned).sum(1, keepdim=True))[..., 2:]
        target = torch.cat([image / scale[..., None], depths], 2)
        rotation = _rotation((weight * target).mT @ shape)
        turned = match.joints @ rotation.mT
        flat = (shape @ rotation.mT)[..., :2]
        scale = (weight * image * flat).sum((1, 2)) / (weight * flat.square()).sum((1, 2))
        scale = scale.clamp(1 / FARTHEST_M, 1 / NEAREST_M)[:, None]
        error = image - scale[..., None] * flat
    ray = torch.cat([image_mean, torch.ones_like(image_mean[..., :1])], 2)
    return rotation, (ray / scale[..., None] - model_mean @ rotation.mT)[:, 0]


def _first_guess(match: _Match) -> tuple[Tensor, Tensor, Tensor]:
    """Scale (P, 1) in 1/m, errors (P, K, 2) and model (P, K, 3), by medians, for outliers."""
    image = match.points - _median(match.points, match.usable)
    shape = match.joints - _median(match.joints, match.usable)
    extent = torch.stack([image.norm(dim=2), shape[..., :2].norm(dim=2)], 2)
    extent = _median(extent, match.usable)
    scale = (extent[..., 0] / extent[..., 1]).clamp(1 / FARTHEST_M, 1 / NEAREST_M)
    return scale, image - scale[..., None] * shape[..., :2], match.joints


def _median(values: Tensor, usable: Tensor) -> Tensor:
    """(P, 1, D) lower median of the usable of (P, K, D)."""
    values = torch.where(usable[..., None], values, torch.inf).sort(1).values
    middle = (usable.sum(1) - 1).clamp(min=0) // 2
    return values.take_along_dim(middle[:, None, None], 1)


def _rotation(moment: Tensor) -> Tensor:
    """(P, 3, 3) the rotation R that maximises tr(R^T moment); never a reflection."""
    u, _, vh = torch.linalg.svd(moment.nan_to_num(0.0, 0.0, 0.0))
    sign = torch.linalg.det(u @ vh)
    return torch.cat([u[..., :2], u[..., 2:] * sign[:, None, None]], 2) @ vh


# ------------------------------------------------------------------------ full perspective


def _linearised(match: _Match, rotation: Tensor, position: Tensor) -> _Linear:
    arms = match.joints @ rotation.mT
    at = arms + position[:, None]
    at = torch.cat([at[..., :2], at[..., 2:].clamp(min=NEAREST_M)], 2)
    image, by_joint = project(at, with_jacobian=True)
    spread = by_joint @ rotation[:, None]
    whiten = whitener(match.cov + spread @ match.joint_cov @ spread.mT)
    error = (whiten @ (match.points - image)[..., None])[..., 0]
    agreement = match.usable * robust_weight(error.square().sum(2))
    jacobian = (whiten @ by_joint @ by_pose(arms)).flatten(1, 2)
    weighted = (jacobian.unflatten(1, (-1, 2)) * agreement[..., None, None]).flatten(1, 2).mT
    gradient, hessian = (weighted @ error.flatten(1)[..., None])[..., 0], weighted @ jacobian
    pull = torch.cat([gibbs(rotation), torch.zeros_like(position)], 1)
    prior = torch.tensor([ROTATION_RAD**-2] * 3 + [0.0] * 3).to(pull)
    return _Linear(gradient - prior * pull, hessian + torch.diag(prior), agreement)


def by_pose(arms: Tensor) -> Tensor:
    """(P, K, 3, 6) derivative of joints by a turn about the camera's axes, and by the place."""
    axes = torch.eye(3).to(arms).expand(*arms.shape, 3)
    return torch.cat([torch.linalg.cross(axes, arms[..., None, :]).mT, axes], 3)


def _stepped(here: _Linear, rotation: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
    """A Gauss-Newton step, shortened where it turns far or halves or doubles the depth."""
    factor, _ = torch.linalg.cholesky_ex(here.hessian)
    step = torch.cholesky_solve(here.gradient[..., None], factor)[..., 0].nan_to_num(0.0, 0.0, 0.0)
    shorter = torch.minimum(_LONGEST_ROTATION_RAD / step[:, :3].norm(dim=1),
                            position[:, 2].abs() / (2 * step[:, 5].abs())).clamp(max=1)
    step = step * shorter[:, None].nan_to_num(0.0)
    return _from_gibbs(step[:, :3]) @ rotation, position + step[:, 3:]


def gibbs(rotation: Tensor) -> Tensor:
    """(P, 3) 2 tan(angle / 2) axis of rotations (P, 3, 3): a rotation vector, if it is small."""
    skew = rotation - rotation.mT
    sine = torch.stack([skew[:, 2, 1], skew[:, 0, 2], skew[:, 1, 0]], 1)
    cosine = rotation.diagonal(dim1=1, dim2=2).sum(1, keepdim=True)
    return 2 * sine / (1 + cosine).clamp(min=0.1)


def _from_gibbs(gibbs: Tensor) -> Tensor:
    """(P, 3, 3) rotations of (P, 3), the inverse of `gibbs`."""
    cross = torch.linalg.cross(gibbs[:, None], torch.eye(3).to(gibbs)[None]).mT
    square = 1 + gibbs.square().sum(1)[:, None, None] / 4
    return torch.eye(3).to(gibbs) + (cross + cross @ cross / 2) / square


def _is_placed(match: _Match, here: _Linear, position: Tensor) -> Tensor:
    factor, failed = torch.linalg.cholesky_ex(here.hessian)
    axis = torch.eye(6).to(position)[:, 5:].expand(len(position), -1, -1)
    deviation = torch.cholesky_solve(axis, factor)[:, 5, 0].sqrt()
    near_enough = (position[:, 2] > MIN_DEPTH_M) & (position[:, 2] < FARTHEST_M)
    return ((match.usable.sum(1) >= _FEWEST) & most_agree(here.agreement, match.usable)
            & near_enough & (failed == 0) & (deviation < _WORST_DEPTH * position[:, 2]))


def most_agree(agreement: Tensor, usable: Tensor) -> Tensor:
    return (agreement * usable).sum(1) >= _AGREEING * usable.sum(1)
