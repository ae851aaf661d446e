"""A bag's people, live: a player, the node and RViz, all on the bag's time.

ros2 launch ros2_pose replay.launch.py bag:=walk image:=/camera/image_raw
The player starts when the node is active. For every frame of the bag and without waiting, use
`ros2_pose replay` instead.
"""

from launch.actions import ExecuteProcess, OpaqueFunction, RegisterEventHandler
from launch.substitutions import LaunchConfiguration
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import StateTransition

from ros2_pose.nodes import launch_arguments
from ros2_pose.nodes.launching import describe, pose

# name: (default, description); no default: must be given
ARGUMENTS = {
    "bag": (None, "the bag to play"),
    "rate": ("1.0", "speed of the player"),
    "delay": ("3.0", "seconds from the player's start, or a loop's, to the first message: node and "
              "player find each other meanwhile"),
    "loop": ("false", "whether the player starts again at the end; people are then forgotten"),
    "rviz": ("true", "whether to start RViz"),
}

FIXED = {"use_sim_time": "true"}


def generate_launch_description():
    """pose.launch.py on simulated time, and the player as soon as the node is active."""
    return describe(ARGUMENTS, OpaqueFunction(function=_player_when_active),
                    pose(rviz=LaunchConfiguration("rviz"), state_events="true", **FIXED),
                    fixed=FIXED)


def _player_when_active(context):
    """The player, started once: messages before the node is active would go unheard."""
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    command = ["ros2", "bag", "play", given["bag"], "--clock", "--rate", given["rate"],
               "--delay", given["delay"]]
    command += ["--loop"] * launch_arguments.truth("loop", given["loop"])
    return [RegisterEventHandler(OnStateTransition(
        matcher=_is_active, handle_once=True,
        entities=[ExecuteProcess(cmd=command, output="screen")]))]


def _is_active(event):
    return isinstance(event, StateTransition) and event.goal_state == "active" \
        and event.action.node_name.split("/")[-1] == launch_arguments.NODE
