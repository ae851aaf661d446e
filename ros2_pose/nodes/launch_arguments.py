"""Launch arguments of the node: one for every parameter, made of the settings classes. No launch.

An argument that is empty leaves its parameter as the parameter file has it.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

import yaml

from ros2_pose.config import ConfigError, PoseConfig, from_dict
from ros2_pose.nodes.params import NodeConfig

NODE = "ros2_pose"
_CLASSES = (PoseConfig, NodeConfig)
_TRUTH = {"true": True, "yes": True, "on": True, "1": True,
          "false": False, "no": False, "off": False, "0": False}
_EXPECTED = {bool: "true or false", int: "a whole number", float: "a number"}


class InForce(NamedTuple):
    """A parameter that does not have its default."""

    name: str
    value: Any
    source: str


def _settings() -> dict[str, Any]:
    return {spec.name: spec for cls in _CLASSES for spec in fields(cls)}


def _kinds() -> dict[str, Any]:
    return {name: kind for cls in _CLASSES for name, kind in get_type_hints(cls).items()
            if name in _settings()}


def descriptions() -> dict[str, str]:
    """What each parameter of the node does and may be, by its name."""
    return {name: _description(spec.metadata) for name, spec in _settings().items()}


def _description(meta: Mapping[str, Any]) -> str:
    limits = ""
    if meta["choices"]:
        limits = f" [{', '.join(map(str, meta['choices']))}]"
    elif meta["low"] is not None:
        limits = f" [{meta['low']} to {meta['high']}]"
    return f"{meta['help']}{limits}; empty: as in params_file"


def truth(name: str, text: str) -> bool:
    """The value of a launch argument that is true or false. Raises ConfigError."""
    return _value(name, text, bool)


def parameters(given: Mapping[str, str]) -> dict[str, Any]:
    """The parameters that launch arguments set, each of its own type.

    Args:
        given: launch arguments, {name: text}; those that are no parameters or empty are left out.

    Raises:
        ConfigError: a text does not say a value of the parameter's type.
    """
    return {name: _value(name, given[name], kind) for name, kind in _kinds().items()
            if given.get(name)}


def _value(name: str, text: str, kind) -> Any:
    if get_args(kind):  # tuple[int, ...]
        words = re.findall(r"[^\s,\[\]()]+", text)
        return [_value(name, word, get_args(kind)[0]) for word in words]
    if kind is str:
        return text
    try:
        return _TRUTH[text.strip().lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise ConfigError(f"{name}: {text!r} is not {_EXPECTED[kind]}") from None


def in_force(params_file: str | Path, node: str, given: Mapping[str, Any]) -> list[InForce]:
    """The parameters that will not have their defaults, in the order of the settings classes.

    Args:
        params_file: YAML file of parameters.
        node: full name of the node, such as /robot/ros2_pose.
        given: parameters that launch arguments set, which come before those of the file.

    Raises:
        ConfigError: the file cannot be read, or a value is not allowed.
    """
    file = _of_file(Path(params_file), node)
    values = file | dict(given)
    for cls in _CLASSES:
        from_dict(cls, {spec.name: values[spec.name] for spec in fields(cls)
                        if spec.name in values})
    return [InForce(name, values[name], "argument" if name in given else str(params_file))
            for name, spec in _settings().items()
            if name in values and _listed(values[name]) != _listed(spec.default)]


def _listed(value):
    return list(value) if isinstance(value, tuple) else value


def _of_file(path: Path, node: str) -> dict[str, Any]:
    """The parameters of a node in a parameter file; later sections count more."""
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
    if not isinstance(tree, dict):
        raise ConfigError("params_file: expected `node: ros__parameters: name: value`, found "
                          f"{tree!r} below {path or 'the top'}")
    for key, value in tree.items():
        if key == "ros__parameters":
            yield path, value
        else:
            yield from _sections(value, f"{path}/{str(key).strip('/')}")


def _matches(pattern: str, node: str) -> bool:
    """Whether a node's full name fits a section's: * is one part of it, ** any number."""
    parts = {"**": "(/[^/]+)*", "*": "/[^/]+"}
    expression = "".join(parts.get(part, "/" + re.escape(part)) for part in pattern.split("/")[1:])
    return re.fullmatch(expression, node) is not None


def parameter_file(values: Mapping[str, Any]) -> str:
    """The text of a parameter file. JSON, which is YAML: all strings are quoted, also "1e3"."""
    return json.dumps({"/**": {"ros__parameters": dict(values)}}, indent=1)


def refuse_unknown(given: Iterable[str], known: Iterable[str]) -> None:
    """Raise ConfigError for the first of the given launch arguments that is not known."""
    known = sorted(known)
    for name in given:
        if name not in known:
            near = nearest(name, known)
            hint = f"did you mean {near!r}?" if near else f"known are: {', '.join(known)}"
            raise ConfigError(f"unknown launch argument {name!r}: {hint}")


def nearest(name: str, known: Iterable[str], least: float = 0.5) -> str:
    """The known name that is most like this one; empty if none is similar."""
    found = difflib.get_close_matches(name.lower().replace("-", "_"), list(known), 1, least)
    return found[0] if found else ""
