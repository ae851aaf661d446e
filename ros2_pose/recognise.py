"""Who of those just met was here before: by the shape of the body and the last place.

A newcomer is somebody who was forgotten if both are within what chi-square gates allow, and is the
one of them who is likeliest.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from ros2_pose.association import Track, height
from ros2_pose.motion import gate, seconds

_WALK = 0.7  # m/s: how far people get, standard deviation; they do not only walk away
_STATURE_M = 1.7
_IMAGE_STD = 0.3  # heights
_SIZE_STD, _SIZE_RATE = 0.15, 0.1  # of the logarithm of the height in the image, and per second
_GATE = gate(3, 0.99)
_SHAPE_STD = 0.7


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
        off = new.root.place - old.root.place
        spread = old.root.cov[:3, :3] + new.root.cov[:3, :3] + (_WALK * dt) ** 2 * np.eye(3)
    else:
        heights = height(np.stack([old.box, new.box]))
        size = np.log(heights[1] / heights[0])
        off = np.append((new.middle.place - old.middle.place) / heights.mean(), size)
        spread = np.diag([_IMAGE_STD + _WALK / _STATURE_M * dt] * 2
                         + [_SIZE_STD + _SIZE_RATE * dt]) ** 2
    surprise = off @ np.linalg.solve(spread, off)
    if surprise > _GATE:
        return np.inf
    return surprise + np.linalg.slogdet(spread)[1]
