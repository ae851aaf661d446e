"""The Foxglove layout shows topics that the node has, in panels that can show them."""

from __future__ import annotations

import json
import re
from pathlib import Path

_ROOT = Path(__file__).parents[1]
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


def _types() -> dict[str, str]:
    """The README's table: type by full topic name, of a node without namespace."""
    rows = re.findall(r"^\| `([^`<]+)`(?: \(in\))? \| \[?`(\w+/\w+)`",
                      (_ROOT / "README.md").read_text(), re.M)
    return {topic.replace("~", "/ros2_pose") if topic.startswith("~") else
            "/" + topic.lstrip("/"): kind for topic, kind in rows}


def test_every_panel_is_laid_out_once():
    assert sorted(_panels(_LAYOUT["layout"])) == sorted(_LAYOUT["configById"])


def test_panels_show_topics_that_are_there_and_that_they_can_show():
    types = _types()
    for panel, config in _LAYOUT["configById"].items():
        named = _topics(config)
        assert named, panel
        for topic in named:
            assert types[topic] in _SHOWS[panel.partition("!")[0]], (panel, topic)


def test_people_are_seen_in_the_image_and_in_space_and_the_node_is_watched():
    named = _topics(_LAYOUT["configById"])
    assert {"/ros2_pose/overlay", "/ros2_pose/markers", "/diagnostics"} <= named
