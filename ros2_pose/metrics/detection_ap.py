"""Average precision of detections: by boxes (COCO) and by root positions (Moon et al. 2019).

Both rank the detections of all pictures by score and integrate precision over recall.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ros2_pose.metrics.matching import EvaluatedImage, by_score, match

WEAKEST = 0.02  # score threshold: average precision needs the weak detections, too
COCO_LIMITS = tuple(np.linspace(0.5, 0.95, 10).tolist())  # of intersection over union
_COCO_MOST = 100  # detections in a picture, the best
_COCO_RECALLS = np.linspace(0, 1, 101)
_ROOT_LIMIT_M = 0.25


def interpolated(hits: np.ndarray, scores: np.ndarray, total: int) -> float:
    """COCO's AP: mean over 101 recalls of the best precision at that recall or more.

    Args:
        hits (N,): bool, the detection is right.
        scores (N,): of the detections.
        total: number of true people.

    Returns: 0..1, NaN without true people.
    """
    if not total:
        return float("nan")
    precision, recall = _curve(hits, scores, total)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    index = np.searchsorted(recall, _COCO_RECALLS, side="left")
    return float(np.append(best, 0.0)[index].mean())


def plain(hits: np.ndarray, scores: np.ndarray, total: int) -> float:
    """AP without interpolation: mean over true people of the precision at which each is found.

    A person not found counts as 0. Arguments and result as in `interpolated`.
    """
    if not total:
        return float("nan")
    precision, _ = _curve(hits, scores, total)
    return float(precision[hits[by_score(scores)]].sum() / total)


def _curve(hits: np.ndarray, scores: np.ndarray, total: int) -> tuple[np.ndarray, np.ndarray]:
    """(N,) precision and (N,) recall with the best 1 to N detections."""
    if hits.shape != scores.shape or hits.ndim != 1:
        raise ValueError(f"hits are {hits.shape}, scores {scores.shape}")
    right = np.cumsum(hits[by_score(scores)])
    return right / np.arange(1, len(hits) + 1), right / total


# ---------------------------------------------------------------------------------- boxes


def of_boxes(pictures: Sequence[EvaluatedImage], least: float) -> float:
    """COCO's AP of boxes for one least overlap: one class, all sizes, the 100 best per picture."""
    judged = [_boxes(picture, least) for picture in pictures]
    return interpolated(*_joined(judged), sum(len(picture.truth) for picture in pictures))


def _boxes(picture: EvaluatedImage, least: float) -> tuple[np.ndarray, np.ndarray]:
    """(N,) bool and (N,): whether each counted detection is right, and its score."""
    partner, excused = match(picture, least)
    scores = picture.found.scores
    best = by_score(scores)[:_COCO_MOST]
    counted = best[~excused[best]]
    return partner[counted] >= 0, scores[counted]


# ----------------------------------------------------------------------------------- roots


def of_roots(pictures: Sequence[EvaluatedImage], limit: float = _ROOT_LIMIT_M) -> float:
    """AP_root_25: AP of roots within `limit` m of the truth (Moon et al. 2019), 0..1.

    Each detection is compared with the nearest true root; it is right if that is near and no
    detection with a higher score took it. As in the official code, pictures without a true root do
    not count. Two differences: the official code leaves out the very first detection, and it
    excuses none; here detections are excused that `match` excuses, or pairs with a person of
    unknown root.
    """
    there = [int(np.isfinite(picture.roots[1]).all(1).sum()) for picture in pictures]
    judged = [_roots(picture, limit) for picture, count in zip(pictures, there) if count]
    return plain(*_joined(judged), sum(there))


def _roots(picture: EvaluatedImage, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """As `_boxes`."""
    (positions, truth), scores = picture.roots, picture.found.scores
    hits = first_near(positions, truth, scores, limit)
    partner, excused = match(picture)
    paired = partner >= 0
    excused[paired] = np.isnan(truth[partner[paired]]).any(1)
    counted = hits | ~excused
    return hits[counted], scores[counted]


def first_near(found: np.ndarray, truth: np.ndarray, scores: np.ndarray,
               limit: float) -> np.ndarray:
    """(P,) bool: the position has the highest score of those nearest to the same true position.

    Args:
        found (P, 3), truth (G, 3): positions, m.
        scores (P,): of the positions found.
        limit: positions farther from the truth are not right, m.
    """
    apart = np.linalg.norm(found[:, None] - truth, axis=2)
    apart = np.where(np.isnan(apart), np.inf, apart)
    nearest, order = apart.argmin(1), by_score(scores)
    near = order[apart.min(1)[order] < limit]
    _, first = np.unique(nearest[near], return_index=True)
    hits = np.zeros(len(found), bool)
    hits[near[first]] = True
    return hits


def _joined(judged: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Concatenate the hits and scores of all pictures."""
    hits, scores = zip(*judged) if judged else ((), ())
    return np.concatenate([np.zeros(0, bool), *hits]), np.concatenate([np.zeros(0), *scores])
