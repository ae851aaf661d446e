"""Pictures with labels in COCO's layout in one file: those of `ros2_pose label`, or one's own."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from ros2_pose.camera import Camera
from ros2_pose.data.coco import EXPECTED, Coco
from ros2_pose.data.reading import parsing, read_json, require_path
from ros2_pose.data.sample import DataError
from ros2_pose.skeleton import COCO17

LABELS = "labels.json"
_SPLITS = {"train": "train", "validation": "val"}  # in commands: in the file
_VALIDATION = 0.05  # share of the pictures, if the file does not divide them
_SHAPES = {"theta": (24, 4), "betas": (10,), "root": (3,), "joints": (24, 3)}
_REMEDY = "give the folder that ros2_pose label wrote"


class Labelled(Coco):
    """A file of labels, or a folder with `labels.json`.

    Complete: people without keypoints and crowds are `ignored`.

    A picture may have a `camera` (fx, fy, cx, cy px), a person `keypoints_cov` (17 x: xx, xy, yy,
    px^2), theta (24, 4) quat_xyzw, betas (10), root (3) and joints (24, 3) m, in the camera frame.

    The paths of the pictures are relative to the file. A picture's key `split` is "train" or "val";
    without it, one of twenty is for validation, chosen by the picture's path.
    """

    def __init__(self, root: str | Path, split: str = "train") -> None:
        if split not in _SPLITS:
            raise DataError(f"labelled has no split {split!r}, only {', '.join(_SPLITS)}")
        self.file = Path(root) / LABELS if Path(root).is_dir() else Path(root)
        self.folder = self.file.parent
        table = read_json(self.file, _REMEDY)
        with parsing(self.file, EXPECTED):
            images = [image for image in table["images"] if _split_of(image) == _SPLITS[split]]
            chosen = {image["id"] for image in images}
            people = [one for one in table["annotations"] if one["image_id"] in chosen]
            self._index({"images": images, "annotations": people})
            self._cameras = [_camera_of(image) for image in images]
            ordered = sorted(people, key=_place(images))
            self._bodies = {name: _field(ordered, name, shape) for name, shape in _SHAPES.items()
                            if any(name in one for one in ordered)}
            self._cov = _covariances(ordered)
        if not self.names:
            raise DataError(f"{self.file} has no pictures of the split {split}: {_REMEDY}")
        require_path(self.folder / self.names[0], _REMEDY)

    def _camera(self, number: int) -> Camera | None:
        return self._cameras[number]

    def _more(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        more = {name: value[rows].astype(float) for name, value in self._bodies.items()}
        return more | {"keypoint_cov": self._cov[rows].astype(float)}


def _place(images: list[dict]):
    """Key by which people are sorted as their pictures are."""
    place = {image["id"]: number for number, image in enumerate(images)}
    return lambda one: place[one["image_id"]]


def _camera_of(image: dict) -> Camera | None:
    if "camera" not in image:
        return None
    fx, fy, cx, cy = image["camera"]
    return Camera(image["width"], image["height"], fx, fy, cx, cy)


def _field(people: list[dict], name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A field of all people (N, *shape); NaN where it is not labelled."""
    values = np.full((len(people), *shape), np.nan, np.float32)
    for row, one in enumerate(people):
        if name in one:
            values[row] = one[name]
    return values


def _covariances(people: list[dict]) -> np.ndarray:
    """Covariances (N, 17, 2, 2) px^2 of the keypoints; 0 where they are not stated."""
    flat = np.zeros((len(people), len(COCO17), 3), np.float32)
    for row, one in enumerate(people):
        if "keypoints_cov" in one:
            flat[row] = one["keypoints_cov"]
    return flat[..., [0, 1, 1, 2]].reshape(len(people), len(COCO17), 2, 2)


def _split_of(image: dict) -> str:
    """Return "train" or "val"."""
    if "split" in image:
        return image["split"]
    drawn = zlib.crc32(image["file_name"].encode()) / 2**32
    return "val" if drawn < _VALIDATION else "train"
