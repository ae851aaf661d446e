"""Motion capture as SMPL rotation vectors: what is held back, implausible, mirrored, corrected.

The arrays come from `ros2_pose.data.bvh`: theta (N, 24, 3), rad, world frame with y up, each
rotation relative to the parent joint, and src (N,), the name of the trial of each pose.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from ros2_pose.body.prior import HINGES
from ros2_pose.skeleton import SMPL24

_MAX_ANGLE_RAD = 2.8
_MAX_BACKWARD_BEND_RAD = 0.5

# The shoulder girdle's share of an arm's elevation (scapulohumeral rhythm), and its limits.
_COLLAR_SHARE = 0.2
_COLLAR_RANGE_RAD = (np.radians(-15), np.radians(20))


def held_back(sources: np.ndarray) -> np.ndarray:
    """Mark the poses of the fifth of the trials that nothing is learned from.

    Args:
        sources (N,): trial names.
    Returns:
        (N,) bool.
    """
    return np.isin(sources, np.unique(sources)[4::5])


def plausible(theta: np.ndarray) -> np.ndarray:
    """Mark the poses in which retargeting has not flipped a joint over.

    Args:
        theta (N, 24, 3): rotation vectors, rad.
    Returns:
        (N,) bool.
    """
    angle = np.linalg.norm(theta[:, 1:], axis=2)
    bends_back = [(theta[:, SMPL24.index(joint), axis] * sign) < -_MAX_BACKWARD_BEND_RAD
                  for joint, axis, sign in HINGES]
    return (angle < _MAX_ANGLE_RAD).all(1) & ~np.any(bends_back, 0)


def mirrored(theta: np.ndarray) -> np.ndarray:
    """Exchange left and right: rotation vectors (N, 24, 3) of the poses seen in a mirror."""
    return theta[:, SMPL24.mirror] * np.array([1.0, -1.0, -1.0])


def with_collars(theta: np.ndarray) -> np.ndarray:
    """Let the collars follow the arms without moving the arms.

    The collars of the data are rigid in the T-pose, about 12 degrees too high for lowered arms.

    Args:
        theta (N, 24, 3): rotation vectors, rad.
    Returns:
        (N, 24, 3): a copy with other collars and shoulders.
    """
    theta = theta.copy()
    for side, sign in (("left", 1.0), ("right", -1.0)):
        collar, shoulder = SMPL24.index(f"{side}_collar"), SMPL24.index(f"{side}_shoulder")
        rotation = Rotation.from_rotvec(theta[:, shoulder])
        arm_direction = rotation.apply([sign, 0.0, 0.0])
        elevation = np.arcsin(np.clip(arm_direction[:, 1], -1, 1))
        up = sign * np.clip(_COLLAR_SHARE * elevation, *_COLLAR_RANGE_RAD)
        girdle = Rotation.from_rotvec(up[:, None] * [0.0, 0.0, 1.0])
        theta[:, collar] = girdle.as_rotvec()
        theta[:, shoulder] = (girdle.inv() * rotation).as_rotvec()
    return theta
