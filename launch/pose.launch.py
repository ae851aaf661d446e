"""A camera's people: the node and, if asked for, RViz.

ros2 launch ros2_pose pose.launch.py image:=/camera/image_raw rviz:=true
Every parameter of the node is an argument, too: --show-args lists them.
"""

from tempfile import NamedTemporaryFile

from launch.actions import LogInfo, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node

from ros2_pose.nodes import launch_arguments
from ros2_pose.nodes.launching import CONFIG, POSE_ARGUMENTS, describe

ARGUMENTS = POSE_ARGUMENTS


def generate_launch_description():
    """The arguments, then what depends on their values."""
    return describe(ARGUMENTS, OpaqueFunction(function=_nodes))


def _nodes(context):
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    namespace = given["namespace"].strip("/")
    values = launch_arguments.parameters(given)
    full_name = "/".join(["", *filter(None, [namespace]), launch_arguments.NODE])
    in_force = launch_arguments.in_force(given["params_file"], full_name, values)
    sim_time = {}
    if given["use_sim_time"]:
        sim_time = {"use_sim_time": launch_arguments.truth("use_sim_time", given["use_sim_time"])}
    cameras = next((p.value for p in in_force if p.name == "cameras"), "").split()
    nodes = [_said(in_force), _node(given, cameras, values | sim_time)]
    if launch_arguments.truth("rviz", given["rviz"]):
        view = next((p.value for p in in_force if p.name == "target_frame"), "")
        if not view:
            view = f"{namespace}_view" if namespace else "ros2_pose_view"
            nodes.append(_upright(given["frame"], view))
        nodes.append(_rviz(namespace, view, sim_time, cameras[:1]))
    return nodes


def _said(in_force):
    """A line about the parameters that do not have their defaults."""
    text = ", ".join(f"{p.name}: {p.value!r} ({p.source})" for p in in_force)
    return LogInfo(msg=f"ros2_pose: {text or 'nothing'}; all other parameters have their defaults")


def _node(given, cameras, values):
    remappings = [(f"{before}{topic}", f"{before}{given[argument]}")
                  for topic, argument in (("image", "image"), ("depth", "depth_image"))
                  for before in ([f"{name}/" for name in cameras] or [""]) if given[argument]]
    if given["camera_info"]:
        remappings.append(("camera_info", given["camera_info"]))
    files = [given["params_file"]]
    if values:  # by a file of ours: launch_ros writes names like "1e3" as numbers
        with NamedTemporaryFile("w", prefix="ros2_pose_", suffix=".yaml", delete=False) as file:
            file.write(launch_arguments.parameter_file(values))
        files.append(file.name)
    heard = launch_arguments.truth("state_events", given["state_events"])
    kind = LifecycleNode if heard else Node
    return kind(package="ros2_pose", executable="pose_node", name=launch_arguments.NODE,
                output="screen", namespace=given["namespace"], remappings=remappings,
                parameters=files)


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
                parameters=[sim_time] if sim_time else [], remappings=moved,
                arguments=["-d", str(CONFIG / "pose.rviz"), "-f", view])
