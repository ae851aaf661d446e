"""The command `ros2_pose batch`: many recordings on all cores, GPUs or a cluster."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ros2_pose.cli.replay import add_recording_options, replayer_of
from ros2_pose.offline.batch.dispatch import DONE, FAILED, IMAGES, Dispatch
from ros2_pose.offline.batch.processes import ProcessWorkers, gpu_count
from ros2_pose.offline.batch.ray_actors import RayWorkers
from ros2_pose.offline.batch.results import FINISHED, FORMATS, NEW, ResultFolders, files_of
from ros2_pose.offline.replayer import Replayer

_DONE, _INCOMPLETE = 0, 1  # exit statuses
_FILE_SETTINGS = ("calibration", "checkpoint", "body_model")  # options that name files


def add_parser(commands) -> None:
    """Add the command and its options to the subparsers of the main command."""
    batch = commands.add_parser(
        "batch", help="people from many recordings at once, resumable, without ROS",
        description="Processes recordings as `replay` does, several at once: by processes on all "
        "cores, one on each GPU, or a Ray cluster. IN is a bag, a video, a picture, or a folder "
        "with any of them at any depth. The results of each recording are in a folder of DIR: "
        "people.jsonl and what else --formats asks for, the same bytes as replay writes. The same "
        "command goes on where it was interrupted: complete results are kept, unless the "
        "recording or a setting has changed. The exit status is 0 if all recordings are complete, "
        "1 if some failed or have unreadable images, which are named; the others are processed.")
    batch.add_argument("inputs", type=Path, nargs="+", metavar="IN")
    batch.add_argument("--out", type=Path, required=True, metavar="DIR",
                       help="folder of the results")
    batch.add_argument("--formats", nargs="+", choices=FORMATS, default=["jsonl"],
                       metavar="FORMAT", help=f"results: {', '.join(FORMATS)} (%(default)s)")
    batch.add_argument("--workers", type=_count, metavar="N", help="recordings at once, about 0.7 "
                       "GB of memory each; by default one for each GPU or, on the CPU, each core")
    batch.add_argument("--threads", type=_count, metavar="N", help="threads of each worker; by "
                       "default OMP_NUM_THREADS or cores / workers, with --ray 1")
    batch.add_argument("--ray", metavar="ADDRESS", help="use a Ray cluster (auto, local, HOST:PORT "
                       "or ray://...), on which all computers see the same files; needs pip "
                       "install ray")
    add_recording_options(batch)
    batch.set_defaults(run=run)


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is out of range, expected 1 or more")
    return number


def run(options: argparse.Namespace) -> int:
    """Process all recordings that are not finished, and print a summary.

    Returns:
        The exit status: 0, or 1 if recordings failed or are incomplete.
    Raises:
        PoseError: for inputs, arguments or results that cannot be used.
    """
    from ros2_pose.offline.batch.recordings import find_recordings  # imports rosbags: slow
    replayer = replayer_of(options)
    recordings = find_recordings(options.inputs, options.out)
    files = {name: getattr(options, name, None) or getattr(replayer.config, name, "")
             for name in _FILE_SETTINGS}
    results = ResultFolders(options.out, options.formats, replayer,
                            {name: str(path) for name, path in files.items() if path})
    states = {name: results.state(name, source) for name, source in recordings.items()}
    with _ending_on_signals(), results.locked():
        waiting = {name: recordings[name] for name in _in_order(recordings, states)}
        print(_plan(states), flush=True)
        problems = {name: record["problem"] for name in recordings
                    if name not in waiting and (record := results.recorded(name))}
        if waiting:
            problems |= _processed(waiting, replayer, results, options)
    return _report(problems, len(recordings))


def _in_order(recordings: dict[str, Path], states: dict[str, str]) -> list[str]:
    """Names of the recordings to process, the largest first: so that no core is idle at the end."""
    size = {name: sum(size for size, _ in files_of(source).values())
            for name, source in recordings.items() if states[name] != FINISHED}
    return sorted(size, key=lambda name: -size[name])


def _plan(states: dict[str, str]) -> str:
    """What will be done, in words; a line for each reason to process a recording again."""
    kinds = list(states.values())
    again = [kind for kind in kinds if kind not in (NEW, FINISHED)]
    lines = [f"{len(kinds)} recordings: {kinds.count(NEW)} new, {kinds.count(FINISHED)} finished "
             f"before, {len(again)} to be processed again"]
    return "\n".join([*lines, *(f"- {again.count(kind)}: {kind}" for kind in sorted({*again}))])


def _processed(waiting: dict[str, Path], replayer: Replayer, results: ResultFolders,
               options: argparse.Namespace) -> dict[str, str]:
    """Process recordings; return the problem of each, empty for a complete one."""
    problems: dict[str, str] = {}
    start, images, workers = time.monotonic(), 0, None
    try:
        workers = _workers(len(waiting), replayer, results, options)
        with logging_redirect_tqdm(), tqdm(total=len(waiting), desc="batch", unit="recording",
                                           dynamic_ncols=True, disable=None) as bar:
            for name, kind, value in Dispatch(waiting, workers).run():
                if kind == IMAGES:
                    images += value
                    rate = images / (time.monotonic() - start)
                    bar.set_postfix_str(f"{images} images, {rate:.1f}/s")
                    continue
                problems[name] = value["problem"] if kind == DONE else value
                bar.update()
                bar.write(f"[{len(problems)}/{len(waiting)}] {name}: {_outcome(kind, value)}")
                sys.stdout.flush()
    except (KeyboardInterrupt, SystemExit):
        print(f"ros2_pose: interrupted after {len(problems)} of {len(waiting)} recordings; the "
              "same command goes on with the others", file=sys.stderr)
        raise
    finally:
        if workers is not None:
            workers.stop()
    return problems


def _outcome(kind: str, value) -> str:
    """What became of a recording, in words."""
    if kind == FAILED:
        return f"failed: {value}"
    problem = f"; {value['problem']}" if value["problem"] else ""
    return f"{value['images']} images, {len(value['people'])} people{problem}"


def _workers(count: int, replayer: Replayer, results: ResultFolders,
             options: argparse.Namespace) -> ProcessWorkers | RayWorkers:
    """Start workers for so many recordings."""
    if options.ray is not None:
        wanted = min(count, options.workers) if options.workers else 0
        return RayWorkers(options.ray, wanted, count, options.threads or 1, replayer, results)
    gpus, cores = gpu_count(replayer.config.device), len(os.sched_getaffinity(0))
    workers = min(count, options.workers or gpus or cores)
    threads = options.threads or _threads_of_environment() or max(1, cores // workers)
    return ProcessWorkers(workers, threads, gpus, replayer, results)


def _threads_of_environment() -> int:
    number = os.environ.get("OMP_NUM_THREADS", "")
    return int(number) if number.isdigit() else 0


@contextmanager
def _ending_on_signals() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into SystemExit, so that no process is left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _) -> None:
        sys.exit(128 + number)
    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _report(problems: dict[str, str], count: int) -> int:
    """Print which recordings are not complete; return the exit status."""
    named = {name: problem for name, problem in problems.items() if problem}
    for name, problem in named.items():
        print(f"ros2_pose: {name}: {problem}", file=sys.stderr)
    print(f"{count} recordings: {count - len(named)} complete, {len(named)} not")
    return _INCOMPLETE if named else _DONE
