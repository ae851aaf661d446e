"""3DPW (von Marcard et al. 2018): SMPL bodies outdoors, before a moving camera."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ros2_pose.data.reading import (
    boxes_around,
    coco_keypoints,
    make_sample,
    members_of_split,
    parsing,
    read_frame,
    require_finite,
    require_path,
    theta_in_camera,
)
from ros2_pose.data.sample import VISIBLE, DataError, Sample
from ros2_pose.safe_pickle import PickleError, read_arrays
from ros2_pose.skeleton import OPENPOSE18, SMPL24

_SPLITS = dict.fromkeys(("train", "validation", "test"), ())
_REMEDY = "download and unpack 3DPW's imageFiles.zip and sequenceFiles.zip"
_NEUTRAL = ("n", "neutral")
_EXPECTED = ("a dict with sequence, poses, poses2d, jointPositions, betas, genders, cam_poses, "
             "campose_valid and cam_intrinsics")


class _Pw3dSequence(NamedTuple):
    """T pictures of P people; the world frame is the dataset's own."""

    file: Path
    name: str
    K: np.ndarray  # (3, 3) pixel centres at 0
    camera_from_world: np.ndarray  # (T, 4, 4) m
    valid: np.ndarray  # (P, T) bool: the camera pose is accurate enough for a person's 3D
    keypoints: np.ndarray  # (P, T, 18, 3) x, y px and confidence, OpenPose's order; 0: not found
    pose: np.ndarray  # (P, T, 72) rotation vectors, rad, world frame
    joints: np.ndarray  # (P, T, 24, 3) m, world frame
    betas: np.ndarray  # (P, 10)


class Pw3d:
    """3DPW; never complete: one or two people are labelled, bystanders are not.

    Files: root/sequenceFiles/<split>/*.pkl and root/imageFiles/<sequence>/image_00000.jpg; split:
    train, validation or test. joints are the dataset's own `jointPositions`, those of the gendered
    body. Its betas belong to the male or female body, where the same numbers are another shape, so
    they are NaN but for a neutral person. Where the camera pose is not valid, a person's 3D is NaN.
    Keypoints are 2D detections that the authors kept; pictures without any truth are left out.
    """

    def __init__(self, root: str | Path, split: str = "train") -> None:
        members_of_split(_SPLITS, split, "3DPW")
        folder = require_path(Path(root) / "sequenceFiles" / split, _REMEDY)
        self.pictures = require_path(Path(root) / "imageFiles", _REMEDY)
        self.sequences = [_read(file) for file in sorted(folder.glob("*.pkl"))]
        self.index = [(number, int(time)) for number, sequence in enumerate(self.sequences)
                      for time in np.flatnonzero(_has_truth(sequence))]
        if not self.index:
            raise DataError(f"{folder} has no sequences with people: {_REMEDY}")
        for sequence in self.sequences:
            require_path(self.pictures / sequence.name, _REMEDY)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, number: int) -> Sample:
        sequence_number, time = self.index[number]
        sequence = self.sequences[sequence_number]
        frame = read_frame(self.pictures / sequence.name / f"image_{time:05d}.jpg", K=sequence.K)
        assert frame.camera is not None
        source = f"{sequence.file}, picture {time}"
        truth = _truth(sequence, time, source)
        detected = sequence.keypoints[:, time].astype(float)
        found = detected[..., 2] > 0
        points = np.where(found[..., None], detected[..., :2] + 0.5, np.nan)
        keypoints = coco_keypoints(points, np.where(found, VISIBLE, 0.0), OPENPOSE18,
                                   source + ", poses2d")
        extent = np.concatenate([points, frame.camera.project(truth["joints"])], 1)
        return make_sample(frame, boxes_around(extent), keypoints, complete=False, **truth)


def _truth(sequence: _Pw3dSequence, time: int, source: str) -> dict[str, np.ndarray]:
    """Everyone's joints, root, theta and betas, camera frame; NaN where not valid."""
    camera_from_world, valid = sequence.camera_from_world[time], sequence.valid[:, time]
    require_finite(camera_from_world[None], np.array([[valid.any()]]), ("cam_poses",) * 4, source)
    rotmat, translation = camera_from_world[:3, :3], camera_from_world[:3, 3]
    joints = sequence.joints[:, time].astype(float)
    require_finite(joints, np.repeat(valid[:, None], len(SMPL24), 1), SMPL24.names,
                   source + ", jointPositions")
    joints = joints @ rotmat.T + translation
    joints[~valid] = np.nan
    theta = theta_in_camera(sequence.pose[:, time].astype(float), valid, rotmat,
                            source + ", poses")
    return {"joints": joints, "root": joints[:, 0].copy(), "theta": theta,
            "betas": np.where(valid[:, None], sequence.betas, np.nan)}


def _has_truth(sequence: _Pw3dSequence) -> np.ndarray:
    """(T,) bool: anyone is known in 2D or in 3D."""
    is_found = (sequence.keypoints[..., 2] > 0).any(2)
    return np.any(sequence.valid | is_found, axis=0)


def _read(file: Path) -> _Pw3dSequence:
    """Read a sequence. Raises DataError if the file is damaged or lacks an entry."""
    try:
        table = read_arrays(file)
    except PickleError as error:
        raise DataError(str(error)) from error
    with parsing(file, _EXPECTED):
        count, times = len(table["poses"]), len(table["cam_poses"])

        def everyone(name: str, *shape: int) -> np.ndarray:
            people = np.array([np.asarray(person, np.float32) for person in table[name]])
            return people.reshape(count, times, *shape)

        neutral = np.array([gender in _NEUTRAL for gender in table["genders"]])
        betas = np.array([np.ravel(betas)[:10] for betas in table["betas"]], float)
        return _Pw3dSequence(
            file=file,
            name=str(table["sequence"]),
            K=np.asarray(table["cam_intrinsics"], float).reshape(3, 3),
            camera_from_world=np.asarray(table["cam_poses"], float).reshape(times, 4, 4),
            valid=everyone("campose_valid").astype(bool),
            keypoints=everyone("poses2d", 3, 18).swapaxes(2, 3),
            pose=everyone("poses", 72),
            joints=everyone("jointPositions", 24, 3),
            betas=np.where(neutral[:, None], betas, np.nan))
