"""The command `ros2_pose label`: labels of people in pictures, to train a network on."""

from __future__ import annotations

import argparse
from pathlib import Path

from ros2_pose.cli.setting_options import add_settings, settings_of
from ros2_pose.config import PoseConfig


def add_parser(commands) -> None:
    """Add the command and its options to the subparsers of the main command."""
    label = commands.add_parser(
        "label", help="label people in pictures or bags, to train a network on",
        description="Labels people by the configured network and the body layer: keypoints with "
        "covariances in COCO's layout, theta, betas and root. PICTURES is a folder of pictures, a "
        "video or a bag. OUT is a folder that gets labels.json and the pictures; the same "
        "command goes on where it was interrupted, another recording is added.")
    label.add_argument("source", type=Path, metavar="PICTURES")
    label.add_argument("out", type=Path, metavar="OUT")
    label.add_argument("--every", type=float, default=1.0, metavar="S", help="least time between "
                       "two images of a video or a bag, s (%(default)g)")
    label.add_argument("--image-topic", default="", help="image topic, if the bag has several")
    label.add_argument("--calibration", type=Path, help="camera calibration (YAML of ROS, OpenCV "
                       "or Kalibr) for pictures and videos")
    add_settings(label)
    label.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Label a recording and print the counts; return the exit status."""
    from ros2_pose.data.labelled import LABELS
    from ros2_pose.offline.calibration_file import read_calibration
    from ros2_pose.offline.recording import open_recording
    from ros2_pose.offline.sources import PictureSource
    from ros2_pose.training.label import Labeller, write_labels
    config = settings_of(options, PoseConfig)
    camera = read_calibration(options.calibration, False) if options.calibration else None
    source = open_recording(options.source, camera=camera, image_topic=options.image_topic)
    every_s = 0.0 if isinstance(source, PictureSource) else options.every
    name = options.source.resolve().stem or "picture"
    counts = write_labels(source, name, Labeller(config), options.out, every_s)
    print(f"{options.out / LABELS}: " + ", ".join(f"{count} {what}"
                                                  for what, count in counts.items()))
    return 1 if counts["unreadable"] else 0
