"""Backgrounds of synthetic pictures: rooms, open ground, flat patterns, and a user's pictures.

World frame: the camera at the origin, y up, the camera looks along -z before it pitches; the floor
at y = -camera_height. Colours are linear RGB.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from ros2_pose.data.synthetic.materials import GAMMA, NOISE_SIZE, fabric_colour, noise_table
from ros2_pose.errors import PoseError

ROOM, OUTDOORS, FLAT, PHOTO = range(4)
_KIND_SHARES = (0.55, 0.3, 0.15)  # of the first three
_TEXTURE_PX = NOISE_SIZE  # width and height
_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_FAR_M = 60.0
_WALL_AXES = ((2, 1), (0, 2), (0, 1))  # the two axes along a wall across x, y, z
_PHOTO_SHARE = 0.5  # of the scenes, if there are pictures
_MIN_SLANT = 0.02  # of a ray against a surface
_MIN_CEILING_M = 2.6  # above the floor


class BackgroundError(PoseError):
    """Pictures that cannot be used; the message names them."""


def picture_files(folder: str | Path) -> list[Path]:
    """The pictures below a folder, in order. Raises BackgroundError if there are none."""
    files = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in _PICTURES)
    if not files:
        raise BackgroundError(f"no pictures ({', '.join(_PICTURES)}) below {folder}")
    return files


def texture(rng: np.random.Generator) -> np.ndarray:
    """(256, 256, 3) float32 linear RGB of a surface: tiles, planks, carpet, shapes."""
    base, other = fabric_colour(rng), fabric_colour(rng)
    if rng.random() < 0.7:  # most floors and walls are dull
        base, other = (0.3 * colour + 0.7 * colour.mean() for colour in (base, other))
    canvas = np.broadcast_to(base, (_TEXTURE_PX, _TEXTURE_PX, 3)).astype(np.float32).copy()
    kind = rng.integers(5)
    if kind == 1:
        _tile(canvas, other, rng)
    elif kind == 2:
        _plank(canvas, rng)
    elif kind >= 3:
        _scatter(canvas, rng, int(rng.integers(2, 40)))
    grain = rng.standard_normal((_TEXTURE_PX, _TEXTURE_PX, 1), dtype=np.float32)
    stains = noise_table(rng)[..., None]
    grain *= np.float32(rng.uniform(0, 0.25))
    stains *= np.float32(rng.uniform(0, 0.5))
    return np.clip(canvas * (1 + grain + stains), 0, 1)


def _tile(canvas: np.ndarray, colour: np.ndarray, rng: np.random.Generator) -> None:
    """Draw a chessboard or tiles with joints."""
    count = 2 ** int(rng.integers(1, 5))
    step = _TEXTURE_PX // count
    if rng.random() < 0.3:
        rows, columns = np.indices(canvas.shape[:2]) // step
        canvas[(rows + columns) % 2 == 0] = colour
        return
    joint = int(rng.integers(1, 5))
    for k in range(count):
        canvas[k * step:k * step + joint] = colour
        canvas[:, k * step:k * step + joint] = colour


def _plank(canvas: np.ndarray, rng: np.random.Generator) -> None:
    """Draw planks of random brightness."""
    width = 2 ** int(rng.integers(3, 7))
    for left in range(0, _TEXTURE_PX, width):
        canvas[:, left:left + width] *= rng.uniform(0.6, 1.2)
        canvas[int(rng.integers(_TEXTURE_PX)), left:left + width] *= 0.4
        canvas[:, left:left + 1] *= 0.5


def _scatter(canvas: np.ndarray, rng: np.random.Generator, count: int) -> None:
    """Draw shapes of all sizes: posters, doors, windows, shelves, stones, leaves."""
    for _ in range(count):
        size = rng.uniform(3, rng.choice((12, 60, 120)), 2)
        centre = rng.integers(0, _TEXTURE_PX, 2).tolist()
        colour = fabric_colour(rng).tolist()
        kind = rng.integers(4)
        if kind == 0:
            cv2.ellipse(canvas, centre, size.astype(int).tolist(), rng.uniform(0, 180), 0, 360,
                        colour, -1, cv2.LINE_AA)
        elif kind == 1:
            end = (np.array(centre) + rng.normal(size=2) * 2 * size).astype(int).tolist()
            cv2.line(canvas, centre, end, colour, int(rng.integers(1, 8)), cv2.LINE_AA)
        else:
            corner = (np.array(centre) + size).astype(int).tolist()
            cv2.rectangle(canvas, centre, corner, colour, -1 if kind == 2 else 2)


def _sampled(image: np.ndarray, u: np.ndarray, v: np.ndarray, size_m: float,
             footprint: np.ndarray,
             origin: Sequence[float] | np.ndarray = (0.0, 0.0)) -> np.ndarray:
    """Sample a repeating texture; where pixels are coarse against it, its mean.

    Args:
        image (S, S, 3): texture that repeats every size_m.
        u, v (...): m, positions on the surface.
        footprint (...): m per pixel.
        origin (2,): of the texture, in shares of its size.
    Returns:
        (..., 3).
    """
    px_per_m = _TEXTURE_PX / size_m
    column = u * px_per_m + origin[0] * _TEXTURE_PX
    row = v * px_per_m + origin[1] * _TEXTURE_PX
    column_in_texture = (column % _TEXTURE_PX).astype(np.float32)
    row_in_texture = (row % _TEXTURE_PX).astype(np.float32)
    fine = cv2.remap(image, column_in_texture, row_in_texture, cv2.INTER_LINEAR,
                     borderMode=cv2.BORDER_WRAP)

    mean = np.array(cv2.mean(image)[:3], np.float32)
    texels_per_pixel = footprint * px_per_m
    mean_share = np.clip(texels_per_pixel / 8, 0, 1)[..., None].astype(np.float32)
    return fine + mean_share * (mean - fine)


def draw_backdrop(rng: np.random.Generator, rays: np.ndarray, camera_height: float,
                  extent_m: float,
                  photos: list[Path]) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """Draw a random background pixel by pixel, as if there were no people and objects.

    Args:
        rays (H, W, 3): float32, world frame.
        camera_height: m above the floor.
        extent_m: largest horizontal coordinate of the scene, which the background leaves free.
        photos: pictures to use in half of the scenes, if any.
    Returns:
        colour (H, W, 3): albedo of surfaces, or radiance where there is no surface;
        points (H, W, 3): m, world frame, far away where there is no surface;
        normals (H, W, 3): unit, 0 where there is no surface;
        is_albedo: False if light is in the colours already, but for shadows.
    """
    kind = rng.choice((ROOM, OUTDOORS, FLAT), p=_KIND_SHARES)
    if photos and rng.random() < _PHOTO_SHARE:
        kind = PHOTO
    if kind == ROOM:
        return *_room(rng, rays, camera_height, extent_m), True
    length = _distance_to_plane(rays, 1, -camera_height)
    points = rays * length[..., None]
    has_floor = (length < _FAR_M)[..., None]
    normals = has_floor * np.array([0, 1, 0], np.float32)
    if kind == OUTDOORS:
        ground = _ground_colour(rng, points, _footprint(rays, 1, length))
        colour = np.where(has_floor, ground, _sky(rng, rays))
    elif kind == PHOTO:
        colour = _photo(photos[rng.integers(len(photos))], rng, rays.shape[:2])
    else:
        colour = _flat(rng, rays.shape[:2])
    return colour, points, normals, kind == OUTDOORS


def _distance_to_plane(rays: np.ndarray, axis: int, position: float) -> np.ndarray:
    """(H, W) float32 distance in lengths of the ray; `_FAR_M` where it does not meet the plane."""
    with np.errstate(divide="ignore"):
        length = position / rays[..., axis]
    return np.where((length > 0) & (length < _FAR_M), length, _FAR_M).astype(np.float32)


def _footprint(rays: np.ndarray, axis: int, length: np.ndarray) -> np.ndarray:
    """(H, W) m per pixel on a plane across an axis, length (H, W) rays away."""
    middle_row = rays[rays.shape[0] // 2]
    pixel_angle = float(np.linalg.norm(middle_row[-1] - middle_row[0]) / rays.shape[1])
    slant = np.maximum(np.abs(rays[..., axis]), _MIN_SLANT)
    return length * pixel_angle / slant


def _ground_colour(rng: np.random.Generator, points: np.ndarray,
                   footprint: np.ndarray) -> np.ndarray:
    """(H, W, 3) of a texture at a random angle."""
    angle = rng.uniform(0, np.pi)
    c, s = np.cos(angle), np.sin(angle)
    x, z = points[..., 0], points[..., 2]
    return _sampled(texture(rng), c * x - s * z, s * x + c * z, _texture_size_m(rng), footprint,
                    rng.random(2))


def _texture_size_m(rng: np.random.Generator) -> float:
    """Distance after which a texture repeats."""
    return float(np.exp(rng.uniform(np.log(0.7), np.log(6))))


def _sky(rng: np.random.Generator, rays: np.ndarray) -> np.ndarray:
    """(H, W, 3) a gradient above a skyline of hills, houses, trees."""
    up = rays[..., 1] / np.linalg.norm(rays, axis=2)
    bearing = np.arctan2(rays[..., 0], -rays[..., 2])
    blue = np.array([0.55, 0.65, 0.85])
    at_horizon = blue * rng.uniform(0.5, 1.3, 3)
    at_zenith = blue * rng.uniform(0.5, 1.3, 3)
    sky = at_horizon + np.clip(up, 0, 1)[..., None] * (at_zenith - at_horizon)

    # The skyline's height by bearing: steps of random width, half of them smoothed to hills.
    heights = np.repeat(rng.uniform(0, 0.35, 64), rng.integers(1, 24, 64))
    if rng.random() < 0.5:
        heights = cv2.blur(heights[None], (15, 1))[0]
    column = ((bearing + np.pi) * len(heights) / 7).astype(int) % len(heights)
    is_skyline = (up < heights[column])[..., None]
    skyline = _sampled(texture(rng), 3 * bearing, -3 * up, 2.0, np.zeros_like(up))
    return np.where(is_skyline, 0.7 * skyline, sky).astype(np.float32)


def _room(rng: np.random.Generator, rays: np.ndarray, camera_height: float,
          extent_m: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colour, points and normals (H, W, 3) of a room: floor, ceiling and four walls, textured."""
    half = extent_m + np.exp(rng.uniform(np.log(0.3), np.log(6)))
    left, right = -rng.uniform(1, 1.5) * half, rng.uniform(1, 1.5) * half
    ceiling = max(rng.uniform(0.6, 3.0), _MIN_CEILING_M - camera_height)
    planes = ((0, left), (0, right), (2, -half), (2, half), (1, -camera_height), (1, ceiling))
    lengths = np.stack([_distance_to_plane(rays, axis, position) for axis, position in planes])
    nearest, length = lengths.argmin(0), lengths.min(0)
    points = rays * length[..., None]
    colour, normals = np.zeros_like(points), np.zeros_like(points)
    wall_texture = texture(rng)
    for number, (axis, position) in enumerate(planes):
        mask = nearest == number
        if not mask.any():
            continue
        has_own_texture = axis == 1 or rng.random() < 0.4
        image = texture(rng) if has_own_texture else wall_texture
        u, v = (points[..., k] for k in _WALL_AXES[axis])
        surface = _sampled(image, u, v, _texture_size_m(rng), _footprint(rays, axis, length),
                           rng.random(2))
        colour[mask] = surface[mask]
        normals[mask, axis] = -np.sign(position)
    return colour, points, normals


def _flat(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) a gradient with shapes over it, without depth."""
    corners = np.stack([fabric_colour(rng) for _ in range(4)]).reshape(2, 2, 3)
    gradient = cv2.resize(corners.astype(np.float32), shape[::-1])
    cover = cv2.resize(texture(rng), shape[::-1], interpolation=cv2.INTER_LINEAR)
    return gradient + rng.uniform(0, 1) * (cover - gradient)


def _photo(path: Path, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) linear RGB of a random part of a picture, half of them mirrored.

    Raises:
        BackgroundError: if the picture cannot be read.
    """
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise BackgroundError(f"cannot read {path} as a picture")
    height, width = image.shape[:2]
    scale = min(height / shape[0], width / shape[1]) * rng.uniform(0.5, 1.0)
    rows, columns = (max(1, int(scale * size)) for size in shape)
    top, left = rng.integers(0, height - rows + 1), rng.integers(0, width - columns + 1)
    part = cv2.resize(image[top:top + rows, left:left + columns], shape[::-1],
                      interpolation=cv2.INTER_AREA)[..., ::-1]
    if rng.random() < 0.5:
        part = part[:, ::-1]
    return (np.asarray(part, np.float32) / 255) ** GAMMA
