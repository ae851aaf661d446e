"""2D pose networks, one file each; `load` makes one by name."""

from __future__ import annotations

from collections.abc import Callable

from ros2_pose.networks.base import PoseNetwork
from ros2_pose.networks.movenet import MoveNet

NETWORKS: dict[str, Callable[..., PoseNetwork]] = {MoveNet.name: MoveNet}

__all__ = ["NETWORKS", "MoveNet", "PoseNetwork"]
