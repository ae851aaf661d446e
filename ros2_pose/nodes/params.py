"""ROS parameters, declared from the settings classes, which define names, defaults and ranges."""

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

_ROS_OWN = ("use_sim_time", "start_type_description_service", "qos_overrides")


class NodeParameters:
    """The node's parameters, declared from both settings classes and validated on change.

    `pose` and `node` are frozen and replaced as a whole when a parameter changes; an invalid change
    is refused with the reason.

    Attributes:
        in_use: while True, parameters that are not live cannot change.
    """

    def __init__(self, ros_node: Node):
        """Declare all parameters. Raises ConfigError for an unknown name or an invalid value."""
        _refuse_unknown(ros_node)
        self.pose: PoseConfig = _declare(ros_node, PoseConfig)
        self.node: NodeConfig = _declare(ros_node, NodeConfig)
        self.in_use = False
        ros_node.add_on_set_parameters_callback(self._set)

    def _set(self, parameters) -> SetParametersResult:
        changes = {p.name: p.value for p in parameters}
        try:
            if self.in_use:
                _refuse_fixed(changes)
            pose, node = _changed(self.pose, changes), _changed(self.node, changes)
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        self.pose, self.node = pose, node
        return SetParametersResult(successful=True)


def _refuse_fixed(changes: dict[str, Any]) -> None:
    """Raise ConfigError if a parameter that is not live is among the changes."""
    for name, spec in (_specs(PoseConfig) | _specs(NodeConfig)).items():
        if name in changes and not spec.metadata["live"]:
            raise ConfigError(f"{name} cannot change while the node uses it: clean the node up "
                              "(ros2 lifecycle set), change it, configure and activate again")


def _specs(cls: type) -> dict[str, Any]:
    return {spec.name: spec for spec in fields(cls)}


def _refuse_unknown(node: Node) -> None:
    """Raise ConfigError for an undeclared parameter, such as a mistyped one: rclpy ignores it."""
    known = [*_specs(PoseConfig), *_specs(NodeConfig)]
    for name in getattr(node, "_parameter_overrides", {}):
        if name not in known and name.split(".")[0] not in _ROS_OWN:
            raise ConfigError(f"unknown parameter {name!r}; known are: {', '.join(sorted(known))}")


def _declare(node: Node, cls: type):
    """Declare a parameter for each field. Returns the settings with the initial values."""
    types, values = get_type_hints(cls), {}
    for name, spec in _specs(cls).items():
        default = list(spec.default) if isinstance(spec.default, tuple) else spec.default
        descriptor = _descriptor(spec, types[name])
        values[name] = node.declare_parameter(name, default, descriptor).value
    return from_dict(cls, values)


def _descriptor(spec, kind) -> ParameterDescriptor:
    """Descriptor of a field of type `kind`: help text and allowed values."""
    meta, limits = spec.metadata, ""
    if meta["choices"]:
        limits = f"one of {', '.join(meta['choices'])}"
    elif get_args(kind) and meta["low"] is not None:
        limits = f"each from {meta['low']} to {meta['high']}"
    descriptor = ParameterDescriptor(
        description=meta["help"], additional_constraints=limits,
        dynamic_typing=kind is float)  # accepts 60 for 60.0
    if kind is float and meta["low"] is not None:
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=float(meta["low"]), to_value=float(meta["high"]))]
    if kind is int and meta["low"] is not None:
        descriptor.integer_range = [IntegerRange(from_value=meta["low"], to_value=meta["high"])]
    return descriptor


def _changed(config, changes: dict[str, Any]):
    """Settings with the changes that concern them; the same object if there are none."""
    own = {name: value for name, value in changes.items() if name in _specs(type(config))}
    return from_dict(type(config), asdict(config) | own) if own else config
