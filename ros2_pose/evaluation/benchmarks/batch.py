"""What `ros2_pose batch` gains over one `ros2_pose replay` after another, and that it is the same.

    python -m ros2_pose.evaluation.benchmarks.batch [--frames 25]

24 recordings of the demo's first images are processed by `replay`, one after another, by `batch`,
and by `batch` once more, with a worker killed after the first result. All by the command line, with
their start-up, into people.jsonl and a bag.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from ros2_pose.evaluation import harness
from ros2_pose.evaluation.harness import Benchmark, EvaluationError, Options, Row
from ros2_pose.offline import demo_clip

_RECORDINGS = 24
_RESULTS = ("people.jsonl", "people_bag")
_TARGET = 1.7  # times as fast


def batch(options: Options) -> Iterator[Row]:
    """Seconds for 24 recordings, and how many of the results are the same."""
    with TemporaryDirectory() as folder:
        inputs = _recordings(Path(folder, "in"), options.frames)
        out, again, reference = (Path(folder, name) for name in ("out", "again", "reference"))
        protocol = (f"{_RECORDINGS} recordings of {options.frames} images 544x960, "
                    f"{len(os.sched_getaffinity(0))} cores, beside whatever else the machine does")
        alone, one_by_one = _timed(lambda: _replay(inputs, reference))
        yield Row("replay, one after another", protocol, one_by_one)
        together, figures = _timed(lambda: _wait(_batch(inputs, out)))
        yield Row("batch", protocol, figures | _gain(alone / together, out, reference),
                  target=f"{_TARGET} times as fast")
        together, figures = _timed(lambda: _with_killed_worker(_batch(inputs, again), again))
        yield Row("batch, a worker killed", protocol,
                  figures | _gain(alone / together, again, reference))


def _recordings(folder: Path, images: int) -> Path:
    folder.mkdir()
    demo_clip.write_bag(folder / "bag_00", count=images)
    for number in range(1, _RECORDINGS):
        shutil.copytree(folder / "bag_00", folder / f"bag_{number:02}")
    return folder


def _timed(run: Callable[[], None]) -> tuple[float, dict[str, float | str]]:
    """Seconds that processes take, and the figures of a row."""
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    run()
    seconds, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, {"s": seconds, "CPU, s": cpu}


def _replay(inputs: Path, reference: Path) -> None:
    for path in sorted(inputs.iterdir()):
        results = [reference / path.name / result for result in _RESULTS]
        results[0].parent.mkdir(parents=True)
        _wait(_started("replay", path, *results))


def _batch(inputs: Path, out: Path) -> subprocess.Popen:
    return _started("batch", inputs, "--out", out, "--formats", "jsonl", "bag")


def _started(*words: str | Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-m", "ros2_pose.cli", *map(str, words)],
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _wait(process: subprocess.Popen) -> None:
    _, said = process.communicate()
    if process.returncode:
        raise EvaluationError(f"ros2_pose ended with status {process.returncode}: {said[-200:]}")


def _with_killed_worker(process: subprocess.Popen, out: Path) -> None:
    """Kill a worker of a batch as soon as there is a result."""
    while process.poll() is None and not list(out.glob("*/batch.json")):
        time.sleep(0.02)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if process.poll() is None:
        os.kill(int(children.read_text().split()[0]), signal.SIGKILL)
    _wait(process)


def _gain(factor: float, out: Path, reference: Path) -> dict[str, float | str]:
    """Figures of a row: the factor, and how many recordings have the same bytes in all results."""
    same = sum(all((out / path.relative_to(reference)).read_bytes() == path.read_bytes()
                   for path in folder.rglob("*") if path.is_file())
               for folder in reference.iterdir())
    return {"times as fast": factor, "the same": f"{same} of {_RECORDINGS}"}


BENCHMARKS = {"batch": Benchmark(batch, options=("frames",))}

if __name__ == "__main__":
    harness.main(BENCHMARKS, __doc__)
