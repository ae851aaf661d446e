"""Pictures out of image messages and into them. No ROS here: a message is what has the fields.

Pictures come out as (height, width, 3) uint8 RGB, depth as (height, width) float32 metres.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from ros2_pose.errors import PoseError
from ros2_pose.imaging.contrast import to_8_bits
from ros2_pose.imaging.picture_file import claimed_size, has_broken_chunk, is_truncated


class ImageError(PoseError):
    """An image that cannot be read; the message names the value and what to do."""


class _Layout(NamedTuple):
    """How an encoding lays a pixel out; code is OpenCV's conversion to RGB, None if it is RGB."""

    channels: int
    code: int | None
    kind: str = "u1"  # of a channel: numpy's name without the order of bytes


class _Planes(NamedTuple):
    """How an encoding of planes lays out a picture: rows of brightness, then those of colour.

    code is OpenCV's conversion to RGB. rows of colour: in rows of the message, of the height.
    """

    code: int
    colour_rows: float = 0.5


# ROS names a Bayer pattern by its first two rows, OpenCV by the second and third pixel of the
# second row; ROS's plain yuv422 is UYVY.
_BAYER = {"rggb": cv2.COLOR_BayerBG2RGB, "bggr": cv2.COLOR_BayerRG2RGB,
          "gbrg": cv2.COLOR_BayerGR2RGB, "grbg": cv2.COLOR_BayerGB2RGB}
_LAYOUTS = {
    "rgb8": _Layout(3, None),
    "bgr8": _Layout(3, cv2.COLOR_BGR2RGB),
    "8UC3": _Layout(3, cv2.COLOR_BGR2RGB),
    "rgba8": _Layout(4, cv2.COLOR_RGBA2RGB),
    "bgra8": _Layout(4, cv2.COLOR_BGRA2RGB),
    "8UC4": _Layout(4, cv2.COLOR_BGRA2RGB),
    "mono8": _Layout(1, cv2.COLOR_GRAY2RGB),
    "8UC1": _Layout(1, cv2.COLOR_GRAY2RGB),
    "rgb16": _Layout(3, None, "u2"),
    "bgr16": _Layout(3, cv2.COLOR_BGR2RGB, "u2"),
    "16UC3": _Layout(3, cv2.COLOR_BGR2RGB, "u2"),
    "rgba16": _Layout(4, cv2.COLOR_RGBA2RGB, "u2"),
    "bgra16": _Layout(4, cv2.COLOR_BGRA2RGB, "u2"),
    "16UC4": _Layout(4, cv2.COLOR_BGRA2RGB, "u2"),
    "mono16": _Layout(1, cv2.COLOR_GRAY2RGB, "u2"),
    "16UC1": _Layout(1, cv2.COLOR_GRAY2RGB, "u2"),
    "32FC1": _Layout(1, cv2.COLOR_GRAY2RGB, "f4"),
    "yuv422": _Layout(2, cv2.COLOR_YUV2RGB_UYVY),
    "uyvy": _Layout(2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422_yuy2": _Layout(2, cv2.COLOR_YUV2RGB_YUY2),
    "yuyv": _Layout(2, cv2.COLOR_YUV2RGB_YUY2),
    "yvyu": _Layout(2, cv2.COLOR_YUV2RGB_YVYU),
    **{f"bayer_{pattern}{bits}": _Layout(1, code, f"u{bits // 8}")
       for pattern, code in _BAYER.items() for bits in (8, 16)},
}
_PLANES = {
    "nv12": _Planes(cv2.COLOR_YUV2RGB_NV12),
    "nv21": _Planes(cv2.COLOR_YUV2RGB_NV21),
    "nv24": _Planes(cv2.COLOR_YUV2RGB_NV12, colour_rows=2.0),
    "yuv420": _Planes(cv2.COLOR_YUV2RGB_I420),
    "i420": _Planes(cv2.COLOR_YUV2RGB_I420),
    "yv12": _Planes(cv2.COLOR_YUV2RGB_YV12),
}
_HALVED = ("yuv420", "i420", "yv12")  # rows of colour are half as long as those of brightness
ENCODINGS = (*_LAYOUTS, *_PLANES)
_FULL = {"u1": 255.0, "u2": 65535.0, "f4": np.inf}  # the largest value of a channel
_READ_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
_MOST_PIXELS = 50_000_000  # no camera has more, and a damaged header may say anything
_MOST_PIXELS_A_BYTE = 10_000  # nor can either format say so many in so few
# REP 118: depth is metres in floats, or millimetres in integers. By numpy's names without order.
_DEPTHS = {"32FC1": "f4", "16UC1": "u2", "mono16": "u2"}


def rgb_from_image(message) -> np.ndarray:
    """The picture of a sensor_msgs/Image; a view of its data where that is RGB already.

    Pictures that use a small part of their range are stretched, see `contrast.to_8_bits`. Raises
    ImageError if size, step, length of the data or encoding is impossible or unknown.
    """
    if message.encoding in _PLANES:
        return _rgb_from_planes(message, _PLANES[message.encoding])
    layout = _LAYOUTS.get(message.encoding)
    if layout is None:
        raise ImageError(f"encoding {message.encoding!r} cannot be read; publish one of "
                         f"{', '.join(ENCODINGS)}")
    check_size(message)
    if layout.channels == 2 and message.width % 2:
        raise ImageError(f"width {message.width} is odd, which {message.encoding} cannot be")
    pixels = _pixels(message, layout)
    if layout.channels != 2:  # brightness and colour are of different ranges
        pixels = to_8_bits(pixels, _FULL[layout.kind])
    if layout.code is None:
        return pixels
    picture = cv2.cvtColor(np.ascontiguousarray(pixels), layout.code)
    return to_8_bits(picture, 255.0) if layout.channels == 2 else picture


def _rgb_from_planes(message, planes: _Planes) -> np.ndarray:
    """The picture of a message whose brightness and colour are in planes of their own."""
    check_size(message, pixel_bytes=1, rows=1 + planes.colour_rows)
    height, width, step = message.height, message.width, message.step
    if height % 2 or width % 2 or step % 2:
        raise ImageError(f"size {width}x{height} or step {step} is odd, which {message.encoding} "
                         "cannot be")
    data: np.ndarray = np.frombuffer(message.data, np.uint8)
    bright, colour = data[:step * height].reshape(height, step), data[step * height:]
    if message.encoding in _HALVED:
        colour = colour.reshape(height, step // 2)[:, :width // 2].reshape(height // 2, width)
    elif planes.colour_rows == 2:  # colour of each pixel: every second one of every second row
        pairs = colour.reshape(height, step, 2)[::2, :width:2]
        colour = pairs.reshape(height // 2, width)
    else:
        colour = colour.reshape(height // 2, step)[:, :width]
    packed = np.concatenate([bright[:, :width], colour])
    return to_8_bits(cv2.cvtColor(packed, planes.code), 255.0)


def depth_from_image(message) -> np.ndarray:
    """The depth image of a sensor_msgs/Image: (H, W) float32 m, NaN where it is not known.

    32FC1 is metres; 16UC1 and mono16 are millimetres, 0 if not known. Raises ImageError if size,
    step, length of the data or encoding is impossible or no depth image's.
    """
    name = _DEPTHS.get(message.encoding)
    if name is None:
        raise ImageError(f"encoding {message.encoding!r} is no depth image's; publish one of "
                         f"{', '.join(_DEPTHS)}")
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
    """Raise ImageError if an Image's size, step and length of data do not fit together.

    pixel_bytes: what a pixel takes; by default what it takes in a picture of the encoding. rows:
    of the data, for each row of the picture.
    """
    height, width, step, length = message.height, message.width, message.step, len(message.data)
    if height <= 0 or width <= 0:
        raise ImageError(f"image is {width}x{height}, empty: look at the camera's driver")
    if pixel_bytes is None:
        layout = _LAYOUTS.get(message.encoding)
        pixel_bytes = layout.channels * np.dtype(layout.kind).itemsize if layout else 1
    row = width * pixel_bytes
    if step < row:
        raise ImageError(f"step is {step} but a row of {width} pixels of {message.encoding} takes "
                         f"{row} bytes: the publisher must set width, encoding and step alike")
    if length != step * height * rows:
        raise ImageError(f"data is {length} bytes but a {message.encoding} image of step {step} "
                         f"and height {height} has {step * height * rows:g}: the publisher must "
                         "send whole images")


def _pixels(message, layout: _Layout) -> np.ndarray:
    """(height, width[, channels]) view of the data; a copy where bytes must change places."""
    kind = np.dtype((">" if message.is_bigendian else "<") + layout.kind)
    rows: np.ndarray = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    width, channels = message.width, layout.channels
    rows = rows[:, : width * channels * kind.itemsize]
    if kind.itemsize > 1:
        rows = np.ascontiguousarray(rows).view(kind).astype(kind.newbyteorder("="), copy=False)
    return rows if channels == 1 else rows.reshape(message.height, width, channels)


def rgb_from_compressed(message) -> np.ndarray:
    """The picture of a sensor_msgs/CompressedImage (JPEG, PNG or what else OpenCV reads)."""
    what = f"compressed image of format {message.format!r}"
    if "compressedDepth" in message.format:
        raise ImageError(f"{what} is a depth image; use a colour topic")
    return rgb_from_bytes(np.frombuffer(message.data, np.uint8), what)


def rgb_from_bytes(data: np.ndarray, what: str) -> np.ndarray:
    """The picture of an encoded file's bytes (n,) uint8; `what` names it in errors.

    A JPEG or PNG that was cut off is an error, though decoders would fill the rest with grey; what
    follows its end is ignored, as phones append there what is no picture. The rows are the
    sensor's, whatever orientation the file asks for.
    """
    if not len(data):
        raise ImageError(f"{what} is empty")
    width, height = claimed_size(data)
    if width * height > min(_MOST_PIXELS, _MOST_PIXELS_A_BYTE * len(data)):
        raise ImageError(f"{what} says that it is {width}x{height} in {len(data)} bytes: damaged, "
                         f"or more than the {_MOST_PIXELS // 10**6} megapixels that are read")
    if is_truncated(data):
        raise ImageError(f"{what} is cut off: {len(data)} bytes; look at the disk or the network")
    if has_broken_chunk(data):
        raise ImageError(f"{what} is damaged: a checksum of the PNG is wrong; look at the disk or "
                         "the network")
    # A message's rotation is not applied: CameraInfo is of the sensor's rows. Files: see exif.py.
    image = cv2.imdecode(data, _READ_FLAGS)
    if image is None:
        raise ImageError(f"{what} cannot be decoded: {len(data)} bytes; use jpeg or png")
    full = np.iinfo(image.dtype).max if image.dtype.kind == "u" else np.inf
    return cv2.cvtColor(to_8_bits(image, float(full)), cv2.COLOR_BGR2RGB)


def image_message(make, header, image: np.ndarray):
    """A sensor_msgs/Image, rgb8, of a picture (height, width, 3) uint8 RGB."""
    height, width = image.shape[:2]
    return make("sensor_msgs/msg/Image", header=header, height=height, width=width,
                encoding="rgb8", is_bigendian=0, step=3 * width,
                data=np.ascontiguousarray(image).reshape(-1))
