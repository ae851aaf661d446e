"""Whether a picture shows anything, and the stretch of those that use few of their grey levels.

A covered lens, a black or a saturated picture shows nothing: that nobody is found in it says
nothing about the room. Thermal cameras and cameras of 10 or 12 bits use a part of the range that
their encoding has: their pictures are stretched before a network sees them.
"""

from __future__ import annotations

import cv2
import numpy as np

_TAILS = (0.5, 99.5)  # percentiles that become black and white
_WIDE = 0.25  # of the full range: a picture that uses so much of it is left as it is
_SAMPLE = 64  # pixels along the shorter side that percentiles are taken of
_LOOKED_AT = 240  # pixels along the shorter side that structure is looked for in
_CELLS = 48  # cells along the shorter side, whose means are compared
_LEAST_STEPS = 3  # smallest differences of the encoding between the cells' means that can be seen
_CLEAR = 0.2  # of the full range between the cells' means is structure, whatever the noise
_NOISE_SIGMAS = 10.0  # means of cells of noise alone lie closer together
_NORMAL_DIFFERENCE = 1.128  # mean absolute difference of two normal values, in deviations


def has_contrast(image: np.ndarray) -> bool:
    """Whether a picture (H, W, 3) uint8 shows anything but one colour and noise."""
    return _has_structure(image, 255.0)


def grey_ramp(width: int, height: int) -> np.ndarray:
    """(height, width, 3) uint8 from black to white: an empty room for networks that do not look."""
    row = np.linspace(0, 255, width).astype(np.uint8)
    return np.tile(row[:, None], (height, 1, 3))


def to_8_bits(values: np.ndarray, full: float) -> np.ndarray:
    """An 8-bit picture of values that may use a small part of their range.

    Args:
        values: (H, W) or (H, W, C), uint8, uint16 or float32.
        full: the largest value of the encoding; inf: there is none, as of temperatures.
    Returns:
        uint8, same shape. Where the percentiles 0.5 and 99.5 of the values are less than a quarter
        of the range apart and the picture shows structure, these become 0 and 255; else 0 and
        full. A uint8 picture that is not stretched is returned itself.
    """
    if values.dtype.kind == "f":
        values = np.where(np.isfinite(values), values, np.float32(0)).astype(np.float32)
    low, high = _tails(values)
    if low < high < low + _WIDE * full and _has_structure(values, full):
        return _scaled(values, low, 255 / (high - low))
    if values.dtype == np.uint8:
        return values
    return _scaled(values, 0.0, 255 / full)


def _has_structure(values: np.ndarray, full: float) -> bool:
    """Whether the means of small cells differ by more than noise lets them differ."""
    step = max(min(values.shape[:2]) // _LOOKED_AT, 1)
    values = values[::step, ::step]
    if values.ndim == 3 and _contrast(values[..., 1])[0] >= _CLEAR * full:
        return True  # most pictures, by their green alone
    contrast, cell = _contrast(values)
    if contrast >= _CLEAR * full:
        return True
    least = _LEAST_STEPS if values.dtype.kind == "u" else 0
    return contrast > least and contrast > _NOISE_SIGMAS * _noise_std(values) / cell


def _contrast(values: np.ndarray) -> tuple[float, int]:
    """Largest difference between the means of cells, of any channel, and a cell's side, px."""
    height, width = values.shape[:2]
    cell = max(min(height, width) // _CELLS, 1)
    size = max(width // cell, 1), max(height // cell, 1)
    means = cv2.resize(np.ascontiguousarray(values), size, interpolation=cv2.INTER_AREA)
    means = means.reshape(-1, *values.shape[2:])
    return float((means.max(0) - means.min(0).astype(float)).max()), cell


def _noise_std(values: np.ndarray) -> float:
    """Standard deviation of a pixel's noise, from what neighbours differ by."""
    pairs = values[::16, :values.shape[1] // 2 * 2].astype(float)
    differences = np.abs(pairs[:, 1::2] - pairs[:, ::2])
    return float(differences.mean()) / _NORMAL_DIFFERENCE if differences.size else 0.0


def _tails(values: np.ndarray) -> tuple[float, float]:
    """The percentiles of the values, from a sample of the pixels."""
    step = max(min(values.shape[:2]) // _SAMPLE, 1)
    sample = values[::step, ::step].reshape(-1)
    if values.dtype != np.uint8:
        low, high = np.percentile(sample, _TAILS)
        return float(low), float(high)
    counts = np.cumsum(np.bincount(sample, minlength=256))
    low, high = np.searchsorted(counts, np.array(_TAILS) / 100 * counts[-1])
    return float(low), float(high)


def _scaled(values: np.ndarray, low: float, scale: float) -> np.ndarray:
    """(values - low) * scale as uint8."""
    if values.dtype == np.uint8:
        levels = (np.arange(256) - low) * scale
        return cv2.LUT(values, np.clip(levels, 0, 255).astype(np.uint8))
    return np.clip((values.astype(np.float32) - low) * scale, 0, 255).astype(np.uint8)
