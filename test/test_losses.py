"""Losses of Tian et al. 2023: every equation by hand, its gradient, and where print is in error."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal

from ros2_pose.training import losses

_ROOT_2_PI = math.sqrt(2 * math.pi)


def rand(*shape, seed=0):
    """Normal numbers, float64, that a gradient can be asked of."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def units(*shape, seed=0):
    return torch.nn.functional.normalize(rand(*shape, seed=seed).detach(), dim=-1)


def about_z(angle):
    """(1, 24, 4) all joints turned about z by an angle, as in eq. 4."""
    q = torch.tensor([0, 0, math.sin(angle / 2), math.cos(angle / 2)])
    return q.expand(1, 24, 4)


# ------------------------------------------------------------------------- keypoints, eqs 1, 2


def test_likelihood_is_that_of_a_gaussian():
    error, std = rand(5).detach(), rand(5, seed=1).detach().exp()
    expected = -Normal(0, std).log_prob(error)
    assert torch.allclose(losses.gaussian_nll(error**2, std), expected)
    error = rand(5, 3, seed=2).detach()
    cov = std[:, None, None]**2 * torch.eye(3)
    expected = -MultivariateNormal(torch.zeros(3).double(), cov.double()).log_prob(error)
    assert torch.allclose(losses.gaussian_nll((error**2).sum(1), std, 3), expected)


@pytest.mark.parametrize("regulariser, extra", [("floor", 0.2 / (2 * 4)), ("ceiling", 0.2 * 4 / 2)])
def test_kblock_loss_by_hand(regulariser, extra):
    points, std = torch.full((1, 17, 2), 10.0), torch.full((1, 17, 2), 2.0)
    truth = points + torch.tensor([3.0, 0.0])
    one = math.log(_ROOT_2_PI * 2) + extra
    expected = 17 * (2 * one + 9 / (2 * 4))
    assert losses.kblock_loss(points, std, truth, regulariser).item() == pytest.approx(expected)


@pytest.mark.parametrize("error", [0.0, 0.5, 4.0])
def test_best_uncertainty_of_the_kblock(error):
    """With "floor" it is the error's, and never 0; with "ceiling" less than the error."""
    def best(regulariser):
        std = torch.linspace(0.01, 8, 80000, dtype=torch.float64)[:, None, None]
        points, truth = torch.zeros_like(std), torch.full_like(std, error)
        loss = losses.kblock_loss(points, std, truth, regulariser)
        return std[loss.argmin()].item()

    assert best("floor")**2 == pytest.approx(error**2 + losses.REGULARISER, abs=2e-3)
    c = best("ceiling")  # there is none for an error of 0: the least that is tried
    assert c == pytest.approx(0.01) if error == 0 else \
        losses.REGULARISER * c**4 + c**2 == pytest.approx(error**2, rel=1e-3)


# ------------------------------------------------------------------------------- shape, eq. 3


@pytest.mark.parametrize("off, expected", [(0.0, 0.0), (0.9, 0.18), (-0.9, 0.18), (1.5, 0.5),
                                           (3.0, 1.5), (-6.0, 3.5)])
def test_shape_loss_by_hand(off, expected):
    truth = torch.zeros(1, 10)
    betas = truth.clone()
    betas[0, 3] = off
    assert losses.shape_loss(betas, truth).item() == pytest.approx(expected)
    assert losses.shape_loss(betas.clone().fill_(off), truth).item() == pytest.approx(10 * expected)


@pytest.mark.parametrize("side", [-1.5, 1.5])
def test_shape_loss_is_smooth_where_its_pieces_meet(side):
    off = torch.tensor([side - 1e-6, side + 1e-6], dtype=torch.float64).requires_grad_()
    low, high = losses.shape_loss(off[:, None], torch.zeros(2, 1).double())
    slope, = torch.autograd.grad(low + high, off)
    assert low.item() == pytest.approx(high.item(), abs=1e-5)
    assert slope.tolist() == pytest.approx([math.copysign(2 / 3, side)] * 2, abs=1e-5)


# ----------------------------------------------------------------------------- pose, eqs 4, 5


@pytest.mark.parametrize("angle", [0.0, 0.3, -2.0, math.pi])
def test_pose_loss_by_hand(angle):
    expected = 24 * (abs(math.sin(angle / 2)) + abs(1 - math.cos(angle / 2)))
    assert losses.pose_loss(about_z(angle), about_z(0)).item() == pytest.approx(expected, abs=1e-5)
    printed = losses.pose_loss_as_printed(about_z(angle), about_z(0)).item()
    assert printed == pytest.approx(expected + 23, rel=1e-5)  # 24 unit norms are not one


def test_a_rotation_has_two_quaternions_of_which_print_knows_one():
    quats = units(3, 24, 4)
    flipped = quats.clone()
    flipped[:, ::3] *= -1
    assert losses.pose_loss(flipped, quats).abs().max() == 0
    other = losses.pose_loss_as_printed(flipped, quats) - losses.pose_loss_as_printed(quats, quats)
    assert torch.allclose(other, 2 * quats[:, ::3].abs().sum((1, 2)))


def test_every_joint_has_a_norm_of_its_own():
    quats = torch.zeros(1, 24, 4)
    quats[0, :2, 3] = torch.tensor([0.6, 0.8])  # squares that add up to 1
    assert losses.unit_norm_loss(quats).item() == pytest.approx(0.64 + 0.36 + 22)
    assert losses.pose_loss_as_printed(quats, quats).item() == pytest.approx(0)
    assert losses.unit_norm_loss(units(2, 24, 4)).abs().max() < 1e-12


# ---------------------------------------------------------------------- joints and heat-maps


def test_smpl_loss_by_hand():
    joints = torch.zeros(2, 24, 3)
    truth = joints.clone()
    truth[0, 3], truth[1, :] = torch.tensor([0.3, 0, -0.4]), 0.1
    assert losses.smpl_loss(joints, truth).tolist() == pytest.approx([0.25, 24 * 0.03])


def bump(cells, u, v, std):
    """(1, 1, cells, cells), one cell at a time."""
    return torch.tensor([[math.exp(-((x + 0.5 - u)**2 + (y + 0.5 - v)**2) / (2 * std**2))
                          for x in range(cells)] for y in range(cells)])[None, None]


def test_heatmap_loss_is_zero_at_the_truths_own_bump():
    truth = torch.tensor([[[5.2, 11.7]]])
    assert losses.heatmap_loss(bump(16, 5.2, 11.7, 2.0), truth, 2.0).item() < 1e-8
    assert losses.heatmap_loss(bump(16, 11.7, 5.2, 2.0), truth, 2.0).item() > 1
    flat = torch.zeros(1, 1, 16, 16)
    expected = bump(16, 5.2, 11.7, 2.0).square().sum().item()
    assert losses.heatmap_loss(flat, truth, 2.0).item() == pytest.approx(expected)


# ------------------------------------------------------------------------- all of them alike

_STD = rand(2, 17, 2, seed=3).detach().exp()
_CASES = {
    "floor": (lambda p, t: losses.kblock_loss(p, _STD, t), (2, 17, 2)),
    "ceiling": (lambda p, t: losses.kblock_loss(p, _STD, t, "ceiling"), (2, 17, 2)),
    "smpl": (losses.smpl_loss, (2, 24, 3)),
    "pose": (losses.pose_loss, (2, 24, 4)),
    "printed": (losses.pose_loss_as_printed, (2, 24, 4)),
    "shape": (losses.shape_loss, (2, 10)),
}


@pytest.mark.parametrize("name", _CASES)
def test_gradients_are_those_of_the_values(name):
    loss, shape = _CASES[name]
    truth = rand(*shape, seed=5).detach()
    assert torch.autograd.gradcheck(lambda values: loss(values, truth), rand(*shape, seed=4))


def test_gradients_of_uncertainty_norm_and_maps_are_those_of_the_values():
    points, truth = rand(2, 17, 2).detach(), rand(2, 17, 2, seed=1).detach()
    assert torch.autograd.gradcheck(lambda std: losses.kblock_loss(points, std, truth),
                                    _STD.clone().requires_grad_())
    assert torch.autograd.gradcheck(losses.unit_norm_loss, rand(2, 24, 4))
    assert torch.autograd.gradcheck(lambda maps: losses.heatmap_loss(maps, truth[:, :3] + 3, 2.0),
                                    rand(2, 3, 5, 6))


@pytest.mark.parametrize("name", ["floor", "ceiling", "smpl"])
def test_what_is_not_known_does_not_count_and_gives_no_gradient(name):
    loss, shape = _CASES[name]
    values, truth = rand(*shape), rand(*shape, seed=1).detach()
    unknown = truth.clone()
    unknown[0, 2], unknown[1] = torch.nan, torch.nan
    total = loss(values, unknown)
    gradient, = torch.autograd.grad(total.sum(), values)
    assert total[1] == 0 and total[0] < loss(values, truth)[0]
    assert (gradient[0, 2] == 0).all() and (gradient[1] == 0).all()
    rest = torch.arange(shape[1]) != 2
    full, = torch.autograd.grad(loss(values, truth).sum(), values)
    assert torch.equal(gradient[0, rest], full[0, rest])


def test_votes_cost_least_where_they_are_a_narrow_bump_about_the_truth():
    truth, cells = torch.tensor([[[2.2, 5.1]]]), torch.arange(8) + 0.5
    wanted = [(-(cells - at)**2 / 2).softmax(0) for at in (2.2, 5.1)]
    best = torch.stack([w.log() + 3 for w in wanted])[:, None, None]  # shifts cancel
    entropy = -sum((w * w.log()).sum() for w in wanted)
    assert losses.vote_loss(best.unbind(), truth).item() == pytest.approx(entropy.item())
    for other in (best.flip(0), best / 2, torch.zeros(2, 1, 1, 8)):
        assert losses.vote_loss(other.unbind(), truth) > entropy + 0.1
    wide = losses.vote_loss(best.unbind(), truth, torch.full_like(truth, 2.0))
    assert wide > entropy + 0.1  # an uncertain truth wants wider votes
    votes = best.repeat(1, 1, 2, 1).requires_grad_()
    known = losses.vote_loss(votes.unbind(), torch.cat([truth, truth * torch.nan], 1))
    assert known.item() == pytest.approx(entropy.item())
    assert (torch.autograd.grad(known.sum(), votes)[0][:, 0, 1] == 0).all()


def test_an_unknown_joint_has_no_bump():
    maps, truth = rand(1, 3, 8, 8), torch.tensor([[[2.0, 3], [torch.nan] * 2, [5, 5]]]).double()
    gradient, = torch.autograd.grad(losses.heatmap_loss(maps, truth, 2.0).sum(), maps)
    assert (gradient[0, 1] == 0).all() and gradient[0, 0].abs().min() > 0
    assert losses.heatmap_loss(maps, truth, 2.0).item() == pytest.approx(
        losses.heatmap_loss(maps[:, ::2], truth[:, ::2], 2.0).item())


@pytest.mark.parametrize("truth_std", [0.0, 1.5, 4.0])
def test_an_uncertain_truth_does_not_make_the_network_uncertain(truth_std):
    """Of errors with the variance own^2 + truth_std^2, the std that costs least is the own one."""
    own, stds = 3.0, torch.linspace(0.5, 6, 200)
    errors = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    errors = errors * math.hypot(own, truth_std)
    points = errors[:, None, None].expand(-1, 1, 2)
    costs = [losses.kblock_loss(points, torch.full_like(points, float(std)),
                                torch.zeros_like(points), truth_std=truth_std).mean()
             for std in stds]
    best = float(stds[int(torch.stack(costs).argmin())])
    assert abs(best - own) < 0.35
