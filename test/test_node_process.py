"""The installed node as a process of its own, over DDS, with the real network and body."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: run make test")
pytest.importorskip("ros2_pose.msg", reason="needs the built messages: run make test")

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from ros2_pose.msg import People, Person, SkeletonInfo
from ros_helpers import (
    BEST_EFFORT,
    FRAME,
    INSTALL,
    LATCHED,
    camera_info,
    compressed,
    installed_node,
)
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import MarkerArray

from ros2_pose.imaging.contrast import grey_ramp


@pytest.fixture(scope="module")
def picture(clip) -> np.ndarray:
    """(480, 272, 3) of three people, small so that it passes quickly."""
    return cv2.resize(clip[0], (272, 480), interpolation=cv2.INTER_AREA)


def _jpeg(picture) -> bytes:
    return cv2.imencode(".jpg", picture[..., ::-1])[1].tobytes()


def test_images_become_people(graph, picture, tmp_path):
    """Every output of a calibrated, reliable camera, with the image's stamp and frame."""
    markers = graph.listen(MarkerArray, "/ros2_pose/markers")
    overlays = graph.listen(Image, "/ros2_pose/overlay")
    frames = graph.listen(TFMessage, "/tf")
    reports = graph.listen(DiagnosticArray, "/diagnostics")
    infos = graph.listen(SkeletonInfo, "/ros2_pose/skeleton_info", LATCHED)
    images, calibration = graph.camera(), graph.node.create_publisher(CameraInfo, "/camera_info", 5)
    with installed_node(graph, tmp_path):
        graph.matched(images)
        graph.matched(calibration)
        graph.until(lambda: markers and overlays and frames and infos and len(reports) > 1, 60,
                    lambda: (calibration.publish(camera_info(272, 480)),
                             images.publish(graph.image(picture))), pause=0.2)
        answer = graph.ask(images, graph.image(picture))
    assert (answer.status, answer.status_text) == (People.STATUS_OK, "")
    assert (answer.image_width, answer.image_height) == (272, 480)
    assert answer.header.frame_id == FRAME and answer.frames_received >= len(graph.people)
    tracked = [p for p in answer.people if p.tracking_state == Person.TRACKED]
    assert len(tracked) >= 2
    for person in tracked:
        assert person.has_body and 0.5 < person.pose.pose.position.z < 30
        assert len(person.joints) == 3 * Person.JOINT_COUNT
    assert overlays[0].header.frame_id == FRAME and overlays[0].encoding == "rgb8"
    assert not np.array_equal(np.reshape(overlays[-1].data, picture.shape), picture)
    assert {t.header.frame_id for f in frames for t in f.transforms
            if "_" not in t.child_frame_id} == {FRAME}
    assert any(m.ns == tracked[0].id for m in markers[-1].markers)
    assert infos[0].network == "top_down" and len(infos[0].joint_names) == 24
    values = {v.key: v.value for v in reports[-1].status[0].values}
    assert values["device"] in ("cpu", "cuda") and values["reliability"] == "reliable"
    assert re.fullmatch(r"(\S+ on (cpu|cuda)(, )?)+", values["engine"])


def test_best_effort_camera_without_calibration(graph, picture, tmp_path):
    """2D with the reason why; a field of view given while running brings the bodies."""
    images = graph.camera(BEST_EFFORT)
    with installed_node(graph, tmp_path):
        flat = graph.ask(images, graph.image(picture))
        assert flat.status == People.STATUS_2D_ONLY and "fov_deg" in flat.status_text
        assert len(flat.people) >= 2 and not any(p.has_body for p in flat.people)
        setter = graph.node.create_client(SetParameters, "/ros2_pose/set_parameters")
        assert setter.wait_for_service(10)
        fov = Parameter("fov_deg", value=60).to_parameter_msg()
        done = setter.call_async(SetParameters.Request(parameters=[fov]))
        assert graph.until(done.done) and done.result().results[0].successful
        solid = graph.ask(images, graph.image(picture))
    assert solid.status == People.STATUS_OK and any(p.has_body for p in solid.people)


def test_compressed_images_and_a_truncated_one(graph, picture, tmp_path):
    """A JPEG that was cut off is reported, and the next one is answered."""
    images = graph.camera(kind=CompressedImage, topic="/cam/image_raw/compressed")
    jpeg = _jpeg(picture)
    with installed_node(graph, tmp_path, "transport:=compressed", "image:=/cam/image_raw") as node:
        good = graph.ask(images, compressed(graph, jpeg))
        assert good.status == People.STATUS_2D_ONLY and len(good.people) >= 2
        bad = graph.ask(images, compressed(graph, jpeg[: len(jpeg) // 2]))
        assert bad.status == People.STATUS_BAD_IMAGE and "cut off" in bad.status_text
        assert not bad.people
        again = graph.ask(images, compressed(graph, jpeg))
        assert again.status == People.STATUS_2D_ONLY and len(again.people) >= 2
        assert node.poll() is None


def test_an_empty_scene_is_not_a_bad_image(graph, tmp_path):
    """Nobody there: an empty list that says OK. Could not look: a status that says why."""
    images, calibration = graph.camera(), graph.node.create_publisher(CameraInfo, "/camera_info", 5)
    room = grey_ramp(160, 120)
    wrong_step, wrong_encoding, empty = graph.image(room), graph.image(room), graph.image(room)
    wrong_step.step = 100
    wrong_encoding.encoding = "64FC1"
    empty.width = 0
    with installed_node(graph, tmp_path):
        graph.matched(calibration)
        answer = graph.until(lambda: next((p for p in graph.people if p.status == 0), None), 60,
                             lambda: (calibration.publish(camera_info(160, 120)),
                                      images.publish(graph.image(room))), pause=0.3)
        assert list(answer.people) == [] and answer.status_text == ""
        for message, word in ((wrong_step, "step is 100"), (wrong_encoding, "'64FC1'"),
                              (empty, "0x120")):
            message.header = graph.header()
            bad = graph.ask(images, message)
            assert bad.status == People.STATUS_BAD_IMAGE and word in bad.status_text
        assert graph.ask(images, graph.image(room)).status == People.STATUS_OK


def test_a_wrong_parameter_ends_the_node_with_one_line(tmp_path):
    command = [INSTALL / "lib" / "ros2_pose" / "pose_node", "--ros-args", "-p", "fov_deg:=200"]
    done = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, "ROS_LOG_DIR": str(tmp_path)}, timeout=60)
    assert done.returncode == 1 and "fov_deg: 200.0 is out of range" in done.stderr
    assert "Traceback" not in done.stderr
