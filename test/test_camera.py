"""Cameras: projection and its inverse, OpenCV as the oracle, crops and sizes, refusals."""

import cv2
import numpy as np
import pytest

from ros2_pose.camera import Camera, CameraError, is_fisheye, rotation_of

K = np.array([[620.0, 0, 331.0], [0, 590.0, 229.0], [0, 0, 1]])
_RATIONAL = (0.3, -0.2, 1e-3, -5e-4, 0.05, 0.6, -0.1, 0.02)
_PRISM = (-0.2, 0.05, 1e-3, -5e-4, 0.01, 0.02, 0.01, 0.001, 0.01, -0.002, 0.004, 0.001)
LENSES = {"none": ((), False), "radtan": ((-0.28, 0.07, 1e-3, -5e-4, 0.01), False),
          "rational": (_RATIONAL, False), "prism": (_PRISM, False),
          "tilted": ((*_PRISM, 0.03, -0.02), False), "fisheye of zeros": ((0.0,) * 4, True),
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
    lens = lens if len(lens) else np.zeros(4)
    expected = project(_points()[:, None], np.zeros(3), np.zeros(3), K, lens)[0][:, 0]
    assert np.allclose(camera.project(_points()), expected + 0.5, atol=1e-6)


def test_normalise_undoes_project(camera):
    rays = camera.normalise(camera.project(_points()))
    assert np.allclose(camera.distort(rays), camera.project(_points()), atol=1e-6)
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


def test_nobody_and_nothing_known_pass_through_every_lens(camera):
    for shape in ((0, 2), (0, 17, 2), (3, 17, 2)):
        unknown, cov = np.full(shape, np.nan), np.full((*shape, 2), np.nan)
        assert camera.project(np.full((*shape[:-1], 3), np.nan)).shape == shape
        for values in (camera.normalise(unknown), camera.distort(unknown),
                       camera.normalise_with_cov(unknown, cov)[0],
                       camera.distort_with_cov(unknown, cov)[0]):
            assert values.shape == shape and np.isnan(values).all()


def test_coefficients_left_out_are_zero():
    def camera(lens, fisheye=False):
        return Camera.from_opencv(640, 480, K, lens, fisheye)
    k1_to_k4 = (0.2, -0.1, 1e-3, 2e-3, 0.02, 0.1)
    assert camera(k1_to_k4) == camera((*k1_to_k4, 0, 0))
    assert camera((*_PRISM, 0, 0, 0, 0)) == camera((*_PRISM, 0, 0))
    assert camera((0.1, 0.02, 0, 0, 0), fisheye=True) == camera((0.1, 0.02, 0, 0), fisheye=True)
    with pytest.raises(CameraError, match="takes 4 distortion coefficients, got 5"):
        camera((0.1, 0.02, 0, 0, 0.1), fisheye=True)


@pytest.mark.parametrize("lens", [(), (0.05, 0.01, 0.002, -0.001), (-0.2, 0.1, -0.05, 0.01),
                                  (0.0, -0.05, 0.0, 0.0)], ids=str)
def test_a_fisheye_is_right_or_silent_up_to_its_edge(lens):
    """Pixels by the model's own formula (Kannala and Brandt), out to 100 degrees off the axis."""
    k = (*lens, 0, 0, 0, 0)[:4]
    camera = Camera(800, 800, 180, 180, 400, 400, lens, fisheye=True)
    angle = np.radians(np.arange(1, 101))
    radius = angle * (1 + k[0] * angle**2 + k[1] * angle**4 + k[2] * angle**6 + k[3] * angle**8)
    rays = camera.normalise(np.c_[400 + 180 * radius, np.full(100, 400.0)])
    found = np.arctan(rays[:, 0])
    grows = np.maximum.accumulate(radius) == radius  # the same radius was reached before, else
    known = np.isfinite(found) & grows
    assert np.abs(np.degrees(found - angle))[known].max() < 1
    assert known[:60].sum() == grows[:60].sum() and not known[89:].any()
    assert (found[np.isfinite(found)] < angle[~grows].min(initial=9)).all()


@pytest.mark.parametrize("lens", [(-0.35, 0.12, 0, 0, 0), (-0.4, 0.0, 1e-3, 1e-3),
                                  (-0.3, 0.05, 0, 0, 0, -0.1, 0.02, 0.0), _RATIONAL, _PRISM],
                         ids=lambda lens: f"{len(lens)}: {lens[0]}")
def test_a_pixel_has_the_ray_that_projects_there_or_none(lens):
    """Beyond the radius where a lens folds over, a pixel's ray would be another point's."""
    camera = Camera.from_opencv(640, 480, K, lens)
    grid = np.stack(np.meshgrid(np.linspace(-900, 1500, 49), np.linspace(-900, 1400, 47)), -1)
    rays = camera.normalise(grid)
    known = np.isfinite(rays).all(-1)
    assert np.abs(camera.distort(rays[known]) - grid[known]).max() < 0.1
    inner = np.hypot(*np.moveaxis(grid - (331.5, 229.5), -1, 0)) < 200
    assert known[inner].all()
    outward = np.linspace(0, 30, 400)[:, None] * (0.6, 0.8)
    pixels = camera.distort(outward)
    there = np.isfinite(pixels).all(-1)
    assert (np.diff(np.linalg.norm(pixels[there] - pixels[0], axis=1)) > -0.5).all()


@pytest.mark.parametrize("turns", range(-1, 5))
def test_a_rotated_image_shows_the_points_of_a_rotated_camera(camera, turns):
    """As many quarter turns of np.rot90, of a picture that is white at one pixel alone."""
    point = np.array([[0.353, -0.201, 2.0]])
    column, row = np.floor(camera.project(point)[0]).astype(int)
    picture = np.zeros((480, 640))
    picture[row, column] = 1
    turned = np.rot90(picture, turns)
    rotated = camera.rotated(turns)
    assert (rotated.height, rotated.width) == turned.shape
    pixels = rotated.project(point @ rotation_of(turns).T)
    assert tuple(np.floor(pixels[0]).astype(int)[::-1]) == tuple(np.argwhere(turned)[0])
    back = rotated.normalise(pixels) @ rotation_of(turns)[:2, :2]
    assert np.allclose(back, point[:, :2] / 2, atol=1e-6)


def test_the_mirror_of_a_rotated_camera(camera):
    points = _points() * (-1, 1, 1)
    for turns in range(4):
        rotated = camera.rotated(turns)
        pixels = rotated.project(_points())
        assert np.allclose(rotated.mirrored().project(points),
                           pixels * (-1, 1) + (rotated.width, 0), atol=1e-6)


@pytest.mark.parametrize("name, fisheye", [
    ("equidistant", True), ("fisheye", True), ("Fisheye", True), ("Kannala-Brandt4", True),
    ("plumb_bob", False), ("rational_polynomial", False), ("", False), ("plumb bob", False)])
def test_names_of_lens_models(name, fisheye):
    assert is_fisheye(name) is fisheye


@pytest.mark.parametrize("name", ["fov", "double_sphere", "ftheta", "omnidirectional"])
def test_other_lens_models_are_refused_also_with_zeros(name):
    with pytest.raises(CameraError, match=f"'{name}'.*rectif"):
        is_fisheye(name, (0.0,) * 5)
