"""Pictures of cameras that are mounted upside down or on their side, turned for the networks.

Networks know people who stand upright in the picture. A frame is rotated by quarter turns, with
its camera, depth and extrinsics, before anything looks at it; people come back in the pixels and in
the camera frame of the picture as it was taken. The optical centre of the rotated camera is the
origin of its frame, also where the picture's frame has another (`Camera.centre_m`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
from scipy.spatial.transform import Rotation

from ros2_pose.camera import Camera, rotation_of
from ros2_pose.geometry import Transform
from ros2_pose.people import Frame, People

_ROTATE = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}
_STEEP = 0.35  # sine of the angle between `up` and the line of sight: people lie at any angle
_STAY = 0.17  # a rotation in use is kept unless another one is better by so much


@dataclass(frozen=True)
class UprightView:
    """How a frame is rotated so that people stand upright in it.

    Args:
        quarter_turns: counter-clockwise, as of np.rot90.
    """

    quarter_turns: int = 0

    def frame(self, taken: Frame) -> Frame:
        """The frame as the networks and the fit see it."""
        camera = taken.camera and _upright_camera(taken.camera, self.quarter_turns)
        camera_to_fixed = taken.camera_to_fixed
        if camera_to_fixed is not None:
            camera_to_fixed = camera_to_fixed @ self._upright_from_taken(taken).inverse()
        ground = taken.ground and replace(taken.ground, up=self.up(taken.ground.up))
        return replace(taken, image=self._rotated(taken.image), camera=camera,
                       camera_to_fixed=camera_to_fixed, ground=ground,
                       depth=None if taken.depth is None else self._rotated(taken.depth))

    def people_as_taken(self, people: People, taken: Frame) -> People:
        """People of the rotated frame in pixels and camera frame of the frame as it was taken."""
        if self.quarter_turns:
            people = _pixels_rotated(people, -self.quarter_turns % 4, self._size(taken))
        upright_from_taken = self._upright_from_taken(taken)
        if not self.quarter_turns and not upright_from_taken.translation_m.any():
            return people
        return people.moved(upright_from_taken.inverse())

    def up(self, taken_up: np.ndarray) -> np.ndarray:
        """(3,) of a direction in the camera frame as taken."""
        return rotation_of(self.quarter_turns) @ taken_up

    def _upright_from_taken(self, taken: Frame) -> Transform:
        """The transform between the camera frames."""
        rotmat = rotation_of(self.quarter_turns)
        centre_m = np.zeros(3) if taken.camera is None else np.array(taken.camera.centre_m)
        return Transform(Rotation.from_matrix(rotmat), -rotmat @ centre_m)

    def _rotated(self, image: np.ndarray) -> np.ndarray:
        return cv2.rotate(image, _ROTATE[self.quarter_turns]) if self.quarter_turns else image

    def _size(self, taken: Frame) -> tuple[int, int]:
        """(width, height) of the rotated image, px."""
        height, width = taken.image.shape[:2]
        return (height, width) if self.quarter_turns % 2 else (width, height)


def upright_view(up: np.ndarray, before: UprightView | None = None) -> UprightView:
    """The rotation after which the world's up points up in the picture.

    Args:
        up: (3,) unit vector in the camera frame. A camera that looks steeply down or up sees
            people at any angle; its picture is not rotated.
        before: the rotation in use; near 45 degrees it is kept, so that it does not alternate.
    """
    if np.hypot(up[0], up[1]) < _STEEP:
        return before or UprightView()
    upwards = [-(rotation_of(count) @ up)[1] for count in range(4)]
    if before is not None:
        upwards[before.quarter_turns] += _STAY
    return UprightView(int(np.argmax(upwards)))


@lru_cache(maxsize=32)
def _upright_camera(camera: Camera, quarter_turns: int) -> Camera:
    return camera.at_origin().rotated(quarter_turns)


def _pixels_rotated(people: People, quarter_turns: int, size: tuple[int, int]) -> People:
    """People in the pixels of their image, (width, height) px, after np.rot90 of it."""
    rotmat = rotation_of(quarter_turns)[:2, :2]
    width, height = size
    shift = np.array(((0, 0), (0, width), (width, height), (height, 0))[quarter_turns], float)
    corners = people.boxes.reshape(-1, 2, 2) @ rotmat.T + shift
    return people.with_fields(
        boxes=np.concatenate([corners.min(1), corners.max(1)], axis=1),
        keypoints=people.keypoints @ rotmat.T + shift,
        keypoint_cov=rotmat @ people.keypoint_cov @ rotmat.T)
