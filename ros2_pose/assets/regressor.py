"""Sparse convex regressors: points as averages of a mesh's vertices, whatever the body's shape."""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls


def convex_regressor(points: np.ndarray, vertices: np.ndarray, near: np.ndarray) -> np.ndarray:
    """(V,) sparse weights >= 0 that sum to 1 and take vertices (S, V, 3) to points (S, 3).

    Only the vertices `near` are used. Non-negative least squares is sparse by itself.
    """
    rows = vertices[:, near].transpose(0, 2, 1).reshape(-1, len(near))
    rows, goal = rows - points.reshape(-1, 1), np.zeros(rows.shape[0])
    heavy = 10.0 * np.ones((1, len(near)))
    weights, _ = nnls(np.concatenate([rows, heavy]), np.append(goal, heavy[0, 0]))
    regressor = np.zeros(vertices.shape[1])
    regressor[near[weights > 1e-3]] = weights[weights > 1e-3]
    return regressor / regressor.sum()


def _near(point: np.ndarray, template: np.ndarray, radius_m: float) -> np.ndarray:
    distance = np.linalg.norm(template - point, axis=1)
    ring = np.flatnonzero(distance < max(radius_m, np.sort(distance)[60]))
    return ring[:: max(1, len(ring) // 500)]


def symmetric_regressor(points: np.ndarray, vertices: np.ndarray, mirror: np.ndarray,
                        swap: np.ndarray, radius_m: float,
                        allowed: np.ndarray | None = None) -> np.ndarray:
    """(N, V) convex regressor of points (S, N, 3) on vertices (S, V, 3).

    swap (N,) and mirror (V,) name each one's other side, the left point before the right one.
    allowed (N, V) says which vertices may be used for which point.
    """
    some = slice(None, None, len(points) // 60)
    vertices = vertices[some].astype(np.float64)
    rows = np.zeros((len(swap), vertices.shape[1]))
    for n, other in enumerate(swap):
        if other < n:  # the right one comes after the left one
            rows[n] = rows[other][mirror]
            continue
        near = _near(points[some, n].mean(0), vertices.mean(0), radius_m)
        near = near if allowed is None else near[allowed[n, near]]
        rows[n] = convex_regressor(points[some, n], vertices, near)
        if other == n:
            rows[n] = (rows[n] + rows[n][mirror]) / 2
    return rows
