"""The body model: against a naive forward pass, mirror symmetry, and its file."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from ros2_pose.body.model import OPEN_BODY, BodyModel
from ros2_pose.skeleton import COCO17, SMPL24

MIRROR = np.array([-1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def model():
    return BodyModel.load()


@pytest.fixture(scope="module")
def people():
    rng = np.random.default_rng(0)
    rotvecs, betas = rng.normal(0, 0.5, (3, 24, 3)), rng.normal(0, 1, (3, 10))
    return rotvecs, betas, rng.normal(0, 1, (3, 3)) + [0, 0, 4]


def posed(model, rotvecs, betas, root=None):
    theta = torch.tensor(Rotation.from_rotvec(np.reshape(rotvecs, (-1, 3))).as_quat())
    root = None if root is None else torch.tensor(root)
    return model(theta.reshape(-1, 24, 4), torch.tensor(betas), root)


def naive_forward(model, rotvecs, betas, root):
    """One person by 4x4 matrices and loops over joints."""
    shaped = model.template.double().numpy() + model.shapedirs.double().numpy() @ betas
    rest = model.J_regressor.double().numpy() @ shaped
    world = []
    for joint, parent in enumerate(SMPL24.parents):
        local = np.eye(4)
        local[:3, :3] = Rotation.from_rotvec(rotvecs[joint]).as_matrix()
        local[:3, 3] = rest[joint] - (rest[parent] if parent >= 0 else rest[0])
        world.append(local if parent < 0 else world[parent] @ local)
    vertices = np.zeros_like(shaped)
    for joint in range(24):
        moved = (shaped - rest[joint]) @ world[joint][:3, :3].T + world[joint][:3, 3]
        vertices += model.weights[:, joint, None].double().numpy() * moved
    joints = np.array([matrix[:3, 3] for matrix in world])
    return joints + root, vertices + root


def test_forward_agrees_with_naive_loops(model, people):
    out = posed(model, *people)
    for i in range(3):
        joints, vertices = naive_forward(model, people[0][i], people[1][i], people[2][i])
        np.testing.assert_allclose(out.joints[i], joints, atol=1e-6)
        np.testing.assert_allclose(out.vertices[i], vertices, atol=1e-6)


def test_keypoints_equal_regressing_the_posed_mesh(model, people):
    out = posed(model, *people)
    regressed = model.keypoint_regressor.double() @ out.vertices
    np.testing.assert_allclose(out.keypoints, regressed, atol=1e-6)


def test_cheap_path_gives_the_same_without_vertices(model, people):
    theta = torch.tensor(Rotation.from_rotvec(people[0].reshape(-1, 3)).as_quat()).view(3, 24, 4)
    full = model(theta, torch.tensor(people[1]))
    cheap = model(theta, torch.tensor(people[1]), with_vertices=False)
    assert cheap.vertices is None
    assert torch.equal(full.joints, cheap.joints) and torch.equal(full.keypoints, cheap.keypoints)


def test_root_is_the_pelvis_at_any_shape(model, people):
    np.testing.assert_allclose(posed(model, *people).joints[:, 0], people[2], atol=1e-6)


def test_alone_is_as_in_a_batch(model, people):
    together = posed(model, *people)
    alone = posed(model, *(value[1:2] for value in people))
    np.testing.assert_allclose(alone.vertices[0], together.vertices[1], atol=1e-9)


def test_no_people(model):
    out = model(torch.zeros(0, 24, 4), torch.zeros(0, 10), torch.zeros(0, 3))
    assert out.joints.shape == (0, 24, 3) and out.keypoints.shape == (0, 17, 3)
    assert out.vertices.shape == (0, len(model.template), 3)


def test_float32_agrees_with_float64(model, people):
    theta = torch.tensor(Rotation.from_rotvec(people[0].reshape(-1, 3)).as_quat()).view(3, 24, 4)
    betas = torch.tensor(people[1])
    low = model(theta.float(), betas.float())
    assert low.vertices.dtype == torch.float32
    np.testing.assert_allclose(low.vertices, model(theta, betas).vertices, atol=1e-5)


def test_mirrored_pose_gives_the_mirrored_body(model, people):
    rotvecs, betas, _ = people
    mirrored = rotvecs[:, SMPL24.mirror] * [1, -1, -1]
    here, there = posed(model, rotvecs, betas), posed(model, mirrored, betas)
    np.testing.assert_allclose(there.joints, here.joints[:, SMPL24.mirror] * MIRROR, atol=2e-3)
    np.testing.assert_allclose(there.keypoints, here.keypoints[:, COCO17.mirror] * MIRROR,
                               atol=2e-3)


def test_rest_pose_follows_smpls_conventions(model):
    rest = model.joints_rest(torch.zeros(1, 10))[0].numpy()
    at = {name: rest[i] for i, name in enumerate(SMPL24.names)}
    assert at["left_wrist"][0] > 0.5 and at["right_wrist"][0] < -0.5, "T-pose, left at +x"
    assert at["head"][1] > 0.5 and at["left_ankle"][1] < -0.7, "y up"
    assert at["left_foot"][2] > at["left_ankle"][2] + 0.05, "facing +z"
    np.testing.assert_allclose(at["pelvis"], 0, atol=1e-9)
    out = model(torch.tensor([[0.0, 0, 0, 1]]).expand(1, 24, 4), torch.zeros(1, 10))
    nose, ear = out.keypoints[0, 0], out.keypoints[0, COCO17.index("left_ear")]
    assert nose[2] > ear[2] + 0.05 and abs(nose[0]) < 1e-3 and ear[0] > 0.05


def height_m(model, beta0):
    betas = torch.zeros(1, 10)
    betas[0, 0] = beta0
    y = model(torch.tensor([[0.0, 0, 0, 1]]).expand(1, 24, 4), betas).vertices[0, :, 1]
    return float(y.max() - y.min())


def test_first_beta_is_height(model):
    assert 1.6 < height_m(model, 0.0) < 1.8
    assert 0.9 < height_m(model, -3.0) < 1.1 < 1.8 < height_m(model, 1.0) < 2.0


def test_mesh_is_closed_enough_and_not_smpls(model):
    count = len(model.template)
    assert 6000 < count < 7500 and count != 6890
    assert int(model.faces.max()) == count - 1 and int(model.faces.min()) == 0
    assert (model.weights > 0).sum(1).max() <= 4
    for rows in (model.weights, model.J_regressor, model.keypoint_regressor):
        assert rows.min() >= 0
        np.testing.assert_allclose(rows.sum(1), 1, atol=1e-6)


def test_shipped_file_is_small_and_needs_no_pickle():
    assert OPEN_BODY.stat().st_size < 1e6
    with np.load(OPEN_BODY, allow_pickle=False) as file:
        assert not any(file[name].dtype.hasobject for name in file.files)
        assert "CC0" in str(file["notice"])


def test_bent_limbs_keep_their_girth(model):
    """A bent elbow and a twisted forearm keep their girth: no candy-wrapper effect."""
    rotvecs = np.zeros((1, 24, 3))
    elbow, wrist = SMPL24.index("left_elbow"), SMPL24.index("left_wrist")
    rotvecs[0, elbow] = [0, -1.5, 0]
    rotvecs[0, wrist] = [0.8, 0, 0]
    straight, bent = posed(model, 0 * rotvecs, np.zeros((1, 10))), posed(model, rotvecs,
                                                                       np.zeros((1, 10)))
    for joint in (elbow, wrist):
        ring = (straight.vertices[0] - straight.joints[0, joint]).norm(dim=1) < 0.06
        def girth(out):
            return (out.vertices[0, ring] - out.joints[0, joint]).norm(dim=1)
        assert girth(bent).min() > 0.5 * girth(straight).min()
        assert girth(bent).mean() > 0.75 * girth(straight).mean()


def test_agrees_with_smplx(model, people):
    smplx = pytest.importorskip("smplx")
    struct = smplx.utils.Struct(
        v_template=model.template.numpy(), shapedirs=model.shapedirs.numpy(),
        weights=model.weights.numpy(), J_regressor=model.J_regressor.numpy(),
        posedirs=np.zeros((len(model.template), 3, 207), np.float32), f=model.faces.numpy(),
        kintree_table=np.stack([np.array(SMPL24.parents) % 2**32, np.arange(24)]))
    other = smplx.SMPL(model_path="", data_struct=struct)
    theta = torch.tensor(people[0], dtype=torch.float32).flatten(1)
    out = other(betas=torch.tensor(people[1], dtype=torch.float32), body_pose=theta[:, 3:],
                global_orient=theta[:, :3])
    ours = posed(model, people[0], people[1])
    np.testing.assert_allclose(out.vertices.detach(), ours.vertices, atol=1e-4)


def test_coarse_surface_is_a_part_of_the_whole():
    model = BodyModel.load()
    theta = torch.from_numpy(Rotation.random(48, random_state=0).as_quat()).float().view(2, 24, 4)
    betas, root = torch.linspace(-2, 2, 20).view(2, 10), torch.tensor([[0.0, 0, 3], [1, 0, 5]])
    whole = model(theta, betas, root).vertices[:, model.coarse_vertices]
    coarse = model.coarse_surface(theta, betas, root)
    assert torch.allclose(coarse, whole, atol=1e-5)
    assert 200 < coarse.shape[1] < 500 and int(model.coarse_faces.max()) == coarse.shape[1] - 1



def test_bodies_are_the_same_bits_with_any_number_of_threads():
    rng = np.random.default_rng(1)
    theta = torch.tensor(Rotation.random(480, random_state=0).as_quat()).float().view(20, 24, 4)
    betas, root = (torch.tensor(rng.normal(0, 1, (20, size))).float() for size in (10, 3))
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            model, found = BodyModel.load(), []
            for count in (0, 1, 3, 20):
                state = theta[:count], betas[:count], root[:count]
                out = model(*state)
                found += [out.vertices, out.joints, model.coarse_surface(*state)]
            results.append(found)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for result in results for a, b in zip(results[0], result))
