"""ROS parameters out of the settings classes: every default stays in its one home."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, get_args, get_type_hints

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node

from ros2_pose.body_frames import REP155, FrameNames
from ros2_pose.config import ConfigError, PoseConfig, from_dict, setting

_ROS_OWN = ("use_sim_time", "start_type_description_service", "qos_overrides")


@dataclass(frozen=True)
class NodeConfig:
    """What the node does around the pipeline."""

    autostart: bool = setting(True, "configure and activate at the start; false leaves that to a "
                              "lifecycle manager")
    silence_s: float = setting(5.0, "without an image, until the reason is published and logged, s",
                               low=1.0, high=3600.0, live=True)
    cameras: str = setting("", "names of several calibrated cameras, separated by spaces, whose "
                           "people are put together in target_frame; their topics are "
                           "<name>/image and so on; empty: one camera")
    depth: bool = setting(False, "use a depth image that is aligned with the image, on the topic "
                          "depth")
    transport: str = setting("raw", "raw subscribes to <image>, compressed to <image>/compressed",
                             choices=("raw", "compressed"))
    reliability: str = setting("auto", "of the image subscription: auto takes what the publishers "
                               "offer", choices=("auto", "reliable", "best_effort"))
    rectified: bool = setting(False, "the images are undistorted already: use P of CameraInfo and "
                              "no distortion", live=True)
    target_frame: str = setting("", "frame of people, markers and TF; empty: the image's")
    fixed_frame: str = setting("", "frame that stands still and never jumps (odom), in which "
                               "velocities are measured; empty: navigation_frame, or else the "
                               "camera's")
    navigation_frame: str = setting("", "frame of /people for costmaps (people_msgs), such as map "
                                    "or odom; empty: /people is not published")
    tf_tolerance_s: float = setting(0.1, "while a transform of the image's time has not come, the "
                                    "newest one stands in if it is older by no more, s",
                                    low=0.0, high=5.0, live=True)
    rep155: bool = setting(False, "publish /humans/bodies for ROS4HRI (hri_msgs); its frames come "
                           "with tf_names: rep155")
    detections: bool = setting(False, "publish ~/detections (vision_msgs/Detection3DArray)")
    tf: bool = setting(True, "publish a TF frame per tracked person and joint", live=True)
    tf_names: str = setting("patterns", "names of these frames: as tf_person and tf_joint say, or "
                            "REP-155's", choices=("patterns", "rep155"), live=True)
    tf_person: str = setting("{id}", "name of the frame at a person's pelvis", live=True)
    tf_joint: str = setting("{id}_{joint}", "name of the frames at the other joints", live=True)
    marker_lifetime_s: float = setting(0.5, "markers that no image renews disappear after, s",
                                       low=0.0, high=60.0, live=True)
    body_marker_hz: float = setting(10.0, "body surfaces among the markers at most so often, Hz: "
                                    "they are large; 0: none", low=0.0, high=100.0, live=True)
    overlay_bodies: bool = setting(True, "draw bodies into the overlay image; false draws "
                                   "keypoints alone, which is faster", live=True)

    def __post_init__(self) -> None:
        """Raises ConfigError for names that cannot be used."""
        self.frame_names
        if len(self.camera_names) != len(set(self.camera_names)):
            raise ConfigError(f"cameras: {self.cameras!r} names one twice")
        if len(self.camera_names) > 1 and not self.target_frame:
            raise ConfigError("cameras: several need target_frame, in which all are placed by tf: "
                              "set it to a frame that stands still, z up")

    @cached_property
    def frame_names(self) -> FrameNames:
        """Of the TF frames of people."""
        return REP155 if self.tf_names == "rep155" else FrameNames(self.tf_person, self.tf_joint)

    @property
    def camera_names(self) -> list[str]:
        """Of the cameras; the only one has none."""
        return self.cameras.split() or [""]

    @property
    def still_frame(self) -> str:
        """The frame that velocities are measured in; empty for the camera's."""
        if len(self.camera_names) > 1:
            return self.target_frame
        return self.fixed_frame or self.navigation_frame


class Parameters:
    """The node's parameters, declared from both settings classes and kept checked.

    pose and node are replaced as a whole when a parameter changes; a change that is not allowed is
    refused with the reason. in_use: whether something was made with those that are not live.
    Raises ConfigError if a value given at the start is not allowed.
    """

    def __init__(self, ros_node: Node):
        _refuse_unknown(ros_node)
        self.pose: PoseConfig = _declare(ros_node, PoseConfig)
        self.node: NodeConfig = _declare(ros_node, NodeConfig)
        self.in_use = False
        ros_node.add_on_set_parameters_callback(self._set)

    def _set(self, parameters) -> SetParametersResult:
        given = {p.name: p.value for p in parameters}
        try:
            if self.in_use:
                _refuse_fixed(given)
            pose, node = _changed(self.pose, given), _changed(self.node, given)
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self.pose, self.node = pose, node
        return SetParametersResult(successful=True)


def _refuse_fixed(given: dict[str, Any]) -> None:
    for name, spec in (_names(PoseConfig) | _names(NodeConfig)).items():
        if name in given and not spec.metadata["live"]:
            raise ConfigError(f"{name} cannot change while the node uses it: clean the node up "
                              "(ros2 lifecycle set), change it, configure and activate again")


def _names(cls: type) -> dict[str, Any]:
    return {f.name: f for f in fields(cls)}


def _refuse_unknown(node: Node) -> None:
    """rclpy drops a parameter that nobody declares; a mistyped name should not go unnoticed."""
    known = [*_names(PoseConfig), *_names(NodeConfig)]
    for name in getattr(node, "_parameter_overrides", {}):
        if name not in known and name.split(".")[0] not in _ROS_OWN:
            raise ConfigError(f"unknown parameter {name!r}; known are: {', '.join(sorted(known))}")


def _declare(node: Node, cls: type):
    """Declare a parameter for each field; the settings with the values given at the start."""
    types, values = get_type_hints(cls), {}
    for name, spec in _names(cls).items():
        default = list(spec.default) if isinstance(spec.default, tuple) else spec.default
        descriptor = _descriptor(spec, types[name])
        values[name] = node.declare_parameter(name, default, descriptor).value
    return from_dict(cls, values)


def _descriptor(spec, kind) -> ParameterDescriptor:
    meta = spec.metadata
    limits = f"one of {', '.join(meta['choices'])}" if meta["choices"] else ""
    if get_args(kind) and meta["low"] is not None:
        limits = f"each from {meta['low']} to {meta['high']}"
    descriptor = ParameterDescriptor(
        description=meta["help"], additional_constraints=limits,
        dynamic_typing=kind is float)  # so that 60 can be said for 60.0
    if kind is float and meta["low"] is not None:
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=float(meta["low"]), to_value=float(meta["high"]))]
    if kind is int and meta["low"] is not None:
        descriptor.integer_range = [IntegerRange(from_value=meta["low"], to_value=meta["high"])]
    return descriptor


def _changed(config, given: dict[str, Any]):
    """The settings with those of the given values that are theirs."""
    mine = {name: value for name, value in given.items() if name in _names(type(config))}
    return from_dict(type(config), asdict(config) | mine) if mine else config
