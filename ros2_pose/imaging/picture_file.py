"""Structure of encoded picture files: their end and the size in their header, without decoding.

Sources: ITU-T T.81 annex B (JPEG), the PNG specification, the WebP container specification.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8"

_FRAME_HEADERS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_START, _END, _TEM = 0xD8, 0xD9, 0x01  # markers without a segment


def jpeg_segments(data: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Iterate over the segments of a JPEG up to and including its end marker.

    The data of scans is skipped. The lengths of segments are followed, so that a thumbnail inside
    of a segment is not taken for the picture.

    Args:
        data: (n,) uint8, the bytes of the file, from its start marker on.
    Yields:
        (marker, start, end): the marker's second byte and the byte range of its content.
    """
    at, markers = 2, None
    while at + 1 < len(data):
        if data[at] != 0xFF or not _is_marker(data[at + 1]):  # after a scan, or fill bytes
            markers = _markers(data, at) if markers is None else markers
            following = np.searchsorted(markers, at)
            if following == len(markers):
                return
            at = int(markers[following])
        marker, at = int(data[at + 1]), at + 2
        if marker == _END:
            yield marker, at, at
            return
        if marker in (_START, _TEM):
            continue
        end = at + max(int.from_bytes(data[at:at + 2].tobytes(), "big"), 2)
        yield marker, at + 2, end
        at = end


def _markers(data: np.ndarray, start: int) -> np.ndarray:
    """Indices (m,) of all markers from start on; scans contain other bytes FF, too."""
    found = start + np.flatnonzero(data[start:-1] == 0xFF)
    return found[_is_marker(data[found + 1])]


def _is_marker(following):
    """Whether byte FF with this following byte is a marker of a segment.

    FF 00 is data, RST0..7 (D0..D7) are restart markers within a scan, FF FF are fill bytes.
    """
    return (following != 0) & (following != 0xFF) & ((following < 0xD0) | (following > 0xD7))


def png_chunks(data: np.ndarray) -> Iterator[tuple[bytes, int, int]]:
    """Iterate over the chunks of a PNG up to and including IEND.

    Args:
        data: (n,) uint8, the bytes of the file.
    Yields:
        (kind, start, end): the chunk's type and the byte range of its content, which ends beyond
        the data if the file is cut off.
    """
    at, kind = len(PNG), b""
    while kind != b"IEND" and at + 8 <= len(data):
        header = data[at:at + 8].tobytes()
        length, kind = int.from_bytes(header[:4], "big"), header[4:]
        yield kind, at + 8, at + 8 + length
        at += length + 12


def claimed_size(data: np.ndarray) -> tuple[int, int]:
    """Return width and height, px, in the header of a JPEG or PNG (n,) uint8; 0, 0 without one."""
    start = data[:24].tobytes()
    if start.startswith(PNG):
        return int.from_bytes(start[16:20], "big"), int.from_bytes(start[20:24], "big")
    if not start.startswith(JPEG):
        return 0, 0
    for marker, at, _ in jpeg_segments(data):
        if marker in _FRAME_HEADERS:
            header = data[at:at + 5].tobytes()
            return int.from_bytes(header[3:5], "big"), int.from_bytes(header[1:3], "big")
    return 0, 0


def is_truncated(data: np.ndarray) -> bool:
    """Return whether a JPEG or PNG (n,) uint8 lacks its end marker; data after it is ignored."""
    start = data[:8].tobytes()
    if start.startswith(JPEG):
        return all(marker != _END for marker, _, _ in jpeg_segments(data))
    if start == PNG:
        return not any(kind == b"IEND" and end + 4 <= len(data)
                       for kind, _, end in png_chunks(data))
    return False


def has_broken_chunk(data: np.ndarray) -> bool:
    """Return whether a checksum of a PNG (n,) uint8 is wrong.

    OpenCV may take seconds to reject such a file.
    """
    if data[:8].tobytes() != PNG:
        return False
    for _, start, end in png_chunks(data):
        checksum = int.from_bytes(data[end:end + 4].tobytes(), "big")
        if zlib.crc32(data[start - 4:end].tobytes()) != checksum:
            return True
    return False
