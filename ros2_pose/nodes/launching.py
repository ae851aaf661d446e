"""Shared parts of the launch files."""

from __future__ import annotations

from collections.abc import Iterable
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
from launch.launch_context import LaunchContext
from launch.launch_description import LaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

from ros2_pose.config import ConfigError
from ros2_pose.nodes import launch_arguments

SHARE = Path(get_package_share_directory("ros2_pose"))
CONFIG = SHARE / "config"

# Arguments of pose.launch.py, valid in all launch files. name: (default, description)
POSE_ARGUMENTS = {
    "image": ("image", "image topic, with several cameras relative to each one's name; with "
              "transport compressed, <image>/compressed is read"),
    "camera_info": ("", "calibration topic; empty: camera_info beside the image topic"),
    "depth_image": ("", "topic of the depth image that depth:=true reads, with several cameras "
                    "relative to each one's name; empty: depth"),
    "params_file": (str(CONFIG / "pose.yaml"), "parameters of the node"),
    **{name: ("", description) for name, description in launch_arguments.descriptions().items()},
    "frame": ("camera_optical_frame", "frame_id of the images, for RViz only"),
    "namespace": ("", "namespace of the node, its topics and the image topic"),
    "rviz": ("false", "whether to start RViz with overlay, skeletons and TF"),
    "use_sim_time": ("", "true: use the time of /clock, as a bag player publishes it; empty: as in "
                     "params_file"),
    "state_events": ("false", "whether launch event handlers receive the node's state transitions"),
}
_ROS2_LAUNCH_OPTIONS = {"launch-prefix", "launch-prefix-filter"}  # appear among the arguments
_CHECKED = "ros2_pose_arguments_checked"
_TYPO_SIMILARITY = 0.8


def checked_description(arguments: dict[str, tuple[str | None, str]], *actions,
                        fixed: dict[str, str] | None = None) -> LaunchDescription:
    """Make a launch description that refuses unknown arguments.

    Args:
        arguments: {name: (default, description)} of the file; None as default: required.
            Those of POSE_ARGUMENTS are accepted, too.
        actions: launch actions of the file.
        fixed: arguments of pose.launch.py that the file sets itself, and their values.
    """
    declared = [DeclareLaunchArgument(name, default_value=default, description=description)
                for name, (default, description) in arguments.items()]
    check = partial(_check, known={*arguments, *POSE_ARGUMENTS}, fixed=fixed or {})
    return LaunchDescription([OpaqueFunction(function=check), *declared, *actions])


def include_pose_launch(**arguments) -> GroupAction:
    """Include pose.launch.py with these arguments; the others are as the user gives them."""
    source = PythonLaunchDescriptionSource(str(SHARE / "launch" / "pose.launch.py"))
    # In a group, so that its settings do not apply to later nodes.
    return GroupAction([IncludeLaunchDescription(source, launch_arguments=arguments.items())])


def _check(context: LaunchContext, known: set[str], fixed: dict[str, str]) -> list[LogInfo]:
    """Refuse unknown arguments on the command line of this launch file.

    If another package's launch file includes this one, the arguments of that file are visible,
    too: then names that look misspelt are logged only.
    """
    if _CHECKED in context.get_locals_as_dict():
        return []
    context.extend_globals({_CHECKED: True})
    typed = dict(word.split(":=", 1) for word in context.argv if ":=" in word)
    if not set(context.launch_configurations) <= set(typed):
        return _log_misspelt(context.launch_configurations, known)
    launch_arguments.check_known(typed, known | _ROS2_LAUNCH_OPTIONS)
    for name, value in fixed.items():
        if typed.get(name, value).lower() != value:
            raise ConfigError(f"{name}: {typed[name]!r} cannot be given, this launch file sets it "
                              f"to {value}")
    return []


def _log_misspelt(names: Iterable[str], known: set[str]) -> list[LogInfo]:
    """Log actions for unknown names that are similar to a known one."""
    actions = []
    for name in names:
        similar = launch_arguments.closest_name(name, known, _TYPO_SIMILARITY)
        is_variant = name.startswith(similar) or similar.startswith(name)
        if name not in known and similar and not is_variant:
            actions.append(LogInfo(msg=f"ros2_pose: unknown argument {name!r}; did you mean "
                                       f"{similar!r}?"))
    return actions
