"""Simulates lens and sensor: blur, exposure, colour cast, vignetting, noise, JPEG."""

from __future__ import annotations

import cv2
import numpy as np

from ros2_pose.data.synthetic.materials import GAMMA

_BRIGHTNESS = (0.12, 0.4)  # mean of a well exposed picture, linear
_MAX_HIGHLIGHT = 1.5  # of the 98th percentile; 1 is white
_BLUR_WIDTH_PX = 256  # blurs are in px of a picture of this width


def photograph(light: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turn light into a picture with random exposure, white balance, noise and compression.

    Args:
        light (H, W, 3): linear RGB.
    Returns:
        (H, W, 3): uint8 RGB.
    """
    light = _blurred(light.astype(np.float32), rng)
    gain = rng.uniform(*_BRIGHTNESS) / max(float(light.mean()), 1e-3)
    highlight = float(np.percentile(light[::4, ::4], 98))
    gain = min(gain, _MAX_HIGHLIGHT / max(highlight, 1e-3))
    white_balance = np.exp(rng.normal(0, 0.08, 3))
    light = light * np.asarray(gain * white_balance, np.float32)
    light = _with_noise(_vignetted(light, rng), rng)
    gamma = GAMMA * np.exp(rng.normal(0, 0.1))
    image = np.clip(light, 0, 1) ** np.float32(1 / gamma)
    return _compressed((image * 255 + 0.5).astype(np.uint8), rng)


def _blurred(light: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Defocus, motion blur and low resolution, each at random; mostly a little."""
    scale = light.shape[1] / _BLUR_WIDTH_PX
    if rng.random() < 0.5:
        std_px = scale * np.exp(rng.uniform(np.log(0.3), np.log(2)))
        light = cv2.GaussianBlur(light, (0, 0), std_px)
    if rng.random() < 0.15:
        kernel = _motion_kernel(rng, scale * rng.uniform(2, 10))
        light = cv2.filter2D(light, -1, kernel, borderType=cv2.BORDER_REPLICATE)
    if rng.random() < 0.1:
        factor = rng.uniform(0.35, 0.9)
        small = cv2.resize(light, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        light = cv2.resize(small, light.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return light


def _motion_kernel(rng: np.random.Generator, length_px: float) -> np.ndarray:
    """(K, K) blur kernel of a straight motion in a random direction; sums to 1."""
    radius = int(length_px / 2) + 1
    kernel = np.zeros((2 * radius + 1, 2 * radius + 1), np.float32)
    angle = rng.uniform(0, np.pi)
    half = np.array([np.cos(angle), np.sin(angle)]) * length_px / 2
    fraction_bits = 4
    ends = np.round((np.array([-half, half]) + radius) * 2**fraction_bits).astype(int)
    cv2.line(kernel, ends[0].tolist(), ends[1].tolist(), 1.0, 1, cv2.LINE_AA, fraction_bits)
    return kernel / kernel.sum()


def _vignetted(light: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Darken the corners of some pictures."""
    if rng.random() < 0.7:
        return light
    height, width = light.shape[:2]
    x, y = np.linspace(-1, 1, width), np.linspace(-1, 1, height)
    falloff = 1 - rng.uniform(0.1, 0.35) * (x[None] ** 2 + y[:, None] ** 2)
    return light * falloff[..., None].astype(np.float32)


def _with_noise(light: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add shot noise, which grows with the root of the light, and read noise."""
    shot, read = np.exp(rng.uniform(np.log(0.002), np.log(0.05))), rng.uniform(0, 0.008)
    std = np.sqrt(np.clip(light, 0, 1) * shot**2 + read**2)
    return light + std * rng.standard_normal(light.shape, dtype=np.float32)


def _compressed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Compress most pictures as JPEG of a random quality."""
    if rng.random() < 0.3:
        return image
    options = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 96))]
    data = cv2.imencode(".jpg", image[..., ::-1], options)[1]
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])
