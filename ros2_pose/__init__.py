"""Tracked, metric, uncertainty-aware 3D people from camera images.

The core (everything outside `ros2_pose.nodes`) is a plain Python library. In a ROS workspace the
generated messages `ros2_pose.msg` live in another folder of the same package name; `extend_path`
joins the two.
"""

import pkgutil

__path__ = pkgutil.extend_path(__path__, __name__)
