"""CMU Panoptic (Joo et al. 2017): several people in a dome of cameras."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ros2_pose.camera import Camera
from ros2_pose.data.reading import (
    PROJECTED,
    boxes_around,
    chosen,
    existing,
    on_coco,
    on_smpl,
    read_frame,
    read_json,
    sample_of,
    understood,
)
from ros2_pose.data.sample import DataError, Sample
from ros2_pose.skeleton import PANOPTIC19

_TEST_CAMERAS = ("00_16", "00_30")  # of the usual protocol; the others are for training
_SPLITS = {"train": (False,), "test": (True,), "all": (False, True)}
_POSES = "hdPose3d_stage1_coco19"
_REMEDY = "fetch hdImgs, hdPose3d_stage1_coco19 and the calibration with panoptic-toolbox"
_LEAST = 0.1  # a joint's confidence below which those who evaluate on this set leave it out too


class _View(NamedTuple):
    """A camera in the dome."""

    camera: Camera
    R: np.ndarray  # (3, 3) to the camera from the world
    t: np.ndarray  # (3,) cm


class Panoptic:
    """CMU Panoptic: root/<sequence>/hdImgs/00_16/00_16_00000000.jpg and so on, for each sequence.

    Beside them lie hdPose3d_stage1_coco19/body3DScene_00000000.json (or in hd/ within) and
    calibration_<sequence>.json. split: test (HD cameras 16 and 30), train (the others) or all; of
    what is on the disk. Everyone in the dome is labelled, so a picture is complete unless nobody
    is: the first people walk in before they are reconstructed. Keypoints and boxes are projections.
    """

    def __init__(self, root: str | Path, split: str = "train") -> None:
        wanted = chosen(_SPLITS, split, "Panoptic")
        existing(Path(root), _REMEDY)
        self.views: dict[tuple[Path, str], _View] = {}
        self.index: list[tuple[Path, str, str]] = []
        for pictures in sorted(Path(root).glob("*/hdImgs")):
            self._take_in(pictures.parent, wanted)
        if not self.index:
            raise DataError(f"{root} has no sequence with pictures of {split} and poses of the "
                            f"same frames: {_REMEDY}")

    def _take_in(self, sequence: Path, wanted: tuple[bool, ...]) -> None:
        """Every picture of a sequence whose people are known."""
        file = sequence / f"calibration_{sequence.name}.json"
        views, poses = _views(file), _poses_folder(sequence)
        frames = {path.stem.removeprefix("body3DScene_") for path in poses.glob("body3DScene_*")}
        for folder in sorted((sequence / "hdImgs").iterdir()):
            if not folder.is_dir() or (folder.name in _TEST_CAMERAS) not in wanted:
                continue
            with understood(file, f"camera {folder.name}"):
                self.views[sequence, folder.name] = views[folder.name]
            found = {path.stem.removeprefix(f"{folder.name}_") for path in folder.glob("*.jpg")}
            self.index += [(sequence, folder.name, frame) for frame in sorted(found & frames)]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, number: int) -> Sample:
        sequence, camera, frame = self.index[number]
        view = self.views[sequence, camera]
        file = _poses_folder(sequence) / f"body3DScene_{frame}.json"
        points, known = _bodies(file)
        points = (points @ view.R.T + view.t) / 100
        where = f"{file}, joints19"
        joints = on_smpl(points, known, PANOPTIC19, where)
        pixels = view.camera.project(np.where(known[..., None], points, np.nan))
        marks = on_coco(pixels, np.where(np.isfinite(pixels[..., 0]), PROJECTED, 0), PANOPTIC19,
                        where)
        picture = sequence / "hdImgs" / camera / f"{camera}_{frame}.jpg"
        return sample_of(read_frame(picture, view.camera), boxes_around(pixels), marks,
                         complete=len(points) > 0, joints=joints)


def _poses_folder(sequence: Path) -> Path:
    folder = existing(sequence / _POSES, _REMEDY)
    return folder / "hd" if (folder / "hd").exists() else folder


def _views(file: Path) -> dict[str, _View]:
    """HD cameras by name. Their distortion is OpenCV's: k1, k2, p1, p2, k3."""
    table = read_json(file, _REMEDY)
    with understood(file, "cameras with name, type, resolution, K, distCoef, R and t"):
        return {camera["name"]: _View(
            Camera.from_opencv(*camera["resolution"], camera["K"], camera["distCoef"]),
            np.array(camera["R"], float).reshape(3, 3), np.array(camera["t"], float).reshape(3))
            for camera in table["cameras"] if camera["type"] == "hd"}


def _bodies(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """(P, 19, 3) cm in the dome, and (P, 19) which of them are known."""
    table = read_json(file, _REMEDY)
    with understood(file, "bodies with joints19 of 19 x 4 numbers"):
        bodies = np.array([body["joints19"] for body in table["bodies"]], float)
        bodies = bodies.reshape(-1, len(PANOPTIC19), 4)
    return bodies[..., :3], ~(bodies[..., 3] <= _LEAST)
