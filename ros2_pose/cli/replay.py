"""The command `ros2_pose replay`: people from recorded images, without ROS."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ros2_pose.cli.setting_options import add_node_settings, add_settings, settings_of
from ros2_pose.config import PoseConfig
from ros2_pose.errors import PoseError
from ros2_pose.node_config import NodeConfig
from ros2_pose.offline.calibration_file import read_calibration
from ros2_pose.offline.replayer import Replayer

_DONE, _INCOMPLETE = 0, 1  # exit statuses


class ReplayError(PoseError):
    """Arguments of the command contradict each other or are incomplete."""


def add_parser(commands) -> None:
    """Add the command and its options to the subparsers of the main command."""
    replay = commands.add_parser(
        "replay", help="people from recorded images, without ROS",
        description="Processes every image of a recording; results are reproducible. IN is a bag "
        "(a folder or one of its files, also of ROS 1), a video, a picture or a folder of "
        "pictures, which are read in natural order. OUT is people as .jsonl or .json, an overlay "
        "video as .mp4, .avi or .mkv, a Rerun recording as .rrd, or, without suffix, a new bag; "
        "several may be given.")
    replay.add_argument("source", type=Path, metavar="IN")
    replay.add_argument("out", type=Path, nargs="*", metavar="OUT")
    replay.add_argument("--rerun", type=Path, metavar="FILE", help="write an .rrd for the Rerun "
                        "viewer, too: pictures, keypoints, skeletons; needs pip install rerun-sdk")
    add_recording_options(replay)
    replay.set_defaults(run=run)


def add_recording_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `replay` and `batch`: how recordings are read, and all settings."""
    parser.add_argument("--image-topic", default="", help="image topic, if the bag has several")
    parser.add_argument("--camera-info-topic", default="",
                        help="by default the camera_info beside the image topic")
    parser.add_argument("--depth-topic", default="", help="depth topic of the bag, aligned with "
                        "the image; by default the only one with depth in its name; implies "
                        "--depth")
    parser.add_argument("--calibration", type=Path, help="camera calibration (YAML of ROS, OpenCV "
                        "or Kalibr) for pictures and videos, or to replace a bag's CameraInfo")
    parser.add_argument("--storage", choices=("sqlite3", "mcap"), default="sqlite3",
                        help="format of a new bag")
    parser.add_argument("--fps", type=float, default=30.0, help="frame rate of pictures, Hz")
    add_settings(parser)
    add_node_settings(parser, {"overlay_bodies": ["--bodies"]})


def replayer_of(options: argparse.Namespace) -> Replayer:
    """Return a Replayer with the options of `add_recording_options`."""
    settings = settings_of(options, NodeConfig)
    camera = None
    if options.calibration:
        camera = read_calibration(options.calibration, settings.rectified)
    return Replayer(
        settings_of(options, PoseConfig), settings, camera, options.storage,
        image_topic=options.image_topic, camera_info_topic=options.camera_info_topic,
        depth_topic=options.depth_topic, fps=options.fps)


def run(options: argparse.Namespace) -> int:
    """Replay a recording and print a summary.

    Returns:
        The exit status: 0, or 1 if images were unreadable or ignored or the replay stopped early.
    Raises:
        PoseError: for arguments, recordings or outputs that cannot be used.
    """
    results = [*options.out, *([options.rerun] if options.rerun else [])]
    if not results:
        raise ReplayError("no output given: name an OUT, or --rerun FILE")
    if options.rerun and options.rerun.suffix.lower() != ".rrd":
        raise ReplayError(f"--rerun {options.rerun}: the name of a Rerun recording ends in .rrd")
    summary = replayer_of(options).run(options.source, results)
    print(summary.counts)
    for problem in summary.problems:
        print(f"ros2_pose: {problem}", file=sys.stderr)
    return _INCOMPLETE if summary.problems or summary.unreadable else _DONE
