"""Track people with one node and, if asked for, show them in RViz.

ros2 launch ros2_pose pose.launch.py image:=/camera/image_raw rviz:=true
Every parameter of the node is an argument, too: --show-args lists them.
"""

from tempfile import NamedTemporaryFile

from launch.actions import LogInfo, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

from ros2_pose.nodes import launch_arguments
from ros2_pose.nodes.launching import CONFIG, POSE_ARGUMENTS, checked_description

ARGUMENTS = POSE_ARGUMENTS


def generate_launch_description():
    """Declare the arguments, then make the actions that depend on their values."""
    return checked_description(ARGUMENTS, OpaqueFunction(function=_nodes))


def _nodes(context):
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    namespace = given["namespace"].strip("/")
    values = launch_arguments.parse_parameters(given)
    full_name = "/".join(["", *filter(None, [namespace]), launch_arguments.NODE_NAME])
    changed = launch_arguments.non_default_parameters(given["params_file"], full_name, values)
    sim_time = {}
    if given["use_sim_time"]:
        sim_time["use_sim_time"] = launch_arguments.parse_bool("use_sim_time",
                                                               given["use_sim_time"])
    cameras = _value(changed, "cameras").split()
    actions = [_log_parameters(changed), _pose_node(given, cameras, values | sim_time)]
    if launch_arguments.parse_bool("rviz", given["rviz"]):
        view_frame = _value(changed, "target_frame")
        if not view_frame:
            view_frame = f"{namespace}_view" if namespace else "ros2_pose_view"
            actions.append(_view_frame_publisher(given["frame"], view_frame))
        actions.append(_rviz(namespace, view_frame, sim_time, cameras[:1]))
    return actions


def _value(changed, name):
    """Value of a parameter with an empty string as default."""
    value, _ = changed.get(name, ("", ""))
    return value


def _log_parameters(changed):
    """Log the parameters that do not have their defaults."""
    text = ", ".join(f"{name}: {value!r} ({source})" for name, (value, source) in changed.items())
    return LogInfo(msg=f"ros2_pose: {text or 'nothing'}; all other parameters have their defaults")


def _pose_node(given, cameras, values):
    files = [given["params_file"]]
    if values:  # in a file of our own, because launch_ros writes strings like "1e3" as numbers
        with NamedTemporaryFile("w", prefix="ros2_pose_", suffix=".yaml", delete=False) as file:
            file.write(launch_arguments.parameter_file(values))
        files.append(file.name)
    has_events = launch_arguments.parse_bool("state_events", given["state_events"])
    node_class = LifecycleNode if has_events else Node
    return node_class(package="ros2_pose", executable="pose_node", name=launch_arguments.NODE_NAME,
                      output="screen", namespace=given["namespace"],
                      remappings=_remappings(given, cameras), parameters=files)


def _remappings(given, cameras):
    """Remappings of the image and depth topics of each camera, and of the calibration."""
    prefixes = [f"{name}/" for name in cameras] or [""]
    remappings = []
    for topic, argument in (("image", "image"), ("depth", "depth_image")):
        if given[argument]:
            remappings += [(f"{prefix}{topic}", f"{prefix}{given[argument]}")
                           for prefix in prefixes]
    if given["camera_info"]:
        remappings.append(("camera_info", given["camera_info"]))
    return remappings


def _view_frame_publisher(frame, view_frame):
    """Publish a frame at the camera with x ahead and z up, because RViz draws z upwards."""
    quat_xyzw = ("--qx", "0.5", "--qy", "-0.5", "--qz", "0.5", "--qw", "0.5")
    return Node(package="tf2_ros", executable="static_transform_publisher", name=view_frame,
                arguments=["--frame-id", frame, "--child-frame-id", view_frame, *quat_xyzw])


def _rviz(namespace, view_frame, sim_time, overlay_camera):
    """RViz; its configuration names the topics of a node without namespace and with one camera."""
    prefix = "/".join(["", *filter(None, [namespace]), "ros2_pose"])
    remappings = [("/ros2_pose/markers", f"{prefix}/markers"),
                  ("/ros2_pose/overlay", "/".join([prefix, *overlay_camera, "overlay"]))]
    return Node(package="rviz2", executable="rviz2", name="rviz2", namespace=namespace,
                parameters=[sim_time] if sim_time else [], remappings=remappings,
                arguments=["-d", str(CONFIG / "pose.rviz"), "-f", view_frame])
