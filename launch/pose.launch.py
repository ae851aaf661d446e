"""A camera's people: the node and, if asked for, RViz.

ros2 launch ros2_pose pose.launch.py image:=/camera/image_raw rviz:=true
"""

from pathlib import Path

from ament_index_python.packages import get_package_share_directory
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from launch import LaunchDescription

CONFIG = Path(get_package_share_directory("ros2_pose")) / "config"

# name: (default, description); an empty default leaves the matter to params_file
ARGUMENTS = {
    "image": ("image", "image topic; with transport compressed, <image>/compressed is read"),
    "camera_info": ("", "calibration topic; empty: camera_info beside the image topic"),
    "transport": ("", "raw or compressed; empty: as in params_file"),
    "device": ("", "auto, cpu or cuda; empty: as in params_file"),
    "fov_deg": ("", "horizontal field of view, degrees, for a camera without CameraInfo; empty: "
                    "as in params_file"),
    "params_file": (str(CONFIG / "pose.yaml"), "parameters of the node"),
    "frame": ("camera_optical_frame", "frame_id of the images; only RViz needs to be told"),
    "namespace": ("", "namespace of the node; its topics and the image topic move along"),
    "rviz": ("false", "whether to start RViz with overlay, skeletons and TF"),
    "use_sim_time": ("false", "take the time from /clock, as a bag's player publishes it"),
}


def generate_launch_description():
    """The arguments, then what depends on their values."""
    declared = [DeclareLaunchArgument(name, default_value=default, description=description)
                for name, (default, description) in ARGUMENTS.items()]
    return LaunchDescription([*declared, OpaqueFunction(function=_nodes)])


def _nodes(context):
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    sim_time = {"use_sim_time": given["use_sim_time"].lower() == "true"}
    overrides = {name: given[name] for name in ("transport", "device") if given[name]}
    if given["fov_deg"]:
        overrides["fov_deg"] = float(given["fov_deg"])
    remappings = [("image", given["image"])]
    if given["camera_info"]:
        remappings.append(("camera_info", given["camera_info"]))
    nodes = [Node(package="ros2_pose", executable="pose_node", name="ros2_pose", output="screen",
                  namespace=given["namespace"], remappings=remappings,
                  parameters=[given["params_file"], overrides, sim_time])]
    if given["rviz"].lower() == "true":
        nodes += [_upright(given["frame"]), _rviz(given["namespace"].strip("/"), sim_time)]
    return nodes


def _upright(frame):
    """A frame at the camera with x ahead and z up, because RViz draws z upwards."""
    turn = ("--qx", "0.5", "--qy", "-0.5", "--qz", "0.5", "--qw", "0.5")
    return Node(package="tf2_ros", executable="static_transform_publisher", name="ros2_pose_view",
                arguments=["--frame-id", frame, "--child-frame-id", "ros2_pose_view", *turn])


def _rviz(namespace, sim_time):
    """RViz; its configuration names the topics of a node without a namespace."""
    moved = [(f"/ros2_pose/{topic}", f"/{namespace}/ros2_pose/{topic}")
             for topic in ("overlay", "markers") if namespace]
    return Node(package="rviz2", executable="rviz2", name="rviz2", namespace=namespace,
                parameters=[sim_time], remappings=moved,
                arguments=["-d", str(CONFIG / "pose.rviz")])
