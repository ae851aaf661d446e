"""The Self-Attention Network: attention, integral regression, losses, and people in crops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ros2_pose import oks
from ros2_pose.camera import Camera
from ros2_pose.config import ConfigError, PoseConfig, from_dict
from ros2_pose.imaging.crop import crop_person
from ros2_pose.networks.checkpoint import (
    CheckpointError,
    load_checkpoint,
    load_layers,
    save_checkpoint,
)
from ros2_pose.networks.kblock import axis_votes
from ros2_pose.networks.refiner import Guide, rows_by_shape
from ros2_pose.networks.registry import create_network, create_refiner, trainable_networks
from ros2_pose.networks.resnet import RESNETS
from ros2_pose.networks.san.config import SanConfig
from ros2_pose.networks.san.lifted import LiftedVotes
from ros2_pose.networks.san.network import CUBE_M, K, SanNet, SelfAttention, _integral
from ros2_pose.networks.san.refiner import San, squared
from ros2_pose.people import Frame
from ros2_pose.skeleton import COCO17, SMPL24
from ros2_pose.training.augment import Batch, collate, person_crop
from ros2_pose.training.config import TrainingConfig

_TINY = SanConfig(backbone="thunder", input_size=96, widths=(16, 16, 16), depth_cells=4,
                  laterals=True)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return SanNet(_TINY).eval()


@pytest.fixture(scope="module")
def people(clip):
    """The clip's first picture, and two people in it as the shipped MoveNet finds them."""
    network = create_network(PoseConfig(network="movenet"))
    return clip[0], network.detect([Frame(clip[0])])[0][:2]


# ------------------------------------------------------------------------------ attention


def test_without_its_share_attention_changes_nothing():
    torch.manual_seed(0)
    block, x = SelfAttention(16), torch.randn(2, 16, 3, 5)
    assert block.delta.item() == 0
    torch.testing.assert_close(block(x), x, rtol=0, atol=0)


def test_attention_is_what_a_loop_over_the_cells_computes():
    torch.manual_seed(0)
    block, x = SelfAttention(16).double(), torch.randn(1, 16, 2, 3).double()
    torch.nn.init.constant_(block.delta, 0.7)
    query, key, value = (layer(x)[0].flatten(1) for layer in (block.query, block.key, block.value))
    weights = block.attention(x)[0]
    torch.testing.assert_close(weights.sum(1), torch.ones(6).double())
    expected = x[0].flatten(1).clone()
    for i in range(6):
        products = [sum(query[c, i] * key[c, j] for c in range(2)).item() for j in range(6)]
        share = np.exp(products) / np.exp(products).sum()
        np.testing.assert_allclose(weights[i].detach().numpy(), share)
        for j in range(6):
            expected[:, i] = expected[:, i] + 0.7 * share[j] * value[:, j]
    torch.testing.assert_close(block(x)[0].flatten(1), expected)


def test_the_block_has_the_size_that_the_paper_reports():
    """5 M parameters and 0.33 GMAC more at 2048 channels of 8 x 8 cells."""
    block = SelfAttention(2048)
    weights = sum(layer.weight.numel() for layer in (block.query, block.key, block.value))
    assert weights == pytest.approx(5.24e6, rel=1e-3)
    assert sum(p.numel() for p in block.parameters()) == pytest.approx(5.24e6, rel=2e-3)
    assert 8 * 8 * weights == pytest.approx(0.336e9, rel=2e-3)


# ---------------------------------------------------------------------- integral regression


def test_the_integral_of_votes_for_one_cell_is_that_cell():
    maps, depth = torch.full((1, 41, 6, 9), -60.0), torch.full((1, 41, 4), -60.0)
    rng = np.random.default_rng(0)
    row, column, layer = (rng.integers(count, size=41) for count in (6, 9, 4))
    maps[0, range(41), row, column] = 0.0
    depth[0, range(41), layer] = 0.0
    x, y, z = _integral(maps, depth)[0].T.numpy()
    np.testing.assert_allclose(x, column + 0.5, atol=1e-4)
    np.testing.assert_allclose(y, row + 0.5, atol=1e-4)
    np.testing.assert_allclose(z, ((layer + 0.5) / 4 - 0.5) * CUBE_M, atol=1e-4)


def test_marginals_are_those_of_one_volume(net):
    """Without other votes, the maps and the depth's votes come from one softmax."""
    net = SanNet(replace(_TINY, lift=False)).eval()
    out = net(255 * torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(0)))
    for votes in (out["maps"][:, K:].flatten(2), out["depth"]):
        torch.testing.assert_close(votes.exp().sum(2), torch.ones(1, votes.shape[1]))


def test_votes_of_a_lifted_body_are_where_it_is():
    """Their means are its joints, and wider votes come from less certain keypoints."""
    votes = LiftedVotes()
    joints = 8 + torch.rand(2, 24, 3, generator=torch.Generator().manual_seed(0)) * 8
    across, along = votes(joints, torch.tensor([0.0, 9.0]), (24, 24, 24))
    x, y, z = (axis_votes(v)[0] for v in (across.logsumexp(-2), across.logsumexp(-1), along))
    torch.testing.assert_close(torch.stack([x, y, z], 2), joints, atol=0.2, rtol=0)
    for v in (across.flatten(2), along):
        peak = v.softmax(2).amax(2)
        assert (peak[0] > 1.5 * peak[1]).all()


def test_the_lifted_body_explains_the_keypoints(upright):
    """Joints of a standing person that faces the camera, and of the mirrored crop."""
    _, body = upright
    votes = LiftedVotes()
    theta = torch.tensor([0.0, 0, 0, 1]).repeat(1, 24, 1)
    theta[:, 0] = torch.tensor([1.0, 0, 0, 0])
    posed = body(theta, torch.zeros(1, 10), with_vertices=False)
    points = 460 * posed.keypoints[..., :2] / (4 + posed.keypoints[..., 2:]) + 128
    found = votes.joints(points, torch.full_like(points, 3.0), torch.ones(1, 17), (256, 256))
    pixels = 460 * posed.joints[..., :2] / (4 + posed.joints[..., 2:]) + 128
    assert (found[..., :2] - pixels).norm(dim=2).median() < 12
    flipped = points[:, COCO17.mirror] * torch.tensor([-1, 1]) + torch.tensor([256, 0])
    other = votes.joints(flipped, torch.full_like(points, 3.0), torch.ones(1, 17), (256, 256))
    back = other[:, SMPL24.mirror] * torch.tensor([-1, 1, 1]) + torch.tensor([256, 0, 0])
    assert (back - found)[..., :2].norm(dim=2).median() < 8


def test_it_starts_as_thunder(people):
    """Volumes that say nothing leave the keypoints where Thunder's heat-maps put them."""
    picture, found = people
    torch.manual_seed(0)
    net = SanNet(SanConfig(backbone="thunder", widths=(8, 8, 8), depth_cells=4, laterals=True))
    torch.nn.init.zeros_(net.decoder.volume.weight)
    crop = crop_person(Frame(picture), found.boxes[0], 256)
    guide = Guide(crop.from_picture(found.keypoints[0]), np.array(crop.image.shape[1::-1]) / 2)
    ours = San(PoseConfig(engine="torch"), net=net).refine([crop.image], [guide])[0]
    theirs = create_refiner(PoseConfig(engine="torch")).refine([crop.image], [guide])[0]
    sure = theirs.keypoint_scores > 0.5
    assert sure.sum() >= 8
    off = np.linalg.norm(ours.keypoints - theirs.keypoints, axis=1)
    assert np.median(off[sure]) < 3 and off[sure].max() < 12
    np.testing.assert_allclose(ours.keypoint_scores[sure], theirs.keypoint_scores[sure], atol=0.3)


def test_on_a_gpu_a_batch_of_crops_gives_what_each_crop_gives(people):
    """The same way on a CPU: with and without keypoints in the guide, and another size."""
    picture, found = people
    frame = Frame(picture)
    crops = [crop_person(frame, box, 256) for box in found.boxes]
    images = [crop.image for crop in crops]
    guides = [Guide(crop.from_picture(points), np.array(crop.image.shape[1::-1]) / 2)
              for crop, points in zip(crops, found.keypoints)]
    images += [images[0], np.pad(images[0], ((0, 32), (0, 0), (0, 0)))]
    guides += [Guide(np.full((17, 2), np.nan), guides[0].middle), guides[0]]
    refiner = create_refiner(PoseConfig(refiner="san", engine="torch"))
    alone = refiner.refine(images, guides)
    squares = [squared(image, refiner.long_side) for image in images]
    groups = rows_by_shape([square for square, _ in squares])
    assert sorted(map(len, groups)) == [1, len(images) - 1]
    for rows in groups:
        together = refiner._refined(*(np.stack([squares[row][k] for row in rows]) for k in (0, 1)),
                                    [guides[row] for row in rows])
        for row, one in zip(rows, together):
            for ours, expected in zip(one, alone[row]):
                np.testing.assert_allclose(ours, expected, atol=5e-3)


# ------------------------------------------------------------------------------- objective


@pytest.fixture(scope="module")
def batch(poses):
    """Crops of synthetic people; the last one is a person with keypoints alone."""
    from ros2_pose.data.synthetic.pictures import SyntheticPictures
    pictures = SyntheticPictures(poses, seed=1)
    crops = (person_crop(pictures[i], 96) for i in range(12))
    made = collate([crop for crop in crops if len(crop.people["boxes"])][:4])
    unknown = {name: getattr(made, name).clone() for name in ("theta", "betas", "joints", "root",
                                                              "camera", "keypoint_std")}
    for name, value in unknown.items():
        value[-1] = 2.0 if name == "keypoint_std" else torch.nan
    return made._replace(**unknown)


def _objective(net):
    from ros2_pose.body.model import BodyModel
    from ros2_pose.training.san_objective import SanObjective
    return SanObjective(net, TrainingConfig(keypoint_weight=0.05, vote_weight=0.05),
                        BodyModel.load())


def test_the_truth_of_joints_is_where_the_picture_shows_them(net, batch):
    """Shoulders of both joint sets are close to each other, across and along the view."""
    truth, _ = _objective(net).truth(batch)
    for keypoint, joint in ((5, 16), (6, 17)):
        off = (truth[:-1, keypoint] - truth[:-1, K + joint]).norm(dim=1)
        assert float(off.nanmean()) < 96 / 4 / 10
    assert truth[-1, :, 2].isnan().all() and truth[-1, K:].isnan().all()


def test_true_votes_give_the_true_pose_but_for_the_size(net, batch):
    objective = _objective(net)
    truth, _ = objective.truth(batch)
    joints = truth.clone()
    joints[..., 2] *= CUBE_M * 4 / 96
    known = truth[:, K:].isfinite().flatten(1).all(1)
    assert known.any()
    part = Batch(*[value[known] if name in Batch._fields[4:] else value
                   for name, value in batch._asdict().items()])
    placed = objective.placed({"joints": joints[known], "size": torch.ones(len(part.boxes))}, part)
    assert (placed - part.joints).norm(dim=2).mean() < 0.08
    larger = objective.placed({"joints": joints[known], "size": torch.full((len(placed),), 1.1)},
                              part)
    assert (larger.norm(dim=2).mean(1) > 1.02 * placed.norm(dim=2).mean(1)).all()


def test_a_person_known_in_2d_alone_teaches_no_depth(net, batch):
    objective = _objective(net)
    out = net(batch.images.float())
    out["depth"].retain_grad()
    truth, std = objective.truth(batch)
    objective._vote_loss(out, truth, std).sum().backward()
    grad = out["depth"].grad.abs().sum((1, 2))
    assert (grad[:-1] > 0).all() and grad[-1] == 0
    net.zero_grad()


def test_losses_and_gradients_are_finite(batch):
    torch.manual_seed(0)
    net = SanNet(_TINY).train()
    terms = _objective(net)(batch, 0)
    terms["total"].backward()
    assert all(terms[name].isfinite() for name in ("keypoint", "vote", "total"))
    for name, weight in net.named_parameters():
        assert weight.requires_grad != net.is_given(name), name
        if weight.requires_grad:
            assert weight.grad.isfinite().all(), name
    no_one = batch._replace(**{name: getattr(batch, name)[:0] for name in Batch._fields[3:]})
    _objective(net)(no_one, 0)["total"].backward()


def test_the_paper_s_backbone_learns_too(monkeypatch):
    """A ResNet has no heads: its votes are the volumes' alone, and its weights learn."""
    monkeypatch.setitem(RESNETS, "resnet50", ("bottleneck", [1, 1, 1, 1]))
    torch.manual_seed(0)
    net = SanNet(SanConfig(input_size=64, widths=(8, 8, 8), depth_cells=4)).eval()
    out = net(255 * torch.rand(1, 3, 64, 64))
    assert out["maps"].shape == (1, 41, 16, 16)
    assert out["keypoint_scores"].min() > 0 and out["keypoint_scores"].max() <= 1
    out["joints"].sum().backward()
    weights = dict(net.features.resnet.named_parameters())
    assert all(weights[name].grad.abs().max() > 0 for name in weights if "layer.0" in name)


def test_narrow_crops_keep_the_person():
    from ros2_pose.training.san_objective import narrowed
    crops = torch.ones(8, 3, 256, 256)
    boxes = torch.tensor([[100.0, 26, 156, 231]]).repeat(8, 1)
    shown = narrowed(crops, boxes, 0)
    is_narrow = (shown == 0).flatten(1).any(1)
    assert 0 < is_narrow.sum() < 8
    assert (shown[:, :, 26:231, 100:156] == 1).all()
    assert (shown[is_narrow][:, :, :, [0, 255]] == 0).all()


# -------------------------------------------------------------------------------- refiner


def test_a_square_shows_the_crop_in_its_middle():
    crop = np.full((64, 32, 3), 7, np.uint8)
    square, corner = squared(crop, 96)
    assert square.shape == (96, 96, 3) and corner.tolist() == [32, 16]
    assert (square[16:80, 32:64] == 7).all() and square.sum() == crop.sum()
    same, corner = squared(crop, 16)
    assert same.shape == crop.shape and corner.tolist() == [0, 0]


def test_joints_are_in_space_where_the_camera_is_known(people):
    picture, _ = people
    network = create_network(PoseConfig(refiner="san"))
    assert network.detect([Frame(picture)])[0].joints is None
    camera = Camera.from_fov(*picture.shape[1::-1], 60)
    found = network.detect([Frame(picture, camera)])[0]
    known = np.isfinite(found.root).all(1)
    assert known.sum() >= 2
    joints = found.joints[known]
    np.testing.assert_array_equal(joints[:, 0], found.root[known])
    wrists = camera.project(joints[:, [20, 21]])
    near = np.linalg.norm(wrists - found.keypoints[known][:, [9, 10]], axis=2)
    size = np.sqrt(oks.area(found.boxes[known]))[:, None]
    assert np.median(near / size) < 0.25


# ------------------------------------------------------------------------------- bad input


def test_calibration_of_a_refiner_names_the_command(net):
    from ros2_pose.training.calibrate import calibrate
    with pytest.raises(ConfigError, match="benchmarks.calibration .* --refiner san"):
        calibrate(net, [], 1)


def test_it_can_be_trained_by_its_name():
    assert "san" in trainable_networks()


def test_a_checkpoint_is_strict(net, tmp_path):
    path = tmp_path / "san.pt"
    save_checkpoint(path, net, "")
    loaded = load_checkpoint(path)
    for name, value in loaded.state_dict().items():
        if net.is_given(name):
            assert torch.equal(value, net.state_dict()[name])
    saved = torch.load(path, weights_only=True)
    del saved["weights"]["attention.delta"]
    torch.save(saved, path)
    with pytest.raises(CheckpointError, match="attention.delta"):
        load_checkpoint(path)


@pytest.mark.parametrize("settings, words", [
    ({"refiner": "movenet"}, "refiner: 'movenet' is not one of thunder, san"),
    ({"refiner": "nanodet"}, "refiner: 'nanodet' is not one of thunder, san"),
    ({"network": "san"}, "network: 'san' is not one of top_down, "),
    ({"finders": ["san"]}, "finders: 'san' is not one of movenet, ")])
def test_a_network_in_the_wrong_place_is_named(settings, words):
    with pytest.raises(ConfigError, match=words):
        from_dict(PoseConfig, settings)


def test_a_checkpoint_of_another_network_is_refused(net, tmp_path):
    from ros2_pose.networks.tian.network import TianNet
    save_checkpoint(tmp_path / "san.pt", net, "")
    with pytest.raises(CheckpointError, match="a checkpoint of san, not of tian"):
        load_layers(tmp_path / "san.pt", TianNet)


@pytest.mark.parametrize("settings, words", [
    ({"widths": [16, 16]}, "widths"), ({"widths": [16, 16, 12]}, "multiples of 8"),
    ({"input_size": 100}, "multiple of 32")])
def test_an_architecture_that_is_not_possible_is_named(settings, words):
    with pytest.raises(ConfigError, match=words):
        from_dict(SanConfig, settings)
