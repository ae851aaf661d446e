"""The 2D-3D correction: against scipy, alone and in a batch, with bad input, and what it gains."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from ros2_pose.body.align import align_model
from ros2_pose.body.correct import correct
from ros2_pose.body.gaussian import fuse
from ros2_pose.evaluation.benchmarks.align_as_printed import align_as_printed
from ros2_pose.evaluation.benchmarks.correction import correction, simulated_people
from ros2_pose.evaluation.harness import Options

K = 14


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Tensors are small: threads would mostly wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def sample():
    return simulated_people(60, seed=3)


@pytest.fixture(scope="module")
def case(sample):
    """points, cov, joints, joint_cov of 60 people, as `correct` takes them."""
    own = sample.body_cov.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)
    return sample.points, isotropic(sample.sigma), sample.body, own


def isotropic(sigma, size=2):
    return torch.as_tensor(sigma)[..., None, None] ** 2 * torch.eye(size, dtype=torch.float64)


def exact(people, seed, turn_rad=0.0):
    """Bodies in place (P, K, 3), what a camera sees of them, and the same bodies rotated, moved."""
    rng = np.random.default_rng(seed)
    placed = torch.tensor(rng.normal(0, (0.3, 0.5, 0.2), (people, K, 3)) + (0.4, -0.2, 3.5))
    axes = rng.normal(size=(people, 3))
    turns = Rotation.from_rotvec(turn_rad * axes / np.linalg.norm(axes, axis=1, keepdims=True))
    model = placed @ torch.tensor(turns.as_matrix()).mT + torch.tensor([7.0, 8.0, -9.0])
    return placed, placed[..., :2] / placed[..., 2:], model, turns.inv().as_matrix()


def tiny_errors(people):
    return (isotropic(torch.full((people, K), 1e-7, dtype=torch.float64)),
            isotropic(torch.full((people, K), 1e-6, dtype=torch.float64), 3))


def behind(joints):
    return joints[..., :2] / joints[..., 2:]


# --------------------------------------------------------------------------------- alignment


@pytest.mark.parametrize("turn_rad", [0.0, 0.2, 0.4])
def test_exact_points_recover_rotation_position_and_depth(turn_rad):
    placed, points, model, turns = exact(50, 0, turn_rad)
    cov, joint_cov = tiny_errors(50)
    aligned, rotmat, _, _, ok = align_model(points, cov, model, joint_cov)
    assert ok.all()
    np.testing.assert_allclose(rotmat, turns, atol=1e-5)
    np.testing.assert_allclose(aligned, placed, atol=1e-4)
    corrected_points, _, corrected_joints, _ = correct(points, cov, model, joint_cov)
    np.testing.assert_allclose(corrected_points, points, atol=1e-6)
    np.testing.assert_allclose(corrected_joints, placed, atol=1e-4)


def test_alignment_is_the_least_squares_of_scipy(case):
    """With equal variances, the prior on the rotation as residuals, and no outlier."""
    for person in range(5):
        _, _, body, _ = (value[person] for value in case)
        placed = body + torch.tensor([0.3, 0.1, 4.0])
        noise = np.random.default_rng(person).normal(0, 0.004, (K, 2))
        points = behind(placed) + torch.tensor(noise)
        none = torch.zeros(1, K, 3, 3, dtype=torch.float64)
        cov = isotropic(torch.full((1, K), 0.005, dtype=torch.float64))
        _, rotmat, position, _, _ = align_model(points[None], cov, body[None], none)
        centred = (body - body.mean(0)).numpy()

        def residuals(x):
            at = Rotation.from_rotvec(x[:3]).apply(centred) + x[3:]
            angle = np.linalg.norm(x[:3])
            gibbs = x[:3] * (2 * np.tan(angle / 2) / angle if angle else 1)
            return np.r_[((at[:, :2] / at[:, 2:] - points.numpy()) / 0.005).ravel(), gibbs / 0.2]

        best = least_squares(residuals, np.r_[0.0, 0, 0, placed.mean(0)], xtol=1e-12)
        np.testing.assert_allclose(position[0], best.x[3:], atol=2e-3)
        np.testing.assert_allclose(Rotation.from_matrix(rotmat[0].numpy()).as_rotvec(),
                                   best.x[:3], atol=2e-3)


def test_rotations_are_never_reflections(case):
    points, cov, joints, joint_cov = case
    mirrored = joints * torch.tensor([-1.0, 1, 1])
    garbage = torch.tensor(np.random.default_rng(0).normal(size=points.shape))
    for some, body in ((points, joints), (points, mirrored), (garbage, joints)):
        _, rotation, _, _, _ = align_model(some, cov, body, joint_cov)
        np.testing.assert_allclose(torch.linalg.det(rotation), 1, atol=1e-9)
        np.testing.assert_allclose(rotation @ rotation.mT, np.tile(np.eye(3), (60, 1, 1)),
                                   atol=1e-9)


def test_as_printed_is_a_procrustes_that_may_reflect():
    """The first iteration matches a flat figure: its mirror image fits as well."""
    _, points, model, _ = exact(200, 1, turn_rad=1.5)
    cov, joint_cov = tiny_errors(200)
    sigma = torch.ones(200, K, dtype=torch.float64)
    printed_points, printed_rotmat, printed_depths = align_as_printed(points, sigma, model,
                                                                      iterations=1)
    determinants = torch.linalg.det(printed_rotmat)
    _, repaired_rotmat, _, _, _ = align_model(points, cov, model, joint_cov)
    assert (determinants < 0).any() and (torch.linalg.det(repaired_rotmat) > 0).all()
    person = int(determinants.argmax())  # one who is not mirrored
    flat, shape = (v[person] - v[person].mean(0) for v in (points, model))
    flat, shape = flat.numpy(), (shape / shape.std(correction=0)).numpy()
    oracle = Rotation.align_vectors(shape, np.c_[flat / flat.std(), np.zeros(K)])[0].as_matrix()
    np.testing.assert_allclose(printed_rotmat[person], oracle, atol=1e-6)
    turned = shape @ oracle
    np.testing.assert_allclose(printed_depths[person], turned[:, 2], atol=1e-6)
    np.testing.assert_allclose(printed_points[person] - points[person].mean(0),
                               turned[:, :2] * flat.std(), atol=1e-6)


def test_rotated_image_gives_rotated_result(case):
    points, cov, joints, joint_cov = case
    turn = Rotation.from_rotvec([0, 0, 0.7]).as_matrix()
    turn = torch.tensor(turn)
    flat = turn[:2, :2]
    there_points, _, there_joints, _ = correct(points @ flat.T, cov, joints @ turn.T,
                                               turn @ joint_cov @ turn.T)
    here_points, _, here_joints, _ = correct(points, cov, joints, joint_cov)
    np.testing.assert_allclose(there_points, here_points @ flat.T, atol=1e-3)
    np.testing.assert_allclose(there_joints, here_joints @ turn.T, atol=1e-2)


def test_result_does_not_depend_on_the_models_position(case):
    points, cov, joints, joint_cov = case
    _, _, here_joints, _ = correct(points, cov, joints, joint_cov)
    moved = joints + torch.tensor([5.0, -3, -20])
    _, _, there_joints, _ = correct(points, cov, moved, joint_cov)
    np.testing.assert_allclose(there_joints, here_joints, atol=1e-6)


def test_outliers_have_little_influence(case, sample):
    points, cov, joints, joint_cov = case
    moved = points.clone()
    moved[:, 3] += 0.3 * torch.sign(moved[:, 3])
    clean, *_ = correct(points, cov, joints, joint_cov)
    dirty, _, _, ok = correct(moved, cov, joints, joint_cov)
    assert ok.all()
    others = [k for k in range(K) if k != 3]
    shift = ((dirty - clean).norm(dim=2) / sample.height[:, None])
    assert shift[:, others].mean() < 0.005
    assert shift[:, 3].mean() < 0.05  # of 0.4 and more


# ------------------------------------------------------------------------------------ fusion


def test_fusion_is_the_information_weighted_mean():
    rng = np.random.default_rng(0)
    roots = rng.normal(size=(2, 30, 2, 2))
    a, b = roots @ roots.swapaxes(-1, -2) + 0.01 * np.eye(2)
    x, y = rng.normal(size=(2, 30, 2))
    point, cov = (v.numpy() for v in fuse(*map(torch.tensor, (x, a, y, b))))
    information = np.linalg.inv(a) + np.linalg.inv(b)
    np.testing.assert_allclose(cov, np.linalg.inv(information), rtol=1e-6)
    weighted = np.linalg.inv(a) @ x[..., None] + np.linalg.inv(b) @ y[..., None]
    np.testing.assert_allclose(point, np.linalg.solve(information, weighted)[..., 0], rtol=1e-6)
    for other in (a, b):
        assert np.linalg.eigvalsh(other - cov).min() > -1e-9


def test_fusion_takes_the_estimate_that_is_known():
    x, y = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 5.0]])
    cov, nan = torch.eye(2)[None], torch.full((1, 2), torch.nan)
    nan_cov = torch.full((1, 2, 2), torch.nan)
    for pixels, model, expected in (((x, cov), (nan, cov), x), ((x, cov), (y, nan_cov), x),
                                    ((nan, nan_cov), (y, cov), y), ((x, nan_cov), (y, cov), y),
                                    ((nan, cov), (nan, cov), nan),
                                    ((x, 0 * cov), (y, cov), x), ((x, cov), (y, 0 * cov), y),
                                    ((x, cov), (y, cov), (x + y) / 2)):
        point, left = fuse(*pixels, *model)
        np.testing.assert_allclose(point, expected)
        assert left.isnan().all() == bool(expected.isnan().all())


def test_fused_covariance_is_no_larger_than_either(case):
    points, cov, joints, joint_cov = case
    placed, *_ = align_model(points, cov, joints, joint_cov)
    corrected_points, corrected_cov, _, ok = correct(points, cov, placed, joint_cov, align=False)
    plain = ok & (corrected_points - points).norm(dim=2).lt(2e-3).all(1)
    smaller = torch.linalg.eigvalsh(cov - corrected_cov)
    assert (smaller[plain] > -1e-12).all()
    assert (torch.linalg.eigvalsh(corrected_cov) > -1e-15).all()


def test_shared_errors_let_a_hidden_wrist_follow_its_elbow():
    """Elbow (0) and wrist (1) are wrong together: seeing one moves the other, in depth, too."""
    joints = torch.tensor([[[0.0, 0.0, 3.0], [0.3, 0.0, 3.0]]], dtype=torch.float64)
    own = 0.05**2 * torch.eye(3, dtype=torch.float64)
    alone = own.expand(1, 2, 3, 3)
    together = own[None, None, :, None].expand(1, 2, 3, 2, 3)
    points, cov = behind(joints), isotropic(torch.full((1, 2), 1e-4, dtype=torch.float64))
    points[:, 0] += 0.02
    points[:, 1] = torch.nan
    apart, apart_cov, _, _ = correct(points, cov, joints, alone, align=False)
    linked, linked_cov, _, _ = correct(points, cov, joints, together, align=False)
    np.testing.assert_allclose(apart[0, 1], [0.1, 0], atol=1e-9)
    np.testing.assert_allclose(linked[0, 1], [0.12, 0.02], atol=1e-3)
    assert linked_cov[0, 1, 0, 0] < 0.2 * apart_cov[0, 1, 0, 0]


def test_in_place_is_the_general_fusion_without_shared_errors(case):
    """The closed form of each keypoint against the update of all of them, by covariances."""
    points, cov, joints, joint_cov = (value.clone() for value in case)
    joints += torch.tensor([0.0, 0, 4])
    points[3, 2] = cov[7, 5, 0, 1] = joints[1, 4] = joint_cov[2, 6, 0, 0] = torch.nan
    points[4], joints[5], joints[6, :, 2] = torch.nan, torch.nan, -1.0
    points[8, 3] += 0.2
    blocks = torch.einsum("pkij,kl->pkilj", joint_cov.nan_to_num(torch.inf),
                          torch.eye(K).double()).nan_to_num(0.0)
    blocks[2, 6] = torch.nan
    for found, expected in zip(correct(points, cov, joints, joint_cov, align=False),
                               correct(points, cov, joints, blocks, align=False)):
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-12)


def test_joints_project_onto_the_points(case):
    for align in (True, False):
        points, cov, joints, joint_cov = case
        placed = joints + (0 if align else torch.tensor([0.0, 0, 4]))
        corrected_points, _, corrected_joints, ok = correct(points, cov, placed, joint_cov,
                                                            align=align)
        assert ok.any()
        np.testing.assert_allclose(behind(corrected_joints[ok]), corrected_points[ok], atol=1e-12)


# -------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("align", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_alone_as_in_a_batch_and_in_single_precision(case, sample, align, shared):
    points, cov, joints, own = case
    if not align:
        joints, *_ = align_model(*case)
    values = points, cov, joints, sample.body_cov if shared else own
    together = correct(*values, align=align)
    alone = correct(*(value[7:8] for value in values), align=align)
    single = correct(*(value.float() for value in values), align=align)
    for a, b, c in zip(alone[:3], together[:3], single[:3]):
        np.testing.assert_allclose(a[0], b[7], atol=1e-10)
        assert c.dtype == torch.float32
        np.testing.assert_allclose(c, b, atol=1e-3)
    empty_points, _, _, empty_ok = correct(*(value[:0] for value in values), align=align)
    assert empty_points.shape == (0, K, 2) and empty_ok.shape == (0,)


@pytest.mark.parametrize("align", [True, False])
def test_missing_points_come_from_the_model_and_back(case, align):
    points, cov, joints, joint_cov = (value.clone() for value in case)
    if not align:
        joints, *_ = align_model(points, cov, joints, joint_cov)
    points[:, 2] = torch.nan
    cov[:, 3] = torch.nan
    joints[:, 5] = torch.nan
    joint_cov[:, 6] = torch.nan
    points[:, 8], joints[:, 8] = torch.nan, torch.nan
    corrected_points, corrected_cov, corrected_joints, ok = correct(points, cov, joints, joint_cov,
                                                                    align=align)
    assert ok.all()
    assert corrected_points[:, [2, 3]].isfinite().all()
    np.testing.assert_array_equal(corrected_points[:, [5, 6]], points[:, [5, 6]])
    assert corrected_points[:, 8].isnan().all() and corrected_cov[:, 8].isnan().all()
    assert corrected_joints[:, [5, 6, 8]].isnan().all()
    rest = [k for k in range(K) if k not in (5, 6, 8)]
    assert corrected_joints[:, rest].isfinite().all()


def test_people_that_cannot_be_aligned_keep_their_points(case):
    points, cov, joints, joint_cov = (value[:6].clone() for value in case)
    points[0, 3:] = torch.nan  # three left
    points[1] = 0.1  # all in one place
    points[2] = torch.tensor(np.random.default_rng(0).normal(size=(K, 2)))
    cov[3] = torch.nan
    joints[4] = torch.nan
    corrected_points, corrected_cov, corrected_joints, ok = correct(points, cov, joints, joint_cov)
    assert ok.tolist() == [False] * 5 + [True]
    np.testing.assert_array_equal(corrected_points[:5], points[:5])
    np.testing.assert_array_equal(corrected_cov[:5], cov[:5])
    assert corrected_joints[:5].isnan().all()


def test_a_model_behind_the_camera_or_far_off_is_rejected(case):
    points, cov, joints, joint_cov = (value[:2] for value in case)
    placed = joints + torch.tensor([[[0.0, 0, -4]], [[9.0, 0, 3]]])
    corrected_points, _, _, ok = correct(points, cov, placed, joint_cov, align=False)
    assert not ok.any()
    np.testing.assert_array_equal(corrected_points, points)


@pytest.mark.parametrize("align", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_invalid_numbers_give_finite_results_or_the_points_given(case, sample, align, shared):
    """NaN, infinite, huge, zero and negative numbers: no exception, nothing out of range."""
    points, cov, joints, own = case
    values = [points, cov, joints, sample.body_cov if shared else own]
    if not align:
        values[2] = joints + torch.tensor([0.0, 0, 4])
    rng = np.random.default_rng(5)
    for odd in (np.nan, np.inf, -np.inf, 0.0, -1.0, 1e6, 1e-12):
        for which in range(4):
            broken = [value.clone() for value in values]
            chosen = torch.tensor(rng.random(broken[which].shape) < 0.01)
            broken[which][chosen] = odd
            corrected_points, _, corrected_joints, ok = correct(*broken, align=align)
            known = corrected_joints[ok].isfinite().all(2)
            assert corrected_points[ok][known].isfinite().all()
            assert (corrected_points[ok][known].abs() < 10).all()
            depth = corrected_joints[ok][known][:, 2]
            assert ((depth > 0) & (depth < 500)).all()
            np.testing.assert_array_equal(corrected_points[~ok], broken[0][~ok])


def test_collinear_points_give_a_plausible_depth_or_none(case):
    points, cov, joints, joint_cov = (value.clone() for value in case)
    points[..., 0] = 0.1
    _, _, corrected_joints, ok = correct(points, cov, joints, joint_cov)
    depth = corrected_joints[ok][..., 2]
    assert ((depth > 0.5) & (depth < 20)).all()


# ---------------------------------------------------------------------------- what it gains


def test_correction_reduces_errors_and_the_printed_one_does_not():
    rows = list(correction(Options(Path(), people=300)))
    of_all, hidden, visible = (dict(zip(
        ("raw", "w = 1", "printed", "aligned", "fused", "shared"),
        [row.values[f"{part}, %"] for row in rows])) for part in ("all", "hidden", "visible"))
    assert of_all["shared"] < of_all["fused"] < 1.7 < of_all["raw"] < of_all["printed"]
    assert of_all["fused"] < of_all["aligned"] < of_all["raw"]
    assert hidden["shared"] < hidden["fused"] < hidden["raw"] / 4
    assert visible["shared"] < visible["fused"] < visible["raw"] < visible["printed"]


def test_covariance_is_that_of_the_errors(sample):
    corrected_points, corrected_cov, _, _ = correct(sample.points, isotropic(sample.sigma),
                                                    sample.body, sample.body_cov)
    error = (corrected_points - sample.truth)[..., None]
    squared = (error.mT @ torch.linalg.inv(corrected_cov) @ error)[..., 0, 0]
    assert 1.7 < squared.mean() < 2.4  # 2 numbers each
    assert 1.6 < squared[sample.hidden].mean() < 2.6
