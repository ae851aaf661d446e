"""The fit: derivatives by finite differences, recovery of known bodies, and independence."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ros2_pose.body.fit_cost import MIN_DEPTH_M, linearise
from ros2_pose.body.fit_kinematics import UNKNOWNS, fit_rig, quat_jacobian
from ros2_pose.body.fit_problem import rotation_form, with_hypothesis
from ros2_pose.body.fit_result import body_fit
from ros2_pose.body.fitter import FitSettings, Fitter, Previous, Sighting
from ros2_pose.body.gaussian import add_information
from ros2_pose.body.kinematics import pose_rig
from ros2_pose.body.lift import Lift, Lifted
from ros2_pose.body.model import BodyModel
from ros2_pose.body.prior import PosePrior
from ros2_pose.body.so3 import (
    angle_between,
    quat_from_rotmat,
    quat_from_rotvec,
    quat_product,
    rotmat_from_quat,
    rotmat_from_rotvec,
)
from ros2_pose.body.state import BodyState
from ros2_pose.body.temporal_prior import with_previous
from ros2_pose.skeleton import COCO17, MUPOTS17, SMPL24

FOCAL_PX = 1000.0
FACING = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))


@pytest.fixture(scope="module")
def model():
    return BodyModel.load()


@pytest.fixture(scope="module")
def prior():
    return PosePrior.load()


@pytest.fixture(scope="module")
def fitter(model, prior):
    return Fitter(model, prior, Lift.load())


def fit(fitter, points, cov, previous=None, seconds=0.1, frames=1, disagreement_s=0.0, **known):
    """Fit with a previous state as if it were from the frame before."""
    if previous is not None:
        previous = Previous(previous, torch.full((len(points),), seconds),
                            torch.full((len(points),), frames),
                            torch.as_tensor(disagreement_s).expand(len(points)))
    return fitter.fit(Sighting(points, cov, **known), previous)


@pytest.fixture(scope="module")
def people(prior):
    return make_people(prior, 6)


def make_people(prior, count, seed=0):
    """People near the prior's mean, rotated by any yaw, 2 to 6 m away."""
    rng = np.random.default_rng(seed)
    white = torch.tensor(rng.normal(0, 0.6, (count, 69)))
    yaw = torch.tensor(rng.uniform(0, 2 * np.pi, count))
    facing = FACING @ rotmat_from_rotvec(yaw[:, None] * torch.tensor([0.0, 1.0, 0.0]))
    theta = torch.cat([quat_from_rotmat(facing)[:, None],
                       prior.pose(white)], 1)
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


def problem_of(fitter, state, has_previous=False, **known):
    """A problem with all terms and with its solution near `state`."""
    points, cov = observe(fitter.model, state, 3.0)
    sighting = Sighting(points, cov, **known)
    lifted, _ = fitter.propose(sighting)
    problem = with_hypothesis(fitter.problem(sighting, lifted),
                              lifted.select(lifted.logits.argmax(1)), state.root[:, 2])
    if not has_previous:
        return problem
    frames = torch.ones(len(points))
    previous = Previous(perturbed(state, 0.05, 9), 0.1 * frames, frames, 0 * frames)
    return with_previous(problem, previous)


def moved(state, step):
    """The state after a step of the 85 unknowns: rotations about the camera's axes."""
    rotations = rotmat_from_rotvec(step[:, :72].reshape(-1, 24, 3))
    local = rotmat_from_quat(state.theta)
    accumulated = [local[:, 0]]
    for joint in range(1, 24):
        accumulated.append(accumulated[SMPL24.parents[joint]] @ local[:, joint])
    theta = [quat_from_rotmat(a.mT @ rotations[:, j] @ a)
             for j, a in enumerate(accumulated)]
    theta = quat_product(state.theta, torch.stack(theta, 1))
    return BodyState(theta, state.betas + step[:, 72:82], state.root + step[:, 82:])


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


def test_the_landmarks_of_the_fit_and_their_jacobians_are_those_of_the_model(model, people):
    """The fit's kinematics in NumPy against the model's in torch, also by differences."""
    state = perturbed(people, 0.2)
    rig = fit_rig(model.rig(people.root))
    pose = rig.pose(rotmat_from_quat(state.theta).numpy(), state.betas.numpy(), state.root.numpy())
    posed = model(*state, with_vertices=False)
    np.testing.assert_allclose(pose[0], posed.global_rotmats, atol=1e-12)
    np.testing.assert_allclose(pose[2].swapaxes(1, 2), posed.landmarks, atol=1e-12)
    numeric = differences(lambda s: model(*s, with_vertices=False).landmarks, state)
    transpose = numeric.permute(0, 3, 2, 1).numpy()  # (P, 85, 3, M)
    np.testing.assert_allclose(rig.landmark_jacobian(pose), transpose, atol=1e-8)
    by_landmark = np.random.default_rng(0).normal(size=(len(state.root), 3, 2, 17))
    expected = np.einsum("pcrn,pucn->purn", by_landmark, transpose[..., 24:])
    np.testing.assert_allclose(rig.jacobian(pose, by_landmark, slice(24, None)), expected,
                               atol=1e-7)


@pytest.mark.parametrize("known", [
    {}, {"has_previous": True}, {"height": 1.8}, {"depth": 3.0, "depth_std": 0.05},
    {"up": (0.1, -0.9, 0.4)}, {"floor": (0.0, -1.0, 0.0, 1.2)}], ids=lambda known: "".join(known))
def test_gradient_is_the_derivative_of_the_cost(fitter, people, known):
    known = {name: value if name == "has_previous" else
             torch.tensor(value, dtype=torch.float64).expand(
                 (len(people.root),) if isinstance(value, float) else (len(value),))
             for name, value in known.items()}
    problem = problem_of(fitter, people, **known)
    state = perturbed(people, 0.1)
    gradient = linearise(problem, state).gradient
    numeric = differences(lambda s: linearise(problem, s).cost, state)
    np.testing.assert_allclose(gradient, numeric, rtol=1e-5, atol=1e-5 * gradient.abs().max())


def test_hessian_is_symmetric_and_positive(fitter, people):
    hessian = linearise(problem_of(fitter, people), perturbed(people, 0.1)).hessian
    np.testing.assert_allclose(hessian, hessian.transpose(1, 2), rtol=1e-9, atol=1e-9)
    assert torch.linalg.eigvalsh(hessian).min() > 0


def test_a_rotation_prior_is_the_gaussian_on_the_chord():
    rng = np.random.default_rng(0)
    reference, quat = torch.nn.functional.normalize(torch.tensor(rng.normal(size=(2, 5, 24, 4))),
                                                    dim=3)
    precision = rng.uniform(1, 100, (5, 24))
    form = rotation_form(reference.numpy(), precision)
    cost = np.einsum("pji,pjik,pjk->pj", quat, form, quat)
    chord = 2 * (angle_between(reference, quat) / 2).sin().numpy()
    np.testing.assert_allclose(cost, precision / 2 * chord**2, rtol=1e-9)


def test_two_gaussians_multiplied_are_one_of_their_summed_information():
    rng = np.random.default_rng(0)
    means, halves = rng.normal(size=(2, 4, 13)), rng.normal(size=(2, 4, 13, 20))
    first, second = halves @ halves.swapaxes(2, 3)
    mean, precision = add_information(means[0], first, second,
                                      (second @ means[1][..., None])[..., 0])
    total = (first @ means[0][..., None] + second @ means[1][..., None])[..., 0]
    np.testing.assert_allclose(precision, first + second)
    np.testing.assert_allclose(mean, (np.linalg.inv(first + second) @ total[..., None])[..., 0],
                               rtol=1e-8)


def test_covariances_are_those_of_the_inverse_hessian(model, fitter, people):
    problem = problem_of(fitter, people)
    local = linearise(problem, people)
    found = body_fit(problem, people, local, torch.zeros(len(people.root)))
    rig = fit_rig(problem.rig)
    pose = tuple(value.numpy() for value in (local.global_rotmats, local.parts, local.landmarks))
    jacobian = rig.landmark_jacobian(pose)  # (P, 85, 3, M)
    inverse = fitter.settings.inflation * np.linalg.inv(local.hessian.numpy())
    cov = np.einsum("purn,puv,pvsn->pnrs", jacobian, inverse, jacobian)
    np.testing.assert_allclose(found.joint_cov, cov[:, :24], rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(found.keypoint_cov, cov[:, 24:], rtol=1e-6, atol=1e-12)
    root = [82, 83, 84, 0, 1, 2]
    np.testing.assert_allclose(found.root_cov, inverse[:, root][:, :, root], rtol=1e-6, atol=1e-12)


def test_jacobian_of_a_rotation_by_differences():
    quat = torch.nn.functional.normalize(torch.randn(20, 4, dtype=torch.float64), dim=-1)
    numeric = []
    for axis in torch.eye(3, dtype=torch.float64) * 1e-6:
        ahead, behind = (quat_product(quat, quat_from_rotvec(sign * axis)[None].expand(20, 4))
                         for sign in (1, -1))
        numeric.append(2 * (ahead - behind) / 2e-6)
    np.testing.assert_allclose(quat_jacobian(quat.numpy()), torch.stack(numeric, -1), atol=1e-8)


# --------------------------------------------------------------------------------- recovery


def hip_centred_error_m(found, joints):
    return ((found - found[:, :1]) - (joints - joints[:, :1])).norm(dim=2).mean(1)


def test_cold_start_recovers_depth_and_joints(model, fitter, prior):
    """Of many people, as a person of unusual height seems nearer or farther."""
    people = make_people(prior, 60)
    result = fit(fitter, *observe(model, people))
    truth = model(*people, with_vertices=False)
    assert result.ok.all() and all(v.isfinite().all() for v in result if v.is_floating_point())
    depth_error = (result.root[:, 2] / people.root[:, 2] - 1).abs()
    assert depth_error.median() < 0.05 and depth_error.quantile(0.9) < 0.1
    assert depth_error.max() < 0.2
    error_m = hip_centred_error_m(result.joints, truth.joints)
    assert error_m.median() < 0.07 and error_m.max() < 0.16


def proposal(state, std=0.05):
    """The proposal of a network that is right about people."""
    known = torch.full((len(state.betas), 1, 24), std).double()
    return Lifted(*(value[:, None].clone() for value in state), known,
                  torch.full_like(known[..., :3], 0.1), torch.zeros(len(known), 1))


def test_a_proposed_body_is_one_more_hypothesis(model, fitter, people):
    """It helps where it is right; people without a proposal are fitted as before."""
    seen = observe(model, people)
    without = fit(fitter, *seen)
    joints = model(*people, with_vertices=False).joints
    with_proposal = fit(fitter, *seen, proposed=proposal(people))
    assert hip_centred_error_m(with_proposal.joints, joints).mean() \
        < 0.6 * hip_centred_error_m(without.joints, joints).mean()
    unknown = proposal(people)
    for value in unknown:
        value[::2] = torch.nan
    half = fit(fitter, *seen, proposed=unknown)
    torch.testing.assert_close(half.joints[::2], without.joints[::2])
    torch.testing.assert_close(half.joints[1::2], with_proposal.joints[1::2])


def test_every_facing_is_found(model, prior, fitter):
    """Sixteen people in the same pose, every 22.5 degrees around."""
    state = make_people(prior, 1).rows(torch.zeros(16, dtype=torch.long))
    yaw = torch.arange(16, dtype=torch.float64) * (2 * np.pi / 16)
    facing = FACING @ rotmat_from_rotvec(yaw[:, None] * torch.tensor([0.0, 1.0, 0.0]))
    theta = torch.cat([quat_from_rotmat(facing)[:, None], state.theta[:, 1:]], 1)
    state = state._replace(theta=theta)
    result = fit(fitter, *observe(model, state))
    rotation = angle_between(result.theta[:, 0], theta[:, 0])
    assert (rotation < np.radians(35)).sum() >= 15


def test_warm_start_follows_a_moved_person(model, fitter, people):
    first = fit(fitter, *observe(model, people))
    walked = people._replace(root=people.root + torch.tensor([0.05, 0.0, 0.05]))
    second = fit(fitter, *observe(model, walked, seed=1), previous=first.state)
    truth = model(*walked, with_vertices=False).joints
    assert hip_centred_error_m(second.joints, truth).median() < 0.07
    step = second.root[:, 0] - first.root[:, 0]
    np.testing.assert_allclose(step.median(), 0.05, atol=0.03)


def test_warm_start_from_another_person_restarts(model, fitter, people):
    points, cov = observe(model, people)
    wrong = people.rows(torch.tensor([5, 4, 3, 2, 1, 0]))
    result, cold = (
        fit(fitter, points, cov, previous=wrong, disagreement_s=1.0),
        fit(fitter, points, cov),
    )
    depth_error = (result.root[:, 2] / people.root[:, 2] - 1).abs()
    assert depth_error.median() < 0.08
    assert (result.cost < cold.cost + 20).float().mean() > 0.6


def test_one_wrong_image_moves_a_body_less_than_half_as_far_as_it_says(model, fitter, people):
    moved_m, told_m, disagrees = [], [], []
    for seed in range(5):
        first = fit(fitter, *observe(model, people, seed=100 + seed))
        points, cov = observe(model, people, seed=seed)
        folded = points.clone()  # a detector that finds the upper body on the legs
        folded[:, 5:11] = points[:, 11:17]
        second, cold = fit(fitter, folded, cov, previous=first.state), fit(fitter, folded, cov)
        moved_m.append((second.joints - first.joints).norm(dim=2).mean(1))
        told_m.append((cold.joints - first.joints).norm(dim=2).mean(1))
        disagrees.append(second.disagreement_s > 0)
    assert torch.stack(moved_m).median() < 0.15
    assert torch.stack(moved_m).median() < torch.stack(told_m).median() / 2
    assert torch.stack(disagrees).float().mean() > 0.5


def test_a_wrong_track_restarts_within_its_patience(model, fitter, people):
    """Rotated by half a turn and a metre away: a warm fit cannot find the right pose."""
    points, cov = observe(model, people)
    cold = fit(fitter, points, cov)
    wrong = moved(people, torch.zeros(len(points), UNKNOWNS, dtype=torch.float64).index_fill(
        1, torch.tensor([1]), 3.0).index_fill(1, torch.tensor([82]), 1.0))
    result, seconds = fit(fitter, points, cov, previous=wrong), 0.1
    for _ in range(round(fitter.settings.patience_s / seconds) + 1):
        result = fit(fitter, points, cov, previous=result.state, seconds=seconds,
                     disagreement_s=result.disagreement_s)
    assert (result.cost < cold.cost + 20).all()
    assert (result.disagreement_s < fitter.settings.patience_s).all()


def test_state_with_nan_starts_cold(model, fitter, people):
    points, cov = observe(model, people)
    cold = fit(fitter, points, cov)
    nan = fit(fitter, points, cov, previous=BodyState.missing(points))
    for a, b in zip(cold, nan):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)


def test_anisotropic_pixels_and_float32(model, fitter, people):
    points, cov = observe(model, people)
    stretched = torch.diag(torch.tensor([1.0, 4.0], dtype=torch.float64)) @ cov
    result = fit(fitter, points.float(), stretched.float())
    assert result.joints.dtype == torch.float32 and result.ok.all()
    assert (result.root[:, 2] / people.root[:, 2] - 1).abs().median() < 0.05


def test_an_outlier_has_little_influence(model, fitter):
    points, cov = observe(model, make_people(fitter.prior, 60))
    spoilt = points.clone()
    spoilt[:, COCO17.index("left_wrist")] += 0.3
    clean, result = fit(fitter, points, cov), fit(fitter, spoilt, cov)
    legs = [SMPL24.index(f"{s}_{j}") for s in ("left", "right") for j in ("hip", "knee", "ankle")]
    moved_m = (clean.joints - result.joints)[:, legs].norm(dim=2).mean(1)
    assert moved_m.median() < 0.05
    assert not result.joint_observed[:, SMPL24.index("left_wrist")].any()


# --------------------------------------------------------------------------- what is missing


def test_alone_is_as_in_a_batch(model, fitter, people):
    points, cov = observe(model, people)
    together = fit(fitter, points, cov)
    for i in (0, 3):
        alone = fit(fitter, points[i:i + 1], cov[i:i + 1])
        for a, b in zip(alone, together):
            np.testing.assert_allclose(a[0], b[i], rtol=1e-4, atol=1e-6)


def test_a_tracked_person_alone_is_as_in_a_batch(model, prior, fitter):
    """Also where some have converged and others have not."""
    state = make_people(prior, 12, seed=4)
    points, cov = observe(model, state, 2.0)
    before = perturbed(state, 0.05)
    together = fit(fitter, points, cov, previous=before)
    for i in range(12):
        person = slice(i, i + 1)
        alone = fit(fitter, points[person], cov[person],
                    previous=BodyState(*(value[person] for value in before)))
        for a, b in zip(alone, together):
            np.testing.assert_allclose(a[0], b[i], rtol=1e-4, atol=1e-6)


def test_too_few_points_are_flagged_and_nan(model, fitter, people):
    points, cov = observe(model, people)
    points = points.clone()
    points[1, 3:] = torch.nan
    points[2] = torch.nan
    result = fit(fitter, points, cov)
    assert result.ok.tolist() == [True, False, False, True, True, True]
    for value in result:
        if value.is_floating_point():
            assert value[1].isnan().all() and value[0].isfinite().all()
    assert not result.joint_observed[1].any()


def test_half_a_person_is_fitted_with_less_certainty(model, fitter, people):
    points, cov = observe(model, people)
    upper = points.clone()
    upper[:, COCO17.index("left_knee"):] = torch.nan
    whole, half = fit(fitter, points, cov), fit(fitter, upper, cov)
    ankle = SMPL24.index("left_ankle")
    assert half.ok.all() and not half.joint_observed[:, ankle].any()
    def variance(result):
        return result.joint_cov[:, ankle].diagonal(dim1=1, dim2=2).sum(1)
    assert (variance(half) > 1.5 * variance(whole)).all()


def test_no_people(fitter):
    result = fit(fitter, torch.zeros(0, 17, 2), torch.zeros(0, 17, 2, 2))
    assert result.joints.shape == (0, 24, 3) and result.joint_cov.shape == (0, 24, 3, 3)
    assert result.root_cov.shape == (0, 6, 6) and result.ok.shape == (0,)


@pytest.mark.parametrize("value", [0.0, 1e6, -1e6])
def test_degenerate_keypoints_give_no_nan_in_people_that_are_ok(fitter, value):
    points = torch.full((1, 17, 2), value, dtype=torch.float64)
    result = fit(fitter, points, torch.full((1, 17, 2, 2), 0.0, dtype=torch.float64))
    for field in result:
        if field.is_floating_point():
            assert result.ok[0] == bool(field[0].isfinite().all())
    assert not result.ok[0] or result.root[0, 2] > MIN_DEPTH_M


# ------------------------------------------------------------------------------- covariance


def test_covariances_are_calibrated(model, prior, fitter):
    """The median squared Mahalanobis distance is that of 3 degrees of freedom, 2.4."""
    state = make_people(prior, 40, seed=5)
    result = fit(fitter, *observe(model, state, 5.0))
    truth = model(*state, with_vertices=False).joints
    error = (result.joints - truth)[..., None]
    squared = (error.mT @ torch.linalg.solve(result.joint_cov, error)).flatten()
    assert 0.5 < squared.median() < 5
    np.testing.assert_allclose(result.joint_cov[:, 0], result.root_cov[:, :3, :3], rtol=1e-3,
                               atol=1e-8)
    assert torch.linalg.eigvalsh(result.root_cov).min() > 0


def test_depth_is_less_certain_than_position_in_the_image(model, fitter, people):
    variance = fit(fitter, *observe(model, people)).root_cov.diagonal(dim1=1, dim2=2)
    assert (variance[:, 2] > 4 * variance[:, 1]).all()


# ------------------------------------------------------------------- what else may be known


def test_a_known_height_gives_the_distance(model, fitter):
    people = make_people(fitter.prior, 30, seed=4)
    tall = people._replace(betas=people.betas + torch.tensor([1.0] + [0.0] * 9))
    base, by_beta = model.stature
    height = base + tall.betas @ by_beta.double()
    points, cov = observe(model, tall)
    unknown, known = fit(fitter, points, cov), fit(fitter, points, cov, height=height)
    def error(result):
        return (result.root[:, 2] / tall.root[:, 2] - 1).abs().median()
    assert error(unknown) > 0.07 > 0.035 > error(known)
    assert (known.root_cov[:, 2, 2] < 0.6 * unknown.root_cov[:, 2, 2]).all()


def test_a_measured_depth_gives_distance_and_size(model, fitter):
    people = make_people(fitter.prior, 30, seed=6)
    small = people._replace(betas=people.betas - torch.tensor([0.8] + [0.0] * 9))
    points, cov = observe(model, small)
    depth = small.root[:, 2].clone()
    depth[0] = torch.nan
    std = torch.full_like(depth, 0.03)
    unknown = fit(fitter, points, cov)
    measured = fit(fitter, points, cov, depth=depth, depth_std=std)
    assert ((measured.root[1:, 2] - small.root[1:, 2]).abs() < 0.1).all()
    np.testing.assert_allclose(measured.root[0], unknown.root[0], atol=1e-6)
    assert (measured.root_cov[1:, 2, 2] < 0.3 * unknown.root_cov[1:, 2, 2]).all()
    np.testing.assert_allclose(measured.betas[1:, 0].median(), small.betas[1:, 0].median(),
                               atol=0.3)


def test_a_floor_gives_the_distance(model, fitter):
    """Tall people on a floor seen from above: by the mean height they would be too near."""
    people = make_people(fitter.prior, 20, seed=8)
    people = people._replace(betas=people.betas + torch.tensor([1.0] + [0.0] * 9))
    ankles = [COCO17.index("left_ankle"), COCO17.index("right_ankle")]
    lowest = model(*people, with_vertices=False).keypoints[:, ankles, 1].amax(1)
    height = 2.2  # of the camera
    shift = torch.zeros_like(people.root)
    shift[:, 1] = height - fitter.settings.ankle_height_m - lowest
    people = people._replace(root=people.root + shift)
    points, cov = observe(model, people)
    unknown = fit(fitter, points, cov)
    floor = torch.tensor([0.0, -1.0, 0.0, height], dtype=torch.float64)
    standing = fit(fitter, points, cov, floor=floor)
    def error(result):
        return (result.root[:, 2] / people.root[:, 2] - 1).abs().median()
    assert error(standing) < 0.5 * error(unknown)
    on_floor = (standing.keypoints[:, ankles, 1].amax(1) - (height - 0.09)).abs() < 0.1
    assert on_floor.float().mean() > 0.5  # others may as well be smaller and jump
    variances = standing.root_cov[:, 2, 2], unknown.root_cov[:, 2, 2]
    assert (variances[0] < variances[1])[on_floor].all()
    np.testing.assert_allclose(variances[0][~on_floor], variances[1][~on_floor], rtol=0.01)


@pytest.fixture(scope="module")
def on_floor(model, fitter):
    """Function that puts people onto a floor 1.4 m below a level camera, and raises them."""
    people = make_people(fitter.prior, 20, seed=11)
    ankles = [COCO17.index("left_ankle"), COCO17.index("right_ankle")]
    lowest = model(*people, with_vertices=False).keypoints[:, ankles, 1].amax(1)
    floor = torch.tensor([0.0, -1.0, 0.0, 1.4], dtype=torch.float64)

    def at(raised_m=0.0):
        root = people.root.clone()
        root[:, 1] += 1.4 - fitter.settings.ankle_height_m - lowest - raised_m
        return people._replace(root=root)
    return at, floor


@pytest.mark.parametrize("raised_m", [0.6, 1.0, -0.7])
def test_who_is_far_from_the_floor_is_found_as_without_it(model, fitter, on_floor, raised_m):
    at, floor = on_floor
    points, cov = observe(model, at(raised_m))
    alone, found = fit(fitter, points, cov), fit(fitter, points, cov, floor=floor)
    distance = alone.root.norm(dim=1)
    assert ((found.root - alone.root).norm(dim=1) < 0.03 * distance).all()  # by other starts
    ratio = found.root_cov[:, 2, 2] / alone.root_cov[:, 2, 2]
    assert (ratio > 0.9).all() and (ratio < 1.1).all()


def test_contact_is_least_probable_where_it_costs_most(fitter, on_floor):
    """The pull towards the floor first grows with the height, then vanishes."""
    at, floor = on_floor
    pulls = []
    for raised_m in (0.0, 0.05, 0.1, 0.3, 0.6, 1.2):
        problem = problem_of(fitter, at(raised_m), floor=floor)
        without = replace(problem, floor=None)
        there = at(raised_m)
        pull = linearise(problem, there).gradient - linearise(without, there).gradient
        pulls.append(pull[:, -2].abs())  # y of the root
    pulls = torch.stack(pulls)
    assert (pulls[0] < 1e-6).all() and (pulls[1] < pulls[2]).all()
    assert (pulls[3] > pulls[4]).all() and (pulls[5] < 1e-6).all()
    assert torch.isfinite(pulls).all()


def test_a_floor_says_nothing_of_people_without_legs_in_sight(model, fitter, on_floor):
    at, floor = on_floor
    points, cov = observe(model, at(0.1))
    legs = [i for i, name in enumerate(COCO17.names) if "knee" in name or "ankle" in name]
    points[:, legs] = torch.nan
    np.testing.assert_allclose(fit(fitter, points, cov, floor=floor).root,
                               fit(fitter, points, cov).root, atol=1e-6)


def test_a_jump_of_someone_who_stood_is_no_change_of_distance(model, fitter, on_floor):
    """Nor is what follows a floor that is lost, or wrong for a moment."""
    at, floor = on_floor
    state = None
    for number, raised_m in enumerate([0.0] * 8 + [0.15, 0.26, 0.3]):
        points, cov = observe(model, at(raised_m), seed=number)
        result = fit(fitter, points, cov, state, frames=number, floor=floor)
        state = result.state
    def error(result, raised_m):
        return (result.root.norm(dim=1) / at(raised_m).root.norm(dim=1) - 1).abs().median()
    assert error(result, 0.3) < 0.03
    points, cov = observe(model, at(0.0), seed=20)
    too_high, upside_down = torch.tensor([1, 1, 1, 0.2]), torch.tensor([-1, -1, -1, 1])
    for wrong in (None, floor * too_high, floor * upside_down):
        assert error(fit(fitter, points, cov, state, floor=wrong), 0.0) < 0.06


def test_a_track_keeps_its_shape(model, fitter):
    """Bone lengths of a moving person converge, and do not change with the pose."""
    prior = fitter.prior
    rng = np.random.default_rng(2)
    state, result, first, lengths = make_people(prior, 1, seed=3), None, None, []
    ends = torch.tensor(rng.normal(0, 0.6, (2, 69)))
    for frame in range(60):
        phase = np.sin(frame / 4)
        pose = prior.pose((ends[:1] * (1 + phase) + ends[1:] * (1 - phase)) / 2)
        moving = state._replace(theta=torch.cat([state.theta[:, :1], pose], 1))
        points, cov = observe(model, moving, 2.0, seed=frame)
        result = fit(fitter, points, cov, None if result is None else result.state, frames=frame)
        bones = result.joints[0, 1:] - result.joints[0, list(SMPL24.parents[1:])]
        lengths.append(bones.norm(dim=1))
        first = first or result
    assert result.root_cov[0, 2, 2] > 0.5 * first.root_cov[0, 2, 2]  # the height is still unknown
    late = torch.stack(lengths[30:])
    assert (late.std(0) / late.mean(0)).max() < 0.01
    assert (late[0] / late[-1] - 1).abs().max() < 0.03


def test_keypoints_in_3d_determine_position_and_pose(model, fitter, people):
    truth = model(*people, with_vertices=False)
    cov = (torch.eye(3, dtype=torch.float64) * 0.005**2).expand(len(people.root), 17, 3, 3)
    exact = Fitter(model, fitter.prior, fitter.lift, FitSettings(keypoint_error_m=0.002))
    result = fit(exact, truth.keypoints, cov)
    assert (result.root - people.root).norm(dim=1).max() < 0.03
    assert hip_centred_error_m(result.joints, truth.joints).median() < 0.015


def test_a_fitter_is_not_changed_in_place(fitter):
    taller = fitter.with_settings(FitSettings(adult_height_m=1.9))
    assert taller.settings.adult_height_m == 1.9 != fitter.settings.adult_height_m
    assert taller.model is fitter.model and taller.lift is fitter.lift
    with pytest.raises(AttributeError):
        fitter.settings = taller.settings


def test_another_joint_set(model, fitter, people):
    """MuPoTS calls the middle of the hips pelvis; SMPL's lies higher."""
    rig = model.rig(people.root, MUPOTS17)
    joints = model(*people, with_vertices=False).joints
    positions = pose_rig(rig, rotmat_from_quat(people.theta), people.betas, people.root).keypoints
    hips = (joints[:, SMPL24.index("left_hip")] + joints[:, SMPL24.index("right_hip")]) / 2
    np.testing.assert_allclose(positions[:, MUPOTS17.index("pelvis")], hips, atol=1e-9)
    crown = model(*people).vertices[:, model.template[:, 1].argmax()]
    np.testing.assert_allclose(positions[:, MUPOTS17.index("head_top")], crown, atol=1e-6)
    other = Fitter(model, fitter.prior, fitter.lift, joint_set=MUPOTS17)
    points = positions[..., :2] / positions[..., 2:]
    cov = (torch.eye(2, dtype=torch.float64) * 0.002**2).expand(*points.shape, 2)
    result = fit(other, points, cov)
    assert hip_centred_error_m(result.joints, joints).median() < 0.08
    assert result.keypoints.shape == (len(points), 17, 3)


def test_a_rolled_camera_that_knows_up_sees_the_same_people(model, fitter, people):
    points, cov = observe(model, people)
    roll = rotmat_from_rotvec(torch.tensor([0.0, 0.0, 0.7], dtype=torch.float64))
    level = fit(fitter, points, cov, up=torch.tensor([0.0, -1.0, 0.0]))
    rolled = fit(fitter, points @ roll[:2, :2].T, cov, up=-roll[:, 1])
    np.testing.assert_allclose(rolled.joints, level.joints @ roll.T, atol=2e-3)
