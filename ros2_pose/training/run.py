"""Train a network as the command says, then calibrate its uncertainties.

    ros2_pose train config/networks/tian_tiny.yaml --data synthetic mocap.npz --out run/tiny.pt
    torchrun --nproc-per-node 4 -m ros2_pose.cli train ...           on several GPUs

When it was interrupted, the same command resumes with the same next step.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace

import torch

from ros2_pose.data.datasets import Mixed, opened
from ros2_pose.networks.checkpoint import save_checkpoint
from ros2_pose.networks.registry import layers_class
from ros2_pose.training.calibrate import calibrate
from ros2_pose.training.config import read_config
from ros2_pose.training.trainer import Trainer, commit, start, train

CALIBRATED_ON = 200  # images


def _device() -> tuple[torch.device, int, int]:
    """Return this process's device and rank, and the number of processes, as torchrun sets them."""
    world, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
    local = int(os.environ.get("LOCAL_RANK", 0))
    device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    if world > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return device, rank, world


def run(args: argparse.Namespace) -> None:
    """Train as the arguments of `ros2_pose train` say, then calibrate the uncertainties."""
    config, training_config = read_config(args.config, args.network)
    if args.steps is not None:
        training_config = replace(training_config, steps=args.steps)
    if args.minutes is not None:
        training_config = replace(training_config, minutes=args.minutes)
    samples = Mixed(*(opened(words) for words in args.data), shares=training_config.shares)
    held_back = opened(args.held_back, "validation") if args.held_back else samples
    device, rank, world = _device()
    torch.manual_seed(training_config.seed)
    net = start(layers_class(args.network)(config), args.init, training_config.detector)
    training = Trainer(net, training_config, samples, device, rank, world)
    train(training, held_back, args.out)
    if rank == 0:
        if not net.ONE_PERSON:
            calibrate(training.average, held_back, CALIBRATED_ON)
        save_checkpoint(args.out, training.average, commit())
