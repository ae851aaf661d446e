"""When the whole picture is searched: newcomers, lost people, cuts, rates, settings."""

import numpy as np
import pytest

from ros2_pose.tracking.search import SearchSchedule

_PICTURE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def _run(schedule, hz, seconds=4.0, parts=2, followed=3, lost=(), pictures=None):
    """Parts run in each image of a camera, and the stamps in s."""
    stamps = np.arange(0, seconds, 1 / hz)
    return stamps, [schedule.parts(parts, int(1e9 * (1000 + t)),
                                   _PICTURE if pictures is None else pictures[i], followed,
                                   i in lost)
                    for i, t in enumerate(stamps)]


@pytest.mark.parametrize("hz", [0.5, 1, 2, 3, 4, 5, 7.5, 10, 15, 24, 30, 60, 120])
@pytest.mark.parametrize("parts", [1, 2, 3])
def test_newcomers_wait_at_most_0_3_s_at_any_rate(hz, parts):
    stamps, chosen = _run(SearchSchedule(), hz, parts=parts)
    searched = stamps[[0 in run for run in chosen]]
    assert np.diff(searched).max() <= max(0.3, 1 / hz) + 1e-6
    assert all(any(part in run for run in chosen[1:]) for part in range(parts))


@pytest.mark.parametrize("hz", [10, 15, 30, 60])
def test_while_people_are_followed_an_image_has_one_part_at_most(hz):
    _, chosen = _run(SearchSchedule(), hz)
    assert chosen[0] == (0, 1)
    assert max(map(len, chosen[1:])) == 1
    assert sum(map(len, chosen[1:])) < (len(chosen) - 1) * (1 if hz == 10 else 0.7)


@pytest.mark.parametrize("every", [0, 1, 3, 10])
def test_an_image_without_people_is_searched_as_a_whole(every):
    _, chosen = _run(SearchSchedule(every), 30, followed=0)
    assert set(chosen) == {(0, 1)}


@pytest.mark.parametrize("every", [0, 5])
def test_a_lost_person_is_searched_for_at_once(every):
    schedule = SearchSchedule(every)
    _, chosen = _run(schedule, 30, lost={7, 40})
    assert 0 in chosen[7] and 0 in chosen[40]


@pytest.mark.parametrize("every", [0, 5])
@pytest.mark.parametrize("hz", [10, 30])
def test_small_people_are_searched_for_however_often_the_others_are(every, hz):
    """With a crowd each image is urgent; the other parts still have their turns."""
    _, chosen = _run(SearchSchedule(every), hz, parts=3, lost=set(range(200)))
    assert all(0 in run for run in chosen)
    limit = 1.0 * hz if every == 0 else 3 * every
    for part in (1, 2):
        assert np.diff(np.flatnonzero([part in run for run in chosen])).max() <= limit
    assert max(map(len, chosen[1:])) <= 2


@pytest.mark.parametrize("every", [0, 5])
def test_another_picture_is_searched_as_a_whole_and_a_brighter_one_is_the_same(every):
    pictures = [_PICTURE // 3 * 2] * 60
    pictures[20:40] = [_PICTURE // 3 * 2 + 60] * 20
    pictures[40:] = [_PICTURE[::-1, ::-1] // 2] * 20
    _, chosen = _run(SearchSchedule(every), 30, 2.0, pictures=pictures)
    assert [len(run) for run in chosen].count(2) == 2
    assert len(chosen[40]) == 2


def test_it_is_told_whether_the_picture_has_changed():
    schedule, changes = SearchSchedule(), []
    for number, picture in enumerate((_PICTURE, _PICTURE, _PICTURE[::-1], _PICTURE[::-1])):
        schedule.parts(2, 10**9 + number * 10**8, picture, 2, False)
        changes.append(schedule.has_changed)
    assert changes == [True, False, True, False]


@pytest.mark.parametrize("every", [1, 2, 5, 20])
def test_every_nth_image_is_searched(every):
    _, chosen = _run(SearchSchedule(every), 30)
    for part in (0, 1):
        images = np.flatnonzero([part in run for run in chosen])
        assert np.diff(images).max() <= every + 1
        assert np.diff(images)[1:].min() >= every - 1


def test_the_size_of_the_picture_may_change():
    schedule = SearchSchedule()
    for height in (1, 5, 48, 480):
        image = np.zeros((height, 3, 3), np.uint8)
        assert schedule.parts(2, 10**9 * height, image, 1, False) == (0, 1)


def test_reset_forgets():
    schedule = SearchSchedule()
    _run(schedule, 30, 1.0)
    schedule.reset()
    assert schedule.parts(2, 5, _PICTURE, 3, False) == (0, 1)
