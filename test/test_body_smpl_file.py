"""SMPL files of users: the official formats are read, everything else is refused."""

import pickle
import sys
import types

import numpy as np
import pytest
import torch
from scipy import sparse

from ros2_pose.body.model import BodyModel
from ros2_pose.body.smpl_file import SmplFileError, read_smpl_file
from ros2_pose.skeleton import COCO17, SMPL24

V = 6890


@pytest.fixture(scope="module")
def arrays():
    """The arrays of an SMPL file with random numbers; its pelvis is not at the origin."""
    rng = np.random.default_rng(0)
    regressor = np.zeros((24, V))
    for joint in range(24):
        regressor[joint, rng.choice(V, 8, replace=False)] = 1 / 8
    weights = np.zeros((V, 24))
    np.put_along_axis(weights, rng.integers(0, 24, (V, 4)), 1.0, 1)
    tree = np.array([SMPL24.parents, range(24)])
    tree[0, 0] = 2**32 - 1
    return {"v_template": rng.normal(0, 0.5, (V, 3)) + [0.1, -0.3, 0.2],
            "shapedirs": rng.normal(0, 0.01, (V, 3, 12)),
            "weights": weights / weights.sum(1, keepdims=True), "J_regressor": regressor,
            "f": rng.integers(0, V, (100, 3)).astype(np.uint32), "kintree_table": tree,
            "posedirs": np.zeros((1, 3, 207))}


@pytest.fixture
def chumpy():
    """A stand-in for chumpy while a pickle is written; it is gone when the file is read."""
    module = types.ModuleType("chumpy.ch")
    module.Ch = type("Ch", (), {"__module__": "chumpy.ch"})
    module.Select = type("Select", (), {"__module__": "chumpy.ch"})
    names = {"chumpy": types.ModuleType("chumpy"), "chumpy.ch": module}
    sys.modules.update(names)
    yield module
    for name in names:
        sys.modules.pop(name, None)


def write(path, data, protocol=2):
    path.write_bytes(pickle.dumps(data, protocol=protocol))
    return path


def test_npz(tmp_path, arrays):
    np.savez(tmp_path / "SMPL_NEUTRAL.npz", **arrays)
    body = read_smpl_file(tmp_path / "SMPL_NEUTRAL.npz")
    np.testing.assert_array_equal(body.template, arrays["v_template"])
    assert body.shapedirs.shape == (V, 3, 10) and body.faces.dtype == np.int64


def test_pickle_with_chumpy_and_sparse_regressor(tmp_path, arrays, chumpy):
    shapedirs, template = chumpy.Ch(), chumpy.Select()
    shapedirs.x = arrays["shapedirs"]
    template.a, template.idxs = chumpy.Ch(), np.arange(V * 3)
    template.a.x, template.preferred_shape = arrays["v_template"], (V, 3)
    data = {**arrays, "shapedirs": shapedirs, "v_template": template,
            "J_regressor": sparse.csc_matrix(arrays["J_regressor"]), "bs_type": "lrotmin"}
    path = write(tmp_path / "SMPL_MALE.pkl", data)
    for name in ("chumpy", "chumpy.ch"):
        sys.modules.pop(name)
    body = read_smpl_file(path)
    assert "chumpy" not in sys.modules
    np.testing.assert_array_equal(body.template, arrays["v_template"])
    np.testing.assert_array_equal(body.shapedirs, arrays["shapedirs"][..., :10])
    np.testing.assert_allclose(body.J_regressor, arrays["J_regressor"])


def test_pickle_written_by_python_2(tmp_path):
    """Bytes of protocol 2 with a latin-1 string, as Python 2 wrote them."""
    array = np.arange(3.0)
    raw = array.tobytes()
    old = (b"\x80\x02}U\x01xcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85"
           b"U\x01b\x87R(K\x01K\x03\x85cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNN"
           b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U" + bytes([len(raw)]) + raw + b"tbs.")
    path = tmp_path / "old.pkl"
    path.write_bytes(old)
    with pytest.raises(SmplFileError, match="no 'v_template' in it, only x"):
        read_smpl_file(path)


def test_sparse_regressor_inside_an_npz(tmp_path, arrays):
    regressor = np.array(sparse.csr_matrix(arrays["J_regressor"]), dtype=object)
    np.savez(tmp_path / "b.npz", **{**arrays, "J_regressor": regressor})
    body = read_smpl_file(tmp_path / "b.npz")
    np.testing.assert_allclose(body.J_regressor, arrays["J_regressor"])


class _Payload:
    def __init__(self, module, name, *args):
        self.call = module, name, args

    def __reduce__(self):
        module, name, args = self.call
        return getattr(__import__(module), name), args


@pytest.mark.parametrize("call", [
    ("os", "system", "touch {}"), ("builtins", "eval", "open('{}','w')"),
    ("builtins", "open", "{}", "w")])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path, arrays, call, protocol):
    mark = tmp_path / "mark"
    payload = _Payload(*call[:2], *(text.format(mark) for text in call[2:]))
    path = write(tmp_path / "bad.pkl", {**arrays, "extra": payload}, protocol)
    with pytest.raises(SmplFileError, match=f"{call[1]}, which is not allowed") as error:
        read_smpl_file(path)
    assert not mark.exists() and "bad.pkl" in str(error.value)


def test_code_in_an_npz_is_refused_and_not_run(tmp_path, arrays):
    mark = tmp_path / "mark"
    bad = np.array(_Payload("os", "system", f"touch {mark}"), dtype=object)
    np.savez(tmp_path / "bad.npz", **{**arrays, "J_regressor": bad})
    with pytest.raises(SmplFileError, match="system, which is not allowed"):
        read_smpl_file(tmp_path / "bad.npz")
    assert not mark.exists()


def _without(arrays, name):
    return {key: value for key, value in arrays.items() if key != name}


@pytest.mark.parametrize("name, change, message", [
    ("v_template", lambda a: _without(a, "v_template"), "no 'v_template' in it"),
    ("v_template", lambda a: {**a, "v_template": a["v_template"][:9]}, r"v_template is \(9, 3\)"),
    ("weights", lambda a: {**a, "weights": a["weights"][:, :23]}, r"weights is \(6890, 23\)"),
    ("shapedirs", lambda a: {**a, "shapedirs": a["shapedirs"][..., :4]}, "shapedirs is"),
    ("v_template", lambda a: {**a, "v_template": a["v_template"] * np.nan}, "not finite"),
    ("kintree_table", lambda a: {**a, "kintree_table": a["kintree_table"][:, ::-1]}, "SMPL's tree"),
    ("f", lambda a: {**a, "f": np.array(["x"])}, "not numbers"),
])
@pytest.mark.parametrize("suffix", ["npz", "pkl"])
def test_wrong_contents_give_a_line_with_a_remedy(tmp_path, arrays, name, change, message, suffix):
    path = tmp_path / f"SMPL.{suffix}"
    data = change(arrays)
    np.savez(path, **data) if suffix == "npz" else write(path, data)
    with pytest.raises(SmplFileError, match=message) as error:
        read_smpl_file(path)
    text = str(error.value)
    assert name in text and str(path) in text and "\n" not in text
    assert any(remedy in text for remedy in ("use an SMPL_", "download the file again"))


@pytest.mark.parametrize("suffix", ["npz", "pkl"])
def test_truncated_file(tmp_path, arrays, suffix):
    path = tmp_path / f"SMPL.{suffix}"
    np.savez(path, **arrays) if suffix == "npz" else write(path, arrays)
    path.write_bytes(path.read_bytes()[:50000])
    with pytest.raises(SmplFileError, match="not a readable .*download it again"):
        read_smpl_file(path)


def test_absent_file(tmp_path):
    with pytest.raises(SmplFileError, match="no such file; set"):
        read_smpl_file(tmp_path / "SMPL_NEUTRAL.pkl")


def test_pickle_that_is_not_a_dict(tmp_path):
    with pytest.raises(SmplFileError, match="holds a list, not a dict"):
        read_smpl_file(write(tmp_path / "x.pkl", [1, 2]))


def test_model_of_a_foreign_file(tmp_path, arrays):
    """The root is the pelvis, though the file's is elsewhere; keypoints are joints and vertices."""
    np.savez(tmp_path / "SMPL.npz", **arrays)
    model = BodyModel.load(tmp_path / "SMPL.npz")
    rng = np.random.default_rng(1)
    theta = torch.nn.functional.normalize(torch.tensor(rng.normal(size=(2, 24, 4))), dim=2)
    root = torch.tensor([[0.0, 0, 3], [1, 1, 4]], dtype=torch.float64)
    out = model(theta, torch.tensor(rng.normal(size=(2, 10))), root)
    np.testing.assert_allclose(out.joints[:, 0], root, atol=1e-6)
    nose, knee = COCO17.index("nose"), COCO17.index("left_knee")
    np.testing.assert_allclose(out.keypoints[:, nose], out.vertices[:, 332], atol=1e-6)
    np.testing.assert_allclose(out.keypoints[:, knee], out.joints[:, SMPL24.index("left_knee")],
                               atol=1e-6)
