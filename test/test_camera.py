"""Cameras: projection and its inverse, OpenCV as the oracle, crops and sizes, refusals."""

import cv2
import numpy as np
import pytest

from ros2_pose.camera import Camera, CameraError

K = np.array([[620.0, 0, 331.0], [0, 590.0, 229.0], [0, 0, 1]])
LENSES = {"none": ((), False), "radtan": ((-0.28, 0.07, 1e-3, -5e-4, 0.01), False),
          "fisheye": ((0.05, -0.01, 0.004, -0.001), True)}


@pytest.fixture(params=LENSES)
def camera(request):
    return Camera.from_opencv(640, 480, K, *LENSES[request.param])


def _points(count=50):
    rng = np.random.default_rng(0)
    return np.c_[rng.uniform(-1, 1, (count, 2)), rng.uniform(2, 6, count)]


def test_projects_as_opencv_but_for_the_half_pixel(camera):
    lens = np.array(camera.distortion)
    project = cv2.fisheye.projectPoints if camera.fisheye else cv2.projectPoints
    expected = project(_points()[:, None], np.zeros(3), np.zeros(3), K,
                       lens if len(lens) else None)[0][:, 0]
    assert np.allclose(camera.project(_points()), expected + 0.5, atol=1e-6)


def test_normalise_undoes_project(camera):
    rays = camera.normalise(camera.project(_points()))
    assert np.allclose(rays, _points()[:, :2] / _points()[:, 2:], atol=1e-6)


def test_behind_the_camera_is_nan_and_nan_stays_nan(camera):
    assert np.isnan(camera.project([[0, 0, -1.0], [0, 0, 0.0]])).all()
    rays = camera.normalise(np.array([[100.0, 50.0], [np.nan, 50.0]]))
    assert np.isfinite(rays[0]).all() and np.isnan(rays[1]).all()


def test_covariance_follows_samples(camera):
    rng = np.random.default_rng(1)
    pixel, cov = np.array([[420.0, 300.0]]), np.array([[[9.0, 3.0], [3.0, 4.0]]])
    samples = camera.normalise(rng.multivariate_normal(pixel[0], cov[0], 200_000))
    _, ray_cov = camera.normalise_with_cov(pixel, cov)
    assert np.allclose(ray_cov[0], np.cov(samples.T), rtol=0.03, atol=1e-8)


def test_resize_and_crop_agree_with_the_image(camera):
    pixels = camera.project(_points())
    assert np.allclose(camera.resized(320, 960).project(_points()), pixels * (0.5, 2), atol=1e-9)
    assert np.allclose(camera.cropped(40, 30, 200, 200).project(_points()), pixels - (40, 30))


def test_field_of_view_reaches_the_image_edges():
    camera = Camera.from_fov(640, 480, 90)
    assert np.allclose(camera.project([[-1.0, 0, 1], [1.0, 0, 1]])[:, 0], [0, 640])


@pytest.mark.parametrize("matrix, word", [(np.zeros((3, 3)), "uncalibrated"),
                                          (K * np.nan, "not finite")])
def test_uncalibrated_is_refused_with_the_remedy(matrix, word):
    with pytest.raises(CameraError, match=f"{word}.*|.*fov_deg"):
        Camera.from_opencv(640, 480, matrix)


def test_wrong_lens_is_refused():
    with pytest.raises(CameraError, match="3 distortion coefficients"):
        Camera.from_opencv(640, 480, K, (0.1, 0.2, 0.3))
