"""TF frames of people: their names, and a tf2_msgs/TFMessage of them. No ROS here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.spatial.transform import Rotation

from ros2_pose.config import ConfigError
from ros2_pose.messages.people import (
    BODY_IN_SMPL,
    body_rotation,
    has_body,
    person_id,
)
from ros2_pose.messages.standard import Make, quaternion_message, vector_message
from ros2_pose.people import TRACKED, People
from ros2_pose.skeleton import SMPL24

# Characters of a frame's name besides <id> and <joint>: no blank, no leading slash (tf2).
_LITERAL = re.compile(r"(?!/)[A-Za-z0-9_./-]*")


@dataclass(frozen=True)
class FrameNames:
    """Names of the TF frames of a person.

    {id} and {joint} may be written for <id> and <joint>; but YAML, and so `ros2 param set`, reads
    {id} as a mapping.

    Args:
        person: pattern of the pelvis's frame, with <id>.
        joint: pattern of the other joints' frames, with <id> and <joint>.
        joints: (24,) replacements of <joint>, in SMPL order; empty for a joint without a frame. The
            first one, the pelvis's, is not used.
    Raises:
        ConfigError: for patterns that give invalid or ambiguous names.
    """

    person: str = "<id>"
    joint: str = "<id>_<joint>"
    joints: tuple[str, ...] = SMPL24.names

    def __post_init__(self) -> None:
        _check("tf_person", self.person, ("<id>",))
        _check("tf_joint", self.joint, ("<id>", "<joint>"))
        object.__setattr__(self, "person", _with_brackets(self.person))
        object.__setattr__(self, "joint", _with_brackets(self.joint))
        joint_frames = [self.joint.replace("<joint>", joint) for joint in self.joints[1:]]
        if self.person in joint_frames:
            raise ConfigError(f"tf_person: {self.person!r} is also the name of a joint's frame, as "
                              "given by tf_joint")

    def of(self, person_id: str) -> list[str]:
        """Return the names (24,) of a person's frames, SMPL order; empty for joints without one."""
        names = [self.person]
        for joint in self.joints[1:]:
            names.append(self.joint.replace("<joint>", joint) if joint else "")
        return [name.replace("<id>", person_id) for name in names]

    @cached_property
    def parents(self) -> dict[int, int]:
        """Map from each joint with a frame to its nearest ancestor with a frame, parents first."""
        parents = {}
        for joint, parent in list(enumerate(SMPL24.parents))[1:]:
            while parent and not self.joints[parent]:
                parent = SMPL24.parents[parent]
            if self.joints[joint]:
                parents[joint] = parent
        return parents


def _with_brackets(pattern: str) -> str:
    return pattern.replace("{id}", "<id>").replace("{joint}", "<joint>")


def _check(key: str, pattern: str, fields: tuple[str, ...]) -> None:
    """Raise ConfigError unless a pattern holds each of the fields once and is a valid name."""
    literal = _with_brackets(pattern)
    is_complete = all(name in literal for name in fields)
    for name in fields:
        literal = literal.replace(name, "", 1)
    if not is_complete or not _LITERAL.fullmatch(literal) or pattern.startswith("/"):
        raise ConfigError(f"{key}: {pattern!r} must hold {' and '.join(fields)} once; other "
                          "characters allowed are letters, digits, _, -, . and /, the latter not "
                          "at the beginning")


# The links of REP-155 that are joints of SMPL: SMPL's name -> REP-155's.
_REP155 = {
    "spine1": "waist", "spine3": "torso", "head": "head",
    **{f"{side}_{joint}": f"{side[0]}_{joint}" for side in ("left", "right")
       for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")}}
REP155 = FrameNames("body_<id>", "<joint>_<id>",
                    tuple(_REP155.get(name, "") for name in SMPL24.names))


def tf_message(make: Make, header, people: People, names: FrameNames = FrameNames()):
    """Return a tf2_msgs/TFMessage of the tracked people.

    The pelvis is given in the header's frame, every other joint in its parent's. In SMPL's rest
    pose (upright, arms spread) every frame is x forward, y left, z up.
    """
    seen = [i for i in range(len(people)) if has_body(people, i)
            and people.state_of(i) == TRACKED]
    transforms = []
    for i in seen:
        transforms += _body_frames(make, header, people, i, names)
    return make("tf2_msgs/msg/TFMessage", transforms=transforms)


def _body_frames(make: Make, header, people: People, i: int, names: FrameNames) -> list:
    """Transforms of a person: the pelvis in the header's frame, joints in their parents' frames."""
    assert people.theta is not None and people.joints is not None and people.root is not None
    frame_ids, positions = names.of(person_id(people, i)), people.joints[i]
    pelvis_quat = body_rotation(people.theta[i, 0]).as_quat()
    transforms = [_transform(make, header, frame_ids[0], people.root[i], pelvis_quat)]
    joints, parents = list(names.parents), list(names.parents.values())
    global_rotmats = _joint_rotations(people.theta[i])
    parent_from_global = global_rotmats[parents].swapaxes(1, 2)
    bones = positions[joints] - positions[parents]
    translations = (parent_from_global @ bones[..., None])[..., 0]
    quats = Rotation.from_matrix(parent_from_global @ global_rotmats[joints]).as_quat()
    for joint, parent, translation, quat in zip(joints, parents, translations, quats):
        above = make("std_msgs/msg/Header", stamp=header.stamp, frame_id=frame_ids[parent])
        transforms.append(_transform(make, above, frame_ids[joint], translation, quat))
    return transforms


def _joint_rotations(theta: np.ndarray) -> np.ndarray:
    """Rotation matrices (24, 3, 3) of each joint's frame to the header's, from theta (24, 4)."""
    local = (BODY_IN_SMPL.inv() * Rotation.from_quat(theta) * BODY_IN_SMPL).as_matrix()
    global_rotmats = np.empty_like(local)
    global_rotmats[0] = body_rotation(theta[0]).as_matrix()
    for joint, parent in list(enumerate(SMPL24.parents))[1:]:
        global_rotmats[joint] = global_rotmats[parent] @ local[joint]
    return global_rotmats


def _transform(make: Make, header, child: str, translation, quat_xyzw):
    transform = make("geometry_msgs/msg/Transform", translation=vector_message(make, translation),
                     rotation=quaternion_message(make, quat_xyzw))
    return make("geometry_msgs/msg/TransformStamped", header=header, child_frame_id=child,
                transform=transform)
