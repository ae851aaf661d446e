"""The k-block: exact cases, invariances, and its own definition written out as loops."""

import numpy as np
import pytest
import torch

from ros2_pose.networks.kblock import axis_votes, joint_votes, kblock


def _written_out(heatmap: np.ndarray):
    """The paper's steps for one map, one number at a time (logits averaged over the other axis)."""
    out = []
    for axis in (0, 1):  # columns vote for u, rows for v
        logits = heatmap.mean(axis=axis)
        weights = np.exp(logits) / np.exp(logits).sum()
        positions = np.arange(1, len(weights) + 1) - 0.5
        mean = sum(z * e for z, e in zip(weights, positions))
        out.append((mean, sum(z * (e - mean) ** 2 for z, e in zip(weights, positions)) ** 0.5))
    return out


def test_follows_its_definition():
    heatmap = np.random.default_rng(0).normal(size=(12, 9)) * 5
    mean, deviation = kblock(torch.from_numpy(heatmap))
    (u, c_u), (v, c_v) = _written_out(heatmap)
    assert np.allclose(mean, [u, v])
    assert np.allclose(deviation, [c_u, c_v])


def test_one_vote_is_certain_and_equal_votes_are_not():
    one = torch.full((32,), -torch.inf)
    one[19] = 0.0
    assert axis_votes(one) == (19.5, 0.0)
    mean, variance = axis_votes(torch.zeros(32))
    assert mean == pytest.approx(16.0)
    assert float(variance) ** 0.5 == pytest.approx(9.23, abs=0.01)


def test_shifting_the_map_shifts_the_position_alone():
    logits = torch.full((20, 20), -torch.inf)
    logits[5:9, 3:8] = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    moved = torch.full((20, 20), -torch.inf)
    moved[7:11, 10:15] = logits[5:9, 3:8]
    (mean, cov), (mean_moved, cov_moved) = joint_votes(logits), joint_votes(moved)
    assert torch.allclose(mean_moved - mean, torch.tensor([7.0, 2.0]), atol=1e-5)
    assert torch.allclose(cov, cov_moved, atol=1e-5)


def test_joint_votes_of_independent_axes_are_the_kblock_of_those_axes():
    rng = torch.Generator().manual_seed(2)
    rows, columns = torch.randn(11, generator=rng), torch.randn(8, generator=rng)
    mean, cov = joint_votes(rows[:, None] + columns[None, :])
    (u, var_u), (v, var_v) = axis_votes(columns), axis_votes(rows)
    assert torch.allclose(mean, torch.stack([u, v]), atol=1e-5)
    assert torch.allclose(cov, torch.diag(torch.stack([var_u, var_v])), atol=1e-5)


def test_slanted_votes_are_correlated():
    logits = torch.full((9, 9), -torch.inf)
    logits[range(9), range(9)] = 0.0
    _, cov = joint_votes(logits)
    assert torch.allclose(cov, torch.full((2, 2), 80 / 12), atol=1e-4)


def test_covariance_is_that_of_samples_of_the_votes():
    logits = torch.randn(7, 6, generator=torch.Generator().manual_seed(3))
    mean, cov = joint_votes(logits)
    weights = logits.flatten().softmax(0).numpy()
    cells = np.array([[j + 0.5, i + 0.5] for i in range(7) for j in range(6)])
    assert np.allclose(mean, np.average(cells, axis=0, weights=weights), atol=1e-5)
    assert np.allclose(cov, np.cov(cells.T, aweights=weights, ddof=0), atol=1e-5)


def test_batches_are_independent():
    maps = torch.randn(3, 17, 8, 8, generator=torch.Generator().manual_seed(4))
    together, alone = kblock(maps), kblock(maps[1])
    assert torch.equal(together[0][1], alone[0]) and torch.equal(together[1][1], alone[1])


def test_gradients_flow():
    maps = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(kblock, (maps,))
