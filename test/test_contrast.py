"""People are seen in pictures that use few of their levels; what shows nothing is said to."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from ros2_pose.config import PoseConfig
from ros2_pose.imaging.contrast import grey_ramp, has_contrast, to_8_bits
from ros2_pose.messages.image import rgb_from_compressed, rgb_from_image
from ros2_pose.people import Frame
from ros2_pose.pipeline import NoContrastError, Pipeline

# encoding, darkest and brightest value of the scene, numpy's name of a value
NARROW = [("mono16", 0, 65535, "<u2"), ("mono16", 0, 4095, "<u2"), ("mono16", 0, 1023, "<u2"),
          ("mono16", 7200, 9300, "<u2"), ("16UC1", 29000, 29600, "<u2"), ("mono16", 64, 300, "<u2"),
          ("32FC1", 18.0, 36.5, "<f4"), ("32FC1", 0.0, 1.0, "<f4"), ("mono8", 0, 255, "u1"),
          ("mono8", 0, 30, "u1"), ("mono8", 110, 140, "u1"), ("8UC1", 225, 255, "u1")]


@pytest.fixture(scope="module")
def pipeline():
    return Pipeline(PoseConfig(device="cpu", body=False))


@pytest.fixture(scope="module")
def grey(clip):
    return cv2.cvtColor(clip[5], cv2.COLOR_RGB2GRAY).astype(float) / 255


def _message(grey, encoding, low, high, kind):
    data = (low + grey * (high - low)).astype(kind)
    return SimpleNamespace(height=grey.shape[0], width=grey.shape[1], encoding=encoding,
                           step=data[0].nbytes, is_bigendian=0, data=data.tobytes())


@pytest.mark.parametrize("encoding, low, high, kind", NARROW,
                         ids=lambda value: str(value).strip("<"))
def test_people_are_found_whatever_part_of_the_range_is_used(pipeline, grey, encoding, low, high,
                                                             kind):
    picture = rgb_from_image(_message(grey, encoding, low, high, kind))
    pipeline.reset()
    assert len(pipeline.step(Frame(picture))) >= 2


@pytest.mark.parametrize("low, high, kind", [(0, 1023, np.uint16), (7200, 9300, np.uint16),
                                             (0, 65535, np.uint16), (100, 130, np.uint8)])
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_compressed_pictures_are_stretched_alike(pipeline, grey, low, high, kind, suffix):
    values = (low + grey * (high - low)).astype(kind)
    data = cv2.imencode(suffix, values)[1].tobytes()
    pipeline.reset()
    picture = rgb_from_compressed(SimpleNamespace(format=suffix[1:], data=data))
    assert len(pipeline.step(Frame(picture))) >= 2


@pytest.mark.parametrize("low, high", [(0, 90), (40, 130), (0, 255), (160, 255)])
def test_a_picture_of_enough_levels_is_left_as_it_is(grey, low, high):
    picture = (low + grey * (high - low)).astype(np.uint8)
    assert to_8_bits(picture, 255.0) is picture


def test_the_stretch_keeps_colours_and_order():
    ramp = (100 + grey_ramp(64, 48) / 16).astype(np.uint8)
    ramp[..., 2] -= 4  # a tint
    stretched = to_8_bits(ramp, 255.0).astype(int)
    assert (np.diff(stretched[..., 0], axis=1) >= 0).all()
    assert np.ptp(stretched) >= 250 and (stretched[..., 0] >= stretched[..., 2]).all()
    assert (stretched[..., 0] == stretched[..., 1]).all()


def _plain(value, std):
    rng = np.random.default_rng(value)
    return np.clip(value + std * rng.normal(size=(480, 640, 3)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("value", [0, 8, 128, 250, 255])
@pytest.mark.parametrize("noise", [0, 1, 5, 15])
def test_a_covered_a_dark_and_a_saturated_picture_show_nothing(pipeline, value, noise):
    picture = _plain(value, noise)
    assert not has_contrast(picture) and to_8_bits(picture, 255.0) is picture
    with pytest.raises(NoContrastError, match="shows nothing.*covered lens"):
        pipeline.step(Frame(picture))


@pytest.mark.parametrize("level, noise", [(0, 3), (500, 20), (8000, 40), (65500, 10)])
def test_16_bits_of_noise_show_nothing(level, noise):
    rng = np.random.default_rng(level)
    values = np.clip(level + noise * rng.normal(size=(480, 640)), 0, 65535).astype("<u2")
    message = SimpleNamespace(height=480, width=640, encoding="mono16", step=1280, is_bigendian=0,
                              data=values.tobytes())
    assert not has_contrast(rgb_from_image(message))


@pytest.mark.parametrize("height, width", [(120, 160), (480, 640), (1080, 1920), (2160, 3840)])
def test_a_small_person_before_a_plain_wall_is_something(height, width):
    rng = np.random.default_rng(0)
    picture = (230 + 2 * rng.normal(size=(height, width, 3))).astype(np.uint8)
    assert not has_contrast(picture)
    picture[height // 2:height // 2 + height // 12, width // 3:width // 3 + width // 50] = 60
    assert has_contrast(picture)


def test_temperatures_that_are_not_known_do_not_count():
    values = np.where(grey_ramp(64, 48)[..., 0] > 250, np.nan, grey_ramp(64, 48)[..., 0] / 10 + 20)
    found = to_8_bits(values.astype(np.float32), np.inf)
    assert found.dtype == np.uint8 and np.ptp(found[:, :40]) > 50
