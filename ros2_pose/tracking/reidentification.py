"""Who of those just met was here before: by the shape of the body and the last place.

A newcomer is somebody who was forgotten if both are within what chi-square gates allow, and is the
one of them who is likeliest.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from ros2_pose.tracking.association import Track, height
from ros2_pose.tracking.kalman import gate, seconds

_ROAM = 0.6  # m per root of a second: how far people get, who come back
_STATURE_M = 1.7
_IMAGE_STD = 0.3  # heights
_SIZE_STD, _SIZE_ROAM = 0.15, 0.1  # of the logarithm of the height in the image; as _ROAM
_POSITION_GATE = gate(3, 0.95)
_POSITION_ALONE_S = 5.0  # unseen for longer, a place in the image says nothing
_SHAPE_STD = 0.25  # of betas, of one person: on MuPoTS 0.14 at most; of two persons up to 0.3
_SHAPE_GATE = gate(10, 0.99)


def recognised(gone: list[Track], new: list[Track], stamp: int) -> list[tuple[Track, Track]]:
    """Pairs of those gone and those new who are the same."""
    if not gone or not new:
        return []
    unlike = np.array([[_unlikeness(old, one, stamp) for one in new] for old in gone])
    able = np.isfinite(unlike)
    cost = np.where(able, unlike, unlike[able].max(initial=0) + 1e6)
    return [(gone[g], new[n]) for g, n in zip(*linear_sum_assignment(cost)) if able[g, n]]


def _unlikeness(old: Track, new: Track, stamp: int) -> float:
    """Minus twice the log-likelihood, up to a constant; infinite outside the gates."""
    dt = seconds(stamp - old.seen)
    if old.root is not None and new.root is not None:
        off = new.root.position - old.root.position
        spread = old.root.cov[:3, :3] + new.root.cov[:3, :3] + _ROAM**2 * dt * np.eye(3)
    elif dt > _POSITION_ALONE_S:
        return np.inf
    else:
        heights = height(np.stack([old.box, new.box]))
        size = np.log(heights[1] / heights[0])
        off = np.append((new.middle.position - old.middle.position) / heights.mean(), size)
        spread = np.diag([_IMAGE_STD**2 + (_ROAM / _STATURE_M) ** 2 * dt] * 2
                         + [_SIZE_STD**2 + _SIZE_ROAM**2 * dt])
    squared_mahalanobis = off @ np.linalg.solve(spread, off)
    if not squared_mahalanobis <= _POSITION_GATE:
        return np.inf
    return squared_mahalanobis + _unlike_shape(old, new) + np.linalg.slogdet(spread)[1]


def _unlike_shape(old: Track, new: Track) -> float:
    """The same of the bodies; 0 if they are not known."""
    if old.shape is None or new.shape is None:
        return 0.0
    squared_mahalanobis = float((((new.shape - old.shape) / _SHAPE_STD) ** 2).sum())
    return squared_mahalanobis if squared_mahalanobis <= _SHAPE_GATE else np.inf
