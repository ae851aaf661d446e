"""People found in the whole picture, then refined one by one in crops.

    picture ── finders ──┬── proposals ── crops ── refiner ── suppression ── people
    tracks, predicted ───┘

Finders propose people in the whole picture: any network of the package with keypoints, a detector
with boxes alone. Tracking proposes the people that it follows, so that finders need not search each
image. The refiner sees a crop of each, guided by the proposed keypoints: that keeps it from
reporting a neighbour in the same crop.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

import numpy as np
import torch

from ros2_pose import oks
from ros2_pose.boxes import overlaps
from ros2_pose.config import PoseConfig
from ros2_pose.imaging.crop import Crop, crop_person
from ros2_pose.networks.base import Finder, PoseNetwork
from ros2_pose.networks.refiner import Guide, Refined
from ros2_pose.networks.registry import create_finder, create_refiner
from ros2_pose.people import Frame, People, concatenated

log = logging.getLogger(__name__)

_WEAK = 0.05  # score from which a finder's people are refined
_SAME_BOX = 0.6  # overlap from which a box is of a person proposed with keypoints or followed
_SAME_PERSON = 0.5  # OKS from which a person found is one that is followed
_CLEAR = 0.127  # least score of keypoints that count in a person's score, as in MoveNet
_LEAST_CLEAR = 6  # keypoints; of fewer clear ones the mean is taken as of so many
_BOX_SCORE = 0.5  # worth of a detector's score, in proposal scores of people with keypoints
_MISSED = 0.8  # factor of a followed person's proposal score for a search that misses the person
_MARGIN = 0.1  # lengths of the hull of the keypoints, by which a box is larger
_HULL_WEIGHT = 0.15  # of the hull in a followed person's box


class Proposals(NamedTuple):
    """People proposed to the refiner; P in all, the first F of them are followed.

    Attributes:
        people (P,): with `DETECTED` fields; boxes alone have NaN keypoints.
        followed: F.
    """

    people: People
    followed: int


class TopDown(PoseNetwork):
    """Finders and a refiner, which the settings `finders` and `refiner` name."""

    def __init__(self, config: PoseConfig = PoseConfig(),
                 device: torch.device | str = "cpu") -> None:
        """Load the networks.

        Args:
            config: settings; read are `finders`, `refiner` and those of each of these networks.
            device: torch device that the networks compute on.
        """
        searches = [create_finder(name, config, device).searches() for name in config.finders]
        # Part k of the search is the k-th part of each finder that has so many.
        self._parts: list[list[Finder]] = [
            [parts[k] for parts in searches if k < len(parts)]
            for k in range(max(map(len, searches)))]
        self.refiner = create_refiner(config, device)
        super().__init__(config, device)

    @classmethod
    def title(cls, config: PoseConfig) -> str:
        """Return the networks and scales, e.g. "movenet, nanodet at 256, 512 px, thunder"."""
        scales = ", ".join(map(str, config.scales))
        return f"{', '.join(config.finders)} at {scales} px, {config.refiner}"

    def configure(self, score_threshold: float, max_people: int) -> None:
        """Set what may change while running; finders keep weak people, which the refiner judges."""
        super().configure(score_threshold, max_people)
        for finder in (finder for part in self._parts for finder in part):
            finder.configure(min(score_threshold, _WEAK), max_people)

    @property
    def search_parts(self) -> int:
        """Number of parts of the search: that of the finder with the most parts."""
        return len(self._parts)

    def find_people(self, frames: list[Frame]) -> list[People]:
        """Find and refine the people of each frame; see `PoseNetwork.detect`."""
        found = []
        for frame, proposals in zip(frames, self.propose(frames)):
            people = self.refine(frame, proposals)
            keep = oks.suppress(people.keypoints, oks.area(people.boxes), people.scores,
                                self.score_threshold)
            found.append(people[keep[:self.max_people]])
        return found

    # ------------------------------------------------------------------------------ proposals

    def propose(self, frames: list[Frame]) -> list[Proposals]:
        """Run the parts of the search that each frame asks for; join them with people followed."""
        found: list[list[People]] = [[] for _ in frames]
        for number, finders in enumerate(self._parts):
            asking = [i for i, f in enumerate(frames) if f.search is None or number in f.search]
            for finder in finders if asking else ():
                for i, people in zip(asking, finder.find_people([frames[i] for i in asking])):
                    found[i].append(people)
        return [_joined(frame.expected or People.nobody(), parts)
                for frame, parts in zip(frames, found)]

    # --------------------------------------------------------------------------------- refine

    def refine(self, frame: Frame, proposals: Proposals) -> People:
        """Return the people proposed as their crops show them, before suppression.

        A person of whom there is no crop, or for whom the refiner fails, stays as proposed if the
        keypoints are known.
        """
        refined = [self._refined(frame, proposals.people[[row]], row < proposals.followed)
                   for row in range(len(proposals.people))]
        people = concatenated(refined) if refined else People.nobody()
        return people[np.isfinite(people.keypoints).all((1, 2))]

    def _refined(self, frame: Frame, person: People, followed: bool) -> People:
        """A proposed person (1,) as the crop shows it; as proposed if that is not possible."""
        crop = crop_person(frame, person.boxes[0], self.refiner.long_side)
        if crop is None:
            return person
        found = self.refiner.refine([crop.image], [_guide(person, crop)])[0]
        return self._as_person(person, followed, crop, found)

    def _as_person(self, person: People, followed: bool, crop: Crop, found: Refined) -> People:
        """A person (1,) in px of the picture with what the refiner found in the crop."""
        keypoints, votes_cov = crop.to_picture(found.keypoints, found.votes_cov)
        if not (np.isfinite(keypoints).all() and np.isfinite(votes_cov).all()):
            return person  # the lens does not reach so far
        box = person.boxes[0]
        if followed:
            box = _moved_box(box, person.keypoints[0], keypoints, found.keypoint_scores)
        cov = self.refiner.noise.cov(votes_cov, oks.area(box))
        assert person.proposal_scores is not None
        guided = bool(np.isfinite(person.keypoints).all())
        score = _score(person.proposal_scores[0], guided, found)
        return People(box[None], np.array([score]), keypoints[None], cov[None],
                      found.keypoint_scores[None], proposal_scores=person.proposal_scores)


def _joined(expected: People, parts: list[People]) -> Proposals:
    """Join the people followed, those found with keypoints and boxes alone; each person once."""
    found = concatenated([People.nobody(), *parts])
    is_box = np.isnan(found.keypoints).any((1, 2))
    found = found.with_fields(proposal_scores=np.where(is_box, _BOX_SCORE, 1.0) * found.scores)
    posed, boxes = found[~is_box], found[is_box]
    posed = posed[oks.suppress(posed.keypoints, oks.area(posed.boxes), posed.scores, 0.0)]

    same = oks.similarity(expected.keypoints[:, None], posed.keypoints[None],
                          oks.area(expected.boxes)[:, None]) >= _SAME_PERSON
    same_box = overlaps(boxes.boxes, expected.boxes).T > _SAME_BOX
    if parts and len(expected):
        expected = _confirmed(expected, posed, same, boxes, same_box)
    known = concatenated([expected, posed[~same.any(0)]]) if len(expected) else posed
    is_new = ~(overlaps(boxes.boxes, known.boxes) > _SAME_BOX).any(1)
    return Proposals(concatenated([known, boxes[is_new]]), len(expected))


def _confirmed(expected: People, posed: People, same: np.ndarray, boxes: People,
               same_box: np.ndarray) -> People:
    """People followed (F,), after a search: with the scores and boxes of those it found.

    Args:
        posed (N,): people found with keypoints; same (F, N): whether they are a person followed.
        boxes (M,): found alone; same_box (F, M): whether they are of a person followed.
    """
    assert expected.proposal_scores is not None
    assert posed.proposal_scores is not None and boxes.proposal_scores is not None
    found_scores = np.concatenate([posed.proposal_scores, boxes.proposal_scores])
    weights = np.where(np.concatenate([same, same_box], 1), found_scores, 0.0)
    best = weights.max(1, initial=0.0)
    is_found = best > 0
    before = expected.proposal_scores
    scores = np.where(is_found, (before + best) / 2, _MISSED * before)
    return expected.with_fields(proposal_scores=scores)


def _guide(person: People, crop: Crop) -> Guide:
    """What the refiner is told of a proposed person (1,), px of the crop."""
    keypoints, cov = crop.from_picture(person.keypoints[0], person.keypoint_cov[0])
    std = np.sqrt(np.trace(cov, axis1=-2, axis2=-1) / 2)
    middle = crop.from_picture((person.boxes[0, :2] + person.boxes[0, 2:]) / 2)
    return Guide(keypoints, std, middle)


def _score(proposal_score: float, guided: bool, found: Refined) -> float:
    """Return a person's score, 0..1: of the proposal and of the clear keypoints.

    A person proposed as a box alone also needs a clear centre.
    """
    clear = found.keypoint_scores > _CLEAR
    mean = found.keypoint_scores[clear].sum() / max(int(clear.sum()), _LEAST_CLEAR)
    return float(np.sqrt(proposal_score * mean * (1.0 if guided else found.center_score)))


def _moved_box(box: np.ndarray, before: np.ndarray, now: np.ndarray,
               scores: np.ndarray) -> np.ndarray:
    """Move and scale a box (4,) as the keypoints (17, 2) have moved, px.

    The hull of the keypoints draws it a little each time, so that errors do not add up.
    """
    clear = scores > _CLEAR
    if clear.sum() < 3:
        return box
    before, now = before[clear], now[clear]
    spread_before, spread_now = (float(np.linalg.norm(p - p.mean(0))) for p in (before, now))
    scale = np.clip(spread_now / max(spread_before, 1e-6), 0.8, 1.25)
    corners = (box.reshape(2, 2) - before.mean(0)) * scale + now.mean(0)
    hull = np.stack([now.min(0), now.max(0)])
    hull += _MARGIN * (hull[1] - hull[0]).max() * np.array([[-1.0], [1.0]])
    return ((1 - _HULL_WEIGHT) * corners + _HULL_WEIGHT * hull).ravel()
