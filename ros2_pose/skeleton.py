"""Joint sets of the package and of datasets: names, parents, sides, and joints they share.

"Left" is the person's own left. Arrays of joints are in the order of their joint set.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class JointSet:
    """Ordered joints of a skeleton.

    Args:
        name: of the set, ending in the number of joints.
        names: (J,) names of the joints.
        parents: (J,) index of each joint's parent, -1 for a root.
    """

    name: str
    names: tuple[str, ...]
    parents: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.names)

    def index(self, joint: str) -> int:
        """Return the index of a joint by its name; KeyError for an unknown name."""
        try:
            return self.names.index(joint)
        except ValueError:
            raise KeyError(f"{self.name} has no joint {joint!r}, only {', '.join(self.names)}") \
                from None

    @cached_property
    def edges(self) -> tuple[tuple[int, int], ...]:
        """Bones as (parent, child) pairs of joint indices."""
        return tuple((parent, joint) for joint, parent in enumerate(self.parents) if parent >= 0)

    @cached_property
    def mirror(self) -> np.ndarray:
        """Index (J,) of the joint on the other side; of a joint in the middle, its own index."""
        return np.array([self.index(_other_side(name)) for name in self.names])

    @cached_property
    def sides(self) -> tuple[str, ...]:
        """Side of each joint (J,): 'left', 'right' or 'middle'."""
        return tuple(_side(name) for name in self.names)

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """Name of each joint (J,) without its side: 'knee' for both knees."""
        return tuple(name.removeprefix(f"{_side(name)}_") for name in self.names)


def _side(name: str) -> str:
    side = name.partition("_")[0]
    return side if side in ("left", "right") else "middle"


def _other_side(name: str) -> str:
    """Name of the joint on the other side."""
    if name.startswith("left_"):
        return "right_" + name.removeprefix("left_")
    if name.startswith("right_"):
        return "left_" + name.removeprefix("right_")
    return name


def _joint_set(name: str, table: str) -> JointSet:
    """Parse words 'joint<parent' in joint order; a joint without '<' is a root."""
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

# COCO defines no tree; this one gives the usual stick figure, hips below shoulders.
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

MUPOTS17 = _joint_set("MuPoTS-17", """
    head_top<neck neck<spine right_shoulder<neck right_elbow<right_shoulder right_wrist<right_elbow
    left_shoulder<neck left_elbow<left_shoulder left_wrist<left_elbow right_hip<pelvis
    right_knee<right_hip right_ankle<right_knee left_hip<pelvis left_knee<left_hip
    left_ankle<left_knee pelvis spine<pelvis head<neck""")

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


def common_joints(a: JointSet, b: JointSet) -> tuple[np.ndarray, np.ndarray]:
    """Return the joints that two sets share by name.

    The same name means the same anatomical position to a few centimetres, not the same definition.

    Returns:
        Indices (N,) into a and (N,) into b, in a's order.
    """
    shared = [name for name in a.names if name in b.names]
    return np.array([a.index(n) for n in shared], int), np.array([b.index(n) for n in shared], int)
