"""Images that belong together, by stamps of made-up cameras: whatever they do, nothing is mixed."""

import threading

import numpy as np
import pytest

from ros2_pose.sync.image_sync import CameraSync, DepthQueue, StampFilter
from ros2_pose.sync.time_jump import JUMP_S

_MS = 1_000_000
_PERIOD = 33 * _MS


def _stream(rng, count, phase=0, period=_PERIOD, jitter=0, lost=0.0):
    """Stamps of a camera that loses images."""
    stamps = phase + period * np.arange(count) + rng.integers(-jitter, jitter + 1, count)
    return [int(s) for s in stamps[rng.random(count) >= lost]]


def _run(sync, streams, delays=None):
    """Moments of cameras whose images, items (camera, stamp), arrive in the order of their stamps,
    each camera's later by its delay."""
    delays = delays or [0] * len(streams)
    arrivals = sorted((stamp + delays[camera], camera, stamp)
                      for camera, stamps in enumerate(streams) for stamp in stamps)
    moments = [sync.put(camera, stamp, (camera, stamp)) for _, camera, stamp in arrivals]
    return [frame_set for frame_set in moments if frame_set is not None]


def _stamp(frame_set):
    """The newest stamp of its items (camera, stamp)."""
    return max(item[1] for item in frame_set if item)


# --------------------------------------------------------------------------------- depth


def test_colour_finds_its_own_depth_and_no_other():
    queue = DepthQueue()
    for number in range(10):
        queue.put(number * _PERIOD, number)
    assert queue.nearest(9 * _PERIOD) == 9
    assert queue.nearest(7 * _PERIOD + 10 * _MS) == 7
    assert queue.nearest(7 * _PERIOD - 10 * _MS) == 7
    assert queue.nearest(9 * _PERIOD + 17 * _MS) is None
    assert queue.nearest(0) is None  # long gone: memory is bounded


def test_without_a_period_only_the_very_stamp_will_do():
    queue = DepthQueue()
    assert queue.nearest(5) is None
    queue.put(5, "depth")
    assert queue.nearest(5) == "depth"
    assert queue.nearest(6) is None


@pytest.mark.parametrize("seed", range(20))
def test_depth_is_the_nearest_of_all_there_are(seed):
    rng = np.random.default_rng(seed)
    stamps = _stream(rng, 40, jitter=4 * _MS, lost=0.3)
    queue = DepthQueue()
    for stamp in stamps:
        queue.put(stamp, stamp)
        asked = int(stamp + rng.integers(-3 * _PERIOD, _PERIOD))
        known = [s for s in stamps if s <= stamp][-8:]
        nearest = min(known, key=lambda s: abs(s - asked))
        answer = queue.nearest(asked)
        assert answer in (None, nearest)
        if abs(nearest - asked) < _PERIOD / 2 - 4 * _MS and len(known) > 4:
            assert answer == nearest


def test_depth_of_a_recording_that_starts_again_is_not_that_of_its_end():
    queue = DepthQueue()
    for number in range(100):
        queue.put(number * _PERIOD, "end")
    queue.put(0, "begin")
    assert queue.nearest(99 * _PERIOD) is None and queue.nearest(0) == "begin"


# ------------------------------------------------------------------------------- cameras


@pytest.mark.parametrize("seed", range(30))
def test_whatever_cameras_do_moments_are_in_order_and_of_one_time(seed):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 6))
    periods = rng.choice([_PERIOD, _PERIOD, 2 * _PERIOD], count)
    streams = [_stream(rng, 60, int(rng.integers(0, _PERIOD)), int(period), 3 * _MS, 0.2)
               for period in periods]
    sync = CameraSync(count)
    moments = _run(sync, streams, [int(d) for d in rng.integers(0, 20 * _MS, count)])
    given = [item for frame_set in moments for item in frame_set if item]
    assert len(given) == len(set(given))  # each image once
    assert all(_stamp(a) < _stamp(b) for a, b in zip(moments, moments[1:]))
    for number, frame_set in enumerate(moments):
        stamps = [item[1] for item in frame_set if item]
        assert number < 15 or max(stamps) - min(stamps) <= periods.min() / 2 + 6 * _MS
        assert all(item is None or item[0] == number for number, item in enumerate(frame_set))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_cameras_in_step_are_all_in_every_moment(count):
    rng = np.random.default_rng(0)
    streams = [_stream(rng, 50, phase=int(rng.integers(0, 4 * _MS)), jitter=_MS)
               for _ in range(count)]
    moments = _run(CameraSync(count), streams, [3 * _MS * i for i in range(count)])
    settled = moments[4:]
    assert len(settled) >= 44
    assert all(None not in frame_set for frame_set in settled)


def test_a_moment_is_given_when_its_last_image_comes():
    sync = CameraSync(2)
    for number in range(5):
        sync.put(0, number * _PERIOD, 0)
        sync.put(1, number * _PERIOD + _MS, 1)
    assert sync.put(1, 5 * _PERIOD + _MS, "b") is None
    assert sync.put(0, 5 * _PERIOD, "a") == ("a", "b")


def test_a_camera_that_stops_is_not_waited_for():
    rng = np.random.default_rng(0)
    sync = CameraSync(3)
    stops = 20 * _PERIOD
    streams = [_stream(rng, 60), _stream(rng, 60), [s for s in _stream(rng, 60) if s <= stops]]
    moments = _run(sync, streams)
    after = [frame_set for frame_set in moments if _stamp(frame_set) > stops]
    assert all(frame_set[2] is None for frame_set in after)
    assert all(None not in frame_set[:2] for frame_set in after)
    # No image of the others is lost, and once the camera is known to have stopped none is late.
    assert len(after) == 39
    assert sync.put(0, 60 * _PERIOD, "a") is None
    assert sync.put(1, 60 * _PERIOD, "b") == ("a", "b", None)


def test_a_camera_that_never_began_is_not_waited_for():
    sync = CameraSync(2)
    moments = [sync.put(0, number * _PERIOD, number) for number in range(5)]
    assert moments == [(number, None) for number in range(5)]


def test_a_lost_image_costs_the_others_one_period():
    rng = np.random.default_rng(0)
    first, second = _stream(rng, 20), _stream(rng, 20)
    del second[10]
    moments = {
        _stamp(frame_set): frame_set for frame_set in _run(CameraSync(2), [first, second])
    }
    assert moments[10 * _PERIOD] == ((0, 10 * _PERIOD), None)
    assert None not in moments[11 * _PERIOD]


def test_a_slower_camera_is_waited_for_only_when_it_is_due():
    sync = CameraSync(2)
    rng = np.random.default_rng(0)
    _run(sync, [_stream(rng, 20), _stream(rng, 10, phase=8 * _MS, period=2 * _PERIOD)])
    assert sync.put(0, 20 * _PERIOD, "waits") is None
    assert sync.put(1, 20 * _PERIOD + 8 * _MS, "slow") == ("waits", "slow")
    assert sync.put(0, 21 * _PERIOD, "at once") == ("at once", None)


def test_three_cameras_a_third_of_a_period_apart_are_all_used():
    rng = np.random.default_rng(0)
    moments = _run(CameraSync(3), [_stream(rng, 30, phase=11 * _MS * n) for n in range(3)])
    given = [item for frame_set in moments for item in frame_set if item]
    assert len(given) >= 88
    assert sum(sum(item is not None for item in frame_set) > 1 for frame_set in moments) >= 28


def test_time_that_starts_again_clears_all():
    rng = np.random.default_rng(0)
    sync = CameraSync(2)
    _run(sync, [_stream(rng, 60)] * 2)
    again = _run(sync, [_stream(rng, 20)] * 2)
    assert [_stamp(frame_set) for frame_set in again][-18:] == [n * _PERIOD for n in range(2, 20)]
    assert all(None not in frame_set for frame_set in again[2:])


def test_images_that_come_again_are_ignored():
    sync = CameraSync(1)
    assert sync.put(0, 5, "a") and sync.put(0, 5, "a") is None and sync.put(0, 4, "b") is None


def test_many_threads_give_each_image_once():
    sync, given = CameraSync(4), []

    def publish(camera):
        for stamp in range(0, 300 * _MS, _MS):
            frame_set = sync.put(camera, stamp, (camera, stamp))
            if frame_set:
                given.extend(item for item in frame_set if item)

    threads = [threading.Thread(target=publish, args=(camera,)) for camera in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(given) == len(set(given)) > 0


# --------------------------------------------------------------------------------- one camera


@pytest.mark.parametrize("stamps, taken", [
    ([0, 1, 2, 3], [0, 1, 2, 3]),
    ([0, 2, 1, 3], [0, 2, 3]),  # swapped
    ([5, 5, 5, 6], [5, 6]),  # again
    ([0, 0, 0], [0]),  # a driver that does not stamp
    ([7, 8, 8 - 29, 8 - 28], [7, 8]),  # late by less than a second
    ([100, 101, 101 - 31, 101 - 30], [100, 101, 70, 71]),  # a recording that starts again
])
def test_an_image_is_looked_at_if_it_is_later_or_of_another_time(stamps, taken):
    watch = StampFilter()
    assert [s for s in stamps if watch.take(s * _PERIOD)] == taken
    assert watch.ignored == len(stamps) - len(taken)


def test_the_limit_between_late_and_again():
    watch = StampFilter()
    limit = round(JUMP_S * 1e9)
    assert watch.behind_s(0) == 0 and watch.take(0)
    assert not watch.take(-limit) and watch.behind_s(-limit // 2) == JUMP_S / 2
    assert watch.take(-limit - 1)


@pytest.mark.parametrize("hz", [0.5, 1, 3, 10, 60])
def test_two_stamps_that_change_places_are_no_new_beginning(hz):
    stamps = [round(i / hz * 1e9) for i in (0, 1, 2, 3, 5, 4, 6, 7)]
    watch = StampFilter()
    assert [watch.take(stamp) for stamp in stamps] == [i != 5 for i in range(8)]
    assert watch.take(stamps[-1] - round(max(1.01, 3 / hz) * 1e9))  # but this is one
