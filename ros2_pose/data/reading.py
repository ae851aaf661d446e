"""What the readers of datasets share: files that may be damaged, annotations that become samples.

A dataset's own joints become COCO's keypoints and SMPL's joints where they mean the same place, to
a few centimetres: hips differ most, since COCO's annotators mark them on clothes and motion capture
places them inside the body.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import scipy.io
from scipy.spatial.transform import Rotation

from ros2_pose.body.joint_sets import same_joints
from ros2_pose.camera import Camera, CameraError
from ros2_pose.data.sample import HIDDEN, OUTSIDE, DataError, Sample
from ros2_pose.messages.image import ImageError, rgb_from_bytes
from ros2_pose.people import Frame, People
from ros2_pose.skeleton import COCO17, SMPL24, JointSet, common_joints

PROJECTED = HIDDEN  # score of a keypoint that follows from 3D: nobody looked whether it is seen
_ENLARGED = 1.1  # boxes around joints: the body reaches further


# ------------------------------------------------------------------------------------- files


def existing(path: Path, remedy: str) -> Path:
    """The path itself. Raises DataError if nothing is there."""
    if not path.exists():
        raise DataError(f"{path} does not exist: {remedy}")
    return path


def chosen(splits: dict[str, tuple], split: str, dataset: str) -> tuple:
    """What belongs to a split. Raises DataError for one that the dataset does not have."""
    if split not in splits:
        raise DataError(f"{dataset} has no split {split!r}, only {', '.join(splits)}")
    return splits[split]


@contextmanager
def understood(path: Path, expected: str):
    """What a file lacks becomes a DataError that names it, the key, and what was expected."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, CameraError) as error:
        raise DataError(f"{path} is not as published ({error!r}): expected {expected}") from error


def read_json(path: Path, remedy: str):
    """A JSON file. Raises DataError if it is missing or damaged."""
    try:
        return json.loads(existing(path, remedy).read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): {remedy}") from error


def read_mat(path: Path, names: tuple[str, ...], remedy: str, squeeze: bool = True) -> list:
    """Variables of a MATLAB file; structs have attributes. Raises DataError."""
    existing(path, remedy)
    try:
        found = scipy.io.loadmat(path, struct_as_record=False, squeeze_me=squeeze,
                                 variable_names=names)
    except Exception as error:  # scipy's, zlib's and struct's own
        raise DataError(f"{path} cannot be read ({error}): {remedy}") from error
    with understood(path, f"variables {', '.join(names)}"):
        return [found[name] for name in names]


def read_frame(path: Path, camera: Camera | None = None, K: np.ndarray | None = None) -> Frame:
    """A picture and its camera. Raises DataError if it is missing, cut off or of another size.

    K: (3, 3), pixel centres at 0, instead of a camera where a dataset does not tell its size.
    """
    try:
        image = rgb_from_bytes(np.fromfile(path, np.uint8), str(path))
    except (ImageError, OSError) as error:
        raise DataError(f"picture {path} cannot be read ({error}): extract it again") from error
    height, width = image.shape[:2]
    if K is not None:
        with understood(path, "a camera matrix that can be one"):
            camera = Camera.from_opencv(width, height, K)
    if camera is not None and (camera.width, camera.height) != (width, height):
        raise DataError(f"picture {path} is {width}x{height}, its calibration is for "
                        f"{camera.width}x{camera.height}: use the pictures in their own size")
    return Frame(image, camera)


# ------------------------------------------------------------------------------- annotations


def checked(values: np.ndarray, known: np.ndarray, names: tuple[str, ...], where) -> np.ndarray:
    """values (P, K, D) themselves. Raises DataError if one that is known (P, K) is no number."""
    bad = np.argwhere(known & ~np.isfinite(values).all(-1))
    if len(bad):
        person, name = bad[0]
        raise DataError(f"{where}: {names[name]} of person {person} is not a number: take the "
                        "unmodified file, or leave the picture out")
    return values


def on_coco(points: np.ndarray, scores: np.ndarray, joint_set: JointSet, where) -> np.ndarray:
    """(P, 17, 3) x, y px and score, NaN if not labelled, of a set's points (P, K, 2) px.

    scores (P, K): VISIBLE or HIDDEN, 0 for a point that is not labelled. where: file and key.
    """
    labelled = scores > 0
    checked(points, labelled, joint_set.names, where)
    marks = np.where(labelled[..., None], np.concatenate([points, scores[..., None]], -1), np.nan)
    return _placed(marks, common_joints(joint_set, COCO17), len(COCO17))


def on_smpl(points: np.ndarray, known: np.ndarray, joint_set: JointSet, where) -> np.ndarray:
    """(P, 24, 3) joints of a set's points (P, K, 3) m, NaN where SMPL has a place of its own.

    known (P, K). Other sets' pelvis is not SMPL's, so there is no root either.
    """
    checked(points, known, joint_set.names, where)
    return _placed(np.where(known[..., None], points, np.nan), same_joints(joint_set), len(SMPL24))


def _placed(values: np.ndarray, pairs: tuple[np.ndarray, np.ndarray], count: int) -> np.ndarray:
    here, there = pairs
    out = np.full((len(values), count, values.shape[-1]), np.nan)
    out[:, there] = values[:, here]
    return out


def rotations(pose: np.ndarray, known: np.ndarray, to_camera: np.ndarray, where) -> np.ndarray:
    """theta (P, 24, 4), camera frame, of SMPL's rotation vectors (P, 72) in the world.

    known (P,): NaN for who is not. to_camera: (3, 3) from the world.
    """
    vectors = pose.reshape(-1, len(SMPL24), 3)
    checked(vectors, np.repeat(known[:, None], len(SMPL24), 1), SMPL24.names, where)
    theta = np.full((len(pose), len(SMPL24), 4), np.nan)
    for person in np.flatnonzero(known):
        joint_rotations = Rotation.from_rotvec(vectors[person])
        theta[person] = joint_rotations.as_quat()
        theta[person, 0] = (Rotation.from_matrix(to_camera) * joint_rotations[0]).as_quat()
    return theta


def boxes_around(points: np.ndarray) -> np.ndarray:
    """(P, 4) boxes around points (P, K, 2) px, a tenth larger; NaN points do not count."""
    known = np.isfinite(points)
    low = np.where(known, points, np.inf).min(1)
    high = np.where(known, points, -np.inf).max(1)
    with np.errstate(invalid="ignore"):  # nobody's box is NaN
        middle, half = (low + high) / 2, (high - low) / 2 * _ENLARGED
    return np.concatenate([middle - half, middle + half], 1)


def sample_of(frame: Frame, boxes: np.ndarray, marks: np.ndarray, complete: bool,
              ignored: np.ndarray | None = None, **truth: np.ndarray) -> Sample:
    """A sample of the people whose box reaches into the picture.

    boxes (P, 4) px, clipped here. marks (P, 17, 3) of `on_coco`. truth: more of People's fields.
    """
    size = np.array(frame.image.shape[1::-1])
    boxes = np.clip(boxes, 0, np.tile(size, 2))
    keypoints = marks[..., :2]
    inside = ((keypoints >= 0) & (keypoints <= size)).all(-1)  # not so if NaN
    people = People(boxes, np.ones(len(boxes)), keypoints, np.zeros((*keypoints.shape, 2)),
                    np.where(inside, marks[..., 2], OUTSIDE), **truth)
    ignored = np.zeros((0, 4)) if ignored is None else np.clip(ignored, 0, np.tile(size, 2))
    return Sample(frame, people[(boxes[:, 2:] > boxes[:, :2]).all(1)], ignored, complete)
