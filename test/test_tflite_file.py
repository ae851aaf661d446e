"""The reader of TensorFlow Lite files: the tflite package as the oracle, damaged files."""

from __future__ import annotations

import numpy as np
import pytest

from ros2_pose.networks.graph import GraphError
from ros2_pose.networks.movenet import _HEADS
from ros2_pose.networks.tflite import load_tflite
from ros2_pose.networks.tflite_file import read_tflite
from ros2_pose.weights import fetch


@pytest.fixture(scope="module")
def movenet():
    return read_tflite(fetch("movenet_multipose.tflite"))


@pytest.fixture(scope="module")
def oracle():
    tflite = pytest.importorskip("tflite", reason="only where requirements-test.txt is installed")
    data = fetch("movenet_multipose.tflite").read_bytes()
    return tflite, tflite.Model.GetRootAsModel(data, 0)


def test_every_tensor_is_as_the_tflite_package_reads_it(movenet, oracle):
    tflite, model = oracle
    dtypes = {tflite.TensorType.FLOAT32: np.float32, tflite.TensorType.FLOAT16: np.float16,
              tflite.TensorType.INT32: np.int32}
    graph = model.Subgraphs(0)
    tensors, _, inputs = movenet
    assert inputs == list(graph.InputsAsNumpy())
    assert len(tensors) == graph.TensorsLength() > 500
    constants = 0
    for number, (name, value) in enumerate(tensors):
        theirs = graph.Tensors(number)
        shape = list(theirs.ShapeAsNumpy()) if theirs.ShapeLength() else []
        assert name == theirs.Name().decode()
        buffer = model.Buffers(theirs.Buffer())
        if not buffer.DataLength() or theirs.Type() not in dtypes:
            assert value is None
            continue
        constants += 1
        expected = np.frombuffer(buffer.DataAsNumpy().tobytes(), dtypes[theirs.Type()])
        assert value.dtype == expected.dtype
        np.testing.assert_array_equal(value, expected.reshape(shape))
    assert constants > 160


def test_every_operator_is_as_the_tflite_package_reads_it(movenet, oracle):
    tflite, model = oracle
    names = {value: name for name, value in vars(tflite.BuiltinOperator).items()
             if isinstance(value, int)}
    graph = model.Subgraphs(0)
    _, operators, _ = movenet
    assert len(operators) == graph.OperatorsLength() > 300
    kinds = set()
    for number, ours in enumerate(operators):
        theirs = graph.Operators(number)
        code = model.OperatorCodes(theirs.OpcodeIndex())
        value = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        assert ours.kind in (names[value], f"number {value}")
        assert ours.inputs == list(theirs.InputsAsNumpy())
        assert ours.outputs == list(theirs.OutputsAsNumpy())
        assert (ours.options is None) == (theirs.BuiltinOptions() is None)
        for read, expected in _options(tflite, ours, theirs):
            kinds.add(ours.kind)
            assert read == expected, ours.kind
    assert {"CONV_2D", "DEPTHWISE_CONV_2D", "RESIZE_BILINEAR", "ADD", "SUB", "MUL"} <= kinds


_CONVOLUTION = {"Padding": 0, "StrideW": 1, "StrideH": 2, "FusedActivationFunction": 3,
                "DilationWFactor": 4, "DilationHFactor": 5}
_DEPTHWISE = {"Padding": 0, "StrideW": 1, "StrideH": 2, "DepthMultiplier": 3,
              "FusedActivationFunction": 4, "DilationWFactor": 5, "DilationHFactor": 6}
_FIELDS = {"CONV_2D": ("Conv2DOptions", _CONVOLUTION),
           "DEPTHWISE_CONV_2D": ("DepthwiseConv2DOptions", _DEPTHWISE),
           "RESIZE_BILINEAR": ("ResizeBilinearOptions", {"AlignCorners": 2, "HalfPixelCenters": 3}),
           **{kind.upper(): (f"{kind}Options", {"FusedActivationFunction": 0})
              for kind in ("Add", "Sub", "Mul", "Div")}}


def _options(tflite, ours, theirs):
    """Pairs of what we and the tflite package read for each option that the importer uses."""
    name, fields = _FIELDS.get(ours.kind, ("", {}))
    for field, number in fields.items():
        table = theirs.BuiltinOptions()
        options = getattr(tflite, name)()
        options.Init(table.Bytes, table.Pos)
        kind = "i" if field.startswith(("Stride", "Dilation", "Depth")) else "b"
        default = 1 if field.startswith("Dilation") else 0
        yield ours.options.number(number, kind, default), getattr(options, field)()


@pytest.mark.parametrize("share", [0.0, 1e-6, 1e-4, 0.01, 0.5, 0.99, 0.9999])
def test_a_file_that_is_cut_off_is_refused(tmp_path, share):
    whole = fetch("movenet_multipose.tflite").read_bytes()
    path = tmp_path / "cut.tflite"
    path.write_bytes(whole[:8 + int(share * len(whole))])
    with pytest.raises(GraphError, match="cut.tflite is damaged"):
        read_tflite(path)


def test_a_file_with_wrong_bytes_is_read_or_refused_in_one_line(tmp_path):
    rng = np.random.default_rng(0)
    whole = fetch("movenet_multipose.tflite").read_bytes()
    path, refused = tmp_path / "wrong.tflite", 0
    places = np.r_[rng.integers(8, 4000, 60), len(whole) - rng.integers(4, 150_000, 60)]
    for place in places:
        wrong = bytearray(whole)
        wrong[place:place + 4] = rng.bytes(4)
        path.write_bytes(wrong)
        try:
            read_tflite(path)
        except GraphError as error:
            refused += 1
            assert len(str(error).splitlines()) == 1
    assert refused > 5


def test_a_graph_of_wrong_bytes_is_imported_or_refused_in_one_line(tmp_path):
    rng = np.random.default_rng(0)
    whole = fetch("movenet_multipose.tflite").read_bytes()
    path, refused = tmp_path / "wrong.tflite", 0
    for place in len(whole) - rng.integers(4, 100_000, 30):  # operators are at the end
        wrong = bytearray(whole)
        wrong[place:place + 2] = rng.bytes(2)
        path.write_bytes(wrong)
        try:
            load_tflite(path, _HEADS)
        except GraphError as error:
            refused += 1
            assert len(str(error).splitlines()) == 1
    assert refused > 3


def test_another_kind_of_file_is_named(tmp_path):
    path = tmp_path / "net.tflite"
    path.write_bytes(b"PK\3\4 not a network")
    with pytest.raises(GraphError, match="net.tflite is not a TensorFlow Lite file"):
        read_tflite(path)
