"""3DPW (von Marcard et al. 2018): SMPL bodies outdoors, before a moving camera."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ros2_pose.data.reading import (
    boxes_around,
    checked,
    chosen,
    existing,
    on_coco,
    read_frame,
    rotations,
    sample_of,
    understood,
)
from ros2_pose.data.sample import VISIBLE, DataError, Sample
from ros2_pose.safe_pickle import PickleError, read_arrays
from ros2_pose.skeleton import OPENPOSE18, SMPL24

_REMEDY = "download and unpack 3DPW's imageFiles.zip and sequenceFiles.zip"
_NEUTRAL = ("n", "neutral")
_EXPECTED = ("a dict with sequence, poses, poses2d, jointPositions, betas, genders, cam_poses, "
             "campose_valid and cam_intrinsics")


class _Pw3dSequence(NamedTuple):
    """T pictures of P people; the world is the dataset's own."""

    file: Path
    name: str
    K: np.ndarray  # (3, 3) pixel centres at 0
    to_camera: np.ndarray  # (T, 4, 4) from the world, m
    valid: np.ndarray  # (P, T) bool: the camera's place is good enough for a person's 3D
    marks: np.ndarray  # (P, T, 18, 3) x, y px and confidence, OpenPose's order; 0: not found
    pose: np.ndarray  # (P, T, 72) rotation vectors
    joints: np.ndarray  # (P, T, 24, 3) m
    betas: np.ndarray  # (P, 10)


class Pw3d:
    """3DPW: root/sequenceFiles/<split>/*.pkl and root/imageFiles/<sequence>/image_00000.jpg.

    split: train, validation or test. One or two people are labelled, bystanders are not: never
    complete. joints are the dataset's own `jointPositions`, those of the gendered body. Its betas
    belong to the male or female body, where the same numbers are another shape, so they are NaN
    but for a neutral person. Where the camera's place is not valid, a person's 3D is NaN.
    Keypoints are 2D detections that the authors kept; pictures without any truth are left out.
    """

    def __init__(self, root: str | Path, split: str = "train") -> None:
        chosen(dict.fromkeys(("train", "validation", "test"), ()), split, "3DPW")
        folder = existing(Path(root) / "sequenceFiles" / split, _REMEDY)
        self.pictures = existing(Path(root) / "imageFiles", _REMEDY)
        self.sequences = [_read(file) for file in sorted(folder.glob("*.pkl"))]
        self.index = [(number, int(time)) for number, sequence in enumerate(self.sequences)
                      for time in np.flatnonzero(_has_truth(sequence))]
        if not self.index:
            raise DataError(f"{folder} has no sequences with people: {_REMEDY}")
        for sequence in self.sequences:
            existing(self.pictures / sequence.name, _REMEDY)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, number: int) -> Sample:
        sequence, time = self.sequences[self.index[number][0]], self.index[number][1]
        frame = read_frame(self.pictures / sequence.name / f"image_{time:05d}.jpg", K=sequence.K)
        where = f"{sequence.file}, picture {time}"
        truth = _truth(sequence, time, where)
        marks = sequence.marks[:, time].astype(float)
        found = marks[..., 2] > 0
        points = np.where(found[..., None], marks[..., :2] + 0.5, np.nan)
        placed = on_coco(points, np.where(found, VISIBLE, 0.0), OPENPOSE18, where + ", poses2d")
        extent = np.concatenate([points, frame.camera.project(truth["joints"])], 1)
        return sample_of(frame, boxes_around(extent), placed, complete=False, **truth)


def _truth(sequence: _Pw3dSequence, time: int, where: str) -> dict[str, np.ndarray]:
    """What is known of everyone in 3D, camera frame."""
    to_camera, valid = sequence.to_camera[time].astype(float), sequence.valid[:, time]
    checked(to_camera[None], valid.any()[None, None], ("cam_poses",) * 4, where)
    joints = sequence.joints[:, time].astype(float)
    checked(joints, np.repeat(valid[:, None], len(SMPL24), 1), SMPL24.names,
            where + ", jointPositions")
    joints = joints @ to_camera[:3, :3].T + to_camera[:3, 3]
    joints[~valid] = np.nan
    theta = rotations(sequence.pose[:, time].astype(float), valid, to_camera[:3, :3],
                      where + ", poses")
    return {"joints": joints, "root": joints[:, 0].copy(), "theta": theta,
            "betas": np.where(valid[:, None], sequence.betas, np.nan)}


def _has_truth(sequence: _Pw3dSequence) -> np.ndarray:
    """(T,) whether anyone is known in 2D or in 3D."""
    return (sequence.valid | (sequence.marks[..., 2] > 0).any(2)).any(0)


def _read(file: Path) -> _Pw3dSequence:
    try:
        table = read_arrays(file)
    except PickleError as error:
        raise DataError(str(error)) from error
    with understood(file, _EXPECTED):
        count, times = len(table["poses"]), len(table["cam_poses"])

        def everyone(name: str, *shape: int) -> np.ndarray:
            return np.array([np.float32(p) for p in table[name]]).reshape(count, times, *shape)

        neutral = np.array([gender in _NEUTRAL for gender in table["genders"]])
        betas = np.array([np.ravel(betas)[:10] for betas in table["betas"]], float)
        return _Pw3dSequence(
            file, str(table["sequence"]), np.float64(table["cam_intrinsics"]).reshape(3, 3),
            np.float64(table["cam_poses"]).reshape(times, 4, 4),
            everyone("campose_valid").astype(bool),
            everyone("poses2d", 3, 18).swapaxes(2, 3), everyone("poses", 72),
            everyone("jointPositions", 24, 3), np.where(neutral[:, None], betas, np.nan))
