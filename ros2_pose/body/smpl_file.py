"""Readers of body files: the open body's npz, and official SMPL files.

A pickle can run any code. The reader of SMPL files admits numpy arrays, scipy's sparse matrices and
the state of chumpy's objects (chumpy itself is never imported), and refuses every other name.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import sparse

from ros2_pose.errors import PoseError
from ros2_pose.safe_pickle import ArrayUnpickler, PickleError
from ros2_pose.skeleton import COCO17, SMPL24

BETAS = 10
_SMPL_VERTICES = 6890
_SMPL_FACE = {"nose": 332, "left_eye": 2800, "right_eye": 6260, "left_ear": 583, "right_ear": 4071}
_NAMES = {"template": "v_template", "shapedirs": "shapedirs", "weights": "weights",
          "J_regressor": "J_regressor", "faces": "f", "tree": "kintree_table"}
_REMEDY = "use an unmodified SMPL file from smpl.is.tue.mpg.de"


class SmplFileError(PoseError):
    """A body file that cannot be used; the message says why, and the remedy."""


@dataclass(frozen=True)
class BodyArrays:
    """A body's arrays. keypoints = keypoint_regressor @ vertices + keypoint_joints @ joints."""

    template: np.ndarray  # (V, 3) m
    shapedirs: np.ndarray  # (V, 3, 10)
    weights: np.ndarray  # (V, 24) rows sum to 1
    J_regressor: np.ndarray  # (24, V)
    faces: np.ndarray  # (F, 3)
    keypoint_regressor: np.ndarray  # (17, V)
    keypoint_joints: np.ndarray  # (17, 24)
    beta_std: np.ndarray  # (10,) standard deviation among adults
    coarse_faces: np.ndarray  # (F', 3) a coarse surface over some of the vertices; may be empty


def read_open_body(path: str | Path) -> BodyArrays:
    """Read a file written by `ros2_pose.assets.open_body`."""
    with np.load(path, allow_pickle=False) as file:
        data = dict(file)
    count = len(data["v_template"])
    weights = np.zeros((count, len(SMPL24)))
    np.put_along_axis(weights, data["weight_joints"].astype(int), data["weight_values"], 1)
    return BodyArrays(
        template=data["v_template"].astype(np.float64),
        shapedirs=data["shapedirs"].astype(np.float64),
        weights=weights / weights.sum(1, keepdims=True),
        J_regressor=_read_regressor(data, "J_regressor", (len(SMPL24), count)),
        faces=data["faces"].astype(np.int64),
        keypoint_regressor=_read_regressor(data, "keypoint_regressor", (len(COCO17), count)),
        keypoint_joints=np.zeros((len(COCO17), len(SMPL24))),
        beta_std=data["beta_std"].astype(np.float64),
        coarse_faces=data["coarse_faces"].astype(np.int64),
    )


def _read_regressor(data: dict, name: str, shape: tuple[int, int]) -> np.ndarray:
    """A regressor stored as rows, columns and values; each row sums to 1."""
    regressor = np.zeros(shape)
    regressor[data[name + "_rows"], data[name + "_columns"]] = data[name + "_values"]
    return regressor / regressor.sum(1, keepdims=True)


def read_smpl_file(path: str | Path) -> BodyArrays:
    """Read an SMPL_*.npz or .pkl: ten betas, without pose blend shapes.

    COCO's face points are vertices of SMPL's mesh, the other keypoints are SMPL's joints.

    Raises:
        SmplFileError: the file is missing, damaged, or of another body model.
    """
    path = Path(path)
    if not path.is_file():
        raise SmplFileError(f"{path}: no such file; set body_model to your SMPL file, or to "
                            "nothing for the open body")
    data = _read_npz(path) if path.suffix == ".npz" else _read_pickle(path)
    arrays = {ours: _array(data, theirs, path) for ours, theirs in _NAMES.items()}
    count = _check(arrays, path)
    keypoint_regressor = np.zeros((len(COCO17), count))
    for name, vertex in _SMPL_FACE.items():
        keypoint_regressor[COCO17.index(name), vertex] = 1
    keypoint_joints = np.zeros((len(COCO17), len(SMPL24)))
    for name in COCO17.names[5:]:
        keypoint_joints[COCO17.index(name), SMPL24.index(name)] = 1
    return BodyArrays(
        template=arrays["template"],
        shapedirs=arrays["shapedirs"][..., :BETAS],
        weights=arrays["weights"],
        J_regressor=arrays["J_regressor"],
        faces=arrays["faces"].astype(np.int64),
        keypoint_regressor=keypoint_regressor,
        keypoint_joints=keypoint_joints,
        beta_std=np.ones(BETAS),
        coarse_faces=np.zeros((0, 3), np.int64),
    )


def _check(arrays: dict[str, np.ndarray], path: Path) -> int:
    """Raise SmplFileError if arrays are not SMPL's; return the number of vertices."""
    count, joints = _SMPL_VERTICES, len(SMPL24)
    shapes = {"template": (count, 3), "weights": (count, joints), "J_regressor": (joints, count)}
    for ours, theirs in _NAMES.items():
        got, wanted = arrays[ours].shape, shapes.get(ours)
        if wanted is None:
            continue
        if got != wanted:
            raise SmplFileError(f"{path}: {theirs} is {got}, SMPL's is {wanted}; SMPL-H, SMPL-X "
                                "and other meshes are not supported, use an SMPL_*.pkl or .npz")
        if not np.isfinite(arrays[ours]).all():
            raise SmplFileError(f"{path}: {theirs} is not finite; download the file again")
    shapedirs = arrays["shapedirs"]
    if shapedirs.ndim != 3 or shapedirs.shape[:2] != (count, 3) or shapedirs.shape[2] < BETAS:
        raise SmplFileError(f"{path}: shapedirs is {shapedirs.shape}, SMPL's is ({count}, 3, "
                            f"{BETAS} or more); use an SMPL_*.pkl or .npz")
    parents = tuple(int(p) for p in arrays["tree"][0][1:]) if arrays["tree"].ndim == 2 else ()
    if parents != SMPL24.parents[1:]:
        raise SmplFileError(f"{path}: kintree_table is not SMPL's tree; use an SMPL_*.pkl or .npz")
    return count


def _array(data: dict, name: str, path: Path) -> np.ndarray:
    """An array of a file as float64; raises SmplFileError if it is missing or has no numbers."""
    if name not in data:
        raise SmplFileError(f"{path}: no {name!r} in it, only {', '.join(sorted(map(str, data)))}; "
                            "use an SMPL_*.pkl or .npz from smpl.is.tue.mpg.de")
    value = _dense(data[name])
    if value.dtype.kind not in "fiu":
        raise SmplFileError(f"{path}: {name} holds {value.dtype}, not numbers; "
                            "download the file again")
    return value.astype(np.float64)


# ------------------------------------------------------------------------------------ files


def _read_npz(path: Path) -> dict:
    """The needed arrays of an npz; pickled ones (object arrays) pass the same restrictions."""
    try:
        with zipfile.ZipFile(path) as archive:
            return {name: _read_npy(archive, name) for name in _NAMES.values()
                    if name + ".npy" in archive.namelist()}
    except PickleError as error:
        raise SmplFileError(f"{path}: {error}; {_REMEDY}") from None
    except (zipfile.BadZipFile, ValueError, EOFError, OSError) as error:
        raise SmplFileError(f"{path}: not a readable npz ({error}); download it again") from None


def _read_npy(archive: zipfile.ZipFile, name: str):
    """An array of an npz, or the object pickled in its place."""
    with archive.open(name + ".npy") as file:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0,
                       (2, 0): np.lib.format.read_array_header_2_0}[version]
        _, _, dtype = read_header(file)
        if dtype.hasobject:
            return _Unpickler(file, encoding="latin1").load()
    with archive.open(name + ".npy") as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _read_pickle(path: Path) -> dict:
    """The dict of a pickle, with the restrictions of this module."""
    try:
        with open(path, "rb") as file:
            data = _Unpickler(file, encoding="latin1").load()
    except PickleError as error:
        raise SmplFileError(f"{path}: {error}; {_REMEDY}") from None
    except Exception as error:  # a broken pickle can raise anything
        raise SmplFileError(f"{path}: not a readable pickle ({type(error).__name__}: {error}); "
                            "download it again") from None
    if not isinstance(data, dict):
        raise SmplFileError(f"{path}: holds a {type(data).__name__}, not a dict; "
                            "use an SMPL_*.pkl or .npz")
    return data


class _Record:
    """An object of a class that is not loaded: only its state is kept."""

    def __init__(self, *args, **kwargs) -> None:
        self.state: dict = {}

    def __setstate__(self, state) -> None:
        self.state = state if isinstance(state, dict) else {}


class _Sparse(_Record):
    """A scipy.sparse csc or csr matrix."""

    kind = sparse.csc_matrix


class _SparseRows(_Sparse):
    kind = sparse.csr_matrix


def _dense(value) -> np.ndarray:
    """A dense array of an array, a sparse matrix or a chumpy object."""
    if isinstance(value, np.ndarray) and value.dtype.hasobject and value.size == 1:
        value = value.reshape(-1)[0]
    if isinstance(value, _Sparse):
        s = value.state
        shape = s.get("_shape", s.get("shape"))
        return value.kind((s["data"], s["indices"], s["indptr"]), shape=shape).toarray()
    if isinstance(value, _Record):
        return _chumpy(value.state)
    return np.asarray(value)


def _chumpy(state: dict) -> np.ndarray:
    """The array of a chumpy object: x of chumpy.Ch; elements idxs of a of chumpy.Select."""
    if "x" in state:
        return np.asarray(state["x"])
    if "a" in state and "idxs" in state:
        picked = _dense(state["a"]).reshape(-1)[np.asarray(state["idxs"])]
        return picked.reshape(state.get("preferred_shape", picked.shape))
    raise SmplFileError(f"unknown chumpy object with {sorted(state)}; convert the file to npz")


class _Unpickler(ArrayUnpickler):
    def find_class(self, module: str, name: str):
        if (module, name) in _MAKERS:
            return _MAKERS[module, name]
        if module.split(".")[0] == "chumpy":
            return _Record
        if module.startswith("scipy.sparse") and name in ("csc_matrix", "csr_matrix"):
            return _Sparse if name == "csc_matrix" else _SparseRows
        return super().find_class(module, name)


# With these Python 2 and 3 make an object of a class that was admitted.
_RECONSTRUCTOR = object().__reduce__()[0]
_MAKERS = {
    ("copy_reg", "_reconstructor"): _RECONSTRUCTOR,
    ("copyreg", "_reconstructor"): _RECONSTRUCTOR,
    ("__builtin__", "object"): object,
    ("builtins", "object"): object,
}
