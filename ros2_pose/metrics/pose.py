"""The pose metrics of published results, from arrays with checked shapes.

Poses are (B, J, 3): B people or frames, J joints, in any one unit of length. An array of another
shape is an error and never broadcast. A joint that is NaN in one of two poses is left out of means;
functions that count it as wrong say so.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import chi2, spearmanr

from ros2_pose.skeleton import MPII16
from ros2_pose.tracking.kalman import squared_mahalanobis

_TINY = 1e-12
_LEAST_JOINTS = 3  # that define a rotation
_MPII_UNSCORED = [MPII16.index("pelvis"), MPII16.index("thorax")]
_HEAD_SHARE = 0.6  # of the diagonal of MPII's head box


def distances(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(B, J) distances between joints of poses (B, J, 3); NaN: one is unknown."""
    return np.linalg.norm(np.subtract(*_poses(found, truth)), axis=2)


def at_root(poses: np.ndarray, *root: int) -> np.ndarray:
    """(B, J, 3) poses relative to one of their joints, or to the mean of several (indices)."""
    poses, _ = _poses(poses, poses)
    return poses - poses[:, list(root)].mean(1, keepdims=True)


def mpjpe(found: np.ndarray, truth: np.ndarray, *root: int) -> np.ndarray:
    """(B,) mean per-joint position error; relative to the roots if root joints are given."""
    if root:
        found, truth = at_root(found, *root), at_root(truth, *root)
    return _mean_known(distances(found, truth))


def pa_mpjpe(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(B,) mean per-joint position error after alignment by a similarity transform."""
    return _mean_known(distances(aligned(found, truth), truth))


def pve(found: np.ndarray, truth: np.ndarray, found_root: np.ndarray,
        truth_root: np.ndarray) -> np.ndarray:
    """(B,) per-vertex error: mean distance of vertices (B, V, 3), relative to pelvises (B, 3).

    3DPW's protocol takes both pelvises from H36M's regressor, and the true mesh of the gender.
    """
    if not len(found) == len(found_root) == len(truth_root):
        raise ValueError(f"{len(found_root)} and {len(truth_root)} roots for {len(found)} meshes")
    found, truth = _poses(found, truth)
    return mpjpe(found - np.reshape(found_root, (-1, 1, 3)),
                 truth - np.reshape(truth_root, (-1, 1, 3)))


def mrpe(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Mean root position error of roots (B, 3), camera frame (Moon et al. 2019).

    People with an unknown root are left out.

    Returns: (4,) mean distance, and its components along x, y and z, in the unit of the roots.
    """
    difference = np.subtract(*_poses(np.asarray(found)[:, None], np.asarray(truth)[:, None]))[:, 0]
    parts = np.c_[np.linalg.norm(difference, axis=1), np.abs(difference)]
    return _mean_known(parts.T)


def aligned(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(B, J, 3) poses transformed by the similarity that brings each nearest to the truth.

    Never a reflection; by the joints known in both poses, NaN if fewer than three.

    Source: Umeyama 1991.
    """
    found, truth = _poses(found, truth)
    known = np.isfinite(found).all(2) & np.isfinite(truth).all(2)
    weight = known[..., None] / np.maximum(known.sum(1), 1)[:, None, None]
    centre, goal = (np.where(known[..., None], pose, 0.0) for pose in (found, truth))
    centre, goal = ((weight * pose).sum(1, keepdims=True) for pose in (centre, goal))
    arms, aims = (np.where(known[..., None], pose, 0.0) for pose in (found - centre, truth - goal))
    u, spread, vh = np.linalg.svd(np.swapaxes(weight * aims, 1, 2) @ arms)
    sign = np.ones_like(spread)
    sign[:, 2] = np.sign(np.linalg.det(u @ vh))
    rotmat = (u * sign[:, None]) @ vh
    size = (weight * arms**2).sum((1, 2))
    scale = (spread * sign).sum(1) / np.maximum(size, _TINY)
    out = scale[:, None, None] * (found - centre) @ np.swapaxes(rotmat, 1, 2) + goal
    return np.where((known.sum(1) >= _LEAST_JOINTS)[:, None, None], out, np.nan)


def pck(distance: np.ndarray, limit: float) -> float:
    """Share of distances (B, J) below a limit, 0..1; an unknown one (NaN) counts as not below."""
    return float((distance < limit).mean())


def pck_by_group(distance: np.ndarray, group: np.ndarray, limit: float) -> float:
    """Mean over groups of the `pck` of distances (B, J); group (B,): for instance the sequence."""
    if len(group) != len(distance):
        raise ValueError(f"{len(group)} groups for {len(distance)} poses")
    return float(np.mean([pck(distance[group == one], limit) for one in np.unique(group)]))


def pckh(found: np.ndarray, truth: np.ndarray, head_boxes: np.ndarray, share: float = 0.5) -> float:
    """PCKh by MPII's protocol: share of joints within 0.5 of the head's size, 0..1.

    The mean is over all joints but pelvis and thorax.

    Args:
        found, truth (B, 16, 2): px, order of MPII16; a joint missing in the truth (NaN) does not
            count, one not found is wrong.
        head_boxes (B, 4): x min, y min, x max, y max, px; the head's size is 0.6 of the diagonal.
        share: of the head's size.
    """
    found, truth = _poses(found, truth, 2)
    if truth.shape[1] != len(MPII16) or np.shape(head_boxes) != (len(truth), 4):
        raise ValueError(f"poses are {truth.shape}, boxes of heads {np.shape(head_boxes)}, "
                         f"expected (B, {len(MPII16)}, 2) and (B, 4)")
    size = _HEAD_SHARE * np.linalg.norm(head_boxes[:, 2:] - head_boxes[:, :2], axis=1)
    labelled = np.isfinite(truth).all(2)
    labelled[:, _MPII_UNSCORED] = False
    near = np.linalg.norm(found - truth, axis=2) <= share * size[:, None]
    return float(near[labelled].mean()) if labelled.any() else float("nan")


def acceleration_error(found: np.ndarray, truth: np.ndarray, seconds: float) -> np.ndarray:
    """(T - 2, J) m/s^2: errors of the accelerations of joints (T, J, 3) m, frames `seconds` apart.

    By second differences; NaN beside a missing frame.
    """
    found, truth = _poses(found, truth)
    return np.linalg.norm(np.diff(found - truth, 2, axis=0), axis=2) / seconds**2


def lag(found: np.ndarray, truth: np.ndarray, longest: int) -> float:
    """Frames by which poses found (T, J, 3) are later than the truth (T, J, 3).

    The shift at which velocities correlate best, interpolated by a parabola; NaN if the best is
    `longest`, the greatest shift tried, since that need not be a maximum.
    """
    found, truth = (np.diff(poses, axis=0).reshape(len(poses) - 1, -1)
                    for poses in _poses(found, truth))
    score = np.array([_correlation(*_overlap(found, truth, shift))
                      for shift in range(-longest, longest + 1)])
    best = int(np.argmax(np.nan_to_num(score, nan=-np.inf)))
    if best in (0, 2 * longest):
        return float("nan")
    before, here, after = score[best - 1:best + 2]
    return float(best - longest + (before - after) / (2 * (before - 2 * here + after)))


def _overlap(found: np.ndarray, truth: np.ndarray, shift: int) -> tuple[np.ndarray, np.ndarray]:
    """The parts of both that overlap when the truth is shifted by `shift` frames."""
    return found[max(shift, 0):len(found) + min(shift, 0)], \
        truth[max(-shift, 0):len(truth) - max(shift, 0)]


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    known = np.isfinite(a) & np.isfinite(b)
    a, b = a[known], b[known]
    return float(a @ b / max(np.sqrt((a @ a) * (b @ b)), _TINY))


def coverage(error: np.ndarray, cov: np.ndarray, share: float) -> float:
    """Observed share of errors inside the ellipsoids that hold the stated share of a Gaussian.

    Args:
        error (..., D), cov (..., D, D): in one unit of length; NaN: unknown, does not count.
        share: stated, 0..1.

    Returns: 0..1, NaN if nothing is known.

    Raises: ValueError if a covariance is not positive definite.
    """
    error, cov = _gaussians(error, cov)
    inside = squared_mahalanobis(error, cov) <= chi2.ppf(share, error.shape[-1])
    return float(inside.mean()) if len(error) else float("nan")


def gaussian_nll(error: np.ndarray, cov: np.ndarray) -> float:
    """Mean negative log likelihood, nats, of errors (..., D) with covariances (..., D, D).

    It depends on the unit of length: D log(1000) more in mm than in m. Unknown (NaN) ones do not
    count.
    """
    error, cov = _gaussians(error, cov)
    size = error.shape[-1] * np.log(2 * np.pi) + np.linalg.slogdet(cov)[1]
    squared = squared_mahalanobis(error, cov)
    return float((squared + size).mean() / 2) if len(error) else float("nan")


def rank_correlation(deviation: np.ndarray, error: np.ndarray) -> float:
    """Spearman's correlation of predicted standard deviations (N,) and magnitudes of errors (N,).

    1: less certain means a greater error, 0: no relation; NaN if one of them does not vary.
    """
    if np.shape(deviation) != np.shape(error) or np.ndim(error) != 1:
        raise ValueError(f"deviations are {np.shape(deviation)}, errors {np.shape(error)}")
    known = np.isfinite(deviation) & np.isfinite(error)
    deviation, error = deviation[known], error[known]
    if len(error) < 2 or not np.ptp(deviation) or not np.ptp(error):
        return float("nan")
    return float(spearmanr(deviation, error)[0])


def _gaussians(error: np.ndarray, cov: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The known errors (N, D) and covariances (N, D, D), checked to be positive definite."""
    size = error.shape[-1]
    if cov.shape != (*error.shape, size):
        raise ValueError(f"covariances are {cov.shape}, expected {(*error.shape, size)}")
    known = np.isfinite(error).all(-1) & np.isfinite(cov).all((-1, -2))
    error, cov = error[known], cov[known]
    if len(cov) and np.linalg.eigvalsh(cov).min() <= 0:
        raise ValueError("a covariance is not positive definite")
    return error, cov


def median_depth_error(found: np.ndarray, truth: np.ndarray) -> float:
    """Median of |z / z_true - 1| of depths (B,), any unit; unknown (NaN) ones do not count."""
    if np.shape(found) != np.shape(truth):
        raise ValueError(f"depths are {np.shape(found)} and {np.shape(truth)}")
    return float(np.nanmedian(np.abs(np.asarray(found) / truth - 1)))


def _poses(found: np.ndarray, truth: np.ndarray, size: int = 3) -> tuple[np.ndarray, np.ndarray]:
    found, truth = np.asarray(found, float), np.asarray(truth, float)
    if found.shape != truth.shape or found.ndim != 3 or found.shape[2] != size:
        raise ValueError(f"poses are {found.shape} and {truth.shape}, expected (B, J, {size}) "
                         "twice")
    return found, truth


def _mean_known(values: np.ndarray) -> np.ndarray:
    """(B,) mean of the known values (B, J); NaN if none is known."""
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(1)
    return np.where(known.any(1), total / np.maximum(known.sum(1), 1), np.nan)
