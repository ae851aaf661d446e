"""Landmarks of a posed rig and their derivatives by the unknowns of the fit, in NumPy.

The fit makes hundreds of calls on small arrays, which cost two to three times as much in torch.
What is trained with gradients uses `Rig.posed`; a test holds both to each other.

The 85 unknowns of a body are, in this order:
    rotations (24, 3): rad, a small rotation of each joint, with all joints below it, about the
        camera's axes through that joint;
    betas (10,);
    root (3,): m.

Rotations are compared by the chord c = 2 q_xyz of a unit quaternion with q_w >= 0, twice its vector
part. Its length is 2 sin(angle / 2), the chord of the arc; for small angles it is the rotation
vector, and its derivative is a polynomial.
Source: Markley 2003, Attitude Error Representations for Kalman Filtering (twice the vector part).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from ros2_pose.body.model import Rig, is_below, tree_levels
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
    """The landmarks of a rig: 24 joints, then K keypoints; M = 24 + K. See `Rig`.

    Landmarks are the last dimension of all arrays, the longest one: long inner loops.
    """

    def __init__(self, rig: Rig) -> None:
        self._parts = rig.parts.double().cpu().numpy()  # (24, 3, M) m
        by_beta = rig.parts_by_beta.double().cpu().numpy()  # (10, 24, 3, M)
        self._parts_by_beta = by_beta.reshape(10, -1)
        self._beta_columns = np.moveaxis(by_beta, 0, 2).reshape(ROTATIONS.stop, -1)  # (72, 10 M)

    def pose(self, rotmats: np.ndarray, betas: np.ndarray, root: np.ndarray) -> Pose:
        """Pose the landmarks.

        Args:
            rotmats (P, 24, 3, 3): rotation of each joint relative to its parent; [0]: body to
                camera.
            betas (P, 10).
            root (P, 3): m, the pelvis in the camera frame.
        Returns:
            global_rotmats (P, 24, 3, 3) body part to camera, parts (P, 24, 3, M) m of the
            landmarks in the axes of each joint, and landmarks (P, 3, M) m in the camera frame.
        """
        global_rotmats = _global_rotmats(rotmats)
        parts = (betas @ self._parts_by_beta).reshape(-1, *self._parts.shape) + self._parts
        offsets = _side_by_side(global_rotmats) @ parts.reshape(len(parts), ROTATIONS.stop, -1)
        return global_rotmats, parts, offsets + root[:, :, None]

    def jacobian(self, pose: Pose, by_landmark: np.ndarray, chosen: slice) -> np.ndarray:
        """Differentiate quantities of landmarks by the 85 unknowns (chain rule).

        A rotation w of a joint moves a landmark by w x lever arm: a quantity with the derivative a
        by its landmark changes by w (lever arm x a).

        Args:
            by_landmark (P, 3, R, N): derivative of R quantities by their landmark's position.
            chosen: the N landmarks among the M.
        Returns:
            (P, 85, R, N).
        """
        people, _, quantities, count = by_landmark.shape
        arms, by_beta = self._lever_arms(pose, chosen), self._by_beta(pose, chosen)
        jacobian = np.empty((people, UNKNOWNS, quantities, count))
        arms, by = arms[:, :, :, None], by_landmark[:, None]  # (P, 24, 3, 1, N), (P, 1, 3, R, N)
        for axis in range(3):
            after, last = (axis + 1) % 3, (axis + 2) % 3
            by_rotation = jacobian[:, axis:ROTATIONS.stop:3]  # (P, 24, R, N)
            np.multiply(arms[:, :, after], by[:, :, last], out=by_rotation)
            by_rotation -= arms[:, :, last] * by[:, :, after]
        jacobian[:, BETAS] = (by_beta[:, :, :, None] * by_landmark[:, :, None]).sum(1)
        jacobian[:, ROOT] = by_landmark
        return jacobian

    def landmark_jacobian(self, pose: Pose) -> np.ndarray:
        """(P, 85, 3, M) derivative of all landmarks, m, by the 85 unknowns."""
        arms = self._lever_arms(pose, slice(None))
        people, _, _, count = arms.shape
        jacobian = np.zeros((people, UNKNOWNS, 3, count))
        by_rotation = jacobian[:, ROTATIONS].reshape(people, -1, 3, 3, count)
        for axis in range(3):
            after, last = (axis + 1) % 3, (axis + 2) % 3
            by_rotation[:, :, axis, last] = arms[:, :, after]
            np.negative(arms[:, :, last], out=by_rotation[:, :, axis, after])
        jacobian[:, BETAS] = self._by_beta(pose, slice(None)).swapaxes(1, 2)
        jacobian[:, ROOT] = np.eye(3)[..., None]
        return jacobian

    def _lever_arms(self, pose: Pose, chosen: slice) -> np.ndarray:
        """(P, 24, 3, N) m from a joint to those parts of landmarks that are below it."""
        global_rotmats, parts, _ = pose
        in_camera = global_rotmats @ parts[..., chosen]
        return (_IS_BELOW @ in_camera.reshape(*in_camera.shape[:2], -1)).reshape(in_camera.shape)

    def _by_beta(self, pose: Pose, chosen: slice) -> np.ndarray:
        """(P, 3, 10, N) derivative of landmarks, m, by betas."""
        columns = _side_by_side(pose[0]).reshape(-1, ROTATIONS.stop) @ self._beta_columns
        return columns.reshape(len(pose[0]), 3, 10, -1)[..., chosen]


@lru_cache
def fit_rig(rig: Rig) -> FitRig:
    """Return the arrays of a rig, made once."""
    return FitRig(rig)


# ------------------------------------------------------------------------------- rotations


def rotmats_from_quats(quats: np.ndarray) -> np.ndarray:
    """Convert unit quaternions (..., 4) x, y, z, w to rotation matrices (..., 3, 3)."""
    products = (quats[..., :, None] * quats[..., None, :]).reshape(*quats.shape[:-1], 16)
    return (products @ _ROTMAT_TERMS).reshape(*quats.shape[:-1], 3, 3)


def rotmat_form(weights: np.ndarray) -> np.ndarray:
    """Return the quadratic form (4, 4) Q with q^T Q q = sum(weights * R(q)), weights (3, 3)."""
    form = (_ROTMAT_TERMS @ weights.reshape(9)).reshape(4, 4)
    return (form + form.T) / 2


def with_positive_scalar(quats: np.ndarray) -> np.ndarray:
    """Return those quaternions (..., 4) of the same rotations that have q_w >= 0."""
    return quats * np.copysign(1.0, quats[..., 3:])


def quat_jacobian(quats: np.ndarray) -> np.ndarray:
    """Differentiate rotations by a small rotation on the right.

    The first three rows are the derivative of the chord, if q_w >= 0.

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
