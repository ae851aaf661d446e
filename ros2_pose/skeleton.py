"""Joint sets: names, parents, left and right, and maps between the sets of the field.

"Left" is the person's own left. A joint set's order is the order of its arrays everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class JointSet:
    """Ordered joints; parents[i] is the index of joint i's parent, -1 for a root."""

    name: str
    names: tuple[str, ...]
    parents: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.names)

    def index(self, joint: str) -> int:
        """Index of a joint by name."""
        try:
            return self.names.index(joint)
        except ValueError:
            raise KeyError(f"{self.name} has no joint {joint!r}, only {', '.join(self.names)}") \
                from None

    @cached_property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """(parent, child) pairs: the bones to draw."""
        return tuple((p, i) for i, p in enumerate(self.parents) if p >= 0)

    @cached_property
    def mirror(self) -> np.ndarray:
        """(J,) index of the joint on the other side; a joint in the middle is its own mirror."""
        return np.array([self.index(_other_side(name)) for name in self.names])

    @cached_property
    def sides(self) -> tuple[str, ...]:
        """'left', 'right' or 'middle' for each joint."""
        return tuple(n.split("_")[0] if n.startswith(("left_", "right_")) else "middle"
                     for n in self.names)

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """Each joint's name without its side: 'knee' for both knees."""
        return tuple(n.removeprefix(f"{side}_") for n, side in zip(self.names, self.sides))


def _other_side(name: str) -> str:
    if name.startswith("left_"):
        return "right_" + name[5:]
    return "left_" + name[6:] if name.startswith("right_") else name


def _joint_set(name: str, table: str) -> JointSet:
    """Read 'joint<parent' words in order; a joint without '<' is a root."""
    pairs = [word.partition("<") for word in table.split()]
    names = tuple(joint for joint, _, _ in pairs)
    parents = tuple(names.index(parent) if parent else -1 for _, _, parent in pairs)
    return JointSet(name, names, parents)


SMPL24 = _joint_set("SMPL-24", """
    pelvis left_hip<pelvis right_hip<pelvis spine1<pelvis left_knee<left_hip right_knee<right_hip
    spine2<spine1 left_ankle<left_knee right_ankle<right_knee spine3<spine2 left_foot<left_ankle
    right_foot<right_ankle neck<spine3 left_collar<spine3 right_collar<spine3 head<neck
    left_shoulder<left_collar right_shoulder<right_collar left_elbow<left_shoulder
    right_elbow<right_shoulder left_wrist<left_elbow right_wrist<right_elbow left_hand<left_wrist
    right_hand<right_wrist""")

# COCO has no tree of its own; this one draws the usual stick figure with hips hung below shoulders.
COCO17 = _joint_set("COCO-17", """
    nose left_eye<nose right_eye<nose left_ear<left_eye right_ear<right_eye left_shoulder<left_ear
    right_shoulder<right_ear left_elbow<left_shoulder right_elbow<right_shoulder
    left_wrist<left_elbow right_wrist<right_elbow left_hip<left_shoulder right_hip<right_shoulder
    left_knee<left_hip right_knee<right_hip left_ankle<left_knee right_ankle<right_knee""")

H36M17 = _joint_set("H36M-17", """
    pelvis right_hip<pelvis right_knee<right_hip right_ankle<right_knee left_hip<pelvis
    left_knee<left_hip left_ankle<left_knee spine<pelvis neck<spine nose<neck head_top<nose
    left_shoulder<neck left_elbow<left_shoulder left_wrist<left_elbow right_shoulder<neck
    right_elbow<right_shoulder right_wrist<right_elbow""")

PANOPTIC19 = _joint_set("Panoptic-19", """
    neck nose<neck pelvis<neck left_shoulder<neck left_elbow<left_shoulder left_wrist<left_elbow
    left_hip<pelvis left_knee<left_hip left_ankle<left_knee right_shoulder<neck
    right_elbow<right_shoulder right_wrist<right_elbow right_hip<pelvis right_knee<right_hip
    right_ankle<right_knee left_eye<nose left_ear<left_eye right_eye<nose right_ear<right_eye""")

# The first fifteen of Panoptic-19: the joints that are evaluated.
PANOPTIC15 = JointSet("Panoptic-15", PANOPTIC19.names[:15], PANOPTIC19.parents[:15])

MUPOTS17 = _joint_set("MuPoTS-17", """
    head_top<neck neck<spine right_shoulder<neck right_elbow<right_shoulder right_wrist<right_elbow
    left_shoulder<neck left_elbow<left_shoulder left_wrist<left_elbow right_hip<pelvis
    right_knee<right_hip right_ankle<right_knee left_hip<pelvis left_knee<left_hip
    left_ankle<left_knee pelvis spine<pelvis head<neck""")

BLAZEPOSE33 = _joint_set("BlazePose-33", """
    nose left_eye_inner<nose left_eye<left_eye_inner left_eye_outer<left_eye right_eye_inner<nose
    right_eye<right_eye_inner right_eye_outer<right_eye left_ear<left_eye_outer
    right_ear<right_eye_outer left_mouth<nose right_mouth<nose left_shoulder right_shoulder
    left_elbow<left_shoulder right_elbow<right_shoulder left_wrist<left_elbow
    right_wrist<right_elbow left_pinky<left_wrist right_pinky<right_wrist left_index<left_wrist
    right_index<right_wrist left_thumb<left_wrist right_thumb<right_wrist left_hip<left_shoulder
    right_hip<right_shoulder left_knee<left_hip right_knee<right_hip left_ankle<left_knee
    right_ankle<right_knee left_heel<left_ankle right_heel<right_ankle left_foot_index<left_heel
    right_foot_index<right_heel""")

MPII16 = _joint_set("MPII-16", """
    right_ankle<right_knee right_knee<right_hip right_hip<pelvis left_hip<pelvis left_knee<left_hip
    left_ankle<left_knee pelvis thorax<pelvis upper_neck<thorax head_top<upper_neck
    right_wrist<right_elbow right_elbow<right_shoulder right_shoulder<thorax left_shoulder<thorax
    left_elbow<left_shoulder left_wrist<left_elbow""")

LSP14 = _joint_set("LSP-14", """
    right_ankle<right_knee right_knee<right_hip right_hip<neck left_hip<neck left_knee<left_hip
    left_ankle<left_knee right_wrist<right_elbow right_elbow<right_shoulder right_shoulder<neck
    left_shoulder<neck left_elbow<left_shoulder left_wrist<left_elbow neck head_top<neck""")

OPENPOSE18 = _joint_set("OpenPose-18", """
    nose<neck neck right_shoulder<neck right_elbow<right_shoulder right_wrist<right_elbow
    left_shoulder<neck left_elbow<left_shoulder left_wrist<left_elbow right_hip<neck
    right_knee<right_hip right_ankle<right_knee left_hip<neck left_knee<left_hip
    left_ankle<left_knee right_eye<nose left_eye<nose right_ear<right_eye left_ear<left_eye""")

JOINT_SETS = {s.name: s for s in
              (SMPL24, COCO17, H36M17, PANOPTIC19, PANOPTIC15, MUPOTS17, BLAZEPOSE33, MPII16, LSP14,
               OPENPOSE18)}


def common_joints(a: JointSet, b: JointSet) -> tuple[np.ndarray, np.ndarray]:
    """Indices (N,), (N,) of the joints that two sets share by name, in a's order.

    Same name means the same anatomical place to a few centimetres, not the same definition.
    """
    shared = [name for name in a.names if name in b.names]
    return np.array([a.index(n) for n in shared], int), np.array([b.index(n) for n in shared], int)
