"""Track people for navigation: /people in a frame of the robot, for a costmap.

ros2 launch ros2_pose navigation.launch.py image:=/camera/image_raw navigation_frame:=odom
The costmap's configuration is config/social_costmap.yaml. TF must connect navigation_frame with the
frame of the images. All arguments of pose.launch.py are accepted, too.
"""

from launch.substitutions import LaunchConfiguration

from ros2_pose.nodes.launching import checked_description, include_pose_launch

ARGUMENTS = {
    "navigation_frame": ("odom", "frame of /people and of velocities: one that never jumps, such "
                         "as the local costmap's"),
}


def generate_launch_description():
    """Include pose.launch.py with a frame for /people."""
    node = include_pose_launch(navigation_frame=LaunchConfiguration("navigation_frame"))
    return checked_description(ARGUMENTS, node)
