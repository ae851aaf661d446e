"""A bag's people, live: a player, the node and RViz, all on the bag's time.

ros2 launch ros2_pose replay.launch.py bag:=walk image:=/camera/image_raw
For every frame of the bag and without waiting, use `ros2_pose replay` instead.
"""

from launch import LaunchDescription
from launch.actions import ExecuteProcess, OpaqueFunction
from launch.substitutions import LaunchConfiguration

from ros2_pose.nodes.launching import declare, pose

# name: (default, description); no default: must be given
ARGUMENTS = {
    "bag": (None, "the bag to play"),
    "rate": ("1.0", "speed of the player"),
    "loop": ("false", "whether the player starts again at the end; people are then forgotten"),
    "rviz": ("true", "whether to start RViz"),
}


def generate_launch_description():
    """The player, and pose.launch.py with its arguments, on simulated time."""
    return LaunchDescription([*declare(ARGUMENTS),
                              pose(use_sim_time="true", rviz=LaunchConfiguration("rviz")),
                              OpaqueFunction(function=_player)])


def _player(context):
    bag, rate, loop = (LaunchConfiguration(n).perform(context) for n in ("bag", "rate", "loop"))
    command = ["ros2", "bag", "play", bag, "--clock", "--rate", rate]
    return [ExecuteProcess(cmd=command + ["--loop"] * (loop.lower() == "true"), output="screen")]
