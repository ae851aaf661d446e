"""How far people are, by an aligned depth image: the fitted body is the template to look for.

Every point of the body's surface that faces the camera says, with the depth at its pixel, where the
pelvis would have to be. The points that look at the person agree; background, occluders, other
people and edges do not. A mixture of agreement and clutter finds those who agree (mode by
likelihood and prior, then expectation-maximisation).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ros2_pose.body.model import BodyModel
from ros2_pose.body.state import BodyState
from ros2_pose.camera import Camera
from ros2_pose.errors import PoseError
from ros2_pose.skeleton import COCO17, SMPL24

# One point of the surface against the depth image.
_SURFACE_M = 0.03  # standard deviation by clothes and shape
_LIMB_RAD = 0.12  # and by the pose's error, in proportion to how far from the pelvis it is
_SENSOR_M, _SENSOR_PER_M = 0.001, 0.0025  # and by the sensor: the second times depth squared
_MIN_FACING = 0.2  # cosine: beyond, an edge is near and the pixel may be the background's

# What is not the person, as densities per metre of depth. Something in front is likelier than
# something behind: people are often occluded, but never transparent.
_AGREES = 0.8  # the part of the points that sees the person
_NEARER_PER_M, _FARTHER_PER_M = 0.1, 0.01

# Errors of neighbouring points are alike: a whole body is worth so many independent ones.
_INDEPENDENT = 10
# Common to all points, and so never averaged away: clothes and girth, and the sensor's scale.
_COMMON_M, _COMMON_SHARE = 0.02, 0.005
_TILT_RAD = 0.06  # and the tilt, in proportion to how far from the pelvis those who agree are

# A point is hidden or not with the nearest of the joints that 2D keypoints show.
_EVIDENT = [j for j, name in enumerate(SMPL24.names) if name in (*COCO17.names, "head")]
_HIDDEN = 0.1  # weight of a point whose joint the image does not show

_CANDIDATES = 48  # a cluster that makes up a tenth has several
_REFINEMENTS = 5
_FARTHEST_SIGMAS = 4.0  # from the depth before: beyond, it is something else that is seen
_MIN_POINTS = 10  # fewer may agree by chance
_MIN_SHARE = 0.08  # of the visible side: about a head and a shoulder
_APART_SIGMAS, _CLEAR_WIN = 4.0, 2.0  # another place must be less probable by so much, nats

_WINDOW = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1], indexing="ij"), -1).reshape(-1, 2)
_MIN_VALID = 3  # pixels of a window
_USER_POINTS = 600  # of the surface of a user's body, which has no coarse one
_NEAR_JOINT_M = 0.1
_SEEN_SHARE = 0.125  # of the surface around a joint; a ball shows a quarter of its surface
_TINY = 1e-9


class DepthError(PoseError):
    """A depth image that does not belong to the camera."""


class DepthMeasurement(NamedTuple):
    """What a depth image says about P people."""

    root_z: np.ndarray  # (P,) m along the optical axis; NaN: could not be measured
    std: np.ndarray  # (P,) m its standard deviation; NaN with root_z
    share: np.ndarray  # (P,) 0..1 of the body's visible side that agrees; 0 with no root_z
    joint_seen: np.ndarray  # (P, 24) bool: the surface around the joint is among what agrees


class _Samples(NamedTuple):
    """What N surface points of each of P people say."""

    root_z: np.ndarray  # (P, N) m where the pelvis would be; 0 where weight is
    std: np.ndarray  # (P, N) m of that, if the point is seen
    weight: np.ndarray  # (P, N) 0..1 part of the visible side; 0: no depth there, or faces away
    whole: np.ndarray  # (P, N) the point's area however it is turned, in the same unit
    aside: np.ndarray  # (P, N, 2) m right and down of the pelvis


class DepthGauge:
    """Measures how far people are. Made once for a body model."""

    def __init__(self, model: BodyModel):
        self._model = model
        self._coarse = len(model.coarse_faces) > 0
        faces = (model.coarse_faces if self._coarse else model.faces).numpy()
        chosen = np.unique(faces)
        chosen = chosen[:: 1 if self._coarse else max(len(chosen) // _USER_POINTS, 1)]
        self._chosen = chosen
        self._faces = torch.from_numpy(faces[np.isin(faces, chosen).any(1)])
        rest = model.template[model.coarse_vertices] if self._coarse else model.template
        joints = (model.J_regressor @ model.template).numpy()
        apart = np.linalg.norm(rest.numpy()[chosen, None] - joints, axis=2)
        self._near_joint = np.exp(-0.5 * (apart / _NEAR_JOINT_M) ** 2)  # (N, 24)
        self._evidence = np.array(_EVIDENT)[apart[:, _EVIDENT].argmin(1)]  # (N,) the nearest joint

    def measure(self, depth: np.ndarray, camera: Camera, state: BodyState,
                root_std: np.ndarray, observed: np.ndarray | None = None) -> DepthMeasurement:
        """Where each person's pelvis is along the optical axis; nobody's answer hangs on others.

        depth: (H, W) float32 m along the optical axis, aligned with the camera's image, NaN where
        unknown. state: P people as fitted to that image, so that they lie over themselves in it;
        NaN: no body. root_std: (P,) m standard deviation of their root's z before looking. It
        only chooses what to believe and is not mixed in: fuse root_z with it. observed: (P, 24)
        bool, the joints that the image shows; what lies around others may be hidden and counts
        little. None: nothing is known of that.
        Raises DepthError if depth is not of the camera's size, or no floats.
        """
        _check(depth, camera)
        prior_std = np.asarray(root_std, float)
        prior_z = state.root[:, 2].numpy().astype(float)
        known = state.is_finite.numpy() & (prior_z > 0) & (prior_std > 0) & np.isfinite(prior_std)
        answer = _nothing(len(known))
        if known.any():
            observed = np.ones((len(known), len(SMPL24)), bool) if observed is None else observed
            trust = np.where(np.asarray(observed)[known][:, self._evidence], 1.0, _HIDDEN)
            samples = self._samples(depth, camera, state.rows(torch.from_numpy(known)), trust)
            found = _consensus(samples, prior_z[known], prior_std[known])
            rows = np.flatnonzero(known)[found.ok]
            values = (found.root_z, found.std, found.share, self._joints_seen(samples, found))
            for mine, theirs in zip(answer, values):
                mine[rows] = theirs[found.ok]
        return answer

    @torch.inference_mode()
    def _samples(self, depth: np.ndarray, camera: Camera, state: BodyState,
                 trust: np.ndarray) -> _Samples:
        state = BodyState(*(value.float() for value in state))
        surface = (self._model.coarse_surface(*state) if self._coarse
                   else self._model(*state).vertices)
        normals = _area_vectors(surface, self._faces)[:, self._chosen].numpy()
        points, root = surface[:, self._chosen].numpy(), state.root.numpy()
        whole = np.linalg.norm(normals, axis=2)
        ray = points / np.maximum(np.linalg.norm(points, axis=2, keepdims=True), _TINY)
        area = -(normals * ray).sum(2)
        visible = (area > _MIN_FACING * whole) & (points[..., 2] > 0)
        area, whole = area * trust, whole * trust
        unit = np.maximum((area * visible).sum(1, keepdims=True), _TINY)
        seen = np.zeros(area.shape)
        seen[visible] = _look(depth, camera.project(points[visible]))
        # The body as a whole is too near or too far and, as it fits the image, too small or too
        # large by the same factor.
        scale = root[:, None, 2] / np.where(visible, points[..., 2], 1.0)
        arm = points - root[:, None]
        noise = _SENSOR_M + _SENSOR_PER_M * seen**2
        variance = _SURFACE_M**2 + _LIMB_RAD**2 * np.square(arm).sum(2) + noise**2
        return _Samples(seen * scale, np.sqrt(variance), area / unit * (seen > 0), whole / unit,
                        arm[..., :2])

    def _joints_seen(self, samples: _Samples, found: _Consensus) -> np.ndarray:
        """(P, 24) bool: enough of the surface around a joint is among what agrees."""
        agreeing = np.einsum("pn,nj->pj", samples.weight * found.agrees, self._near_joint)
        return agreeing > _SEEN_SHARE * np.einsum("pn,nj->pj", samples.whole, self._near_joint)


class _Consensus(NamedTuple):
    """Where the points that agree put P people; ok is False where too few do."""

    root_z: np.ndarray  # (P,) m
    std: np.ndarray  # (P,) m
    share: np.ndarray  # (P,)
    agrees: np.ndarray  # (P, N) bool
    ok: np.ndarray  # (P,) bool


def _consensus(samples: _Samples, prior_z: np.ndarray, prior_std: np.ndarray) -> _Consensus:
    candidates = _quantiles(samples, _CANDIDATES)
    log = _log_posterior(candidates, samples, prior_z, prior_std)
    z = np.take_along_axis(candidates, log.argmax(1)[:, None], 1)[:, 0]
    for _ in range(_REFINEMENTS):
        z, std, probable = _refine(z, samples)
    agrees = probable > 0.5
    share = (samples.weight * agrees).sum(1)
    behind = (samples.weight * (~agrees & (samples.root_z > z[:, None]))).sum(1)
    rival = np.where(np.abs(candidates - z[:, None]) > _APART_SIGMAS * std[:, None], log, -np.inf)
    ok = ((agrees.sum(1) >= _MIN_POINTS) & (share >= _MIN_SHARE)
          & (share > behind)  # a body is not transparent
          & (np.abs(z - prior_z) < _FARTHEST_SIGMAS * prior_std)
          & (log.max(1) > rival.max(1) + _CLEAR_WIN))
    return _Consensus(z, std, share, agrees, ok)


def _quantiles(samples: _Samples, count: int) -> np.ndarray:
    """(P, count) evenly spread through what the samples say, in order; 0 if they say nothing."""
    known = samples.weight > 0
    ordered = np.sort(np.where(known, samples.root_z, np.inf), axis=1)
    ranks = known.sum(1, keepdims=True) * (2 * np.arange(count) + 1) // (2 * count)
    return np.where(np.any(known, axis=1)[:, None], np.take_along_axis(ordered, ranks, 1), 0.0)


def _log_posterior(candidates: np.ndarray, samples: _Samples, prior_z: np.ndarray,
                   prior_std: np.ndarray) -> np.ndarray:
    """(P, K) of candidates (P, K) for the root's z, up to a constant."""
    agrees, clutter = _densities(samples.root_z[:, None] - candidates[..., None],
                                 samples.std[:, None])
    likelihood = np.einsum("pn,pkn->pk", samples.weight, np.log(agrees + clutter))
    prior = -0.5 * ((candidates - prior_z[:, None]) / prior_std[:, None]) ** 2
    return _INDEPENDENT * likelihood + prior


def _densities(residual: np.ndarray, std: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per metre, of samples that are so far behind the root: as the person, and as clutter."""
    agrees = np.exp(-0.5 * (residual / std) ** 2) * (_AGREES / np.sqrt(2 * np.pi)) / std
    return agrees, np.where(residual < 0, _NEARER_PER_M, _FARTHER_PER_M)


def _refine(z: np.ndarray, samples: _Samples) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One step of expectation-maximisation: the root's z and std (P,), who agrees (P, N) 0..1."""
    residual = samples.root_z - z[:, None]
    agrees, clutter = _densities(residual, samples.std)
    probable = np.where(samples.weight > 0, agrees / (agrees + clutter), 0.0)
    weight = probable * samples.weight / samples.std**2
    total = np.maximum(weight.sum(1), _TINY)
    shift = (weight * residual).sum(1) / total
    variance = (weight * (residual - shift[:, None]) ** 2).sum(1) / total
    independent = np.maximum(_INDEPENDENT * (probable * samples.weight).sum(1), 1.0)
    aside = np.einsum("pn,pnx->px", weight, samples.aside) / total[:, None]
    common = _COMMON_M**2 + (_COMMON_SHARE * z) ** 2 + _TILT_RAD**2 * np.square(aside).sum(1)
    return z + shift, np.sqrt(common + variance / independent), probable


def _area_vectors(surface: Tensor, faces: Tensor) -> Tensor:
    """(P, V, 3) m^2 outward normals of vertices (P, V, 3), as long as the area that is theirs."""
    corners = surface[:, faces.T]  # (P, 3, F, 3)
    sides = corners[:, 1:] - corners[:, :1]
    thirds = torch.linalg.cross(sides[:, 0], sides[:, 1]) / 6
    vectors = torch.zeros_like(surface)
    for corner in faces.T:
        vectors.index_add_(1, corner, thirds)
    return vectors


def _look(depth: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """(N,) m the median of the 3x3 pixels around pixels (N, 2); 0: too few valid, or outside."""
    height, width = depth.shape
    inside = np.all((pixels >= 0) & (pixels < (width, height)), axis=1)  # False for NaN
    column, row = np.where(inside[:, None], pixels, 0).astype(int).T
    rows = np.clip(row[:, None] + _WINDOW[:, 0], 0, height - 1)
    columns = np.clip(column[:, None] + _WINDOW[:, 1], 0, width - 1)
    values = depth[rows, columns]
    values = np.sort(np.where((values > 0) & (values < np.inf), values, np.nan), axis=1)  # NaN last
    valid = np.isfinite(values).sum(1)
    middle = np.take_along_axis(values, np.maximum(valid - 1, 0)[:, None] // 2, 1)[:, 0]
    return np.where(inside & (valid >= _MIN_VALID), middle, 0.0)


def _check(depth: np.ndarray, camera: Camera) -> None:
    if depth.dtype.kind != "f":
        raise DepthError(f"depth image is {depth.dtype}, expected floats in metres: read it with "
                         "images.depth_from_image")
    if depth.shape != (camera.height, camera.width):
        raise DepthError(f"depth image is {'x'.join(map(str, depth.shape[::-1]))}, the camera's "
                         f"image {camera.width}x{camera.height}: use depth that is registered to "
                         "the colour image")


def _nothing(count: int) -> DepthMeasurement:
    return DepthMeasurement(np.full(count, np.nan), np.full(count, np.nan), np.zeros(count),
                            np.zeros((count, len(SMPL24)), bool))
