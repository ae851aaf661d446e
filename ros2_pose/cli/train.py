"""The command `ros2_pose train`: training of a network."""

from __future__ import annotations

import argparse
from pathlib import Path

from ros2_pose.networks.registry import trainable_networks


def add_parser(commands) -> None:
    """Add the command and its options to the subparsers of the main command."""
    train = commands.add_parser(
        "train", help="train a network", description="Training that was interrupted is "
        "resumed by the same command. The checkpoint is written to --out, the log beside it.")
    train.add_argument("config", type=Path, help="YAML with the sections network and training, "
                       "as in config/networks")
    train.add_argument("--network", choices=trainable_networks(), default=trainable_networks()[0],
                       help="which network (%(default)s)")
    train.add_argument("--data", nargs="+", action="append", required=True, metavar="WORD",
                       help="NAME FOLDER [SPLIT]: a dataset as it was published, or synthetic and "
                       "an npz of motion capture; may be repeated")
    train.add_argument("--held-back", nargs="+", metavar="WORD", help="NAME FOLDER [SPLIT] of "
                       "validation data: for the validation loss and the calibration of "
                       "uncertainties")
    train.add_argument("--out", type=Path, required=True, help="the checkpoint to write")
    train.add_argument("--init", type=Path, help="a checkpoint to start from")
    train.add_argument("--steps", type=int, help="number of steps, instead of the config's")
    train.add_argument("--minutes", type=float, help="of training, instead of the config's")
    train.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Train; return the exit status."""
    from ros2_pose.training.run import run as train  # torch takes seconds to import
    train(options)
    return 0
