"""The tracking measures against hand-made cases and against counting by brute force."""

import sys
from itertools import permutations
from types import SimpleNamespace

import numpy as np
import pytest

from ros2_pose.config import PoseConfig
from ros2_pose.evaluation.baselines import ByteTrack, NearestNeighbour
from ros2_pose.evaluation.benchmarks import tracking
from ros2_pose.evaluation.harness import Options, as_tables, run
from ros2_pose.metrics.mot import FrameIds, Identities, count
from ros2_pose.people import People


def _story(*images) -> list[FrameIds]:
    """Moments of {true person: id or None}; an id without a person is a key that is no string."""
    frames = []
    for image in images:
        truth = [person for person in image if isinstance(person, str)]
        found = [one for one in image.values() if one is not None]
        similarity = np.array([[float(image[person] == one) for one in found] for person in truth])
        frames.append((truth, found, similarity.reshape(len(truth), len(found))))
    return frames


def test_perfect():
    counts = count(_story(*[{"a": 1, "b": 2}] * 5))
    assert counts == Identities(10, 10, 10, 0, 0, 10)
    assert counts.mota == counts.idf1 == 1


def test_a_switch_at_half_time_halves_one_persons_identity():
    counts = count(_story(*[{"a": 1}] * 3, *[{"a": 2}] * 3))
    assert (counts.switches, counts.fragmentations, counts.same) == (1, 0, 3)
    assert counts.mota == pytest.approx(1 - 1 / 6) and counts.idf1 == pytest.approx(0.5)


def test_two_who_are_exchanged_are_two_switches():
    counts = count(_story(*[{"a": 1, "b": 2}] * 4, *[{"a": 2, "b": 1}] * 2))
    assert (counts.switches, counts.same) == (2, 8)


def test_missed_between_is_a_fragmentation_and_away_is_none():
    assert count(_story({"a": 1}, {"a": None}, {"a": 1}))[3:5] == (0, 1)
    assert count(_story({"a": 1}, {}, {"a": 1}))[3:5] == (0, 0)
    assert count(_story({"a": 1}, {"a": None}, {"a": 2}))[3:5] == (1, 1)
    assert count(_story({"a": None}, {"a": 1}, {"a": None}))[3:5] == (0, 0)


def test_false_ones_cost_accuracy():
    counts = count(_story({"a": 1, 0: 7}, {"a": 1, 0: 7}))
    assert counts.mota == 0 and counts.idf1 == pytest.approx(2 / 3)


def test_a_pair_stays_while_it_can():
    near, far = np.array([[0.9, 0.6]]), np.array([[0.6, 0.9]])
    frames = [(["a"], [1, 2], near), (["a"], [1, 2], far)]
    assert count(frames).switches == 0
    assert count(frames, least=0.7).switches == 1


def test_nobody_is_no_error():
    assert np.isnan(count([]).mota) and np.isnan(count(_story({})).idf1)


def _random_moments(rng) -> list[FrameIds]:
    frames = []
    for _ in range(rng.integers(1, 7)):
        truth = list(rng.permutation(3)[:rng.integers(0, 4)])
        found = list(rng.permutation(4)[:rng.integers(0, 4)])
        frames.append((truth, found, rng.random((len(truth), len(found)))))
    return frames


def _choices(rows: int, columns: int):
    """All one-to-one choices: for each row a column or None."""
    yield from permutations([*range(columns), *[None] * rows], rows)


def _clear_by_force(frames, least):
    """Paired, switches, fragmentations, from a table of who has whom when."""
    table, before = [], {}
    for truth, found, similarity in frames:
        def worth(chosen):
            pairs = [(g, f) for g, f in enumerate(chosen) if f is not None]
            if any(similarity[g, f] < least for g, f in pairs):
                return (-1, 0)
            kept = sum(before.get(truth[g]) == found[f] for g, f in pairs)
            return kept, sum(similarity[g, f] for g, f in pairs)
        best = max(_choices(len(truth), len(found)), key=worth)
        before = {truth[g]: found[f] for g, f in enumerate(best) if f is not None}
        table.append({person: before.get(person) for person in truth})
    switches = fragmentations = 0
    for person in range(3):
        there = [row[person] for row in table if person in row]
        has = [one for one in there if one is not None]
        switches += sum(a != b for a, b in zip(has, has[1:]))
        runs = sum(b is not None and a is None for a, b in zip([None, *there], there))
        fragmentations += max(runs - 1, 0)
    return sum(one is not None for row in table for one in row.values()), switches, fragmentations


def _same_by_force(frames, least):
    """Most pairs that any one-to-one choice of ids gives."""
    most = 0
    for chosen in _choices(3, 4):
        same = sum(similarity[truth.index(person), found.index(one)] >= least
                   for truth, found, similarity in frames for person, one in enumerate(chosen)
                   if person in truth and one in found)
        most = max(most, same)
    return most


@pytest.mark.parametrize("seed", range(40))
def test_counts_are_those_of_brute_force(seed):
    frames = _random_moments(np.random.default_rng(seed))
    counts = count(frames, 0.5)
    assert counts[2:5] == _clear_by_force(frames, 0.5)
    assert counts.same == _same_by_force(frames, 0.5)


def _standing(*positions, scores=None) -> People:
    """People of 20 x 60 px at places."""
    boxes = np.array([(x, y, x + 20, y + 60) for x, y in positions], float).reshape(-1, 4)
    count = len(boxes)
    return People(boxes, np.full(count, 0.8) if scores is None else np.array(scores),
                  np.repeat(boxes[:, None, :2] + 10, 17, 1), np.tile(np.eye(2), (count, 17, 1, 1)),
                  np.ones((count, 17)))


def test_baselines_follow_two_who_walk():
    _follow_two_who_walk(NearestNeighbour(0.3, 10), reported_from=0)


def test_bytetrack_follows_two_who_walk_and_weak_detections_begin_nothing():
    pytest.importorskip("trackers")
    _follow_two_who_walk(ByteTrack(0.3, 0.1, 1.0, 30), reported_from=1)
    follow = ByteTrack(0.3, 0.1, 1.0, 30)
    follow(_standing((0, 0)))
    rows, ids = follow(_standing((1, 0)))
    assert rows == [0]
    assert follow(_standing((300, 0), (2, 0), scores=[0.15, 0.15])) == ([1], ids)
    assert follow(_standing()) == ([], [])


def test_without_its_package_bytetrack_is_skipped_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "trackers", None)
    monkeypatch.setitem(sys.modules, "supervision", None)
    monkeypatch.setattr(tracking, "Ours", lambda *_: NearestNeighbour(0.3, 10))
    points = np.stack([np.full((6, 17, 2), 100.0), np.full((6, 17, 2), 600.0)], 1)
    points += np.random.default_rng(1).uniform(-30, 30, (17, 2))
    recording = tracking.simulated(points, np.ones((6, 2), bool), (800, 800), None,
                                   np.random.default_rng(0))
    rows = {row.name: row for row in tracking._rows("made up", [recording], _SETTINGS)}
    skipped = rows.pop("ByteTrack (trackers)")
    assert "skipped" in skipped.protocol and "pip install trackers" in skipped.protocol
    assert all(row.values["true people"] == 12 for row in rows.values())


_SETTINGS = SimpleNamespace(config=PoseConfig())  # all that trackers ask of a pipeline


def _follow_two_who_walk(follow, reported_from):
    before = None
    for step in range(20):
        rows, ids = follow(_standing((3 * step, 0), (200 - 3 * step, 100)))
        if step >= reported_from:
            assert sorted(rows) == [0, 1]
            now = dict(zip(rows, ids))
            assert before in (None, now)
            before = now


def test_made_up_views_say_whose_each_detection_is():
    rng = np.random.default_rng(0)
    points = np.stack([np.full((60, 17, 2), 100.0), np.full((60, 17, 2), 600.0)], 1)
    points += np.random.default_rng(1).uniform(-30, 30, (17, 2))
    there = np.ones((60, 2), bool)
    there[20:30, 1] = False
    recording = tracking.simulated(points, there, (800, 800), None, rng)
    assert [ids for ids, _ in recording.truth] == [[0, 1]] * 20 + [[0]] * 10 + [[0, 1]] * 30
    for (ids, similarity), people in zip(recording.truth, recording.detections):
        for row, person in enumerate(ids):
            for found in np.flatnonzero(similarity[row]):
                assert np.abs(people.boxes[found].mean() - (100, 600)[person]) < 50


def test_motchallenge_is_read(tmp_path):
    path = tmp_path / "gt.txt"
    path.write_text("1,9,10,20,30,40,1,-1,-1,-1\n1,7,0,0,5,5,0,-1,-1,-1\n3,9,11,20,30,40,1,1,1,1\n")
    (first, boxes), (second, _), (third, _) = tracking.read_motchallenge(path, 3)
    assert (first, second, third) == ([9], [], [9])
    np.testing.assert_allclose(boxes, [[10, 20, 40, 60]])


def test_missing_data_is_said(tmp_path):
    said = as_tables(run(tracking.BENCHMARKS, Options(tmp_path)))
    assert "no devset/mupots_ts01_10_gt.npz" in said and "no devset/videos/pets_vtest.avi" in said
    assert "--pets" in said
