"""The correction of keypoints by bodies that are in place, in NumPy: a Kalman update of each one.

It is `correct` without alignment and without errors that keypoints share, in closed form.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ros2_pose.body.align import FARTHEST_M, LEAST_AGREEMENT, NEAREST_M
from ros2_pose.body.gaussian import GATE_SIGMAS, VARIANCE_FLOOR


def correct_in_place(points: Tensor, cov: Tensor, joints: Tensor,
                     joint_cov: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Fuse points with the keypoints of a body model, each on its own.

    Args:
        points (P, K, 2), cov (P, K, 2, 2): x/z, y/z; NaN: missing.
        joints (P, K, 3), joint_cov (P, K, 3, 3): m, m^2, the model's keypoints in camera axes.
    Returns:
        points, cov, joints and ok, see `correct`.
    """
    image, image_cov = points.double().numpy(), cov.double().numpy()
    with np.errstate(all="ignore"):  # what is not finite is missing
        seen = _is_seen(image, image_cov)
        model, model_cov, known = _image_and_depth(joints.double().numpy(),
                                                   joint_cov.double().numpy())
        usable = seen & known
        residual, _ = _whitened(image, image_cov, model, model_cov)
        squared = (residual * residual).sum(2)
        agreement = np.where(usable, np.minimum(GATE_SIGMAS**2 / squared.clip(1e-12), 1), 0)
        ok = (agreement.sum(1) >= LEAST_AGREEMENT * usable.sum(1)) & known.any(1)
        # Where they disagree, the covariance of the difference is divided by the agreement.
        excess = (1 / np.where(agreement > 0, agreement, 1) - 1)[..., None, None]
        image_cov = image_cov + (image_cov + model_cov[..., :2, :2]) * excess
        residual, by_model = _whitened(image, image_cov, model, model_cov)
        update = (by_model.swapaxes(2, 3) @ residual[..., None])[..., 0]
        update_cov = by_model.swapaxes(2, 3) @ by_model
        fused = model + np.where(usable[..., None], update, 0)
        fused_cov = (model_cov - np.where(usable[..., None, None], update_cov, 0))[..., :2, :2]
        ok &= (np.isfinite(fused).all(2) | ~known).all(1)
        depth = fused[..., 2:].clip(model[..., 2:] / 2, model[..., 2:] * 2)
    seen, known = seen[..., None], known[..., None]
    new_points = np.where(known, fused[..., :2], np.where(seen, image, np.nan))
    new_cov = np.where(known[..., None], fused_cov, np.where(seen[..., None], image_cov, np.nan))
    keep = ok[:, None, None]
    new_points = np.where(keep, new_points, points.numpy()).astype(points.numpy().dtype)
    new_cov = np.where(keep[..., None], new_cov, cov.numpy()).astype(cov.numpy().dtype)
    depth = depth.astype(new_points.dtype)
    new_joints = np.concatenate([new_points * depth, depth], 2)
    new_joints = np.where(keep & known, new_joints, np.nan).astype(new_points.dtype)
    return (torch.from_numpy(new_points), torch.from_numpy(new_cov), torch.from_numpy(new_joints),
            torch.from_numpy(ok))


def _is_seen(image: np.ndarray, cov: np.ndarray) -> np.ndarray:
    """(P, K) bool: points (P, K, 2) with a positive semidefinite covariance, see `is_seen`."""
    var_x, cov_xy, var_y = cov[..., 0, 0], cov[..., 0, 1], cov[..., 1, 1]
    is_semidefinite = (np.minimum(var_x, var_y) >= 0) & (var_x * var_y >= cov_xy * cov_xy)
    return is_semidefinite & np.isfinite(image).all(2) & np.isfinite(cov).all((2, 3))


def _image_and_depth(joints: np.ndarray,
                     cov: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The model in coordinates of which a point observes two.

    Returns:
        (P, K, 3) x/z, y/z, z; its covariance (P, K, 3, 3); and (P, K) bool: finite, and in front of
        the camera within 200 m. Placeholders where it is not.
    """
    variances = np.einsum("pkii->pki", cov)
    known = np.isfinite(joints).all(2) & np.isfinite(cov).all((2, 3)) & (variances.min(2) >= 0)
    known &= (joints[..., 2] > NEAREST_M) & (np.abs(joints).max(2) < FARTHEST_M)
    joints = np.where(known[..., None], joints, 1.0)
    cov = np.where(known[..., None, None], cov, 0.0)
    inverse_depth = 1 / joints[..., 2:]
    model = np.concatenate([joints[..., :2] * inverse_depth, joints[..., 2:]], 2)
    by_joint = np.zeros_like(cov)
    by_joint[..., 0, 0] = by_joint[..., 1, 1] = inverse_depth[..., 0]
    by_joint[..., :2, 2] = -model[..., :2] * inverse_depth
    by_joint[..., 2, 2] = 1
    return model, by_joint @ cov @ by_joint.swapaxes(2, 3), known


def _whitened(image: np.ndarray, image_cov: np.ndarray, model: np.ndarray,
              model_cov: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The difference of points and model, and the model's covariance with it, whitened.

    With the covariance S = L L^T of the difference, 2 x 2, they are multiplied by L^-1.

    Returns:
        (P, K, 2) and (P, K, 2, 3).
    """
    cov = image_cov + model_cov[..., :2, :2]
    var_x, slope = cov[..., 0, 0] + VARIANCE_FLOOR, cov[..., 0, 1]
    slope = slope / var_x
    var_y = cov[..., 1, 1] + VARIANCE_FLOOR - slope * cov[..., 0, 1]  # given x
    values = np.concatenate([(image - model[..., :2])[..., None], model_cov[..., :2, :]], 3)
    values[..., 1, :] -= slope[..., None] * values[..., 0, :]
    values /= np.sqrt(np.stack([var_x, var_y], 2))[..., None]
    return values[..., 0], values[..., 1:]
