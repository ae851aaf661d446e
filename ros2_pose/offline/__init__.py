"""Recordings in, people out, without ROS."""
