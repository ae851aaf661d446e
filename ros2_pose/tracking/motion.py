"""Velocities of a tracked person's root and joints, filtered from the bodies that are fitted."""

from __future__ import annotations

import numpy as np

from ros2_pose.skeleton import SMPL24
from ros2_pose.tracking.association import ROOT_GATE
from ros2_pose.tracking.kalman import VelocityFilter, gate, seconds, squared_mahalanobis

# See `VelocityFilter`; speeds along an axis. They decay: people stop and turn, limbs swing back.
# Chosen on motion capture that is learned from, with simulated noise (`benchmarks.prediction`).
_ROOT_SPEED_M_S, _ROOT_PROCESS_NOISE, _ROOT_DECAY_S = 1.0, 0.2, 3.0
_LIMB_SPEED_M_S = {"elbow": 0.7, "wrist": 1.0, "hand": 1.0}
_JOINT_SPEED_M_S = np.array([_LIMB_SPEED_M_S.get(kind, 0.5) for kind in SMPL24.kinds])
_JOINT_DECAY_S = 0.15
_JOINT_GATE = gate(3, 0.99)  # a joint beyond it counts less
_LEAP_STD = 0.2  # m: a person who sets off or bends is no outlier

_STANDING = gate(3, 0.95)  # a velocity within it is not significant


def _root_filter(position: np.ndarray, cov: np.ndarray, stamp: int) -> VelocityFilter:
    """Start a root's filter at a measured position (3,), covariance (3, 3)."""
    return VelocityFilter(position, cov, stamp, _ROOT_SPEED_M_S, _ROOT_PROCESS_NOISE,
                          _ROOT_DECAY_S)


def filtered_root(root: VelocityFilter | None, position: np.ndarray, cov: np.ndarray,
                  stamp: int, patience_s: float) -> tuple[VelocityFilter, bool]:
    """Update a root's filter with a measured position (3,), covariance (3, 3).

    Positions outside the gate are left out; after patience_s of them the filter starts anew.

    Returns:
        the filter, and whether it has just started.
    """
    if root is None:
        return _root_filter(position, cov, stamp), True
    if stamp <= root.stamp:
        return root, False
    with_leap = cov + _LEAP_STD**2 * np.eye(3)
    if root.squared_mahalanobis(position[None], with_leap[None], stamp)[0] <= ROOT_GATE:
        root.update(position, cov, stamp)
    elif seconds(stamp - root.stamp) > patience_s:
        return _root_filter(position, cov, stamp), True
    return root, False


def velocity_of(root: VelocityFilter, still_m_s: float) -> np.ndarray:
    """(3,) m/s, exactly 0 for a person who seems to stand: below still_m_s and not significant."""
    velocity = root.velocity
    is_slow = np.linalg.norm(velocity) < still_m_s
    is_still = is_slow and squared_mahalanobis(velocity, root.velocity_cov) < _STANDING
    return np.zeros(3) if is_still else velocity


def filtered_joints(joints: VelocityFilter | None, positions: np.ndarray, cov: np.ndarray,
                    stamp: int) -> tuple[VelocityFilter, bool]:
    """Update the filter of a person's joints with measured positions (24, 3), cov (24, 3, 3).

    Returns:
        the filter, and whether it has just started.
    """
    if joints is None:
        return VelocityFilter(positions, cov, stamp, _JOINT_SPEED_M_S,
                              decay_s=_JOINT_DECAY_S), True
    if stamp > joints.stamp:
        joints.update(positions, cov, stamp, _JOINT_GATE)
    return joints, False
