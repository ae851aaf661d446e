"""The only part of the package that imports ROS: the node, and the programs around it."""

from ros2_pose.runtime_env import settle

settle()  # here, because whoever imports a node's module loads torch with it
