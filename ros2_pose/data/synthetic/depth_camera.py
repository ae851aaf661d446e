"""Simulates a depth camera: depth images of bodies, and the errors of a sensor."""

from __future__ import annotations

import cv2
import numpy as np
import torch

from ros2_pose.body.model import BodyModel
from ros2_pose.body.state import BodyState
from ros2_pose.camera import Camera
from ros2_pose.data.synthetic.rasterizer import rasterise

# A structured-light camera's noise grows with the square of the depth.
_NOISE_M, _NOISE_PER_M = 0.001, 0.0025
_STEP_M = 0.001
_EDGE_M = 0.1  # difference in depth of neighbouring pixels
_FLYING_SHARE, _HOLE_SHARE = 0.5, 0.1  # of the pixels at edges, of all pixels


def depth_image(model: BodyModel, state: BodyState, camera: Camera, wall: float) -> np.ndarray:
    """Render the exact depth of people before a wall.

    Args:
        state: of P people, camera frame. wall: depth, m.
    Returns:
        (H, W) float32: m along the optical axis.
    """
    vertices = model(*(value.float() for value in state)).vertices
    people, count = vertices.shape[:2]
    faces = (model.faces + count * torch.arange(people)[:, None, None]).flatten(0, 1)
    points = vertices.flatten(0, 1)
    pixels = torch.from_numpy(camera.project(points.numpy())).float()
    nearness = torch.where(points[:, 2] > 0, 1 / points[:, 2], 0)
    shown, _, nearest = rasterise(pixels, nearness, faces, camera.width, camera.height)
    image = torch.full((camera.height, camera.width), wall)
    image.view(-1)[shown] = (1 / nearest).clamp(max=wall).to(image)
    return image.numpy()


def sensed(depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add a sensor's errors to depth (H, W) m: noise, rounding, holes (NaN), flying pixels."""
    neighbourhood = np.ones((3, 3))
    near = cv2.erode(depth, neighbourhood).astype(float)
    far = cv2.dilate(depth, neighbourhood).astype(float)
    flying = (far - near > _EDGE_M) & (rng.random(depth.shape) < _FLYING_SHARE)
    depth = np.where(flying, near + (far - near) * rng.random(depth.shape), depth)
    depth = depth + rng.normal(size=depth.shape) * (_NOISE_M + _NOISE_PER_M * depth**2)
    depth = np.round(depth / _STEP_M) * _STEP_M
    depth[rng.random(depth.shape) < _HOLE_SHARE] = np.nan
    return depth.astype(np.float32)
