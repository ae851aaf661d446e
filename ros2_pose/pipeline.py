"""One camera's pipeline: network, tracker and body fit, from a frame to tracked people."""

from __future__ import annotations

import logging
from copy import copy
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ros2_pose.body.depth import DepthError, DepthGauge
from ros2_pose.body.fitter import BodyFit, Fitter, Previous, Sighting
from ros2_pose.body.lift import Lift, Lifted
from ros2_pose.body.model import BodyModel
from ros2_pose.body.prior import PosePrior
from ros2_pose.body.root_depth import RootDepth, root_with_cov
from ros2_pose.camera import Camera
from ros2_pose.config import PoseConfig
from ros2_pose.errors import PoseError
from ros2_pose.geometry import Transform
from ros2_pose.imaging.contrast import has_contrast
from ros2_pose.imaging.upright import people_as_taken, quarter_turns_to_upright, upright_frame
from ros2_pose.networks.engine import check_gpu, described, torch_device
from ros2_pose.networks.registry import create_network
from ros2_pose.people import DEPTH, INFERRED, OBSERVED, Frame, Ground, People
from ros2_pose.sync.ground import ground_from_config
from ros2_pose.sync.time_jump import steps_back
from ros2_pose.tracking.search import SearchSchedule
from ros2_pose.tracking.tracked_body import TrackedBody, previous_of, tracked_body
from ros2_pose.tracking.tracker import Track, Tracker

log = logging.getLogger(__name__)

_PROPOSED_ROOT_STD = (0.05, 0.05, 0.2)  # to the side, down, log distance; of a network's bodies
_LEAST_DETECTIONS = 20  # that the tracker chooses from, however few people are reported
_NO_BODIES = "body is off: positions without bodies"
_GRAVITY_KEPT_S = 1.0  # after the last frame with a ground of its own
CONTINUES = 1 / 3  # of score_threshold: score from which a detection continues a track


class PipelineError(PoseError):
    """Raised for an unusable frame or setting; the message says why and what to do."""


class NoContrastError(PipelineError):
    """Raised for an image without contrast, in which no people can be detected."""


class PreparedFrame(NamedTuple):
    """A frame as it was taken, and as networks and body fit see it."""

    taken: Frame  # its camera is the one that bodies are fitted with; its ground is known
    upright: Frame  # the same, rotated such that people stand upright in it
    quarter_turns: int  # 0 to 3, counter-clockwise, from taken to upright
    note: str  # why there is no camera; empty if there is one

    def as_taken(self, people: People) -> People:
        """Return people of the upright frame in pixels (px) and camera frame (m) as taken."""
        return people_as_taken(people, self.taken, self.quarter_turns)


class Pipeline:
    """Finds, tracks and fits the people of one camera's frames; call `step` for each frame.

    Not thread-safe: call it from one thread.

    Raises:
        EngineError: if the device or the engine that the settings name is not available.

    Attributes:
        device: that the networks compute on.
        engine: that they compute in, in words.
    """

    def __init__(self, config: PoseConfig = PoseConfig()):
        self.config = config
        self.device = torch_device(config)
        self.network = create_network(config, self.device)
        in_use = self.network.engines
        check_gpu(config, in_use)
        self.engine = described(in_use)
        if {where for _, where in in_use} == {"cuda"}:
            self.device = torch.device("cuda")
        log.info("network %s: %s", config.network, self.engine or f"on {self.device}")
        # Bodies stay on the CPU: for a few small matrices a person, launches would dominate a GPU.
        self.body = BodyModel.load(config.body_model or None)
        self.network_name = config.network
        self.body_name = Path(config.body_model).stem or "open_body"
        self.fitter = Fitter(self.body, PosePrior.load(), Lift.load())
        self.depth_gauge = DepthGauge(self.body)
        self.tracker = Tracker(config)
        self._schedule = SearchSchedule(config.search_every)
        self._quarter_turns = 0  # of the camera's mounting, see `imaging.upright`
        self._last_up: tuple[int, np.ndarray] | None = None  # stamp, up; of the last own ground
        self.configure(config)

    def configure(self, config: PoseConfig) -> None:
        """Take over the settings that may change while running."""
        self.config = config
        self.network.configure(score_threshold=config.score_threshold * CONTINUES,
                               max_people=max(config.max_people, _LEAST_DETECTIONS))
        self.tracker.configure(config)
        self._schedule.every = config.search_every
        self.fitter = self.fitter.with_settings(
            replace(self.fitter.settings, adult_height_m=config.adult_height_m))
        self._ground = ground_from_config(config)

    def another(self) -> Pipeline:
        """Make a pipeline for another camera: it shares network and models, and tracks no one."""
        other = copy(self)
        other.tracker = Tracker(self.config)
        other._schedule = SearchSchedule(self.config.search_every)
        return other

    def reset(self) -> None:
        """Forget all people: the next frame does not continue the last one."""
        self.tracker.reset()
        self._schedule.reset()
        self._last_up = None

    def step(self, frame: Frame) -> People:
        """Find the people of a frame; those just lost from sight follow after them.

        Frames come in the order of their stamps; a step back in time forgets all people. Without a
        usable camera there is no 3D, and `People.note` says why.

        Raises:
            PipelineError: if the image is not uint8 RGB.
            NoContrastError: if the image shows nothing.
        """
        check_image(frame.image)
        prepared = self.prepare(frame)
        detected = self.network.detect([prepared.upright])[0]
        return prepared.as_taken(self.follow(detected, prepared))

    def prepare(self, frame: Frame) -> PreparedFrame:
        """Choose a frame's camera and ground, and rotate it such that people are upright.

        The people expected in it and the parts of the search to be run are chosen, too. A step back
        in time and a change of that rotation forget all people.
        """
        if steps_back(frame.stamp, self.tracker.latest):
            self.reset()
        camera, note = self.camera(frame)
        ground = self._ground_of(frame)
        quarter_turns = quarter_turns_to_upright(ground.up, self._quarter_turns)
        if quarter_turns != self._quarter_turns and self.tracker.tracks:
            log.warning("the camera's mounting has changed: all people are forgotten")
            self.reset()
        self._quarter_turns = quarter_turns
        taken = replace(frame, camera=camera, ground=ground)
        upright = self._with_expected(upright_frame(taken, quarter_turns))
        return PreparedFrame(taken, upright, quarter_turns, note)

    def _ground_of(self, frame: Frame) -> Ground:
        """A frame's own ground, else gravity as last known for a moment, else by the settings.

        A floor that was lost is not kept; its height is that of the settings where they have one.
        """
        if frame.ground is not None:
            self._last_up = frame.stamp, frame.ground.up
        elif self._last_up is None or frame.stamp - self._last_up[0] > _GRAVITY_KEPT_S * 1e9:
            return self._ground
        ground = frame.ground or Ground(self._last_up[1])
        return ground if ground.height_m else replace(ground, height_m=self._ground.height_m)

    def _with_expected(self, frame: Frame) -> Frame:
        """Add the people followed and the parts of the search to an upright frame."""
        parts = self.network.search_parts
        if not parts:
            return frame
        expected = self.tracker.expected(frame.stamp, frame.camera, frame.camera_to_fixed)
        urgent = self.tracker.has_lost or len(expected) > self.network.most_followed
        search = self._schedule.parts(parts, frame.stamp, frame.image, len(expected), urgent)
        if self._schedule.has_changed:
            expected = People.nobody()  # people are no longer where they are expected
        return replace(frame, expected=expected, search=search)

    def follow(self, people: People, prepared: PreparedFrame) -> People:
        """Track and fit what the network detected in a prepared frame's upright image.

        Returns:
            People in pixels and camera frame of the upright frame.
        """
        frame = prepared.upright
        people, tracks = self.tracker.assign(people, frame.stamp, frame.camera,
                                             frame.camera_to_fixed)
        if frame.camera is not None:
            add = self._with_bodies if self.config.body else self._with_positions
            people = add(people, tracks, frame, frame.camera)
        note = prepared.note or people.note
        return self.tracker.report(people, tracks, frame.stamp).with_fields(note=note)

    def tell_body(self, track_id: str, body: TrackedBody, camera_to_fixed: Transform) -> None:
        """Replace a tracked person's body by what several cameras know of it.

        Args:
            track_id: of a person of this camera; without a body there is nothing to replace.
            body: in the fixed frame.
            camera_to_fixed: of this camera, when its frame was taken.
        """
        for track in self.tracker.tracks:
            if track.id == track_id and track.body is not None:
                track.body = TrackedBody(body.seen_from(camera_to_fixed), body.disagreement_s,
                                         body.frames, track.body.stamp, camera_to_fixed,
                                         track.body.lift_state)

    def camera(self, frame: Frame) -> tuple[Camera | None, str]:
        """Return the camera that bodies of a frame are fitted with; None, and why, without one."""
        height, width = frame.image.shape[:2]
        if not (self.config.body or self.config.root_depth):
            return None, "body and root_depth are off: 2D only"
        if frame.camera is None:
            if self.config.fov_deg:
                return Camera.from_fov(width, height, self.config.fov_deg), ""
            return None, ("no camera calibration: 2D only; publish CameraInfo or set fov_deg to "
                          "the camera's horizontal field of view")
        if (frame.camera.width, frame.camera.height) != (width, height):
            return None, (f"the calibration is for {frame.camera.width}x{frame.camera.height}, the "
                          f"image is {width}x{height}: 2D only; use the CameraInfo of this image")
        return frame.camera, ""

    @torch.inference_mode()
    def _with_bodies(self, people: People, tracks: list[Track], frame: Frame,
                     camera: Camera) -> People:
        sighting = self._sighting(people, frame, camera)
        previous = previous_of(tracks, frame.stamp, frame.camera_to_fixed)
        bodies = self.fitter.fit(sighting, previous)
        joint_measured = None
        if frame.depth is not None:
            try:
                root_z, std, joint_measured = self._measure(frame.depth, camera, bodies)
            except DepthError as error:
                people = people.with_fields(note=str(error))
            else:
                with_depth = sighting._replace(depth=root_z, depth_std=std)
                bodies = self.fitter.fit(with_depth, _at_depth(bodies, root_z, previous))
        for row, track in enumerate(tracks):
            track.body = tracked_body(bodies, row, int(previous.frames[row]) + 1, frame)
        people = _with_fit(people, bodies, joint_measured)
        return self._corrected(people, sighting, bodies, camera) if self.config.correct else people

    @cached_property
    def _root_depth(self) -> RootDepth:
        """The network of positions without bodies, loaded on first use: it is off by default."""
        return RootDepth.load()

    @torch.inference_mode()
    def _with_positions(self, people: People, tracks: list[Track], frame: Frame,
                        camera: Camera) -> People:
        """People with positions by their size in the image, without bodies."""
        sighting = self._sighting(people, frame, camera)
        root, root_cov = root_with_cov(self._root_depth, sighting.points, sighting.cov,
                                       sighting.up)
        return people.without_bodies(_NO_BODIES).with_fields(root=root, root_cov=root_cov)

    def _sighting(self, people: People, frame: Frame, camera: Camera) -> Sighting:
        """What is known of people in an upright frame before bodies are fitted."""
        clear = people.keypoint_scores >= self.config.keypoint_threshold
        pixels = np.where(clear[..., None], people.keypoints, np.nan)
        rays, cov = camera.normalise_with_cov(pixels, people.keypoint_cov)
        ground, floor = frame.ground or self._ground, None
        if ground.height_m is not None:
            floor = torch.from_numpy(np.append(ground.up, ground.height_m))
        return Sighting(torch.from_numpy(rays), torch.from_numpy(cov),
                        up=torch.from_numpy(ground.up), floor=floor,
                        proposed=self._proposed(people))

    def _proposed(self, people: People) -> Lifted | None:
        """The bodies that the network itself estimates, as one more hypothesis of the fit."""
        if people.theta is None or self.network.rotation_std is None:
            return None
        quats, betas, root = (torch.from_numpy(value)[:, None]
                              for value in (people.theta, people.betas, people.root))
        rotation_std = self.network.rotation_std.cpu().expand(len(people), 1, -1)
        root_std = torch.tensor(_PROPOSED_ROOT_STD).expand(len(people), 1, -1)
        return Lifted(quats, betas, root, rotation_std, root_std, torch.zeros(len(people), 1))

    def _measure(self, depth: np.ndarray, camera: Camera,
                 bodies: BodyFit) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
        """Measure people's distances; see `DepthGauge.measure`.

        Returns:
            root_z (P,) m, its std (P,) m, and joint_seen (P, 24) bool.
        Raises:
            DepthError: for a depth image of another size.
        """
        fit_std = bodies.root_cov[:, 2, 2].sqrt().clamp(min=0.05).numpy()
        root_z, std, joint_seen = self.depth_gauge.measure(
            depth, camera, bodies.state, fit_std, bodies.joint_observed.numpy())
        return torch.from_numpy(root_z), torch.from_numpy(std), joint_seen

    def _corrected(self, people: People, sighting: Sighting, bodies: BodyFit,
                   camera: Camera) -> People:
        """People with keypoints corrected by their bodies; without a body they stay."""
        points, points_cov, _, is_corrected = self.fitter.correct(sighting, bodies)
        pixels, cov = camera.distort_with_cov(points.numpy(), points_cov.numpy())
        is_finite = np.isfinite(pixels).all(-1) & np.isfinite(cov).all((-1, -2))
        ok = (bodies.ok & is_corrected).numpy()[:, None] & is_finite
        return people.with_fields(
            keypoints=np.where(ok[..., None], pixels, people.keypoints),
            keypoint_cov=np.where(ok[..., None, None], cov, people.keypoint_cov))


def check_image(image: np.ndarray) -> None:
    """Raise PipelineError unless an image is (H, W, 3) uint8 RGB that shows something.

    Raises:
        NoContrastError: if it shows nothing.
    """
    shape: tuple[int, ...] = getattr(image, "shape", ())
    if len(shape) != 3 or shape[2] != 3 or 0 in shape or image.dtype != np.uint8:
        raise PipelineError(f"image is {getattr(image, 'dtype', type(image).__name__)} {shape}, "
                            "expected uint8 (height, width, 3), RGB, not empty")
    if not has_contrast(image):
        low, high = int(image.min()), int(image.max())
        raise NoContrastError(f"the picture shows nothing: all of it lies between {low} and {high} "
                              "of 255; look for a covered lens, darkness, or a wrong exposure")


def _at_depth(bodies: BodyFit, root_z: torch.Tensor, previous: Previous) -> Previous:
    """Bodies just fitted, moved along the line of sight to their measured root_z (P,) m."""
    factor = root_z / bodies.root[:, 2]
    factor = torch.where(factor.isfinite(), factor, 1.0)
    state = bodies.state._replace(root=bodies.root * factor[:, None])
    return Previous(state, torch.zeros(len(factor)), previous.frames, bodies.disagreement_s,
                    previous.lift_state, previous.lift_age_s)


def _with_fit(people: People, bodies: BodyFit, joint_measured: np.ndarray | None) -> People:
    """People with fitted bodies; joint_measured (P, 24) bool: a depth image shows the joint."""
    arrays = {name: getattr(bodies, name).numpy().astype(float)
              for name in ("theta", "betas", "root", "root_cov", "joints", "joint_cov")}
    source = np.where(bodies.joint_observed.numpy(), OBSERVED, INFERRED)
    if joint_measured is not None:
        source = np.where(joint_measured, DEPTH, source)
    return people.with_fields(joint_source=source, **arrays)
