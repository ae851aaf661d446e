"""Arithmetic and memory of the default network, and the time that Jetson modules need by it.

    python -m ros2_pose.evaluation.benchmarks.arithmetic

Everything is computed, nothing is measured. Multiply-accumulates (MACs) and bytes are those of
convolutions and matrix products in half precision: each layer reads its input and its weights once
and writes its output once; what lies between two layers costs nothing, as if it were fused.

A network takes as long as its arithmetic at a share of the module's peak, or as its bytes at a
share of the memory's bandwidth, whichever is longer. Each person is a call of the refiner. What the
CPU does is not part of the time: lift, fit, tracking, conversions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ros2_pose.body.fit_problem import FitSettings
from ros2_pose.body.lift import Lift
from ros2_pose.config import PoseConfig
from ros2_pose.evaluation import harness
from ros2_pose.evaluation.harness import Benchmark, Options, Row
from ros2_pose.networks import movenet, nanodet, thunder
from ros2_pose.networks.base import input_size, padded_length
from ros2_pose.networks.registry import create_network
from ros2_pose.skeleton import COCO17, SMPL24
from ros2_pose.tracking.search import SearchSchedule

# Peak in half precision without sparsity, TFLOPS, and bandwidth of the memory, GB/s. The peak is a
# quarter of the GPU's published INT8 TOPS with sparsity; of Thor an eighth of the FP4 TFLOPS with
# sparsity. Sources: docs/jetson.md.
MODULES = {"Orin Nano 8 GB": (67 / 4, 102.0), "Orin NX 16 GB": (60 / 4, 102.4),
           "AGX Orin 64 GB": (171 / 4, 204.8), "Thor T5000": (2070 / 8, 273.0)}
SHARE_OF_PEAK, SHARE_OF_BANDWIDTH = 0.1, 0.5  # assumed, of small networks
PEOPLE = (0, 3, 10)

_CONFIG = PoseConfig(engine="torch", device="cpu")
_IMAGE = 640, 480  # width, height, px
_CROP = 160, 256  # of a standing person, px
_NANODET_PX = 416
_RATE_HZ, _SECONDS = 30, 6
_HALF_BYTES = 2
_MEGA, _GIGA, _TERA, _MS = 1e6, 1e9, 1e12, 1e3

_SMALL, _LARGE = (f"movenet {scale}" for scale in sorted(_CONFIG.scales))
_PARTS = [_SMALL, "nanodet"], [_LARGE]  # of the search, see `SearchSchedule`

Cost = tuple[float, float]  # MACs and bytes of one call of a network


class LayerCounter(TorchDispatchMode):
    """Counts the layers that torch computes while it is active.

    Attributes:
        macs: of convolutions and matrix products.
        bytes: that they read and write in half precision.
        largest: bytes of the layer with the most.
    """

    def __init__(self) -> None:
        super().__init__()
        self.macs, self.bytes, self.largest = 0, 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute an operation and count it; one that consists of others is taken apart."""
        kwargs = kwargs or {}
        count = flop_registry.get(func.overloadpacket)
        if count is None:
            with self:
                result = func.decompose(*args, **kwargs)
            return func(*args, **kwargs) if result is NotImplemented else result
        result = func(*args, **kwargs)
        self.macs += count(*args, **kwargs, out_val=result) // 2
        moved = _HALF_BYTES * sum(value.numel() for value in (*args, result)
                                  if isinstance(value, Tensor))
        self.bytes += moved
        self.largest = max(self.largest, moved)
        return result


def counted(layers: Callable[..., Any], *inputs: Tensor) -> LayerCounter:
    """Return the counts of one call of layers."""
    with torch.no_grad(), LayerCounter() as counter:
        layers(*inputs)
    return counter


def of_image(layers: nn.Module, size: tuple[int, int]) -> LayerCounter:
    """Return the counts of a network for one image, without computing it.

    Args:
        layers: they map images (1, 3, h, w); not used afterwards.
        size: width and height, px.
    """
    return counted(layers.to("meta"), torch.empty(1, 3, *size[::-1], device="meta"))


def seconds(cost: Cost, module: str) -> float:
    """Return the time of one call of a network on a module of `MODULES`, s."""
    peak, bandwidth = MODULES[module]
    macs, moved = cost
    return max(2 * macs / (SHARE_OF_PEAK * peak * _TERA),
               moved / (SHARE_OF_BANDWIDTH * bandwidth * _GIGA))


def fit_macs(iterations: int) -> int:
    """Return the MACs of one person's fit: its normal equations and their solution."""
    unknowns = 3 * len(SMPL24) + 10 + 3  # rotations, betas, root
    residuals = 2 * len(COCO17)
    equations = residuals * unknowns**2
    return (iterations + 1) * equations + iterations * (unknowns**3 // 6 + unknowns**2)


# ---------------------------------------------------------------------------- an image's networks


def padded(scale: int) -> tuple[int, int]:
    """Return width and height, px, of the image as a finder's input of a long side."""
    width, height = input_size(_IMAGE, scale)
    return padded_length(width), padded_length(height)


@cache
def networks() -> dict[str, tuple[str, int, LayerCounter]]:
    """Return the input's size, the number of weights and the counts of each network, by name."""
    found = {}
    for name, load, size in ((_SMALL, movenet.load_heads, padded(min(_CONFIG.scales))),
                             (_LARGE, movenet.load_heads, padded(max(_CONFIG.scales))),
                             ("nanodet", nanodet.load_heads, padded(_NANODET_PX)),
                             ("thunder", thunder.load_heads, _CROP)):
        layers = load()
        found[name] = f"{size[0]} x {size[1]} px", _weights(layers), of_image(layers, size)
    lift = Lift.load()
    points, cov = torch.rand(1, len(COCO17), 2), 1e-4 * torch.eye(2).expand(1, len(COCO17), 2, 2)
    counter = counted(lift, points, cov)
    found["lift"] = f"{len(COCO17)} keypoints, on the CPU", _weights(lift), counter
    return found


def _weights(layers: nn.Module) -> int:
    return sum(value.numel() for value in layers.parameters())


def calls(people: int, most_followed: int) -> list[list[str]]:
    """Return the names of the networks that find people in each of some seconds of images.

    The first image is searched as a whole. Then all people are followed.

    Args:
        people: number of them.
        most_followed: number of people that can be followed without a search.
    """
    schedule, picture = SearchSchedule(_CONFIG.search_every), np.zeros((*_IMAGE[::-1], 3), np.uint8)
    images = []
    for number in range(_SECONDS * _RATE_HZ):
        searched = schedule.parts(len(_PARTS), number * 10**9 // _RATE_HZ, picture, people,
                                  people > most_followed)
        images.append([name for part in searched for name in _PARTS[part]]
                      + people * ["thunder"])
    return images


# ---------------------------------------------------------------------------- tables


def arithmetic(options: Options) -> Iterator[Row]:
    """Counts of each network, then those of images with the computed time on each module."""
    protocol = (f"computed, one call, half precision; image {_IMAGE[0]} x {_IMAGE[1]} px; "
                "refiner and lift: one person")
    for name, (size, weights, counter) in networks().items():
        yield Row(f"{name}, {size}", protocol, {
            "GMACs": counter.macs / _GIGA, "read and written, MB": counter.bytes / _MEGA,
            "weights, MB": _HALF_BYTES * weights / _MEGA,
            "largest layer, MB": counter.largest / _MEGA})
    warm = FitSettings.warm_iterations
    yield Row("fit", f"computed, one person followed, {warm} iterations, NumPy on the CPU",
              {"GMACs": fit_macs(warm) / _GIGA})
    most_followed = create_network(_CONFIG).most_followed
    for people in PEOPLE:
        images = calls(people, most_followed)
        if people:
            yield _images(f"{people} people followed, mean", images)
        yield _images(f"{people} people, whole picture searched", images[:1])


def _images(name: str, images: list[list[str]]) -> Row:
    """Return the row of images: means, and the time of their networks on each module."""
    costs = {name: (counter.macs, counter.bytes) for name, (*_, counter) in networks().items()}
    all_calls = [costs[call] for image in images for call in image]
    macs, moved = (sum(values) / len(images) for values in zip(*all_calls))
    times = {f"{module}, ms": _MS * sum(seconds(cost, module) for cost in all_calls) / len(images)
             for module in MODULES}
    return Row(name, f"COMPUTED, NOT MEASURED, an image of {_RATE_HZ} a second; "
               f"{SHARE_OF_PEAK:.0%} of the peak, {SHARE_OF_BANDWIDTH:.0%} of the bandwidth",
               {"GMACs": macs / _GIGA, "read and written, MB": moved / _MEGA, **times})


BENCHMARKS = {"arithmetic": Benchmark(arithmetic)}

if __name__ == "__main__":
    harness.main(BENCHMARKS, __doc__)
