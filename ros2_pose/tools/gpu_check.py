"""Parity with the CPU, throughput and memory of every network on a GPU; run by scripts/gpu_check.

    python -m ros2_pose.tools.gpu_check [--out FILE] [--seconds 460] [--device cuda] [--quick]
    python -m ros2_pose.tools.gpu_check --table docs/gpu/CARD.json

Each part runs in a process of its own with a time limit, and its rows are written as soon as they
are measured: a part that hangs or crashes costs its own rows alone, and the end is kept. Pictures
are 1920 x 1080 with ten people of the demo clip, who move. No ROS is needed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ros2_pose.config import PoseConfig
from ros2_pose.networks.registry import NETWORKS, REFINERS
from ros2_pose.runtime_env import settle

Row = dict[str, Any]  # what was measured, by metric and unit

_LEAST_S = 4.0  # a part is not started with less
_END_S = 2.0  # kept for writing
_BATCHES = (1, 2, 4, 8, 16)  # cameras


def settings() -> dict[str, PoseConfig]:
    """Return the settings of each network that is checked, by its name.

    All of `NETWORKS` and `REFINERS`: a refiner refines what the default finders find.
    """
    found = {name: PoseConfig(network=name) for name in NETWORKS}
    default = PoseConfig()
    return found | {f"{default.network}, {name}": replace(default, refiner=name)
                    for name in REFINERS if name != default.refiner}


def parts(quick: bool) -> dict[str, float]:
    """Return the parts in their order, each with its time limit in s."""
    others = [name for name in settings() if name not in ("top_down", "movenet")]
    limit = 20.0 if quick else 45.0
    return {"parity/top_down": limit, "parity/movenet": limit, "frames/top_down": 2 * limit,
            "batches/top_down": limit, "batches/movenet": limit,
            "half/top_down": limit, "half/movenet": limit,
            **{f"parity/{name}": limit for name in others},
            **{f"batches/{name}": limit for name in others}}


def run_part(part: str, device: str, seconds: float, quick: bool) -> Iterator[Row]:
    """Measure one part in this process and yield its rows, each as soon as it is known.

    Args:
        part: of `parts`: kind and network.
        device: "cuda" or "cpu".
        seconds: that measurements may take; loading comes on top.
        quick: small pictures and batches, to try it out.
    """
    from ros2_pose.tools import gpu_measure
    kind, _, name = part.partition("/")
    config = replace(settings()[name], device=device)
    size = (640, 360) if quick else (1920, 1080)
    if kind == "parity":
        yield gpu_measure.parity(config, size, 1 if quick else 4)
    elif kind == "half":
        yield gpu_measure.parity(replace(config, fp16=True), size, 1 if quick else 4)
        yield from gpu_measure.batches(replace(config, fp16=True), size, (1, 8), seconds / 2)
    elif kind == "frames":
        yield gpu_measure.frames(config, size, seconds / 2)
    else:
        yield from gpu_measure.batches(config, size, _BATCHES[:2] if quick else _BATCHES,
                                       seconds / 2)


def machine() -> Row:
    """Return what the figures depend on: card, driver, versions, processor, commit."""
    import torch
    found: Row = {"card": "cpu", "torch": torch.__version__, "cuda": torch.version.cuda or "-",
                  "python": platform.python_version(), "cpu cores": os.cpu_count(),
                  "cpu": _processor()}
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found |= {"card": properties.name, "memory, GB": round(properties.total_memory / 1e9),
                  "cudnn": torch.backends.cudnn.version()}
        version = Path("/proc/driver/nvidia/version")
        if version.exists():
            found["driver"] = version.read_text().splitlines()[0]
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True,
                            text=True, cwd=Path(__file__).parent, check=False)
    return found | {"commit": commit.stdout.strip() or "-"}


def _processor() -> str:
    """The processor's name, or at least its architecture."""
    try:
        named = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    except OSError:
        named = None
    return named[1] if named else platform.machine()


def result_file(card: str) -> Path:
    """Return the file of a card's results, e.g. docs/gpu/nvidia_h200.json."""
    name = re.sub(r"[^a-z0-9]+", "_", card.lower()).strip("_")
    return Path(__file__).parents[2] / "docs" / "gpu" / f"{name}.json"


def check(out: Path, device: str, seconds: float, quick: bool, wanted: list[str]) -> dict[str, Any]:
    """Run the parts one after another until the time is over; write the results after each.

    Args:
        out: JSON file to write.
        device: "cuda" or "cpu".
        seconds: in which everything ends.
        quick: small pictures and batches, to try it out.
        wanted: parts to run; empty: all.
    Returns:
        What is in the file: "machine", "rows" by part, and "missing": why a part has none.
    """
    end_s = time.monotonic() + seconds - _END_S
    results: dict[str, Any] = {"machine": machine(), "device": device, "quick": quick,
                               "rows": {}, "missing": {}}
    limits = {name: limit for name, limit in parts(quick).items()
              if (not wanted or name in wanted)
              and not (device == "cpu" and name.startswith("half/"))}
    for part, limit in limits.items():
        left_s = min(limit, end_s - time.monotonic())
        if left_s < _LEAST_S:
            results["missing"][part] = "no time was left"
        else:
            rows, problem = _in_process(part, device, left_s, quick)
            results["rows"] |= {part: rows} if rows else {}
            results["missing"] |= {part: problem} if problem else {}
            print(f"{part}: {len(rows)} rows{', ' if problem else ''}{problem}", flush=True)
        _write(out, results)
    return results


def _in_process(part: str, device: str, seconds: float, quick: bool) -> tuple[list[Row], str]:
    """Run a part in a process of its own; return its rows, and what went wrong."""
    command = [sys.executable, "-m", "ros2_pose.tools.gpu_check", "--part", part, "--device",
               device, "--seconds", str(seconds), *(["--quick"] if quick else [])]
    problem = ""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(command, stdout=out, stderr=errors) as child:
            try:
                status = child.wait(seconds)
            except subprocess.TimeoutExpired:
                child.kill()
                problem = f"stopped after {seconds:.0f} s"
            else:
                problem = f"exit status {status}" if status else ""
        out.seek(0)
        errors.seek(0)
        lines, last = out.read().splitlines(), errors.read().strip().splitlines()[-1:]
    rows = []
    for line in lines:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue  # cut off when it was stopped, or not a row
    if problem.startswith("exit") and last:
        problem += f": {last[0]}"
    return rows, problem


def _write(out: Path, results: dict[str, Any]) -> None:
    """Write the results atomically."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_suffix(".part")
    part.write_text(json.dumps(results, indent=1) + "\n")
    part.replace(out)


def table(results: dict[str, Any]) -> str:
    """Return the results of `check` as Markdown tables, for docs/results.md."""
    from ros2_pose.evaluation.tables import Row as Line
    from ros2_pose.evaluation.tables import tables
    about = results["machine"]
    title = (f"{about['card']}, torch {about['torch']}, CUDA {about['cuda']}, {about['cpu cores']} "
             f"CPU cores, commit {about['commit']}")
    texts = {"parity": "against torch on the CPU, 10 people", "frames": "a frame through "
             "`Pipeline.step`, 10 people, without DDS", "batches": "network alone, pictures/s by "
             "number of cameras", "half": "half precision"}
    lines = [Line(str(row.get("name", part)), f"{title}; {texts[part.partition('/')[0]]}",
                  {key: value for key, value in row.items() if key != "name"})
             for part, rows in results["rows"].items() for row in rows]
    lines.sort(key=lambda line: (line.protocol, list(line.values)))
    missing = [f"{part}: {why}" for part, why in results["missing"].items()]
    return "\n\n".join([tables(lines), *missing])


def main(arguments: list[str] | None = None) -> int:
    """Run the check, one of its parts, or print a table; return the exit status."""
    settle()
    parser = argparse.ArgumentParser(description=__doc__, prog="gpu_check",
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file; by default docs/gpu/CARD.json")
    parser.add_argument("--seconds", type=float, default=460.0, help="in which everything ends")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="small pictures, to try it out")
    parser.add_argument("--parts", nargs="+", default=[], choices=parts(False), metavar="PART",
                        help=f"only these of: {', '.join(parts(False))}")
    parser.add_argument("--part", choices=parts(False), metavar="PART",
                        help="one part in this process: its rows as lines of JSON")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print a result as tables")
    options = parser.parse_args(arguments)
    if options.table:
        print(table(json.loads(options.table.read_text())))
        return 0
    if options.part:
        for row in run_part(options.part, options.device, options.seconds, options.quick):
            print(json.dumps(row), flush=True)
        return 0
    about = machine()
    if options.device == "cuda" and about["card"] == "cpu":
        print(f"gpu_check: torch {about['torch']} finds no GPU (CUDA {about['cuda']}); "
              "--device cpu tries the check out", file=sys.stderr)
        return 2
    out = options.out or result_file(about["card"])
    results = check(out, options.device, options.seconds, options.quick, options.parts)
    print(f"{out}\n\n{table(results)}")
    return 0 if not results["missing"] else 1


if __name__ == "__main__":
    sys.exit(main())
