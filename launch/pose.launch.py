"""A camera's people: the node and, if asked for, RViz.

ros2 launch ros2_pose pose.launch.py image:=/camera/image_raw rviz:=true
"""

import yaml
from launch import LaunchDescription
from launch.actions import OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from ros2_pose.nodes.launching import SHARE, declare

CONFIG = SHARE / "config"

# Parameters of the node that are arguments, too; empty: as in params_file.
PARAMETERS = {
    "cameras": "names of several calibrated cameras, such as \"left right\"; empty: as in "
               "params_file",
    "depth": "true uses a depth image aligned with the image, on the topic depth; empty: as in "
             "params_file",
    "transport": "raw or compressed; empty: as in params_file",
    "device": "auto, cpu or cuda; empty: as in params_file",
    "fov_deg": "horizontal field of view, degrees, for a camera without CameraInfo; empty: as in "
               "params_file",
    "target_frame": "frame of people, markers and TF, such as map; empty: as in params_file",
    "navigation_frame": "frame of /people for costmaps, such as odom; empty: as in params_file",
    "tf_person": "name of a person's TF frame, such as left_{id}; empty: as in params_file",
    "tf_joint": "name of a joint's TF frame, such as left_{id}_{joint}; empty: as in params_file",
    "autostart": "false leaves configuring and activating to a lifecycle manager; empty: as in "
                 "params_file",
}
NAMES = {"cameras", "target_frame", "navigation_frame", "tf_person", "tf_joint"}  # text always

# name: (default, description)
ARGUMENTS = {
    "image": ("image", "image topic, of several cameras that below each one's name; with transport "
              "compressed, <image>/compressed is read"),
    "camera_info": ("", "calibration topic; empty: camera_info beside the image topic"),
    "params_file": (str(CONFIG / "pose.yaml"), "parameters of the node"),
    **{name: ("", description) for name, description in PARAMETERS.items()},
    "frame": ("camera_optical_frame", "frame_id of the images; only RViz needs to be told"),
    "namespace": ("", "namespace of the node; its topics and the image topic move along"),
    "rviz": ("false", "whether to start RViz with overlay, skeletons and TF"),
    "use_sim_time": ("false", "take the time from /clock, as a bag's player publishes it"),
}


def generate_launch_description():
    """The arguments, then what depends on their values."""
    return LaunchDescription([*declare(ARGUMENTS), OpaqueFunction(function=_nodes)])


def _nodes(context):
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    namespace = given["namespace"].strip("/")
    sim_time = {"use_sim_time": given["use_sim_time"].lower() == "true"}
    cameras = given["cameras"].split()
    remappings = [(f"{name}/image", f"{name}/{given['image']}") for name in cameras] \
        or [("image", given["image"])]
    if given["camera_info"]:
        remappings.append(("camera_info", given["camera_info"]))
    nodes = [Node(package="ros2_pose", executable="pose_node", name="ros2_pose", output="screen",
                  namespace=given["namespace"], remappings=remappings,
                  parameters=[given["params_file"], _overrides(given), sim_time])]
    if given["rviz"].lower() == "true":
        view = given["target_frame"]
        if not view:
            view = f"{namespace}_view" if namespace else "ros2_pose_view"
            nodes.append(_upright(given["frame"], view))
        nodes.append(_rviz(namespace, view, sim_time, cameras[:1]))
    return nodes


def _overrides(given):
    """The parameters that an argument sets, numbers and truth values as such."""
    return {name: given[name] if name in NAMES else yaml.safe_load(given[name])
            for name in PARAMETERS if given[name]}


def _upright(frame, view):
    """A frame at the camera with x ahead and z up, because RViz draws z upwards."""
    turn = ("--qx", "0.5", "--qy", "-0.5", "--qz", "0.5", "--qw", "0.5")
    return Node(package="tf2_ros", executable="static_transform_publisher", name=view,
                arguments=["--frame-id", frame, "--child-frame-id", view, *turn])


def _rviz(namespace, view, sim_time, shown):
    """RViz; its configuration names the topics of a node without a namespace, with one camera."""
    own = "/".join(["", *filter(None, [namespace]), "ros2_pose"])
    moved = [("/ros2_pose/markers", f"{own}/markers"),
             ("/ros2_pose/overlay", "/".join([own, *shown, "overlay"]))]
    return Node(package="rviz2", executable="rviz2", name="rviz2", namespace=namespace,
                parameters=[sim_time], remappings=moved,
                arguments=["-d", str(CONFIG / "pose.rviz"), "-f", view])
