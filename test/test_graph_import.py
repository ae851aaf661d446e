"""The importer of graphs: every operation against numpy by TensorFlow's definitions; refusals."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from ros2_pose.networks.graph import GraphError, Operation
from ros2_pose.networks.graph_import import import_graph

_ORDERS = {"NHWC": (0, 1, 2, 3), "NCHW": (0, 3, 1, 2)}  # from NHWC
_ACTIVATIONS = {None: lambda x: x, "relu": lambda x: np.maximum(x, 0),
                "relu6": lambda x: np.clip(x, 0, 6),
                "leaky_relu": lambda x: np.where(x > 0, x, 0.3 * x)}


def _image(layout="NHWC", channels=3):
    """A graph's image; the size in the file differs from those of the tests."""
    shape = [dict(N=1, H=64, W=32, C=channels)[axis] for axis in layout]
    return Operation("image", (), ("image",), {"layout": layout, "shape": shape})


def _noise(shape=(2, 32, 64, 3), seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32) * 3


def _compute(operations, constants, images, *outputs):
    """Tensors (B, h, w, C) that the imported graph computes for images (B, H, W, C)."""
    network = import_graph(operations, constants, outputs or ("out",))
    results = network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    return [result.detach().numpy().transpose(0, 2, 3, 1) for result in results]


def _pairs(padding, size, kernel, strides, dilations):
    """Padding as TensorFlow defines it: of SAME, the output has ceil(size / stride) cells."""
    if padding == "VALID":
        return [(0, 0), (0, 0)]
    if padding != "SAME":
        return padding
    total = [max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
             for n, k, s, d in zip(size, kernel, strides, dilations)]
    return [(t // 2, t - t // 2) for t in total]


def _windows(x, kernel, strides, dilations, pairs, value=0.0):
    """Windows (B, h, w, kh, kw, C) of x (B, H, W, C)."""
    x = np.pad(x, [(0, 0), *pairs, (0, 0)], constant_values=value)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations)]
    size = [(n - r) // s + 1 for n, r, s in zip(x.shape[1:3], reach, strides)]
    out = np.empty((len(x), *size, *kernel, x.shape[3]), x.dtype)
    for i, j in itertools.product(*map(range, size)):
        top, left = i * strides[0], j * strides[1]
        out[:, i, j] = x[:, top:top + reach[0]:dilations[0], left:left + reach[1]:dilations[1]]
    return out


def _resized(x, scale):
    """x (B, H, W, C) scaled bilinearly, pixel centres at +0.5, edges repeated."""
    for axis, factor in zip((1, 2), scale):
        n = x.shape[axis]
        at = np.clip((np.arange(int(n * factor)) + 0.5) / factor - 0.5, 0, n - 1)
        low = np.floor(at).astype(int)
        share = (at - low).reshape([-1 if i == axis else 1 for i in range(4)])
        x = (x.take(low, axis) * (1 - share)
             + x.take(np.minimum(low + 1, n - 1), axis) * share)
    return x


_PADDINGS = ["SAME", "VALID", [(2, 1), (0, 1)]]


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (5, 2), (4, 4)])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (2, 1)])
@pytest.mark.parametrize("padding", _PADDINGS)
@pytest.mark.parametrize("multiplier", [0, 1, 2])  # 0: not depthwise
def test_convolution(layout, kernel, strides, padding, multiplier):
    images, rng = _noise(), np.random.default_rng(1)
    weight = rng.normal(size=(*kernel, 3, multiplier or 5)).astype(np.float32)
    bias = rng.normal(size=(3 * multiplier or 5)).astype(np.float32)
    activation = [*_ACTIVATIONS][(kernel[0] + strides[1] + multiplier) % 4]
    operation = Operation("convolution", ("image", "w", "b"), ("out",), {
        "strides": strides, "dilations": (1, 1), "padding": padding, "layout": layout,
        "depthwise": multiplier > 0, "activation": activation, "alpha": 0.3,
        "weight_axes": (2, 3, 0, 1) if multiplier else (3, 2, 0, 1)})
    result, = _compute([_image(layout), operation], {"w": weight, "b": bias}, images)

    pairs = _pairs(padding, images.shape[1:3], kernel, strides, (1, 1))
    windows = _windows(images, kernel, strides, (1, 1), pairs)
    if multiplier:
        expected = np.einsum("bijklc,klcm->bijcm", windows, weight).reshape(*windows.shape[:3], -1)
    else:
        expected = np.einsum("bijklc,klco->bijo", windows, weight)
    np.testing.assert_allclose(result, _ACTIVATIONS[activation](expected + bias), atol=1e-4)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("dilations", [(2, 2), (1, 3)])
def test_dilated_convolution(padding, dilations):
    images, weight = _noise(), _noise((3, 3, 3, 4), seed=1)
    operation = Operation("convolution", ("image", "w"), ("out",), {
        "strides": (1, 1), "dilations": dilations, "padding": padding, "layout": "NHWC",
        "depthwise": False, "weight_axes": (3, 2, 0, 1)})
    result, = _compute([_image(), operation], {"w": weight}, images)
    pairs = _pairs(padding, images.shape[1:3], (3, 3), (1, 1), dilations)
    windows = _windows(images, (3, 3), (1, 1), dilations, pairs)
    np.testing.assert_allclose(result, np.einsum("bijklc,klco->bijo", windows, weight), atol=1e-3)


@pytest.mark.parametrize("size", [(2, 2), (3, 3), (1, 3)])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2)])
@pytest.mark.parametrize("padding", ["SAME", "VALID", [(1, 0), (1, 1)]])
def test_max_pool(size, strides, padding):
    images = _noise() - 10  # padding with zeros would win
    operation = Operation("max_pool", ("image",), ("out",), {
        "size": size, "strides": strides, "padding": padding, "layout": "NHWC"})
    result, = _compute([_image(), operation], {}, images)
    pairs = _pairs(padding, images.shape[1:3], size, strides, (1, 1))
    windows = _windows(images, size, strides, (1, 1), pairs, -np.inf)
    np.testing.assert_array_equal(result, windows.max((3, 4)))


@pytest.mark.parametrize("used_by", ["convolution", "convolution, SAME", "max_pool", "nothing"])
@pytest.mark.parametrize("value", [0.0, -np.inf, 2.5])
@pytest.mark.parametrize("pairs", [((1, 1), (1, 1)), ((0, 2), (2, 0)), ((3, 1), (0, 5))])
def test_padding_by_an_operation_of_its_own(used_by, value, pairs):
    if used_by.startswith("convolution"):
        value = max(value, -2.0)  # infinity times zero is NaN
    images, weight = _noise(), _noise((3, 3, 3, 4), seed=1)
    own = "SAME" if used_by.endswith("SAME") else "VALID"
    pad = Operation("pad", ("image",), ("padded",), {
        "pairs": ((0, 0), (0, 0), *pairs), "value": value})
    turned = Operation("transpose", ("padded",), ("turned",), {"order": (0, 2, 3, 1)})
    common = {"strides": (1, 1), "padding": own, "layout": "NHWC"}
    user = {
        "max_pool": Operation("max_pool", ("turned",), ("out",), {"size": (3, 3), **common}),
        "nothing": Operation("identity", ("turned",), ("out",), {}),
    }.get(used_by, Operation("convolution", ("turned", "w"), ("out",), {
        "dilations": (1, 1), "depthwise": False, "weight_axes": (3, 2, 0, 1), **common}))
    result, = _compute([_image("NCHW"), pad, turned, user], {"w": weight}, images)

    padded = np.pad(images, [(0, 0), *pairs, (0, 0)], constant_values=value)
    own_pairs = _pairs(own, padded.shape[1:3], (3, 3), (1, 1), (1, 1))
    windows = _windows(padded, (3, 3), (1, 1), (1, 1), own_pairs)
    expected = {"nothing": padded, "max_pool": windows.max((3, 4))}.get(
        used_by, np.einsum("bijklc,klco->bijo", windows, weight))
    np.testing.assert_allclose(result, expected, atol=1e-3)


@pytest.mark.parametrize("scale", [(2, 2), (4, 2), (0.5, 0.5)])
@pytest.mark.parametrize("given", ["scale", "size"])
def test_resize(scale, given):
    images = _noise()
    size = [round(64 * scale[0]), round(32 * scale[1])]  # of the image in the file
    operation = Operation("resize", ("image",), ("out",), {
        "scale": scale if given == "scale" else None, "size": size if given == "size" else None,
        "half_pixel_centers": True, "align_corners": False})
    result, = _compute([_image(), operation], {}, images)
    np.testing.assert_allclose(result, _resized(images, scale), atol=1e-5)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("kind", ["add", "sub", "mul", "div"])
@pytest.mark.parametrize("operand", ["number", "channels", "tensor"])
@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize("activation", [None, "relu6"])
def test_arithmetic(layout, kind, operand, is_first, activation):
    images = np.abs(_noise()) + 1
    constant = np.float32([2.5, 0.5, 4]) if operand == "channels" else np.float32(3)
    shaped = constant.reshape(-1, 1, 1) if layout == "NCHW" and constant.size > 1 else constant
    other = "root" if operand == "tensor" else "constant"
    names = (other, "image") if is_first else ("image", other)
    operations = [
        _image(layout), Operation("sigmoid", ("image",), ("root",), {}),
        Operation(kind, names, ("out",), {"activation": activation})]
    result, = _compute(operations, {"constant": shaped}, images)
    second = 1 / (1 + np.exp(-images)) if operand == "tensor" else constant
    a, b = (second, images) if is_first else (images, second)
    expected = {"add": a + b, "sub": a - b, "mul": a * b, "div": a / b}[kind]
    np.testing.assert_allclose(result, _ACTIVATIONS[activation](expected), rtol=1e-5)


@pytest.mark.parametrize("kind", ["relu", "relu6", "leaky_relu", "sigmoid", "identity"])
def test_functions_of_one_tensor_leave_it_as_it_is(kind):
    images = _noise()
    operations = [_image(), Operation("add", ("image", "two"), ("more",), {}),
                  Operation(kind, ("more",), ("out",), {"alpha": 0.3})]
    result, before = _compute(operations, {"two": np.float32(2)}, images, "out", "more")
    functions = {**_ACTIVATIONS, "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "identity": lambda x: x}
    np.testing.assert_allclose(result, functions[kind](images + 2), atol=1e-6)
    np.testing.assert_array_equal(before, images + 2)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("axis", "HWC")
def test_concat_and_split_are_inverse(layout, axis):
    images, number = _noise(), layout.index(axis)
    length = {"H": 32, "W": 64, "C": 3}[axis]
    in_file = {"H": 64, "W": 32, "C": 3}[axis]
    operations = [_image(layout), Operation("mul", ("image", "two"), ("twice",), {}),
                  Operation("concat", ("image", "twice"), ("both",), {"axis": number})]
    joined, = _compute(operations, {"two": np.float32(2)}, images, "both")
    np.testing.assert_array_equal(joined, np.concatenate([images, 2 * images], "NHWC".index(axis)))
    if axis != "C":
        return  # a split of rows depends on the image's size
    operations.append(Operation("split", ("both",), ("a", "b"),
                                {"axis": number, "sizes": [in_file, in_file]}))
    first, second = _compute(operations, {"two": np.float32(2)}, images, "a", "b")
    assert first.shape[3] == length
    np.testing.assert_array_equal(first, images)
    np.testing.assert_array_equal(second, 2 * images)


def test_a_bias_that_is_added_afterwards_becomes_the_convolutions():
    images, weight, bias = _noise(), _noise((1, 1, 3, 4), seed=1), _noise((4,), seed=2)
    convolution = Operation("convolution", ("image", "w"), ("sum",), {
        "strides": (1, 1), "dilations": (1, 1), "padding": "VALID", "layout": "NHWC",
        "depthwise": False, "weight_axes": (3, 2, 0, 1)})
    add = Operation("add", ("sum", "b"), ("out",), {})
    operations, constants = [_image(), convolution, add], {"w": weight, "b": bias}
    network = import_graph(operations, constants, ["out"])
    assert [node.op for node in network.graph.nodes] == ["placeholder", "call_module", "output"]
    expected = images @ weight[0, 0]
    result, = _compute(operations, constants, images)
    np.testing.assert_allclose(result, expected + bias, atol=1e-5)
    # Not if something else reads the sum.
    result, before = _compute(operations, constants, images, "out", "sum")
    np.testing.assert_allclose(result, expected + bias, atol=1e-5)
    np.testing.assert_allclose(before, expected, atol=1e-5)


def test_the_batch_axis_may_be_taken_off_and_put_back():
    images = _noise()
    operations = [_image(), Operation("squeeze", ("image",), ("one",), {"axis": 0}),
                  Operation("sub", ("one", "mean"), ("less",), {}),
                  Operation("unsqueeze", ("less",), ("out",), {"axis": 0})]
    mean = np.float32([1, 2, 3])
    result, = _compute(operations, {"mean": mean}, images)
    np.testing.assert_allclose(result, images - mean, atol=1e-6)


def test_gradients_reach_weights_and_image():
    weight = _noise((3, 3, 3, 4), seed=1)
    convolution = Operation("convolution", ("image", "w"), ("out",), {
        "strides": (2, 2), "dilations": (1, 1), "padding": "SAME", "layout": "NHWC",
        "depthwise": False, "weight_axes": (3, 2, 0, 1), "activation": "relu6"})
    network = import_graph([_image(), convolution], {"w": weight}, ["out"])
    images = torch.rand(2, 3, 32, 32, requires_grad=True)
    network(images)[0].sum().backward()
    assert images.grad.abs().sum() > 0 and network.layer0.weight.grad.abs().sum() > 0


_IDENTITY = Operation("identity", ("image",), ("out",), {})
_REFUSED = {
    "is not covered; covered are": [Operation("fft", ("image",), ("out",), {})],
    "no tensor is named 'out'; similar names": [_IDENTITY._replace(outputs=("outs",))],
    "'later' is not computed before": [_IDENTITY._replace(inputs=("later",))],
    "half-pixel centres alone": [Operation("resize", ("image",), ("out",), {
        "scale": (2, 2), "size": None, "half_pixel_centers": False, "align_corners": False})],
    "constant size or factor alone": [Operation("resize", ("image",), ("out",), {
        "scale": None, "size": None, "half_pixel_centers": True, "align_corners": False})],
    "padding of channels": [Operation("pad", ("image",), ("out",), {
        "pairs": ((0, 0), (0, 0), (0, 0), (0, 1)), "value": 0.0})],
    "differs between pixels": [Operation("add", ("image", "map"), ("out",), {})],
    "batch's axis alone": [Operation("squeeze", ("image",), ("out",), {"axis": 3})],
    "second batch axis": [Operation("unsqueeze", ("image",), ("out",), {"axis": 0})],
    "fused activation 'tanh'": [Operation("add", ("image", "one"), ("out",),
                                        {"activation": "tanh"})],
    "is computed, expected a constant": [_IDENTITY._replace(outputs=("x",)), Operation(
        "convolution", ("image", "x"), ("out",), {
            "strides": (1, 1), "dilations": (1, 1), "padding": "SAME", "layout": "NHWC",
            "depthwise": False, "weight_axes": (3, 2, 0, 1)})],
    "expected 'NHWC'": [Operation("transpose", ("image",), ("x",), {"order": (0, 3, 1, 2)}),
                      Operation("max_pool", ("x",), ("out",), {
                          "size": (2, 2), "strides": (2, 2), "padding": "VALID",
                          "layout": "NHWC"})],
    "does not fit its inputs": [Operation("convolution", ("image", "w"), ("out",), {
        "strides": (1, 1), "dilations": (1, 1), "padding": "SAME", "layout": "NHWC",
        "depthwise": False, "weight_axes": (3, 2, 0, 1)})],
    "fit its inputs: 'axis'": [Operation("concat", ("image", "image"), ("out",), {})],
    "a second image": [_image()._replace(outputs=("other",)),
                       Operation("add", ("image", "other"), ("out",), {})],
    "depends on the size of the image": [
        Operation("pad", ("image",), ("x",), {"pairs": ((0, 0), (0, 1), (0, 0), (0, 0)),
                                              "value": 0.0}),
        Operation("max_pool", ("x",), ("out",), {
            "size": (2, 2), "strides": (2, 2), "padding": "SAME", "layout": "NHWC"})],
}


@pytest.mark.parametrize("message", _REFUSED)
def test_what_is_not_covered_is_refused_in_one_line(message):
    constants = {"one": np.float32(1), "map": np.ones((64, 32, 1), np.float32),
                 "w": np.ones((3, 3, 7, 2), np.float32)}
    with pytest.raises(GraphError, match=message) as caught:
        import_graph([_image(), *_REFUSED[message]], constants, ["out"])
    assert len(str(caught.value).splitlines()) == 1


def test_what_the_outputs_do_not_depend_on_is_left_out():
    operations = [_image(), Operation("fft", ("image",), ("strange",), {}), _IDENTITY]
    assert len(_compute(operations, {}, _noise())) == 1
