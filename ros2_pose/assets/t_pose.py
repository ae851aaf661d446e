"""Takes a person of MakeHuman from the A-pose to SMPL's T-pose.

Model frame: y up, facing +z, the person's left at +x; metres.
"""

from __future__ import annotations

import numpy as np

from ros2_pose.skeleton import SMPL24

_COLLAR_UP_DEG = 12.0

# Limbs of the left side in the T-pose: joint to (its child, degrees up, degrees back), measured
# from +x for arms and from -y for legs.
_LIMB_DIRECTIONS = {"shoulder": ("elbow", -3.0, 6.0), "elbow": ("wrist", 2.0, 0.0),
                    "hip": ("knee", 5.0, 1.0), "knee": ("ankle", -2.0, 6.0)}
_ARM = ("shoulder", "elbow")
_LIMB_ABOVE = {"elbow": "shoulder", "knee": "hip"}


def t_pose(vertices: np.ndarray, joints: np.ndarray,
           weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the T-pose that linear blend skinning takes exactly to one person's A-pose.

    Args:
        vertices (V, 3), joints (24, 3): m, A-pose.
        weights (V, 24): skinning weights, rows sum to 1.
    Returns:
        vertices (V, 3) and joints (24, 3) in the T-pose, m, pelvis at the origin.
    """
    t_from_a = _segment_rotations(joints)
    posed = joints.copy()
    for child, parent in enumerate(SMPL24.parents):
        if parent >= 0:
            posed[child] = posed[parent] + t_from_a[parent] @ (joints[child] - joints[parent])
    # Skinning is a_vertex = matrix @ t_vertex + offset for each vertex: solve for t_vertex.
    a_from_t = t_from_a.transpose(0, 2, 1)
    matrix = np.einsum("vj,jab->vab", weights, a_from_t)
    offset = weights @ (joints - np.einsum("jab,jb->ja", a_from_t, posed))
    vertices = np.linalg.solve(matrix, (vertices - offset)[..., None])[..., 0]
    return vertices - posed[0], posed - posed[0]


def _segment_rotations(joints: np.ndarray) -> np.ndarray:
    """(24, 3, 3) rotation of each joint's segment from the A-pose to the T-pose."""
    rotmats = np.tile(np.eye(3), (len(SMPL24), 1, 1))
    for side, sign in (("left", 1.0), ("right", -1.0)):
        row = {kind: SMPL24.index(f"{side}_{kind}") for kind in
               ("collar", "shoulder", "elbow", "wrist", "hand", "hip", "knee", "ankle")}
        rotmats[row["collar"]] = _about_z(np.radians(_COLLAR_UP_DEG) * sign)
        for joint, (child, up_deg, back_deg) in _LIMB_DIRECTIONS.items():
            above = _LIMB_ABOVE.get(joint)
            rotmat = rotmats[row[above]] if above else np.eye(3)
            limb = rotmat @ (joints[row[child]] - joints[row[joint]])
            target = _direction(joint, up_deg, back_deg) * (sign, 1, 1)
            rotmats[row[joint]] = _smallest_rotation(limb, target) @ rotmat
        rotmats[row["wrist"]] = rotmats[row["elbow"]]
        rotmats[row["hand"]] = rotmats[row["elbow"]]
    return rotmats


def _direction(joint: str, up_deg: float, back_deg: float) -> np.ndarray:
    """(3,) unit vector of a limb of the left side."""
    up, back = np.tan(np.radians([up_deg, back_deg]))
    along = (1.0, up, -back) if joint in _ARM else (up, -1.0, -back)
    return np.array(along) / np.linalg.norm(along)


def _about_z(angle_rad: float) -> np.ndarray:
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])


def _smallest_rotation(vector: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """(3, 3) the smallest rotation that takes a vector's direction to a unit vector."""
    direction = vector / np.linalg.norm(vector)
    x, y, z = np.cross(direction, unit)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + cross + cross @ cross / (1 + direction @ unit)
