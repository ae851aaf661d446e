"""TF frames of people: what they are called, and a tf2_msgs/TFMessage of them. No ROS here."""

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
    tracking_state,
)
from ros2_pose.messages.standard import Make, quaternion_message, vector_message
from ros2_pose.people import TRACKED, People
from ros2_pose.skeleton import SMPL24

# What a frame's name may be made of, besides its fields: no blank, no leading slash (tf2).
_LITERAL = re.compile(r"(?!/)[A-Za-z0-9_./-]*")


@dataclass(frozen=True)
class FrameNames:
    """What the frames of a person are called.

    person: the pelvis's, with <id> in it. joint: every other joint's, with <id> and <joint> in it.
    {id} and {joint} mean the same; YAML, and with it `ros2 param set`, takes {id} for a mapping.
    joints: (24,) what {joint} stands for, in SMPL's order; empty for a joint without a frame. The
    first, the pelvis's, is not used.
    Raises ConfigError for patterns whose names would be none, or not tell people or joints apart.
    """

    person: str = "<id>"
    joint: str = "<id>_<joint>"
    joints: tuple[str, ...] = SMPL24.names

    def __post_init__(self) -> None:
        _check("tf_person", self.person, ("<id>",))
        _check("tf_joint", self.joint, ("<id>", "<joint>"))
        object.__setattr__(self, "person", _with_brackets(self.person))
        object.__setattr__(self, "joint", _with_brackets(self.joint))
        if self.person in {self.joint.replace("<joint>", joint) for joint in self.joints[1:]}:
            raise ConfigError(f"tf_person: {self.person!r} is what tf_joint calls a joint")

    def of(self, person_id: str) -> list[str]:
        """The names of a person's 24 frames, empty where a joint has none."""
        names = [self.joint.replace("<joint>", joint) if joint else "" for joint in self.joints]
        return [name.replace("<id>", person_id) for name in (self.person, *names[1:])]

    @cached_property
    def parents(self) -> dict[int, int]:
        """Joint: the nearest one above it that has a frame; parents come before their children."""
        parents = {}
        for joint, above in list(enumerate(SMPL24.parents))[1:]:
            while above and not self.joints[above]:
                above = SMPL24.parents[above]
            if self.joints[joint]:
                parents[joint] = above
        return parents


def _with_brackets(pattern: str) -> str:
    return pattern.replace("{id}", "<id>").replace("{joint}", "<joint>")


def _check(key: str, pattern: str, fields: tuple[str, ...]) -> None:
    rest = _with_brackets(pattern)
    complete = all(name in rest for name in fields)
    for name in fields:
        rest = rest.replace(name, "", 1)
    if not complete or not _LITERAL.fullmatch(rest) \
            or pattern.startswith("/"):
        raise ConfigError(f"{key}: {pattern!r} must hold {' and '.join(fields)} once, and besides "
                          "letters, digits, _, - and . alone, / not at the beginning")


# REP-155's links that are joints of SMPL; the rest of its links lie between these.
_REP155 = {
    "spine1": "waist", "spine3": "torso", "head": "head",
    **{f"{side}_{joint}": f"{side[0]}_{joint}" for side in ("left", "right")
       for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")}}
REP155 = FrameNames("body_<id>", "<joint>_<id>",
                    tuple(_REP155.get(name, "") for name in SMPL24.names))


def tf_message(make: Make, header, people: People, names: FrameNames = FrameNames()):
    """A tf2_msgs/TFMessage of those seen: the pelvis in header's frame, the joints below it.

    Every frame is x forward, y left, z up where the body stands upright with its arms spread.
    """
    seen = [i for i in range(len(people)) if has_body(people, i)
            and tracking_state(people, i) == TRACKED]
    return make("tf2_msgs/msg/TFMessage", transforms=[
        t for i in seen for t in _body_frames(make, header, people, i, names)])


def _body_frames(make: Make, header, people: People, i: int, names: FrameNames) -> list:
    """Transforms of a person: each joint's frame in that above it, the pelvis in the header's."""
    called, positions = names.of(person_id(people, i)), people.joints[i]
    frames = [_transform(make, header, called[0], people.root[i],
                         body_rotation(people.theta[i, 0]).as_quat())]
    joints, parents = list(names.parents), list(names.parents.values())
    global_rotmats = _joint_rotations(people.theta[i])
    back = global_rotmats[parents].swapaxes(1, 2)
    bones = (back @ (positions[joints] - positions[parents])[..., None])[..., 0]
    quats = Rotation.from_matrix(back @ global_rotmats[joints]).as_quat()
    for joint, parent, bone, quat in zip(joints, parents, bones, quats):
        above = make("std_msgs/msg/Header", stamp=header.stamp, frame_id=called[parent])
        frames.append(_transform(make, above, called[joint], bone, quat))
    return frames


def _joint_rotations(theta: np.ndarray) -> np.ndarray:
    """(24, 3, 3) of each joint's frame, to the frame of theta (24, 4)."""
    local = (BODY_IN_SMPL.inv() * Rotation.from_quat(theta) * BODY_IN_SMPL).as_matrix()
    global_rotmats = np.empty_like(local)
    global_rotmats[0] = body_rotation(theta[0]).as_matrix()
    for joint, parent in list(enumerate(SMPL24.parents))[1:]:
        global_rotmats[joint] = global_rotmats[parent] @ local[joint]
    return global_rotmats


def _transform(make: Make, header, child: str, position, xyzw):
    transform = make("geometry_msgs/msg/Transform", translation=vector_message(make, position),
                     rotation=quaternion_message(make, xyzw))
    return make("geometry_msgs/msg/TransformStamped", header=header, child_frame_id=child,
                transform=transform)
