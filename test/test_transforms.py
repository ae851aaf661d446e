"""The transform tree: what tf2 would say, found by other means, and why it says nothing."""

import numpy as np
import pytest
from scipy.linalg import expm, logm
from scipy.spatial.transform import Rotation

from ros2_pose.geometry import Transform, TransformError
from ros2_pose.sync import tf_buffer
from ros2_pose.sync.tf_buffer import TransformBuffer

_MS = 1_000_000


def _numbers(matrix: np.ndarray) -> tuple[float, ...]:
    return (*matrix[:3, 3], *Rotation.from_matrix(matrix[:3, :3]).as_quat())


def _random(rng) -> np.ndarray:
    """(4, 4) of any rotation and a place within metres."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.random(random_state=rng).as_matrix()
    matrix[:3, 3] = rng.normal(size=3)
    return matrix


def _at(x: float) -> tuple[float, ...]:
    return (x, 0, 0, 0, 0, 0, 1)


@pytest.fixture
def rng():
    return np.random.RandomState(3)


def test_a_walk_through_the_tree_is_a_product_of_matrices(rng):
    """map - odom - base - head - camera, and base - arm: every pair, against plain matrices."""
    parents = {"odom": "map", "base": "odom", "head": "base", "camera": "head", "arm": "base"}
    buffer, to_map = TransformBuffer(), {"map": np.eye(4)}
    for child, parent in parents.items():
        local = _random(rng)
        to_map[child] = to_map[parent] @ local
        if child in ("head", "arm"):
            buffer.add_static(parent, child, _numbers(local))
        else:
            for stamp in (0, 10 * _MS):
                buffer.add(parent, child, stamp, _numbers(local))
    for target in to_map:
        for source in to_map:
            found = buffer.lookup(target, source, 4 * _MS)
            expected = np.linalg.inv(to_map[target]) @ to_map[source]
            np.testing.assert_allclose(found.matrix, expected, atol=1e-12)
            back = found.inverse() @ found
            np.testing.assert_allclose(back.matrix, np.eye(4), atol=1e-12)


def test_between_two_stamps_the_turn_is_a_share_of_the_shortest_arc(rng):
    """The share of a rotation is the exponential of a share of its logarithm."""
    a, b = _random(rng), _random(rng)
    buffer = TransformBuffer()
    buffer.add("map", "base", 100, _numbers(a))
    buffer.add("map", "base", 200, _numbers(b))
    for share in (0.0, 0.25, 0.9, 1.0):
        found = buffer.lookup("map", "base", 100 + round(100 * share)).matrix
        arc = expm(share * np.real(logm(a[:3, :3].T @ b[:3, :3])))
        np.testing.assert_allclose(found[:3, :3], a[:3, :3] @ arc, atol=1e-9)
        np.testing.assert_allclose(found[:3, 3], (1 - share) * a[:3, 3] + share * b[:3, 3])


def test_a_quaternion_and_its_negative_are_the_same_turn():
    """q and -q: a naive interpolation would go the long way round, through a wrong place."""
    quat = np.array(Rotation.from_euler("z", 10, degrees=True).as_quat())
    buffer = TransformBuffer()
    buffer.add("map", "base", 0, (0, 0, 0, *quat))
    buffer.add("map", "base", 100, (0, 0, 0, *-quat))
    turn = buffer.lookup("map", "base", 50).rotation.as_euler("zyx", degrees=True)
    np.testing.assert_allclose(turn, (10, 0, 0), atol=1e-9)


def test_transforms_out_of_order_find_their_places():
    buffer = TransformBuffer()
    for stamp in (300, 100, 200, 200):
        buffer.add("map", "base", stamp, _at(stamp))
    assert buffer.lookup("map", "base", 150).translation_m[0] == pytest.approx(150)
    assert buffer.lookup("map", "base", 250).translation_m[0] == pytest.approx(250)


def test_nothing_is_extrapolated_and_the_error_says_by_how_much():
    buffer = TransformBuffer()
    buffer.add_static("base", "camera", _at(0))
    for stamp in (1000 * _MS, 1100 * _MS):
        buffer.add("odom", "base", stamp, _at(0))
    with pytest.raises(TransformError, match="'base' in 'odom'.* to 35 ms before it"):
        buffer.lookup("odom", "camera", 1135 * _MS)
    with pytest.raises(TransformError, match="known from 20 ms after it"):
        buffer.lookup("camera", "odom", 980 * _MS)


def test_within_the_tolerance_the_newest_is_taken_of_that_link_alone():
    """map - odom comes rarely; the robot's own motion is still that of the image."""
    buffer = TransformBuffer()
    buffer.add("map", "odom", 0, _at(100))
    for stamp in (0, 50 * _MS, 100 * _MS):
        buffer.add("odom", "base", stamp, _at(stamp / _MS))
    assert buffer.lookup("map", "base", 75 * _MS, 80 * _MS).translation_m[0] == pytest.approx(175)
    with pytest.raises(TransformError, match="75 ms before it"):
        buffer.lookup("map", "base", 75 * _MS, 70 * _MS)
    with pytest.raises(TransformError, match="after it"):  # the past does not come any more
        buffer.lookup("map", "base", -1, 80 * _MS)


@pytest.mark.parametrize("target, source, word", [
    ("mpa", "base", "nothing is known of 'mpa'"), ("map", "camera", "nothing is known of 'camera'"),
    ("map", "island", "root of 'island' is 'sea', that of 'map' is 'map'")])
def test_errors_name_the_frames_and_say_why(target, source, word):
    buffer = TransformBuffer()
    buffer.add_static("map", "base", _at(1))
    buffer.add_static("sea", "island", _at(1))
    with pytest.raises(TransformError, match=f"from '{source}' to '{target}'.*{word}"):
        buffer.lookup(target, source, 0)


def test_frames_that_are_each_others_parents_do_not_hang():
    buffer = TransformBuffer()
    buffer.add_static("a", "b", _at(1))
    buffer.add_static("b", "a", _at(1))
    with pytest.raises(TransformError, match="each other's parents"):
        buffer.lookup("a", "b", 0)


def test_a_jump_back_in_time_clears_what_is_not_static():
    buffer = TransformBuffer()
    buffer.add_static("base", "camera", _at(1))
    buffer.add("map", "odom", 5_000 * _MS, _at(2))
    for stamp in (4_000, 5_000):
        buffer.add("odom", "base", stamp * _MS, _at(3))
    buffer.add("odom", "base", 4_500 * _MS, _at(3))  # late, not a jump
    assert buffer.lookup("map", "camera", 5_000 * _MS).translation_m[0] == 6
    buffer.add("odom", "base", 1_000 * _MS, _at(4))  # the recording starts again
    assert buffer.lookup("odom", "camera", 1_000 * _MS).translation_m[0] == 5
    with pytest.raises(TransformError, match="nothing is known of 'map'"):
        buffer.lookup("map", "camera", 5_000 * _MS)


def test_a_frame_may_change_its_parent():
    buffer = TransformBuffer()
    buffer.add("table", "cup", 0, _at(1))
    buffer.add("hand", "cup", 10, _at(2))
    assert buffer.lookup("hand", "cup", 10).translation_m[0] == 2
    with pytest.raises(TransformError, match="table"):
        buffer.lookup("table", "cup", 10)


def test_history_is_as_long_as_said():
    buffer = TransformBuffer(history_s=1.0)
    for ms in range(0, 3000, 10):
        buffer.add("map", "base", ms * _MS, _at(ms))
    buffer.lookup("map", "base", 2000 * _MS)
    with pytest.raises(TransformError, match="known from 10 ms after it"):
        buffer.lookup("map", "base", 1980 * _MS)


def test_memory_is_bounded(monkeypatch):
    """Many transforms of a frame, ever new names: the old give way, then the new are refused."""
    monkeypatch.setattr(tf_buffer, "_MOST_FRAMES", 8)
    monkeypatch.setattr(tf_buffer, "_MOST_SAMPLES", 16)
    buffer = TransformBuffer()
    for ns in range(100):
        buffer.add("map", "fast", ns, _at(ns))
    with pytest.raises(TransformError, match="known from"):
        buffer.lookup("map", "fast", 80)
    for number in range(100):
        buffer.add("map", f"id{number}", number * 11_000 * _MS, _at(0))
    assert len(buffer) <= 8
    with pytest.raises(TransformError, match="8 frames are known already"):
        for number in range(9):
            buffer.add("map", f"new{number}", 99 * 11_000 * _MS, _at(0))


@pytest.mark.parametrize("parent, child, position", [
    ("map", "base", (np.nan, 0, 0, 0, 0, 0, 1)), ("map", "base", (0, 0, 0, 0, 0, 0, 0)),
    ("map", "map", _at(0)), ("", "base", _at(0)), ("map", "", _at(0))])
def test_what_is_no_transform_is_refused(parent, child, position):
    buffer = TransformBuffer()
    with pytest.raises(TransformError, match=f"from '{child}' to '{parent}'"):
        buffer.add(parent, child, 0, position)
    with pytest.raises(TransformError, match=f"from '{child}' to '{parent}'"):
        buffer.add_static(parent, child, position)
    assert len(buffer) == 0


def test_a_transform_is_its_matrix(rng):
    matrix, points = _random(rng), rng.normal(size=(2, 5, 3))
    for transform in (Transform.from_xyz_quat(_numbers(matrix)), Transform.from_matrix(matrix)):
        np.testing.assert_allclose(transform.matrix, matrix, atol=1e-12)
        np.testing.assert_allclose(transform.apply(points),
                                   points @ matrix[:3, :3].T + matrix[:3, 3], atol=1e-12)
        np.testing.assert_allclose(transform.inverse().matrix, np.linalg.inv(matrix), atol=1e-12)


@pytest.mark.parametrize("spoil, word", [
    (lambda m: m[:3], r"shape \(3, 4\)"),
    (lambda m: m * np.nan, "not finite"),
    (lambda m: m.T, "last row"),
    (lambda m: m @ np.diag([2.0, 2, 2, 1]), "orthonormal"),
    (lambda m: m @ np.diag([-1.0, 1, 1, 1]), "reflection")])
def test_a_matrix_that_is_no_rigid_transform_is_refused(rng, spoil, word):
    with pytest.raises(TransformError, match=word):
        Transform.from_matrix(spoil(_random(rng)))
