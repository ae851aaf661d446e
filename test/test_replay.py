"""Replay through the command line: bags, videos, pictures; the same bytes; damage is survived."""

import json
import shutil
import zlib

import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader

from ros2_pose import cli
from ros2_pose.messages.camera_info import camera_info_message
from ros2_pose.messages.people import STATUS_BAD_IMAGE, STATUS_OK, people_from_message
from ros2_pose.messages.standard import header_message, stamp_of
from ros2_pose.offline import demo_clip
from ros2_pose.offline.rosbag_files import typestore
from ros2_pose.offline.rosbag_reader import BagSource
from ros2_pose.offline.rosbag_writer import BagWriter, make
from ros2_pose.people import TRACKED

_FAST = ["--scales", "256", "--device", "cpu"]


@pytest.fixture(scope="module")
def bag(tmp_path_factory):
    """A bag of the clip's first six images."""
    path = tmp_path_factory.mktemp("bags") / "clip"
    demo_clip.write_bag(path, count=6)
    return path


def _people(path) -> list:
    """The People messages of a bag."""
    with AnyReader([path], default_typestore=typestore()) as reader:
        return [reader.deserialize(data, c.msgtype) for c, _, data in reader.messages()
                if c.topic == "/ros2_pose/people"]


def _replay(*arguments) -> int:
    return cli.main(["replay", *map(str, arguments), *_FAST])


def test_every_image_is_answered_and_left_is_left(bag, tmp_path):
    assert _replay(bag, tmp_path / "out", tmp_path / "out.jsonl") == 0
    answers = _people(tmp_path / "out")
    assert [stamp_of(a.header) for a in answers] == [demo_clip.stamp(n) for n in range(6)]
    assert {a.header.frame_id for a in answers} == {demo_clip.FRAME_ID}
    last = people_from_message(answers[-1])
    assert len(last) == 3 and (last.tracking_state == TRACKED).all()
    near, far, farthest = (last[[row]] for row in np.argsort(last.root[:, 2]))
    # The near one shows her back, the far one his face: left and right are opposite.
    assert near.joints[0, 1, 0] < near.joints[0, 2, 0] and far.joints[0, 1, 0] > far.joints[0, 2, 0]
    for person in (near, far, farthest):
        feet, head = person.joints[0, 7:9, 1].mean(), person.joints[0, 15, 1]
        assert 1.2 < feet - head < 1.8  # y is down, metres
    assert 2.5 < near.root[0, 2] < 4 and 3.2 < far.root[0, 2] < 5 < farthest.root[0, 2] < 9
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["ok"] * 6
    assert np.allclose(lines[-1]["people"][0]["root_m"], last.root[0], atol=1e-4)


def test_bodies_project_onto_the_keypoints(bag, tmp_path):
    assert _replay(bag, tmp_path / "out") == 0
    people = people_from_message(_people(tmp_path / "out")[-1])
    camera = demo_clip.camera()
    pairs = [(5, 16), (6, 17), (7, 18), (8, 19), (13, 4), (14, 5), (15, 7), (16, 8)]  # COCO, SMPL
    for i in range(len(people)):
        height = people.boxes[i, 3] - people.boxes[i, 1]
        pixels = camera.project(people.joints[i])
        away = [np.linalg.norm(people.keypoints[i, k] - pixels[j]) for k, j in pairs]
        assert np.median(away) < 0.05 * height


def test_same_bag_same_bytes(bag, tmp_path):
    for storage in ("sqlite3", "mcap"):
        for name in ("a", "b"):
            assert _replay(bag, tmp_path / storage / name / "out", "--storage", storage) == 0
        first, second = (sorted((tmp_path / storage / n / "out").iterdir()) for n in "ab")
        assert [p.name for p in first] == [p.name for p in second]
        assert all(a.read_bytes() == b.read_bytes() for a, b in zip(first, second))
    in_sqlite, in_mcap = (_people(tmp_path / s / "a" / "out") for s in ("sqlite3", "mcap"))
    kind = in_mcap[0].__msgtype__
    assert [typestore().serialize_cdr(m, kind) for m in in_sqlite] == \
        [typestore().serialize_cdr(m, kind) for m in in_mcap]


def test_pictures_and_videos(clip, tmp_path, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, picture in enumerate(clip[:3]):
        cv2.imwrite(str(folder / f"{number}.jpg"), picture[..., ::-1])
    (folder / "1.jpg").write_bytes((folder / "1.jpg").read_bytes()[:20_000])
    assert _replay(folder, tmp_path / "a.jsonl") == 1
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["2d_only", "unreadable", "2d_only"]
    assert lines[1]["people"] is None and "1.jpg is cut off" in lines[1]["note"]
    assert "set fov_deg" in lines[0]["note"] and len(lines[0]["people"]) == 3
    assert "1 unreadable" in capsys.readouterr().out

    video = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"mp4v"), 10, (544, 960))
    for picture in clip[:3]:
        writer.write(picture[..., ::-1])
    writer.release()
    assert _replay(video, tmp_path / "b.jsonl", tmp_path / "b.mp4", "--fov-deg", 36,
                   "--bodies") == 0
    lines = [json.loads(line) for line in (tmp_path / "b.jsonl").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["ok"] * 3
    assert [line["stamp_ns"] for line in lines] == [0, 100_000_000, 200_000_000]
    drawn = cv2.VideoCapture(str(tmp_path / "b.mp4"))
    assert drawn.get(cv2.CAP_PROP_FRAME_COUNT) == 3


def test_an_unreadable_image_is_answered_as_such_and_the_rest_goes_on(bag, tmp_path):
    writer = BagWriter(tmp_path / "in")
    with AnyReader([bag], default_typestore=typestore()) as reader:
        for number, (connection, received, data) in enumerate(reader.messages()):
            message = reader.deserialize(data, connection.msgtype)
            if number == 5:  # the third image
                message.data = message.data[:5000]
            writer.put(connection.topic, message, received)
    writer.close()
    assert _replay(tmp_path / "in", tmp_path / "out") == 1
    answers = _people(tmp_path / "out")
    assert [a.status for a in answers] == [STATUS_OK] * 2 + [STATUS_BAD_IMAGE] + \
        [STATUS_OK] * 3
    assert "cut off" in answers[2].status_text and answers[2].people == []


def test_a_cut_off_bag_keeps_what_was_finished(bag, tmp_path, capsys):
    shutil.copytree(bag, tmp_path / "cut")
    data = next((tmp_path / "cut").glob("*.db3"))
    data.write_bytes(data.read_bytes()[:data.stat().st_size // 2])
    assert _replay(tmp_path / "cut", tmp_path / "out.jsonl") in (1, 2)
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "cut" in said and "cannot be read" in said
    mcap = tmp_path / "cut_mcap"
    demo_clip.write_bag(mcap, "mcap", count=4)
    data = next(mcap.glob("*.mcap"))
    data.write_bytes(data.read_bytes()[:-400])
    assert _replay(mcap, tmp_path / "out2.jsonl") in (1, 2)
    assert "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("arguments, words", [
    (["no_such"], "no_such does not exist"),
    (["{bag}", "--image-topic", "/x"], "no images on /x; the bag has images on: /camera/image_raw"),
    (["{empty}"], "neither a bag (no metadata.yaml) nor pictures"),
    (["{text}"], "is not a video"),
    (["{bag}", "--calibration", "{text}"], "text.mp4"),
    (["{bag}", "--max-people", "1000"], "max_people: 1000 is out of range"),
])
def test_mistakes_are_one_line_and_status_2(bag, tmp_path, capsys, arguments, words):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mp4").write_text("not: [a, video]")
    positions = {"bag": bag, "empty": tmp_path / "empty", "text": tmp_path / "text.mp4"}
    source, *options = [a.format(**positions) for a in arguments]
    assert _replay(source, tmp_path / "out.jsonl", *options) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and words in said[0]


def test_an_existing_bag_is_not_overwritten(bag, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    assert _replay(bag, tmp_path / "out") == 2
    assert "exists already" in capsys.readouterr().err


def test_calibration_of_the_wrong_size_gives_2d_and_says_so(bag, tmp_path):
    small = demo_clip.camera().resized(272, 480)
    (tmp_path / "camera.yaml").write_text(
        "image_width: 272\nimage_height: 480\n"
        f"camera_matrix: {{data: {[*map(float, small.K.flat)]}}}")
    assert _replay(bag, tmp_path / "out.jsonl", "--calibration", tmp_path / "camera.yaml") == 0
    line = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])
    assert line["status"] == "2d_only"
    assert "calibration is for 272x480, the image is 544x960" in line["note"]


def test_source_knows_its_calibration_before_the_first_image(tmp_path):
    """A CameraInfo that comes after the first image still serves it."""
    writer = BagWriter(tmp_path / "late")
    header = header_message(make, 1, "camera")
    picture = next(demo_clip.pictures())
    writer.put("/image", demo_clip._compressed(header, picture), 1)
    writer.put("/camera_info", camera_info_message(make, header, demo_clip.camera()), 2)
    writer.close()
    assert [shot.frame.camera for shot in BagSource(tmp_path / "late")] == [demo_clip.camera()]


@pytest.mark.parametrize("value, rotations", [(6, 1), (3, 2), (8, -1)])
def test_people_in_a_turned_photo_are_those_of_the_upright_one(clip, tmp_path, capsys, value,
                                                                rotations):
    def written(name, picture, exif=b""):
        data = cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))[1].tobytes()
        chunk = b"eXIf" + exif
        crc = zlib.crc32(chunk).to_bytes(4, "big")
        extra = len(exif).to_bytes(4, "big") + chunk + crc if exif else b""
        (tmp_path / name).write_bytes(data[:33] + extra + data[33:])
        assert _replay(tmp_path / name, tmp_path / "o.jsonl", "--fov-deg", "40") == 0
        assert "3 people: p1 p2 p3" in capsys.readouterr().out
        return json.loads((tmp_path / "o.jsonl").read_text())["people"]
    exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01" + bytes([0, value]) + b"\0" * 6
    assert written("phone.png", np.rot90(clip[0], rotations), exif) == written(
        "upright.png", clip[0]
    )
