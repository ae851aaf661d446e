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
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from ros2_pose import oks
from ros2_pose.boxes import overlaps
from ros2_pose.config import PoseConfig
from ros2_pose.errors import one_line
from ros2_pose.imaging.crop import Crop, crop_person
from ros2_pose.networks.base import Finder, PoseNetwork
from ros2_pose.networks.keypoint_noise import KeypointNoise
from ros2_pose.networks.refiner import Guide, Refined, joints_in_camera, refine_each
from ros2_pose.networks.registry import create_finder, create_refiner, is_trained
from ros2_pose.people import Frame, People, concatenated

log = logging.getLogger(__name__)

_LEAST_FOUND = 20  # people that a finder may propose, however few are reported
_WEAK = 0.05  # score from which a finder's people are refined
_SAME_BOX = 0.6  # overlap from which a box is of a person proposed with keypoints or followed
_SAME_PERSON = 0.5  # OKS from which a person found is one that is followed
_CLEAR = 0.127  # least score of keypoints that count in a person's score, as in MoveNet
_LEAST_CLEAR = 6  # keypoints; of fewer clear ones the mean is taken as of so many
_BOX_SCORE = 0.5  # worth of a detector's score, in proposal scores of people with keypoints
_CALIBRATION = 0.88  # with it, 95 % of the people of a score of at least 0.3 are people
_MISSED = 0.8  # factor of a followed person's proposal score for a search that misses the person
_WEAK_NEW = 0.1  # the same while people are followed
_MOST_FOLLOWED, _MOST_NEW = 8, 2  # crops a frame while people are followed
_MARGIN = 0.1  # lengths of the hull of the keypoints, by which a box is larger
_HULL_WEIGHT = 0.15  # of the hull in a followed person's box
_NOBODY = People.nobody().with_fields(proposal_parts=np.zeros(0))


class Proposals(NamedTuple):
    """People proposed to the refiner; P in all, the first F of them are followed.

    Attributes:
        people (P,): predicted or found; boxes alone have NaN keypoints.
        found (P,): as the search found them; NaN keypoints if it did not, or found a box alone.
        followed: F.
    """

    people: People
    found: People
    followed: int


class TopDown(PoseNetwork):
    """Finders and a refiner, which the settings `finders` and `refiner` name."""

    def __init__(self, config: PoseConfig = PoseConfig(),
                 device: torch.device | str = "cpu") -> None:
        """Load the networks.

        Args:
            config: settings; read are `finders`, `refiner` and those of each of these networks.
                `checkpoint` is of the refiner if that is a trained one.
            device: torch device that the networks compute on.
        """
        of_finders = replace(config, checkpoint="") if is_trained(config.refiner) else config
        searches = [create_finder(name, of_finders, device).searches() for name in config.finders]
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
            finder.configure(_WEAK, max(max_people, _LEAST_FOUND))

    @property
    def keypoint_noise(self) -> KeypointNoise:
        """Error model of the refiner's keypoints."""
        return self.refiner.noise

    @property
    def engines(self) -> set[tuple[str, str]]:
        """What computes the finders and the refiner; see `Finder.engines`."""
        finders = [finder for part in self._parts for finder in part]
        return self.refiner.engines.union(*(finder.engines for finder in finders))

    @property
    def search_parts(self) -> int:
        """Number of parts of the search: that of the finder with the most parts."""
        return len(self._parts)

    @property
    def most_followed(self) -> int:
        """Number of people that can be followed without a search."""
        return _MOST_FOLLOWED

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
                    part = np.full(len(people), number)
                    found[i].append(people.with_fields(proposal_parts=part))
        everything = tuple(range(self.search_parts))
        return [_joined(self._chosen(frame), people,
                        everything if frame.search is None else frame.search)
                for frame, people in zip(frames, found)]

    def _chosen(self, frame: Frame) -> People:
        """The people followed that are refined in a frame: if there are many, the least certain.

        The others are for the search to find; next time they are less certain.
        """
        expected = frame.expected
        if expected is None:
            return People.nobody()
        if expected.proposal_parts is None:
            expected = expected.with_fields(proposal_parts=np.full(len(expected), np.nan))
        if len(expected) <= _MOST_FOLLOWED:
            return expected
        variance = np.trace(expected.keypoint_cov, axis1=-2, axis2=-1).mean(1)
        order = np.argsort(-variance / oks.area(expected.boxes), kind="stable")
        return expected[np.sort(order[:_MOST_FOLLOWED])]

    # --------------------------------------------------------------------------------- refine

    def refine(self, frame: Frame, proposals: Proposals) -> People:
        """Return the people proposed as their crops show them, before suppression.

        A person who is not refined stays as the search found it, if the keypoints are known: there
        is no crop, the refiner fails, or people are followed and others are better proposals.
        """
        followed = proposals.followed
        scores = proposals.people.proposal_scores
        assert scores is not None
        new = followed + np.argsort(-scores[followed:], kind="stable")
        if followed:
            new = new[scores[new] >= _WEAK_NEW][:_MOST_NEW]
        seen = [proposals.found[[row]] for row in range(len(scores))]
        errors: list[str] = []
        crops: dict[int, Crop] = {}
        for row in [*range(followed), *map(int, new)]:
            try:
                crop = crop_person(frame, proposals.people.boxes[row], self.refiner.long_side)
            except Exception as error:  # one crop must not end the frame
                errors.append(one_line(error))
            else:
                crops |= {} if crop is None else {row: crop}
        guides = [_guide(proposals.people[[row]], crop) for row, crop in crops.items()]
        refined = refine_each(self.refiner, [crop.image for crop in crops.values()], guides)
        for (row, crop), found in zip(crops.items(), refined):
            try:
                seen[row] = self._refined(frame, proposals, row, crop, found())
            except Exception as error:
                errors.append(one_line(error))
        people = concatenated(_alike(seen)) if seen else People.nobody()
        people = people[np.isfinite(people.keypoints).all((1, 2))]
        if errors:
            note = f"the refiner failed on {len(errors)} of {len(seen)} people: {errors[0]}"
            log.warning("%s", note)
            people = people.with_fields(note=note)
        return people

    def _refined(self, frame: Frame, proposals: Proposals, row: int, crop: Crop,
                 refined: Refined) -> People:
        """A proposed person (1,) as the crop shows it; as found if that is not possible."""
        person = proposals.people[[row]]
        keypoints, votes_cov = crop.to_picture(refined.keypoints, refined.votes_cov)
        if not (np.isfinite(keypoints).all() and np.isfinite(votes_cov).all()):
            return proposals.found[[row]]  # the lens does not reach so far
        seen = self._as_person(person, row < proposals.followed, keypoints, votes_cov, refined)
        if refined.joints is None or frame.camera is None:
            return seen
        joints = joints_in_camera(refined, crop, frame.camera)[None]
        return seen.with_fields(joints=joints, root=joints[:, 0])

    def _as_person(self, person: People, followed: bool, keypoints: np.ndarray,
                   votes_cov: np.ndarray, refined: Refined) -> People:
        """A person (1,) with keypoints (17, 2), px, and covariances (17, 2, 2) of their votes."""
        box = person.boxes[0]
        if followed:
            box = _moved_box(box, person.keypoints[0], keypoints, refined.keypoint_scores)
        cov = self.refiner.noise.cov(votes_cov, oks.area(box), refined.keypoint_scores)
        proposal_scores = person.proposal_scores
        assert proposal_scores is not None
        if np.isnan(person.keypoints).any():
            proposal_scores = proposal_scores * refined.center_score
        score = _score(float(proposal_scores[0]), refined)
        return People(box[None], np.array([score]), keypoints[None], cov[None],
                      refined.keypoint_scores[None], proposal_scores=proposal_scores,
                      proposal_parts=person.proposal_parts)


def _joined(expected: People, finds: list[People], parts: tuple[int, ...]) -> Proposals:
    """Join the people followed (F,), those found with keypoints and boxes alone; each once.

    Args:
        finds: what each finder found; parts: of the search, that were run.
    """
    found = concatenated(finds) if finds else _NOBODY
    is_box = np.isnan(found.keypoints).any((1, 2))
    found = found.with_fields(proposal_scores=np.where(is_box, _BOX_SCORE, 1.0) * found.scores)
    posed, boxes = found[~is_box], found[is_box]
    posed = posed[oks.suppress(posed.keypoints, oks.area(posed.boxes), posed.scores, 0.0)]
    is_same = overlaps(posed.boxes, boxes.boxes) > _SAME_BOX
    posed, boxes = _agreed(posed, boxes, is_same), boxes[~is_same.any(0)]
    if not len(expected):
        new = concatenated([posed, boxes])
        return Proposals(new, new, 0)
    candidates = concatenated([posed, boxes])
    similar = oks.similarity(expected.keypoints[:, None], candidates.keypoints[None],
                             oks.area(expected.boxes)[:, None])  # 0 for boxes alone
    same_box = overlaps(expected.boxes, candidates.boxes) > _SAME_BOX
    is_same = (similar >= _SAME_PERSON) | (same_box & (np.arange(len(candidates)) >= len(posed)))
    if parts:
        expected = _confirmed(expected, candidates, is_same, parts)
    new = candidates[~is_same.any(0)]
    return Proposals(concatenated([expected, new]),
                     concatenated([_as_found(expected, candidates, is_same), new]), len(expected))


def _agreed(posed: People, boxes: People, is_same: np.ndarray) -> People:
    """People with keypoints (N,); a box (M,) of the same person raises the proposal score.

    The two are taken to be independent evidence: the person is missing only if both err.

    Args:
        is_same (N, M): whether a box is of that person.
    """
    own, others = posed.proposal_scores, boxes.proposal_scores
    assert own is not None and others is not None
    best = np.where(is_same, others, 0.0).max(1, initial=0.0)
    return posed.with_fields(proposal_scores=1 - (1 - own) * (1 - best))


def _confirmed(expected: People, candidates: People, is_same: np.ndarray,
               parts: tuple[int, ...]) -> People:
    """People followed (F,) with proposal scores that take the search into account.

    Only the part of the search that found a person before can miss it: parts are for people of
    different sizes.

    Args:
        candidates (N,): what the search found; is_same (F, N): whether it is that person.
        parts: of the search, that were run.
    """
    before, found = expected.proposal_scores, candidates.proposal_scores
    part_before, part_found = expected.proposal_parts, candidates.proposal_parts
    assert before is not None and found is not None
    assert part_before is not None and part_found is not None
    is_missed = np.isin(part_before, parts) | np.isnan(part_before)
    unseen = np.where(is_missed, _MISSED, 1.0) * before
    if not len(candidates):
        return expected.with_fields(proposal_scores=unseen)
    scores = np.where(is_same, found, 0.0)
    best, which = scores.max(1), scores.argmax(1)
    return expected.with_fields(
        proposal_scores=np.where(best > 0, (before + best) / 2, unseen),
        proposal_parts=np.where(best > 0, part_found[which], part_before))


def _as_found(expected: People, candidates: People, is_same: np.ndarray) -> People:
    """People followed (F,) as the search found them (see `_confirmed`); else NaN keypoints."""
    unseen = expected.with_fields(keypoints=np.full_like(expected.keypoints, np.nan))
    best = np.where(is_same, candidates.scores, 0.0).argmax(1) if len(candidates) else []
    return concatenated([candidates[[best[row]]] if is_same[row].any() else unseen[[row]]
                         for row in range(len(expected))])


def _alike(seen: list[People]) -> list[People]:
    """People of which all have joints if any has; NaN where they are not known."""
    with_joints = next((people for people in seen if people.joints is not None), None)
    if with_joints is None:
        return seen
    joints = np.full_like(with_joints.joints, np.nan)
    return [people if people.joints is not None
            else people.with_fields(joints=joints, root=joints[:, 0]) for people in seen]


def _guide(person: People, crop: Crop) -> Guide:
    """What the refiner is told of a proposed person (1,), px of the crop."""
    middle = (person.boxes[0, :2] + person.boxes[0, 2:]) / 2
    return Guide(crop.from_picture(person.keypoints[0]), crop.from_picture(middle))


def _score(proposal_score: float, refined: Refined) -> float:
    """Return a person's score, 0..1: of the proposal and of the clear keypoints."""
    clear = refined.keypoint_scores > _CLEAR
    mean = refined.keypoint_scores[clear].sum() / max(int(clear.sum()), _LEAST_CLEAR)
    return float(_CALIBRATION * np.sqrt(proposal_score * mean))


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
