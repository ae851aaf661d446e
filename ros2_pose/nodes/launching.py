"""What the launch files share."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import (
    DeclareLaunchArgument,
    GroupAction,
    IncludeLaunchDescription,
    LogInfo,
    OpaqueFunction,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource

from launch import LaunchContext, LaunchDescription
from ros2_pose.config import ConfigError
from ros2_pose.nodes import launch_arguments

SHARE = Path(get_package_share_directory("ros2_pose"))
CONFIG = SHARE / "config"

# Arguments of pose.launch.py, which hold in all launch files. name: (default, description)
POSE_ARGUMENTS = {
    "image": ("image", "image topic, of several cameras that below each one's name; with transport "
              "compressed, <image>/compressed is read"),
    "camera_info": ("", "calibration topic; empty: camera_info beside the image topic"),
    "depth_image": ("", "topic of the depth image that depth:=true reads, of several cameras that "
                    "below each one's name; empty: depth"),
    "params_file": (str(CONFIG / "pose.yaml"), "parameters of the node"),
    **{name: ("", description) for name, description in launch_arguments.descriptions().items()},
    "frame": ("camera_optical_frame", "frame_id of the images; only RViz needs to be told"),
    "namespace": ("", "namespace of the node; its topics and the image topic move along"),
    "rviz": ("false", "whether to start RViz with overlay, skeletons and TF"),
    "use_sim_time": ("", "true takes the time from /clock, as a bag's player publishes it; empty: "
                     "as in params_file"),
    "state_events": ("false", "whether event handlers of the launch hear when the node changes its "
                     "state"),
}
_OF_ROS2_LAUNCH = {"launch-prefix", "launch-prefix-filter"}  # its options, added to the arguments
_CHECKED = "ros2_pose_arguments_checked"
_TYPO = 0.8  # similarity


def describe(arguments: dict[str, tuple[str | None, str]], *actions,
             fixed: dict[str, str] | None = None) -> LaunchDescription:
    """A launch description that refuses unknown arguments.

    Args:
        arguments: {name: (default, description)} of the file; without a default one must be given.
            Those of POSE_ARGUMENTS hold, too.
        actions: what the file does.
        fixed: arguments of pose.launch.py that the file sets itself, and their values.
    """
    declared = [DeclareLaunchArgument(name, default_value=default, description=description)
                for name, (default, description) in arguments.items()]
    check = partial(_check, known={*arguments, *POSE_ARGUMENTS}, fixed=fixed or {})
    return LaunchDescription([OpaqueFunction(function=check), *declared, *actions])


def pose(**arguments) -> GroupAction:
    """pose.launch.py with some of its arguments; the others are as the user gives them."""
    source = PythonLaunchDescriptionSource(str(SHARE / "launch" / "pose.launch.py"))
    # In a group, because what is set for one node would hold for the next.
    return GroupAction([IncludeLaunchDescription(source, launch_arguments=arguments.items())])


def _check(context: LaunchContext, known: set[str], fixed: dict[str, str]) -> list[LogInfo]:
    """Refuse arguments that were typed for this launch file and that it does not have.

    Included by a file of somebody else's, it sees that file's arguments, too: then what looks like
    a misspelt one is only named.
    """
    if _CHECKED in context.get_locals_as_dict():
        return []
    context.extend_globals({_CHECKED: True})
    typed = dict(word.split(":=", 1) for word in context.argv if ":=" in word)
    if not set(context.launch_configurations) <= set(typed):
        return [LogInfo(msg=f"ros2_pose: {name!r} is no argument here; was {near!r} meant?")
                for name in context.launch_configurations if name not in known
                and (near := launch_arguments.nearest(name, known, _TYPO))
                and not (name.startswith(near) or near.startswith(name))]
    launch_arguments.refuse_unknown(typed, known | _OF_ROS2_LAUNCH)
    for name, value in fixed.items():
        if typed.get(name, value).lower() != value:
            raise ConfigError(f"{name}: {typed[name]!r} cannot be given, this launch file sets it "
                              f"to {value}")
    return []
