"""Metrics against values computed by hand, and against other people's code."""

import numpy as np
import pytest
from scipy.spatial import procrustes
from scipy.spatial.transform import Rotation

from ros2_pose.metrics import pose as metrics

SIZES = [1, 2, 3, 17]  # of batches: 2 and 3 are those that broadcast by mistake


def poses(count, joints=17, seed=0):
    return np.random.default_rng(seed).normal(size=(count, joints, 3))


def similar(pose, seed):
    """A pose turned, scaled and moved at random."""
    rng = np.random.default_rng(seed)
    return rng.uniform(0.3, 3) * pose @ Rotation.random(random_state=seed).as_matrix().T \
        + rng.normal(size=3)


# ------------------------------------------------------------------------------- distances


def test_mpjpe_by_hand():
    truth = np.zeros((1, 3, 3))
    found = np.array([[[1.0, 0, 0], [1, 3, 4], [1, 0, 2]]])  # apart by 1, sqrt(26), sqrt(5)
    assert metrics.mpjpe(found, truth)[0] == pytest.approx((1 + 26**0.5 + 5**0.5) / 3)
    assert metrics.mpjpe(found, truth, 0)[0] == pytest.approx((0 + 5 + 2) / 3)
    middle = np.array([1, 1.5, 2.0])  # of the first two
    expected = np.linalg.norm(found[0] - middle, axis=1).mean()
    assert metrics.mpjpe(found, truth, 0, 1)[0] == pytest.approx(expected)


@pytest.mark.parametrize("count", SIZES)
def test_everybody_is_measured_alone(count):
    found, truth = poses(count, 3), poses(count, 3, seed=1)
    for metric in (metrics.mpjpe, metrics.pa_mpjpe,
                   lambda a, b: metrics.mpjpe(a, b, 0)):
        together = metric(found, truth)
        assert together.shape == (count,)
        alone = [metric(found[[i]], truth[[i]])[0] for i in range(count)]
        np.testing.assert_allclose(together, alone)


def test_a_joint_that_is_not_known_is_left_out():
    found, truth = poses(2), poses(2, seed=1)
    found[0, 3], truth[0, 5] = np.nan, np.nan
    found[1] = np.nan
    rest = [j for j in range(17) if j not in (3, 5)]
    for metric in (metrics.mpjpe, metrics.pa_mpjpe):
        value = metric(found, truth)
        assert value[0] == pytest.approx(metric(found[:1, rest], truth[:1, rest])[0])
        assert np.isnan(value[1])


@pytest.mark.parametrize("a, b", [((2, 17, 3), (1, 17, 3)), ((17, 3), (17, 3)),
                                  ((2, 17, 2), (2, 17, 2)), ((2, 17, 3), (2, 14, 3))])
def test_shapes_are_checked_and_never_broadcast(a, b):
    for metric in (metrics.distances, metrics.pa_mpjpe, metrics.aligned):
        with pytest.raises(ValueError, match="poses are"):
            metric(np.zeros(a), np.zeros(b))


# ------------------------------------------------------------------------------ similarity


@pytest.mark.parametrize("count", SIZES)
def test_a_similar_pose_is_aligned_exactly(count):
    truth = poses(count)
    found = np.stack([similar(pose, seed) for seed, pose in enumerate(truth)])
    np.testing.assert_allclose(metrics.aligned(found, truth), truth, atol=1e-9)
    np.testing.assert_allclose(metrics.pa_mpjpe(found, truth), 0, atol=1e-9)


@pytest.mark.parametrize("count", [2, 3])
def test_a_batch_is_no_pose_with_two_or_three_points(count):
    """VIBE's code takes (2, J, 3) and (3, J, 3) for transposed poses: they came out wrong."""
    truth, found = poses(count), poses(count, seed=3)
    for one, mine in zip(range(count), metrics.pa_mpjpe(found, truth)):
        oracle = _by_scipy(found[one], truth[one])
        assert mine == pytest.approx(np.linalg.norm(oracle - truth[one], axis=1).mean(), rel=1e-6)


def _by_scipy(found, truth):
    """The same alignment by Rotation.align_vectors, and a scale by least squares."""
    arms, aims = found - found.mean(0), truth - truth.mean(0)
    turned = Rotation.align_vectors(aims, arms)[0].apply(arms)
    return (turned * aims).sum() / (turned**2).sum() * turned + truth.mean(0)


def test_the_residual_is_that_of_scipys_procrustes():
    truth = poses(1)
    found = similar(truth[0] + 0.1 * poses(1, seed=4)[0], 5)[None]
    _, _, disparity = procrustes(truth[0], found[0])
    error = metrics.aligned(found, truth) - truth
    centred = truth - truth.mean(1, keepdims=True)
    assert (error**2).sum() / (centred**2).sum() == pytest.approx(disparity)


def test_a_reflection_is_no_rotation():
    truth = poses(3)
    found = truth * (-1, 1, 1)
    assert (metrics.pa_mpjpe(found, truth) > 0.3).all()
    oracle = np.stack([_by_scipy(f, t) for f, t in zip(found, truth)])
    np.testing.assert_allclose(metrics.aligned(found, truth), oracle, atol=1e-9)


def test_two_joints_cannot_be_aligned():
    found, truth = poses(1), poses(1, seed=1)
    found[0, 2:] = np.nan
    assert np.isnan(metrics.pa_mpjpe(found, truth)[0])


# ------------------------------------------------------------------------------------- PCK


def test_pck_counts_what_is_not_known_as_wrong():
    distance = np.array([[0.1, 0.2], [np.nan, 0.15]])
    assert metrics.pck(distance, 0.15) == pytest.approx(1 / 4)  # the limit itself is too far


def test_pck_is_the_mean_of_the_groups():
    distance = np.array([[0.1], [0.2], [0.1], [0.1], [0.1]])
    group = np.array([1, 1, 7, 7, 7])
    assert metrics.pck_by_group(distance, group, 0.15) == pytest.approx((0.5 + 1) / 2)
    with pytest.raises(ValueError, match="4 groups for 5 poses"):
        metrics.pck_by_group(distance, group[:4], 0.15)


# ------------------------------------------------------------------------------------ time


def test_acceleration_error_by_hand():
    seconds, time = 0.1, np.arange(5) * 0.1
    truth, found = np.zeros((5, 1, 3)), np.zeros((5, 1, 3))
    found[:, 0, 1] = 3 + 2 * time + 0.5 * 4 * time**2  # 4 m/s^2 and whatever speed
    np.testing.assert_allclose(metrics.acceleration_error(found, truth, seconds), 4.0)
    found[0] = np.nan
    error = metrics.acceleration_error(found, truth, seconds)
    assert error.shape == (3, 1) and np.isnan(error[0, 0]) and np.isfinite(error[1:]).all()


def smooth(frames, delay=0.0):
    """(T, 4, 3) movements that are late by so many frames."""
    time = np.arange(frames)[:, None, None] - delay
    rng = np.random.default_rng(2)
    rate, phase = rng.uniform(0.05, 0.4, (4, 3)), rng.uniform(0, 6, (4, 3))
    return np.sin(rate * time + phase) + 0.5 * np.sin(0.61 * rate * time)


@pytest.mark.parametrize("delay", [0.0, 3.0, -2.0, 1.4, 0.5])
def test_a_signal_that_is_late_has_that_lag(delay):
    rng = np.random.default_rng(0)
    found = smooth(200, delay) + 0.003 * rng.normal(size=(200, 4, 3)) + (1.0, 2.0, 3.0)
    found[60:63] = np.nan
    assert metrics.lag(found, smooth(200), 10) == pytest.approx(delay, abs=0.1)


def test_a_lag_beyond_what_is_tried_is_not_known():
    assert np.isnan(metrics.lag(smooth(200, 8.0), smooth(200), 4))


# ----------------------------------------------------------------------------- uncertainty


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("share", [0.68, 0.95])
def test_samples_are_covered_as_often_as_said(size, share):
    rng = np.random.default_rng(1)
    root = rng.normal(size=(20000, size, size))
    error = (root @ rng.normal(size=(20000, size, 1)))[..., 0].reshape(4000, 5, size)
    cov = (root @ root.swapaxes(1, 2)).reshape(4000, 5, size, size)
    assert metrics.coverage(error, cov, share) == pytest.approx(share, abs=0.012)
    assert metrics.coverage(error, 9 * cov, share) > share + 0.03
    error[0], cov[1] = np.nan, np.nan
    assert metrics.coverage(error, cov, share) == pytest.approx(share, abs=0.012)


def test_coverage_by_hand():
    """In two dimensions 68 % lie within 1.51 standard deviations, 95 % within 2.45."""
    error = np.array([[1.5, 0.0], [0.0, 1.52], [1.8, 1.8]])
    cov = np.tile(np.eye(2), (3, 1, 1))
    assert metrics.coverage(error, cov, 0.68) == pytest.approx(1 / 3)
    assert metrics.coverage(error, cov, 0.95) == pytest.approx(2 / 3)
    with pytest.raises(ValueError, match="covariances are"):
        metrics.coverage(error, cov[:2], 0.68)


def test_median_depth_error():
    assert metrics.median_depth_error(np.array([2.0, 3.3, np.nan, 4.0]),
                                      np.array([2.5, 3.0, 1.0, 4.0])) == pytest.approx(0.1)
    with pytest.raises(ValueError, match="depths are"):
        metrics.median_depth_error(np.ones(2), np.ones((2, 1)))
