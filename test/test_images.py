"""Images of every encoding give the picture that they show; impossible ones say why."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from ros2_pose.messages.image import (
    ENCODINGS,
    ImageError,
    depth_from_image,
    image_message,
    rgb_from_compressed,
    rgb_from_image,
)


def _picture(height=48, width=64) -> np.ndarray:
    """Smooth colours, so that subsampling and interpolation lose little."""
    v, u = np.mgrid[:height, :width]
    return np.stack([60 + 2 * u, 200 - 3 * v, 40 + u + v], -1).astype(np.uint8)


def _message(data, encoding, width, step=None, **other):
    data = np.ascontiguousarray(data)
    height = data.shape[0]
    values = dict(height=height, width=width, encoding=encoding, is_bigendian=0,
                  step=step or data[0].nbytes, data=data.tobytes())
    return SimpleNamespace(**values | other)


def _mosaic(rgb, pattern):
    """Raw pixels of a sensor whose first two rows have the filters of the pattern, as 'rggb'."""
    raw = np.empty(rgb.shape[:2], np.uint8)
    for position, colour in enumerate(pattern):
        row, column = divmod(position, 2)
        raw[row::2, column::2] = rgb[row::2, column::2, "rgb".index(colour)]
    return raw


def _packed_yuv(rgb, order):
    """4:2:2 pixels by BT.601's limited range, in the byte order given, as 'yuyv'."""
    r, g, b = np.moveaxis(rgb.astype(float), -1, 0)
    planes = {"y": 16 + 0.257 * r + 0.504 * g + 0.098 * b,
              "u": 128 - 0.148 * r - 0.291 * g + 0.439 * b,
              "v": 128 + 0.439 * r - 0.368 * g - 0.071 * b}
    packed = np.empty((*rgb.shape[:2], 2))
    for position, name in enumerate(order):
        pixel, byte = divmod(position, 2)
        packed[:, pixel::2, byte] = planes[name][:, (pixel if name == "y" else 0)::2]
    return packed.round().astype(np.uint8)


def _grey(rgb):
    return rgb[..., 1]


def _16_bits(data):
    return data.astype("<u2") * 257


def _planes(rgb, order):
    """4:2:0 by BT.601's limited range: rows of y, then of colour, interleaved as "uv" or apart as
    "u v"."""
    packed = {"y": _packed_yuv(rgb, "yuyv")[..., 0],
              "u": np.repeat(_packed_yuv(rgb, "yuyv")[::2, ::2, 1], 1, 1),
              "v": np.repeat(_packed_yuv(rgb, "yuyv")[::2, 1::2, 1], 1, 1)}
    if len(order) == 2:
        colour = np.stack([packed[name] for name in order], -1)
    else:
        colour = np.stack([packed[name] for name in order.split()])
    return np.concatenate([packed["y"], colour.reshape(-1, rgb.shape[1])])


def _nv24(rgb):
    r, g, b = np.moveaxis(rgb.astype(float), -1, 0)
    uv = np.stack([128 - 0.148 * r - 0.291 * g + 0.439 * b,
                   128 + 0.439 * r - 0.368 * g - 0.071 * b], -1).round().astype(np.uint8)
    return np.concatenate([_packed_yuv(rgb, "yuyv")[..., 0], uv.reshape(-1, rgb.shape[1])])


ENCODERS = {
    "rgb8": lambda p: p, "bgr8": lambda p: p[..., ::-1], "8UC3": lambda p: p[..., ::-1],
    "rgba8": lambda p: np.dstack([p, _grey(p)]),
    "bgra8": lambda p: np.dstack([p[..., ::-1], _grey(p)]),
    "8UC4": lambda p: np.dstack([p[..., ::-1], _grey(p)]),
    "yuv422": lambda p: _packed_yuv(p, "uyvy"), "uyvy": lambda p: _packed_yuv(p, "uyvy"),
    "yuv422_yuy2": lambda p: _packed_yuv(p, "yuyv"), "yuyv": lambda p: _packed_yuv(p, "yuyv"),
    "yvyu": lambda p: _packed_yuv(p, "yvyu"),
    **{f"bayer_{pattern}8": (lambda p, pattern=pattern: _mosaic(p, pattern))
       for pattern in ("rggb", "bggr", "gbrg", "grbg")},
    **{f"bayer_{pattern}16": (lambda p, pattern=pattern: _16_bits(_mosaic(p, pattern)))
       for pattern in ("rggb", "bggr", "gbrg", "grbg")},
    "rgb16": _16_bits, "bgr16": lambda p: _16_bits(p[..., ::-1]),
    "16UC3": lambda p: _16_bits(p[..., ::-1]),
    "rgba16": lambda p: _16_bits(np.dstack([p, _grey(p)])),
    "bgra16": lambda p: _16_bits(np.dstack([p[..., ::-1], _grey(p)])),
    "16UC4": lambda p: _16_bits(np.dstack([p[..., ::-1], _grey(p)])),
    "nv12": lambda p: _planes(p, "uv"), "nv21": lambda p: _planes(p, "vu"),
    "yuv420": lambda p: _planes(p, "u v"), "i420": lambda p: _planes(p, "u v"),
    "yv12": lambda p: _planes(p, "v u"), "nv24": _nv24,
}


@pytest.mark.parametrize("encoding", ENCODERS)
def test_colour_encodings_give_the_picture(encoding):
    picture = _picture()
    found = rgb_from_image(_message(ENCODERS[encoding](picture), encoding, 64, height=48))
    assert found.shape == picture.shape and found.dtype == np.uint8
    inside = np.s_[2:-2, 2:-2]  # the border is interpolated from fewer pixels
    assert np.abs(found[inside].astype(int) - picture[inside]).max() <= 6


@pytest.mark.parametrize("encoding, big, kind", [
    ("mono8", 0, np.uint8), ("8UC1", 0, np.uint8), ("mono16", 0, "<u2"), ("mono16", 1, ">u2"),
    ("16UC1", 0, "<u2"), ("16UC1", 1, ">u2")])
def test_grey_encodings_give_the_picture(encoding, big, kind):
    grey = _grey(_picture())
    data = (grey.astype(int) * (257 if "16" in encoding else 1)).astype(kind)
    found = rgb_from_image(_message(data, encoding, 64, is_bigendian=big))
    assert np.abs(found.astype(int) - np.dstack([grey] * 3)).max() <= 1


def test_every_encoding_is_tested():
    assert set(ENCODINGS) == {*ENCODERS, "mono8", "8UC1", "mono16", "16UC1", "32FC1"}


@pytest.mark.parametrize("padding", [1, 3, 4, 8, 64])
@pytest.mark.parametrize("encoding", [name for name in (*ENCODERS, "mono8", "mono16")])
def test_padded_rows_give_the_same_picture(encoding, padding):
    """Any number of bytes after each row, also such as is no whole number of pixels."""
    encode = {**ENCODERS, "mono8": _grey, "mono16": lambda p: _16_bits(_grey(p))}[encoding]
    data = encode(_picture())
    plain = rgb_from_image(_message(data, encoding, 64, height=48))
    rows = np.ascontiguousarray(data).view(np.uint8).reshape(len(data), -1)
    if encoding in ("yuv420", "i420", "yv12"):  # rows of colour are half as long, padding too
        padding += padding % 2
        colour = rows[48:].reshape(48, 32)
        rows = np.concatenate([
            np.pad(rows[:48], ((0, 0), (0, padding))).ravel(),
            np.pad(colour, ((0, 0), (0, padding // 2))).ravel()]).reshape(-1, 64 + padding)
    elif encoding == "nv24":
        rows = np.concatenate([
            np.pad(rows[:48], ((0, 0), (0, padding))).ravel(),
            np.pad(rows[48:].reshape(48, 128), ((0, 0), (0, 2 * padding))).ravel()
        ]).reshape(-1, 64 + padding)
        if padding % 2:
            return  # rows of brightness would end within a pair of colours
    else:
        rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=255)
        if encoding in ("nv12", "nv21") and padding % 2:
            return
    found = rgb_from_image(_message(rows, encoding, 64, height=48))
    np.testing.assert_array_equal(found, plain)


def test_rgb_is_not_copied():
    message = _message(_picture(), "rgb8", 64)
    message.data = np.frombuffer(message.data, np.uint8)
    assert np.shares_memory(rgb_from_image(message), message.data)


@pytest.mark.parametrize("changes, words", [
    (dict(width=0), "0x48"), (dict(height=0), "64x0"), (dict(encoding="64FC1"), "'64FC1'.*rgb8"),
    (dict(encoding=""), "''.*rgb8"), (dict(step=100), "step is 100.*192"),
    (dict(width=65), "65 pixels.*195"), (dict(data=b"123"), "3 bytes.*9216"),
    (dict(height=49), "9216 bytes.*9408"), (dict(width=63, encoding="yuv422"), "63 is odd"),
    (dict(width=63, height=32, encoding="nv12"), "63x32.*odd"),
    (dict(height=47, encoding="nv12"), "9216 bytes.*nv12"), (dict(encoding="nv99"), "'nv99'"),
    (dict(height=32, step=191, width=64, encoding="i420", data=bytes(9168)), "step 191 is odd")])
def test_impossible_images_say_why(changes, words):
    message = _message(_picture(), "rgb8", 64)
    vars(message).update(changes)
    with pytest.raises(ImageError, match=words):
        rgb_from_image(message)


def _compressed(suffix: str, data=None):
    encoded = cv2.imencode(suffix, _picture()[..., ::-1])[1].tobytes()
    return SimpleNamespace(format=suffix[1:], data=encoded if data is None else data)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_compressed_images_give_the_picture(suffix):
    found = rgb_from_compressed(_compressed(suffix))
    assert np.abs(found.astype(int) - _picture()).mean() < 4


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_cut_off_file_is_an_error(suffix, kept):
    message = _compressed(suffix)
    message.data = message.data[: int(len(message.data) * kept)]
    with pytest.raises(ImageError, match="cut off"):
        rgb_from_compressed(message)


@pytest.mark.parametrize("data, word", [(b"", "empty"), (b"not a picture", "cannot be decoded")])
def test_no_compressed_image(data, word):
    with pytest.raises(ImageError, match=word):
        rgb_from_compressed(_compressed(".jpg", data))


def test_depth_is_refused():
    message = _compressed(".png")
    message.format = "16UC1; compressedDepth png"
    with pytest.raises(ImageError, match="depth"):
        rgb_from_compressed(message)


# -------------------------------------------------------------------------------------- depth


_MILLIMETRES = np.array([[0, 1, 1000], [2345, 65535, 0]])
_METRES = np.array([[np.nan, 0.001, 1.0], [2.345, 65.535, np.nan]], np.float32)


@pytest.mark.parametrize("order, big", [("<", 0), (">", 1)])
@pytest.mark.parametrize("encoding", ["16UC1", "mono16", "32FC1"])
@pytest.mark.parametrize("padding", [0, 3])
def test_depth_is_metres(encoding, order, big, padding):
    data = (_METRES.astype(order + "f4") if encoding == "32FC1"
            else _MILLIMETRES.astype(order + "u2"))
    rows = data.view(np.uint8).reshape(2, -1)
    rows = np.concatenate([rows, np.full((2, padding), 255, np.uint8)], axis=1)
    found = depth_from_image(_message(rows, encoding, 3, is_bigendian=big))
    assert found.dtype == np.float32 and found.flags.writeable
    np.testing.assert_allclose(found, _METRES, rtol=1e-6)


def test_impossible_depth_is_unknown():
    data = np.array([[0.0, -1.0, np.inf, -np.inf, np.nan, 2.5]], np.float32)
    found = depth_from_image(_message(data, "32FC1", 6))
    np.testing.assert_array_equal(found, [[np.nan] * 5 + [2.5]])


@pytest.mark.parametrize("changes, words", [
    (dict(encoding="rgb8"), "'rgb8'.*32FC1, 16UC1"), (dict(encoding=""), "''.*16UC1"),
    (dict(encoding="32FC1"), "step is 6.*3 pixels of 32FC1.*12"), (dict(step=4), "step is 4.*6"),
    (dict(height=3), "12 bytes.*18"), (dict(data=b""), "0 bytes.*12"), (dict(width=0), "0x2")])
def test_impossible_depth_images_say_why(changes, words):
    message = _message(_MILLIMETRES.astype("<u2"), "16UC1", 3)
    vars(message).update(changes)
    with pytest.raises(ImageError, match=words):
        depth_from_image(message)


def test_an_image_message_comes_back():
    made = image_message(lambda name, **fields: SimpleNamespace(**fields), None, _picture())
    np.testing.assert_array_equal(rgb_from_image(made), _picture())
