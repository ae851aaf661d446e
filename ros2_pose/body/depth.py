"""Distance of people by an aligned depth image, with the fitted body as a template.

Each point of the body's surface that faces the camera, with the depth at its pixel, is a sample of
the pelvis's depth. Samples on the person agree; those of background, occluders, other people and
edges do not. A mixture of a Gaussian (the person) and a uniform density (clutter) separates them:
the candidate with the largest posterior, then expectation-maximisation.
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

# Standard deviation of one sample.
_SURFACE_M = 0.03  # clothes and shape
_POSE_RAD = 0.12  # error of the pose, times the distance from the pelvis
_SENSOR_M, _SENSOR_PER_M = 0.001, 0.0025  # the sensor; the second times the squared depth
_MIN_FACING = 0.2  # cosine to the ray; below, an edge is near and the pixel may be the background's

# The mixture. Clutter, per metre of depth: something in front is more likely than something behind,
# as people are often occluded, but never transparent.
_PERSON_SHARE = 0.8
_NEARER_PER_M, _FARTHER_PER_M = 0.1, 0.01

# Errors of neighbouring samples are correlated: a whole body counts as so many independent ones.
_INDEPENDENT = 10
# Errors common to all samples, which do not average out.
_COMMON_M, _COMMON_SHARE = 0.02, 0.005  # clothes and girth; the sensor's scale
_TILT_RAD = 0.06  # the body's tilt, times the distance of the samples' mean from the pelvis

# A point is occluded or not with the nearest of the joints that 2D keypoints show.
_EVIDENT_JOINTS = [j for j, name in enumerate(SMPL24.names) if name in (*COCO17.names, "head")]
_OCCLUDED_WEIGHT = 0.1  # of a point with a joint that the image does not show

_CANDIDATES = 48  # quantiles; a cluster of a tenth of the samples has several
_REFINEMENTS = 5
_MAX_PRIOR_SIGMAS = 4.0  # from the depth before the measurement
_MIN_POINTS = 10  # fewer may agree by chance
_MIN_SHARE = 0.08  # of the visible side: about a head and a shoulder
_RIVAL_SIGMAS, _RIVAL_NATS = 4.0, 2.0  # candidates so far off must be less probable by so much

_WINDOW = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1], indexing="ij"), -1).reshape(-1, 2)
_MIN_VALID = 3  # pixels of the window
_USER_POINTS = 600  # of the surface of a user's body, which has no coarse surface
_NEAR_JOINT_M = 0.1  # scale of the surface around a joint
_SEEN_SHARE = 0.125  # of the surface around a joint; a camera sees at most half of it
_TINY = 1e-9


class DepthError(PoseError):
    """A depth image that does not belong to the camera."""


class _Samples(NamedTuple):
    """Samples of the pelvis's depth by N surface points of each of P people."""

    root_z: np.ndarray  # (P, N) m; 0 where weight is 0
    std: np.ndarray  # (P, N) m, if the depth is the person's
    weight: np.ndarray  # (P, N) 0..1 part of the visible side; 0: no depth, or faces away
    whole: np.ndarray  # (P, N) the point's area in the same unit, in any direction
    aside: np.ndarray  # (P, N, 2) m right and down of the pelvis


class DepthGauge:
    """Measures how far people are. Made once for a body model."""

    def __init__(self, model: BodyModel):
        self._model = model
        self._has_coarse = len(model.coarse_faces) > 0
        faces = (model.coarse_faces if self._has_coarse else model.faces).numpy()
        rest = model.template[model.coarse_vertices] if self._has_coarse else model.template
        chosen = np.unique(faces)
        step = 1 if self._has_coarse else max(len(chosen) // _USER_POINTS, 1)
        chosen = chosen[::step]
        self._chosen = chosen  # (N,) indices of the surface's vertices
        self._faces = torch.from_numpy(faces[np.isin(faces, chosen).any(1)])
        joints = (model.J_regressor @ model.template).numpy()
        distance_m = np.linalg.norm(rest.numpy()[chosen, None] - joints, axis=2)
        self._near_joint = np.exp(-0.5 * (distance_m / _NEAR_JOINT_M) ** 2)  # (N, 24)
        nearest = distance_m[:, _EVIDENT_JOINTS].argmin(1)
        self._evident_joint = np.array(_EVIDENT_JOINTS)[nearest]  # (N,)

    def measure(
        self, depth: np.ndarray, camera: Camera, state: BodyState, root_std: np.ndarray,
        observed: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Measure the depth of each person's pelvis. People do not influence each other.

        Args:
            depth (H, W): float32, m along the optical axis, aligned with the camera's image; NaN
                where unknown.
            state: P people as fitted to that image, so that they project onto themselves in it;
                NaN: no body.
            root_std (P,): m, standard deviation of their root's z without the depth image. It
                only selects what is plausible and is not in the result: fuse root_z with it.
            observed (P, 24): bool, joints that the colour image shows; the surface around others
                may be occluded and has little weight. None: unknown.
        Returns:
            root_z (P,) m of the pelvis along the optical axis, std (P,) m of it, both NaN where
            not measured, and joint_seen (P, 24) bool: the depth image shows the surface around
            the joint.
        Raises:
            DepthError: depth is not of the camera's size, or has no floats.
        """
        _check(depth, camera)
        prior_std = np.asarray(root_std, float)
        prior_z = state.root[:, 2].numpy().astype(float)
        known = state.is_finite.numpy() & (prior_z > 0) & (prior_std > 0) & np.isfinite(prior_std)
        root_z, std = np.full(len(known), np.nan), np.full(len(known), np.nan)
        joint_seen = np.zeros((len(known), len(SMPL24)), bool)
        if not known.any():
            return root_z, std, joint_seen
        point_weight = np.ones((known.sum(), len(self._chosen)))
        if observed is not None:
            shown = np.asarray(observed)[known][:, self._evident_joint]
            point_weight = np.where(shown, 1.0, _OCCLUDED_WEIGHT)
        people = state.rows(torch.from_numpy(known))
        samples = self._samples(depth, camera, people, point_weight)
        found_z, found_std, agrees, ok = _consensus(samples, prior_z[known], prior_std[known])
        rows = np.flatnonzero(known)[ok]
        root_z[rows] = found_z[ok]
        std[rows] = found_std[ok]
        joint_seen[rows] = self._joint_seen(samples, agrees)[ok]
        return root_z, std, joint_seen

    @torch.inference_mode()
    def _samples(self, depth: np.ndarray, camera: Camera, state: BodyState,
                 point_weight: np.ndarray) -> _Samples:
        """Samples by the visible surface of P people; point_weight (P, N) 0..1."""
        state = BodyState(*(value.float() for value in state))
        points, area_vectors = self._surface(state)
        whole_area = np.linalg.norm(area_vectors, axis=2)
        ray = points / np.maximum(np.linalg.norm(points, axis=2, keepdims=True), _TINY)
        seen_area = -(area_vectors * ray).sum(2)  # as seen from the camera
        visible = (seen_area > _MIN_FACING * whole_area) & (points[..., 2] > 0)
        seen_area, whole_area = seen_area * point_weight, whole_area * point_weight
        visible_side = np.maximum((seen_area * visible).sum(1, keepdims=True), _TINY)
        measured = np.zeros(visible.shape)  # m, at the points' pixels; 0: no depth
        measured[visible] = _depth_at(depth, camera.project(points[visible]))
        # The body fits the image, so if it is too near it is too small by the same factor: the
        # ratio of measured to modelled depth is that of the pelvis, too.
        root = state.root.numpy()[:, None]
        scale = root[..., 2] / np.where(visible, points[..., 2], 1.0)
        from_pelvis = points - root
        sensor_std = _SENSOR_M + _SENSOR_PER_M * measured**2
        pose_variance = _POSE_RAD**2 * np.square(from_pelvis).sum(2)
        variance = _SURFACE_M**2 + pose_variance + sensor_std**2
        return _Samples(
            root_z=measured * scale,
            std=np.sqrt(variance),
            weight=seen_area / visible_side * (measured > 0),
            whole=whole_area / visible_side,
            aside=from_pelvis[..., :2],
        )

    def _surface(self, state: BodyState) -> tuple[np.ndarray, np.ndarray]:
        """Points (P, N, 3) m of the posed surface, and their area vectors (P, N, 3) m^2."""
        if self._has_coarse:
            surface = self._model.coarse_surface(*state)
        else:
            surface = self._model(*state).vertices
        area_vectors = _area_vectors(surface, self._faces)
        return surface[:, self._chosen].numpy(), area_vectors[:, self._chosen].numpy()

    def _joint_seen(self, samples: _Samples, agrees: np.ndarray) -> np.ndarray:
        """(P, 24) bool: enough of the surface around a joint agrees; agrees (P, N) bool."""
        agreeing = np.einsum("pn,nj->pj", samples.weight * agrees, self._near_joint)
        return agreeing > _SEEN_SHARE * np.einsum("pn,nj->pj", samples.whole, self._near_joint)


# ---------------------------------------------------------------------------- consensus


def _consensus(samples: _Samples, prior_z: np.ndarray,
               prior_std: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Find the depth on which the samples of the person agree.

    Returns:
        root_z (P,) m, std (P,) m, agrees (P, N) bool: the sample is the person's, and ok (P,)
        bool: enough samples agree, and no other depth is nearly as probable.
    """
    candidates = _quantiles(samples, _CANDIDATES)
    log = _log_posterior(candidates, samples, prior_z, prior_std)
    z = np.take_along_axis(candidates, log.argmax(1)[:, None], 1)[:, 0]
    for _ in range(_REFINEMENTS):
        z, std, probability = _refine(z, samples)
    agrees = probability > 0.5
    share = (samples.weight * agrees).sum(1)
    is_behind = ~agrees & (samples.root_z > z[:, None])
    share_behind = (samples.weight * is_behind).sum(1)
    is_rival = np.abs(candidates - z[:, None]) > _RIVAL_SIGMAS * std[:, None]
    rival_log = np.where(is_rival, log, -np.inf).max(1)
    is_enough = (agrees.sum(1) >= _MIN_POINTS) & (share >= _MIN_SHARE)
    is_opaque = share > share_behind  # else the camera sees through most of the body
    is_plausible = np.abs(z - prior_z) < _MAX_PRIOR_SIGMAS * prior_std
    is_unambiguous = log.max(1) > rival_log + _RIVAL_NATS
    return z, std, agrees, is_enough & is_opaque & is_plausible & is_unambiguous


def _quantiles(samples: _Samples, count: int) -> np.ndarray:
    """(P, count) m evenly spaced quantiles of the samples, in order; 0 for no samples."""
    known = samples.weight > 0
    ordered = np.sort(np.where(known, samples.root_z, np.inf), axis=1)
    ranks = known.sum(1, keepdims=True) * (2 * np.arange(count) + 1) // (2 * count)
    return np.where(np.any(known, axis=1)[:, None], np.take_along_axis(ordered, ranks, 1), 0.0)


def _log_posterior(candidates: np.ndarray, samples: _Samples, prior_z: np.ndarray,
                   prior_std: np.ndarray) -> np.ndarray:
    """(P, K) log posterior of candidates (P, K) m for the root's z, up to a constant."""
    person, clutter = _densities(samples.root_z[:, None] - candidates[..., None],
                                 samples.std[:, None])
    likelihood = np.einsum("pn,pkn->pk", samples.weight, np.log(person + clutter))
    prior = -0.5 * ((candidates - prior_z[:, None]) / prior_std[:, None]) ** 2
    return _INDEPENDENT * likelihood + prior


def _densities(residual: np.ndarray, std: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Densities (...) 1/m of the person and of clutter at residuals (...) m behind the root."""
    person = np.exp(-0.5 * (residual / std) ** 2) * (_PERSON_SHARE / np.sqrt(2 * np.pi)) / std
    return person, np.where(residual < 0, _NEARER_PER_M, _FARTHER_PER_M)


def _refine(z: np.ndarray, samples: _Samples) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One step of expectation-maximisation from z (P,) m.

    Returns:
        root_z (P,) m, std (P,) m, and (P, N) probability 0..1 that the sample is the person's.
    """
    residual = samples.root_z - z[:, None]
    person, clutter = _densities(residual, samples.std)
    probability = np.where(samples.weight > 0, person / (person + clutter), 0.0)
    weight = probability * samples.weight / samples.std**2
    total = np.maximum(weight.sum(1), _TINY)
    shift = (weight * residual).sum(1) / total
    variance = (weight * (residual - shift[:, None]) ** 2).sum(1) / total
    independent = np.maximum(_INDEPENDENT * (probability * samples.weight).sum(1), 1.0)
    mean_aside = np.einsum("pn,pnx->px", weight, samples.aside) / total[:, None]
    tilt_variance = _TILT_RAD**2 * np.square(mean_aside).sum(1)
    common_variance = _COMMON_M**2 + (_COMMON_SHARE * z) ** 2 + tilt_variance
    return z + shift, np.sqrt(common_variance + variance / independent), probability


# --------------------------------------------------------------------- surface and image


def _area_vectors(surface: Tensor, faces: Tensor) -> Tensor:
    """(P, V, 3) m^2 outward normals of vertices (P, V, 3), each as long as the vertex's area."""
    corners = surface[:, faces.T]  # (P, 3, F, 3)
    sides = corners[:, 1:] - corners[:, :1]
    thirds = torch.linalg.cross(sides[:, 0], sides[:, 1]) / 6
    vectors = torch.zeros_like(surface)
    for corner in faces.T:
        vectors.index_add_(1, corner, thirds)
    return vectors


def _depth_at(depth: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """(N,) m median of 3x3 pixels around pixels (N, 2); 0: outside, or too few valid ones."""
    height, width = depth.shape
    inside = np.all((pixels >= 0) & (pixels < (width, height)), axis=1)  # False for NaN
    column, row = np.where(inside[:, None], pixels, 0).astype(int).T
    rows = np.clip(row[:, None] + _WINDOW[:, 0], 0, height - 1)
    columns = np.clip(column[:, None] + _WINDOW[:, 1], 0, width - 1)
    values = depth[rows, columns]
    values = np.where((values > 0) & (values < np.inf), values, np.nan)
    values = np.sort(values, axis=1)  # NaN last
    valid = np.isfinite(values).sum(1)
    middle = np.maximum(valid - 1, 0) // 2
    median = np.take_along_axis(values, middle[:, None], 1)[:, 0]
    return np.where(inside & (valid >= _MIN_VALID), median, 0.0)


def _check(depth: np.ndarray, camera: Camera) -> None:
    """Raise DepthError if depth (H, W) is not of the camera's size, or has no floats."""
    if depth.dtype.kind != "f":
        raise DepthError(f"depth image is {depth.dtype}, expected floats in metres: read it with "
                         "messages.image.depth_from_image")
    if depth.shape != (camera.height, camera.width):
        raise DepthError(f"depth image is {'x'.join(map(str, depth.shape[::-1]))}, the camera's "
                         f"image {camera.width}x{camera.height}: use depth that is registered to "
                         "the colour image")
