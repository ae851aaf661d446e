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
service = LaunchService(argv=arguments)
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(
    PythonLaunchDescriptionSource(file),
    launch_arguments=[argument.split(":=", 1) for argument in arguments])]))
sys.exit(service.run())
"""


def _tree(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text())


def _keys(tree: ast.Module, table: str) -> set[str]:
    """Keys written out in a module's dict of that name."""
    value = next((node.value for node in tree.body if isinstance(node, ast.Assign)
                  and node.targets[0].id == table), ast.Dict(keys=[]))
    return {key.value for key in value.keys if key is not None}


def _of_pose() -> set[str]:
    """The arguments of pose.launch.py."""
    return _keys(_tree("ros2_pose/nodes/launching.py"), "POSE_ARGUMENTS") | _parameters()


def _parameters() -> set[str]:
    pytest.importorskip("rclpy", reason="needs ROS 2: run make test")
    from ros2_pose.config import PoseConfig
    from ros2_pose.node_config import NodeConfig
    return {f.name for f in (*fields(PoseConfig), *fields(NodeConfig))}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_arguments_given_to_the_pose_launch_are_its_own(path):
    tree = _tree(f"launch/{path.name}")
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)
             and getattr(node.func, "id", "") == "include_pose_launch"]
    assert calls or path.name == "pose.launch.py"
    for call in calls:
        assert {word.arg for word in call.keywords if word.arg} <= _of_pose()
        for word in call.keywords:
            if isinstance(word.value, ast.Name) and word.arg is None:
                assert _keys(tree, word.value.id) <= _of_pose()
    assert _keys(tree, "FIXED") <= _of_pose()


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


def _process(domain: int, folder, path: Path, *arguments: str) -> subprocess.Popen:
    """A launch file, started as `ros2 launch` does."""
    env = {**os.environ, "ROS_DOMAIN_ID": str(domain), "ROS_LOG_DIR": str(folder),
           "PATH": f"{folder}:{os.environ['PATH']}"}
    return subprocess.Popen([sys.executable, "-c", _LAUNCH, path, *arguments], cwd=folder, env=env,
                            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            start_new_session=True)


@contextmanager
def _launched(graph, folder, path: Path, *arguments: str):
    """A launch file, started; a list to which what it said is added. Interrupted as by Ctrl-C,
    which reaches the launch and its nodes, it must end within seconds."""
    process, output = _process(graph.domain, folder, path, *arguments, "device:=cpu"), []
    try:
        yield output
        os.killpg(process.pid, signal.SIGINT)
        output.append(process.communicate(timeout=30)[0])
        assert "Traceback" not in output[0] and "[ERROR]" not in output[0], output[0]
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


@pytest.fixture
def real_launch():
    """Skips where launch_ros or the messages are missing."""
    pytest.importorskip("launch_ros", reason="needs launch_ros, which PyPI does not have")
    pytest.importorskip("ros2_pose.msg", reason="needs the built messages: run make test")


@pytest.mark.parametrize("name, arguments, heard, parameters", [
    ("pose.launch.py", ["image:=/cam/image_raw", "fov_deg:=60", "scales:=[256]",
                        "overlay_bodies:=no", "camera_pitch_deg:=-5", "max_people:=3",
                        "fixed_frame:=1e3", "namespace:=robot"],
     {"/cam/image_raw", "/cam/camera_info", "/tf"},
     {("/robot/ros2_pose", "fov_deg"): 60.0,
      ("/robot/ros2_pose", "scales"): [256], ("/robot/ros2_pose", "overlay_bodies"): False,
      ("/robot/ros2_pose", "camera_pitch_deg"): -5.0, ("/robot/ros2_pose", "max_people"): 3,
      ("/robot/ros2_pose", "fixed_frame"): "1e3", ("/robot/ros2_pose", "lost_s"): 2.0}),
    ("pose.launch.py", ["image:=/cam/image_raw", "depth:=true", "depth_image:=/cam/depth"],
     {"/cam/image_raw", "/cam/depth"}, {("/ros2_pose", "use_sim_time"): False}),
    ("two_cameras.launch.py", ["cameras:=left rear", "tf_person:={id}_fused"],
     {"/left/image_raw", "/rear/image_raw", "/left/camera_info", "/rear/camera_info", "/tf"},
     {("/ros2_pose", "target_frame"): "map", ("/ros2_pose", "tf_person"): "{id}_fused"}),
    ("navigation.launch.py", ["image:=/cam", "navigation_frame:=map", "rep155:=false"],
     {"/cam", "/tf"}, {("/ros2_pose", "navigation_frame"): "map"}),
    ("managed.launch.py", ["namespace:=robot"], {"/robot/image"},
     {("/robot/ros2_pose", "autostart"): False}),
])
def test_nodes_start_with_what_the_file_sets(tmp_path, real_launch, graph, name, arguments, heard,
                                             parameters):
    """Active nodes hear their cameras: a subscription is there, and the parameters are as set."""
    from ament_index_python.packages import get_packages_with_prefixes
    if name == "managed.launch.py" and "nav2_lifecycle_manager" not in get_packages_with_prefixes():
        pytest.skip("needs nav2_lifecycle_manager")
    with _launched(graph, tmp_path, ROOT / "launch" / name, *arguments) as output:
        graph.until(lambda: all(graph.node.get_subscriptions_info_by_topic(topic)
                                for topic in heard), 90)
        for (node, parameter), value in parameters.items():
            got = _parameter(graph, node, parameter)
            assert (list(got) if isinstance(value, list) else got) == value
            assert isinstance(value, list) or type(got) is type(value)
    for argument in arguments:  # what was set is said
        if (parameter := argument.split(":=")[0]) in _parameters() and argument != "rep155:=false":
            assert f"{parameter}: " in output[0]


def _refused(tmp_path, path: Path, *arguments: str) -> str:
    """What a launch file says that must not start anything."""
    process = _process(1, tmp_path, path, *arguments)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 1 and "process started" not in said, said
    return said


_WRONG = [
    ("imgae:=/camera", "did you mean 'image'"), ("depht:=true", "did you mean 'depth'"),
    ("target-frame:=map", "did you mean 'target_frame'"), ("Depth:=true", "did you mean 'depth'"),
    ("xyz:=1", "known are"), ("depth:=ture", "depth: 'ture'"), ("max_people:=2.5", "max_people"),
    ("fov_deg:=wide", "fov_deg: 'wide'"), ("transport:=zip", "transport: 'zip'"),
    ("score_threshold:=1.5", "score_threshold: 1.5"), ("scales:=64", "scales: 64"),
    ("params_file:=/no/such/file.yaml", "/no/such/file.yaml"), ("rviz:=perhaps", "rviz: 'perhaps'"),
    ("cameras:=left right", "cameras"), ("tf_names:=rep105", "tf_names"),
]


@pytest.mark.parametrize("argument, said", _WRONG)
def test_wrong_arguments_are_refused_in_one_line(tmp_path, real_launch, argument, said):
    assert said in _refused(tmp_path, ROOT / "launch" / "pose.launch.py", argument)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_every_launch_file_refuses_unknown_arguments(tmp_path, real_launch, path):
    needed = ["bag:=x"] if path.name == "replay.launch.py" else []
    said = _refused(tmp_path, path, *needed, "detectoins:=true")
    assert "unknown launch argument 'detectoins': did you mean 'detections'?" in said


@pytest.mark.parametrize("name, argument", [("managed", "autostart:=true"),
                                            ("replay", "use_sim_time:=false")])
def test_what_a_launch_file_sets_itself_cannot_be_given(tmp_path, real_launch, name, argument):
    needed = ["bag:=x"] if name == "replay" else []
    said = _refused(tmp_path, ROOT / "launch" / f"{name}.launch.py", *needed, argument)
    assert "cannot be given" in said


_ROBOT = """
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource


def generate_launch_description():
    return LaunchDescription([
        DeclareLaunchArgument("robot_name"), DeclareLaunchArgument("camera", default_value="front"),
        IncludeLaunchDescription(PythonLaunchDescriptionSource({file!r}),
                                 launch_arguments={{"image": "/cam", "fvo_deg": "60"}}.items())])
"""


def test_a_robots_launch_file_includes_ours_with_arguments_of_its_own(tmp_path, real_launch, graph):
    """Its own arguments are let through; what looks like a misspelt one of ours is named."""
    robot = tmp_path / "robot.launch.py"
    robot.write_text(_ROBOT.format(file=str(ROOT / "launch" / "pose.launch.py")))
    with _launched(graph, tmp_path, robot, "robot_name:=r2d2") as output:
        graph.until(lambda: graph.node.get_subscriptions_info_by_topic("/cam"), 90)
    assert "unknown argument 'fvo_deg'; did you mean 'fov_deg'?" in output[0]
    assert "'robot_name'" not in output[0] and "'camera'" not in output[0]


_BAG_PLAY = """#!{python}
\"\"\"Stands for `ros2 bag play` on machines without it.\"\"\"
import signal, sys, time
from pathlib import Path
import rclpy
from ros2_pose.tools.bag_player import BagPlayer
play, bag, *options = sys.argv[2:]
assert play == "play" and "--clock" in options
rclpy.init()
player = BagPlayer(Path(bag), float(options[options.index("--rate") + 1]))
time.sleep(float(options[options.index("--delay") + 1]))
player.play()
signal.signal(signal.SIGINT, signal.SIG_IGN)  # the end is near
Path("played").touch()
"""


def test_a_short_bag_is_heard_from_its_first_image(tmp_path, real_launch, graph):
    """The player starts when the node is active, and the node finds it before it plays."""
    from ros2_pose.messages.people import STATUS_OK, looked
    from ros2_pose.messages.standard import stamp_of
    from ros2_pose.offline import demo_clip
    player = tmp_path / "ros2"  # first on the launch's PATH
    player.write_text(_BAG_PLAY.format(python=sys.executable))
    player.chmod(0o755)
    demo_clip.write_bag(tmp_path / "bag", count=10)  # 1.5 seconds, as slowly as it is played
    with _launched(graph, tmp_path, ROOT / "launch" / "replay.launch.py", f"bag:={tmp_path}/bag",
                   "image:=/camera/image_raw", "transport:=compressed", "rviz:=false",
                   "rate:=0.1") as output:
        graph.until(lambda: (tmp_path / "played").exists(), 90)
        graph.until(lambda: not graph.node.count_publishers(demo_clip.IMAGE_TOPIC), 30)
        with suppress(AssertionError):  # until the last image is answered
            graph.until(lambda: False, 3)
    answers = [message for message in graph.people if looked(message)]
    assert stamp_of(answers[0].header) == demo_clip.stamp(0)
    assert answers[-1].status == STATUS_OK  # with its calibration
    assert output[0].count("process started") == 2, output[0]
