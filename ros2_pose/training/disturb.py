"""What spoils a picture: things in front of people, blur, noise, low light."""

from __future__ import annotations

import cv2
import numpy as np

_OCCLUDER = (0.1, 0.35)  # half axes, relative to the person's diagonal
_BLUR_PX = (0.6, 2.5)  # standard deviation
_MOTION_PX = (3, 13)  # length
_NOISE = (2.0, 20.0)  # standard deviation, of 255
_DARK_GAIN, _DARK_GAMMA, _DARK_NOISE = (0.15, 0.6), (1.0, 1.6), (1.0, 8.0)


def occluded(image: np.ndarray, people: dict[str, np.ndarray], other: np.ndarray,
             random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Put an ellipse of another picture in front of a joint of one of the people.

    Args:
        image (S, S, 3): uint8 RGB.
        people: `boxes` (N, 4) and `keypoints` (N, 17, 2) px, NaN: unknown.
        other (H, W, 3): uint8 RGB, which the ellipse is cut from.

    Returns:
        The image, and where the ellipse is, (S, S) bool.
    """
    inside = ((people["keypoints"] >= 0) & (people["keypoints"] < len(image))).all(2)
    covered = np.zeros(image.shape[:2], bool)
    rows, joints = np.nonzero(inside)
    if not len(rows):
        return image, covered
    chosen = random.integers(len(rows))
    box = people["boxes"][rows[chosen]]
    axes = random.uniform(*_OCCLUDER, 2) * np.hypot(*(box[2:] - box[:2]))
    centre = people["keypoints"][rows[chosen], joints[chosen]]
    mask = covered.astype(np.uint8)
    cv2.ellipse(mask, (tuple(centre.tolist()), tuple((2 * axes).tolist()),
                       float(random.uniform(0, 180))), 1, -1)
    covered = mask.astype(bool)
    source = _tiled(other, image.shape[:2], random)
    return np.where(covered[..., None], source, image), covered


def _tiled(other: np.ndarray, size: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """Return a part of a picture, (*size, 3); a picture that is too small is repeated."""
    height, width = size
    repeats = -(-height // other.shape[0]) + 1, -(-width // other.shape[1]) + 1, 1
    top, left = (random.integers(side) for side in other.shape[:2])
    return np.tile(other, repeats)[top:top + height, left:left + width]


def degraded(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Return a picture (H, W, 3) uint8 with blur, motion blur, noise or low light, one of them."""
    kind = random.integers(4)
    if kind == 0:
        return cv2.GaussianBlur(image, (0, 0), random.uniform(*_BLUR_PX))
    if kind == 1:
        return _moved(image, random)
    if kind == 2:
        return _noisy(image.astype(np.float32), random.uniform(*_NOISE), random)
    gamma, gain = random.uniform(*_DARK_GAMMA), random.uniform(*_DARK_GAIN)
    dark = 255 * gain * (image.astype(np.float32) / 255) ** gamma
    return _noisy(dark, random.uniform(*_DARK_NOISE), random)


def _moved(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Blur along a line, as of a camera that moves while it is exposed."""
    length = int(random.integers(*_MOTION_PX))
    angle = random.uniform(0, np.pi)
    kernel = np.zeros((length, length), np.float32)
    along = np.linspace(-0.5, 0.5, 4 * length) * (length - 1)
    middle = (length - 1) / 2
    rows, columns = (np.round(middle + along * part).astype(int)
                     for part in (np.sin(angle), np.cos(angle)))
    np.add.at(kernel, (rows, columns), 1)
    return cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT)


def _noisy(values: np.ndarray, std: float, random: np.random.Generator) -> np.ndarray:
    noise = random.standard_normal(values.shape, np.float32)
    return (values + std * noise).clip(0, 255).astype(np.uint8)
