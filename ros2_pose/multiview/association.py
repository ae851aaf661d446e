"""Who is who between cameras: people of several views, put together by how likely they are one.

Two people of two views are one or they are not; both hypotheses say how far apart their keypoints
are from each other's epipolar lines, and their bodies from each other in space. The log odds of all
pairs are put together into persons by correlation clustering: of one view at most one, and what a
third view contradicts stays apart.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_APART_ALONG_M, _APART_M = 0.5, 1.5  # of two different people: from epipolar lines, in space
_MEANING_M = 0.03  # of a keypoint's definition, which differs with the point of view
_POSE_M = 0.1  # of a joint's place in the body, on top of its covariance: one view is often wrong
# Errors of one body are alike: so many keypoints, and joints, are worth as independent ones.
_INDEPENDENT_POINTS, _INDEPENDENT_JOINTS = 8.0, 2.0
_WORST = -4.0  # log odds by one keypoint: an outlier is not everything
_PRIOR = -1.0  # log odds of two people before looking
_TINY = 1e-12


class ViewDetections(NamedTuple):
    """N people of all views, NaN where something is not known."""

    view: np.ndarray  # (N,) the camera
    rays: np.ndarray  # (N, 17, 2) normalised, undistorted keypoints
    cov: np.ndarray  # (N, 17, 2, 2)
    joints: np.ndarray  # (N, 24, 3) m, common frame
    joint_cov: np.ndarray  # (N, 24, 3, 3) m^2
    distance: np.ndarray  # (N,) m along the optical axis


def correspond(
    bodies: ViewDetections, poses: np.ndarray, before: np.ndarray | None = None
) -> np.ndarray:
    """(N,) the person that each is, numbered from 0 in the order of their first appearance.

    poses: (V, 4, 4) camera to common frame. before: (N, N) log odds of two being one by what was
    known before looking; None: nothing.
    """
    odds = log_odds(bodies, poses)
    return cluster(odds if before is None else odds + before)


def log_odds(bodies: ViewDetections, poses: np.ndarray) -> np.ndarray:
    """(N, N) that two are one; -inf for two of one view."""
    a, b = np.nonzero(bodies.view[:, None] < bodies.view[None])
    odds = np.full((len(bodies.view),) * 2, -np.inf)
    with np.errstate(all="ignore"):
        odds[a, b] = _PRIOR + _by_lines(bodies, poses, a, b) + _by_places(bodies, a, b)
    return np.maximum(odds, odds.T)


def _by_lines(
    bodies: ViewDetections, poses: np.ndarray, a: np.ndarray, b: np.ndarray
) -> np.ndarray:
    """(M,) log odds of pairs by their keypoints' distances from epipolar lines."""
    essential = _essential(poses[bodies.view[a]], poses[bodies.view[b]])[:, None]
    rays = np.concatenate([bodies.rays, np.ones_like(bodies.rays[..., :1])], 2)
    lines_b = (essential @ rays[a, ..., None])[..., 0]
    by_a = (np.swapaxes(essential, 2, 3) @ rays[b, ..., None])[..., :2, 0]
    by_b = lines_b[..., :2]
    error = (rays[b] * lines_b).sum(2)
    length_a, length_b = ((by**2).sum(2) / bodies.distance[of, None] ** 2
                          for by, of in ((by_a, a), (by_b, b)))
    unit = length_a + length_b  # variance of the error for 1 m at both
    together = _spread(by_a, bodies.cov[a]) + _spread(by_b, bodies.cov[b]) + _MEANING_M**2 * unit
    apart = together + _APART_ALONG_M**2 * unit
    odds = (np.log(apart / together) - error**2 / together + error**2 / apart) / 2
    known = np.isfinite(odds) & (together > _TINY)
    total = np.where(known, np.maximum(odds, _WORST), 0.0).sum(1)
    return total * np.minimum(1.0, _INDEPENDENT_POINTS / np.maximum(known.sum(1), 1))


def _essential(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(M, 3, 3) E with x2^T E x1 = 0 for rays of one point, of poses (M, 4, 4)."""
    back = np.swapaxes(second[:, :3, :3], 1, 2)
    rotmat = back @ first[:, :3, :3]
    shift = (back @ (first[:, :3, 3] - second[:, :3, 3])[..., None])[..., 0]
    return np.cross(shift[:, None], np.swapaxes(rotmat, 1, 2)).swapaxes(1, 2)


def _spread(direction: np.ndarray, cov: np.ndarray) -> np.ndarray:
    """(...) variance along directions (..., 2) of covariances (..., 2, 2)."""
    return np.einsum("...i,...ij,...j->...", direction, cov, direction)


def _by_places(bodies: ViewDetections, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(M,) log odds of pairs by their bodies' joints; 0 where there is no body."""
    error = bodies.joints[a] - bodies.joints[b]
    together = bodies.joint_cov[a] + bodies.joint_cov[b] + _POSE_M**2 * np.eye(3)
    apart = together + _APART_M**2 * np.eye(3)
    known = np.isfinite(error).all((1, 2)) & np.isfinite(together).all((1, 2, 3))
    together, apart = (
        np.where(known[:, None, None, None], cov, np.eye(3)) for cov in (together, apart)
    )
    odds = (np.linalg.slogdet(apart)[1] - np.linalg.slogdet(together)[1]
            - _squared(error, together) + _squared(error, apart)) / 2
    odds = _INDEPENDENT_JOINTS * odds.mean(1)
    return np.where(known, odds, 0.0)


def _squared(error: np.ndarray, cov: np.ndarray) -> np.ndarray:
    return (error * np.linalg.solve(cov, error[..., None])[..., 0]).sum(-1)


def cluster(odds: np.ndarray) -> np.ndarray:
    """(N,) numbers of the clusters of which the sum of log odds (N, N) within is largest.

    Pairs with -inf are never in one. Greedy: the two clusters that gain most are joined, then
    single ones move to where they fit better, until nothing gains.
    """
    count = len(odds)
    inside = np.eye(count, dtype=bool)  # (clusters, N)
    while len(inside) > 1:
        gain = _sums(odds, inside, inside)
        np.fill_diagonal(gain, -np.inf)
        i, j = np.unravel_index(gain.argmax(), gain.shape)
        if not gain[i, j] > 0:
            break
        inside[i] |= inside[j]
        inside = np.delete(inside, j, 0)
    return _numbered(_with_moves(odds, inside))


def _sums(odds: np.ndarray, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(L, R) sums of log odds between clusters (L, N) and (R, N); -inf where any pair's is."""
    never = np.isneginf(odds)
    total = left.astype(float) @ np.where(never, 0.0, odds) @ right.T
    return np.where(left.astype(int) @ never @ right.T > 0, -np.inf, total)


def _with_moves(odds: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Clusters (C, N) after moving single ones while that gains; one may begin a cluster."""
    odds = odds.copy()
    np.fill_diagonal(odds, 0.0)
    for _ in range(4 * len(odds)):
        inside = np.concatenate([inside, np.zeros((1, len(odds)), bool)])
        worth = _sums(odds, np.eye(len(odds), dtype=bool), inside)  # (N, C)
        gain = worth - worth[inside.T].reshape(len(odds), 1)
        one, to = np.unravel_index(gain.argmax(), gain.shape)
        if not gain[one, to] > 1e-9:
            break
        inside[:, one] = False
        inside[to, one] = True
        inside = inside[inside.any(1)]
    return inside[inside.any(1)]


def _numbered(inside: np.ndarray) -> np.ndarray:
    """(N,) numbers of clusters (C, N), in the order of their first members."""
    if not inside.size:
        return np.zeros(0, int)
    label = inside.argmax(0)
    _, first, number = np.unique(label, return_index=True, return_inverse=True)
    return first.argsort().argsort()[number]
