"""sensor_msgs/CameraInfo, filled and read; no ROS here.

CameraInfo's pixel coordinates have the centre of the first pixel at 0; `Camera` has it at 0.5.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ros2_pose.camera import FISHEYE, Camera, is_fisheye
from ros2_pose.messages.standard import Make


def camera_from_info(info, rectified: bool = False) -> Camera:
    """The camera of a sensor_msgs/CameraInfo, with its region of interest and binning applied.

    rectified: the images were undistorted, so that P holds and D does not. P's fourth column then
    says where the optical centre is in the frame of the images: CameraInfo defines that both
    cameras of a stereo pair name the left one's frame. Raises CameraError.
    """
    if rectified:
        camera = _rectified_camera(info)
    else:
        fisheye = is_fisheye(info.distortion_model, info.d)
        camera = Camera.from_opencv(info.width, info.height, info.k, info.d, fisheye)
    roi = info.roi
    if roi.width and roi.height:
        camera = camera.cropped(roi.x_offset, roi.y_offset, roi.width, roi.height)
    bins = max(info.binning_x, 1), max(info.binning_y, 1)
    if bins == (1, 1):
        return camera
    return camera.resized(camera.width // bins[0], camera.height // bins[1])


def _rectified_camera(info) -> Camera:
    P = np.reshape(info.p, (3, 4))
    camera = Camera.from_opencv(info.width, info.height, P[:, :3])
    centre = -P[0, 3] / camera.fx, -P[1, 3] / camera.fy, 0.0
    return replace(camera, centre_m=centre)


def warning_of_offset(camera: Camera, frame_id: str) -> str:
    """What to log of a camera whose optical centre is not its frame's origin; else empty."""
    if not any(camera.centre_m):
        return ""
    return (f"CameraInfo's p[3] places the camera {camera.centre_m[0]:.3f} m to the right of the "
            f"frame {frame_id!r}, as of the right camera of a stereo pair in the left one's frame: "
            "positions are in that frame; if it is the camera's own, publish p[3] = 0")


def calibration_key(info) -> tuple:
    """Equal for two CameraInfo that say the same. Their own == lets partly equal arrays pass."""
    roi = info.roi
    return (info.width, info.height, info.distortion_model, info.binning_x, info.binning_y,
            roi.x_offset, roi.y_offset, roi.width, roi.height,
            *(np.asarray(values, float).tobytes() for values in (info.d, info.k, info.p)))


def camera_info_message(make: Make, header, camera: Camera):
    """A sensor_msgs/CameraInfo: the inverse of `camera_from_info`."""
    K = camera.K - np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
    roi = make("sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0,
               do_rectify=False)
    model = FISHEYE if camera.fisheye else (
        "plumb_bob" if len(camera.distortion) <= 5 else "rational_polynomial")
    return make("sensor_msgs/msg/CameraInfo", header=header, height=camera.height,
                width=camera.width, distortion_model=model, d=np.array(camera.distortion, float),
                k=K.reshape(9), r=np.eye(3).reshape(9),
                p=np.concatenate([K, np.zeros((3, 1))], axis=1).reshape(12),
                binning_x=0, binning_y=0, roi=roi)
