"""Pictures for people: skeletons and bodies drawn into the image, and the scene from above.

Left limbs are drawn in orange, right limbs in blue, the middle in the person's own colour.
"""

from __future__ import annotations

import colorsys
from typing import NamedTuple

import cv2
import numpy as np
import torch

from ros2_pose.body.model import BodyModel
from ros2_pose.camera import Camera
from ros2_pose.people import LOST, TENTATIVE, People
from ros2_pose.skeleton import COCO17, SMPL24, JointSet

LEFT, RIGHT = (255, 140, 0), (30, 144, 255)
VISIBLE = 0.15  # keypoints scored lower are not drawn
_LIGHT = np.array([0.3, -0.6, -0.74])  # to the light, camera frame
_AXIS, _PAPER, _INK = (200, 200, 200), 250, (60, 60, 60)


def person_colour(person_id: str) -> tuple[int, int, int]:
    """RGB 0..255 of a person, the same wherever the person is drawn."""
    number = int("".join(c for c in person_id if c.isdigit()) or 0)
    r, g, b = colorsys.hsv_to_rgb(number * 0.381966 % 1, 0.65, 0.95)
    return int(255 * r), int(255 * g), int(255 * b)


def overlay(image: np.ndarray, people: People, camera: Camera | None = None,
            body: BodyModel | None = None) -> np.ndarray:
    """A copy of the image (H, W, 3) uint8 RGB with everyone drawn in.

    With camera and body the SMPL surfaces are laid over the people, far before near.
    """
    canvas = np.ascontiguousarray(image).copy()
    if camera is not None and body is not None and people.theta is not None:
        _draw_bodies(canvas, people, camera, body)
    width = max(1, round(max(image.shape[:2]) / 400))
    for i in range(len(people)):
        if _state(people, i) != LOST:
            _draw_keypoints(canvas, people, i, width)
        _draw_label(canvas, people, i, width)
    return canvas


def _state(people: People, i: int) -> int:
    return TENTATIVE if people.tracking_state is None else int(people.tracking_state[i])


def _id(people: People, i: int) -> str:
    return people.ids[i] if people.ids else f"{i + 1}"


def joint_colour(joints: JointSet, joint: int, own: tuple) -> tuple[int, int, int]:
    """RGB 0..255 of a joint and the bone that leads to it; own: the person's colour."""
    return {"left": LEFT, "right": RIGHT}.get(joints.sides[joint], own)


def _draw_keypoints(canvas, people: People, i: int, width: int) -> None:
    own, points = person_colour(_id(people, i)), people.keypoints[i]
    seen = (people.keypoint_scores[i] >= VISIBLE) & np.isfinite(points).all(-1)
    for a, b in COCO17.edges:
        if seen[a] and seen[b]:
            cv2.line(canvas, _cell(points[a]), _cell(points[b]), joint_colour(COCO17, b, own),
                     width, cv2.LINE_AA)
    for joint in np.flatnonzero(seen):
        _draw_ellipse(canvas, points[joint], people.keypoint_cov[i, joint],
                      joint_colour(COCO17, joint, own))


def _draw_ellipse(canvas, centre, cov, colour) -> None:
    """The one-sigma ellipse of a keypoint."""
    variance, axes = np.linalg.eigh(cov)
    size = tuple(int(round(s)) for s in np.sqrt(np.maximum(variance[::-1], 1)))
    angle = float(np.degrees(np.arctan2(axes[1, 1], axes[0, 1])))
    cv2.ellipse(canvas, _cell(centre), size, angle, 0, 360, colour, 1, cv2.LINE_AA)


def _draw_label(canvas, people: People, i: int, width: int) -> None:
    own = person_colour(_id(people, i))
    left, top, right, bottom = (int(v) for v in people.boxes[i])
    thickness = width if _state(people, i) == LOST else 1
    cv2.rectangle(canvas, (left, top), (right, bottom), own, thickness)
    text = _id(people, i)
    if people.root is not None and np.isfinite(people.root[i]).all():
        text += f" {np.linalg.norm(people.root[i]):.1f} m"
    text += " lost" if _state(people, i) == LOST else ""
    cv2.putText(canvas, text, (left, max(top - 4, 12)), cv2.FONT_HERSHEY_SIMPLEX,
                0.3 + 0.15 * width, own, width, cv2.LINE_AA)


def _cell(point) -> tuple[int, int]:
    """The pixel that holds a point (2,)."""
    return int(np.floor(point[0])), int(np.floor(point[1]))


def _draw_bodies(canvas, people: People, camera: Camera, body: BodyModel) -> None:
    known = np.isfinite(people.theta).all((1, 2)) & np.isfinite(people.root).all(1)
    rows = np.flatnonzero(known)
    rows = rows[np.argsort(-people.root[rows, 2])]  # far first
    if not len(rows):
        return
    surface = body(*(torch.from_numpy(value[rows]).float()
                     for value in (people.theta, people.betas, people.root)))
    for row, vertices in zip(rows, surface.vertices.numpy().astype(float)):
        layer = canvas.copy()
        _draw_surface(layer, vertices, body.faces.numpy(), camera, person_colour(_id(people, row)))
        cv2.addWeighted(layer, 0.6, canvas, 0.4, 0, dst=canvas)


def _draw_surface(canvas, vertices, faces, camera: Camera, colour) -> None:
    """Fill the triangles that face the camera, far before near, shaded by their direction."""
    corners = vertices[faces]  # (F, 3, 3) m
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    facing = ((normals * corners[:, 0]).sum(1) < 0) & (corners[..., 2] > 0.1).all(1)
    order = np.flatnonzero(facing)[np.argsort(-corners[facing, :, 2].mean(1), kind="stable")]
    pixels = camera.project(vertices)
    shades = 0.45 + 0.55 * np.clip(normals @ _LIGHT, 0, 1)
    fixed = np.round(np.nan_to_num(pixels, nan=-1e4) * 16).clip(-1e6, 1e6).astype(np.int32)
    for face in order:
        cv2.fillConvexPoly(canvas, fixed[faces[face]], [c * shades[face] for c in colour],
                           cv2.LINE_8, 4)


def view_from_above(people: People, size: int = 480, reach: float = 0.0) -> np.ndarray:
    """A map (size, size, 3) uint8 RGB of where people are: the camera at the bottom, z upwards.

    Each person as the skeleton seen from above with the one-sigma ellipse of the pelvis; reach is
    the depth shown, m, by default enough for everyone.
    """
    canvas = np.full((size, size, 3), _PAPER, np.uint8)
    known = _with_root(people)
    furthest = max((people.root[i, 2] for i in known), default=4.0)
    reach = reach or max(2.0 * np.ceil((furthest + 1.0) / 2), 4.0)
    to_pixel = _Above(size, size * 0.92 / reach)
    _draw_grid(canvas, to_pixel, reach)
    for i in known:
        _draw_from_above(canvas, people, i, to_pixel)
    return canvas


def _with_root(people: People) -> list[int]:
    if people.root is None:
        return []
    return [i for i in range(len(people)) if np.isfinite(people.root[i]).all()]


class _Above(NamedTuple):
    """Function from (..., 3) m in the camera frame to (..., 2) px of the map."""

    size: int  # px
    scale: float  # px per m

    def __call__(self, points) -> np.ndarray:
        points = np.asarray(points, float)
        return np.stack([self.size / 2 + points[..., 0] * self.scale,
                         self.size * 0.96 - points[..., 2] * self.scale], -1)


def _draw_grid(canvas, to_pixel: _Above, reach: float) -> None:
    for metres in range(int(reach) + 1):
        for ends in ([(-reach, 0, metres), (reach, 0, metres)],
                     [(metres - reach // 2, 0, 0), (metres - reach // 2, 0, reach)]):
            a, b = to_pixel(ends)
            cv2.line(canvas, _cell(a), _cell(b), _AXIS, 1)
        cv2.putText(canvas, f"{metres} m", _cell(to_pixel((-reach / 2 * 0.98, 0, metres))),
                    cv2.FONT_HERSHEY_SIMPLEX, 0.4, _INK, 1, cv2.LINE_AA)
    camera = to_pixel([(0, 0, 0), (-0.2, 0, 0.35), (0.2, 0, 0.35)])
    cv2.fillConvexPoly(canvas, np.round(camera).astype(np.int32), _INK, cv2.LINE_AA)


def _draw_from_above(canvas, people: People, i: int, to_pixel: _Above) -> None:
    own, joints = person_colour(_id(people, i)), to_pixel(people.joints[i])
    for a, b in SMPL24.edges:
        cv2.line(canvas, _cell(joints[a]), _cell(joints[b]), joint_colour(SMPL24, b, own), 2,
                 cv2.LINE_AA)
    if people.root_cov is not None:
        flip = np.diag([1.0, -1.0]) * to_pixel.scale
        ground = people.root_cov[i][np.ix_([0, 2], [0, 2])]
        _draw_ellipse(canvas, joints[0], flip @ ground @ flip, own)
    x, _, z = people.root[i]
    cv2.putText(canvas, f"{_id(people, i)} ({x:+.1f}, {z:.1f})", _cell(joints[0] + (10, -8)),
                cv2.FONT_HERSHEY_SIMPLEX, 0.45, own, 1, cv2.LINE_AA)


def beside(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Two pictures side by side; the right one takes the height of the left."""
    height = left.shape[0]
    width = round(right.shape[1] * height / right.shape[0])
    return np.concatenate([left, cv2.resize(right, (width, height))], axis=1)
