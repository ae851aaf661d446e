"""Checkpoints of the network: weights, architecture, and the git commit that trained them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import torch

from ros2_pose.config import from_dict
from ros2_pose.errors import PoseError
from ros2_pose.networks.tian.config import TianConfig
from ros2_pose.networks.tian.network import TianNet

SHIPPED = Path(__file__).parents[1] / "data" / "tian_tiny.pt"
_NETWORK = "tian"


class CheckpointError(PoseError):
    """A file that is no checkpoint, or one of another network; the message says which."""


def save_checkpoint(path: str | Path, net: TianNet, commit: str) -> None:
    """Save a network in half precision.

    Args:
        path: file to write.
        net: network; weights that come with its parts (`TianNet.is_given`) are left out.
        commit: git commit of the source, "" if unknown.
    """
    weights = {name: value.half() for name, value in net.state_dict().items()
               if not net.is_given(name)}
    torch.save({"network": _NETWORK, "config": asdict(net.config), "commit": commit,
                "weights": weights}, path)


def load_checkpoint(path: str | Path, config: TianConfig | None = None) -> TianNet:
    """Load a network that `save_checkpoint` saved, for inference.

    Args:
        path: the file.
        config: the architecture that is expected; None accepts any.
    Raises:
        CheckpointError: the file is no checkpoint, or one of another architecture.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        found = from_dict(TianConfig, saved["config"])
        weights = {name: value.float() for name, value in saved["weights"].items()}
    except Exception as error:
        raise CheckpointError(f"{path} is not a checkpoint of the network {_NETWORK} ({error}): "
                              "give one that ros2_pose train wrote") from error
    if config is not None and config != found:
        wrong = [f"{name} is {value}, expected {getattr(config, name)}"
                 for name, value in asdict(found).items() if value != getattr(config, name)]
        raise CheckpointError(f"{path} is of another network: {'; '.join(wrong)}")
    net = TianNet(found)
    given = {name: value for name, value in net.state_dict().items() if net.is_given(name)}
    try:
        net.load_state_dict(given | weights)
    except RuntimeError as error:
        raise CheckpointError(f"{path} does not fit its own config: {error}") from error
    return net.eval().requires_grad_(False)
