"""Rotation of frames from cameras that are mounted upside down or on their side.

Networks expect people who stand upright in the picture. A frame is rotated by quarter turns
(counter-clockwise, as by np.rot90), with its camera, depth and extrinsics, before it is processed;
people are transformed back to the pixels and the camera frame of the frame as taken. The origin of
the rotated camera's frame is its optical centre, even if that of the frame as taken is not
(`Camera.centre_m`).
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
from scipy.spatial.transform import Rotation

from ros2_pose.camera import Camera, rotation_of
from ros2_pose.geometry import Transform
from ros2_pose.people import Frame, People

_MIN_SINE = 0.35  # of the angle between `up` and the line of sight, for the picture to be rotated
_HYSTERESIS = 0.17  # by which another rotation must be better than the one in use


def quarter_turns_to_upright(up: np.ndarray, current: int | None = None) -> int:
    """Return the quarter turns after which the world's up direction points up in the picture.

    The rotation in use is kept if the camera looks steeply down or up, where people appear at any
    angle, and near 45 degrees, so that it does not alternate.

    Args:
        up (3,): unit vector in the camera frame as taken.
        current: quarter turns in use, if any.
    Returns:
        0 to 3.
    """
    if np.hypot(up[0], up[1]) < _MIN_SINE:
        return current or 0
    upwards = [-(rotation_of(count) @ up)[1] for count in range(4)]
    if current is not None:
        upwards[current] += _HYSTERESIS
    return int(np.argmax(upwards))


def upright_frame(taken: Frame, quarter_turns: int) -> Frame:
    """Return a frame rotated by quarter turns, with all that it holds in the new axes.

    Its image and depth are views of those as taken: nothing is copied. `imaging.resize` scales
    such views without a copy.
    """
    camera = taken.camera and _upright_camera(taken.camera, quarter_turns)
    camera_to_fixed = taken.camera_to_fixed
    if camera_to_fixed is not None:
        camera_to_fixed = camera_to_fixed @ _upright_from_taken(taken, quarter_turns).inverse()
    ground = taken.ground
    if ground is not None:
        height_m = ground.height_m
        if height_m is not None and taken.camera is not None:
            height_m += float(ground.up @ np.array(taken.camera.centre_m))  # of the optical centre
        ground = replace(ground, up=rotation_of(quarter_turns) @ ground.up, height_m=height_m)
    depth = None if taken.depth is None else _turned(taken.depth, quarter_turns)
    return replace(taken, image=_turned(taken.image, quarter_turns), camera=camera,
                   camera_to_fixed=camera_to_fixed, ground=ground, depth=depth)


def people_as_taken(people: People, taken: Frame, quarter_turns: int) -> People:
    """Return people of an upright frame in pixels (px) and camera frame (m) as taken.

    Args:
        taken, quarter_turns: of which `upright_frame` made the upright frame.
    """
    if quarter_turns:
        height, width = taken.image.shape[:2]
        upright_size = (height, width) if quarter_turns % 2 else (width, height)
        people = _pixels_rotated(people, -quarter_turns % 4, upright_size)
    upright_from_taken = _upright_from_taken(taken, quarter_turns)
    if not quarter_turns and not upright_from_taken.translation_m.any():
        return people
    return people.moved(upright_from_taken.inverse())


def _upright_from_taken(taken: Frame, quarter_turns: int) -> Transform:
    """Transform to the upright camera frame from the camera frame as taken."""
    rotmat = rotation_of(quarter_turns)
    centre_m = np.zeros(3) if taken.camera is None else np.array(taken.camera.centre_m)
    return Transform(Rotation.from_matrix(rotmat), -rotmat @ centre_m)


def _turned(image: np.ndarray, quarter_turns: int) -> np.ndarray:
    return np.rot90(image, quarter_turns) if quarter_turns else image


@lru_cache(maxsize=32)
def _upright_camera(camera: Camera, quarter_turns: int) -> Camera:
    return camera.at_origin().rotated(quarter_turns)


def _pixels_rotated(people: People, quarter_turns: int, size: tuple[int, int]) -> People:
    """People in the pixels of their image of size (width, height), px, after np.rot90 of it."""
    rotmat = rotation_of(quarter_turns)[:2, :2]
    width, height = size
    shifts = ((0, 0), (0, width), (width, height), (height, 0))
    shift = np.array(shifts[quarter_turns], float)
    corners = people.boxes.reshape(-1, 2, 2) @ rotmat.T + shift
    return people.with_fields(
        boxes=np.concatenate([corners.min(1), corners.max(1)], axis=1),
        keypoints=people.keypoints @ rotmat.T + shift,
        keypoint_cov=rotmat @ people.keypoint_cov @ rotmat.T)
