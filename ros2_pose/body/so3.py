"""Rotations in torch, as unit quaternions (x, y, z, w), rotation vectors and matrices.

Each function takes any leading shape, keeps dtype and device, and has finite derivatives
everywhere, also at the identity and at half turns. Quaternions have norm 1; q and -q are the same
rotation.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

_SMALL = 1e-6  # of |sin(angle / 2)|: below it, a series in place of a division by it


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
    return (products @ constant(rotmat_terms, quat)).unflatten(-1, (3, 3))


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


def identity(size: int, like: Tensor) -> Tensor:
    """Return the cached identity matrix (size, size) with the dtype and device of `like`."""
    return _identity(size, like.dtype, like.device)


@cache
def _identity(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.eye(size, dtype=dtype, device=device)


@cache
def _kept(terms, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # the kept tensor may take part in training later
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


def rotmat_terms() -> Tensor:
    """Return (16, 9): R_ij as a quadratic form of x, y, z, w."""
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
