"""The measures that published numbers rest on, from arrays whose shapes are checked.

Poses are (B, J, 3): B people or frames, J joints, in any one unit of length. An array of another
shape is an error and never broadcast. A joint that is NaN in one of both poses is left out of a
mean; whoever counts what is missing as wrong says so.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.stats import chi2, spearmanr

from ros2_pose.skeleton import MPII16

_TINY = 1e-12
_LEAST_JOINTS = 3  # to turn a pose by
_MPII_UNSCORED = [MPII16.index("pelvis"), MPII16.index("thorax")]
_HEAD_SHARE = 0.6  # of the diagonal of MPII's head box


class RootError(NamedTuple):
    """Mean distance of places, and its parts along the camera's axes, in the places' unit."""

    distance: float
    x: float
    y: float
    z: float


def distances(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(B, J) between joints of poses (B, J, 3); NaN where one is not known."""
    return np.linalg.norm(np.subtract(*_poses(found, truth)), axis=2)


def at_root(poses: np.ndarray, *root: int) -> np.ndarray:
    """(B, J, 3) poses relative to one of their joints, or to the mean of several."""
    poses, _ = _poses(poses, poses)
    return poses - poses[:, list(root)].mean(1, keepdims=True)


def mpjpe(found: np.ndarray, truth: np.ndarray, *root: int) -> np.ndarray:
    """(B,) mean distance of joints, both poses relative to their roots, if roots are named."""
    if root:
        found, truth = at_root(found, *root), at_root(truth, *root)
    return _mean_known(distances(found, truth))


def pa_mpjpe(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(B,) mean distance of joints, each pose turned, scaled and moved onto the truth."""
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


def mrpe(found: np.ndarray, truth: np.ndarray) -> RootError:
    """Mean root position error of places (B, 3) in the camera frame (Moon et al. 2019); people
    who are not known are left out."""
    difference = np.subtract(*_poses(np.asarray(found)[:, None], np.asarray(truth)[:, None]))[:, 0]
    parts = np.c_[np.linalg.norm(difference, axis=1), np.abs(difference)]
    return RootError(*_mean_known(parts.T).tolist())


def aligned(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(B, J, 3) poses by the similarity that brings each nearest to the truth; never a reflection.

    Umeyama 1991, by the joints known in both; NaN where those are fewer than three.
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
    """Share of joints nearer to the truth than a limit; what is not known (NaN) is not near."""
    return float((distance < limit).mean())


def pck_by_group(distance: np.ndarray, group: np.ndarray, limit: float) -> float:
    """`pck` of distances (B, J) in each group (B,), for instance a sequence; mean over groups."""
    if len(group) != len(distance):
        raise ValueError(f"{len(group)} groups for {len(distance)} poses")
    return float(np.mean([pck(distance[group == one], limit) for one in np.unique(group)]))


def pckh(found: np.ndarray, truth: np.ndarray, head_boxes: np.ndarray, share: float = 0.5) -> float:
    """PCKh by MPII's protocol: share of joints no further off than 0.5 of the head's size.

    found, truth: (B, 16, 2) px in the order of MPII16; a joint that the truth does not have (NaN)
    does not count, one that was not found is wrong. head_boxes: (B, 4) x min, y min, x max, y max,
    px; the head's size is 0.6 of the diagonal. The mean is over joints, without pelvis and thorax.
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
    """(T - 2, J) m/s^2 between accelerations of joints (T, J, 3) m, frames so many s apart.

    By second differences, which no frame missing in between may spoil: NaN around those.
    """
    found, truth = _poses(found, truth)
    return np.linalg.norm(np.diff(found - truth, 2, axis=0), axis=2) / seconds**2


def lag(found: np.ndarray, truth: np.ndarray, longest: int) -> float:
    """Frames by which what was found comes later than the truth, of poses (T, J, 3).

    The shift at which velocities correlate best, between frames by a parabola; NaN where the best
    is the longest that is tried, which is no maximum.
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
    """What was found, and the truth of `shift` frames before."""
    return found[max(shift, 0):len(found) + min(shift, 0)], \
        truth[max(-shift, 0):len(truth) - max(shift, 0)]


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    known = np.isfinite(a) & np.isfinite(b)
    a, b = a[known], b[known]
    return float(a @ b / max(np.sqrt((a @ a) * (b @ b)), _TINY))


def coverage(error: np.ndarray, cov: np.ndarray, share: float) -> float:
    """How many errors (..., D) lie in the ellipsoids of covariances (..., D, D) that hold `share`
    of a Gaussian; errors that are not known (NaN) do not count, nor do covariances."""
    error, cov = _gaussians(error, cov)
    inside = mahalanobis_squared(error, cov) <= chi2.ppf(share, error.shape[-1])
    return float(inside.mean()) if len(error) else float("nan")


def gaussian_nll(error: np.ndarray, cov: np.ndarray) -> float:
    """Mean negative log density, nats, of errors (..., D) by Gaussians of covariances (..., D, D).

    It depends on the unit of length: D log(1000) more in mm than in m. Unknown ones do not count.
    """
    error, cov = _gaussians(error, cov)
    size = error.shape[-1] * np.log(2 * np.pi) + np.linalg.slogdet(cov)[1]
    squared = mahalanobis_squared(error, cov)
    return float((squared + size).mean() / 2) if len(error) else float("nan")


def rank_correlation(deviation: np.ndarray, error: np.ndarray) -> float:
    """Spearman's correlation of predicted deviations (N,) and sizes of true errors (N,).

    1: who is less certain errs more, 0: no relation. NaN where one of both does not vary.
    """
    if np.shape(deviation) != np.shape(error) or np.ndim(error) != 1:
        raise ValueError(f"deviations are {np.shape(deviation)}, errors {np.shape(error)}")
    known = np.isfinite(deviation) & np.isfinite(error)
    deviation, error = deviation[known], error[known]
    if len(error) < 2 or not np.ptp(deviation) or not np.ptp(error):
        return float("nan")
    return float(spearmanr(deviation, error)[0])


def _gaussians(error: np.ndarray, cov: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, D) and (N, D, D): what is known of both. A covariance that is none is an error."""
    size = error.shape[-1]
    if cov.shape != (*error.shape, size):
        raise ValueError(f"covariances are {cov.shape}, expected {(*error.shape, size)}")
    known = np.isfinite(error).all(-1) & np.isfinite(cov).all((-1, -2))
    error, cov = error[known], cov[known]
    if len(cov) and np.linalg.eigvalsh(cov).min() <= 0:
        raise ValueError("a covariance is not positive definite")
    return error, cov


def mahalanobis_squared(error: np.ndarray, cov: np.ndarray) -> np.ndarray:
    """(N,) Mahalanobis distances, squared, of errors (N, D) by covariances (N, D, D)."""
    return (error * np.linalg.solve(cov, error[..., None])[..., 0]).sum(-1)


def median_depth_error(found: np.ndarray, truth: np.ndarray) -> float:
    """Median of |z / z_true - 1| of depths (B,); the share that is not known is not in it."""
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
    """(B,) mean of (B, J) over what is known; NaN where nothing is."""
    known = np.isfinite(values)
    total = np.where(known, values, 0.0).sum(1)
    return np.where(known.any(1), total / np.maximum(known.sum(1), 1), np.nan)
