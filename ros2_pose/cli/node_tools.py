"""The commands `ros2_pose demo`, `bench` and `soak`: they run the real node and need ROS."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_parser(commands) -> None:
    """Add the three commands to the subparsers of the main command."""
    demo = commands.add_parser("demo", help="run the node on a video of real people")
    demo.add_argument("--out", type=Path, default=Path("demo"), help="folder of the results")
    demo.set_defaults(run=_demo)
    bench = commands.add_parser("bench", help="measure frame rate and latency of the node")
    bench.add_argument("--seconds", type=float, default=20.0, help="duration of each row, s")
    bench.set_defaults(run=_bench)
    soak = commands.add_parser("soak", help="measure whether the node's memory or latency grows "
                               "in a long run")
    soak.add_argument("--minutes", type=float, default=30.0, help="duration after the warm-up, min")
    soak.set_defaults(run=_soak)


def _demo(options: argparse.Namespace) -> int:
    from ros2_pose.tools.demo import run
    return run(options.out)


def _bench(options: argparse.Namespace) -> int:
    from ros2_pose.tools.bench import run
    return run(options.seconds)


def _soak(options: argparse.Namespace) -> int:
    from ros2_pose.tools.soak import run
    return run(options.minutes)
