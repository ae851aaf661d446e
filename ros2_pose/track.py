"""Who is who from image to image: ids, age, what is known of whom from before, velocity.

Time is an argument, the image's stamp in nanoseconds; there is no clock here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import linear_sum_assignment

from ros2_pose import oks
from ros2_pose.people import LOST, TENTATIVE, TRACKED, People

_WEAK = 0.5  # of birth_score: what someone must score to be watched, not yet reported
_UNSURE_S = 0.3  # someone not confirmed and unseen for longer is forgotten
_MATCH = 0.15  # similarity from which a detection may continue a track
_SAME = 0.35  # similarity to a tracked person from which a newcomer is its double
_SWAPPED = 0.15  # so much more alike with left and right changed round says they are
_MOST_SWAPS = 5  # in a row; then the person is taken to be as detected
_TURNING_S = 0.3  # to turn round takes longer
_SAME_BOX, _ALIKE_IN_BOX = 0.7, 0.2  # overlap of boxes and similarity that say so, too
_REUSE_S = 10.0  # an id is free again this long after its person was forgotten
_SPEED_PX = 1.0  # a track's place becomes uncertain by this many of its heights a second
_SMOOTH_S = 0.15  # time constant of the image velocity
_ACCELERATION = 3.0  # m/s^2, standard deviation of a walking person's acceleration
_SPEED = 1.5  # m/s, standard deviation of the velocity of someone just met


@dataclass(eq=False)
class Track:
    """One person over time. body is whatever the body layer wants to start from next time."""

    born: int  # ns
    seen: int  # ns, the last image that showed the person
    keypoints: np.ndarray  # (17, 2) px
    box: np.ndarray  # (4,) px
    evidence: float  # sum of the scores
    hits: int = 1
    swaps: int = 0  # images in a row in which the detector took left for right
    number: int = 0  # of the id; 0 until the person is reported
    drift: np.ndarray = field(default_factory=lambda: np.zeros(2))  # px/s
    body: object = None
    motion: Motion | None = None
    last: People | None = None  # the person alone, as last reported

    @property
    def id(self) -> str:
        """"p1", "p2", ..."""
        return f"p{self.number}"

    def predicted(self, stamp: int) -> np.ndarray:
        """Keypoints (17, 2), px, at another time."""
        return self.keypoints + self.drift * _seconds(stamp - self.seen)

    def see(self, people: People, row: int, stamp: int) -> None:
        """Take in what an image shows of the person."""
        keypoints = people.keypoints[row]
        dt = _seconds(stamp - self.seen)
        if dt > 0:
            moved = np.median(keypoints - self.keypoints, axis=0)
            self.drift += (moved / dt - self.drift) * dt / (dt + _SMOOTH_S)
        self.keypoints, self.box, self.seen = keypoints, people.boxes[row], stamp
        self.evidence += people.scores[row]
        self.hits += 1


class Tracker:
    """Gives the people of successive images their ids.

    A detection that scores birth_score is reported at once, as tentative; a weaker one is watched,
    and reported once its scores over several images add up to confirm_hits such detections: small
    and far people score little, but they do so again and again. lost_s: seconds until someone who
    is known and unseen is forgotten.
    """

    def __init__(self, confirm_hits: int = 3, lost_s: float = 1.0, birth_score: float = 0.3):
        self.confirm_hits, self.lost_s, self.birth_score = confirm_hits, lost_s, birth_score
        self.reset()

    def reset(self) -> None:
        """Forget everyone; ids start again."""
        self.tracks: list[Track] = []
        self._released: dict[int, int] = {}  # id number: when its person was forgotten, ns
        self._issued = 0
        self.latest = 0  # stamp of the image before, ns

    def assign(self, people: People, stamp: int) -> tuple[People, list[Track]]:
        """The people of an image who are tracked now, and the track of each.

        Detections continue tracks by Hungarian assignment; those left over begin new ones, if they
        are not the double of someone. Who is not to be reported yet is left out.
        """
        self._forget(stamp)
        pairs = self._match(people, stamp)
        people = people.with_sides_changed([row for row, track in pairs
                                            if _is_swapped(track, people, row, stamp)])
        for row, track in pairs:
            track.see(people, row, stamp)
        for row in self._newcomers(people, [row for row, _ in pairs]):
            track = Track(stamp, stamp, people.keypoints[row], people.boxes[row],
                          people.scores[row])
            self.tracks.append(track)
            pairs.append((row, track))
        shown = sorted(((row, track) for row, track in pairs
                        if track.number or self._known(track)
                        or people.scores[row] >= self.birth_score),
                       key=lambda pair: pair[0])
        for _, track in shown:
            track.number = track.number or self._free_number(stamp)
        return people[[row for row, _ in shown]], [track for _, track in shown]

    def report(self, people: People, tracks: list[Track], stamp: int) -> People:
        """The people seen, with ids, ages and velocities, and after them those lost from sight."""
        people = self._with_motion(people, tracks, stamp)
        people = people.with_fields(
            ids=tuple(t.id for t in tracks),
            age=np.array([_seconds(stamp - t.born) for t in tracks]),
            tracking_state=np.array([self._state(t) for t in tracks], int))
        for row, track in enumerate(tracks):
            track.last = people[[row]]
        lost = [self._lost(t, stamp) for t in self.tracks if t.seen < stamp and self._known(t)]
        return _concatenate([people, *lost])

    def _match(self, people: People, stamp: int) -> list[tuple[int, Track]]:
        if not self.tracks or not len(people):
            return []
        alike = np.stack([_similarity(track, people, stamp) for track in self.tracks])
        return [(int(row), self.tracks[t]) for t, row in zip(*linear_sum_assignment(-alike))
                if alike[t, row] >= _MATCH]

    def _newcomers(self, people: People, taken: list[int]) -> list[int]:
        """Rows good enough to be someone new, best first."""
        accepted = list(taken)
        for row in np.argsort(-people.scores, kind="stable"):
            if row not in taken and people.scores[row] >= _WEAK * self.birth_score \
                    and not _is_double(people, row, accepted):
                accepted.append(int(row))
        return accepted[len(taken):]

    def _free_number(self, stamp: int) -> int:
        free = [n for n, since in self._released.items() if _seconds(stamp - since) > _REUSE_S]
        if free:
            del self._released[min(free)]
            return min(free)
        self._issued += 1
        return self._issued

    def _forget(self, stamp: int) -> None:
        """Drop tracks unseen for too long."""
        gone = [track for track in self.tracks if _seconds(stamp - track.seen) >
                (self.lost_s if self._known(track) else min(self.lost_s, _UNSURE_S))]
        self._released |= {track.number: stamp for track in gone if track.number}
        self.tracks = [track for track in self.tracks if track not in gone]
        self.latest = stamp

    def _known(self, track: Track) -> bool:
        return track.hits >= self.confirm_hits and \
            track.evidence >= self.confirm_hits * self.birth_score

    def _state(self, track: Track) -> int:
        return TRACKED if self._known(track) else TENTATIVE

    def _with_motion(self, people: People, tracks: list[Track], stamp: int) -> People:
        """Velocities (P, 3) from a constant-velocity filter on each root."""
        if people.root is None:
            return people
        velocity, cov = np.full((len(people), 3), np.nan), np.full((len(people), 3, 3), np.nan)
        for row, track in enumerate(tracks):
            root, root_cov = people.root[row], people.root_cov[row, :3, :3]
            if not np.isfinite(root).all():
                continue
            if track.motion is None:
                track.motion = Motion(root, root_cov, stamp)
            else:
                track.motion.update(root, root_cov, stamp)
                velocity[row], cov[row] = track.motion.velocity, track.motion.velocity_cov
        return people.with_fields(velocity=velocity, velocity_cov=cov)

    def _lost(self, track: Track, stamp: int) -> People:
        """A person out of sight: no pixels, the body where its velocity would have taken it."""
        dt = _seconds(stamp - track.seen)
        person = track.last.with_fields(
            boxes=track.last.boxes + np.tile(track.drift * dt, 2),
            keypoints=np.full_like(track.last.keypoints, np.nan),
            keypoint_cov=np.full_like(track.last.keypoint_cov, np.nan),
            keypoint_scores=np.zeros_like(track.last.keypoint_scores),
            tracking_state=np.array([LOST]), age=np.array([_seconds(stamp - track.born)]))
        if track.motion is None or person.root is None or not np.isfinite(person.root).all():
            return person
        step, growth = track.motion.ahead(dt)
        cov = person.root_cov.copy()
        cov[:, :3, :3] += growth
        return person.with_fields(root=person.root + step, root_cov=cov,
                                  joints=person.joints + step,
                                  joint_cov=person.joint_cov + growth,
                                  joint_source=np.zeros_like(person.joint_source))


class Motion:
    """Constant-velocity Kalman filter on a place in metres; state (6,) x y z and their rates."""

    def __init__(self, place: np.ndarray, cov: np.ndarray, stamp: int):
        self.state = np.concatenate([place, np.zeros(3)])
        self.cov = np.zeros((6, 6))
        self.cov[:3, :3], self.cov[3:, 3:] = cov, _SPEED**2 * np.eye(3)
        self.stamp = stamp

    @property
    def velocity(self) -> np.ndarray:
        """(3,) m/s."""
        return self.state[3:]

    @property
    def velocity_cov(self) -> np.ndarray:
        """(3, 3) m^2/s^2."""
        return self.cov[3:, 3:]

    def update(self, place: np.ndarray, cov: np.ndarray, stamp: int) -> None:
        """Predict to `stamp` and take in a measured place (3,) with covariance (3, 3)."""
        dt = _seconds(stamp - self.stamp)
        transition = np.eye(6)
        transition[:3, 3:] = dt * np.eye(3)
        self.state = transition @ self.state
        self.cov = transition @ self.cov @ transition.T + _acceleration_noise(dt)
        gain = self.cov[:, :3] @ np.linalg.inv(self.cov[:3, :3] + cov)
        self.state = self.state + gain @ (place - self.state[:3])
        self.cov = self.cov - gain @ self.cov[:3]
        self.cov = (self.cov + self.cov.T) / 2
        self.stamp = stamp

    def ahead(self, dt: float) -> tuple[np.ndarray, np.ndarray]:
        """The way (3,), m, of the next dt seconds and its covariance (3, 3)."""
        return self.velocity * dt, self.velocity_cov * dt**2 + _acceleration_noise(dt)[:3, :3]


def _acceleration_noise(dt: float) -> np.ndarray:
    """(6, 6) covariance that a constant, unknown acceleration adds in dt seconds."""
    block = np.array([[dt**4 / 4, dt**3 / 2], [dt**3 / 2, dt**2]]) * _ACCELERATION**2
    return np.kron(block, np.eye(3))


def _similarity(track: Track, people: People, stamp: int) -> np.ndarray:
    """(P,) OKS between a track's prediction and detections, widened by what is uncertain."""
    height = max(track.box[3] - track.box[1], 1.0)
    wander = (_SPEED_PX * height * _seconds(stamp - track.seen)) ** 2
    variance = np.trace(people.keypoint_cov, axis1=-2, axis2=-1) / 2 + wander
    return oks.similarity_either_way(people.keypoints, track.predicted(stamp),
                                     oks.area(people.boxes), variance).max(0)


def _is_swapped(track: Track, people: People, row: int, stamp: int) -> bool:
    """Whether a track's detection took left for right: nobody turns round between two images."""
    as_found, swapped = oks.similarity_either_way(
        people.keypoints[row], track.predicted(stamp), oks.area(people.boxes[row]))
    recent = _seconds(stamp - track.seen) < _TURNING_S
    looks_swapped = recent and swapped > as_found + _SWAPPED and track.swaps < _MOST_SWAPS
    track.swaps = track.swaps + 1 if looks_swapped else 0
    return looks_swapped


def _is_double(people: People, row: int, others: list[int]) -> bool:
    """Whether a detection is a second, poorer view of one of the others."""
    areas = oks.area(people.boxes)[others]
    alike = oks.similarity_either_way(people.keypoints[row], people.keypoints[others],
                                      areas).max(0)
    overlap = _overlap(people.boxes[row], people.boxes[others])
    return bool(((alike >= _SAME) | ((overlap >= _SAME_BOX) & (alike >= _ALIKE_IN_BOX))).any())


def _overlap(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(N,) intersection over union of a box (4,) with boxes (N, 4)."""
    size = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    common = np.maximum(size, 0).prod(-1)
    return common / ((box[2:] - box[:2]).prod() + (boxes[:, 2:] - boxes[:, :2]).prod(-1) - common)


def _concatenate(parts: list[People]) -> People:
    """One `People` of several; a field that the first does not have is left out."""
    first = parts[0]
    if len(parts) == 1:
        return first
    values = {}
    for name, value in vars(first).items():
        if isinstance(value, np.ndarray):
            values[name] = np.concatenate([_field(part, name, value) for part in parts])
    return first.with_fields(**values, ids=sum((part.ids for part in parts), ()))


def _field(part: People, name: str, like: np.ndarray) -> np.ndarray:
    """A field of a part, NaN if it has none."""
    value = getattr(part, name)
    return np.full((len(part), *like.shape[1:]), np.nan) if value is None else value


def _seconds(nanoseconds: int) -> float:
    return nanoseconds * 1e-9
