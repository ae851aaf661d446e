"""Frames are turned upright and people come back, whatever else is known of the frame."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ros2_pose.camera import Camera, rotation_of
from ros2_pose.geometry import Transform
from ros2_pose.imaging.upright import people_as_taken, quarter_turns_to_upright, upright_frame
from ros2_pose.people import Frame, Ground


def _up(roll_deg: float, pitch_deg: float = 0.0) -> np.ndarray:
    """The world's up seen by a camera that is rolled clockwise as seen from behind."""
    roll, pitch = np.radians((roll_deg, pitch_deg))
    return np.array([-np.sin(roll) * np.cos(pitch), -np.cos(roll) * np.cos(pitch), -np.sin(pitch)])


@pytest.mark.parametrize("roll, turns", [(0, 0), (20, 0), (-44, 0), (46, 3), (90, 3), (134, 3),
                                         (136, 2), (180, 2), (-180, 2), (-136, 2), (-90, 1)])
@pytest.mark.parametrize("pitch", [-40, 0, 60])
def test_the_nearest_quarter_turn_is_taken(roll, turns, pitch):
    assert quarter_turns_to_upright(_up(roll, pitch)) == turns
    up = rotation_of(turns) @ _up(roll, pitch)
    assert up[1] < 0 and abs(up[0]) <= abs(up[1]) * 1.01


def test_it_does_not_alternate_near_45_degrees_nor_where_no_roll_is_seen():
    level = quarter_turns_to_upright(_up(40))
    for roll in (46, 44, 48, 43, 50):
        assert quarter_turns_to_upright(_up(roll), level) == level == 0
    turned = quarter_turns_to_upright(_up(60), level)
    assert turned == 3
    for roll in (44, 46, 42, 40):
        assert quarter_turns_to_upright(_up(roll), turned) == turned
    for pitch in (85, -85, 90):  # straight down or up
        assert quarter_turns_to_upright(_up(130, pitch), turned) == turned
        assert quarter_turns_to_upright(_up(130, pitch)) == 0


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("centre", [(0.0, 0.0, 0.0), (0.12, 0.02, 0.0)])
def test_people_come_back_where_the_frame_was_taken(some_people, turns, centre):
    """A point of the world: through the upright frame's pose and camera, or those as taken."""
    rng = np.random.default_rng(turns)
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    pose = Transform(Rotation.from_matrix(rotation * np.linalg.det(rotation)), rng.normal(size=3))
    camera = Camera(64, 48, 50.0, 52.0, 30.0, 25.0, (-0.2, 0.05, 0.01, -0.02, 0.0),
                    centre_m=centre)
    image = rng.integers(0, 255, (48, 64, 3)).astype(np.uint8)
    ground = Ground(_up(30, 10), 1.4)
    taken = Frame(image, camera, 5, image[..., 0].astype(np.float32), pose, ground)
    upright = upright_frame(taken, turns)
    np.testing.assert_array_equal(upright.image, np.rot90(image, turns))
    np.testing.assert_array_equal(upright.depth, np.rot90(taken.depth, turns))
    assert upright.camera.centre_m == (0.0, 0.0, 0.0) and upright.stamp == 5
    points = some_people.joints[0]  # in the upright frame
    as_taken = points @ rotation_of(turns) + centre
    np.testing.assert_allclose(points @ upright.ground.up + upright.ground.height_m,
                               as_taken @ ground.up + ground.height_m, atol=1e-9)
    people = some_people.with_fields(keypoints=np.tile(upright.camera.project(points[:17]),
                                                       (3, 1, 1)))
    back = people_as_taken(people, taken, turns)
    world = upright.camera_to_fixed.apply(points)
    np.testing.assert_allclose(pose.apply(back.joints[0]), world, atol=1e-9)
    np.testing.assert_allclose(camera.project(back.joints[0, :17]), back.keypoints[0], atol=1e-6)
    turn = rotation_of(-turns)
    np.testing.assert_allclose(back.velocity, people.velocity @ turn.T, atol=1e-12)
    np.testing.assert_allclose(back.joint_cov[0, 3], turn @ people.joint_cov[0, 3] @ turn.T)
    low, high = back.boxes[:, :2], back.boxes[:, 2:]
    assert (high > low).all()
    sizes = (people.boxes[:, 2:] - people.boxes[:, :2])
    np.testing.assert_allclose(high - low, sizes[:, ::-1] if turns % 2 else sizes)


def test_what_need_not_be_turned_is_the_same_object(some_people):
    taken = Frame(np.zeros((4, 6, 3), np.uint8))
    assert upright_frame(taken, 0).image is taken.image
    assert people_as_taken(some_people, taken, 0) is some_people
