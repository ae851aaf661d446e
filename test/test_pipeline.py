"""The pipeline around a network that is made up: what bodies do to what is reported."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ros2_pose.body.state import BodyState
from ros2_pose.camera import Camera
from ros2_pose.config import PoseConfig
from ros2_pose.data.synthetic.depth_camera import depth_image, sensed
from ros2_pose.geometry import Transform
from ros2_pose.imaging.contrast import grey_ramp
from ros2_pose.messages.people import STATUS_2D_ONLY, STATUS_PARTIAL, status_of
from ros2_pose.people import DEPTH, Frame, Ground, People
from ros2_pose.pipeline import Pipeline
from ros2_pose.skeleton import COCO17, SMPL24
from ros2_pose.tracking.tracked_body import TrackedBody

CAMERA = Camera.from_fov(640, 480, 60)
IMAGE = grey_ramp(640, 480)
_BODY_FIELDS = ("joints", "joint_cov", "theta", "betas", "root", "root_cov")


class MadeUpNetwork:
    """Finds what it is told to find."""

    search_parts = 0

    def __init__(self, people: People):
        self.people = people

    def configure(self, score_threshold, max_people):
        """Find everyone, whatever is asked for."""

    def detect(self, images):
        return [self.people for _ in images]


@pytest.fixture(scope="module")
def pipeline():
    return Pipeline()


@pytest.fixture
def look(pipeline):
    """Step a pipeline once over an image in which a network finds given people."""
    def look(people, depth=None, **config):
        pipeline.reset()
        pipeline.configure(PoseConfig(**config))
        pipeline.network = MadeUpNetwork(people)
        return pipeline.step(Frame(IMAGE, CAMERA, 0, depth))
    return look


def detected(keypoints, std_px=2.0) -> People:
    """A detection of keypoints (P, 17, 2) px; scores say what is NaN."""
    keypoints = np.asarray(keypoints, float)
    known = np.isfinite(keypoints).all(-1)
    filled = np.where(known[..., None], keypoints, 5.0)
    boxes = np.concatenate([filled.min(1), filled.max(1)], 1)
    cov = np.tile(std_px**2 * np.eye(2), (len(keypoints), 17, 1, 1))
    return People(boxes, np.full(len(boxes), 0.9), filled, cov, np.where(known, 0.9, 0.0))


@pytest.fixture(scope="module")
def person(pipeline):
    """Somebody 3 m away, turned a little, arms down; (1, 17, 2) px, and the state."""
    theta = torch.zeros(1, 24, 4)
    theta[..., 3] = 1
    theta[:, 0] = torch.tensor([0.98, 0.0, -0.2, 0.0])  # half a turn about x, and a yaw
    theta[:, 0] /= theta[:, 0].norm()
    for joint, sign in (("left_shoulder", -1.0), ("right_shoulder", 1.0)):
        theta[:, SMPL24.index(joint)] = torch.tensor([0.0, 0.0, sign * 0.6, 0.8])
    state = BodyState(theta, torch.zeros(1, 10), torch.tensor([[0.1, 0.0, 3.0]]))
    keypoints = pipeline.body(*state, with_vertices=False).keypoints.numpy()
    return CAMERA.project(keypoints), state


def test_a_hidden_keypoint_is_put_where_the_body_has_it(look, person):
    pixels, _ = person
    hidden = COCO17.index("left_wrist")
    wrong = pixels.copy()
    wrong[:, hidden] = np.nan
    assert look(detected(wrong), correct=False).keypoints[0, hidden, 0] == 5.0
    corrected = look(detected(wrong))
    assert np.linalg.norm(corrected.keypoints[0, hidden] - pixels[0, hidden]) < 40
    seen = [i for i in range(17) if i != hidden]
    assert np.linalg.norm(corrected.keypoints[0, seen] - pixels[0, seen], axis=1).max() < 6
    spread = np.trace(corrected.keypoint_cov[0], axis1=1, axis2=2)
    assert spread[hidden] > 4 * np.median(spread[seen])


def test_a_depth_image_measures_the_distance(look, person, pipeline):
    pixels, state = person
    far = BodyState(state.theta, state.betas - torch.tensor([0.9] + [0.0] * 9), state.root * 0.88)
    keypoints = CAMERA.project(pipeline.body(*far, with_vertices=False).keypoints.numpy())
    depth = sensed(depth_image(pipeline.body, far, CAMERA, wall=5.0), np.random.default_rng(0))
    z = float(far.root[0, 2])
    blind, measured = look(detected(keypoints)), look(detected(keypoints), depth)
    assert abs(measured.root[0, 2] - z) < 0.05 < abs(blind.root[0, 2] - z)
    assert measured.root_cov[0, 2, 2] < 0.3 * blind.root_cov[0, 2, 2]
    assert (measured.joint_source[0] == DEPTH).any()
    empty = look(detected(keypoints), np.full((480, 640), np.nan, np.float32))
    np.testing.assert_allclose(empty.root, blind.root, atol=0.02)


def test_a_note_on_an_empty_room_does_not_make_it_two_dimensional(look, person):
    nobody = detected(person[0])[:0]
    wrong = np.zeros((240, 320), np.float32)
    for settings in ({}, {"body": False, "root_depth": True}):
        people = look(nobody, wrong, **settings)
        assert people.is_3d and status_of(people.with_fields(note="something")) == STATUS_PARTIAL
    assert status_of(look(nobody, body=False)) == STATUS_2D_ONLY


def test_a_depth_image_of_another_size_is_said_and_ignored(look, person):
    pixels, _ = person
    people = look(detected(pixels), np.zeros((240, 320), np.float32))
    assert "240" in people.note and np.isfinite(people.root).all()
    assert status_of(people) == STATUS_PARTIAL
    assert status_of(look(detected(pixels), body=False)) == STATUS_2D_ONLY


def test_a_camera_that_knows_its_height_sees_how_far_a_floor_is(look, person, pipeline):
    pixels, state = person
    ankles = [COCO17.index("left_ankle"), COCO17.index("right_ankle")]
    keypoints = pipeline.body(*state, with_vertices=False).keypoints[0]
    height = float(keypoints[ankles, 1].max()) + 0.09
    unknown = look(detected(pixels))
    taller = look(detected(pixels), camera_height_m=height * 1.1)
    assert taller.root[0, 2] > unknown.root[0, 2] * 1.02
    known = look(detected(pixels), camera_height_m=height)
    assert abs(known.root[0, 2] - 3.0) < 0.15


def test_a_frames_own_floor_is_that_of_the_settings(look, person, pipeline):
    """Of a camera as it is, and upside down; and without calibration, by its field of view."""
    pixels, _ = person
    by_settings = look(detected(pixels), camera_height_m=0.9, camera_pitch_deg=3.0)
    ground = pipeline.prepare(Frame(IMAGE, CAMERA)).taken.ground
    pipeline.reset()
    pipeline.configure(PoseConfig(fov_deg=60))
    for camera in (CAMERA, None):
        pipeline.reset()
        found = pipeline.step(Frame(IMAGE, camera, ground=ground))
        np.testing.assert_allclose(found.root, by_settings.root, atol=1e-6)
    pipeline.reset()
    half_turn = np.array([-1.0, -1.0, 1.0])
    prepared = pipeline.prepare(Frame(IMAGE, CAMERA, ground=Ground(half_turn * ground.up, 0.9)))
    assert prepared.quarter_turns == 2
    np.testing.assert_allclose(prepared.upright.ground.up, ground.up, atol=1e-9)


def test_gravity_is_kept_for_a_moment_but_not_the_floor(pipeline):
    """A camera on its side whose TF is lost is not taken to be level at once."""
    pipeline.reset()
    pipeline.configure(PoseConfig())
    side = Ground(np.array([-1.0, 0.0, 0.0]), 1.2)

    def ground(stamp_s, own=None):
        return pipeline.prepare(Frame(IMAGE, CAMERA, round(stamp_s * 1e9), ground=own)).taken.ground
    assert ground(1.0, side) is side
    kept = ground(1.9)
    assert kept.height_m is None and np.allclose(kept.up, side.up)
    np.testing.assert_allclose(ground(2.1).up, (0, -1, 0), atol=1e-9)
    pipeline.configure(PoseConfig(camera_height_m=1.5))
    assert ground(3.0, Ground(side.up)).height_m == 1.5  # gravity by an IMU, height by a setting
    assert ground(3.1, side).height_m == 1.2
    pipeline.reset()
    np.testing.assert_allclose(ground(3.2).up, (0, -1, 0), atol=1e-9)


def _only(*joints):
    def spoil(pixels):
        kept = [COCO17.index(joint) for joint in joints]
        pixels[:, [i for i in range(17) if i not in kept]] = np.nan
        return pixels
    return spoil


def _collinear(pixels):
    pixels[..., 1] = 200.0
    return pixels


def _one_place(pixels):
    pixels[:] = (300.0, 200.0)
    return pixels


def _cut(pixels):
    pixels[pixels[..., 1] > 260] = np.nan
    return pixels


@pytest.mark.parametrize("spoil", [
    _only(), _only("nose"), _only("left_hip", "right_hip", "left_knee"), _collinear, _one_place,
    _cut, lambda p: p * 1e4, lambda p: -p, lambda p: p[:, COCO17.mirror],
    lambda p: np.repeat(p, 50, 0) + 20 * np.random.default_rng(0).normal(size=(50, 17, 2))],
    ids=["nothing", "a nose", "three", "collinear", "one place", "cut", "huge", "negative",
         "mirrored", "fifty"])
def test_odd_people_have_a_sound_body_or_none(look, person, spoil):
    with np.errstate(all="ignore"):
        people = look(detected(spoil(person[0].copy())), max_people=100)
    if people.root is None or not len(people):
        return
    has_body = np.isfinite(people.root).all(1)
    for name in _BODY_FIELDS:
        values = getattr(people, name).reshape(len(people), -1)
        np.testing.assert_array_equal(np.isfinite(values).all(1), has_body)
        assert not np.isfinite(values[~has_body]).any()
    bodies = people[has_body]
    assert (bodies.root[:, 2] > 0.2).all() and np.abs(bodies.betas).max(initial=0) < 8
    size = np.ptp(bodies.joints, axis=1).max(initial=0)
    assert size < 3.0


@pytest.mark.parametrize("value", [np.nan, 0.0, -1.0, np.inf, 1e12])
def test_odd_covariances_are_no_evidence(look, person, value):
    people = detected(person[0])
    cov = people.keypoint_cov.copy()
    cov[:, 5:9] = value
    with np.errstate(all="ignore"):
        seen = look(people.with_fields(keypoint_cov=cov))
    assert len(seen) == 1
    finite = [np.isfinite(getattr(seen, name)).all() for name in _BODY_FIELDS]
    assert all(finite) or not any(finite)


def test_a_body_stands_where_it_stood_when_the_camera_has_moved(person):
    _, state = person
    poses = [Transform.identity(), Transform(Rotation.from_euler("xyz", (0.1, 0.5, -0.2)),
                                             np.array([0.4, -0.1, 1.0]))]
    body = BodyState(*(value[0].double() for value in state))
    moved = TrackedBody(body, 0.0, 5, 0, poses[0]).seen_from(poses[1])
    back = poses[1].apply(moved.root.numpy())
    np.testing.assert_allclose(back, body.root, atol=1e-9)
    turned = poses[1].rotmat @ Rotation.from_quat(moved.theta[0].numpy()).as_matrix()
    np.testing.assert_allclose(turned, Rotation.from_quat(body.theta[0].numpy()).as_matrix(),
                               atol=1e-6)
    np.testing.assert_array_equal(moved.theta[1:], body.theta[1:])
    for unknown in (None, poses[1]):
        assert TrackedBody(body, 0.0, 5, 0, None).seen_from(unknown) is body


@pytest.mark.parametrize("with_depth", [False, True])
def test_a_track_carries_the_lifts_state_through_occlusion_and_forgets_it(pipeline, person,
                                                                          with_depth, monkeypatch):
    """Whether the lift was given a state, and its age; a depth image fits everyone twice."""
    ages, remember = [], pipeline.fitter.lift.remember

    def spy(points, cov, up, state, seconds):
        if len(points):
            has_state = state is not None and bool(state.isfinite().all())
            ages.append(round(float(seconds[0]), 3) if has_state else None)
        return remember(points, cov, up, state, seconds)

    monkeypatch.setattr(pipeline.fitter.lift, "remember", spy)
    seen = detected(person[0])
    depth = np.full((480, 640), 3.0, np.float32) if with_depth else None
    pipeline.reset()
    pipeline.configure(PoseConfig())
    for tenths, people in ((0, seen), (1, seen), (2, seen[:0]), (5, seen), (6, seen)):
        pipeline.network = MadeUpNetwork(people)
        pipeline.step(Frame(IMAGE, CAMERA, tenths * 100_000_000, depth))
    pipeline.reset()
    pipeline.step(Frame(IMAGE, CAMERA, 700_000_000, depth))
    each = 2 if with_depth else 1
    assert ages == [age for age in (None, 0.1, 0.4, 0.1, None) for _ in range(each)]
