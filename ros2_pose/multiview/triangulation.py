"""Points that several cameras see: places and covariances from rays with covariances.

Camera frame: x right, y down, z forward, metres. Poses turn and move a camera's frame into the
common one.
"""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np

_ROBUST_SIGMAS = 3.0  # Cauchy scale of a view's error, in standard deviations
_STEPS = 8
_NEAREST_M = 0.1
_TINY = 1e-12  # of a matrix scaled to 1: singular


class Observations(NamedTuple):
    """What each of V cameras says of N points; NaN where it says nothing.

    Nobody's depth is needed: it places what one camera sees alone, and steadies rays that are
    nearly parallel.
    """

    rays: np.ndarray  # (V, N, 2) normalised, undistorted: x/z, y/z
    cov: np.ndarray  # (V, N, 2, 2)
    depth: np.ndarray  # (V, N) m along the optical axis
    depth_std: np.ndarray  # (V, N) m


def triangulate(seen: Observations, poses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places (N, 3), m, in the common frame, and their covariances (N, 3, 3), m^2.

    poses: (V, 4, 4) camera to common frame. The most probable places, where a view that contradicts
    the others counts little (Cauchy). NaN for points of which too little is known for a place.
    """
    with np.errstate(all="ignore"):
        measured = _Measured.of(seen, poses)
        positions = _best(_starts(seen, poses), measured)
        for _ in range(_STEPS):
            gradient, precision, _ = measured.at(positions)
            positions = positions - _solve(precision, gradient[..., None])[..., 0]
        _, precision, cost = measured.at(positions)
        cov = _solve(precision, np.broadcast_to(np.eye(3), precision.shape))
    known = np.isfinite(cost) & (np.diagonal(cov, axis1=1, axis2=2) > 0).all(1)
    return np.where(known[:, None], positions, np.nan), np.where(known[:, None, None], cov, np.nan)


class _Measured(NamedTuple):
    """Rays and depths ready to be compared with places; zeros instead of NaN."""

    rays: np.ndarray  # (V, N, 2)
    precision: np.ndarray  # (V, N, 2, 2); zeros where not seen
    depth: np.ndarray  # (V, N)
    depth_precision: np.ndarray  # (V, N); zeros where not known
    rotmats: np.ndarray  # (V, 3, 3) common frame to camera
    centres: np.ndarray  # (V, 3) m

    @staticmethod
    def of(seen: Observations, poses: np.ndarray) -> _Measured:
        rays_known = np.isfinite(seen.rays).all(2) & np.isfinite(seen.cov).all((2, 3))
        cov = np.where(rays_known[..., None, None], seen.cov, np.eye(2))
        precision = np.where(rays_known[..., None, None], np.linalg.inv(cov), 0.0)
        weight = np.nan_to_num(seen.depth_std**-2.0 * np.isfinite(seen.depth))
        return _Measured(np.where(rays_known[..., None], seen.rays, 0.0), precision,
                         np.nan_to_num(seen.depth), weight,
                         np.swapaxes(poses[:, :3, :3], 1, 2), poses[:, :3, 3])

    def at(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Gradient (N, 3) and Gauss-Newton Hessian (N, 3, 3) of the cost (N,), of places (N, 3) in
        the common frame; the cost is infinite behind a camera that sees the point."""
        local = np.einsum("vij,vnj->vni", self.rotmats, positions - self.centres[:, None])
        seen = self.precision[..., 0, 0] > 0
        depth = np.where(seen, local[..., 2], 1.0)
        behind = (depth < _NEAREST_M).any(0)
        depth = np.maximum(depth, _NEAREST_M)
        image = local[..., :2] / depth[..., None]
        by_local = np.zeros((*depth.shape, 2, 3))
        by_local[..., 0, 0] = by_local[..., 1, 1] = 1 / depth
        by_local[..., 2] = -image / depth[..., None]
        by_position = by_local @ self.rotmats[:, None]
        by_depth = self.rotmats[:, None, 2]  # (V, 1, 3)
        error, depth_error = image - self.rays, local[..., 2] - self.depth
        cost, weight = _cauchy(np.einsum("vni,vnij,vnj->vn", error, self.precision, error))
        depth_cost, depth_weight = _cauchy(self.depth_precision * depth_error**2)
        weighted = np.swapaxes(by_position, 2, 3) @ (weight[..., None, None] * self.precision)
        strength = depth_weight * self.depth_precision
        gradient = (weighted @ error[..., None])[..., 0] \
            + (strength * depth_error)[..., None] * by_depth
        hessian = weighted @ by_position \
            + strength[..., None, None] * by_depth[..., :, None] * by_depth[..., None, :]
        total = np.where(behind, np.inf, (cost + depth_cost).sum(0))
        return gradient.sum(0), hessian.sum(0), total


def _cauchy(squared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cost and weight of squared errors in standard deviations."""
    relative = squared / _ROBUST_SIGMAS**2
    return _ROBUST_SIGMAS**2 / 2 * np.log1p(relative), 1 / (1 + relative)


def _starts(seen: Observations, poses: np.ndarray) -> np.ndarray:
    """(S, N, 3) where a point may be: where two views meet, for any two; where one view has it."""
    rays = np.concatenate([seen.rays, np.ones_like(seen.rays[..., :1])], 2)
    rays = np.einsum("vij,vnj->vni", poses[:, :3, :3], rays)
    along = rays / np.linalg.norm(rays, axis=2, keepdims=True)
    across = np.eye(3) - along[..., :, None] * along[..., None, :]
    centres = np.broadcast_to(poses[:, None, :3, 3], rays.shape)
    offset = (across @ centres[..., None])
    meetings = [_solve(across[a] + across[b], offset[a] + offset[b])[..., 0]
                for a, b in combinations(range(len(rays)), 2)]
    return np.stack([*(centres + rays * seen.depth[..., None]), *meetings])


def _best(starts: np.ndarray, measured: _Measured) -> np.ndarray:
    """(N, 3) the likeliest of starts (S, N, 3); NaN if none is possible."""
    cost = np.stack([measured.at(positions)[2] for positions in starts])
    cost = np.where(np.isfinite(cost), cost, np.inf)
    best = np.take_along_axis(starts, cost.argmin(0)[None, :, None], 0)[0]
    return np.where(np.isfinite(cost.min(0))[:, None], best, np.nan)


def _solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solutions (N, 3, M) of matrices (N, 3, 3), NaN where there is none."""
    finite = np.isfinite(matrix).all((1, 2))
    scale = np.trace(matrix, axis1=1, axis2=2)
    regular = finite & (np.linalg.det(np.where(finite[:, None, None], matrix, 0.0))
                        > _TINY * scale**3)
    matrix = np.where(regular[:, None, None], matrix, np.eye(3))
    return np.where(regular[:, None, None], np.linalg.solve(matrix, right), np.nan)
