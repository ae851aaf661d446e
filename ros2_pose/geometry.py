"""Rigid transforms: `Transform` is the package's only type for SE(3). Without torch.

Rotations in torch are in `body.so3`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial.transform import Rotation

from ros2_pose.errors import PoseError

_ROTATION_TOLERANCE = 1e-3  # of the elements of R R^T - I: matrices in files are rounded


class TransformError(PoseError):
    """Raised for a transform that is unusable or unknown; the message says which and why."""


@dataclass(frozen=True, eq=False)
class Transform:
    """A rigid transform `a_from_b`: takes points of frame b to frame a, rotation first.

    Args:
        rotation: from the axes of b to those of a.
        translation_m (3,): origin of b in a, m.
    """

    rotation: Rotation
    translation_m: np.ndarray

    @staticmethod
    def identity() -> Transform:
        """The transform from a frame to itself."""
        return Transform(Rotation.identity(), np.zeros(3))

    @staticmethod
    def from_xyz_quat(xyz_quat: Sequence[float]) -> Transform:
        """Make a transform of seven numbers: x, y, z in m, then quaternion x, y, z, w."""
        return Transform(Rotation.from_quat(xyz_quat[3:]), np.array(xyz_quat[:3], float))

    @staticmethod
    def from_matrix(matrix: ArrayLike) -> Transform:
        """Make a transform of a homogeneous matrix.

        Args:
            matrix (4, 4): rotation and translation in m; last row 0, 0, 0, 1.
        Raises:
            TransformError: if it is no rigid transform. The rotation may be rounded to 3 digits.
        """
        values = np.asarray(matrix, float)
        if values.shape != (4, 4):
            raise TransformError(f"a transform has shape {values.shape}, expected (4, 4)")
        if not np.isfinite(values).all():
            raise TransformError(f"a transform has numbers that are not finite: {values.tolist()}")
        if not np.allclose(values[3], (0, 0, 0, 1), rtol=0, atol=1e-9):
            raise TransformError(f"the last row of a transform is {values[3].tolist()}, expected "
                                 "[0, 0, 0, 1]; transpose the matrix if it multiplies from the "
                                 "right")
        rotmat = values[:3, :3]
        if np.abs(rotmat @ rotmat.T - np.eye(3)).max() > _ROTATION_TOLERANCE:
            raise TransformError("the upper left 3x3 of a transform is no rotation, its columns "
                                 f"are not orthonormal: {rotmat.tolist()}; remove scale and shear")
        if np.linalg.det(rotmat) < 0:
            raise TransformError("the upper left 3x3 of a transform is a reflection (determinant "
                                 f"-1): {rotmat.tolist()}; use right-handed frames")
        return Transform(Rotation.from_matrix(rotmat), values[:3, 3].copy())

    @property
    def matrix(self) -> np.ndarray:
        """(4, 4) homogeneous matrix, m."""
        matrix = np.eye(4)
        matrix[:3, :3] = self.rotmat
        matrix[:3, 3] = self.translation_m
        return matrix

    @property
    def rotmat(self) -> np.ndarray:
        """(3, 3) rotation matrix."""
        return self.rotation.as_matrix()

    def inverse(self) -> Transform:
        """Return `b_from_a`."""
        inverse = self.rotation.inv()
        return Transform(inverse, -inverse.apply(self.translation_m))

    def apply(self, points: np.ndarray) -> np.ndarray:
        """Take points (..., 3), m, of frame b to frame a."""
        return points @ self.rotmat.T + self.translation_m

    def __matmul__(self, other: Transform) -> Transform:
        """Compose: `a_from_b @ b_from_c` is `a_from_c`."""
        return Transform(self.rotation * other.rotation,
                         self.rotation.apply(other.translation_m) + self.translation_m)


def with_root_rotated(theta: np.ndarray, rotation: Rotation) -> np.ndarray:
    """Let the root's rotation of each body be followed by another one.

    Args:
        theta (P, 24, 4): rotations of joints, quaternions x, y, z, w, the root first; people with
            NaN keep it.
        rotation: one for all people, or P.
    Returns:
        (P, 24, 4), a copy.
    """
    rotated = theta.copy()
    known = np.isfinite(theta[:, 0]).all(-1)
    if known.any():
        chosen = rotation if rotation.single else rotation[known]
        rotated[known, 0] = (chosen * Rotation.from_quat(theta[known, 0])).as_quat()
    return rotated
