"""The command `ros2_pose replay`: people from recorded images, without ROS."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ros2_pose.camera import Camera
from ros2_pose.cli.setting_options import add_node_settings, add_settings, settings_of
from ros2_pose.config import PoseConfig
from ros2_pose.errors import PoseError
from ros2_pose.node_config import NodeConfig
from ros2_pose.offline.calibration_file import read_calibration
from ros2_pose.offline.recording import open_recording

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
    replay.add_argument("--image-topic", default="", help="image topic, if the bag has several")
    replay.add_argument("--camera-info-topic", default="",
                        help="by default the camera_info beside the image topic")
    replay.add_argument("--depth-topic", default="", help="depth topic of the bag, aligned with "
                        "the image; by default the only one with depth in its name; implies "
                        "--depth")
    replay.add_argument("--calibration", type=Path, help="camera calibration (YAML of ROS, OpenCV "
                        "or Kalibr) for pictures and videos, or to replace a bag's CameraInfo")
    replay.add_argument("--storage", choices=("sqlite3", "mcap"), default="sqlite3",
                        help="format of a new bag")
    replay.add_argument("--fps", type=float, default=30.0, help="frame rate of pictures, Hz")
    add_settings(replay)
    add_node_settings(replay, {"overlay_bodies": ["--bodies"]})
    replay.set_defaults(run=run)


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
    # torch is imported from here on: after `runtime_env.settle`, and not for wrong arguments.
    from ros2_pose.offline.results import check_results, is_bag, open_sink
    from ros2_pose.offline.sinks import writing
    if options.rerun and (is_bag(options.rerun) or options.rerun.suffix.lower() != ".rrd"):
        raise ReplayError(f"--rerun {options.rerun}: the name of a Rerun recording ends in .rrd")
    settings, config = settings_of(options, NodeConfig), settings_of(options, PoseConfig)
    source = open_recording(
        options.source, camera=_camera(options, settings), settings=settings,
        image_topic=options.image_topic, camera_info_topic=options.camera_info_topic,
        depth_topic=options.depth_topic, fps=options.fps)
    check_results(results, options.source)
    from ros2_pose.offline.replay import replay
    from ros2_pose.pipeline import Pipeline
    pipeline = Pipeline(config)
    sinks = []
    for path in results:
        with writing(path):
            sinks.append(open_sink(path, source.fps, pipeline, settings, options.storage))
    return _report(replay(source, pipeline, sinks))


def _camera(options: argparse.Namespace, settings: NodeConfig) -> Camera | None:
    """Read the camera of --calibration, if given."""
    if not options.calibration:
        return None
    return read_calibration(options.calibration, settings.rectified)


def _report(summary) -> int:
    """Print what was replayed; return the exit status."""
    people = summary.people
    print(f"{summary.images} images, {summary.unreadable} unreadable, {summary.ignored} ignored, "
          f"{len(people)} people: {' '.join(people)}")
    mostly_ignored = 2 * summary.ignored > summary.images
    if mostly_ignored:
        print("ros2_pose: most images were ignored because their stamps do not increase: the "
              "camera's driver must stamp each image with its time of exposure", file=sys.stderr)
    if summary.stopped:
        print(f"ros2_pose: stopped early: {summary.stopped}; finished results are kept",
              file=sys.stderr)
    return _INCOMPLETE if summary.stopped or summary.unreadable or mostly_ignored else _DONE
