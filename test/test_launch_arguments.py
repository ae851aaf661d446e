"""Launch arguments of the node's parameters: of the right type, in range, and spelt right."""

from __future__ import annotations

import ast
import json
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

pytest.importorskip("rclpy", reason="needs ROS 2: run make test")

from ros2_pose.config import ConfigError, PoseConfig  # noqa: E402
from ros2_pose.node_config import NodeConfig  # noqa: E402
from ros2_pose.nodes import launch_arguments  # noqa: E402

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "config" / "pose.yaml"
SETTINGS = {f.name: f for f in (*fields(PoseConfig), *fields(NodeConfig))}


def test_every_parameter_is_an_argument_with_its_help_and_range():
    described = launch_arguments.descriptions()
    assert list(described) == list(SETTINGS)
    for name, text in described.items():
        meta = SETTINGS[name].metadata
        assert text.startswith(meta["help"]) and "empty: as in params_file" in text
        assert all(str(choice) in text for choice in meta["choices"])


def test_other_arguments_have_names_of_their_own():
    tree = ast.parse((ROOT / "ros2_pose/nodes/launching.py").read_text())
    table = next(node.value for node in tree.body if isinstance(node, ast.Assign)
                 and node.targets[0].id == "POSE_ARGUMENTS")
    assert not {key.value for key in table.keys if key is not None} & set(SETTINGS)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_default_written_out_is_that_default(name):
    """Through text, the parameter file and YAML, with its type."""
    default = SETTINGS[name].default
    texts = {str(default), str(default).lower() if isinstance(default, bool) else str(default)}
    if isinstance(default, tuple):
        default = list(default)
        texts |= {str(default), " ".join(map(str, default)), ",".join(map(str, default))}
    for text in texts - {""}:
        got = launch_arguments.parse_parameters({name: text, "image": "/image"})
        written = yaml.safe_load(launch_arguments.parameter_file(got))["/**"]["ros__parameters"]
        assert written == {name: default} and type(written[name]) is type(default)


_TEXTS = [n for n, f in SETTINGS.items() if f.type in ("str", str) and not f.metadata["choices"]]


@pytest.mark.parametrize("text", ["7", "007", "0.5", "1e3", ".5", "nan", ".inf", "0x10", "true",
                                  "yes", "Off", "null", "~", "{id}", "[a]", "a: b", "#a",
                                  "2024-1-1", "1_000", "-", "<id>", "'q'", "\u00e4"])
def test_names_that_look_like_something_else_stay_text(tmp_path, text):
    """Read by rcl, as the node does."""
    import rclpy
    file = tmp_path / "parameters.yaml"
    given = launch_arguments.parse_parameters(dict.fromkeys(_TEXTS, text))
    file.write_text(launch_arguments.parameter_file(given))
    context = rclpy.Context()
    rclpy.init(context=context, args=["--ros-args", "--params-file", str(file)])
    try:
        node = rclpy.create_node("reader", context=context,
                                 automatically_declare_parameters_from_overrides=True)
        assert {name: node.get_parameter(name).value for name in _TEXTS} \
            == dict.fromkeys(_TEXTS, text)
        node.destroy_node()
    finally:
        rclpy.shutdown(context=context)


@pytest.mark.parametrize("text, value", [
    ("true", True), ("True", True), ("yes", True), ("on", True), ("1", True),
    ("false", False), ("FALSE", False), ("no", False), ("off", False), ("0", False)])
def test_truth_has_several_spellings(text, value):
    assert launch_arguments.parse_bool("rviz", text) is value
    assert launch_arguments.parse_parameters({"depth": text}) == {"depth": value}


@pytest.mark.parametrize("name, text", [
    ("depth", "ture"), ("depth", "2"), ("max_people", "2.5"), ("max_people", "many"),
    ("fov_deg", "60 degrees"), ("fov_deg", "[60]"), ("scales", "256 big"), ("fov_deg", "nan"),
    ("fov_deg", "inf"), ("fov_deg", "200"), ("transport", "zip"), ("scales", "[]"),
    ("scales", "64"), ("network", "0"), ("cameras", "left left"), ("cameras", "left right")])
def test_wrong_values_are_named_before_anything_starts(name, text):
    with pytest.raises(ConfigError, match=name):
        values = launch_arguments.parse_parameters({name: text})
        launch_arguments.non_default_parameters(CONFIG, "/ros2_pose", values)


def test_the_shipped_file_has_defaults_alone():
    assert launch_arguments.non_default_parameters(CONFIG, "/ros2_pose", {}) == {}


@pytest.mark.parametrize("sections, value", [
    ({"/**": 1}, 1), ({"ros2_pose": 1}, None), ({"/robot/ros2_pose": 1}, 1),
    ({"/*/ros2_pose": 1}, 1), ({"/**/ros2_pose": 1}, 1), ({"robot/ros2_pose": 1}, 1),
    ({"/other/ros2_pose": 1}, None), ({"/**/other": 1}, None),
    ({"/**": 1, "/robot/ros2_pose": 2}, 2)])
def test_a_files_sections_hold_for_the_nodes_that_they_name(tmp_path, sections, value):
    file = tmp_path / "mine.yaml"
    file.write_text(json.dumps({name: {"ros__parameters": {"max_people": count}}
                                for name, count in sections.items()}))
    got = launch_arguments.non_default_parameters(file, "/robot/ros2_pose", {"depth": True})
    expected = {"max_people": (value, str(file))} if value else {}
    assert got == expected | {"depth": (True, "argument")}


def test_a_namespace_may_be_a_level_of_its_own(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("robot: {ros2_pose: {ros__parameters: {fov_deg: 60}}}")
    got = launch_arguments.non_default_parameters(file, "/robot/ros2_pose", {})
    assert got == {"fov_deg": (60, str(file))}


@pytest.mark.parametrize("text", ["max_people: 3", "a: [", "[1]", "/**: {max_people: 3}"])
def test_a_file_that_holds_no_parameters_is_named(tmp_path, text):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match="params_file"):
        launch_arguments.non_default_parameters(file, "/ros2_pose", {})


@pytest.mark.parametrize("name", SETTINGS)
def test_misspelt_names_are_refused_with_the_right_one(name):
    """A letter lost, doubled or swapped, other case, dashes."""
    known = {*SETTINGS, "image", "frame", "rviz"}
    launch_arguments.check_known([name], known)
    middle = len(name) // 2
    wrong = {name[:-1], name + name[-1], name.upper(), name.replace("_", "-"),
             name[:middle - 1] + name[middle] + name[middle - 1] + name[middle + 1:]} - known
    for spelling in wrong:
        with pytest.raises(ConfigError, match=f"{spelling!r}: did you mean"):
            launch_arguments.check_known([spelling], known)
    assert launch_arguments.closest_name(name.upper(), known) == name


def test_names_like_no_other_are_refused_with_all():
    with pytest.raises(ConfigError, match="known are: .*target_frame"):
        launch_arguments.check_known(["xyz"], SETTINGS)
