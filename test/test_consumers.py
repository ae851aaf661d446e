"""Who reads ~/people: demo, bench and soak count answers to images, whatever else is published."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("ros2_pose.msg", reason="needs the built messages: run make test")

from ros2_pose.messages.people import (  # noqa: E402
    STATUS_2D_ONLY,
    STATUS_BAD_IMAGE,
    STATUS_FAILED,
    STATUS_NO_IMAGE,
    STATUS_OK,
    STATUS_PARTIAL,
    FrameReport,
    looked,
    people_message,
)
from ros2_pose.messages.standard import header_message, stamp_of  # noqa: E402
from ros2_pose.nodes.message_factory import make  # noqa: E402
from ros2_pose.offline import demo_clip
from ros2_pose.offline.rosbag_writer import BagWriter  # noqa: E402
from ros2_pose.offline.rosbag_writer import make as make_for_bag  # noqa: E402
from ros2_pose.people import TRACKED, People  # noqa: E402
from ros2_pose.tools import (
    bench,
    demo,
    soak,  # noqa: E402
)

LOOKED = (STATUS_OK, STATUS_2D_ONLY, STATUS_PARTIAL)
NOT_LOOKED = (STATUS_BAD_IMAGE, STATUS_FAILED, STATUS_NO_IMAGE, 13, 99,
              255)
STATUSES = LOOKED + NOT_LOOKED
T = 10**18  # ns, a time of arrival
# The stamp of a message that comes between the answers to images 0 and 1.
STAMPS = {"zero": 0, "unknown": 12_345, "repeated": demo_clip.stamp(0),
          "not published": demo_clip.stamp(50)}


def _people(make, stamp: int, status: int = STATUS_OK, people: People | None = None):
    header = header_message(make, stamp, demo_clip.FRAME_ID)
    return people_message(make, header, _nobody() if people is None else people,
                                   FrameReport(544, 960, status, "" if status == 0 else "why"))


def _nobody() -> People:
    return replace(People.nobody(), ids=(), tracking_state=np.zeros(0, int))


def _bag(path, sent) -> None:
    """A bag of ~/people: (stamp, status, people, received)."""
    bag = BagWriter(path)
    for stamp, status, people, received in sent:
        bag.put("/ros2_pose/people", _people(make_for_bag, stamp, status, people), received)
    bag.close()


def _rows(table: str) -> dict[str, str]:
    return dict(line.split("  ", 1) for line in
                ("  ".join(part.strip() for part in row.split("  ", 1))
                 for row in table.splitlines()))


def test_a_status_of_ten_or_more_says_that_nobody_looked():
    for status in range(256):
        assert looked(_people(make, 0, status)) == (status < 10)


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("stamp", STAMPS.values(), ids=STAMPS)
def test_the_demo_counts_answers_to_its_images(tmp_path, some_people, stamp, status):
    """A message that answers no image of the clip changes neither table nor picture."""
    seen = replace(some_people, note="")
    _bag(tmp_path / "output", [(demo_clip.stamp(0), 0, seen, T + 10**8),
                               (stamp, status, _nobody(), T + 10**9),
                               (demo_clip.stamp(1), status if status in LOOKED else 0, seen,
                                T + 3 * 10**8)])
    answers = demo.read_people(tmp_path / "output")
    assert len(answers[demo_clip.stamp(0)][0]) == len(seen)
    assert demo._tracked(answers[demo_clip.stamp(0)][0]) == 3
    table = _rows(demo._table(answers, [T, T + 10**8]))
    assert table == {"frames in": "2", "frames answered": "2", "people at once, most": "3",
                     "ids": "p1 p2 p3", "frames a second, answered": "5.0",
                     "latency p50 / p95, ms": "150 / 195"}


@pytest.mark.parametrize("answered", [0, 1, 2])
def test_the_demos_table_for_few_answers(answered):
    answers = {demo_clip.stamp(k): (_nobody(), T + k) for k in range(answered)}
    table = _rows(demo._table(answers, [T - 10**7] * 3))
    assert table["frames answered"] == str(answered)
    assert table["people at once, most"] == "0"


@pytest.mark.parametrize("strangers", [False, True], ids=["answers", "and strangers"])
def test_the_demo_draws_the_image_with_most_people(tmp_path, some_people, strangers):
    """The picture is made although a message about no image of the clip has more people."""
    demo_clip.write_bag(tmp_path / "input", count=2)
    one = replace(_nobody(), note="")
    answers = {demo_clip.stamp(0): (one, T), demo_clip.stamp(1): (one, T)}
    if strangers:
        answers[0] = some_people, T
        answers[7] = replace(some_people, tracking_state=np.full(3, TRACKED)), T
    demo._draw(tmp_path, demo._of_images(answers, [T, T]))
    assert (tmp_path / "overview.png").exists() and (tmp_path / "overlay.mp4").exists()


def test_a_demo_without_answers_draws_nothing(tmp_path):
    demo_clip.write_bag(tmp_path / "input", count=1)
    demo._draw(tmp_path, {})
    assert not (tmp_path / "overview.png").exists()


# Bench and soak ---------------------------------------------------------------------------------


class _Topics:
    """Stands for DDS and the node: for each image published, these messages come back."""

    def __init__(self, replies) -> None:
        self.replies, self.callback = replies, None

    def create_publisher(self, kind, topic, qos):
        return SimpleNamespace(publish=self._published if topic.endswith("image_raw") else
                               lambda message: None)

    def create_subscription(self, kind, topic, callback, qos) -> None:
        self.callback = callback

    def _published(self, image) -> None:
        for reply in self.replies(stamp_of(image.header)):
            self.callback(reply)

    def get_publisher_names_and_types_by_node(self, *_) -> list:
        return []

    get_subscriber_names_and_types_by_node = get_publisher_names_and_types_by_node


@pytest.fixture
def rig(monkeypatch):
    """Function that makes bench and soak talk to a node which answers so."""
    def use(replies) -> None:
        node = _Topics(replies)
        for module in (bench, soak):
            for name, value in (("own_domain", 1), ("observer", node),
                                ("process", SimpleNamespace(pid=os.getpid(), poll=lambda: None))):
                monkeypatch.setattr(module, name, _context(value))
            monkeypatch.setattr(module, "WARM_UP", 1)
        picture = np.zeros((8, 8, 3), np.uint8)
        monkeypatch.setattr(bench, "camera", demo_clip.camera)
        monkeypatch.setattr(soak, "pictures_of_clip", lambda: [picture])
    return use


def _context(value):
    @contextmanager
    def manager(*_, **__):
        yield value
    return manager


def _with_strays(status: int, stray_stamp: int | None):
    """Each image is answered once; a message with that status comes before and after."""
    def replies(stamp: int) -> list:
        stray = _people(make, stamp if stray_stamp is None else stray_stamp, status)
        good = _people(make, stamp)
        return [good, stray, good] if status in LOOKED else [stray, good, stray]
    return replies


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("stray_stamp", [0, 12_345, None], ids=["zero", "unknown", "repeated"])
def test_bench_and_soak_count_each_image_once(rig, capsys, stray_stamp, status):
    rig(_with_strays(status, stray_stamp))
    pictures = [np.zeros((8, 8, 3), np.uint8)]
    for published_hz, most in ((100.0, 11), (0.0, 1000)):
        trial = bench.Trial("row", published_hz=published_hz)
        trial.run(pictures, 0.1)
        assert 1 <= len(trial.latency_ms) == len(trial.people) <= most
        assert trial.row(yardstick_ms=10.0).values["people"] == "0.0"
    soak.run(minutes=0.1 / 60)
    assert "answered, Hz" in capsys.readouterr().out


@pytest.mark.parametrize("status", NOT_LOOKED)
def test_images_that_could_not_be_looked_at_are_no_answers(rig, monkeypatch, status):
    from ros2_pose.tools.node_process import NodeProcessError
    rig(lambda stamp: [_people(make, stamp, status)])
    monkeypatch.setattr(bench, "START_S", 0.1)
    monkeypatch.setattr(soak, "START_S", 0.1)
    with pytest.raises(NodeProcessError, match="answers"):
        bench.Trial("row").run([np.zeros((8, 8, 3), np.uint8)], 0.1)
    with pytest.raises(NodeProcessError, match="answers"):
        soak.run(minutes=0.1 / 60)


def test_the_tables_of_runs_without_answers():
    values = bench.Trial("row").row(yardstick_ms=np.nan).values
    assert {values[name] for name in ("p95", "people", "in yardsticks")} == {"nan"}
    resources = {"memory, MB": 700.0, "threads": 20, "files": 18, "endpoints": 11}
    values = soak.row(1.0, 60.0, [], resources).values
    assert np.isnan(values["p95"]) and values["answered, Hz"] == 0
    assert soak.exceeded_limits(values, values) == ["latency p95 became nan times as long"]


# The rig ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 130])
def test_waiting_ends_with_the_process(code):
    from ros2_pose.tools.node_process import NodeProcessError, wait_until
    child = SimpleNamespace(poll=lambda: code, returncode=code)
    begin = time.monotonic()
    with pytest.raises(NodeProcessError, match=f"ended with {code}"):
        wait_until(lambda: False, "answers", 60.0, child)
    assert time.monotonic() - begin < 5


def test_a_player_that_nobody_hears_says_so(tmp_path, monkeypatch, capsys):
    from ros2_pose.tools import bag_player
    demo_clip.write_bag(tmp_path / "bag", count=1)
    monkeypatch.setattr(bag_player, "_PATIENCE_S", 0.2)
    monkeypatch.setattr("sys.argv", ["bag_player", str(tmp_path / "bag"), "--wait", "--times",
                                     str(tmp_path / "times.json")])
    assert bag_player.main() == 1
    assert f"no subscriber to {demo_clip.INFO_TOPIC}" in capsys.readouterr().err
    assert not (tmp_path / "times.json").exists()


def test_a_demo_whose_player_gave_up_ends_in_one_line(tmp_path, monkeypatch):
    """Not in a traceback about a file that is missing, or by an old one."""
    from ros2_pose.tools.node_process import NodeProcessError
    (tmp_path / "times.json").write_text("{}")
    monkeypatch.setattr(demo.demo_clip, "write_bag", lambda path: None)
    monkeypatch.setattr(demo, "_START_S", 0.1)
    monkeypatch.setattr(demo, "_DRAIN_S", 0.0)
    monkeypatch.setattr(demo, "wait_until", lambda *_: None)
    monkeypatch.setattr(demo, "process", _context(SimpleNamespace(poll=lambda: 1)))
    with pytest.raises(NodeProcessError, match="player.log"):
        demo.run(tmp_path)
