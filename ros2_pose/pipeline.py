"""From a frame to tracked people: the network, the tracker and the body layer in order."""

from __future__ import annotations

import logging
from pathlib import Path
import numpy as np
import torch

from ros2_pose.body.model import BodyModel
from ros2_pose.body.prior import PosePrior
from ros2_pose.body.solve import BodyFit, fit
from ros2_pose.body.state import BodyState
from ros2_pose.camera import Camera
from ros2_pose.config import PoseConfig
from ros2_pose.errors import PoseError
from ros2_pose.networks import NETWORKS
from ros2_pose.people import INFERRED, OBSERVED, Frame, People
from ros2_pose.track import Track, Tracker

log = logging.getLogger(__name__)

_CONTINUES = 1 / 3  # of score_threshold: what a detection must score to continue a track


class PipelineError(PoseError):
    """A frame or a setting that cannot be worked with; the message says why and what to do."""


class Pipeline:
    """Looks at one image after another; `step` is all there is to it.

    Not thread-safe: one thread steps. Raises PipelineError for a device that is not there.
    """

    def __init__(self, config: PoseConfig = PoseConfig()):
        self.config = config
        self.device = _device(config.device)
        network = NETWORKS[config.network](scales=config.scales, engine=self._engine())
        self.network = network.to(self.device)
        # A few small matrices a person: a GPU would wait for its own launches.
        self.body = BodyModel.load(config.body_model or None)
        self.network_name = self.network.name
        self.body_name = Path(config.body_model).stem or "open_body"
        self.prior = PosePrior.load()
        self.tracker = Tracker()
        self.configure(config)

    def _engine(self) -> str:
        """What runs the network: a GPU's is torch."""
        return self.config.engine if self.device.type == "cpu" else "torch"

    def configure(self, config: PoseConfig) -> None:
        """Take over the settings that may change while running."""
        self.config = config
        self.network.score_threshold = config.score_threshold * _CONTINUES
        self.network.max_people = config.max_people
        self.tracker.confirm_hits = config.confirm_hits
        self.tracker.lost_s = config.lost_s
        self.tracker.birth_score = config.score_threshold

    def reset(self) -> None:
        """Forget everyone: the next frame is not a continuation of the last."""
        self.tracker.reset()

    def step(self, frame: Frame) -> People:
        """The people of a frame, those just lost from sight included.

        Frames come in the order of their stamps; a step back in time forgets everyone. Without a
        usable camera there is no 3D and `People.note` says why. Raises PipelineError if the image
        is none.
        """
        _check_image(frame.image)
        if frame.stamp < self.tracker.latest:
            log.warning("time went back by %.3f s: everyone is forgotten",
                        (self.tracker.latest - frame.stamp) * 1e-9)
            self.reset()
        people = self.network.detect([frame.image])[0]
        people, tracks = self.tracker.assign(people, frame.stamp)
        camera, note = self.camera(frame)
        if camera is not None:
            people = self._with_bodies(people, tracks, camera)
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
    def _with_bodies(self, people: People, tracks: list[Track], camera: Camera) -> People:
        clear = people.keypoint_scores >= self.config.keypoint_threshold
        pixels = np.where(clear[..., None], people.keypoints, np.nan)
        rays, cov = camera.normalise_with_cov(pixels, people.keypoint_cov)
        bodies = fit(self.body, self.prior, torch.from_numpy(rays), torch.from_numpy(cov),
                     _start(tracks))
        for row, track in enumerate(tracks):
            ok = bool(bodies.ok[row])
            track.body = (bodies.theta[row], bodies.betas[row], bodies.root[row]) if ok else None
        return _with_fit(people, bodies)


def _device(wanted: str) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise PipelineError("device: cuda is not available to torch "
                            f"{torch.__version__}; use auto or cpu, or install a CUDA build")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def _check_image(image: np.ndarray) -> None:
    shape = getattr(image, "shape", ())
    if len(shape) != 3 or shape[2] != 3 or 0 in shape or image.dtype != np.uint8:
        raise PipelineError(f"image is {getattr(image, 'dtype', type(image).__name__)} {shape}, "
                            "expected uint8 (height, width, 3), RGB, not empty")


def _start(tracks: list[Track]) -> BodyState | None:
    """Where the fit of each person starts: the body of the image before, NaN if there is none."""
    states = [track.body for track in tracks]
    known = next((state for state in states if state is not None), None)
    if known is None:
        return None
    unknown = tuple(torch.full_like(tensor, torch.nan) for tensor in known)
    return BodyState(*(torch.stack(rows) for rows in
                       zip(*(unknown if state is None else state for state in states))))


def _with_fit(people: People, bodies: BodyFit) -> People:
    arrays = {name: getattr(bodies, name).numpy().astype(float)
              for name in ("theta", "betas", "root", "root_cov", "joints", "joint_cov")}
    source = np.where(bodies.joint_observed.numpy(), OBSERVED, INFERRED)
    return people.with_fields(joint_source=source, **arrays)
