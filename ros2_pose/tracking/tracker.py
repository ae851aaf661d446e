"""Identities of people from frame to frame: ids, ages, velocities, people lost from sight.

Two positions of each person are filtered by constant-velocity Kalman filters with the measured
covariances: the middle of the trunk in the image, which predicts the keypoints, gates associations
and carries people through occlusions; and the root in metres, which gives velocities and predicts
people out of sight, in a frame that stands still if the camera's extrinsics are known. Joints and
keypoints reported are not filtered: the body fit starts from the frame before, and a second filter
would only delay them.

Time is an argument, the frame's stamp in ns; there is no clock here. Frames may come at any rate
from 0.5 to 120 Hz, and the rate may change: times below hold for fast cameras, and are at least 2.5
of the actual intervals between frames, so that one frame in which a person is missed ends nothing.
"""

from __future__ import annotations

import numpy as np

from ros2_pose.camera import Camera
from ros2_pose.config import PoseConfig
from ros2_pose.geometry import Transform
from ros2_pose.people import LOST, TENTATIVE, TRACKED, People, concatenated
from ros2_pose.sync.image_sync import PATIENCE, Stream
from ros2_pose.tracking.association import (
    Association,
    associate_by_similarity,
    is_double,
    is_swapped,
)
from ros2_pose.tracking.kalman import VelocityFilter, seconds
from ros2_pose.tracking.motion import filtered_joints, filtered_root, velocity_of
from ros2_pose.tracking.reidentification import reidentified
from ros2_pose.tracking.track import Track

_WEAK = 0.5  # of score_threshold: score from which a detection begins an unreported track
_UNSURE_S = 0.3  # an unconfirmed track unseen for longer is forgotten
_FOLLOWED_S = 0.3  # a person unseen for longer is no longer looked for where it is predicted
_RECENT = 3  # intervals, of which the longest counts: slow cameras are irregular
_REMEMBERED_S = 10.0  # for so long after a track was forgotten its id is kept free
_STUBBORN_S = 0.3  # a root outside the gate for longer restarts its filter
_UNSEEN_PROCESS_NOISE = 1.0  # m^2/s^3: people out of sight stop and turn without being measured


class Tracker:
    """Gives the people of successive frames their ids.

    A detection that scores `score_threshold` is reported at once, as tentative. A weaker one begins
    a track that is reported once its scores over several frames add up to `confirm_hits` such
    detections: small and far people score little, but do so again and again. A confirmed track
    unseen for `lost_s` is forgotten; for some seconds more, its person is re-identified. A velocity
    below `still_mps` that is not significant is reported as 0. At most `max_people` are reported
    for a frame: known people before new ones, by score, then people lost from sight.
    """

    def __init__(self, config: PoseConfig = PoseConfig(),
                 associate: Association = associate_by_similarity,
                 report_all: bool = False):
        """Create a tracker without tracks.

        Args:
            config: settings, see `configure`.
            associate: strategy that pairs detections with tracks.
            report_all: report every detection at once and confirm it by hits alone, whatever it
                scores: for people who were selected before.
        """
        self._associate, self._report_all = associate, report_all
        self.configure(config)
        self.reset()

    def configure(self, config: PoseConfig) -> None:
        """Take over confirm_hits, lost_s, score_threshold, still_mps and max_people."""
        self.config = config
        self._birth_score = 0.0 if self._report_all else config.score_threshold

    def reset(self) -> None:
        """Forget all people; ids start again."""
        self.tracks: list[Track] = []
        self._gone: list[Track] = []  # forgotten, yet their ids are not free
        self._named: list[Track] = []  # first reported with this frame
        self._camera_to_fixed: Transform | None = None
        self.latest = 0  # stamp of the last frame, ns
        self.has_lost = False  # a person of the frame before was missed in the last one
        self._stream = Stream(_RECENT)

    def expected(self, stamp: int, camera: Camera | None = None,
                 camera_to_fixed: Transform | None = None) -> People:
        """Predict the people in the next frame: those seen until shortly before it.

        Args:
            stamp: ns, of that frame.
            camera, camera_to_fixed: see `Frame`.
        Returns:
            What was detected of them last, with predicted boxes, keypoints and keypoint_cov, px.
            Covariances are those of the last detection and of the motion since.
        """
        self._move_camera(camera, camera_to_fixed)
        limit_s = max(_FOLLOWED_S, self._least_s)
        tracks = [track for track in self.tracks if seconds(stamp - track.seen) <= limit_s]
        if not tracks:
            return People.nobody()
        boxes = [track.box + np.tile(track.displacement(stamp), 2) for track in tracks]
        return concatenated([track.detection for track in tracks]).with_fields(
            boxes=np.stack(boxes),
            keypoints=np.stack([track.predicted(stamp) for track in tracks]),
            keypoint_cov=np.stack([track.predicted_cov(stamp) for track in tracks]), note="")

    def assign(self, people: People, stamp: int, camera: Camera | None = None,
               camera_to_fixed: Transform | None = None) -> tuple[People, list[Track]]:
        """Associate detections with tracks; those left over begin new ones unless they are doubles.

        Args:
            people: detections of one frame.
            stamp: ns, of the frame.
            camera, camera_to_fixed: see `Frame`; without them the camera counts as standing still.
        Returns:
            The people to be reported, left and right swapped where that was detected, and the track
            of each.
        """
        self._move_camera(camera, camera_to_fixed)
        self._stream.advance(stamp)
        self._forget(stamp)
        just_seen = [track for track in self.tracks if track.seen == self.latest]
        self.latest = stamp
        pairs = self._associate(self.tracks, people, stamp)
        swapped = [row for row, track in pairs if is_swapped(track, people, row, stamp)]
        people = people.with_sides_changed(swapped)
        for row, track in pairs:
            track.update(people, row, stamp)
        self.has_lost = any(track.seen != stamp for track in just_seen)
        for row in self._newcomers(people, [row for row, _ in pairs]):
            track = Track.start(people, row, stamp)
            self.tracks.append(track)
            pairs.append((row, track))
        reported = self._reported(people, pairs)
        self._named = [track for _, track in reported if not track.number]
        for track in self._named:
            track.number = self._free_number()
        return people[[row for row, _ in reported]], [track for _, track in reported]

    def report(self, people: People, tracks: list[Track], stamp: int) -> People:
        """Add ids, ages and velocities, and after these people those lost from sight.

        Args:
            people, tracks: of `assign`, people possibly with bodies.
            stamp: ns, of the frame.
        """
        people = self._with_velocities(people, tracks, stamp)
        self._reidentify(stamp)
        people = people.with_fields(
            ids=tuple(t.id for t in tracks),
            age=np.array([seconds(stamp - t.born) for t in tracks]),
            tracking_state=np.array([TRACKED if self._is_confirmed(t) else TENTATIVE
                                     for t in tracks], int))
        for row, track in enumerate(tracks):
            track.last, track.camera_to_fixed = people[[row]], self._camera_to_fixed
        lost = [self._lost(t, stamp) for t in self.tracks
                if t.seen < stamp and self._is_confirmed(t) and t.last is not None]
        lost = lost[:max(self.config.max_people - len(people), 0)]
        return concatenated([people, *lost])

    def _move_camera(self, camera: Camera | None, camera_to_fixed: Transform | None) -> None:
        """Take over the camera's extrinsics: as it rotates, the image of people shifts."""
        before = self._camera_to_fixed
        self._camera_to_fixed = camera_to_fixed
        if (camera_to_fixed is None) != (before is None):
            for track in self.tracks + self._gone:
                track.root = track.joints = None  # of another frame: they mean nothing in this one
        if camera_to_fixed is None or before is None or camera is None:
            return
        then_from_fixed, now_from_fixed = before.inverse(), camera_to_fixed.inverse()
        for track in self.tracks:
            if track.root is not None:
                then = camera.project(then_from_fixed.apply(track.root.position))
                now = camera.project(now_from_fixed.apply(track.root.position))
                if np.isfinite(now - then).all():
                    track.shift(now - then)

    # -------------------------------------------------------------------------- identities

    def _newcomers(self, people: People, taken: list[int]) -> list[int]:
        """Rows good enough to begin a track, best first."""
        accepted = list(taken)
        for row in np.argsort(-people.scores, kind="stable"):
            if row not in taken and people.scores[row] >= _WEAK * self._birth_score \
                    and not is_double(people, row, accepted):
                accepted.append(int(row))
        return accepted[len(taken):]

    def _reported(self, people: People,
                  pairs: list[tuple[int, Track]]) -> list[tuple[int, Track]]:
        """At most max_people pairs of those that may be reported, in the order of their rows."""
        pairs = [(row, track) for row, track in pairs
                 if track.number or self._is_confirmed(track)
                 or people.scores[row] >= self._birth_score]

        def rank(pair: tuple[int, Track]) -> tuple[bool, bool, float]:
            row, track = pair
            return not self._is_confirmed(track), not track.number, -people.scores[row]

        chosen = sorted(pairs, key=rank)[:self.config.max_people]
        return sorted(chosen, key=lambda pair: pair[0])

    def _free_number(self) -> int:
        used = {track.number for track in self.tracks + self._gone}
        return next(number for number in range(1, len(used) + 2) if number not in used)

    def _forget(self, stamp: int) -> None:
        """Drop tracks unseen for too long, and free the ids of those long forgotten."""
        lost_s = self.config.lost_s
        confirmed_s = max(lost_s, self._least_s)
        unsure_s = max(min(lost_s, _UNSURE_S), self._least_s)
        kept: list[Track] = []
        gone: list[Track] = []
        for track in self.tracks:
            limit_s = confirmed_s if self._is_confirmed(track) else unsure_s
            (gone if seconds(stamp - track.seen) > limit_s else kept).append(track)
        self.tracks = kept
        remembered = [track for track in self._gone
                      if seconds(stamp - track.seen) <= lost_s + _REMEMBERED_S]
        self._gone = remembered + [track for track in gone if track.number]

    @property
    def _least_s(self) -> float:
        """The shortest timeout, s: some of the intervals between frames."""
        return PATIENCE * seconds(self._stream.longest)

    def _reidentify(self, stamp: int) -> None:
        """Give people first reported with this frame the ids that they had before."""
        confirmed = [track for track in self._gone if self._is_confirmed(track)]
        for old, track in reidentified(confirmed, self._named, stamp):
            self._gone.remove(old)
            track.number, track.born = old.number, old.born
            track.hits += old.hits
            track.evidence += old.evidence

    def _is_confirmed(self, track: Track) -> bool:
        hits = self.config.confirm_hits
        return track.hits >= hits and track.evidence >= hits * self._birth_score

    # ------------------------------------------------------------------------------ motion

    def _with_velocities(self, people: People, tracks: list[Track], stamp: int) -> People:
        """Filter each root and its joints; add velocities along the camera's axes."""
        if people.root is None or people.root_cov is None:
            return people
        velocity = np.full((len(people), 3), np.nan)
        cov = np.full((len(people), 3, 3), np.nan)
        to_fixed = self._camera_to_fixed or Transform.identity()
        rotmat, patience_s = to_fixed.rotmat, max(_STUBBORN_S, self._least_s)
        for row, track in enumerate(tracks):
            if not np.isfinite(people.root[row]).all():
                continue
            track.shape = people.betas[row] if people.betas is not None else None
            position = to_fixed.apply(people.root[row])
            position_cov = rotmat @ people.root_cov[row, :3, :3] @ rotmat.T
            track.root, is_new = filtered_root(track.root, position, position_cov, stamp,
                                               patience_s)
            if is_new:
                track.joints = None
            else:
                velocity[row] = rotmat.T @ velocity_of(track.root, self.config.still_mps)
                cov[row] = rotmat.T @ track.root.velocity_cov @ rotmat
        people = people.with_fields(velocity=velocity, velocity_cov=cov)
        return self._with_joint_velocities(people, tracks, stamp)

    def _with_joint_velocities(self, people: People, tracks: list[Track], stamp: int) -> People:
        """Filter the joints of bodies; add their velocities along the camera's axes."""
        if people.joints is None or people.joint_cov is None:
            return people
        velocity, cov = (np.full_like(values, np.nan, float)
                         for values in (people.joints, people.joint_cov))
        to_fixed = self._camera_to_fixed or Transform.identity()
        rotmat = to_fixed.rotmat
        for row, track in enumerate(tracks):
            joints, joint_cov = people.joints[row], people.joint_cov[row]
            if not (np.isfinite(joints).all() and np.isfinite(joint_cov).all()):
                continue
            track.joints, is_new = filtered_joints(track.joints, to_fixed.apply(joints),
                                                   rotmat @ joint_cov @ rotmat.T, stamp)
            if not is_new:
                velocity[row] = track.joints.velocity @ rotmat
                cov[row] = rotmat.T @ track.joints.velocity_cov @ rotmat
        return people.with_fields(joint_velocity=velocity, joint_velocity_cov=cov)

    def _lost(self, track: Track, stamp: int) -> People:
        """A person out of sight: no pixels, the body moved on with its last velocity."""
        last = self._in_camera(track)
        unknown = last.with_unknown("keypoints", "keypoint_cov", "joint_velocity",
                                    "joint_velocity_cov")
        person = unknown.with_fields(
            boxes=(track.box + np.tile(track.displacement(stamp), 2))[None],
            keypoint_scores=np.zeros_like(last.keypoint_scores),
            tracking_state=np.array([LOST]), age=np.array([seconds(stamp - track.born)]))
        if track.root is None or person.root is None or not np.isfinite(person.root).all():
            return person
        return self._moved_on(person, track.root, track.seen, stamp)

    def _in_camera(self, track: Track) -> People:
        """A person as last reported, in the camera frame of now."""
        assert track.last is not None
        if track.camera_to_fixed is None or self._camera_to_fixed is None:
            return track.last
        return track.last.moved(self._camera_to_fixed.inverse() @ track.camera_to_fixed)

    def _moved_on(self, person: People, root: VelocityFilter, seen: int, stamp: int) -> People:
        """A person's body moved on from where it was last seen (ns), less certain by that."""
        rotmat = (self._camera_to_fixed or Transform.identity()).rotmat
        position, now, cov, _, velocity_cov = root.predicted(stamp, _UNSEEN_PROCESS_NOISE)
        is_still = not velocity_of(root, self.config.still_mps).any()
        step = np.zeros(3) if is_still else rotmat.T @ (position - root.predicted(seen)[0])
        growth = rotmat.T @ (cov - root.cov) @ rotmat
        assert person.root is not None and person.root_cov is not None
        root_cov = person.root_cov.copy()
        root_cov[:, :3, :3] += growth
        person = person.with_fields(root=person.root + step, root_cov=root_cov)
        if person.velocity is not None and np.isfinite(person.velocity).all():
            velocity = np.zeros(3) if is_still else rotmat.T @ now
            person = person.with_fields(velocity=velocity[None],
                                        velocity_cov=(rotmat.T @ velocity_cov @ rotmat)[None])
        if person.joints is None:
            return person
        return person.with_fields(joints=person.joints + step,
                                  joint_cov=person.joint_cov + growth,
                                  joint_source=np.zeros_like(person.joint_source))
