"""CMU Panoptic (Joo et al. 2017): several people in a dome of cameras."""

from __future__ import annotations

from pathlib import Path

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
    require_path,
    smpl_joints,
)
from ros2_pose.data.sample import DataError, Sample
from ros2_pose.skeleton import PANOPTIC19

_TEST_CAMERAS = ("00_16", "00_30")  # of the usual protocol; the others are for training
_SPLITS = {"train": (False,), "test": (True,), "all": (False, True)}  # is a test camera
_POSES = "hdPose3d_stage1_coco19"
_REMEDY = "fetch hdImgs, hdPose3d_stage1_coco19 and the calibration with panoptic-toolbox"
_MIN_CONFIDENCE = 0.1  # of a joint, as in evaluations on this set

# A camera, and rotation (3, 3) and translation (3,) cm of camera_from_world.
_View = tuple[Camera, np.ndarray, np.ndarray]


class Panoptic:
    """CMU Panoptic; complete, but for pictures without labelled people.

    Files: root/<sequence>/hdImgs/00_16/00_16_00000000.jpg and so on, for each sequence; beside them
    hdPose3d_stage1_coco19/body3DScene_00000000.json (or in hd/ within) and
    calibration_<sequence>.json.
    split: test (HD cameras 16 and 30), train (the others) or all, of the files that are there.
    Everyone in the dome is labelled, but the first people walk in before they are reconstructed: a
    picture without labelled people is not complete. Keypoints and boxes are projections.
    """

    def __init__(self, root: str | Path, split: str = "train") -> None:
        wanted = members_of_split(_SPLITS, split, "Panoptic")
        require_path(Path(root), _REMEDY)
        self.views: dict[tuple[Path, str], _View] = {}  # by sequence and camera
        self.index: list[tuple[Path, str, str]] = []  # sequence, camera, frame
        for pictures in sorted(Path(root).glob("*/hdImgs")):
            self._read_sequence(pictures.parent, wanted)
        if not self.index:
            raise DataError(f"{root} has no sequence with pictures of {split} and poses of the "
                            f"same frames: {_REMEDY}")

    def _read_sequence(self, sequence: Path, wanted: tuple[bool, ...]) -> None:
        """Add every picture of a sequence for which there are poses."""
        file = sequence / f"calibration_{sequence.name}.json"
        views, poses = _views(file), _poses_folder(sequence)
        frames = {path.stem.removeprefix("body3DScene_") for path in poses.glob("body3DScene_*")}
        for folder in sorted((sequence / "hdImgs").iterdir()):
            if not folder.is_dir() or (folder.name in _TEST_CAMERAS) not in wanted:
                continue
            with parsing(file, f"camera {folder.name}"):
                self.views[sequence, folder.name] = views[folder.name]
            found = {path.stem.removeprefix(f"{folder.name}_") for path in folder.glob("*.jpg")}
            self.index += [(sequence, folder.name, frame) for frame in sorted(found & frames)]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, number: int) -> Sample:
        sequence, camera_name, frame = self.index[number]
        camera, rotmat, translation_cm = self.views[sequence, camera_name]
        file = _poses_folder(sequence) / f"body3DScene_{frame}.json"
        source = f"{file}, joints19"
        points, known = _bodies(file)
        points = (points @ rotmat.T + translation_cm) / 100
        joints = smpl_joints(points, known, PANOPTIC19, source)
        pixels = camera.project(np.where(known[..., None], points, np.nan))
        scores = np.where(np.isfinite(pixels[..., 0]), PROJECTED, 0)
        keypoints = coco_keypoints(pixels, scores, PANOPTIC19, source)
        picture = sequence / "hdImgs" / camera_name / f"{camera_name}_{frame}.jpg"
        return make_sample(read_frame(picture, camera), boxes_around(pixels), keypoints,
                           complete=len(points) > 0, joints=joints)


def _poses_folder(sequence: Path) -> Path:
    folder = require_path(sequence / _POSES, _REMEDY)
    return folder / "hd" if (folder / "hd").exists() else folder


def _views(file: Path) -> dict[str, _View]:
    """HD cameras by name. Their distortion is OpenCV's: k1, k2, p1, p2, k3."""
    table = read_json(file, _REMEDY)
    views = {}
    with parsing(file, "cameras with name, type, resolution, K, distCoef, R and t"):
        for values in table["cameras"]:
            if values["type"] == "hd":
                width, height = values["resolution"]
                camera = Camera.from_opencv(width, height, values["K"], values["distCoef"])
                views[values["name"]] = (camera, np.array(values["R"], float).reshape(3, 3),
                                         np.array(values["t"], float).reshape(3))
    return views


def _bodies(file: Path) -> tuple[np.ndarray, np.ndarray]:
    """Joints (P, 19, 3) cm in the dome's frame, and (P, 19) bool: which of them are known."""
    table = read_json(file, _REMEDY)
    with parsing(file, "bodies with joints19 of 19 x 4 numbers"):
        bodies = np.array([body["joints19"] for body in table["bodies"]], float)
        bodies = bodies.reshape(-1, len(PANOPTIC19), 4)
    return bodies[..., :3], ~(bodies[..., 3] <= _MIN_CONFIDENCE)
