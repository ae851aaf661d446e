"""Command-line options made from the settings classes, which define every default once."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar, get_args, get_type_hints

from ros2_pose.config import ConfigError, PoseConfig, from_dict, values_of_yaml
from ros2_pose.node_config import OFFLINE, NodeConfig

T = TypeVar("T", PoseConfig, NodeConfig)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add --config and an option for each setting of the pipeline."""
    parser.add_argument("--config", help="YAML of settings, or the node's parameter file; options "
                        "override it")
    _add(parser.add_argument_group("settings"), PoseConfig,
         [setting.name for setting in fields(PoseConfig)], {})


def add_node_settings(parser: argparse.ArgumentParser,
                      aliases: Mapping[str, Sequence[str]]) -> None:
    """Add an option for each of the node's settings that has a meaning offline.

    Args:
        aliases: setting name -> further option strings.
    """
    _add(parser.add_argument_group("settings shared with the node"), NodeConfig, OFFLINE, aliases)


def _add(group, cls: type, names: Sequence[str], aliases: Mapping[str, Sequence[str]]) -> None:
    types = get_type_hints(cls)
    settings = {setting.name: setting for setting in fields(cls)}
    for name in names:
        elements = get_args(types[name])  # (int, ...) of tuple[int, ...], else empty
        kind = elements[0] if elements else types[name]
        options: dict[str, Any] = {"nargs": "+"} if elements else {}
        if kind is bool:
            options["action"] = argparse.BooleanOptionalAction
        else:
            options["type"] = kind
        group.add_argument(f"--{name.replace('_', '-')}", *aliases.get(name, ()), default=None,
                           dest=name, help=_help(settings[name]), **options)


def _help(setting) -> str:
    choices = ", ".join(map(str, setting.metadata["choices"]))
    limits = f" [{choices}]" if choices else ""
    default = setting.default
    if isinstance(default, tuple):
        default = " ".join(map(str, default))
    return f"{setting.metadata['help']}{limits} ({default})".replace("%", "%%")


def settings_of(options: argparse.Namespace, cls: type[T]) -> T:
    """Return a settings object from the file of --config, overridden by the parsed options.

    Raises:
        ConfigError: for a value that is not allowed or an unknown setting in the file.
    """
    values = values_of_yaml(options.config) if options.config else {}
    known = {setting.name for kind in (PoseConfig, NodeConfig) for setting in fields(kind)}
    unknown = sorted(str(name) for name in values if name not in known)
    if unknown:
        raise ConfigError(f"unknown setting {unknown[0]!r} in {options.config}; known are: "
                          f"{', '.join(sorted(known))}")
    names = {setting.name for setting in fields(cls)}
    values = {name: value for name, value in values.items() if name in names}
    for name in names:
        given = getattr(options, name, None)
        if given is not None:
            values[name] = given
    return from_dict(cls, values)
