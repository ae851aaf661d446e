"""Depth images of bodies, as a depth camera would give them."""

from __future__ import annotations

import cv2
import numpy as np
from torch import Tensor

from ros2_pose.body.model import BodyModel
from ros2_pose.body.state import BodyState
from ros2_pose.camera import Camera

_SHIFT = 4  # bits of a pixel's fraction in OpenCV's polygons
# A structured-light camera's noise grows with the square of the depth.
_NOISE_M, _NOISE_PER_M = 0.001, 0.0025
_STEP_M = 0.001
_EDGE_M, _FLYING, _HOLES = 0.1, 0.5, 0.1  # shares of the pixels of edges, and of all


def depth_image(model: BodyModel, state: BodyState, camera: Camera, wall: float) -> np.ndarray:
    """(H, W) float32 m of people before a wall: triangles by a painter, people by the nearest."""
    image = np.full((camera.height, camera.width), wall, np.float32)
    for vertices in model(*(value.float() for value in state)).vertices:
        image = np.minimum(image, _body(vertices[model.faces], camera))
    return image


def _body(corners: Tensor, camera: Camera) -> np.ndarray:
    """(H, W) m of triangles (F, 3, 3) m; infinite where there are none."""
    corners = corners.numpy()
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    corners = corners[(normals * corners[:, 0]).sum(1) < 0]
    corners = corners[np.argsort(-corners[..., 2].mean(1))]
    pixels = np.round((camera.project(corners) - 0.5) * 2**_SHIFT).astype(np.int32)
    image = np.full((camera.height, camera.width), np.inf, np.float32)
    for triangle, z in zip(pixels, corners[..., 2].mean(1).tolist()):
        cv2.fillConvexPoly(image, triangle, z, shift=_SHIFT)
    return image


def sensed(depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a sensor makes of it: noise, millimetres, holes, and at edges depths in between."""
    near, far = (f(depth, np.ones((3, 3))).astype(float) for f in (cv2.erode, cv2.dilate))
    flying = (far - near > _EDGE_M) & (rng.random(depth.shape) < _FLYING)
    depth = np.where(flying, near + (far - near) * rng.random(depth.shape), depth)
    depth = depth + rng.normal(size=depth.shape) * (_NOISE_M + _NOISE_PER_M * depth**2)
    depth = np.round(depth / _STEP_M) * _STEP_M
    depth[rng.random(depth.shape) < _HOLES] = np.nan
    return depth.astype(np.float32)
