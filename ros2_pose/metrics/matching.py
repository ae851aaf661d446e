"""Who of the people found in a picture is who of the true ones, by their boxes.

Greedy by score and one to one, as COCO's evaluation does it: the surest detection chooses first,
and takes the true person left whose box is most like its own. So pairs and average precision rest
on one matching, and weak detections never change what strong ones are: an optimal assignment would
give a person to a weak double in order to please both.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ros2_pose.boxes import overlaps, shares_within
from ros2_pose.data.sample import Sample
from ros2_pose.people import People
from ros2_pose.skeleton import SMPL24

PELVIS, HIPS = SMPL24.index("pelvis"), (SMPL24.index("left_hip"), SMPL24.index("right_hip"))
SAME_PERSON = 0.5  # overlap of two boxes, COCO's AP50


class EvaluatedImage(NamedTuple):
    """What was found in a picture beside its truth: boxes in px, in both of the same picture."""

    found: People
    truth: People
    ignored: np.ndarray  # (M, 4) px: what is found there is not wrong
    complete: bool  # whether what is found elsewhere is

    @staticmethod
    def of(found: People, sample: Sample) -> EvaluatedImage:
        """Of a sample. True people without a box cannot be matched and are left out; as nobody
        knows where they are, nothing found besides the others is wrong then."""
        labelled = np.isfinite(sample.people.boxes).all(1)
        return EvaluatedImage(found, sample.people[labelled], sample.ignored,
                       bool(sample.complete and labelled.all()))

    @property
    def roots(self) -> tuple[np.ndarray, np.ndarray]:
        """(P, 3) and (G, 3) m where people found and true ones are in the camera frame, or NaN:
        the pelvis, or the middle of the hips in both if the truth has no other, as in most sets
        of joints but SMPL's."""
        truth = known(self.truth, "root", 3)
        if np.isfinite(truth).any():
            return known(self.found, "root", 3), truth
        return tuple(known(people, "joints", len(SMPL24), 3)[:, HIPS].mean(1)
                     for people in (self.found, self.truth))


def known(people: People, name: str, *shape: int) -> np.ndarray:
    """(P, *shape) a field of people, NaN where it is not there."""
    value = getattr(people, name)
    return np.full((len(people), *shape), np.nan) if value is None else np.asarray(value, float)


class Matching(NamedTuple):
    """Of P people found and G true ones."""

    partner: np.ndarray  # (P,) row of the true person, -1: none
    excused: np.ndarray  # (P,) bool, without a partner, but not wrong
    missed: np.ndarray  # rows of true people whom nobody found

    @property
    def pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows found and rows true, pair by pair."""
        rows = np.flatnonzero(self.partner >= 0)
        return rows, self.partner[rows]

    @property
    def false(self) -> np.ndarray:
        """Rows found where nobody is."""
        return np.flatnonzero((self.partner < 0) & ~self.excused)


def match(picture: EvaluatedImage, least: float = SAME_PERSON) -> Matching:
    """Match by intersection over union of at least `least`.

    Who is without a partner is excused in an incomplete picture, or if that share of its box lies
    in one box to ignore, as COCO has it for crowds: any number may.
    """
    found, truth = picture.found, picture.truth
    partner = greedy(overlaps(found.boxes, truth.boxes), found.scores, least)
    inside = (shares_within(found.boxes, picture.ignored) >= least).any(1)
    missed = np.setdiff1d(np.arange(len(truth)), partner)
    return Matching(partner, (partner < 0) & (inside | (not picture.complete)), missed)


def greedy(similarities: np.ndarray, scores: np.ndarray, least: float) -> np.ndarray:
    """(P,) column that each row of likeness (P, G) takes, -1: none; each column goes once.

    Rows choose in the order of scores (P,), ties as they come, the most alike column left of at
    least `least`.
    """
    similarities = np.asarray(similarities, float)
    if similarities.shape[:1] != np.shape(scores) or similarities.ndim != 2:
        raise ValueError(f"likeness is {similarities.shape}, scores are {np.shape(scores)}")
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
    """(P,) rows from the highest score to the lowest, ties as they come."""
    return np.argsort(-np.asarray(scores), kind="stable")
