"""The managed node: what it does in each state, and what it says when nothing comes."""

from __future__ import annotations

import gc
import logging
import threading
import time
import weakref
from functools import partial

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: run make test")
pytest.importorskip("ros2_pose.msg", reason="needs the built messages: run make test")

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.parameter import Parameter
from ros2_pose.msg import People
from ros_helpers import (
    BEST_EFFORT,
    PICTURE,
    RELIABLE,
    FakePipeline,
    Graph,
    camera_info,
    installed_node,
)
from sensor_msgs.msg import CameraInfo

from ros2_pose.imaging.contrast import grey_ramp
from ros2_pose.nodes.pose_node import NodeError
from ros2_pose.pipeline import PipelineError


@pytest.fixture
def start(start):
    """Function that makes a node around a pipeline that is made up, not yet configured."""
    return partial(start, autostart=False)


class Manager:
    """Moves a node through its states, as nav2's lifecycle manager does: by its services."""

    def __init__(self, graph: Graph, node: str = "/ros2_pose"):
        self.graph = graph
        self._change = graph.node.create_client(ChangeState, f"{node}/change_state")
        self._get = graph.node.create_client(GetState, f"{node}/get_state")
        graph.until(self._change.service_is_ready, 60)
        graph.until(self._get.service_is_ready, 60)

    def _call(self, client, request):
        done = client.call_async(request)
        self.graph.until(done.done, 60)
        return done.result()

    def change(self, transition: int) -> bool:
        return self._call(self._change, ChangeState.Request(
            transition=Transition(id=transition))).success

    @property
    def state(self) -> int:
        return self._call(self._get, GetState.Request()).current_state.id


def topics(graph) -> set[str]:
    return {name for name, _ in graph.node.get_topic_names_and_types()}


# States -----------------------------------------------------------------------------------------


def test_a_manager_moves_the_node_through_its_states(graph, start):
    node = start()
    manager, images = Manager(graph), graph.camera()
    assert manager.state == State.PRIMARY_STATE_UNCONFIGURED and node.pipeline is None
    assert manager.change(Transition.TRANSITION_CONFIGURE)
    assert manager.state == State.PRIMARY_STATE_INACTIVE
    assert images.get_subscription_count() == 0  # it has what it needs, and does not look
    assert manager.change(Transition.TRANSITION_ACTIVATE)
    assert graph.ask(images, graph.image(PICTURE)).status == People.STATUS_OK
    assert manager.change(Transition.TRANSITION_DEACTIVATE)
    graph.until(lambda: images.get_subscription_count() == 0)
    assert node.pipeline.resets == 1
    assert manager.change(Transition.TRANSITION_ACTIVATE)
    assert graph.ask(images, graph.image(PICTURE)).status == People.STATUS_OK
    assert manager.change(Transition.TRANSITION_DEACTIVATE)
    assert manager.change(Transition.TRANSITION_CLEANUP)
    assert manager.state == State.PRIMARY_STATE_UNCONFIGURED
    graph.until(lambda: "/ros2_pose/markers" not in topics(graph))
    assert manager.change(Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
    assert manager.state == State.PRIMARY_STATE_FINALIZED


def test_cleaning_up_frees_the_networks_and_leaves_nothing_behind(graph, start):
    node = start()

    def cycle():
        node.autostart()
        pipeline = weakref.ref(node.pipeline)
        node.trigger_deactivate()
        node.trigger_cleanup()
        gc.collect()
        assert pipeline() is None
        return (threading.active_count(), len(list(node.publishers)),
                len(list(node.subscriptions)), len(list(node.timers)))
    first = cycle()
    assert [cycle() for _ in range(3)] == 3 * [first]


def test_a_model_that_is_missing_fails_the_transition_with_the_reason(graph, start, caplog):
    there = []

    def made(config, people):
        if not there:
            raise PipelineError("body_model: smpl.npz is missing; give its path")
        return FakePipeline(config)
    node = start(make_pipeline=made)
    manager = Manager(graph)
    with caplog.at_level(logging.ERROR, "ros2_pose"):
        assert not manager.change(Transition.TRANSITION_CONFIGURE)
    assert "smpl.npz is missing" in caplog.text
    assert manager.state == State.PRIMARY_STATE_UNCONFIGURED
    with pytest.raises(NodeError, match="smpl.npz is missing"):
        node.autostart()
    there.append(True)
    assert manager.change(Transition.TRANSITION_CONFIGURE)
    assert manager.change(Transition.TRANSITION_ACTIVATE)
    assert graph.ask(graph.camera(), graph.image(PICTURE)).status == People.STATUS_OK


def test_settings_that_are_not_live_change_while_unconfigured(graph, start):
    node = start()
    assert node.set_parameters([Parameter("transport", value="compressed")])[0].successful
    node.autostart()
    assert node.camera_subscriptions[0].image.topic == "/image/compressed"
    refused = node.set_parameters([Parameter("transport", value="raw")])[0]
    assert not refused.successful and "clean the node up" in refused.reason
    node.trigger_deactivate()
    node.trigger_cleanup()
    assert node.set_parameters([Parameter("transport", value="raw")])[0].successful


def test_an_image_that_takes_for_ever_does_not_keep_the_node(graph, start):
    node, images, go_on = start(), graph.camera(), threading.Event()
    node.autostart()
    node.pipeline.before = lambda frame: go_on.wait(60)
    graph.matched(images)
    images.publish(graph.image(PICTURE))
    graph.until(lambda: node.pipeline.frames)
    began = time.monotonic()
    ended = node.close()
    assert not ended and time.monotonic() - began < 2
    go_on.set()


def test_the_installed_node_waits_for_its_manager(graph, tmp_path):
    with installed_node(graph, tmp_path, "autostart:=false"):
        manager = Manager(graph)
        assert manager.state == State.PRIMARY_STATE_UNCONFIGURED
        assert manager.change(Transition.TRANSITION_CONFIGURE)
        assert manager.change(Transition.TRANSITION_ACTIVATE)
        images = graph.camera()
        room = grey_ramp(160, 120)
        assert graph.ask(images, graph.image(room)).status == People.STATUS_2D_ONLY


def test_a_gpu_that_is_asked_for_and_not_there_ends_the_node(tmp_path):
    import torch
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    from ros2_pose.config import PoseConfig
    from ros2_pose.networks.onnx_engine import EngineError
    from ros2_pose.pipeline import Pipeline
    with pytest.raises(EngineError, match="require_gpu"):
        Pipeline(PoseConfig(require_gpu=True))
    with pytest.raises(EngineError, match="one of the two"):
        Pipeline(PoseConfig(device="cpu", require_gpu=True))


# Nothing comes ----------------------------------------------------------------------------------


def silence(graph) -> People:
    return graph.until(lambda: next((p for p in graph.people
                                     if p.status == People.STATUS_NO_IMAGE), None))


def test_a_topic_that_nobody_publishes_is_named(graph, start):
    start(silence_s=1.0).autostart()
    said = silence(graph)
    assert "/image" in said.status_text and "has no publisher" in said.status_text
    assert not said.people and said.header.frame_id == ""


def test_a_camera_that_falls_silent_is_reported_until_it_is_back(graph, start):
    start(silence_s=1.0).autostart()
    images = graph.camera()
    last = graph.image(PICTURE)
    graph.ask(images, last)
    said = silence(graph)
    assert said.header == last.header and "1 publisher(s)" in said.status_text
    graph.node.destroy_publisher(images)
    graph.people.clear()
    graph.until(lambda: any("has no publisher" in p.status_text for p in graph.people))
    assert graph.ask(graph.camera(), graph.image(PICTURE)).status == People.STATUS_OK


def test_a_reliability_that_does_not_fit_names_both_sides(graph, start):
    start(silence_s=1.0, reliability="reliable").autostart()
    graph.camera(BEST_EFFORT)
    reports = graph.listen(DiagnosticArray, "/diagnostics")
    text = graph.until(lambda: next((p.status_text for p in graph.people
                                     if "incompatible" in p.status_text), None))
    assert "incompatible reliability" in text
    assert "offer best_effort" in text and "subscription requests reliable" in text
    graph.until(lambda: any("incompatible" in r.status[0].message for r in reports))


def test_a_slow_camera_is_not_silent_between_its_images(graph, start):
    """1.4 s apart, with a silence_s of 1 s: silent after 2.5 such intervals, not before."""
    start(silence_s=1.0).autostart()
    images = graph.camera()
    graph.matched(images)
    for number in range(5):
        images.publish(graph.image(PICTURE))
        end = time.monotonic() + 1.4
        graph.until(lambda: time.monotonic() > end)
        if number == 1:
            graph.people.clear()
    assert {p.status for p in graph.people} == {People.STATUS_OK}
    graph.until(lambda: graph.people[-1].status == People.STATUS_NO_IMAGE, 5)


def test_images_lost_on_the_way_are_noticed_by_their_calibrations(graph, start):
    node = start()
    node.autostart()
    images = graph.camera()
    infos = graph.node.create_publisher(CameraInfo, "/camera_info", RELIABLE)
    reports = graph.listen(DiagnosticArray, "/diagnostics")
    graph.matched(infos)
    graph.matched(images)

    def two_in_three_lost():
        for number in range(3):
            infos.publish(camera_info(64, 48))
        images.publish(graph.image(PICTURE))
    text = graph.until(lambda: next((r.status[0].message for r in reports
                                     if "lost in transport" in r.status[0].message), None),
                       30, two_in_three_lost, pause=0.1)
    assert "net.core.rmem_max" in text and "transport" in text


def test_messages_in_a_row_are_logged_once_in_a_while(graph, start, capfd):
    node, images = start(), graph.camera()
    node.autostart()
    graph.matched(images)

    def broken():
        message = graph.image(PICTURE)
        message.encoding = "nonsense"
        images.publish(message)
    graph.until(lambda: node.statistics.bad_images > 5, each=broken)
    assert capfd.readouterr().err.count("'nonsense'") == 1
    assert graph.ask(images, graph.image(PICTURE)).status == People.STATUS_OK
