"""The fit: derivatives by finite differences, recovery of known bodies, and independence."""

from dataclasses import replace

import numpy as np
import pytest
import roma
import torch

from ros2_pose.body import solve
from ros2_pose.body.kinematics import (UNKNOWNS, inverse_right_jacobian, joint_jacobian,
                                       keypoint_jacobian, pose_rig, rotvec_from_quat)
from ros2_pose.body.model import BodyModel
from ros2_pose.body.prior import PosePrior
from ros2_pose.body.solve import FitSettings, fit
from ros2_pose.body.state import BodyState
from ros2_pose.skeleton import COCO17, SMPL24

FOCAL_PX = 1000.0
FACING = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))


@pytest.fixture(scope="module")
def model():
    return BodyModel.load()


@pytest.fixture(scope="module")
def prior():
    return PosePrior.load()


@pytest.fixture(scope="module")
def people(prior):
    return make_people(prior, 6)


def make_people(prior, count, seed=0):
    """People near the prior's mean, turned by any yaw, 2 to 6 m away."""
    rng = np.random.default_rng(seed)
    white = torch.tensor(rng.normal(0, 0.6, (count, 69)))
    rotvecs = prior.mean + torch.linalg.solve(prior.whitener, white[..., None]).view(-1, 23, 3)
    yaw = torch.tensor(rng.uniform(0, 2 * np.pi, count))
    facing = FACING @ roma.rotvec_to_rotmat(yaw[:, None] * torch.tensor([0.0, 1.0, 0.0]))
    theta = torch.cat([roma.rotmat_to_unitquat(facing)[:, None],
                       roma.rotvec_to_unitquat(rotvecs)], 1)
    depth = rng.uniform(2, 6, count)
    root = np.stack([rng.uniform(-0.3, 0.3, count) * depth, 0 * depth, depth], 1)
    return BodyState(theta, torch.tensor(rng.normal(0, 0.3, (count, 10))), torch.tensor(root))


def observe(model, state, noise_px=1.0, seed=0):
    """Normalised keypoints with noise and their covariance."""
    keypoints = model(*state, with_vertices=False).keypoints
    std = noise_px / FOCAL_PX
    noise = torch.tensor(np.random.default_rng(seed).normal(0, std, (len(keypoints), 17, 2)))
    points = keypoints[..., :2] / keypoints[..., 2:] + noise
    return points, (torch.eye(2, dtype=torch.float64) * std**2).expand(len(points), 17, 2, 2)


def problem_of(model, prior, state, previous=None):
    points, cov = observe(model, state, 3.0)
    problem = solve.make_problem(model, prior, points, cov, FitSettings())
    return replace(problem.with_error_at(state.root[:, 2]), previous=previous)


def moved(state, step):
    return state.moved(step[:, :72].reshape(-1, 24, 3), step[:, 72:82], step[:, 82:])


def perturbed(state, size, seed=3):
    rng = np.random.default_rng(seed)
    return moved(state, torch.tensor(rng.normal(0, size, (len(state.root), UNKNOWNS))))


def differences(function, state, step=1e-6):
    """Central differences of function(state) by the 85 unknowns, last."""
    columns = []
    for i in range(UNKNOWNS):
        delta = torch.zeros(len(state.root), UNKNOWNS, dtype=torch.float64)
        delta[:, i] = step
        difference = function(moved(state, delta)) - function(moved(state, -delta))
        columns.append(difference / (2 * step))
    return torch.stack(columns, -1)


# ------------------------------------------------------------------------------ derivatives


def test_keypoint_and_joint_jacobians_are_their_derivatives(model, people):
    rig = model.rig(people.root)
    state = perturbed(people, 0.2)
    posed = pose_rig(rig, roma.unitquat_to_rotmat(state.theta), state.betas, state.root)
    keypoints = differences(lambda s: model(*s, with_vertices=False).keypoints, state)
    joints = differences(lambda s: model(*s, with_vertices=False).joints, state)
    np.testing.assert_allclose(keypoint_jacobian(rig, posed), keypoints, atol=1e-8)
    np.testing.assert_allclose(joint_jacobian(rig, posed), joints, atol=1e-8)


@pytest.mark.parametrize("with_previous", [False, True])
def test_gradient_is_the_derivative_of_the_cost(model, prior, people, with_previous):
    problem = problem_of(model, prior, people, people if with_previous else None)
    state = perturbed(people, 0.1)
    gradient = solve.linearise(problem, state).gradient
    numeric = differences(lambda s: solve.linearise(problem, s).cost, state)
    np.testing.assert_allclose(gradient, numeric, rtol=1e-5, atol=1e-5 * gradient.abs().max())


def test_hessian_is_symmetric_and_positive(model, prior, people):
    hessian = solve.linearise(problem_of(model, prior, people), perturbed(people, 0.1)).hessian
    np.testing.assert_allclose(hessian, hessian.transpose(1, 2), rtol=1e-9, atol=1e-9)
    assert torch.linalg.eigvalsh(hessian).min() > 0


def test_inverse_right_jacobian_by_differences():
    rotvec = torch.tensor([[0.4, -1.2, 0.9], [1e-6, 0.0, 0.0]], dtype=torch.float64)
    numeric = []
    for i in range(3):
        delta = torch.zeros(2, 3, dtype=torch.float64)
        delta[:, i] = 1e-6
        def turned(d):
            quat = roma.quat_product(roma.rotvec_to_unitquat(rotvec), roma.rotvec_to_unitquat(d))
            return rotvec_from_quat(quat)
        numeric.append((turned(delta) - turned(-delta)) / 2e-6)
    np.testing.assert_allclose(inverse_right_jacobian(rotvec), torch.stack(numeric, -1), atol=1e-6)


# --------------------------------------------------------------------------------- recovery


def hip_centred_error_m(found, joints):
    return ((found - found[:, :1]) - (joints - joints[:, :1])).norm(dim=2).mean(1)


def test_cold_start_recovers_depth_and_joints(model, prior, people):
    result = fit(model, prior, *observe(model, people))
    truth = model(*people, with_vertices=False)
    assert result.ok.all() and all(v.isfinite().all() for v in result if v.is_floating_point())
    depth_error = (result.root[:, 2] / people.root[:, 2] - 1).abs()
    assert depth_error.median() < 0.05 and depth_error.max() < 0.15
    error_m = hip_centred_error_m(result.joints, truth.joints)
    assert error_m.median() < 0.07 and error_m.max() < 0.16


def test_every_facing_is_found(model, prior):
    """Sixteen people in the same pose, every 22.5 degrees around."""
    state = make_people(prior, 1).rows(torch.zeros(16, dtype=torch.long))
    yaw = torch.arange(16, dtype=torch.float64) * (2 * np.pi / 16)
    facing = FACING @ roma.rotvec_to_rotmat(yaw[:, None] * torch.tensor([0.0, 1.0, 0.0]))
    theta = torch.cat([roma.rotmat_to_unitquat(facing)[:, None], state.theta[:, 1:]], 1)
    state = state._replace(theta=theta)
    result = fit(model, prior, *observe(model, state))
    turn = roma.unitquat_geodesic_distance(result.theta[:, 0], theta[:, 0])
    assert (turn < np.radians(35)).sum() >= 15


def test_warm_start_follows_a_moved_person(model, prior, people):
    first = fit(model, prior, *observe(model, people))
    walked = people._replace(root=people.root + torch.tensor([0.05, 0.0, 0.05]))
    second = fit(model, prior, *observe(model, walked, seed=1), previous=first.state)
    truth = model(*walked, with_vertices=False).joints
    assert hip_centred_error_m(second.joints, truth).median() < 0.07
    step = second.root[:, 0] - first.root[:, 0]
    np.testing.assert_allclose(step.median(), 0.05, atol=0.03)


def test_warm_start_from_another_person_starts_over(model, prior, people):
    points, cov = observe(model, people)
    wrong = people.rows(torch.tensor([5, 4, 3, 2, 1, 0]))
    result, cold = fit(model, prior, points, cov, previous=wrong), fit(model, prior, points, cov)
    depth_error = (result.root[:, 2] / people.root[:, 2] - 1).abs()
    assert depth_error.median() < 0.08
    assert (result.cost < cold.cost + 20).float().mean() > 0.6


def test_state_with_nan_starts_cold(model, prior, people):
    points, cov = observe(model, people)
    cold = fit(model, prior, points, cov)
    nan = fit(model, prior, points, cov, previous=BodyState.missing(points))
    for a, b in zip(cold, nan):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)


def test_anisotropic_pixels_and_float32(model, prior, people):
    points, cov = observe(model, people)
    stretched = torch.diag(torch.tensor([1.0, 4.0], dtype=torch.float64)) @ cov
    result = fit(model, prior, points.float(), stretched.float())
    assert result.joints.dtype == torch.float32 and result.ok.all()
    assert (result.root[:, 2] / people.root[:, 2] - 1).abs().median() < 0.05


def test_an_outlier_hardly_moves_the_rest(model, prior, people):
    points, cov = observe(model, people)
    spoilt = points.clone()
    spoilt[:, COCO17.index("left_wrist")] += 0.3
    clean, result = fit(model, prior, points, cov), fit(model, prior, spoilt, cov)
    legs = [SMPL24.index(f"{s}_{j}") for s in ("left", "right") for j in ("hip", "knee", "ankle")]
    moved_m = (clean.joints - result.joints)[:, legs].norm(dim=2).mean(1)
    assert moved_m.median() < 0.05
    assert not result.joint_observed[:, SMPL24.index("left_wrist")].any()


# --------------------------------------------------------------------------- what is missing


def test_alone_is_as_in_a_batch(model, prior, people):
    points, cov = observe(model, people)
    together = fit(model, prior, points, cov)
    for i in (0, 3):
        alone = fit(model, prior, points[i:i + 1], cov[i:i + 1])
        for a, b in zip(alone, together):
            np.testing.assert_allclose(a[0], b[i], rtol=1e-4, atol=1e-6)


def test_too_few_points_are_flagged_and_nan(model, prior, people):
    points, cov = observe(model, people)
    points = points.clone()
    points[1, 3:] = torch.nan
    points[2] = torch.nan
    result = fit(model, prior, points, cov)
    assert result.ok.tolist() == [True, False, False, True, True, True]
    for value in result:
        if value.is_floating_point():
            assert value[1].isnan().all() and value[0].isfinite().all()
    assert not result.joint_observed[1].any()


def test_half_a_person_is_fitted_with_less_certainty(model, prior, people):
    points, cov = observe(model, people)
    upper = points.clone()
    upper[:, COCO17.index("left_knee"):] = torch.nan
    whole, half = fit(model, prior, points, cov), fit(model, prior, upper, cov)
    ankle = SMPL24.index("left_ankle")
    assert half.ok.all() and not half.joint_observed[:, ankle].any()
    def variance(result):
        return result.joint_cov[:, ankle].diagonal(dim1=1, dim2=2).sum(1)
    assert (variance(half) > 1.5 * variance(whole)).all()


def test_nobody(model, prior):
    result = fit(model, prior, torch.zeros(0, 17, 2), torch.zeros(0, 17, 2, 2))
    assert result.joints.shape == (0, 24, 3) and result.joint_cov.shape == (0, 24, 3, 3)
    assert result.root_cov.shape == (0, 6, 6) and result.ok.shape == (0,)


@pytest.mark.parametrize("value", [0.0, 1e6, -1e6])
def test_nonsense_gives_no_nan_in_people_who_are_ok(model, prior, value):
    points = torch.full((1, 17, 2), value, dtype=torch.float64)
    result = fit(model, prior, points, torch.full((1, 17, 2, 2), 0.0, dtype=torch.float64))
    for field in result:
        if field.is_floating_point():
            assert result.ok[0] == bool(field[0].isfinite().all())
    assert not result.ok[0] or result.root[0, 2] > solve.MIN_DEPTH_M


# ------------------------------------------------------------------------------- covariance


def test_covariances_are_calibrated(model, prior):
    """The truth lies as far off, in standard deviations, as the covariance says (3 dof: 2.4)."""
    state = make_people(prior, 40, seed=5)
    result = fit(model, prior, *observe(model, state, 5.0))
    truth = model(*state, with_vertices=False).joints
    error = (result.joints - truth)[..., None]
    squared = (error.mT @ torch.linalg.solve(result.joint_cov, error)).flatten()
    assert 0.5 < squared.median() < 5
    np.testing.assert_allclose(result.joint_cov[:, 0], result.root_cov[:, :3, :3], rtol=1e-3,
                               atol=1e-8)
    assert torch.linalg.eigvalsh(result.root_cov).min() > 0


def test_depth_is_less_certain_than_place_in_the_image(model, prior, people):
    variance = fit(model, prior, *observe(model, people)).root_cov.diagonal(dim1=1, dim2=2)
    assert (variance[:, 2] > 4 * variance[:, 1]).all()
