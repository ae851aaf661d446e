"""Export of networks with their weights: for every network, and compared with torch."""

import sys

import numpy as np
import pytest
import torch

from ros2_pose.networks import export, nanodet
from ros2_pose.networks.registry import (
    DETECTORS,
    NETWORKS,
    REFINERS,
    finder_names,
    trainable_networks,
)
from ros2_pose.networks.san.config import SanConfig
from ros2_pose.networks.san.network import SanNet

pytest.importorskip("onnx", reason="only where requirements-test.txt is installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="only where onnxruntime is installed")


def test_every_network_of_the_registry_can_be_exported():
    """Those that join others by these, and paf by the layers of hourglass."""
    joined = set(NETWORKS) - set(finder_names())
    assert set(export.whole_networks()) == {*NETWORKS, *DETECTORS, *REFINERS} - joined - {"paf"}
    assert set(export.TRAINED) == set(trainable_networks())


@pytest.fixture(scope="module")
def san():
    """A small one, with every part."""
    torch.manual_seed(0)
    config = SanConfig(backbone="thunder", widths=(16, 16, 16), depth_cells=4, laterals=True)
    net = SanNet(config).eval().requires_grad_(False)
    net.attention.delta.fill_(0.5)
    return net


def test_a_trained_network_is_exported_for_any_size_and_batch(san, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(export, "load_layers", lambda *_: san)
    export.write_whole(tmp_path / "new", ["san"])
    path = tmp_path / "new" / "san.onnx"
    assert f"{path}: " in capsys.readouterr().out
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    assert names[:2] == ["volumes", "size"] and len(names) == 6
    images = 255 * torch.rand(2, 3, 96, 160)
    with torch.no_grad():
        levels, _ = san.features(images)
        expected = san.decoder([san.attention(levels[0]), *levels[1:]])
    volumes = session.run(["volumes"], {"images": images.permute(0, 2, 3, 1).numpy()})[0]
    np.testing.assert_allclose(volumes, expected, atol=1e-4 * float(expected.abs().max()))


def test_the_comparison_names_the_largest_difference_and_fails_above_the_tolerance():
    module = nanodet.load_heads().eval()

    def nearly(images):
        return [1.00001 * maps for maps in module(images)]

    text = export.compare("some.onnx", nearly, module)
    assert "some.onnx differs from torch by 1e-05 of the greatest value (output " in text

    def wrong(images):
        first, second, third = module(images)
        return first, second + (second == second.max()) * 0.01 * second.max(), third

    with pytest.raises(export.ExportError, match=r"by 0.01 .*\(output 1, .*more than 0.0001"):
        export.compare("some.onnx", wrong, module)
    def undefined(images):
        first, *others = module(images)
        return torch.nan * first, *others

    with pytest.raises(export.ExportError, match="by nan"):
        export.compare("some.onnx", undefined, module)
    with pytest.raises(export.ExportError, match="by inf"):
        export.compare("some.onnx", lambda images: [m[:, 1:] for m in module(images)], module)


def test_a_file_that_differs_is_not_kept(tmp_path, monkeypatch):
    module = export.load_whole("nanodet")
    other = nanodet.load_heads().eval()
    other.mean += 5
    monkeypatch.setattr(export, "load_whole", lambda *_: module)
    monkeypatch.setattr(export, "exported", lambda _, make=export.exported: make(other))
    with pytest.raises(export.ExportError, match="nanodet.onnx differs from torch by 0"):
        export.write_whole(tmp_path, ["nanodet"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words, expected", [
    (["--whole", "--checkpoint", "x.pt"], "--checkpoint is of one network"),
    (["--whole", "--networks", "movenet", "--checkpoint", "x.pt"], "--checkpoint is of one"),
    (["--whole", "--networks", "top_down"], "invalid choice: 'top_down'"),
])
def test_options_that_do_not_fit_are_refused(monkeypatch, capsys, words, expected):
    monkeypatch.setattr(sys, "argv", ["export", *words])
    with pytest.raises(SystemExit) as end:
        export.main()
    assert end.value.code == 2 and expected in capsys.readouterr().err
