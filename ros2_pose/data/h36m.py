"""Human3.6M (Ionescu et al. 2014) in the layout of Moon et al.'s annotation files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ros2_pose.camera import Camera
from ros2_pose.data.reading import (
    PROJECTED,
    boxes_around,
    checked,
    chosen,
    existing,
    on_coco,
    on_smpl,
    read_frame,
    read_json,
    rotations,
    sample_of,
    understood,
)
from ros2_pose.data.sample import DataError, Sample
from ros2_pose.skeleton import H36M17

_SUBJECTS = {"train": (1, 5, 6, 7, 8), "test": (9, 11)}
_FITS = ("SMPL_NeuralAnnot", "smpl_param")
_REMEDY = "take Human3.6M as Moon et al. parse it (3DMPPE_ROOTNET_RELEASE, I2L-MeshNet_RELEASE)"
_KEYS = ("subject", "cam_idx", "action_idx", "subaction_idx", "frame_idx", "width", "height")
# The nose of this set lies in the head: too far from the tip of the nose for a keypoint.
_NO_KEYPOINT = H36M17.index("nose")


class Human36M:
    """Human3.6M: root/annotations/Human36M_subject<N>_{data,camera,joint_3d}.json, root/images/.

    split: train (subjects 1, 5, 6, 7, 8) or test (9, 11). One person, alone: complete. Keypoints
    and boxes are projections of the 3D joints, which come from motion capture; the cameras of
    these files have no distortion, a few px at the rims. With SMPL fits beside them
    (..._SMPL_NeuralAnnot.json or ..._smpl_param.json) there are theta and neutral betas.
    """

    def __init__(self, root: str | Path, split: str = "train") -> None:
        self.folder = Path(root) / "annotations"
        self.pictures = existing(Path(root) / "images", _REMEDY)
        self.names, rows = [], []
        self.cameras, self.joints, self.fits = {}, {}, {}
        for subject in chosen(_SUBJECTS, split, "Human3.6M"):
            table = self._table(subject, "data")
            with understood(self._file(subject, "data"), f"images with {', '.join(_KEYS)}"):
                self.names += [image["file_name"] for image in table["images"]]
                rows += [[int(image[key]) for key in _KEYS] for image in table["images"]]
            self._take_in(subject)
        self.rows = np.array(rows, np.int32)
        if not rows:
            raise DataError(f"{self.folder} names no pictures of {split}: {_REMEDY}")
        existing(self.pictures / self.names[0], _REMEDY)

    def _file(self, subject: int, kind: str) -> Path:
        return self.folder / f"Human36M_subject{subject}_{kind}.json"

    def _table(self, subject: int, kind: str):
        return read_json(self._file(subject, kind), _REMEDY)

    def _take_in(self, subject: int) -> None:
        self.cameras[subject] = self._table(subject, "camera")
        with understood(self._file(subject, "joint_3d"), "17 joints by action, part and frame"):
            self.joints[subject] = _leaves(self._table(subject, "joint_3d"), 2, np.float32)
        for kind in _FITS:
            if self._file(subject, kind).exists():
                with understood(self._file(subject, kind), "fits by action, part and frame"):
                    self.fits[subject] = _leaves(self._table(subject, kind), 2, _fit)
                break

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, number: int) -> Sample:
        name = self.names[number]
        subject, camera_number, *moment, width, height = self.rows[number].tolist()
        moment = tuple(map(str, moment))
        camera, R, t = self._calibration(subject, camera_number, width, height)
        file = self._file(subject, "joint_3d")
        with understood(file, f"17 joints of {'/'.join(moment)}"):
            points = self.joints[subject][moment].astype(float).reshape(1, len(H36M17), 3)
        points, where = (points @ R.T + t) / 1000, f"{file}, joints of {name}"
        joints = on_smpl(points, np.ones(points.shape[:2], bool), H36M17, where)
        frame = read_frame(self.pictures / name, camera)
        pixels = camera.project(points)
        scores = np.where(np.isfinite(pixels[..., 0]), PROJECTED, 0)
        scores[:, _NO_KEYPOINT] = 0
        return sample_of(frame, boxes_around(pixels), on_coco(pixels, scores, H36M17, where),
                         complete=True, joints=joints, **self._body(subject, moment, R))

    def _calibration(self, subject: int, camera_number: int, width: int, height: int):
        """The camera, R (3, 3) and t (3,) mm to it from the world."""
        with understood(self._file(subject, "camera"), f"R, t, f, c of camera {camera_number}"):
            values = self.cameras[subject][str(camera_number)]
            R, t, f, c = (np.array(values[key], float) for key in ("R", "t", "f", "c"))
            camera = Camera.from_opencv(width, height,
                                        [[f[0], 0, c[0]], [0, f[1], c[1]], [0, 0, 1]])
            return camera, R.reshape(3, 3), t.reshape(3)

    def _body(self, subject: int, moment: tuple[str, ...], R: np.ndarray) -> dict:
        """theta and betas, if they were fitted. The root would need SMPL's own rest pose."""
        fit = self.fits.get(subject, {}).get(moment)
        if fit is None:
            return {}
        where = f"SMPL fit of subject {subject}, {'/'.join(moment)} in {self.folder}"
        checked(fit[None, None], np.ones((1, 1), bool), ("pose or shape",), where)
        return {"theta": rotations(fit[None, :72], np.ones(1, bool), R, where),
                "betas": fit[None, 72:]}


def _leaves(tree: dict, depth: int, make) -> dict[tuple[str, ...], np.ndarray]:
    """What hangs in nested dicts, by the keys that lead to it."""
    if not depth:
        return {(key,): make(value) for key, value in tree.items()}
    return {(key, *rest): leaf for key, branch in tree.items()
            for rest, leaf in _leaves(branch, depth - 1, make).items()}


def _fit(values: dict) -> np.ndarray:
    """(82,) pose and shape."""
    return np.concatenate([np.reshape(values["pose"], 72), np.reshape(values["shape"], 10)])
