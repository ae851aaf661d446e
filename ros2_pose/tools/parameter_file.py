"""Generator of config/pose.yaml from the settings classes: defaults with their descriptions.

    python -m ros2_pose.tools.parameter_file > config/pose.yaml
"""

from __future__ import annotations

import argparse
import json
import textwrap
from dataclasses import fields
from typing import Any

from ros2_pose.config import PoseConfig
from ros2_pose.node_config import NodeConfig

_WIDTH = 100
_HEAD = """\
# Parameters of pose_node. The values here are the defaults; (live): may change while running.
# ros2 launch ros2_pose pose.launch.py params_file:=my_pose.yaml

/**:
  ros__parameters:
"""
_SECTIONS = (("What is done with a frame", PoseConfig),
             ("What the node does around it", NodeConfig))


def text() -> str:
    """Text of the parameter file."""
    parts = []
    for title, settings in _SECTIONS:
        parts.append(f"    # {title} ".ljust(_WIDTH, "-") + "\n\n")
        parts += [_entry(spec) + "\n" for spec in fields(settings)]
    return _HEAD + "".join(parts).rstrip("\n") + "\n"


def _entry(spec) -> str:
    """A setting with its help text, choices and range as comments."""
    meta = spec.metadata
    words = [meta["help"][0].upper() + meta["help"][1:] + "."]
    if meta["choices"]:
        words.append(f"[{', '.join(meta['choices'])}]")
    elif meta["low"] is not None:
        words.append(f"[{meta['low']} to {meta['high']}]")
    if meta["live"]:
        words.append("(live)")
    comment = textwrap.fill(" ".join(words), _WIDTH, initial_indent="    # ",
                            subsequent_indent="    # ", break_on_hyphens=False)
    return f"{comment}\n    {spec.name}: {_yaml(spec.default)}\n"


def _yaml(value: Any) -> str:
    if isinstance(value, tuple):
        return json.dumps(list(value))
    needs_no_quotes = isinstance(value, str) and value.replace("_", "").isalnum()
    return value if needs_no_quotes else json.dumps(value)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    print(text(), end="")
