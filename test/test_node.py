"""The node's own work, around a pipeline that is made up: what waits, what is said, what lives."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import fields
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: run make test")
pytest.importorskip("ros2_pose.msg", reason="needs the built messages: run make test")

from pathlib import Path

import yaml
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.parameter import Parameter
from ros2_pose.msg import People
from ros_helpers import BEST_EFFORT, PICTURE, RELIABLE, camera_info
from sensor_msgs.msg import CameraInfo
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import Marker, MarkerArray

from ros2_pose.config import ConfigError, PoseConfig
from ros2_pose.messages.image import ImageError
from ros2_pose.messages.standard import header_message, stamp_of
from ros2_pose.node_config import NodeConfig
from ros2_pose.nodes import message_factory
from ros2_pose.nodes.diagnostics import NodeStatistics
from ros2_pose.nodes.latest_slot import LatestSlot
from ros2_pose.nodes.message_factory import make
from ros2_pose.nodes.pose_node import PoseNode
from ros2_pose.people import People as CorePeople
from ros2_pose.tools import parameter_file


def _topics(node: PoseNode) -> tuple[str, str]:
    return node.camera_subscriptions[0].image.topic, node.camera_subscriptions[0].info.topic


# What is looked at ------------------------------------------------------------------------------


def test_the_newest_replaces_what_waits():
    slot = LatestSlot()
    assert [slot.put(item) for item in "abc"] == [False, True, True]
    assert slot.take() == "c" and slot.put("d") is False


def test_a_closed_slot_lets_go_of_who_waits():
    slot, got = LatestSlot(), []
    waiter = threading.Thread(target=lambda: got.append(slot.take()))
    waiter.start()
    slot.close()
    waiter.join(timeout=5)
    assert got == [None]


def test_images_that_come_while_busy_are_dropped_and_counted(graph, start):
    node, images = start(), graph.camera()
    busy, go_on = threading.Event(), threading.Event()

    def wait(frame):
        busy.set()
        go_on.wait(30)
    node.pipeline.before = wait
    graph.matched(images)
    images.publish(graph.image(PICTURE))
    graph.until(busy.is_set)
    for _ in range(3):
        images.publish(graph.image(PICTURE))
        count = node.statistics.received
        graph.until(lambda: node.statistics.received > count)
    go_on.set()
    graph.until(lambda: len(graph.people) == 2)
    assert (graph.people[1].frames_received, graph.people[1].frames_dropped) == (4, 2)
    assert node.pipeline.frames[1].stamp > node.pipeline.frames[0].stamp


def test_the_camera_is_in_the_frame(graph, start):
    node, images = start(), graph.camera()
    info = graph.node.create_publisher(CameraInfo, "/camera_info", 5)
    graph.matched(info)
    info.publish(camera_info(64, 48, focal=50.0))
    graph.until(lambda: node.camera_subscriptions[0].camera is not None)
    graph.ask(images, graph.image(PICTURE))
    camera = node.pipeline.frames[-1].camera
    assert (camera.width, camera.fx, camera.cx) == (64, 50.0, 32.0)


def test_topics_follow_remapping(start):
    assert _topics(start()) == ("/image", "/camera_info")
    moved = start(remap=["image:=/cam/image_raw", "__node:=second"])
    assert _topics(moved) == ("/cam/image_raw", "/cam/camera_info")
    own_info = start(remap=["image:=/cam/image_raw", "camera_info:=/calibration", "__node:=third"])
    assert _topics(own_info) == ("/cam/image_raw", "/calibration")
    spaced = start(remap=["__ns:=/robot", "image:=cam/image"], transport="compressed")
    assert _topics(spaced) == ("/robot/cam/image/compressed", "/robot/cam/camera_info")


# Reliability ------------------------------------------------------------------------------------


def test_reliability_follows_the_publishers(graph, start):
    node = start()

    def policy() -> str:
        return node.camera_subscriptions[0].image.policy.name
    reliable = graph.camera(RELIABLE)
    graph.until(lambda: policy() == "RELIABLE")
    graph.ask(reliable, graph.image(PICTURE))
    best_effort = graph.camera(BEST_EFFORT)
    graph.until(lambda: policy() == "BEST_EFFORT")
    graph.ask(best_effort, graph.image(PICTURE))
    graph.node.destroy_publisher(best_effort)
    graph.until(lambda: policy() == "RELIABLE")


def test_reliability_can_be_given(graph, start):
    node = start(reliability="best_effort")
    graph.ask(graph.camera(RELIABLE), graph.image(PICTURE))
    assert node.camera_subscriptions[0].image.policy.name == "BEST_EFFORT"


# What goes wrong --------------------------------------------------------------------------------


def test_a_pipeline_that_raises_is_reported_and_the_node_lives(graph, start):
    node, images = start(), graph.camera()

    def fail(frame):
        raise RuntimeError("no memory left")
    node.pipeline.before = fail
    bad = graph.ask(images, graph.image(PICTURE))
    assert bad.status == People.STATUS_FAILED and "no memory left" in bad.status_text
    node.pipeline.before = lambda frame: None
    assert graph.ask(images, graph.image(PICTURE)).status == People.STATUS_OK
    assert node.statistics.failures >= 1


@pytest.mark.parametrize("focal, size, word", [
    (0.0, (64, 48), "fx=0"), (np.nan, (64, 48), "not finite"), (50.0, (0, 48), "0x48")])
def test_a_useless_calibration_is_named(graph, start, focal, size, word):
    flat = CorePeople.nobody().with_fields(note="no camera calibration")
    node, images = start(flat), graph.camera()
    info = graph.node.create_publisher(CameraInfo, "/camera_info", 5)
    message = camera_info(64, 48)
    message.k[0] = focal
    message.width = size[0]
    graph.matched(info)
    info.publish(message)
    graph.until(lambda: node.camera_subscriptions[0].camera_problem)
    answer = graph.ask(images, graph.image(PICTURE))
    assert answer.status == People.STATUS_2D_ONLY and word in answer.status_text
    assert node.pipeline.frames[-1].camera is None


def test_diagnostics_count_what_was_wrong(graph, start):
    start()
    images, reports = graph.camera(), graph.listen(DiagnosticArray, "/diagnostics")
    broken = graph.image(PICTURE)
    broken.step = 1
    graph.ask(images, broken)

    def report():
        values = {v.key: v.value for v in reports[-1].status[0].values} if reports else {}
        return values if values.get("images bad", "0") != "0" else None
    values = graph.until(report)
    assert "step is 1" in values["last error"] and values["device"] == "cpu"
    assert reports[-1].status[0].name == "/ros2_pose"
    assert reports[-1].status[0].level in (DiagnosticStatus.WARN, DiagnosticStatus.STALE)


# What is said -----------------------------------------------------------------------------------


@pytest.mark.parametrize("stamp", [0, 7_000_000_000])
def test_stamps_that_stand_still_are_said(graph, start, some_people, stamp):
    """A driver that never sets the stamp, or a clock that does not run."""
    node, images = start(some_people), graph.camera()
    reports = graph.listen(DiagnosticArray, "/diagnostics")

    def publish():
        message = graph.image(PICTURE)
        message.header = header_message(make, stamp, "camera")
        images.publish(message)
    answer = graph.until(lambda: next((p for p in graph.people
                                       if p.status == People.STATUS_BAD_IMAGE), None),
                         each=publish, pause=0.1)
    assert "driver must stamp each image" in answer.status_text and not answer.people
    graph.until(lambda: reports and reports[-1].status[0].level == DiagnosticStatus.WARN
                and "stamp" in reports[-1].status[0].message, each=publish, pause=0.1)
    first = len(graph.people)
    end = time.monotonic() + 1.5
    graph.until(lambda: time.monotonic() > end, each=publish, pause=0.05)
    assert len(graph.people) - first <= 2  # not with every image
    assert graph.ask(images, graph.image(PICTURE)).status == People.STATUS_OK
    assert not node.statistics.problem


@pytest.mark.parametrize("rate", [0.5, 1.0, 3.0, 30.0, 120.0])
def test_diagnostics_of_a_slow_camera_are_no_alarm(rate):
    """A report each second says OK while images come, and STALE soon after they end."""
    counts, now, due = NodeStatistics(), 100.0, 100.0
    levels = []
    for second in range(30):
        while due <= now + second and second < 20:
            counts.count_received(due)
            counts.processed += 1
            due += 1 / rate
        levels.append(counts.status(now + second)[0])
        found = counts.rates_hz(now + second)
        if 8 <= second < 20:
            assert found[0] == pytest.approx(rate, rel=0.25) and found == (found[0], found[0])
    assert set(levels[1:20]) == {DiagnosticStatus.OK}
    assert levels[-1] == DiagnosticStatus.STALE
    assert levels[20 + int(max(2.5 / rate, 1.5)) + 1] == DiagnosticStatus.STALE


@pytest.mark.parametrize("interval_s, lifetime_s", [(0.033, 0.5), (0.5, 1.25), (2.0, 5.0)])
def test_markers_live_until_the_next_image(graph, start, some_people, interval_s, lifetime_s):
    node, images = start(some_people, body_marker_hz=0.0), graph.camera()
    heard = graph.listen(MarkerArray, "/ros2_pose/markers")
    graph.until(lambda: node.pose_publishers._markers.get_subscription_count() > 0)
    for number in range(4):
        message = graph.image(PICTURE)
        message.header = header_message(make, round((10 + number * interval_s) * 1e9), "camera")
        graph.ask(images, message)
    graph.until(lambda: len(heard) == 4)
    lasts = heard[-1].markers[0].lifetime
    assert lasts.sec + lasts.nanosec * 1e-9 == pytest.approx(lifetime_s, abs=0.01)


def test_stamps_that_do_not_increase_are_ignored_and_counted(graph, start, some_people):
    """A repeated or late image is nothing new, and a transform of the same time again would be
    refused by every listener."""
    node = start(some_people)
    images, frames = graph.camera(), graph.listen(TFMessage, "/tf")
    first, second = graph.image(PICTURE), graph.image(PICTURE)
    graph.ask(images, second)
    for count, message in enumerate((second, first, second), 1):
        images.publish(message)
        graph.until(lambda: node.statistics.stale >= count)
    graph.ask(images, graph.image(PICTURE))
    graph.until(lambda: len(frames) >= 2)
    stamps = [(f.transforms[0].header.stamp.sec, f.transforms[0].header.stamp.nanosec)
              for f in frames]
    assert len(stamps) == len(set(stamps)) == len(node.pipeline.frames) == 2
    assert len(graph.people) == 2


def test_a_bag_that_loops_is_looked_at_again(graph, start, some_people):
    """Time that goes back by more than a late image does is another time."""
    node = start(some_people)
    images, frames = graph.camera(), graph.listen(TFMessage, "/tf")
    early, late = graph.image(PICTURE), graph.image(PICTURE)
    late.header.stamp.sec += 3600
    for message in (early, late, early, late):
        graph.people.clear()
        graph.ask(images, message)
    graph.until(lambda: len(frames) >= 4)
    assert [frame.stamp for frame in node.pipeline.frames] == 2 * [
        stamp_of(early.header), stamp_of(late.header)]
    assert node.statistics.stale == 0


def test_nothing_is_drawn_for_nobody(graph, start, monkeypatch):
    def never(*arguments):
        raise AssertionError("drawn although nobody asked")
    for name in ("overlay", "marker_array"):
        monkeypatch.setattr(f"ros2_pose.nodes.publishers.{name}", never)
    node = start()
    graph.ask(graph.camera(), graph.image(PICTURE))
    assert not node.statistics.last_error


def test_surfaces_are_shown_less_often_than_skeletons(graph, start, upright):
    people, body = upright
    node = start(people, body_marker_hz=10.0)
    node.pipeline.body = body
    heard = graph.listen(MarkerArray, "/ros2_pose/markers")
    graph.until(lambda: node.pose_publishers._markers.get_subscription_count() > 0)
    images = graph.camera()
    begin, times = time.monotonic(), []
    for _ in range(20):  # the stamps say 30 Hz: the rate is that of real time
        graph.ask(images, graph.image(PICTURE))
        times.append(time.monotonic() - begin)
    graph.until(lambda: len(heard) >= 20)
    surfaces = sum(any(m.type == Marker.TRIANGLE_LIST for m in message.markers)
                   for message in heard)
    assert 1 <= surfaces <= times[-1] / 0.09 + 1
    assert surfaces < 20 or times[-1] > 1.7
    assert all(len(message.markers) >= 3 for message in heard)


# Parameters -------------------------------------------------------------------------------------


def test_live_settings_reach_the_pipeline(graph, start):
    node, images = start(), graph.camera()
    assert node.set_parameters([Parameter("fov_deg", value=60)])[0].successful
    graph.ask(images, graph.image(PICTURE))
    assert node.pipeline.config.fov_deg == 60.0


@pytest.mark.parametrize("name, value, word", [
    ("fov_deg", 200.0, "fov_deg"), ("fov_deg", "wide", "fov_deg"), ("max_people", 0, "max_people"),
    ("device", "cuda", "clean the node up")])
def test_settings_that_are_not_allowed_are_refused(start, name, value, word):
    node = start()
    before = node.parameters.pose
    result = node.set_parameters([Parameter(name, value=value)])[0]
    assert not result.successful and word in result.reason
    assert node.parameters.pose == before


def test_every_parameter_is_described(start):
    node = start()
    for spec in (*fields(PoseConfig), *fields(NodeConfig)):
        assert node.describe_parameter(spec.name).description == spec.metadata["help"]
    limits = node.describe_parameter("score_threshold").floating_point_range[0]
    assert (limits.from_value, limits.to_value) == (0.0, 1.0)


def test_a_mistyped_parameter_is_an_error(start):
    with pytest.raises(ConfigError, match="scor_threshold"):
        start(scor_threshold=0.4)


def test_the_parameter_file_holds_every_default():
    text = (Path(__file__).parents[1] / "config" / "pose.yaml").read_text()
    given = yaml.safe_load(text)["/**"]["ros__parameters"]
    defaults = {f.name: list(f.default) if isinstance(f.default, tuple) else f.default
                for f in (*fields(PoseConfig), *fields(NodeConfig))}
    assert given == defaults
    assert list(given) == list(defaults)
    assert text == parameter_file.text(), \
        "python -m ros2_pose.tools.parameter_file > config/pose.yaml"


# cv_bridge --------------------------------------------------------------------------------------


_KINDS = {"16SC1": ("int16", 1), "8SC3": ("int8", 3), "bgr8": ("uint8", 3), "64FC1": ("float64", 1)}


@pytest.fixture
def cv_bridge(monkeypatch):
    """Function that lets `from cv_bridge import CvBridge` find a stand-in that converts so."""
    def install(convert_image):
        module = ModuleType("cv_bridge")
        module.CvBridge = lambda: SimpleNamespace(
            imgmsg_to_cv2=convert_image,
            encoding_to_dtype_with_channels=lambda encoding: _KINDS[encoding])
        monkeypatch.setitem(sys.modules, "cv_bridge", module)
        message_factory._cv_bridge.cache_clear()
    yield install
    message_factory._cv_bridge.cache_clear()


def _image(encoding, rows):
    return make("sensor_msgs/msg/Image", height=len(rows), width=2, step=rows[0].nbytes,
                encoding=encoding, data=np.ascontiguousarray(rows).view(np.uint8).reshape(-1))


def test_cv_bridge_reads_only_what_the_core_does_not_know(cv_bridge):
    used = []

    def imgmsg_to_cv2(message, wanted):
        used.append((message.encoding, message.step, len(message.data), wanted))
        return np.full((2, 2, 3), 7, np.uint8)
    cv_bridge(imgmsg_to_cv2)
    known = np.arange(12, dtype=np.uint8).reshape(2, 6)
    np.testing.assert_array_equal(message_factory.read_image(_image("bgr8", known)),
                                  known.reshape(2, 2, 3)[..., ::-1])
    assert used == []
    padded = np.zeros((2, 10), np.uint8)  # four bytes of pixels and six of padding
    assert (message_factory.read_image(_image("16SC1", padded)) == 7).all()
    assert (message_factory.read_image(_image("8SC3", np.zeros((2, 7), np.uint8))) == 7).all()
    assert used == [("16SC1", 4, 8, "rgb8"), ("8SC3", 6, 12, "rgb8")]


@pytest.mark.parametrize("breaks", [
    AttributeError("_ARRAY_API not found"), KeyError(16), ImportError("numpy.core.multiarray")])
def test_a_broken_cv_bridge_is_not_used(monkeypatch, cv_bridge, breaks, caplog):
    def fail():
        raise breaks
    cv_bridge(None)
    sys.modules["cv_bridge"].CvBridge = fail
    with pytest.raises(ImageError, match="'64FC1' cannot be read; publish one of rgb8"):
        message_factory.read_image(_image("64FC1", np.zeros((2, 16), np.uint8)))
    assert not caplog.records  # nothing is wrong


def test_what_cv_bridge_cannot_read_is_named(cv_bridge):
    def imgmsg_to_cv2(message, wanted):
        raise RuntimeError("no conversion")
    cv_bridge(imgmsg_to_cv2)
    with pytest.raises(ImageError, match="'64FC1'.*no conversion"):
        message_factory.read_image(_image("64FC1", np.zeros((2, 16), np.uint8)))
