"""The `ros2_pose` command: replay recordings, train and evaluate networks, demo, bench and soak."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from ros2_pose.cli import replay
from ros2_pose.cli.setting_options import add_settings, settings_of
from ros2_pose.config import PoseConfig
from ros2_pose.errors import PoseError
from ros2_pose.runtime_env import settle

_DONE, _UNUSABLE = 0, 2  # exit statuses


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns its exit status. Errors that a user can mend are one line."""
    settle()
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO)
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except PoseError as error:
        print(f"ros2_pose: {error}", file=sys.stderr)
        return _UNUSABLE
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ros2_pose", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    replay.add_parser(commands)
    _add_evaluate(commands)
    _add_train(commands)
    demo = commands.add_parser("demo", help="real people in a real video through the real node")
    demo.add_argument("--out", type=Path, default=Path("demo"), help="folder of the results")
    demo.set_defaults(run=_demo)
    bench = commands.add_parser("bench", help="frames a second and latency through the node")
    bench.add_argument("--seconds", type=float, default=20.0, help="how long each row runs")
    bench.set_defaults(run=_bench)
    soak = commands.add_parser("soak", help="whether the node grows or slows down in the long run")
    soak.add_argument("--minutes", type=float, default=30.0, help="after the warm-up")
    soak.set_defaults(run=_soak)
    return parser


def _add_evaluate(commands) -> None:
    evaluate = commands.add_parser(
        "evaluate", help="scores of a network: OKS AP, or all that a dataset has truth for",
        description="DATA is a COCO keypoints file (person_keypoints_*.json), ROOT the folder of "
        "its pictures: OKS AP by COCO's code, which needs pycocotools. Or DATA is the name of a "
        "dataset and ROOT its folder: boxes, keypoints, bodies and places by the protocols of the "
        "field, and how each part of the network tian adds to it.")
    evaluate.add_argument("data", metavar="DATA", help="a .json file or a dataset's name")
    evaluate.add_argument("root", type=Path, metavar="ROOT", help="a folder; for synthetic, an npz "
                          "of motion capture")
    evaluate.add_argument("--split", default="test", help="of a dataset (test)")
    evaluate.add_argument("--pictures", type=int, help="how many of a dataset at most")
    evaluate.add_argument("--reference", action="store_true", help="OKS AP: also score MoveNet's "
                          "original file, same scales, merged alike; needs ai-edge-litert")
    add_settings(evaluate)
    evaluate.set_defaults(run=_evaluate)


def _add_train(commands) -> None:
    train = commands.add_parser(
        "train", help="train the network tian", description="Stopped at any time, the same "
        "command goes on where it stopped. Checkpoint and log go to --out and beside it.")
    train.add_argument("config", type=Path, help="YAML with the sections network and training, "
                       "as in config/networks")
    train.add_argument("--data", nargs="+", action="append", required=True, metavar="WORD",
                       help="NAME FOLDER [SPLIT]: a dataset as it was published, or synthetic and "
                       "an npz of motion capture; may be given several times")
    train.add_argument("--held-back", nargs="+", metavar="WORD", help="the same, to look at the "
                       "loss of while training, and to calibrate by")
    train.add_argument("--out", type=Path, required=True, help="the checkpoint to write")
    train.add_argument("--init", type=Path, help="a checkpoint to start from")
    train.add_argument("--steps", type=int, help="instead of the config's")
    train.set_defaults(run=_train)


def _evaluate(options) -> int:
    if options.data.endswith(".json"):
        return _evaluate_oks(options)
    from ros2_pose.evaluation.report import report
    print(report(settings_of(options, PoseConfig), options.data, options.root, options.split,
                 options.pictures))
    return _DONE


def _evaluate_oks(options) -> int:
    from ros2_pose.evaluation.benchmarks import keypoints
    from ros2_pose.evaluation.tables import tables
    config = settings_of(options, PoseConfig)
    detectors = {_title(config): keypoints.network_detector(config)}
    if options.reference:
        detectors["MoveNet as published (LiteRT)"] = keypoints.reference_detector(config)
    rows = [keypoints.evaluate(name, detect, Path(options.data), options.root,
                               config.score_threshold)[0]
            for name, detect in detectors.items()]
    print(tables(rows))
    return _DONE


def _title(config: PoseConfig) -> str:
    """A network and what its scores depend on."""
    if config.network == "movenet":
        return f"movenet at {', '.join(map(str, config.scales))} px"
    return f"{config.network}, {config.checkpoint or 'as shipped'}"


def _train(options) -> int:
    from ros2_pose.training.trainer import run
    run(options)
    return _DONE


def _demo(options) -> int:
    from ros2_pose.tools.demo import run
    return run(options.out)


def _bench(options) -> int:
    from ros2_pose.tools.bench import run
    return run(options.seconds)


def _soak(options) -> int:
    from ros2_pose.tools.soak import run
    return run(options.minutes)
