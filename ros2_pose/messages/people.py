"""Messages ros2_pose/People and ros2_pose/SkeletonInfo; no ROS here.

Pixel coordinates of messages have the centre of the first pixel at 0; `People` has it at 0.5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from ros2_pose.messages.standard import Make, pose_message, vector_message
from ros2_pose.people import People
from ros2_pose.skeleton import COCO17, SMPL24

# The constants of msg/People.msg.
STATUS_OK, STATUS_2D_ONLY, STATUS_PARTIAL = 0, 1, 2
STATUS_BAD_IMAGE, STATUS_FAILED, STATUS_NO_IMAGE = 10, 11, 12
STATUS_NAMES = {STATUS_OK: "ok", STATUS_2D_ONLY: "2d_only", STATUS_PARTIAL: "partial",
                STATUS_BAD_IMAGE: "bad_image", STATUS_FAILED: "failed",
                STATUS_NO_IMAGE: "no_image"}

# Rotation of body axes (x forward, y left, z up) to SMPL's (x left, y up, z forward).
BODY_IN_SMPL = Rotation.from_matrix([[0, 1, 0], [0, 0, 1], [1, 0, 0]])

# Arrays of a Person that are filled and read alike.
# Name in `People`: (name in the message, shape of one person's values there).
_K, _J = len(COCO17), len(SMPL24)
_IMAGE_ARRAYS: dict[str, tuple[str, tuple[int, ...]]] = {
    "boxes": ("box", (4,)),
    "keypoints": ("keypoints", (_K, 2)),
    "keypoint_cov": ("keypoint_covariance", (_K, 3)),
    "keypoint_scores": ("keypoint_scores", (_K,)),
}
_BODY_ARRAYS: dict[str, tuple[str, tuple[int, ...]]] = {
    "joints": ("joints", (_J, 3)),
    "joint_cov": ("joint_covariance", (_J, 6)),
    "joint_source": ("joint_source", (_J,)),
    "joint_velocity": ("joint_velocities", (_J, 3)),
    "joint_velocity_cov": ("joint_velocity_covariance", (_J, 6)),
    "theta": ("theta", (_J, 4)),
    "betas": ("betas", (10,)),
}
_PIXEL_COORDINATES = ("boxes", "keypoints")
_UPPER_TRIANGLES = {"keypoint_cov": np.triu_indices(2), "joint_cov": np.triu_indices(3),
                    "joint_velocity_cov": np.triu_indices(3)}


@dataclass(frozen=True)
class FrameReport:
    """What a People message says about its image besides the people."""

    width: int  # px
    height: int  # px
    status: int = STATUS_OK
    text: str = ""
    received: int = 0  # images since the start
    dropped: int = 0  # of these, replaced by a newer one before they were processed


def status_of(people: People) -> int:
    """Return STATUS_OK or, with a note on what is missing, STATUS_2D_ONLY or STATUS_PARTIAL."""
    if not people.note:
        return STATUS_OK
    return STATUS_PARTIAL if people.is_3d else STATUS_2D_ONLY


# Filling ----------------------------------------------------------------------------------------


def people_message(make: Make, header, people: People, report: FrameReport):
    """Return a ros2_pose/People with the units of its .msg: px, m, rad, s.

    has_body is false for people without a fitted body.
    """
    return make("ros2_pose/msg/People", header=header, status=report.status,
                status_text=report.text, image_width=report.width, image_height=report.height,
                frames_received=report.received, frames_dropped=report.dropped,
                people=[_person(make, people, i) for i in range(len(people))])


def _person(make: Make, people: People, i: int):
    arrays = {field: _encoded(people, name, i) for name, (field, _) in _IMAGE_ARRAYS.items()}
    is_body = has_body(people, i)
    for name, (field, _) in _BODY_ARRAYS.items():
        arrays[field] = _encoded(people, name, i) if is_body else _empty(name)
    velocity_cov = _row(people.velocity_cov, i, 9)
    return make("ros2_pose/msg/Person", id=person_id(people, i),
                tracking_state=people.state_of(i),
                age=float("nan") if people.age is None else float(people.age[i]),
                score=float(people.scores[i]), has_body=is_body,
                pose=pose_with_covariance(make, people, i),
                velocity=vector_message(make, _row(people.velocity, i, 3)),
                velocity_covariance=velocity_cov.astype(np.float32), **arrays)


def _encoded(people: People, name: str, i: int) -> np.ndarray:
    """One person's values (n,) of a field of `People`, as in the message."""
    values = getattr(people, name)
    if values is None:
        return _empty(name)
    values = values[i]
    if name in _PIXEL_COORDINATES:
        values = values - 0.5
    if name in _UPPER_TRIANGLES:
        values = values[(slice(None), *_UPPER_TRIANGLES[name])]
    return np.asarray(values, _empty(name).dtype).reshape(-1)


def _empty(name: str) -> np.ndarray:
    return np.zeros(0, np.uint8 if name == "joint_source" else np.float32)


def pose_with_covariance(make: Make, people: People, i: int):
    """Return a geometry_msgs/PoseWithCovariance of a person's pelvis, m.

    Without a body the rotation is NaN, and the position unless it is known by itself.
    """
    xyz, quat_xyzw = _row(people.root, i, 3), np.full(4, np.nan)
    if has_body(people, i):
        assert people.theta is not None
        quat_xyzw = body_rotation(people.theta[i, 0]).as_quat()
    return make("geometry_msgs/msg/PoseWithCovariance", pose=pose_message(make, xyz, quat_xyzw),
                covariance=_row(people.root_cov, i, 36))


def _row(values: np.ndarray | None, i: int, size: int) -> np.ndarray:
    """One person's values (size,), NaN if they are not known."""
    return np.full(size, np.nan) if values is None else np.reshape(values[i], size).astype(float)


def person_id(people: People, i: int) -> str:
    """Return the id of person i; without tracking, people are numbered from p1."""
    return people.ids[i] if people.ids is not None else f"p{i + 1}"


def has_body(people: People, i: int) -> bool:
    """Return whether a body was fitted to person i."""
    parts = (people.theta, people.betas, people.root, people.joints)
    return all(part is not None and bool(np.isfinite(part[i]).all()) for part in parts)


def has_position(people: People, i: int) -> bool:
    """Return whether the position of person i is known, with or without a body."""
    return people.root is not None and bool(np.isfinite(people.root[i]).all())


def body_rotation(root_quat_xyzw: np.ndarray) -> Rotation:
    """Return the rotation of body axes (x forward, y left, z up) for SMPL's root rotation (4,)."""
    return Rotation.from_quat(root_quat_xyzw) * BODY_IN_SMPL


def skeleton_info_message(make: Make, header, network: str, body_model: str):
    """Return a ros2_pose/SkeletonInfo with names and edges of COCO-17 and SMPL-24."""
    return make("ros2_pose/msg/SkeletonInfo", header=header, network=network,
                body_model=body_model, keypoint_names=list(COCO17.names),
                keypoint_edges=np.array(COCO17.edges, np.uint8).reshape(-1),
                joint_names=list(SMPL24.names), joint_parents=np.array(SMPL24.parents, np.int8))


# Reading ----------------------------------------------------------------------------------------


def looked(message) -> bool:
    """Return whether a ros2_pose/People is the answer to an image that the node could look at.

    False for STATUS_BAD_IMAGE and all larger values, also those of later versions: their empty list
    does not mean an empty room, and their stamp may be 0 or that of an earlier answer.
    """
    return message.status < STATUS_BAD_IMAGE


def people_from_message(message) -> People:
    """Return the `People` of a ros2_pose/People: the inverse of `people_message`, to float32."""
    persons = message.people
    values: dict[str, Any] = {name: _decoded(persons, name, *of_message)
                              for name, of_message in _IMAGE_ARRAYS.items()}
    if any(person.has_body for person in persons):
        for name, of_message in _BODY_ARRAYS.items():
            values[name] = _decoded(persons, name, *of_message)
    if any(math.isfinite(person.pose.pose.position.x) for person in persons):
        values["root"] = _stacked([_xyz(p.pose.pose.position) for p in persons], (3,))
        values["root_cov"] = _stacked([p.pose.covariance for p in persons], (6, 6))
        values["velocity"] = _stacked([_xyz(p.velocity) for p in persons], (3,))
        values["velocity_cov"] = _stacked([p.velocity_covariance for p in persons], (3, 3))
    return People(**values, scores=np.array([p.score for p in persons], float),
                  age=np.array([p.age for p in persons], float),
                  tracking_state=np.array([p.tracking_state for p in persons], int),
                  ids=tuple(p.id for p in persons), note=message.status_text)


def _decoded(persons, name: str, field: str, shape: tuple[int, ...]) -> np.ndarray:
    """Values (P, ...) of a field of `People`; NaN (joint_source: 0) for empty arrays."""
    values = _stacked([getattr(person, field) for person in persons], shape)
    if name in _PIXEL_COORDINATES:
        values = values + 0.5
    if name in _UPPER_TRIANGLES:
        values = _symmetric(values, _UPPER_TRIANGLES[name])
    if name == "joint_source":
        values = np.nan_to_num(values).astype(int)
    return values


def _stacked(arrays: Sequence, shape: tuple[int, ...]) -> np.ndarray:
    """Arrays of P people as (P, *shape); NaN where one is empty."""
    rows = np.full((len(arrays), *shape), np.nan)
    for row, array in enumerate(arrays):
        values = np.asarray(array, float)
        if values.size:
            rows[row] = values.reshape(shape)
    return rows


def _symmetric(upper: np.ndarray, indices: tuple[np.ndarray, ...]) -> np.ndarray:
    """Symmetric matrices (..., n, n) of their upper triangles (..., n (n + 1) / 2)."""
    rows, columns = indices
    n = int(rows.max()) + 1
    full = np.empty((*upper.shape[:-1], n, n))
    full[..., rows, columns] = upper
    full[..., columns, rows] = upper
    return full


def _xyz(vector) -> list[float]:
    return [vector.x, vector.y, vector.z]
