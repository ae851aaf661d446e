"""Choice of the engine that computes a network: torch, or ONNX Runtime with one of its providers.

The settings `engine`, `device` and `require_gpu` ask for one; `Finder.engines` and
`Refiner.engines` tell what really computes.

| engine | device: cpu | device: auto or cuda, with a GPU |
|---|---|---|
| auto | ONNX Runtime if installed, else torch | torch if it has CUDA, else ONNX Runtime's CUDA |
| torch | torch | torch |
| onnxruntime | ONNX Runtime's CPU provider | its CUDA provider if it has one, else the CPU's |
| onnxruntime-cuda, -tensorrt | refused | that provider; it never falls back |
| onnxruntime-openvino | OpenVINO on the CPU | the same |
"""

from __future__ import annotations

import ctypes
from collections.abc import Collection, Sequence
from functools import cache

import torch

from ros2_pose.config import PoseConfig
from ros2_pose.networks import onnx_engine
from ros2_pose.networks.onnx_engine import EngineError

TORCH = "torch"
InUse = Collection[tuple[str, str]]  # engines that compute, each with its device, "cpu" or "cuda"


def needs_gpu(config: PoseConfig) -> bool:
    """Return whether the settings ask for a GPU, instead of one if there is one."""
    return config.device == "cuda" or config.require_gpu


@cache
def has_gpu() -> bool:
    """Return whether NVIDIA's driver finds a GPU; torch may lack CUDA."""
    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 \
            and count.value > 0
    except (OSError, AttributeError):
        return False


def torch_device(config: PoseConfig) -> torch.device:
    """Return the device that torch computes on.

    Raises:
        EngineError: the settings contradict each other, or ask for a GPU that is missing.
    """
    if config.device == "cpu":
        if config.require_gpu:
            raise EngineError("device: cpu contradicts require_gpu; choose one of the two")
        if config.engine in onnx_engine.ON_GPU:
            raise EngineError(f"device: cpu contradicts engine: {config.engine}, which computes on "
                              "a GPU; choose one of the two")
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda")
    if needs_gpu(config) and not _onnxruntime_has_gpu(config):
        asked = "device: cuda" if config.device == "cuda" else "require_gpu"
        raise EngineError(f"{asked}: CUDA is not available to torch {torch.__version__}, nor to "
                          f"ONNX Runtime (providers: {', '.join(onnx_engine.providers()) or '-'}); "
                          "install a CUDA build of torch or onnxruntime-gpu, or use device: auto "
                          "without require_gpu")
    return torch.device("cpu")


def _onnxruntime_has_gpu(config: PoseConfig) -> bool:
    """Whether ONNX Runtime may and can use a GPU, as far as can be told before it is loaded."""
    return config.device != "cpu" and has_gpu() \
        and onnx_engine.PROVIDERS[onnx_engine.CUDA] in onnx_engine.providers()


def candidates(config: PoseConfig, device: torch.device | str) -> list[str]:
    """Return the engines to try for a network that has a graph, the best first.

    A single one is asked for: it is an error if it cannot run.

    Args:
        config: settings.
        device: of torch, see `torch_device`.
    """
    if config.engine not in ("auto", onnx_engine.CPU):
        return [config.engine]
    if config.engine == "auto" and torch.device(device).type == "cuda":
        return [TORCH]
    is_onnx = config.engine == onnx_engine.CPU or onnx_engine.available()
    on_cpu = onnx_engine.CPU if is_onnx else TORCH
    if not _onnxruntime_has_gpu(config):
        return [on_cpu]
    return [onnx_engine.CUDA] if needs_gpu(config) else [onnx_engine.CUDA, on_cpu]


def is_half(config: PoseConfig, device: torch.device | str) -> bool:
    """Return whether torch computes in half precision on a device: not on a CPU."""
    return config.fp16 and torch.device(device).type == "cuda"


def autocast(config: PoseConfig, device: torch.device) -> torch.autocast:
    """Return the context in which torch computes layers in half precision, if that is set."""
    return torch.autocast(device.type, torch.float16, enabled=is_half(config, device))


def on_host(values: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return tensors (...) of any shape on the CPU, as float; from a GPU by one copy of all.

    Each copy waits for the GPU.
    """
    if not values or values[0].device.type == "cpu":
        return [value.float() for value in values]
    together = torch.cat([value.float().flatten() for value in values]).cpu()
    parts = together.split([value.numel() for value in values])
    return [part.view(value.shape) for part, value in zip(parts, values)]


def check_gpu(config: PoseConfig, in_use: InUse) -> None:
    """Check that all engines compute on a GPU if the settings ask for one.

    Raises:
        EngineError: one does not.
    """
    on_cpu = sorted(name for name, device in in_use if device == "cpu")
    if needs_gpu(config) and on_cpu:
        asked = "device: cuda" if config.device == "cuda" else "require_gpu"
        raise EngineError(f"{asked}: {', '.join(on_cpu)} of network {config.network} would compute "
                          "on the CPU; set engine to auto and install a CUDA build of torch")


def described(in_use: InUse) -> str:
    """Return the engines in use in words, e.g. "onnxruntime on cpu"."""
    return ", ".join(f"{name} on {device}" for name, device in sorted(set(in_use)))
