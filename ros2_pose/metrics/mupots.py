"""The 3D score of MuPoTS-3D (Mehta et al. 2018), as the official MATLAB code computes it.

A joint is right within 150 mm of the truth; 14 joints count (without pelvis, spine and head). The
score is the mean of the sequences, and a person not found is wrong. Relative: both poses relative
to their pelvis; absolute: in the camera frame. The official code first gives the bones found the
true lengths, from the pelvis outwards. Papers print two kinds: "all", which is this, and "matched",
in which people not found do not count.
"""

from __future__ import annotations

import numpy as np

from ros2_pose.data.mupots import MupotsPeople
from ros2_pose.metrics.matching import greedy
from ros2_pose.metrics.pose import at_root, distances, pck_by_group
from ros2_pose.skeleton import MUPOTS17

_LIMIT_M = 0.15
_NEAR_PX = 40
_PELVIS = MUPOTS17.index("pelvis")
_SCORED = [i for i, name in enumerate(MUPOTS17.names) if name not in ("pelvis", "spine", "head")]
_IDENTIFYING = slice(1, 14)  # neck to ankles: the joints that people are matched by
# Parents before children, the order in which bones are given another length.
_OUTWARDS = [MUPOTS17.index(name) for name in (
    "spine", "neck", "head_top", "head",
    *(f"{side}_{joint}" for side in ("right", "left")
      for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")))]


def mupots_match(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Match true people to people found in a picture, by the official rule.

    Each true person in turn takes the person left with the most joints, neck to ankles, less than
    40 px off in u and in v; one joint is enough.

    Args:
        found (P, 17, 2), truth (G, 17, 2): px, order of MUPOTS17.

    Returns: (G,) row of `found`, -1 if none.
    """
    apart = np.abs(truth[:, None, _IDENTIFYING] - found[None, :, _IDENTIFYING]).max(-1)
    return greedy((apart < _NEAR_PX).sum(-1), np.zeros(len(truth)), 1)


def mupots_pck(found: np.ndarray, truth: MupotsPeople, rescale: bool = True,
               matched: bool = False) -> tuple[float, float]:
    """Relative and absolute PCK at 150 mm.

    Args:
        found (N, 17, 3): m, camera frame, order of MUPOTS17; NaN: not found.
        rescale: give the bones the true lengths first, as the official code does.
        matched: count only people found, in sequences where any was.

    Returns: PCK_rel and PCK_abs, %; NaN if no person counts.
    """
    counted = np.isfinite(found).any((1, 2)) if matched else np.ones(len(found), bool)
    if not counted.any():
        return float("nan"), float("nan")
    found, poses, sequence = found[counted], truth.poses[counted], truth.sequence[counted]
    found = with_bone_lengths(found, poses) if rescale else found
    relative = distances(at_root(found, _PELVIS), at_root(poses, _PELVIS))[:, _SCORED]
    absolute = distances(found, poses)[:, _SCORED]
    return (100 * pck_by_group(relative, sequence, _LIMIT_M),
            100 * pck_by_group(absolute, sequence, _LIMIT_M))


def with_bone_lengths(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(N, 17, 3) poses found, each bone with the length of the true one, from the pelvis outwards.

    Args:
        found (N, 17, 3), truth (N, 17, 3): m, order of MUPOTS17.
    """
    out = found.copy()
    for joint in _OUTWARDS:
        parent = MUPOTS17.parents[joint]
        bone = found[:, joint] - found[:, parent]
        true_bone = truth[:, joint] - truth[:, parent]
        length = np.linalg.norm(true_bone, axis=1) / np.linalg.norm(bone, axis=1)
        out[:, joint] = out[:, parent] + length[:, None] * bone
    return out


def median_by_person(values: np.ndarray, people: MupotsPeople) -> np.ndarray:
    """(N,) values (N,), each replaced by the median over all frames of the same person."""
    out = np.empty(len(values))
    for sequence, person in np.unique(np.c_[people.sequence, people.person], axis=0):
        frames = (people.sequence == sequence) & (people.person == person)
        out[frames] = np.median(values[frames])
    return out
