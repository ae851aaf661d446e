"""The node and its parts. Only this room and tools/ import ROS."""

from ros2_pose.runtime_env import settle

settle()  # before the first import of torch, which any module of this room may cause
