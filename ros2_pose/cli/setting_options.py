"""Options of the command line out of the settings classes: each default stays in its one home."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar, get_args, get_type_hints

from ros2_pose.config import ConfigError, PoseConfig, from_dict, values_of_yaml
from ros2_pose.node_config import OFFLINE, NodeConfig

T = TypeVar("T", PoseConfig, NodeConfig)


def add_settings(parser: argparse.ArgumentParser) -> None:
    """An option for each setting of the pipeline, and --config."""
    parser.add_argument("--config", help="YAML of settings, or the node's parameter file; options "
                        "override it")
    _add(parser.add_argument_group("settings"), PoseConfig,
         [setting.name for setting in fields(PoseConfig)], {})


def add_node_settings(parser: argparse.ArgumentParser,
                      aliases: Mapping[str, Sequence[str]]) -> None:
    """An option for each of the node's settings that makes sense offline.

    aliases: further options of a setting.
    """
    _add(parser.add_argument_group("settings shared with the node"), NodeConfig, OFFLINE, aliases)


def _add(group, cls: type, names: Sequence[str], aliases: Mapping[str, Sequence[str]]) -> None:
    types = get_type_hints(cls)
    settings = {setting.name: setting for setting in fields(cls)}
    for name in names:
        kind = types[name]
        element = (get_args(kind) or (kind,))[0]
        options: dict[str, Any] = {"nargs": "+"} if get_args(kind) else {}
        if element is bool:
            options["action"] = argparse.BooleanOptionalAction
        else:
            options["type"] = element
        group.add_argument(f"--{name.replace('_', '-')}", *aliases.get(name, ()), default=None,
                           dest=name, help=_help(settings[name]), **options)


def _help(setting) -> str:
    choices = ", ".join(map(str, setting.metadata["choices"]))
    limits = f" [{choices}]" if choices else ""
    return f"{setting.metadata['help']}{limits} ({setting.default})".replace("%", "%%")


def settings_of(options: argparse.Namespace, cls: type[T]) -> T:
    """A settings object of the parsed options and the file that --config names.

    Raises:
        ConfigError: for a value that is not allowed, or a name that no setting has.
    """
    known = {setting.name for kind in (PoseConfig, NodeConfig) for setting in fields(kind)}
    values = values_of_yaml(options.config) if options.config else {}
    if unknown := sorted(str(name) for name in values if name not in known):
        raise ConfigError(f"unknown setting {unknown[0]!r} in {options.config}; known are: "
                          f"{', '.join(sorted(known))}")
    mine = {setting.name for setting in fields(cls)}
    values = {name: value for name, value in values.items() if name in mine}
    given = {name: getattr(options, name) for name in mine
             if getattr(options, name, None) is not None}
    return from_dict(cls, values | given)
