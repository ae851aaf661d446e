"""The launch files: what they set exists; where launch_ros is installed, they start real nodes."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FILES = sorted(ROOT.glob("launch/*.launch.py"))
_LAUNCH = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
file, *arguments = sys.argv[1:]
service = LaunchService()
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(
    PythonLaunchDescriptionSource(file),
    launch_arguments=[argument.split(":=", 1) for argument in arguments])]))
sys.exit(service.run())
"""


def _tree(name: str) -> ast.Module:
    return ast.parse((ROOT / "launch" / name).read_text())


def _keys(tree: ast.Module, table: str) -> set[str]:
    """Keys written out in a module's dict of that name."""
    value = next(node.value for node in tree.body if isinstance(node, ast.Assign)
                 and node.targets[0].id == table)
    return {key.value for key in value.keys if key is not None}


_PARAMETERS = _keys(_tree("pose.launch.py"), "PARAMETERS")
_OF_POSE = _keys(_tree("pose.launch.py"), "ARGUMENTS") | _PARAMETERS


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_arguments_given_to_the_pose_launch_are_its_own(path):
    calls = [node for node in ast.walk(_tree(path.name)) if isinstance(node, ast.Call)
             and getattr(node.func, "id", "") == "pose"]
    assert calls or path.name == "pose.launch.py"
    for call in calls:
        assert {word.arg for word in call.keywords if word.arg} <= _OF_POSE
        if any(word.arg is None for word in call.keywords):  # all of the file's own
            assert _keys(_tree(path.name), "ARGUMENTS") <= _OF_POSE


def test_parameters_that_are_arguments_are_the_nodes():
    pytest.importorskip("rclpy", reason="needs ROS 2: run make test")
    from ros2_pose.config import PoseConfig
    from ros2_pose.nodes.params import NodeConfig
    assert _PARAMETERS <= {f.name for f in (*fields(PoseConfig), *fields(NodeConfig))}


def test_the_costmap_hears_people_in_its_own_frame():
    costmap = yaml.safe_load((ROOT / "config" / "social_costmap.yaml").read_text())
    settings = costmap["local_costmap"]["local_costmap"]["ros__parameters"]
    layers = [name for name in settings["plugins"] if isinstance(settings.get(name), dict)]
    assert [settings[name]["plugin"] for name in layers] == \
        ["nav2_social_costmap_plugin::SocialLayer"]
    assert f'("{settings["global_frame"]}",' in (ROOT / "launch/navigation.launch.py").read_text()


# With launch_ros ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_launch_files_load(path):
    """Every argument has a description; without a ROS installation the file is compiled alone."""
    code = compile(path.read_text(), str(path), "exec")
    pytest.importorskip("launch_ros", reason="compiled; to be loaded, launch_ros is needed")
    space = {"__name__": "launch_file"}
    exec(code, space)
    arguments = space["generate_launch_description"]().get_launch_arguments()
    assert arguments and all(argument.description for argument in arguments)


@contextmanager
def _launched(graph, folder, name: str, *arguments: str):
    """A launch file of this folder, started as `ros2 launch` does; interrupted as by Ctrl-C, which
    reaches the launch and its nodes, it must end within seconds."""
    env = {**os.environ, "ROS_DOMAIN_ID": str(graph.domain), "ROS_LOG_DIR": str(folder)}
    process = subprocess.Popen([sys.executable, "-c", _LAUNCH, ROOT / "launch" / name,
                                *arguments, "device:=cpu"], cwd=folder, env=env, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               start_new_session=True)
    try:
        yield
        os.killpg(process.pid, signal.SIGINT)
        said = process.communicate(timeout=30)[0]
        assert "Traceback" not in said and "[ERROR]" not in said, said
    finally:
        with suppress(ProcessLookupError):  # all have ended
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def _parameter(graph, node: str, name: str):
    from rcl_interfaces.srv import GetParameters
    from rclpy.parameter import parameter_value_to_python
    client = graph.node.create_client(GetParameters, f"{node}/get_parameters")
    graph.until(client.service_is_ready)
    asked = client.call_async(GetParameters.Request(names=[name]))
    graph.until(asked.done)
    return parameter_value_to_python(asked.result().values[0])


@pytest.mark.parametrize("name, arguments, heard, parameters", [
    ("pose.launch.py", ["image:=/cam/image_raw", "fov_deg:=60"],
     {"/cam/image_raw", "/cam/camera_info"},
     {("/ros2_pose", "fov_deg"): 60, ("/ros2_pose", "tf_person"): "{id}"}),
    ("two_cameras.launch.py", ["cameras:=left rear", "tf_person:={id}_fused"],
     {"/left/image_raw", "/rear/image_raw", "/left/camera_info", "/rear/camera_info", "/tf"},
     {("/ros2_pose", "target_frame"): "map", ("/ros2_pose", "tf_person"): "{id}_fused"}),
    ("navigation.launch.py", ["image:=/cam", "navigation_frame:=map"], {"/cam", "/tf"},
     {("/ros2_pose", "navigation_frame"): "map"}),
    ("managed.launch.py", ["namespace:=robot"], {"/robot/image"},
     {("/robot/ros2_pose", "autostart"): False}),
])
def test_nodes_start_with_what_the_file_sets(tmp_path, name, arguments, heard, parameters):
    """Active nodes hear their cameras: a subscription is there, and the parameters are as set."""
    pytest.importorskip("launch_ros", reason="needs launch_ros, which PyPI does not have")
    pytest.importorskip("ros2_pose.msg", reason="needs the built messages: run make test")
    from ament_index_python.packages import get_packages_with_prefixes
    if name == "managed.launch.py" and "nav2_lifecycle_manager" not in get_packages_with_prefixes():
        pytest.skip("needs nav2_lifecycle_manager")
    from ros_helpers import Graph
    graph = Graph()
    try:
        with _launched(graph, tmp_path, name, *arguments):
            graph.until(lambda: all(graph.node.get_subscriptions_info_by_topic(topic)
                                    for topic in heard), 90)
            for (node, parameter), value in parameters.items():
                assert _parameter(graph, node, parameter) == value
    finally:
        graph.close()
