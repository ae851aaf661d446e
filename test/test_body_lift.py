"""The lift: invariances, missing keypoints, and training."""

import csv

import numpy as np
import pytest
import torch

from ros2_pose.body.lift import FILE, HYPOTHESES, Lift, person_view
from ros2_pose.body.model import BodyModel
from ros2_pose.body.so3 import rotmat_from_quat, rotmat_from_rotvec
from ros2_pose.data.synthetic.keypoints import Projector
from ros2_pose.errors import PoseError
from ros2_pose.skeleton import COCO17
from ros2_pose.training import train_lift
from ros2_pose.training.losses import gaussian_nll, pose_loss, shape_loss


@pytest.fixture(scope="module")
def lift():
    return Lift.load()


@pytest.fixture(scope="module")
def people():
    """People in poses near the T-pose: no motion capture is at hand in a test."""
    poses = 0.3 * torch.randn(50, 24, 3, generator=torch.Generator().manual_seed(0))
    return Projector(BodyModel.load(), poses, seed=1).draw(64)


def turned(points, cov, rotation):
    """Keypoints and covariances in a camera rotated by (3, 3)."""
    rays = torch.nn.functional.pad(points, (0, 1), value=1.0) @ rotation.T
    image = rays[..., :2] / rays[..., 2:]
    jacobian = (rotation[:2, :2] - image[..., None] * rotation[2:, :2]) / rays[..., 2:, None]
    return image, jacobian @ cov @ jacobian.mT


def test_a_camera_turned_sideways_sees_the_same_people(lift, people):
    """Yaw changes the direction of the rays, a feature of its own, but not the keypoints relative
    to the virtual camera, nor, nearly, the distance."""
    rotation = rotmat_from_rotvec(torch.tensor([0.0, 0.2, 0.0]))
    points, cov = turned(people.points, people.cov, rotation)
    features, _, rays_std = person_view(people.points, people.cov)
    turned_features, _, turned_rays_std = person_view(points, cov)
    level = (people.root[:, 1] / people.root[:, 2]).abs() < 0.05  # others roll
    difference = (features - turned_features)[level][:, :-3].abs()
    assert difference.mean() < 0.03
    np.testing.assert_allclose(turned_rays_std[level], rays_std[level], rtol=0.1)


def test_distance_scales_and_pose_stays(lift, people):
    """The same image from a camera with other pixels is the same image; a person half as large is
    twice as far, in the same pose."""
    centre = people.points.nanmean(1, keepdim=True)
    small = lift(centre + (people.points - centre) * 0.5, people.cov * 0.25)
    large = lift(people.points, people.cov)
    ratio = small.root.norm(dim=2) / large.root.norm(dim=2)
    assert ((ratio.median() - 2).abs() < 0.3)


def test_missing_points_may_hold_anything(lift, people):
    points, cov = people.points.clone(), people.cov.clone()
    missing = points.isnan().any(2)
    cov[missing] = torch.nan
    for a, b in zip(lift(people.points, people.cov), lift(points, cov)):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    unseen = lift(torch.full((1, 17, 2), torch.nan), torch.full((1, 17, 2, 2), torch.nan))
    assert all(value.isfinite().all() for value in unseen)


def test_alone_as_in_a_batch_and_finite(lift, people):
    together = lift(people.points, people.cov)
    alone = lift(people.points[3:4], people.cov[3:4])
    for a, b in zip(alone, together):
        assert a.isfinite().all() and b.shape[:2] == (64, HYPOTHESES)
        np.testing.assert_allclose(a[0], b[3], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(together.theta.norm(dim=3), 1, atol=1e-5)
    assert lift(people.points[:0], people.cov[:0]).root.shape == (0, HYPOTHESES, 3)


def test_left_is_left(lift):
    """A person that faces the camera; with left and right exchanged, one seen from behind."""
    names = {"shoulder": (0.2, -0.5), "elbow": (0.25, -0.25), "wrist": (0.27, 0.0),
             "hip": (0.12, 0.0), "knee": (0.13, 0.42), "ankle": (0.14, 0.82)}
    points = torch.full((1, 17, 2), torch.nan)
    for name, (x, y) in names.items():
        points[0, COCO17.index(f"left_{name}")] = torch.tensor([x, y]) / 4
        points[0, COCO17.index(f"right_{name}")] = torch.tensor([-x, y]) / 4
    cov = torch.eye(2).expand(1, 17, 2, 2) * 0.003**2
    likeliest = []
    for seen in (points, points[:, COCO17.mirror]):
        lifted = lift(seen, cov)
        likeliest.append(rotmat_from_quat(lifted.theta[0, lifted.logits[0].argmax(), 0]))
    front, back = likeliest
    assert front[2, 2] < -0.7 and back[2, 2] > 0.7  # the body's z axis looks out of the chest
    assert front[1, 1] < -0.8 and back[1, 1] < -0.8  # and its y axis up


def test_shipped_file_is_small_and_has_its_log():
    assert FILE.stat().st_size < 8e6
    with open(FILE.with_suffix(".csv")) as file:
        lines = list(csv.DictReader(file))
    assert float(lines[-1]["held_back_mpjpe_mm"]) < float(lines[0]["held_back_mpjpe_mm"])


# -------------------------------------------------------------------------------- learning


def test_losses_by_hand():
    betas = torch.tensor([[0.5, -2.0] + [0.0] * 8])
    expected = 2 / 9 * 0.25 + 2 / 3 * 2 - 0.5
    np.testing.assert_allclose(shape_loss(betas, torch.zeros(1, 10)), [expected], rtol=1e-6)
    quats = torch.zeros(1, 24, 4)
    quats[..., 3] = 1
    other = -quats.clone()
    other[0, 5] = torch.tensor([0.0, 0.6, 0.0, 0.8])
    np.testing.assert_allclose(pose_loss(quats, other), [0.6 + 0.2], rtol=1e-6)
    nll = -torch.distributions.Normal(0.0, 2.0).log_prob(torch.tensor(3.0))
    np.testing.assert_allclose(gaussian_nll(torch.tensor(9.0), torch.tensor(2.0)), nll, rtol=1e-6)


@pytest.fixture
def projector():
    poses = 0.3 * torch.randn(50, 24, 3, generator=torch.Generator().manual_seed(0))
    return lambda seed=0: Projector(BodyModel.load(), poses, seed=seed)


def test_learns_and_goes_on_exactly_where_it_stopped(projector):
    whole, first = (
        train_lift.LiftTrainer(projector(), steps=12, batch=32, rate=2e-3) for _ in range(2)
    )
    losses = [whole.train_step()["total"] for _ in range(12)]
    for _ in range(5):
        first.train_step()
    second = train_lift.LiftTrainer(projector(7), steps=12, batch=32, rate=2e-3)
    second.resume(first.state())
    resumed = [second.train_step()["total"] for _ in range(7)]
    np.testing.assert_allclose(resumed, losses[5:], rtol=1e-5)
    assert losses[-1] < losses[0]


def test_a_loss_that_is_not_finite_stops_with_its_terms(projector):
    run = train_lift.LiftTrainer(projector(), steps=3, batch=8, rate=1e-3)
    run.network.leave[1].bias.data[0] = torch.nan
    with pytest.raises(PoseError, match="step 0: the loss is not finite: shape"):
        run.train_step()


def test_projections_are_what_a_pinhole_camera_sees(projector):
    people = projector(3).draw(200)
    assert (people.keypoints[..., 2] > 0.1).all()
    seen = people.points.isfinite().all(2)
    assert (seen[:, 5:].sum(1) >= 4).all() and 0.5 < seen.float().mean() < 0.95
    exact = people.keypoints[..., :2] / people.keypoints[..., 2:]
    size = (exact - exact.mean(1, keepdim=True)).square().sum(2).mean(1).sqrt()
    off = (people.points - exact).norm(dim=2) / size[:, None]
    assert 0.01 < off[seen].median() < 0.15
    again = projector(3).draw(200)
    np.testing.assert_array_equal(people.points, again.points)


def test_blended_weights_lie_between_and_new_ones_stay():
    start = {"a": torch.zeros(2)}
    trained = {"a": torch.tensor([2.0, 4.0]).half(), "b": torch.ones(1)}
    for share, expected in ((0.0, [0, 0]), (0.25, [0.5, 1]), (1.0, [2, 4])):
        found = train_lift.blended(start, trained, share)
        np.testing.assert_allclose(found["a"], expected)
        assert found["b"] == 1 and found["a"].dtype == torch.half


def test_a_person_without_a_state_is_seen_by_one_image(lift, people):
    alone = lift(people.points, people.cov)
    missing = torch.full_like(lift.remember(people.points, people.cov)[1], torch.nan)
    seconds = torch.full((len(people.points),), 0.1)
    again, state = lift.remember(people.points, people.cov, None, missing, seconds)
    for one, other in zip(alone, again):
        torch.testing.assert_close(one, other)
    assert state.isfinite().all()
    with_state, _ = lift.remember(people.points, people.cov, None, state, seconds)
    assert (with_state.theta - alone.theta).abs().max() > 1e-4


def test_people_do_not_share_a_memory(lift, people):
    """One by one as together, also beside a person without a state; at any rate and over gaps."""
    seconds = torch.logspace(-4, 5, len(people.points))
    _, state = lift.remember(people.points, people.cov)
    state[::5] = torch.nan
    together, after = lift.remember(people.points, people.cov, None, state, seconds)
    assert all(value.isfinite().all() for value in (*together, after))
    forgotten, _ = lift.remember(people.points, people.cov)
    for value, single in zip(together, forgotten):  # the last person's gap is a day
        torch.testing.assert_close(value[-1], single[-1])
    for row in (0, 1, 17, 63):
        one = slice(row, row + 1)
        alone, _ = lift.remember(people.points[one], people.cov[one], None, state[one],
                                 seconds[one])
        for value, own in zip(together, alone):
            torch.testing.assert_close(value[one], own, rtol=1e-3, atol=1e-4)
