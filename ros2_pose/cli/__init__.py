"""The `ros2_pose` command: replay, batch, evaluate, label, train, fetch, demo, bench, soak."""

from __future__ import annotations

import argparse
import logging
import sys

from ros2_pose.cli import batch, evaluate, fetch, label, node_tools, replay, train
from ros2_pose.errors import PoseError
from ros2_pose.runtime_env import settle

_UNUSABLE, _INTERRUPTED = 2, 130  # exit statuses


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status.

    A PoseError is printed as one line without traceback.

    Args:
        arguments: words of the command line after the program's name, by default sys.argv's.
    """
    settle()
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO)
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except PoseError as error:
        print(f"ros2_pose: {error}", file=sys.stderr)
        return _UNUSABLE
    except KeyboardInterrupt:
        return _INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ros2_pose", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (replay, batch, evaluate, label, train, fetch, node_tools):
        module.add_parser(commands)
    return parser
