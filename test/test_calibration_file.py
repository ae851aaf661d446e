"""Calibration files of other tools are read, and what cannot be read is said in one line."""

import json

import cv2
import numpy as np
import pytest

from ros2_pose.camera import Camera, CameraError
from ros2_pose.offline.calibration_file import read_calibration

_K = np.array([[700, 0, 271.5], [0, 710, 479.5], [0, 0, 1.0]])
_D = [0.1, -0.05, 0.001, 0.002, 0.01]
_CAMERA = Camera.from_opencv(544, 960, _K, _D)
_FLAT = [*map(float, _K.flat)]
_P = [650.0, 0, 271.5, 0, 0, 660.0, 479.5, 0, 0, 0, 1, 0]
_ROS = f"""image_width: 544
image_height: 960
camera_name: K\u00fcche
camera_matrix: {{rows: 3, cols: 3, data: {_FLAT}}}
distortion_model: plumb_bob
distortion_coefficients: {{rows: 1, cols: 5, data: {_D}}}
rectification_matrix: {{rows: 3, cols: 3, data: [1, 0, 0, 0, 1, 0, 0, 0, 1]}}
projection_matrix: {{rows: 3, cols: 4, data: {_P}}}
"""
_OPENCV = f"""%YAML:1.0
---
calibration_time: "Mon 01 Jan 2024"
nframes: 20
image_width: 544
image_height: 960
camera_matrix: !!opencv-matrix
   rows: 3
   cols: 3
   dt: d
   data: [ 7.e+02, 0., 271.5, 0., 710.,
       479.5, 0., 0., 1. ]
distortion_coefficients: !!opencv-matrix
   rows: 5
   cols: 1
   dt: d
   data: {_D}
"""
_FILES = {
    "ros": _ROS,
    "ros_calibrator": _ROS.replace("distortion_model: plumb_bob", "camera_model: plumb_bob"),
    "windows": _ROS.replace("\n", "\r\n"),
    "no_lens_named": _ROS.replace("distortion_model: plumb_bob\n", ""),
    "date": _ROS + "calibrated: 2024-02-31\nserial: 0123\nnote: .nan\n",
    "opencv": _OPENCV,
    "opencv_3": _OPENCV.replace("---\n", ""),
    "opencv_sample": _OPENCV.replace("camera_matrix", "Camera_Matrix")
    .replace("distortion_coefficients", "Distortion_Coefficients"),
    "camel": f"cameraMatrix: {_K.tolist()}\ndistCoeffs: {_D}\nimage_size: [544, 960]",
    "kalibr": "cam0:\n  cam_overlaps: []\n  camera_model: pinhole\n  distortion_model: radtan\n"
              f"  distortion_coeffs: {_D}\n  intrinsics: [700, 710, 271.5, 479.5]\n"
              "  resolution: [544, 960]\n  rostopic: /cam\n",
    "echoed": f"header:\n  frame_id: cam\nheight: 960\nwidth: 544\ndistortion_model: plumb_bob\n"
              f"d: {_D}\nk: {_FLAT}\np: {_P}\nbinning_x: 0\nbinning_y: 0\n---\nheight: 1\n---\n",
    "echoed_by_ros1": f"height: 960\nwidth: 544\ndistortion_model: \"plumb_bob\"\nD: {_D}\n"
                      f"K: {_FLAT}\nP: {_P}\n",
    "json": json.dumps({"image_width": 544, "image_height": 960, "distortion_coefficients": _D,
                        "camera_matrix": {"type_id": "opencv-matrix", "data": _FLAT}}, indent="\t"),
}


def _written(tmp_path, text: str, encoding="utf-8"):
    path = tmp_path / "camera.yaml"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("name", _FILES)
def test_calibrations_of_all_tools_are_the_same_camera(tmp_path, name, encoding):
    path = _written(tmp_path, _FILES[name], encoding)
    assert read_calibration(path) == _CAMERA


@pytest.mark.parametrize("suffix", [".yml", ".xml", ".json"])
def test_what_opencv_writes_is_read(tmp_path, suffix):
    path = tmp_path / f"camera{suffix}"
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    for key, value in (("image_width", 544), ("image_height", 960), ("camera_matrix", _K),
                       ("distortion_coefficients", np.array(_D)[:, None])):
        storage.write(key, value)
    storage.release()
    assert read_calibration(path) == _CAMERA


def test_fisheye_lenses_keep_their_model(tmp_path):
    four = "[0.05, 0.01, 0.002, -0.001]"
    texts = [f"image_width: 544\nimage_height: 960\ncamera_matrix: {_FLAT}\n"
             f"distortion_coefficients: {four}\n{model}" for model in
             ("distortion_model: equidistant", "camera_model: equidistant", "fisheye_model: 1",
              "camera_model: pinhole\ndistortion_model: equi")]
    for text in texts:
        assert read_calibration(_written(tmp_path, text)).fisheye


def test_rectified_takes_the_projection_matrix(tmp_path):
    camera = read_calibration(_written(tmp_path, _ROS), rectified=True)
    assert (camera.fx, camera.fy, camera.distortion) == (650, 660, ())
    with pytest.raises(CameraError, match="projection_matrix"):
        read_calibration(_written(tmp_path, _OPENCV), rectified=True)


_LINE = "image_width: 544\nimage_height: 960\n"


@pytest.mark.parametrize("text, words", [
    ("", "holds nothing"), ("\n\n", "holds nothing"), ("just words", "holds str"),
    ("- 1\n- 2", "holds list"), ("{}", "holds nothing"),
    ("\x00\x01\x02binary", "is not a text"), ("a: [1, 2", "line 1"), ("a: b: c", "line 1"),
    ("<calibration><camera/></calibration>", "image_width"), ("<a", "XML"), ("{\"a\":", "JSON"),
    ("%YAML:1.0\n---\na: 1", "image_width"), ("a: &x [*x]", "line|image_width"),
    ("[" * 5000, "YAML"), ("key: value", "has no image_width"), (_LINE, "has no camera_matrix"),
    (_LINE + "camera_matrix: {data: [700,0,271.5,0,700,479.5]}", "has 6 numbers, expected 9"),
    (_LINE + "camera_matrix: five", "'five'"), (_LINE + "camera_matrix:", "has 0 numbers"),
    (_LINE + "camera_matrix: {rows: 3}", "has 0 numbers"),
    (_LINE + "camera_matrix: [.nan,0,1,0,1,1,0,0,1]", "'.nan'"),
    (_LINE + "camera_matrix: [nan,0,1,0,1,1,0,0,1]", "'nan'"),
    (_LINE + "camera_matrix: [inf,0,1,0,1,1,0,0,1]", "'inf'"),
    (_LINE + "camera_matrix: [0,0,1,0,0,1,0,0,1]", "focal length"),
    (_ROS.replace("544", "full HD"), "image_width|width.*'full HD'"),
    (_ROS.replace("544", "-544"), "-544"), (_ROS.replace("544", "544.5"), "544.5"),
    (_ROS.replace("544", "0"), "0x960"), (_ROS.replace("544", ""), "numbers, expected 1"),
    (_ROS.replace("0.1, -0.05", "0.1, much"), "'much'"),
    (_ROS.replace("0.1, -0.05, ", ""), "distortion coefficients"),
    (_ROS.replace("plumb_bob", "telepathic"), "telepathic"),
    (_ROS + "camera_model: omni", "omni"),
    (_FILES["kalibr"] + _FILES["kalibr"].replace("cam0", "cam1"), "cam0, cam1")])
def test_what_cannot_be_read_is_one_line_with_file_and_value(tmp_path, text, words):
    path = _written(tmp_path, text)
    with pytest.raises(CameraError, match=words) as caught:
        read_calibration(path)
    said = str(caught.value)
    assert "camera.yaml" in said and "\n" not in said and len(said) < 400


def test_files_that_are_none_are_one_line(tmp_path):
    (tmp_path / "big.yaml").write_bytes(b"a" * 2_000_000)
    for path in (tmp_path / "no_such.yaml", tmp_path, tmp_path / "big.yaml"):
        with pytest.raises(CameraError, match="calibration.*(cannot be read|too much)") as caught:
            read_calibration(path)
        assert "\n" not in str(caught.value)
