"""Results are what their names say, or are refused before the first image is looked at."""

import json
import os
from dataclasses import fields
from pathlib import Path

import cv2
import numpy as np
import pytest

from ros2_pose import cli
from ros2_pose.config import PoseConfig
from ros2_pose.node_config import OFFLINE, NodeConfig
from ros2_pose.offline.sinks import JsonArray, OverlayVideo
from ros2_pose.offline.sources import RecordedFrame

_NODE_ONLY = {"autostart", "silence_s", "cameras", "transport", "reliability", "navigation_frame",
              "rep155", "detections", "depth_wait_s", "people_timeout_s"}


class _Pipeline:
    """Sees the same people in every image; whether it looked at one at all."""

    device, body, network_name, body_name = "cpu", None, "fake", "open_body"
    looked, people = 0, None

    def __init__(self, config=None):
        self.config = config

    def another(self):
        return self

    def camera(self, frame):
        return frame.camera, ""

    def step(self, frame):
        type(self).looked += 1
        return self.people


@pytest.fixture
def folder(tmp_path, monkeypatch, some_people):
    """The working folder, with a picture and a folder of three."""
    monkeypatch.setattr("ros2_pose.pipeline.Pipeline", _Pipeline)
    monkeypatch.setattr(_Pipeline, "looked", 0)
    monkeypatch.setattr(_Pipeline, "people", some_people)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    for number in range(3):
        cv2.imwrite(f"pictures/{number}.jpg", np.full((48, 64, 3), 80 * number, np.uint8))
    cv2.imwrite("a.jpg", np.zeros((48, 64, 3), np.uint8))
    return tmp_path


def _replay(*words) -> int:
    return cli.main(["replay", *map(str, words)])


def test_each_result_is_what_its_name_says(folder):
    names = ["a.jsonl", "b.JSONL", "c.ndjson", "d.json", "e.mp4", "f.avi", "g.mkv", "h.MP4", "bag",
             "bag_2024.05.01"]
    assert _replay("pictures", *names) == 0
    for name in names[:3]:
        assert len([json.loads(line) for line in Path(name).read_text().splitlines()]) == 3
    answers = json.loads(Path("d.json").read_text())
    assert [answer["name"] for answer in answers] == ["0.jpg", "1.jpg", "2.jpg"]
    for name in names[4:8]:
        video, count = cv2.VideoCapture(name), 0
        while video.grab():
            count += 1
        assert count == 3, name
    for name in names[8:]:
        assert (folder / name / "metadata.yaml").exists()


def _made(path: str, kind: str) -> None:
    os.mkdir(path) if kind == "folder" else open(path, "w").close()


@pytest.mark.parametrize("results, words, there", [
    (["people.csv"], ".csv is not written", {}), (["people.txt"], ".txt is not written", {}),
    (["overlay.png"], ".png is not written", {}), (["x.jsonl.gz"], ".gz is not written", {}),
    (["out.mcap"], "name it out, with --storage mcap", {}), (["out.db3"], "name it out", {}),
    (["out.bag"], "name it out", {}), (["no/o.jsonl"], "folder no does not exist", {}),
    (["no/o.json"], "folder no does not exist", {}), (["no/o.mp4"], "folder no does not exist", {}),
    (["file/o.mp4"], "file is a file, not a folder", {"file": "file"}),
    (["o.jsonl", "o.jsonl"], "named twice", {}), (["o.mp4", "./o.mp4"], "named twice", {}),
    (["o.mp4", "pictures/../o.mp4"], "named twice", {}), (["bag", "bag"], "named twice", {}),
    (["link.jsonl"], "is the recording itself", {}), (["o.jsonl"], "is a folder", {"o.jsonl":
                                                                                "folder"}),
    (["o.mp4"], "is a folder", {"o.mp4": "folder"}), (["bag"], "exists already", {"bag": "folder"}),
    (["bag"], "exists already", {"bag": "file"}), (["pictures"], "exists already", {}),
    (["good.jsonl", "bad.csv"], "bad.csv", {}), (["--rerun", "o.rr"], "ends in .rrd", {}),
    (["--rerun", "no/o.rrd"], "folder no does not exist", {}),
    (["o.rrd", "--rerun", "o.rrd"], "named twice", {}), ([], "no output given", {})])
def test_what_cannot_be_written_is_refused_before_the_work(folder, capsys, results, words, there):
    for path, kind in there.items():
        _made(path, kind)
    os.symlink("a.jpg", "link.jsonl")
    before = sorted(folder.rglob("*"))
    assert _replay("a.jpg", *results) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and words in said[0] and "disk full" not in said[0]
    assert _Pipeline.looked == 0 and sorted(folder.rglob("*")) == before


def test_a_folder_that_cannot_be_written_to_is_refused(folder, capsys, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    for name in ("o.jsonl", "o.mp4", "bag"):
        assert _replay("a.jpg", name) == 2
        assert f"{name} cannot be written: Permission denied" in capsys.readouterr().err
    assert _Pipeline.looked == 0


def test_a_file_from_before_is_written_anew(folder):
    (folder / "o.jsonl").write_text("old\n" * 99)
    assert _replay("a.jpg", "o.jsonl") == 0
    assert len([json.loads(line) for line in Path("o.jsonl").read_text().splitlines()]) == 1


def test_json_of_no_image_is_an_empty_array(tmp_path):
    sink = JsonArray(tmp_path / "o.json")
    sink.close()
    sink.close()
    assert json.loads((tmp_path / "o.json").read_text()) == []


@pytest.mark.parametrize("times, count", [
    ([0, 0.1, 0.2, 0.3], 4),  # regular
    ([0, 0.1, 0.6, 0.7], 8),  # one that is long in coming
    ([0, 0.04, 0.08, 0.12], 4),  # faster than the video
    ([0, 0.13, 0.19, 0.31], 4),  # not quite regular
    ([0, 0.1, 900, 900.1], 4),  # a pause
    ([50, 50.1, 0, 0.1], 4)])  # a recording that starts again
def test_a_video_takes_as_long_as_the_recording(tmp_path, some_people, times, count):
    from ros2_pose.people import Frame
    sink = OverlayVideo(tmp_path / "o.mp4", 10.0, _Pipeline())
    for time in times:
        stamp = round(time * 1e9)
        frame = Frame(np.zeros((480, 640, 3), np.uint8), None, stamp)
        sink.write(RecordedFrame(stamp, "camera", "x", frame), some_people)
    sink.close()
    assert sink.count == count == cv2.VideoCapture(str(tmp_path / "o.mp4")).get(
        cv2.CAP_PROP_FRAME_COUNT)


# Settings ---------------------------------------------------------------------------------------


def test_every_setting_of_the_node_is_an_option_or_has_no_meaning_offline():
    names = {setting.name for setting in fields(NodeConfig)}
    assert names == _NODE_ONLY | set(OFFLINE) and not _NODE_ONLY & set(OFFLINE)


def test_options_are_the_settings_with_their_help(capsys):
    with pytest.raises(SystemExit):
        cli.main(["replay", "--help"])
    said = " ".join(capsys.readouterr().out.replace("-\n", "-").split())
    said = said.replace(" ", "")
    for kind in (PoseConfig, NodeConfig):
        for setting in fields(kind):
            if kind is PoseConfig or setting.name in OFFLINE:
                assert f"--{setting.name.replace('_', '-')}" in said
                assert setting.metadata["help"].replace(" ", "") in said, setting.name


@pytest.mark.parametrize("words, said", [
    (["--tf-person", "x"], "tf_person: 'x'"), (["--marker-lifetime-s", "-1"], "marker_lifetime_s"),
    (["--tf-names", "odd"], "tf_names: 'odd'"), (["--tf-tolerance-s", "9"], "tf_tolerance_s"),
    (["--fps", "0"], "fps 0"), (["--fps", "nan"], "fps nan")])
def test_values_that_are_not_allowed_are_one_line(folder, capsys, words, said):
    assert _replay("a.jpg", "o.jsonl", *words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and said in lines[0] and not (folder / "o.jsonl").exists()


@pytest.mark.parametrize("option, drawn", [([], True), (["--bodies"], True),
                                           (["--overlay-bodies"], True),
                                           (["--no-overlay-bodies"], False)])
def test_bodies_are_drawn_unless_told_otherwise(folder, monkeypatch, option, drawn):
    seen = []
    monkeypatch.setattr(OverlayVideo, "__init__",
                        lambda self, path, fps, pipeline, bodies: seen.append(bodies))
    monkeypatch.setattr(OverlayVideo, "path", "o.mp4", raising=False)
    monkeypatch.setattr(OverlayVideo, "write", lambda self, shot, people: None)
    monkeypatch.setattr(OverlayVideo, "close", lambda self: None)
    assert _replay("a.jpg", "o.mp4", *option) == 0 and seen == [drawn]
