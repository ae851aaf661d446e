"""From a frame to tracked people: the network, the tracker and the body layer in order."""

from __future__ import annotations

import logging
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ros2_pose.body.depth import DepthError, DepthGauge, DepthMeasurement
from ros2_pose.body.fitter import BodyFit, Fitter, Previous, Sighting
from ros2_pose.body.lift import Lift, Lifted
from ros2_pose.body.model import BodyModel
from ros2_pose.body.prior import PosePrior
from ros2_pose.body.state import BodyState
from ros2_pose.camera import Camera
from ros2_pose.config import PoseConfig
from ros2_pose.errors import PoseError
from ros2_pose.geometry import Transform, with_root_rotated
from ros2_pose.imaging.contrast import has_contrast
from ros2_pose.imaging.upright import UprightView, upright_view
from ros2_pose.networks import NETWORKS
from ros2_pose.people import DEPTH, INFERRED, OBSERVED, Frame, People
from ros2_pose.tracking.tracker import Track, Tracker

log = logging.getLogger(__name__)

_PROPOSED_ROOT_STD = (0.05, 0.05, 0.2)  # to the side, down, log distance, of a network's bodies
_LEAST_DETECTIONS = 20  # that the tracker chooses from, however few people are reported
CONTINUES = 1 / 3  # of score_threshold: what a detection must score to continue a track


class PipelineError(PoseError):
    """A frame or a setting that cannot be worked with; the message says why and what to do."""


class NoContrastError(PipelineError):
    """A picture that shows nothing: nobody can be looked for in it."""


class Pipeline:
    """Looks at one image after another; `step` is all there is to it.

    Not thread-safe: one thread steps. Raises PipelineError for a device that is not there.
    """

    def __init__(self, config: PoseConfig = PoseConfig()):
        self.config = config
        self.device = _device(config.device, config.require_gpu)
        network = NETWORKS[config.network].from_config(config, self._engine())
        self.network = network.to(self.device)
        # A few small matrices a person: a GPU would wait for its own launches.
        self.body = BodyModel.load(config.body_model or None)
        self.network_name = self.network.name
        self.body_name = Path(config.body_model).stem or "open_body"
        self.fitter = Fitter(self.body, PosePrior.load(), Lift.load())
        self.depth_gauge = DepthGauge(self.body)
        self.tracker = Tracker()
        self.view = UprightView()
        self.configure(config)

    def _engine(self) -> str:
        """What runs the network: a GPU's is torch."""
        return self.config.engine if self.device.type == "cpu" else "torch"

    def configure(self, config: PoseConfig) -> None:
        """Take over the settings that may change while running."""
        self.config = config
        self.network.score_threshold = config.score_threshold * CONTINUES
        self.network.max_people = max(config.max_people, _LEAST_DETECTIONS)
        self.tracker.max_people = config.max_people
        self.tracker.confirm_hits = config.confirm_hits
        self.tracker.lost_s = config.lost_s
        self.tracker.birth_score = config.score_threshold
        self.tracker.still_mps = config.still_mps
        self.fitter.settings = replace(self.fitter.settings, adult_height_m=config.adult_height_m)
        self.rotate_upright(_up(config))

    def another(self) -> Pipeline:
        """One for another camera: it shares the networks and has seen nobody yet."""
        other = copy(self)
        other.tracker = Tracker()
        other.configure(self.config)
        return other

    def reset(self) -> None:
        """Forget everyone: the next frame is not a continuation of the last."""
        self.tracker.reset()

    def step(self, frame: Frame) -> People:
        """The people of a frame, those just lost from sight included.

        Frames come in the order of their stamps; a step back in time forgets everyone. Without a
        usable camera there is no 3D and `People.note` says why. Raises PipelineError if the image
        is none, NoContrastError if it shows nothing.
        """
        check_image(frame.image)
        frame, note = self.with_camera(frame)
        upright = self.view.frame(frame)
        people = self.follow(self.network.detect([upright])[0], upright, note)
        return self.view.people_as_taken(people, frame)

    def with_camera(self, frame: Frame) -> tuple[Frame, str]:
        """A frame with the camera that bodies are fitted with, and as of `camera`."""
        camera, note = self.camera(frame)
        return replace(frame, camera=camera), note

    def rotate_upright(self, up: np.ndarray) -> None:
        """Look at frames rotated such that `up`, (3,) in the camera frame, points up in them."""
        view = upright_view(up, self.view)
        if view != self.view and self.tracker.tracks:
            log.warning("the camera is turned: everyone is forgotten")
            self.reset()
        self.view, self.up = view, view.up(up)

    def follow(self, people: People, frame: Frame, note: str = "") -> People:
        """`step`, from what the network found in a frame of `view.frame`; people stay in it.

        note: why the frame has no camera, if it has none.
        """
        if frame.stamp < self.tracker.latest:
            log.warning("time went back by %.3f s: everyone is forgotten",
                        (self.tracker.latest - frame.stamp) * 1e-9)
            self.reset()
        people, tracks = self.tracker.assign(people, frame.stamp, frame.camera,
                                             frame.camera_to_fixed)
        if frame.camera is not None:
            people = self._with_bodies(people, tracks, frame, frame.camera)
        note = note or people.note
        return self.tracker.report(people, tracks, frame.stamp).with_fields(note=note)

    def camera(self, frame: Frame) -> tuple[Camera | None, str]:
        """The camera that bodies of this frame are fitted with; None and why if there is none."""
        height, width = frame.image.shape[:2]
        if not self.config.body:
            return None, "body is off: 2D only"
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
        clear = people.keypoint_scores >= self.config.keypoint_threshold
        pixels = np.where(clear[..., None], people.keypoints, np.nan)
        rays, cov = camera.normalise_with_cov(pixels, people.keypoint_cov)
        sighting = Sighting(torch.from_numpy(rays), torch.from_numpy(cov), **self._surroundings(),
                            proposed=self._proposed(people))
        previous = previous_of(tracks, frame.stamp, frame.camera_to_fixed)
        bodies = self.fitter.fit(sighting, previous)
        measured = None
        if frame.depth is not None:
            try:
                measured = self._measure(frame.depth, camera, bodies)
            except DepthError as error:
                people = people.with_fields(note=str(error))
            else:
                bodies = self.fitter.fit(_with_depth(sighting, measured),
                                         _at_depth(bodies, measured, previous))
        for row, track in enumerate(tracks):
            track.body = TrackedBody.of(bodies, row, int(previous.frames[row]) + 1, frame)
        people = _with_fit(people, bodies, measured)
        return self._corrected(people, sighting, bodies, camera) if self.config.correct else people

    def _proposed(self, people: People) -> Lifted | None:
        """The bodies that the network itself saw, as one more hypothesis of the fit."""
        if people.theta is None or self.network.rotation_std is None:
            return None
        quats, betas, root = (torch.from_numpy(value)[:, None]
                              for value in (people.theta, people.betas, people.root))
        rotation_std = self.network.rotation_std.cpu().expand(len(people), 1, -1)
        root_std = torch.tensor(_PROPOSED_ROOT_STD).expand(len(people), 1, -1)
        return Lifted(quats, betas, root, rotation_std, root_std, torch.zeros(len(people), 1))

    def _surroundings(self) -> dict[str, torch.Tensor]:
        """Which way is up, and where the floor is if that is known."""
        known = {"up": torch.from_numpy(self.up)}
        if self.config.camera_height_m > 0:
            known["floor"] = torch.tensor((*self.up, self.config.camera_height_m))
        return known

    def _measure(self, depth: np.ndarray, camera: Camera, bodies: BodyFit) -> DepthMeasurement:
        """How far people are; raises DepthError for an image of another size."""
        std = bodies.root_cov[:, 2, 2].sqrt().clamp(min=0.05).numpy()
        return self.depth_gauge.measure(depth, camera, bodies.state, std,
                                        bodies.joint_observed.numpy())

    def _corrected(self, people: People, sighting: Sighting, bodies: BodyFit,
                   camera: Camera) -> People:
        """With keypoints corrected by the bodies, where there are bodies."""
        corrected = self.fitter.correct(sighting, bodies)
        pixels, cov = camera.distort_with_cov(corrected.points.numpy(), corrected.cov.numpy())
        ok = (bodies.ok & corrected.ok).numpy()[:, None] & np.isfinite(pixels).all(-1) \
            & np.isfinite(cov).all((-1, -2))
        return people.with_fields(
            keypoints=np.where(ok[..., None], pixels, people.keypoints),
            keypoint_cov=np.where(ok[..., None, None], cov, people.keypoint_cov))


class TrackedBody(NamedTuple):
    """What a track knows of its body: the state of the last fit, and how it came about."""

    state: BodyState  # of one person
    disagreement_s: float  # s, as of BodyFit
    frames: int
    stamp: int
    camera_to_fixed: Transform | None = None  # at that stamp

    @staticmethod
    def of(bodies: BodyFit, row: int, frames: int, frame: Frame) -> TrackedBody | None:
        """None if the body was not found."""
        if not bodies.ok[row]:
            return None
        state = BodyState(*(value[row] for value in bodies.state))
        return TrackedBody(state, float(bodies.disagreement_s[row]), frames, frame.stamp,
                           frame.camera_to_fixed)

    def seen_from(self, camera_to_fixed: Transform | None) -> BodyState:
        """The state in the frame of a camera that has moved, while the person stood."""
        if camera_to_fixed is None or self.camera_to_fixed is None:
            return self.state
        now_from_then = camera_to_fixed.inverse() @ self.camera_to_fixed
        theta = with_root_rotated(self.state.theta.numpy()[None], now_from_then.rotation)[0]
        root = now_from_then.apply(self.state.root.numpy())
        return self.state._replace(theta=torch.from_numpy(theta), root=torch.from_numpy(root))


def _device(wanted: str, require_gpu: bool) -> torch.device:
    if wanted == "cpu" and require_gpu:
        raise PipelineError("device: cpu is not what require_gpu asks for; choose one of the two")
    if (wanted == "cuda" or require_gpu) and not torch.cuda.is_available():
        raise PipelineError(f"device: cuda is not available to torch {torch.__version__}; use auto "
                            "or cpu without require_gpu, or install a CUDA build")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def _up(config: PoseConfig) -> np.ndarray:
    """(3,) the world's up in the camera frame, by the camera's pitch and roll."""
    pitch, roll = np.radians((config.camera_pitch_deg, config.camera_roll_deg))
    return np.array([-np.sin(roll) * np.cos(pitch), -np.cos(roll) * np.cos(pitch), -np.sin(pitch)])


def check_image(image: np.ndarray) -> None:
    """Raises PipelineError for what is no picture, and for one that shows nothing."""
    shape: tuple[int, ...] = getattr(image, "shape", ())
    if len(shape) != 3 or shape[2] != 3 or 0 in shape or image.dtype != np.uint8:
        raise PipelineError(f"image is {getattr(image, 'dtype', type(image).__name__)} {shape}, "
                            "expected uint8 (height, width, 3), RGB, not empty")
    if not has_contrast(image):
        low, high = int(image.min()), int(image.max())
        raise NoContrastError(f"the picture shows nothing: all of it lies between {low} and {high} "
                              "of 255; look for a covered lens, darkness, or a wrong exposure")


def previous_of(tracks: list[Track], stamp: int,
                camera_to_fixed: Transform | None = None) -> Previous:
    """The bodies of the images before in today's camera frame, NaN for people who have none."""
    zeros = torch.zeros(len(tracks))
    previous = Previous(BodyState.missing(zeros.double()), zeros, zeros.long(), zeros.clone())
    for row, track in enumerate(tracks):
        if track.body is not None:
            for values, value in zip(previous.state, track.body.seen_from(camera_to_fixed)):
                values[row] = value
            previous.seconds[row] = (stamp - track.body.stamp) * 1e-9
            previous.frames[row] = track.body.frames
            previous.disagreement_s[row] = track.body.disagreement_s
    return previous


def _with_depth(sighting: Sighting, measured: DepthMeasurement) -> Sighting:
    return sighting._replace(depth=torch.from_numpy(measured.root_z),
                             depth_std=torch.from_numpy(measured.std))


def _at_depth(bodies: BodyFit, measured: DepthMeasurement, previous: Previous) -> Previous:
    """The bodies just fitted, moved along the line of sight to where they were measured."""
    factor = torch.from_numpy(measured.root_z) / bodies.root[:, 2]
    factor = torch.where(factor.isfinite(), factor, 1.0)
    state = bodies.state._replace(root=bodies.root * factor[:, None])
    return Previous(state, torch.zeros(len(factor)), previous.frames, bodies.disagreement_s)


def _with_fit(people: People, bodies: BodyFit, measured: DepthMeasurement | None) -> People:
    arrays = {name: getattr(bodies, name).numpy().astype(float)
              for name in ("theta", "betas", "root", "root_cov", "joints", "joint_cov")}
    source = np.where(bodies.joint_observed.numpy(), OBSERVED, INFERRED)
    if measured is not None:
        source = np.where(measured.joint_seen, DEPTH, source)
    return people.with_fields(joint_source=source, **arrays)
