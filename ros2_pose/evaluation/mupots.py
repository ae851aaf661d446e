"""MuPoTS-3D (Mehta et al. 2018): its annotated people, and its score in 3D.

The score is that of the official MATLAB code: 14 joints (without pelvis, spine and head) nearer
than 150 mm, by sequence, then the mean of the sequences; what was not found is wrong. Relative:
both poses about their pelvis; absolute: in the camera's frame. The official code gives the bones
found the true ones' lengths, from the pelvis outwards, before it looks.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ros2_pose.body.kinematics import pose_rig
from ros2_pose.body.model import BodyModel
from ros2_pose.evaluation.metrics import at_root, distances, pck_by_group
from ros2_pose.skeleton import MUPOTS17, SMPL24

SEQUENCES = range(1, 11)
_LIMIT_M = 0.15
_PELVIS = MUPOTS17.index("pelvis")
_SCORED = [i for i, name in enumerate(MUPOTS17.names) if name not in ("pelvis", "spine", "head")]
# Parents before children, as bones are made longer or shorter.
_OUTWARDS = [MUPOTS17.index(name) for name in (
    "spine", "neck", "head_top", "head",
    *(f"{side}_{joint}" for side in ("right", "left")
      for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")))]
_STATURE = (("head_top", "neck", 1.0), ("neck", "pelvis", 1.0),
            *((f"{side}_{upper}", f"{side}_{lower}", 0.5) for side in ("left", "right")
              for upper, lower in (("hip", "knee"), ("knee", "ankle"))))


class Annotated(NamedTuple):
    """N people of MuPoTS, frame by frame, in the order of MUPOTS17."""

    rays: np.ndarray  # (N, 17, 2) at z = 1
    poses: np.ndarray  # (N, 17, 3) m, camera frame
    sequence: np.ndarray  # (N,) 1..20
    person: np.ndarray  # (N,) the same all through a sequence


class Score(NamedTuple):
    """PCK at 150 mm in percent."""

    relative: float
    absolute: float


def read(path: str | Path, stride: int = 1) -> Annotated:
    """Every `stride`-th frame of the sequences, people with a valid annotation."""
    with np.load(path, allow_pickle=False) as file:
        if tuple(file["joint_names"]) != MUPOTS17.names:
            raise ValueError(f"{path} has joints {', '.join(file['joint_names'])}")
        parts = [_sequence(file, number, stride) for number in SEQUENCES
                 if f"TS{number}_p2" in file]
    return Annotated(*map(np.concatenate, zip(*parts)))


def _sequence(file, number: int, stride: int) -> Annotated:
    points, poses, valid = (file[f"TS{number}_{name}"][::stride]
                            for name in ("p2", "p3_mm", "valid"))
    focal, centre = np.split(file[f"TS{number}_K"].astype(float), 2)
    _, person = np.nonzero(valid)
    valid = valid.astype(bool)
    return Annotated((points[valid] - centre) / focal, poses[valid] / 1000,
                     np.full(len(person), number), person)


def score(found: np.ndarray, truth: Annotated, rescale: bool = True) -> Score:
    """Score poses (N, 17, 3) m, NaN: not found. rescale: as the official code does."""
    found = with_bone_lengths(found, truth.poses) if rescale else found
    pairs = ((at_root(found, _PELVIS), at_root(truth.poses, _PELVIS)), (found, truth.poses))
    return Score(*(100 * pck_by_group(distances(*pair)[:, _SCORED], truth.sequence, _LIMIT_M)
                   for pair in pairs))


def with_bone_lengths(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(N, 17, 3) poses found, each bone as long as the true one, from the pelvis outwards."""
    out = found.copy()
    for joint in _OUTWARDS:
        parent = MUPOTS17.parents[joint]
        bone, true_bone = (poses[:, joint] - poses[:, parent] for poses in (found, truth))
        length = np.linalg.norm(true_bone, axis=1) / np.linalg.norm(bone, axis=1)
        out[:, joint] = out[:, parent] + length[:, None] * bone
    return out


def statures(truth: Annotated, model: BodyModel) -> np.ndarray:
    """(N,) m: how tall our body is when its head, back, thigh and shin are as long, put end to end,
    as the person's are in the middle (median) of his frames; for where a height is to be known."""
    lengths = _end_to_end(truth.poses)
    usual, by_beta = _lengths_of(model)
    base, growth = (float(value) for value in (model.stature[0], model.stature[1][0]))
    out = np.empty(len(lengths))
    for someone in np.unique(np.c_[truth.sequence, truth.person], axis=0):
        his = (truth.sequence == someone[0]) & (truth.person == someone[1])
        out[his] = base + growth * (np.median(lengths[his]) - usual) / by_beta
    return out


def _lengths_of(model: BodyModel) -> tuple[float, float]:
    """m of the usual body, and by the first beta, its height."""
    betas = torch.zeros(2, 10, dtype=torch.float64)
    betas[1, 0] = 1
    rotmats = torch.eye(3).to(betas).expand(2, len(SMPL24), 3, 3)
    rig = model.rig(betas, MUPOTS17)
    usual, taller = _end_to_end(pose_rig(rig, rotmats, betas, betas[:, :3] * 0).keypoints.numpy())
    return float(usual), float(taller - usual)


def _end_to_end(poses: np.ndarray) -> np.ndarray:
    """(N,) m from the top of the head to the ankles along the bones."""
    ends = [(MUPOTS17.index(a), MUPOTS17.index(b), share) for a, b, share in _STATURE]
    return sum(share * np.linalg.norm(poses[:, a] - poses[:, b], axis=1) for a, b, share in ends)
