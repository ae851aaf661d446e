"""The managed node lives through every sequence of requests, and ends what it said before."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from functools import partial
from types import ModuleType

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: run make test")
pytest.importorskip("ros2_pose.msg", reason="needs the built messages: run make test")

from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.parameter import Parameter
from ros2_pose.msg import People
from ros_helpers import INSTALL, PICTURE
from test_lifecycle import Manager
from visualization_msgs.msg import Marker, MarkerArray

from ros2_pose.nodes.message_factory import message_class

_UNCONFIGURED, _INACTIVE, _ACTIVE, _FINALIZED = "unconfigured", "inactive", "active", "finalized"
_IDS = {_UNCONFIGURED: State.PRIMARY_STATE_UNCONFIGURED, _INACTIVE: State.PRIMARY_STATE_INACTIVE,
        _ACTIVE: State.PRIMARY_STATE_ACTIVE, _FINALIZED: State.PRIMARY_STATE_FINALIZED}
# What the design of managed nodes allows (design.ros2.org): state, transition, label: next state.
_LEGAL = {
    (_UNCONFIGURED, Transition.TRANSITION_CONFIGURE, "configure"): _INACTIVE,
    (_UNCONFIGURED, Transition.TRANSITION_UNCONFIGURED_SHUTDOWN, "shutdown"): _FINALIZED,
    (_INACTIVE, Transition.TRANSITION_ACTIVATE, "activate"): _ACTIVE,
    (_INACTIVE, Transition.TRANSITION_CLEANUP, "cleanup"): _UNCONFIGURED,
    (_INACTIVE, Transition.TRANSITION_INACTIVE_SHUTDOWN, "shutdown"): _FINALIZED,
    (_ACTIVE, Transition.TRANSITION_DEACTIVATE, "deactivate"): _INACTIVE,
    (_ACTIVE, Transition.TRANSITION_ACTIVE_SHUTDOWN, "shutdown"): _FINALIZED,
}
_BY_ID = {(state, number): after for (state, number, _), after in _LEGAL.items()}
_BY_LABEL = {(state, label): after for (state, _, label), after in _LEGAL.items()}
_REQUESTS = [*range(10), 10, 60, 99, 255, "configure", "cleanup", "activate", "deactivate",
             "shutdown", "nonsense", "destroy", "transition_success"]


@pytest.fixture
def start(start):
    return partial(start, autostart=False)


def _request(manager: Manager, wanted) -> bool:
    transition = Transition(label=wanted) if isinstance(wanted, str) else Transition(id=wanted)
    return manager._call(manager._change, ChangeState.Request(transition=transition)).success


@pytest.mark.parametrize("seed", range(3))
def test_a_random_walk_over_the_state_machine(graph, start, seed):
    """Requests by services, as `ros2 lifecycle` and nav2's manager send them, while images come."""
    rng, state, visited = random.Random(seed), _UNCONFIGURED, set()
    node, images = start(), graph.camera()
    manager = Manager(graph)
    for _ in range(60):
        wanted = rng.choice(_REQUESTS)
        if state != _ACTIVE and wanted == "shutdown" and rng.random() < 0.7:
            continue  # or most walks would be short
        table = _BY_LABEL if isinstance(wanted, str) else _BY_ID
        after = table.get((state, wanted))
        assert _request(manager, wanted) == (after is not None), (state, wanted)
        state = after or state
        visited.add(state)
        assert manager.state == _IDS[state]
        assert (node.worker is not None) == (state == _ACTIVE)
        images.publish(graph.image(PICTURE))
        if state == _FINALIZED:
            break
    if state == _ACTIVE:
        assert graph.ask(images, graph.image(PICTURE)).status == People.STATUS_OK
    assert len(visited) >= 2


@pytest.mark.parametrize("sequence", [
    ("configure", "activate", "deactivate", "deactivate", "shutdown"),  # PAUSE, SHUTDOWN
    ("configure", "activate", "deactivate", "deactivate", "cleanup"),  # PAUSE, RESET
    ("configure", "activate", "activate", 3, "deactivate", "shutdown"),  # RESUME while active
    ("cleanup", "deactivate", "activate", "configure", "configure", "shutdown", "configure")])
def test_what_nav2s_manager_sends(graph, start, sequence):
    start()
    manager, state = Manager(graph), _UNCONFIGURED
    for wanted in sequence:
        table = _BY_LABEL if isinstance(wanted, str) else _BY_ID
        after = table.get((state, wanted))
        assert _request(manager, wanted) == (after is not None)
        state = after or state
        assert manager.state == _IDS[state]


# What is left when it stops -----------------------------------------------------------------------


@pytest.fixture
def told(graph):
    """Lists of what costmaps, ROS4HRI, others and RViz hear."""
    return [graph.listen(message_class(kind), topic) for kind, topic in (
        ("people_msgs/msg/People", "/people"), ("hri_msgs/msg/IdsList", "/humans/bodies/tracked"),
        ("vision_msgs/msg/Detection3DArray", "/ros2_pose/detections"))]


def _members(message) -> list:
    return next(getattr(message, name) for name in ("people", "ids", "detections")
                if hasattr(message, name))


def _look(graph, start, told, people, **parameters):
    node, images = start(people, navigation_frame="camera_optical_frame", rep155=True,
                         detections=True, **parameters), graph.camera()
    node.autostart()
    graph.until(lambda: all(heard and _members(heard[-1]) for heard in told),
                each=lambda: images.publish(graph.image(PICTURE)), pause=0.2)
    return node, images


@pytest.mark.parametrize("ways", [("deactivate",), ("deactivate", "cleanup"), ("shutdown",)])
def test_a_node_that_stops_leaves_no_ghosts(graph, start, told, some_people, ways):
    markers = graph.listen(MarkerArray, "/ros2_pose/markers")
    node, _ = _look(graph, start, told, some_people)
    for way in ways:
        getattr(node, f"trigger_{way}")()
    graph.until(lambda: not any(_members(heard[-1]) for heard in told))
    graph.until(lambda: markers and markers[-1].markers[0].action == Marker.DELETEALL)
    graph.until(lambda: graph.people[-1].status == People.STATUS_NO_IMAGE)
    assert "told to stop" in graph.people[-1].status_text and not graph.people[-1].people


def test_a_silent_camera_keeps_people_unless_a_timeout_is_set(graph, start, told, some_people):
    node, images = _look(graph, start, told, some_people)
    time.sleep(0.3)
    graph.until(lambda: True)
    counts = [len(heard) for heard in told]
    end = time.monotonic() + 1.5
    graph.until(lambda: time.monotonic() > end)
    assert [len(heard) for heard in told] == counts and all(_members(h[-1]) for h in told)
    node.set_parameters([Parameter(
        "people_timeout_s", value=0.5)])
    graph.until(lambda: not any(_members(heard[-1]) for heard in told))
    counts = [len(heard) for heard in told]
    end = time.monotonic() + 1.0
    graph.until(lambda: time.monotonic() > end)
    assert [len(heard) for heard in told] == counts  # said once
    graph.until(lambda: all(_members(heard[-1]) for heard in told),
                each=lambda: images.publish(graph.image(PICTURE)), pause=0.2)


# Bond and interruption ----------------------------------------------------------------------------


class _Bond:
    """Stands in for bondpy's."""

    made: list[_Bond] = []

    def __init__(self, topic, id, node):
        self.topic, self.id, self.said = topic, id, []
        _Bond.made.append(self)

    def start(self):
        self.said.append("start")

    def shutdown(self):
        self.said.append("shutdown")


def test_a_managed_node_has_a_bond_while_it_is_active(graph, start, monkeypatch):
    package, module = ModuleType("bondpy"), ModuleType("bondpy.bondpy")
    module.Bond, package.bondpy, _Bond.made = _Bond, module, []
    monkeypatch.setitem(sys.modules, "bondpy", package)
    monkeypatch.setitem(sys.modules, "bondpy.bondpy", module)
    node = start()
    node.trigger_configure()
    assert not _Bond.made
    node.trigger_activate()
    (bond,) = _Bond.made
    assert (bond.topic, bond.id, bond.said) == ("bond", "ros2_pose", ["start"])
    assert bond.heartbeat_timeout == 4.0
    node.trigger_deactivate()
    assert bond.said == ["start", "shutdown"]


@pytest.mark.parametrize("after_s", [0.0, 0.3, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("times", [1, 2])
def test_an_interruption_at_any_time_leaves_no_traceback(tmp_path, graph, after_s, times):
    command = [sys.executable, INSTALL / "lib" / "ros2_pose" / "pose_node"]
    process = subprocess.Popen(command, cwd=tmp_path, text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT)
    try:
        time.sleep(0.6 + after_s)  # Python itself is up
        for _ in range(times):
            process.send_signal(signal.SIGINT)
            time.sleep(0.05)
        said = process.communicate(timeout=15)[0]
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0 and "Traceback" not in said, said
