"""The pipeline of N calibrated cameras: images of one time in, people in one frame out.

    images ─ network, one batch ─ a `Pipeline` for each camera ─ `Fuser` ─ ids ─ people

Each camera has a tracker and single-view bodies of its own. What all views know of a person goes
back to every camera: who steps out of the others' sight keeps the size that all of them saw.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from ros2_pose.body.state import BodyState
from ros2_pose.config import PoseConfig
from ros2_pose.geometry import Transform
from ros2_pose.imaging.upright import UprightView
from ros2_pose.multiview.fusion import Fuser, MultiviewError, View, without_pixels
from ros2_pose.people import LOST, TRACKED, Frame, People
from ros2_pose.pipeline import NoContrastError, Pipeline, TrackedBody, check_image, previous_of
from ros2_pose.skeleton import SMPL24
from ros2_pose.tracking.kalman import gate
from ros2_pose.tracking.tracker import Track, Tracker

log = logging.getLogger(__name__)

_KNOWN_TOGETHER = 4.0  # log odds that who was one, or two, still is
_ROOT_GATE = gate(3, 0.9997)
_LEAST_STD_M = 0.1  # of a root's place from image to image: which cameras see it changes


class MultiviewResult(NamedTuple):
    """What all cameras see at one time."""

    people: People  # common frame; first who is seen, then those lost; pixels are NaN
    views: tuple[View | None, ...]  # what each camera saw by itself; None: no image, or no 3D
    rows: np.ndarray  # (P, V) each one's row in the views' people; -1: not seen there
    taken: tuple[tuple[UprightView, Frame] | None, ...]  # how each view's frame was rotated

    def in_view(self, number: int) -> People:
        """Those whom a camera sees, with all that is known of them, in its frame and pixels: what
        its overlay shows."""
        view, taken = self.views[number], self.taken[number]
        if view is None or taken is None:
            return People.nobody()
        seen = np.flatnonzero(self.rows[:, number] >= 0)
        own = view.people[self.rows[seen, number]]
        camera_from_common = view.camera_to_common.inverse()
        pixels = ("boxes", "scores", "keypoints", "keypoint_cov", "keypoint_scores")
        people = self.people[seen].moved(camera_from_common).with_fields(
            **{name: getattr(own, name) for name in pixels})
        upright, frame = taken
        return upright.people_as_taken(people, frame)


class MultiPipeline:
    """Looks with N cameras at once; `step` is all there is to it.

    A node has a `pairing.CameraSync`, into which every camera's callback puts its `Frame`, with
    camera, depth and `pose` (tf2 at the image's stamp, camera's optical frame to fixed frame); it
    gives `Moment.items` to `step` in its worker and publishes `Scene.people` with the fixed frame
    as frame_id and the moment's stamp.

    cameras: N. up: (3,) the world's up in the common frame. floor_m: how high along `up` a level
    floor is on which people stand; None: not known. Not thread-safe: one thread steps. Raises
    MultiviewError for settings that mean nothing for several cameras.
    """

    def __init__(self, cameras: int, config: PoseConfig = PoseConfig(), up=(0.0, 0.0, 1.0),
                 floor_m: float | None = None):
        self.floor_m = floor_m
        first = Pipeline(config)
        self.device, self.body = first.device, first.body
        self.network_name, self.body_name = first.network_name, first.body_name
        self.fuser = Fuser(first.fitter, up)
        self.cameras = [first, *(first.another() for _ in range(cameras - 1))]
        self.tracker = PositionTracker()
        self.configure(config)
        self._persons: dict[tuple[int, str], str] = {}  # by camera and its own id, as of last time

    def configure(self, config: PoseConfig) -> None:
        """Take over the settings that may change while running."""
        if config.camera_height_m or config.camera_pitch_deg or config.camera_roll_deg:
            raise MultiviewError("camera_height_m, camera_pitch_deg and camera_roll_deg are of one "
                                 "camera: leave them 0; several have poses, up and floor_m")
        self.config = config
        self.fuser.keypoint_threshold = config.keypoint_threshold
        self.tracker.confirm_hits, self.tracker.lost_s = config.confirm_hits, config.lost_s
        self.tracker.still_mps = config.still_mps
        self.tracker.birth_score = 0.0  # each camera's own tracker decides who is reported

    def reset(self) -> None:
        """Forget everyone: the next images are no continuation of the last."""
        self.tracker.reset()
        self._persons = {}
        for camera in self.cameras:
            camera.reset()

    def step(self, frames: list[Frame | None]) -> MultiviewResult:
        """The people whom the cameras' frames of one time show, those just lost included.

        frames: of each camera, None for one that has none now. A frame without a usable calibration
        or without a pose gives no 3D: its camera is left out, and the note says why. A step back in
        time forgets everyone. An image that shows nothing leaves its camera out, too. Raises
        MultiviewError if no camera is left.
        """
        present, notes = self._checked(frames)
        stamp = max(frame.stamp for frame in present.values())
        if stamp < self.tracker.latest:
            log.warning("time went back by %.3f s: everyone is forgotten",
                        (self.tracker.latest - stamp) * 1e-9)
            self.reset()
        for number, frame in present.items():
            self._place(self.cameras[number], frame.camera_to_fixed)
        known = {number: self.cameras[number].with_camera(frame)
                 for number, frame in present.items()}
        upright = {number: self.cameras[number].view.frame(frame)
                   for number, (frame, _) in known.items()}
        detected = self.cameras[0].network.detect(list(upright.values()))
        views: list[View | None] = [None] * len(frames)
        taken: list[tuple[UprightView, Frame] | None] = [None] * len(frames)
        for (number, frame), people in zip(upright.items(), detected):
            pipeline, (as_taken, why) = self.cameras[number], known[number]
            views[number], note = self._look(pipeline, people, frame, stamp, why)
            taken[number] = pipeline.view, as_taken
            notes += [f"camera {number + 1}: {note}"] if note else []
        people, rows = self._together(views, stamp)
        if not len(people) and any(views):
            people = people.with_fields(joints=np.zeros((0, len(SMPL24), 3)))  # nobody, in 3D
        return MultiviewResult(
            people.with_fields(note="; ".join(notes)), tuple(views), rows, tuple(taken)
        )

    def _checked(self, frames: list[Frame | None]) -> tuple[dict[int, Frame], list[str]]:
        """The frames that there are, by camera, and why others are left out."""
        if len(frames) != len(self.cameras):
            raise MultiviewError(f"{len(frames)} frames for {len(self.cameras)} cameras; give None "
                                 "for a camera that has none")
        present, notes = {}, []
        for number, frame in enumerate(frames):
            try:
                if frame is not None:
                    check_image(frame.image)
                    present[number] = frame
            except NoContrastError as error:
                notes.append(f"camera {number + 1}: {error}")
        if not present:
            raise MultiviewError("; ".join(notes) or "no camera gave an image: nobody can look")
        return present, notes

    def _look(self, pipeline: Pipeline, people: People, frame: Frame, stamp: int,
              note: str) -> tuple[View | None, str]:
        """What a camera sees by itself; None and why if there is no 3D."""
        people = pipeline.follow(people, frame, note)
        if frame.camera_to_fixed is None:
            return None, note or "its pose is not known: left out; publish its transform"
        if frame.camera is None:
            return None, note
        return View(people[people.tracking_state != LOST], frame.camera,
                    frame.camera_to_fixed,
                    (stamp - frame.stamp) * 1e-9), people.note

    def _place(self, pipeline: Pipeline, pose: Transform | None) -> None:
        """Tell a camera's pipeline which way is up and how far it is to the floor; both stay as
        they were while its pose is not known."""
        placed = pipeline.config if pose is None else self._placed(pose)
        pipeline.configure(replace(  # not corrected: the pixels are evidence once more
            self.config, correct=False, camera_height_m=placed.camera_height_m,
            camera_pitch_deg=placed.camera_pitch_deg, camera_roll_deg=placed.camera_roll_deg))

    def _placed(self, pose: Transform) -> PoseConfig:
        """The settings of a camera at a pose: which way is up, and how far it is to the floor."""
        up = pose.rotmat.T @ self.fuser.up
        above = 0.0
        if self.floor_m is not None:
            above = float(pose.translation_m @ self.fuser.up) - self.floor_m
        return replace(self.config, camera_height_m=max(above, 0.0),
                       camera_pitch_deg=float(np.degrees(np.arcsin(np.clip(-up[2], -1, 1)))),
                       camera_roll_deg=float(np.degrees(np.arctan2(-up[0], -up[1]))))

    @torch.inference_mode()
    def _together(self, views: list[View | None], stamp: int) -> tuple[People, np.ndarray]:
        """Everybody once, and rows as of `Scene`."""
        numbers = [number for number, view in enumerate(views) if view is not None]
        seen = [views[number] for number in numbers]
        ids = [[(number, one) for one in views[number].people.ids] for number in numbers]
        rows = self.fuser.associate(seen, lambda *pairs: self._known(ids, *pairs)) if seen \
            else np.zeros((0, 0), int)
        found, tracks = self.tracker.assign(_rough(seen, rows), stamp)
        previous = previous_of(tracks, stamp)
        if len(rows):
            fused = self.fuser.fuse(seen, rows, previous)
            found = fused.people
            for row, track in enumerate(tracks):
                track.body = _tracked_body(
                    found, fused.disagreement_s, row, int(previous.frames[row]) + 1, stamp
                )
            self._tell(seen, numbers, rows, tracks)
        self._persons = {ids[view][row]: track.id for person, track in zip(rows, tracks)
                         for view, row in enumerate(person) if row >= 0}
        people = self.tracker.report(found, tracks, stamp)
        all_rows = np.full((len(people), len(views)), -1)
        all_rows[:len(rows), numbers] = rows
        shown = np.argsort(people.tracking_state != TRACKED, kind="stable")
        shown = np.sort(shown[:self.config.max_people])
        return people[shown], all_rows[shown]

    def _known(self, ids: list[list[tuple[int, str]]], view_a, row_a, view_b, row_b) -> np.ndarray:
        """(M,) log odds that two are one, by whom each camera's tracks were with before."""
        def person(view, row):
            return self._persons.get(ids[view][row])

        pairs = [(person(a, i), person(b, j)) for a, i, b, j in zip(view_a, row_a, view_b, row_b)]
        return np.array([0.0 if None in pair else _KNOWN_TOGETHER if pair[0] == pair[1]
                         else -_KNOWN_TOGETHER for pair in pairs])

    def _tell(self, views: list[View], numbers: list[int], rows: np.ndarray,
              tracks: list[Track]) -> None:
        """Give what all views know of a person to each that sees him."""
        for view, number, column in zip(views, numbers, rows.T):
            own = {track.id: track for track in self.cameras[number].tracker.tracks}
            for person in np.flatnonzero((column >= 0) & ((rows >= 0).sum(1) > 1)):
                body = tracks[person].body
                mine = own[view.people.ids[column[person]]]
                if body is not None and mine.body is not None:
                    mine.body = TrackedBody(
                        body.seen_from(view.camera_to_common),
                        body.disagreement_s,
                        body.frames,
                        mine.body.stamp,
                        view.camera_to_common,
                    )


class PositionTracker(Tracker):
    """Who is who from moment to moment by where they are: there is no common image."""

    def _match(self, people: People, stamp: int) -> list[tuple[int, Track]]:
        tracks = [track for track in self.tracks if track.root is not None]
        if not tracks or not len(people):
            return []
        cov = people.root_cov[:, :3, :3] + _LEAST_STD_M**2 * np.eye(3)
        squared_mahalanobis = np.stack(
            [track.root.squared_mahalanobis(people.root, cov, stamp) for track in tracks]
        )
        spread = np.stack([track.root.predicted(stamp)[1][:3, :3] for track in tracks])
        vague = np.linalg.slogdet(spread[:, None] + cov)[1]
        able = squared_mahalanobis <= _ROOT_GATE
        cost = np.where(able, squared_mahalanobis + vague, 1e6)
        return [(int(row), tracks[t]) for t, row in zip(*linear_sum_assignment(cost))
                if able[t, row]]


def _rough(views: list[View], rows: np.ndarray) -> People:
    """P people roughly where they are: the mean of what each view says, by its covariance."""
    information = np.zeros((len(rows), 3, 3))
    towards = np.zeros((len(rows), 3, 1))
    for view, column in zip(views, rows.T):
        people = view.in_common
        for person in np.flatnonzero(column >= 0):
            row = column[person]
            if people.root is not None and np.isfinite(people.root[row]).all():
                precision = np.linalg.inv(people.root_cov[row, :3, :3])
                information[person] += precision
                towards[person] += precision @ people.root[row, :, None]
    cov = np.full((len(rows), 6, 6), np.nan)
    cov[:, :3, :3] = np.linalg.inv(information)
    return without_pixels(views, rows).with_fields(
        root=(cov[:, :3, :3] @ towards)[..., 0], root_cov=cov)


def _tracked_body(people: People, disagreement_s: np.ndarray, row: int, frames: int,
                stamp: int) -> TrackedBody | None:
    """What a track knows of a body in the common frame."""
    if not np.isfinite(people.root[row]).all():
        return None
    state = BodyState(*(torch.from_numpy(getattr(people, name)[row])
                        for name in BodyState._fields))
    return TrackedBody(state, float(disagreement_s[row]), frames, stamp, Transform.identity())
