"""Crops of people for top-down networks, taken from the frame's image as the camera gave it.

`person_view` says which part of the picture a crop shows: a part as it is, a rotated one, or a
perspective view of a person whom the lens bends. Pixel centres are at +0.5, in crop and picture.
"""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np

from ros2_pose.camera import Camera
from ros2_pose.imaging.person_view import Region, region_around, seen_by
from ros2_pose.imaging.resize import contiguous, shrunk
from ros2_pose.people import Frame

_LEAST_BOX_PX = 1.0  # sides of a box within the picture
_CELL_PX = 16  # of a crop: the map to the picture is exact at this distance, linear between
_SHRINKS = 2.0  # px of the picture in one of the crop from which the picture is shrunk first
_OUTSIDE = -1e5  # px: coordinate of pixels that the lens does not see


class Crop:
    """A part of a picture as a top-down network sees it."""

    def __init__(self, image: np.ndarray, homography: np.ndarray,
                 camera: Camera | None = None) -> None:
        """Describe a crop.

        Args:
            image (h, w, 3): uint8 RGB, h and w multiples of 32, 0 outside the picture.
            homography (3, 3): from px of the crop to px of the picture, or to rays of the camera.
            camera: of the picture, if the crop is a perspective view; else None.
        """
        self.image, self.homography, self.camera = image, homography, camera

    def to_picture(self, points: np.ndarray, cov: np.ndarray | None = None):
        """Map points (..., 2), px of the crop, to px of the picture.

        Args:
            points: (..., 2) px.
            cov: (..., 2, 2) px^2, if covariances are to be mapped, linearised at the points.
        Returns:
            points (..., 2), px; with cov a pair of points and covariances (..., 2, 2), px^2. NaN
            where a perspective view goes beyond what the lens sees.
        """
        mapped, mapped_cov = _by_homography(self.homography, points, cov)
        if cov is None:
            return mapped if self.camera is None else self.camera.distort(mapped)
        if self.camera is None:
            return mapped, mapped_cov
        return self.camera.distort_with_cov(mapped, mapped_cov)

    def from_picture(self, points: np.ndarray, cov: np.ndarray | None = None):
        """Map points (..., 2), px of the picture, to px of the crop: the inverse of `to_picture`.

        Args:
            points: (..., 2) px.
            cov: (..., 2, 2) px^2, if covariances are to be mapped, linearised at the points.
        Returns:
            points (..., 2), px; with cov a pair of points and covariances (..., 2, 2), px^2. NaN
            behind a perspective view and where the lens model is not valid.
        """
        if self.camera is not None:
            if cov is None:
                points = self.camera.normalise(points)
            else:
                points, cov = self.camera.normalise_with_cov(points, cov)
        mapped, mapped_cov = _by_homography(np.linalg.inv(self.homography), points, cov)
        return mapped if cov is None else (mapped, mapped_cov)


def crop_person(frame: Frame, box: np.ndarray, long_side: int = 256) -> Crop | None:
    """Cut a person out of a frame's image, with a margin, at the scale that a network expects.

    Args:
        frame: with its camera and ground, people are upright in the crop and not bent by the lens,
            see `person_view`; without a camera of the image's size the crop shows the picture as
            it is.
        box (4,): left, top, right, bottom, px; the part within the picture counts.
        long_side: of the crop, px, a multiple of 32. The short side follows from the box: rounded
            up to a multiple of 32, at least 96 px, by a wider region.
    Returns:
        None if the box is NaN, or narrower or lower than 1 px within the picture.
    """
    height, width = frame.image.shape[:2]
    visible = np.clip(np.asarray(box, float), 0, (width, height, width, height))
    if not ((visible[2:] - visible[:2]) >= _LEAST_BOX_PX).all():  # also if NaN
        return None
    camera = frame.camera
    if camera is not None and (camera.width, camera.height) == (width, height):
        up = None if frame.ground is None else frame.ground.up
        view = seen_by(camera, up, visible, long_side)
        if view is not None:
            homography, size, is_perspective = view
            return _warped(frame.image, homography, size, camera if is_perspective else None)
    region = region_around(visible, long_side)
    return Crop(_scaled(frame.image, region), region.picture_from_crop)


def _scaled(image: np.ndarray, region: Region) -> np.ndarray:
    """The crop (h, w, 3) of a region of the picture."""
    right, bottom = region.left + region.width, region.top + region.height
    inside = image[max(region.top, 0):bottom, max(region.left, 0):right]
    outside = (max(-region.top, 0), max(bottom - image.shape[0], 0),
               max(-region.left, 0), max(right - image.shape[1], 0))
    if any(outside):
        inside = cv2.copyMakeBorder(contiguous(inside), *outside, cv2.BORDER_CONSTANT)
    return shrunk(inside, region.crop_size)


def _warped(image: np.ndarray, homography: np.ndarray, size: tuple[int, int],
            camera: Camera | None) -> Crop:
    """The crop of a size, px, by a homography, and the camera's lens if there is one."""
    width, height = size
    crop = Crop(np.zeros((height, width, 3), np.uint8), homography, camera)
    nodes = crop.to_picture(_nodes(width, height))
    part = _part(image, nodes)
    if part is None:
        return crop
    part_image, corner, scale = part
    nodes = (nodes - corner) / scale - 0.5  # OpenCV: centre of the first pixel at 0
    padded = cv2.resize(nodes.astype(np.float32), (width + 2 * _CELL_PX, height + 2 * _CELL_PX))
    cv2.patchNaNs(padded, _OUTSIDE)
    pixels = padded[_CELL_PX:-_CELL_PX, _CELL_PX:-_CELL_PX]
    return Crop(cv2.remap(part_image, pixels, None, cv2.INTER_LINEAR), homography, camera)


@lru_cache(maxsize=32)
def _nodes(width: int, height: int) -> np.ndarray:
    """Centres (rows, columns, 2) of a crop's cells, px, and of those around it.

    All pixels of the crop lie between nodes.
    """
    columns, rows = (_CELL_PX * np.arange(-0.5, side // _CELL_PX + 1) for side in (width, height))
    return np.stack(np.meshgrid(columns, rows), -1)


def _part(image: np.ndarray,
          nodes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Cut out what nodes cover of a picture, shrunk to about the scale of the crop.

    Args:
        image (H, W, 3): the picture.
        nodes (rows, columns, 2): px.
    Returns:
        The part (h, w, 3); its corner (2,), px of the picture; its scale (2,), px of the picture in
        one of the part. None if the nodes miss the picture.
    """
    known = nodes[np.isfinite(nodes[..., 0])]
    if not len(known):
        return None
    limits = image.shape[1::-1]
    low = np.clip(np.floor(known.min(0)) - 2, 0, limits).astype(int)
    high = np.clip(np.ceil(known.max(0)) + 2, 0, limits).astype(int)
    if (high <= low).any():
        return None
    part = image[low[1]:high[1], low[0]:high[0]]
    row, column = nodes.shape[0] // 2, nodes.shape[1] // 2
    step = math.dist(nodes[row, column], nodes[row - 1, column]) / _CELL_PX
    if not step > _SHRINKS:
        return contiguous(part), low, np.ones(2)
    size = np.maximum(np.round((high - low) / step), 1).astype(int)
    return shrunk(part, (int(size[0]), int(size[1]))), low, (high - low) / size


def _by_homography(homography: np.ndarray, points: np.ndarray, cov: np.ndarray | None):
    """Points (..., 2) after a homography (3, 3), and their covariances or None; NaN behind it."""
    mapped = np.asarray(points, float) @ homography[:, :2].T + homography[:, 2]
    depth = np.where(mapped[..., 2:] > 1e-9, mapped[..., 2:], np.nan)
    mapped = mapped[..., :2] / depth
    if cov is None:
        return mapped, None
    jacobian = (homography[:2, :2] - mapped[..., None] * homography[2, :2]) / depth[..., None]
    return mapped, jacobian @ cov @ np.swapaxes(jacobian, -1, -2)
