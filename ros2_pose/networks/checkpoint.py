"""Checkpoints of trained networks: weights, architecture, and the git commit that trained them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch

from ros2_pose.config import from_dict
from ros2_pose.errors import PoseError
from ros2_pose.networks.registry import layers_class, trainable_networks
from ros2_pose.networks.trainable import TrainableNet

SHIPPED = Path(__file__).parent / "data"  # has NAME_tiny.pt for each trained network
Net = TypeVar("Net", bound=TrainableNet)


class CheckpointError(PoseError):
    """A file that is no checkpoint, or one of another network; the message says which."""


def save_checkpoint(path: str | Path, net: TrainableNet, commit: str) -> None:
    """Save a network in half precision.

    Args:
        path: file to write.
        net: network; weights that come with its parts (`TrainableNet.is_given`) are left out.
        commit: git commit of the source, "" if unknown.
    """
    weights = {name: value.half() for name, value in net.state_dict().items()
               if not net.is_given(name)}
    torch.save({"network": net.NAME, "config": asdict(net.config), "commit": commit,
                "weights": weights}, path)


def load_checkpoint(path: str | Path, config: Any = None) -> TrainableNet:
    """Load a network that `save_checkpoint` saved, for inference.

    Args:
        path: the file.
        config: the architecture that is expected; None accepts any.
    Raises:
        CheckpointError: the file is no checkpoint, or one of another architecture.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        layers = layers_class(saved["network"])
        found = from_dict(layers.CONFIG, saved["config"])
        weights = {name: value.float() for name, value in saved["weights"].items()}
    except Exception as error:
        raise CheckpointError(f"{path} is not a checkpoint of {' or '.join(trainable_networks())} "
                              f"({error}): give one that ros2_pose train wrote") from error
    if config is not None and config != found:
        wrong = [f"{name} is {value}, expected {getattr(config, name, 'no such setting')}"
                 for name, value in asdict(found).items() if value != getattr(config, name, None)]
        raise CheckpointError(f"{path} is of another network: {'; '.join(wrong)}")
    net = layers(found)
    given = {name: value for name, value in net.state_dict().items() if net.is_given(name)}
    try:
        net.load_state_dict(given | weights)
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit its own config: {error}") from error
    return net.eval().requires_grad_(False)


def load_layers(path: str | Path, layers: type[Net]) -> Net:
    """Load the checkpoint of a network of one class; the shipped one if the path is empty.

    Raises:
        CheckpointError: the file is no checkpoint, or one of another network.
    """
    path = path or SHIPPED / f"{layers.NAME}_tiny.pt"
    net = load_checkpoint(path)
    if not isinstance(net, layers):
        raise CheckpointError(f"{path} is a checkpoint of {net.NAME}, not of {layers.NAME}: give "
                              f"another one, or choose the network {net.NAME}")
    return net
