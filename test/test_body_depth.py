"""Distance by depth images: drawn here triangle by triangle, with a sensor's faults."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ros2_pose.body.depth import DepthError, DepthGauge
from ros2_pose.body.model import OPEN_BODY, BodyModel
from ros2_pose.body.prior import PosePrior
from ros2_pose.body.smpl_file import read_open_body
from ros2_pose.body.so3 import (
    quat_from_rotmat,
    quat_from_rotvec,
    quat_product,
    rotmat_from_rotvec,
)
from ros2_pose.body.state import BodyState
from ros2_pose.camera import Camera
from ros2_pose.data.synthetic.depth_camera import depth_image, sensed
from ros2_pose.messages.image import depth_from_image
from ros2_pose.skeleton import SMPL24

CAMERA = Camera.from_fov(640, 480, 70)
COUNT = 16
PRIOR_SHARE = 0.06  # of the distance: how well it is known without depth


@pytest.fixture(scope="module")
def model():
    return BodyModel.load()


@pytest.fixture(scope="module")
def gauge(model):
    return DepthGauge(model)


@pytest.fixture(scope="module")
def people():
    """People near the prior's mean who face anywhere, 2 to 5 m away."""
    prior, rng = PosePrior.load(), np.random.default_rng(4)
    white = torch.tensor(rng.normal(0, 0.6, (COUNT, 69)))
    yaw = torch.tensor(rng.uniform(0, 2 * np.pi, (COUNT, 1))) * torch.tensor([0.0, 1, 0])
    upright = torch.diag(torch.tensor([1.0, -1, -1], dtype=torch.float64))
    facing = quat_from_rotmat(upright @ rotmat_from_rotvec(yaw))
    theta = torch.cat([facing[:, None], prior.pose(white)], 1)
    depth = rng.uniform(2, 5, COUNT)
    root = np.stack([rng.uniform(-0.3, 0.3, COUNT) * depth, 0.1 * depth, depth], 1)
    return BodyState(theta, torch.tensor(rng.normal(0, 0.3, (COUNT, 10))), torch.tensor(root))


@pytest.fixture(scope="module")
def scenes(model, people):
    """An image of a sensor for each person alone, with a wall behind."""
    rng = np.random.default_rng(5)
    return [sensed(depth_image(model, people.rows([i]), CAMERA, z + rng.uniform(0.4, 3)), rng)
            for i, z in enumerate(people.root[:, 2].tolist())]


@pytest.fixture(scope="module")
def guesses(people):
    """Bodies that are a tenth too near or too far, each joint rotated by a few degrees."""
    rng = np.random.default_rng(6)
    wrong = torch.tensor(0.1 * rng.choice([-1, 1], (COUNT, 1)))
    rotations = torch.tensor(rng.normal(0, np.radians(4), (COUNT, 24, 3)))
    betas = people.betas + torch.tensor(rng.normal(0, 0.3, (COUNT, 10)))
    return BodyState(quat_product(people.theta, quat_from_rotvec(rotations)), betas,
                     people.root * (1 + wrong))


def prior_std(state):
    return PRIOR_SHARE * state.root[:, 2].numpy()


def measure(gauge, depth, state, camera=CAMERA, observed=None):
    return gauge.measure(depth, camera, state, prior_std(state), observed)


def measure_each(gauge, scenes, states, observed=None):
    """(n,) root z and std of person i in scene i."""
    found = [measure(gauge, scene, states.rows([i]),
                     observed=None if observed is None else observed[[i]])
             for i, scene in enumerate(scenes)]
    root_z, std, _ = (np.concatenate(values) for values in zip(*found))
    return root_z, std


def test_depth_error_falls_from_ten_to_one_percent(gauge, scenes, people, guesses):
    root_z, std = measure_each(gauge, scenes, guesses)
    truth = people.root[:, 2].numpy()
    assert np.isfinite(root_z).mean() > 0.9
    assert np.nanmedian(np.abs(root_z / truth - 1)) < 0.01
    assert np.nanmax(np.abs(root_z / truth - 1)) < 0.04
    assert np.nanmean(np.abs(root_z - truth) < 2 * std) > 0.9
    assert np.nanmax(std) < 0.1 and np.nanmin(std) >= 0.02


def test_the_correction_is_a_factor_where_the_body_fits_the_image(gauge, model, people):
    """A person of another size at another distance looks the same: depth scales, pixels do not."""
    state = people.rows([0])
    depth = depth_image(model, state, CAMERA, wall=6.0)
    for factor in (0.9, 1.1):
        root_z, _, _ = measure(gauge, depth * np.float32(factor), state)
        assert root_z[0] == pytest.approx(factor * state.root[0, 2].item(), rel=0.01)


def test_an_occluding_person_does_not_bias_the_depth(gauge, model, people, guesses):
    rng, some = np.random.default_rng(7), range(8)
    scenes, shift = [], torch.tensor([0.35, 0.0, 0.0])
    for i in some:
        position = people.root[i] * (1 - 0.6 / people.root[i, 2]) + shift * rng.choice([-1, 1])
        other = people.rows([i + 8])._replace(root=position[None])
        both = BodyState(*(torch.cat(pair) for pair in zip(people.rows([i]), other)))
        wall = people.root[i, 2].item() + 1
        scenes.append(sensed(depth_image(model, both, CAMERA, wall), rng))
    root_z, std = measure_each(gauge, scenes, guesses)
    error = root_z - people.root[:8, 2].numpy()
    assert np.isfinite(root_z).sum() >= 6
    assert np.nanmedian(np.abs(error) / people.root[:8, 2].numpy()) < 0.01
    assert np.nanmax(np.abs(error)) < 0.15  # he is 0.6 m in front
    assert np.nanmean(np.abs(error) < 2 * std) > 0.8


def test_a_table_hides_the_legs(gauge, scenes, people, guesses):
    """Half of the body agrees on the table; the joints that the image shows decide."""
    hidden = [scene.copy() for scene in scenes[:8]]
    for scene, root in zip(hidden, people.root.numpy()):
        scene[int(CAMERA.project(root)[1]):] = root[2] - 0.5
    observed = np.full((8, 24), True)
    below = ("left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle")
    observed[:, [SMPL24.index(name) for name in below]] = False
    root_z, std = measure_each(gauge, hidden, guesses, observed)
    error = root_z - people.root[:8, 2].numpy()
    assert np.isfinite(root_z).sum() >= 6
    assert np.nanmax(np.abs(error)) < 0.2 and np.nanmean(np.abs(error) < 2 * std) > 0.8


def test_which_joints_are_seen(gauge, model, upright):
    body = upright[0]
    state = BodyState(*(torch.from_numpy(v) for v in (body.theta, body.betas, body.root)))
    depth = depth_image(model, state, CAMERA, wall=6.0)
    _, _, joint_seen = measure(gauge, depth, state)
    assert joint_seen.mean() > 0.9
    row = int(CAMERA.project(body.joints[0, SMPL24.index("left_knee")])[1]) - 20
    depth[row:] = 3.0
    _, _, joint_seen = measure(gauge, depth, state)
    seen = joint_seen[0]
    assert seen[[SMPL24.index(n) for n in ("pelvis", "left_shoulder", "right_elbow", "head")]].all()
    assert not seen[[SMPL24.index(n) for n in ("left_knee", "right_ankle", "left_foot")]].any()


@pytest.mark.parametrize("value", [np.nan, 0.0, np.inf, -1.0])
def test_no_depth_gives_no_measurement(gauge, people, value):
    root_z, std, joint_seen = measure(gauge, np.full((480, 640), value, np.float32), people)
    assert np.isnan(root_z).all() and np.isnan(std).all() and not joint_seen.any()


def test_a_wall_is_not_measured_as_a_person(gauge, scenes, people):
    """A wall in front of all people, and a room without people."""
    nearest, farthest = people.root[:, 2].min().item(), people.root[:, 2].max().item()
    for wall in (0.6 * nearest, 1.5 * farthest):
        root_z, _, _ = measure(gauge, np.full((480, 640), wall, np.float32), people)
        assert np.isnan(root_z).all()


def test_alone_and_together_are_the_same(gauge, scenes, guesses):
    together = measure(gauge, scenes[0], guesses)
    for i in range(4):
        alone = measure(gauge, scenes[0], guesses.rows([i]))
        for one, all_of_them in zip(alone, together):
            np.testing.assert_allclose(one[0], all_of_them[i], rtol=1e-5)


def test_invalid_people_are_not_measured_and_do_not_influence_others(gauge, scenes, guesses):
    odd = guesses.rows([0] * 6)
    odd.root[1] = torch.tensor([0.0, 0.0, -3.0])  # behind the camera
    odd.root[2] = torch.tensor([30.0, 0.0, 3.0])  # outside of the image
    odd.theta[3, 5] = torch.nan
    odd.root[5] = torch.tensor([0.0, 0.0, 1e-3])  # around the camera
    std = prior_std(odd)
    std[4] = np.nan
    root_z, _, _ = gauge.measure(scenes[0], CAMERA, odd, std)
    np.testing.assert_array_equal(np.isnan(root_z), [False] + [True] * 5)
    expected, _, _ = measure(gauge, scenes[0], guesses)
    assert root_z[0] == pytest.approx(expected[0])
    assert [len(values) for values in measure(gauge, scenes[0], guesses.rows([]))] == [0, 0, 0]


@pytest.mark.parametrize("depth, words", [
    (np.ones((240, 320), np.float32), "320x240.*640x480.*registered"),
    (np.ones((0, 0), np.float32), "0x0"), (np.ones((480, 640, 1), np.float32), "1x640x480"),
    (np.ones((480, 640), np.uint16), "uint16.*depth_from_image")])
def test_depth_of_another_size_or_type_is_refused(gauge, guesses, depth, words):
    with pytest.raises(DepthError, match=words):
        measure(gauge, depth, guesses)


def test_millimetres_and_metres_agree(gauge, scenes, guesses):
    metres = scenes[0] + np.float32(0.0003)  # between millimetres
    images = [("32FC1", metres.astype("<f4")),
              ("16UC1", np.round(np.nan_to_num(metres) * 1000).astype("<u2"))]
    found = []
    for encoding, data in images:
        message = SimpleNamespace(height=480, width=640, encoding=encoding, is_bigendian=0,
                                  step=data[0].nbytes, data=data.tobytes())
        root_z, _, _ = measure(gauge, depth_from_image(message), guesses.rows([0]))
        found.append(root_z[0])
    assert found[0] == pytest.approx(found[1], abs=1e-3)


def test_a_distorted_lens(gauge, model, people):
    camera = replace(CAMERA, distortion=(-0.25, 0.06, 0.0, 0.0))
    state = people.rows([1])
    root_z, _, _ = measure(gauge, depth_image(model, state, camera, wall=6.0), state, camera)
    assert root_z[0] == pytest.approx(state.root[0, 2].item(), rel=0.01)


def test_a_body_without_a_coarse_surface(scenes, people, guesses):
    """Like SMPL files of users."""
    arrays = replace(read_open_body(OPEN_BODY), coarse_faces=np.zeros((0, 3), np.int64))
    root_z, _ = measure_each(DepthGauge(BodyModel(arrays)), scenes, guesses)
    assert np.nanmedian(np.abs(root_z / people.root[:, 2].numpy() - 1)) < 0.01
