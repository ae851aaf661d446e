"""Two calibrated cameras' people, put together in one frame, by one node.

ros2 launch ros2_pose two_cameras.launch.py cameras:="left right" target_frame:=map
reads /left/image_raw and /right/image_raw, each with its camera_info beside it. TF must lead from
target_frame, which stands still with z up, to the frames of both images. All arguments of
pose.launch.py hold, too; more cameras are more names.
"""

from launch.substitutions import LaunchConfiguration

from ros2_pose.nodes.launching import describe, pose

ARGUMENTS = {
    "cameras": ("left right", "names of the cameras, below which their topics are"),
    "image": ("image_raw", "image topic below each name"),
    "target_frame": ("map", "frame of people, in which TF places the cameras; z up"),
}


def generate_launch_description():
    """pose.launch.py with cameras and a frame for all of them."""
    return describe(ARGUMENTS, pose(**{name: LaunchConfiguration(name) for name in ARGUMENTS}))
