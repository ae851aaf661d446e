"""Skeletons placed by their size: along their rays, in any direction, at any distance."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ros2_pose.body.model import BodyModel
from ros2_pose.body.placement import mean_lengths2, placed_joints
from ros2_pose.camera import Camera
from ros2_pose.imaging.crop import crop_person
from ros2_pose.networks.refiner import Refined, joints_in_camera
from ros2_pose.people import Frame, Ground


@pytest.fixture(scope="module")
def joints(poses):
    """(8, 24, 3) m of people with the mean shape, 2 to 9 m away; y down."""
    from scipy.spatial.transform import Rotation
    quats = torch.from_numpy(Rotation.from_rotvec(poses[:8].reshape(-1, 3).numpy()).as_quat())
    theta = quats.reshape(8, 24, 4).float()
    theta[:, 0] = torch.tensor([1.0, 0, 0, 0])
    posed = BodyModel.load()(theta, torch.zeros(8, 10), with_vertices=False).joints
    roots = torch.tensor([[0.3 * k - 1, 0.1 * k, 2.0 + k] for k in range(8)])
    return (posed - posed[:, :1] + roots[:, None]).double()


def _rays(joints, view):
    return joints / (joints @ view)[..., None]


@pytest.mark.parametrize("view", [(0.0, 0, 1), (0.2, -0.1, 0.95)])
def test_true_rays_and_depths_give_the_true_joints(joints, view):
    view = torch.tensor(view).double()
    view = view / view.norm()
    depths = joints @ view
    placed, ok = placed_joints(_rays(joints, view), depths - depths[:, :1], mean_lengths2())
    assert ok.all()
    torch.testing.assert_close(placed, joints, atol=1e-4, rtol=0)


def test_a_flat_person_of_twice_the_size_is_twice_as_far(joints):
    view = torch.tensor([0.0, 0, 1]).double()
    rays, flat = _rays(joints, view), torch.zeros(8, 24).double()
    near, _ = placed_joints(rays, flat, mean_lengths2())
    far, _ = placed_joints(rays, flat, 4 * mean_lengths2())
    torch.testing.assert_close(far, 2 * near)


def test_depths_longer_than_the_bones_have_no_place(joints):
    view = torch.tensor([0.0, 0, 1]).double()
    depths = 5 * torch.arange(24).double().repeat(8, 1)
    placed, ok = placed_joints(_rays(joints, view), depths, mean_lengths2())
    assert not ok.any() and placed.isnan().all()


@pytest.mark.parametrize("roll_deg", [0, 25])
@pytest.mark.parametrize("lens", [(), (-0.3, 0.1, 0.0, 0.0, 0.0)])
def test_joints_come_back_from_a_crop_of_any_kind(joints, roll_deg, lens):
    """Cut out as it is, rotated, or as a perspective view of what a lens bends."""
    camera = Camera(640, 480, 420, 430, 320, 240, distortion=lens) if lens \
        else Camera(640, 480, 420, 430, 320, 240)
    roll = np.radians(roll_deg)
    ground = Ground(np.array([np.sin(roll), -np.cos(roll), 0.0]))
    person = joints[3].numpy()
    pixels = camera.project(person)
    box = np.r_[pixels.min(0), pixels.max(0)]
    crop = crop_person(Frame(np.zeros((480, 640, 3), np.uint8), camera, ground=ground), box, 256)
    middle = crop.to_picture(np.array(crop.image.shape[1::-1]) / 2)
    view = np.r_[camera.normalise(middle), 1.0]
    depths = person @ (view / np.linalg.norm(view))
    found = np.c_[crop.from_picture(pixels), depths - depths[0]]
    nothing = np.zeros((17, 2)), np.zeros((17, 2, 2)), np.zeros(17), 0.0
    placed = joints_in_camera(Refined(*nothing, joints=found), crop, camera)
    np.testing.assert_allclose(placed, person, atol=2e-3)
