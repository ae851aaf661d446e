"""The Foxglove layout shows topics that the node has, in panels that can show them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

_ROOT = Path(__file__).parents[1]
_RVIZ = yaml.safe_load((_ROOT / "config" / "pose.rviz").read_text())
_LAYOUT = json.loads((_ROOT / "config" / "foxglove.json").read_text())
# Which of our messages a kind of panel shows.
_SHOWS = {"Image": {"sensor_msgs/Image"}, "DiagnosticSummary": {"diagnostic_msgs/DiagnosticArray"},
          "3D": {"visualization_msgs/MarkerArray", "sensor_msgs/CameraInfo"},
          "RawMessages": {"ros2_pose/People"}}


def _topics(config) -> set[str]:
    """Every topic that a panel's settings name."""
    if isinstance(config, dict):
        return set().union(*(_topics(v) | _topics(k) for k, v in config.items()), set())
    return {config} if isinstance(config, str) and re.fullmatch(r"/\w[\w/]*", config) else set()


def _panels(place) -> list[str]:
    return [place] if isinstance(place, str) else _panels(place["first"]) + _panels(place["second"])


def _image_topic() -> str:
    """Of the README's first command that starts the node."""
    return re.search(r"ros2 launch ros2_pose pose\.launch\.py .*?image:=(\S+)",
                     (_ROOT / "README.md").read_text())[1]


def _types() -> dict[str, str]:
    """The README's table: type by full topic name, of a node that was started by its command."""
    image = _image_topic()
    moved = {"image": image, "camera_info": image.rpartition("/")[0] + "/camera_info"}
    rows = re.findall(r"^\| `([^`<]+)`(?: \(in\))? \| \[?`(\w+/\w+)`",
                      (_ROOT / "README.md").read_text(), re.M)
    return {moved.get(topic, "/" + topic.replace("~", "ros2_pose").lstrip("/")): kind
            for topic, kind in rows}


def test_every_panel_is_laid_out_once():
    assert sorted(_panels(_LAYOUT["layout"])) == sorted(_LAYOUT["configById"])


def test_panels_show_topics_that_are_there_and_that_they_can_show():
    types = _types()
    for panel, config in _LAYOUT["configById"].items():
        named = _topics(config)
        assert named, panel
        for topic in named:
            assert types[topic] in _SHOWS[panel.partition("!")[0]], (panel, topic)


def test_the_camera_is_that_of_the_readmes_command():
    """CameraInfo is beside the image topic, where the node reads it."""
    cameras = {topic for topic in _topics(_LAYOUT["configById"]["3D!space"])
               if topic.endswith("camera_info")}
    assert cameras == {_image_topic().rpartition("/")[0] + "/camera_info"}


@pytest.mark.parametrize("transport, suffix", [("raw", ""), ("compressed", "/compressed")])
def test_the_node_has_these_topics(request, transport, suffix):
    """As the README's command starts it: the camera is heard, what is shown is published."""
    pytest.importorskip("ros2_pose.msg", reason="needs the built messages: run make test")
    node = request.getfixturevalue("start")(remap=[f"image:={_image_topic()}"],
                                            transport=transport)

    def names(ask) -> set[str]:
        return {topic for topic, _ in ask("ros2_pose", "/")}
    info = _image_topic().rpartition("/")[0] + "/camera_info"
    assert {_image_topic() + suffix, info} <= names(node.get_subscriber_names_and_types_by_node)
    shown = _topics(_LAYOUT["configById"]) | {
        display["Topic"]["Value"] for display in _RVIZ["Visualization Manager"]["Displays"]
        if "Topic" in display}
    assert shown - {info} <= names(node.get_publisher_names_and_types_by_node)


def test_people_are_seen_in_the_image_and_in_space_and_the_node_is_watched():
    named = _topics(_LAYOUT["configById"])
    assert {"/ros2_pose/overlay", "/ros2_pose/markers", "/diagnostics"} <= named
