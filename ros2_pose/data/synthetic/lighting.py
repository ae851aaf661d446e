"""Light on a scene: a sun that casts shadows, light from everywhere, and a weak one opposite.

World frame, metres, linear RGB.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ros2_pose.data.synthetic.rasterizer import rasterise

_MAP_PX = 384
_BIAS_M = 0.015
_TAPS_PX = ((-0.8, -0.3), (0.3, -0.8), (0.8, 0.3), (-0.3, 0.8))  # soften the shadow's rim
_UP = np.array([0.0, 1.0, 0.0])


@dataclass(frozen=True)
class Light:
    """Directions are to the light."""

    sun: np.ndarray  # (3,) unit
    sun_colour: np.ndarray  # (3,)
    ambient: np.ndarray  # (3,)
    fill: np.ndarray  # (3,) unit
    fill_colour: np.ndarray  # (3,)

    @staticmethod
    def draw(rng: np.random.Generator) -> Light:
        warmth = np.array([1, 0, -1]) * rng.normal(0, 0.12)
        ambient = np.exp(rng.uniform(np.log(0.2), np.log(1.0))) * (1 - 0.5 * warmth)
        return Light(_direction(rng, 20, 85), rng.uniform(0.2, 1.3) * (1 + warmth), ambient,
                     _direction(rng, -10, 60), np.full(3, rng.uniform(0.0, 0.3)))

    def falling(self, normals: np.ndarray, lit: np.ndarray) -> np.ndarray:
        """(..., 3) light on surfaces of normals (..., 3) that see a share lit (...) of the sun."""
        towards_sun = np.clip(normals @ self.sun.astype(np.float32), 0, None) * lit
        towards_fill = np.clip(normals @ self.fill.astype(np.float32), 0, None)
        from_sky = 0.75 + 0.25 * normals[..., 1]
        parts = ((from_sky, self.ambient), (towards_sun, self.sun_colour),
                 (towards_fill, self.fill_colour))
        return sum(share[..., None] * colour.astype(np.float32) for share, colour in parts)


def _direction(rng: np.random.Generator, low_deg: float, high_deg: float) -> np.ndarray:
    up, round_ = np.radians(rng.uniform(low_deg, high_deg)), rng.uniform(-np.pi, np.pi)
    return np.array([np.cos(up) * np.cos(round_), np.sin(up), np.cos(up) * np.sin(round_)])


class Shadows:
    """What the sun does not see: a map of the sides turned away from it, nearest to it."""

    def __init__(self, vertices: np.ndarray, faces: np.ndarray, sun: np.ndarray,
                 device: str = "cpu") -> None:
        """vertices (V, 3), faces (F, 3)."""
        right = np.cross(sun, _UP)
        right = right / np.linalg.norm(right)
        self._axes = np.stack([right, np.cross(-sun, right), sun]).astype(np.float32)
        seen = vertices @ self._axes.T
        low, high = seen.min(0), seen.max(0)
        self._low = low
        self._scale = np.array([*(_MAP_PX / (high - low)[:2].max().repeat(2)),
                                0.9 / (high - low)[2]], np.float32)
        at = torch.from_numpy((seen - low) * self._scale + np.float32([0, 0, 0.05])).to(device)
        hits = rasterise(at[:, :2].contiguous(), at[:, 2].contiguous(),
                         torch.from_numpy(faces).to(device), _MAP_PX, _MAP_PX, back=True)
        self._map = np.full((_MAP_PX + 2, _MAP_PX + 2), -np.inf, np.float32)  # a rim of nothing
        inner = np.full(_MAP_PX**2, -np.inf, np.float32)
        inner[hits.pixel.cpu().numpy()] = hits.nearness.cpu().numpy()
        self._map[1:-1, 1:-1] = inner.reshape(_MAP_PX, _MAP_PX)

    def lit(self, points: np.ndarray) -> np.ndarray:
        """(...) 0..1 how much of the sun reaches points (..., 3)."""
        seen = (points.astype(np.float32) @ self._axes.T - self._low) * self._scale
        own = seen[..., 2] + np.float32(0.05) + np.float32(_BIAS_M) * self._scale[2]
        dark = np.zeros(points.shape[:-1], np.float32)
        for dx, dy in _TAPS_PX:
            column = np.clip(seen[..., 0] + (1 + dx), 0, _MAP_PX + 1).astype(np.int32)
            row = np.clip(seen[..., 1] + (1 + dy), 0, _MAP_PX + 1).astype(np.int32)
            dark += self._map[row, column] > own
        return 1 - dark / len(_TAPS_PX)
