"""Boxes (N, 4): left, top, right, bottom, px."""

from __future__ import annotations

import numpy as np


def areas(boxes: np.ndarray) -> np.ndarray:
    """(N,) px^2; 0 of a box that ends before it begins."""
    return np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(-1)


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(A, B) intersection over union of boxes (A, 4) and (B, 4)."""
    both = _common(a, b)
    return _ratio(both, areas(a)[:, None] + areas(b) - both)


def shares_within(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(A, B) how much of each box (A, 4) lies in each of the boxes (B, 4)."""
    return _ratio(_common(a, b), areas(a)[:, None])


def _common(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    size = np.minimum(a[:, None, 2:], b[:, 2:]) - np.maximum(a[:, None, :2], b[:, :2])
    return np.maximum(size, 0).prod(-1)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """0 where there is no whole: a box without an area is like no other."""
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)
