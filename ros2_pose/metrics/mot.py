"""CLEAR MOT (Bernardin and Stiefelhagen 2008) and the identity F1 score (Ristani et al. 2016).

A true and a found person may be paired in an image if their similarity is at least SAME_PERSON.
CLEAR MOT pairs people image by image: pairs of the image before are kept where possible, the rest
are assigned by the greatest sum of similarities. IDF1 assigns one id to each true person for the
whole sequence, by the greatest number of images in which they agree.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from ros2_pose.metrics.matching import SAME_PERSON

_STAYS = 1000.0  # more than all similarities of an image together: pairs are kept first of all


# One image: ids of the G people present and of the F reported, each once, and similarities (G, F),
# 0..1.
FrameIds = tuple[Sequence[Hashable], Sequence[Hashable], np.ndarray]


class Identities(NamedTuple):
    """Counts over images."""

    true: int = 0  # true people, image by image
    found: int = 0  # people reported, image by image
    paired: int = 0
    switches: int = 0  # a true person has another id than at his last pairing, however long ago
    fragmentations: int = 0  # a true person is paired again after being present but not paired
    same: int = 0  # pairs that agree with the best one-to-one assignment of ids

    @property
    def mota(self) -> float:
        """Multiple object tracking accuracy: 1 - (missed + false + switches) / true."""
        wrong = self.true + self.found - 2 * self.paired + self.switches
        return 1 - wrong / self.true if self.true else float("nan")

    @property
    def idf1(self) -> float:
        """Identity F1: 2 same / (true + found)."""
        everyone = self.true + self.found
        return 2 * self.same / everyone if everyone else float("nan")


def total(parts: Iterable[Identities]) -> Identities:
    """The sum of the counts of one or more sequences."""
    return Identities(*map(sum, zip(*parts)))


def count(frames: Sequence[FrameIds], least: float = SAME_PERSON) -> Identities:
    """Count the errors in one sequence; frames in temporal order, least: similarity of a pair."""
    true_count = sum(len(truth) for truth, _, _ in frames)
    found_count = sum(len(found) for _, found, _ in frames)
    return Identities(true_count, found_count, *_clear(frames, least), _same(frames, least))


def _clear(frames: Sequence[FrameIds], least: float) -> tuple[int, int, int]:
    """Pairs, switches and fragmentations."""
    paired = switches = fragmentations = 0
    latest: dict[Hashable, Hashable] = {}  # true person: id at the last pairing
    before: dict[Hashable, Hashable] = {}  # pairs of the image before
    missed: set[Hashable] = set()  # people present but not paired since their last pairing
    for truth, found, similarity in frames:
        pairs = _pairs(truth, found, similarity, before, least)
        paired += len(pairs)
        for person, one in pairs.items():
            switches += person in latest and latest[person] != one
            fragmentations += person in latest and person in missed
        missed = (missed | set(truth)) - pairs.keys()
        latest |= pairs
        before = pairs
    return paired, switches, fragmentations


def _pairs(truth: Sequence[Hashable], found: Sequence[Hashable], similarity: np.ndarray,
           before: dict, least: float) -> dict[Hashable, Hashable]:
    """Pairs of one image: id by true person."""
    able = similarity >= least
    stays = np.array([[before.get(person) == one for one in found]
                      for person in truth], bool).reshape(able.shape)
    worth = np.where(able, similarity + _STAYS * stays, 0.0)
    return {truth[g]: found[f] for g, f in zip(*linear_sum_assignment(-worth))
            if able[g, f]}


def _same(frames: Sequence[FrameIds], least: float) -> int:
    """Pairs that agree with the best one-to-one assignment of ids to people (IDTP)."""
    people = _numbered(person for truth, _, _ in frames for person in truth)
    ids = _numbered(one for _, found, _ in frames for one in found)
    together = np.zeros((len(people), len(ids)), int)
    for truth, found, similarity in frames:
        for g, f in zip(*np.nonzero(similarity >= least)):
            together[people[truth[g]], ids[found[f]]] += 1
    return int(together[linear_sum_assignment(-together)].sum())


def _numbered(names: Iterable[Hashable]) -> dict[Hashable, int]:
    """Numbers of different names, in the order of their first appearance."""
    return {name: number for number, name in enumerate(dict.fromkeys(names))}
