"""Tracked, metric, uncertainty-aware 3D people from camera images.

Everything outside of `ros2_pose.nodes` and `ros2_pose.tools` is a plain Python library without ROS.
In a ROS workspace the generated messages `ros2_pose.msg` are in another folder of the same package
name; `extend_path` joins the two.
"""

import pkgutil

__path__ = pkgutil.extend_path(__path__, __name__)
