"""A camera's people, started and stopped by Nav2's lifecycle manager together with other nodes.

ros2 launch ros2_pose managed.launch.py image:=/camera/image_raw
Needs nav2_lifecycle_manager. To have a manager of yours do it, give pose.launch.py
autostart:=false and add the node's name to the manager's node_names, with bond_timeout 0.
"""

from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from ros2_pose.nodes.launching import describe, pose

ARGUMENTS = {
    "namespace": ("", "namespace of the node and its manager"),
    "use_sim_time": ("false", "take the time from /clock"),
}

FIXED = {"autostart": "false"}


def generate_launch_description():
    """pose.launch.py, not starting by itself, and the manager that starts it."""
    namespace, sim_time = map(LaunchConfiguration, ARGUMENTS)
    manager = Node(package="nav2_lifecycle_manager", executable="lifecycle_manager",
                   name="lifecycle_manager_people", namespace=namespace, output="screen",
                   # No bond, so that it works without bondpy, too.
                   parameters=[{"autostart": True, "node_names": ["ros2_pose"],
                                "bond_timeout": 0.0, "use_sim_time": sim_time}])
    return describe(ARGUMENTS, pose(namespace=namespace, use_sim_time=sim_time, **FIXED), manager,
                    fixed=FIXED)
