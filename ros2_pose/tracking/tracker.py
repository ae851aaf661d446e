"""Who is who from image to image: ids, age, what is known of whom from before, velocity.

Filtered by constant-velocity Kalman filters with the measured covariances are two places of each
person: the middle of the trunk in the image, which predicts the keypoints, gates who can be whom
and carries people through occlusions; and the root in metres, which gives velocities and predicts
those out of sight, in a frame that stands still if the camera's pose there is known. Joints and
keypoints reported are not filtered: the body layer starts from the image before, and a second
filter would only make them late.

Time is an argument, the image's stamp in nanoseconds; there is no clock here. Images may come at
any rate from 0.5 to 120 per second, and the rate may change: what is said in seconds below holds
for cameras that are fast enough, and is at least 2.5 of the intervals at which images really come,
so that one image in which a person is missed ends nothing.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from ros2_pose.camera import Camera
from ros2_pose.geometry import Transform
from ros2_pose.people import LOST, TENTATIVE, TRACKED, People
from ros2_pose.sync.image_sync import PATIENCE, Stream
from ros2_pose.tracking.association import Track, is_double, is_swapped, similarities
from ros2_pose.tracking.kalman import ConstantVelocityFilter, gate, seconds
from ros2_pose.tracking.reidentification import recognised

_WEAK = 0.5  # of birth_score: what someone must score to be watched, not yet reported
_UNSURE_S = 0.3  # someone not confirmed and unseen for longer is forgotten
_RECENT = 3  # intervals, the longest of which is meant: slow cameras are irregular
_REMEMBERED_S = 10.0  # so long after someone was forgotten the id is still theirs
_ROOT_GATE = gate(3, 0.9997)
_LEAP_STD = 0.2  # m: who sets off or bends is no outlier
_STUBBORN_S = 0.3  # who is outside the gate for longer is there
_STANDING = gate(3, 0.95)  # a velocity within it may be none
_UNSEEN_PROCESS_NOISE = (
    1.0  # m^2/s^3: those out of sight stop and turn, and nobody corrects the filter
)  # m^2/s^3: those out of sight stop and turn, and nobody corrects the filter


class Tracker:
    """Gives the people of successive images their ids.

    A detection that scores birth_score is reported at once, as tentative; a weaker one is watched,
    and reported once its scores over several images add up to confirm_hits such detections: small
    and far people score little, but they do so again and again. lost_s: seconds until someone who
    is known and unseen is forgotten; for some more, such a one is recognised when met again.
    still_mps: slower than that is standing, if the velocity is not significant.

    max_people: most people reported for an image: those known before those met, in the order of
    their scores, and after them those lost from sight.

    born, died: ids that appeared with the image, known again or new, and those forgotten.
    """

    def __init__(self, confirm_hits: int = 3, lost_s: float = 2.0, birth_score: float = 0.3,
                 still_mps: float = 0.4, max_people: int = 100):
        self.confirm_hits, self.lost_s, self.birth_score = confirm_hits, lost_s, birth_score
        self.still_mps, self.max_people = still_mps, max_people
        self.tracks: list[Track] = []
        self.died: tuple[str, ...] = ()
        self.reset()

    def reset(self) -> None:
        """Forget everyone; ids start again."""
        self.died += tuple(track.id for track in self.tracks if track.number)
        self._reset = True
        self.tracks = []
        self.born: tuple[str, ...] = ()
        self._gone: list[Track] = []  # forgotten, yet their ids are not free
        self._named: list[Track] = []  # with this image
        self._camera_to_fixed: Transform | None = None
        self.latest = 0  # stamp of the image before, ns
        self._stream = Stream(_RECENT)

    def assign(self, people: People, stamp: int, camera: Camera | None = None,
               camera_to_fixed: Transform | None = None) -> tuple[People, list[Track]]:
        """The people of an image who are tracked now, and the track of each.

        Detections continue tracks by Hungarian assignment; those left over begin new ones, if they
        are not the double of someone. Who is not to be reported yet is left out. camera,
        camera_to_fixed: see `Frame`; without them the camera counts as standing still.
        """
        self._look(camera, camera_to_fixed)
        self._stream.advance(stamp)
        self._forget(stamp)
        pairs = self._match(people, stamp)
        people = people.with_sides_changed([row for row, track in pairs
                                            if is_swapped(track, people, row, stamp)])
        for row, track in pairs:
            track.see(people, row, stamp)
        for row in self._newcomers(people, [row for row, _ in pairs]):
            track = Track.of(people, row, stamp)
            self.tracks.append(track)
            pairs.append((row, track))
        shown = [(row, track) for row, track in pairs
                 if track.number or self._known(track) or people.scores[row] >= self.birth_score]
        shown.sort(key=lambda pair: (not self._known(pair[1]), not pair[1].number,
                                     -people.scores[pair[0]]))
        shown = sorted(shown[:self.max_people], key=lambda pair: pair[0])
        self._named = [track for _, track in shown if not track.number]
        for track in self._named:
            track.number = self._free_number()
        return people[[row for row, _ in shown]], [track for _, track in shown]

    def report(self, people: People, tracks: list[Track], stamp: int) -> People:
        """The people seen, with ids, ages and velocities, and after them those lost from sight."""
        people = self._with_motion(people, tracks, stamp)
        self._recognise(stamp)
        people = people.with_fields(
            ids=tuple(t.id for t in tracks),
            age=np.array([seconds(stamp - t.born) for t in tracks]),
            tracking_state=np.array([self._state(t) for t in tracks], int))
        for row, track in enumerate(tracks):
            track.last, track.camera_to_fixed = people[[row]], self._camera_to_fixed
        lost = [self._lost(t, stamp) for t in self.tracks
                if t.seen < stamp and self._known(t) and t.last is not None]
        lost = lost[:max(self.max_people - len(people), 0)]
        return _concatenate([people, *lost])

    def _look(self, camera: Camera | None, camera_to_fixed: Transform | None) -> None:
        """Take over the camera's extrinsics: as it rotates, the image of people shifts."""
        before = self._camera_to_fixed
        if (camera_to_fixed is None) != (before is None):
            for track in self.tracks + self._gone:
                track.root = None  # positions in another frame mean nothing in this one
        elif camera_to_fixed is not None and camera is not None:
            then_from_fixed, now_from_fixed = before.inverse(), camera_to_fixed.inverse()
            for track in self.tracks:
                if track.root is not None:
                    then = camera.project(then_from_fixed.apply(track.root.position))
                    now = camera.project(now_from_fixed.apply(track.root.position))
                    if np.isfinite(now - then).all():
                        track.shift(now - then)
        self._camera_to_fixed = camera_to_fixed

    def _match(self, people: People, stamp: int) -> list[tuple[int, Track]]:
        if not self.tracks or not len(people):
            return []
        similarity = similarities(self.tracks, people, stamp)
        return [(int(row), self.tracks[t]) for t, row in zip(*linear_sum_assignment(-similarity))
                if similarity[t, row] > 0]

    def _newcomers(self, people: People, taken: list[int]) -> list[int]:
        """Rows good enough to be someone new, best first."""
        accepted = list(taken)
        for row in np.argsort(-people.scores, kind="stable"):
            if row not in taken and people.scores[row] >= _WEAK * self.birth_score \
                    and not is_double(people, row, accepted):
                accepted.append(int(row))
        return accepted[len(taken):]

    def _free_number(self) -> int:
        used = {track.number for track in self.tracks + self._gone}
        return next(number for number in range(1, len(used) + 2) if number not in used)

    def _forget(self, stamp: int) -> None:
        """Drop tracks unseen for too long, and give back the ids of those long forgotten."""
        known_s = max(self.lost_s, self._least_s)
        unsure_s = max(min(self.lost_s, _UNSURE_S), self._least_s)
        gone = [track for track in self.tracks if seconds(stamp - track.seen) >
                (known_s if self._known(track) else unsure_s)]
        self.tracks = [track for track in self.tracks if track not in gone]
        gone = [track for track in gone if track.number]
        died = tuple(track.id for track in gone)
        self.died = self.died + died if self._reset else died
        self._reset = False
        self._gone = [track for track in self._gone
                      if seconds(stamp - track.seen) <= self.lost_s + _REMEMBERED_S] + gone
        self.latest = stamp

    @property
    def _least_s(self) -> float:
        """s that nothing ends before: some of the intervals between images."""
        return PATIENCE * seconds(self._stream.longest)

    def _recognise(self, stamp: int) -> None:
        """Give those named with this image, and not yet reported, the ids that they had before."""
        known = [track for track in self._gone if self._known(track)]
        for old, track in recognised(known, self._named, stamp):
            self._gone.remove(old)
            track.number, track.born = old.number, old.born
            track.hits, track.evidence = track.hits + old.hits, track.evidence + old.evidence
        self.born = tuple(track.id for track in self._named)

    def _known(self, track: Track) -> bool:
        return track.hits >= self.confirm_hits and \
            track.evidence >= self.confirm_hits * self.birth_score

    def _state(self, track: Track) -> int:
        return TRACKED if self._known(track) else TENTATIVE

    def _with_motion(self, people: People, tracks: list[Track], stamp: int) -> People:
        """Velocities (P, 3), along the camera's axes, from the filter of each root."""
        if people.root is None:
            return people
        velocity, cov = np.full((len(people), 3), np.nan), np.full((len(people), 3, 3), np.nan)
        to_fixed = self._camera_to_fixed or Transform.identity()
        rotmat = to_fixed.rotmat
        for row, track in enumerate(tracks):
            if not np.isfinite(people.root[row]).all():
                continue
            track.shape = people.betas[row] if people.betas is not None else None
            track.root, fresh = _filtered(track.root, to_fixed.apply(people.root[row]),
                                          rotmat @ people.root_cov[row, :3, :3] @ rotmat.T, stamp,
                                          max(_STUBBORN_S, self._least_s))
            if not fresh:
                velocity[row] = rotmat.T @ self._velocity(track.root)
                cov[row] = rotmat.T @ track.root.velocity_cov @ rotmat
        return people.with_fields(velocity=velocity, velocity_cov=cov)

    def _velocity(self, root: ConstantVelocityFilter) -> np.ndarray:
        """(3,) m/s, exactly 0 of someone who stands as far as can be told."""
        velocity = root.velocity
        slow = np.linalg.norm(velocity) < self.still_mps
        still = slow and velocity @ np.linalg.solve(root.velocity_cov, velocity) < _STANDING
        return np.zeros(3) if still else velocity

    def _lost(self, track: Track, stamp: int) -> People:
        """A person out of sight: no pixels, the body where its velocity would have taken it."""
        last = self._from_here(track)
        person = last.with_fields(
            boxes=(track.box + np.tile(track.displacement(stamp), 2))[None],
            keypoints=np.full_like(last.keypoints, np.nan),
            keypoint_cov=np.full_like(last.keypoint_cov, np.nan),
            keypoint_scores=np.zeros_like(last.keypoint_scores),
            tracking_state=np.array([LOST]), age=np.array([seconds(stamp - track.born)]))
        if track.root is None or person.root is None or not np.isfinite(person.root).all():
            return person
        rotmat, root = (self._camera_to_fixed or Transform.identity()).rotmat, track.root
        step = rotmat.T @ self._velocity(root) * seconds(stamp - track.seen)
        both = np.kron(np.eye(2), rotmat)
        growth = both.T @ (root.predicted(stamp, _UNSEEN_PROCESS_NOISE)[1] - root.cov) @ both
        cov = person.root_cov.copy()
        cov[:, :3, :3] += growth[:3, :3]
        return person.with_fields(root=person.root + step, root_cov=cov,
                                  joints=person.joints + step,
                                  joint_cov=person.joint_cov + growth[:3, :3],
                                  velocity_cov=person.velocity_cov + growth[3:, 3:],
                                  joint_source=np.zeros_like(person.joint_source))

    def _from_here(self, track: Track) -> People:
        """A person as last reported, in the camera's axes of now."""
        if track.camera_to_fixed is None or self._camera_to_fixed is None:
            return track.last
        return track.last.moved(self._camera_to_fixed.inverse() @ track.camera_to_fixed)


def _filtered(
    root: ConstantVelocityFilter | None,
    position: np.ndarray,
    cov: np.ndarray,
    stamp: int,
    patience_s: float,
) -> tuple[ConstantVelocityFilter, bool]:
    """The filter of a root with a measured position (3,), covariance (3, 3), taken in; and whether
    it has just begun, again where positions are outside the gate for longer than patience_s."""
    if root is None:
        return ConstantVelocityFilter(position, cov, stamp), True
    if stamp <= root.stamp:
        return root, False
    spread = cov + _LEAP_STD**2 * np.eye(3)
    if root.squared_mahalanobis(position[None], spread[None], stamp)[0] <= _ROOT_GATE:
        root.update(position, cov, stamp)
    elif seconds(stamp - root.stamp) > patience_s:
        return ConstantVelocityFilter(position, cov, stamp), True
    return root, False


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
