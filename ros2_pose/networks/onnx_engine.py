"""Computes a convolutional torch module in ONNX Runtime: 1.5 times as fast as torch on a CPU.

The graph is shipped without weights (`export.py` writes it), and the weights are those of the
torch module. So a robot needs onnxruntime alone: the onnx package would bring a newer numpy.

The graph takes images as cameras store them, a pixel's colours side by side, and transposes them
itself: torch takes milliseconds for it, because it wakes all its threads.

ONNX Runtime falls back to its CPU provider where another one cannot be loaded, and goes on; here
that is an error. What a provider other than the CPU's computes is compared with torch at the start.
"""

from __future__ import annotations

import importlib.util
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ros2_pose.errors import PoseError, one_line
from ros2_pose.networks.engine_cache import EngineCache

log = logging.getLogger(__name__)

CPU, CUDA, TENSORRT, OPENVINO = "onnxruntime", "onnxruntime-cuda", "onnxruntime-tensorrt", \
    "onnxruntime-openvino"  # names of engines
PROVIDERS = {CPU: "CPUExecutionProvider", CUDA: "CUDAExecutionProvider",
             TENSORRT: "TensorrtExecutionProvider", OPENVINO: "OpenVINOExecutionProvider"}
ON_GPU = (CUDA, TENSORRT)
_GPU_WHEEL = "pip uninstall onnxruntime; pip install --no-deps onnxruntime-gpu"
_REMEDIES = {CPU: "pip install --no-deps onnxruntime",
             CUDA: f"{_GPU_WHEEL}; it needs the CUDA and cuDNN that it was built for",
             TENSORRT: f"{_GPU_WHEEL}; it needs the CUDA, cuDNN and TensorRT that it was built for",
             OPENVINO: "pip uninstall onnxruntime; pip install --no-deps onnxruntime-openvino"}
_MOST_IMAGES = 16  # of a batch in TensorRT
_SIDE_PX = 64  # of the noise that is compared at the start
_TOLERANCES = {OPENVINO: 1e-3, CUDA: 2e-2, TENSORRT: 2e-2}  # of a map's greatest value
_TOLERANCE_FP16 = 0.1


class EngineError(PoseError):
    """An engine that is configured but cannot run."""


def available() -> bool:
    """Return whether ONNX Runtime is installed."""
    return importlib.util.find_spec("onnxruntime") is not None


def providers() -> list[str]:
    """Return the execution providers of the installed ONNX Runtime; none if it is missing."""
    if not available():
        return []
    import onnxruntime
    return onnxruntime.get_available_providers()


class OnnxEngine:
    """A graph in ONNX Runtime with the weights of a torch module.

    Attributes:
        name: of the engine, as in the setting `engine`.
        device: "cpu" or "cuda", where it computes; images and maps are on the CPU.
    """

    def __init__(self, graph: Path, weights: Mapping[str, torch.Tensor], name: str = CPU, *,
                 options: Mapping[str, str] | None = None):
        """Load a graph and give it weights.

        Args:
            graph: ONNX file; its initializers are marked as external data.
            weights: value of each initializer by name, as `state_dict()` of the module gives them;
                copied.
            name: of the engine, a key of `PROVIDERS`.
            options: of its provider.
        Raises:
            EngineError: onnxruntime or the provider is missing or cannot be loaded, or graph and
                weights do not belong together.
        """
        if not available():
            raise EngineError(f"engine: onnxruntime is not installed: {_REMEDIES[CPU]}; or set "
                              "engine to auto or torch")
        if PROVIDERS[name] not in providers():
            raise EngineError(f"engine: {name} needs {PROVIDERS[name]}, the installed onnxruntime "
                              f"has {', '.join(providers())}: {_REMEDIES[name]}; or set engine to "
                              "auto")
        self.name, self.device = name, "cuda" if name in ON_GPU else "cpu"
        try:
            self._session = _session(graph, weights, name, dict(options or {}))
        except Exception as error:  # onnxruntime's exceptions have no common base
            if name == CPU:
                raise EngineError(f"{graph.name} does not fit the network "
                                  f"({str(error).splitlines()[0]}): "
                                  "run python -m ros2_pose.networks.export") from error
            raise EngineError(f"engine: {name} cannot be started ({one_line(error)}): "
                              f"{_REMEDIES[name]}; or set engine to auto") from error
        used = self._session.get_providers()
        if PROVIDERS[name] not in used:
            raise EngineError(f"engine: {name}: onnxruntime could not load {PROVIDERS[name]} and "
                              f"fell back to {', '.join(used)}: {_REMEDIES[name]}; or set engine "
                              "to auto")

    def __call__(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Compute the maps (B, channels, h', w') of images (B, 3, h, w), uint8 or float."""
        images = np.ascontiguousarray(batch.permute(0, 2, 3, 1).numpy(), np.float32)
        return tuple(map(torch.from_numpy, self._session.run(None, {"images": images})))


def create(graph: Path, module: nn.Module, name: str, fp16: bool, long_side: int) -> OnnxEngine:
    """Return an engine that computes what a torch module computes.

    What an engine compiles is cached. A cache that is damaged, or with which the engine does not
    start or differs from torch, is made anew.

    Args:
        graph: ONNX file of the module.
        module: on the CPU.
        name: of the engine, a key of `PROVIDERS`.
        fp16: compute in half precision, in TensorRT.
        long_side: of the largest images, px.
    Raises:
        EngineError: it cannot run, or differs from torch.
    """
    weights = module.state_dict()
    if name == CPU:
        return OnnxEngine(graph, weights)
    half = fp16 and name == TENSORRT
    cache = EngineCache(graph, weights, name, ("fp16" if half else "fp32", str(long_side)))

    def started() -> OnnxEngine:
        options = provider_options(name, half, long_side, cache.folder)
        engine = OnnxEngine(graph, weights, name, options=options)
        _compare(engine, module, half)
        return engine

    cache.drop_damaged()
    try:
        engine = started()
    except EngineError as error:
        if not cache.is_used:
            raise
        log.warning("%s; its cache %s is made anew", error, cache.folder)
        cache.drop()
        engine = started()
    cache.seal()
    return engine


def provider_options(name: str, half: bool, long_side: int, folder: Path | None) -> dict[str, str]:
    """Return the options of an engine's provider.

    Args:
        name: of the engine.
        half: compute in half precision, in TensorRT.
        long_side: of the largest images, px; TensorRT compiles for all sizes up to it.
        folder: of the cache; None: without a cache.
    """
    options: dict[str, str] = {}
    if name == OPENVINO:
        options |= {"device_type": "CPU", "num_of_threads": str(torch.get_num_threads())}
        options |= {"cache_dir": str(folder)} if folder else {}
    elif name == TENSORRT:
        longest = -(-long_side // 32) * 32  # inputs are padded to multiples of 32 px
        middle = min(256, longest)
        for limit, shape in (("min", (1, 32, 32)), ("opt", (1, middle, middle)),
                             ("max", (_MOST_IMAGES, longest, longest))):
            options[f"trt_profile_{limit}_shapes"] = f"images:{'x'.join(map(str, shape))}x3"
        options["trt_fp16_enable"] = str(half)
        if folder:
            options |= {"trt_engine_cache_enable": "True", "trt_engine_cache_path": str(folder)}
    return options


def _session(graph: Path, weights: Mapping[str, torch.Tensor], name: str,
             options: dict[str, str]) -> Any:
    """Return the session of a provider, with the CPU's for what the provider does not cover."""
    import onnxruntime
    content = graph.read_bytes()
    if name in (CPU, CUDA):
        asked: list = [PROVIDERS[name]] if name == CPU else [(PROVIDERS[name], options),
                                                             PROVIDERS[CPU]]
        session_options, _ = _with_weights(weights)
        return onnxruntime.InferenceSession(content, session_options, providers=asked,
                                            enable_fallback=0)
    return onnxruntime.InferenceSession(whole_model(content, weights),
                                        onnxruntime.SessionOptions(), enable_fallback=0,
                                        providers=[(PROVIDERS[name], options), PROVIDERS[CPU]])


def _with_weights(weights: Mapping[str, torch.Tensor]) -> tuple[Any, list[np.ndarray]]:
    """Return the options of a session with weights, and arrays that must live until it is made."""
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Idle threads must not spin, as OpenMP's (see runtime_env.py): the cores have other work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    arrays = [value.contiguous().cpu().numpy() for value in weights.values()]
    values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in arrays]
    options.add_external_initializers(list(weights), values)
    return options, arrays


def whole_model(graph: bytes, weights: Mapping[str, torch.Tensor]) -> bytes:
    """Return a graph with its weights as one ONNX model: providers that compile need it."""
    import onnxruntime
    options, arrays = _with_weights(weights)
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "whole.onnx"
        options.optimized_model_filepath = str(path)
        onnxruntime.InferenceSession(graph, options, providers=[PROVIDERS[CPU]])
        del arrays
        return path.read_bytes()


def relative_difference(maps: torch.Tensor, expected: torch.Tensor) -> float:
    """Return the greatest difference of maps (...), relative to the greatest expected value."""
    if maps.shape != expected.shape:
        return np.inf
    difference = (maps - expected).abs().max()
    return float(difference / expected.abs().max()) if difference != 0 else 0.0


def _compare(engine: OnnxEngine, module: nn.Module, half: bool) -> None:
    """Raise EngineError unless an engine computes the maps that torch computes, of noise."""
    random = torch.Generator().manual_seed(0)
    images = 255 * torch.rand(1, 3, _SIDE_PX, _SIDE_PX, generator=random)
    tolerance = _TOLERANCE_FP16 if half else _TOLERANCES[engine.name]
    with torch.inference_mode():
        try:
            maps = engine(images)
        except Exception as error:  # onnxruntime's exceptions have no common base
            raise EngineError(f"engine: {engine.name} cannot compute ({one_line(error)}): set "
                              "engine to auto") from error
        pairs = zip(maps, module(images), strict=True)
        worst = float(np.max([relative_difference(a, b) for a, b in pairs]))
    if not worst < tolerance:
        raise EngineError(f"engine: {engine.name} differs from torch by {worst:.2g} of the "
                          f"greatest value, more than {tolerance:g}: set engine to auto")
