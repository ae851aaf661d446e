"""Crops show what the map between their pixels and the picture's says, whatever the camera."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from ros2_pose.camera import Camera
from ros2_pose.imaging.crop import crop_person
from ros2_pose.imaging.resize import contiguous, resized, shrunk
from ros2_pose.imaging.upright import upright_frame
from ros2_pose.people import Frame, Ground

_SIZES = {"vga": (640, 480), "portrait": (480, 800), "4k": (3840, 2160)}
_LENSES = {  # focal length in picture heights, distortion, fisheye
    "pinhole": (0.9, (), False),
    "wide pinhole": (0.35, (), False),
    "radtan": (1.0, (-0.3, 0.1, 1e-3, -1e-3, 0.0), False),
    "fisheye": (0.42, (0.02, -0.01, 0.002, -0.001), True),
}
_POSITIONS = {"middle": (0.5, 0.5), "left": (0.08, 0.45), "corner": (0.9, 0.88)}
_BOXES = {"far": (0.03, 0.08), "near": (0.3, 0.62), "wide": (0.5, 0.2)}  # in picture heights
_ROLLS = (0, 25, -70)


def _camera(lens: str, size: tuple[int, int]) -> Camera:
    focal, distortion, fisheye = _LENSES[lens]
    width, height = size
    f = focal * height
    return Camera(width, height, f, f, width / 2 + 3, height / 2 - 5, distortion, fisheye)


def _up(roll_deg: float, pitch_deg: float = 0.0) -> np.ndarray:
    roll, pitch = np.radians((roll_deg, pitch_deg))
    return np.array([-np.sin(roll) * np.cos(pitch), -np.cos(roll) * np.cos(pitch), -np.sin(pitch)])


def _box(position: str, kind: str, size: tuple[int, int]) -> np.ndarray:
    middle = np.array(_POSITIONS[position]) * size
    half = np.array(_BOXES[kind]) * size[1] / 2
    return np.concatenate([middle - half, middle + half])


def _waves(pixels: np.ndarray, wavelength: float) -> np.ndarray:
    """Colours (..., 3), 0 to 255, of a smooth picture at pixels (..., 2), px."""
    x, y = np.moveaxis(pixels * 2 * np.pi / wavelength, -1, 0)
    return 127 + 80 * np.stack([np.sin(x), np.cos(y), np.sin(0.7 * x + 0.6 * y)], -1)


def _pixel_centres(shape: tuple[int, ...]) -> np.ndarray:
    return np.stack(np.meshgrid(np.arange(shape[1]) + 0.5, np.arange(shape[0]) + 0.5), -1)


def _picture(size: tuple[int, int]) -> np.ndarray:
    colours = _waves(_pixel_centres(size[::-1]), _wavelength(size))
    return colours.round().astype(np.uint8)


def _wavelength(size: tuple[int, int]) -> float:
    return size[1] / 5


@pytest.fixture(scope="module")
def pictures() -> dict[str, np.ndarray]:
    return {name: _picture(size) for name, size in _SIZES.items()}


_CASES = [(size, lens, turns, roll) for size, lens, turns, roll in itertools.product(
    _SIZES, [None, *_LENSES], (0, 1, 2, 3), _ROLLS)
    if (turns == roll == 0 or size == "vga" and 0 in (turns, roll + 70)) and (lens or roll == 0)]


@pytest.fixture(params=_CASES, ids=lambda case: "-".join(map(str, case)))
def frame(request, pictures) -> Frame:
    """A picture, turned by quarter turns as a view, with any camera and roll, or without one."""
    size, lens, turns, roll = request.param
    camera = None if lens is None else _camera(lens, _SIZES[size])
    taken = Frame(pictures[size], camera, ground=None if lens is None else Ground(_up(roll)))
    return upright_frame(taken, turns)


def _crops(frame: Frame):
    height, width = frame.image.shape[:2]
    for position, kind in itertools.product(_POSITIONS, _BOXES):
        box = _box(position, kind, (width, height))
        yield box, crop_person(frame, box)


def test_map_there_and_back(frame):
    rng = np.random.default_rng(0)
    for box, crop in _crops(frame):
        height, width = crop.image.shape[:2]
        points = rng.uniform(0, (width, height), (50, 2))
        back = crop.from_picture(crop.to_picture(points))
        known = np.isfinite(back[:, 0])
        np.testing.assert_allclose(back[known], points[known], atol=2e-3 * max(1, 256 / width))
        assert known.mean() > 0.6
        within = rng.uniform(np.maximum(box[:2], 0), np.minimum(box[2:], frame.image.shape[1::-1]),
                             (50, 2))
        inside = crop.from_picture(within)
        seen = np.isfinite(inside[:, 0])
        assert ((inside[seen] > -12) & (inside[seen] < (width + 12, height + 12))).mean() > 0.9


def test_covariances_follow_small_differences(frame):
    rng = np.random.default_rng(1)
    for _, crop in _crops(frame):
        height, width = crop.image.shape[:2]
        points = rng.uniform(0.25, 0.75, (8, 2)) * (width, height)
        root = rng.normal(size=(8, 2, 2))
        cov = root @ np.swapaxes(root, -1, -2) + 0.1 * np.eye(2)
        pixels, mapped = crop.to_picture(points, cov)
        np.testing.assert_array_equal(pixels, crop.to_picture(points))
        step = 0.01 * np.eye(2)
        jacobian = np.stack([crop.to_picture(points + step[i]) - crop.to_picture(points - step[i])
                             for i in (0, 1)], -1) / 0.02
        expected = jacobian @ cov @ np.swapaxes(jacobian, -1, -2)
        known = np.isfinite(expected).all((-1, -2))
        assert known.any()
        np.testing.assert_allclose(mapped[known], expected[known], rtol=1e-3,
                                   atol=1e-4 * expected[known].max())
        back, cov_back = crop.from_picture(pixels[known], mapped[known])
        np.testing.assert_allclose(back, points[known], atol=5e-3)
        np.testing.assert_allclose(cov_back, cov[known], rtol=1e-3, atol=1e-3)


def test_pixels_show_the_picture_where_the_map_says(frame):
    size = np.array(frame.image.shape[1::-1])
    taken = contiguous(frame.image).astype(np.float32)
    for _, crop in _crops(frame):
        pixels = crop.to_picture(_pixel_centres(np.add(crop.image.shape, 64)) - 32)
        is_seen = cv2.erode(np.isfinite(pixels[..., 0]).astype(np.uint8), np.ones((33, 33))) > 0
        scale = sum(np.linalg.norm(np.gradient(pixels, axis=axis), axis=-1) for axis in (0, 1))
        pixels, is_seen, scale = (a[32:-32, 32:-32] for a in (pixels, is_seen, scale))
        margin = 2 + 2 * scale[..., None]
        inside = ((pixels > margin) & (pixels < size - margin)).all(-1) & is_seen
        outside = ((pixels < -margin) | (pixels > size + margin)).any(-1)
        sampled = cv2.remap(taken, pixels.astype(np.float32) - 0.5, None, cv2.INTER_LINEAR)
        error = np.abs(sampled - crop.image)[inside & (scale < 0.05 * _wavelength(size))]
        assert len(error) and error.max() < 14 and error.mean() < 2.5
        assert not crop.image[outside].any()


def test_sizes_suit_a_network(frame):
    for box, crop in _crops(frame):
        height, width = crop.image.shape[:2]
        assert max(height, width) == 256 and min(height, width) >= 96
        assert height % 32 == width % 32 == 0 and crop.image.flags.c_contiguous
        smaller = crop_person(frame, box, long_side=192)
        assert max(smaller.image.shape) == 192


@pytest.mark.parametrize("lens", _LENSES)
@pytest.mark.parametrize("roll, pitch", [(0, 0), (4, 0), (0, 35), (30, 0), (-65, -20), (120, 10)])
def test_a_pole_is_straight_and_upright(lens, roll, pitch):
    """A vertical line in space, two metres long, seen anywhere in the picture."""
    camera, up = _camera(lens, (640, 480)), _up(roll, pitch)
    frame = Frame(np.zeros((480, 640, 3), np.uint8), camera, ground=Ground(up))
    count = 0
    for x, y in itertools.product((30, 150, 320, 490, 610), (40, 240, 440)):
        ray = np.append(camera.normalise(np.array([x, y], float)), 1)
        direction = ray / np.linalg.norm(ray)
        if not np.isfinite(ray).all() or abs(direction @ up) > 0.9:
            continue
        pole = camera.project(5 * direction + np.linspace(-1, 1, 41)[:, None] * up)
        if np.isnan(pole).any() or (pole < 5).any() or (pole > (635, 475)).any():
            continue
        box = np.concatenate([pole.min(0) - 8, pole.max(0) + 8])
        crop = crop_person(frame, box)
        seen = crop.from_picture(pole)
        slope, offset = np.polyfit(seen[:, 1], seen[:, 0], 1)
        bow = np.abs(seen[:, 0] - slope * seen[:, 1] - offset).max()
        is_as_it_is = crop.camera is None and crop.homography[0, 1] == 0
        assert bow < (0.05 if crop.camera else 2.6), (x, y)
        assert abs(np.degrees(np.arctan(slope))) < (11.5 if is_as_it_is else 1.5), (x, y)
        assert seen[0, 1] > seen[-1, 1] + 100  # the lower end is lower, and the pole is large
        count += 1
    assert count >= 3


@pytest.mark.parametrize("lens", ["wide pinhole", "fisheye"])
def test_a_ball_is_round_at_the_edge_of_a_wide_picture(lens):
    """Where the picture is stretched, the outline of a ball is a circle in the crop."""
    camera = _camera(lens, (640, 480))
    frame = Frame(np.zeros((480, 640, 3), np.uint8), camera, ground=Ground(_up(0)))
    direction = np.append(camera.normalise(np.array([590.0, 240])), 1)
    direction /= np.linalg.norm(direction)
    right = np.cross(direction, _up(0)) / np.linalg.norm(np.cross(direction, _up(0)))
    angles = np.linspace(0, 2 * np.pi, 60)[:, None]
    circle = np.cos(angles) * right + np.sin(angles) * np.cross(direction, right)
    outline = camera.project(direction + 0.12 * circle)
    crop = crop_person(frame, np.concatenate([outline.min(0), outline.max(0)]))
    seen = crop.from_picture(outline)
    assert crop.camera is camera
    np.testing.assert_allclose(np.ptp(seen[:, 0]), np.ptp(seen[:, 1]), rtol=0.05)


@pytest.mark.parametrize("size", _SIZES)
@pytest.mark.parametrize("kind", _BOXES)
@pytest.mark.parametrize("position", _POSITIONS)
def test_dots_are_where_the_map_says(size, kind, position):
    """Centroids of blurred dots, whose positions in the picture are known."""
    size = _SIZES[size]
    box = _box(position, kind, size)
    scale = 1.25 * max(box[2:] - box[:2]) / 256
    sigma = 4 * max(scale, 1.0)
    rng = np.random.default_rng(2)
    centre = np.clip((box[:2] + box[2:]) / 2, 5 * sigma, np.array(size) - 5 * sigma)
    dot = centre + rng.uniform(-0.5, 0.5, 2)
    distance2 = ((_pixel_centres(size[::-1]) - dot)**2).sum(-1)
    grey = (255 * np.exp(-distance2 / (2 * sigma**2))).round().astype(np.uint8)
    crop = crop_person(Frame(np.repeat(grey[..., None], 3, -1)), box)
    weight = crop.image[..., 0].astype(float)
    if (weight[[0, -1]] > 0).any() or (weight[:, [0, -1]] > 0).any():
        weight = np.where(weight > 60, weight, 0)
    centroid = (_pixel_centres(weight.shape) * weight[..., None]).sum((0, 1)) / weight.sum()
    tolerance = 0.05 * max(1, 1 / scale)
    np.testing.assert_allclose(centroid, crop.from_picture(dot), atol=tolerance)
    np.testing.assert_allclose(crop.to_picture(centroid), dot, atol=tolerance * max(scale, 1))


def test_a_level_pinhole_camera_changes_nothing():
    """The default ground of a camera of which nothing is known."""
    image, camera = np.zeros((480, 640, 3), np.uint8), _camera("pinhole", (640, 480))
    for position, kind in itertools.product(_POSITIONS, _BOXES):
        box = _box(position, kind, (640, 480))
        alone = crop_person(Frame(image), box)
        level = crop_person(Frame(image, camera, ground=Ground(_up(0))), box)
        np.testing.assert_array_equal(level.homography, alone.homography)
        assert level.camera is None


def test_a_camera_of_another_size_is_not_used():
    frame = Frame(np.zeros((480, 640, 3), np.uint8), _camera("fisheye", (320, 240)))
    crop = crop_person(frame, np.array([500, 300, 630, 470.0]))
    assert crop.camera is None and crop.homography[0, 1] == 0


def test_people_below_the_camera_are_not_rotated():
    camera = _camera("pinhole", (640, 480))
    frame = Frame(np.zeros((480, 640, 3), np.uint8), camera, ground=Ground(np.array([0, 0, -1.0])))
    assert crop_person(frame, np.array([270, 190, 370, 290.0])).homography[0, 1] == 0
    beside = crop_person(frame, np.array([40, 190, 160, 290.0]))  # head away from the middle
    assert beside.from_picture(np.array([45.0, 235]))[1] < beside.from_picture(
        np.array([155.0, 235]))[1] - 100


@pytest.mark.parametrize("box", [
    (np.nan, 0, 10, 10), (np.nan,) * 4, (0, 0, 0, 0), (100, 100, 100, 200), (200, 100, 100, 200),
    (-50, -50, -10, -10), (700, 10, 800, 90), (10, 500, 90, 600), (639.5, 0, 900, 400),
    (np.inf, 0, np.inf, 10)])
@pytest.mark.parametrize("lens", [None, *_LENSES])
def test_a_box_without_a_part_in_the_picture_gives_none(lens, box):
    camera = None if lens is None else _camera(lens, (640, 480))
    frame = Frame(np.zeros((480, 640, 3), np.uint8), camera, ground=Ground(_up(30)))
    assert crop_person(frame, np.array(box, float)) is None


@pytest.mark.parametrize("box", [
    (-1e9, -1e9, 1e9, 1e9), (-np.inf, 0, np.inf, 480), (0, 0, 640, 480), (-20, 100, 1.5, 300),
    (300, 200, 301, 201), (600, 440, 700, 900), (0, 0, 640, 1), (0, 0, 1, 480)])
@pytest.mark.parametrize("lens", [None, *_LENSES])
@pytest.mark.parametrize("roll", _ROLLS)
def test_any_other_box_gives_a_crop(pictures, lens, box, roll):
    camera = None if lens is None else _camera(lens, (640, 480))
    frame = Frame(pictures["vga"], camera, ground=Ground(_up(roll)))
    crop = crop_person(frame, np.array(box, float))
    assert max(crop.image.shape) == 256 and crop.image.any()


def test_the_edge_of_the_image_circle():
    """A lens of 190 degrees: people at its edge get a crop, and its middle is mapped back."""
    camera = Camera(640, 480, 140.0, 140.0, 320.0, 240.0, fisheye=True)
    frame = Frame(np.full((480, 640, 3), 90, np.uint8), camera, ground=Ground(_up(0)))
    kinds = set()
    for angle, radius in itertools.product(np.radians(np.arange(0, 360, 30)), range(120, 235, 10)):
        middle = np.array([320, 240]) + radius * np.array([np.cos(angle), np.sin(angle)])
        crop = crop_person(frame, np.concatenate([middle - (20, 45), middle + (20, 45)]))
        assert crop.image.any()
        inside = crop.to_picture(np.array(crop.image.shape[1::-1]) / 2)
        assert np.linalg.norm(inside - np.clip(middle, 22, (618, 458))) < 25
        kinds.add(crop.camera is None)
    assert kinds == {True, False}


def test_an_unknown_ground_leaves_the_picture_upright():
    """Without a ground, a perspective view has the picture's own up."""
    camera = _camera("fisheye", (640, 480))
    box = np.array([90, 260, 170, 400.0])
    crop = crop_person(Frame(np.zeros((480, 640, 3), np.uint8), camera), box)
    assert crop.camera is camera
    above, below = crop.from_picture(np.array([[130.0, 325], [130, 335]]))
    assert above[1] < below[1] and abs(above[0] - below[0]) < 0.1 * (below[1] - above[1])


@pytest.mark.parametrize("turns", range(4))
def test_a_turned_view_gives_the_same_pixels(turns):
    rng = np.random.default_rng(3)
    view = np.rot90(rng.integers(0, 255, (90, 130, 3)).astype(np.uint8), turns)
    copy = np.ascontiguousarray(view)
    np.testing.assert_array_equal(contiguous(view), copy)
    np.testing.assert_array_equal(contiguous(view[5:60, 8:50]), copy[5:60, 8:50])
    for method in (cv2.INTER_AREA, cv2.INTER_LINEAR):
        difference = resized(view, (40, 33), method).astype(int) - resized(copy, (40, 33), method)
        assert np.abs(difference).max() <= 1
    box = np.array([10, 20, 70, 80.0])
    of_view, of_copy = (crop_person(Frame(image), box).image.astype(int) for image in (view, copy))
    assert np.abs(of_view - of_copy).max() <= 1


def test_views_of_any_other_order_are_copied():
    rng = np.random.default_rng(4)
    image = rng.integers(0, 255, (50, 70, 3)).astype(np.uint8)
    for view in (image[:, ::-1], image[::-1], image[..., ::-1], image.transpose(1, 0, 2),
                 image[::2, ::2], image[:1], image[:, :1]):
        np.testing.assert_array_equal(contiguous(view), view)


@pytest.mark.parametrize("factor", [0.4, 1.0, 1.3, 1.7, 2.0, 3.4, 4.4, 7.5])
def test_shrinking_approximates_the_mean_over_areas(clip, factor):
    image = clip[0]
    size = round(image.shape[1] / factor), round(image.shape[0] / factor)
    method = cv2.INTER_AREA if factor > 1 else cv2.INTER_LINEAR
    exact = cv2.resize(image, size, interpolation=method)
    error = shrunk(image, size).astype(float) - exact
    assert np.sqrt((error**2).mean()) < 3.5
