"""Track people with a node that Nav2's lifecycle manager starts and stops, with other nodes.

ros2 launch ros2_pose managed.launch.py image:=/camera/image_raw
Needs nav2_lifecycle_manager. To use a manager of your own, give pose.launch.py autostart:=false and
add the node's name to the manager's node_names, with bond_timeout 0.
"""

from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from ros2_pose.nodes.launching import checked_description, include_pose_launch

ARGUMENTS = {
    "namespace": ("", "namespace of the node and its manager"),
    "use_sim_time": ("false", "use the time of /clock"),
}

FIXED = {"autostart": "false"}


def generate_launch_description():
    """Include pose.launch.py without autostart, and the manager that starts the node."""
    namespace, sim_time = map(LaunchConfiguration, ARGUMENTS)
    manager = Node(package="nav2_lifecycle_manager", executable="lifecycle_manager",
                   name="lifecycle_manager_people", namespace=namespace, output="screen",
                   # No bond, so that bondpy is not required.
                   parameters=[{"autostart": True, "node_names": ["ros2_pose"],
                                "bond_timeout": 0.0, "use_sim_time": sim_time}])
    node = include_pose_launch(namespace=namespace, use_sim_time=sim_time, **FIXED)
    return checked_description(ARGUMENTS, node, manager, fixed=FIXED)
