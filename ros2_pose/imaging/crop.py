"""Crops of people for top-down networks, taken from the frame's image.

Pixel centres are at +0.5, in the crop as in the picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ros2_pose.people import Frame

_MARGIN = 1.25  # side of the crop's region in sides of the person's box
_STRIDE = 32  # px: sides of crops are multiples of it
_LEAST_SIDE = 96  # px, of a crop
_LEAST_BOX_PX = 1.0  # sides of a box within the picture


@dataclass(frozen=True, eq=False)
class Crop:
    """A part of a picture as a top-down network sees it.

    Args:
        image (h, w, 3): uint8 RGB, h and w multiples of 32, 0 outside the picture.
        picture_from_crop (2, 3): affine map from px of the crop to px of the picture.
    """

    image: np.ndarray
    picture_from_crop: np.ndarray

    def to_picture(self, points: np.ndarray, cov: np.ndarray | None = None):
        """Map points (..., 2), px of the crop, to px of the picture.

        Args:
            points: (..., 2) px.
            cov: (..., 2, 2) px^2, if covariances are to be mapped, too.
        Returns:
            points (..., 2), px; with cov a pair of points and covariances (..., 2, 2), px^2.
        """
        return _mapped(self.picture_from_crop, points, cov)

    def from_picture(self, points: np.ndarray, cov: np.ndarray | None = None):
        """Map points (..., 2), px of the picture, to px of the crop: inverse of `to_picture`.

        Args:
            points: (..., 2) px.
            cov: (..., 2, 2) px^2, if covariances are to be mapped, too.
        """
        return _mapped(cv2.invertAffineTransform(self.picture_from_crop), points, cov)


def crop_person(frame: Frame, box: np.ndarray, long_side: int = 256) -> Crop | None:
    """Cut a person out of the frame's image, with a margin, at a scale that fits a network.

    Args:
        box (4,): left, top, right, bottom, px; the part within the picture counts.
        long_side: of the crop, px, a multiple of 32. The short side follows from the box: rounded
            up to a multiple of 32, at least 96, by a wider region.
    Returns:
        None if the box is not finite, or narrower or lower than 1 px within the picture.
    """
    height, width = frame.image.shape[:2]
    visible = np.clip(np.asarray(box, float), 0, (width, height, width, height))
    sides = visible[2:] - visible[:2]
    if not (sides >= _LEAST_BOX_PX).all():  # also if NaN
        return None
    size = _crop_size(sides, long_side)
    return _straight_crop(frame.image, (visible[:2] + visible[2:]) / 2, sides, size)


def _crop_size(sides: np.ndarray, long_side: int) -> np.ndarray:
    """Width and height (2,), px, of the crop of a box with sides (2,), px."""
    scaled = sides * long_side / sides.max()
    padded = np.ceil(scaled / _STRIDE - 1e-9).astype(int) * _STRIDE
    return np.minimum(np.maximum(padded, _LEAST_SIDE), long_side)


def _straight_crop(image: np.ndarray, centre: np.ndarray, sides: np.ndarray,
                   size: np.ndarray) -> Crop:
    """Scale a region of whole pixels to a crop of size (2,)."""
    wanted = size * _MARGIN * sides.max() / size.max()
    region = np.maximum(np.round(wanted), 1).astype(int)  # width, height, px
    corner = np.round(centre - region / 2).astype(int)
    cut = _region(image, corner, region)
    shrinks = (region >= size).all()
    scaled = cv2.resize(cut, (int(size[0]), int(size[1])),
                        interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    scale = region / size
    return Crop(scaled, np.column_stack([np.diag(scale), corner]).astype(float))


def _region(image: np.ndarray, corner: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Pixels (h, w, 3) of a region of size (2,) w, h; 0 outside the picture."""
    limits = np.array(image.shape[1::-1])
    (left, top), (right, bottom) = np.maximum(corner, 0), np.minimum(corner + size, limits)
    inside = np.ascontiguousarray(image[top:bottom, left:right])
    before, after = np.maximum(-corner, 0), np.maximum(corner + size - limits, 0)
    if not before.any() and not after.any():
        return inside
    return cv2.copyMakeBorder(inside, int(before[1]), int(after[1]), int(before[0]),
                              int(after[0]), cv2.BORDER_CONSTANT)


def _mapped(affine: np.ndarray, points: np.ndarray, cov: np.ndarray | None):
    """Points (..., 2) after an affine map (2, 3); with their covariances if given."""
    jacobian = affine[:, :2]
    mapped = np.asarray(points, float) @ jacobian.T + affine[:, 2]
    return mapped if cov is None else (mapped, jacobian @ cov @ jacobian.T)
