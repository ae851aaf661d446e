"""The orientation that a picture file asks for (EXIF tag 0x112): read, and applied to image and
camera.

Cameras and phones store the sensor's rows and say in the file how a viewer is to turn them.
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

# By orientation: whether left and right are exchanged first, then quarter turns as of np.rot90.
_ROTATIONS = {1: (False, 0), 2: (True, 0), 3: (False, 2), 4: (True, 2),
          5: (True, 1), 6: (False, 3), 7: (True, 3), 8: (False, 1)}


def orientation(data: np.ndarray) -> int:
    """The EXIF orientation, 1 to 8, of a JPEG, PNG or WebP file's bytes (n,) uint8.

    1, the stored rows are upright, if the file says nothing or nothing that can be read. TIFF is
    left out: OpenCV turns it while decoding.
    """
    tiff = _exif(data)
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return 1
    try:
        at = struct.unpack_from(f"{order}I", tiff, 4)[0]
        count = struct.unpack_from(f"{order}H", tiff, at)[0]
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", tiff, entry)
            if tag == _TAG and kind in (_SHORT, _LONG):
                value = struct.unpack_from(order + ("H" if kind == _SHORT else "I"), tiff,
                                           entry + 8)[0]
                return value if value in _ROTATIONS else 1
    except struct.error:  # cut off or damaged
        pass
    return 1


def _exif(data: np.ndarray) -> bytes:
    """The TIFF structure with the EXIF tags in it, empty if there is none."""
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
    """An image of the stored rows, and its camera, as they are to be looked at.

    A camera whose size is the stored image's and not the upright one's is turned with the image;
    every other one is taken to be the upright image's already.
    """
    height, width = image.shape[:2]
    if camera is not None and swaps_sides(orientation) and width != height and \
            (camera.width, camera.height) == (width, height):
        camera = upright_camera(camera, orientation)
    return upright(image, orientation), camera


def swaps_sides(orientation: int) -> bool:
    """Whether width and height change places."""
    return orientation >= 5


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """The image (H, W, ...) of the stored rows as it is to be looked at."""
    is_mirrored, quarter_turns = _ROTATIONS[orientation]
    image = image[:, ::-1] if is_mirrored else image
    return np.ascontiguousarray(np.rot90(image, quarter_turns))


def upright_camera(camera: Camera, orientation: int) -> Camera:
    """The camera of the upright image, made of the camera of the stored rows."""
    is_mirrored, quarter_turns = _ROTATIONS[orientation]
    return (camera.mirrored() if is_mirrored else camera).rotated(quarter_turns)
