"""Gaussian estimates of points: validity, whitening, fusion, and robust weights."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

VARIANCE_FLOOR = 1e-12  # added to pixel variances, so that exact pixels have a finite weight
GATE_SIGMAS = 3.0  # beyond this an observation loses weight


def is_finite(values: Tensor, dims: int | tuple[int, ...] = ()) -> Tensor:
    """Test values for being finite.

    Args:
        values (...): any tensor.
        dims: dimensions to reduce: all along them must be finite. (): none.
    Returns:
        bool, the shape of `values` without `dims`.
    """
    magnitude = values.abs()
    if dims:
        magnitude = magnitude.amax(dims)
    return magnitude < torch.inf


def is_seen(points: Tensor, cov: Tensor) -> Tensor:
    """Test which 2D points have a position and a positive semidefinite covariance.

    Args:
        points (P, K, 2), cov (P, K, 2, 2).
    Returns:
        (P, K) bool; False where anything is NaN.
    """
    var_x, cov_xy, var_y = cov[..., 0, 0], cov[..., 0, 1], cov[..., 1, 1]
    is_semidefinite = (torch.minimum(var_x, var_y) >= 0) & (var_x * var_y >= cov_xy * cov_xy)
    return is_semidefinite & is_finite(points, 2) & is_finite(cov, (2, 3))


def is_known(joints: Tensor, joint_cov: Tensor) -> Tensor:
    """Test which 3D joints have a position and a covariance without negative variances.

    Args:
        joints (P, K, 3): m.
        joint_cov (P, K, 3, 3): m^2.
    Returns:
        (P, K) bool.
    """
    variances = joint_cov.diagonal(dim1=2, dim2=3)
    return is_finite(joints, 2) & is_finite(joint_cov, (2, 3)) & (variances.amin(2) >= 0)


def whitener(cov: Tensor) -> Tensor:
    """Return lower triangular W with W^T W = cov^-1, so that W residual has unit covariance.

    Args:
        cov (..., D, D): covariances, D = 2 or 3.
    Returns:
        (..., D, D).
    """
    if cov.shape[-1] != 2:
        factor = torch.linalg.cholesky_ex(cov).L
        return torch.linalg.solve_triangular(factor, torch.eye(cov.shape[-1]).to(cov), upper=False)
    var_x, cov_xy, var_y = cov[..., 0, 0], cov[..., 0, 1], cov[..., 1, 1]
    first = var_x.rsqrt()
    second = (var_y - cov_xy * cov_xy / var_x).rsqrt()
    rows = torch.stack([first, torch.zeros_like(var_x), -cov_xy / var_x * second, second], -1)
    return rows.unflatten(-1, (2, 2))


def robust_weight(squared: Tensor) -> Tensor:
    """Weight observations for iteratively reweighted least squares.

    Args:
        squared (P, K): squared Mahalanobis distances of the residuals.
    Returns:
        (P, K) 0..1: 1 up to 3 standard deviations, then falling with the squared distance.
    """
    return (GATE_SIGMAS**2 / squared.clamp(min=1e-12)).clamp(max=1)


def add_information(mean: np.ndarray, precision: np.ndarray, more_precision: np.ndarray,
                    more_information: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Multiply Gaussians (mean, precision) by others in information form.

    Args:
        mean (P, N), precision (P, N, N): the Gaussians.
        more_precision (P, N, N), more_information (P, N): precision and precision times mean of
            the others.
    Returns:
        mean (P, N) and precision (P, N, N) of the product.
    """
    total = precision + more_precision
    information = (precision @ mean[..., None])[..., 0] + more_information
    product_mean, _ = torch.linalg.solve_ex(torch.from_numpy(total), torch.from_numpy(information))
    return product_mean.numpy(), total


def fuse(points: Tensor, cov: Tensor, model_points: Tensor,
         model_cov: Tensor) -> tuple[Tensor, Tensor]:
    """Fuse two independent Gaussian estimates of the same positions.

    A Kalman update of the model by the points, so that variances of zero are allowed. In one
    dimension it is p + kappa (m - p) with kappa = c^2 / (c^2 + sigma_m^2).

    Args:
        points (..., D), cov (..., D, D): first estimate; D = 2 for one keypoint, more for
            keypoints with common errors. NaN: missing, each coordinate on its own.
        model_points (..., D), model_cov (..., D, D): second estimate, likewise.
    Returns:
        mean (..., D) and covariance (..., D, D). A coordinate that only one estimate has is taken
        from it; one that neither has is NaN.
    Source:
        Tian et al. 2023 fuse by scalar variances (kappa); here by covariances.
    """
    dtype = points.dtype
    points, cov = points.double(), cov.double()
    model, model_cov = model_points.double(), model_cov.double()
    seen = is_finite(points + cov.diagonal(dim1=-2, dim2=-1))
    known = is_finite(model + model_cov.diagonal(dim1=-2, dim2=-1))
    both = seen & known
    model_cov = torch.where(_pairs(known), model_cov, 0.0)
    eye = torch.eye(points.shape[-1]).to(cov)
    innovation_cov = torch.where(_pairs(both), model_cov + cov + VARIANCE_FLOOR * eye, eye)
    innovation = torch.where(both, points - model, 0.0)[..., None]
    # With S = L L^T, B = L^-1 C and e = L^-1 innovation, the update is mean + B^T e, C - B^T B.
    factor, failed = torch.linalg.cholesky_ex(innovation_cov)
    whitened = torch.linalg.solve_triangular(
        factor, torch.cat([model_cov * both[..., None], innovation], -1), upper=False)
    half_gain, innovation = whitened[..., :-1].mT, whitened[..., -1:]
    mean = torch.where(known, model + (half_gain @ innovation)[..., 0], points)
    fused_cov = torch.where(_pairs(seen & ~known), cov, model_cov - half_gain @ half_gain.mT)
    valid = (seen | known) & (failed == 0)[..., None]
    return (torch.where(valid, mean, torch.nan).to(dtype),
            torch.where(_pairs(valid), fused_cov, torch.nan).to(dtype))


def _pairs(mask: Tensor) -> Tensor:
    """(..., D, D) bool: both coordinates of the pair are in mask (..., D)."""
    return mask[..., None] & mask[..., None, :]
