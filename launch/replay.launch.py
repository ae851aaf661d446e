"""Track people in a bag, live: a bag player, the node and RViz, all on the bag's time.

ros2 launch ros2_pose replay.launch.py bag:=walk image:=/camera/image_raw
The player starts when the node is active. To process every frame of the bag without waiting, use
`ros2_pose replay` instead.
"""

from launch.actions import ExecuteProcess, OpaqueFunction, RegisterEventHandler
from launch.substitutions import LaunchConfiguration
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import StateTransition

from ros2_pose.nodes import launch_arguments
from ros2_pose.nodes.launching import checked_description, include_pose_launch

# name: (default, description); required if the default is None
ARGUMENTS = {
    "bag": (None, "the bag to play"),
    "rate": ("1.0", "speed of the player"),
    "delay": ("3.0", "seconds from the player's start, or a loop's, to the first message, in which "
              "node and player discover each other"),
    "loop": ("false", "whether the player starts again at the end; people are then forgotten"),
    "rviz": ("true", "whether to start RViz"),
}

FIXED = {"use_sim_time": "true"}


def generate_launch_description():
    """Include pose.launch.py on simulated time; start the player when the node is active."""
    node = include_pose_launch(rviz=LaunchConfiguration("rviz"), state_events="true", **FIXED)
    return checked_description(ARGUMENTS, OpaqueFunction(function=_player_when_active), node,
                               fixed=FIXED)


def _player_when_active(context):
    """Start the player once the node is active; earlier messages would be lost."""
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    command = ["ros2", "bag", "play", given["bag"], "--clock", "--rate", given["rate"],
               "--delay", given["delay"]]
    if launch_arguments.parse_bool("loop", given["loop"]):
        command.append("--loop")
    return [RegisterEventHandler(OnStateTransition(
        matcher=_is_active, handle_once=True,
        entities=[ExecuteProcess(cmd=command, output="screen")]))]


def _is_active(event):
    return isinstance(event, StateTransition) and event.goal_state == "active" \
        and event.action.node_name.split("/")[-1] == launch_arguments.NODE_NAME
