"""The result of the fit: bodies with their posterior covariances (Laplace approximation)."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ros2_pose.body.fit_cost import Linearisation
from ros2_pose.body.fit_kinematics import ROOT, UNKNOWNS, fit_rig
from ros2_pose.body.fit_problem import Problem
from ros2_pose.body.gaussian import is_finite
from ros2_pose.body.model import JOINTS, KEYPOINTS
from ros2_pose.body.state import BodyState, rows_of, with_rows
from ros2_pose.skeleton import SMPL24, JointSet

# (85, 6): the root's position, then its rotation, by the unknowns.
_BY_ROOT = torch.eye(UNKNOWNS, dtype=torch.float64)[:, [*range(ROOT.start, ROOT.stop), 0, 1, 2]]


class BodyFit(NamedTuple):
    """Fitted people in the camera frame, metres; rows that are not `ok` hold NaN."""

    theta: Tensor  # (P, 24, 4) unit quaternions x, y, z, w
    betas: Tensor  # (P, 10)
    root: Tensor  # (P, 3)
    root_cov: Tensor  # (P, 6, 6) of x, y, z, rotation about the camera's x, y, z; m, rad
    joints: Tensor  # (P, 24, 3)
    joint_cov: Tensor  # (P, 24, 3, 3)
    joint_observed: Tensor  # (P, 24) bool
    keypoints: Tensor  # (P, K, 3)
    keypoint_cov: Tensor  # (P, K, 3, 3) of the body's point, without the keypoint's definition
    cost: Tensor  # (P,) negative log posterior up to a constant
    disagreement_s: Tensor  # (P,) s for which the body has not agreed with the keypoints
    ok: Tensor  # (P,) bool
    lift_state: Tensor  # (P, S) recurrent state of the lift, from which the next image goes on

    @property
    def state(self) -> BodyState:
        """The state from which the next frame's fit starts."""
        return BodyState(self.theta, self.betas, self.root)


def empty_fit(problem: Problem) -> BodyFit:
    """Return a BodyFit of NaN for the P people of a problem, none of them ok."""
    people, keypoints = problem.seen.shape
    shapes = ((24, 4), (10,), (3,), (6, 6), (24, 3), (24, 3, 3), (24,), (keypoints, 3),
              (keypoints, 3, 3), (), (), (), (0,))
    found = BodyFit(*(torch.full((people, *shape), torch.nan, dtype=torch.float64)
                      for shape in shapes))
    return found._replace(joint_observed=found.joint_observed > 0, ok=found.ok > 0)


def body_fit(problem: Problem, state: BodyState, local: Linearisation,
             disagreement_s: Tensor) -> BodyFit:
    """Return joints, keypoints and covariances at the solution of a problem.

    Args:
        state, local: the solution and the cost there.
        disagreement_s (P,): see `BodyFit`.
    Returns:
        BodyFit of P people; NaN for people with a cost that has no minimum there.
    """
    root_cov, landmark_cov = _covariances(problem, local)
    ok = local.cost.isfinite() & is_finite(root_cov, (1, 2))
    landmarks = local.landmarks.mT.contiguous()
    found = BodyFit(*state, root_cov, landmarks[:, JOINTS], landmark_cov[:, JOINTS],
                    torch.from_numpy(_observed_joints(problem, local.squared.numpy())),
                    landmarks[:, KEYPOINTS], landmark_cov[:, KEYPOINTS], local.cost,
                    disagreement_s, ok, local.cost.new_zeros(len(local.cost), 0))
    if ok.all():
        return found
    return with_rows(empty_fit(problem), ok, rows_of(found, ok))


def _covariances(problem: Problem, local: Linearisation) -> tuple[Tensor, Tensor]:
    """Covariances J H^-1 J^T of quantities with Jacobian J; NaN where H is not positive definite.

    With H = L L^T and Y = L^-1 J^T it is Y^T Y, and only its blocks on the diagonal are computed.

    Returns:
        (P, 6, 6) of the root's position and rotation, (P, 24 + K, 3, 3) of joints and keypoints;
        m, rad.
    """
    pose = tuple(value.numpy() for value in (local.global_rotmats, local.parts, local.landmarks))
    transpose = fit_rig(problem.rig).landmark_jacobian(pose)  # J^T (P, 85, 3, 24 + K)
    factor, failed = torch.linalg.cholesky_ex(local.hessian)
    of_root = torch.linalg.solve_triangular(factor, _BY_ROOT, upper=False).numpy()
    of_landmarks = torch.linalg.solve_triangular(
        factor, torch.from_numpy(transpose).flatten(2), upper=False).numpy()
    of_landmarks = of_landmarks.reshape(transpose.shape).transpose(0, 3, 2, 1)  # (P, 24+K, 3, 85)
    inflation = np.where(failed, np.nan, problem.settings.inflation)[:, None, None]
    root_cov = inflation * (of_root.swapaxes(1, 2) @ of_root)
    landmark_cov = inflation[..., None] * (of_landmarks @ of_landmarks.swapaxes(2, 3))
    return torch.from_numpy(root_cov), torch.from_numpy(landmark_cov)


def _observed_joints(problem: Problem, squared: np.ndarray) -> np.ndarray:
    """(P, 24) bool: all keypoints that show the joint are seen, and the fit agrees with them.

    Args:
        squared (P, K): squared Mahalanobis distances of the keypoints.
    """
    agrees = problem.seen & (squared < problem.settings.robust_sigmas**2)
    shows, needed = _keypoints_of_joints(problem.joint_set)
    return agrees @ shows > needed


@lru_cache
def _keypoints_of_joints(joint_set: JointSet) -> tuple[np.ndarray, np.ndarray]:
    """The keypoints that show joints; a joint in the middle is shown by two together.

    Returns:
        (K, 24) 1 where a keypoint shows a joint, and (24,) a number that fewer than all of a
        joint's keypoints do not exceed; infinite for joints without keypoints.
    """
    around = {"pelvis": ("left_hip", "right_hip"), "neck": ("left_shoulder", "right_shoulder"),
              "head": ("nose",)}
    shows = np.array([[float(keypoint in around.get(joint, (joint,)))
                       for joint in SMPL24.names] for keypoint in joint_set.names])
    count = shows.sum(0)
    return shows, np.where(count > 0, count - 0.5, np.inf)
