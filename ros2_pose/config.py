"""Settings of the pipeline, checked for unknown names, wrong types and values out of range.

A settings class is a frozen dataclass with fields made by `setting`, the only definition of each
default. The node declares the same fields as ROS parameters with descriptions and ranges; the
command line makes options of them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

import yaml

from ros2_pose.errors import PoseError, one_line
from ros2_pose.networks.registry import NETWORKS, REFINERS, finder_names

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="DataclassInstance")


class ConfigError(PoseError):
    """A setting cannot be used; the message names it, its value and what was expected."""


def setting(default, help: str, *, low=None, high=None, choices: Collection[str] = (),
            live: bool = False):
    """Return a dataclass field of a settings class.

    Args:
        help: description with unit; begins in lower case, without a final dot.
        low, high: inclusive range, of each element if the setting is a tuple; None: no limit.
        choices: the allowed values; empty: all.
        live: may change while the node runs.
    """
    meta = {"help": help, "low": low, "high": high, "choices": choices, "live": live}
    return field(default=default, metadata=meta)


@dataclass(frozen=True)
class PoseConfig:
    """Settings of the pipeline."""

    network: str = setting("top_down", "2D pose network; top_down: people found by `finders`, then "
                           "refined in crops by `refiner`; top_down_bottom_up: the keypoints of "
                           "both, fused", choices=NETWORKS.keys())
    finders: tuple[str, ...] = setting(
        ("movenet", "nanodet"), "of the networks top_down...: what searches the whole picture",
        choices=finder_names())
    refiner: str = setting("thunder", "of the networks top_down...: what refines people in crops",
                           choices=REFINERS.keys())
    checkpoint: str = setting("", "weights file of the network, or of a trained refiner, from "
                              "ros2_pose train; empty: the shipped one")
    device: str = setting("auto", "device of the networks; auto: a GPU if there is one",
                          choices=("auto", "cpu", "cuda"))
    require_gpu: bool = setting(False, "do not start without a GPU, instead of running slowly on "
                                "the CPU")
    engine: str = setting("auto", "inference engine of the networks movenet, thunder, nanodet and "
                          "san; auto: onnxruntime on a CPU if it is installed, torch on a GPU",
                          choices=("auto", "torch", "onnxruntime", "onnxruntime-cuda",
                                   "onnxruntime-tensorrt", "onnxruntime-openvino"))
    fp16: bool = setting(False, "compute in half precision on a GPU, in torch or TensorRT")
    scales: tuple[int, ...] = setting(
        (256, 512), "long side of the network's input, px; detections of several scales are "
        "merged. Larger scales detect smaller people; time grows with the square",
        low=128, high=1536)
    tiles: int = setting(1, "of finder nanodet: it also searches the picture in so many rows and "
                         "columns of tiles, for people of 25 to 60 px; tiles take turns",
                         low=1, high=4)
    search_every: int = setting(
        0, "of the networks top_down...: images between two searches of the whole picture while "
        "people are followed; 1: each image is searched; 0: by time, so that newcomers are found "
        "within 0.3 s",
        low=0, high=100, live=True)
    score_threshold: float = setting(0.3, "score from which a person is reported at once; lower "
                                     "scores are reported after repeated detections",
                                     low=0.0, high=1.0, live=True)
    keypoint_threshold: float = setting(0.15, "least score of keypoints that the body is fitted "
                                        "to", low=0.0, high=1.0, live=True)
    max_people: int = setting(20, "maximum number of people per image", low=1, high=100, live=True)
    body: bool = setting(True, "fit SMPL bodies; false: 2D keypoints only, and with root_depth "
                         "positions", live=True)
    root_depth: bool = setting(False, "with body: false, estimate the positions of people by their "
                               "size in the image; of one camera", live=True)
    correct: bool = setting(True, "report keypoints corrected by the fitted body; false: the "
                            "keypoints of the network", live=True)
    body_model: str = setting("", "SMPL model file (SMPL_*.npz or .pkl); empty: the shipped "
                              "open body")
    adult_height_m: float = setting(1.69, "mean body height of adults where the camera is used, "
                                    "m; without depth image or floor, distances are proportional "
                                    "to it",
                                    low=1.0, high=2.2, live=True)
    camera_height_m: float = setting(0.0, "height of the camera above a horizontal floor, m; 0: "
                                     "unknown", low=0.0, high=20.0, live=True)
    camera_pitch_deg: float = setting(0.0, "pitch of the camera, degrees; positive: it looks down",
                                      low=-90.0, high=90.0, live=True)
    camera_roll_deg: float = setting(0.0, "roll of the camera about its optical axis, degrees; "
                                     "positive: clockwise seen from behind the camera",
                                     low=-180.0, high=180.0, live=True)
    fov_deg: float = setting(0.0, "horizontal field of view that is assumed without CameraInfo, "
                             "degrees; 0: no 3D without CameraInfo", low=0.0, high=175.0, live=True)
    confirm_hits: int = setting(3, "images with a detection until a person counts as tracked",
                                low=1, high=30, live=True)
    lost_s: float = setting(2.0, "time without detection after which a person is deleted, s; at "
                            "least 2.5 image intervals",
                            low=0.0, high=60.0, live=True)
    still_mps: float = setting(0.4, "speed below which a person without significant motion gets "
                               "velocity 0, m/s", low=0.0, high=2.0, live=True)


def from_dict(cls: type[T], values: dict[str, Any]) -> T:
    """Return a settings object of checked values; settings that are not given keep their default.

    Raises:
        ConfigError: for an unknown name, a wrong type or a value that is not allowed.
    """
    known = {f.name: f for f in fields(cls)}
    types = get_type_hints(cls)
    for key in values:
        if key not in known:
            raise ConfigError(f"unknown setting {key!r}; known are: {', '.join(sorted(known))}")
    checked = {key: _checked(key, value, types[key], known[key].metadata)
               for key, value in values.items()}
    return cls(**checked)


def values_of_yaml(path: str | Path) -> dict[str, Any]:
    """Return the settings in a YAML file of `key: value` lines or a node's parameter file.

    Raises:
        ConfigError: for a file that cannot be read or has another structure.
    """
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
    """A setting's value, converted to its type; ConfigError if it is not allowed."""
    if not get_args(kind):
        return _checked_scalar(key, value, kind, meta)
    element_kind = get_args(kind)[0]  # of tuple[int, ...]
    if isinstance(value, str) or not hasattr(value, "__len__") or len(value) == 0:
        elements = "names" if element_kind is str else "numbers"
        raise ConfigError(f"{key}: {value!r} must be a list of one or more {elements}")
    return tuple(_checked_scalar(key, element, element_kind, meta) for element in value)


def _checked_scalar(key: str, value, kind, meta):
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(f"{key}: {value!r} is {type(value).__name__}, expected {kind.__name__}")
    if meta["choices"] and value not in meta["choices"]:
        raise ConfigError(f"{key}: {value!r} is not one of {', '.join(map(str, meta['choices']))}")
    low, high = meta["low"], meta["high"]
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        raise ConfigError(f"{key}: {value!r} is out of range, expected {low} to {high}")
    return value
