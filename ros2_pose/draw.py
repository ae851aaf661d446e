"""Overlays: skeletons and bodies drawn into the image, and a map of the scene from above.

Left limbs are drawn in orange, right limbs in blue, the middle in the person's own colour.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import cv2
import numpy as np
import torch

from ros2_pose.body.model import BodyModel
from ros2_pose.camera import Camera
from ros2_pose.people import LOST, People
from ros2_pose.skeleton import COCO17, SMPL24, JointSet

LEFT, RIGHT = (255, 140, 0), (30, 144, 255)
VISIBLE = 0.15  # least score of keypoints that are drawn
_TO_LIGHT = np.array([0.3, -0.6, -0.74])  # direction, camera frame
_GRID_COLOUR, _INK = (200, 200, 200), (60, 60, 60)  # of the map
_PAPER = 250  # grey level of the map's background

_ToPixel = Callable[..., np.ndarray]  # (..., 3) m in the camera frame -> (..., 2) px of the map


def person_colour(person_id: str) -> tuple[int, int, int]:
    """Return a person's colour, RGB 0..255, which depends on the id alone."""
    digits = "".join(c for c in person_id if c.isdigit())
    hue = int(digits or 0) * 0.381966 % 1  # golden ratio: consecutive ids differ much
    r, g, b = colorsys.hsv_to_rgb(hue, 0.65, 0.95)
    return int(255 * r), int(255 * g), int(255 * b)


def overlay(image: np.ndarray, people: People, camera: Camera | None = None,
            body: BodyModel | None = None) -> np.ndarray:
    """Return a copy of an image with all people drawn in.

    Args:
        image: (H, W, 3) uint8 RGB.
        camera, body: if both are given, SMPL surfaces are drawn, far people first.
    """
    canvas = np.ascontiguousarray(image).copy()
    if camera is not None and body is not None and people.theta is not None:
        _draw_bodies(canvas, people, camera, body)
    width = max(1, round(max(image.shape[:2]) / 400))
    for i in range(len(people)):
        if people.state_of(i) != LOST:
            _draw_keypoints(canvas, people, i, width)
        _draw_label(canvas, people, i, width)
    return canvas


def _id(people: People, i: int) -> str:
    return people.ids[i] if people.ids else f"{i + 1}"


def joint_colour(joints: JointSet, joint: int, own: tuple) -> tuple[int, int, int]:
    """Return the colour, RGB 0..255, of a joint and of the bone from its parent.

    Args:
        own: the person's colour, for joints in the middle.
    """
    return {"left": LEFT, "right": RIGHT}.get(joints.sides[joint], own)


def _draw_keypoints(canvas: np.ndarray, people: People, i: int, width: int) -> None:
    own, points = person_colour(_id(people, i)), people.keypoints[i]
    is_seen = (people.keypoint_scores[i] >= VISIBLE) & np.isfinite(points).all(-1)
    for a, b in COCO17.edges:
        if is_seen[a] and is_seen[b]:
            cv2.line(canvas, _cell(points[a]), _cell(points[b]), joint_colour(COCO17, b, own),
                     width, cv2.LINE_AA)
    for joint in np.flatnonzero(is_seen):
        _draw_ellipse(canvas, points[joint], people.keypoint_cov[i, joint],
                      joint_colour(COCO17, joint, own))


def _draw_ellipse(canvas: np.ndarray, centre, cov: np.ndarray, colour: tuple) -> None:
    """Draw the one-sigma ellipse of a point (2,), px, with covariance (2, 2), px^2."""
    variances, axes = np.linalg.eigh(cov)
    half_axes = np.sqrt(np.maximum(variances[::-1], 1))
    size = tuple(int(round(half_axis)) for half_axis in half_axes)
    angle = float(np.degrees(np.arctan2(axes[1, 1], axes[0, 1])))
    cv2.ellipse(canvas, _cell(centre), size, angle, 0, 360, colour, 1, cv2.LINE_AA)


def _draw_label(canvas: np.ndarray, people: People, i: int, width: int) -> None:
    """Draw the box with id, distance and state."""
    text, is_lost = _id(people, i), people.state_of(i) == LOST
    own = person_colour(text)
    left, top, right, bottom = (int(v) for v in people.boxes[i])
    cv2.rectangle(canvas, (left, top), (right, bottom), own, width if is_lost else 1)
    if people.root is not None and np.isfinite(people.root[i]).all():
        text += f" {np.linalg.norm(people.root[i]):.1f} m"
    if is_lost:
        text += " lost"
    cv2.putText(canvas, text, (left, max(top - 4, 12)), cv2.FONT_HERSHEY_SIMPLEX,
                0.3 + 0.15 * width, own, width, cv2.LINE_AA)


def _cell(point) -> tuple[int, int]:
    """Column and row of the pixel that contains a point (2,), px."""
    return int(np.floor(point[0])), int(np.floor(point[1]))


def _draw_bodies(canvas: np.ndarray, people: People, camera: Camera, body: BodyModel) -> None:
    """Blend the body surfaces into the canvas, far people first."""
    assert people.theta is not None and people.betas is not None and people.root is not None
    is_known = np.isfinite(people.theta).all((1, 2)) & np.isfinite(people.root).all(1)
    rows = np.flatnonzero(is_known)
    rows = rows[np.argsort(-people.root[rows, 2])]  # far first
    if not len(rows):
        return
    theta, betas, root = (torch.from_numpy(values[rows]).float()
                          for values in (people.theta, people.betas, people.root))
    surface = body(theta, betas, root)
    for row, vertices in zip(rows, surface.vertices.numpy().astype(float)):
        layer = canvas.copy()
        _draw_surface(layer, vertices, body.faces.numpy(), camera, person_colour(_id(people, row)))
        cv2.addWeighted(layer, 0.6, canvas, 0.4, 0, dst=canvas)


def _draw_surface(canvas: np.ndarray, vertices: np.ndarray, faces: np.ndarray, camera: Camera,
                  colour: tuple) -> None:
    """Fill the triangles that face the camera, far ones first, shaded by their normals.

    Args:
        vertices: (V, 3) m, camera frame.
        faces: (F, 3) indices of vertices, anticlockwise seen from outside.
    """
    corners = vertices[faces]  # (F, 3, 3) m
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    is_facing = (normals * corners[:, 0]).sum(1) < 0
    is_in_front = (corners[..., 2] > 0.1).all(1)
    shown = np.flatnonzero(is_facing & is_in_front)
    depths = corners[shown, :, 2].mean(1)
    far_first = shown[np.argsort(-depths, kind="stable")]
    shades = 0.45 + 0.55 * np.clip(normals @ _TO_LIGHT, 0, 1)
    pixels = np.nan_to_num(camera.project(vertices), nan=-1e4)
    sixteenths = np.round(pixels * 16).clip(-1e6, 1e6).astype(np.int32)
    for face in far_first:
        cv2.fillConvexPoly(canvas, sixteenths[faces[face]], [c * shades[face] for c in colour],
                           cv2.LINE_8, 4)


def view_from_above(people: People, size: int = 480, reach: float = 0.0) -> np.ndarray:
    """Return a map (size, size, 3) uint8 RGB of the people from above.

    The camera is at the bottom and looks up. People are drawn as skeletons with the one-sigma
    ellipse of the pelvis.

    Args:
        size: width and height of the map, px.
        reach: depth shown, m; 0 shows all people.
    """
    canvas = np.full((size, size, 3), _PAPER, np.uint8)
    rows: list[int] = []
    farthest = 4.0
    if people.root is not None:
        rows = np.flatnonzero(np.isfinite(people.root).all(1)).tolist()
        farthest = max((people.root[i, 2] for i in rows), default=farthest)
    reach = reach or max(2.0 * np.ceil((farthest + 1.0) / 2), 4.0)
    scale = size * 0.92 / reach  # px per m

    def to_pixel(points) -> np.ndarray:
        points = np.asarray(points, float)
        return np.stack([size / 2 + points[..., 0] * scale, size * 0.96 - points[..., 2] * scale],
                        axis=-1)

    _draw_grid(canvas, to_pixel, reach)
    for i in rows:
        _draw_from_above(canvas, people, i, to_pixel, scale)
    return canvas


def _draw_grid(canvas: np.ndarray, to_pixel: _ToPixel, reach: float) -> None:
    """Draw a grid of 1 m with labels, and the camera."""
    for metres in range(int(reach) + 1):
        across = metres - reach // 2
        for ends in ([(-reach, 0, metres), (reach, 0, metres)],
                     [(across, 0, 0), (across, 0, reach)]):
            start, end = to_pixel(ends)
            cv2.line(canvas, _cell(start), _cell(end), _GRID_COLOUR, 1)
        cv2.putText(canvas, f"{metres} m", _cell(to_pixel((-reach / 2 * 0.98, 0, metres))),
                    cv2.FONT_HERSHEY_SIMPLEX, 0.4, _INK, 1, cv2.LINE_AA)
    camera = to_pixel([(0, 0, 0), (-0.2, 0, 0.35), (0.2, 0, 0.35)])
    cv2.fillConvexPoly(canvas, np.round(camera).astype(np.int32), _INK, cv2.LINE_AA)


def _draw_from_above(canvas: np.ndarray, people: People, i: int, to_pixel: _ToPixel,
                     scale: float) -> None:
    assert people.root is not None
    name = _id(people, i)
    own, pelvis = person_colour(name), to_pixel(people.root[i])
    if people.joints is not None:
        joints = to_pixel(people.joints[i])
        for a, b in SMPL24.edges:
            cv2.line(canvas, _cell(joints[a]), _cell(joints[b]), joint_colour(SMPL24, b, own), 2,
                     cv2.LINE_AA)
    if people.root_cov is not None:
        px_per_m = np.diag([1.0, -1.0]) * scale  # z points up in the map
        ground_cov = people.root_cov[i][np.ix_([0, 2], [0, 2])]
        _draw_ellipse(canvas, pelvis, px_per_m @ ground_cov @ px_per_m, own)
    x, _, z = people.root[i]
    cv2.putText(canvas, f"{name} ({x:+.1f}, {z:.1f})", _cell(pelvis + (10, -8)),
                cv2.FONT_HERSHEY_SIMPLEX, 0.45, own, 1, cv2.LINE_AA)


def beside(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return two pictures (H, W, 3) side by side, the right one scaled to the left one's height."""
    height = left.shape[0]
    width = round(right.shape[1] * height / right.shape[0])
    return np.concatenate([left, cv2.resize(right, (width, height))], axis=1)
