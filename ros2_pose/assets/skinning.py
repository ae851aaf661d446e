"""SMPL's joints and skinning weights from MakeHuman's bones."""

from __future__ import annotations

import numpy as np

from ros2_pose.assets.makehuman import MakeHuman
from ros2_pose.skeleton import SMPL24

# SMPL joint: shares of MakeHuman's bone heads. '.S' stands for the side, '.L' or '.R'.
_BONE_HEAD_SHARES = {
    "pelvis": {"spine05": 0.2, "spine04": 0.8},
    "spine1": {"spine03": 0.8, "spine02": 0.2},
    "spine2": {"spine02": 0.5, "spine01": 0.5},
    "spine3": {"spine02": 0.1, "spine01": 0.9},
    "neck": {"neck01": 1.0},
    "head": {"head": 1.0},
    "side_hip": {"upperleg01.S": 0.75, "pelvis.S": 0.25},
    "side_knee": {"lowerleg01.S": 1.0},
    "side_ankle": {"foot.S": 1.0},
    "side_foot": {"foot.S": 0.1, "toe1-1.S": 0.3, "toe3-1.S": 0.6},
    "side_collar": {"clavicle.S": 0.3, "shoulder01.S": 0.7},
    "side_shoulder": {"upperarm01.S": 1.0},
    "side_elbow": {"lowerarm01.S": 1.0},
    "side_wrist": {"wrist.S": 1.0},
    "side_hand": {"wrist.S": 0.15, "finger3-1.S": 0.85},
}

# The first prefix that fits a MakeHuman bone gives its SMPL joint; 'spine' is split by height.
_JOINT_OF_BONE_PREFIX = (
    ("upperleg", "side_hip"), ("lowerleg", "side_knee"), ("foot", "side_ankle"),
    ("toe", "side_foot"), ("clavicle", "side_collar"), ("shoulder", "side_collar"),
    ("upperarm", "side_shoulder"), ("lowerarm", "side_elbow"), ("wrist", "side_wrist"),
    ("metacarpal", "side_wrist"), ("finger", "side_hand"), ("neck", "neck"),
    ("breast", "spine3"), ("root", "spine"), ("pelvis", "spine"), ("spine", "spine"),
    ("", "head"))
_SPINE = [SMPL24.index(name) for name in ("pelvis", "spine1", "spine2", "spine3")]
_SPINE_BLEND_M = 0.05  # half width of the blend between two spine joints
_MIN_WEIGHT = 1e-3


def _sided(name: str, side: str) -> str:
    return name.replace("side_", f"{side}_").replace(".S", "." + side[0].upper())


def a_pose_joints(human: MakeHuman, vertices: np.ndarray) -> np.ndarray:
    """Locate SMPL's joints in the A-pose.

    Args:
        vertices (S, V, 3): m, MakeHuman meshes with their helper vertices.
    Returns:
        (S, 24, 3): m.
    """
    joints = np.zeros((len(vertices), len(SMPL24), 3))
    for joint, shares in _BONE_HEAD_SHARES.items():
        for side in ("left", "right") if "side_" in joint else ("left",):
            heads = [share * vertices[:, human.bone_head(_sided(bone, side))].mean(1)
                     for bone, share in shares.items()]
            joints[:, SMPL24.index(_sided(joint, side))] = np.sum(heads, 0)
    return joints


def skinning_weights(human: MakeHuman, joints: np.ndarray) -> np.ndarray:
    """Add up MakeHuman's bone weights by SMPL joint.

    Args:
        joints (24, 3): m, of the base mesh in the A-pose.
    Returns:
        (V, 24): at most four non-zero weights a vertex, summing to 1 (or to 0 for vertices without
        bones).
    """
    weights = np.zeros((len(human.base), len(SMPL24)))
    spine = np.zeros(len(human.base))
    for bone, weight in human.bone_weights().items():
        joint = next(name for prefix, name in _JOINT_OF_BONE_PREFIX if bone.startswith(prefix))
        if joint == "spine":
            spine += weight
        else:
            side = "right" if bone.endswith(".R") else "left"
            weights[:, SMPL24.index(_sided(joint, side))] += weight
    weights[:, _SPINE] += spine[:, None] * _spine_shares(human.base[:, 1], joints[_SPINE, 1])
    return _strongest_four(weights)


def _spine_shares(height: np.ndarray, joint_heights: np.ndarray) -> np.ndarray:
    """(V, 4) shares of the four spine joints: smooth steps at the height of each but the first."""
    step = (height[:, None] - joint_heights[1:]) / (2 * _SPINE_BLEND_M) + 0.5
    step = np.clip(step, 0, 1)
    above = np.concatenate([np.ones((len(height), 1)), step * step * (3 - 2 * step)], 1)
    above = np.minimum.accumulate(above, 1)
    return above - np.append(above[:, 1:], np.zeros((len(height), 1)), 1)


def _strongest_four(weights: np.ndarray) -> np.ndarray:
    """The four largest weights of each row (V, 24), divided by their sum."""
    fourth = np.sort(weights, 1)[:, -4:-3]
    weights = np.where(weights >= np.maximum(fourth, _MIN_WEIGHT), weights, 0)
    total = weights.sum(1, keepdims=True)
    return np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
