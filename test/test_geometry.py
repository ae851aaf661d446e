"""Rotations: scipy as the oracle, also near the identity and near half turns; derivatives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ros2_pose.body import so3

_ANGLES = [0.0, 1e-12, 1e-7, 1e-4, 0.1, 1.0, 3.0, np.pi - 1e-4, np.pi - 1e-7, np.pi]


def _axes() -> np.ndarray:
    """(26, 3) unit vectors along and between the axes."""
    grid = np.stack(np.meshgrid(*3 * [[-1.0, 0.0, 1.0]], indexing="ij"), -1).reshape(-1, 3)
    grid = grid[np.abs(grid).sum(1) > 0]
    return grid / np.linalg.norm(grid, axis=1, keepdims=True)


@pytest.fixture(params=_ANGLES)
def rotations(request) -> Rotation:
    """By one angle about 40 axes."""
    axes = np.random.default_rng(0).normal(size=(14, 3))
    axes = np.r_[_axes(), axes / np.linalg.norm(axes, axis=1, keepdims=True)]
    return Rotation.from_rotvec(request.param * axes)


def _quats(rotations: Rotation) -> torch.Tensor:
    return torch.from_numpy(rotations.as_quat())


def _same(quat: torch.Tensor, rotations: Rotation, tolerance: float = 1e-12) -> bool:
    """Whether the quaternions are unit ones of these rotations, of either sign."""
    norms = np.linalg.norm(quat, axis=-1)
    error = (Rotation.from_quat(quat.numpy()) * rotations.inv()).magnitude()
    return np.abs(norms - 1).max() < tolerance and error.max() < 10 * tolerance


def test_conversions_agree_with_scipy(rotations):
    quats, rotmats = _quats(rotations), torch.from_numpy(rotations.as_matrix())
    rotvecs = torch.from_numpy(rotations.as_rotvec())
    assert _same(so3.quat_from_rotvec(rotvecs), rotations)
    assert _same(so3.quat_from_rotmat(rotmats), rotations)
    np.testing.assert_allclose(so3.rotmat_from_quat(quats), rotmats, atol=1e-12)
    np.testing.assert_allclose(so3.rotmat_from_rotvec(rotvecs), rotmats, atol=1e-12)
    for sign in (1, -1):
        back = so3.rotvec_from_quat(sign * quats).numpy()
        assert _same(torch.from_numpy(Rotation.from_rotvec(back).as_quat()), rotations)
        assert np.linalg.norm(back, axis=1).max() <= np.pi + 1e-12


def test_products_and_angles_agree_with_scipy(rotations):
    others = Rotation.from_quat(np.random.default_rng(1).normal(size=(len(rotations), 4)))
    product = so3.quat_product(_quats(rotations), _quats(others))
    assert _same(product, rotations * others)
    vectors = [torch.from_numpy(r.as_rotvec()) for r in (rotations, others, rotations)]
    back = so3.rotvec_product(*vectors).numpy()
    assert _same(torch.from_numpy(Rotation.from_rotvec(back).as_quat()),
                 rotations * others * rotations)
    angle = so3.angle_between(_quats(others), -_quats(others * rotations))
    np.testing.assert_allclose(angle, rotations.magnitude(), rtol=1e-6, atol=1e-14)


def test_single_precision_keeps_single_precision(rotations):
    rotvecs = torch.from_numpy(rotations.as_rotvec()).float()
    rotmats = so3.rotmat_from_rotvec(rotvecs)
    quats = so3.quat_from_rotmat(rotmats)
    assert rotmats.dtype == quats.dtype == torch.float32
    assert _same(quats.double(), rotations, 1e-6)


def test_matrices_of_any_shape_and_none(rotations):
    rotmats = torch.from_numpy(rotations.as_matrix())
    assert so3.quat_from_rotmat(rotmats.view(2, 5, 4, 3, 3)).shape == (2, 5, 4, 4)
    assert so3.rotmat_from_rotvec(torch.zeros(0, 24, 3)).shape == (0, 24, 3, 3)
    assert so3.quat_from_rotmat(torch.zeros(0, 3, 3)).shape == (0, 4)
    assert so3.quat_from_rotmat(torch.full((2, 3, 3), torch.nan)).isnan().all()


def test_columns_are_orthonormalized():
    columns = torch.randn(50, 3, 2, generator=torch.Generator().manual_seed(0)).double()
    rotmats = so3.rotmat_from_columns(columns)
    eye = torch.eye(3).double().expand(50, 3, 3)
    np.testing.assert_allclose(rotmats @ rotmats.mT, eye, atol=1e-12)
    np.testing.assert_allclose(torch.linalg.det(rotmats), 1, atol=1e-12)
    along = torch.nn.functional.cosine_similarity(rotmats[..., 0], columns[..., 0], dim=-1)
    np.testing.assert_allclose(along, 1, atol=1e-12)
    assert (torch.linalg.cross(rotmats[..., 0], rotmats[..., 1])
            * torch.linalg.cross(columns[..., 0], columns[..., 1])).sum(-1).min() > 0
    np.testing.assert_allclose(so3.rotmat_from_columns(rotmats[..., :2]), rotmats, atol=1e-12)


_WITH_DERIVATIVE = {
    "quat_from_rotvec": lambda r: torch.from_numpy(r.as_rotvec()),
    "rotmat_from_rotvec": lambda r: torch.from_numpy(r.as_rotvec()),
    "rotvec_from_quat": _quats,
    "rotmat_from_quat": _quats,
    "quat_from_rotmat": lambda r: torch.from_numpy(r.as_matrix()),
    "rotmat_from_columns": lambda r: torch.from_numpy(r.as_matrix()[..., :2].copy()),
}


@pytest.mark.parametrize("name", _WITH_DERIVATIVE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_derivatives_are_finite_everywhere(rotations, name, dtype):
    values = _WITH_DERIVATIVE[name](rotations).to(dtype).requires_grad_()
    result = getattr(so3, name)(values)
    weights = torch.randn(result.shape, dtype=dtype, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad((weights * result).sum(), values)
    assert gradient.isfinite().all() and gradient.abs().max() < 100


@pytest.mark.parametrize("name", _WITH_DERIVATIVE)
@pytest.mark.parametrize("angle", [1e-3, 0.5, 2.0, 3.0])
def test_derivatives_are_those_of_differences(name, angle):
    rotations = Rotation.from_rotvec(angle * _axes())
    values = _WITH_DERIVATIVE[name](rotations).requires_grad_()
    # rows that lie on an edge between two cases have a derivative on each side
    assert torch.autograd.gradcheck(getattr(so3, name), (values[_off_edges(rotations)],),
                                    eps=1e-7, atol=1e-5)


def _off_edges(rotations: Rotation) -> np.ndarray:
    """(N,) whether the longest element of the quaternion is the longest by far."""
    ranked = np.sort(np.abs(rotations.as_quat()), axis=1)
    return (ranked[:, -1] - ranked[:, -2] > 1e-3) & (np.abs(rotations.as_quat()[:, 3]) > 1e-3)
