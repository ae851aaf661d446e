"""Tracking of made-up people: ids stay, cross, are lost, come back, are given again."""

import numpy as np
import pytest

from ros2_pose.people import LOST, TENTATIVE, TRACKED, People
from ros2_pose.skeleton import COCO17
from ros2_pose.track import Motion, Tracker

_FIGURE = np.random.default_rng(0).uniform(-1, 1, (17, 2)) * (30, 90)
_SECOND = 1_000_000_000


def _seen(*centres, score=0.8) -> People:
    """People with the same figure at the given places, px."""
    count = len(centres)
    points = np.array([_FIGURE + centre for centre in centres]).reshape(count, 17, 2)
    boxes = np.concatenate([points.min(1), points.max(1)], -1) if count else np.zeros((0, 4))
    return People(boxes, np.full(count, score), points, np.tile(4 * np.eye(2), (count, 17, 1, 1)),
                  np.ones((count, 17)))


def _run(tracker, images, fps=10):
    """Reports for images of places; each image is a list of centres."""
    reports = []
    for number, centres in enumerate(images):
        stamp = int(number * _SECOND / fps)
        reports.append(tracker.report(*tracker.assign(_seen(*centres), stamp), stamp))
    return reports


def test_a_person_is_confirmed_and_keeps_the_id():
    reports = _run(Tracker(confirm_hits=3), [[(100 + 5 * i, 200)] for i in range(6)])
    assert {r.ids for r in reports} == {("p1",)}
    assert [int(r.tracking_state[0]) for r in reports] == [TENTATIVE] * 2 + [TRACKED] * 4
    assert reports[-1].age[0] == pytest.approx(0.5)


def test_two_who_cross_keep_their_ids():
    images = [[(100 + 20 * i, 200), (500 - 20 * i, 230)] for i in range(21)]
    reports = _run(Tracker(), images)
    for report, (first, second) in zip(reports, images):
        place = {i: k.mean(0) for i, k in zip(report.ids, report.keypoints)}
        assert np.allclose(place["p1"], _FIGURE.mean(0) + first)
        assert np.allclose(place["p2"], _FIGURE.mean(0) + second)


def test_order_of_detections_does_not_matter():
    images = [[(100, 200), (300, 200)], [(300, 200), (100, 200)]]
    assert _run(Tracker(), images)[1].ids == ("p2", "p1")


def test_lost_is_reported_then_forgotten_and_found_again_keeps_the_id():
    walk = [[(100 + 10 * i, 200)] for i in range(5)]
    reports = _run(Tracker(lost_s=1.0), walk + [[]] * 5 + [[(200, 200)]])
    assert [int(r.tracking_state[0]) for r in reports[5:10]] == [LOST] * 5
    assert np.isnan(reports[7].keypoints).all()
    assert reports[9].boxes[0, 0] > reports[5].boxes[0, 0] > reports[4].boxes[0, 0]
    assert reports[10].ids == ("p1",)
    gone = _run(Tracker(lost_s=0.35), walk + [[]] * 5)
    assert [len(r) for r in gone[5:]] == [1, 1, 1, 0, 0]


def test_someone_seen_once_is_not_kept():
    assert [len(r) for r in _run(Tracker(), [[(100, 200)], [], []])] == [1, 0, 0]


def _count(tracker, scores):
    """How many are reported of one who stands and scores so, ten images a second."""
    return [len(tracker.assign(_seen((100, 200), score=score), i * _SECOND // 10)[1])
            for i, score in enumerate(scores)]


def test_weak_detections_continue_a_track():
    assert _count(Tracker(birth_score=0.3), [0.8, 0.12, 0.12]) == [1, 1, 1]


def test_who_scores_little_is_reported_when_seen_again_and_again():
    assert _count(Tracker(confirm_hits=3, birth_score=0.3), [0.2] * 6) == [0, 0, 0, 0, 1, 1]
    assert _count(Tracker(confirm_hits=3, birth_score=0.3), [0.1] * 20) == [0] * 20


def test_a_double_is_not_born():
    tracker = Tracker()
    assert len(tracker.assign(_seen((100, 200), (103, 203)), 0)[1]) == 1


def test_ids_are_given_again_after_a_while():
    tracker = Tracker(lost_s=0.5)
    stamps = [0, 1, 2, 13]
    ids = [tracker.assign(_seen((100 + 300 * (i % 2), 200)), s * _SECOND)[1][0].id
           for i, s in enumerate(stamps)]
    assert ids == ["p1", "p2", "p3", "p1"]


def test_reset_forgets():
    tracker = Tracker()
    _run(tracker, [[(100, 200)]] * 3)
    tracker.reset()
    assert tracker.tracks == [] and _run(tracker, [[(400, 200)]])[0].ids == ("p1",)


def test_equal_stamps_are_no_division_by_zero():
    tracker = Tracker()
    for _ in range(3):
        people, tracks = tracker.assign(_seen((100, 200)), 5)
    assert np.isfinite(tracks[0].middle.velocity).all()


def test_velocity_converges_and_its_covariance_is_honest():
    rng = np.random.default_rng(0)
    cov = np.diag([0.02, 0.02, 0.1]) ** 2
    errors = []
    for _ in range(200):
        velocity = rng.normal(size=3)
        motion = Motion(rng.multivariate_normal(np.zeros(3), cov), cov, 0)
        for step in range(1, 60):
            place = velocity * step / 30 + rng.multivariate_normal(np.zeros(3), cov)
            motion.update(place, cov, int(step * _SECOND / 30))
        errors.append(motion.velocity - velocity)
    # The filter expects accelerations that these walkers do not have: it may be cautious, not bold.
    assert (np.std(errors, axis=0) < np.sqrt(np.diag(motion.velocity_cov))).all()
    assert np.abs(np.mean(errors, axis=0)).max() < 0.1


def _facing(*centres, swapped=()) -> People:
    """People as a skeleton with sides, as it is or with left and right changed round."""
    people = _seen(*centres)
    side = np.array([1 if n.startswith("left") else -1 if n.startswith("right") else 0
                     for n in COCO17.names])
    points = people.keypoints.copy()
    points[..., 0] = np.array(centres)[:, :1] + 35 * side + _FIGURE[:, 1] / 9
    return people.with_fields(keypoints=points).with_sides_changed(list(swapped))


def test_a_detector_that_takes_left_for_right_is_put_right():
    tracker, reports = Tracker(), []
    for number in range(12):
        people = _facing((200, 200), swapped=[0] if number in (5, 6, 9) else [])
        reports.append(tracker.report(*tracker.assign(people, number * _SECOND // 10), 0))
    first = reports[0].keypoints
    assert all(r.ids == ("p1",) for r in reports)
    for report in reports:
        np.testing.assert_allclose(report.keypoints, first)


def test_who_stays_turned_round_is_turned_round():
    tracker = Tracker()
    for number in range(20):
        people = _facing((200, 200), swapped=[0] if number >= 5 else [])
        shown, _ = tracker.assign(people, number * _SECOND // 10)
    np.testing.assert_allclose(shown.keypoints, people.keypoints)


def test_a_double_with_its_sides_changed_is_nobody_new():
    tracker = Tracker()
    for number in range(5):
        people = _facing((200, 200), (203, 200), swapped=[1])
        shown, _ = tracker.assign(people, number * _SECOND // 10)
        assert len(shown) == 1
