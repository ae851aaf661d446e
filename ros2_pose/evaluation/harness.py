"""The harness of all benchmarks: choose by name, skip what has no data, run, write the results.

A benchmark is a function from `Options` to rows (`tables.Row`) and curves (`Curve`), registered in
its module's BENCHMARKS with the files and options that it needs. A module becomes a command by
`harness.main(BENCHMARKS, __doc__)`; `python -m ros2_pose.evaluation` runs those of all modules.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

import torch

from ros2_pose.body.lift import FILE as LIFT
from ros2_pose.config import PoseConfig
from ros2_pose.errors import PoseError
from ros2_pose.evaluation.tables import Row, tables
from ros2_pose.networks.registry import NETWORKS, REFINERS

log = logging.getLogger(__name__)


class EvaluationError(PoseError):
    """Data that cannot be evaluated, or a package that is not installed; the message names it."""


@dataclass(frozen=True)
class Options:
    """On what data and on how much of it benchmarks run; each uses what concerns it."""

    data: Path
    people: int | None = None  # simulated; None: the benchmark's default
    stride: int = 10
    frames: int = 100
    repeats: int = 200
    moments: int = 100
    seeds: int = 3
    seed: int = 0
    lift: Path = LIFT
    pets: Path | None = None
    annotations: Path | None = None
    images: Path | None = None
    fit: bool = False
    network: str = PoseConfig.network
    refiner: str = PoseConfig.refiner


_HELP = {
    "people": "simulated people; default: the benchmark's own number",
    "stride": "use every so many-th frame of MuPoTS", "frames": "frames of each clip, at most",
    "repeats": "timed runs", "moments": "simulated moments of a crowd",
    "seeds": "random seeds of the drop-outs in MuPoTS", "seed": "of simulated data",
    "lift": "weights of the lift network",
    "pets": "ground truth of PETS09-S2L1 in MOTChallenge's form (gt.txt)",
    "annotations": "COCO keypoints file (person_keypoints_*.json)",
    "images": "folder of the pictures of --annotations",
    "fit": "fit new constants of the covariances, and judge those",
    "network": "network that is evaluated", "refiner": "what refines people, of network top_down"}


class Curve(NamedTuple):
    """A line of a plot; `plots.FIGURES` describes the figures."""

    figure: str
    label: str
    x: list  # numbers, or names of joints
    y: list[float]


class Benchmark(NamedTuple):
    """A benchmark and what it needs."""

    run: Callable[[Options], Iterator[Row | Curve]]
    needs: tuple[str, ...] = ()  # files below Options.data, or "--option" that must be given
    options: tuple[str, ...] = ()  # fields of Options that it uses, besides data


Results = dict[str, list[Row | Curve]]  # by name of the benchmark


@torch.inference_mode()
def run(benchmarks: dict[str, Benchmark], options: Options) -> Results:
    """Run benchmarks; one that cannot run gets a single row that says why."""
    results: Results = {}
    for name, benchmark in benchmarks.items():
        reason = missing(benchmark, options)
        if not reason:
            log.info("%s", name)
            try:
                results[name] = list(benchmark.run(options))
                continue
            except EvaluationError as error:
                reason = str(error)
        results[name] = [Row(name, f"skipped: {reason}")]
    return results


def missing(benchmark: Benchmark, options: Options) -> str:
    """Name what a benchmark needs and does not have, with the remedy; empty if all is there."""
    arguments = [need for need in benchmark.needs
                 if need.startswith("--") and getattr(options, need[2:]) is None]
    files = [need for need in benchmark.needs
             if not need.startswith("--") and not (options.data / need).exists()]
    reasons = []
    if files:
        reasons.append(f"no {', '.join(files)} in {options.data}")
    if arguments:
        reasons.append(f"needs {' and '.join(f'{name} ({_HELP[name[2:]]})' for name in arguments)}")
    return "; ".join(reasons)


def as_tables(results: Results) -> str:
    """Markdown: a heading for each benchmark and its tables."""
    parts = [f"## {name}\n\n{tables(_rows(found))}" for name, found in results.items()]
    return "\n\n".join(parts)


def as_json(results: Results) -> str:
    """JSON for machines: rows and curves by benchmark, NaN as null."""
    content = {}
    for name, found in results.items():
        rows = [row._asdict() | {"values": dict(row.values)} for row in _rows(found)]
        curves = [curve._asdict() for curve in _curves(found)]
        content[name] = {"rows": rows, "curves": curves}
    return json.dumps(_without_nan(content), indent=1, default=_plain, allow_nan=False)


def _rows(found: list[Row | Curve]) -> list[Row]:
    return [one for one in found if isinstance(one, Row)]


def _curves(found: list[Row | Curve]) -> list[Curve]:
    return [one for one in found if isinstance(one, Curve)]


def _without_nan(value):
    """The same nested dicts and lists with null in place of NaN and infinity."""
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _plain(value):
    """A numpy scalar as a number of Python."""
    return _without_nan(value.item())


# ------------------------------------------------------------------------------ command line


def main(benchmarks: dict[str, Benchmark], description: str,
         positional: tuple[str, ...] = ()) -> None:
    """Run benchmarks from the command line.

    Args:
        benchmarks: by name; --rows takes these names, or the part before "/" for a group.
        description: the first line is the help's.
        positional: options that are required and given by position; if nothing can be measured
            with them the exit status is 2.
    """
    names = list(benchmarks)
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--data", type=Path, default=os.environ.get("ROS2_POSE_DATA", "../shared"),
                        help="folder of the data; default: ROS2_POSE_DATA, else ../shared")
    if len(names) > 1:
        parser.add_argument("--rows", default=",".join(names), help=f"some of {','.join(names)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write rows and curves here, too")
    parser.add_argument("--plots", type=Path, metavar="DIR",
                        help="draw plots into this folder, needs matplotlib")
    _add_options(parser, benchmarks, positional)
    values = vars(parser.parse_args())
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    out_json, out_plots = values.pop("json"), values.pop("plots")
    try:
        chosen = select(benchmarks, values.pop("rows", ",".join(names)))
        if out_plots is not None:
            from ros2_pose.evaluation import plots
            plots.matplotlib()  # before the benchmarks run for minutes
    except EvaluationError as error:
        parser.error(str(error))
    results = run(chosen, Options(**values | {"data": Path(values["data"])}))
    print(as_tables(results))
    if out_json is not None:
        out_json.write_text(as_json(results))
    if out_plots is not None:
        for path in plots.draw([c for found in results.values() for c in _curves(found)],
                               out_plots):
            print(path, file=sys.stderr)
    if positional and not any(row.values for found in results.values() for row in _rows(found)):
        sys.exit(2)  # what was named explicitly could not be evaluated


def select(benchmarks: dict[str, Benchmark], text: str) -> dict[str, Benchmark]:
    """Choose benchmarks by comma-separated names, or groups of them (the part before "/").

    Raises EvaluationError for an unknown name.
    """
    words = text.split(",")
    known = {*benchmarks, *(name.partition("/")[0] for name in benchmarks)}
    if unknown := [word for word in words if word not in known]:
        raise EvaluationError(f"{', '.join(unknown)}: not among {', '.join(benchmarks)}")
    return {name: benchmark for name, benchmark in benchmarks.items()
            if name in words or name.partition("/")[0] in words}


def _add_options(parser: argparse.ArgumentParser, benchmarks: dict[str, Benchmark],
                 positional: tuple[str, ...]) -> None:
    """Offer the options that any of the benchmarks uses."""
    used = {name for benchmark in benchmarks.values() for name in benchmark.options}
    for field in fields(Options):
        name, text = field.name, _HELP.get(field.name)
        if name in positional:
            parser.add_argument(name, type=Path, help=text)
        elif name in used and isinstance(field.default, bool):
            parser.add_argument(f"--{name}", action="store_true", help=text)
        elif name in used:
            kind = {"int": int, "str": str}.get(str(field.type).split(" |")[0], Path)
            choices = {"network": NETWORKS, "refiner": REFINERS}.get(name)
            parser.add_argument(f"--{name}", type=kind, default=field.default, help=text,
                                choices=choices)
