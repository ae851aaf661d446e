"""The result of the fit: bodies with their posterior covariances (Laplace approximation)."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from ros2_pose.body.fit_cost import Linearisation, whitened_residuals
from ros2_pose.body.fit_problem import Problem
from ros2_pose.body.kinematics import (
    ROOT,
    UNKNOWNS,
    joint_jacobian,
    keypoint_jacobian,
    pose_rig,
)
from ros2_pose.body.model import Posed
from ros2_pose.body.so3 import rotmat_from_quat
from ros2_pose.body.state import BodyState, rows_of, with_rows
from ros2_pose.skeleton import SMPL24, JointSet

_ROOT_ROTATION = (0, 1, 2)  # indices of the unknowns


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
    found = BodyFit(*(problem.points.new_full((people, *shape), torch.nan) for shape in shapes))
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
    posed = pose_rig(problem.rig, rotmat_from_quat(state.theta), state.betas, state.root)
    root_cov, joint_cov, keypoint_cov = _covariances(problem, posed, local.hessian)
    ok = local.cost.isfinite() & root_cov.isfinite().flatten(1).all(1)
    found = BodyFit(*state, root_cov, posed.joints, joint_cov, _observed_joints(problem, posed),
                    posed.keypoints, keypoint_cov, local.cost, disagreement_s, ok,
                    local.cost.new_zeros(len(local.cost), 0))
    if ok.all():
        return found
    return with_rows(empty_fit(problem), ok, rows_of(found, ok))


def _covariances(problem: Problem, posed: Posed, hessian: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Covariances J H^-1 J^T of quantities with Jacobian J; NaN where H is not positive definite.

    With H = L L^T and Y = L^-1 J^T it is Y^T Y, and only its blocks on the diagonal are computed.
    H is scaled to a diagonal of one before, for its condition.

    Returns:
        (P, 6, 6) of the root's position and rotation, (P, 24, 3, 3) of joints, and (P, K, 3, 3) of
        keypoints; m, rad.
    """
    people, keypoints = problem.seen.shape
    root_rows = [*range(ROOT.start, ROOT.stop), *_ROOT_ROTATION]
    root_jacobian = torch.eye(UNKNOWNS).to(hessian)[root_rows].expand(people, -1, -1)
    axes = torch.eye(3).to(hessian).expand(people, keypoints, 3, 3)
    jacobian = torch.cat([root_jacobian,
                          joint_jacobian(problem.rig, posed).flatten(1, 2),
                          keypoint_jacobian(problem.rig, posed, axes).flatten(1, 2)], 1)
    scale = hessian.diagonal(dim1=1, dim2=2).rsqrt()
    scaled_hessian = hessian * (scale[:, :, None] * scale[:, None])
    factor, failed = torch.linalg.cholesky_ex(scaled_hessian)
    half = torch.linalg.solve_triangular(factor, (jacobian * scale[:, None]).mT, upper=False)
    half = torch.where(failed[:, None, None] != 0, torch.nan, half)
    half = half * problem.settings.inflation**0.5
    root_half = half[..., :6]
    position_half = half[..., 6:].unflatten(2, (-1, 3)).permute(0, 2, 1, 3)  # (P, 24 + K, 85, 3)
    position_cov = position_half.mT @ position_half
    joint_cov, keypoint_cov = position_cov.split([len(SMPL24), keypoints], 1)
    return root_half.mT @ root_half, joint_cov, keypoint_cov


def _observed_joints(problem: Problem, posed: Posed) -> Tensor:
    """(P, 24) bool: all keypoints that show the joint are seen, and the fit agrees with them."""
    squared = whitened_residuals(problem, posed)[0].square().sum(2)
    agrees = problem.seen & (squared < problem.settings.robust_sigmas**2)
    shows = _keypoints_of_joints(problem.joint_set).to(squared)
    needed = shows.sum(1)
    return (agrees.to(squared) @ shows.T > needed - 0.5) & (needed > 0)


@lru_cache
def _keypoints_of_joints(joint_set: JointSet) -> Tensor:
    """(24, K) 1 where a keypoint shows a joint; a joint in the middle is shown by two together."""
    around = {"pelvis": ("left_hip", "right_hip"), "neck": ("left_shoulder", "right_shoulder"),
              "head": ("nose",)}
    return torch.tensor([[float(keypoint in around.get(joint, (joint,)))
                          for keypoint in joint_set.names] for joint in SMPL24.names])
