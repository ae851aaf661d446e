"""People in motion: interpolation, what stays from image to image, and errors that last."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from ros2_pose.body.lift import MEMORY, Lift
from ros2_pose.body.model import BodyModel
from ros2_pose.body.so3 import angle_between, quat_from_rotvec, rotvec_from_quat
from ros2_pose.body.temporal_prior import ROTATION_RATE_RAD_S
from ros2_pose.data.synthetic.motion import MOCAP_S, MotionProjector, Motions
from ros2_pose.skeleton import SMPL24
from ros2_pose.training import train_lift

_MOCAP = Path(__file__).parents[2] / "shared" / "mocap" / "cmu_theta_10hz.npz"


def _walks(runs=3, poses=20, seed=0):
    """Smooth rotation vectors (T, 24, 3), rad: no motion capture is at hand in a test."""
    rng = np.random.default_rng(seed)
    time = np.arange(poses)[:, None, None] * MOCAP_S
    return [0.4 * rng.normal(size=(1, 24, 3)) * np.sin(rng.uniform(1, 3, (1, 24, 1)) * time)
            for _ in range(runs)]


@pytest.fixture(scope="module")
def motions():
    return Motions(_walks())


def _projector(motions, seed=0, **options):
    return MotionProjector(BodyModel.load(), motions, seed, **options)


def _angles(rotvecs, others):
    return angle_between(quat_from_rotvec(rotvecs), quat_from_rotvec(others))


def test_recorded_poses_are_met_and_what_lies_between_is_a_slerp(motions):
    walks, run = _walks(), torch.tensor([0, 1, 2])
    for number in (0, 3, 19):
        found = motions.at(run, torch.full((3,), number * MOCAP_S))
        recorded = torch.from_numpy(np.stack([walk[number] for walk in walks])).float()
        assert _angles(found, recorded).max() < 2e-3
    from scipy.spatial.transform import Rotation, Slerp
    for joint in (0, 5, 20):
        slerp = Slerp(np.arange(20) * MOCAP_S, Rotation.from_rotvec(walks[1][:, joint]))
        for seconds in (0.234, 1.012, 1.777):
            found = motions.at(run[1:2], torch.tensor([seconds]))[0, joint]
            expected = torch.from_numpy(slerp(seconds).as_rotvec()).float()
            assert _angles(found, expected) < 3e-3


def test_a_run_is_played_back_and_forth(motions):
    run, length = torch.zeros(1, dtype=torch.long), 19 * MOCAP_S
    for seconds in (0.05, 0.7, 1.3):
        there = motions.at(run, torch.tensor([length - seconds]))
        back = motions.at(run, torch.tensor([length + seconds]))
        again = motions.at(run, torch.tensor([3 * length - seconds]))
        assert _angles(there, back).max() < 5e-3 and _angles(there, again).max() < 5e-3


def test_a_run_across_hemispheres_is_continuous():
    turning = np.zeros((70, 24, 3))
    turning[:, 0, 1] = np.linspace(0, 2.5 * np.pi, 70)
    motions = Motions([turning])
    times = torch.linspace(0, 6.9, 400)
    poses = motions.at(torch.zeros(400, dtype=torch.long), times)
    assert _angles(poses[1:, 0], poses[:-1, 0]).max() < 0.05


@pytest.mark.parametrize("vary", [True, False])
def test_people_stay_themselves_and_move_little_in_little_time(motions, vary):
    seconds, images = _projector(motions, 2, vary=vary, interval_s=0.01).draw_sequence(40, 6)
    assert seconds.shape == (6, 40) and len(images) == 6
    for before, after in zip(images, images[1:]):
        np.testing.assert_array_equal(before.betas, after.betas)
        assert (before.joints - after.joints).norm(dim=2).amax(1).median() < 0.03
    moved = (images[0].root - images[-1].root).norm(dim=1)
    assert moved.max() > 0.02 and moved.median() < 0.2


def test_all_is_before_the_camera_and_the_same_seed_draws_the_same(motions):
    first, second = (_projector(motions, 5).draw_sequence(60, 16) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    assert (first[0][1:] > 0.01).all() and (first[0][0] == 0).all()
    for one, other in zip(first[1], second[1]):
        np.testing.assert_array_equal(one.points, other.points)
        assert (one.joints[..., 2] > 0.1).all()
        assert (one.points.isfinite().all(2).sum(1) >= 4).all()


def test_errors_last_but_not_for_ever(motions):
    """Correlation of an image's errors with those of the next, and of a much later one."""
    def correlation(interval_s):
        _, images = _projector(motions, 3, interval_s=interval_s).draw_sequence(300, 2)
        errors = []
        for image in images:
            exact = image.keypoints[..., :2] / image.keypoints[..., 2:]
            extent = (exact - exact.mean(1, keepdim=True)).norm(dim=2).mean(1)
            errors.append(((image.points - exact) / extent[:, None, None]).clamp(-0.2, 0.2))
        both = torch.stack([one.flatten() for one in errors])
        return float(torch.corrcoef(both[:, both.isfinite().all(0)])[0, 1])
    soon, late = correlation(1 / 30), correlation(20.0)
    assert 0.35 < soon < 0.98 and late < soon - 0.2


def test_the_memory_learns_and_goes_on_exactly_where_it_stopped(motions):
    def trainer(seed=0):
        return train_lift.MotionTrainer(_projector(motions, seed), steps=6, batch=96, rate=2e-3)
    def loss_of_the_same_people():
        held = _projector(motions, 5)
        return float(whole.terms(whole.network, held, 960)["total"].detach())

    whole, first = trainer(), trainer()
    untrained = loss_of_the_same_people()
    losses = [whole.train_step()["total"] for _ in range(6)]
    for _ in range(2):
        first.train_step()
    second = trainer(9)
    second.resume(first.state())
    resumed = [second.train_step()["total"] for _ in range(4)]
    np.testing.assert_allclose(resumed, losses[2:], rtol=1e-4)
    assert loss_of_the_same_people() < untrained
    assert whole.network.recall.weight.abs().max() > 0


@pytest.mark.skipif(not _MOCAP.exists(), reason="needs the motion capture")
def test_the_temporal_priors_rates_are_those_of_motion_capture():
    motions = Motions.read(_MOCAP)
    changes = []
    for start, count in zip(motions.start, motions.count):
        before, after = (motions.quats[start + i:start + count - 1 + i] for i in (0, 1))
        changes.append(angle_between(before, after))
    rates = torch.cat(changes).square().mean(0).sqrt() / 3**0.5 / MOCAP_S
    moving = [i for i, kind in enumerate(SMPL24.kinds) if kind not in ("foot", "hand")]
    np.testing.assert_allclose(ROTATION_RATE_RAD_S[moving], rates[moving], rtol=0.06, atol=0.01)


def test_a_training_starts_from_a_lift_without_a_memory_but_not_from_other_weights(motions):
    trainer = train_lift.MotionTrainer(_projector(motions), steps=6, batch=96, rate=2e-3)
    weights = {name: value + 1 for name, value in trainer.network.state_dict().items()
               if not name.startswith(MEMORY)}
    trainer.start_from(weights)
    torch.testing.assert_close(trainer.average.state_dict()["enter.bias"], weights["enter.bias"])
    for wrong in ({"other": torch.zeros(1)} | weights, dict(list(weights.items())[1:])):
        with pytest.raises(RuntimeError, match="other|enter"):
            trainer.start_from(wrong)


@pytest.mark.parametrize("age_s", [0.02, 1.0, 2.9, 3.1, math.nan])
def test_an_open_gate_keeps_the_bodies_of_the_image_before_until_they_are_forgotten(age_s):
    """Whatever the new image shows; also where the new person stands elsewhere in the image."""
    torch.manual_seed(4)
    lift = Lift(32, 2, 16).eval()
    torch.nn.init.zeros_(lift.gate.weight)
    torch.nn.init.constant_(lift.gate.bias, 50.0)
    cov = 1e-4 * torch.eye(2).expand(2, 5, 17, 2, 2)
    points = 0.3 * torch.randn(2, 5, 17, 2)
    before, state = lift.remember(points[0], cov[0])
    kept = age_s <= 3.0
    state = torch.full_like(state, torch.nan) if math.isnan(age_s) else state
    seconds = torch.full((5,), 1.0 if math.isnan(age_s) else age_s)
    now, _ = lift.remember(points[1] + 0.2, cov[1], None, state, seconds)
    same = angle_between(now.theta, before.theta).amax((1, 2)) < 1e-2
    assert (same == kept).all()
    assert (((now.betas - before.betas).abs().amax((1, 2)) < 1e-4) == kept).all()
    alone = lift(points[1] + 0.2, cov[1])
    assert kept or (angle_between(now.theta, alone.theta) < 1e-2).all()


def test_who_walks_stands_on_a_sole_that_does_not_slide(motions):
    """In each interval one of ankles and feet stays where it is on the floor."""
    projector = _projector(motions, vary=False)
    joints = projector._joints(rotvec_from_quat(motions.quats))
    path = motions.walked(joints)
    soles = [SMPL24.index(f"{side}_{joint}") for side in ("left", "right")
             for joint in ("ankle", "foot")]
    for start, count in zip(motions.start.tolist(), motions.count.tolist()):
        run = slice(start, start + count)
        in_world = (path[run, None] + joints[run][:, soles])[..., [0, 2]]
        slid = (in_world[1:] - in_world[:-1]).norm(dim=2)
        assert slid.amin(1).max() < 1e-5
        assert path[start].norm() == 0 and path[run, 1].abs().max() == 0
    assert path.norm(dim=1).max() > 0.1


@pytest.mark.parametrize("vary", [True, False])
def test_all_images_lie_in_a_run_that_is_long_enough(vary):
    projector = _projector(Motions(_walks(poses=40)), vary=vary, interval_s=0.1)
    projector._duration = torch.full((50,), 2.5)
    times = []
    for elapsed in (0.0, 2.5):
        projector.random.manual_seed(3)
        projector._elapsed = torch.full((50,), elapsed)
        times.append(projector._drawn_time(50)[1])
    assert min(times[0]) >= 0 and max(times[1]) <= 39 * MOCAP_S + 1e-5
    assert (times[1] > times[0]).all()


def test_cameras_stand_still_if_told_so(motions):
    """The pelvis then moves as the recorded path does, by the same amount."""
    projector = _projector(motions, vary=False, interval_s=0.1, cameras_move=False)
    seconds, images = projector.draw_sequence(20, 8)
    first, last = images[0].root, images[-1].root
    walked = projector._place
    projector._elapsed = torch.zeros(20)
    assert seconds.sum(0) == pytest.approx(0.7)
    longest = (motions.walked(projector._joints(rotvec_from_quat(motions.quats)))).norm(dim=1)
    assert (last - first).norm(dim=1).max() < 2 * longest.max() + 0.3
    assert walked.shape == (20, 3)
