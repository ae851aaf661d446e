"""What a lens and a sensor make of light: blur, exposure, colour casts, noise, JPEG."""

from __future__ import annotations

import cv2
import numpy as np

from ros2_pose.data.synthetic.materials import GAMMA

_BRIGHTNESS = (0.12, 0.4)  # mean of a picture that is exposed about right, linear
_MOST_OVEREXPOSED = 1.5  # of what is bright in it; 1 is white


def photographed(light: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) uint8 RGB of linear RGB light (H, W, 3)."""
    light = _blurred(light.astype(np.float32), rng)
    gain = rng.uniform(*_BRIGHTNESS) / max(float(light.mean()), 1e-3)
    gain = min(gain, _MOST_OVEREXPOSED / max(float(np.percentile(light[::4, ::4], 98)), 1e-3))
    light = light * np.float32(gain * np.exp(rng.normal(0, 0.08, 3)))
    light = _with_noise(_vignetted(light, rng), rng)
    image = np.clip(light, 0, 1) ** np.float32(1 / (GAMMA * np.exp(rng.normal(0, 0.1))))
    return _compressed((image * 255 + 0.5).astype(np.uint8), rng)


def _blurred(light: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Out of focus, moved, or of a lower resolution; mostly a little, by the picture's width."""
    size = light.shape[1] / 256
    if rng.random() < 0.5:
        light = cv2.GaussianBlur(light, (0, 0), size * np.exp(rng.uniform(np.log(0.3), np.log(2))))
    if rng.random() < 0.15:
        light = cv2.filter2D(light, -1, _motion(rng, size * rng.uniform(2, 10)),
                             borderType=cv2.BORDER_REPLICATE)
    if rng.random() < 0.1:
        scale = rng.uniform(0.35, 0.9)
        small = cv2.resize(light, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        light = cv2.resize(small, light.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return light


def _motion(rng: np.random.Generator, length_px: float) -> np.ndarray:
    """The kernel of a straight motion in any direction."""
    reach = int(length_px / 2) + 1
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    angle = rng.uniform(0, np.pi)
    step = np.array([np.cos(angle), np.sin(angle)]) * length_px / 2
    ends = np.round((np.array([-step, step]) + reach) * 16).astype(int)
    cv2.line(kernel, ends[0].tolist(), ends[1].tolist(), 1.0, 1, cv2.LINE_AA, 4)
    return kernel / kernel.sum()


def _vignetted(light: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if rng.random() < 0.7:
        return light
    height, width = light.shape[:2]
    x, y = np.linspace(-1, 1, width), np.linspace(-1, 1, height)
    fall = 1 - rng.uniform(0.1, 0.35) * (x[None] ** 2 + y[:, None] ** 2)
    return light * fall[..., None].astype(np.float32)


def _with_noise(light: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shot noise grows with the root of the light, read noise does not."""
    shot, read = np.exp(rng.uniform(np.log(0.002), np.log(0.05))), rng.uniform(0, 0.008)
    std = np.sqrt(np.clip(light, 0, 1) * shot**2 + read**2)
    return light + std * rng.standard_normal(light.shape, dtype=np.float32)


def _compressed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if rng.random() < 0.3:
        return image
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 96))]
    data = cv2.imencode(".jpg", image[..., ::-1], quality)[1]
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])
