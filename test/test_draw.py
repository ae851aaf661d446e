"""Drawing: left and right get their own colours in their own places; nothing outside is touched."""

import numpy as np

from ros2_pose import draw
from ros2_pose.camera import Camera
from ros2_pose.people import People
from ros2_pose.skeleton import COCO17


def _standing() -> People:
    """A person who faces the camera: the own left is at the right of the picture."""
    points = np.zeros((1, 17, 2))
    for joint, name in enumerate(COCO17.names):
        side = {"left": 1, "right": -1}.get(COCO17.sides[joint], 0)
        points[0, joint] = (160 + 40 * side, 20 + 12 * joint)
    return People(np.array([[100.0, 10, 220, 230]]), np.array([0.9]), points,
                  np.tile(4 * np.eye(2), (1, 17, 1, 1)), np.ones((1, 17)), ids=("p1",),
                  tracking_state=np.array([1]))


def _share_left_half(picture, colour) -> float:
    columns = np.nonzero((picture == colour).all(-1))[1]
    assert len(columns) > 20
    return (columns < 160).mean()


def test_left_is_orange_and_on_the_persons_left():
    picture = draw.overlay(np.zeros((240, 320, 3), np.uint8), _standing())
    assert _share_left_half(picture, draw.LEFT) < 0.1
    assert _share_left_half(picture, draw.RIGHT) > 0.9


def test_nobody_leaves_the_image_as_it_was_and_the_input_is_never_changed():
    image = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    kept = image.copy()
    assert np.array_equal(draw.overlay(image, People.nobody()), image)
    draw.overlay(image, _standing())
    assert np.array_equal(image, kept)


def test_a_body_covers_where_it_projects_to(upright):
    camera, body = Camera.from_fov(320, 240, 70), upright[1]
    picture = draw.overlay(np.zeros((240, 320, 3), np.uint8), upright[0], camera, body)
    pelvis = camera.project(upright[0].root)[0].astype(int)
    assert picture[pelvis[1], pelvis[0]].sum() > 60
    assert picture[5, 5].sum() == 0


def test_from_above_right_is_right_and_far_is_up(upright):
    people = upright[0]
    moved = people.with_fields(root=people.root + (1, 0, 2), joints=people.joints + (1, 0, 2))
    middles = []
    for scene in (people, moved):
        rows, columns = np.nonzero((draw.view_from_above(scene, reach=8.0) == draw.LEFT).all(-1))
        middles.append((columns.mean(), rows.mean()))
    (x, y), (x_moved, y_moved) = middles
    assert x_moved > x + 30 and y_moved < y - 60


def test_view_from_above_of_nobody_is_a_grid():
    assert draw.view_from_above(People.nobody()).shape == (480, 480, 3)
