"""Kind of a file by its first bytes, because names may be wrong and errors should name the kind."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

PICTURE, VIDEO, BAG, ZSTD, OTHER, UNKNOWN = "picture", "video", "bag", "zstd", "other", "unknown"
_READ = 512  # bytes


class Kind(NamedTuple):
    """A kind of file: the group decides what reads it, the name is for messages."""

    group: str
    name: str
    suffix: str = ""  # by which rosbags chooses its reader


MCAP = Kind(BAG, "an MCAP file", ".mcap")
SQLITE = Kind(BAG, "an SQLite file", ".db3")
ROS1 = Kind(BAG, "a ROS 1 bag", ".bag")

# Offset, bytes, kind; the first match counts.
_SIGNATURES = (
    (0, b"\x89MCAP0\r\n", MCAP),
    (0, b"SQLite format 3\0", SQLITE),
    (0, b"#ROSBAG V", ROS1),
    (0, b"\x28\xb5\x2f\xfd", Kind(ZSTD, "compressed by zstd")),
    (0, b"\xff\xd8", Kind(PICTURE, "a JPEG picture")),
    (0, b"\x89PNG\r\n\x1a\n", Kind(PICTURE, "a PNG picture")),
    (8, b"WEBP", Kind(PICTURE, "a WebP picture")),
    (0, b"II*\0", Kind(PICTURE, "a TIFF picture")),
    (0, b"MM\0*", Kind(PICTURE, "a TIFF picture")),
    (4, b"jP  ", Kind(PICTURE, "a JPEG 2000 picture")),
    (4, b"ftypheic", Kind(OTHER, "a HEIC picture (convert it to JPEG)")),
    (4, b"ftypheix", Kind(OTHER, "a HEIC picture (convert it to JPEG)")),
    (4, b"ftypmif1", Kind(OTHER, "a HEIF picture (convert it to JPEG)")),
    (4, b"ftypavif", Kind(OTHER, "an AVIF picture (convert it to JPEG)")),
    (4, b"ftyp", Kind(VIDEO, "an MP4 video")),
    (4, b"moov", Kind(VIDEO, "a QuickTime video")),
    (4, b"mdat", Kind(VIDEO, "a QuickTime video")),
    (0, b"\x1aE\xdf\xa3", Kind(VIDEO, "a Matroska or WebM video")),
    (8, b"AVI ", Kind(VIDEO, "an AVI video")),
    (0, b"GIF8", Kind(VIDEO, "a GIF")),
    (0, b"FLV\1", Kind(VIDEO, "a Flash video")),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", Kind(VIDEO, "a Windows Media video")),
    (0, b"\0\0\1\xba", Kind(VIDEO, "an MPEG video")),
    (0, b"\0\0\1\xb3", Kind(VIDEO, "an MPEG video")),
    (8, b"WAVE", Kind(OTHER, "a sound")),
    (0, b"OggS", Kind(VIDEO, "an Ogg video or sound")),
    (0, b"%PDF", Kind(OTHER, "a PDF document")),
    (0, b"PK\3\4", Kind(OTHER, "a ZIP archive (unpack it)")),
    (0, b"\x1f\x8b", Kind(OTHER, "compressed by gzip (unpack it)")),
    (0, b"BZh", Kind(OTHER, "compressed by bzip2 (unpack it)")),
    (0, b"\xfd7zXZ", Kind(OTHER, "compressed by xz (unpack it)")),
    (0, b"7z\xbc\xaf", Kind(OTHER, "a 7-Zip archive (unpack it)")),
    (0, b"\x04\x22\x4d\x18", Kind(OTHER, "compressed by LZ4 (unpack it)")),
    (257, b"ustar", Kind(OTHER, "a tar archive (unpack it)")),
    (0, b"\x89HDF", Kind(OTHER, "an HDF5 file")),
    (0, b"\x93NUMPY", Kind(OTHER, "a numpy array")),
    (0, b"RRF", Kind(OTHER, "a Rerun recording")),
    (0, b"\x7fELF", Kind(OTHER, "a program")),
    (0, b"version https://git-lfs", Kind(OTHER, "a Git LFS pointer (git lfs pull fetches the "
                                                "file itself)")),
)


def kind_of(data: bytes) -> Kind:
    """Kind of a file by its first bytes; UNKNOWN may still be a video."""
    if not data:
        return Kind(OTHER, "empty")
    for offset, signature, kind in _SIGNATURES:
        if data[offset:offset + len(signature)] == signature:
            return kind
    if data[:2] == b"BM" and data[6:10] == bytes(4):
        return Kind(PICTURE, "a BMP picture")
    if data[0] == 0x47 and data[188:189] == b"\x47":
        return Kind(VIDEO, "an MPEG transport stream")
    if _is_text(data[:_READ]):
        return Kind(OTHER, "text")
    return Kind(UNKNOWN, "data of an unknown kind")


def _is_text(data: bytes) -> bool:
    text = data.decode("utf-8", "ignore")
    return len(text) > 0.9 * len(data) and all(c.isprintable() or c.isspace() for c in text)


def kind_of_file(path: Path) -> Kind:
    """Kind of a file. Raises OSError if it cannot be read."""
    with open(path, "rb") as file:
        return kind_of(file.read(_READ))
