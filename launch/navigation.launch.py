"""A camera's people for navigation among them: /people in a frame of the robot.

ros2 launch ros2_pose navigation.launch.py image:=/camera/image_raw navigation_frame:=odom
The costmap's side is in config/social_costmap.yaml. The robot's transforms must lead from
navigation_frame to the frame of the images. All arguments of pose.launch.py hold, too.
"""

from launch.substitutions import LaunchConfiguration

from ros2_pose.nodes.launching import describe, pose

ARGUMENTS = {
    "navigation_frame": ("odom", "frame of /people and of velocities: one that never jumps, as the "
                         "local costmap's"),
}


def generate_launch_description():
    """pose.launch.py with a frame for /people."""
    return describe(ARGUMENTS, pose(navigation_frame=LaunchConfiguration("navigation_frame")))
