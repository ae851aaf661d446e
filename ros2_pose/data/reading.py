"""Shared by the readers of datasets: checked file access, and annotations as samples.

A dataset's own joints become COCO's keypoints and SMPL's joints where they mean the same position,
to a few centimetres: hips differ most, since COCO's annotators mark them on clothes and motion
capture places them inside the body.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import scipy.io
from scipy.spatial.transform import Rotation

from ros2_pose.body.joint_sets import same_joints
from ros2_pose.camera import Camera, CameraError
from ros2_pose.data.sample import HIDDEN, OUTSIDE, DataError, Sample
from ros2_pose.messages.image import ImageError, rgb_from_bytes
from ros2_pose.people import Frame, People
from ros2_pose.skeleton import COCO17, SMPL24, JointSet, common_joints

PROJECTED = HIDDEN  # score of a keypoint that is projected from 3D: its visibility is not known
_BOX_SCALE = 1.1  # boxes around joints: the body reaches further

T = TypeVar("T")


# ------------------------------------------------------------------------------------- files


def require_path(path: Path, remedy: str) -> Path:
    """Return the path. Raises DataError with the remedy if nothing is there."""
    if not path.exists():
        raise DataError(f"{path} does not exist: {remedy}")
    return path


def members_of_split(splits: dict[str, T], split: str, dataset: str) -> T:
    """Return splits[split]. Raises DataError if the dataset does not have this split."""
    if split not in splits:
        raise DataError(f"{dataset} has no split {split!r}, only {', '.join(splits)}")
    return splits[split]


@contextmanager
def parsing(path: Path, expected: str) -> Iterator[None]:
    """Turn errors of a block that parses a file into a DataError.

    The message names the file, what is missing or wrong in it, and the expected content.
    """
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, CameraError) as error:
        raise DataError(f"{path} is not as published ({error!r}): expected {expected}") from error


def read_json(path: Path, remedy: str) -> Any:
    """Read a JSON file. Raises DataError if it is missing or damaged."""
    try:
        return json.loads(require_path(path, remedy).read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): {remedy}") from error


def read_mat(path: Path, names: tuple[str, ...], remedy: str, squeeze: bool = True) -> list:
    """Read variables of a MATLAB file; structs become objects with attributes.

    Raises:
        DataError: if the file is missing or damaged, or lacks a variable.
    """
    require_path(path, remedy)
    try:
        found = scipy.io.loadmat(path, struct_as_record=False, squeeze_me=squeeze,
                                 variable_names=names)
    except Exception as error:  # scipy's, zlib's and struct's own
        raise DataError(f"{path} cannot be read ({error}): {remedy}") from error
    with parsing(path, f"variables {', '.join(names)}"):
        return [found[name] for name in names]


def read_frame(path: Path, camera: Camera | None = None, K: np.ndarray | None = None) -> Frame:
    """Read a picture and attach its camera.

    Args:
        camera: the calibration, if there is one.
        K (3, 3): camera matrix with pixel centres at 0, instead of a camera where a dataset does
            not state the size of its pictures.
    Raises:
        DataError: if the picture is missing, cut off, or of another size than the camera's.
    """
    try:
        image = rgb_from_bytes(np.fromfile(path, np.uint8), str(path))
    except (ImageError, OSError) as error:
        raise DataError(f"picture {path} cannot be read ({error}): extract it again") from error
    height, width = image.shape[:2]
    if K is not None:
        with parsing(path, "a valid camera matrix"):
            camera = Camera.from_opencv(width, height, K)
    if camera is not None and (camera.width, camera.height) != (width, height):
        raise DataError(f"picture {path} is {width}x{height}, its calibration is for "
                        f"{camera.width}x{camera.height}: use the pictures in their own size")
    return Frame(image, camera)


# ------------------------------------------------------------------------------- annotations


def require_finite(values: np.ndarray, known: np.ndarray, names: Sequence[str],
                   source: str) -> None:
    """Raise DataError if a known value is NaN or infinite.

    Args:
        values (P, K, D). known (P, K): bool.
        names (K,): of the joints or fields, for the message.
        source: file and key, for the message.
    """
    bad = np.argwhere(known & ~np.isfinite(values).all(-1))
    if len(bad):
        person, name = bad[0]
        raise DataError(f"{source}: {names[name]} of person {person} is not a number: take the "
                        "unmodified file, or leave the picture out")


def coco_keypoints(points: np.ndarray, scores: np.ndarray, joint_set: JointSet,
                   source: str) -> np.ndarray:
    """Convert a dataset's labels in the image to COCO's keypoints.

    Args:
        points (P, K, 2): px, pixel centres at +0.5, in the order of joint_set.
        scores (P, K): VISIBLE or HIDDEN; 0 for a point that is not labelled.
        source: file and key, for error messages.
    Returns:
        (P, 17, 3): x, y px and score; NaN where not labelled.
    Raises:
        DataError: if a labelled point is not finite.
    """
    labelled = scores > 0
    require_finite(points, labelled, joint_set.names, source)
    scored_points = np.concatenate([points, scores[..., None]], -1)
    keypoints = np.where(labelled[..., None], scored_points, np.nan)
    return _reordered(keypoints, common_joints(joint_set, COCO17), len(COCO17))


def smpl_joints(points: np.ndarray, known: np.ndarray, joint_set: JointSet,
                source: str) -> np.ndarray:
    """Convert a dataset's 3D joints to SMPL's.

    Other sets' pelvis is not SMPL's: there is no root in the result.

    Args:
        points (P, K, 3): m, in the order of joint_set. known (P, K): bool.
        source: file and key, for error messages.
    Returns:
        (P, 24, 3): m; NaN for joints that are unknown or at another position in SMPL.
    Raises:
        DataError: if a known point is not finite.
    """
    require_finite(points, known, joint_set.names, source)
    joints = np.where(known[..., None], points, np.nan)
    return _reordered(joints, same_joints(joint_set), len(SMPL24))


def _reordered(values: np.ndarray, pairs: tuple[np.ndarray, np.ndarray], count: int) -> np.ndarray:
    """(P, count, D) of values (P, K, D); pairs: columns in values and in the result; else NaN."""
    columns, target_columns = pairs
    out = np.full((len(values), count, values.shape[-1]), np.nan)
    out[:, target_columns] = values[:, columns]
    return out


def theta_in_camera(pose: np.ndarray, known: np.ndarray, camera_from_world: np.ndarray,
                    source: str) -> np.ndarray:
    """Convert SMPL's pose in the world to quaternions with the root in the camera frame.

    Args:
        pose (P, 72): rotation vectors, rad. known (P,): bool.
        camera_from_world (3, 3): rotation.
        source: file and key, for error messages.
    Returns:
        theta (P, 24, 4): quaternions x, y, z, w; NaN for people that are not known.
    """
    rotvecs = pose.reshape(-1, len(SMPL24), 3)
    require_finite(rotvecs, np.repeat(known[:, None], len(SMPL24), 1), SMPL24.names, source)
    theta = np.full((len(pose), len(SMPL24), 4), np.nan)
    for person in np.flatnonzero(known):
        rotations = Rotation.from_rotvec(rotvecs[person])
        theta[person] = rotations.as_quat()
        theta[person, 0] = (Rotation.from_matrix(camera_from_world) * rotations[0]).as_quat()
    return theta


def boxes_around(points: np.ndarray) -> np.ndarray:
    """(P, 4) boxes xyxy px around points (P, K, 2) px, a tenth larger; NaN points do not count."""
    known = np.isfinite(points)
    low = np.where(known, points, np.inf).min(1)
    high = np.where(known, points, -np.inf).max(1)
    with np.errstate(invalid="ignore"):  # a person without points gets a box of NaN
        centre, half_size = (low + high) / 2, (high - low) / 2 * _BOX_SCALE
    return np.concatenate([centre - half_size, centre + half_size], 1)


def make_sample(frame: Frame, boxes: np.ndarray, keypoints: np.ndarray, complete: bool,
                ignored: np.ndarray | None = None, **truth: Any) -> Sample:
    """Make a sample of the people with a box that reaches into the picture.

    Args:
        boxes (P, 4): xyxy px; clipped here.
        keypoints (P, 17, 3): x, y px and score, see `coco_keypoints`.
        complete: see `Sample`.
        ignored (M, 4): xyxy px, see `Sample`; clipped here.
        truth: more of the fields of People.
    """
    size = np.array(frame.image.shape[1::-1])
    boxes = np.clip(boxes, 0, np.tile(size, 2))
    points, scores = keypoints[..., :2], keypoints[..., 2]
    inside = ((points >= 0) & (points <= size)).all(-1)  # False for NaN
    cov = truth.pop("keypoint_cov", np.zeros((*points.shape, 2)))
    people = People(boxes, np.ones(len(boxes)), points, cov,
                    np.where(inside, scores, OUTSIDE), **truth)
    in_picture = (boxes[:, 2:] > boxes[:, :2]).all(1)
    ignored = np.zeros((0, 4)) if ignored is None else np.clip(ignored, 0, np.tile(size, 2))
    return Sample(frame, people[in_picture], ignored, complete)
