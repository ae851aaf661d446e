"""Track people with two calibrated cameras, fused in one frame by one node.

ros2 launch ros2_pose two_cameras.launch.py cameras:="left right" target_frame:=map
subscribes to /left/image_raw and /right/image_raw, each with the camera_info beside it. TF must
connect target_frame, which stands still with z up, with the frames of both images. All arguments
of pose.launch.py are accepted, too; for more cameras give more names.
"""

from launch.substitutions import LaunchConfiguration

from ros2_pose.nodes.launching import checked_description, include_pose_launch

ARGUMENTS = {
    "cameras": ("left right", "names of the cameras, which are the namespaces of their topics"),
    "image": ("image_raw", "image topic, relative to each name"),
    "target_frame": ("map", "frame of people, connected with the cameras by TF; z up"),
}


def generate_launch_description():
    """Include pose.launch.py with cameras and a common frame."""
    node = include_pose_launch(**{name: LaunchConfiguration(name) for name in ARGUMENTS})
    return checked_description(ARGUMENTS, node)
