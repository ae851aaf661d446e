"""Finders and refiner together: made-up networks in a made-up world, and any picture."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from ros2_pose.config import PoseConfig
from ros2_pose.imaging.crop import crop_person
from ros2_pose.networks import top_down
from ros2_pose.networks.base import Finder
from ros2_pose.networks.keypoint_noise import THUNDER_NOISE
from ros2_pose.networks.refiner import Refined
from ros2_pose.networks.top_down import TopDown
from ros2_pose.people import DETECTED, Frame, People
from ros2_pose.tracking.tracker import Tracker

_PICTURE = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
# Keypoints (17, 2) in COCO order of a standing person, in heights, from the middle.
_STANDING = np.array([
    (0.00, -0.42), (0.02, -0.44), (-0.02, -0.44), (0.04, -0.43), (-0.04, -0.43), (0.09, -0.30),
    (-0.09, -0.30), (0.12, -0.15), (-0.12, -0.15), (0.13, 0.0), (-0.13, 0.0), (0.06, 0.02),
    (-0.06, 0.02), (0.06, 0.23), (-0.06, 0.23), (0.06, 0.45), (-0.06, 0.45)])


def _person(x, y, height=120.0):
    return np.array([x, y]) + height * _STANDING


def _boxes(keypoints):
    """Boxes (P, 4) of keypoints (P, 17, 2), a little larger."""
    low, high = keypoints.min(1), keypoints.max(1)
    margin = 0.05 * (high - low).max(1, keepdims=True)
    return np.concatenate([low - margin, high + margin], 1)


def _people(keypoints, scores, std_px=3.0):
    """People with keypoints (P, 17, 2) and a score each."""
    keypoints = np.asarray(keypoints, float).reshape(-1, 17, 2)
    scores = np.broadcast_to(np.asarray(scores, float), len(keypoints)).copy()
    cov = np.tile(std_px**2 * np.eye(2), (len(keypoints), 17, 1, 1))
    return People(_boxes(keypoints), scores, keypoints, cov, np.full((len(keypoints), 17), 0.7))


def _followed(keypoints, proposal_scores=0.5, std_px=3.0):
    people = _people(keypoints, 0.6, std_px)
    return people.with_fields(proposal_scores=np.broadcast_to(
        np.asarray(proposal_scores, float), len(people)).copy())


class MadeUpFinder(Finder):
    """Finds chosen people of the world, some px beside where they are."""

    def __init__(self, rows=(), score=0.5, boxes_only=False, shift=(0.0, 0.0), parts=()):
        self.rows, self.score, self.boxes_only = rows, score, boxes_only
        self.shift, self.parts = np.array(shift), list(parts)
        self.calls = []
        super().__init__(PoseConfig())

    def searches(self):
        return self.parts or [self]

    def find_people(self, frames):
        self.calls.append([frame.stamp for frame in frames])
        return [self._people(self.world[frame.stamp]) for frame in frames]

    def _people(self, keypoints):
        rows = [row for row in self.rows if row < len(keypoints)]
        people = _people(keypoints[rows] + self.shift, self.score)
        if not self.boxes_only:
            return people
        return people.with_fields(keypoints=np.full_like(people.keypoints, np.nan),
                                  keypoint_cov=np.full_like(people.keypoint_cov, np.nan),
                                  keypoint_scores=np.full_like(people.keypoint_scores, np.nan))


class MadeUpRefiner:
    """Sees the person of the world in a crop who fits the guide best; else noise."""

    long_side, noise = 256, THUNDER_NOISE

    def __init__(self, world):
        self.world, self.guides, self.fails = world, [], lambda number: False
        self.crop = None  # the last one
        self._crops = []  # all, with their frames

    def crop_person(self, frame, box, long_side):
        self.crop = crop_person(frame, box, long_side)
        if self.crop is not None:
            self._crops.append((frame, self.crop))
        return self.crop

    def refine(self, crops, guides):
        numbers = [next(number for number, (_, crop) in enumerate(self._crops)
                        if crop.image is image) for image in crops]
        if any(map(self.fails, numbers)):
            raise RuntimeError("no memory\nfor this crop")
        self.guides += guides
        return [self._refined(*self._crops[number], guide)
                for number, guide in zip(numbers, guides)]

    def _refined(self, frame, crop, guide):
        height, width = crop.image.shape[:2]
        inside = []
        for person in self.world[frame.stamp]:
            points = crop.from_picture(person)
            if ((points > 0) & (points < (width, height))).mean() > 0.8:
                inside.append((self._distance(points, guide), points))
        votes = np.tile(4.0 * np.eye(2), (17, 1, 1))
        if not inside:
            points = np.random.default_rng(0).uniform(0, (width, height), (17, 2))
            return Refined(points, votes, np.full(17, 0.02), 0.02)
        points = min(inside, key=lambda pair: pair[0])[1]
        return Refined(points, votes, np.full(17, 0.8), 0.9)

    @staticmethod
    def _distance(points, guide):
        if np.isfinite(guide.keypoints).all():
            return np.linalg.norm(points - guide.keypoints, axis=1).mean()
        return np.linalg.norm(points.mean(0) - guide.middle)


@pytest.fixture
def make(monkeypatch):
    """Function that makes a network of finders, in a world {stamp: keypoints (P, 17, 2)}."""
    def make(world, *finders):
        world = world if isinstance(world, dict) else {0: np.array(world).reshape(-1, 17, 2)}
        refiner = MadeUpRefiner(world)
        for searcher in [*finders, *(part for finder in finders for part in finder.parts)]:
            searcher.world = world
        by_name = {f"finder{number}": finder for number, finder in enumerate(finders)}
        monkeypatch.setattr(top_down, "create_finder", lambda name, *_: by_name[name])
        monkeypatch.setattr(top_down, "create_refiner", lambda *_: refiner)
        monkeypatch.setattr(top_down, "crop_person", refiner.crop_person)
        network = TopDown(PoseConfig(finders=tuple(by_name)))
        network.configure(0.1, 40)
        return network
    return make


def _is_each_once(people, keypoints, atol=0.5):
    """Whether the people found are those, in any order."""
    if len(people) != len(keypoints):
        return False
    distance = np.abs(people.keypoints[:, None] - keypoints[None]).max((2, 3))
    return bool(((distance < atol).sum(0) == 1).all() and ((distance < atol).sum(1) == 1).all())


# ------------------------------------------------------------------------------- proposals


_WORLD = np.array([_person(120, 200), _person(300, 240, 200), _person(520, 300, 90)])
_SUBSETS = [rows for count in range(4) for rows in combinations(range(3), count)]


@pytest.mark.parametrize("posed", _SUBSETS, ids=str)
@pytest.mark.parametrize("boxes", [(), (1,), (0, 2), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("followed", [(), (0,), (0, 1, 2)], ids=str)
def test_each_person_is_found_once(make, posed, boxes, followed):
    """Whatever proposes the person: keypoints, a box, tracking, or several of them."""
    network = make(_WORLD, MadeUpFinder(posed, shift=(2, -2)),
                   MadeUpFinder(boxes, boxes_only=True, shift=(-2, 1)))
    expected = _followed(_WORLD[list(followed)] + 1.5)
    people = network.detect([Frame(_PICTURE, expected=expected)])[0]
    rows = sorted({*posed, *boxes, *followed})
    assert _is_each_once(people, _WORLD[rows])
    assert (people.scores > 0.3).all() and (np.diff(people.scores) <= 0).all()
    assert len(network.refiner.guides) == len(rows)


def test_a_person_known_by_a_box_alone_is_refined_from_its_middle(make):
    network = make(_WORLD, MadeUpFinder((1,), boxes_only=True))
    people = network.detect([Frame(_PICTURE)])[0]
    guide, = network.refiner.guides
    assert np.isnan(guide.keypoints).all()
    middle = network.refiner.crop.to_picture(guide.middle)
    np.testing.assert_allclose(middle, _boxes(_WORLD[1:2])[0].reshape(2, 2).mean(0), atol=1e-6)
    assert _is_each_once(people, _WORLD[1:2])


def test_a_clear_keypoint_proposal_counts_more_than_a_box(make):
    posed = make(_WORLD, MadeUpFinder((0,), score=0.5)).detect([Frame(_PICTURE)])[0]
    boxed = make(_WORLD, MadeUpFinder((0,), score=0.5, boxes_only=True))
    assert boxed.detect([Frame(_PICTURE)])[0].scores[0] < posed.scores[0]


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("second", [False, True])
def test_proposals_that_land_on_one_person_are_one(make, first, second):
    """Boxes that overlap too little to be one before the crops are looked at."""
    shift = (35.0, 15.0)
    network = make(_WORLD[1:2], MadeUpFinder((0,), boxes_only=first),
                   MadeUpFinder((0,), boxes_only=second, shift=shift))
    people = network.detect([Frame(_PICTURE)])[0]
    assert len(network.refiner.guides) == 2
    assert _is_each_once(people, _WORLD[1:2])


def test_people_side_by_side_are_two(make):
    world = np.array([_person(300, 240, 200), _person(345, 245, 200)])
    for boxes_only in (False, True):
        network = make(world, MadeUpFinder((0, 1), boxes_only=boxes_only))
        assert _is_each_once(network.detect([Frame(_PICTURE)])[0], world)


# ---------------------------------------------------------------------------- search, followed


@pytest.mark.parametrize("search, expected", [
    (None, (1, 1, 1)), ((), (0, 0, 0)), ((0,), (1, 0, 1)), ((1,), (0, 1, 0)), ((0, 1), (1, 1, 1))])
def test_the_parts_of_the_search_that_are_asked_for_are_run(make, search, expected):
    first, second = MadeUpFinder((0,)), MadeUpFinder((1,))
    boxes = MadeUpFinder((2,), boxes_only=True)
    network = make(_WORLD, MadeUpFinder(parts=[first, second]), boxes)
    assert network.search_parts == 2
    people = network.detect([Frame(_PICTURE, search=search)])[0]
    calls = tuple(len(finder.calls) for finder in (first, second, boxes))
    assert calls == expected
    assert _is_each_once(people, _WORLD[np.flatnonzero(expected)])


def test_frames_of_a_batch_choose_their_parts_and_do_not_depend_on_each_other(make):
    first, second = MadeUpFinder((0, 1, 2)), MadeUpFinder((0, 1, 2), shift=(1, 1))
    world = {stamp: _WORLD[:stamp % 4] + 3 * stamp for stamp in range(6)}
    network = make(world, MadeUpFinder(parts=[first, second]))
    searches = (None, (0,), (), (1,), (), (0, 1))
    expected = [_followed(world[stamp] + 1) if stamp in (2, 3, 5) else None for stamp in range(6)]
    frames = [Frame(_PICTURE, stamp=stamp, search=searches[stamp], expected=expected[stamp])
              for stamp in range(6)]
    together = network.detect(frames)
    assert first.calls == [[0, 1, 5]] and second.calls == [[0, 3, 5]]
    for frame, people in zip(frames, together):
        alone = network.detect([frame])[0]
        for name in (*DETECTED, "proposal_scores"):
            np.testing.assert_array_equal(getattr(people, name), getattr(alone, name))


def test_people_followed_need_no_search(make):
    """They are refined where they are, not reported where they were expected."""
    network = make(_WORLD, MadeUpFinder((0, 1, 2)))
    expected = _followed(_WORLD + 4, (0.6, 0.5, 0.4))
    people = network.detect([Frame(_PICTURE, expected=expected, search=())])[0]
    assert _is_each_once(people, _WORLD)
    np.testing.assert_array_equal(people.proposal_scores, (0.6, 0.5, 0.4))
    size = people.boxes[:, 2:] - people.boxes[:, :2]
    true_size = _boxes(_WORLD)[:, 2:] - _boxes(_WORLD)[:, :2]
    assert (np.abs(size / true_size - 1) < 0.15).all()


def test_a_followed_person_who_has_left_is_not_reported(make):
    for search in ((), (0,)):
        network = make(_WORLD[:1], MadeUpFinder((0,)))
        people = network.detect([Frame(_PICTURE, expected=_followed(_WORLD), search=search)])[0]
        assert _is_each_once(people[people.scores > 0.15], _WORLD[:1])


def test_boxes_follow_people_who_move_and_grow(make):
    """Errors of the box do not add up while a person is followed for long."""
    world = {t: np.array([_person(150 + 3 * t, 240, 100 + 2 * t)]) for t in range(90)}
    network = make(world, MadeUpFinder((0,), shift=(6, 0)))
    expected = None
    for t in range(90):
        search = None if expected is None else ()
        people = network.detect([Frame(_PICTURE, stamp=t, expected=expected, search=search)])[0]
        assert _is_each_once(people, world[t])
        expected = people
    error = (people.boxes - _boxes(world[89]))[0] / (100 + 2 * 89)
    assert np.abs(error).max() < 0.1


# ---------------------------------------------------------------------------- proposal scores


@pytest.mark.parametrize("found, before, rises", [(0.9, 0.5, True), (0.3, 0.5, False),
                                                  (None, 0.5, False), (0.5, 0.05, True)])
def test_searches_change_a_followed_person_s_score(make, found, before, rises):
    network = make(_WORLD[:1], MadeUpFinder(() if found is None else (0,), score=found or 0.5))
    people = _followed(_WORLD[:1], before)
    scores = [before]
    for _ in range(6):
        people = network.detect([Frame(_PICTURE, expected=people, search=(0,))])[0]
        if not len(people):
            break
        scores.append(float(people.proposal_scores[0]))
    assert ((np.diff(scores) > 0) == rises).all() and len(scores) >= 4
    if found is not None:
        assert scores[-1] == pytest.approx(found, abs=0.05)


def test_a_search_elsewhere_leaves_the_score_of_those_it_finds(make):
    network = make(_WORLD, MadeUpFinder((0, 1, 2), score=0.5))
    people = _followed(_WORLD, 0.5)
    found = network.detect([Frame(_PICTURE, expected=people, search=(0,))])[0]
    np.testing.assert_allclose(found.proposal_scores, 0.5)


@pytest.mark.parametrize("boxes_only", [False, True])
def test_to_be_followed_does_not_raise_the_score(make, boxes_only, monkeypatch):
    """What is doubtful in the first frame, such as half a person, is so in the next ones."""
    network = make(_WORLD[:1], MadeUpFinder((0,), boxes_only=boxes_only))
    refine = network.refiner.refine
    monkeypatch.setattr(network.refiner, "refine", lambda crops, guides: [
        found._replace(center_score=0.3) for found in refine(crops, guides)])
    first = network.detect([Frame(_PICTURE)])[0]
    second = network.detect([Frame(_PICTURE, expected=first, search=())])[0]
    assert second.scores[0] <= first.scores[0] + 0.01


@pytest.mark.parametrize("found_by", [0, 1])
def test_parts_of_the_search_that_take_turns_leave_the_score(make, found_by):
    """Small people are found by the last part alone, large ones by the first alone."""
    parts = [MadeUpFinder((0,) if part == found_by else ()) for part in range(2)]
    network = make(_WORLD[:1], MadeUpFinder(parts=parts))
    people = first = network.detect([Frame(_PICTURE)])[0]
    for search in 6 * [(0,), (0,), (0,), (1,)]:
        people = network.detect([Frame(_PICTURE, expected=people, search=search)])[0]
        assert len(people) == 1
        assert people.scores[0] > 0.85 * first.scores[0]


def test_a_person_whom_no_search_finds_fades(make):
    """Something that only the refiner takes for a person is not reported for ever."""
    network = make(_WORLD[:1], MadeUpFinder(()))
    people, scores = _followed(_WORLD[:1], 0.5), []
    for _ in range(40):
        people = network.detect([Frame(_PICTURE, expected=people, search=(0,))])[0]
        if not len(people):
            break
        scores.append(float(people.scores[0]))
    assert len(scores) < 25 and (np.diff(scores) < 0).all()


# --------------------------------------------------------------------------------- budgets


def _crowd(count=30, height=60.0):
    rng = np.random.default_rng(3)
    cells = [(40 + 62 * (i % 10), 60 + 130 * (i // 10)) for i in range(count)]
    return np.array([_person(*(np.array(cell) + rng.uniform(-6, 6, 2)), height) for cell in cells])


def test_a_crowd_that_is_searched_is_refined_as_a_whole(make):
    world = _crowd()
    network = make(world, MadeUpFinder(range(30)))
    assert _is_each_once(network.detect([Frame(_PICTURE)])[0], world)
    assert len(network.refiner.guides) == 30


def test_a_crowd_that_is_followed_costs_ten_crops_and_loses_no_one(make):
    """Those who are not refined are reported as the search found them."""
    world, shift = _crowd(), np.array((2.0, 1.0))
    network = make(world, MadeUpFinder(range(30), shift=shift))
    expected = _followed(world + 1)
    people = network.detect([Frame(_PICTURE, expected=expected, search=(0,))])[0]
    assert len(network.refiner.guides) == network.most_followed + 2
    exact = np.abs(people.keypoints[:, None] - world).max((2, 3)) < 0.01
    shifted = np.abs(people.keypoints[:, None] - (world + shift)).max((2, 3)) < 0.01
    assert exact.sum() == 10 and shifted.sum() == 20
    assert ((exact | shifted).sum(0) == 1).all()


def test_the_least_certain_of_many_are_refined(make):
    world = _crowd()
    network = make(world, MadeUpFinder(range(30)))
    expected = _followed(world)
    cov = expected.keypoint_cov * (1 + np.arange(30) % 10)[:, None, None, None]
    network.detect([Frame(_PICTURE, expected=expected.with_fields(keypoint_cov=cov), search=())])
    middles = np.array([guide.keypoints.mean(0) for guide in network.refiner.guides])
    assert len(middles) == network.most_followed
    followed = network._chosen(Frame(_PICTURE, expected=expected.with_fields(keypoint_cov=cov)))
    assert followed.keypoint_cov[:, 0, 0, 0].min() >= 9 * 8


def test_everyone_in_a_crowd_is_refined_within_a_second(make):
    """With a tracker: the ids last, and attention goes round."""
    count = 30
    world = {int(1e9 + t * 1e8): _crowd(count) + 0.5 * t for t in range(30)}
    network = make(world, MadeUpFinder(range(count), shift=(1.5, 1.0), score=0.6))
    tracker = Tracker(PoseConfig(max_people=40))
    ids, last, longest = None, {}, 0
    for t, (stamp, keypoints) in enumerate(world.items()):
        expected = tracker.expected(stamp)
        search = None if not len(expected) else (0,)
        people = network.detect([Frame(_PICTURE, stamp=stamp, expected=expected, search=search)])[0]
        people, tracks = tracker.assign(people, stamp)
        assert len(people) == count
        row = np.abs(people.keypoints[:, None] - keypoints).mean((2, 3)).argmin(0)
        names = [tracks[r].id for r in row]
        assert ids is None or names == ids
        ids = names
        for number, r in enumerate(row):
            if np.abs(people.keypoints[r] - keypoints[number]).max() < 0.01:
                longest = max(longest, t - last.get(number, t))
                last[number] = t
    assert len(last) == count and longest <= 10
    assert all(t >= 20 for t in last.values())


# --------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("x, y", [(-500, 240), (2000, 240), (320, -500), (320, 2000)])
def test_a_followed_person_outside_the_picture_is_not_reported(make, x, y):
    world = np.array([_person(x, y), _person(320, 240)])
    network = make(world, MadeUpFinder(()))
    people = network.detect([Frame(_PICTURE, expected=_followed(world), search=())])[0]
    assert _is_each_once(people, world[1:])


def test_nan_in_what_is_expected_is_no_person(make):
    expected = _followed(_WORLD)
    boxes, keypoints = expected.boxes.copy(), expected.keypoints.copy()
    boxes[0], keypoints[0] = np.nan, np.nan
    network = make(_WORLD, MadeUpFinder(()))
    people = network.detect([Frame(_PICTURE, search=(), expected=expected.with_fields(
        boxes=boxes, keypoints=keypoints))])[0]
    assert _is_each_once(people, _WORLD[1:])


@pytest.mark.parametrize("failing", [(0,), (1,), (0, 1, 2)], ids=str)
def test_a_refiner_that_fails_leaves_what_the_search_found(make, failing):
    shift = np.array((2.0, 1.0))
    network = make(_WORLD, MadeUpFinder((0, 1, 2), shift=shift))
    network.refiner.fails = lambda number: number in failing
    people = network.detect([Frame(_PICTURE)])[0]
    distance = np.abs(people.keypoints[:, None] - _WORLD).max((2, 3)).min(1)
    assert len(people) == 3 and (distance > 1).sum() == len(failing)
    assert people.note.startswith(f"the refiner failed on {len(failing)} of 3 people: ")
    assert "no memory" in people.note and "\n" not in people.note
    assert not network.detect([Frame(_PICTURE)])[0].note


def test_a_refiner_that_fails_loses_those_whom_no_search_found(make):
    """A person is never reported from its prediction alone."""
    network = make(_WORLD, MadeUpFinder((0,)))
    network.refiner.fails = lambda number: True
    for search, seen in (((), 0), ((0,), 1)):
        people = network.detect([Frame(_PICTURE, expected=_followed(_WORLD), search=search)])[0]
        assert len(people) == seen and "3 of 3 people" in people.note


def test_a_failure_is_not_noted_again(make):
    """Notes are of their frame, also where a person who was noted is expected later."""
    network = make(_WORLD, MadeUpFinder((0, 1, 2)))
    network.refiner.fails = lambda number: number == 0
    tracker = Tracker()
    tracker.assign(network.detect([Frame(_PICTURE)])[0], 10**9)
    expected = tracker.expected(10**9 + 10**8)
    assert len(expected) == 3
    expected.boxes[0] = (-900, -900, -800, -800)  # not refined: it comes first in the result
    people = network.detect([Frame(_PICTURE, expected=expected, search=())])[0]
    assert len(people) == 2 and not people.note


@pytest.mark.parametrize("what", ["keypoints", "votes_cov"])
def test_where_the_lens_does_not_reach_people_stay_as_found(make, what, monkeypatch):
    shift = np.array((2.0, 1.0))
    network = make(_WORLD[:1], MadeUpFinder((0,), shift=shift))
    refine = network.refiner.refine

    def beyond(crops, guides):
        found = refine(crops, guides)[0]
        values = getattr(found, what).copy()
        values[3] = np.nan
        return [found._replace(**{what: values})]
    monkeypatch.setattr(network.refiner, "refine", beyond)
    assert _is_each_once(network.detect([Frame(_PICTURE)])[0], _WORLD[:1] + shift)
    expected = _followed(_WORLD[:1])
    assert len(network.detect([Frame(_PICTURE, expected=expected, search=())])[0]) == 0


def test_a_person_who_fills_the_picture(make):
    """Also one of whom parts are outside of it."""
    for height in (470.0, 800.0):
        world = np.array([_person(320, 240, height)])
        for boxes_only in (False, True):
            network = make(world, MadeUpFinder((0,), boxes_only=boxes_only))
            network.refiner.world = {0: np.clip(world, 1, (639, 479))}
            people = network.detect([Frame(_PICTURE)])[0]
            assert len(people) == 1 and people.scores[0] > 0.3


def test_at_most_max_people_the_best(make):
    world = _crowd()
    network = make(world, *(MadeUpFinder((row,), score=0.2 + 0.02 * row) for row in range(30)))
    network.configure(0.1, 5)
    people = network.detect([Frame(_PICTURE)])[0]
    assert _is_each_once(people, world[25:])


def test_finders_keep_weak_people_for_the_refiner_to_judge(make):
    finder = MadeUpFinder((0,), score=0.06)
    network = make(_WORLD, finder)
    for threshold in (0.01, 0.1, 0.5):
        network.configure(threshold, 7)
        assert finder.score_threshold == 0.05 and finder.max_people == 20
    network.configure(0.1, 7)
    assert _is_each_once(network.detect([Frame(_PICTURE)])[0], _WORLD[:1])


# ------------------------------------------------------------------------------ real networks


@pytest.fixture(scope="module")
def network():
    network = TopDown(PoseConfig())
    network.configure(0.02, 40)
    return network


def _pictures():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (240, 320, 3), dtype=np.uint8)
    ramp = np.tile(np.arange(256, dtype=np.uint8)[:, None, None], (1, 200, 3))
    return {"noise": noise, "black": 0 * noise, "white": 0 * noise + 255, "ramp": ramp,
            "one pixel": noise[:1, :1], "a row": noise[:1], "a column": noise[:, :1],
            "wide": noise[:40], "tall": noise[:, :40],
            "view": np.rot90(noise), "blocks": noise[::20, ::20].repeat(20, 0).repeat(20, 1)}


@pytest.mark.parametrize("name", _pictures())
def test_any_picture_and_any_expectation_keep_the_contract(network, name):
    """`detect` checks it: finite, positive definite, scores 0 to 1."""
    picture = _pictures()[name]
    height, width = picture.shape[:2]
    anywhere = np.array([_person(width / 2, height / 2, height), _person(0, 0, 2 * height),
                         _person(width, height / 2, 3.0), _person(width / 2, height / 2, 1e4)])
    for expected in (None, _followed(anywhere)):
        people = network.detect([Frame(picture, expected=expected)])[0]
        assert people.scores.max(initial=0) < 0.3


def test_pictures_of_a_batch_do_not_depend_on_each_other(network, clip):
    known = network.detect([Frame(clip[3])])[0]
    frames = [Frame(clip[0]), Frame(clip[4], expected=known, search=()),
              Frame(_pictures()["noise"]), Frame(clip[4], expected=known, search=(0,))]
    for people, frame in zip(network.detect(frames), frames):
        alone = network.detect([frame])[0]
        assert len(people) == len(alone)
        for name in DETECTED:
            np.testing.assert_allclose(getattr(people, name), getattr(alone, name), atol=0.05,
                                       rtol=0.01)
