"""Axis-aligned boxes (N, 4) as left, top, right, bottom, px."""

from __future__ import annotations

import numpy as np


def areas(boxes: np.ndarray) -> np.ndarray:
    """Return the areas (N,) of boxes (N, 4), px^2; 0 for a box with negative width or height."""
    return np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(-1)


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the intersection over union (A, B) of boxes a (A, 4) and b (B, 4)."""
    intersections = _intersections(a, b)
    return _ratio(intersections, areas(a)[:, None] + areas(b) - intersections)


def shares_within(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the share (A, B) of the area of each box a (A, 4) that lies in each box b (B, 4)."""
    return _ratio(_intersections(a, b), areas(a)[:, None])


def suppress(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Return the rows of boxes to keep (NMS), best first.

    Args:
        boxes: (N, 4).
        scores: (N,).
        threshold: a box that overlaps a better one by more (intersection over union) is dropped.
    """
    order = np.argsort(-scores, kind="stable")
    overlap = overlaps(boxes[order], boxes[order]) > threshold
    keep: list[int] = []
    for rank in range(len(order)):
        if not overlap[rank, keep].any():
            keep.append(rank)
    return order[keep]


def _intersections(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    size = np.minimum(a[:, None, 2:], b[:, 2:]) - np.maximum(a[:, None, :2], b[:, :2])
    return np.maximum(size, 0).prod(-1)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole; 0 where whole is 0, for boxes without an area."""
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)
