"""Tracking of made-up people: ids stay, cross, are lost, come back, are given again."""

import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ros2_pose.camera import Camera
from ros2_pose.config import PoseConfig
from ros2_pose.geometry import Transform
from ros2_pose.people import LOST, TENTATIVE, TRACKED, People
from ros2_pose.skeleton import COCO17
from ros2_pose.tracking.association import associate_by_position
from ros2_pose.tracking.kalman import VelocityFilter, gate, squared_mahalanobis
from ros2_pose.tracking.tracker import Tracker

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
    reports = _run(Tracker(PoseConfig(confirm_hits=3)), [[(100 + 5 * i, 200)] for i in range(6)])
    assert {r.ids for r in reports} == {("p1",)}
    assert [int(r.tracking_state[0]) for r in reports] == [TENTATIVE] * 2 + [TRACKED] * 4
    assert reports[-1].age[0] == pytest.approx(0.5)


def test_two_who_cross_keep_their_ids():
    images = [[(100 + 20 * i, 200), (500 - 20 * i, 230)] for i in range(21)]
    reports = _run(Tracker(), images)
    for report, (first, second) in zip(reports, images):
        position = {i: k.mean(0) for i, k in zip(report.ids, report.keypoints)}
        assert np.allclose(position["p1"], _FIGURE.mean(0) + first)
        assert np.allclose(position["p2"], _FIGURE.mean(0) + second)


def test_order_of_detections_does_not_matter():
    images = [[(100, 200), (300, 200)], [(300, 200), (100, 200)]]
    assert _run(Tracker(), images)[1].ids == ("p2", "p1")


def test_lost_is_reported_then_forgotten_and_found_again_keeps_the_id():
    walk = [[(100 + 10 * i, 200)] for i in range(5)]
    reports = _run(Tracker(PoseConfig(lost_s=1.0)), walk + [[]] * 5 + [[(200, 200)]])
    assert [int(r.tracking_state[0]) for r in reports[5:10]] == [LOST] * 5
    assert np.isnan(reports[7].keypoints).all()
    assert reports[9].boxes[0, 0] > reports[5].boxes[0, 0] > reports[4].boxes[0, 0]
    assert reports[10].ids == ("p1",)
    gone = _run(Tracker(PoseConfig(lost_s=0.35)), walk + [[]] * 5)
    assert [len(r) for r in gone[5:]] == [1, 1, 1, 0, 0]


def test_someone_seen_once_is_not_kept():
    assert [len(r) for r in _run(Tracker(), [[(100, 200)], [], []])] == [1, 0, 0]


def _count(tracker, scores):
    """How many are reported of one who stands and scores so, ten images a second."""
    return [len(tracker.assign(_seen((100, 200), score=score), i * _SECOND // 10)[1])
            for i, score in enumerate(scores)]


def test_weak_detections_continue_a_track():
    assert _count(Tracker(PoseConfig(score_threshold=0.3)), [0.8, 0.12, 0.12]) == [1, 1, 1]


def test_who_scores_little_is_reported_when_seen_again_and_again():
    config = PoseConfig(confirm_hits=3, score_threshold=0.3)
    assert _count(Tracker(config), [0.2] * 6) == [0, 0, 0, 0, 1, 1]
    assert _count(Tracker(config), [0.1] * 20) == [0] * 20


def test_a_double_is_not_born():
    tracker = Tracker()
    assert len(tracker.assign(_seen((100, 200), (103, 203)), 0)[1]) == 1


def test_ids_are_given_again_after_a_while():
    positions = {0: 100, 10: 400, 20: 100, 130: 400}  # by number of the image; ten a second
    reports = _run(Tracker(PoseConfig(lost_s=0.5)), [[(positions[i], 200)] if i in positions else []
                                         for i in range(131)])
    assert [report.ids for report in reports if report.ids] == [("p1",), ("p2",), ("p3",), ("p1",)]


# Rates ------------------------------------------------------------------------------------------

_RATES = [0.5, 1, 2, 3, 5, 10, 30, 60, 120]


@pytest.mark.parametrize("fps", _RATES)
@pytest.mark.parametrize("lost_s", [0.0, 0.5, 2.0])
def test_people_are_confirmed_and_end_at_every_rate(fps, lost_s):
    """Two who walk, one image in which nobody is found, then nobody any more."""
    def positions(i):
        return [(200 + 30 * i / fps, 300), (700 - 30 * i / fps, 330)]
    away = int(max(lost_s, 2.5 / fps) * fps) + 2
    images = [positions(i) for i in range(5)] + [[]] + [positions(i) for i in range(6, 10)]
    reports = _run(Tracker(PoseConfig(lost_s=lost_s)), images + [[]] * away, fps)
    for report in reports[:10]:
        assert set(report.ids) == {"p1", "p2"}
    assert (reports[4].tracking_state == TRACKED).all()
    assert (reports[5].tracking_state == LOST).all()
    assert (reports[9].tracking_state == TRACKED).all()
    assert (reports[10].tracking_state == LOST).all() and len(reports[-1]) == 0


@pytest.mark.parametrize("first, then", [(30, 1), (1, 30), (60, 3), (3, 120), (30, 0.5), (0.5, 10)])
def test_ids_stay_when_the_rate_changes(first, then):
    tracker, stamp, ids = Tracker(), 0, []
    for number in range(30):
        stamp += int(_SECOND / (first if number < 15 else then))
        seconds = stamp / _SECOND
        people = _seen((200 + 10 * seconds, 300), (700 - 10 * seconds, 330))
        ids.append(tracker.report(*tracker.assign(people, stamp), stamp).ids)
    assert set(ids) == {("p1", "p2")}


@pytest.mark.parametrize("seed", range(5))
def test_ids_stay_whatever_the_intervals(seed):
    """Irregular from 8 ms to 4 s, where people are missed now and then, not twice in a row."""
    rng = np.random.default_rng(seed)
    tracker, stamp, ids, missed = Tracker(), 0, set(), [True, True]
    for _ in range(60):
        stamp += int(_SECOND * np.exp(rng.uniform(np.log(0.008), np.log(4))))
        seconds = stamp / _SECOND
        positions = [(200 + 2 * seconds, 300), (900 - 2 * seconds, 330)]
        missed = [not before and rng.random() < 0.2 for before in missed]
        people = _seen(*[position for position, out in zip(positions, missed) if not out])
        ids |= set(tracker.report(*tracker.assign(people, stamp), stamp).ids)
    assert ids == {"p1", "p2"}


@pytest.mark.parametrize("fps", _RATES)
def test_a_swap_of_sides_is_put_right_at_every_rate_that_is_fast_enough(fps):
    """Once, and for good: whoever stays turned round for long is turned round."""
    for swapped_from, swapped_to in ((6, 7), (6, 99)):
        tracker, first = Tracker(), _facing((200, 200)).keypoints
        images = 7 + int(max(0.6 * fps, 6))
        for number in range(images):
            people = _facing((200, 200), swapped=[0] * (swapped_from <= number < swapped_to))
            stamp = int(number * _SECOND / fps)
            report = tracker.report(*tracker.assign(people, stamp), stamp)
            if number == 6:
                assert np.allclose(report.keypoints, first) == (fps > 3.5)
        np.testing.assert_allclose(report.keypoints, people.keypoints)


def test_most_people_are_those_known_best():
    tracker = Tracker(PoseConfig(max_people=2))
    two, four = [(100, 200), (300, 200)], [(100, 200), (300, 200), (500, 200), (700, 200)]
    reports = _run(tracker, [two] * 4 + [four] * 4 + [[]] * 2 + [four[2:]] * 2)
    assert [report.ids for report in reports[:10]] == [("p1", "p2")] * 10
    assert all(len(report) == 2 for report in reports)


def test_reset_forgets():
    tracker = Tracker()
    _run(tracker, [[(100, 200)]] * 3)
    tracker.reset()
    assert tracker.tracks == [] and _run(tracker, [[(400, 200)]])[0].ids == ("p1",)


def test_equal_stamps_are_no_division_by_zero():
    tracker = Tracker()
    for _ in range(3):
        people, tracks = tracker.assign(_seen((100, 200)), 5)
    assert np.isfinite(tracks[0].trunk.velocity).all()


def test_velocity_converges_and_its_covariance_is_honest():
    rng = np.random.default_rng(0)
    cov = np.diag([0.02, 0.02, 0.1]) ** 2
    errors = []
    for _ in range(200):
        velocity = rng.normal(size=3)
        motion = VelocityFilter(rng.multivariate_normal(np.zeros(3), cov), cov, 0, 1.0, 0.1)
        for step in range(1, 60):
            position = velocity * step / 30 + rng.multivariate_normal(np.zeros(3), cov)
            motion.update(position, cov, int(step * _SECOND / 30))
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


def _decaying(decay_s: float) -> VelocityFilter:
    """Two independent points in space that have been measured twice."""
    rng = np.random.default_rng(0)
    spread = 0.1 * rng.normal(size=(2, 3, 3))
    cov = spread @ spread.swapaxes(-1, -2) + 1e-4 * np.eye(3)
    motion = VelocityFilter(np.zeros((2, 3)), cov, 0, np.array([0.5, 1.0]), 0.3, decay_s)
    motion.update(rng.normal(size=(2, 3)), cov, _SECOND // 10)
    return motion


@pytest.mark.parametrize("decay_s", [math.inf, 1e6, 3.0, 0.15])
def test_what_time_does_does_not_depend_on_the_steps(decay_s):
    """Two seconds at once, and in steps from a nanosecond to most of it."""
    at_once = _decaying(decay_s).predicted(21 * _SECOND // 10)
    motion = _decaying(decay_s)
    start = motion.stamp
    for after in (1, 1000, 10**6, 10**7, 10**8, 3 * 10**8, 2 * 10**9):
        motion.position, motion.velocity, motion.cov, motion.cross_cov, motion.velocity_cov = \
            motion.predicted(start + after)
        motion.stamp = start + after
    stepwise = (motion.position, motion.velocity, motion.cov, motion.cross_cov,
                motion.velocity_cov)
    for found, expected in zip(stepwise, at_once):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("decay_s", [math.inf, 1.0, 0.15])
def test_a_prediction_is_the_distribution_of_simulated_walkers(decay_s):
    """Velocities that decay and are pushed at random in steps of a millisecond."""
    rng, dt, steps, speed, density = np.random.default_rng(1), 1e-3, 600, 0.8, 2.0
    velocity = speed * rng.normal(size=20_000)
    position = 0.1 * rng.normal(size=20_000)
    for _ in range(steps):
        position = position + dt * velocity
        velocity = velocity * (1 - dt / decay_s) + np.sqrt(density * dt) * rng.normal(size=20_000)
    motion = VelocityFilter(np.zeros(1), np.array([[0.01]]), 0, speed, density, decay_s)
    _, _, cov, cross_cov, velocity_cov = motion.predicted(round(steps * dt * _SECOND))
    expected = np.block([[cov, cross_cov], [cross_cov.T, velocity_cov]])
    np.testing.assert_allclose(np.cov(position, velocity), expected, rtol=0.05)


def test_speeds_stay_what_they_are_with_a_decay_alone():
    motion = VelocityFilter(np.zeros((3, 2)), np.tile(np.eye(2), (3, 1, 1)), 0,
                            np.array([0.3, 1.0, 2.0]), decay_s=0.7)
    for stamp in (1, _SECOND // 30, 5 * _SECOND):
        variance = np.square([0.3, 1.0, 2.0])[:, None, None] * np.eye(2)
        np.testing.assert_allclose(motion.predicted(stamp)[4], variance, rtol=1e-3)


def test_the_gate_holds_the_share_that_it_says():
    rng, cov = np.random.default_rng(0), np.diag([0.1, 0.2, 0.3]) ** 2
    motion = VelocityFilter(np.zeros(3), cov, 0, speed=0.5, process_noise=0.1)
    truth = rng.multivariate_normal(np.zeros(3), motion.predicted(_SECOND)[2], 4000)
    seen = truth + rng.multivariate_normal(np.zeros(3), cov, 4000)
    squared_mahalanobis = motion.squared_mahalanobis(seen, np.tile(cov, (4000, 1, 1)), _SECOND)
    for share in (0.5, 0.9, 0.99):
        assert (squared_mahalanobis < gate(3, share)).mean() == pytest.approx(share, abs=0.02)


def test_who_is_hidden_takes_nobodys_detections():
    """Two stand close; one is hidden for a while, and the ids stay."""
    rng, tracker, reports = np.random.default_rng(0), Tracker(), []
    for number in range(33):
        seen = _seen((200, 200), (230, 205))
        noise = 8 * rng.normal(size=seen.keypoints.shape)
        seen = seen.with_fields(keypoints=seen.keypoints + noise)
        seen = seen[:1] if 10 <= number < 28 else seen
        stamp = number * _SECOND // 10
        reports.append(tracker.report(*tracker.assign(seen, stamp), stamp))
    assert all(r.ids == ("p1", "p2") for r in reports)
    assert all(list(r.tracking_state) == [TRACKED, LOST] for r in reports[10:28])


def test_two_who_cross_while_one_is_hidden_keep_their_ids():
    images = [[(100 + 12 * i, 200), (460 - 12 * i, 230)] for i in range(31)]
    for i in range(11, 20):
        del images[i][1]
    reports = _run(Tracker(), images)
    assert {r.ids[0] for r in reports} == {"p1"} and reports[-1].ids == ("p1", "p2")


_CAMERA = Camera.from_fov(640, 480, 70)
_STANDING = np.stack([np.linspace(-0.2, 0.2, 17), np.linspace(-0.8, 0.8, 17), np.zeros(17)], 1)
_ROOT_STD = np.array([0.02, 0.02, 0.05])


def _bodies(positions, pose=Transform.identity(), rng=None) -> People:
    """People with a figure and a root at places (P, 3) m in the fixed frame, as a camera sees
    them."""
    positions = pose.inverse().apply(np.asarray(positions, float))
    if rng is not None:
        positions = positions + _ROOT_STD * rng.normal(size=positions.shape)
    count = len(positions)
    points = _CAMERA.project(positions[:, None] + _STANDING)
    boxes = np.concatenate([points.min(1), points.max(1)], -1)
    theta = np.tile((0.0, 0.0, 0.0, 1.0), (count, 24, 1))
    return People(boxes, np.full(count, 0.8), points, np.tile(4 * np.eye(2), (count, 17, 1, 1)),
                  np.ones((count, 17)), joints=np.repeat(positions[:, None], 24, 1),
                  joint_cov=np.tile(1e-3 * np.eye(3), (count, 24, 1, 1)),
                  joint_source=np.ones((count, 24)), theta=theta, betas=np.zeros((count, 10)),
                  root=positions, root_cov=np.tile(np.diag([*_ROOT_STD, 0.1, 0.1, 0.1]) ** 2,
                                                (count, 1, 1)))


def _report(tracker, people, stamp, pose=None) -> People:
    shown, tracks = tracker.assign(people, stamp, _CAMERA, pose)
    return tracker.report(shown, tracks, stamp)


def _driving(second: float) -> Transform:
    """Of a camera that drives forwards at 1 m/s and looks to and fro."""
    return Transform(Rotation.from_euler("y", 0.2 * np.sin(2 * second)), np.array([0, 0, second]))


def _driven_past(position, steps=40, fixed=True):
    """Reports of a person at place(second) before the driving camera, noise in each image."""
    rng, tracker = np.random.default_rng(0), Tracker()
    for number in range(steps):
        pose = _driving(number / 20)
        yield pose, _report(tracker, _bodies([position(number / 20)], pose, rng),
                            number * _SECOND // 20, pose if fixed else None)


def test_a_standing_person_stands_before_a_robot_that_drives():
    reports = [people for _, people in _driven_past(lambda t: (0.3, 0, 7))]
    still = [np.array_equal(r.velocity[0], np.zeros(3)) for r in reports[5:]]
    assert np.mean(still) > 0.9 and {r.ids for r in reports} == {("p1",)}
    *_, (_, blind) = _driven_past(lambda t: (0.3, 0, 7), fixed=False)
    assert blind.velocity[0, 2] < -0.7


def test_velocity_is_that_over_ground_along_the_cameras_axes():
    *_, (pose, people) = _driven_past(lambda t: (0.9 * t - 1, 0, 7))
    np.testing.assert_allclose(pose.rotmat @ people.velocity[0], (0.9, 0, 0), atol=0.25)
    assert np.linalg.norm(people.root[0] - pose.inverse().apply(
        np.array((0.9 * 39 / 20 - 1, 0, 7)))) < 0.3


def test_ids_stay_when_the_camera_jerks_round():
    tracker = Tracker()
    for number in range(30):
        pose = Transform(Rotation.from_euler("y", 0.35 * (-1) ** (number // 4)), np.zeros(3))
        people = _bodies([(-0.5, 0, 6), (0.9, 0, 6)], pose)
        report = _report(tracker, people, number * _SECOND // 10, pose)
        assert report.ids == ("p1", "p2")


def test_a_slow_walker_walks_and_a_threshold_of_0_lets_nobody_stand():
    rng, tracker = np.random.default_rng(1), Tracker()
    for number in range(60):
        people = _report(tracker, _bodies([(0.5 * number / 20 - 0.7, 0, 4)], rng=rng),
                         number * _SECOND // 20)
    assert people.velocity[0, 0] == pytest.approx(0.5, abs=0.2)
    tracker = Tracker(PoseConfig(still_mps=0.0))
    reports = [_report(tracker, _bodies([(0, 0, 4)], rng=rng), n * _SECOND // 20)
               for n in range(20)]
    assert all(r.velocity.any() for r in reports[2:])


def test_the_lost_go_on_ever_slower_and_grow_less_certain():
    """By the formula of Person.msg; a body's joint velocities are not known any more."""
    tracker, nobody = Tracker(), _bodies(np.zeros((0, 3)))
    spreads = []
    for number in range(70):
        second = number / 20
        unseen_s = max(second - 29 / 20, 0)
        walked = 0.5 * (min(second, 29 / 20) + 3 * (1 - np.exp(-unseen_s / 3)))
        pose, position = _driving(second), (walked - 0.5, 0, 8)
        people = _bodies([position], pose) if number < 30 else nobody
        report = _report(tracker, people, number * _SECOND // 20, pose)
        if number < 30:
            continue
        assert report.ids == ("p1",) and report.tracking_state[0] == LOST
        predicted = pose.apply(report.root[0])
        np.testing.assert_allclose(predicted, position, atol=0.05)
        np.testing.assert_allclose(pose.apply(report.joints[0, 0]), position,
                                   atol=0.05)
        speed = 0.5 * np.exp(-unseen_s / 3)
        np.testing.assert_allclose(pose.rotmat @ report.velocity[0], (speed, 0, 0), atol=0.05)
        assert np.isnan(report.joint_velocity).all()
        spreads.append([np.trace(report.root_cov[0, :3, :3]), np.trace(report.joint_cov[0, 0]),
                        np.trace(report.velocity_cov[0])])
    assert (np.diff(spreads, axis=0) > 0).all()
    assert spreads[-1][0] > 1.0


def test_a_place_far_off_for_one_image_is_an_outlier_and_for_longer_the_truth():
    tracker, positions = Tracker(), [(0, 0, 4)] * 20
    for number, position in enumerate(positions + [(0, 0, 9)] + positions[:5] + [(0, 0, 9)] * 20):
        people = _bodies([(0, 0, 4)])
        seen = people.with_fields(root=np.array([position], float))
        report = _report(tracker, seen, number * _SECOND // 20)
        if 15 < number < 26:
            np.testing.assert_array_equal(report.velocity[0], 0)
    np.testing.assert_allclose(tracker.tracks[0].root.position, (0, 0, 9), atol=0.1)


def test_an_equal_stamp_is_no_motion():
    tracker = Tracker()
    for _ in range(4):
        report = _report(tracker, _bodies([(0, 0, 4)], rng=np.random.default_rng()), 5)
    np.testing.assert_array_equal(report.velocity[0], 0)


def test_known_again_by_the_last_place_after_some_seconds():
    for back, again in (((0.8, 0, 5), True), ((-3.5, 0, 9), False)):
        tracker, nobody = Tracker(), _bodies(np.zeros((0, 3)))
        images = [_bodies([(0, 0, 5)])] * 10 + [nobody] * 50 + [_bodies([back])] * 5
        reports = [_report(tracker, people, number * _SECOND // 10)
                   for number, people in enumerate(images)]
        assert len(reports[40]) == 0
        assert reports[-1].ids == (("p1",) if again else ("p2",))
        assert reports[-1].age[0] == pytest.approx(6.4 if again else 0.4)
        assert reports[60].tracking_state[0] == (TRACKED if again else TENTATIVE)


def test_who_has_another_body_is_somebody_else():
    for betas, again in ((0.2, True), (3.0, False)):
        tracker = Tracker()
        images = [_bodies([(0, 0, 5)])] * 10 + [_bodies(np.zeros((0, 3)))] * 40
        images.append(images[0].with_fields(betas=np.full((1, 10), betas)))
        for number, people in enumerate(images):
            report = _report(tracker, people, number * _SECOND // 10)
        assert report.ids == (("p1",) if again else ("p2",))


def test_ids_are_few():
    rng, tracker, most = np.random.default_rng(0), Tracker(PoseConfig(lost_s=0.5)), 0
    centres = {}
    for number in range(1500):
        if rng.random() < 0.05 and len(centres) < 4:
            centres[number] = rng.uniform(100, 5000)
        for one in [one for one in centres if rng.random() < 0.02]:
            del centres[one]
        if number == 700:
            tracker.reset()
        seen = _seen(*[(x, 200) for x in centres.values() if rng.random() > 0.1])
        stamp = number * _SECOND // 10
        report = tracker.report(*tracker.assign(seen, stamp), stamp)
        assert set(report.ids) <= {track.id for track in tracker.tracks if track.number}
        most = max(most, *(int(one[1:]) for one in report.ids), 0)
    assert 4 <= most <= 25


def test_people_selected_before_are_all_reported_and_paired_by_position():
    """No common image: the pixels are the same for all, and scores say nothing."""
    tracker = Tracker(associate=associate_by_position, report_all=True)
    for number in range(8):
        position = 0.05 * number
        people = _bodies([(position, 0, 5), (2 - position, 0, 5)])
        people = people.with_fields(scores=np.zeros(2), boxes=np.full((2, 4), np.nan),
                                    keypoints=np.full((2, 17, 2), np.nan))
        people = people[[0, 1] if number % 2 else [1, 0]]
        stamp = number * _SECOND // 10
        shown, tracks = tracker.assign(people, stamp)
        report = tracker.report(shown, tracks, stamp)
        expected = ("p2", "p1") if number % 2 else ("p1", "p2")
        assert report.ids == expected
    assert (report.tracking_state == TRACKED).all()


@pytest.mark.parametrize("fps", [5, 30])
@pytest.mark.parametrize("fixed", [True, False])
def test_joint_velocities_are_those_of_swinging_limbs(fps, fixed):
    """A body that walks while one wrist swings, before a camera that drives: over ground if known.

    The covariance holds: errors lie inside the 95 % ellipsoid more often than not.
    """
    rng, tracker, wrist = np.random.default_rng(2), Tracker(), 20
    errors, inside = [], []
    for number in range(4 * fps):
        second = number / fps
        pose = _driving(second) if fixed else Transform.identity()
        swing = np.array([0, 0, 0.3 * np.sin(3 * second)])
        joints = np.tile((0.5 * second, 0, 6), (24, 1)) + 0.02 * rng.normal(size=(24, 3))
        joints[wrist] += swing
        people = _bodies([joints[0]], pose)
        people = people.with_fields(joints=pose.inverse().apply(joints)[None],
                                    joint_cov=np.tile(4e-4 * np.eye(3), (1, 24, 1, 1)))
        report = _report(tracker, people, number * _SECOND // fps, pose if fixed else None)
        if second > 1:
            truth = np.tile((0.5, 0, 0), (24, 1))
            truth[wrist, 2] = 0.9 * np.cos(3 * second)
            velocity = report.joint_velocity[0] @ pose.rotmat.T
            cov = pose.rotmat @ report.joint_velocity_cov[0] @ pose.rotmat.T
            errors.append(np.linalg.norm(velocity - truth, axis=1))
            inside.append(squared_mahalanobis(velocity - truth, cov) < gate(3, 0.95))
    assert np.median(errors) < 0.35 and np.median(np.array(errors)[:, wrist]) < 0.5
    assert np.mean(inside) > 0.9


def test_a_joint_that_leaps_for_one_image_is_not_fast():
    """Left and right swapped once: the velocity hardly changes, and is finite everywhere."""
    tracker = Tracker()
    for number in range(30):
        people = _bodies([(0, 0, 5)])
        if number == 20:
            people.joints[0, 20] += (0.8, 0, 0)
        report = _report(tracker, people, number * _SECOND // 30)
        if number:
            assert np.linalg.norm(report.joint_velocity[0], axis=1).max() < 1  # 24 if not gated
    assert np.isfinite(report.joint_velocity_cov).all()


@pytest.mark.parametrize("lost", ["joints", "root"])
def test_without_a_body_there_are_no_joint_velocities(lost):
    tracker = Tracker()
    for number in range(9):
        people = _bodies([(0, 0, 5)])
        if number in (3, 4):
            people.joints[:] = np.nan
            people.root[:] = people.root if lost == "joints" else np.nan
        report = _report(tracker, people, number * _SECOND // 10)
        known = np.isfinite(report.joint_velocity).all()
        assert known == (number not in (0, 3, 4)), number
