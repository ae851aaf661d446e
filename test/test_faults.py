"""Faults put into a running node on purpose: what is lost, what is said, and that it lives on.

Here are those of cameras, parameters and files. A silent camera and a missing model:
test_lifecycle. A clock that jumps: test_node. A TF tree that breaks: test_node_frames.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: run make test")
pytest.importorskip("ros2_pose.msg", reason="needs the built messages: run make test")
pytest.importorskip("hypothesis", reason="only where requirements-test.txt is installed")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lifecycle_msgs.msg import Transition
from rclpy.exceptions import ParameterException
from rclpy.parameter import Parameter
from ros2_pose.msg import People
from ros_helpers import PICTURE, RELIABLE, FakePipeline, Graph, camera_info, installed_node
from sensor_msgs.msg import CameraInfo
from test_body_smpl_file import arrays  # noqa: F401, a fixture
from test_lifecycle import Manager

from ros2_pose.config import PoseConfig
from ros2_pose.imaging.contrast import grey_ramp
from ros2_pose.node_config import NodeConfig
from ros2_pose.nodes.pose_node import PoseNode

_ROOM = grey_ramp(160, 120)


def _memory_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def _broken(graph, number: int):
    """A malformed image, another kind each time."""
    image = graph.image(PICTURE)
    kind = number % 6
    if kind == 0:
        image.encoding = "nonsense"
    elif kind == 1:
        image.step = 7
    elif kind == 2:
        image.width = 2**31
    elif kind == 3:
        image.data = image.data[:100]
    elif kind == 4:
        image.height = 0
    else:
        image.encoding, image.data = "", image.data[:0]
    return image


def test_a_thousand_malformed_images_cost_nothing_but_themselves(graph, tmp_path):
    images = graph.camera()
    with installed_node(graph, tmp_path) as node:
        assert graph.ask(images, graph.image(_ROOM)).status == People.STATUS_2D_ONLY
        for _ in range(5):  # until inference has all its buffers
            graph.ask(images, graph.image(_ROOM))
        before = _memory_mb(node.pid)
        number, end = 0, time.monotonic() + 120
        while number < 1000 or graph.people[-1].frames_received < 400:  # the rest is overtaken
            assert time.monotonic() < end, graph.people[-1]
            heard = len(graph.people)
            images.publish(_broken(graph, number))
            number += 1
            if number % 4 == 0:  # no more on the way than the topic's depth
                graph.until(lambda: len(graph.people) > heard, pause=0.001)
        answer = graph.ask(images, graph.image(_ROOM))
        grown = _memory_mb(node.pid) - before
    assert answer.status == People.STATUS_2D_ONLY
    bad = [p for p in graph.people if p.status == People.STATUS_BAD_IMAGE]
    assert len(bad) > 50 and all(p.status_text and not p.people for p in bad)
    assert len({p.status_text for p in bad}) >= 5  # each kind has a reason of its own
    assert grown < 20


def test_a_camera_that_changes_its_resolution(graph, tmp_path):
    """Between the images of the new size and its calibration there is 2D, and the reason."""
    images = graph.camera()
    infos = graph.node.create_publisher(CameraInfo, "/camera_info", RELIABLE)
    larger = grey_ramp(320, 240)

    def answer_with(size, picture, status):
        return graph.until(lambda: next((p for p in graph.people[-2:] if p.status == status and
                                         p.image_width == picture.shape[1]), None), 60,
                           lambda: (infos.publish(camera_info(*size)),
                                    images.publish(graph.image(picture))), pause=0.3)
    with installed_node(graph, tmp_path):
        graph.matched(infos)
        answer_with((160, 120), _ROOM, People.STATUS_OK)
        between = answer_with((160, 120), larger, People.STATUS_2D_ONLY)
        assert "160x120" in between.status_text and "320x240" in between.status_text
        answer_with((320, 240), larger, People.STATUS_OK)


def test_two_hundred_images_a_second(graph, tmp_path):
    """Most are dropped and counted; what is looked at is always the newest, and the last too."""
    images = graph.camera()
    with installed_node(graph, tmp_path):
        first = graph.ask(images, graph.image(_ROOM))
        graph.people.clear()
        published, begin = [], time.monotonic()
        while time.monotonic() < begin + 3:
            image = graph.image(_ROOM)
            images.publish(image)
            published.append((image.header.stamp.sec, image.header.stamp.nanosec))
            graph.executor.spin_once(timeout_sec=0.0)
            time.sleep(max(0, begin + len(published) / 200 - time.monotonic()))

        def answered():
            return [(p.header.stamp.sec, p.header.stamp.nanosec) for p in graph.people]
        graph.until(lambda: published[-1] in answered(), 10)
        last = graph.people[-1]
    assert answered() == sorted(answered())
    received = last.frames_received - first.frames_received  # DDS lost the others
    dropped = last.frames_dropped - first.frames_dropped
    assert abs(received - dropped - len(graph.people)) <= 2  # asked again while it was looking
    assert 0.95 * len(published) <= received <= len(published) + 2
    assert len(graph.people) < len(published) / 2  # or this machine is too fast for the test


def test_two_nodes_in_two_namespaces_do_not_meet(graph, tmp_path):
    left = graph.listen(People, "/left/ros2_pose/people")
    right = graph.listen(People, "/right/ros2_pose/people")
    camera = graph.camera(topic="/left/image")
    with installed_node(graph, tmp_path, "__ns:=/left"), \
            installed_node(graph, tmp_path, "__ns:=/right"):
        graph.until(lambda: left, 60, lambda: camera.publish(graph.image(_ROOM)), pause=0.3)
        graph.until(lambda: right, 30)  # which says that nothing comes
    assert {p.status for p in right} == {People.STATUS_NO_IMAGE}
    assert "/right/image" in right[0].status_text
    assert People.STATUS_2D_ONLY in {p.status for p in left}


def test_a_model_file_that_disappears_between_configurations(graph, tmp_path, arrays):
    model, kept = tmp_path / "SMPL_MINE.npz", tmp_path / "kept.npz"
    np.savez(kept, **arrays)
    shutil.copy(kept, model)
    with installed_node(graph, tmp_path, "autostart:=false", f"body_model:={model.name}") as node:
        manager = Manager(graph)
        assert manager.change(Transition.TRANSITION_CONFIGURE)
        assert manager.change(Transition.TRANSITION_CLEANUP)
        model.unlink()
        assert not manager.change(Transition.TRANSITION_CONFIGURE)
        assert node.poll() is None
        shutil.copy(kept, model)
        assert manager.change(Transition.TRANSITION_CONFIGURE)


_VALUES = st.one_of(st.none(), st.booleans(), st.integers(-2**63, 2**63 - 1),
                    st.floats(), st.text(max_size=20), st.binary(max_size=8),
                    st.lists(st.integers(-2**63, 2**63 - 1), max_size=4),
                    st.lists(st.floats(), max_size=4), st.lists(st.text(max_size=5), max_size=4))
_SETTINGS = [*PoseConfig.__dataclass_fields__, *NodeConfig.__dataclass_fields__]
_NAMES = st.one_of(st.sampled_from(_SETTINGS), st.text(max_size=20))


@pytest.fixture(scope="module")
def node():
    graph = Graph()
    node = graph.add(PoseNode(FakePipeline, context=graph.context, use_global_arguments=False))
    node.autostart()
    yield node
    node.close()
    graph.close()


@settings(max_examples=150, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=_NAMES, value=_VALUES)
def test_parameter_garbage_is_refused_with_the_reason(node, name, value):
    """Or it is a value that the settings allow, and then it is in them."""
    try:
        parameter = Parameter(name, value=value)
    except (TypeError, ValueError, AssertionError):
        return  # rclpy cannot say it, so nobody can send it
    try:
        result = node.set_parameters([parameter])[0]
    except ParameterException:  # of an unknown name or another type
        return
    if not result.successful:
        assert result.reason
        return
    if name not in _SETTINGS:
        return  # nobody's
    holder = node.parameters.pose if hasattr(node.parameters.pose, name) else node.parameters.node
    found = getattr(holder, name)
    assert found == value or list(np.atleast_1d(found)) == list(np.atleast_1d(value))


@pytest.mark.parametrize("out", ["people.jsonl", "people", "people.mp4"])
def test_a_disk_that_is_full_ends_a_recording_with_one_line(clip, tmp_path, out):
    """What was finished before is kept; nothing hangs, and the status says that it is not whole."""
    import cv2
    for number, picture in enumerate(clip[:3]):
        cv2.imwrite(str(tmp_path / f"{number}.png"), cv2.resize(picture, (136, 240)))

    def small_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
    done = subprocess.run([sys.executable, "-m", "ros2_pose.cli", "replay", str(tmp_path),
                           str(tmp_path / out)], capture_output=True, text=True, timeout=120,
                          preexec_fn=small_disk, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"})
    assert done.returncode in (1, 2), done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert out in done.stderr, done.stderr
