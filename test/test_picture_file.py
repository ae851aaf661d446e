"""Encoded pictures: where they end, how they are to be turned, and the camera with them."""

import struct
import zlib

import cv2
import numpy as np
import pytest

from ros2_pose.camera import Camera
from ros2_pose.imaging.exif import orientation, oriented, upright, upright_camera
from ros2_pose.imaging.picture_file import claimed_size, is_truncated
from ros2_pose.messages.image import ImageError, rgb_from_bytes

_END = b"\xff\xd9"
_TRAILERS = {
    "samsung": b"\0\0\1\n\x0e\0\0\0Image_UTC_Data1700000000000SEFHj\0\0\0\1\0\0\0SEFT",
    "motion_photo": b"\0\0\0\x18ftypmp42\0\0\0\0isommp42" + b"\x11" * 5000,
    "zeros": b"\0" * 4096, "fill": b"\xff" * 100, "newline": b"\n", "end_markers": _END * 3}


def _picture(height=48, width=64) -> np.ndarray:
    """Smooth colours, no two corners alike."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 200 // height, columns * 200 // width,
                     np.full_like(rows, 90)], -1).astype(np.uint8)


def _segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def _jpeg(kind: str) -> bytes:
    """A JPEG of the picture, made in different ways."""
    options = {"progressive": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
               "restart": [cv2.IMWRITE_JPEG_RST_INTERVAL, 2],
               "optimised": [cv2.IMWRITE_JPEG_OPTIMIZE, 1]}.get(kind, [])
    picture = np.random.default_rng(3).integers(0, 255, (48, 64, 3), np.uint8) \
        if kind == "noise" else _picture()
    data = cv2.imencode(".jpg", picture[..., ::-1], options)[1].tobytes()
    if kind == "thumbnail":
        small = cv2.imencode(".jpg", picture[::4, ::4])[1].tobytes()
        data = data[:2] + _segment(0xE1, b"Exif\0\0" + small) + data[2:]
    if kind == "fill_bytes":
        data = data[:2] + b"\xff\xff\xff" + data[2:]
    return data


_JPEGS = ("plain", "progressive", "restart", "optimised", "noise", "thumbnail", "fill_bytes")


def _bytes(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8)


@pytest.mark.parametrize("trailer", _TRAILERS)
@pytest.mark.parametrize("kind", _JPEGS)
def test_what_follows_a_jpeg_is_not_part_of_it(kind, trailer):
    whole = _jpeg(kind)
    found = rgb_from_bytes(_bytes(whole + _TRAILERS[trailer]), "x.jpg")
    assert np.array_equal(found, rgb_from_bytes(_bytes(whole), "x.jpg"))
    assert claimed_size(_bytes(whole)) == (64, 48)


@pytest.mark.parametrize("trailer", _TRAILERS)
def test_what_follows_a_png_is_not_part_of_it(trailer):
    whole = cv2.imencode(".png", _picture())[1].tobytes()
    assert np.array_equal(rgb_from_bytes(_bytes(whole + _TRAILERS[trailer]), "x.png"),
                          rgb_from_bytes(_bytes(whole), "x.png"))


@pytest.mark.parametrize("kind", [*_JPEGS, "png"])
def test_wherever_a_file_is_cut_it_is_refused(kind):
    """Also right behind a thumbnail, whose end marker is not the picture's."""
    whole = cv2.imencode(".png", _picture())[1].tobytes() if kind == "png" else _jpeg(kind)
    for kept in {10, len(whole) // 3, len(whole) // 2, len(whole) * 9 // 10, len(whole) - 1,
                 whole.find(_END) + 2 if kind == "thumbnail" else 30}:
        assert is_truncated(_bytes(whole[:kept])), kept
        with pytest.raises(ImageError, match="cut off|claims to be"):
            rgb_from_bytes(_bytes(whole[:kept]), "x")
    assert not is_truncated(_bytes(whole))


def _exif(value: int, order=">", kind=3) -> bytes:
    """TIFF structure with one other tag before the orientation."""
    packed = struct.pack(order + ("H" if kind == 3 else "I"), value).ljust(4, b"\0")
    return {">": b"MM\0*", "<": b"II*\0"}[order] + struct.pack(f"{order}IH", 8, 2) \
        + struct.pack(f"{order}HHI", 0x10F, 3, 1) + b"\0\0\0\0" \
        + struct.pack(f"{order}HHI", 0x112, kind, 1) + packed + b"\0\0\0\0"


def _with_exif(image: np.ndarray, suffix: str, exif: bytes) -> bytes:
    data = cv2.imencode(suffix, image[..., ::-1], {
        ".webp": [cv2.IMWRITE_WEBP_QUALITY, 101]}.get(suffix, []))[1].tobytes()
    if suffix == ".jpg":
        return data[:2] + _segment(0xE0, b"JFIF\0") + _segment(0xE1, b"Exif\0\0" + exif) + data[2:]
    if suffix == ".png":
        chunk = b"eXIf" + exif
        return data[:33] + struct.pack(">I", len(exif)) + chunk \
            + struct.pack(">I", zlib.crc32(chunk)) + data[33:]
    chunk = b"EXIF" + struct.pack("<I", len(exif)) + exif + b"\0" * (len(exif) % 2)
    size = struct.unpack("<I", data[4:8])[0] + len(chunk)
    return data[:4] + struct.pack("<I", size) + data[8:] + chunk


# What a viewer does with the stored rows, in numpy's words.
_SHOWN = {
    1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud,
    5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1), 8: lambda a: np.rot90(a, 1)}


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
@pytest.mark.parametrize("value", _SHOWN)
def test_all_orientations_are_read_and_applied(value, suffix):
    data = _bytes(_with_exif(_picture(), suffix, _exif(value, "<>"[value % 2], 3 + value % 3 // 2)))
    assert orientation(data) == value
    rows = rgb_from_bytes(data, "x")
    assert rows.shape == (48, 64, 3)  # a message's picture stays the sensor's
    assert np.array_equal(upright(rows, value), _SHOWN[value](rows))


@pytest.mark.parametrize("exif", [b"", b"MM", b"MM\0*\0\0\0\xff", _exif(0), _exif(9), b"\0" * 40,
                                  _exif(6)[:20]])
def test_an_orientation_that_cannot_be_read_is_none(exif):
    assert orientation(_bytes(_with_exif(_picture(), ".jpg", exif))) == 1


_LENSES = {"none": (), "plumb_bob": (-0.3, 0.1, 0.004, -0.003, 0.02),
           "thin_prism": (-0.3, 0.1, 0.004, -0.003, 0.02, 0.01, 0.02, 0.01, 0.003, 0.001, -0.002,
                          0.0005)}


@pytest.mark.parametrize("value", _SHOWN)
@pytest.mark.parametrize("lens", [*_LENSES, "equidistant"])
def test_the_camera_turns_with_the_picture(lens, value):
    """The ray of a pixel is the same direction, turned as the picture is."""
    camera = Camera(64, 48, 50, 52, 30, 25, _LENSES.get(lens, (0.05, -0.01, 0.002, 0.001)),
                    lens == "equidistant")
    turned = upright_camera(camera, value)
    stored = np.stack(np.meshgrid(np.arange(64) + 0.5, np.arange(48) + 0.5), -1)
    shown = _SHOWN[value](stored)  # (H, W, 2) the stored pixel at each upright one
    height, width = shown.shape[:2]
    assert (turned.width, turned.height) == (width, height)
    pixels = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), -1)
    matrix = np.linalg.lstsq((shown - (32, 24)).reshape(-1, 2),
                             (pixels - (width / 2, height / 2)).reshape(-1, 2), rcond=None)[0]
    rays = camera.normalise(shown[::6, ::6]) @ matrix
    assert np.allclose(turned.normalise(pixels[::6, ::6]), rays, atol=1e-6)


def test_a_camera_of_either_size_fits_the_upright_picture():
    image = _picture()
    stored, shown = Camera.from_fov(64, 48, 60), Camera.from_fov(48, 64, 60)
    for camera in (stored, shown):
        turned, its_camera = oriented(image, camera, 6)
        assert turned.shape[:2] == (64, 48) == (its_camera.height, its_camera.width)
    assert oriented(image, shown, 6)[1] == shown
    tilted = Camera(64, 48, 50, 50, 32, 24, (*[0.0] * 12, 0.01, 0.0))
    _, camera = oriented(image, tilted, 6)
    pixels = tilted.project(np.array([0.2, 0.1, 1.0]))
    assert np.allclose(camera.project(np.array([-0.1, 0.2, 1.0])), (48 - pixels[1], pixels[0]))
