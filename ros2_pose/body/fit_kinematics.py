"""Landmarks of a posed rig and their derivatives by the unknowns of the fit, in NumPy.

The fit makes hundreds of calls on small arrays, which cost two to three times as much in torch.
What is trained with gradients uses `Rig.posed`; a test holds both to each other.

The 85 unknowns of a body are, in this order:
    rotations (24, 3): rad, a small rotation of each joint, with all joints below it, about the
        camera's axes through that joint;
    betas (10,);
    root (3,): m.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from ros2_pose.body.model import JOINTS, Rig, is_below, tree_levels
from ros2_pose.body.so3 import rotmat_terms
from ros2_pose.skeleton import SMPL24

ROTATIONS = slice(0, 3 * len(SMPL24))
ROOT_ROTATION = slice(0, 3)
BETAS = slice(ROTATIONS.stop, ROTATIONS.stop + 10)
ROOT = slice(BETAS.stop, BETAS.stop + 3)
SHAPE_AND_ROOT = slice(BETAS.start, ROOT.stop)
UNKNOWNS = ROOT.stop

Pose = tuple[np.ndarray, np.ndarray, np.ndarray]  # see `FitRig.pose`


class FitRig:
    """The landmarks of a rig: 24 joints, then K keypoints; M = 24 + K. See `Rig`."""

    def __init__(self, rig: Rig) -> None:
        self._parts = rig.parts.double().cpu().numpy()  # (24, 3, M) m
        by_beta = rig.parts_by_beta.double().cpu().numpy()  # (10, 24, 3, M)
        self._parts_by_beta = by_beta.reshape(10, -1)
        self._beta_columns = np.moveaxis(by_beta, 0, 3).reshape(ROTATIONS.stop, -1)  # (72, M * 10)

    def pose(self, rotmats: np.ndarray, betas: np.ndarray, root: np.ndarray) -> Pose:
        """Pose the landmarks.

        Args:
            rotmats (P, 24, 3, 3): rotation of each joint relative to its parent; [0]: body to
                camera.
            betas (P, 10).
            root (P, 3): m, the pelvis in the camera frame.
        Returns:
            global_rotmats (P, 24, 3, 3) body part to camera, parts (P, 24, 3, M) m of the
            landmarks in the axes of each joint, and landmarks (P, M, 3) m in the camera frame.
        """
        global_rotmats = _global_rotmats(rotmats)
        parts = (betas @ self._parts_by_beta).reshape(-1, *self._parts.shape) + self._parts
        offsets = _side_by_side(global_rotmats) @ parts.reshape(len(parts), ROTATIONS.stop, -1)
        return global_rotmats, parts, offsets.swapaxes(1, 2) + root[:, None]

    def jacobian(self, pose: Pose, by_landmark: np.ndarray, chosen: slice,
                 out: np.ndarray | None = None) -> np.ndarray:
        """Differentiate quantities of landmarks by the 85 unknowns (chain rule).

        A rotation w of a joint moves the parts below it, and a landmark by w x lever arm: a
        quantity with the derivative a by its landmark changes by w (lever arm x a).

        Args:
            by_landmark (P, N, R, 3): derivative of R quantities by their landmark's position.
            chosen: the N landmarks among the M.
            out (P, N, R, 85): where the result is written to; None: a new array.
        Returns:
            (P, N, R, 85).
        """
        global_rotmats, parts, _ = pose
        in_camera = global_rotmats @ parts[..., chosen]
        lever_arms = (_IS_BELOW @ in_camera.reshape(*in_camera.shape[:2], -1))
        lever_arms = lever_arms.reshape(in_camera.shape).transpose(0, 3, 1, 2)  # (P, N, 24, 3)
        columns = _side_by_side(global_rotmats) @ self._beta_columns
        by_beta = columns.reshape(len(parts), 3, -1, 10)[:, :, chosen].swapaxes(1, 2)
        jacobian = np.empty((*by_landmark.shape[:3], UNKNOWNS)) if out is None else out
        _cross(lever_arms[:, :, None], by_landmark[..., None, :], out=jacobian[..., ROTATIONS])
        np.matmul(by_landmark, by_beta, out=jacobian[..., BETAS])
        jacobian[..., ROOT] = by_landmark
        return jacobian

    def joint_jacobian(self, pose: Pose) -> np.ndarray:
        """Return (P, 24, 3, 85), the derivative of the joints, m, by the 85 unknowns."""
        axes = np.broadcast_to(np.eye(3), (len(pose[0]), len(SMPL24), 3, 3))
        return self.jacobian(pose, axes, JOINTS)


@lru_cache
def fit_rig(rig: Rig) -> FitRig:
    """Return the arrays of a rig, made once."""
    return FitRig(rig)


def _cross(left: np.ndarray, right: np.ndarray, out: np.ndarray) -> None:
    """Write cross products of vectors (..., 24, 3) and (..., 1, 3) to out (..., 72)."""
    for axis in range(3):
        after, last = (axis + 1) % 3, (axis + 2) % 3
        out[..., axis::3] = left[..., after] * right[..., last]
        out[..., axis::3] -= left[..., last] * right[..., after]


# ------------------------------------------------------------------------------- rotations


def rotmats_from_quats(quats: np.ndarray) -> np.ndarray:
    """Convert unit quaternions (..., 4) x, y, z, w to rotation matrices (..., 3, 3)."""
    products = (quats[..., :, None] * quats[..., None, :]).reshape(*quats.shape[:-1], 16)
    return (products @ _ROTMAT_TERMS).reshape(*quats.shape[:-1], 3, 3)


def with_positive_scalar(quats: np.ndarray) -> np.ndarray:
    """Return those quaternions (..., 4) of the same rotations that have q_w >= 0."""
    return quats * np.copysign(1.0, quats[..., 3:])


def quat_jacobian(quats: np.ndarray) -> np.ndarray:
    """Differentiate rotations by a small rotation on the right.

    The first three rows are the derivative of the chord (see `kinematics`), if q_w >= 0.

    Args:
        quats (..., 4): unit quaternions q, x, y, z, w.
    Returns:
        (..., 4, 3) derivative of 2 q exp(w) by a small rotation vector w, rad.
    """
    return (quats @ _JACOBIAN_TERMS).reshape(*quats.shape, 3)


def rotated(quats: np.ndarray, rotvecs: np.ndarray) -> np.ndarray:
    """Multiply rotations by small rotations on the right: q exp(w) to first order, normalised.

    Args:
        quats (..., 4): unit quaternions q, x, y, z, w.
        rotvecs (..., 3): small rotation vectors w, rad.
    Returns:
        (..., 4) unit quaternions.
    """
    moved = quats + (quat_jacobian(quats) @ rotvecs[..., None])[..., 0] / 2
    return moved / np.sqrt((moved * moved).sum(-1, keepdims=True))


def _global_rotmats(rotmats: np.ndarray) -> np.ndarray:
    """(P, 24, 3, 3) rotations (P, 24, 3, 3) relative to the parents, accumulated along the tree."""
    accumulated = rotmats.copy()
    before = accumulated[:, :1]
    for children, parents in _LEVELS:
        level = accumulated[:, children]
        before = np.matmul(before[:, parents], level)
        level[...] = before
    return accumulated


def _side_by_side(global_rotmats: np.ndarray) -> np.ndarray:
    """(P, 3, 72) the matrices (P, 24, 3, 3) beside each other: their product sums over joints."""
    return global_rotmats.swapaxes(1, 2).reshape(len(global_rotmats), 3, ROTATIONS.stop)


def _jacobian_terms() -> np.ndarray:
    """(4, 12): d(2 q_xyz)/dw = q_w 1 + [q_xyz]x and d(2 q_w)/dw = -q_xyz for q exp(w)."""
    out = np.zeros((4, 4, 3))
    out[3, :3] = np.eye(3)
    out[:3, 3] = -np.eye(3)
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        out[i, k, j], out[i, j, k] = 1, -1
    return out.reshape(4, 12)


_IS_BELOW = is_below()
_JACOBIAN_TERMS = _jacobian_terms()
_ROTMAT_TERMS = rotmat_terms().double().numpy()
_LEVELS = [(children, parents if isinstance(parents, slice) else parents.numpy())
           for children, parents in tree_levels(torch.device("cpu"))]
