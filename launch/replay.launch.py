"""A bag's people, live: a player, the node and RViz, all on the bag's time.

ros2 launch ros2_pose replay.launch.py bag:=walk image:=/camera/image_raw
For every frame of the bag and without waiting, use `ros2_pose replay` instead.
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

from launch import LaunchDescription

POSE_LAUNCH = Path(get_package_share_directory("ros2_pose")) / "launch" / "pose.launch.py"

# name: (default, description); no default: must be given
ARGUMENTS = {
    "bag": (None, "the bag to play"),
    "rate": ("1.0", "speed of the player"),
    "loop": ("false", "whether the player starts again at the end"),
    "rviz": ("true", "whether to start RViz"),
}


def generate_launch_description():
    """The player, and pose.launch.py with its arguments, on simulated time."""
    declared = [DeclareLaunchArgument(name, default_value=default, description=description)
                for name, (default, description) in ARGUMENTS.items()]
    pose = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(POSE_LAUNCH)),
        launch_arguments={"use_sim_time": "true", "rviz": LaunchConfiguration("rviz")}.items())
    return LaunchDescription([*declared, pose, OpaqueFunction(function=_player)])


def _player(context):
    bag, rate, loop = (LaunchConfiguration(n).perform(context) for n in ("bag", "rate", "loop"))
    command = ["ros2", "bag", "play", bag, "--clock", "--rate", rate]
    return [ExecuteProcess(cmd=command + ["--loop"] * (loop.lower() == "true"), output="screen")]
