"""Match the people found in a picture to the true ones by their boxes.

Greedy by score and one to one, as in COCO's evaluation: the detection with the highest score takes
the remaining true person with the greatest overlap. Pairs and average precision rest on this one
matching, in which weak detections never change the matches of strong ones; an optimal assignment
could give a person to a weak duplicate.
"""

from __future__ import annotations

import numpy as np

from ros2_pose.boxes import overlaps, shares_within
from ros2_pose.data.sample import Sample
from ros2_pose.people import People
from ros2_pose.skeleton import SMPL24

PELVIS, HIPS = SMPL24.index("pelvis"), (SMPL24.index("left_hip"), SMPL24.index("right_hip"))
SAME_PERSON = 0.5  # overlap of two boxes, COCO's AP50


class EvaluatedImage:
    """People found in a picture and its ground truth, boxes in px of the same picture."""

    def __init__(self, found: People, truth: People, ignored: np.ndarray, complete: bool) -> None:
        """Put both side by side.

        Args:
            found, truth: people.
            ignored: (M, 4) px, boxes in which detections are not wrong.
            complete: all people are labelled: other detections are wrong.
        """
        self.found, self.truth = found, truth
        self.ignored, self.complete = ignored, complete

    @staticmethod
    def of(found: People, sample: Sample) -> EvaluatedImage:
        """Combine detections with a sample.

        True people without a box cannot be matched and are left out; the picture then counts as
        incomplete.
        """
        labelled = np.isfinite(sample.people.boxes).all(1)
        return EvaluatedImage(found, sample.people[labelled], sample.ignored,
                       bool(sample.complete and labelled.all()))

    @property
    def roots(self) -> tuple[np.ndarray, np.ndarray]:
        """(P, 3) and (G, 3) m, camera frame: roots of the people found and of the true ones.

        The pelvis; in both the middle of the hips if the truth has no pelvis, as in most joint
        sets other than SMPL's. NaN: unknown.
        """
        truth = known(self.truth, "root", 3)
        if np.isfinite(truth).any():
            return known(self.found, "root", 3), truth
        return _hips(self.found), _hips(self.truth)


def _hips(people: People) -> np.ndarray:
    """(P, 3) m: middle of the hips."""
    return known(people, "joints", len(SMPL24), 3)[:, HIPS].mean(1)


def known(people: People, name: str, *shape: int) -> np.ndarray:
    """(P, *shape) values of a field of people; NaN if they do not have it."""
    value = getattr(people, name)
    return np.full((len(people), *shape), np.nan) if value is None else np.asarray(value, float)


def match(picture: EvaluatedImage,
          least: float = SAME_PERSON) -> tuple[np.ndarray, np.ndarray]:
    """Match by intersection over union of at least `least`.

    A detection without a partner is excused in an incomplete picture, or if at least this share of
    its box lies in an ignored box, as for crowds in COCO; any number may be.

    Returns: for P people found, the row (P,) of the true person, -1: none; and (P,) bool, excused:
        without a partner, but not wrong.
    """
    found, truth = picture.found, picture.truth
    partner = greedy(overlaps(found.boxes, truth.boxes), found.scores, least)
    inside = (shares_within(found.boxes, picture.ignored) >= least).any(1)
    return partner, (partner < 0) & (inside | (not picture.complete))


def matched_pairs(picture: EvaluatedImage) -> tuple[np.ndarray, np.ndarray]:
    """Rows (M,) of people found and rows (M,) of their true partners."""
    partner, _ = match(picture)
    rows = np.flatnonzero(partner >= 0)
    return rows, partner[rows]


def greedy(similarities: np.ndarray, scores: np.ndarray, least: float) -> np.ndarray:
    """Assign columns to rows one to one, rows with higher scores first.

    Args:
        similarities (P, G), scores (P,): ties keep their order.
        least: a row takes the remaining column of greatest similarity, if it is at least this.

    Returns: (P,) column of each row, -1: none.
    """
    similarities = np.asarray(similarities, float)
    if similarities.shape[:1] != np.shape(scores) or similarities.ndim != 2:
        raise ValueError(f"similarities are {similarities.shape}, scores are {np.shape(scores)}")
    partner = np.full(len(similarities), -1)
    if not similarities.size:
        return partner
    left = np.where(similarities >= least, similarities, -np.inf)
    for row in by_score(scores):
        best = left[row].argmax()
        if np.isfinite(left[row, best]):
            partner[row], left[:, best] = best, -np.inf
    return partner


def by_score(scores: np.ndarray) -> np.ndarray:
    """(P,) rows from the highest score to the lowest; ties keep their order."""
    return np.argsort(-np.asarray(scores), kind="stable")
