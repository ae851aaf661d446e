"""Bags as they lie about: files alone, compressed, split, of ROS 1; and what is none."""

import json
import os
import shutil
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from rosbags import rosbag1
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from ros2_pose import cli
from ros2_pose.camera import Camera
from ros2_pose.messages.camera_info import camera_info_message
from ros2_pose.messages.image import image_message
from ros2_pose.messages.standard import header_message, quaternion_message, vector_message
from ros2_pose.node_config import NodeConfig
from ros2_pose.offline.recording import open_recording
from ros2_pose.offline.rosbag_files import _zstd, typestore
from ros2_pose.offline.rosbag_reader import BagSource
from ros2_pose.offline.rosbag_writer import BagWriter, make
from ros2_pose.offline.sources import PictureSource, SourceError, VideoSource
from ros2_pose.pipeline import PipelineError

_T0, _PERIOD = 1_700_000_000_000_000_000, 100_000_000
_CAMERA = Camera.from_fov(64, 48, 60)
_IMAGE = "/cam/image_raw"


def _stamp(number: int) -> int:
    return _T0 + number * _PERIOD


def _grey(number: int) -> np.ndarray:
    return np.full((48, 64, 3), 20 * number, np.uint8)


def _write(path, count=4, storage="sqlite3", topic=_IMAGE, info=True, camera=_CAMERA,
           stamps=None, more=lambda bag: None):
    """A bag whose image n has the grey level 20 n, and its CameraInfo."""
    bag = BagWriter(path, storage)
    for number in range(count):
        header = header_message(make, stamps[number] if stamps else _stamp(number), "cam")
        if info:
            bag.put(topic.rpartition("/")[0] + "/camera_info",
                    camera_info_message(make, header, camera), _stamp(number))
        bag.put(topic, image_message(make, header, _grey(number)), _stamp(number))
    more(bag)
    bag.close()
    return path


def _levels(source) -> list[int]:
    return [round(shot.frame.image.mean() / 20) for shot in source]


def _open(path, **wanted):
    return open_recording(path, **wanted)


# Files ------------------------------------------------------------------------------------------


def _alone(tmp_path, storage="mcap", **options):
    """The one file of a bag, in a folder without metadata.yaml."""
    _write(tmp_path / "whole", storage=storage, **options)
    file, = (p for p in (tmp_path / "whole").iterdir() if p.name != "metadata.yaml")
    (tmp_path / "alone").mkdir()
    return shutil.copy(file, tmp_path / "alone")


def _packed(path, suffix):
    path = type(path)(path)
    packed = path.with_name(path.name + suffix)
    packed.write_bytes(_zstd().compress(path.read_bytes()))
    path.unlink()
    return packed


@pytest.mark.parametrize("storage", ["sqlite3", "mcap"])
@pytest.mark.parametrize("how", ["file", "folder", "upper", "misnamed", "zstd", "zst",
                                 "folder_zstd"])
def test_a_bags_file_alone_is_read(tmp_path, storage, how):
    path = tmp_path / "alone" / _alone(tmp_path, storage)
    if how in ("upper", "misnamed"):
        path = path.rename(path.with_suffix(path.suffix.upper() if how == "upper" else ".data"))
    if how in ("zstd", "zst", "folder_zstd"):
        path = _packed(path, ".zst" if how == "zst" else ".zstd")
    source = _open(path.parent if how.startswith("folder") else path)
    assert isinstance(source, BagSource) and source.count == 4
    assert _levels(source) == [0, 1, 2, 3]
    assert {shot.frame.camera for shot in source} == {_CAMERA}


def test_messages_that_are_compressed_are_read_without_metadata(tmp_path):
    writer = Writer(tmp_path / "bag", version=8, storage_plugin=StoragePlugin.SQLITE3)
    writer.set_compression(CompressionMode.MESSAGE, CompressionFormat.ZSTD)
    writer.open()
    connection = writer.add_connection(_IMAGE, "sensor_msgs/msg/Image", typestore=typestore())
    for number in range(3):
        message = image_message(make, header_message(make, _stamp(number), "cam"), _grey(number))
        writer.write(connection, _stamp(number),
                     typestore().serialize_cdr(message, "sensor_msgs/msg/Image"))
    writer.close()
    (tmp_path / "bag" / "metadata.yaml").unlink()
    assert _levels(_open(tmp_path / "bag")) == [0, 1, 2]


def test_a_file_of_a_whole_bag_or_its_metadata_is_the_bag(tmp_path):
    _write(tmp_path / "bag")
    for file in (tmp_path / "bag").iterdir():
        assert _levels(_open(file)) == [0, 1, 2, 3]


def test_a_split_bag_without_metadata_is_read_in_order(tmp_path):
    (tmp_path / "bag").mkdir()
    for part in range(2):
        stamps = [_stamp(2 * part), _stamp(2 * part + 1)]
        bag = BagWriter(tmp_path / "part", "mcap")
        for number, stamp in enumerate(stamps):
            bag.put(_IMAGE, image_message(make, header_message(make, stamp, "cam"),
                                          _grey(2 * part + number)), stamp)
        bag.close()
        shutil.move(tmp_path / "part" / "part.mcap", tmp_path / "bag" / f"bag_{part}.mcap")
        shutil.rmtree(tmp_path / "part")
    assert _levels(_open(tmp_path / "bag")) == [0, 1, 2, 3]


def test_a_folder_of_several_bags_names_them(tmp_path):
    for name in ("monday", "tuesday"):
        _write(tmp_path / name, storage="mcap")
        shutil.move(tmp_path / name / f"{name}.mcap", tmp_path)
        shutil.rmtree(tmp_path / name)
    with pytest.raises(SourceError, match="monday.mcap, tuesday.mcap"):
        _open(tmp_path)


@pytest.mark.parametrize("name", ["run.bag", "run.BAG"])
def test_a_bag_of_ros_1_is_read(tmp_path, name):
    store = get_typestore(Stores.ROS1_NOETIC)
    types = store.types

    def header(number):
        stamp = _stamp(number)
        time = types["builtin_interfaces/msg/Time"](sec=stamp // 10**9, nanosec=stamp % 10**9)
        return types["std_msgs/msg/Header"](seq=number, stamp=time, frame_id="cam")
    ours = camera_info_message(make, header_message(make, 0, "cam"), _CAMERA)
    with rosbag1.Writer(tmp_path / "run.bag") as writer:
        info = writer.add_connection("/cam/camera_info", "sensor_msgs/msg/CameraInfo",
                                     typestore=store)
        image = writer.add_connection(_IMAGE, "sensor_msgs/msg/Image", typestore=store)
        for number in range(4):
            roi = types["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
            writer.write(info, _stamp(number), store.serialize_ros1(
                types["sensor_msgs/msg/CameraInfo"](
                    header=header(number), height=48, width=64, distortion_model="plumb_bob",
                    D=ours.d, K=ours.k, R=ours.r, P=ours.p, binning_x=0, binning_y=0, roi=roi),
                info.msgtype))
            writer.write(image, _stamp(number), store.serialize_ros1(
                types["sensor_msgs/msg/Image"](
                    header=header(number), height=48, width=64, encoding="rgb8", is_bigendian=0,
                    step=192, data=_grey(number).reshape(-1)), image.msgtype))
    (tmp_path / "run.bag").rename(tmp_path / name)
    shots = list(_open(tmp_path / name))
    assert [shot.stamp for shot in shots] == [_stamp(n) for n in range(4)]
    assert _levels(shots) == [0, 1, 2, 3] and {s.frame.camera for s in shots} == {_CAMERA}
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[:len(data) // 2])
    with pytest.raises(SourceError, match="rosbag reindex"):
        _open(tmp_path / name)


_CONTENTS = {
    "notes.txt": (b"some words\n", "text"), "walk.mp4": (b"not: [a, video]", "text"),
    "a.jpg": (b"<!DOCTYPE html><html>", "text"), "empty.mp4": (b"", "empty"),
    "empty.jpg": (b"", "empty"), "empty.mcap": (b"", "empty"),
    "paper.pdf": (b"%PDF-1.7\n%\xe2\xe3", "PDF"), "all.zip": (b"PK\3\4" + b"\0" * 30, "ZIP"),
    "a.tar.gz": (b"\x1f\x8b\x08\0\0", "gzip"), "a.heic": (b"\0\0\0\x18ftypheic\0\0", "HEIC"),
    "a2.jpg": (b"\0\0\0\x18ftypheic\0\0", "HEIC"), "depth.npy": (b"\x93NUMPY\1\0v", "numpy"),
    "x.mcap": (b"\1\2\3\4" * 9, "unknown"), "x.db3": (b"\1\2\3\4" * 9, "unknown"),
    "x.bag": (b"\1\2\3\4" * 9, "unknown"), "x.xyz": (b"\1\2\3\4" * 9, "unknown"),
    "lfs.mcap": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "out.rrd": (b"RRF2\0\0", "Rerun"), "x.zstd": (_zstd().compress(b"some words"), "zstd"),
    "x.db3.zstd": (_zstd().compress(b"some words"), "text"),
    "song.wav": (b"RIFF\0\0\0\0WAVE", "sound")}


@pytest.mark.parametrize("name", _CONTENTS)
def test_what_is_no_recording_is_named_for_what_it_is(tmp_path, name):
    content, words = _CONTENTS[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=words) as caught:
        _open(tmp_path / name)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_names_do_not_decide_what_a_file_is(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), _grey(3))
    (tmp_path / "a.png").rename(tmp_path / "a")
    assert isinstance(_open(tmp_path / "a"), PictureSource)
    writer = cv2.VideoWriter(str(tmp_path / "v.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 48))
    for number in range(3):
        writer.write(_grey(number))
    writer.release()
    for name in ("V.MP4", "v.data"):
        shutil.copy(tmp_path / "v.mp4", tmp_path / name)
        assert isinstance(_open(tmp_path / name), VideoSource)


@pytest.mark.parametrize("name", ["no_such", "fifo", "empty"])
def test_what_is_not_there_is_one_line(tmp_path, name):
    (tmp_path / "empty").mkdir()
    if name == "fifo":
        os.mkfifo(tmp_path / "fifo")
    with pytest.raises(SourceError, match=name):
        _open(tmp_path / name)


def test_a_folder_with_pictures_and_another_kind_of_picture(tmp_path):
    cv2.imwrite(str(tmp_path / "1.jpg"), _grey(3))
    (tmp_path / "2.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0")
    good, bad = _open(tmp_path)
    assert good.frame is not None and bad.frame is None and "HEIC" in bad.problem


# What a bag holds -------------------------------------------------------------------------------


def _video_message(bag):
    """A message of a type that rosbags does not know by itself."""
    store = get_typestore(Stores.ROS2_JAZZY)
    store.register(get_types_from_msg(
        "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format",
        "foxglove_msgs/msg/CompressedVideo"))
    connection = bag.writer.add_connection("/cam/video", "foxglove_msgs/msg/CompressedVideo",
                                           typestore=store)
    bag.writer.write(connection, _T0, b"\0\1\0\0" + b"\0" * 40)


def test_a_bag_without_images_says_what_it_holds(tmp_path):
    _write(tmp_path / "video", 0, more=_video_message)
    with pytest.raises(SourceError, match="/cam/video.*cannot be read.*CompressedVideo.*decode"):
        _open(tmp_path / "video")
    _write(tmp_path / "both", 2, more=_video_message)
    assert _levels(_open(tmp_path / "both")) == [0, 1]


def test_a_bag_without_calibration_has_images_and_a_hint(tmp_path, caplog):
    _write(tmp_path / "bag", info=False)
    source = _open(tmp_path / "bag")
    assert _levels(source) == [0, 1, 2, 3] and {s.frame.camera for s in source} == {None}
    assert "--fov-deg" in caplog.text
    with pytest.raises(SourceError, match="no CameraInfo on /x"):
        _open(tmp_path / "bag", camera_info_topic="/x")
    caplog.clear()
    assert _levels(_open(tmp_path / "bag", camera=_CAMERA)) and not caplog.text


def test_several_image_topics_are_named(tmp_path):
    def other(bag):
        bag.put("/other/image", image_message(make, header_message(make, _T0, "cam"), _grey(1)),
                _T0)
    _write(tmp_path / "bag", more=other)
    with pytest.raises(SourceError, match="/cam/image_raw, /other/image.*--image-topic"):
        _open(tmp_path / "bag")
    assert _levels(_open(tmp_path / "bag", image_topic="/other/image")) == [1]


def test_a_calibration_that_cannot_be_used_is_the_reason(tmp_path):
    def info(bag):
        message = camera_info_message(make, header_message(make, _T0, "cam"), _CAMERA)
        message.k[0] = 0
        bag.put("/cam/camera_info", message, _T0)
    _write(tmp_path / "bag", info=False, more=info)
    shots = list(_open(tmp_path / "bag"))
    assert all("focal length" in s.camera_problem and s.frame.camera is None for s in shots)


@pytest.mark.parametrize("topic, rectified, hint", [
    ("/cam/image_rect", False, "--rectified"), ("/cam/image_rect_color", False, "--rectified"),
    ("/cam/image_raw", False, ""), ("/cam/image_rect", True, ""),
    ("/cam/image_raw", True, "not rectified"), ("/cam/image", True, ""),
    ("/direct/image", False, "")])
def test_a_topics_name_and_the_setting_agree(tmp_path, caplog, topic, rectified, hint):
    bent = Camera(64, 48, 60, 60, 32, 24, (-0.3, 0.1, 0, 0, 0))
    _write(tmp_path / "bag", topic=topic, camera=bent)
    source = _open(tmp_path / "bag", settings=NodeConfig(rectified=rectified))
    assert (hint in caplog.text) if hint else not caplog.text
    assert {s.frame.camera.distortion for s in source} == {() if rectified else bent.distortion}


# Depth and transforms ---------------------------------------------------------------------------


def _depth_message(stamp: int, metres: float):
    return make("sensor_msgs/msg/Image", header=header_message(make, stamp, "cam"), height=48,
                width=64, encoding="32FC1", is_bigendian=0, step=256,
                data=np.full((48, 64), metres, np.float32).view(np.uint8).reshape(-1))


@pytest.mark.parametrize("late", [0, 30_000_000, 700_000_000])
def test_each_image_has_the_depth_of_its_time_however_late_it_was_recorded(tmp_path, late):
    def depth(bag):
        for number in range(4):
            if number != 2:
                bag.put("/cam/depth", _depth_message(_stamp(number) + 5_000_000, 1.0 + number),
                        _stamp(number) + late)
    _write(tmp_path / "bag", more=depth)
    shots = list(_open(tmp_path / "bag", image_topic=_IMAGE, settings=NodeConfig(depth=True)))
    depths = [None if s.frame.depth is None else float(s.frame.depth[0, 0]) for s in shots]
    assert depths == [1, 2, None, 4]
    assert "no depth image" in shots[2].note and not shots[1].note
    assert _levels(_open(tmp_path / "bag", image_topic=_IMAGE, depth_topic="/cam/depth"))
    with pytest.raises(SourceError, match="no depth images on /x.*/cam/depth"):
        _open(tmp_path / "bag", image_topic=_IMAGE, depth_topic="/x")


def test_depth_that_is_not_there_is_an_error(tmp_path):
    _write(tmp_path / "bag")
    with pytest.raises(SourceError, match="--depth-topic"):
        _open(tmp_path / "bag", settings=NodeConfig(depth=True))


def _tf(bag, topic, parent, child, stamp, x, received):
    bag.put(topic, make("tf2_msgs/msg/TFMessage", transforms=[make(
        "geometry_msgs/msg/TransformStamped", header=header_message(make, stamp, parent),
        child_frame_id=child, transform=make(
            "geometry_msgs/msg/Transform", translation=vector_message(make, (x, 0, 0)),
            rotation=quaternion_message(make, (0, 0, 0, 1))))]), received)


@pytest.mark.parametrize("late", [0, 500_000_000, 2_500_000_000])
def test_poses_are_those_of_the_images_stamps_however_late_they_were_recorded(tmp_path, late):
    def transforms(bag):
        for number in range(-1, 6):  # moves by 1 m a second, heard between the images' stamps
            stamp = _stamp(number) + _PERIOD // 2
            _tf(bag, "/tf", "odom", "base", stamp, 0.1 * number + 0.05, stamp + late)
        _tf(bag, "/tf_static", "base", "cam", 0, 10, _stamp(9) + late)
    _write(tmp_path / "bag", more=transforms)
    settings = NodeConfig(fixed_frame="odom", target_frame="base")
    for number, shot in enumerate(_open(tmp_path / "bag", settings=settings)):
        assert shot.frame.camera_to_fixed.translation_m[0] == pytest.approx(10 + 0.1 * number)
        assert shot.target_frame_id == "base" and not shot.note
        assert np.allclose(shot.target_from_camera.translation_m, (10, 0, 0))


def test_a_transform_that_is_missing_is_said(tmp_path):
    _write(tmp_path / "bag", more=lambda bag: _tf(bag, "/tf_static", "map", "x", 0, 0, _T0))
    settings = NodeConfig(fixed_frame="odom", target_frame="map")
    for shot in _open(tmp_path / "bag", settings=settings):
        assert shot.frame.camera_to_fixed is None and "'odom'" in shot.note
        assert shot.target_from_camera is None and "'map'" in shot.target_problem


@pytest.mark.parametrize("asked", [dict(settings=NodeConfig(depth=True)), dict(depth_topic="/d"),
                                   dict(settings=NodeConfig(target_frame="map")),
                                   dict(settings=NodeConfig(fixed_frame="odom")),
                                   dict(settings=NodeConfig(floor_frame="odom")),
                                   dict(settings=NodeConfig(imu="/imu")),
                                   dict(image_topic="/x")])
def test_what_only_a_bag_can_give_is_refused_for_pictures(tmp_path, asked):
    cv2.imwrite(str(tmp_path / "1.jpg"), _grey(3))
    for path in (tmp_path, tmp_path / "1.jpg"):
        with pytest.raises(SourceError, match="is not a bag"):
            _open(path, **asked)


# The command ------------------------------------------------------------------------------------


@pytest.fixture
def replay(tmp_path, monkeypatch, some_people):
    """Function that replays with a pipeline that always sees the same people; its exit status and
    the lines of the result."""
    class Pipeline:
        device, body, network_name, body_name = "cpu", None, "fake", "open_body"
        note = ""

        def __init__(self, config):
            self.config = config

        def another(self):
            return self

        def camera(self, frame):
            return frame.camera, ""

        def step(self, frame):
            return some_people.with_fields(note=self.note)
    monkeypatch.setattr("ros2_pose.pipeline.Pipeline", Pipeline)
    monkeypatch.chdir(tmp_path)

    def run(source, *words):
        status = cli.main(["replay", source, "lines.jsonl", *map(str, words)])
        return status, [json.loads(line) for line in open("lines.jsonl")]
    return SimpleNamespace(run=run, pipeline=Pipeline)


@pytest.mark.parametrize("order, answered", [
    ([0, 1, 3, 2, 4, 5], [0, 1, 3, 4, 5]), ([0, 1, 1, 2], [0, 1, 2]),
    ([20, 21, 22, 3, 4, 5], [20, 21, 22, 3, 4, 5]), ([3, 2, 1, 4, 5], [3, 4, 5])])
def test_late_images_are_ignored_as_in_the_node(replay, tmp_path, capsys, order, answered):
    _write(tmp_path / "bag", len(order), stamps=[_stamp(n) for n in order])
    status, lines = replay.run("bag")
    assert status == 0 and [line["stamp_ns"] for line in lines] == [_stamp(n) for n in answered]
    said = capsys.readouterr().out
    assert f"{len(order)} images" in said and f"{len(order) - len(answered)} ignored" in said


def test_stamps_that_stand_still_are_no_success(replay, tmp_path, capsys):
    _write(tmp_path / "bag", 4, stamps=[0] * 4)
    status, lines = replay.run("bag")
    assert status == 1 and len(lines) == 1
    assert "stamps do not increase" in capsys.readouterr().err


def test_people_are_told_in_the_frame_asked_for(replay, tmp_path, some_people):
    _write(tmp_path / "bag", 2, more=lambda bag: _tf(bag, "/tf_static", "map", "cam", 0, 5, _T0))
    status, lines = replay.run("bag", "told", "seen.mp4", "--target-frame", "map")
    assert status == 0 and {line["frame_id"] for line in lines} == {"map"}
    assert np.allclose([p["root_m"] for p in lines[0]["people"]], some_people.root + (5, 0, 0),
                       atol=1e-5)
    status, lines = replay.run("bag", "--target-frame", "odom")
    assert [line["status"] for line in lines] == ["2d_only"] * 2 and "'odom'" in lines[0]["note"]


def test_names_of_tf_frames_and_lifetimes_are_the_settings(replay, tmp_path):
    _write(tmp_path / "bag", 2)
    replay.run("bag", "named", "--tf-person", "human_{id}", "--tf-joint", "{id}.{joint}",
               "--marker-lifetime-s", "2.5")
    replay.run("bag", "without", "--no-tf")
    said = {name: [(topic, m) for topic, m in _messages(tmp_path / name)]
            for name in ("named", "without")}
    names = {t.child_frame_id for topic, m in said["named"] if topic == "/tf"
             for t in m.transforms}
    assert {"human_p1", "p1.head"} <= names
    lifetimes = {m.lifetime.sec + m.lifetime.nanosec * 1e-9 for topic, array in said["named"]
                 if topic.endswith("markers") for m in array.markers}
    assert lifetimes == {2.5}
    assert "/tf" not in {topic for topic, _ in said["without"]}


def _messages(path):
    with AnyReader([path], default_typestore=typestore()) as reader:
        return [(c.topic, reader.deserialize(data, c.msgtype))
                for c, _, data in reader.messages()]


def test_an_image_that_the_pipeline_refuses_is_unreadable(replay, tmp_path, monkeypatch):
    def refuse(self, frame):
        raise PipelineError("image is none")
    monkeypatch.setattr(replay.pipeline, "step", refuse)
    _write(tmp_path / "bag", 2)
    status, lines = replay.run("bag")
    assert status == 1 and [line["status"] for line in lines] == ["unreadable"] * 2
    assert lines[0]["note"] == "image is none"


def test_what_is_missing_beside_an_image_is_partial(replay, tmp_path):
    _write(tmp_path / "bag", 2)
    _, lines = replay.run("bag", "--fixed-frame", "odom")
    assert {line["status"] for line in lines} == {"partial"}
    _, lines = replay.run("bag")
    assert {line["status"] for line in lines} == {"ok"}


@pytest.mark.parametrize("count, states, people", [
    (1, [0, 0, 1], "3 people: p1 p2 p3"), (2, [0, 0, 0], "3 people: p1 p2 p3"),
    (4, [0, 1, 1], "2 people: p2 p3"), (4, [0, 0, 0], "0 people: ")])
def test_people_are_counted_also_in_a_single_picture(replay, tmp_path, monkeypatch, capsys,
                                                     some_people, count, states, people):
    seen = some_people.with_fields(tracking_state=np.array(states))
    monkeypatch.setattr(replay.pipeline, "step", lambda self, frame: seen)
    (tmp_path / "pictures").mkdir()
    for number in range(count):
        cv2.imwrite(str(tmp_path / "pictures" / f"{number}.jpg"), _grey(number))
    replay.run("pictures")
    assert capsys.readouterr().out.strip("\n").endswith(people)


def test_a_floor_of_the_bags_transforms_is_used_or_missed(replay, tmp_path):
    def transforms(bag):
        bag.put("/tf_static", make("tf2_msgs/msg/TFMessage", transforms=[make(
            "geometry_msgs/msg/TransformStamped", header=header_message(make, 0, "base"),
            child_frame_id="cam", transform=make(
                "geometry_msgs/msg/Transform", translation=vector_message(make, (0, 0, 1.1)),
                rotation=quaternion_message(make, (-0.5, 0.5, -0.5, 0.5))))]), _T0)
    _write(tmp_path / "bag", 2, more=transforms)
    for frame, status in (("base", 0), ("nowhere", 2)):
        assert replay.run("bag", frame, "--floor-frame", frame)[0] == 0
        told = [m for topic, m in _messages(tmp_path / frame) if topic.endswith("/people")]
        assert len(told) == 2 and {m.status for m in told} == {status}
        assert all(("no floor" in m.status_text) == (status > 0) for m in told)
    assert replay.run("bag", "imu", "--imu", "imu/data")[0] == 2  # the bag has no such topic


def test_a_settings_file_is_the_nodes_too(replay, tmp_path):
    (tmp_path / "pose.yaml").write_text(
        "/**:\n  ros__parameters:\n    confirm_hits: 2\n    tf: false\n    reliability: auto\n")
    _write(tmp_path / "bag", 2)
    status, _ = replay.run("bag", "told", "--config", "pose.yaml")
    assert status == 0 and "/tf" not in {topic for topic, _ in _messages(tmp_path / "told")}
    (tmp_path / "pose.yaml").write_text("confirm_hit: 2\n")
    assert cli.main(["replay", "bag", "a.jsonl", "--config", "pose.yaml"]) == 2
