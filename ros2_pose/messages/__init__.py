"""ROS messages from and to the package's types, without importing ROS."""
