"""ros2_pose/People and ros2_pose/SkeletonInfo, filled and read; no ROS here.

A message's pixel coordinates have the centre of the first pixel at 0; `People` has it at 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from ros2_pose.messages.standard import Make, pose_message, vector_message
from ros2_pose.people import TENTATIVE, People
from ros2_pose.skeleton import COCO17, SMPL24

STATUS_OK, STATUS_2D_ONLY, STATUS_PARTIAL = 0, 1, 2
STATUS_BAD_IMAGE, STATUS_FAILED, STATUS_NO_IMAGE = 10, 11, 12
STATUS_NAMES = {value: name.removeprefix("STATUS_").lower() for name, value in vars().items()
                if name.startswith("STATUS_")}

# SMPL's axes are x left, y up, z forward; a ROS body's x forward, y left, z up.
BODY_IN_SMPL = Rotation.from_matrix([[0, 1, 0], [0, 0, 1], [1, 0, 0]])

_UPPER2, _UPPER3 = np.triu_indices(2), np.triu_indices(3)


@dataclass(frozen=True)
class FrameReport:
    """How an image was looked at: what a People message says besides the people."""

    width: int  # px
    height: int  # px
    status: int = STATUS_OK
    text: str = ""
    received: int = 0  # images since the start
    dropped: int = 0  # of these, replaced by a newer one before they were looked at


def status_of(people: People) -> int:
    """STATUS_OK; with a note that says what is missing, STATUS_2D_ONLY or STATUS_PARTIAL."""
    if not people.note:
        return STATUS_OK
    return STATUS_2D_ONLY if people.joints is None else STATUS_PARTIAL


def people_message(make: Make, header, people: People, look: FrameReport):
    """A ros2_pose/People; has_body is false for whoever has no fitted body."""
    return make("ros2_pose/msg/People", header=header, status=look.status, status_text=look.text,
                image_width=look.width, image_height=look.height, frames_received=look.received,
                frames_dropped=look.dropped,
                people=[_person(make, people, i) for i in range(len(people))])


def _person(make: Make, people: People, i: int):
    pixel_cov = people.keypoint_cov[i][(slice(None), *_UPPER2)]
    return make("ros2_pose/msg/Person", id=person_id(people, i),
                tracking_state=tracking_state(people, i),
                age=_number(people.age, i), score=float(people.scores[i]),
                box=_floats(people.boxes[i] - 0.5), keypoints=_floats(people.keypoints[i] - 0.5),
                keypoint_covariance=_floats(pixel_cov),
                keypoint_scores=_floats(people.keypoint_scores[i]),
                has_body=has_body(people, i), **_body_fields(make, people, i))


def _body_fields(make: Make, people: People, i: int) -> dict[str, Any]:
    """A person's fields in the world: NaN or empty where there is no body."""
    known = has_body(people, i)
    joint_cov = people.joint_cov[i][(slice(None), *_UPPER3)] if known else ()
    return {
        "pose": pose_with_covariance(make, people, i),
        "velocity": vector_message(make, _row(people.velocity, i, 3)),
        "velocity_covariance": _floats(_row(people.velocity_cov, i, 9)),
        "joints": _floats(people.joints[i] if known else ()),
        "joint_covariance": _floats(joint_cov),
        "joint_source": np.array(people.joint_source[i] if known else (), np.uint8),
        "theta": _floats(people.theta[i] if known else ()),
        "betas": _floats(people.betas[i] if known else ())}


def pose_with_covariance(make: Make, people: People, i: int):
    """A geometry_msgs/PoseWithCovariance of a person's pelvis, NaN if it is not known."""
    xyz, xyzw = _row(people.root, i, 3), np.full(4, np.nan)
    if has_body(people, i):
        xyzw = body_rotation(people.theta[i, 0]).as_quat()
    else:
        xyz = np.full(3, np.nan)
    return make("geometry_msgs/msg/PoseWithCovariance", pose=pose_message(make, xyz, xyzw),
                covariance=_row(people.root_cov, i, 36))


def person_id(people: People, i: int) -> str:
    """The id; people who are not tracked are numbered from p1."""
    return people.ids[i] if people.ids is not None else f"p{i + 1}"


def tracking_state(people: People, i: int) -> int:
    """TENTATIVE, TRACKED or LOST; TENTATIVE if nobody tracks."""
    return TENTATIVE if people.tracking_state is None else int(people.tracking_state[i])


def has_body(people: People, i: int) -> bool:
    """Whether a body was fitted to a person."""
    parts = (people.theta, people.betas, people.root, people.joints)
    return all(part is not None and bool(np.isfinite(part[i]).all()) for part in parts)


def body_rotation(theta_root: np.ndarray) -> Rotation:
    """Rotation of the body (x forward, y left, z up) of SMPL's root rotation, x, y, z, w."""
    return Rotation.from_quat(theta_root) * BODY_IN_SMPL


def _row(values: np.ndarray | None, i: int, size: int) -> np.ndarray:
    """A person's values (size,), NaN if they are not known."""
    return np.full(size, np.nan) if values is None else np.reshape(values[i], size).astype(float)


def _number(values: np.ndarray | None, i: int) -> float:
    return float("nan") if values is None else float(values[i])


def _floats(values) -> np.ndarray:
    return np.asarray(values, np.float32).reshape(-1)


def people_from_message(message) -> People:
    """The People of a ros2_pose/People: the inverse of `people_message`, to float32."""
    persons = message.people
    arrays = {name: _stacked(persons, *how) for name, how in _ALWAYS.items()}
    arrays["boxes"], arrays["keypoints"] = arrays["boxes"] + 0.5, arrays["keypoints"] + 0.5
    arrays["keypoint_cov"] = _symmetric(arrays["keypoint_cov"], _UPPER2)
    if any(person.has_body for person in persons):
        arrays.update((name, _stacked(persons, *how)) for name, how in _WITH_BODY.items())
        arrays["joint_cov"] = _symmetric(arrays["joint_cov"], _UPPER3)
        arrays["joint_source"] = np.nan_to_num(arrays["joint_source"]).astype(int)
    return People(**arrays, tracking_state=np.array([p.tracking_state for p in persons], int),
                  ids=tuple(p.id for p in persons), note=message.status_text)


def looked(message) -> bool:
    """Return whether a ros2_pose/People is the answer to an image that the node could look at.

    False for STATUS_BAD_IMAGE and all larger values, also those of later versions: their empty list
    does not mean that nobody is there, and their stamp may be 0 or that of an earlier answer.
    """
    return message.status < STATUS_BAD_IMAGE


# name in People: (shape of a person's values, how to get them out of the message)
_ALWAYS = {
    "boxes": ((4,), lambda p: p.box),
    "scores": ((), lambda p: p.score),
    "keypoints": ((17, 2), lambda p: p.keypoints),
    "keypoint_cov": ((17, 3), lambda p: p.keypoint_covariance),
    "keypoint_scores": ((17,), lambda p: p.keypoint_scores),
    "age": ((), lambda p: p.age),
}
_WITH_BODY = {
    "joints": ((24, 3), lambda p: p.joints),
    "joint_cov": ((24, 6), lambda p: p.joint_covariance),
    "joint_source": ((24,), lambda p: p.joint_source),
    "theta": ((24, 4), lambda p: p.theta),
    "betas": ((10,), lambda p: p.betas),
    "root": ((3,), lambda p: _xyz(p.pose.pose.position)),
    "root_cov": ((6, 6), lambda p: p.pose.covariance),
    "velocity": ((3,), lambda p: _xyz(p.velocity)),
    "velocity_cov": ((3, 3), lambda p: p.velocity_covariance),
}


def _stacked(persons, shape: tuple[int, ...], get) -> np.ndarray:
    """(P, *shape); NaN where a person's array is empty."""
    rows = np.full((len(persons), *shape), np.nan)
    for row, person in enumerate(persons):
        values = np.asarray(get(person), float)
        if values.size:
            rows[row] = values.reshape(shape)
    return rows


def _symmetric(upper: np.ndarray, indices) -> np.ndarray:
    """(..., n, n) of the upper triangles (..., n (n + 1) / 2)."""
    n = int(indices[0].max()) + 1
    full = np.empty((*upper.shape[:-1], n, n))
    full[(..., *indices)] = upper
    full[(..., *indices[::-1])] = upper
    return full


def _xyz(vector) -> list[float]:
    return [vector.x, vector.y, vector.z]


def skeleton_info_message(make: Make, header, network: str, body_model: str):
    """A ros2_pose/SkeletonInfo."""
    return make("ros2_pose/msg/SkeletonInfo", header=header, network=network,
                body_model=body_model, keypoint_names=list(COCO17.names),
                keypoint_edges=np.array(COCO17.edges, np.uint8).reshape(-1),
                joint_names=list(SMPL24.names), joint_parents=np.array(SMPL24.parents, np.int8))
