"""Sparse convex regressors: points as averages of a mesh's vertices, whatever the body's shape."""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

_MIN_WEIGHT = 1e-3
_SUM_WEIGHT = 10.0  # of the equation that the weights sum to 1
_FITTED_ON = 60  # shapes, about
_MIN_NEAR, _MAX_NEAR = 60, 500  # vertices that a point may depend on


def convex_regressor(points: np.ndarray, vertices: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Fit one point as a convex combination of vertices, by non-negative least squares.

    Args:
        points (S, 3), vertices (S, V, 3): m, of S shapes.
        near (N,): indices of the vertices that may be used.
    Returns:
        (V,): sparse weights >= 0 that sum to 1.
    """
    matrix = vertices[:, near].transpose(0, 2, 1).reshape(-1, len(near)) - points.reshape(-1, 1)
    sum_row = _SUM_WEIGHT * np.ones((1, len(near)))
    target = np.append(np.zeros(len(matrix)), _SUM_WEIGHT)
    weights, _ = nnls(np.concatenate([matrix, sum_row]), target)
    is_used = weights > _MIN_WEIGHT
    regressor = np.zeros(vertices.shape[1])
    regressor[near[is_used]] = weights[is_used]
    return regressor / regressor.sum()


def _near(point: np.ndarray, template: np.ndarray, radius_m: float) -> np.ndarray:
    """Indices of vertices (V, 3) around a point (3,): all within a radius, or a thinned set."""
    distance = np.linalg.norm(template - point, axis=1)
    inside = np.flatnonzero(distance < max(radius_m, np.sort(distance)[_MIN_NEAR]))
    return inside[:: max(1, len(inside) // _MAX_NEAR)]


def symmetric_regressor(points: np.ndarray, vertices: np.ndarray, mirror: np.ndarray,
                        swap: np.ndarray, radius_m: float,
                        allowed: np.ndarray | None = None) -> np.ndarray:
    """Fit points as convex combinations of vertices, the right side as a mirror of the left.

    Args:
        points (S, N, 3), vertices (S, V, 3): m, of S shapes.
        mirror (V,), swap (N,): each vertex's and point's counterpart on the other side; the left
            point comes before the right one.
        radius_m: only vertices within this distance of a point are used.
        allowed (N, V): which vertices may be used for which point; None allows all.
    Returns:
        (N, V): rows sum to 1.
    """
    subset = slice(None, None, len(points) // _FITTED_ON)
    vertices = vertices[subset].astype(np.float64)
    rows = np.zeros((len(swap), vertices.shape[1]))
    for n, other in enumerate(swap):
        if other < n:  # a right point: its left counterpart is fitted already
            rows[n] = rows[other][mirror]
            continue
        near = _near(points[subset, n].mean(0), vertices.mean(0), radius_m)
        near = near if allowed is None else near[allowed[n, near]]
        rows[n] = convex_regressor(points[subset, n], vertices, near)
        if other == n:
            rows[n] = (rows[n] + rows[n][mirror]) / 2
    return rows
