"""Who is who between views: clusters against all partitions, odds against known geometry."""

import numpy as np
import pytest
from test_triangulate import POSES, seen_by

from ros2_pose.multiview.association import ViewDetections, associate_views, cluster, log_odds


def _partitions(count):
    """All partitions of count things as labels."""
    if count == 0:
        yield []
        return
    for labels in _partitions(count - 1):
        for label in range(max(labels, default=-1) + 2):
            yield [*labels, label]


def _worth(odds, labels):
    same = np.triu(np.equal.outer(labels, labels), 1)
    return odds[same].sum() if same.any() else 0.0


def _best(odds):
    return max(_worth(odds, labels) for labels in _partitions(len(odds)))


def _odds(rng, count, truth=None, noise=1.0):
    """Symmetric log odds, around what a truth says; of one view (number modulo 3) never."""
    odds = noise * rng.normal(size=(count, count))
    if truth is not None:
        odds += np.where(np.equal.outer(truth, truth), 3.0, -3.0)
    odds = np.triu(odds, 1) + np.triu(odds, 1).T
    odds[np.equal.outer(np.arange(count) % 3, np.arange(count) % 3)] = -np.inf
    return odds


@pytest.mark.parametrize("seed", range(25))
def test_clusters_are_the_best_of_all_partitions_where_there_are_people(seed):
    rng = np.random.default_rng(seed)
    truth = np.array([0, 0, 0, 1, 1, 2, 3])[rng.permutation(7)]
    odds = _odds(rng, 7, truth, noise=1.5)
    assert _worth(odds, cluster(odds)) == pytest.approx(_best(odds))


@pytest.mark.parametrize("seed", range(25))
def test_clusters_are_nearly_the_best_even_of_noise(seed):
    odds = _odds(np.random.default_rng(seed), 7)
    assert _worth(odds, cluster(odds)) >= 0.8 * _best(odds)


def test_numbers_are_in_the_order_of_first_members_and_nobody_is_no_cluster():
    assert cluster(np.zeros((0, 0))).shape == (0,)
    odds = np.full((4, 4), -1.0)
    odds[0, 2] = odds[2, 0] = 5.0
    np.testing.assert_array_equal(cluster(odds), [0, 1, 0, 2])


def _people(positions, rng, std=0.003):
    """Bodies of N people, (N, 17, 3) m, as all four views have them; single views misjudge the
    distance by 5 %."""
    count = len(positions)
    rays, cov, *_ = seen_by(POSES, positions.reshape(-1, 3), rng, std)
    rays, cov = rays.reshape(-1, 17, 2), cov.reshape(-1, 17, 2, 2)
    view = np.repeat(np.arange(4), count)
    middle = np.tile(positions.mean(1), (4, 1))
    away = middle - POSES[view, :3, 3]
    far = np.linalg.norm(away, axis=1)
    error = 0.05 * rng.normal(size=far.shape)
    joints = np.tile(positions[:, :1], (4, 24, 1)) + (error[:, None] * away)[:, None]
    along = away / far[:, None]
    joint_cov = (0.05 * far)[:, None, None] ** 2 * along[:, :, None] * along[:, None]
    joint_cov = np.repeat((joint_cov + 0.02**2 * np.eye(3))[:, None], 24, 1)
    return ViewDetections(view, rays, cov, joints, joint_cov, far), np.tile(np.arange(count), 4)


@pytest.mark.parametrize("seed", range(10))
def test_people_in_a_room_are_told_apart(seed):
    rng = np.random.default_rng(seed)
    figure = rng.uniform((-0.25, -0.25, 0), (0.25, 0.25, 1.7), (17, 3))
    spots = np.array([(-1, -1, 0), (-1, 0.6, 0), (0.1, -0.2, 0), (1.2, 0.8, 0)])
    bodies, who = _people(figure + spots[:, None], rng)
    found = associate_views(bodies, POSES)
    np.testing.assert_array_equal(np.equal.outer(found, found), np.equal.outer(who, who))


def test_epipolar_lines_alone_tell_people_apart_and_outliers_do_not():
    rng = np.random.default_rng(0)
    figure = rng.uniform((-0.25, -0.25, 0), (0.25, 0.25, 1.7), (17, 3))
    spots = np.array([(-1, -1, 0), (-1, 0.8, 0.3), (1.2, 0.8, -0.4)])
    bodies, who = _people(figure + spots[:, None], rng)
    bodies = bodies._replace(joints=np.full_like(bodies.joints, np.nan))
    bodies.rays[:, :2] += 0.3 * rng.normal(size=(len(who), 2, 2))
    same = np.equal.outer(who, who)
    found = associate_views(bodies, POSES)
    np.testing.assert_array_equal(np.equal.outer(found, found), same)
    odds = log_odds(bodies, POSES)
    finite = np.isfinite(odds)
    assert odds[finite & same].min() > 0 > -5 > np.median(odds[finite & ~same])


def test_the_order_of_people_does_not_matter():
    rng = np.random.default_rng(3)
    figure = rng.uniform((-0.25, -0.25, 0), (0.25, 0.25, 1.7), (17, 3))
    spots = np.array([(-1, -1, 0), (0.1, -0.2, 0)])
    bodies, _ = _people(figure + spots[:, None], rng)
    order = rng.permutation(len(bodies.view))
    odds = log_odds(bodies, POSES)
    shuffled = log_odds(ViewDetections(*(value[order] for value in bodies)), POSES)
    np.testing.assert_allclose(shuffled, odds[np.ix_(order, order)], atol=1e-9)


def test_what_was_known_before_decides_where_images_do_not():
    rng = np.random.default_rng(3)
    figure = rng.uniform((-0.25, -0.25, 0), (0.25, 0.25, 1.7), (17, 3))
    bodies, _ = _people(figure[None], rng)
    assert associate_views(bodies, POSES).max() == 0
    assert associate_views(bodies, POSES, np.full((4, 4), -1000.0)).max() == 3


def test_who_has_no_body_and_no_keypoints_is_left_alone():
    rng = np.random.default_rng(3)
    figure = rng.uniform((-0.25, -0.25, 0), (0.25, 0.25, 1.7), (17, 3))
    bodies, _ = _people(figure[None], rng)
    for name in ("rays", "cov", "joints", "joint_cov"):
        getattr(bodies, name)[0] = np.nan
    assert np.isfinite(log_odds(bodies, POSES)[0, 1:]).all()
    np.testing.assert_array_equal(associate_views(bodies, POSES), [0, 1, 1, 1])
