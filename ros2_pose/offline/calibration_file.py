"""Camera calibration files of ROS's calibrators, OpenCV, Kalibr, and echoed CameraInfo."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import yaml

from ros2_pose.camera import FISHEYE, Camera, CameraError
from ros2_pose.errors import one_line
from ros2_pose.messages.camera_info import camera_from_info

_MAX_BYTES = 1_000_000  # a calibration is a page of text
_EXPECTED = "image_width, image_height, camera_matrix and distortion_coefficients"
_BYTE_ORDERS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}

# Our names of the values and the tools' names for them, in lower case without "_" and "-".
_NAMES = {
    "image_width": ("imagewidth", "width"),
    "image_height": ("imageheight", "height"),
    "size": ("imagesize", "resolution"),
    "camera_matrix": ("cameramatrix", "k", "intrinsicmatrix", "mtx"),
    "intrinsics": ("intrinsics",),
    "distortion_coefficients": ("distortioncoefficients", "distortioncoeffs", "distcoeffs",
                                "distcoeff", "dist", "d"),
    "projection_matrix": ("projectionmatrix", "p"),
    "distortion_model": ("distortionmodel",),
    "camera_model": ("cameramodel",),
    "fisheye_model": ("fisheyemodel",),
    "binning_x": ("binningx",),
    "binning_y": ("binningy",),
}
_MODELS = {"radtan": "plumb_bob", "none": "", "equi": FISHEYE}  # Kalibr's names -> ROS's
_PINHOLE = ("", "pinhole")


def read_calibration(path: str | Path, rectified: bool = False) -> Camera:
    """Return the camera of a calibration file (YAML, or OpenCV's XML or JSON).

    Supported are the files of ROS's camera_calibration and OpenCV's FileStorage, a Kalibr chain of
    one camera, and the output of `ros2 topic echo` for a CameraInfo.

    Args:
        path: the file, UTF-8 or UTF-16.
        rectified: the images are undistorted: the projection matrix is used, the distortion is not.
    Raises:
        CameraError: the message is one line with the file, the value and what was expected.
    """
    path = Path(path)
    try:
        values = _known_values(_content(path))
        return camera_from_info(_info(values, rectified), rectified)
    except CameraError as error:
        raise CameraError(f"calibration {path}: {error}") from None


def _content(path: Path) -> dict:
    """Parse the file; values are texts or numbers."""
    text = _text(path)
    start = text.lstrip()[:20]
    try:
        if start.startswith("<"):
            content = _of_xml(ElementTree.fromstring(text))
        elif start.startswith("{"):
            content = json.loads(text)
        else:  # BaseLoader keeps values as text: YAML's versions disagree on dates and NaN
            content = next(yaml.load_all(_without_directive(text), yaml.BaseLoader), None)
    except (yaml.YAMLError, ElementTree.ParseError, ValueError, RecursionError) as error:
        raise CameraError(f"is neither YAML, XML nor JSON: {_one_line(error)}") from None
    if not isinstance(content, dict) or not content:
        found = "nothing" if content in (None, "", {}, []) else type(content).__name__
        raise CameraError(f"holds {found}, expected the keys {_EXPECTED}")
    return content


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise CameraError(f"is {path.stat().st_size} bytes, too much for a calibration "
                              f"(at most {_MAX_BYTES})")
        data = path.read_bytes()
    except OSError as error:
        raise CameraError(f"cannot be read: {error.strerror or error}") from None
    encoding = "utf-8"
    for mark, name in _BYTE_ORDERS.items():
        if data.startswith(mark):
            encoding = name
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        text = data.decode("latin-1")  # for a camera's name with an umlaut
    if any(ord(c) < 32 and c not in "\t\r\n\f" for c in text):
        raise CameraError(f"is not a text file; expected YAML with the keys {_EXPECTED}")
    return text


def _without_directive(text: str) -> str:
    """Remove OpenCV's first line, %YAML:1.0, which is not valid YAML."""
    return text.partition("\n")[2] if text.startswith("%YAML") else text


def _of_xml(element: ElementTree.Element):
    """An element as dict of its children, list of its words, or its only word."""
    if len(element):
        return {child.tag: _of_xml(child) for child in element}
    words = (element.text or "").split()
    return words[0] if len(words) == 1 else words


def _one_line(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem} in line {error.problem_mark.line + 1}"
    return one_line(error)


def _known_values(content: dict) -> dict[str, Any]:
    """The values that are used, by our names; the file may hold one camera below a key."""
    cameras = {str(key): value for key, value in content.items()
               if isinstance(value, dict) and ("intrinsics" in value or len(content) == 1)}
    if len(cameras) > 1:
        raise CameraError(f"holds the cameras {', '.join(cameras)}: leave one of them in the file")
    if cameras:
        content = next(iter(cameras.values()))
    by_tools_name = {str(key).lower().replace("_", "").replace("-", ""): value
                     for key, value in content.items()}
    values = {}
    for our_name, tools_names in _NAMES.items():
        name = next((name for name in tools_names if name in by_tools_name), None)
        if name is not None:
            values[our_name] = by_tools_name[name]
    return values


def _info(values: dict[str, Any], rectified: bool) -> SimpleNamespace:
    """The values as fields of a sensor_msgs/CameraInfo."""
    width, height = _size(values)
    k = _matrix(values)
    if rectified and "projection_matrix" not in values:
        raise CameraError("has no projection_matrix, which rectified images need: add it, or do "
                          "not set rectified")
    p = [*k[:3], 0.0, *k[3:6], 0.0, *k[6:], 0.0]
    if "projection_matrix" in values:
        p = _numbers(values, "projection_matrix", 12)
    d = []
    if "distortion_coefficients" in values:
        d = _numbers(values, "distortion_coefficients")
    return SimpleNamespace(
        width=width, height=height, distortion_model=_model(values), d=np.array(d),
        k=np.array(k), r=np.eye(3).reshape(9), p=np.array(p),
        binning_x=_whole(values, "binning_x", 0), binning_y=_whole(values, "binning_y", 0),
        roi=SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0, do_rectify=False))


def _size(values: dict[str, Any]) -> tuple[int, int]:
    """Width and height, px."""
    if "size" in values and "image_width" not in values:
        size = values["size"]
        if isinstance(size, dict):
            size = [size.get("width"), size.get("height")]
        width, height = _numbers({"size": size}, "size", 2)
        values = values | {"image_width": width, "image_height": height}
    return _whole(values, "image_width"), _whole(values, "image_height")


def _matrix(values: dict[str, Any]) -> list[float]:
    """The nine numbers of the camera matrix, row by row."""
    if "camera_matrix" not in values and "intrinsics" in values:
        fx, fy, cx, cy = _numbers(values, "intrinsics", 4)
        return [fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0]
    return _numbers(values, "camera_matrix", 9)


def _model(values: dict[str, Any]) -> str:
    """ROS's name of the lens model."""
    camera = str(values.get("camera_model", "")).lower()
    lens = str(values.get("distortion_model", "")).lower()
    if camera not in _PINHOLE:
        if lens not in ("", camera):
            raise CameraError(f"camera_model {camera!r} with distortion_model {lens!r} is not "
                              "known: calibrate as a pinhole camera")
        lens = camera
    if not lens and str(values.get("fisheye_model", "0")).lower() in ("1", "true"):
        lens = FISHEYE
    return _MODELS.get(lens, lens)


def _whole(values: dict[str, Any], name: str, default: int | None = None) -> int:
    if name not in values and default is not None:
        return default
    number, = _numbers(values, name, 1)
    if number != int(number) or number < 0:
        raise CameraError(f"{name} is {number:g}, expected a whole number of pixels")
    return int(number)


def _numbers(values: dict[str, Any], name: str, count: int | None = None) -> list[float]:
    """The numbers of a value: a scalar, a list, or a matrix with its data below a key."""
    if name not in values:
        raise CameraError(f"has no {name}; expected the keys {_EXPECTED}")
    numbers = [_number(name, one) for one in _flat(values[name])]
    if count is not None and len(numbers) != count:
        raise CameraError(f"{name} has {len(numbers)} numbers, expected {count}")
    return numbers


def _flat(value) -> list:
    if isinstance(value, dict):
        return _flat(value.get("data", []))
    if isinstance(value, list):
        return [number for part in value for number in _flat(part)]
    return [] if value == "" else [value]


def _number(name: str, value) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise CameraError(f"{name} holds {str(value)[:40]!r}, expected a number")
    return number
