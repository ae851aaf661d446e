"""How well ids are kept: the measures of CLEAR MOT (Bernardin and Stiefelhagen 2008) and the
identity F1 score (Ristani et al. 2016), exactly.

A true and a found person can be the same in an image if they are alike by SAME_PERSON or more.
CLEAR MOT pairs them image by image: a pair of the image before stays as long as it can, the rest
are paired so that they are most alike in sum. IDF1 gives each true person one id for a whole
sequence, those that agree in most images.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from ros2_pose.metrics.matching import SAME_PERSON

_STAYS = 1000.0  # more than all the likenesses of an image together: pairs stay before all else


class FrameIds(NamedTuple):
    """One image: who is there, who was reported, and how alike they are."""

    truth: Sequence[Hashable]  # G ids, each once
    found: Sequence[Hashable]  # F ids, each once
    similarity: np.ndarray  # (G, F) 0..1


class Identities(NamedTuple):
    """Counts over images; those of several sequences add up."""

    true: int = 0  # true people, image by image
    found: int = 0  # people reported, image by image
    paired: int = 0
    switches: int = 0  # a true person's pair has another id than the pair before, however long ago
    fragmentations: int = 0  # a true person is paired again who was there, and not paired, between
    same: int = 0  # pairs that agree with the best one-to-one choice of ids

    def __add__(self, other: Identities) -> Identities:
        return Identities(*(a + b for a, b in zip(self, other)))

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


def count(frames: Sequence[FrameIds], least: float = SAME_PERSON) -> Identities:
    """The counts of one sequence; moments in the order of time."""
    true = sum(len(frame.truth) for frame in frames)
    found = sum(len(frame.found) for frame in frames)
    return Identities(true, found, *_clear(frames, least), _same(frames, least))


def _clear(frames: Sequence[FrameIds], least: float) -> tuple[int, int, int]:
    """Pairs, switches and fragmentations."""
    paired = switches = fragmentations = 0
    latest: dict[Hashable, Hashable] = {}  # true person: id of the pair last had
    before: dict[Hashable, Hashable] = {}  # the pairs of the image before
    missed: set[Hashable] = set()  # those who were there, and not paired, since their last pair
    for frame in frames:
        pairs = _pairs(frame, before, least)
        paired += len(pairs)
        for person, one in pairs.items():
            switches += person in latest and latest[person] != one
            fragmentations += person in latest and person in missed
        missed = (missed | set(frame.truth)) - pairs.keys()
        latest |= pairs
        before = pairs
    return paired, switches, fragmentations


def _pairs(frame: FrameIds, before: dict, least: float) -> dict[Hashable, Hashable]:
    """True person: id."""
    able = frame.similarity >= least
    stays = np.array([[before.get(person) == one for one in frame.found]
                      for person in frame.truth], bool).reshape(able.shape)
    worth = np.where(able, frame.similarity + _STAYS * stays, 0.0)
    return {frame.truth[g]: frame.found[f] for g, f in zip(*linear_sum_assignment(-worth))
            if able[g, f]}


def _same(frames: Sequence[FrameIds], least: float) -> int:
    """Images in which true people and ids can be the same, ids chosen for as many as can be."""
    people = {person: i for i, person in enumerate(dict.fromkeys(
        person for frame in frames for person in frame.truth))}
    ids = {one: i for i, one in enumerate(dict.fromkeys(
        one for frame in frames for one in frame.found))}
    together = np.zeros((len(people), len(ids)), int)
    for frame in frames:
        for g, f in zip(*np.nonzero(frame.similarity >= least)):
            together[people[frame.truth[g]], ids[frame.found[f]]] += 1
    return int(together[linear_sum_assignment(-together)].sum())
