"""What the launch files share."""

from __future__ import annotations

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

SHARE = Path(get_package_share_directory("ros2_pose"))


def declare(arguments: dict[str, tuple[str | None, str]]) -> list[DeclareLaunchArgument]:
    """Launch arguments of {name: (default, description)}; without a default one must be given."""
    return [DeclareLaunchArgument(name, default_value=default, description=description)
            for name, (default, description) in arguments.items()]


def pose(**arguments) -> GroupAction:
    """pose.launch.py with some of its arguments; the others are as the user gives them."""
    source = PythonLaunchDescriptionSource(str(SHARE / "launch" / "pose.launch.py"))
    # In a group, because what is set for one node would hold for the next.
    return GroupAction([IncludeLaunchDescription(source, launch_arguments=arguments.items())])
