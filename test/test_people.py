"""The border type: shapes are checked, rows chosen, nobody is normal."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ros2_pose.geometry import Transform
from ros2_pose.people import Frame, People, PeopleError


def test_nobody_has_no_rows():
    nobody = People.nobody()
    assert len(nobody) == 0 and nobody.joints is None and nobody.keypoints.shape == (0, 17, 2)


def test_rows_are_chosen_in_every_field(some_people):
    chosen = some_people[np.array([False, True, True])]
    assert chosen.ids == ("p2", "p3")
    assert np.array_equal(chosen.root, some_people.root[1:])
    assert chosen[[1, 0]].ids == ("p3", "p2")
    assert len(some_people[:0]) == 0


def test_fields_that_do_not_fit_are_refused(some_people):
    with pytest.raises(PeopleError, match=r"joints is \(3, 17, 3\), expected \(3, 24, 3\)"):
        some_people.with_fields(joints=np.zeros((3, 17, 3)))
    with pytest.raises(PeopleError, match="2 ids for 3 people"):
        some_people.with_fields(ids=("a", "b"))


def test_a_frame_may_have_depth():
    image, depth = np.zeros((4, 6, 3), np.uint8), np.full((4, 6), np.nan, np.float32)
    assert Frame(image).depth is None
    assert Frame(image, depth=depth).depth is depth


def _same(a: People, b: People) -> None:
    for name, value in vars(a).items():
        other = getattr(b, name)
        if name == "theta":  # q and -q are the same turn
            np.testing.assert_allclose(np.abs((value * other).sum(-1)), 1, atol=1e-12)
        elif isinstance(value, np.ndarray):
            np.testing.assert_allclose(other, value, atol=1e-12, err_msg=name)
        else:
            assert other == value, name


@pytest.fixture
def motions():
    """Two transforms."""
    rng = np.random.default_rng(5)
    return [Transform(Rotation.random(random_state=seed), rng.normal(size=3)) for seed in (1, 2)]


def test_moving_there_and_back_changes_nothing(some_people, motions):
    there = some_people.moved(motions[0])
    assert np.abs(there.root - some_people.root).min() > 0.01
    _same(some_people, there.moved(motions[0].inverse()))


def test_two_moves_are_one(some_people, motions):
    first, second = motions
    _same(some_people.moved(first).moved(second), some_people.moved(second @ first))


def test_moving_keeps_pixels_and_bones(some_people, motions):
    moved = some_people.moved(motions[0])
    for name in ("boxes", "keypoints", "keypoint_cov", "joint_source", "betas", "ids"):
        assert getattr(moved, name) is getattr(some_people, name), name
    assert np.array_equal(moved.theta[:, 1:], some_people.theta[:, 1:])

    def distances(joints):
        return np.linalg.norm(joints[:, :, None] - joints[:, None], axis=-1)
    np.testing.assert_allclose(distances(moved.joints), distances(some_people.joints))


def test_a_moved_velocity_is_that_of_the_moved_place(some_people, motions):
    """The place a second later, moved, less the place now, moved."""
    rotation, shift = motions[0].rotation, motions[0].translation_m
    later = rotation.apply(some_people.root + some_people.velocity) + shift
    moved = some_people.moved(motions[0])
    np.testing.assert_allclose(moved.velocity, later - moved.root)


def test_moved_covariances_are_those_of_moved_samples(some_people, motions):
    """Draw places and bodies turned about the axes, move each, look at the spread."""
    rotation, shift = motions[0].rotation, motions[0].translation_m
    person = some_people[[0]].with_fields(root_cov=1e-4 * some_people.root_cov[:1])
    moved = person.moved(motions[0])
    rng = np.random.default_rng(0)
    root = rng.multivariate_normal(np.zeros(6), person.root_cov[0], 200_000)
    positions = rotation.apply(person.root[0] + root[:, :3]) + shift - moved.root[0]
    body = Rotation.from_quat(person.theta[0, 0])
    turned = rotation * Rotation.from_rotvec(root[:, 3:]) * body
    angles = (turned * Rotation.from_quat(moved.theta[0, 0]).inv()).as_rotvec()
    found, expected = np.cov(np.c_[positions, angles].T), moved.root_cov[0]
    scale = np.sqrt(np.diag(expected))
    np.testing.assert_allclose(found / np.outer(scale, scale),
                               expected / np.outer(scale, scale), atol=0.02)
    for name, position in (("joint_cov", 7), ("velocity_cov", slice(None))):
        cov, result = getattr(person, name)[0][position], getattr(moved, name)[0][position]
        found = np.cov(rotation.apply(rng.multivariate_normal(np.zeros(3), cov, 200_000)).T)
        np.testing.assert_allclose(found, result, atol=0.02 * np.trace(cov))


def test_someone_without_a_body_is_moved_and_has_none(some_people, motions):
    theta, root = some_people.theta.copy(), some_people.root.copy()
    theta[1], root[1] = np.nan, np.nan
    moved = some_people.with_fields(theta=theta, root=root).moved(motions[0])
    assert np.isnan(moved.theta[1]).all() and np.isnan(moved.root[1]).all()
    assert np.isfinite(moved.theta[[0, 2]]).all() and np.isfinite(moved.root[[0, 2]]).all()
    assert People.nobody().moved(motions[0]).joints is None


def test_without_bodies_pixels_stay(some_people):
    flat = some_people.without_bodies("no transform")
    assert flat.joints is flat.root is flat.velocity is flat.theta is None
    assert flat.note == "no transform" and flat.ids == some_people.ids
    assert np.array_equal(flat.keypoints, some_people.keypoints)
