"""Messages sensor_msgs/CameraInfo; no ROS here.

Pixel coordinates of CameraInfo have the centre of the first pixel at 0; `Camera` has it at 0.5.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ros2_pose.camera import FISHEYE, Camera, is_fisheye
from ros2_pose.messages.standard import Make


def camera_from_info(info, rectified: bool = False) -> Camera:
    """Return the camera of a sensor_msgs/CameraInfo, with region of interest and binning applied.

    Args:
        rectified: the images are undistorted: P is used and D is not. P's fourth column then gives
            the optical centre in the frame of the images, because CameraInfo defines that both
            cameras of a stereo pair name the left one's frame.
    Raises:
        CameraError: for a calibration that cannot be used.
    """
    if rectified:
        camera = _rectified_camera(info)
    else:
        fisheye = is_fisheye(info.distortion_model, info.d)
        camera = Camera.from_opencv(info.width, info.height, info.k, info.d, fisheye)
    roi = info.roi
    if roi.width and roi.height:
        camera = camera.cropped(roi.x_offset, roi.y_offset, roi.width, roi.height)
    binning_x, binning_y = max(info.binning_x, 1), max(info.binning_y, 1)
    if (binning_x, binning_y) == (1, 1):
        return camera
    return camera.resized(camera.width // binning_x, camera.height // binning_y)


def _rectified_camera(info) -> Camera:
    P = np.reshape(info.p, (3, 4))
    camera = Camera.from_opencv(info.width, info.height, P[:, :3])
    centre = -P[0, 3] / camera.fx, -P[1, 3] / camera.fy, 0.0
    return replace(camera, centre_m=centre)


def warning_of_offset(camera: Camera, frame_id: str) -> str:
    """Return a warning if the optical centre is not the origin of the frame, else an empty text."""
    if not any(camera.centre_m):
        return ""
    return (f"CameraInfo's p[3] places the camera {camera.centre_m[0]:.3f} m to the right of the "
            f"frame {frame_id!r}, like the right camera of a stereo pair in the left one's frame: "
            "positions are in that frame; if it is the camera's own, publish p[3] = 0")


def calibration_key(info) -> tuple:
    """Return a key that is equal for two CameraInfo with the same calibration.

    The messages' own == accepts partly equal arrays.
    """
    roi = info.roi
    d, k, p = (np.asarray(values, float).tobytes() for values in (info.d, info.k, info.p))
    return (info.width, info.height, info.distortion_model, info.binning_x, info.binning_y,
            roi.x_offset, roi.y_offset, roi.width, roi.height, d, k, p)


def camera_info_message(make: Make, header, camera: Camera):
    """Return a sensor_msgs/CameraInfo of a camera, px: the inverse of `camera_from_info`."""
    K = camera.K
    K[:2, 2] -= 0.5
    if camera.fisheye:
        model = FISHEYE
    elif len(camera.distortion) <= 5:
        model = "plumb_bob"
    else:
        model = "rational_polynomial"
    roi = make("sensor_msgs/msg/RegionOfInterest", x_offset=0, y_offset=0, height=0, width=0,
               do_rectify=False)
    return make("sensor_msgs/msg/CameraInfo", header=header, height=camera.height,
                width=camera.width, distortion_model=model, d=np.array(camera.distortion, float),
                k=K.reshape(9), r=np.eye(3).reshape(9),
                p=np.concatenate([K, np.zeros((3, 1))], axis=1).reshape(12),
                binning_x=0, binning_y=0, roi=roi)
