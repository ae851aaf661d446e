"""Many recordings at once: each gets what replay gives, whatever becomes of the others."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import batch_helpers
import cv2
import pytest
import torch
from batch_helpers import recordings, use_words

pytest.importorskip("hypothesis", reason="only where requirements-test.txt is installed")

from hypothesis import given, settings
from hypothesis import strategies as st

from ros2_pose import cli
from ros2_pose.offline import demo_clip
from ros2_pose.offline.batch import BatchError
from ros2_pose.offline.batch.dispatch import DIED, DONE, FAILED, READY, UNUSABLE, Dispatch
from ros2_pose.offline.batch.recordings import _named, find_recordings

_FAST = ["--network", "movenet", "--scales", "256", "--device", "cpu", "--fov-deg", "40"]


@pytest.fixture
def words(monkeypatch):
    """`batch` processes words instead of images; see batch_helpers."""
    use_words(monkeypatch)


def _batch(*arguments) -> int:
    return cli.main(["batch", *map(str, arguments)])


def _finished(out) -> dict[str, str]:
    """Content of people.jsonl by the name of each recording that has results."""
    return {path.parent.relative_to(out).as_posix(): (path.parent / "people.jsonl").read_text()
            for path in out.rglob("batch.json")}


def _unfinished(out) -> list:
    return [path for path in (out / ".batch").iterdir() if path.name != "lock"]


# Results ----------------------------------------------------------------------------------------


def test_results_are_the_bytes_of_replay(clip, tmp_path, capsys):
    """One worker processes both: nothing of one recording is left when the next one begins."""
    inputs, out = tmp_path / "in", tmp_path / "out"
    inputs.mkdir()
    demo_clip.write_bag(inputs / "bag", count=2)
    video = cv2.VideoWriter(str(inputs / "walk.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10,
                            (544, 960))
    for picture in clip[:2]:
        video.write(picture[..., ::-1])
    video.release()
    assert _batch(inputs, "--out", out, "--formats", "jsonl", "mp4", "bag", "--workers", 1,
                  *_FAST) == 0
    for name in ("bag", "walk.mp4"):
        results = [tmp_path / name / file for file in ("people.jsonl", "overlay.mp4", "people_bag")]
        results[0].parent.mkdir()
        assert cli.main(["replay", str(inputs / name), *map(str, results), *_FAST]) == 0
        ours = {path.relative_to(out / name): path.read_bytes()
                for path in (out / name).rglob("*") if path.is_file()}
        theirs = {path.relative_to(tmp_path / name): path.read_bytes()
                  for path in (tmp_path / name).rglob("*") if path.is_file()}
        record = json.loads(ours.pop(Path("batch.json")))
        assert ours == theirs and len(ours) == 4
        assert record["images"] == 2 and record["people"][:2] == ["p1", "p2"]


def test_a_failure_is_named_and_the_others_go_on(words, tmp_path, capsys):
    inputs = recordings(tmp_path / "in", good="a b", dies="a die", broken="broken", bug="bug",
                        full="a full", spotty="a unreadable", once="a die_once b", empty="")
    out = tmp_path / "out"
    assert _batch(inputs, "--out", out, "--workers", 2) == 1
    finished = _finished(out)
    assert {name: text.split(" ")[0] for name, text in finished.items()} == {
        "good.mp4": "A", "spotty.mp4": "A", "once.mp4": "A", "empty.mp4": ""}
    assert not _unfinished(out)
    said = capsys.readouterr()
    named = dict(line.removeprefix("ros2_pose: ").split(": ", 1)
                 for line in said.err.splitlines() if line.startswith("ros2_pose: "))
    assert named.keys() == {"dies.mp4", "broken.mp4", "bug.mp4", "full.mp4", "spotty.mp4"}
    assert "SIGKILL" in named["dies.mp4"] and "--workers" in named["dies.mp4"]
    assert named["broken.mp4"] == "broken.mp4 is broken: record it again"
    assert named["bug.mp4"] == "ZeroDivisionError: division by zero"
    assert named["full.mp4"] == "the disk is full"
    assert named["spotty.mp4"] == "1 of 2 images are unreadable"
    assert said.out.splitlines()[-1] == "8 recordings: 3 complete, 5 not"

    before = {path: path.stat().st_ino for path in out.rglob("batch.json")}
    recordings(inputs, dies="c", broken="d")
    assert _batch(inputs, "--out", out, "--workers", 1) == 1
    assert {path: path.stat().st_ino for path in before} == before
    assert _finished(out).keys() == {*finished, "dies.mp4", "broken.mp4"}
    said = capsys.readouterr()
    assert "8 recordings: 4 new, 4 finished before, 0 to be processed again" in said.out
    assert "ros2_pose: spotty.mp4: 1 of 2 images are unreadable" in said.err


def test_changed_recordings_and_settings_are_processed_again(words, tmp_path, capsys):
    inputs = recordings(tmp_path / "in", one="a", two="b")
    arguments = [inputs, "--out", tmp_path / "out", "--workers", 1]
    assert _batch(*arguments) == 0
    arguments += ["--scales", "256", "--formats", "jsonl", "bag"]
    recordings(inputs, one="changed")
    assert _batch(*arguments) == 0
    assert ("- 1: changed settings: formats, scales\n- 1: the recording has changed"
            in capsys.readouterr().out)
    assert _finished(tmp_path / "out")["one.mp4"].startswith("CHANGED")
    recordings(inputs, two="broken")  # former results stay until there are new ones
    assert _batch(*arguments) == 1
    assert _finished(tmp_path / "out")["two.mp4"].startswith("B")


def test_workers_share_cores_and_gpus(words, tmp_path, monkeypatch):
    inputs = recordings(tmp_path / "in", one="meet", two="meet")
    monkeypatch.setattr("ros2_pose.cli.batch.gpu_count", lambda device: 2)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(6)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert _batch(inputs, "--out", tmp_path / "out") == 0
    assert sorted(_finished(tmp_path / "out").values()) == ["MEET 3 3", "MEET 3 5"]


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_the_end_of_the_program_is_the_end_of_its_workers(tmp_path, number, status):
    inputs = recordings(tmp_path / "in", first="a a a", second="stay", third="b")
    words = ["batch", str(inputs), "--workers", "1", "--out", str(tmp_path / "out")]
    program = subprocess.Popen(  # Ctrl-C counts, also where the tests run in the background
        [sys.executable, batch_helpers.__file__, *words], stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    note = inputs / "second.pid"
    _wait_until(lambda: note.exists() and note.read_text())
    os.kill(program.pid, number)
    _, said = program.communicate(timeout=10)
    assert program.returncode == status
    _wait_until(lambda: not Path(f"/proc/{note.read_text()}").exists())
    assert {name: text[:5] for name, text in _finished(tmp_path / "out").items()} == {
        "first.mp4": "A A A"}
    if number != signal.SIGKILL:
        assert "interrupted after 1 of 3" in said and "Traceback" not in said
        assert not _unfinished(tmp_path / "out")


def _wait_until(condition) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


# Inputs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments, words", [
    (["{in}/no", "{in}", "{in}/none"], "/no, .*/none: no such file or folder"),
    (["{in}", "{out}"], "is in the folder of the results"),
    (["{empty}"], "holds no bag, video or picture"),
    (["{in}", "--ray", "auto"], "pip install ray"),
    (["{in}", "--max-people", "1000"], "max_people: 1000 is out of range"),
    (["{in}/walk.mp4/"], "exists, but is no result of a batch"),
])
def test_mistakes_are_one_line_before_any_work(tmp_path, capsys, monkeypatch, arguments, words):
    monkeypatch.setitem(sys.modules, "ray", None)
    places = {"in": recordings(tmp_path / "in", walk="a", run="b"), "out": tmp_path / "out",
              "empty": tmp_path / "empty"}
    (tmp_path / "empty").mkdir()
    if "exists" in words:
        (tmp_path / "out" / "walk.mp4").mkdir(parents=True)
    elif "{out}" in arguments:
        recordings(tmp_path / "out", walk="a")
    arguments = [argument.format(**places) for argument in arguments]
    assert _batch(*arguments, "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and re.search(words, said[0])


def test_the_results_of_another_recording_are_kept(words, tmp_path, capsys):
    first, second = (recordings(tmp_path / name, walk=name) for name in ("monday", "tuesday"))
    assert _batch(first, "--out", tmp_path / "out", "--workers", 1) == 0
    assert _batch(second, "--out", tmp_path / "out", "--workers", 1) == 2
    assert "holds the results of" in capsys.readouterr().err
    recordings(tmp_path / "walk.mp4", inner="b")
    assert _batch(tmp_path, "--out", tmp_path / "out", "--workers", 1) == 2
    assert "cannot be in it" in capsys.readouterr().err
    assert _finished(tmp_path / "out")["walk.mp4"].startswith("MONDAY")


def test_recordings_are_found_at_any_depth_and_once(tmp_path):
    for name in ("a/walk.mp4", "a/b/walk.mp4", "a/bag/metadata.yaml", "a/bag/bag_0.mcap",
                 "a/split/s_0.mcap", "a/split/s_1.mcap", "a/alone/x.mcap", "a/two/x.db3",
                 "a/two/y.db3", "a/pictures/1.jpg", "a/pictures/2.jpg", "a/cover.png",
                 "a/.hidden/walk.mp4", "a/notes.txt", "a/out/walk.mp4/people.jsonl",
                 "a/out/walk.mp4/batch.json", "a/older/w.mp4/batch.json",
                 "a/older/w.mp4/overlay.mp4", "c/walk.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("bag_0.mcap" if name.endswith(".yaml") else "")
    (tmp_path / "a" / "loop").symlink_to(tmp_path / "a")
    (tmp_path / "c" / "link.mp4").symlink_to(tmp_path / "a" / "walk.mp4")
    found = find_recordings([tmp_path / "a", tmp_path / "a" / "bag" / "bag_0.mcap",
                             tmp_path / "c" / "link.mp4", tmp_path / "c" / "walk.mp4"],
                            tmp_path / "a" / "out")
    assert {name: path.relative_to(tmp_path).as_posix() for name, path in found.items()} == {
        "a/walk.mp4": "a/walk.mp4", "b/walk.mp4": "a/b/walk.mp4", "bag": "a/bag",
        "split": "a/split", "alone/x.mcap": "a/alone/x.mcap", "two/x.db3": "a/two/x.db3",
        "two/y.db3": "a/two/y.db3", "pictures": "a/pictures", "c/walk.mp4": "c/walk.mp4"}


_PATHS = st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map("/".join),
                  min_size=1, max_size=8, unique=True)


@settings(max_examples=50)
@given(_PATHS, st.data())
def test_names_differ_and_none_is_the_folder_of_another(paths, data):
    found = [(Path("/", path), data.draw(st.integers(1, path.count("/") + 1))) for path in paths]
    nested = any(f"{b}/".startswith(f"{a}/") for a in paths for b in paths if a != b)
    try:
        names = _named(found)
    except BatchError:
        assert nested
        return
    assert sorted(names.values()) == sorted(path for path, _ in found)
    assert not any(f"{b}/".startswith(f"{a}/") for a in names for b in names if a != b)
    assert all(str(path).endswith(f"/{name}") for name, path in names.items())
    assert names == _named(found)


# Workers ----------------------------------------------------------------------------------------


class _Scripted:
    """Workers that end, fail or do their work as hypothesis draws it."""

    def __init__(self, count, draw):
        self.count, self.draw = count, draw
        self.waiting = {worker: READY for worker in range(count)}
        self.given = {}

    def give(self, worker, name, source):
        assert worker not in self.waiting, "a worker has one recording at a time"
        self.waiting[worker] = name

    def replace(self, worker):
        assert worker not in self.waiting
        self.waiting[worker] = READY

    def events(self):
        assert self.waiting, "waits for ever"
        worker = self.draw(st.sampled_from(sorted(self.waiting)))
        name = self.waiting.pop(worker)
        kind = self.draw(st.sampled_from([DONE, DONE, FAILED, DIED]))
        if kind == DIED:
            return [(worker, DIED, "died")]
        return [(worker, READY if name == READY else kind, name)]


@settings(max_examples=50)
@given(st.integers(0, 6), st.integers(1, 3), st.data())
def test_each_recording_has_one_outcome_whatever_workers_do(count, workers, data):
    recordings = {f"r{number}": Path(f"r{number}") for number in range(count)}
    outcomes = Counter()
    try:
        for name, kind, value in Dispatch(recordings, _Scripted(workers, data.draw)).run():
            assert kind in (DONE, FAILED) and name in str(value) or "died" in str(value)
            outcomes[name] += 1
    except BatchError as error:  # every worker died before it could begin
        assert "no worker could be started: died" in str(error)
        assert set(outcomes.values()) <= {1}
        return
    assert outcomes == Counter(recordings.keys())


def test_settings_that_no_worker_can_use_end_the_batch():
    workers = SimpleNamespace(count=1, events=lambda: [(0, UNUSABLE, "device: no GPU")])
    with pytest.raises(BatchError, match="device: no GPU"):
        list(Dispatch({"a": Path("a")}, workers).run())


class _Ray:
    """The part of Ray that is used, in this process; it ends the first actor when it has work."""

    class exceptions:  # noqa: N801
        RayError = RuntimeError

    def __init__(self):
        self.actors, self.dead = [], None

    def init(self, address, **_):
        if address != "auto":
            raise ConnectionError("no\nhead")

    def cluster_resources(self):
        return {"CPU": 4.0, "GPU": 2.0, "memory": 1e9}

    def remote(self, cls):
        def make(*arguments):
            actor = cls(*arguments)
            self.actors.append(actor)
            return SimpleNamespace(**{
                name: SimpleNamespace(remote=lambda *words, name=name: (actor, name, words))
                for name in ("load", "process")})
        return SimpleNamespace(options=lambda **share: self._shared(share, make))

    def _shared(self, share, make):
        self.share = share
        return SimpleNamespace(remote=make)

    def wait(self, references, num_returns):
        return references[:num_returns], references[num_returns:]

    def get(self, reference):
        actor, name, words = reference
        if name == "process" and self.dead in (None, actor):
            self.dead = actor
            raise RuntimeError("the actor died\nunexpectedly")
        return getattr(actor, name)(*words)

    def kill(self, actor):
        self.actors.pop()

    def shutdown(self):
        self.actors = None


def test_a_cluster_gives_the_same(words, tmp_path, monkeypatch, capsys):
    ray, threads = _Ray(), torch.get_num_threads()
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setattr("ros2_pose.offline.batch.processes._log_as", lambda name: None)
    inputs = recordings(tmp_path / "in", one="a", two="b", three="broken")
    arguments = [inputs, "--out", tmp_path / "out", "--ray"]
    try:
        assert _batch(*arguments, "auto") == 1
    finally:
        torch.set_num_threads(threads)
    assert ray.share == {"num_cpus": 1, "num_gpus": 1.0} and ray.actors is None
    assert {name: text[0] for name, text in _finished(tmp_path / "out").items()} == {
        "one.mp4": "A", "two.mp4": "B"}
    said = capsys.readouterr().err
    assert "its worker ended (the actor died); it is tried again" in said
    assert _batch(*arguments, "10.0.0.1:6379") == 2
    assert "no cluster can be reached (no head)" in capsys.readouterr().err
