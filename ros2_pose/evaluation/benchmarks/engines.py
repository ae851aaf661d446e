"""Time of each network's heads on the CPU, by the engine that computes them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import torch

from ros2_pose.config import PoseConfig
from ros2_pose.evaluation.harness import Benchmark, Options, Row
from ros2_pose.networks import movenet, nanodet, onnx_engine, thunder
from ros2_pose.networks.engine import TORCH
from ros2_pose.networks.heads import Heads

_LOADERS = {"movenet": movenet.load_heads, "thunder": thunder.load_heads,
            "nanodet": nanodet.load_heads}
_SIZES = {"movenet": (384, 512), "thunder": (256, 160), "nanodet": (320, 416)}  # height, width, px


def engines(options: Options) -> Iterator[Row]:
    """Median time of an image in each engine that is installed; they take turns."""
    names = [TORCH, *(name for name in (onnx_engine.CPU, onnx_engine.OPENVINO)
                      if onnx_engine.PROVIDERS[name] in onnx_engine.providers())]
    for network, load in _LOADERS.items():
        height, width = _SIZES[network]
        heads = [Heads(network, load(), PoseConfig(engine=name, device="cpu")) for name in names]
        yield Row(f"{network}, {width} x {height} px",
                  f"heads of an image, {options.repeats} runs, {torch.get_num_threads()} thread(s)",
                  {f"{name}, ms": ms for name, ms in
                   zip(names, _medians_ms(heads, (height, width), options.repeats))})


@torch.inference_mode()
def _medians_ms(heads: list[Heads], size: tuple[int, int], repeats: int) -> np.ndarray:
    """Return the median time (N,) ms of each of N heads on an image of noise."""
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (1, *size, 3), dtype=torch.uint8, generator=random)
    images = pixels.permute(0, 3, 1, 2)
    spent_s = np.zeros((repeats + 1, len(heads)))
    for row in spent_s:
        for number, compute in enumerate(heads):
            start_s = time.perf_counter()
            compute(images)
            row[number] = time.perf_counter() - start_s
    return 1e3 * np.median(spent_s[1:], axis=0)  # the first run warms up


BENCHMARKS = {"engines": Benchmark(engines, options=("repeats",))}
