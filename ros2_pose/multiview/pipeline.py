"""The pipeline of N calibrated cameras: frames of one time in, people in one common frame out.

    frames ─ network, one batch ─ a `Pipeline` for each camera ─ `Fuser` ─ tracker ─ people

Each camera has a tracker and single-view bodies of its own. What all views know of a person is
handed back to every camera: a person who leaves the others' sight keeps the body that all of them
saw.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from ros2_pose.body.state import BodyState
from ros2_pose.config import PoseConfig
from ros2_pose.geometry import Transform
from ros2_pose.multiview.fusion import Fuser, MultiviewError, View, rough_people
from ros2_pose.people import DETECTED, LOST, TRACKED, Frame, Ground, People
from ros2_pose.pipeline import NoContrastError, Pipeline, PreparedFrame, check_image
from ros2_pose.sync.ground import ground_of_camera
from ros2_pose.sync.time_jump import steps_back
from ros2_pose.tracking.association import associate_by_position
from ros2_pose.tracking.tracked_body import TrackedBody, previous_of
from ros2_pose.tracking.tracker import Track, Tracker

_KNOWN_TOGETHER = 4.0  # log odds that two detections of one person before are of one now
_MOST_TRACKED = 100  # people; those to be reported are chosen from them


class MultiviewResult(NamedTuple):
    """The people of V cameras at one time."""

    people: People  # common frame; people lost from sight come last; pixels are NaN
    views: tuple[View | None, ...]  # (V,) each camera's own people; None: no image, or no 3D
    rows: np.ndarray  # (P, V) each person's row in the views' people; -1: not seen there
    prepared: tuple[PreparedFrame | None, ...]  # (V,) each camera's frame; None: no image

    def in_view(self, number: int) -> People:
        """Return the people that a camera sees, with fused bodies, in its frame and pixels.

        This is what the overlay of the camera's image shows.
        """
        view, prepared = self.views[number], self.prepared[number]
        if view is None or prepared is None:
            return People.nobody()
        seen = np.flatnonzero(self.rows[:, number] >= 0)
        own = view.people[self.rows[seen, number]]
        people = self.people[seen].moved(view.camera_to_common.inverse())
        people = people.with_fields(**{name: getattr(own, name) for name in DETECTED})
        return prepared.as_taken(people)


class MultiPipeline:
    """Finds, tracks and fuses the people of N cameras; call `step` for each frame set.

    A node has a `CameraSync`, into which every camera's callback puts its `Frame`, with camera,
    depth and `camera_to_fixed` (tf2 at the image's stamp, camera's optical frame to fixed frame).
    Its worker gives each frame set to `step`, and publishes `MultiviewResult.people` with the
    fixed frame as frame_id and the frame set's stamp.

    Not thread-safe: call it from one thread.
    """

    def __init__(self, cameras: int, config: PoseConfig = PoseConfig(), up=(0.0, 0.0, 1.0),
                 floor_m: float | None = None):
        """Load the models.

        Args:
            cameras: N.
            config: settings of every camera.
            up (3,): direction against gravity in the common frame, of any length.
            floor_m: height along `up` of a level floor that people stand on; None if not known.
        Raises:
            MultiviewError: for settings of a single camera's mounting, and if up is no direction.
        """
        self.floor_m = floor_m
        first = Pipeline(config)
        self.device, self.engine, self.body = first.device, first.engine, first.body
        self.network_name, self.body_name = first.network_name, first.body_name
        self.cameras = [first, *(first.another() for _ in range(cameras - 1))]
        self.fuser = Fuser(first.fitter, up)
        # Each camera's own tracker has selected whom to report.
        self.tracker = Tracker(config, associate_by_position, report_all=True)
        self.configure(config)
        self._persons: dict[tuple[int, str], str] = {}  # id by camera and its own id, last time
        self._grounds: list[Ground | None] = [None] * cameras  # as last known

    def configure(self, config: PoseConfig) -> None:
        """Take over the settings that may change while running.

        Raises:
            MultiviewError: for settings of a single camera's mounting.
        """
        if config.camera_height_m or config.camera_pitch_deg or config.camera_roll_deg:
            raise MultiviewError("camera_height_m, camera_pitch_deg and camera_roll_deg are of one "
                                 "camera: leave them 0; several have poses, up and floor_m")
        self.config = config
        for camera in self.cameras:  # not corrected: the fusion needs keypoints as measured
            camera.configure(replace(config, correct=False, root_depth=False))
        self.fuser = Fuser(self.cameras[0].fitter, self.fuser.up, config.keypoint_threshold)
        self.tracker.configure(replace(config, max_people=_MOST_TRACKED))

    def reset(self) -> None:
        """Forget all people: the next frames do not continue the last ones."""
        self.tracker.reset()
        self._persons = {}
        for camera in self.cameras:
            camera.reset()

    def step(self, frames: list[Frame | None]) -> MultiviewResult:
        """Find the people in the cameras' frames of one time; those just lost from sight follow.

        A camera without a usable calibration, without `camera_to_fixed`, or with an image that
        shows nothing is left out, and `People.note` says why. A step back in time forgets all
        people. Without `Frame.ground`, gravity and floor follow from `camera_to_fixed`.

        Args:
            frames (N,): one for each camera; None for a camera that has none now.
        Raises:
            MultiviewError: if no camera has an image that shows something.
            PipelineError: for an image that is not uint8 RGB.
        """
        present, notes = self._checked(frames)
        stamp = max(frame.stamp for frame in present.values())
        if steps_back(stamp, self.tracker.latest):
            self.reset()
        prepared: dict[int, PreparedFrame] = {}
        for number, frame in present.items():
            frame = replace(frame, ground=self._ground(number, frame))
            prepared[number] = self.cameras[number].prepare(frame)
        detected = self.cameras[0].network.detect([one.upright for one in prepared.values()])
        views: list[View | None] = [None] * len(frames)
        for (number, one), people in zip(prepared.items(), detected):
            views[number], note = self._view(number, people, one, stamp)
            if note:
                notes.append(f"camera {number + 1}: {note}")
        people, rows = self._fused(views, stamp)
        if not len(people) and any(views):
            people = people.with_fields(root=np.zeros((0, 3)))  # 3D, of 0 people
        people = people.with_fields(note="; ".join(notes))
        return MultiviewResult(people, tuple(views), rows,
                               tuple(prepared.get(number) for number in range(len(frames))))

    def _checked(self, frames: list[Frame | None]) -> tuple[dict[int, Frame], list[str]]:
        """The usable frames by camera, in rising order, and notes on those left out."""
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
            raise MultiviewError("; ".join(notes) or "no camera gave an image; at least one must")
        return present, notes

    def _ground(self, number: int, frame: Frame) -> Ground | None:
        """A frame's ground: its own, else by the camera's pose, else gravity as last known."""
        ground, before = frame.ground, self._grounds[number]
        if ground is None and frame.camera_to_fixed is not None:
            ground = ground_of_camera(frame.camera_to_fixed, self.fuser.up, self.floor_m)
        if ground is None and before is not None:
            ground = Ground(before.up)
        self._grounds[number] = ground
        return ground

    def _view(self, number: int, people: People, prepared: PreparedFrame,
              stamp: int) -> tuple[View | None, str]:
        """A camera's own people; None, and why, if they have no 3D."""
        people = self.cameras[number].follow(people, prepared)
        frame = prepared.upright
        if frame.camera_to_fixed is None:
            return None, prepared.note or "its pose is not known: left out; publish its transform"
        if frame.camera is None:
            return None, prepared.note
        seen = people[people.tracking_state != LOST]
        age_s = (stamp - frame.stamp) * 1e-9
        return View(seen, frame.camera, frame.camera_to_fixed, age_s), people.note

    @torch.inference_mode()
    def _fused(self, views: list[View | None], stamp: int) -> tuple[People, np.ndarray]:
        """All people once, and their rows (P, V) in the views; see `MultiviewResult`."""
        seen = {number: view for number, view in enumerate(views) if view is not None}
        numbers, present = list(seen), list(seen.values())
        ids = [[(number, one) for one in view.people.ids or ()] for number, view in seen.items()]
        rows = np.zeros((0, 0), int)
        if present:
            rows = self.fuser.associate(present, self._prior_log_odds(ids))
        people, tracks = self.tracker.assign(rough_people(present, rows), stamp)
        if len(rows):
            people = self._with_bodies(present, rows, tracks, stamp)
            self._hand_back(present, numbers, rows, tracks)
        self._persons = {}
        for person, track in zip(rows, tracks):
            for view in np.flatnonzero(person >= 0):
                self._persons[ids[view][person[view]]] = track.id
        people = self.tracker.report(people, tracks, stamp)
        all_rows = np.full((len(people), len(views)), -1)
        all_rows[:len(rows), numbers] = rows
        tracked_first = np.argsort(people.tracking_state != TRACKED, kind="stable")
        shown = np.sort(tracked_first[:self.config.max_people])
        return people[shown], all_rows[shown]

    def _with_bodies(self, views: list[View], rows: np.ndarray, tracks: list[Track],
                     stamp: int) -> People:
        """Fused people, common frame; their tracks keep the bodies for the next frame set."""
        previous = previous_of(tracks, stamp)
        people, disagreement_s = self.fuser.fuse(views, rows, previous)
        for row, track in enumerate(tracks):
            track.body = _tracked_body(people, row, float(disagreement_s[row]),
                                       int(previous.frames[row]) + 1, stamp)
        return people

    def _prior_log_odds(self, ids: list[list[tuple[int, str]]]) -> np.ndarray:
        """(N, N) log odds that two detections are of one person, by the last frame set.

        Args:
            ids: camera and own id of each person, by view; N in all.
        """
        persons = np.array([self._persons.get(one, "") for of_view in ids for one in of_view], str)
        known = persons != ""
        same = persons[:, None] == persons
        odds = np.where(same, _KNOWN_TOGETHER, -_KNOWN_TOGETHER)
        return np.where(known[:, None] & known, odds, 0.0)

    def _hand_back(self, views: list[View], numbers: list[int], rows: np.ndarray,
                   tracks: list[Track]) -> None:
        """Give each camera the bodies of its people that other views see, too."""
        in_several = (rows >= 0).sum(1) > 1
        for view, number, column in zip(views, numbers, rows.T):
            assert view.people.ids is not None
            for person in np.flatnonzero((column >= 0) & in_several):
                body = tracks[person].body
                if body is not None:
                    own_id = view.people.ids[column[person]]
                    self.cameras[number].tell_body(own_id, body, view.camera_to_common)


def _tracked_body(people: People, row: int, disagreement_s: float, frames: int,
                  stamp: int) -> TrackedBody | None:
    """The body that a track keeps, in the common frame; None without a body."""
    if people.root is None or not np.isfinite(people.root[row]).all():
        return None
    state = BodyState(*(torch.from_numpy(getattr(people, name)[row])
                        for name in BodyState._fields))
    return TrackedBody(state, disagreement_s, frames, stamp, Transform.identity())
