"""The command `ros2_pose evaluate`: scores of a network on a dataset."""

from __future__ import annotations

import argparse
from pathlib import Path

from ros2_pose.cli.setting_options import add_settings, settings_of
from ros2_pose.config import PoseConfig
from ros2_pose.networks.registry import network_title


def add_parser(commands) -> None:
    """Add the command and its options to the subparsers of the main command."""
    evaluate = commands.add_parser(
        "evaluate", help="scores of a network: OKS AP, or all metrics of a dataset",
        description="DATA is a COCO keypoints file (person_keypoints_*.json) and ROOT the folder "
        "of its pictures: OKS AP by COCO's code, which needs pycocotools. Or DATA is the name of a "
        "dataset and ROOT its folder: boxes, keypoints, bodies and positions by the protocols of "
        "the field, and of the versions that a network compares itself with.")
    evaluate.add_argument("data", metavar="DATA", help="a .json file or a dataset's name")
    evaluate.add_argument("root", type=Path, metavar="ROOT", help="a folder; for synthetic, an npz "
                          "of motion capture")
    evaluate.add_argument("--split", default="test", help="split of the dataset (test)")
    evaluate.add_argument("--pictures", type=int, help="maximum number of pictures of the dataset")
    evaluate.add_argument("--reference", action="store_true", help="OKS AP: also score MoveNet's "
                          "original file, with the same scales and merging; needs ai-edge-litert")
    add_settings(evaluate)
    evaluate.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the scores; return the exit status."""
    config = settings_of(options, PoseConfig)
    if options.data.endswith(".json"):
        print(_oks_table(options, config))
    else:
        from ros2_pose.evaluation.report import report
        print(report(config, options.data, options.root, options.split, options.pictures))
    return 0


def _oks_table(options: argparse.Namespace, config: PoseConfig) -> str:
    from ros2_pose.evaluation.benchmarks import keypoints
    from ros2_pose.evaluation.tables import tables
    detectors = {network_title(config): keypoints.network_detector(config)}
    if options.reference:
        detectors["MoveNet as published (LiteRT)"] = keypoints.reference_detector(config)
    rows = []
    for name, detect in detectors.items():
        row, *_ = keypoints.evaluate(name, detect, Path(options.data), options.root,
                                     config.score_threshold)
        rows.append(row)
    return tables(rows)
