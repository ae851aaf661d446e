"""Choice of the engine: what is tried, what is refused, what is reported, and caches.

No GPU is needed: ONNX Runtime's list of providers and its sessions are replaced. The sessions
compute on the CPU, so that results stay true.
"""

import json
import logging

import numpy as np
import pytest
import torch

from ros2_pose.config import PoseConfig
from ros2_pose.networks import engine, engine_cache, nanodet, onnx_engine
from ros2_pose.networks.heads import Heads, graph_file
from ros2_pose.networks.onnx_engine import CPU, CUDA, OPENVINO, PROVIDERS, TENSORRT, EngineError
from ros2_pose.pipeline import Pipeline

onnxruntime = pytest.importorskip("onnxruntime", reason="only where onnxruntime is installed")

_ALL = [PROVIDERS[name] for name in (TENSORRT, CUDA, OPENVINO, CPU)]
_SESSION = onnxruntime.InferenceSession


class Machine:
    """What the replaced ONNX Runtime does.

    Attributes:
        providers: that its build has.
        loadable: that can be loaded; for others a session falls back to the CPU's.
        factor: of its results, 1 if they are right.
        refuses_cache: a session with a file in its cache cannot be made.
        started: options of each session's first provider.
    """

    def __init__(self):
        self.providers, self.loadable, self.factor = [PROVIDERS[CPU]], set(_ALL), 1.0
        self.refuses_cache, self.started = False, []

    def session(self, model, options, providers, enable_fallback=1):
        """Take the place of onnxruntime.InferenceSession."""
        if providers == [PROVIDERS[CPU]]:
            return _SESSION(model, options, providers=providers)
        assert enable_fallback == 0, "it would print and go on"
        return FakeSession(self, _SESSION(model, options, providers=[PROVIDERS[CPU]]), providers)


class FakeSession:
    """A session of a provider that is not there; it keeps a compiled engine as TensorRT does."""

    def __init__(self, machine, session, providers):
        self._machine, self._session = machine, session
        name, options = providers[0]
        folder = options.get("trt_engine_cache_path") or options.get("cache_dir")
        if folder:
            file = engine_cache.Path(folder) / "compiled.bin"
            if file.exists() and machine.refuses_cache:
                machine.refuses_cache = False
                raise RuntimeError("cannot deserialize\nthe engine")
            file.write_bytes(b"compiled")
        machine.started.append(options)
        self._used = [name] * (name in machine.loadable) + [PROVIDERS[CPU]]

    def get_providers(self):
        return self._used

    def run(self, names, inputs):
        return [self._machine.factor * maps for maps in self._session.run(names, inputs)]


@pytest.fixture
def machine(monkeypatch, tmp_path):
    machine = Machine()
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: machine.providers)
    monkeypatch.setattr(onnxruntime, "InferenceSession", machine.session)
    monkeypatch.setattr(engine_cache, "cache_dir", lambda: tmp_path)
    return machine


@pytest.fixture
def gpu(monkeypatch, machine):
    """A GPU that ONNX Runtime can use, and torch cannot."""
    monkeypatch.setattr(engine, "has_gpu", lambda: True)
    machine.providers = _ALL
    return machine


@pytest.fixture(scope="module")
def module():
    return nanodet.load_heads().eval()


def _heads(module, **settings):
    return Heads("nanodet", module, PoseConfig(**settings))


def _images():
    random = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8, generator=random)


# Choice -----------------------------------------------------------------------------------------

_CHOICES = [  # engine, device, require_gpu; torch and onnxruntime have CUDA; what is tried
    ("auto", "auto", False, False, False, [CPU]),
    ("auto", "auto", False, True, False, ["torch"]),
    ("auto", "auto", False, True, True, ["torch"]),
    ("auto", "auto", False, False, True, [CUDA, CPU]),
    ("auto", "cuda", False, False, True, [CUDA]),
    ("auto", "auto", True, False, True, [CUDA]),
    ("auto", "cpu", False, True, True, [CPU]),
    ("torch", "auto", False, False, True, ["torch"]),
    (CPU, "cpu", False, True, True, [CPU]),
    (CPU, "auto", False, True, False, [CPU]),
    (CPU, "auto", False, True, True, [CUDA, CPU]),
    (CPU, "cuda", False, True, True, [CUDA]),
    (TENSORRT, "auto", False, False, True, [TENSORRT]),
    (OPENVINO, "cpu", False, False, False, [OPENVINO]),
]


@pytest.mark.parametrize("choice", _CHOICES, ids=lambda choice: "-".join(map(str, choice[:5])))
def test_what_is_tried_follows_from_settings_and_machine(machine, monkeypatch, choice):
    name, device, require_gpu, torch_has, onnx_has, expected = choice
    monkeypatch.setattr(torch.cuda, "is_available", lambda: torch_has)
    monkeypatch.setattr(engine, "has_gpu", lambda: torch_has or onnx_has)
    machine.providers = _ALL if onnx_has else [PROVIDERS[CPU]]
    config = PoseConfig(engine=name, device=device, require_gpu=require_gpu)
    on = engine.torch_device(config)
    assert on.type == ("cuda" if torch_has and device != "cpu" else "cpu")
    assert engine.candidates(config, on) == expected


def test_without_onnxruntime_auto_is_torch(monkeypatch):
    monkeypatch.setattr(onnx_engine, "available", lambda: False)
    assert engine.candidates(PoseConfig(), "cpu") == ["torch"]
    assert onnx_engine.providers() == []


@pytest.mark.parametrize("settings, expected", [
    ({"device": "cpu", "require_gpu": True}, "contradicts require_gpu"),
    ({"device": "cpu", "engine": CUDA}, "contradicts engine: onnxruntime-cuda"),
    ({"device": "cuda"}, "device: cuda: CUDA is not available to torch"),
    ({"require_gpu": True}, "require_gpu: CUDA is not available to torch"),
    ({"engine": OPENVINO, "require_gpu": True}, "require_gpu: CUDA is not available"),
])
def test_settings_that_cannot_be_met_are_refused_before_anything_is_loaded(
        machine, monkeypatch, settings, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(engine, "has_gpu", lambda: False)
    with pytest.raises(EngineError, match=expected):
        Pipeline(PoseConfig(**settings))


# Refusals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [CUDA, TENSORRT, OPENVINO])
def test_a_provider_that_is_not_installed_is_named_with_its_remedy(machine, module, name):
    with pytest.raises(EngineError, match=f"{PROVIDERS[name]}.*pip install") as caught:
        _heads(module, engine=name)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("name", [CUDA, TENSORRT, OPENVINO])
def test_a_silent_fallback_to_the_cpu_is_an_error_of_an_engine_asked_for(gpu, module, name):
    gpu.loadable = {PROVIDERS[CPU]}
    with pytest.raises(EngineError, match=f"could not load {PROVIDERS[name]} and fell back to "
                                          "CPUExecutionProvider: pip"):
        _heads(module, engine=name)


def test_a_silent_fallback_is_a_warning_of_auto_and_an_error_where_a_gpu_is_required(
        gpu, module, caplog):
    gpu.loadable = {PROVIDERS[CPU]}
    with caplog.at_level(logging.WARNING):
        assert _heads(module).in_use == (CPU, "cpu")
    assert "fell back" in caplog.text and "onnxruntime computes instead" in caplog.text
    for settings in ({"require_gpu": True}, {"device": "cuda"}):
        with pytest.raises(EngineError, match="fell back"):
            _heads(module, **settings)


@pytest.mark.parametrize("name", [CUDA, TENSORRT, OPENVINO])
def test_an_engine_that_computes_something_else_is_refused(gpu, module, name):
    gpu.factor = 1.2
    with pytest.raises(EngineError, match="differs from torch by 0.2"):
        _heads(module, engine=name)


def test_an_engine_that_computes_nothing_is_refused(gpu, module):
    gpu.factor = float("nan")
    with pytest.raises(EngineError, match="differs from torch by nan"):
        _heads(module, engine=CUDA)


# What is in use ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [CUDA, TENSORRT, OPENVINO])
def test_an_engine_is_reported_with_its_device_and_computes_the_same(gpu, module, name):
    heads = _heads(module, engine=name)
    assert heads.in_use == (name, "cpu" if name == OPENVINO else "cuda")
    with torch.inference_mode():
        for ours, expected in zip(heads(_images()), module(_images().float()), strict=True):
            assert (ours - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("settings, expected", [
    ({}, "onnxruntime on cpu"),
    ({"network": "movenet", "engine": "torch", "fp16": True}, "torch on cpu"),  # none on a CPU
    ({"finders": ("movenet",), "refiner": "san"},  # layers behind the features
     "onnxruntime on cpu, torch on cpu"),
    ({"network": "das", "engine": "onnxruntime"}, "torch on cpu"),
])
def test_the_pipeline_tells_what_computes(settings, expected, caplog):
    with caplog.at_level(logging.INFO):
        pipeline = Pipeline(PoseConfig(device="cpu", **settings))
    assert pipeline.engine == expected and pipeline.device.type == "cpu"
    assert f": {expected}" in caplog.text


def test_the_pipeline_is_on_the_gpu_where_onnxruntime_alone_has_one(gpu):
    pipeline = Pipeline(PoseConfig(network="movenet", require_gpu=True))
    assert pipeline.engine == "onnxruntime-cuda on cuda" and pipeline.device.type == "cuda"


def test_layers_that_stay_on_the_cpu_are_refused_where_a_gpu_is_required(gpu):
    with pytest.raises(EngineError, match="require_gpu: torch of network top_down would compute"):
        Pipeline(PoseConfig(require_gpu=True, finders=("movenet",), refiner="san"))


def test_half_precision_computes_nearly_the_same(module, monkeypatch):
    """In torch, which has it on a CPU, too: the way is the same as on a GPU."""
    monkeypatch.setattr(engine, "is_half", lambda *_: True)
    heads = _heads(module, engine="torch")
    assert heads.in_use == ("torch fp16", "cpu")
    with torch.inference_mode():
        for ours, expected in zip(heads(_images()), module(_images().float()), strict=True):
            difference = (ours - expected).abs().max() / expected.abs().max()
            assert ours.dtype == torch.float32 and 1e-6 < difference < 0.05


# Caches -----------------------------------------------------------------------------------------


def _folders(root):
    return sorted(path for path in (root / "engines").iterdir())


def test_a_cache_belongs_to_network_engine_precision_size_and_versions(
        gpu, module, tmp_path, monkeypatch):
    _heads(module, engine=TENSORRT)
    _heads(module, engine=TENSORRT)
    assert len(_folders(tmp_path)) == 1
    assert gpu.started[0] == gpu.started[1]
    assert gpu.started[0]["trt_engine_cache_path"] == str(_folders(tmp_path)[0])
    other = nanodet.load_heads().eval()
    with torch.no_grad():
        next(other.parameters())[:] *= 1.001
    _heads(other, engine=TENSORRT)
    _heads(module, engine=TENSORRT, fp16=True)
    _heads(module, engine=OPENVINO)
    Heads("nanodet", module, PoseConfig(engine=TENSORRT), long_side=1536)
    monkeypatch.setattr(onnxruntime, "__version__", "99")
    _heads(module, engine=TENSORRT)
    assert len(_folders(tmp_path)) == 6
    assert [options.get("trt_fp16_enable") for options in gpu.started[2:5]] == [
        "False", "True", None]


@pytest.mark.parametrize("damage", ["changed", "empty", "gone", "no seal", "seal", "left over"])
def test_a_damaged_cache_is_made_anew_before_an_engine_reads_it(gpu, module, tmp_path, damage):
    _heads(module, engine=TENSORRT)
    folder, = _folders(tmp_path)
    compiled, seal = folder / "compiled.bin", folder / "sha256.json"
    assert json.loads(seal.read_text()).keys() == {"compiled.bin"}
    if damage in ("changed", "empty"):
        compiled.write_bytes(b"" if damage == "empty" else b"compilep")
    elif damage == "gone":
        compiled.unlink()
        (folder / "half").write_bytes(b"?")
    elif damage == "left over":
        (folder / "half").write_bytes(b"?")
    else:
        seal.write_text("{" if damage == "seal" else "")
    if damage == "no seal":
        seal.unlink()
    _heads(module, engine=TENSORRT)
    assert compiled.read_bytes() == b"compiled" and not (folder / "half").exists()
    assert json.loads(seal.read_text()).keys() == {"compiled.bin"}


def test_a_cache_that_the_engine_refuses_is_made_anew(gpu, module, tmp_path, caplog):
    _heads(module, engine=TENSORRT)
    gpu.refuses_cache = True
    assert _heads(module, engine=TENSORRT).in_use == (TENSORRT, "cuda")
    assert "cannot deserialize the engine" in caplog.text and "made anew" in caplog.text
    assert (_folders(tmp_path)[0] / "compiled.bin").exists()


def test_a_cache_that_cannot_be_written_is_done_without(gpu, module, tmp_path, caplog):
    (tmp_path / "engines").write_text("a file is in the way")
    assert _heads(module, engine=TENSORRT).in_use == (TENSORRT, "cuda")
    assert "trt_engine_cache_path" not in gpu.started[0] and "no engine cache" in caplog.text


def test_tensorrt_compiles_for_all_sizes_that_come():
    """Also for the padding of those that are no multiple of 32 px."""
    options = onnx_engine.provider_options(TENSORRT, False, 750, None)
    assert options["trt_profile_min_shapes"] == "images:1x32x32x3"
    assert options["trt_profile_max_shapes"] == "images:16x768x768x3"


def test_a_whole_model_needs_no_weights_beside_it(module):
    whole = onnx_engine.whole_model(graph_file("nanodet").read_bytes(), module.state_dict())
    session = _SESSION(whole, providers=[PROVIDERS[CPU]])
    images = _images().permute(0, 2, 3, 1).float().numpy()
    expected = Heads("nanodet", module)(_images())
    for ours, theirs in zip(session.run(None, {"images": images}), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_tensors_come_to_the_host_as_they_are_by_one_copy(monkeypatch):
    """On a meta device, in place of a GPU: one flat tensor is made and copied, then divided."""
    values = [torch.rand(3, 17, 2), torch.rand(0, 4), torch.rand(5).double(), torch.rand(())]
    for ours, expected in zip(engine.on_host(values), values, strict=True):
        assert ours.dtype == torch.float32 and torch.equal(ours, expected.float())
    copied = []
    meta = [torch.empty(value.shape, device="meta") for value in values]

    def copy(together):
        copied.append(together.shape)
        return torch.cat([value.float().flatten() for value in values])

    monkeypatch.setattr(torch.Tensor, "cpu", copy)
    for ours, expected in zip(engine.on_host(meta), values, strict=True):
        assert torch.equal(ours, expected.float())
    assert copied == [(3 * 17 * 2 + 5 + 1,)]
    assert engine.on_host([]) == []
