"""Lights a scene: a sun that casts shadows, ambient light, and a weak light without shadows.

World frame, metres, linear RGB.
"""

from __future__ import annotations

import numpy as np
import torch

from ros2_pose.data.synthetic.rasterizer import rasterise

_MAP_PX = 384
_BIAS_M = 0.015  # keeps a surface from shadowing itself
_NEARNESS_OFFSET, _NEARNESS_RANGE = 0.05, 0.9  # of the rasteriser, for the shadow map
_TAPS_PX = ((-0.8, -0.3), (0.3, -0.8), (0.8, 0.3), (-0.3, 0.8))  # soften the shadow's edge
_UP = np.array([0.0, 1.0, 0.0])


class Light:
    """The light of a scene, drawn at random, with the shadows of its surfaces."""

    def __init__(self, rng: np.random.Generator, vertices: np.ndarray, faces: np.ndarray,
                 device: str = "cpu") -> None:
        """Draw a light; a warm sun goes with a cold sky.

        Args:
            vertices (V, 3): m. faces (F, 3): vertex indices; F may be 0.
            device: on which the shadow map is drawn.
        """
        warmth = np.array([1, 0, -1]) * rng.normal(0, 0.12)
        self.ambient = np.exp(rng.uniform(np.log(0.2), np.log(1.0))) * (1 - 0.5 * warmth)
        self.sun = _direction(rng, 20, 85)  # directions point to the light
        self.sun_colour = rng.uniform(0.2, 1.3) * (1 + warmth)
        self.fill = _direction(rng, -10, 60)
        self.fill_colour = np.full(3, rng.uniform(0.0, 0.3))
        self._shadows = Shadows(vertices, faces, self.sun, device) if len(faces) else None

    def lit(self, points: np.ndarray) -> np.ndarray:
        """(...) 0..1 share of the sun that reaches points (..., 3) m, world frame."""
        if self._shadows is None:
            return np.ones(points.shape[:-1], np.float32)
        return self._shadows.lit(points)

    def irradiance(self, normals: np.ndarray, lit: np.ndarray) -> np.ndarray:
        """Compute the light that falls on surfaces.

        Args:
            normals (..., 3): unit. lit (...): 0..1, share of the sun that is visible.
        Returns:
            (..., 3): linear RGB.
        """
        from_sky = 0.75 + 0.25 * normals[..., 1]
        from_sun = np.clip(normals @ self.sun.astype(np.float32), 0, None) * lit
        from_fill = np.clip(normals @ self.fill.astype(np.float32), 0, None)
        return (from_sky[..., None] * self.ambient.astype(np.float32)
                + from_sun[..., None] * self.sun_colour.astype(np.float32)
                + from_fill[..., None] * self.fill_colour.astype(np.float32))


def _direction(rng: np.random.Generator, low_deg: float, high_deg: float) -> np.ndarray:
    """(3,) unit vector at a random elevation between two."""
    elevation, azimuth = np.radians(rng.uniform(low_deg, high_deg)), rng.uniform(-np.pi, np.pi)
    return np.array([np.cos(elevation) * np.cos(azimuth), np.sin(elevation),
                     np.cos(elevation) * np.sin(azimuth)])


class Shadows:
    """A shadow map: for each cell seen from the sun, the nearest surface.

    It holds the sides turned away from the sun: those that face it do not shadow themselves.

    Args:
        vertices (V, 3): m. faces (F, 3): vertex indices.
        sun (3,): unit vector to the sun.
        device: on which the triangles are drawn.
    """

    def __init__(self, vertices: np.ndarray, faces: np.ndarray, sun: np.ndarray,
                 device: str = "cpu") -> None:
        right = np.cross(sun, _UP)
        right = right / np.linalg.norm(right)
        # Sun frame: x and y across the rays, z to the sun.
        self._sun_from_world = np.stack([right, np.cross(-sun, right), sun]).astype(np.float32)
        points = vertices @ self._sun_from_world.T
        low, high = points.min(0), points.max(0)
        px_per_m = _MAP_PX / (high - low)[:2].max()
        nearness_per_m = _NEARNESS_RANGE / (high - low)[2]
        self._low = low
        self._scale = np.array([px_per_m, px_per_m, nearness_per_m], np.float32)
        offset = np.array([0, 0, _NEARNESS_OFFSET], np.float32)
        scaled = torch.from_numpy((points - low) * self._scale + offset).to(device)
        shown, _, nearness = rasterise(
            scaled[:, :2].contiguous(), scaled[:, 2].contiguous(),
            torch.from_numpy(faces).to(device), _MAP_PX, _MAP_PX, back=True)
        nearest = np.full(_MAP_PX**2, -np.inf, np.float32)
        nearest[shown.cpu().numpy()] = nearness.cpu().numpy()
        self._map = np.full((_MAP_PX + 2, _MAP_PX + 2), -np.inf, np.float32)  # with an empty rim
        self._map[1:-1, 1:-1] = nearest.reshape(_MAP_PX, _MAP_PX)

    def lit(self, points: np.ndarray) -> np.ndarray:
        """(...) 0..1 share of the sun that reaches points (..., 3) m, world frame."""
        scaled = (points.astype(np.float32) @ self._sun_from_world.T - self._low) * self._scale
        bias = np.float32(_BIAS_M) * self._scale[2]
        nearness = scaled[..., 2] + np.float32(_NEARNESS_OFFSET) + bias
        dark = np.zeros(points.shape[:-1], np.float32)
        for dx, dy in _TAPS_PX:
            column = np.clip(scaled[..., 0] + (1 + dx), 0, _MAP_PX + 1).astype(np.int32)
            row = np.clip(scaled[..., 1] + (1 + dy), 0, _MAP_PX + 1).astype(np.int32)
            dark += self._map[row, column] > nearness
        return 1 - dark / len(_TAPS_PX)
