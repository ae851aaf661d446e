"""The command `ros2_pose fetch`: weights in a folder, for a robot without network."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from ros2_pose.weights import ASSETS, fill


def add_parser(commands) -> None:
    """Add the command and its options to the subparsers of the main command."""
    fetch = commands.add_parser(
        "fetch", help="put the networks' weights into a folder, for a robot without network",
        description="Puts the files that the node and replay download on first use into DIR. Each "
        "is verified by its sha256. Good files in DIR are kept, damaged ones replaced. A file in "
        "the cache (ROS2_POSE_CACHE, by default ~/.cache/ros2_pose) is copied, not downloaded. On "
        "the robot, set ROS2_POSE_CACHE to the copied folder, which may be read-only. The exit "
        "status is 0 if all files are in DIR, else 2.")
    fetch.add_argument("folder", type=Path, metavar="DIR")
    fetch.add_argument("--all", action="store_true",
                       help="also the files of the demo, the tests and of training")
    fetch.add_argument("--offline", action="store_true",
                       help="download nothing: copy from the cache, or fail")
    fetch.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Fill the folder and print what was done with each file.

    Returns:
        The exit status: 0, all files are there.
    Raises:
        PoseError: if a file could not be put there.
    """
    folder = options.folder.resolve()
    names = [name for name, asset in ASSETS.items() if options.all or asset.use == "run"]
    total = 0.0
    for name, done in fill(folder, names, options.offline):
        megabytes = (folder / name).stat().st_size / 1e6
        total += megabytes
        print(f"{done:10} {megabytes:5.1f} MB  {name:24}  {ASSETS[name].licence}", flush=True)
    print(f"{len(names)} files, {total:.0f} MB, verified, are in {folder}.\n"
          "Copy it to the robot and set its path there before the node starts, for example:\n"
          f"  export ROS2_POSE_CACHE={shlex.quote(str(folder))}")
    return 0
