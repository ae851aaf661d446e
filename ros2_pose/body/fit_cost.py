"""The cost of the fit: the negative log posterior of 85 unknowns, with gradient and Hessian.

Its terms: whitened keypoint residuals under a Cauchy loss; the height of the lower foot above a
known floor, as a mixture of contact and none; the pose prior; Gaussians on rotations (the lift's
hypothesis, the previous frame, the body's up axis) and on shape and root (population, known height,
measured depth, the previous frame). The order of the unknowns is that of `fit_kinematics`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from ros2_pose.body.fit_kinematics import (
    ROOT_ROTATION,
    ROTATIONS,
    SHAPE_AND_ROOT,
    Pose,
    fit_rig,
    quat_jacobian,
    rotmats_from_quats,
    with_positive_scalar,
)
from ros2_pose.body.fit_problem import Problem
from ros2_pose.body.floor_contact import contact_term
from ros2_pose.body.model import KEYPOINTS
from ros2_pose.body.state import BodyState

MIN_DEPTH_M = 0.3  # of the pelvis
_BODY_ROTATIONS = slice(ROOT_ROTATION.stop, ROTATIONS.stop)  # those of all joints but the root
_NEARER_KEYPOINT_M = 0.2  # a keypoint may be this much nearer than MIN_DEPTH_M

_EYE = np.eye(3)

State = tuple[np.ndarray, np.ndarray, np.ndarray]  # the fields of BodyState


class Linearisation(NamedTuple):
    """The cost at a state, with gradient and Gauss-Newton Hessian by the 85 unknowns.

    Its fields are NumPy arrays from `FitCost`, and tensors from `linearise` and `minimise`.
    """

    cost: Any  # (P,) up to a constant; infinite too near the camera
    gradient: Any  # (P, 85)
    hessian: Any  # (P, 85, 85)
    keypoint_cost: Any  # (P,) the keypoints' part of the cost
    squared: Any  # (P, K) squared Mahalanobis distances of the keypoints
    global_rotmats: Any  # (P, 24, 3, 3) body part to camera
    parts: Any  # (P, 24, 3, 24 + K) m, see `FitRig.pose`
    landmarks: Any  # (P, 3, 24 + K) m, joints and keypoints in the camera frame

    def to_tensors(self) -> Linearisation:
        """Return the arrays as tensors that share their memory."""
        return Linearisation(*map(torch.from_numpy, self))


def linearise(problem: Problem, state: BodyState) -> Linearisation:
    """Evaluate the cost and its derivatives at the states of P people."""
    theta, betas, root = (value.numpy() for value in state)
    return FitCost(problem).linearise((theta, betas, root)).to_tensors()


class FitCost:
    """The cost of P people as a function of their states, in NumPy, see `fit_kinematics`."""

    def __init__(self, problem: Problem) -> None:
        if problem.whitener is None:
            raise ValueError("the problem has no whitener: call with_hypothesis before")
        self._problem, self._settings = problem, problem.settings
        self._rig = fit_rig(problem.rig)
        self._rotation_precision = np.repeat(problem.rotation_precision, 3, 1)  # (P, 72)
        self._whitener = np.moveaxis(problem.whitener, 1, 3).copy()  # (P, D, D, K)
        self._whitened = (self._whitener * problem.points.swapaxes(1, 2)[:, None]).sum(2)

    def rows(self, people: np.ndarray) -> FitCost:
        """Return the cost of people by index (N,), increasing."""
        if len(people) == len(self._whitened):
            return self
        return FitCost(self._problem.rows(people))

    def linearise(self, state: State) -> Linearisation:
        """Evaluate the cost and its derivatives."""
        theta, betas, root = state
        theta = with_positive_scalar(theta)
        pose = self._rig.pose(rotmats_from_quats(theta), betas, root)
        global_rotmats, _, landmarks = pose
        # Derivative of 2 theta by rotations about the camera's axes, transposed: (P, 24, 3, 4).
        theta_by_rotation = global_rotmats @ quat_jacobian(theta).swapaxes(2, 3)
        keypoint_cost, floor_cost, squared, gradient, hessian = self._keypoint_and_floor_terms(pose)
        cost = keypoint_cost + floor_cost
        cost += self._pose_prior_term(theta, theta_by_rotation, gradient, hessian)
        cost += self._rotation_prior(theta, theta_by_rotation, gradient, hessian)
        cost += self._shape_and_root_prior(betas, root, gradient, hessian)
        hessian[:, ROOT_ROTATION, ROOT_ROTATION] += self._upright_hessian(global_rotmats[:, 0])
        nearest_m = np.minimum(landmarks[:, 2, KEYPOINTS].min(1) + _NEARER_KEYPOINT_M,
                               landmarks[:, 2, 0])
        cost[~(nearest_m > MIN_DEPTH_M)] = np.inf
        return Linearisation(cost, gradient, hessian, keypoint_cost, squared, *pose)

    # -------------------------------------------------------------------------- keypoints

    def _keypoint_and_floor_terms(self, pose: Pose) -> tuple[np.ndarray, ...]:
        """Costs (P,) of keypoints and floor, squared distances (P, K), gradient and Hessian.

        The Cauchy loss s^2/2 log(1 + r^2/s^2) of a keypoint's residual r weighs it by
        1 / (1 + r^2/s^2) (iteratively reweighted least squares).
        """
        keypoints = pose[2][:, :, KEYPOINTS]
        residual, by_keypoint = self._whitened_residuals(keypoints)
        squared = (residual * residual).sum(1)
        scale2 = self._settings.robust_sigmas**2
        ratio = squared / scale2
        cost = scale2 / 2 * np.log1p(ratio).sum(1)
        root_weight = 1 / np.sqrt(1 + ratio)[:, None]
        weighted, by_keypoint = root_weight * residual, root_weight[:, None] * by_keypoint
        floor_cost = np.zeros(len(cost))
        if self._problem.floor is not None:
            floor_cost, height, by_ankle = contact_term(self._problem, keypoints)
            weighted = np.concatenate([weighted, height], 1)
            by_keypoint = np.concatenate([by_keypoint, by_ankle], 2)
        jacobian = self._rig.jacobian(pose, by_keypoint, KEYPOINTS)
        jacobian = jacobian.reshape(*jacobian.shape[:2], -1)  # (P, 85, R K)
        gradient = (jacobian @ weighted.reshape(len(weighted), -1, 1))[..., 0]
        transpose = jacobian.swapaxes(1, 2).copy()  # faster than a product with a view
        return cost, floor_cost, squared, gradient, jacobian @ transpose

    def _whitened_residuals(self, keypoints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The residuals of keypoints (P, 3, K) in standard deviations.

        Returns:
            (P, D, K) residuals and (P, 3, D, K) their derivative by the keypoints in 3D, 1/m;
            zeros where a keypoint is missing.
        """
        whitener, size = self._whitener, self._whitener.shape[2]
        if size == 3:
            return (whitener * keypoints[:, None]).sum(2) - self._whitened, whitener.swapaxes(1, 2)
        # With the image u = (x, y) / z, W u has the derivative [W, -W u] / z by (x, y, z).
        inverse_depth = 1 / keypoints[:, 2:]
        image = (whitener * (keypoints[:, :2] * inverse_depth)[:, None]).sum(2)
        by_keypoint = np.empty((len(keypoints), 3, *image.shape[1:]))
        np.multiply(whitener.swapaxes(1, 2), inverse_depth[:, None], out=by_keypoint[:, :2])
        np.multiply(-image, inverse_depth, out=by_keypoint[:, 2])
        return image - self._whitened, by_keypoint

    # --------------- priors: they return their cost (P,) and add to gradient and Hessian

    def _pose_prior_term(self, theta: np.ndarray, theta_by_rotation: np.ndarray,
                         gradient: np.ndarray, hessian: np.ndarray) -> np.ndarray:
        """The pose prior, a function of the chords 2 q_xyz, by rotations about the camera's axes.

        Args:
            theta (P, 24, 4): with q_w >= 0.
            theta_by_rotation (P, 24, 3, 4): derivative of 2 theta, transposed.
        """
        people, weight = len(theta), self._settings.prior_weight
        chords = (2 * theta[:, 1:, :3]).reshape(people, -1)
        cost, by_chord, chord_hessian = self._problem.pose_prior.quadratic(chords)
        transpose = theta_by_rotation[:, 1:, :, :3]  # (P, 23, 3, 3) blocks of J^T
        weighted_transpose = weight * transpose
        rows = by_chord.reshape(people, 23, 3, 1)
        gradient[:, _BODY_ROTATIONS] += (weighted_transpose @ rows).reshape(people, -1)
        # J^T H J = J^T (J^T H)^T: twice the blocks of J^T times blocks of rows of a matrix.
        half = (weighted_transpose @ chord_hessian.reshape(people, 23, 3, 69))
        half = half.reshape(people, 69, 69).swapaxes(1, 2).reshape(people, 23, 3, 69)
        hessian[:, _BODY_ROTATIONS, _BODY_ROTATIONS] += (transpose @ half).reshape(people, 69, 69)
        return weight * cost

    def _rotation_prior(self, theta: np.ndarray, theta_by_rotation: np.ndarray,
                        gradient: np.ndarray, hessian: np.ndarray) -> np.ndarray:
        """The quadratic form q^T Q q of rotations, see `rotation_form`.

        The gradient is exact. The Hessian is that of small differences: the precision.
        """
        half_gradient = self._problem.rotation_form @ theta[..., None]  # Q q
        by_rotation = theta_by_rotation @ half_gradient
        gradient[:, ROTATIONS] += by_rotation.reshape(len(theta), -1)
        diagonal = np.einsum("pii->pi", hessian)  # a view
        diagonal[:, ROTATIONS] += self._rotation_precision
        return (half_gradient[..., 0] * theta).sum((1, 2))

    def _upright_hessian(self, root_rotmat: np.ndarray) -> np.ndarray:
        """(P, 3, 3) Gauss-Newton Hessian 1 - b b^T of the body's up axis b against the world's."""
        up = root_rotmat[..., 1]
        return self._settings.upright_rad**-2 * (_EYE - up[:, :, None] * up[:, None])

    def _shape_and_root_prior(self, betas: np.ndarray, root: np.ndarray, gradient: np.ndarray,
                              hessian: np.ndarray) -> np.ndarray:
        """The Gaussian on betas and root."""
        offset = np.concatenate([betas, root], 1) - self._problem.prior_mean
        by_offset = (self._problem.prior_precision @ offset[..., None])[..., 0]
        gradient[:, SHAPE_AND_ROOT] += by_offset
        hessian[:, SHAPE_AND_ROOT, SHAPE_AND_ROOT] += self._problem.prior_precision
        return (offset * by_offset).sum(1) / 2
