"""Several cameras: fused bodies by their properties, and the pipeline around a made-up network."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from test_triangulate import look_at

from ros2_pose.body.state import BodyState
from ros2_pose.camera import Camera, rotation_of
from ros2_pose.config import PoseConfig
from ros2_pose.geometry import Transform
from ros2_pose.imaging.contrast import grey_ramp
from ros2_pose.messages.people import STATUS_PARTIAL, status_of
from ros2_pose.multiview import pipeline as multiview
from ros2_pose.multiview.fusion import Fuser, MultiviewError, View
from ros2_pose.multiview.pipeline import MultiPipeline, ground_of_camera
from ros2_pose.people import DEPTH, LOST, TRACKED, Frame, Ground, People
from ros2_pose.pipeline import Pipeline, PipelineError
from ros2_pose.skeleton import COCO17, SMPL24

CAMERA = Camera.from_fov(640, 480, 70)
POSES = [Transform.from_matrix(look_at(position)) for position in
         ((4.0, 0.0, 1.5), (0.5, 4.0, 2.2), (-3.5, -1.0, 1.2), (1.0, -4.0, 2.0))]
STD_PX = 1.5
_BODY = ("joints", "joint_cov", "theta", "betas", "root", "root_cov")


class MadeUpNetwork:
    """Finds what it is told to find: by the number in an image's first pixel."""

    search_parts, rotation_std = 0, None

    def __init__(self):
        self.found, self.batches = [], []

    def configure(self, score_threshold, max_people):
        """Find everyone, whatever is asked for."""

    def detect(self, frames):
        self.batches.append(len(frames))
        return [self.found[frame.image[0, 0, 0]] for frame in frames]


@pytest.fixture(scope="module")
def single():
    return Pipeline(PoseConfig(correct=False))


@pytest.fixture
def several(single, monkeypatch):
    """A MultiPipeline of so many cameras that shares what takes long to load."""
    monkeypatch.setattr(multiview, "Pipeline", lambda config: single.another())

    def several(cameras, **config):
        pipeline = MultiPipeline(cameras, PoseConfig(**config))
        network = MadeUpNetwork()
        for camera in pipeline.cameras:
            camera.network = network
        return pipeline
    return several


def standing(positions, yaws, body):
    """Joints (P, 24, 3) and keypoints (P, 17, 3) of people at places in a frame with z up."""
    theta = torch.zeros(len(positions), 24, 4)
    theta[..., 3] = 1
    for row, yaw in enumerate(yaws):
        rotation = Rotation.from_euler("z", yaw) * Rotation.from_euler("x", np.pi / 2)
        theta[row, 0] = torch.from_numpy(rotation.as_quat())
    for joint, sign in (("left_shoulder", -1.0), ("right_shoulder", 1.0)):
        theta[:, SMPL24.index(joint)] = torch.tensor([0.0, 0.0, sign * 0.6, 0.8])
    root = torch.tensor([(x, y, 0.95) for x, y in positions])
    posed = body(theta, torch.zeros(len(positions), 10), root, with_vertices=False)
    return posed.joints.numpy(), posed.keypoints.numpy()


def detected(keypoints, pose, rng=None, order=None) -> People:
    """What a camera finds of people with keypoints (P, 17, 3) in the common frame."""
    pixels = CAMERA.project(pose.inverse().apply(keypoints))
    if rng is not None:
        pixels = pixels + STD_PX * rng.normal(size=pixels.shape)
    pixels = pixels[slice(None) if order is None else order]
    cov = np.tile(STD_PX**2 * np.eye(2), (len(pixels), 17, 1, 1))
    boxes = np.concatenate([pixels.min(1), pixels.max(1)], 1)
    return People(boxes, np.full(len(boxes), 0.9), pixels, cov, np.full(pixels.shape[:2], 0.9))


def frame(number, stamp, pose, camera=CAMERA):
    """An image that the made-up network knows by its number."""
    image = grey_ramp(640, 480)
    image[0, 0, 0] = number
    return Frame(image, camera, stamp, None, pose)


@pytest.fixture(scope="module")
def room(single):
    """Three people as four cameras find and fit them, in another order in each; and the truth."""
    rng = np.random.default_rng(0)
    joints, keypoints = standing([(0.0, 0.0), (1.0, 0.7), (-0.9, 0.8)], (0.3, 2.0, 4.0),
                                 single.body)
    orders = [rng.permutation(3) for _ in POSES]
    views = []
    for pose, order in zip(POSES, orders):
        views.append(View(_fitted(single, detected(keypoints, pose, rng, order), pose),
                          CAMERA, pose))
    return views, orders, joints


def _fitted(single, people, pose):
    single.reset()
    single.network = MadeUpNetwork()
    single.network.found = [people]
    return single.step(replace(frame(0, 0, pose), ground=_ground(pose)))


def _ground(pose):
    return ground_of_camera(pose, np.array((0.0, 0.0, 1.0)), None)


def test_people_are_told_apart_and_their_joints_found(single, room):
    views, orders, joints = room
    fuser = Fuser(single.fitter)
    rows = fuser.associate(views)
    assert rows.shape == (3, 4)
    who = np.stack([order[column] for order, column in zip(orders, rows.T)], 1)
    assert (who == who[:, :1]).all()
    people, _ = fuser.fuse(views, rows)
    error = np.linalg.norm(people.joints - joints[who[:, 0]], axis=2)
    alone = np.concatenate([np.linalg.norm(view.in_common.joints - joints[order], axis=2)
                            for view, order in zip(views, orders)])
    assert error.mean() < 0.035 and error.mean() < 0.5 * alone.mean()
    np.testing.assert_allclose(np.linalg.norm(people.theta, axis=2), 1, atol=1e-6)


def test_the_parts_of_a_fused_person_fit_together(single, room):
    views, _, _ = room
    fuser = Fuser(single.fitter)
    people, _ = fuser.fuse(views, fuser.associate(views))
    state = BodyState(*(torch.from_numpy(getattr(people, name)) for name in BodyState._fields))
    posed = single.body(*state, with_vertices=False).joints.numpy()
    np.testing.assert_allclose(posed, people.joints, atol=1e-5)
    np.testing.assert_allclose(people.joints[:, 0], people.root, atol=1e-5)
    np.testing.assert_allclose(people.joint_cov[:, 0], people.root_cov[:, :3, :3], rtol=1e-3,
                               atol=1e-8)


def test_a_camera_more_makes_it_surer(single, room):
    views, _, _ = room
    fuser = Fuser(single.fitter)
    rows = fuser.associate(views)
    spreads = []
    for count in (1, 2, 3, 4):
        people, _ = fuser.fuse(views[:count], rows[:, :count])
        spreads.append(np.trace(people.joint_cov, axis1=2, axis2=3))
    # What a keypoint means is as uncertain for ten cameras as for one: less it cannot be. (Of the
    # keypoints' places themselves it is strictly less: test_triangulate.)
    for fewer, more in zip(spreads, spreads[1:]):
        assert (more.mean(1) < 1.05 * fewer.mean(1)).all()
    assert (spreads[1].mean(1) < 0.3 * spreads[0].mean(1)).all()
    for view, column in zip(views, rows.T):
        own = np.trace(view.people.joint_cov[column], axis1=2, axis2=3)
        assert (spreads[-1] < own).all()


def test_the_order_of_cameras_does_not_matter(single, room):
    views, _, _ = room
    fuser = Fuser(single.fitter)
    rows = fuser.associate(views)
    order = [2, 0, 3, 1]
    again = fuser.associate([views[number] for number in order])
    at = [rows[:, 0].tolist().index(row) for row in again[:, order.index(0)]]
    np.testing.assert_array_equal(again, rows[at][:, order])
    first, _ = fuser.fuse(views, rows)
    second, _ = fuser.fuse([views[number] for number in order], again)
    for name in _BODY:
        np.testing.assert_allclose(getattr(second, name), getattr(first, name)[at], atol=1e-4)


def test_another_common_frame_gives_the_same_people_there(single, room):
    views, _, _ = room
    rotation, shift = Rotation.from_euler("xyz", (0.4, -1.0, 2.0)), np.array([5.0, -2.0, 1.0])
    move = Transform(rotation, shift)
    here, there = Fuser(single.fitter), Fuser(single.fitter, rotation.apply((0.0, 0.0, 1.0)))
    rows = here.associate(views)
    moved = [view._replace(camera_to_common=move @ view.camera_to_common) for view in views]
    np.testing.assert_array_equal(there.associate(moved), rows)
    expected = here.fuse(views, rows)[0].moved(move)
    found, _ = there.fuse(moved, rows)
    for name in _BODY:
        if name != "theta":
            atol = 1e-2 if name == "betas" else 3e-3  # of a beta: less than a millimetre
            np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=atol)
    np.testing.assert_allclose(np.abs((found.theta * expected.theta).sum(2)), 1, atol=1e-3)


def test_one_camera_alone_says_what_it_sees(single, room):
    view = room[0][0]
    fuser = Fuser(single.fitter)
    rows = fuser.associate([view])
    np.testing.assert_array_equal(rows, [[0], [1], [2]])
    people, _ = fuser.fuse([view], rows)
    for name in (*_BODY, "joint_source", "scores"):
        np.testing.assert_array_equal(getattr(people, name), getattr(view.in_common, name))
    assert np.isnan(people.keypoints).all()


def test_who_was_seen_at_another_moment_is_less_certain(single, room):
    views, _, _ = room
    fuser = Fuser(single.fitter)
    rows = fuser.associate(views)
    late = [view._replace(age=0.02 * number) for number, view in enumerate(views)]
    now, then = (fuser.fuse(some, rows)[0] for some in (views, late))
    assert (np.trace(then.joint_cov, axis1=2, axis2=3).mean(1)
            > 1.02 * np.trace(now.joint_cov, axis1=2, axis2=3).mean(1)).all()


def test_a_measured_distance_counts_where_rays_are_nearly_parallel(single):
    """A stereo pair 0.1 m apart hardly knows a distance, and a depth image does."""
    beside = POSES[0] @ Transform(Rotation.identity(), np.array([0.1, 0, 0]))
    joints, keypoints = standing([(0.0, 0.0)], (1.0,), single.body)
    rng = np.random.default_rng(5)
    views = [View(_fitted(single, detected(keypoints, pose, rng), pose), CAMERA, pose)
             for pose in (POSES[0], beside)]
    people = views[0].people
    true_z = POSES[0].inverse().apply(joints[0, 0])[2]
    cov = people.root_cov.copy()
    cov[:, :, 2] = cov[:, 2] = 0
    cov[:, 2, 2] = 0.02**2
    measured = people.with_fields(
        root=people.root * true_z / people.root[:, 2:], root_cov=cov,
        joint_source=np.full_like(people.joint_source, DEPTH))
    fuser, rows = Fuser(single.fitter), np.zeros((1, 2), int)
    blind, seeing = (fuser.fuse([views[0]._replace(people=one), views[1]], rows)[0]
                     for one in (people, measured))
    away = [np.linalg.norm(one.root[0] - joints[0, 0]) for one in (blind, seeing)]
    assert away[1] < 0.06 < away[0]
    spreads = [np.trace(one.root_cov[0, :3, :3]) for one in (blind, seeing)]
    assert spreads[1] < 0.5 * spreads[0]
    assert (seeing.joint_source == DEPTH).all() and not (blind.joint_source == DEPTH).any()


def test_nobody_anywhere_is_nobody(single):
    view = View(People.nobody(), CAMERA, POSES[0])
    fuser = Fuser(single.fitter)
    rows = fuser.associate([view, view._replace(camera_to_common=POSES[1])])
    assert rows.shape == (0, 2)
    assert len(fuser.fuse([view, view], rows)[0]) == 0


@pytest.mark.parametrize("up", [(0, 0, 0), (np.nan, 0, 1)])
def test_up_must_be_a_direction(single, up):
    with pytest.raises(MultiviewError, match="up"):
        Fuser(single.fitter, up)


# -------------------------------------------------------------------------- the pipeline


def _walk(single, count, people=1):
    """Keypoints (T, P, 17, 3) of people who walk along x, 0.1 m an image."""
    return [standing([(-0.8 + 0.05 * t, 0.8 * p) for p in range(people)], [0.5] * people,
                     single.body)[1] for t in range(count)]


def _step(pipeline, keypoints, number, cameras=range(4), rng=None):
    """One step at 10 Hz; a camera that is not named has no frame."""
    network = pipeline.cameras[0].network
    network.found = [detected(keypoints, pose, rng) for pose in POSES]
    stamp = number * 100_000_000
    return pipeline.step([frame(c, stamp, POSES[c]) if c in cameras else None
                          for c in range(len(pipeline.cameras))])


def test_people_keep_their_ids_and_their_velocity_is_that_of_the_common_frame(single, several):
    pipeline, rng = several(4), np.random.default_rng(1)
    ids = set()
    for number, keypoints in enumerate(_walk(single, 12, 2)):
        scene = _step(pipeline, keypoints, number, rng=rng)
        ids.add(scene.people.ids)
        assert scene.rows.shape == (2, 4) and (scene.rows >= 0).all()
    assert ids == {("p1", "p2")}
    assert (scene.people.tracking_state == TRACKED).all()
    np.testing.assert_allclose(scene.people.velocity, [[0.5, 0, 0]] * 2, atol=0.25)
    assert set(pipeline.cameras[0].network.batches) == {4}  # one inference for all cameras


def test_one_camera_is_the_single_view_pipeline(single, several):
    pipeline = several(1)
    single.reset()
    single.network = MadeUpNetwork()
    for number, keypoints in enumerate(_walk(single, 4, 2)):
        scene = _step(pipeline, keypoints, number, [0])
        single.network.found = pipeline.cameras[0].network.found
        expected = single.step(replace(frame(0, number * 100_000_000, POSES[0]),
                                       ground=_ground(POSES[0])))
        expected = expected.moved(POSES[0])
        for name in _BODY:
            np.testing.assert_allclose(getattr(scene.people, name), getattr(expected, name),
                                       atol=1e-5)
        assert scene.people.ids == expected.ids


def test_each_camera_has_its_own_floor_and_keeps_gravity_alone(several):
    """A floor by TF; without, gravity by the camera's pose; without that, gravity as last known."""
    pipeline = several(2)
    seen = []
    for camera in pipeline.cameras:
        camera.prepare = lambda f, prepare=camera.prepare: (seen.append(f.ground), prepare(f))[1]
    up = _ground(POSES[0]).up
    floors = [Ground(up, 1.2), None]
    pipeline.cameras[0].network.found = [People.nobody()] * 2
    for number in range(3):
        given = [frame(camera, number * 10**8, POSES[camera] if number < 2 else None)
                 for camera in range(2)]
        pipeline.step([replace(one, ground=floors[camera] if number == 0 else None)
                       for camera, one in enumerate(given)])
    assert [ground.height_m for ground in seen] == [1.2, None, None, None, None, None]
    for camera, ground in enumerate(seen):
        np.testing.assert_allclose(ground.up, _ground(POSES[camera % 2]).up, atol=1e-9)


def test_who_walks_from_one_camera_to_others_keeps_the_id(single, several):
    pipeline, rng = several(4), np.random.default_rng(2)
    rotations = [(0, 1)] * 4 + [(1,)] * 3 + [(1, 2)] * 3 + [(2, 3)] * 4
    for number, (keypoints, cameras) in enumerate(zip(_walk(single, 14), rotations)):
        scene = _step(pipeline, keypoints, number, cameras, rng)
        assert scene.people.ids == ("p1",)
        assert [v is not None for v in scene.views] == [c in cameras for c in range(4)]


def test_who_steps_out_of_the_others_sight_keeps_the_size_that_all_saw(single, several):
    """The body here is far from the mean of adults: alone, a camera misjudges its distance."""
    tall = np.random.default_rng(3)

    def far_off(fused_first):
        pipeline = several(4, adult_height_m=1.5)
        for number, keypoints in enumerate(_walk(single, 10)):
            cameras = range(4) if fused_first and number < 5 else [0]
            scene = _step(pipeline, keypoints, number, cameras, tall)
        hips = [COCO17.index("left_hip"), COCO17.index("right_hip")]
        joints = [SMPL24.index("left_hip"), SMPL24.index("right_hip")]
        return np.linalg.norm(scene.people.joints[0, joints].mean(0) - keypoints[0, hips].mean(0))

    assert far_off(True) < 0.7 * far_off(False)


def test_those_out_of_sight_are_lost_and_forgotten(single, several):
    pipeline = several(2, lost_s=0.35)
    walk = _walk(single, 5)
    for number, keypoints in enumerate(walk):
        _step(pipeline, keypoints, number)
    nobody = keypoints[:0]
    states = []
    for number in range(5, 11):
        scene = _step(pipeline, nobody, number)
        assert (scene.rows == -1).all() and len(scene.rows) == len(scene.people)
        states.append(scene.people.tracking_state.tolist())
    assert states[:2] == [[LOST]] * 2 and states[-1] == []


def test_a_camera_without_pose_or_calibration_is_left_out_and_said(single, several):
    pipeline = several(3)
    keypoints = _walk(single, 1)[0]
    pipeline.cameras[0].network.found = [detected(keypoints, pose) for pose in POSES]
    scene = pipeline.step([frame(0, 0, POSES[0]), frame(1, 0, None),
                           frame(2, 0, POSES[2], camera=None)])
    assert [view is None for view in scene.views] == [False, True, True]
    assert "camera 2" in scene.people.note and "pose" in scene.people.note
    assert "camera 3" in scene.people.note and "calibration" in scene.people.note
    assert len(scene.people) == 1


@pytest.mark.parametrize("people", [0, 1])
def test_a_camera_left_out_does_not_make_the_rest_two_dimensional(single, several, people):
    pipeline = several(3)
    keypoints = _walk(single, 1)[0][:people]
    pipeline.cameras[0].network.found = [detected(keypoints, pose) for pose in POSES]
    scene = pipeline.step([frame(0, 0, POSES[0]), frame(1, 0, None), frame(2, 0, POSES[2])])
    assert len(scene.people) == people and scene.people.note
    assert status_of(scene.people) == STATUS_PARTIAL


def test_a_view_of_the_scene_has_the_fused_body_over_its_own_pixels(single, several):
    pipeline = several(4)
    keypoints = _walk(single, 1, 2)[0]
    scene = _step(pipeline, keypoints, 0)
    for number, pose in enumerate(POSES):
        people = scene.in_view(number)
        assert len(people) == 2 and people.ids == scene.people.ids
        shoulders = [SMPL24.index(f"{side}_shoulder") for side in ("left", "right")]
        pixels = CAMERA.project(people.joints[:, shoulders])
        own = people.keypoints[:, [COCO17.index(f"{side}_shoulder") for side in ("left", "right")]]
        assert np.linalg.norm(pixels - own, axis=2).max() < 12


def test_what_cannot_be_looked_at_is_an_error(single, several):
    pipeline = several(2)
    with pytest.raises(MultiviewError, match="no camera"):
        pipeline.step([None, None])
    with pytest.raises(MultiviewError, match="3 frames for 2"):
        pipeline.step([None] * 3)
    with pytest.raises(PipelineError):
        pipeline.step([replace(frame(0, 0, POSES[0]), image=np.zeros((4, 4))), None])
    with pytest.raises(MultiviewError, match="camera_height_m"):
        pipeline.configure(PoseConfig(camera_height_m=1.0))


def test_time_that_starts_again_forgets_everyone(single, several):
    pipeline = several(2)
    walk = _walk(single, 3)
    for number, keypoints in enumerate(walk):
        _step(pipeline, keypoints, number + 50)
    scene = _step(pipeline, walk[0], 0)
    assert scene.people.ids == ("p1",) and scene.people.age[0] == 0


@pytest.mark.parametrize("rotations", [1, 2, 3])
def test_a_camera_mounted_upside_down_or_on_its_side_sees_the_same(single, several, rotations):
    """Camera 2 is rolled, its pictures and pose with it; its network finds people upright."""
    upright, mounted = several(3), several(3)
    camera_from_mounted = Transform(Rotation.from_matrix(rotation_of(rotations)), np.zeros(3))
    shape = (480, 640) if rotations % 2 == 0 else (640, 480)
    rolled = CAMERA.rotated(-rotations)
    for number, keypoints in enumerate(_walk(single, 6)):
        expected = _step(upright, keypoints, number, range(3))
        mounted.cameras[0].network.found = [detected(keypoints, pose) for pose in POSES]
        frames = [frame(c, number * 100_000_000, POSES[c]) for c in range(3)]
        image = np.ascontiguousarray(np.rot90(frames[1].image, -rotations))
        assert image.shape[:2] == shape
        frames[1] = replace(frames[1], image=image, camera=rolled,
                            camera_to_fixed=POSES[1] @ camera_from_mounted)
        found = mounted.step(frames)
    np.testing.assert_allclose(found.people.root, expected.people.root, atol=1e-4)
    np.testing.assert_allclose(found.people.joints, expected.people.joints, atol=1e-3)
    assert found.people.ids == expected.people.ids
    seen = found.in_view(1)  # in the picture and the frame of the camera as it is mounted
    joints = seen.joints[0, [SMPL24.index("left_shoulder"), SMPL24.index("right_shoulder")]]
    own = seen.keypoints[0, [COCO17.index("left_shoulder"), COCO17.index("right_shoulder")]]
    assert np.linalg.norm(rolled.project(joints) - own, axis=1).max() < 12


def test_a_camera_that_shows_nothing_is_left_out_and_said(single, several):
    pipeline = several(2)
    pipeline.cameras[0].network.found = [detected(_walk(single, 1)[0], pose) for pose in POSES]
    black = replace(frame(1, 0, POSES[1]), image=np.zeros((480, 640, 3), np.uint8))
    scene = pipeline.step([frame(0, 0, POSES[0]), black])
    assert len(scene.people) == 1 and "camera 2: the picture shows nothing" in scene.people.note
    with pytest.raises(MultiviewError, match="camera 1: .*nothing.*camera 2: .*nothing"):
        pipeline.step([replace(black, stamp=10**8)] * 2)


def test_no_more_people_than_asked_for(single, several):
    pipeline = several(2, max_people=1)
    for number, keypoints in enumerate(_walk(single, 4, 2)):
        scene = _step(pipeline, keypoints, number, range(2))
        assert len(scene.people) == 1 == len(scene.rows)
