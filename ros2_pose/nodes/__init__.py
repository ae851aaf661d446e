"""The ROS side: the only folder that imports ROS."""
