"""The network of Wang et al. by its properties; its layers against direct computations."""

import math

import numpy as np
import pytest
import torch

from ros2_pose.body.model import BodyModel
from ros2_pose.camera import Camera
from ros2_pose.config import ConfigError, PoseConfig
from ros2_pose.networks.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from ros2_pose.networks.das.config import DasConfig
from ros2_pose.networks.das.detector import Das, in_space
from ros2_pose.networks.das.flow import RealNvp
from ros2_pose.networks.das.lifting import LiftedPose
from ros2_pose.networks.das.network import DasNet, locations, scores_of
from ros2_pose.networks.das.pose import J, K, Update, joints_from_keypoints, size_of
from ros2_pose.networks.das.sampling import disc, sample
from ros2_pose.people import Frame
from ros2_pose.skeleton import COCO17, SMPL24
from ros2_pose.training import das_losses as losses
from ros2_pose.training.augment import Batch
from ros2_pose.training.config import TrainingConfig
from ros2_pose.training.das_objective import (
    DasObjective,
    in_metres,
    projected,
    targets,
    true_log_depth,
)

_CAMERA = Camera(160, 120, 150.0, 140.0, 75.0, 66.0)


def config(**changes):
    return DasConfig(**{"input_size": 96, "crop": 96, "width": 16, "layers": 1, "hidden": 32,
                        "recursions": 1, "sources": 2, **changes})


def made(**changes):
    """A network that has learned nothing."""
    torch.manual_seed(0)
    return DasNet(config(**changes))


@pytest.fixture(scope="module")
def net():
    return made().eval().requires_grad_(False)


@pytest.fixture(scope="module")
def network(net):
    """One that reports every peak."""
    return Das(PoseConfig(score_threshold=0.0), net=net)


@pytest.fixture(scope="module")
def pictures():
    """Noise of three sizes, two of them of one size in the network."""
    random = np.random.default_rng(0)
    return [random.integers(0, 255, (*size, 3), np.uint8)
            for size in ((120, 160), (160, 90), (240, 320))]


def people_of(images, seed=0):
    """A batch with one person for each image index of `images`, 96 px, 3D and labels known."""
    random = np.random.default_rng(seed)
    count = len(images)
    root = torch.from_numpy(random.uniform((-0.3, -0.3, 3), (0.3, 0.3, 5), (count, 3))).float()
    joints = torch.from_numpy(random.normal(0, 0.3, (count, J, 3))).float()
    joints[:, 0] = 0
    points = joints[:, torch.arange(K)] + root[:, None]
    camera = torch.tensor([[120.0, 110, 48, 47]]).expand(count, -1)
    keypoints = camera[:, None, :2] * points[..., :2] / points[..., 2:] + camera[:, None, 2:]
    boxes = torch.cat([keypoints.amin(1), keypoints.amax(1)], 1).clamp(0, 96)
    pixels = torch.from_numpy(random.integers(0, 255, (max([*images, 0]) + 1, 3, 96, 96)))
    return Batch(images=pixels.to(torch.uint8), complete=torch.ones(len(pixels), dtype=torch.bool),
                 ignored=[torch.zeros(0, 4)] * len(pixels), image=torch.tensor(images).long(),
                 boxes=boxes, keypoints=keypoints, keypoint_std=torch.zeros(count, K),
                 visible=torch.ones(count, K, dtype=torch.bool), camera=camera,
                 theta=torch.full((count, J, 4), torch.nan),
                 betas=torch.full((count, 10), torch.nan),
                 joints=joints, root=root)


def objective(net, **settings):
    return DasObjective(net, TrainingConfig(**settings), None)


# ----------------------------------------------------------------------- what locations learn


def test_positive_locations_are_a_square_around_the_centre():
    places = locations({"centers": torch.zeros(1, 2, 6, 8)}, 8)
    person, centerness = losses.positives(places, torch.tensor([[20.0, 28.0]]), 8)
    expected = torch.full((6, 8), -1)
    expected[2:5, 1:4] = 0  # 3 x 3 cells of 8 px; the middle one has its centre at 20, 28
    assert (person == expected).all()
    assert centerness[3, 2] == 1
    assert centerness[3, 3] == pytest.approx(math.exp(-2.5 * 8 / (math.sqrt(2) * 12)), rel=1e-5)
    assert centerness[2, 1] == pytest.approx(math.exp(-2.5 * 8 / 12), rel=1e-5)


def test_the_closest_of_two_centres_wins():
    places = locations({"centers": torch.zeros(1, 2, 4, 8)}, 8)
    centers = torch.tensor([[20.0, 12.0], [36.0, 12.0]])
    person, _ = losses.positives(places, centers, 8)
    away = (places[None] - centers[:, None, None]).norm(dim=3)
    assert (person[:3, 1:3] == 0).all() and (person[:3, 4:6] == 1).all()
    assert (person[away.min(0).values > 12 * math.sqrt(2)] == -1).all()


def test_without_people_nothing_is_positive():
    places = locations({"centers": torch.zeros(1, 2, 4, 8)}, 8)
    assert (losses.positives(places, torch.zeros(0, 2), 8)[0] == -1).all()


def test_the_centre_is_the_pelvis_where_the_picture_shows_it():
    batch = people_of([0, 0, 0])
    hips = [COCO17.index("left_hip"), COCO17.index("right_hip")]
    batch.keypoints[0, hips] = torch.tensor([[30.0, 40], [50, 44]])
    batch.keypoints[1, hips[0]] = torch.nan
    batch.keypoints[2, hips] = torch.tensor([[30.0, 100], [50, 104]])
    centers = losses.centers_of(batch, "pelvis")
    boxes = (batch.boxes[:, :2] + batch.boxes[:, 2:]) / 2
    assert centers[0].tolist() == [40, 42] and torch.equal(centers[1:], boxes[1:])
    assert torch.equal(losses.centers_of(batch, "box"), boxes)


def test_the_level_follows_from_the_farthest_known_joint():
    batch = people_of([0, 0, 0])
    centers = torch.full((3, 2), 48.0)
    batch.keypoints[:] = 48
    batch.keypoints[:, 5, 0] += torch.tensor([79.0, 81, 400])
    batch.keypoints[:, 6] = torch.nan
    assert losses.levels_of(batch, centers, (0, 80, 320)).tolist() == [0, 1, 2]


def test_ignored_regions_and_unlabelled_people_are_no_negatives():
    batch = people_of([0, 1])
    batch = batch._replace(complete=torch.tensor([True, False]),
                           ignored=[torch.tensor([[0.0, 0, 32, 96]]), torch.zeros(0, 4)])
    places = locations({"centers": torch.zeros(2, 2, 12, 12)}, 8)
    centers = torch.tensor([[20.0, 20.0], [60.0, 60.0]])
    person, _, counts = targets(batch, centers, torch.tensor([True, True]), places, 8)
    is_person = person >= 0
    assert (person[0][is_person[0]] == 0).all() and (person[1][is_person[1]] == 1).all()
    assert counts[is_person].all() and counts[0, :, 4:].all()
    assert not (counts[0, :, :4] & ~is_person[0, :, :4]).any()
    assert torch.equal(counts[1], is_person[1])


# ------------------------------------------------------------------------------ from maps to space


def test_projected_truth_comes_back_in_metres():
    batch = people_of([0, 0])
    batch = batch._replace(camera=torch.tensor([[120.0, 110, 48, 47], [300.0, 310, 40, 50]]))
    pose = {"joints": projected(batch), "log_depth": true_log_depth(batch)}
    expected = batch.joints + batch.root[:, None]
    assert torch.allclose(in_metres(pose, batch.camera), expected, atol=1e-4)


@pytest.mark.parametrize("camera", [
    _CAMERA, Camera(160, 120, 300.0, 280.0, 75.0, 66.0),
    Camera(160, 120, 150.0, 140.0, 75.0, 66.0, distortion=(-0.2, 0.05, 0.0, 0.0))])
def test_joints_in_pixels_come_back_in_metres(camera):
    random = np.random.default_rng(0)
    joints = random.normal(0, 0.3, (2, J, 3)) + np.array([[[0.1, 0.0, 4.0]], [[-0.2, 0.1, 6.0]]])
    depth = joints[:, 0, 2] / np.sqrt(camera.fx * camera.fy)
    z = joints[..., 2] - joints[:, :1, 2]
    found = in_space(camera.project(joints), z, depth, camera)
    assert np.allclose(found["joints"], joints, atol=1e-6)
    assert np.allclose(found["root"], joints[:, 0], atol=1e-6)


def test_a_body_that_is_not_in_front_of_the_camera_is_unknown():
    z = np.zeros((2, J))
    z[0, 3] = -5
    found = in_space(np.full((2, J, 2), 60.0), z, np.full(2, 0.01), _CAMERA)
    assert np.isnan(found["root"][0]).all() and np.isnan(found["joints"][0]).all()
    assert np.isfinite(found["joints"][1]).all()


def test_maps_made_from_the_truth_decode_to_it():
    """Without recursion; layers that see the whole pose change nothing."""
    net = made(recursions=0, lift=False).eval()
    net.poses[0].layers[-1].weight.data.zero_()
    keypoints = torch.tensor(np.random.default_rng(0).uniform(10, 80, (1, K, 2))).float()
    joints = torch.tensor(np.random.default_rng(1).uniform(10, 80, (1, J, 2))).float()
    z = torch.linspace(-0.4, 0.5, J)
    row, column = 4, 7
    center = torch.tensor([[8 * (column + 0.5), 8 * (row + 0.5)]])
    maps = {"centers": torch.zeros(1, 2, 12, 12), "features": torch.zeros(1, 16, 12, 12),
            "start": torch.zeros(1, K, 5, 24, 24), "keypoints": torch.zeros(1, K, 6, 12, 12),
            "joints": torch.zeros(1, J, 7, 12, 12)}
    size = size_of(keypoints)
    maps["keypoints"][0, :, :2, row, column] = (keypoints[0] - center) / 8
    beside = joints_from_keypoints() @ keypoints[0]
    maps["joints"][0, :, :2, row, column] = (joints[0] - beside) / size
    maps["joints"][0, :, 2, row, column] = z + 0.2
    pose, = net.describe(maps, 8, torch.tensor([0]), center)
    assert torch.allclose(pose["keypoints"], keypoints, atol=1e-3)
    assert torch.allclose(pose["joints"][0, :, :2], joints[0], atol=1e-3)
    assert torch.allclose(pose["joints"][0, :, 2], z - z[0], atol=1e-5)  # from the pelvis
    assert torch.allclose(pose["log_depth"], -size.log(), atol=1e-4)


def test_joints_start_from_keypoints_of_their_side():
    weights = joints_from_keypoints()
    assert torch.allclose(weights.sum(1), torch.ones(J))
    knee = weights[SMPL24.index("left_knee")]
    assert knee[COCO17.index("left_knee")] == 1
    mirrored = weights[SMPL24.mirror][:, COCO17.mirror]
    assert torch.equal(mirrored, weights)


# --------------------------------------------------------------------------------- recursive update


def _linear(height, width, stride, *coefficients):
    """Maps (1, 1, 1, h, w) of a linear function of the pixel at the cells' centres."""
    x = stride * (torch.arange(width) + 0.5)
    y = stride * (torch.arange(height) + 0.5)
    a, b, c = coefficients
    return (a * x + b * y[:, None] + c)[None, None, None]


def test_maps_are_read_at_pixels():
    maps = torch.cat([_linear(10, 12, 8, 0.5, -0.2, 3), _linear(10, 12, 8, 0.1, 0.3, -1)])
    points = torch.tensor([[[[20.0, 30.0], [51.3, 44.1]]], [[[60.0, 20.0], [37.0, 37.0]]]])
    read = sample(maps, torch.tensor([1, 0]), points, 8)[:, 0, :, 0]
    x, y = points[:, 0].unbind(-1)
    assert torch.allclose(read[0], 0.1 * x[0] + 0.3 * y[0] - 1, atol=1e-4)
    assert torch.allclose(read[1], 0.5 * x[1] - 0.2 * y[1] + 3, atol=1e-4)
    assert sample(maps, torch.tensor([0]), torch.full((1, 1, 1, 2), -40.0), 8).item() == 0


def test_an_update_goes_to_where_the_target_says_the_joint_is():
    """A guess 6 px beside a joint; around the joint, the maps say where it is exactly."""
    torch.manual_seed(0)
    update = Update(4, 16, 0.15)
    update.place.weight.data.zero_()
    joint = torch.tensor([60.0, 52.0])
    height, width = 24, 24  # at stride 4; MoveNet counts from the first cell's centre
    cells = torch.stack(torch.meshgrid(torch.arange(width), torch.arange(height), indexing="xy"), 2)
    to_joint = joint - 4.0 * cells
    start = torch.zeros(1, K, 5, height, width)
    start[:, :, 0] = torch.exp(-to_joint.square().sum(2) / (2 * 6.0**2))
    start[:, :, 1:3] = to_joint.permute(2, 0, 1)
    maps = {"start": start, "keypoints": torch.zeros(1, K, 6, 12, 12),
            "joints": torch.zeros(1, J, 7, 12, 12)}
    keypoints = (joint + torch.tensor([6.0, -3.0])).expand(1, K, 2)
    pose = {"keypoints": keypoints, "size": torch.tensor([60.0]),
            "joints": torch.zeros(1, J, 3), "offsets": torch.zeros(1, J, 3)}
    new = update(maps, torch.tensor([0]), torch.tensor([[20.0, 20.0]]), 8, torch.zeros(1, 4), pose)
    error = (new["keypoints"] - joint).norm(dim=2)
    assert (error < 1).all() and new["evidence"][0, 0, 0] > 0.5


def test_joints_are_averaged_without_a_displacement():
    update = Update(4, 4, 0.15)
    update.place.weight.data.zero_()
    maps = {"start": torch.zeros(1, K, 5, 24, 24), "keypoints": torch.zeros(1, K, 6, 12, 12),
            "joints": torch.zeros(1, J, 7, 12, 12)}
    maps["joints"][:, :, 5] = 0.3
    pose = {"keypoints": torch.full((1, K, 2), 50.0), "size": torch.tensor([40.0]),
            "joints": torch.full((1, J, 3), 50.0), "offsets": torch.full((1, J, 3), 0.1)}
    new = update(maps, torch.tensor([0]), torch.tensor([[44.0, 44.0]]), 8, torch.zeros(1, 4), pose)
    assert torch.allclose(new["offsets"][..., 2], torch.tensor(0.4))
    assert torch.allclose(new["offsets"][..., :2], torch.tensor(0.1))


def test_sources_fill_the_disc():
    points = disc(16)
    assert points.norm(dim=1).max() < 1 and points.mean(0).norm() < 0.1
    assert torch.cdist(points, points).fill_diagonal_(9).min() > 0.2


# ------------------------------------------------------------------------------------------ lift


def test_the_lift_puts_a_body_where_its_keypoints_are():
    """A body seen from the front, turned upright, right of the middle of the picture."""
    body, layer = BodyModel.load(), LiftedPose(4, 8)
    layer.layers[-1].weight.data.zero_()
    theta = torch.zeros(1, J, 4)
    theta[..., 3] = 1
    theta[:, 0] = torch.tensor([1.0, 0, 0, 0])
    model, root = body(theta, torch.zeros(1, 10)), torch.tensor([0.5, 0.1, 4.0])
    camera = torch.tensor([[500.0, 500, 250, 200]])
    space = model.keypoints + root
    keypoints = 500 * space[..., :2] / space[..., 2:] + camera[:, None, 2:]
    pose = {"keypoints": keypoints, "keypoint_std": torch.full((1, K, 2), 2.0),
            "evidence": torch.zeros(1, K, 2), "offsets": torch.zeros(1, J, 3),
            "size": size_of(keypoints), "log_depth": torch.zeros(1)}
    found = in_metres(layer(torch.zeros(1, 4), pose, torch.tensor([500.0, 400])), camera)
    error = found - (model.joints - model.joints[:, :1] + root)
    assert error.norm(dim=2).mean() < 0.4 and error[..., :2].norm(dim=2).mean() < 0.15
    relative = found - found[:, :1] - (model.joints - model.joints[:, :1])
    assert relative.norm(dim=2).mean() < 0.15


# ------------------------------------------------------------------------------------ likelihood


@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_flows_determinant_is_that_of_its_jacobian(dimensions):
    torch.manual_seed(0)
    flow = RealNvp(dimensions).double()
    for weight in flow.parameters():
        weight.data.add_(0.2 * torch.randn_like(weight))
    x = torch.randn(5, dimensions, dtype=torch.double)
    _, log_det = flow.normalised(x)
    for row in range(5):
        jacobian = torch.autograd.functional.jacobian(lambda v: flow.normalised(v[None])[0][0],
                                                      x[row])
        assert torch.linalg.slogdet(jacobian)[1] == pytest.approx(log_det[row].item(), abs=1e-9)


def test_the_flows_density_integrates_to_one():
    torch.manual_seed(0)
    flow = RealNvp(2).double()
    for weight in flow.parameters():
        weight.data.add_(0.05 * torch.randn_like(weight))
    axis = torch.linspace(-8, 8, 80, dtype=torch.double)
    with torch.no_grad():
        density = flow.log_density(torch.cartesian_prod(axis, axis)).exp()
    total = density.sum().item() * (axis[1] - axis[0]).item()**2
    assert total == pytest.approx(1, abs=1e-3)


def test_without_a_flow_it_is_laplaces_distribution():
    error, std = torch.tensor([[0.3, -0.2]]), torch.tensor([[0.1, 0.4]])
    laplace = torch.distributions.Laplace(torch.zeros(2), std[0])
    expected = -laplace.log_prob(error[0]).sum() - 2 * math.log(2)
    assert losses.residual_likelihood(error, std, None) == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("with_flow", [False, True])
def test_unknown_joints_give_no_gradient(with_flow):
    torch.manual_seed(0)
    found = torch.randn(2, 4, 2, requires_grad=True)
    std = torch.rand(2, 4, 2).add(0.1).requires_grad_()
    truth = torch.randn(2, 4, 2)
    truth[0, 1] = torch.nan
    truth[1, 2, 1] = torch.nan
    loss = losses.joint_loss(found, std, truth, torch.ones(2, 1, 2),
                             RealNvp(2) if with_flow else None)
    loss.backward()
    unknown = ~truth.isfinite().all(2)
    for value in (found, std):
        assert value.grad.isfinite().all() and (value.grad[unknown] == 0).all()
        assert (value.grad[~unknown] != 0).all()


def test_uncertain_labels_count_less():
    found, truth = torch.zeros(1, 1, 2), torch.ones(1, 1, 2)
    std = torch.full((1, 1, 2), 0.2)
    sharp, wide = (losses.joint_loss(found, std, truth, torch.ones(1, 1, 2), None, label)
                   for label in (0.0, torch.tensor([[[2.0]]])))
    assert wide < sharp


# ------------------------------------------------------------------------------------ training


@pytest.mark.parametrize("changes", [
    {}, dict(flow=False), dict(recursions=0), dict(recursions=2, center="box", lift=False),
    dict(strides=(8, 16, 32, 64), reaches=(0, 20, 40, 80)),
    dict(backbone="resnet18", strides=(16, 32), reaches=(0, 30))])
def test_losses_and_gradients_are_finite(changes):
    net = made(**changes)
    terms = objective(net)(people_of([0, 0, 1]), 0)
    terms["total"].backward()
    assert all(value.isfinite() for value in terms.values())
    assert {"center", "centerness", "keypoint", "joint", "depth", "box"} <= set(terms)
    grads = {name: weight.grad for name, weight in net.named_parameters() if weight.requires_grad}
    assert all(grad is None or grad.isfinite().all() for grad in grads.values())
    for part in ("pyramid.", "maps.", "poses.0.", "center."):
        assert any(grad is not None and (grad != 0).any()
                   for name, grad in grads.items() if name.startswith(part)), part


def test_a_batch_without_people_or_without_space_trains():
    net = made()
    empty = people_of([])
    objective(net)(empty, 0)["total"].backward()
    flat = people_of([0, 0])
    flat = flat._replace(**{name: torch.full_like(getattr(flat, name), torch.nan)
                            for name in ("joints", "root", "camera")})
    terms = objective(net)(flat, 0)
    assert terms["joint"] == 0 and terms["depth"] == 0 and terms["total"].isfinite()


def test_people_of_an_image_learn_from_it_alone():
    """Poses of the second image do not change with the first one."""
    net = made().eval()
    batch = people_of([0, 1])
    other = people_of([0, 1])
    other.images[0] = 0
    image, centers = torch.tensor([1]), torch.tensor([[44.0, 44.0]])
    poses = [net.describe(net(b.images.float())[0], 8, image, centers)[-1]
             for b in (batch, other)]
    for name in poses[0]:
        assert torch.allclose(poses[0][name], poses[1][name], atol=1e-3), name


# ----------------------------------------------------------------------------------- inference


def test_alone_and_in_a_batch_are_the_same(network, pictures):
    frames = [Frame(picture, _CAMERA.resized(*picture.shape[1::-1])) for picture in pictures]
    for frame, together in zip(frames, network.detect(frames)):
        alone = network.detect([frame])[0]
        assert len(alone) == len(together) >= 1
        for name in ("boxes", "scores", "keypoints", "joints", "root"):
            assert np.allclose(getattr(alone, name), getattr(together, name), rtol=1e-3,
                               atol=1e-3, equal_nan=True), name


def test_people_have_what_the_camera_allows(network, pictures):
    flat, = network.detect([Frame(pictures[0])])
    deep, = network.detect([Frame(pictures[0], _CAMERA)])
    assert len(flat) == len(deep) >= 1
    assert flat.root is None and flat.joints is None and deep.theta is None
    assert np.allclose(deep.joints[:, 0], deep.root, equal_nan=True)
    assert np.allclose(flat.keypoints, deep.keypoints)


def test_a_larger_picture_shows_the_same_metres(network, pictures):
    picture = pictures[0]
    people, = network.detect([Frame(picture, _CAMERA)])
    twice = picture.repeat(2, 0).repeat(2, 1)
    again, = network.detect([Frame(twice, _CAMERA.resized(320, 240))])
    assert np.allclose(again.keypoints, 2 * people.keypoints, atol=0.1)
    assert np.allclose(again.joints, people.joints, rtol=1e-2, atol=1e-2, equal_nan=True)


def test_a_longer_lens_sees_the_same_person_farther_away(network, pictures):
    near, = network.detect([Frame(pictures[0], _CAMERA)])
    tele = Camera(160, 120, 300.0, 280.0, 75.0, 66.0)
    far, = network.detect([Frame(pictures[0], tele)])
    known = np.isfinite(near.root).all(1)
    assert known.any()
    assert np.allclose(far.root[known, 2], 2 * near.root[known, 2], rtol=1e-5)


@pytest.mark.parametrize("camera", [None, _CAMERA])
def test_nobody_is_an_empty_list(net, pictures, camera):
    people, = Das(PoseConfig(score_threshold=1.0), net=net).detect([Frame(pictures[0], camera)])
    assert len(people) == 0 and people.keypoints.shape == (0, 17, 2)


def test_no_more_people_than_asked_for(net, pictures):
    frame = Frame(pictures[0])
    best, = Das(PoseConfig(score_threshold=0.0, max_people=1), net=net).detect([frame])
    everybody, = Das(PoseConfig(score_threshold=0.0), net=net).detect([frame])
    assert len(best) == 1 < len(everybody)
    assert best.scores[0] == pytest.approx(everybody.scores[0])


def test_the_score_is_confidence_times_centerness():
    centers = torch.tensor([2.0, -1.0]).view(1, 2, 1, 1)
    assert scores_of({"centers": centers}).item() == pytest.approx(
        1 / (1 + math.exp(-2)) / (1 + math.exp(1)))


# ----------------------------------------------------------------------------------- checkpoints


def test_a_checkpoint_has_neither_flows_nor_the_frozen_backbone(tmp_path):
    net = made()
    save_checkpoint(tmp_path / "das.pt", net, "")
    names = torch.load(tmp_path / "das.pt", weights_only=True)["weights"]
    assert not any(name.startswith(("flows.", "features.backbone.")) for name in names)
    again = load_checkpoint(tmp_path / "das.pt", config())
    images = torch.rand(1, 3, 64, 64) * 255
    with torch.no_grad():
        before, after = (n.eval()(images)[0]["keypoints"] for n in (net, again))
    assert torch.allclose(before, after, atol=2e-2)


def test_a_checkpoint_that_lacks_a_weight_is_refused(tmp_path):
    path = tmp_path / "das.pt"
    save_checkpoint(path, made(), "")
    saved = torch.load(path, weights_only=True)
    saved["weights"].pop("maps.weight")
    torch.save(saved, path)
    with pytest.raises(CheckpointError, match="maps.weight"):
        load_checkpoint(path)


@pytest.mark.parametrize("changes, message", [
    (dict(strides=(16, 8), reaches=(0, 80)), "strides"), (dict(strides=(12,)), "strides"),
    (dict(strides=(8, 16)), "reaches"), (dict(reaches=(20,)), "reaches"),
    (dict(crop=100), "crop"), (dict(input_size=500), "input_size")])
def test_a_wrong_setting_is_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        DasConfig(**changes)
