"""Frame, Ground and People: the data that pass between the rooms of the package."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from ros2_pose.camera import Camera
from ros2_pose.errors import PoseError
from ros2_pose.geometry import Transform, with_root_rotated
from ros2_pose.skeleton import COCO17, SMPL24

INFERRED, OBSERVED, DEPTH = 0, 1, 2  # joint_source
TENTATIVE, TRACKED, LOST = 0, 1, 2  # tracking_state

_K, _J = len(COCO17.names), len(SMPL24.names)
_SHAPES = {
    "boxes": (4,),
    "scores": (),
    "keypoints": (_K, 2),
    "keypoint_cov": (_K, 2, 2),
    "keypoint_scores": (_K,),
    "proposal_scores": (),
    "proposal_parts": (),
    "joints": (_J, 3),
    "joint_cov": (_J, 3, 3),
    "joint_source": (_J,),
    "theta": (_J, 4),
    "betas": (10,),
    "root": (3,),
    "root_cov": (6, 6),
    "velocity": (3,),
    "velocity_cov": (3, 3),
    "joint_velocity": (_J, 3),
    "joint_velocity_cov": (_J, 3, 3),
    "tracking_state": (),
    "age": (),
}
DETECTED = ("boxes", "scores", "keypoints", "keypoint_cov", "keypoint_scores")  # by a network
_VELOCITIES = ("velocity", "velocity_cov", "joint_velocity", "joint_velocity_cov")
_IN_SPACE = ("joints", "joint_cov", "joint_source", "theta", "betas", "root", "root_cov",
             *_VELOCITIES)


class PeopleError(PoseError):
    """Raised for a `People` with contradicting fields; the message names the field."""


@dataclass(frozen=True, eq=False)
class Ground:
    """The direction of gravity and the floor, seen by a camera.

    Args:
        up (3,): unit vector against gravity, in the camera frame.
        height_m: of the camera frame's origin above a level floor that people stand on; None if
            not known.
    """

    up: np.ndarray
    height_m: float | None = None


@dataclass(frozen=True)
class Frame:
    """One image and what is known about it.

    Args:
        image (H, W, 3): uint8, RGB, as the camera gave it (not undistorted).
        camera: intrinsics; None if the camera is not calibrated: then there is no 3D.
        stamp: time of exposure, ns, on the clock of the recording.
        depth (H, W): float32, m along the optical axis, aligned with the image; NaN where unknown.
            None if there is no depth camera.
        camera_to_fixed: from the camera frame to one that stands still, at the stamp; None if not
            known.
        ground: gravity and floor; None for those that the pipeline's settings describe.
        expected: people that tracking predicts in the image, px; None without tracking.
        search: parts of the network's search in the whole picture that are to be run; None: all.
    """

    image: np.ndarray
    camera: Camera | None = None
    stamp: int = 0
    depth: np.ndarray | None = None
    camera_to_fixed: Transform | None = None
    ground: Ground | None = None
    expected: People | None = None
    search: tuple[int, ...] | None = None


@dataclass(frozen=True)
class People:
    """The P people of one image, P >= 0; a field that is not known is None.

    Within a field, unknown values of a person or joint are NaN. Positions are in the camera frame
    (x right, y down, z forward; m), or in another one after `moved`. Pixel centres lie at +0.5.
    """

    boxes: np.ndarray  # (P, 4) x min, y min, x max, y max, px
    scores: np.ndarray  # (P,) 0..1
    keypoints: np.ndarray  # (P, 17, 2) COCO order, px
    keypoint_cov: np.ndarray  # (P, 17, 2, 2) px^2
    keypoint_scores: np.ndarray  # (P, 17) 0..1
    proposal_scores: np.ndarray | None = None  # (P,) 0..1, of the search that found the person
    proposal_parts: np.ndarray | None = None  # (P,) number of the part of that search
    joints: np.ndarray | None = None  # (P, 24, 3) SMPL order, m
    joint_cov: np.ndarray | None = None  # (P, 24, 3, 3) m^2
    joint_source: np.ndarray | None = None  # (P, 24) INFERRED, OBSERVED or DEPTH
    theta: np.ndarray | None = None  # (P, 24, 4) unit quaternions x, y, z, w; theta[:, 0] to camera
    betas: np.ndarray | None = None  # (P, 10)
    root: np.ndarray | None = None  # (P, 3) pelvis, m
    root_cov: np.ndarray | None = None  # (P, 6, 6) of x, y, z, rotation about x, y, z; m, rad
    velocity: np.ndarray | None = None  # (P, 3) of the pelvis, m/s
    velocity_cov: np.ndarray | None = None  # (P, 3, 3)
    joint_velocity: np.ndarray | None = None  # (P, 24, 3) m/s
    joint_velocity_cov: np.ndarray | None = None  # (P, 24, 3, 3)
    tracking_state: np.ndarray | None = None  # (P,) TENTATIVE, TRACKED or LOST
    age: np.ndarray | None = None  # (P,) s since first seen
    ids: tuple[str, ...] | None = None  # (P,)
    note: str = ""  # text for users: what is missing, why, and what to do

    def __post_init__(self) -> None:
        count = len(self.boxes)
        for name, shape in _SHAPES.items():
            value = getattr(self, name)
            if value is not None and not isinstance(value, np.ndarray):
                raise PeopleError(f"{name} is {type(value).__name__}, expected a numpy array")
            if value is not None and value.shape != (count, *shape):
                raise PeopleError(f"{name} is {value.shape}, expected {(count, *shape)}")
        if self.ids is not None and len(self.ids) != count:
            raise PeopleError(f"{len(self.ids)} ids for {count} people")

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def is_3d(self) -> bool:
        """Whether positions were estimated, even if of 0 people."""
        return self.root is not None

    def __getitem__(self, rows) -> People:
        """Select people by a slice, a mask (P,) or a list of indices."""
        chosen = np.arange(len(self))[rows]
        if chosen.ndim != 1:
            raise TypeError(f"select people by a slice, a mask or a list, not by {rows!r}")
        return People(**{f.name: _rows(getattr(self, f.name), chosen) for f in fields(self)})

    def with_fields(self, **values) -> People:
        """Return a copy in which the named fields are replaced."""
        return replace(self, **values)

    def moved(self, b_from_a: Transform) -> People:
        """Express people of frame a in frame b.

        Pixels stay. A velocity is rotated and stays relative to what it was relative to: the motion
        of frame b itself is not subtracted.
        """
        rotmat = b_from_a.rotmat
        both = np.kron(np.eye(2), rotmat)  # position, and rotation about the axes
        changes = {
            "joints": b_from_a.apply,
            "root": b_from_a.apply,
            "velocity": lambda vectors: vectors @ rotmat.T,
            "joint_velocity": lambda vectors: vectors @ rotmat.T,
            "theta": lambda quats: with_root_rotated(quats, b_from_a.rotation),
            "joint_cov": lambda cov: rotmat @ cov @ rotmat.T,
            "velocity_cov": lambda cov: rotmat @ cov @ rotmat.T,
            "joint_velocity_cov": lambda cov: rotmat @ cov @ rotmat.T,
            "root_cov": lambda cov: both @ cov @ both.T,
        }
        moved = {}
        for name, change in changes.items():
            value = getattr(self, name)
            if value is not None:
                moved[name] = change(value)
        return self.with_fields(**moved)

    def without_bodies(self, note: str) -> People:
        """Return a copy without 3D fields; note says why they are missing."""
        return self.with_fields(**dict.fromkeys(_IN_SPACE), note=note)

    def without_velocities(self) -> People:
        """Return a copy with NaN velocities."""
        return self.with_unknown(*_VELOCITIES)

    def with_unknown(self, *names: str) -> People:
        """Return a copy with NaN in the named fields; those that are None stay None."""
        values = {name: getattr(self, name) for name in names}
        return self.with_fields(**{name: np.full_like(value, np.nan)
                                   for name, value in values.items() if value is not None})

    def with_sides_changed(self, rows: list[int]) -> People:
        """Return a copy in which left and right keypoints of the people in rows are swapped."""
        if not rows:
            return self
        swapped = {}
        for name in ("keypoints", "keypoint_cov", "keypoint_scores"):
            swapped[name] = getattr(self, name).copy()
            swapped[name][rows] = swapped[name][rows][:, COCO17.mirror]
        return self.with_fields(**swapped)

    def state_of(self, i: int) -> int:
        """Return TENTATIVE, TRACKED or LOST for a person; TENTATIVE without tracking."""
        return TENTATIVE if self.tracking_state is None else int(self.tracking_state[i])

    @staticmethod
    def nobody() -> People:
        """Return the P = 0 people of an image without any."""
        empty: dict[str, Any] = {name: np.zeros((0, *_SHAPES[name])) for name in DETECTED}
        return People(**empty)


def _rows(value, chosen):
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, tuple):
        return tuple(value[i] for i in chosen)
    return value[chosen]


def concatenated(parts: list[People]) -> People:
    """Join the people of one or more parts, in their order.

    A field that the first part does not have is left out; where another part lacks it, it is NaN.
    The note is the first part's.
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    values: dict[str, Any] = {}
    for name, value in vars(first).items():
        if isinstance(value, np.ndarray):
            values[name] = np.concatenate([_field(part, name, value) for part in parts])
    if first.ids is not None:
        values["ids"] = tuple(one for part in parts for one in part.ids or ())
    return first.with_fields(**values)


def _field(part: People, name: str, like: np.ndarray) -> np.ndarray:
    """A field of a part, NaN if it has none."""
    value = getattr(part, name)
    return np.full((len(part), *like.shape[1:]), np.nan) if value is None else value
