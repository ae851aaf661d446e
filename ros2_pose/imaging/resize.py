"""Scaling of images, those turned by np.rot90 included, without a copy of the whole image.

OpenCV copies an image that np.rot90 has turned, pixel by pixel. Here the rows in memory are scaled
and the small result is turned.
"""

from __future__ import annotations

from bisect import bisect

import cv2
import numpy as np

_ROTATE = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}
_MORE_SAMPLES = (1.5, 4.5)  # factors of shrinking from which there are 2 and 3 samples a side


def resized(image: np.ndarray, size: tuple[int, int], interpolation: int) -> np.ndarray:
    """Return cv2.resize of an image (H, W, 3) to size (width, height), px, contiguous.

    Args:
        image: (H, W, 3) uint8; may be a view that np.rot90 made.
        interpolation: of OpenCV, e.g. cv2.INTER_AREA.
    """
    stored, quarter_turns = _as_stored(image)
    stored_size = size[::-1] if quarter_turns % 2 else size
    return _rotated(cv2.resize(stored, stored_size, interpolation=interpolation), quarter_turns)


def shrunk(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return an image (H, W, 3) scaled to size (width, height), px, without aliasing.

    An output pixel is the mean of n x n linear interpolations, n = 1 to 3. That approximates
    cv2.INTER_AREA several times as fast as OpenCV, which is slow for factors that are not whole.
    An image that grows is interpolated linearly.
    """
    factor = min(image.shape[1] / size[0], image.shape[0] / size[1])
    samples = 1 + bisect(_MORE_SAMPLES, factor)
    fine = resized(image, (size[0] * samples, size[1] * samples), cv2.INTER_LINEAR)
    return fine if samples == 1 else cv2.resize(fine, size, interpolation=cv2.INTER_AREA)


def contiguous(image: np.ndarray) -> np.ndarray:
    """Return an image (H, W, 3) with its rows in memory one after the other, copied if need be."""
    stored, quarter_turns = _as_stored(image)
    return _rotated(stored, quarter_turns)


def _as_stored(image: np.ndarray) -> tuple[np.ndarray, int]:
    """An image (h, w, 3) as its rows lie in memory, and its quarter turns from there."""
    for quarter_turns in range(4):
        stored = np.rot90(image, -quarter_turns) if quarter_turns else image
        if stored.strides[0] > 0 and stored.strides[1:] == (image.shape[2] * image.itemsize,
                                                            image.itemsize):
            return stored, quarter_turns
    return np.ascontiguousarray(image), 0


def _rotated(image: np.ndarray, quarter_turns: int) -> np.ndarray:
    return cv2.rotate(image, _ROTATE[quarter_turns]) if quarter_turns else image
