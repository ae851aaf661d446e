"""Materials of synthetic surfaces: colours, patterns, noise.

A material is evaluated at local coordinates, which move with the surface; colours are linear RGB,
0..1.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

GAMMA = 2.2
PLAIN, RINGS, STRIPES, CHECKS, GRADIENT, CLOUDS, PRINT, SLEEVES = range(8)  # patterns
_PATTERN_SHARES = (0.42, 0.12, 0.06, 0.1, 0.06, 0.1, 0.08, 0.06)
NOISE_SIZE = 256  # a power of two
_NOISE_PER_M = 256


def noise_table(rng: np.random.Generator) -> np.ndarray:
    """(256, 256) float32 noise of several scales that repeats without a seam; mean 0, about -1..1.
    """
    total = np.zeros((NOISE_SIZE, NOISE_SIZE), np.float32)
    for cells, weight in ((8, 0.5), (32, 0.35), (128, 0.25)):
        coarse = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
        padded = np.pad(coarse, 2, mode="wrap")
        scale = NOISE_SIZE // cells
        fine = cv2.resize(padded, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
        total += weight * fine[2 * scale:-2 * scale, 2 * scale:-2 * scale]
    return total


def noise_at(table: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """(N,) values of a noise table at (N,), (N,) m."""
    columns = (u * _NOISE_PER_M).astype(np.int32) & NOISE_SIZE - 1
    rows = (v * _NOISE_PER_M).astype(np.int32) & NOISE_SIZE - 1
    return table[rows, columns]


def fabric_colour(rng: np.random.Generator) -> np.ndarray:
    """(3,) random colour: often near grey, else of any hue."""
    hue, saturation = rng.uniform(0, 360), rng.beta(1.5, 1.5)
    if rng.random() < 0.4:
        saturation *= 0.15
    value = rng.uniform(0.05, 0.95)
    hsv = np.array([[[hue, saturation, value]]], np.float32)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0]**GAMMA


@dataclass(frozen=True)
class Material:
    """Up to three colours in a pattern."""

    pattern: int
    colours: np.ndarray  # (3, 3)
    size_m: float  # of the pattern
    phase: float  # of the pattern, in repetitions
    thickness_m: float = 0.0  # by which the material stands off the body

    @staticmethod
    def draw(rng: np.random.Generator, thickness_m: tuple[float, float] = (0.0, 0.0),
             plain: float = 0.0) -> Material:
        """Draw a material.

        Args:
            thickness_m: least and largest.
            plain: share of materials of one colour, beside those that get it by chance.
        """
        pattern = PLAIN if rng.random() < plain else rng.choice(8, p=_PATTERN_SHARES)
        colours = np.stack([fabric_colour(rng) for _ in range(3)])
        size_m = np.exp(rng.uniform(np.log(0.015), np.log(0.2)))
        phase = rng.uniform(0, 10)
        return Material(int(pattern), colours, float(size_m), float(phase),
                        float(rng.uniform(*thickness_m)))

    @staticmethod
    def plain(colour: np.ndarray, thickness_m: float) -> Material:
        """A material of one colour (3,)."""
        return Material(PLAIN, np.tile(colour, (3, 1)), 0.1, 0.0, thickness_m)

    def albedo(self, points: np.ndarray, noise: np.ndarray, limb_x: float = np.inf) -> np.ndarray:
        """Evaluate the colour.

        Args:
            points (N, 3): m, local coordinates.
            noise: see `noise_table`.
            limb_x: m; beyond this |x| the pattern runs along x, as on sleeves, else along y.
        Returns:
            (N, 3): linear RGB.
        """
        x, y, z = points.T
        on_limb = np.abs(x) > limb_x
        along = np.where(on_limb, np.abs(x), y) / self.size_m + self.phase
        across = np.where(on_limb, y + z, x + 0.5 * z) / self.size_m + self.phase
        share = self._second_share(points, along, across, on_limb, noise)[:, None]
        colour = self.colours[0] + share * (self.colours[1] - self.colours[0])
        if self.pattern in (CHECKS, PRINT):
            is_third = ((across % 1 < 0.18) & (share[:, 0] > 0))[:, None]
            colour = np.where(is_third, self.colours[2], colour)
        return colour * (1 + 0.16 * noise_at(noise, 3 * x + z, 3 * y - z))[:, None]

    def _second_share(self, points: np.ndarray, along: np.ndarray, across: np.ndarray,
                      on_limb: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """(N,) 0..1 share of the second colour at points (N, 3); along, across: repetitions."""
        if self.pattern == RINGS:
            return (along % 1 < 0.4).astype(np.float32)
        if self.pattern == STRIPES:
            return (across % 1 < 0.3).astype(np.float32)
        if self.pattern == CHECKS:
            return 0.5 * (along % 1 < 0.5) + 0.5 * (across % 1 < 0.5)
        if self.pattern == GRADIENT:
            return np.clip(points[:, 1] + 0.5, 0, 1)
        if self.pattern == CLOUDS:
            scale = 0.06 / self.size_m
            cloud = noise_at(noise, scale * along * self.size_m, scale * across * self.size_m)
            return np.clip(0.5 + 2.5 * cloud, 0, 1)
        if self.pattern == PRINT:
            on_chest = np.hypot(points[:, 0] / 0.1, (points[:, 1] - 0.27) / 0.09) < 1
            return (on_chest & (points[:, 2] > 0)).astype(np.float32)
        if self.pattern == SLEEVES:
            return on_limb.astype(np.float32)
        return np.zeros(len(points), np.float32)
