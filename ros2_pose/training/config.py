"""Settings of a training, and the YAML files that hold them (`config/networks`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ros2_pose.config import ConfigError, from_dict, setting
from ros2_pose.networks.registry import layers_class


@dataclass(frozen=True)
class TrainingConfig:
    """How a network is trained; weights of losses are of tian, those of Tian et al. 2023."""

    steps: int = setting(100_000, "of the optimiser", low=1, high=10**8)
    minutes: float = setting(0.0, "of training, after which it ends with a low learning rate, as "
                             "after its steps; a checkpoint each minute; 0: no limit",
                             low=0.0, high=10**6)
    batch: int = setting(16, "images per step and device", low=1, high=4096)
    rate: float = setting(2e-4, "AdamW's highest learning rate", low=0.0, high=1.0)
    backbone_rate: float = setting(2e-5, "the same for the backbone", low=0.0, high=1.0)
    warmup: int = setting(500, "steps until the rate is reached", low=1, high=10**6)
    decay: float = setting(1e-4, "weight decay", low=0.0, high=1.0)
    clip: float = setting(1.0, "greatest norm of the gradient", low=0.0, high=1e6)
    average: float = setting(0.999, "share of the averaged weights that a step keeps",
                             low=0.0, high=1.0)
    amp: bool = setting(True, "half precision on a GPU")
    workers: int = setting(2, "processes that prepare images", low=0, high=256)
    log_every: int = setting(200, "steps between lines of the log, and checkpoints",
                             low=1, high=10**6)
    mosaics: float = setting(0.0, "share of batches of mosaics, each of close-ups of four images",
                             low=0.0, high=1.0)
    shares: tuple[int, ...] = setting((), "samples of each --data in turn, e.g. [3, 1]; empty: "
                                      "one of each", low=1, high=1000)
    roll_deg: float = setting(0.0, "most that cameras are rotated about the optical axis, deg",
                              low=0.0, high=180.0)
    occluders: float = setting(0.0, "share of images with a part of another one in front of a "
                               "person", low=0.0, high=1.0)
    degraded: float = setting(0.0, "share of images with blur, noise or low light",
                              low=0.0, high=1.0)
    seed: int = setting(0, "of all random numbers", low=0, high=2**31)
    detector: str = setting("", "Deformable DETR trained on COCO to start from: its name on "
                            "Hugging Face or a folder; empty: none")
    parts: str = setting("all", "what is trained: all; of tian, detection, the detector; people, "
                         "the layers that describe people, with a frozen detector",
                         choices=("all", "detection", "people"))
    shape_weight: float = setting(0.20, "of L_shape", low=0.0, high=1e3)
    pose_weight: float = setting(0.25, "of L_pose", low=0.0, high=1e3)
    smpl_weight: float = setting(0.15, "of L_SMPL", low=0.0, high=1e3)
    keypoint_weight: float = setting(0.30, "of L_KB", low=0.0, high=1e3)
    vote_weight: float = setting(0.0, "of the votes' cross-entropy, which is not in the paper",
                                 low=0.0, high=1e3)
    detection_weight: float = setting(0.40, "of L_DET", low=0.0, high=1e3)
    as_printed: bool = setting(False, "L_pose as in print: one sign, one norm for all joints")
    regulariser: str = setting("floor", "of L_KB: omega / (2 c^2), or omega c^2 / 2",
                               choices=("floor", "ceiling"))


def read_config(path: Path, network: str = "tian") -> tuple[Any, TrainingConfig]:
    """Read the sections `network` and `training` of a YAML file.

    Args:
        path: the file.
        network: name of the network that the section `network` is of.
    Raises:
        ConfigError: names the file and the key that is wrong.
    """
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    known = ("network", "training")
    if not isinstance(values, dict) or not set(values) <= set(known):
        found = ", ".join(map(str, values)) if isinstance(values, dict) else values
        raise ConfigError(f"{path} must have the sections {' and '.join(known)}, found {found!r}")
    try:
        return (from_dict(layers_class(network).CONFIG, values.get("network") or {}),
                from_dict(TrainingConfig, values.get("training") or {}))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
