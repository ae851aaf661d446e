"""Triangulation: positions and covariances of points that several cameras see.

Camera frame: x right, y down, z forward, m. Extrinsics take points of a camera frame to the common
frame.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

_ROBUST_SIGMAS = 3.0  # Cauchy scale of a view's error, in standard deviations
_STEPS = 8
_NEAREST_M = 0.1
_TINY = 1e-12  # determinant of a matrix scaled to 1 that counts as singular


def triangulate(rays: np.ndarray, cov: np.ndarray, depth: np.ndarray, depth_std: np.ndarray,
                extrinsics: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the most probable positions; a view that contradicts the others counts little.

    Gauss-Newton on rays and depths with a Cauchy cost, from the best of several starts. Depth is
    optional: it locates points that one camera alone sees, and stabilises rays that are nearly
    parallel.

    Args:
        rays (V, N, 2): normalised, undistorted: x/z, y/z; NaN where a camera does not see a point.
        cov (V, N, 2, 2): of the rays.
        depth (V, N), depth_std (V, N): m along the optical axis; NaN where not measured.
        extrinsics (V, 4, 4): camera to common frame.
    Returns:
        positions (N, 3) m in the common frame, and their covariances (N, 3, 3) m^2; NaN for points
        of which too little is known.
    """
    with np.errstate(all="ignore"):
        problem = _Problem(rays, cov, depth, depth_std, extrinsics)
        positions = _best(_starts(rays, depth, extrinsics), problem)
        for _ in range(_STEPS):
            gradient, precision, _ = problem.linearise(positions)
            positions = positions - _solve(precision, gradient[..., None])[..., 0]
        _, precision, cost = problem.linearise(positions)
        cov = _solve(precision, np.broadcast_to(np.eye(3), precision.shape))
    known = np.isfinite(cost) & (np.diagonal(cov, axis1=1, axis2=2) > 0).all(1)
    return np.where(known[:, None], positions, np.nan), np.where(known[:, None, None], cov, np.nan)


class _Problem:
    """Observations with precisions; zeros instead of NaN."""

    def __init__(self, rays: np.ndarray, cov: np.ndarray, depth: np.ndarray,
                 depth_std: np.ndarray, extrinsics: np.ndarray) -> None:
        """Make the problem of observations; see `triangulate`."""
        known = np.isfinite(rays).all(2) & np.isfinite(cov).all((2, 3))
        cov = np.where(known[..., None, None], cov, np.eye(2))
        self.rays = np.where(known[..., None], rays, 0.0)  # (V, N, 2)
        # (V, N, 2, 2) and (V, N); zeros where not seen or not known
        self.precision = np.where(known[..., None, None], np.linalg.inv(cov), 0.0)
        self.depth_precision = np.nan_to_num(depth_std**-2.0 * np.isfinite(depth))
        self.depth = np.nan_to_num(depth)  # (V, N)
        self.rotmats = np.swapaxes(extrinsics[:, :3, :3], 1, 2)  # (V, 3, 3) common to camera
        self.centres = extrinsics[:, :3, 3]  # (V, 3) m

    def linearise(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Gradient (N, 3), Gauss-Newton Hessian (N, 3, 3) and cost (N,) at positions (N, 3).

        The cost is infinite behind a camera that sees the point.
        """
        local = np.einsum("vij,vnj->vni", self.rotmats, positions - self.centres[:, None])
        seen = self.precision[..., 0, 0] > 0
        depth = np.where(seen, local[..., 2], 1.0)
        behind = (depth < _NEAREST_M).any(0)
        depth = np.maximum(depth, _NEAREST_M)
        projected = local[..., :2] / depth[..., None]
        by_local = np.zeros((*depth.shape, 2, 3))  # Jacobian of the projection
        by_local[..., 0, 0] = by_local[..., 1, 1] = 1 / depth
        by_local[..., 2] = -projected / depth[..., None]
        by_position = by_local @ self.rotmats[:, None]
        depth_by_position = self.rotmats[:, None, 2]  # (V, 1, 3)

        error, depth_error = projected - self.rays, local[..., 2] - self.depth
        cost, weight = _cauchy(np.einsum("vni,vnij,vnj->vn", error, self.precision, error))
        depth_cost, depth_weight = _cauchy(self.depth_precision * depth_error**2)
        weighted = np.swapaxes(by_position, 2, 3) @ (weight[..., None, None] * self.precision)
        depth_weighted = (depth_weight * self.depth_precision)[..., None] * depth_by_position
        gradient = (weighted @ error[..., None])[..., 0] + depth_weighted * depth_error[..., None]
        hessian = weighted @ by_position \
            + depth_weighted[..., :, None] * depth_by_position[..., None, :]
        total = np.where(behind, np.inf, (cost + depth_cost).sum(0))
        return gradient.sum(0), hessian.sum(0), total


def _cauchy(squared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cauchy cost, and weight of the linearised problem, of squared errors in standard deviations.

    Source: Triggs et al. 2000, Bundle Adjustment - A Modern Synthesis, sec. 4.3.
    """
    relative = squared / _ROBUST_SIGMAS**2
    return _ROBUST_SIGMAS**2 / 2 * np.log1p(relative), 1 / (1 + relative)


def _starts(rays: np.ndarray, depth: np.ndarray, extrinsics: np.ndarray) -> np.ndarray:
    """(S, N, 3) candidate positions: where any two views' rays meet, and by each view's depth."""
    rays = np.concatenate([rays, np.ones_like(rays[..., :1])], 2)
    rays = np.einsum("vij,vnj->vni", extrinsics[:, :3, :3], rays)
    along = rays / np.linalg.norm(rays, axis=2, keepdims=True)
    across = np.eye(3) - along[..., :, None] * along[..., None, :]
    centres = np.broadcast_to(extrinsics[:, None, :3, 3], rays.shape)
    offset = (across @ centres[..., None])
    meetings = [_solve(across[a] + across[b], offset[a] + offset[b])[..., 0]
                for a, b in combinations(range(len(rays)), 2)]
    return np.stack([*(centres + rays * depth[..., None]), *meetings])


def _best(starts: np.ndarray, problem: _Problem) -> np.ndarray:
    """(N, 3) the likeliest of starts (S, N, 3); NaN if all are impossible."""
    cost = np.stack([problem.linearise(positions)[2] for positions in starts])
    cost = np.where(np.isfinite(cost), cost, np.inf)
    best = np.take_along_axis(starts, cost.argmin(0)[None, :, None], 0)[0]
    return np.where(np.isfinite(cost.min(0))[:, None], best, np.nan)


def _solve(matrix: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solutions (N, 3, M) with matrices (N, 3, 3); NaN where a matrix is singular."""
    finite = np.isfinite(matrix).all((1, 2))
    scale = np.trace(matrix, axis1=1, axis2=2)
    determinant = np.linalg.det(np.where(finite[:, None, None], matrix, 0.0))
    regular = finite & (determinant > _TINY * scale**3)
    matrix = np.where(regular[:, None, None], matrix, np.eye(3))
    return np.where(regular[:, None, None], np.linalg.solve(matrix, right), np.nan)
