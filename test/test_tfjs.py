"""The reader of TensorFlow.js graph models: TensorFlow.js as the oracle, damaged files."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ros2_pose.networks.graph import GraphError
from ros2_pose.networks.nanodet import PersonHeads
from ros2_pose.networks.tfjs import load_tfjs
from ros2_pose.weights import fetch

sys.path.insert(0, str(Path(__file__).parent / "tools"))
import record_tfjs  # noqa: E402

_RECORDED = Path(__file__).parent / "data" / "tfjs_heads.npz"


def _load(network):
    names, _, _ = record_tfjs.NETWORKS[network]
    return load_tfjs(fetch(f"{network}.json"), fetch(f"{network}.bin"), names).eval()


def _channels_first(images):
    """Noise of record_tfjs.py as a batch (1, 3, h, w)."""
    images = torch.from_numpy(images).float()
    return images if images.shape[1] == 3 else images.permute(0, 3, 1, 2)


@pytest.mark.parametrize("network", record_tfjs.NETWORKS)
def test_heads_are_what_tensorflow_js_computed(network):
    noise = record_tfjs.noise(record_tfjs.NETWORKS[network][2])
    recorded = np.load(_RECORDED)
    with torch.inference_mode():
        heads = _load(network)(_channels_first(noise))
    for number, head in enumerate(heads):
        values = recorded[f"{network}/{number}/values"]
        ours = head.numpy().ravel()[recorded[f"{network}/{number}/places"]]
        assert len(values) >= 300
        np.testing.assert_allclose(ours, values, atol=1e-5 * np.abs(values).max())


@pytest.mark.parametrize("network", record_tfjs.NETWORKS)
def test_a_batch_of_any_size_is_computed_image_by_image(network):
    module = _load(network)
    images = torch.rand(3, 3, 96, 64, generator=torch.Generator().manual_seed(0)) * 255
    with torch.inference_mode():
        for together, *single in zip(module(images), *(module(image[None]) for image in images)):
            assert torch.allclose(together, torch.cat(single), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("network", record_tfjs.NETWORKS)
def test_a_network_sees_the_same_in_a_moved_picture(network):
    """Heads far from the border move with the picture: sizes of the file are not left in it."""
    module, noise = _load(network), torch.rand(1, 3, 1280, 96) * 255
    with torch.inference_mode():
        for whole, moved in zip(module(noise), module(noise[:, :, 32:])):
            stride = 1280 // whole.shape[2]
            rows, middle = 32 // stride, whole.shape[2] // 2
            difference = (whole[:, :, middle] - moved[:, :, middle - rows]).abs().max()
            assert difference < 1e-4 * whole.abs().max()


def test_nanodets_person_is_that_of_the_file_with_its_normalisation():
    images = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0)) * 255
    mean = torch.tensor([103.53, 116.28, 123.675]).reshape(1, 3, 1, 1)
    std = torch.tensor([57.375, 57.12, 58.395]).reshape(1, 3, 1, 1)
    with torch.inference_mode():
        expected = _load("nanodet")((images[:, [2, 1, 0]] - mean) / std)
        for ours, theirs in zip(PersonHeads()(images), expected, strict=True):
            kept = torch.cat([theirs[:, :1], theirs[:, 80:]], 1)
            assert torch.allclose(ours, kept, rtol=1e-4, atol=1e-4)


def _text(value):
    return {"s": base64.b64encode(value.encode()).decode()}


def _ints(*values):
    return {"list": {"i": [str(value) for value in values]}}


def _node(name, op, *inputs, **attributes):
    return {"name": name, "op": op, "input": list(inputs), "attr": attributes}


def _window(padding, stride, layout="NHWC", **attributes):
    strides = (1, stride, stride, 1) if layout == "NHWC" else (1, 1, stride, stride)
    return {"padding": _text(padding), "strides": _ints(*strides), "data_format": _text(layout),
            "dilations": _ints(1, 1, 1, 1), **attributes}


def _fused(*kinds):
    return {"list": {"s": [_text(kind)["s"] for kind in kinds]}}


def _write(folder, nodes, constants, stored=np.float16):
    """Write a model with an image (1, 32, 64, 3); floating constants are stored as given."""
    shape = {"shape": {"dim": [{"size": str(n)} for n in (1, 32, 64, 3)]}}
    entries, data = [], b""
    for name, value in constants.items():
        value = np.asarray(value)
        is_float = value.dtype.kind == "f"
        entry = {"name": name, "shape": value.shape, "dtype": "float32" if is_float else "int32"}
        if is_float and stored == np.float16:
            entry["quantization"] = {"dtype": "float16", "original_dtype": "float32"}
        entries.append(entry)
        data += value.astype(stored if is_float else np.int32).tobytes()
    consts = [_node(name, "Const") for name in constants]
    image = _node("image", "Placeholder", shape=shape, dtype={"type": "DT_FLOAT"})
    model = {"modelTopology": {"node": [*consts, image, *nodes], "library": {},
                               "versions": {"producer": 1}},
             "weightsManifest": [{"paths": ["weights"], "weights": entries}]}
    graph, weights = folder / "model.json", folder / "model.bin"
    graph.write_text(json.dumps(model))
    weights.write_bytes(data)
    return graph, weights


def _everything():
    """Nodes, constants and output of a graph with every operator that is covered."""
    rng = np.random.default_rng(3)

    def weights(*shape):
        return rng.normal(size=shape).astype(np.float16).astype(np.float32)

    constants = {
        "half": np.float32(0.5), "w1": weights(3, 3, 3, 8), "b1": weights(8),
        "w2": weights(3, 3, 8, 2), "b2": weights(16), "w3": weights(3, 3, 16, 6),
        "b3": weights(6), "w4": weights(3, 3, 6, 1), "w5": weights(1, 1, 6, 5), "b5": weights(5),
        "axis0": np.int32(0), "axis3": np.int32(-1), "lengths": np.int32([2, 4]),
        "to_nchw": np.int32([0, 3, 1, 2]), "to_nhwc": np.int32([0, 2, 3, 1]),
        "nchw_pads": np.int32([[0, 0], [0, 0], [1, 1], [0, 2]]),
        "pads": np.int32([[0, 0], [1, 0], [1, 1], [0, 0]]), "lowest": np.float32(-np.inf),
        "size": np.int32([16, 32])}
    nodes = [
        _node("cast", "Cast", "image", DstT={"type": "DT_FLOAT"}, SrcT={"type": "DT_FLOAT"}),
        _node("one", "Unpack", "cast", axis={"i": "0"}, num={"i": "1"}),
        _node("many", "ExpandDims", "one", "axis0"),
        _node("again", "Squeeze", "many", squeeze_dims=_ints(0)),
        _node("batch", "ExpandDims", "again:0", "axis0"),
        _node("less", "Sub", "batch", "half", "^image"),
        _node("scaled", "Mul", "less", "half"),
        _node("c1", "_FusedConv2D", "scaled", "w1", "b1", fused_ops=_fused("BiasAdd", "Relu6"),
              num_args={"i": "1"}, **_window("SAME", 2)),
        _node("c2", "FusedDepthwiseConv2dNative", "c1", "w2", "b2", num_args={"i": "1"},
              fused_ops=_fused("BiasAdd"), **_window("SAME", 1)),
        _node("p1", "Transpose", "c2", "to_nchw"),
        _node("p2", "Pad", "p1", "nchw_pads"),
        _node("p3", "Transpose", "p2", "to_nhwc"),
        _node("c3", "Conv2D", "p3", "w3", **_window("VALID", 1)),
        _node("c3b", "BiasAdd", "c3", "b3", data_format=_text("NHWC")),
        _node("leaky", "LeakyRelu", "c3b", alpha={"f": 0.125}),
        _node("p4", "PadV2", "leaky", "pads", "lowest"),
        _node("pool", "MaxPool", "p4", ksize=_ints(1, 3, 3, 1), **_window("VALID", 2)),
        _node("c4", "DepthwiseConv2dNative", "pool", "w4", **_window("SAME", 1)),
        _node("up", "ResizeBilinear", "c4", "size", half_pixel_centers={"b": True},
              align_corners={"b": False}),
        _node("sum", "AddV2", "up", "leaky"),
        _node("parts", "SplitV", "sum", "lengths", "axis3", num_split={"i": "2"}),
        _node("joined", "ConcatV2", "parts:1", "parts", "axis3", N={"i": "2"}),
        _node("root", "Sigmoid", "joined"),
        _node("c5", "Conv2D", "root", "w5", **_window("SAME", 1)),
        _node("out", "Add", "c5", "b5"),
        _node("Identity", "Identity", "out"),
    ]
    return nodes, constants


def _has_tfjs():
    try:
        return subprocess.run(["node", "-e", "require('@tensorflow/tfjs')"],
                              capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("stored", [np.float16, np.float32])
def test_every_operator_is_computed_as_tensorflow_js_does(tmp_path, stored):
    graph, weights = _write(tmp_path, *_everything(), stored)
    noise = np.random.default_rng(5).normal(size=(1, 32, 64, 3)).astype(np.float32)
    names = ["leaky", "parts:1", "Identity"]
    with torch.inference_mode():
        ours = load_tfjs(graph, weights, names)(torch.from_numpy(noise).permute(0, 3, 1, 2))
    assert [tensor.shape[1] for tensor in ours] == [6, 4, 5]
    if not _has_tfjs():
        pytest.skip("node or @tensorflow/tfjs is not installed")
    theirs = record_tfjs.run_tfjs(graph, weights, noise, names)
    for tensor, expected in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(tensor.permute(0, 2, 3, 1), expected, atol=1e-3)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_layouts_of_convolution_and_bias(tmp_path, layout):
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(1, 1, 3, 4)), rng.normal(size=4)
    constants = {"w": weight.astype(np.float32), "b": bias.astype(np.float32),
                 "order": np.int32([0, 3, 1, 2])}
    source = "image" if layout == "NHWC" else "turned"
    nodes = [_node("turned", "Transpose", "image", "order"),
             _node("sum", "Conv2D", source, "w", **_window("SAME", 1, layout)),
             _node("out", "BiasAdd", "sum", "b", data_format=_text(layout))]
    module = load_tfjs(*_write(tmp_path, nodes, constants, np.float32), ["out"])
    images = torch.rand(2, 3, 32, 64)
    expected = np.einsum("bchw,co->bohw", images, weight[0, 0]) + bias.reshape(-1, 1, 1)
    np.testing.assert_allclose(module(images)[0].detach(), expected, atol=1e-5)


def test_explicit_padding_of_a_convolution(tmp_path):
    weight = np.ones((3, 3, 3, 1), np.float32)
    window = _window("EXPLICIT", 1, explicit_paddings=_ints(0, 0, 1, 2, 3, 0, 0, 0))
    graph, weights = _write(tmp_path, [_node("out", "Conv2D", "image", "w", **window)],
                            {"w": weight})
    images = torch.rand(1, 3, 32, 64)
    padded = torch.nn.functional.pad(images, (3, 0, 1, 2)).sum(1, keepdim=True)
    expected = 9 * torch.nn.functional.avg_pool2d(padded, 3, 1)
    assert torch.allclose(load_tfjs(graph, weights, ["out"])(images)[0], expected, atol=1e-4)


_DAMAGE = {
    "cut json": lambda model, data: (model[:len(model) // 2], data),
    "not json": lambda model, data: (b"PK\3\4", data),
    "another json": lambda model, data: (b"[1, 2]", data),
    "cut weights": lambda model, data: (model, data[:-1]),
    "weights of another model": lambda model, data: (model, data + b"abcd"),
    "no weights": lambda model, data: (model, b""),
    "quantised weights": lambda model, data: (
        model.replace(b'"dtype": "float16"', b'"scale": 0.1, "dtype": "uint8"'), data),
    "text that is not base64": lambda model, data: (model.replace(b"Tkh", b"T!h"), data),
    "a node without name": lambda model, data: (model.replace(b'"name": "c1"', b'"nome": 1'), data),
}


@pytest.mark.parametrize("damage", _DAMAGE)
def test_a_damaged_file_is_named(tmp_path, damage):
    graph, weights = _write(tmp_path, *_everything())
    model, data = _DAMAGE[damage](graph.read_bytes(), weights.read_bytes())
    graph.write_bytes(model)
    weights.write_bytes(data)
    with pytest.raises(GraphError, match=r"model.json or model.bin is damaged \(") as caught:
        load_tfjs(graph, weights, ["Identity"])
    assert len(str(caught.value).splitlines()) == 1


def test_a_flipped_byte_is_read_or_refused_in_one_line(tmp_path):
    graph, weights = _write(tmp_path, *_everything())
    rng, whole, refused = np.random.default_rng(0), graph.read_bytes(), 0
    for place in rng.integers(0, len(whole), 300):
        wrong = bytearray(whole)
        wrong[place] ^= 1 << rng.integers(7)
        graph.write_bytes(wrong)
        try:
            load_tfjs(graph, weights, ["Identity"])
        except GraphError as error:
            refused += 1
            assert len(str(error).splitlines()) == 1
    assert refused > 50


def test_an_operator_that_is_not_covered_is_named_only_where_it_is_needed(tmp_path):
    nodes, constants = _everything()
    nodes.append(_node("shaped", "Reshape", "out", "size"))
    graph, weights = _write(tmp_path, nodes, constants)
    load_tfjs(graph, weights, ["out"])
    with pytest.raises(GraphError, match="operator 'Reshape' .tensor 'shaped'. is not covered"):
        load_tfjs(graph, weights, ["shaped"])
