"""People followed from frame to frame with the real networks, and what a search has to notice."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from ros2_pose import boxes as box_math
from ros2_pose import oks
from ros2_pose.config import PoseConfig
from ros2_pose.people import LOST, Frame, Ground
from ros2_pose.pipeline import Pipeline
from ros2_pose.weights import fetch

_CONFIG = PoseConfig(body=False)
_START = 10**12  # ns
_PLACE = (600, 300)  # left, top, px, of a person pasted beside the clip


@pytest.fixture(scope="module")
def pictures():
    """The clip's first second, (960, 544, 3), 30 pictures."""
    video = cv2.VideoCapture(str(fetch("demo_cam02.mp4")))
    read = [video.read()[1] for _ in range(60)]
    return [np.ascontiguousarray(cv2.resize(picture, (544, 960), interpolation=cv2.INTER_AREA)
                                 [..., ::-1]) for picture in read[::2]]


@pytest.fixture(scope="module")
def networks():
    return Pipeline(_CONFIG)


@pytest.fixture
def start(networks, monkeypatch):
    """Function that starts a pipeline; and the parts of the search run in each of its frames."""
    def start(every=0):
        pipeline = networks.another()
        pipeline.configure(replace(_CONFIG, search_every=every))
        return pipeline
    detect = networks.network.detect
    searched = start.searched = []

    def spied(frames):
        searched.extend(frame.search for frame in frames)
        return detect(frames)
    monkeypatch.setattr(networks.network, "detect", spied)
    return start


def _mirrored(picture):
    return np.ascontiguousarray(picture[:, ::-1])


def _run(pipeline, pictures, hz, ground=None):
    """People of each picture."""
    return [pipeline.step(Frame(picture, stamp=_START + round(i * 1e9 / hz), ground=ground))
            for i, picture in enumerate(pictures)]


def _seen(people):
    return people[people.tracking_state != LOST]


def _by_id(people):
    return {name: people[[row]] for row, name in enumerate(people.ids)}


@pytest.mark.parametrize("hz, upside_down", [(30, False), (10, False), (30, True)])
def test_who_is_followed_is_who_is_found(start, pictures, hz, upside_down):
    """The same people with the same ids as if each picture were searched, a few px apart."""
    shown, ground = pictures[::30 // hz][:10], None
    if upside_down:
        shown = [np.ascontiguousarray(picture[::-1, ::-1]) for picture in shown]
        ground = Ground(np.array([0.0, 1.0, 0.0]))
    followed = _run(start(0), shown, hz, ground)
    searches = [len(parts) for parts in start.searched]
    assert searches[0] == 2 and max(searches[1:]) == 1
    assert sum(searches[1:]) < (5 if hz == 30 else 10)
    searched = _run(start(1), shown, hz, ground)
    assert [len(parts) for parts in start.searched[10:]] == [2] * 10
    distances = []
    for one, other in zip(followed, searched):
        assert one.ids is not None and sorted(one.ids) == sorted(other.ids) == ["p1", "p2", "p3"]
        for name, person in _by_id(other).items():
            same = _by_id(one)[name]
            assert oks.similarity(same.keypoints, person.keypoints, oks.area(person.boxes)) > 0.7
            clear = (person.keypoint_scores[0] > 0.3) & (same.keypoint_scores[0] > 0.3)
            steps = np.linalg.norm(same.keypoints[0] - person.keypoints[0], axis=1)[clear]
            distances.extend(steps / np.sqrt(oks.area(person.boxes)))
    # Of a person's size, 200 px for those in front.
    assert np.median(distances) < 0.015 and np.quantile(distances, 0.95) < 0.08


def _empty(height, width, background):
    """A picture without people: noise, or a plain grey."""
    if background == "grey":
        return np.full((height, width, 3), 120, np.uint8)
    noise = np.random.default_rng(1).integers(60, 180, (height // 8, width // 8, 3), np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def _with_room(picture, background, pasted=None):
    """The clip's picture with a free part at its right, and a patch pasted into it."""
    wide = np.concatenate([picture, _empty(960, 320, background)], 1)
    if pasted is not None:
        left, top = _PLACE
        wide[top:top + pasted.shape[0], left:left + pasted.shape[1]] = pasted
    return wide


def _patch(picture):
    """The person at the left of the clip's first picture."""
    return picture[300:750, 10:200]


def _is_there(people):
    """Whether someone is seen where the patch is pasted."""
    left, top = _PLACE
    place = np.array([[left, top, left + 190, top + 450.0]])
    seen = _seen(people)
    return len(seen) > 0 and bool((box_math.shares_within(seen.boxes, place) > 0.7).any())


@pytest.mark.parametrize("hz, background", [(30, "noise"), (10, "grey")])
def test_a_person_who_appears_is_found_within_0_3_s(start, pictures, hz, background):
    patch = _patch(pictures[0])
    before, after = 4, round(0.3 * hz)
    empty = _with_room(pictures[0], background)
    full = _with_room(pictures[0], background, patch)
    people = _run(start(), [empty] * before + [full] * (after + 1), hz)
    assert not any(map(_is_there, people[:before]))
    assert _is_there(people[-1])
    assert len(_seen(people[-1])) == len(_seen(people[before - 1])) + 1


@pytest.mark.parametrize("hz, background", [(30, "noise"), (10, "grey")])
def test_a_person_who_vanishes_is_not_seen_after_0_5_s(start, pictures, hz, background):
    patch = _patch(pictures[0])
    empty = _with_room(pictures[0], background)
    full = _with_room(pictures[0], background, patch)
    before, after = 4, round(0.5 * hz)
    people = _run(start(), [full] * before + [empty] * (after + 1), hz)
    assert all(map(_is_there, people[:before]))
    assert not _is_there(people[-1])
    assert set(_seen(people[-1]).ids) < set(_seen(people[before - 1]).ids)
    assert len(_seen(people[-1])) == 3  # the others stay


def test_a_cut_to_another_scene_is_searched_at_once(start, pictures):
    """Nobody is carried over from the scene before."""
    mirrored = _mirrored(pictures[20])
    pipeline = start()
    people = _run(pipeline, [*pictures[:4], mirrored], 30)
    assert len(start.searched[-1]) == pipeline.network.search_parts
    alone = start(1).step(Frame(mirrored, stamp=_START))
    seen = _seen(people[-1])
    assert len(seen) == len(alone)
    similar = oks.similarity(seen.keypoints[:, None], alone.keypoints[None],
                             oks.area(seen.boxes)[:, None])
    assert (similar.max(1) > 0.8).all() and (similar.max(0) > 0.8).all()


def test_a_cut_to_an_empty_scene_leaves_no_one(start, pictures):
    people = _run(start(), [*pictures[:4], *[_empty(960, 544, "noise")] * 3], 30)
    assert [len(_seen(one)) for one in people[4:]] == [0, 0, 0]
    assert start.searched[4] == (0, 1)


def test_a_step_back_in_time_starts_again(start, pictures):
    pipeline = start()
    first = _run(pipeline, pictures[:4], 30)
    again = _run(pipeline, pictures[10:13], 30)
    assert len(start.searched[4]) == 2
    assert sorted(first[0].ids) == sorted(again[0].ids) == ["p1", "p2", "p3"]
    assert (again[0].age == 0).all()


def test_each_picture_without_people_is_searched(start):
    _run(start(), [_empty(240, 320, "noise")] * 4, 30)
    assert start.searched == [(0, 1)] * 4


def test_cameras_that_share_the_networks_follow_their_own_people(start, pictures):
    one, other = start(), start()
    for i, picture in enumerate(pictures[:4]):
        stamp = _START + round(i * 1e9 / 30)
        mine = one.step(Frame(picture, stamp=stamp))
        theirs = other.step(Frame(_mirrored(picture), stamp=stamp))
        mine_x, theirs_x = (people.boxes[people.scores > 0.3, ::2].mean(1)
                            for people in (mine, theirs))
        assert len(mine_x) == len(theirs_x) == 3
        np.testing.assert_allclose(sorted(mine_x), sorted(544 - theirs_x), atol=15)


def test_half_a_person_is_no_further_person(start, pictures):
    """A detector's box around the legs of the person at the side of the picture."""
    people = _run(start(), list(map(_mirrored, pictures[10:18])), 30)
    assert [len(one) for one in people] == [3] * 8
