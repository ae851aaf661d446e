"""Rigid transforms, and rotations as unit quaternions (x, y, z, w), vectors and matrices.

`Transform` is the package's only type for SE(3). The functions on rotations work in torch: each
takes any leading shape, keeps dtype and device, and has finite derivatives everywhere, also at the
identity and at half turns. Quaternions have norm 1; q and -q are the same rotation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.spatial.transform import Rotation
from torch import Tensor

from ros2_pose.errors import PoseError

_ROTATION_TOLERANCE = 1e-3  # of the elements of R R^T - I: matrices in files are rounded
_SMALL = 1e-6  # of |sin(angle / 2)|: below it, a series in place of a division by it


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


def quat_product(left: Tensor, right: Tensor) -> Tensor:
    """Compose rotations: `right` first, then `left`.

    Args:
        left, right (..., 4): quaternions x, y, z, w.
    Returns:
        (..., 4), Hamilton's product.
    """
    products = (left[..., :, None] * right[..., None, :]).flatten(-2)
    return products @ constant(_product_terms, left)


def quat_from_rotvec(rotvec: Tensor) -> Tensor:
    """Convert rotation vectors (..., 3), rad, to quaternions (..., 4)."""
    half = rotvec / 2
    angle = half.norm(dim=-1, keepdim=True)
    return torch.cat([half * torch.sinc(angle / torch.pi), angle.cos()], -1)


def quat_from_rotmat(rotmat: Tensor) -> Tensor:
    """Convert rotation matrices (..., 3, 3) to quaternions (..., 4).

    A row of 4 q q^T is a multiple of q. The row with the greatest diagonal element is normalised:
    its norm is never near zero.
    """
    outer = rotmat.flatten(-2) @ constant(_outer_terms, rotmat) + constant(_outer_at_zero, rotmat)
    outer = outer.unflatten(-1, (4, 4))
    row = outer.diagonal(dim1=-2, dim2=-1).argmax(-1)[..., None, None]
    quat = outer.gather(-2, row.expand(*row.shape[:-1], 4))[..., 0, :]
    return quat / quat.norm(dim=-1, keepdim=True)


def rotvec_from_quat(quat: Tensor) -> Tensor:
    """Convert quaternions (..., 4) to rotation vectors (..., 3), rad, at most pi long."""
    quat = torch.where(quat[..., 3:] < 0, -quat, quat)
    sine, cosine = quat[..., :3].norm(dim=-1, keepdim=True), quat[..., 3:]
    safe = sine.clamp(min=_SMALL)
    factor = torch.where(sine < _SMALL, 2 / cosine.clamp(min=0.5), 2 * safe.atan2(cosine) / safe)
    return quat[..., :3] * factor


def rotvec_product(*rotvecs: Tensor) -> Tensor:
    """Compose rotation vectors (..., 3), rad, the last one first; returns (..., 3), rad."""
    quat, *others = map(quat_from_rotvec, rotvecs)
    for other in others:
        quat = quat_product(quat, other)
    return rotvec_from_quat(quat)


def rotmat_from_quat(quat: Tensor) -> Tensor:
    """Convert unit quaternions (..., 4) to rotation matrices (..., 3, 3)."""
    products = (quat[..., :, None] * quat[..., None, :]).flatten(-2)
    return (products @ constant(_rotmat_terms, quat)).unflatten(-1, (3, 3))


def rotmat_from_rotvec(rotvec: Tensor) -> Tensor:
    """Convert rotation vectors (..., 3), rad, to rotation matrices (..., 3, 3)."""
    return rotmat_from_quat(quat_from_rotvec(rotvec))


def rotmat_from_columns(columns: Tensor) -> Tensor:
    """Complete two columns to rotation matrices, orthonormalised by Gram-Schmidt.

    Args:
        columns (..., 3, 2): linearly independent, of any length.
    Returns:
        (..., 3, 3).

    Source: Zhou et al. 2019, On the Continuity of Rotation Representations, eq. 15.
    """
    first, second = torch.nn.functional.normalize(columns[..., 0], dim=-1), columns[..., 1]
    second = second - (first * second).sum(-1, keepdim=True) * first
    second = torch.nn.functional.normalize(second, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], -1)


def angle_between(quat: Tensor, other: Tensor) -> Tensor:
    """Return angles (...), rad, 0 to pi, between rotations (..., 4)."""
    apart, together = (quat - other).norm(dim=-1), (quat + other).norm(dim=-1)
    return 4 * torch.minimum(apart, together).atan2(torch.maximum(apart, together))


# -------------------------------------------------------------------- structure constants


def constant(terms, like: Tensor) -> Tensor:
    """Return the cached result of `terms()` with the dtype and device of `like`."""
    return _kept(terms, like.dtype, like.device)


@cache
def _kept(terms, dtype: torch.dtype, device: torch.device) -> Tensor:
    return terms().to(dtype=dtype, device=device)


def _product_terms() -> Tensor:
    """(16, 4): Hamilton's product as a bilinear form."""
    out = torch.zeros(4, 4, 4)
    out[3, 3, 3] = 1
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        out[i, i, 3] = -1
        out[i, 3, i] = out[3, i, i] = out[i, j, k] = 1
        out[j, i, k] = -1
    return out.view(16, 4)


def _rotmat_terms() -> Tensor:
    """(16, 9): R_ij as a quadratic form of x, y, z, w."""
    out = torch.zeros(4, 4, 3, 3)
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        out[3, 3, i, i] = out[i, i, i, i] = 1
        out[j, j, i, i] = out[k, k, i, i] = -1
        out[i, j, i, j] = out[i, j, j, i] = 2
        out[k, 3, j, i], out[k, 3, i, j] = 2, -2
    return out.view(16, 9)


def _outer_terms() -> Tensor:
    """(9, 16): 4 q q^T, without its constant part, as a linear form of R."""
    out = torch.zeros(3, 3, 4, 4)
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        out[i, i, i, i] = out[i, i, 3, 3] = 1
        out[i, i, j, j] = out[i, i, k, k] = -1
        out[i, j, i, j] = out[i, j, j, i] = out[j, i, i, j] = out[j, i, j, i] = 1
        out[k, j, i, 3] = out[k, j, 3, i] = 1
        out[j, k, i, 3] = out[j, k, 3, i] = -1
    return out.view(9, 16)


def _outer_at_zero() -> Tensor:
    """(16,): the constant part of 4 q q^T."""
    return torch.eye(4).flatten()
