"""EXIF orientation (tag 0x112) of picture files: read it, apply it to image and camera.

Cameras and phones store the rows as the sensor gives them; the orientation tells a viewer how to
rotate the picture for display.
"""

from __future__ import annotations

import struct

import numpy as np

from ros2_pose.camera import Camera
from ros2_pose.imaging.picture_file import JPEG, PNG, jpeg_segments, png_chunks

_TAG = 0x112
_SHORT, _LONG = 3, 4  # types of EXIF values
_APP1, _SCAN = 0xE1, 0xDA  # JPEG markers
_HEADER = b"Exif\0\0"

# Orientation: (whether to mirror left and right first, quarter turns of np.rot90 after that).
_ROTATIONS = {1: (False, 0), 2: (True, 0), 3: (False, 2), 4: (True, 2),
              5: (True, 1), 6: (False, 3), 7: (True, 3), 8: (False, 1)}


def orientation(data: np.ndarray) -> int:
    """Return the EXIF orientation, 1 to 8, of a JPEG, PNG or WebP file.

    It is 1 (the stored rows are upright) if the file has none or a damaged one. TIFF files are not
    read, because OpenCV applies their orientation while decoding.

    Args:
        data: (n,) uint8, the bytes of the file.
    """
    tiff = _exif(data)
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        value = _orientation_tag(tiff, order)
    except struct.error:  # cut off or damaged
        return 1
    return value if value in _ROTATIONS else 1


def _orientation_tag(tiff: bytes, order: str) -> int | None:
    """Value of the orientation tag in a TIFF structure with a byte order of "<" or ">"."""
    at, = struct.unpack_from(f"{order}I", tiff, 4)
    count, = struct.unpack_from(f"{order}H", tiff, at)
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(f"{order}HH", tiff, entry)
        if tag == _TAG and kind == _SHORT:
            return struct.unpack_from(f"{order}H", tiff, entry + 8)[0]
        if tag == _TAG and kind == _LONG:
            return struct.unpack_from(f"{order}I", tiff, entry + 8)[0]
    return None


def _exif(data: np.ndarray) -> bytes:
    """The TIFF structure with the EXIF tags; empty if the file has none."""
    start = data[:12].tobytes()
    if start.startswith(JPEG):
        for marker, at, end in jpeg_segments(data):
            if marker == _SCAN:
                break
            if marker == _APP1 and data[at:at + 6].tobytes() == _HEADER:
                return data[at + 6:end].tobytes()
    elif start.startswith(PNG):
        for kind, at, end in png_chunks(data):
            if kind == b"eXIf":
                return data[at:end].tobytes()
    elif start[:4] == b"RIFF" and start[8:] == b"WEBP":
        return _webp_exif(data)
    return b""


def _webp_exif(data: np.ndarray) -> bytes:
    at = 12
    while at + 8 <= len(data):
        header = data[at:at + 8].tobytes()
        length = int.from_bytes(header[4:], "little")
        if header[:4] == b"EXIF":
            return data[at + 8:at + 8 + length].tobytes().removeprefix(_HEADER)
        at += 8 + length + length % 2
    return b""


def oriented(image: np.ndarray, camera: Camera | None,
             orientation: int) -> tuple[np.ndarray, Camera | None]:
    """Apply an orientation to an image (H, W, ...) of the stored rows and to its camera.

    A camera of the stored image's size is rotated with the image if the rotation changes that size;
    any other camera is taken for that of the upright image.
    """
    height, width = image.shape[:2]
    if camera is not None and (camera.width, camera.height) == (width, height) \
            and width != height and swaps_sides(orientation):
        camera = upright_camera(camera, orientation)
    return upright(image, orientation), camera


def swaps_sides(orientation: int) -> bool:
    """Return whether an orientation (1 to 8) exchanges width and height, px."""
    return orientation >= 5


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Return the upright image (H, W, ...) of an image of the stored rows."""
    is_mirrored, quarter_turns = _ROTATIONS[orientation]
    image = image[:, ::-1] if is_mirrored else image
    return np.ascontiguousarray(np.rot90(image, quarter_turns))


def upright_camera(camera: Camera, orientation: int) -> Camera:
    """Return the camera of the upright image, px, given the camera of the stored rows."""
    is_mirrored, quarter_turns = _ROTATIONS[orientation]
    return (camera.mirrored() if is_mirrored else camera).rotated(quarter_turns)
