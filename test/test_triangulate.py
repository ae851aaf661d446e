"""Places by several views: exact where rays are, honest where they are not."""

import cv2
import numpy as np
import pytest

from ros2_pose.multiview.triangulation import triangulate

_STD = 0.003  # of rays: 3 px of a focal length of 1000


def look_at(position, target=(0.0, 0.0, 1.0)) -> np.ndarray:
    """(4, 4) pose of a camera at a place in a frame with z up, that looks to a target."""
    forward = np.subtract(target, position)
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], 1)
    pose[:3, 3] = position
    return pose


POSES = np.stack([look_at(position) for position in
                  ((4.0, 0.0, 1.5), (0.5, 4.0, 2.2), (-3.5, -1.0, 1.0), (1.0, -4.0, 2.5))])


def seen_by(poses, positions, rng=None, std=_STD) -> tuple[np.ndarray, ...]:
    """Rays, cov, depth and depth_std of positions (N, 3); depth is hardly known.

    The rays are noisy if there is a generator.
    """
    local = np.einsum("vji,vnj->vni", poses[:, :3, :3], positions - poses[:, None, :3, 3])
    rays = local[..., :2] / local[..., 2:]
    if rng is not None:
        rays = rays + std * rng.normal(size=rays.shape)
    cov = np.broadcast_to(std**2 * np.eye(2), (*rays.shape[:2], 2, 2)).copy()
    return rays, cov, np.full(rays.shape[:2], 4.0), np.full(rays.shape[:2], 50.0)


@pytest.fixture
def positions():
    return np.random.default_rng(0).uniform((-1, -1, 0), (1, 1, 2), (60, 3))


def test_without_noise_it_is_where_opencv_has_it(positions):
    seen = seen_by(POSES[:2], positions)
    found, _ = triangulate(*seen, POSES[:2])
    matrices = [np.linalg.inv(pose)[:3] for pose in POSES[:2]]
    oracle = cv2.triangulatePoints(*matrices, *(rays.T for rays in seen[0]))
    np.testing.assert_allclose(found, (oracle[:3] / oracle[3]).T, atol=1e-3)
    np.testing.assert_allclose(found, positions, atol=1e-3)


@pytest.mark.parametrize("views", [2, 3, 4])
def test_errors_are_as_large_as_the_covariance_says(positions, views):
    rng = np.random.default_rng(views)
    many = np.repeat(positions, 40, 0)
    found, cov = triangulate(*seen_by(POSES[:views], many, rng), POSES[:views])
    error = found - many
    squared = (error * np.linalg.solve(cov, error[..., None])[..., 0]).sum(1)
    assert 2.6 < squared.mean() < 3.4
    # The direction counts, too: covariances of each place, over its forty draws.
    drawn = np.einsum("nmi,nmj->nij", *[error.reshape(60, 40, 3)] * 2).mean(0) / 40
    np.testing.assert_allclose(drawn, cov.mean(0), rtol=0.25, atol=0.1 * np.trace(drawn))


def test_a_camera_more_never_makes_it_worse(positions):
    covs = [triangulate(*seen_by(POSES[:views], positions), POSES[:views])[1]
            for views in (2, 3, 4)]
    for fewer, more in zip(covs, covs[1:]):
        assert np.linalg.eigvalsh(fewer - more).min() > -1e-9


def test_neither_order_nor_frame_matters(positions):
    seen = seen_by(POSES, positions, np.random.default_rng(1))
    found, cov = triangulate(*seen, POSES)
    order = [2, 0, 3, 1]
    again, cov_again = triangulate(*(value[order] for value in seen), POSES[order])
    np.testing.assert_allclose(again, found, atol=1e-9)
    np.testing.assert_allclose(cov_again, cov, atol=1e-9)
    move = look_at((3.0, -7.0, 2.0), (1.0, 1.0, 5.0))
    moved, cov_moved = triangulate(*seen, move @ POSES)
    np.testing.assert_allclose(moved, found @ move[:3, :3].T + move[:3, 3], atol=1e-7)
    np.testing.assert_allclose(cov_moved, move[:3, :3] @ cov @ move[:3, :3].T, atol=1e-7)


def test_a_view_that_contradicts_the_others_counts_little(positions):
    seen = seen_by(POSES, positions, np.random.default_rng(1))
    without = [value[:3] for value in seen]
    seen[0][3] += 0.2
    found, _ = triangulate(*seen, POSES)
    assert np.linalg.norm(found - positions, axis=1).max() < 0.06
    expected, _ = triangulate(*without, POSES[:3])
    assert np.linalg.norm(found - expected, axis=1).max() < 0.02


def test_one_view_knows_the_ray_and_what_it_is_told_of_the_depth(positions):
    rays, ray_cov, _, _ = seen_by(POSES[:1], positions)
    depth, depth_std = np.full((1, 60), 3.0), np.full((1, 60), 0.4)
    found, cov = triangulate(rays, ray_cov, depth, depth_std, POSES[:1])
    local = (found - POSES[0, :3, 3]) @ POSES[0, :3, :3]
    np.testing.assert_allclose(local[:, 2], 3.0, atol=1e-6)
    np.testing.assert_allclose(local[:, :2] / local[:, 2:], rays[0], atol=1e-6)
    axis = POSES[0, :3, 2]
    np.testing.assert_allclose(axis @ cov @ axis, 0.16, rtol=0.01)


def test_what_nobody_sees_is_nan_and_nobody_elses_affair(positions):
    seen = seen_by(POSES, positions, np.random.default_rng(1))
    found, cov = triangulate(*seen, POSES)
    for values in seen:
        values[:, :5] = np.nan
    seen[0][0, 5:10] = np.nan
    seen[1][1, 10:15] = np.nan
    some, some_cov = triangulate(*seen, POSES)
    assert np.isnan(some[:5]).all() and np.isnan(some_cov[:5]).all()
    np.testing.assert_array_equal(some[15:], found[15:])
    assert np.isfinite(some[5:]).all()
    assert (np.linalg.det(some_cov[5:10]) > np.linalg.det(cov[5:10])).all()
