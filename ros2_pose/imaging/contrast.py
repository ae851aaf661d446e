"""Contrast of pictures: detect pictures without content, stretch pictures with few grey levels.

A picture of a covered lens, darkness or saturation has no content: finding no people in it says
nothing about the room. Thermal cameras and cameras of 10 or 12 bits use a part of their encoding's
range: their pictures are stretched before they are given to a network.
"""

from __future__ import annotations

import cv2
import numpy as np

_TAILS = (0.5, 99.5)  # percentiles that become black and white
_WIDE = 0.25  # share of the full range above which a picture is not stretched
_SAMPLE = 64  # pixels along the shorter side for the percentiles
_STRUCTURE_SAMPLE = 240  # pixels along the shorter side for the structure
_CELLS = 48  # along the shorter side; their means are compared
_MIN_STEPS = 3  # least difference between means of cells, in steps of an integer encoding
_CLEAR = 0.2  # share of the full range: such a difference is structure, whatever the noise
_NOISE_SIGMAS = 10.0  # means of cells that hold noise alone differ by less
_MEAN_DIFFERENCE = 1.128  # mean absolute difference of two normal values of std 1


def has_contrast(image: np.ndarray) -> bool:
    """Return whether a picture (H, W, 3) uint8 contains more than one colour with noise."""
    return _has_structure(image, 255.0)


def grey_ramp(width: int, height: int) -> np.ndarray:
    """Return a picture (height, width, 3) uint8 from black to white.

    It passes `has_contrast` and contains no people: for warm-up and tests.
    """
    row = np.linspace(0, 255, width).astype(np.uint8)
    return np.tile(row[:, None], (height, 1, 3))


def to_8_bits(values: np.ndarray, full: float) -> np.ndarray:
    """Convert values to 8 bits, stretched if they use a small part of their range.

    They are stretched if their percentiles 0.5 and 99.5 are less than a quarter of the range apart
    and the picture has structure: these percentiles then become 0 and 255. Else 0 and `full` do.

    Args:
        values: (H, W) or (H, W, C), uint8, uint16 or float32.
        full: the largest value of the encoding; inf if it has no limit, as for temperatures.
    Returns:
        uint8, same shape; a uint8 picture that is not stretched is returned itself.
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
    """Whether the means of small cells differ by more than noise explains."""
    step = max(min(values.shape[:2]) // _STRUCTURE_SAMPLE, 1)
    values = values[::step, ::step]
    if values.ndim == 3 and _contrast(values[..., 1])[0] >= _CLEAR * full:
        return True  # a short cut for most pictures: green alone
    contrast, cell = _contrast(values)
    if contrast >= _CLEAR * full:
        return True
    min_contrast = _MIN_STEPS if values.dtype.kind == "u" else 0
    return contrast > min_contrast and contrast > _NOISE_SIGMAS * _noise_std(values) / cell


def _contrast(values: np.ndarray) -> tuple[float, int]:
    """Largest difference between the means of cells in any channel, and a cell's side, px."""
    height, width = values.shape[:2]
    cell = max(min(height, width) // _CELLS, 1)
    size = max(width // cell, 1), max(height // cell, 1)
    means = cv2.resize(np.ascontiguousarray(values), size, interpolation=cv2.INTER_AREA)
    means = means.reshape(-1, *values.shape[2:])
    return float((means.max(0) - means.min(0).astype(float)).max()), cell


def _noise_std(values: np.ndarray) -> float:
    """Standard deviation of a pixel's noise, from the differences of neighbours."""
    pairs = values[::16, :values.shape[1] // 2 * 2].astype(float)
    differences = np.abs(pairs[:, 1::2] - pairs[:, ::2])
    return float(differences.mean()) / _MEAN_DIFFERENCE if differences.size else 0.0


def _tails(values: np.ndarray) -> tuple[float, float]:
    """The percentiles `_TAILS` of the values, from a sample of the pixels."""
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
