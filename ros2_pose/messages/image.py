"""Messages sensor_msgs/Image and CompressedImage; no ROS here.

Pictures are (H, W, 3) uint8 RGB, depth images (H, W) float32, m. A message is any object with the
fields of the ROS message.
"""

from __future__ import annotations

import cv2
import numpy as np

from ros2_pose.errors import PoseError
from ros2_pose.imaging.contrast import to_8_bits
from ros2_pose.imaging.picture_file import claimed_size, has_broken_chunk, is_truncated


class ImageError(PoseError):
    """An image cannot be read; the error's message names the value and the remedy."""


# ROS names a Bayer pattern by its first two rows, OpenCV by the second and third pixel of the
# second row. The encoding yuv422 of ROS is UYVY.
_BAYER = {"rggb": cv2.COLOR_BayerBG2RGB, "bggr": cv2.COLOR_BayerRG2RGB,
          "gbrg": cv2.COLOR_BayerGR2RGB, "grbg": cv2.COLOR_BayerGB2RGB}
# Interleaved encodings. Values: number of channels; numpy's type of a channel, without byte order;
# OpenCV's conversion to RGB, None for RGB.
_INTERLEAVED: dict[str, tuple[int, str, int | None]] = {
    "rgb8": (3, "u1", None),
    "bgr8": (3, "u1", cv2.COLOR_BGR2RGB),
    "8UC3": (3, "u1", cv2.COLOR_BGR2RGB),
    "rgba8": (4, "u1", cv2.COLOR_RGBA2RGB),
    "bgra8": (4, "u1", cv2.COLOR_BGRA2RGB),
    "8UC4": (4, "u1", cv2.COLOR_BGRA2RGB),
    "mono8": (1, "u1", cv2.COLOR_GRAY2RGB),
    "8UC1": (1, "u1", cv2.COLOR_GRAY2RGB),
    "rgb16": (3, "u2", None),
    "bgr16": (3, "u2", cv2.COLOR_BGR2RGB),
    "16UC3": (3, "u2", cv2.COLOR_BGR2RGB),
    "rgba16": (4, "u2", cv2.COLOR_RGBA2RGB),
    "bgra16": (4, "u2", cv2.COLOR_BGRA2RGB),
    "16UC4": (4, "u2", cv2.COLOR_BGRA2RGB),
    "mono16": (1, "u2", cv2.COLOR_GRAY2RGB),
    "16UC1": (1, "u2", cv2.COLOR_GRAY2RGB),
    "32FC1": (1, "f4", cv2.COLOR_GRAY2RGB),
    "yuv422": (2, "u1", cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": (2, "u1", cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": (2, "u1", cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": (2, "u1", cv2.COLOR_YUV2RGB_YUY2),
    "yvyu": (2, "u1", cv2.COLOR_YUV2RGB_YVYU),
    **{f"bayer_{pattern}{bits}": (1, f"u{bits // 8}", code)
       for pattern, code in _BAYER.items() for bits in (8, 16)},
}
# Planar encodings: all rows of luma (Y), then all of chroma. Values: OpenCV's conversion to RGB.
_PLANAR = {
    "nv12": cv2.COLOR_YUV2RGB_NV12,
    "nv21": cv2.COLOR_YUV2RGB_NV21,
    "nv24": cv2.COLOR_YUV2RGB_NV12,
    "yuv420": cv2.COLOR_YUV2RGB_I420,
    "i420": cv2.COLOR_YUV2RGB_I420,
    "yv12": cv2.COLOR_YUV2RGB_YV12,
}
_HALF_ROWS = ("yuv420", "i420", "yv12")  # a row of chroma is half as long as one of luma
_FULL_CHROMA = ("nv24",)  # chroma of every pixel, not of every 2 x 2 pixels
ENCODINGS = (*_INTERLEAVED, *_PLANAR)
_LARGEST = {"u1": 255.0, "u2": 65535.0, "f4": np.inf}  # value of a channel
_READ_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
# Larger sizes come from damaged headers: no camera has so many pixels, and neither JPEG nor PNG
# can encode so many in a byte.
_MAX_PIXELS = 50_000_000
_MAX_PIXELS_PER_BYTE = 10_000
# REP 118: depth is in metres as floats or in millimetres as integers. Values: numpy's types.
_DEPTHS = {"32FC1": "f4", "16UC1": "u2", "mono16": "u2"}


def rgb_from_image(message) -> np.ndarray:
    """Return the picture (H, W, 3) uint8 RGB of a sensor_msgs/Image.

    It is a view of the message's data if that is RGB already. Pictures that use a small part of
    their value range are stretched, see `contrast.to_8_bits`.

    Raises:
        ImageError: if size, step, length of the data or encoding is impossible or unknown.
    """
    if message.encoding in _PLANAR:
        return _rgb_from_planes(message)
    if message.encoding not in _INTERLEAVED:
        raise ImageError(f"encoding {message.encoding!r} cannot be read; publish one of "
                         f"{', '.join(ENCODINGS)}")
    check_size(message)
    channels, kind, to_rgb = _INTERLEAVED[message.encoding]
    if channels == 2 and message.width % 2:
        raise ImageError(f"width {message.width} is odd, which {message.encoding} cannot be")
    pixels = _pixels(message, channels, kind)
    if channels == 2:  # YUV: luma and chroma have different ranges, stretch the RGB
        return to_8_bits(cv2.cvtColor(np.ascontiguousarray(pixels), to_rgb), 255.0)
    pixels = to_8_bits(pixels, _LARGEST[kind])
    if to_rgb is None:
        return pixels
    return cv2.cvtColor(np.ascontiguousarray(pixels), to_rgb)


def _rgb_from_planes(message) -> np.ndarray:
    """Picture (H, W, 3) uint8 RGB of a message with a planar encoding."""
    has_full_chroma = message.encoding in _FULL_CHROMA
    check_size(message, pixel_bytes=1, rows=3.0 if has_full_chroma else 1.5)
    height, width, step = message.height, message.width, message.step
    if height % 2 or width % 2 or step % 2:
        raise ImageError(f"size {width}x{height} or step {step} is odd, which {message.encoding} "
                         "cannot be")
    data: np.ndarray = np.frombuffer(message.data, np.uint8)
    luma = data[:step * height].reshape(height, step)[:, :width]
    chroma = data[step * height:]
    if message.encoding in _HALF_ROWS:
        chroma = chroma.reshape(height, step // 2)[:, :width // 2].reshape(height // 2, width)
    elif has_full_chroma:  # keep that of every second pixel of every second row
        pairs = chroma.reshape(height, step, 2)[::2, :width:2]
        chroma = pairs.reshape(height // 2, width)
    else:
        chroma = chroma.reshape(height // 2, step)[:, :width]
    packed = np.concatenate([luma, chroma])
    return to_8_bits(cv2.cvtColor(packed, _PLANAR[message.encoding]), 255.0)


def depth_from_image(message) -> np.ndarray:
    """Return the depth image (H, W) float32, m, of a sensor_msgs/Image; NaN where it is unknown.

    32FC1 is in metres; 16UC1 and mono16 are in millimetres, 0 where unknown.

    Raises:
        ImageError: if size, step or length of the data is impossible, or the encoding not one of
            depth images.
    """
    name = _DEPTHS.get(message.encoding)
    if name is None:
        raise ImageError(f"encoding {message.encoding!r} is not one of depth images; publish one "
                         f"of {', '.join(_DEPTHS)}")
    kind = np.dtype((">" if message.is_bigendian else "<") + name)
    check_size(message, kind.itemsize)
    rows: np.ndarray = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    values = np.ascontiguousarray(rows[:, : message.width * kind.itemsize]).view(kind)
    metres = values.astype(np.float32)
    if kind.kind == "u":
        metres *= np.float32(1e-3)
    metres[~((metres > 0) & (metres < np.inf))] = np.nan
    return metres


def check_size(message, pixel_bytes: int | None = None, rows: float = 1.0) -> None:
    """Raise ImageError if size, step and data length of a sensor_msgs/Image contradict each other.

    Args:
        pixel_bytes: bytes of a pixel, by default those of the encoding.
        rows: rows of the data per row of the picture.
    """
    height, width, step, length = message.height, message.width, message.step, len(message.data)
    if height <= 0 or width <= 0:
        raise ImageError(f"image is {width}x{height}, empty: check the camera's driver")
    if pixel_bytes is None:
        channels, kind, _ = _INTERLEAVED.get(message.encoding, (1, "u1", None))
        pixel_bytes = channels * np.dtype(kind).itemsize
    row = width * pixel_bytes
    if step < row:
        raise ImageError(f"step is {step} but a row of {width} pixels of {message.encoding} takes "
                         f"{row} bytes: the publisher must set width, encoding and step "
                         "consistently")
    if length != step * height * rows:
        raise ImageError(f"data is {length} bytes but a {message.encoding} image of step {step} "
                         f"and height {height} has {step * height * rows:g}: the publisher must "
                         "send whole images")


def _pixels(message, channels: int, kind: str) -> np.ndarray:
    """View (H, W[, channels]) of the data; a copy if the byte order must change."""
    dtype = np.dtype((">" if message.is_bigendian else "<") + kind)
    rows: np.ndarray = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    rows = rows[:, : message.width * channels * dtype.itemsize]
    if dtype.itemsize > 1:
        rows = np.ascontiguousarray(rows).view(dtype).astype(dtype.newbyteorder("="), copy=False)
    return rows if channels == 1 else rows.reshape(message.height, message.width, channels)


def rgb_from_compressed(message) -> np.ndarray:
    """Return the picture (H, W, 3) uint8 RGB of a sensor_msgs/CompressedImage.

    Raises:
        ImageError: for a depth image, or data that cannot be decoded.
    """
    what = f"compressed image of format {message.format!r}"
    if "compressedDepth" in message.format:
        raise ImageError(f"{what} is a depth image; use a colour topic")
    return rgb_from_bytes(np.frombuffer(message.data, np.uint8), what)


def rgb_from_bytes(data: np.ndarray, what: str) -> np.ndarray:
    """Return the picture (H, W, 3) uint8 RGB of an encoded file (JPEG, PNG, ...).

    A truncated JPEG or PNG is an error, because decoders would fill the rest with grey. Data after
    its end is ignored: phones append other data there. The file's EXIF orientation is not applied.

    Args:
        data: (n,) uint8, the bytes of the file.
        what: name of the file in errors.
    Raises:
        ImageError: for data that is damaged, too large or cannot be decoded.
    """
    if not len(data):
        raise ImageError(f"{what} is empty")
    width, height = claimed_size(data)
    if width * height > min(_MAX_PIXELS, _MAX_PIXELS_PER_BYTE * len(data)):
        raise ImageError(f"{what} claims to be {width}x{height} in {len(data)} bytes: damaged, or "
                         f"more than the supported {_MAX_PIXELS // 10**6} megapixels")
    if is_truncated(data):
        raise ImageError(f"{what} is cut off: {len(data)} bytes; check the disk or the network")
    if has_broken_chunk(data):
        raise ImageError(f"{what} is damaged: a checksum of the PNG is wrong; check the disk or "
                         "the network")
    # Not oriented: CameraInfo describes the sensor's rows. For files see imaging/exif.py.
    image = cv2.imdecode(data, _READ_FLAGS)
    if image is None:
        raise ImageError(f"{what} cannot be decoded: {len(data)} bytes; use jpeg or png")
    largest = float(np.iinfo(image.dtype).max) if image.dtype.kind == "u" else np.inf
    return cv2.cvtColor(to_8_bits(image, largest), cv2.COLOR_BGR2RGB)


def image_message(make, header, image: np.ndarray):
    """Return a sensor_msgs/Image, rgb8, of a picture (H, W, 3) uint8 RGB."""
    height, width = image.shape[:2]
    return make("sensor_msgs/msg/Image", header=header, height=height, width=width,
                encoding="rgb8", is_bigendian=0, step=3 * width,
                data=np.ascontiguousarray(image).reshape(-1))
