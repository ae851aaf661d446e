"""Camera calibrations in files: of ROS's calibrators, OpenCV, Kalibr, or a CameraInfo echoed."""

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

_MOST_BYTES = 1_000_000  # a calibration is a page of text
_EXPECTED = "image_width, image_height, camera_matrix and distortion_coefficients"
_BYTE_ORDERS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}

# What the tools call the same, in lower case without "_" and "-".
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
_MODELS = {"radtan": "plumb_bob", "none": "", "equi": FISHEYE}  # Kalibr's names, and ROS's
_PINHOLE = ("", "pinhole")


def read_calibration(path: str | Path, rectified: bool = False) -> Camera:
    """The camera of a calibration file: YAML, or OpenCV's XML or JSON.

    Read are what ROS's camera_calibration and OpenCV's FileStorage write, a Kalibr chain of one
    camera, and what `ros2 topic echo` prints of a CameraInfo.

    Args:
        path: the file, UTF-8 or UTF-16.
        rectified: the images were undistorted, so that the projection matrix holds alone.
    Raises:
        CameraError: in one line, with the file, the value and what was expected.
    """
    path = Path(path)
    try:
        return camera_from_info(_info(_known(_content(path)), rectified), rectified)
    except CameraError as error:
        raise CameraError(f"calibration {path}: {error}") from None


def _content(path: Path) -> dict:
    """What the file holds, with text or numbers as values."""
    text = _text(path)
    start = text.lstrip()[:20]
    try:
        if start.startswith("<"):
            content = _of_xml(ElementTree.fromstring(text))
        elif start.startswith("{"):
            content = json.loads(text)
        else:  # every value stays text: what a date or a NaN is, YAML's versions disagree
            content = next(yaml.load_all(_without_directive(text), yaml.BaseLoader), None)
    except (yaml.YAMLError, ElementTree.ParseError, ValueError, RecursionError) as error:
        raise CameraError(f"is neither YAML, XML nor JSON: {_where(error)}") from None
    if not isinstance(content, dict) or not content:
        found = "nothing" if content in (None, "", {}, []) else type(content).__name__
        raise CameraError(f"holds {found}, expected the keys {_EXPECTED}")
    return content


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise CameraError(f"is {path.stat().st_size} bytes, too much for a calibration")
        data = path.read_bytes()
    except OSError as error:
        raise CameraError(f"cannot be read: {error.strerror or error}") from None
    encoding = next((name for mark, name in _BYTE_ORDERS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        text = data.decode("latin-1")  # a camera's name with an umlaut
    if any(ord(c) < 32 and c not in "\t\r\n\f" for c in text):
        raise CameraError(f"is no text; expected YAML with the keys {_EXPECTED}")
    return text


def _without_directive(text: str) -> str:
    """Without OpenCV's first line, %YAML:1.0, which YAML does not know."""
    return text.partition("\n")[2] if text.startswith("%YAML") else text


def _of_xml(element: ElementTree.Element):
    if len(element):
        return {child.tag: _of_xml(child) for child in element}
    words = (element.text or "").split()
    return words[0] if len(words) == 1 else words


def _where(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem} in line {error.problem_mark.line + 1}"
    return one_line(error)


def _known(content: dict) -> dict[str, Any]:
    """The values that are used, by our names; of a file that holds one camera below a key, its."""
    cameras = {str(key): value for key, value in content.items()
               if isinstance(value, dict) and ("intrinsics" in value or len(content) == 1)}
    if len(cameras) > 1:
        raise CameraError(f"holds the cameras {', '.join(cameras)}: leave one of them in the file")
    if cameras:
        content = next(iter(cameras.values()))
    plain = {str(key).lower().replace("_", "").replace("-", ""): value
             for key, value in content.items()}
    return {ours: plain[name] for ours, names in _NAMES.items()
            for name in reversed(names) if name in plain}


def _info(values: dict[str, Any], rectified: bool) -> SimpleNamespace:
    """The values as the fields of a sensor_msgs/CameraInfo."""
    width, height = _size(values)
    k = _matrix(values)
    if rectified and "projection_matrix" not in values:
        raise CameraError("has no projection_matrix, which holds for rectified images: add it, or "
                          "leave rectified out")
    p = _numbers(values, "projection_matrix", 12) if "projection_matrix" in values else \
        [*k[:3], 0.0, *k[3:6], 0.0, *k[6:], 0.0]
    d = _numbers(values, "distortion_coefficients") if "distortion_coefficients" in values else []
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
    """The nine numbers of the camera matrix."""
    if "camera_matrix" not in values and "intrinsics" in values:
        fx, fy, cx, cy = _numbers(values, "intrinsics", 4)
        return [fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0]
    return _numbers(values, "camera_matrix", 9)


def _model(values: dict[str, Any]) -> str:
    """The lens model's name in ROS."""
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
    """The numbers of a value, of a list or of a matrix with its data."""
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
