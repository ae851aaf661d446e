"""Which triangle is seen at each pixel, and where on it: a z-buffer in a few tensor operations.

Each triangle is cut into the spans of its rows, each span into pixels; what is nearest stays. All
triangles at once, on the CPU or a GPU, the same picture every time.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_OVERLAP_PX = 1e-4  # neighbours share their edge, so that rounding leaves no gap
_LEAST_AREA_PX = 1e-3
_FACE_BITS, _NEARNESS_STEPS = 22, 2.0**26


class Hits(NamedTuple):
    """The N pixels that show a triangle, row by row."""

    pixel: Tensor  # (N,) int64 row * width + column
    face: Tensor  # (N,) int64
    nearness: Tensor  # (N,)


class _Spans(NamedTuple):
    """Rows of triangles: from column `first`, `count` pixels."""

    face: Tensor  # (S,) int64
    row: Tensor  # (S,) int64
    first: Tensor  # (S,) int64
    count: Tensor  # (S,) int64
    nearness: Tensor  # (S,) at column 0
    slope: Tensor  # (S,) of nearness by column
    limit: Tensor  # (S,) the nearest corner


def rasterise(pixels: Tensor, nearness: Tensor, faces: Tensor, width: int, height: int,
              back: bool = False) -> Hits:
    """The nearest triangle at each pixel's centre.

    pixels: (V, 2) px, pixel centres at +0.5. nearness: (V,) 0..32, more is nearer, linear in the
    image: 1/z of a pinhole camera; what is not above 0 lies behind the camera, and triangles that
    touch it are left out. faces: (F, 3), anticlockwise seen from outside. back: the sides that look
    away from the camera instead of those that face it.
    """
    spans = _spans(pixels, nearness, faces, width, height, 1.0 if back else -1.0)
    which = torch.repeat_interleave(torch.arange(len(spans.count), device=pixels.device),
                                    spans.count)
    before = spans.count.cumsum(0) - spans.count
    column = torch.arange(len(which), device=pixels.device) - (before - spans.first)[which]
    near = torch.minimum(spans.nearness[which] + spans.slope[which] * column, spans.limit[which])
    key = (near.clamp(min=0) * _NEARNESS_STEPS).long() << _FACE_BITS | spans.face[which]
    buffer = torch.full((height * width,), -1, dtype=torch.int64, device=pixels.device)
    buffer.scatter_reduce_(0, (spans.row * width)[which] + column, key, "amax")
    pixel = (buffer >= 0).nonzero()[:, 0]
    seen = buffer[pixel]
    return Hits(pixel, seen & (1 << _FACE_BITS) - 1, (seen >> _FACE_BITS) / _NEARNESS_STEPS)


def barycentric(hits: Hits, pixels: Tensor, nearness: Tensor, faces: Tensor,
                width: int) -> Tensor:
    """(N, 3) shares of a hit triangle's corners in what is seen; arguments as of `rasterise`.

    With 1/z for nearness, shares of places in space (perspective-correct), not of pixels.
    """
    corners = faces[hits.face]
    at = torch.stack([hits.pixel % width, hits.pixel // width], 1).to(pixels) + 0.5
    a, b, c = (pixels[corners[:, k]] - at for k in range(3))
    shares = torch.stack([_cross(b, c), _cross(c, a), _cross(a, b)], 1) * nearness[corners]
    return shares / shares.sum(1, keepdim=True)


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """(V, 3) unit normals of a surface, means of the triangles around by their areas."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    normals = torch.linalg.cross(b - a, c - a)
    total = torch.zeros_like(vertices)
    for k in range(3):
        total.index_add_(0, faces[:, k], normals)
    return torch.nn.functional.normalize(total, dim=1)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]


def _spans(pixels: Tensor, nearness: Tensor, faces: Tensor, width: int, height: int,
           side: float) -> _Spans:
    """Where the rows of pixel centres cross the triangles of one orientation."""
    face = _candidates(pixels, nearness, faces, width, height, side)
    corners, near = pixels[faces[face]], nearness[faces[face]]
    low = (corners[..., 1].amin(1) - 0.5).ceil().long().clamp(min=0)
    high = (corners[..., 1].amax(1) - 0.5).floor().long().clamp(max=height - 1)
    rows = (high - low + 1).clamp(min=0)
    which = torch.repeat_interleave(torch.arange(len(face), device=face.device), rows)
    row = torch.arange(len(which), device=face.device) - (rows.cumsum(0) - rows - low)[which]
    left, right = _crossings(corners, which, row + 0.5, side)
    first = (left - 0.5 - _OVERLAP_PX).ceil().clamp(0, width).long()
    last = (right - 0.5 + _OVERLAP_PX).floor().clamp(-1, width - 1).long()
    slope, at_origin = _plane(corners, near)
    start = (at_origin + 0.5 * slope[:, 0])[which] + slope[which, 1] * (row + 0.5)
    return _Spans(face[which], row, first, (last - first + 1).clamp(min=0), start,
                  slope[which, 0], near.amax(1)[which])


def _candidates(pixels, nearness, faces, width: int, height: int, side: float) -> Tensor:
    """(F',) the triangles in the image that show this side and cover a pixel's row and column."""
    a, b, c = (pixels[faces[:, k]] for k in range(3))
    ahead = (nearness > 0)[faces].all(1)
    face = (ahead & (_cross(b - a, c - a) * side > _LEAST_AREA_PX)).nonzero()[:, 0]
    a, b, c = a[face], b[face], c[face]
    low, high = torch.minimum(torch.minimum(a, b), c), torch.maximum(torch.maximum(a, b), c)
    covers = ((high - 0.5).floor() >= (low - 0.5).ceil()) & (high > 0)
    covers &= low < torch.tensor([width, height]).to(pixels)
    return face[covers.all(1)]


def _crossings(corners: Tensor, which: Tensor, y: Tensor, side: float) -> tuple[Tensor, Tensor]:
    """(S,), (S,) px where row centres y (S,) enter and leave triangles corners[which]."""
    left = torch.full_like(y, -torch.inf)
    right = torch.full_like(y, torch.inf)
    for k in range(3):
        a, b = corners[:, k], corners[:, (k + 1) % 3]
        along = b - a
        per_row = along[:, 0] / along[:, 1]  # not finite where level: such an edge bounds no row
        x = a[which, 0] + per_row[which] * (y - a[which, 1])
        falling = along[which, 1] * side
        left = torch.where(falling < 0, torch.maximum(left, x), left)
        right = torch.where(falling > 0, torch.minimum(right, x), right)
    return left, right


def _plane(corners: Tensor, near: Tensor) -> tuple[Tensor, Tensor]:
    """(F, 2) slope of nearness by x and y and (F,) its value at (0, 0)."""
    u, v = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    du, dv = near[:, 1] - near[:, 0], near[:, 2] - near[:, 0]
    slope = torch.stack([du * v[:, 1] - dv * u[:, 1], dv * u[:, 0] - du * v[:, 0]], 1)
    slope = slope / _cross(u, v)[:, None]
    return slope, near[:, 0] - (slope * corners[:, 0]).sum(1)
