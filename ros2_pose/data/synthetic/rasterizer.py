"""Rasterises triangles with a z-buffer in a few tensor operations.

Each triangle is cut into spans, its parts in one row of pixels, and each span into pixels; the
nearest triangle of each pixel is kept. All triangles are processed at once, on the CPU or a GPU,
with the same result every time.

Nearness is 1/z of a pinhole camera, 1/m: linear in the image, larger is nearer.
"""

from __future__ import annotations

import torch
from torch import Tensor

_OVERLAP_PX = 1e-4  # neighbours overlap at their edge: rounding must leave no gap
_MIN_DOUBLE_AREA_PX2 = 1e-3
# The z-buffer holds nearness and face number in one integer: the largest is the nearest.
_FACE_BITS, _NEARNESS_STEPS = 22, 2.0**26


def rasterise(pixels: Tensor, nearness: Tensor, faces: Tensor, width: int, height: int,
              back: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Find the nearest triangle at each pixel's centre.

    Args:
        pixels (V, 2): projected vertices, px, pixel centres at +0.5.
        nearness (V,): 0..32; a vertex at or below 0 lies behind the camera, and its triangles are
            left out.
        faces (F, 3): vertex indices, anticlockwise seen from outside.
        width, height: of the image, px.
        back: draw the sides that face away from the camera instead of those that face it.
    Returns:
        The N pixels that show a triangle, row by row: (N,) int64 row * width + column, (N,) int64
        row in faces, (N,) nearness, 1/m.
    """
    side = 1.0 if back else -1.0
    face = _candidates(pixels, nearness, faces, width, height, side)
    corners, near = pixels[faces[face]], nearness[faces[face]]
    # One entry for each span.
    triangle, row = _rows(corners, height)
    first, count = _columns(corners, triangle, row, width, side)
    slope, at_origin = _plane(corners, near)
    at_column_0 = (at_origin + 0.5 * slope[:, 0])[triangle] + slope[triangle, 1] * (row + 0.5)
    per_column, nearest_corner = slope[triangle, 0], near.amax(1)[triangle]
    # One entry for each pixel of each span.
    span, offset = _expanded(count)
    column = first[span] + offset
    depth = torch.minimum(at_column_0[span] + per_column[span] * column, nearest_corner[span])
    key = (depth.clamp(min=0) * _NEARNESS_STEPS).long() << _FACE_BITS | face[triangle][span]
    buffer = torch.full((height * width,), -1, dtype=torch.int64, device=pixels.device)
    buffer.scatter_reduce_(0, (row * width)[span] + column, key, "amax")
    pixel = (buffer >= 0).nonzero()[:, 0]
    seen = buffer[pixel]
    return pixel, seen & (1 << _FACE_BITS) - 1, (seen >> _FACE_BITS) / _NEARNESS_STEPS


def barycentric(shown: Tensor, face: Tensor, pixels: Tensor, nearness: Tensor, faces: Tensor,
                width: int) -> Tensor:
    """Compute the perspective-correct barycentric coordinates of pixels that show a triangle.

    Args:
        shown (N,), face (N,): the pixels and their faces as `rasterise` found them.
        pixels, nearness, faces, width: arguments of `rasterise`.
    Returns:
        (N, 3): shares of the corners in the surface point that a pixel shows.
    """
    corners = faces[face]
    centre = torch.stack([shown % width, shown // width], 1).to(pixels) + 0.5
    a, b, c = (pixels[corners[:, k]] - centre for k in range(3))
    shares = torch.stack([_cross(b, c), _cross(c, a), _cross(a, b)], 1) * nearness[corners]
    return shares / shares.sum(1, keepdim=True)


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """(V, 3) unit normals of vertices (V, 3): means over the faces (F, 3) around, by area."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    normals = torch.linalg.cross(b - a, c - a)
    total = torch.zeros_like(vertices)
    for k in range(3):
        total.index_add_(0, faces[:, k], normals)
    return torch.nn.functional.normalize(total, dim=1)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    """(N,) cross product of vectors (N, 2)."""
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def _expanded(counts: Tensor) -> tuple[Tensor, Tensor]:
    """Repeat index i counts[i] times: (N,) the indices, (N,) the number of each repetition."""
    index = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    start = counts.cumsum(0) - counts
    return index, torch.arange(len(index), device=counts.device) - start[index]


def _rows(corners: Tensor, height: int) -> tuple[Tensor, Tensor]:
    """Cut triangles (F, 3, 2) px into spans: (S,) the triangle, (S,) the image row of each."""
    low = (corners[..., 1].amin(1) - 0.5).ceil().long().clamp(min=0)
    high = (corners[..., 1].amax(1) - 0.5).floor().long().clamp(max=height - 1)
    triangle, offset = _expanded((high - low + 1).clamp(min=0))
    return triangle, low[triangle] + offset


def _columns(corners: Tensor, triangle: Tensor, row: Tensor, width: int,
             side: float) -> tuple[Tensor, Tensor]:
    """(S,) first image column of each span, and (S,) its number of pixels, maybe 0."""
    left, right = _crossings(corners, triangle, row + 0.5, side)
    first = (left - 0.5 - _OVERLAP_PX).ceil().clamp(0, width).long()
    last = (right - 0.5 + _OVERLAP_PX).floor().clamp(-1, width - 1).long()
    return first, (last - first + 1).clamp(min=0)


def _candidates(pixels: Tensor, nearness: Tensor, faces: Tensor, width: int, height: int,
                side: float) -> Tensor:
    """(F',) faces before the camera that show this side and cover a pixel's row and column."""
    a, b, c = (pixels[faces[:, k]] for k in range(3))
    is_ahead = (nearness > 0)[faces].all(1)
    shows_side = _cross(b - a, c - a) * side > _MIN_DOUBLE_AREA_PX2
    face = (is_ahead & shows_side).nonzero()[:, 0]
    corners = torch.stack([a[face], b[face], c[face]])
    low, high = corners.amin(0), corners.amax(0)
    covers_centre = (high - 0.5).floor() >= (low - 0.5).ceil()
    in_image = (high > 0) & (low < torch.tensor([width, height]).to(pixels))
    return face[(covers_centre & in_image).all(1)]


def _crossings(corners: Tensor, triangle: Tensor, y: Tensor, side: float) -> tuple[Tensor, Tensor]:
    """(S,), (S,) x, px, at which rows y (S,) enter and leave triangles corners[triangle]."""
    left = torch.full_like(y, -torch.inf)
    right = torch.full_like(y, torch.inf)
    for k in range(3):
        a, b = corners[:, k], corners[:, (k + 1) % 3]
        edge = b - a
        x_per_row = edge[:, 0] / edge[:, 1]  # not finite for a level edge, which bounds no row
        x = a[triangle, 0] + x_per_row[triangle] * (y - a[triangle, 1])
        rise = edge[triangle, 1] * side
        left = torch.where(rise < 0, torch.maximum(left, x), left)
        right = torch.where(rise > 0, torch.minimum(right, x), right)
    return left, right


def _plane(corners: Tensor, near: Tensor) -> tuple[Tensor, Tensor]:
    """(F, 2) change of nearness per px of x and y, and (F,) its value at pixel position (0, 0)."""
    u, v = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    du, dv = near[:, 1] - near[:, 0], near[:, 2] - near[:, 0]
    slope = torch.stack([du * v[:, 1] - dv * u[:, 1], dv * u[:, 0] - du * v[:, 0]], 1)
    slope = slope / _cross(u, v)[:, None]
    return slope, near[:, 0] - (slope * corners[:, 0]).sum(1)
