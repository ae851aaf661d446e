"""`Tracker.expected`: where people are looked for in the next frame, and for how long."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ros2_pose.camera import Camera
from ros2_pose.config import PoseConfig
from ros2_pose.geometry import Transform
from ros2_pose.people import People
from ros2_pose.skeleton import COCO17
from ros2_pose.tracking.tracker import Tracker

_FIGURE = np.random.default_rng(0).uniform(-1, 1, (17, 2)) * (30, 90)
_SECOND = 1_000_000_000
_START = 1000 * _SECOND


def _stamp(t):
    return _START + round(t * _SECOND)


def _seen(*centres, std_px=2.0, score=0.8, proposal=0.6) -> People:
    """People with the same figure at centres, px."""
    count = len(centres)
    points = np.array([_FIGURE + centre for centre in centres]).reshape(count, 17, 2)
    boxes = np.concatenate([points.min(1), points.max(1)], -1)
    cov = np.tile(std_px**2 * np.eye(2), (count, 17, 1, 1))
    return People(boxes, np.full(count, score), points, cov, np.ones((count, 17)),
                  proposal_scores=np.full(count, proposal))


def _walk(tracker, velocity, hz, seconds=1.5):
    """A person who walks with a velocity (2,), px/s; the last time, s, and position."""
    times = np.arange(0, seconds, 1 / hz)
    for t in times:
        tracker.assign(_seen((300, 200) + t * np.array(velocity)), _stamp(t))
    return times[-1], (300, 200) + times[-1] * np.array(velocity)


@pytest.mark.parametrize("hz", [2, 5, 10, 30, 60])
@pytest.mark.parametrize("velocity", [(0, 0), (80, 0), (-40, 30)])
def test_people_are_expected_where_they_walk_to(hz, velocity):
    tracker = Tracker()
    last, position = _walk(tracker, velocity, hz, max(1.5, 6 / hz))
    expected = tracker.expected(_stamp(last + 1 / hz))
    assert len(expected) == 1
    step = np.array(velocity) / hz
    error = expected.keypoints[0] - (_FIGURE + position + step)
    assert np.abs(error).max() < 1 + 0.15 * np.linalg.norm(step)
    size = expected.boxes[0, 2:] - expected.boxes[0, :2]
    np.testing.assert_allclose(size, np.ptp(_FIGURE, axis=0), atol=1e-6)
    middle = expected.boxes.reshape(2, 2).mean(0) - expected.keypoints[0].mean(0)
    still = (_FIGURE.min(0) + _FIGURE.max(0)) / 2 - _FIGURE.mean(0)
    np.testing.assert_allclose(middle, still, atol=1e-6)


def test_what_was_detected_last_is_handed_on():
    tracker = Tracker()
    tracker.assign(_seen((100, 200), (400, 200), proposal=0.42), _stamp(0))
    expected = tracker.expected(_stamp(0.1))
    np.testing.assert_array_equal(expected.proposal_scores, 0.42)
    np.testing.assert_array_equal(expected.scores, 0.8)
    np.testing.assert_array_equal(expected.keypoint_scores, 1.0)
    assert expected.keypoint_cov.shape == (2, 17, 2, 2) and not expected.note


@pytest.mark.parametrize("velocity", [(0, 0), (80, 0)])
def test_covariances_are_those_of_the_detection_and_grow_with_time(velocity):
    tracker = Tracker()
    last, _ = _walk(tracker, velocity, 30)
    variances = []
    for ahead in (0.0, 1 / 60, 1 / 30, 0.1, 0.2, 0.29):
        cov = tracker.expected(_stamp(last + ahead)).keypoint_cov[0]
        assert (np.linalg.eigvalsh(cov) > 0).all()
        variances.append(np.trace(cov, axis1=1, axis2=2) / 2)
    assert (np.diff(variances, axis=0) > 0).all()
    assert (variances[0] >= 2.0**2 - 1e-9).all()
    tracker, wider = Tracker(), Tracker()
    for t in (0.0, 0.1):
        tracker.assign(_seen((300, 200), std_px=2), _stamp(t))
        wider.assign(_seen((300, 200), std_px=9), _stamp(t))
    narrow, wide = (np.trace(one.expected(_stamp(0.2)).keypoint_cov, axis1=2, axis2=3).mean()
                    for one in (tracker, wider))
    assert wide > narrow + 2 * (9**2 - 2**2) * 0.9


@pytest.mark.parametrize("hz", [5, 10, 30, 120])
def test_people_unseen_for_longer_are_not_expected(hz):
    """For 0.3 s, or 2.5 intervals of a slow camera; then the search has to find them."""
    tracker = Tracker(PoseConfig(lost_s=5.0))
    last, _ = _walk(tracker, (0, 0), hz)
    limit = max(0.3, 2.5 / hz)
    assert len(tracker.expected(_stamp(last + limit - 0.01))) == 1
    assert len(tracker.expected(_stamp(last + limit + 0.01))) == 0
    assert len(tracker.tracks) == 1  # it is still a track, reported as lost


def test_only_the_person_who_is_missed_is_dropped():
    tracker = Tracker()
    for t in np.arange(0, 1.0, 0.1):
        tracker.assign(_seen((100, 200), (400, 200)), _stamp(t))
    for t in np.arange(1.0, 1.5, 0.1):
        tracker.assign(_seen((400, 200)), _stamp(t))
        assert tracker.has_lost == (t < 1.05)
    expected = tracker.expected(_stamp(1.5))
    assert len(expected) == 1 and abs(expected.keypoints[0].mean(0)[0] - 400) < 20


def test_nobody_is_expected_at_first_and_after_a_reset():
    tracker = Tracker()
    assert len(tracker.expected(_stamp(0))) == 0
    _walk(tracker, (0, 0), 10)
    tracker.reset()
    assert len(tracker.expected(_stamp(2))) == 0 and not tracker.has_lost


def test_to_ask_changes_nothing():
    """Any number of times, for any stamp: the same people, ids and predictions follow."""
    asked, unasked = Tracker(), Tracker()
    for t in np.arange(0, 1.0, 0.1):
        for ahead in (0.0, 0.05, 0.1):
            asked.expected(_stamp(t + ahead))
        people = _seen((100 + 50 * t, 200), (400, 200))
        results = [tracker.assign(people, _stamp(t)) for tracker in (asked, unasked)]
        assert [track.id for track in results[0][1]] == [track.id for track in results[1][1]]
    one, other = (tracker.expected(_stamp(1.1)) for tracker in (asked, unasked))
    np.testing.assert_array_equal(one.keypoints, other.keypoints)
    np.testing.assert_array_equal(one.keypoint_cov, other.keypoint_cov)


def test_exchanged_sides_stay_exchanged_in_what_is_expected():
    """A person's left is expected where tracking has it, not where one frame mistook it."""
    tracker, figure = Tracker(), _FIGURE.copy()
    for left, right in ((5, 6), (11, 12), (7, 8), (9, 10), (13, 14), (15, 16)):
        figure[left, 0], figure[right, 0] = 25, -25
    for t in np.arange(0, 0.8, 0.1):
        people = _seen((300, 200)).with_fields(keypoints=(figure + (300, 200))[None])
        if t > 0.65:
            people = people.with_fields(keypoints=people.keypoints[:, COCO17.mirror])
        tracker.assign(people, _stamp(t))
    error = tracker.expected(_stamp(0.8)).keypoints[0] - figure - (300, 200)
    assert np.abs(error).max() < 2


@pytest.mark.parametrize("yaw_deg", [-6.0, 3.0, 8.0])
def test_a_camera_that_rotates_shifts_what_is_expected(yaw_deg):
    """A person who stands still is expected where the rotated camera sees the same point."""
    camera = Camera.from_fov(640, 480, 60)
    tracker, root = Tracker(), np.array([0.2, 0.1, 4.0])
    before = Transform.identity()
    centre = camera.project(root)
    for t in np.arange(0, 1.0, 0.1):
        people = _seen(centre).with_fields(root=root[None], root_cov=1e-4 * np.eye(6)[None])
        seen, tracks = tracker.assign(people, _stamp(t), camera, before)
        tracker.report(seen, tracks, _stamp(t))
    turned = Transform(Rotation.from_euler("y", yaw_deg, degrees=True), np.zeros(3))
    expected = tracker.expected(_stamp(1.0), camera, turned)
    shift = camera.project(turned.inverse().apply(root)) - centre
    assert abs(shift[0]) > 20
    np.testing.assert_allclose(expected.keypoints[0], _FIGURE + centre + shift, atol=3)
    again = tracker.expected(_stamp(1.0), camera, turned)
    np.testing.assert_allclose(again.keypoints, expected.keypoints, atol=1e-9)
