"""Size and cost of every network: parameters, multiply-accumulates and time for a picture.

    python -m ros2_pose.evaluation.benchmarks.systems ANNOTATIONS.json PICTURES

The first pictures of the file are used. Multiply-accumulates are counted by torch in convolutions
and matrix products, for the people that are found. Times are of one machine: compare them with each
other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from time import perf_counter
from typing import Any

import numpy as np
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ros2_pose.config import PoseConfig
from ros2_pose.evaluation import harness
from ros2_pose.evaluation.benchmarks.keypoints import read_image
from ros2_pose.evaluation.harness import Benchmark, Options, Row
from ros2_pose.networks.base import PoseNetwork
from ros2_pose.networks.registry import NETWORKS, REFINERS, create_network, network_title
from ros2_pose.people import Frame

_PICTURES = 12
_DEFAULT = PoseConfig()
_MS, _MILLION, _GIGA = 1e3, 1e6, 1e9


def configurations() -> list[PoseConfig]:
    """Return the settings of every network, and of the default one with every other refiner."""
    refined = [PoseConfig(refiner=name) for name in REFINERS if name != _DEFAULT.refiner]
    return [PoseConfig(network=name) for name in NETWORKS] + refined


def systems(options: Options) -> Iterator[Row]:
    """Parameters, GMACs and time of every network."""
    assert options.annotations is not None and options.images is not None
    listing = json.loads(options.annotations.read_text())["images"][:_PICTURES]
    frames = [Frame(read_image(options.images / info["file_name"])) for info in listing]
    for config in configurations():
        network = create_network(config)
        network.configure(config.score_threshold, config.max_people)
        seconds = []
        for frame in frames:
            start = perf_counter()
            network.detect([frame])
            seconds.append(perf_counter() - start)
        yield Row(network_title(config), f"mean of {len(frames)} pictures; time: median, with the "
                  "engine that is chosen automatically",
                  {"parameters, M": parameters(network) / _MILLION,
                   "GMACs a picture": macs(config, frames) / _GIGA,
                   "ms a picture": _MS * float(np.median(seconds))})


def macs(config: PoseConfig, frames: list[Frame]) -> float:
    """Return the mean number of multiply-accumulates for a frame, computed in torch."""
    network = create_network(PoseConfig(network=config.network, refiner=config.refiner,
                                        engine="torch"))
    network.configure(config.score_threshold, config.max_people)
    with FlopCounterMode(display=False) as counter:
        for frame in frames:
            network.detect([frame])
    return counter.get_total_flops() / 2 / len(frames)


def parameters(network: PoseNetwork) -> int:
    """Return the number of weights of a network and of those that it is made of, each once."""
    sizes: dict[int, int] = {}
    for module in _modules(network):
        sizes |= {value.data_ptr(): value.numel() for value in module.parameters()}
    return sum(sizes.values())


def _modules(value: Any) -> Iterator[nn.Module]:
    """Yield the torch modules of a network: itself, or those in its attributes."""
    if isinstance(value, nn.Module):
        yield value
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _modules(one)
    elif isinstance(value, PoseNetwork):
        yield from _modules(list(vars(value).values()))


BENCHMARKS = {"systems": Benchmark(systems, ("--annotations", "--images"),
                                 ("annotations", "images"))}

if __name__ == "__main__":
    harness.main(BENCHMARKS, __doc__, positional=("annotations", "images"))
