"""Positions on the body of other joint sets' joints: COCO's keypoints, MuPoTS' joints.

Data sets use one name for different positions: SMPL's pelvis is 8 cm above the middle of the hips
that others call pelvis. Each position is a weighted sum of the surface's vertices and of SMPL's
joints, so that a body can be fitted to, and compared with, the joints of any data set or network.
"""

from __future__ import annotations

import numpy as np

from ros2_pose.body.smpl_file import BodyArrays
from ros2_pose.skeleton import COCO17, SMPL24, JointSet

# Joints of other sets as weights of SMPL's. A joint not named here is SMPL's joint of that name.
_BY_JOINTS = {
    "pelvis": {"left_hip": 0.5, "right_hip": 0.5},
    "mid_hip": {"left_hip": 0.5, "right_hip": 0.5},
    "spine": {"spine2": 1.0},
    "thorax": {"neck": 1.0},
}
_FACE = COCO17.names[:5]


def joint_weights(body: BodyArrays, joint_set: JointSet) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of a set's K joints as weights of vertices and of SMPL's joints.

    Returns:
        by_vertex (K, V) and by_joint (K, 24); the weights of a joint sum to 1.
    Raises:
        KeyError: a joint has no position on the body.
    """
    if joint_set is COCO17:
        return body.keypoint_regressor, body.keypoint_joints
    by_vertex = np.zeros((len(joint_set), len(body.template)))
    by_joint = np.zeros((len(joint_set), len(SMPL24)))
    for row, name in enumerate(joint_set.names):
        if name in _FACE:
            by_vertex[row] = body.keypoint_regressor[COCO17.index(name)]
            by_joint[row] = body.keypoint_joints[COCO17.index(name)]
        elif name == "head_top":
            by_vertex[row, body.template[:, 1].argmax()] = 1
        else:
            for joint, weight in _BY_JOINTS.get(name, {name: 1.0}).items():
                by_joint[row, SMPL24.index(joint)] = weight
    return by_vertex, by_joint


def same_joints(joint_set: JointSet) -> tuple[np.ndarray, np.ndarray]:
    """Return the joints that another set and SMPL-24 have at the same position.

    Positions between SMPL's joints or on the skin are left out: the pelvis of other sets is not
    SMPL's.

    Returns:
        indices (N,) in the other set and (N,) in SMPL-24.
    """
    pairs = []
    for row, name in enumerate(joint_set.names):
        for joint, weight in _BY_JOINTS.get(name, {name: 1.0}).items():
            if weight == 1 and joint in SMPL24.names:
                pairs.append((row, SMPL24.index(joint)))
    other, smpl = np.array(pairs, int).reshape(-1, 2).T
    return other, smpl
