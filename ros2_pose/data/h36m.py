"""Human3.6M (Ionescu et al. 2014) in the layout of Moon et al.'s annotation files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ros2_pose.camera import Camera
from ros2_pose.data.reading import (
    PROJECTED,
    boxes_around,
    coco_keypoints,
    make_sample,
    members_of_split,
    parsing,
    read_frame,
    read_json,
    require_finite,
    require_path,
    smpl_joints,
    theta_in_camera,
)
from ros2_pose.data.sample import DataError, Sample
from ros2_pose.skeleton import H36M17

_SUBJECTS = {"train": (1, 5, 6, 7, 8), "test": (9, 11)}
_FITS = ("SMPL_NeuralAnnot", "smpl_param")
_REMEDY = "take Human3.6M as Moon et al. parse it (3DMPPE_ROOTNET_RELEASE, I2L-MeshNet_RELEASE)"
_KEYS = ("subject", "cam_idx", "action_idx", "subaction_idx", "frame_idx", "width", "height")
# The nose of this set lies in the head: too far from the tip of the nose for a keypoint.
_NOSE = H36M17.index("nose")

_FrameKey = tuple[str, ...]  # action, subaction and frame, as in the files


class Human36M:
    """Human3.6M; one person, alone: complete.

    Files: root/annotations/Human36M_subject<N>_{data,camera,joint_3d}.json, root/images/.
    split: train (subjects 1, 5, 6, 7, 8) or test (9, 11). Keypoints and boxes are projections of
    the 3D joints, which come from motion capture; the cameras of these files have no distortion, a
    few px at the rims. With SMPL fits beside them (..._SMPL_NeuralAnnot.json or
    ..._smpl_param.json) there are theta and neutral betas.
    """

    def __init__(self, root: str | Path, split: str = "train") -> None:
        self.folder = Path(root) / "annotations"
        self.pictures = require_path(Path(root) / "images", _REMEDY)
        self.names: list[str] = []
        self.cameras: dict[int, dict] = {}
        self.joints: dict[int, dict[_FrameKey, np.ndarray]] = {}  # by subject; (17, 3) mm, world
        self.fits: dict[int, dict[_FrameKey, np.ndarray]] = {}  # by subject; (82,) pose, shape
        rows: list[list[int]] = []
        for subject in members_of_split(_SUBJECTS, split, "Human3.6M"):
            table = self._table(subject, "data")
            with parsing(self._file(subject, "data"), f"images with {', '.join(_KEYS)}"):
                self.names += [image["file_name"] for image in table["images"]]
                rows += [[int(image[key]) for key in _KEYS] for image in table["images"]]
            self._read_subject(subject)
        self.rows = np.array(rows, np.int32)  # (N, 7) in the order of _KEYS
        if not rows:
            raise DataError(f"{self.folder} names no pictures of {split}: {_REMEDY}")
        require_path(self.pictures / self.names[0], _REMEDY)

    def _file(self, subject: int, kind: str) -> Path:
        return self.folder / f"Human36M_subject{subject}_{kind}.json"

    def _table(self, subject: int, kind: str) -> Any:
        return read_json(self._file(subject, kind), _REMEDY)

    def _read_subject(self, subject: int) -> None:
        self.cameras[subject] = self._table(subject, "camera")
        with parsing(self._file(subject, "joint_3d"), "17 joints by action, part and frame"):
            self.joints[subject] = _leaves(self._table(subject, "joint_3d"), 2, _joints)
        for kind in _FITS:
            if self._file(subject, kind).exists():
                with parsing(self._file(subject, kind), "fits by action, part and frame"):
                    self.fits[subject] = _leaves(self._table(subject, kind), 2, _fit)
                break

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, number: int) -> Sample:
        name = self.names[number]
        subject, camera_number, *indices, width, height = self.rows[number].tolist()
        key = tuple(map(str, indices))
        camera, rotmat, translation_mm = self._calibration(subject, camera_number, width, height)
        file = self._file(subject, "joint_3d")
        with parsing(file, f"17 joints of {'/'.join(key)}"):
            points = self.joints[subject][key].astype(float).reshape(1, len(H36M17), 3)
        points = (points @ rotmat.T + translation_mm) / 1000
        source = f"{file}, joints of {name}"
        joints = smpl_joints(points, np.ones(points.shape[:2], bool), H36M17, source)
        frame = read_frame(self.pictures / name, camera)
        pixels = camera.project(points)
        scores = np.where(np.isfinite(pixels[..., 0]), PROJECTED, 0)
        scores[:, _NOSE] = 0
        keypoints = coco_keypoints(pixels, scores, H36M17, source)
        return make_sample(frame, boxes_around(pixels), keypoints, complete=True, joints=joints,
                           **self._body(subject, key, rotmat))

    def _calibration(self, subject: int, camera_number: int, width: int,
                     height: int) -> tuple[Camera, np.ndarray, np.ndarray]:
        """The camera, and rotation (3, 3) and translation (3,) mm of camera_from_world."""
        with parsing(self._file(subject, "camera"), f"R, t, f, c of camera {camera_number}"):
            values = self.cameras[subject][str(camera_number)]
            R, t, f, c = (np.array(values[key], float) for key in ("R", "t", "f", "c"))
            K = np.array([[f[0], 0, c[0]], [0, f[1], c[1]], [0, 0, 1]])
            return Camera.from_opencv(width, height, K), R.reshape(3, 3), t.reshape(3)

    def _body(self, subject: int, key: _FrameKey, rotmat: np.ndarray) -> dict[str, np.ndarray]:
        """theta and betas if there is a fit. The root would need SMPL's own rest pose."""
        fit = self.fits.get(subject, {}).get(key)
        if fit is None:
            return {}
        source = f"SMPL fit of subject {subject}, {'/'.join(key)} in {self.folder}"
        one = np.ones((1, 1), bool)
        require_finite(fit[None, None], one, ("pose or shape",), source)
        return {"theta": theta_in_camera(fit[None, :72], one[0], rotmat, source),
                "betas": fit[None, 72:]}


def _leaves(tree: dict, depth: int,
            convert: Callable[[Any], np.ndarray]) -> dict[_FrameKey, np.ndarray]:
    """The converted leaves of nested dicts, by the keys that lead to them."""
    if not depth:
        return {(key,): convert(value) for key, value in tree.items()}
    return {(key, *rest): leaf for key, branch in tree.items()
            for rest, leaf in _leaves(branch, depth - 1, convert).items()}


def _joints(values: list) -> np.ndarray:
    """(17, 3) mm."""
    return np.asarray(values, np.float32)


def _fit(values: dict) -> np.ndarray:
    """(82,) pose and shape."""
    return np.concatenate([np.reshape(values["pose"], 72), np.reshape(values["shape"], 10)])
