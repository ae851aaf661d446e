"""ROS parameters out of the settings classes: every default stays in its one home."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any, get_args, get_type_hints

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node

from ros2_pose.config import ConfigError, PoseConfig, from_dict
from ros2_pose.node_config import NodeConfig

__all__ = ["NodeConfig", "Parameters"]

_ROS_OWN = ("use_sim_time", "start_type_description_service", "qos_overrides")


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
