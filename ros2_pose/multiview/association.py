"""Association between cameras: groups the people of several views into persons.

Two people of two views are one person or two; under both hypotheses it is known how far their
keypoints lie from each other's epipolar lines, and their bodies from each other in space. The log
odds of all pairs are partitioned by correlation clustering: a person has at most one detection in a
view, and pairs that a third view contradicts are separated.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ros2_pose.tracking.kalman import squared_mahalanobis

_APART_ALONG_M, _APART_M = 0.5, 1.5  # std between different people: epipolar lines, space
_MEANING_M = 0.03  # std of a keypoint's definition, which differs with the point of view
_POSE_M = 0.1  # std of a joint in the body on top of its covariance: one view is often wrong
# Errors within one body are correlated: this many keypoints, and joints, count as independent.
_INDEPENDENT_POINTS, _INDEPENDENT_JOINTS = 8.0, 2.0
_WORST = -4.0  # log odds by one keypoint: bounds the influence of an outlier
_PRIOR = -1.0  # log odds of two people without evidence
_SMALLEST_GAIN = 1e-9  # of a move: below it, rounding could alternate for ever
_TINY = 1e-12


class ViewDetections(NamedTuple):
    """N people of all views; NaN where something is not known."""

    view: np.ndarray  # (N,) index of the camera
    rays: np.ndarray  # (N, 17, 2) normalised, undistorted keypoints
    cov: np.ndarray  # (N, 17, 2, 2)
    joints: np.ndarray  # (N, 24, 3) m, common frame
    joint_cov: np.ndarray  # (N, 24, 3, 3) m^2
    distance: np.ndarray  # (N,) m along the optical axis


def associate_views(detections: ViewDetections, extrinsics: np.ndarray,
                    prior: np.ndarray | None = None) -> np.ndarray:
    """Group N detections into persons.

    Args:
        extrinsics (V, 4, 4): camera to common frame.
        prior (N, N): log odds of pairs by earlier frames; None without any.
    Returns:
        (N,) number of the person, from 0 in the order of first appearance.
    """
    odds = log_odds(detections, extrinsics)
    return cluster(odds if prior is None else odds + prior)


def log_odds(detections: ViewDetections, extrinsics: np.ndarray) -> np.ndarray:
    """Return (N, N) log odds that two detections are of one person; -inf within one view.

    Args:
        extrinsics (V, 4, 4): camera to common frame.
    """
    a, b = np.nonzero(detections.view[:, None] < detections.view[None])
    odds = np.full((len(detections.view),) * 2, -np.inf)
    with np.errstate(all="ignore"):
        by_keypoints = _epipolar_log_odds(detections, extrinsics, a, b)
        odds[a, b] = _PRIOR + by_keypoints + _joint_log_odds(detections, a, b)
    return np.maximum(odds, odds.T)


def _epipolar_log_odds(detections: ViewDetections, extrinsics: np.ndarray, a: np.ndarray,
                       b: np.ndarray) -> np.ndarray:
    """(M,) log odds of pairs a, b (M,) by their keypoints' distances from epipolar lines."""
    essential = _essential(extrinsics[detections.view[a]], extrinsics[detections.view[b]])
    essential = essential[:, None]
    rays = np.concatenate([detections.rays, np.ones_like(detections.rays[..., :1])], 2)
    lines_b = (essential @ rays[a, ..., None])[..., 0]
    gradient_a = (np.swapaxes(essential, 2, 3) @ rays[b, ..., None])[..., :2, 0]
    gradient_b = lines_b[..., :2]
    error = (rays[b] * lines_b).sum(2)  # x_b^T E x_a: 0 for rays that meet
    # Variance of that error for 1 m at both people.
    per_m2 = (gradient_a**2).sum(2) / detections.distance[a, None] ** 2 \
        + (gradient_b**2).sum(2) / detections.distance[b, None] ** 2
    measured = _variance_along(gradient_a, detections.cov[a]) \
        + _variance_along(gradient_b, detections.cov[b])
    together = measured + _MEANING_M**2 * per_m2
    apart = together + _APART_ALONG_M**2 * per_m2
    odds = (np.log(apart / together) - error**2 / together + error**2 / apart) / 2
    known = np.isfinite(odds) & (together > _TINY)
    total = np.where(known, np.maximum(odds, _WORST), 0.0).sum(1)
    return total * np.minimum(1.0, _INDEPENDENT_POINTS / np.maximum(known.sum(1), 1))


def _essential(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(M, 3, 3) essential matrices, x2^T E x1 = 0 for rays of one point, of extrinsics (M, 4, 4).

    Source: Hartley and Zisserman 2004, Multiple View Geometry, eq. 9.12.
    """
    back = np.swapaxes(second[:, :3, :3], 1, 2)
    rotmat = back @ first[:, :3, :3]
    shift = (back @ (first[:, :3, 3] - second[:, :3, 3])[..., None])[..., 0]
    return np.cross(shift[:, None], np.swapaxes(rotmat, 1, 2)).swapaxes(1, 2)


def _variance_along(direction: np.ndarray, cov: np.ndarray) -> np.ndarray:
    """(...) d^T C d of directions (..., 2) and covariances (..., 2, 2)."""
    return np.einsum("...i,...ij,...j->...", direction, cov, direction)


def _joint_log_odds(detections: ViewDetections, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(M,) log odds of pairs a, b (M,) by their bodies' joints; 0 without a body."""
    error = detections.joints[a] - detections.joints[b]
    together = detections.joint_cov[a] + detections.joint_cov[b] + _POSE_M**2 * np.eye(3)
    apart = together + _APART_M**2 * np.eye(3)
    known = np.isfinite(error).all((1, 2)) & np.isfinite(together).all((1, 2, 3))
    together = np.where(known[:, None, None, None], together, np.eye(3))
    apart = np.where(known[:, None, None, None], apart, np.eye(3))
    log_ratio = np.linalg.slogdet(apart)[1] - np.linalg.slogdet(together)[1]
    odds = (log_ratio - squared_mahalanobis(error, together)
            + squared_mahalanobis(error, apart)) / 2
    return np.where(known, _INDEPENDENT_JOINTS * odds.mean(1), 0.0)


def cluster(odds: np.ndarray) -> np.ndarray:
    """Partition N items such that the sum of log odds (N, N) within clusters is largest.

    Pairs with -inf are never in one cluster. Greedy: the two clusters that gain most are joined,
    then single items move to where they fit better, until nothing gains.

    Returns:
        (N,) number of the cluster, from 0 in the order of first members.
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
    """Clusters (C, N) after moving single items while that gains; one may begin a cluster."""
    odds = odds.copy()
    np.fill_diagonal(odds, 0.0)
    for _ in range(4 * len(odds)):
        inside = np.concatenate([inside, np.zeros((1, len(odds)), bool)])
        in_cluster = _sums(odds, np.eye(len(odds), dtype=bool), inside)  # (N, C)
        gain = in_cluster - in_cluster[inside.T].reshape(len(odds), 1)
        item, to = np.unravel_index(gain.argmax(), gain.shape)
        if not gain[item, to] > _SMALLEST_GAIN:
            break
        inside[:, item] = False
        inside[to, item] = True
        inside = inside[inside.any(1)]
    return inside[inside.any(1)]


def _numbered(inside: np.ndarray) -> np.ndarray:
    """(N,) numbers of clusters (C, N), in the order of their first members."""
    if not inside.size:
        return np.zeros(0, int)
    label = inside.argmax(0)
    _, first, number = np.unique(label, return_index=True, return_inverse=True)
    return first.argsort().argsort()[number]
