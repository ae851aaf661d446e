"""Several calibrated cameras at one time: people put together across views, and fused.

Each view's keypoints and single-view bodies come from `Pipeline`. `correspondence` says who is who,
`triangulate` where their keypoints are, and the body is fitted to those in 3D with their
covariances: the most probable body given all views. Who is seen by one camera alone stays as that
camera sees him.

The common frame is whatever the cameras' poses lead to: metres, and any direction may be up.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from ros2_pose.body.fitter import BodyFit, Fitter, Previous, Sighting
from ros2_pose.body.state import BodyState
from ros2_pose.camera import Camera
from ros2_pose.errors import PoseError
from ros2_pose.geometry import Transform, with_root_rotated
from ros2_pose.multiview.association import ViewDetections, correspond
from ros2_pose.multiview.triangulation import Observations, triangulate
from ros2_pose.people import DEPTH, INFERRED, OBSERVED, People
from ros2_pose.skeleton import COCO17, SMPL24

_RELATIVE_M = 0.15  # of a keypoint's depth relative to its body's, as one view shows it
_DISCOUNT = 3.0  # of a view's own deviation of depth: the same prior is in the fit once more
_BEFORE_M = 4.0  # from which the fit looks at a person
_LIFT_WEIGHT = 0.3  # where keypoints are in 3D, what one view of them proposes says little more
_BODY = {"theta": (len(SMPL24), 4), "betas": (10,), "root": (3,), "root_cov": (6, 6),
         "joints": (len(SMPL24), 3), "joint_cov": (len(SMPL24), 3, 3)}

# Log odds (M,) that rows (M,) of views (M,) are the same people as rows of others.
Before = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


class MultiviewError(PoseError):
    """Poses or frames that cannot be used; the message says which and what to do."""


class View(NamedTuple):
    """What one camera says at one time."""

    people: People  # with single-view bodies, camera frame; keypoints as measured, not corrected
    camera: Camera
    camera_to_common: Transform
    age: float = 0.0  # s, by which its image is older than the newest view's

    @property
    def in_common(self) -> People:
        """Its people, in the common frame."""
        return self.people.moved(self.camera_to_common)


class Fused(NamedTuple):
    """P people in the common frame."""

    people: People  # boxes and keypoints are NaN: they belong to views
    disagreement_s: np.ndarray  # (P,) s, as of `BodyFit`


class Fuser:
    """Puts the people of several views together. It keeps nothing between calls.

    up: (3,) the world's up in the common frame. keypoint_threshold: score from which a keypoint is
    evidence.
    """

    def __init__(self, fitter: Fitter, up=(0.0, 0.0, 1.0), keypoint_threshold: float = 0.0):
        length = np.linalg.norm(up)
        if not 0 < length < np.inf:
            raise MultiviewError(f"up is {up}, expected a direction: three numbers, not all zero")
        self.up = np.asarray(up, float) / length
        self.fitter, self.keypoint_threshold = fitter, keypoint_threshold

    def associate(self, views: list[View], before: Before | None = None) -> np.ndarray:
        """(P, V) each person's row in every view's people; -1: not seen there. Who has no body in
        his only view is left out: nothing says where he is.

        before: what was known of who is who before looking.
        """
        view = np.repeat(np.arange(len(views)), [len(one.people) for one in views])
        row = np.concatenate([np.arange(len(one.people)) for one in views])
        parts = [self._bodies(one, number) for number, one in enumerate(views)]
        known = None
        if before is not None:
            a, b = np.meshgrid(np.arange(len(view)), np.arange(len(view)), indexing="ij")
            known = before(view[a].ravel(), row[a].ravel(), view[b].ravel(),
                           row[b].ravel()).reshape(a.shape)
        bodies = ViewDetections(*map(np.concatenate, zip(*parts)))
        person = correspond(bodies, np.stack([one.camera_to_common.matrix for one in views]), known)
        rows = np.full((person.max(initial=-1) + 1, len(views)), -1)
        rows[person, view] = row
        has_position = np.isin(np.arange(len(rows)), person[np.isfinite(bodies.distance)])
        return rows[has_position]

    def fuse(self, views: list[View], rows: np.ndarray, previous: Previous | None = None) -> Fused:
        """The most probable people, given all views.

        rows: (P, V) as of `associate`. previous: the same people as they were before, in the common
        frame; NaN for who is new.
        """
        many = (rows >= 0).sum(1) > 1
        in_common = [view.in_common for view in views]
        fields = {name: np.full((len(rows), *shape), np.nan) for name, shape in _BODY.items()}
        fields["joint_source"] = np.full((len(rows), len(SMPL24)), INFERRED)
        disagreement_s = np.zeros(len(rows))
        if many.any():
            known = None if previous is None else previous.rows(torch.from_numpy(many))
            found, fused = self._fit(views, rows[many], known)
            disagreement_s[many] = found.disagreement_s.nan_to_num().numpy()
            for name, values in fused.items():
                fields[name][many] = values
        for person in np.flatnonzero(~np.isfinite(fields["root"]).all(1)):
            view, row = _best_view(views, rows[person])
            for name, values in fields.items():
                values[person] = getattr(in_common[view], name)[row]
        return Fused(without_pixels(views, rows).with_fields(**fields), disagreement_s)

    # ----------------------------------------------------------------------- association

    def _bodies(self, view: View, number: int) -> ViewDetections:
        people, drift = view.people, self._drift(view)
        rays, cov = self._rays(view)
        if people.root is None:
            unknown = {name: np.full((len(people), *shape), np.nan)
                       for name, shape in _BODY.items()}
            people = people.with_fields(**unknown)
        moved = view._replace(people=people).in_common
        return ViewDetections(np.full(len(people), number), rays, cov, moved.joints,
                      moved.joint_cov + drift**2 * np.eye(3), people.root[:, 2])

    def _rays(self, view: View) -> tuple[np.ndarray, np.ndarray]:
        """(P, 17, 2) and (P, 17, 2, 2) keypoints as rays, as uncertain as they are by now."""
        people = view.people
        clear = people.keypoint_scores >= self.keypoint_threshold
        pixels = np.where(clear[..., None], people.keypoints, np.nan)
        rays, cov = view.camera.normalise_with_cov(pixels, people.keypoint_cov)
        if people.root is not None:
            step = np.nan_to_num(self._drift(view) / people.root[:, 2])
            cov = cov + (step**2)[:, None, None, None] * np.eye(2)
        return rays, cov

    def _drift(self, view: View) -> float:
        """m by which people may have moved since the image."""
        return self.fitter.settings.speed_m_s * view.age

    # ---------------------------------------------------------------------------- fusion

    @property
    def _in_space(self) -> Fitter:
        """The fit to keypoints in 3D."""
        fitter = copy(self.fitter)
        fitter.settings = replace(fitter.settings, lift_weight=_LIFT_WEIGHT)
        return fitter

    def _fit(self, views: list[View], rows: np.ndarray,
             previous: Previous | None) -> tuple[BodyFit, dict[str, np.ndarray]]:
        """P people whom several views see, and their fields in the common frame."""
        each = [self._seen(view, rows[:, number]) for number, view in enumerate(views)]
        seen = Observations(*(np.stack(values).reshape(len(views), -1, *values[0].shape[2:])
                      for values in zip(*each)))
        poses = np.stack([view.camera_to_common.matrix for view in views])
        points, cov = triangulate(seen, poses)
        points, cov = (v.reshape(len(rows), len(COCO17), *v.shape[1:]) for v in (points, cov))
        frames = self._frames(points, poses[:, :3, 3])
        sighting = Sighting(*map(torch.from_numpy, frames.enter(points, cov)))
        if previous is not None:
            previous = previous._replace(state=frames.state(previous.state))
        found = self._in_space.fit(sighting, previous)
        fields = frames.leave(found)
        fields["joint_source"] = _source(views, rows, found.joint_observed.numpy())
        return found, fields

    def _seen(self, view: View, rows: np.ndarray) -> Observations:
        """What a view says of P people, (P, 17, ...), NaN where rows (P,) are -1."""
        people = view.people
        if people.root is None or not len(people):
            shapes = ((2,), (2, 2), (), ())
            return Observations(
                *(np.full((len(rows), len(COCO17), *shape), np.nan) for shape in shapes)
            )
        state = (torch.from_numpy(getattr(people, name)) for name in BodyState._fields)
        depth = self.fitter.model(*state, with_vertices=False).keypoints[..., 2].numpy()
        measured = (people.joint_source == DEPTH).any(1)
        std = np.sqrt(people.root_cov[:, 2, 2]) * np.where(measured, 1.0, _DISCOUNT)
        # The body's distance is one number: each keypoint says its share of it.
        std = np.sqrt(len(COCO17) * std**2 + _RELATIVE_M**2)[:, None].repeat(len(COCO17), 1)
        values = Observations(*self._rays(view), depth, std)
        missing = rows < 0
        return Observations(*(np.where(missing.reshape(-1, *[1] * (v.ndim - 1)), np.nan, v[rows])
                      for v in values))

    def _frames(self, points: np.ndarray, centres: np.ndarray) -> _PersonFrames:
        """A level camera before each of P people with keypoints (P, 17, 3), on the side of the
        cameras' centres (V, 3): what the fit and its lift are made for."""
        middle = np.nanmedian(points, axis=1)
        forward = (middle[:, None] - centres)
        forward = forward / np.linalg.norm(forward, axis=2, keepdims=True)
        forward = _across(forward.sum(1), self.up)
        right = np.cross(-self.up, forward)
        rotmat = np.stack([right, np.broadcast_to(-self.up, right.shape), forward], 1)
        return _PersonFrames(rotmat, middle - _BEFORE_M * forward)


class _PersonFrames(NamedTuple):
    """P frames, one for each person."""

    rotmat: np.ndarray  # (P, 3, 3) from the common frame
    origin: np.ndarray  # (P, 3) m, in the common frame

    def enter(self, points: np.ndarray, cov: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points (P, K, 3) and covariances (P, K, 3, 3) of the common frame in these."""
        rotmat = self.rotmat[:, None]
        moved = (rotmat @ (points - self.origin[:, None])[..., None])[..., 0]
        return moved, rotmat @ cov @ np.swapaxes(rotmat, 2, 3)

    def state(self, state: BodyState) -> BodyState:
        """Bodies of the common frame in these; NaN stays."""
        root = (self.rotmat @ (state.root.numpy() - self.origin)[..., None])[..., 0]
        theta = with_root_rotated(state.theta.numpy(), Rotation.from_matrix(self.rotmat))
        return BodyState(torch.from_numpy(theta), state.betas, torch.from_numpy(root))

    def leave(self, found: BodyFit) -> dict[str, np.ndarray]:
        """Fields of `People` in the common frame."""
        back = np.swapaxes(self.rotmat, 1, 2)
        fields = {name: getattr(found, name).numpy().astype(float) for name in _BODY}
        fields["theta"] = with_root_rotated(fields["theta"], Rotation.from_matrix(back))
        for name in ("root", "joints"):
            positions = fields[name].reshape(len(back), -1, 3)
            positions = positions @ self.rotmat + self.origin[:, None]
            fields[name] = positions.reshape(fields[name].shape)
        both = np.zeros((len(back), 6, 6))
        both[:, :3, :3] = both[:, 3:, 3:] = back
        fields["root_cov"] = both @ fields["root_cov"] @ np.swapaxes(both, 1, 2)
        fields["joint_cov"] = back[:, None] @ fields["joint_cov"] @ self.rotmat[:, None]
        return fields


def _across(direction: np.ndarray, up: np.ndarray) -> np.ndarray:
    """(P, 3) unit vectors: directions (P, 3) without their part along up; any, if none is left."""
    level = direction - (direction @ up)[:, None] * up
    any_level = np.cross(up, np.eye(3)[np.abs(up).argmin()])
    length = np.linalg.norm(level, axis=1, keepdims=True)
    level = np.where(length > 1e-3, level / np.maximum(length, 1e-12), any_level)
    return level / np.linalg.norm(level, axis=1, keepdims=True)


def _best_view(views: list[View], rows: np.ndarray) -> tuple[int, int]:
    """The view that knows best where a person with rows (V,) is, and the row there."""
    known = [(np.trace(view.people.root_cov[row, :3, :3]), number, row)
             for number, (view, row) in enumerate(zip(views, rows))
             if row >= 0 and view.people.root is not None
             and np.isfinite(view.people.root[row]).all()]
    _, view, row = min(known)
    return view, row


def _source(views: list[View], rows: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """(P, 24) DEPTH where any view has measured it, else OBSERVED or INFERRED."""
    source = np.where(observed, OBSERVED, INFERRED)
    for number, view in enumerate(views):
        if view.people.joint_source is not None and len(view.people):
            measured = (view.people.joint_source[rows[:, number]] == DEPTH) \
                & (rows[:, number] >= 0)[:, None]
            source = np.where(measured, DEPTH, source)
    return source


def without_pixels(views: list[View], rows: np.ndarray) -> People:
    """P people of whom the best of their scores is known, rows (P, V) as of `Fuser.associate`;
    boxes and keypoints belong to views."""

    def best(name: str) -> np.ndarray:
        return np.max([np.where((rows[:, number] >= 0).reshape(-1, *[1] * (values.ndim - 1)),
                                values[rows[:, number]], 0.0)
                       for number, view in enumerate(views)
                       if len(values := getattr(view.people, name))], axis=0)

    if not len(rows):
        return People.nobody()
    blank = People.nobody()
    unknown: dict[str, Any] = {
        name: np.full((len(rows), *getattr(blank, name).shape[1:]), np.nan)
        for name in ("boxes", "keypoints", "keypoint_cov")}
    return People(scores=best("scores"), keypoint_scores=best("keypoint_scores"), **unknown)
