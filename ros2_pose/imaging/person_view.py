"""How a person's part of a picture is to be cut out: as it is, rotated, or as a perspective view.

As it is, unless the camera says otherwise:
- Where up is tilted in the picture by more than 10 degrees, the region is rotated. The direction of
  up at a person is that of a vertical line through their line of sight. In the picture of a level
  pinhole camera all vertical lines are upright: a ground that is merely the default rotates nothing
  there. Where a person is seen from straight above or below, up has no direction: no rotation.
- Where the lens bends or stretches the picture, the region is what a pinhole camera would see that
  looks at the person. Bent means: within the person's box the picture is an affine image neither of
  the plane z = 1 of the camera (as that of any pinhole camera is) nor of the plane across the
  person's line of sight (as a small part of a fisheye picture nearly is).

A person at a tilt lies along a diagonal of an axis-aligned box. What such a box contains is
therefore taken for the ellipse that touches its sides.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ros2_pose.camera import Camera

MARGIN = 1.1  # side of the region in sides of what the box contains
_STRIDE = 32  # px: sides of crops are multiples of it
_LEAST_SIDE = 96  # px, of a crop
_TILT_RAD = np.radians(10.0)  # of up in the picture from which the region is rotated
_LARGEST_COSINE = np.cos(np.radians(15.0))  # of the angle between up and the line of sight
_BENT_PX = 2.5  # px of the crop: deviation from an affine image, of a picture that is bent
_STRETCH = 1.5  # largest ratio of the scales in two directions
_LEAST_COSINE = 0.5  # of the angle from the line of sight to any part of the box
_LEAST_SHARE = 0.85  # of the box for which the lens model is valid
_NODES = 33  # along each side of the picture, with a known line of sight


def _unit_disc() -> np.ndarray:
    """Points (26, 2) of the unit disc: its centre, one a little above, its edge, a ring inside."""
    angles = np.radians(22.5 * np.arange(16))
    edge = np.column_stack([np.cos(angles), np.sin(angles)])
    return np.concatenate([[(0, 0), (0, -0.1)], edge, 0.6 * edge[::2]])


_DISC = _unit_disc()


class Region(NamedTuple):
    """An axis-aligned part of a picture of whole px, and the size of its crop."""

    left: int  # px
    top: int
    width: int
    height: int
    crop_size: tuple[int, int]  # width, height, px

    @property
    def picture_from_crop(self) -> np.ndarray:
        """Affine map (3, 3) from px of the crop to px of the picture."""
        width, height = self.crop_size
        return np.array([[self.width / width, 0, self.left], [0, self.height / height, self.top],
                         [0, 0, 1]])


def region_around(box: np.ndarray, long_side: int) -> Region:
    """Return the part of a picture around a box (4,), px, for a crop with a given long side, px.

    Its sides are whole px, so that the scale may differ a little between x and y.
    """
    left, top, right, bottom = box.tolist()
    size = _crop_size(right - left, bottom - top, long_side)
    scale = MARGIN * max(right - left, bottom - top) / long_side
    width, height = (max(round(side * scale), 1) for side in size)
    return Region(round((left + right - width) / 2), round((top + bottom - height) / 2), width,
                  height, size)


def _crop_size(width: float, height: float, long_side: int) -> tuple[int, int]:
    """Width and height, px, of the crop of a region with sides in any unit.

    The short side is at least 96 px; both are multiples of 32 px.
    """
    cells = long_side / (_STRIDE * max(width, height))
    least = min(_LEAST_SIDE, long_side)
    return (max(math.ceil(width * cells - 1e-9) * _STRIDE, least),
            max(math.ceil(height * cells - 1e-9) * _STRIDE, least))


def seen_by(camera: Camera, up: np.ndarray | None, box: np.ndarray,
            long_side: int) -> tuple[np.ndarray, tuple[int, int], bool] | None:
    """Choose how a person is cut out of a camera's picture, if not as it is.

    Args:
        up (3,): unit vector against gravity in the camera frame; None: as the picture has it.
        box (4,): of the person: left, top, right, bottom, px, within the picture.
        long_side: of the crop, px.
    Returns:
        The homography (3, 3) from px of the crop; the crop's width and height, px; whether the
        homography maps to rays of the camera, else to px of the picture. None if the box is cut
        out as it is, also where the lens model is not valid or the person surrounds the camera.
    """
    lens = _lens_grid(camera)
    is_bent = lens.bends(box, long_side)
    tilt = 0.0 if up is None else lens.tilt(box, up)
    if not is_bent and abs(tilt) <= _TILT_RAD:
        return None
    centre, radii = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
    pixels = centre + _DISC * radii
    if not is_bent:
        return *_rotated_region(tilt, centre, pixels, long_side), False
    directions = lens.directions_of(pixels)
    known = np.isfinite(directions[:, 0])
    if not known[:2].all() or known.mean() < _LEAST_SHARE:
        return None
    view_from_camera = _looking_along(directions[0], up, directions[1])
    in_view = directions[known] @ view_from_camera.T
    if not in_view[:, 2].min() >= _LEAST_COSINE:
        return None
    size, points_from_crop = _region_of(in_view[:, :2] / in_view[:, 2:], long_side)
    return view_from_camera.T @ points_from_crop, size, True


def _rotated_region(tilt: float, centre: np.ndarray, pixels: np.ndarray,
                    long_side: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Homography and size of a crop of pixels (N, 2) with up tilted by an angle, rad."""
    cos, sin = np.cos(tilt), np.sin(tilt)
    rotation = np.array([[cos, -sin, centre[0]], [sin, cos, centre[1]], [0, 0, 1]])
    size, rotated_from_crop = _region_of((pixels - centre) @ rotation[:2, :2], long_side)
    return rotation @ rotated_from_crop, size


def _region_of(points: np.ndarray, long_side: int) -> tuple[tuple[int, int], np.ndarray]:
    """Size of the crop that shows points (N, 2), px, and the map (3, 3) from it to them."""
    (left, top), (right, bottom) = points.min(0).tolist(), points.max(0).tolist()
    size = _crop_size(right - left, bottom - top, long_side)
    scale = MARGIN * max(right - left, bottom - top) / long_side
    points_from_crop = np.array([[scale, 0, (left + right - scale * size[0]) / 2],
                                 [0, scale, (top + bottom - scale * size[1]) / 2], [0, 0, 1]])
    return size, points_from_crop


def _looking_along(axis: np.ndarray, up: np.ndarray | None, above: np.ndarray) -> np.ndarray:
    """Rotation matrix (3, 3) to a frame with z along `axis` and y down, from the camera frame.

    Args:
        axis (3,): unit vector.
        up (3,): unit vector; not used if None or close to the axis.
        above (3,): unit vector that is seen just above the axis in the picture.
    """
    upwards = above - axis if up is None else up
    if up is not None and abs(up @ axis) > _LARGEST_COSINE:
        upwards = above - axis
    right = _cross(axis, upwards)
    right /= math.hypot(*right)
    return np.array([right, _cross(axis, right), axis])


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cross product (3,) of two vectors (3,); np.cross takes ten times as long."""
    (ax, ay, az), (bx, by, bz) = a.tolist(), b.tolist()
    return np.array([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx])


class _LensGrid:
    """Lines of sight and their derivatives by the pixel at points evenly across a picture.

    Attributes:
        cell_px: (2,) distance of the points along x and y, px.
        directions: (n, n, 3) unit vectors along the lines of sight; 0 where not known.
        pixel_by_direction: (n, n, 2, 3) Jacobian.
        bend: (n, n, 2, 3) 1/px, by x^2, xy, y^2; of two planes, see `_bend`.
        stretch: (n, n) ratio of the scales of the most different directions.
    """

    @np.errstate(invalid="ignore")
    def __init__(self, camera: Camera) -> None:
        """Compute the grid of a camera's picture."""
        x, y = np.linspace(0, camera.width, _NODES), np.linspace(0, camera.height, _NODES)
        rays = camera.normalise(np.stack(np.meshgrid(x, y), -1))
        directions = np.concatenate([rays, np.ones((_NODES, _NODES, 1))], -1)
        directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
        by_pixel = _gradient(directions, y, x)
        square = np.swapaxes(by_pixel, -1, -2) @ by_pixel
        # The product and the sum of the squares of the singular values tell their ratio.
        half_sum = np.trace(square, axis1=-2, axis2=-1) / (2 * np.sqrt(np.linalg.det(square)))
        self.cell_px = np.array([x[1], y[1]])
        self.directions = np.nan_to_num(directions)
        self.pixel_by_direction = np.linalg.inv(square) @ np.swapaxes(by_pixel, -1, -2)
        self.bend = np.stack([_bend(directions, self.pixel_by_direction, y, x),
                              _bend(rays, np.linalg.inv(_gradient(rays, y, x)), y, x)], -2)
        self.stretch = half_sum + np.sqrt(np.maximum(half_sum**2 - 1, 0))

    def bends(self, box: np.ndarray, long_side: int) -> bool:
        """Return whether a box (4,), px, is bent or stretched noticeably in a crop's px."""
        low, high = box[:2] // self.cell_px, np.ceil(box[2:] / self.cell_px) + 1
        part = slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))
        width, height = box[2:] - box[:2]
        # Half of the second-order term at the edge of the ellipse: the best affine map takes half.
        weights = np.array([width**2, width * height, height**2]) / 16
        scale = long_side / (MARGIN * max(width, height))
        deviation = (self.bend[part].max((0, 1)) @ weights).min() * scale
        return not (deviation <= _BENT_PX and self.stretch[part].mean() <= _STRETCH)

    def tilt(self, box: np.ndarray, up: np.ndarray) -> float:
        """Return the angle of up (3,) in the middle of a box (4,), px, clockwise, rad.

        0 where it is not known.
        """
        column, row = ((box[:2] + box[2:]) / (2 * self.cell_px)).round().astype(int)
        if abs(up @ self.directions[row, column]) > _LARGEST_COSINE:
            return 0.0
        x, y = self.pixel_by_direction[row, column] @ up
        return math.atan2(x, -y) if math.isfinite(x) else 0.0

    def directions_of(self, pixels: np.ndarray) -> np.ndarray:
        """Return unit vectors (N, 3) of pixels (N, 2), interpolated; NaN where not known.

        They tell which part of the picture is needed, not where things are. In a cell at the edge
        of what the lens sees they are those of its known corners.
        """
        nodes = pixels / self.cell_px
        first = np.clip(nodes.astype(int), 0, _NODES - 2)
        (column, row), (right, down) = first.T, (nodes - first).T[..., None]
        grid = self.directions
        upper = grid[row, column] * (1 - right) + grid[row, column + 1] * right
        lower = grid[row + 1, column] * (1 - right) + grid[row + 1, column + 1] * right
        directions = upper * (1 - down) + lower * down
        length = np.linalg.norm(directions, axis=1, keepdims=True)
        return directions / np.where(length > 0, length, np.nan)


@lru_cache(maxsize=32)
def _lens_grid(camera: Camera) -> _LensGrid:
    """The grid of a camera's picture, computed once."""
    return _LensGrid(camera)


def _gradient(values: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Derivatives (n, n, C, 2) by x and y of values (n, n, C)."""
    by_y, by_x = np.gradient(values, y, x, axis=(0, 1), edge_order=2)
    return np.stack([by_x, by_y], -1)


def _bend(values: np.ndarray, pixel_by_value: np.ndarray, y: np.ndarray,
          x: np.ndarray) -> np.ndarray:
    """Second-order part (n, n, 3), by x^2, xy and y^2, of the image of a plane, px/px^2.

    Args:
        values (n, n, C): direction or ray of each pixel. Their plane is the one across the line of
            sight, or z = 1.
        pixel_by_value (n, n, 2, C): Jacobian.
    """
    second = _gradient(_gradient(values, y, x).reshape(_NODES, _NODES, -1), y, x)
    second = second.reshape(_NODES, _NODES, -1, 4)  # by xx, yx, xy, yy
    return np.linalg.norm(pixel_by_value @ second[..., [0, 1, 3]], axis=-2)
