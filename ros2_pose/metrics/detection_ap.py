"""Average precision of people found, by their boxes as COCO has it, by their places as Moon has it.

Both rank what was found in all pictures by score, and look how precision falls as recall grows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ros2_pose.metrics.matching import EvaluatedImage, by_score, match

COCO_LIMITS = tuple(np.linspace(0.5, 0.95, 10).tolist())  # of intersection over union
_COCO_MOST = 100  # detections in a picture, the best
_COCO_RECALLS = np.linspace(0, 1, 101)
_ROOT_LIMIT_M = 0.25


def interpolated(hits: np.ndarray, scores: np.ndarray, total: int) -> float:
    """COCO's AP of detections that are right or not, hits (N,) bool, among `total` true people.

    The mean over 101 recalls of the best precision at that recall or more; NaN of nobody.
    """
    if not total:
        return float("nan")
    precision, recall = _curve(hits, scores, total)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    index = np.searchsorted(recall, _COCO_RECALLS, side="left")
    return float(np.append(best, 0.0)[index].mean())


def plain(hits: np.ndarray, scores: np.ndarray, total: int) -> float:
    """The area under the curve as it is: the mean over true people of the precision at which each
    is found, 0 for who is not; NaN of nobody."""
    if not total:
        return float("nan")
    precision, _ = _curve(hits, scores, total)
    return float(precision[hits[by_score(scores)]].sum() / total)


def _curve(hits: np.ndarray, scores: np.ndarray, total: int) -> tuple[np.ndarray, np.ndarray]:
    """(N,) precision and recall as one detection after the other is let in."""
    if hits.shape != scores.shape or hits.ndim != 1:
        raise ValueError(f"hits are {hits.shape}, scores {scores.shape}")
    right = np.cumsum(hits[by_score(scores)])
    return right / np.arange(1, len(hits) + 1), right / total


# ---------------------------------------------------------------------------------- boxes


def of_boxes(pictures: Sequence[EvaluatedImage], least: float) -> float:
    """COCO's AP of boxes at one overlap: one class, all sizes, the 100 best of each picture."""
    judged = [_boxes(picture, least) for picture in pictures]
    return interpolated(*_joined(judged), sum(len(picture.truth) for picture in pictures))


def _boxes(picture: EvaluatedImage, least: float) -> tuple[np.ndarray, np.ndarray]:
    """(N,) whether each detection that counts is right, and its score."""
    matching, scores = match(picture, least), picture.found.scores
    best = by_score(scores)[:_COCO_MOST]
    counted = best[~matching.excused[best]]
    return matching.partner[counted] >= 0, scores[counted]


# ---------------------------------------------------------------------------------- places


def of_roots(pictures: Sequence[EvaluatedImage], limit: float = _ROOT_LIMIT_M) -> float:
    """AP_root_25: AP of pelvises nearer than 25 cm to the truth (Moon et al. 2019).

    A detection goes for the true pelvis nearest to it, taken or not, and is right if that is near
    and was not taken by a surer one. As in the official code pictures without a true pelvis do not
    count; but that code leaves out the very first detection, which makes its figure lower by 1 of
    all people at most, and it excuses nobody. Here detections are excused that `match` excuses or
    pairs with a person whose place is not known.
    """
    there = [int(np.isfinite(picture.roots[1]).all(1).sum()) for picture in pictures]
    judged = [_roots(picture, limit) for picture, count in zip(pictures, there) if count]
    return plain(*_joined(judged), sum(there))


def _roots(picture: EvaluatedImage, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """As `_boxes`."""
    (positions, truth), scores = picture.roots, picture.found.scores
    hits = first_near(positions, truth, scores, limit)
    matching = match(picture)
    excused = matching.excused.copy()
    found, partner = matching.pairs
    excused[found] = np.isnan(truth[partner]).any(1)
    counted = hits | ~excused
    return hits[counted], scores[counted]


def first_near(found: np.ndarray, truth: np.ndarray, scores: np.ndarray,
               limit: float) -> np.ndarray:
    """(P,) bool, whether a place found (P, 3) is the surest of those that are nearest to the same
    true place (G, 3), and nearer than a limit."""
    apart = np.linalg.norm(found[:, None] - truth, axis=2)
    apart = np.where(np.isnan(apart), np.inf, apart)
    nearest, order = apart.argmin(1), by_score(scores)
    near = order[apart.min(1)[order] < limit]
    _, first = np.unique(nearest[near], return_index=True)
    hits = np.zeros(len(found), bool)
    hits[near[first]] = True
    return hits


def _joined(judged: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Of all pictures."""
    hits, scores = zip(*judged) if judged else ((), ())
    return np.concatenate([np.zeros(0, bool), *hits]), np.concatenate([np.zeros(0), *scores])
