"""Where the joints of other joint sets lie on the body: COCO's keypoints, MuPoTS' joints.

Data sets mean different places by the same name: SMPL's pelvis is 8 cm above the middle of the hips
that others call pelvis. Each place is given by vertices of the surface or by joints, so that a body
can be fitted to, and compared with, what a data set or another network calls a joint.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ros2_pose.body.smpl_file import BodyArrays
from ros2_pose.skeleton import COCO17, SMPL24, JointSet

# Joints of other sets by SMPL's, in shares. What is not named here is SMPL's joint of that name.
_BY_JOINTS = {
    "pelvis": {"left_hip": 0.5, "right_hip": 0.5},
    "mid_hip": {"left_hip": 0.5, "right_hip": 0.5},
    "spine": {"spine2": 1.0},
    "thorax": {"neck": 1.0},
}
_FACE = COCO17.names[:5]


@dataclass(frozen=True)
class Placements:
    """K places on the body as a sum of vertices and joints, shares summing to 1."""

    by_vertex: np.ndarray  # (K, V)
    by_joint: np.ndarray  # (K, 24)


def placements(body: BodyArrays, joint_set: JointSet) -> Placements:
    """Where a set's joints lie. Raises KeyError for a joint nobody has placed on the body."""
    if joint_set is COCO17:
        return Placements(body.keypoint_regressor, body.keypoint_joints)
    by_vertex = np.zeros((len(joint_set), len(body.template)))
    by_joint = np.zeros((len(joint_set), len(SMPL24)))
    for row, name in enumerate(joint_set.names):
        if name in _FACE:
            by_vertex[row] = body.keypoint_regressor[COCO17.index(name)]
            by_joint[row] = body.keypoint_joints[COCO17.index(name)]
        elif name == "head_top":
            by_vertex[row, body.template[:, 1].argmax()] = 1
        else:
            for joint, share in _BY_JOINTS.get(name, {name: 1.0}).items():
                by_joint[row, SMPL24.index(joint)] = share
    return Placements(by_vertex, by_joint)


def same_joints(joint_set: JointSet) -> tuple[np.ndarray, np.ndarray]:
    """Indices (N,), (N,) in another set and in SMPL-24 of the joints that mean the same place.

    Places between SMPL's joints or on the skin are left out: the others' pelvis is not SMPL's.
    """
    shares = [_BY_JOINTS.get(name, {name: 1.0}) for name in joint_set.names]
    pairs = [(row, SMPL24.index(joint)) for row, by_joint in enumerate(shares)
             for joint, share in by_joint.items() if share == 1 and joint in SMPL24.names]
    ours, smpl = np.array(pairs, int).reshape(-1, 2).T
    return ours, smpl
