"""What synthetic people stand before: rooms, open ground, flat patterns, and a user's pictures.

World frame: the camera at the origin, y up, the camera looks along -z before it pitches; the floor
at y = -camera_height. Colours are linear RGB.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ros2_pose.data.synthetic.materials import GAMMA, NOISE_SIZE, fabric_colour, noise_table
from ros2_pose.errors import PoseError

ROOM, OUTDOORS, FLAT, PHOTO = range(4)
_TEXTURE = NOISE_SIZE  # px, wide and high
_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_FAR_M = 60.0
_ALONG = ((2, 1), (0, 2), (0, 1))  # the two axes along a wall across x, y, z
_PHOTO_SHARE = 0.5  # of the scenes, where there are pictures


class BackgroundError(PoseError):
    """Pictures that cannot be used; the message says which."""


def picture_files(folder: str | Path) -> list[Path]:
    """The pictures below a folder, in order. Raises BackgroundError if there are none."""
    files = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in _PICTURES)
    if not files:
        raise BackgroundError(f"no pictures ({', '.join(_PICTURES)}) below {folder}")
    return files


def texture(rng: np.random.Generator) -> np.ndarray:
    """(S, S, 3) float32 a surface: tiles, planks, carpet, shapes."""
    base, other = fabric_colour(rng), fabric_colour(rng)
    if rng.random() < 0.7:  # most floors and walls are dull
        base, other = (0.3 * c + 0.7 * c.mean() for c in (base, other))
    canvas = np.broadcast_to(base, (_TEXTURE, _TEXTURE, 3)).astype(np.float32).copy()
    kind = rng.integers(5)
    if kind == 1:
        _tile(canvas, other, rng)
    elif kind == 2:
        _plank(canvas, rng)
    elif kind >= 3:
        _scatter(canvas, rng, int(rng.integers(2, 40)))
    grain = rng.standard_normal((_TEXTURE, _TEXTURE, 1), dtype=np.float32)
    stains = noise_table(rng)[..., None]
    return np.clip(canvas * (1 + np.float32(rng.uniform(0, 0.25)) * grain
                             + np.float32(rng.uniform(0, 0.5)) * stains), 0, 1)


def _tile(canvas, colour, rng) -> None:
    count = 2 ** int(rng.integers(1, 5))
    step = _TEXTURE // count
    if rng.random() < 0.3:
        rows, columns = np.indices(canvas.shape[:2]) // step
        canvas[(rows + columns) % 2 == 0] = colour
        return
    joint = int(rng.integers(1, 5))
    for k in range(count):
        canvas[k * step:k * step + joint] = colour
        canvas[:, k * step:k * step + joint] = colour


def _plank(canvas, rng) -> None:
    width = 2 ** int(rng.integers(3, 7))
    for left in range(0, _TEXTURE, width):
        canvas[:, left:left + width] *= rng.uniform(0.6, 1.2)
        canvas[int(rng.integers(_TEXTURE)), left:left + width] *= 0.4
        canvas[:, left:left + 1] *= 0.5


def _scatter(canvas, rng, count: int) -> None:
    """Shapes of all sizes: posters, doors, windows, shelves, stones, leaves."""
    for _ in range(count):
        size = rng.uniform(3, rng.choice((12, 60, 120)), 2)
        centre = rng.integers(0, _TEXTURE, 2).tolist()
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


def _sampled(image: np.ndarray, u: np.ndarray, v: np.ndarray, size_m, footprint,
             origin=(0.0, 0.0)) -> np.ndarray:
    """(..., 3) a texture that repeats every size_m, at (...) m; footprint (...) m a pixel: where
    it is coarse against the texture, its mean. origin: shares of the size."""
    scale = _TEXTURE / size_m
    columns, rows = (((c * scale + o * _TEXTURE) % _TEXTURE).astype(np.float32)
                     for c, o in zip((u, v), origin))
    fine = cv2.remap(image, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    blend = np.clip(footprint * scale / 8, 0, 1)[..., None].astype(np.float32)
    return fine + blend * (np.float32(cv2.mean(image)[:3]) - fine)


@dataclass(frozen=True)
class Backdrop:
    """What is behind everything, pixel by pixel."""

    colour: np.ndarray  # (H, W, 3) albedo of surfaces, or radiance where there is none
    points: np.ndarray  # (H, W, 3) m, world frame; far away where there is no surface
    normals: np.ndarray  # (H, W, 3); 0 where there is no surface
    lit: bool  # False: light is in the colours already, shadows apart


def backdrop(rng: np.random.Generator, rays: np.ndarray, camera_height: float, reach: float,
             photos: list[Path]) -> Backdrop:
    """Draw what rays (H, W, 3), world frame, meet; reach: how far away everything has to be, m."""
    kind = rng.choice((ROOM, OUTDOORS, FLAT), p=(0.55, 0.3, 0.15))
    if photos and rng.random() < _PHOTO_SHARE:
        kind = PHOTO
    if kind == ROOM:
        return _room(rng, rays, camera_height, reach)
    ground = _floor(rays, camera_height)
    if kind == OUTDOORS:
        colour = np.where(ground.seen[..., None], _ground_colour(rng, ground), _sky(rng, rays))
        return Backdrop(colour, ground.points, ground.normals, lit=True)
    if kind == PHOTO:
        colour = _photo(photos[rng.integers(len(photos))], rng, rays.shape[:2])
    else:
        colour = _flat(rng, rays.shape[:2])
    return Backdrop(colour, ground.points, ground.normals, lit=False)


@dataclass(frozen=True)
class _Surface:
    seen: np.ndarray  # (H, W)
    points: np.ndarray  # (H, W, 3)
    normals: np.ndarray  # (H, W, 3)
    footprint: np.ndarray  # (H, W) m a pixel


def _plane(rays: np.ndarray, axis: int, at: float) -> np.ndarray:
    """(H, W) how many rays' lengths away the plane is; far where it is not met."""
    with np.errstate(divide="ignore"):
        length = at / rays[..., axis]
    return np.where((length > 0) & (length < _FAR_M), length, _FAR_M).astype(np.float32)


def _floor(rays: np.ndarray, camera_height: float) -> _Surface:
    length = _plane(rays, 1, -camera_height)
    seen = length < _FAR_M
    normals = seen[..., None] * np.float32([0, 1, 0])
    pixel = _pixel_angle(rays)
    slant = np.maximum(np.abs(rays[..., 1]), 0.02)
    return _Surface(seen, rays * length[..., None], normals, length * pixel / slant)


def _pixel_angle(rays: np.ndarray) -> float:
    middle = rays[rays.shape[0] // 2]
    return float(np.linalg.norm(middle[-1] - middle[0]) / rays.shape[1])


def _ground_colour(rng, ground: _Surface) -> np.ndarray:
    angle = rng.uniform(0, np.pi)
    c, s = np.cos(angle), np.sin(angle)
    x, z = ground.points[..., 0], ground.points[..., 2]
    return _sampled(texture(rng), c * x - s * z, s * x + c * z, _tile_size(rng), ground.footprint,
                    rng.random(2))


def _tile_size(rng) -> float:
    """m after which a texture repeats."""
    return float(np.exp(rng.uniform(np.log(0.7), np.log(6))))


def _sky(rng, rays: np.ndarray) -> np.ndarray:
    """(H, W, 3) a gradient, and below it a skyline of hills, houses, trees."""
    length = np.linalg.norm(rays, axis=2)
    up, bearing = rays[..., 1] / length, np.arctan2(rays[..., 0], -rays[..., 2])
    low, high = (np.array([0.55, 0.65, 0.85]) * rng.uniform(0.5, 1.3, 3) for _ in range(2))
    sky = low + np.clip(up, 0, 1)[..., None] * (high - low)
    heights = np.repeat(rng.uniform(0, 0.35, 64), rng.integers(1, 24, 64))
    if rng.random() < 0.5:
        heights = cv2.blur(heights[None], (15, 1))[0]
    column = ((bearing + np.pi) * len(heights) / 7).astype(int) % len(heights)
    skyline = _sampled(texture(rng), 3 * bearing, -3 * up, 2.0, np.zeros_like(up))
    return np.where((up < heights[column])[..., None], 0.7 * skyline, sky).astype(np.float32)


def _room(rng, rays: np.ndarray, camera_height: float, reach: float) -> Backdrop:
    """A box around everything: floor, ceiling, four walls, each textured."""
    half = reach + np.exp(rng.uniform(np.log(0.3), np.log(6)))
    walls = ((0, -rng.uniform(1, 1.5) * half), (0, rng.uniform(1, 1.5) * half), (2, -half),
             (2, half), (1, -camera_height),
             (1, max(rng.uniform(0.6, 3.0), 2.6 - camera_height)))
    lengths = np.stack([_plane(rays, axis, at) for axis, at in walls])
    which, length = lengths.argmin(0), lengths.min(0)
    points = rays * length[..., None]
    colour, normals = np.zeros_like(points), np.zeros_like(points)
    wall, pixel = texture(rng), _pixel_angle(rays)
    for number, (axis, at) in enumerate(walls):
        mine = which == number
        if not mine.any():
            continue
        u, v = (points[..., k] for k in _ALONG[axis])
        image = texture(rng) if axis == 1 or rng.random() < 0.4 else wall
        slant = np.maximum(np.abs(rays[..., axis]), 0.02)
        colour[mine] = _sampled(image, u, v, _tile_size(rng), length * pixel / slant,
                                rng.random(2))[mine]
        normals[mine, axis] = -np.sign(at)
    return Backdrop(colour, points, normals, lit=True)


def _flat(rng, shape: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) a gradient with shapes over it: no place at all."""
    corners = np.stack([fabric_colour(rng) for _ in range(4)]).reshape(2, 2, 3)
    gradient = cv2.resize(corners.astype(np.float32), shape[::-1])
    cover = cv2.resize(texture(rng), shape[::-1], interpolation=cv2.INTER_LINEAR)
    return gradient + rng.uniform(0, 1) * (cover - gradient)


def _photo(path: Path, rng, shape: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) a part of a picture, now and then mirrored."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise BackgroundError(f"cannot read {path} as a picture")
    height, width = image.shape[:2]
    scale = min(height / shape[0], width / shape[1]) * rng.uniform(0.5, 1.0)
    rows, columns = (max(1, int(scale * s)) for s in shape)
    top, left = rng.integers(0, height - rows + 1), rng.integers(0, width - columns + 1)
    part = cv2.resize(image[top:top + rows, left:left + columns], shape[::-1],
                      interpolation=cv2.INTER_AREA)[..., ::-1]
    part = part[:, ::-1] if rng.random() < 0.5 else part
    return (np.float32(part) / 255) ** GAMMA
