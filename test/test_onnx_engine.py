"""ONNX Runtime with a shipped graph and torch's weights: equal to torch, and onnx is not needed."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from ros2_pose.config import PoseConfig
from ros2_pose.networks import movenet, nanodet, onnx_engine, thunder
from ros2_pose.networks.heads import Heads, graph_file
from ros2_pose.networks.movenet import MoveNet
from ros2_pose.people import Frame

_LOADERS = {"movenet": movenet.load_heads, "thunder": thunder.load_heads,
            "nanodet": nanodet.load_heads}
needs_onnxruntime = pytest.mark.skipif(not onnx_engine.available(),
                                       reason="onnxruntime is not installed")


@pytest.fixture(scope="module", params=_LOADERS)
def network(request):
    """Name and torch module of a network."""
    return request.param, _LOADERS[request.param]().eval()


@pytest.fixture(scope="module")
def heads(network):
    pytest.importorskip("onnxruntime")
    return Heads(*network, PoseConfig(engine="onnxruntime"))


@pytest.fixture(scope="module")
def movenet_module():
    return movenet.load_heads().eval()


def _noise(batch, size):
    return torch.randint(0, 256, (batch, 3, *size), dtype=torch.uint8,
                         generator=torch.Generator().manual_seed(batch))


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("size", [(32, 32), (64, 160), (256, 160), (288, 512)])
def test_equals_torch_for_any_size_and_batch(heads, size, batch):
    images = _noise(batch, size)
    with torch.inference_mode():
        for ours, expected in zip(heads(images), heads.module(images.float()), strict=True):
            assert ours.shape == expected.shape
            assert (ours - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("engine", ["torch", "onnxruntime"])
def test_type_and_order_in_memory_of_the_images_do_not_matter(network, engine):
    if engine == "onnxruntime" and not onnx_engine.available():
        pytest.skip("onnxruntime is not installed")
    heads, images = Heads(*network, PoseConfig(engine=engine)), _noise(2, (96, 64))
    pixels = torch.from_numpy(np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy()))
    with torch.inference_mode():
        expected = heads(images)
        for other in (images.float(), images.double(), pixels.permute(0, 3, 1, 2)):
            for ours, theirs in zip(heads(other), expected, strict=True):
                assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_weights_are_those_that_are_given_not_those_of_the_export(network):
    pytest.importorskip("onnxruntime")
    name, module = network
    images = torch.full((1, 3, 32, 32), 100.0)
    others = {key: torch.rand_like(value) * 0.01 for key, value in module.state_dict().items()}
    engine = onnx_engine.OnnxEngine(graph_file(name), others)
    with torch.inference_mode():
        expected = torch.func.functional_call(module, others, (images,))
        before = engine(images)
        for value in others.values():
            value.zero_()  # copied: later changes do not reach the session
        for ours, kept, theirs in zip(engine(images), before, expected, strict=True):
            assert torch.equal(ours, kept)
            assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("change", ["one is missing", "one has another shape", "one has no place"])
def test_weights_that_do_not_fit_the_graph_are_refused_in_one_line(movenet_module, change):
    pytest.importorskip("onnxruntime")
    weights = dict(movenet_module.state_dict())
    if change == "one is missing":
        del weights["layer3.weight"]
    elif change == "one has another shape":
        weights["layer3.weight"] = weights["layer3.weight"][:-1]
    else:
        weights["layer999.weight"] = torch.zeros(3)
    with pytest.raises(onnx_engine.EngineError, match="movenet.onnx does not fit") as caught:
        onnx_engine.OnnxEngine(graph_file("movenet"), weights)
    assert len(str(caught.value).splitlines()) == 1


def test_the_shipped_graph_is_what_the_export_writes_today(network):
    onnx = pytest.importorskip("onnx", reason="only where requirements-test.txt is installed")
    from ros2_pose.networks.export import structure
    name, module = network
    shipped, today = (onnx.load_from_string(data).graph for data in (
        graph_file(name).read_bytes(), structure(module)))
    for part in ("node", "initializer", "input", "output"):
        assert list(getattr(shipped, part)) == list(getattr(today, part)), \
            "run python -m ros2_pose.networks.export"


def test_the_export_compares_what_it_writes(movenet_module):
    pytest.importorskip("onnxruntime")
    from ros2_pose.networks import export
    export.check(graph_file("movenet"), movenet_module)

    def halved(images):
        return [head / 2 for head in movenet_module(images)]
    halved.state_dict = movenet_module.state_dict
    with pytest.raises(export.ExportError, match="movenet.onnx differs from torch"):
        export.check(graph_file("movenet"), halved)


_WITHOUT_ONNX = """
import sys
sys.modules.update(onnx=None, onnxscript=None, ml_dtypes=None)  # as if not installed
import torch
from ros2_pose.config import PoseConfig
from ros2_pose.networks.movenet import MoveNet
network = MoveNet(PoseConfig(engine="auto"))
assert network.heads.engine is not None
print(len(network(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))))
"""


@needs_onnxruntime
def test_serves_where_onnx_is_not_installed():
    done = subprocess.run([sys.executable, "-c", _WITHOUT_ONNX], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["6"]


def test_without_onnxruntime_torch_serves_and_asking_for_it_says_what_to_install(monkeypatch, clip):
    monkeypatch.setattr(onnx_engine, "available", lambda: False)
    network = MoveNet(PoseConfig(scales=(256,), score_threshold=0.1))
    assert len(network.detect([Frame(clip[0])])[0]) >= 2
    with pytest.raises(onnx_engine.EngineError, match="pip install --no-deps onnxruntime"):
        MoveNet(PoseConfig(engine="onnxruntime"))
