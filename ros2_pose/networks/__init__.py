"""Pose networks, one file each."""

from __future__ import annotations

from ros2_pose.networks.base import PoseNetwork
from ros2_pose.networks.movenet import MoveNet
from ros2_pose.networks.tian.detector import Tian

NETWORKS: dict[str, type[PoseNetwork]] = {cls.name: cls for cls in (MoveNet, Tian)}

__all__ = ["NETWORKS", "MoveNet", "PoseNetwork", "Tian"]
