"""Launch arguments for the node's parameters, derived from the settings classes; no ROS here.

An empty argument leaves the parameter as in the parameter file.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml

from ros2_pose.config import ConfigError, PoseConfig, from_dict
from ros2_pose.node_config import NodeConfig

NODE_NAME = "ros2_pose"
_CLASSES = (PoseConfig, NodeConfig)
_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True,
             "false": False, "no": False, "off": False, "0": False}
_EXPECTED = {bool: "true or false", int: "a whole number", float: "a number"}


def _specs() -> dict[str, Any]:
    """The dataclass field of each parameter."""
    return {spec.name: spec for cls in _CLASSES for spec in fields(cls)}


def _types() -> dict[str, Any]:
    """The type of each parameter."""
    hints = {name: kind for cls in _CLASSES for name, kind in get_type_hints(cls).items()}
    return {name: hints[name] for name in _specs()}


def descriptions() -> dict[str, str]:
    """Help text and allowed values of each parameter, by name."""
    return {name: _description(spec.metadata) for name, spec in _specs().items()}


def _description(meta: Mapping[str, Any]) -> str:
    limits = ""
    if meta["choices"]:
        limits = f" [{', '.join(map(str, meta['choices']))}]"
    elif meta["low"] is not None:
        limits = f" [{meta['low']} to {meta['high']}]"
    return f"{meta['help']}{limits}; empty: as in params_file"


def parse_bool(name: str, text: str) -> bool:
    """Parse a boolean launch argument. Raises ConfigError if it is neither true nor false."""
    return _parse(name, text, bool)


def parse_parameters(arguments: Mapping[str, str]) -> dict[str, Any]:
    """Parse the launch arguments that set parameters, each to its parameter's type.

    Args:
        arguments: {name: text}; empty ones and those that are not parameters are left out.

    Raises:
        ConfigError: a text is not a value of the parameter's type.
    """
    return {name: _parse(name, arguments[name], kind) for name, kind in _types().items()
            if arguments.get(name)}


def _parse(name: str, text: str, kind) -> Any:
    if get_args(kind):  # tuple[int, ...] or tuple[str, ...]
        words = re.findall(r"[^\s,\[\]()'\"]+", text)
        return [_parse(name, word, get_args(kind)[0]) for word in words]
    if kind is str:
        return text
    try:
        return _BOOLEANS[text.strip().lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise ConfigError(f"{name}: {text!r} is not {_EXPECTED[kind]}") from None


def non_default_parameters(params_file: str | Path, node: str,
                           from_arguments: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    """Parameters that will not have their defaults, in the order of the settings classes.

    Args:
        params_file: YAML file of parameters.
        node: full name of the node, such as /robot/ros2_pose.
        from_arguments: parameters set by launch arguments, which override those of the file.

    Returns:
        {name: (value, source)}; the source is "argument" or the file's path.

    Raises:
        ConfigError: the file cannot be read, or a value is not allowed.
    """
    values = _read_parameter_file(Path(params_file), node) | dict(from_arguments)
    for cls in _CLASSES:
        own = {spec.name: values[spec.name] for spec in fields(cls) if spec.name in values}
        from_dict(cls, own)  # validates
    changed = {}
    for name, spec in _specs().items():
        if name in values and _as_list(values[name]) != _as_list(spec.default):
            source = "argument" if name in from_arguments else str(params_file)
            changed[name] = values[name], source
    return changed


def _as_list(value):
    return list(value) if isinstance(value, tuple) else value


def _read_parameter_file(path: Path, node: str) -> dict[str, Any]:
    """Parameters of a node in a parameter file; later sections override earlier ones."""
    try:
        tree = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"params_file: cannot read {path}: {error}") from error
    values: dict[str, Any] = {}
    for pattern, section in _sections(tree or {}, ""):
        if _matches(pattern, node):
            values |= section or {}
    return values


def _sections(tree, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (name pattern, parameters) of each ros__parameters section below `path`."""
    if not isinstance(tree, dict):
        raise ConfigError("params_file: expected `node: ros__parameters: name: value`, found "
                          f"{tree!r} below {path or 'the top'}")
    for key, value in tree.items():
        if key == "ros__parameters":
            yield path, value
        else:
            yield from _sections(value, f"{path}/{str(key).strip('/')}")


def _matches(pattern: str, node: str) -> bool:
    """Whether a node's full name matches a pattern: * is one part of it, ** any number."""
    wildcards = {"**": "(/[^/]+)*", "*": "/[^/]+"}
    parts = pattern.split("/")[1:]
    expression = "".join(wildcards.get(part, "/" + re.escape(part)) for part in parts)
    return re.fullmatch(expression, node) is not None


def parameter_file(values: Mapping[str, Any]) -> str:
    """Text of a parameter file, as JSON (which is YAML), so that strings like "1e3" are quoted."""
    return json.dumps({"/**": {"ros__parameters": dict(values)}}, indent=1)


def check_known(names: Iterable[str], known: Iterable[str]) -> None:
    """Raise ConfigError for the first launch argument that is not known."""
    known = sorted(known)
    for name in names:
        if name not in known:
            similar = closest_name(name, known)
            hint = f"did you mean {similar!r}?" if similar else f"known are: {', '.join(known)}"
            raise ConfigError(f"unknown launch argument {name!r}: {hint}")


def closest_name(name: str, known: Iterable[str], min_similarity: float = 0.5) -> str:
    """The most similar known name; empty if none reaches `min_similarity` (0 to 1)."""
    normalized = name.lower().replace("-", "_")
    found = difflib.get_close_matches(normalized, list(known), 1, min_similarity)
    return found[0] if found else ""
