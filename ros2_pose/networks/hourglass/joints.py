"""Keypoints of the maps, the limbs between them, and where each joint's 3D is stored.

The maps are of COCO's 17 keypoints, then the neck (middle of the shoulders) and the pelvis (middle
of the hips).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ros2_pose.skeleton import COCO17, SMPL24

NAMES = (*COCO17.names, "neck", "pelvis")
K, J = len(NAMES), len(SMPL24)
NECK, PELVIS = K - 2, K - 1
_HALVES = {NECK: "shoulder", PELVIS: "hip"}

_SIDES = ("left", "right")
_TREE = [("neck", "pelvis"), ("neck", "nose")] + [
    pair for side in _SIDES for pair in (
        ("neck", f"{side}_shoulder"), (f"{side}_shoulder", f"{side}_elbow"),
        (f"{side}_elbow", f"{side}_wrist"), ("pelvis", f"{side}_hip"),
        (f"{side}_hip", f"{side}_knee"), (f"{side}_knee", f"{side}_ankle"),
        ("nose", f"{side}_eye"), (f"{side}_eye", f"{side}_ear"))]
_REDUNDANT = [("left_shoulder", "right_shoulder"), ("left_hip", "right_hip")] + [
    pair for side in _SIDES for pair in (
        (f"{side}_shoulder", f"{side}_hip"), (f"{side}_shoulder", f"{side}_ear"))]

# Pairs of keypoints with a part affinity field each: a tree, and redundant ones.
LIMBS = tuple((NAMES.index(a), NAMES.index(b)) for a, b in _TREE + _REDUNDANT)

# Keypoints in the order in which they are grouped: trunk first.
ORDER = tuple(NAMES.index(name) for name in ("neck", "pelvis")) + tuple(
    NAMES.index(f"{side}_{kind}") for kind in ("shoulder", "hip") for side in _SIDES) + (
    NAMES.index("nose"),) + tuple(
    NAMES.index(f"{side}_{kind}") for kind in ("elbow", "knee", "wrist", "ankle", "eye", "ear")
    for side in _SIDES)

# Kinds of SMPL's joints by limb, from the trunk outwards; of each, the keypoint at its position.
_ARM = {"collar": "shoulder", "shoulder": "shoulder", "elbow": "elbow", "wrist": "wrist",
        "hand": "wrist"}
_LEG = {"hip": "hip", "knee": "knee", "ankle": "ankle", "foot": "ankle"}


def _read_out_order(joint: str) -> tuple[int, ...]:
    """Return the keypoints at which a joint's 3D is stored, in the order in which it is read."""
    side, _, kind = joint.partition("_")
    places: list[str] = ["nose"] if joint == "head" else []
    for limb in (_ARM, _LEG):
        if kind in limb:
            along = list(dict.fromkeys(limb.values()))
            own = along.index(limb[kind])
            ordered = along[own::-1] + along[own + 1:]  # upwards from its own, then outwards
            places = [f"{side}_{name}" for name in ordered]
    return tuple(NAMES.index(name) for name in (*places, "neck", "pelvis"))


READ_OUT = tuple(_read_out_order(joint) for joint in SMPL24.names)
PARENTS = tuple(max(parent, 0) for parent in SMPL24.parents)


def with_anchors(keypoints: Tensor) -> Tensor:
    """Return keypoints (N, 19, 2) of COCO's (N, 17, 2): neck and pelvis are added.

    They are NaN where one of the two keypoints beside them is.
    """
    anchors = []
    for anchor in (NECK, PELVIS):
        left, right = (COCO17.index(f"{side}_{_HALVES[anchor]}") for side in _SIDES)
        anchors.append((keypoints[:, left] + keypoints[:, right]) / 2)
    return torch.cat([keypoints, torch.stack(anchors, 1)], 1)


def is_stored() -> Tensor:
    """Return bool (24, 19): the keypoints at which each SMPL joint's 3D is stored."""
    stored = torch.zeros(J, K, dtype=torch.bool)
    for joint, places in enumerate(READ_OUT):
        stored[joint, list(places)] = True
    return stored
