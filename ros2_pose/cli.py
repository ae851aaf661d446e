"""The `ros2_pose` command: replay recordings, train and evaluate networks, demo, bench and soak."""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

from ros2_pose.camera import read_calibration
from ros2_pose.config import PoseConfig, from_dict, from_yaml
from ros2_pose.errors import PoseError
from ros2_pose.process import settle
from ros2_pose.sources import VIDEOS, PictureSource, SourceError, VideoSource, picture_files

_JSON, _VIDEO = ".jsonl", ".mp4"
_DONE, _INCOMPLETE, _UNUSABLE = 0, 1, 2  # exit statuses


class CommandError(PoseError):
    """Arguments that do not fit together."""


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
    _add_replay(commands)
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


def _add_replay(commands) -> None:
    replay = commands.add_parser(
        "replay", help="people from recorded images, without ROS",
        description="Every image of a recording, the same result every time. IN is a rosbag2 bag, "
        "a video, a picture or a folder of pictures. OUT is a new bag, or a file: people as "
        ".jsonl, the images with people drawn in as .mp4; several may be given.")
    replay.add_argument("source", type=Path, metavar="IN")
    replay.add_argument("out", type=Path, nargs="*", metavar="OUT")
    replay.add_argument("--rerun", type=Path, metavar="FILE", help="also an .rrd for the Rerun "
                        "viewer: pictures, keypoints, skeletons; needs pip install rerun-sdk")
    replay.add_argument("--image-topic", default="", help="which, if the bag has several")
    replay.add_argument("--camera-info-topic", default="",
                        help="by default the camera_info beside the image topic")
    replay.add_argument("--calibration", type=Path, help="camera calibration (YAML) for pictures "
                        "and videos, or to replace a bag's CameraInfo")
    replay.add_argument("--storage", choices=("sqlite3", "mcap"), default="sqlite3",
                        help="format of a new bag")
    replay.add_argument("--fps", type=float, default=30.0, help="of pictures, images a second")
    replay.add_argument("--bodies", action="store_true", help="draw SMPL surfaces into the .mp4")
    _add_settings(replay)
    replay.set_defaults(run=_replay)


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
    _add_settings(evaluate)
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


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """An option for each setting of the pipeline; the defaults stay where they are."""
    parser.add_argument("--config", type=Path, help="YAML of settings; options override it")
    group = parser.add_argument_group("settings")
    types = get_type_hints(PoseConfig)
    for setting in fields(PoseConfig):
        kind = types[setting.name]
        element = (get_args(kind) or (kind,))[0]
        options: dict[str, Any] = {"nargs": "+"} if get_args(kind) else {}
        if element is bool:
            options["action"] = argparse.BooleanOptionalAction
        else:
            options["type"] = element
        group.add_argument(f"--{setting.name.replace('_', '-')}", default=None, dest=setting.name,
                           help=_help(setting), **options)


def _help(setting) -> str:
    return f"{setting.metadata['help']} ({setting.default})".replace("%", "%%")


def _settings(options) -> PoseConfig:
    config = from_yaml(PoseConfig, options.config) if options.config else PoseConfig()
    given = {f.name: getattr(options, f.name) for f in fields(PoseConfig)
             if getattr(options, f.name) is not None}
    return from_dict(PoseConfig, vars(config) | given)


def _replay(options) -> int:
    from ros2_pose.pipeline import Pipeline
    from ros2_pose.replay import replay, writing
    if not options.out and not options.rerun:
        raise CommandError("nowhere to write to: name an OUT, or --rerun FILE")
    source = _source(options)
    pipeline = Pipeline(_settings(options))
    sinks = []
    for path in options.out:
        with writing(path):
            sinks.append(_sink(path, source, pipeline, options))
    if options.rerun:
        from ros2_pose.rerun_log import RerunLog
        sinks.append(RerunLog(options.rerun, pipeline))
    summary = replay(source, pipeline, sinks)
    print(f"{summary.images} images, {summary.unreadable} unreadable, "
          f"{len(summary.ids)} people: {' '.join(sorted(summary.ids))}")
    if summary.stopped:
        print(f"ros2_pose: stopped early: {summary.stopped}; what was finished is kept",
              file=sys.stderr)
    return _INCOMPLETE if summary.stopped or summary.unreadable else _DONE


def _source(options):
    """What reads IN, by its kind."""
    path = options.source
    camera = read_calibration(options.calibration) if options.calibration else None
    if not path.exists():
        raise SourceError(f"{path} does not exist")
    bag = path.parent if path.suffix in (".mcap", ".db3") else path
    if (bag / "metadata.yaml").exists():
        from ros2_pose.bags import BagSource
        return BagSource(bag, options.image_topic, options.camera_info_topic, camera)
    if path.is_dir():
        return PictureSource(picture_files(path), camera, options.fps)
    if path.suffix.lower() in VIDEOS:
        return VideoSource(path, camera)
    return PictureSource([path], camera, options.fps)


def _sink(path: Path, source, pipeline, options):
    """What writes OUT, by its suffix."""
    from ros2_pose.replay import JsonLines, OverlayVideo
    if path.suffix == _JSON:
        return JsonLines(path)
    if path.suffix == _VIDEO:
        return OverlayVideo(path, source.fps, pipeline, options.bodies)
    from ros2_pose.bags import BagSink
    return BagSink(path, options.storage, pipeline)


def _evaluate(options) -> int:
    if options.data.endswith(".json"):
        return _evaluate_oks(options)
    from ros2_pose.evaluation.report import report
    print(report(_settings(options), options.data, options.root, options.split,
                 options.pictures))
    return _DONE


def _evaluate_oks(options) -> int:
    from ros2_pose.evaluation import keypoints
    config = _settings(options)
    detectors = {_title(config): keypoints.network_detector(config)}
    if options.reference:
        detectors["MoveNet as published (LiteRT)"] = keypoints.reference_detector(config)
    rows = {name: keypoints.evaluate(detect, Path(options.data), options.root,
                                     config.score_threshold)
            for name, detect in detectors.items()}
    print(keypoints.table(rows, config.score_threshold))
    return _DONE


def _title(config: PoseConfig) -> str:
    """A network and what its scores depend on."""
    if config.network == "movenet":
        return f"movenet at {', '.join(map(str, config.scales))} px"
    return f"{config.network}, {config.checkpoint or 'as shipped'}"


def _train(options) -> int:
    from ros2_pose.training.train import run
    run(options)
    return _DONE


def _demo(options) -> int:
    from ros2_pose.nodes.demo import run
    return run(options.out)


def _bench(options) -> int:
    from ros2_pose.nodes.bench import run
    return run(options.seconds)


def _soak(options) -> int:
    from ros2_pose.nodes.soak import run
    return run(options.minutes)


if __name__ == "__main__":
    sys.exit(main())
