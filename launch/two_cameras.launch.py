"""Two cameras' people: two nodes in two namespaces, which know nothing of each other.

ros2 launch ros2_pose two_cameras.launch.py first:=left second:=right
reads /left/image_raw and /right/image_raw, each with its camera_info beside it, and publishes below
/left/ros2_pose and /right/ros2_pose. Frames of people carry the camera's name, because one name can
have one place only. The arguments of pose.launch.py hold for both.
"""

from launch import LaunchDescription
from launch.substitutions import LaunchConfiguration

from ros2_pose.nodes.launching import declare, pose

ARGUMENTS = {
    "first": ("left", "namespace of the first camera, and the beginning of its people's TF frames"),
    "second": ("right", "the same of the second camera"),
    "image": ("image_raw", "image topic within each namespace"),
    "first_frame": ("left_optical_frame", "frame_id of its images; only RViz needs to be told"),
    "second_frame": ("right_optical_frame", "the same of the second camera"),
}


def generate_launch_description():
    """The arguments, and pose.launch.py twice."""
    return LaunchDescription([*declare(ARGUMENTS), _camera("first"), _camera("second")])


def _camera(which):
    name = LaunchConfiguration(which)
    return pose(namespace=name, image=LaunchConfiguration("image"),
                frame=LaunchConfiguration(f"{which}_frame"), tf_person=[name, "_{id}"],
                tf_joint=[name, "_{id}_{joint}"])
