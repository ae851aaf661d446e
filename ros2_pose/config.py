"""Settings: one typed home for every default; unknown, mistyped or out-of-range is an error.

A settings class is a frozen dataclass whose fields are made by `setting`. The node turns the same
fields into ROS parameters with descriptions and ranges, the command line into options.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

import yaml

from ros2_pose.errors import PoseError, one_line
from ros2_pose.networks.registry import NETWORKS

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


class ConfigError(PoseError):
    """A setting that cannot be used; the message names key, value and what was expected."""


def setting(default, help: str, *, low=None, high=None, choices: Collection[str] = (),
            live: bool = False):
    """A field of a settings class.

    low, high: inclusive range (of each element of a tuple). choices: the values allowed, if few.
    live: may change while running.
    """
    meta = {"help": help, "low": low, "high": high, "choices": choices, "live": live}
    return field(default=default, metadata=meta)


@dataclass(frozen=True)
class PoseConfig:
    """What the pipeline does with a frame."""

    network: str = setting("movenet", "2D pose network", choices=NETWORKS.keys())
    checkpoint: str = setting("", "weights of the network, from ros2_pose train; empty takes those "
                              "shipped")
    device: str = setting("auto", "where the networks run; auto takes a GPU if there is one",
                          choices=("auto", "cpu", "cuda"))
    require_gpu: bool = setting(False, "refuse to start without a GPU, instead of a slow CPU")
    engine: str = setting("auto", "what runs the network on a CPU; auto takes onnxruntime where it "
                          "is installed", choices=("auto", "torch", "onnxruntime"))
    scales: tuple[int, ...] = setting(
        (256, 512), "long side of the network's input, px; several are merged. Larger sees smaller "
        "people, and costs as its square", low=128, high=1536)
    score_threshold: float = setting(0.3, "a person who scores this is reported at once; a weaker "
                                     "one when seen again and again", low=0.0, high=1.0,
                                     live=True)
    keypoint_threshold: float = setting(0.15, "keypoints scored lower do not pull on the body",
                                        low=0.0, high=1.0, live=True)
    max_people: int = setting(20, "most people reported for one image", low=1, high=100, live=True)
    body: bool = setting(True, "fit SMPL bodies; false gives 2D keypoints only", live=True)
    correct: bool = setting(True, "keypoints reported are corrected by the body; false reports "
                            "them as the network found them", live=True)
    body_model: str = setting("", "SMPL_*.npz or .pkl of yours; empty takes the open body")
    adult_height_m: float = setting(1.69, "mean height of adults where the camera is: without "
                                    "depth image or floor, distances are in proportion to it, m",
                                    low=1.0, high=2.2, live=True)
    camera_height_m: float = setting(0.0, "height of the camera above a level floor that people "
                                     "stand on, m; 0: not known", low=0.0, high=20.0, live=True)
    camera_pitch_deg: float = setting(0.0, "how far the camera looks down, degrees",
                                      low=-90.0, high=90.0, live=True)
    camera_roll_deg: float = setting(0.0, "how far the camera is turned about its line of sight, "
                                     "clockwise as seen from behind, degrees",
                                     low=-180.0, high=180.0, live=True)
    fov_deg: float = setting(0.0, "horizontal field of view assumed while no CameraInfo is known, "
                             "degrees; 0: no 3D without CameraInfo", low=0.0, high=175.0, live=True)
    confirm_hits: int = setting(3, "images in which a person must be seen to be trusted",
                                low=1, high=30, live=True)
    lost_s: float = setting(2.0, "a person unseen for longer is forgotten, s; at least 2.5 "
                            "intervals between images",
                            low=0.0, high=60.0, live=True)
    still_mps: float = setting(0.4, "a slower person, whose motion is not significant, stands: "
                               "velocity 0; m/s", low=0.0, high=2.0, live=True)


def from_dict(cls: type[T], values: dict[str, Any]) -> T:
    """A settings object from plain values, checked; what is not named keeps its default."""
    known = {f.name: f for f in fields(cls)}
    types = get_type_hints(cls)
    for key in values:
        if key not in known:
            raise ConfigError(f"unknown setting {key!r}; known are: {', '.join(sorted(known))}")
    return cls(**{key: _checked(key, value, types[key], known[key].metadata)
                  for key, value in values.items()})


def from_yaml(cls: type[T], path: str | Path) -> T:
    """A settings object from a YAML file; see `values_of_yaml`."""
    return from_dict(cls, values_of_yaml(path))


def values_of_yaml(path: str | Path) -> dict[str, Any]:
    """The `key: value` lines of a YAML file, or of a node's parameter file."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"cannot read settings from {path}: {one_line(error)}") from error
    if isinstance(values, dict) and len(values) == 1:  # "/**" or a node's name
        inner = next(iter(values.values()))
        if isinstance(inner, dict) and inner.keys() == {"ros__parameters"}:
            values = inner["ros__parameters"]
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold `key: value` lines, found {type(values).__name__}")
    return values


def _checked(key: str, value, kind, meta):
    if get_args(kind):  # tuple[int, ...]
        if isinstance(value, str) or not hasattr(value, "__len__") or len(value) == 0:
            raise ConfigError(f"{key}: {value!r} must be a list of one or more numbers")
        return tuple(_checked_one(key, element, get_args(kind)[0], meta) for element in value)
    return _checked_one(key, value, kind, meta)


def _checked_one(key: str, value, kind, meta):
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(f"{key}: {value!r} is {type(value).__name__}, expected {kind.__name__}")
    if meta["choices"] and value not in meta["choices"]:
        raise ConfigError(f"{key}: {value!r} is none of {', '.join(map(str, meta['choices']))}")
    low, high = meta["low"], meta["high"]
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        raise ConfigError(f"{key}: {value!r} is out of range, expected {low} to {high}")
    return value
