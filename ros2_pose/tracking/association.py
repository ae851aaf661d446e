"""Association of detections with tracks: by similarity in the image, or by position in space.

An `Association` is a function of tracks, people and stamp (ns) that returns pairs of a row of the
people and the track it continues; each row and each track occurs at most once. The tracker is
given one.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import linear_sum_assignment

from ros2_pose import oks
from ros2_pose.boxes import overlaps
from ros2_pose.people import People
from ros2_pose.sync.image_sync import PATIENCE
from ros2_pose.tracking.kalman import gate, seconds
from ros2_pose.tracking.track import Track, height, trunks

Association = Callable[[list[Track], People, int], list[tuple[int, Track]]]

ROOT_GATE = gate(3, 0.9997)  # squared Mahalanobis distance of a root's position, m
_MATCH = 0.15  # similarity from which a detection may continue a track
_SAME = 0.35  # similarity to a tracked person from which a new detection is its double
_SAME_BOX, _SIMILARITY_IN_BOX = 0.7, 0.2  # overlap of boxes and similarity, together, of a double
_SWAPPED = 0.15  # gain of similarity from which left and right count as swapped
_SWAPPED_S = 0.15  # swapped for longer than this, the person counts as detected correctly
_TURNING_S = 0.3  # a person needs longer to turn round

_SIZE_STD, _SIZE_RATE = 0.1, 0.1  # of the logarithm of the height in the image, and per second
_TRUNK_GATE = gate(2, 1 - 1e-6)  # keypoints err by more than they say, now and then
_ROOT_STD_M = 0.1  # of a root's position between frames: the cameras that see it change
_IMPOSSIBLE = 1e6  # cost of a pair outside the gate


def associate_by_similarity(tracks: list[Track], people: People,
                            stamp: int) -> list[tuple[int, Track]]:
    """Pair detections with tracks such that the sum of their similarities in the image is largest.

    Args:
        people: with boxes, keypoints and keypoint_cov in px.
        stamp: ns, not before that of any track.
    """
    if not tracks or not len(people):
        return []
    similarity = similarities(tracks, people, stamp)
    assigned = zip(*linear_sum_assignment(-similarity))
    return [(int(row), tracks[t]) for t, row in assigned if similarity[t, row] > 0]


def associate_by_position(tracks: list[Track], people: People,
                          stamp: int) -> list[tuple[int, Track]]:
    """Pair people with tracks such that the likelihood of their roots' positions is largest.

    Args:
        people: with root (P, 3) m and root_cov (P, 6, 6), in a frame that stands still.
        stamp: ns, not before that of any track.
    """
    filters = {i: track.root for i, track in enumerate(tracks) if track.root is not None}
    if not filters or people.root is None or people.root_cov is None or not len(people):
        return []
    tracks = [tracks[i] for i in filters]
    cov = people.root_cov[:, :3, :3] + _ROOT_STD_M**2 * np.eye(3)
    distance = np.stack([root.squared_mahalanobis(people.root, cov, stamp)
                         for root in filters.values()])  # (T, P)
    track_cov = np.stack([root.predicted(stamp)[2] for root in filters.values()])
    log_volume = np.linalg.slogdet(track_cov[:, None] + cov)[1]
    inside = distance <= ROOT_GATE
    cost = np.where(inside, distance + log_volume, _IMPOSSIBLE)
    assigned = zip(*linear_sum_assignment(cost))
    return [(int(row), tracks[t]) for t, row in assigned if inside[t, row]]


def similarities(tracks: list[Track], people: People, stamp: int) -> np.ndarray:
    """Return (T, P) similarities of P detections to the predictions of T tracks; 0: impossible.

    A pair is impossible if the trunk lies outside its gate, or if the keypoints are too unlike the
    prediction, with uncertainty allowed for. Otherwise it is the OKS to be expected if the
    prediction errs as its covariance says: a person long out of sight fits everywhere a little,
    and does not win a detection from a track that is predicted well.
    """
    positions, covs = trunks(people)
    areas = oks.area(people.boxes)
    own = areas[:, None] * oks.FALL_OFF**2  # (P, 17) px^2, the scale of OKS
    detected = np.trace(people.keypoint_cov, axis1=-2, axis2=-1) / 2
    out = np.zeros((len(tracks), len(people)))
    for row, track in enumerate(tracks):
        dt = seconds(stamp - track.seen)
        position_cov = track.trunk.predicted(stamp)[2]
        variance = detected + track.swing_px(stamp) ** 2 + np.trace(position_cov) / 2
        similarity = oks.similarity_either_way(people.keypoints, track.predicted(stamp), areas,
                                               variance).max(0)
        distance = track.trunk.squared_mahalanobis(positions, covs, stamp)
        possible = (similarity >= _MATCH) & (distance <= _TRUNK_GATE)
        growth = np.log(height(people.boxes) / height(track.box))
        as_tall = np.exp(-(growth / (_SIZE_STD + _SIZE_RATE * dt)) ** 2 / 2)
        expected = (own / (own + variance)).mean(1)
        out[row] = np.where(possible, similarity * as_tall * expected, 0)
    return out


def is_swapped(track: Track, people: People, row: int, stamp: int) -> bool:
    """Return True if a track's detection mistakes left for right; updates `track.swapped_since`.

    People do not turn round between two frames. A detection that stays swapped for long is taken
    to be right.
    """
    as_found, swapped = oks.similarity_either_way(
        people.keypoints[row], track.predicted(stamp), oks.area(people.boxes[row]))
    recent = seconds(stamp - track.seen) < _TURNING_S
    looks_swapped = bool(recent and swapped > as_found + _SWAPPED)
    since = stamp if track.swapped_since is None else track.swapped_since
    patience_s = max(_SWAPPED_S, PATIENCE * seconds(stamp - track.seen))
    looks_swapped &= seconds(stamp - since) <= patience_s
    track.swapped_since = since if looks_swapped else None
    return looks_swapped


def is_double(people: People, row: int, others: list[int]) -> bool:
    """Return True if a detection is a second, poorer one of a person in the rows of others."""
    areas = oks.area(people.boxes)[others]
    similarity = oks.similarity_either_way(people.keypoints[row], people.keypoints[others],
                                           areas).max(0)
    overlap = overlaps(people.boxes[[row]], people.boxes[others])[0]
    same_box = (overlap >= _SAME_BOX) & (similarity >= _SIMILARITY_IN_BOX)
    return bool(((similarity >= _SAME) | same_box).any())
