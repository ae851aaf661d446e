"""Fusion of people across views: association, triangulation, and a fit to keypoints in 3D.

Each view's keypoints and single-view bodies come from `Pipeline`. `association` groups the people
of all views into persons, `triangulation` computes positions of their keypoints, and the body is
fitted to these with their covariances: the most probable body given all views. A person in one view
alone keeps that view's body.

The common frame is the one that the cameras' extrinsics lead to; any direction may be up.
"""

from __future__ import annotations

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
from ros2_pose.multiview.association import ViewDetections, associate_views
from ros2_pose.multiview.triangulation import triangulate
from ros2_pose.people import DEPTH, INFERRED, OBSERVED, People
from ros2_pose.skeleton import COCO17, SMPL24

_RELATIVE_M = 0.15  # std of a keypoint's depth relative to its body's, by one view
_DISCOUNT = 3.0  # on a view's own std of depth: its prior is in the fit once more
_DISTANCE_M = 4.0  # of the virtual camera from which the fit sees a person
_LIFT_WEIGHT = 0.3  # with keypoints in 3D, the lift of one view adds little
_BODY = {"theta": (len(SMPL24), 4), "betas": (10,), "root": (3,), "root_cov": (6, 6),
         "joints": (len(SMPL24), 3), "joint_cov": (len(SMPL24), 3, 3)}


class MultiviewError(PoseError):
    """Raised for extrinsics, settings or frames that cannot be used; the message says which."""


class View(NamedTuple):
    """The people that one camera sees at one time."""

    people: People  # with single-view bodies, camera frame; keypoints as measured, not corrected
    camera: Camera
    camera_to_common: Transform
    age: float = 0.0  # s, by which its image is older than the newest view's

    @property
    def in_common(self) -> People:
        """Its people, in the common frame."""
        return self.people.moved(self.camera_to_common)


class Fuser:
    """Associates and fuses the people of several views; it keeps nothing between calls."""

    def __init__(self, fitter: Fitter, up=(0.0, 0.0, 1.0), keypoint_threshold: float = 0.0):
        """Create a fuser.

        Args:
            fitter: fits bodies to keypoints.
            up (3,): direction against gravity in the common frame, of any length.
            keypoint_threshold: score from which a keypoint is used, 0..1.
        Raises:
            MultiviewError: if up is no direction.
        """
        length = np.linalg.norm(up)
        if not 0 < length < np.inf:
            raise MultiviewError(f"up is {up}, expected a direction: three numbers, not all zero")
        self.up: np.ndarray = np.asarray(up, float) / length
        self.fitter, self.keypoint_threshold = fitter, keypoint_threshold
        self._fitter_in_3d = fitter.with_settings(
            replace(fitter.settings, lift_weight=_LIFT_WEIGHT))

    def associate(self, views: list[View], prior: np.ndarray | None = None) -> np.ndarray:
        """Group the people of V views into persons.

        Args:
            prior (N, N): log odds that two of the N people of all views, in their order, are one,
                by earlier frames; None without any.
        Returns:
            (P, V) row of each person in every view's people; -1: not seen there. A person without
            body in the only view is left out: its position is not known.
        """
        view = np.repeat(np.arange(len(views)), [len(one.people) for one in views])
        row = np.concatenate([np.arange(len(one.people)) for one in views])
        parts = [self._detections(one, number) for number, one in enumerate(views)]
        detections = ViewDetections(*map(np.concatenate, zip(*parts)))
        person = associate_views(detections, _extrinsics(views), prior)
        rows = np.full((person.max(initial=-1) + 1, len(views)), -1)
        rows[person, view] = row
        has_position = np.isin(np.arange(len(rows)), person[np.isfinite(detections.distance)])
        return rows[has_position]

    def fuse(self, views: list[View], rows: np.ndarray,
             previous: Previous | None = None) -> tuple[People, np.ndarray]:
        """Fit the most probable bodies, given all views.

        Args:
            rows (P, V): of `associate`.
            previous: the same people at the last time, in the common frame; NaN for new ones.
        Returns:
            People in the common frame without pixels, and disagreement_s (P,), see `BodyFit`.
        """
        in_several = (rows >= 0).sum(1) > 1
        fields = {name: np.full((len(rows), *shape), np.nan) for name, shape in _BODY.items()}
        fields["joint_source"] = np.full((len(rows), len(SMPL24)), INFERRED)
        disagreement_s = np.zeros(len(rows))
        if in_several.any():
            known = None if previous is None else previous.rows(torch.from_numpy(in_several))
            found, fused = self._fit(views, rows[in_several], known)
            disagreement_s[in_several] = found.disagreement_s.nan_to_num().numpy()
            for name, values in fused.items():
                fields[name][in_several] = values
        in_common = [view.in_common for view in views]
        for person in np.flatnonzero(~np.isfinite(fields["root"]).all(1)):
            view, row = _best_view(views, rows[person])
            for name, values in fields.items():
                values[person] = getattr(in_common[view], name)[row]
        return _without_pixels(views, rows).with_fields(**fields), disagreement_s

    # ----------------------------------------------------------------------- association

    def _detections(self, view: View, number: int) -> ViewDetections:
        people = view.people
        rays, cov = self._rays(view)
        if people.root is None:
            unknown = {name: np.full((len(people), *shape), np.nan)
                       for name, shape in _BODY.items()}
            people = people.with_fields(**unknown)
        moved = people.moved(view.camera_to_common)
        assert people.root is not None and moved.joints is not None and moved.joint_cov is not None
        joint_cov = moved.joint_cov + self._drift_m(view)**2 * np.eye(3)
        return ViewDetections(np.full(len(people), number), rays, cov, moved.joints, joint_cov,
                              people.root[:, 2])

    def _rays(self, view: View) -> tuple[np.ndarray, np.ndarray]:
        """Keypoints as rays (P, 17, 2) and (P, 17, 2, 2), less certain by the image's age."""
        people = view.people
        clear = people.keypoint_scores >= self.keypoint_threshold
        pixels = np.where(clear[..., None], people.keypoints, np.nan)
        rays, cov = view.camera.normalise_with_cov(pixels, people.keypoint_cov)
        if people.root is not None:
            step = np.nan_to_num(self._drift_m(view) / people.root[:, 2])
            cov = cov + (step**2)[:, None, None, None] * np.eye(2)
        return rays, cov

    def _drift_m(self, view: View) -> float:
        """Distance that people may have moved since the image, m."""
        return self.fitter.settings.speed_m_s * view.age

    # ---------------------------------------------------------------------------- fusion

    def _fit(self, views: list[View], rows: np.ndarray,
             previous: Previous | None) -> tuple[BodyFit, dict[str, np.ndarray]]:
        """Fit P people seen by several views; returns the fit and fields in the common frame."""
        points, cov = self._triangulated(views, rows)
        rotmat, origin = self._person_frames(points, _extrinsics(views)[:, :3, 3])
        points, cov = _to_person_frames(points, cov, rotmat, origin)
        if previous is not None:
            state = _state_to_person_frames(previous.state, rotmat, origin)
            previous = previous._replace(state=state)
        sighting = Sighting(torch.from_numpy(points), torch.from_numpy(cov))
        found = self._fitter_in_3d.fit(sighting, previous)
        fields = _fields_from_person_frames(found, rotmat, origin)
        fields["joint_source"] = _joint_source(views, rows, found.joint_observed.numpy())
        return found, fields

    def _triangulated(self, views: list[View], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Keypoints (P, 17, 3) m in the common frame, and covariances (P, 17, 3, 3) m^2."""
        by_view = [self._observations(view, rows[:, number]) for number, view in enumerate(views)]
        observations = []
        for values in zip(*by_view):  # of all views: rays, then their cov, ...
            stacked = np.stack(values)  # (V, P, 17, ...)
            observations.append(stacked.reshape(len(views), -1, *stacked.shape[3:]))
        rays, ray_cov, depth, depth_std = observations
        points, cov = triangulate(rays, ray_cov, depth, depth_std, _extrinsics(views))
        return points.reshape(-1, len(COCO17), 3), cov.reshape(-1, len(COCO17), 3, 3)

    def _observations(self, view: View, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """What a view measures of P people's keypoints; NaN where rows (P,) are -1.

        Returns:
            rays (P, 17, 2), cov (P, 17, 2, 2), depth (P, 17) m and depth_std (P, 17) m, as
            `triangulate` takes them.
        """
        people = view.people
        if people.root is None or not len(people):
            shapes = ((2,), (2, 2), (), ())
            return tuple(np.full((len(rows), len(COCO17), *shape), np.nan) for shape in shapes)
        state = (torch.from_numpy(getattr(people, name)) for name in BodyState._fields)
        depth = self.fitter.model(*state, with_vertices=False).keypoints[..., 2].numpy()
        assert people.joint_source is not None and people.root_cov is not None
        measured = np.any(people.joint_source == DEPTH, axis=1)
        std = np.sqrt(people.root_cov[:, 2, 2]) * np.where(measured, 1.0, _DISCOUNT)
        # The body's distance is one number: each keypoint carries its share of the information.
        std = np.sqrt(len(COCO17) * std**2 + _RELATIVE_M**2)[:, None].repeat(len(COCO17), 1)
        missing = rows < 0
        values = []
        for value in (*self._rays(view), depth, std):
            chosen = value[rows]
            chosen[missing] = np.nan
            values.append(chosen)
        return tuple(values)

    def _person_frames(self, points: np.ndarray,
                       centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A level virtual camera before each of P people, which fit and lift are made for.

        It stands on the side of the real cameras.

        Args:
            points (P, 17, 3): keypoints, common frame.
            centres (V, 3): of the cameras, common frame.
        Returns:
            rotmat (P, 3, 3) from the common frame, and origin (P, 3) m in the common frame.
        """
        middle = np.nanmedian(points, axis=1)
        towards = middle[:, None] - centres
        towards = towards / np.linalg.norm(towards, axis=2, keepdims=True)
        forward = _level(towards.sum(1), self.up)
        right = np.cross(-self.up, forward)
        rotmat = np.stack([right, np.broadcast_to(-self.up, right.shape), forward], 1)
        return rotmat, middle - _DISTANCE_M * forward


# ---------- the frames of P people: rotmat (P, 3, 3) from the common frame, origin (P, 3) m in it


def _to_person_frames(points: np.ndarray, cov: np.ndarray, rotmat: np.ndarray,
                      origin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (P, K, 3) and covariances (P, K, 3, 3) of the common frame in the people's frames."""
    rotmat = rotmat[:, None]
    moved = (rotmat @ (points - origin[:, None])[..., None])[..., 0]
    return moved, rotmat @ cov @ np.swapaxes(rotmat, 2, 3)


def _state_to_person_frames(state: BodyState, rotmat: np.ndarray, origin: np.ndarray) -> BodyState:
    """Bodies of the common frame in the people's frames; NaN stays."""
    root = (rotmat @ (state.root.numpy() - origin)[..., None])[..., 0]
    theta = with_root_rotated(state.theta.numpy(), Rotation.from_matrix(rotmat))
    return BodyState(torch.from_numpy(theta), state.betas, torch.from_numpy(root))


def _fields_from_person_frames(found: BodyFit, rotmat: np.ndarray,
                               origin: np.ndarray) -> dict[str, np.ndarray]:
    """Fields of `People` in the common frame, of bodies fitted in the people's frames."""
    back = np.swapaxes(rotmat, 1, 2)
    fields = {name: getattr(found, name).numpy().astype(float) for name in _BODY}
    fields["theta"] = with_root_rotated(fields["theta"], Rotation.from_matrix(back))
    for name in ("root", "joints"):
        positions = fields[name].reshape(len(back), -1, 3)
        positions = positions @ rotmat + origin[:, None]
        fields[name] = positions.reshape(fields[name].shape)
    both = np.zeros((len(back), 6, 6))
    both[:, :3, :3] = both[:, 3:, 3:] = back
    fields["root_cov"] = both @ fields["root_cov"] @ np.swapaxes(both, 1, 2)
    fields["joint_cov"] = back[:, None] @ fields["joint_cov"] @ rotmat[:, None]
    return fields


def rough_people(views: list[View], rows: np.ndarray) -> People:
    """Return P people at the mean of their views' root positions, weighted by covariance.

    Args:
        rows (P, V): of `Fuser.associate`.
    Returns:
        People with root and root_cov (its rotation part NaN) in the common frame, without pixels.
    """
    information = np.zeros((len(rows), 3, 3))
    weighted = np.zeros((len(rows), 3, 1))
    for view, column in zip(views, rows.T):
        people = view.in_common
        for person in np.flatnonzero(column >= 0):
            row = column[person]
            if people.root is None or people.root_cov is None:
                continue
            if np.isfinite(people.root[row]).all():
                precision = np.linalg.inv(people.root_cov[row, :3, :3])
                information[person] += precision
                weighted[person] += precision @ people.root[row, :, None]
    cov = np.full((len(rows), 6, 6), np.nan)
    cov[:, :3, :3] = np.linalg.inv(information)
    root = (cov[:, :3, :3] @ weighted)[..., 0]
    return _without_pixels(views, rows).with_fields(root=root, root_cov=cov)


def _extrinsics(views: list[View]) -> np.ndarray:
    """(V, 4, 4) camera to common frame."""
    return np.stack([view.camera_to_common.matrix for view in views])


def _level(direction: np.ndarray, up: np.ndarray) -> np.ndarray:
    """(P, 3) unit vectors: directions (P, 3) without their part along up; any, if none is left."""
    level = direction - (direction @ up)[:, None] * up
    any_level = np.cross(up, np.eye(3)[np.abs(up).argmin()])
    length = np.linalg.norm(level, axis=1, keepdims=True)
    level = np.where(length > 1e-3, level / np.maximum(length, 1e-12), any_level)
    return level / np.linalg.norm(level, axis=1, keepdims=True)


def _best_view(views: list[View], rows: np.ndarray) -> tuple[int, int]:
    """The view with the most certain root of a person with rows (V,), and the row there."""
    known = []
    for number, (view, row) in enumerate(zip(views, rows)):
        root, root_cov = view.people.root, view.people.root_cov
        if row < 0 or root is None or root_cov is None:
            continue
        if np.isfinite(root[row]).all():
            known.append((np.trace(root_cov[row, :3, :3]), number, row))
    _, best, row = min(known)
    return best, row


def _joint_source(views: list[View], rows: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """(P, 24) DEPTH where any view has measured it, else OBSERVED or INFERRED."""
    source = np.where(observed, OBSERVED, INFERRED)
    for number, view in enumerate(views):
        own = view.people.joint_source
        if own is not None and len(own):
            measured = (own[rows[:, number]] == DEPTH) & (rows[:, number] >= 0)[:, None]
            source = np.where(measured, DEPTH, source)
    return source


def _without_pixels(views: list[View], rows: np.ndarray) -> People:
    """P people with the best scores of their views; boxes and keypoints are NaN.

    Args:
        rows (P, V): of `Fuser.associate`.
    """
    blank = People.nobody()
    if not len(rows):
        return blank
    fields: dict[str, Any] = {
        name: np.full((len(rows), *getattr(blank, name).shape[1:]), np.nan)
        for name in ("boxes", "keypoints", "keypoint_cov")}
    for name in ("scores", "keypoint_scores"):
        best = np.zeros((len(rows), *getattr(blank, name).shape[1:]))
        for number, view in enumerate(views):
            seen = rows[:, number] >= 0
            own = getattr(view.people, name)[rows[seen, number]]
            best[seen] = np.maximum(best[seen], own)
        fields[name] = best
    return People(**fields)
