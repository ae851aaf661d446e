"""The pose prior: derivatives, symmetry, what is likely, and that it can be rebuilt."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ros2_pose.assets import train_pose_prior
from ros2_pose.body.prior import FILE, PosePrior
from ros2_pose.data.mocap import held_back, mirrored, with_collars
from ros2_pose.skeleton import SMPL24

MOCAP = Path(__file__).parents[1] / "../shared/mocap/cmu_theta_10hz.npz"


@pytest.fixture(scope="module")
def prior():
    return PosePrior.load()


def pose(**degrees):
    rotvecs = torch.zeros(1, 23, 3, dtype=torch.float64)
    for joint, rotation in degrees.items():
        rotvecs[0, SMPL24.index(joint) - 1] = torch.tensor(np.radians(rotation))
    return rotvecs


def cost_of(prior, chords):
    cost, _, _ = prior.quadratic(chords.flatten(1).numpy())
    return cost


def test_quadratic_is_the_derivative_of_its_cost(prior):
    """By central differences, which are exact for a function of second degree."""
    chords = pose(left_knee=(-30, 5, 0), right_elbow=(0, -40, 10), neck=(20, 0, 0)).view(1, 69)
    cost, gradient, hessian = prior.quadratic(chords.numpy())
    step = 1e-3 * np.eye(69)
    ahead, behind = (prior.quadratic(chords.numpy() + sign * step) for sign in (1, -1))
    np.testing.assert_allclose(gradient[0], (ahead[0] - behind[0]) / 2e-3, atol=1e-7)
    np.testing.assert_allclose(hessian[0], (ahead[1] - behind[1]) / 2e-3, atol=1e-7)


def test_left_and_right_are_alike(prior):
    rotvecs = torch.tensor(np.random.default_rng(1).normal(0, 0.4, (5, 24, 3)))
    other = torch.tensor(mirrored(rotvecs.numpy()))
    np.testing.assert_allclose(cost_of(prior, rotvecs[:, 1:]), cost_of(prior, other[:, 1:]),
                               rtol=1e-3)


def test_knees_and_elbows_bend_one_way(prior):
    def cost(**degrees):
        return cost_of(prior, pose(**degrees)).item()
    assert cost(left_knee=(-30, 0, 0)) > cost(left_knee=(60, 0, 0)) + 5
    assert cost(left_elbow=(0, 40, 0)) > cost(left_elbow=(0, -60, 0)) + 5
    assert cost(right_elbow=(0, -40, 0)) > cost(right_elbow=(0, 60, 0)) + 5


def test_shipped_file_is_small_and_needs_no_pickle():
    assert FILE.stat().st_size < 150e3
    with np.load(FILE, allow_pickle=False) as file:
        assert set(file.files) == {"mean", "whitener"}


def test_collars_do_not_move_the_arms():
    theta = np.random.default_rng(2).normal(0, 0.6, (20, 24, 3))
    moved = with_collars(theta)
    for side in ("left", "right"):
        collar, shoulder = SMPL24.index(f"{side}_collar"), SMPL24.index(f"{side}_shoulder")
        arm = Rotation.from_rotvec(moved[:, collar]) * Rotation.from_rotvec(moved[:, shoulder])
        np.testing.assert_allclose(arm.as_matrix(),
                                   Rotation.from_rotvec(theta[:, shoulder]).as_matrix(), atol=1e-9)
    lowered = np.zeros((1, 24, 3))
    lowered[0, SMPL24.index("left_shoulder")] = [0, 0, -1.2]
    assert with_collars(lowered)[0, SMPL24.index("left_collar"), 2] < -0.1


def test_a_fifth_of_the_trials_is_held_back_whole():
    sources = np.repeat([f"{i:02d}_01" for i in range(10)], 3)
    held = held_back(sources)
    assert held.sum() == 6 and all(len(set(held[sources == s])) == 1 for s in sources)


@pytest.mark.skipif(not MOCAP.is_file(), reason="needs the motion capture data")
def test_shipped_file_is_what_the_command_builds(prior):
    built = train_pose_prior.build(MOCAP)
    np.testing.assert_allclose(prior.mean, built["mean"], atol=1e-3)
    diagonal = prior.whitener.diagonal()
    np.testing.assert_allclose(diagonal, built["whitener"][_diagonal_of_lower()], rtol=1e-2)


def _diagonal_of_lower():
    rows, columns = np.tril_indices(69)
    return rows == columns
