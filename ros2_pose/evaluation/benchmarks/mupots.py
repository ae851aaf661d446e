"""MuPoTS-3D (Mehta et al. 2018): its annotated people, and its score in 3D.

The score is that of the official MATLAB code: 14 joints (without pelvis, spine and head) nearer
than 150 mm, by sequence, then the mean of the sequences; what was not found is wrong. Relative:
both poses about their pelvis; absolute: in the camera's frame. The official code gives the bones
found the true ones' lengths, from the pelvis outwards, before it looks. Papers print two kinds:
"all", which is this, and "matched", in which whoever was not found does not count.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ros2_pose.evaluation.metrics.matching import greedy
from ros2_pose.evaluation.metrics.pose import at_root, distances, pck_by_group
from ros2_pose.skeleton import MUPOTS17

SEQUENCES = range(1, 11)
_LIMIT_M = 0.15
_NEAR_PX = 40
_PELVIS = MUPOTS17.index("pelvis")
_SCORED = [i for i, name in enumerate(MUPOTS17.names) if name not in ("pelvis", "spine", "head")]
_SAME_PERSON = slice(1, 14)  # neck to ankles: the joints that say who is who
# Parents before children, as bones are made longer or shorter.
_OUTWARDS = [MUPOTS17.index(name) for name in (
    "spine", "neck", "head_top", "head",
    *(f"{side}_{joint}" for side in ("right", "left")
      for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")))]


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


def identities(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(G,) who of the people found in a picture each true one is, -1: nobody; (P | G, 17, 2) px.

    The official rule: one true person after the other takes whoever is left with most joints, neck
    to ankles, less than 40 px off in u and in v; one joint is enough.
    """
    apart = np.abs(truth[:, None, _SAME_PERSON] - found[None, :, _SAME_PERSON]).max(-1)
    return greedy((apart < _NEAR_PX).sum(-1), np.zeros(len(truth)), 1)


def score(found: np.ndarray, truth: Annotated, rescale: bool = True,
          matched: bool = False) -> Score:
    """Score poses (N, 17, 3) m, NaN: not found. rescale: as the official code does.

    matched: only those who were found, in sequences where anybody was.
    """
    counted = np.isfinite(found).any((1, 2)) if matched else np.ones(len(found), bool)
    if not counted.any():
        return Score(float("nan"), float("nan"))
    found, poses, sequence = found[counted], truth.poses[counted], truth.sequence[counted]
    found = with_bone_lengths(found, poses) if rescale else found
    pairs = ((at_root(found, _PELVIS), at_root(poses, _PELVIS)), (found, poses))
    return Score(*(100 * pck_by_group(distances(*pair)[:, _SCORED], sequence, _LIMIT_M)
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


def by_person(values: np.ndarray, truth: Annotated) -> np.ndarray:
    """(N,) values (N,), each replaced by the median of its person's frames."""
    out = np.empty(len(values))
    for someone in np.unique(np.c_[truth.sequence, truth.person], axis=0):
        his = (truth.sequence == someone[0]) & (truth.person == someone[1])
        out[his] = np.median(values[his])
    return out
