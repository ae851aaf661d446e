"""Scores of a network for detection, keypoints and bodies, on pictures with ground truth.

Protocol, the same for every network and every dataset:

- boxes: COCO's average precision, one class, all sizes; weak detections are needed.
- people are matched by boxes, greedily by score, at an overlap of 0.5 (see `metrics.matching`).
- keypoints: those labelled as visible, of matched people. Errors and the uncertainties ranked
  against them are in % of the diagonal of the true box, so that the size of people alone gives no
  correlation. NLL is of errors in px.
- bodies: the 24 joints of the skeleton that the truth has, both poses relative to their roots
  (MPJPE), or after similarity alignment (PA-MPJPE); vertices of our body model (PVE). This is not
  the protocol of 14 regressed joints in most papers on 3DPW.
- roots: the pelvis, or the middle of the hips in both poses if the truth has no SMPL pelvis.
- PCK at 150 mm of those joints, of matched people, and of all people, where a missed person is
  wrong; relative to the root, or absolute in the camera frame. Bones keep the lengths found.
- What a network does not report is left out of means; counts tell how much was measured. A figure
  without ground truth or answer is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from ros2_pose.body.model import BodyModel
from ros2_pose.data.sample import VISIBLE, Samples
from ros2_pose.metrics import detection_ap
from ros2_pose.metrics.matching import HIPS, PELVIS, EvaluatedImage, known, matched_pairs
from ros2_pose.metrics.pose import (
    at_root,
    coverage,
    distances,
    gaussian_nll,
    mpjpe,
    mrpe,
    pa_mpjpe,
    pve,
    rank_correlation,
)
from ros2_pose.people import Frame, People

_NAN = float("nan")
_MM = 1000
_PCK_LIMIT_M = 0.15
_AT_ONCE = 64  # bodies with all their vertices

Detect = Callable[[list[Frame]], list[People]]


@dataclass(frozen=True)
class Scores:
    """Scores of a network by the module's protocol; NaN: no ground truth, or no answer."""

    people: int  # true ones with a box
    matched: int
    keypoints: int  # visible ones of matched people
    keypoints_found: int
    bodies: int  # true people with known joints
    bodies_found: int  # those that mpjpe is of
    ap: float  # 0..1, mean over overlaps .50:.05:.95
    ap50: float
    keypoint_error: float = _NAN  # %, mean
    keypoint_error_median: float = _NAN
    uncertainty_rank: float = _NAN  # Spearman's, -1..1, root of the covariance's trace with error
    coverage_68: float = _NAN  # 0..1
    coverage_95: float = _NAN
    nll: float = _NAN  # nats, of px
    mpjpe: float = _NAN  # mm, as the next ones
    pa_mpjpe: float = _NAN
    pve: float = _NAN
    baseline_mpjpe: float = _NAN  # the mean pose's, on the people of mpjpe
    baseline_pa_mpjpe: float = _NAN
    mrpe: float = _NAN  # mm, distance of roots, and its parts
    mrpe_x: float = _NAN
    mrpe_y: float = _NAN
    mrpe_z: float = _NAN
    ap_root_25: float = _NAN  # %, as the next ones
    pck_rel: float = _NAN  # of all people
    pck_abs: float = _NAN
    pck_rel_matched: float = _NAN  # of people found
    pck_abs_matched: float = _NAN


class _Facts(NamedTuple):
    """What is known of N people of many pictures; NaN: unknown."""

    boxes: np.ndarray  # (N, 4) px
    keypoints: np.ndarray  # (N, 17, 2) px
    keypoint_cov: np.ndarray  # (N, 17, 2, 2) px^2
    keypoint_scores: np.ndarray  # (N, 17)
    joints: np.ndarray  # (N, 24, 3) m, camera frame
    theta: np.ndarray  # (N, 24, 4) quaternions
    betas: np.ndarray  # (N, 10)
    root: np.ndarray  # (N, 3) m, camera frame

    @staticmethod
    def of(people: People) -> _Facts:
        return _Facts(*(known(people, name, *shape) for name, shape in _SHAPES.items()))

    @staticmethod
    def joined(parts: list[_Facts]) -> _Facts:
        return _Facts(*map(np.concatenate, zip(_Facts.of(People.nobody()), *parts)))

    def at(self, positions: np.ndarray, rows: np.ndarray, count: int) -> _Facts:
        """Those of some rows, put at their positions among `count` people; NaN elsewhere."""
        out = _Facts(*(np.full((count, *value.shape[1:]), np.nan) for value in self))
        for value, target in zip(self, out):
            target[positions] = value[rows]
        return out


_SHAPES = dict(zip(_Facts._fields, (
    (4,), (17, 2), (17, 2, 2), (17,), (24, 3), (24, 4), (10,), (3,))))


def evaluate(detect: Detect, samples: Samples, body: BodyModel | None = None,
             training_joints: np.ndarray | None = None, batch: int = 1) -> Scores:
    """Score a network.

    Args:
        detect: from frames to one `People` for each, low scores included; all but boxes optional.
        body: gives the vertices for theta and betas, of both; None: the shipped model.
        training_joints (N, 24, 3): m, their mean pose is the baseline; None: joints of the people
            evaluated, which gives the best constant pose for them.
        batch: number of frames given to `detect` together.
    """
    pictures = list(_pictures(detect, samples, batch))
    found, truth = _side_by_side(pictures)
    matched = np.isfinite(found.boxes).all(1)
    seen = matched[:, None] & (truth.keypoint_scores == VISIBLE) \
        & np.isfinite(truth.keypoints).all(2)
    aps = [detection_ap.of_boxes(pictures, limit) for limit in detection_ap.COCO_LIMITS]
    return Scores(
        people=len(matched), matched=int(matched.sum()), keypoints=int(seen.sum()),
        keypoints_found=int(np.isfinite(found.keypoints[seen]).all(1).sum()),
        bodies=int(np.isfinite(_errors(truth.joints, truth.joints)).sum()),
        bodies_found=int(np.isfinite(_errors(found.joints, truth.joints)).sum()),
        ap=float(np.mean(aps)), ap50=aps[0],
        **_of_keypoints(found, truth, seen), **_of_poses(found, truth, training_joints),
        **_of_surfaces(found, truth, body), **_of_roots(pictures, found, truth),
        **_pck(found, truth, matched))


def mean_pose(joints: np.ndarray) -> np.ndarray:
    """(24, 3) m relative to the root, camera axes: the constant pose of least squared error.

    Args:
        joints (N, 24, 3): m, camera frame; a joint unknown (NaN) in all people is NaN.
    """
    about, _ = _about_roots(joints, joints)
    count = np.isfinite(about).sum(0)
    return np.where(count, np.nansum(about, 0) / np.maximum(count, 1), np.nan)


# -------------------------------------------------------------------------------- people


def _pictures(detect: Detect, samples: Samples, batch: int) -> Iterator[EvaluatedImage]:
    """Detections and ground truth of each picture, without the images."""
    for low in tqdm(range(0, len(samples), batch), "evaluating", unit="batch", leave=False):
        some = [samples[number] for number in range(low, min(low + batch, len(samples)))]
        answers = detect([sample.frame for sample in some])
        if len(answers) != len(some):
            raise ValueError(f"{len(answers)} answers to {len(some)} frames")
        yield from map(EvaluatedImage.of, answers, some)


def _side_by_side(pictures: list[EvaluatedImage]) -> tuple[_Facts, _Facts]:
    """What was found of each of N true people (NaN: missed), and the truth."""
    found, truth = [], []
    for picture in pictures:
        rows, partner = matched_pairs(picture)
        positions, true_positions = picture.roots
        facts = _Facts.of(picture.found)._replace(root=positions)
        truth.append(_Facts.of(picture.truth)._replace(root=true_positions))
        found.append(facts.at(partner, rows, len(picture.truth)))
    return _Facts.joined(found), _Facts.joined(truth)


def _about_roots(found: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both poses (N, 24, 3) m relative to their roots: the pelvis, if the truth has it, or hips."""
    has_pelvis = np.isfinite(np.asarray(truth)[:, [PELVIS]]).all(2, keepdims=True)
    relative = [np.where(has_pelvis, at_root(poses, PELVIS), at_root(poses, *HIPS))
                for poses in (found, truth)]
    return relative[0], relative[1]


def _errors(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(N,) m MPJPE."""
    return mpjpe(*_about_roots(found, truth))


def _mean(values: np.ndarray, factor: float = 1) -> float:
    """Mean of the known values, times a factor."""
    values = values[np.isfinite(values)]
    return float(factor * values.mean()) if values.size else _NAN


# ------------------------------------------------------------------------------- figures


def _of_keypoints(found: _Facts, truth: _Facts, seen: np.ndarray) -> dict[str, float]:
    diagonal = np.linalg.norm(truth.boxes[:, 2:] - truth.boxes[:, :2], axis=1)
    percent = 100 / np.broadcast_to(diagonal[:, None], seen.shape)[seen]
    error = (found.keypoints - truth.keypoints)[seen]
    cov = found.keypoint_cov[seen]
    cov[~cov.any((1, 2))] = np.nan  # all zero: the network states no covariance
    size = percent * np.linalg.norm(error, axis=1)
    deviation = percent * np.sqrt(np.trace(cov, axis1=1, axis2=2))
    measured = size[np.isfinite(size)]
    return {"keypoint_error": _mean(size),
            "keypoint_error_median": float(np.median(measured)) if measured.size else _NAN,
            "uncertainty_rank": rank_correlation(deviation, size),
            "coverage_68": coverage(error, cov, 0.68),
            "coverage_95": coverage(error, cov, 0.95),
            "nll": gaussian_nll(error, cov)}


def _of_poses(found: _Facts, truth: _Facts,
              training_joints: np.ndarray | None) -> dict[str, float]:
    error = _errors(found.joints, truth.joints)
    rows = np.isfinite(error)
    if not rows.any():
        return {}
    truths = truth.joints[rows]
    pose = mean_pose(truths if training_joints is None else training_joints)
    baseline = np.tile(pose, (len(truths), 1, 1))
    return {"mpjpe": _mean(error, _MM),
            "pa_mpjpe": _mean(pa_mpjpe(found.joints, truth.joints), _MM),
            "baseline_mpjpe": _mean(_errors(baseline, truths), _MM),
            "baseline_pa_mpjpe": _mean(pa_mpjpe(baseline, truths), _MM)}


@torch.inference_mode()
def _of_surfaces(found: _Facts, truth: _Facts, body: BodyModel | None) -> dict[str, float]:
    states = [np.c_[facts.theta.reshape(-1, 96), facts.betas] for facts in (found, truth)]
    rows = np.flatnonzero(np.isfinite(np.c_[tuple(states)]).all(1))
    if not len(rows):
        return {}
    body = body or BodyModel.load()
    errors = [_surface_errors(body, *(state[rows[low:low + _AT_ONCE]] for state in states))
              for low in range(0, len(rows), _AT_ONCE)]
    return {"pve": _mean(np.concatenate(errors), _MM)}


def _surface_errors(body: BodyModel, found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(B,) m: per-vertex errors of bodies (B, 106), theta and betas in one row."""
    surfaces = []
    for state in (found, truth):
        state = torch.from_numpy(state).to(body.template)
        out = body(state[:, :96].reshape(-1, 24, 4), state[:, 96:])
        surfaces.append((out.vertices.cpu().numpy(), out.joints[:, 0].cpu().numpy()))
    (ours, our_root), (theirs, their_root) = surfaces
    return pve(ours, theirs, our_root, their_root)


def _of_roots(pictures: list[EvaluatedImage], found: _Facts, truth: _Facts) -> dict[str, float]:
    if not any(np.isfinite(picture.roots[0]).any() for picture in pictures):
        return {}
    distance, x, y, z = (_MM * mrpe(found.root, truth.root)).tolist()
    return {"mrpe": distance, "mrpe_x": x, "mrpe_y": y, "mrpe_z": z,
            "ap_root_25": 100 * detection_ap.of_roots(pictures)}


def _pck(found: _Facts, truth: _Facts, matched: np.ndarray) -> dict[str, float]:
    if not np.isfinite(found.joints).any():
        return {}
    labelled = np.isfinite(truth.joints).all(2)
    pairs = {"rel": _about_roots(found.joints, truth.joints),
             "abs": (found.joints, truth.joints)}
    out = {}
    for name, pair in pairs.items():
        distance = distances(*pair)
        for suffix, counted in ("", labelled), ("_matched", labelled & matched[:, None]):
            near = (distance[counted] < _PCK_LIMIT_M).astype(float)
            out[f"pck_{name}{suffix}"] = _mean(near, 100)
    return out
