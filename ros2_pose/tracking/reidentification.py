"""Re-identification of people who were forgotten, by body shape and last position.

A new person is a forgotten one if position and shape are within chi-square gates; among several,
the likeliest one.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from ros2_pose.tracking.kalman import gate, seconds
from ros2_pose.tracking.track import Track, height

_ROAM = 0.6  # m per root of a second: how far people get before they come back
_STATURE_M = 1.7
_IMAGE_STD = 0.3  # heights
_SIZE_STD, _SIZE_ROAM = 0.15, 0.1  # of the logarithm of the height in the image; see _ROAM
_POSITION_GATE = gate(3, 0.95)
_POSITION_ALONE_S = 5.0  # unseen for longer, a position in the image says nothing
_SHAPE_STD = 0.25  # of betas, of one person: on MuPoTS 0.14 at most; of two persons up to 0.3
_SHAPE_GATE = gate(10, 0.99)


def reidentified(gone: list[Track], new: list[Track], stamp: int) -> list[tuple[Track, Track]]:
    """Return pairs of a forgotten and a new track of the same person.

    Args:
        gone: tracks that were forgotten.
        new: tracks that began with the frame.
        stamp: ns, of the frame.
    """
    if not gone or not new:
        return []
    costs = np.array([[_cost(old, one, stamp) for one in new] for old in gone])
    possible = np.isfinite(costs)
    finite = np.where(possible, costs, costs[possible].max(initial=0) + 1e6)
    assigned = zip(*linear_sum_assignment(finite))
    return [(gone[g], new[n]) for g, n in assigned if possible[g, n]]


def _cost(old: Track, new: Track, stamp: int) -> float:
    """Minus twice the log-likelihood of one person, up to a constant; inf outside the gates."""
    dt = seconds(stamp - old.seen)
    if old.root is not None and new.root is not None:
        error = new.root.position - old.root.position
        cov = old.root.cov + new.root.cov + _ROAM**2 * dt * np.eye(3)
    elif dt > _POSITION_ALONE_S:
        return np.inf
    else:
        heights = height(np.stack([old.box, new.box]))
        growth = np.log(heights[1] / heights[0])
        error = np.append((new.trunk.position - old.trunk.position) / heights.mean(), growth)
        position_variance = _IMAGE_STD**2 + (_ROAM / _STATURE_M) ** 2 * dt
        size_variance = _SIZE_STD**2 + _SIZE_ROAM**2 * dt
        cov = np.diag([position_variance, position_variance, size_variance])
    distance = error @ np.linalg.solve(cov, error)
    if not distance <= _POSITION_GATE:
        return np.inf
    return distance + _shape_cost(old, new) + np.linalg.slogdet(cov)[1]


def _shape_cost(old: Track, new: Track) -> float:
    """Squared Mahalanobis distance of the betas, inf outside the gate; 0 if they are not known."""
    if old.shape is None or new.shape is None:
        return 0.0
    distance = float((((new.shape - old.shape) / _SHAPE_STD) ** 2).sum())
    return distance if distance <= _SHAPE_GATE else np.inf
