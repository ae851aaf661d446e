"""The network of Tian et al. by its properties; its layers against direct computations."""

from dataclasses import asdict

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.spatial.transform import Rotation

pytest.importorskip("transformers", reason="only where requirements.txt is installed")

from ros2_pose.body.model import BodyModel
from ros2_pose.camera import Camera
from ros2_pose.config import ConfigError, PoseConfig
from ros2_pose.networks.checkpoint import (
    CheckpointError,
    load_checkpoint,
    load_layers,
    save_checkpoint,
)
from ros2_pose.networks.tian import efficientnet_lite, roi
from ros2_pose.networks.tian import network as tian
from ros2_pose.networks.tian.config import TianConfig
from ros2_pose.networks.tian.detector import Tian
from ros2_pose.networks.tian.network import Described, TianNet
from ros2_pose.networks.tian.smpl_head import camera_from_box, root_rotated
from ros2_pose.people import Frame

_CAMERA = Camera(160, 120, 150.0, 140.0, 75.0, 66.0)


LOOK = dict(backbone="movenet", second_look=True, cells=64)


def tiny(**changes):
    return TianConfig(**{"input_size": 96, "width": 32, "decoder_layers": 2, "heads": 4,
                         "points": 1, "ffn": 32, "queries": 6, "roi_width": 16, "roi_layers": 1,
                         **changes})


def made(**changes):
    """A network that has learned nothing."""
    torch.manual_seed(0)
    return TianNet(tiny(**changes)).eval().requires_grad_(False)


def detector(net, **settings):
    """A detector with these layers."""
    return Tian(PoseConfig(**settings), net=net)


@pytest.fixture(scope="module")
def net():
    return made()


@pytest.fixture(scope="module")
def network(net):
    """One that reports everybody whom it proposes."""
    return detector(net, score_threshold=0.0)


@pytest.fixture(scope="module")
def pictures():
    """Noise of three sizes, two of them of one size in the network."""
    random = np.random.default_rng(0)
    return [random.integers(0, 255, (*size, 3), np.uint8)
            for size in ((120, 160), (160, 90), (240, 320))]


# --------------------------------------------------------------------------------- detection


@pytest.mark.parametrize("changes", [
    {}, dict(backbone="resnet18"), dict(backbone="movenet"), LOOK,
    dict(two_stage=False, features="direct", keypoints="heatmap")])
def test_alone_and_in_a_batch_are_the_same(changes, pictures):
    network = detector(made(**changes), score_threshold=0.0)
    frames = [Frame(picture, _CAMERA.resized(*picture.shape[1::-1])) for picture in pictures]
    for frame, together in zip(frames, network.detect(frames)):
        alone = network.detect([frame])[0]
        assert len(alone) == len(together) >= 1
        for name in ("boxes", "scores", "keypoints", "theta", "joints"):
            assert np.allclose(getattr(alone, name), getattr(together, name), rtol=1e-3,
                               atol=1e-3, equal_nan=True), name


def test_people_have_what_the_camera_allows(network, pictures):
    flat, = network.detect([Frame(pictures[0])])
    deep, = network.detect([Frame(pictures[0], _CAMERA)])
    assert len(flat) == len(deep) >= 1
    for name in ("joints", "theta", "betas", "root"):
        assert getattr(flat, name) is None and getattr(deep, name) is not None, name
    assert np.allclose(flat.keypoints, deep.keypoints)
    assert (np.linalg.eigvalsh(flat.keypoint_cov) > 0).all()
    assert (flat.keypoint_scores >= 0).all() and (flat.keypoint_scores <= 1).all()
    assert (flat.boxes >= 0).all() and (flat.boxes <= (160, 120) * 2).all()
    assert (np.diff(flat.scores) <= 0).all()


@pytest.mark.parametrize("camera", [None, _CAMERA])
def test_nobody_is_an_empty_list(net, pictures, camera):
    people, = detector(net, score_threshold=1.0).detect([Frame(pictures[0], camera)])
    assert len(people) == 0 and people.keypoints.shape == (0, 17, 2)


def test_no_more_people_than_asked_for(net, pictures):
    frame = Frame(pictures[0])
    best, = detector(net, score_threshold=0.0, max_people=1).detect([frame])
    everybody, = detector(net, score_threshold=0.0).detect([frame])
    assert len(best) == 1 < len(everybody)
    assert np.isclose(best.scores[0], everybody.scores, rtol=1e-5).any()


def test_whose_joints_are_found_scores_higher_and_nobody_is_reported_twice(net):
    picture = Frame(np.zeros((96, 96, 3), np.uint8))
    boxes = torch.tensor([[0.0, 0, 40, 90], [50, 0, 90, 90], [50, 0, 90, 90]])
    points = boxes[:, None, :2] + torch.rand(1, 17, 2) * torch.tensor([40, 90])
    spread = torch.tensor([4.0, 0, 0.1])[:, None, None].expand(3, 17, 2).square()  # px^2
    raw = [(torch.tensor([0.9, 0.8, 0.7]), boxes, points, spread, torch.rand(3, 24, 4),
            torch.zeros(3, 10))]
    people = detector(net, score_threshold=0.1).decode(raw, picture)
    assert people.boxes[:, 0].tolist() == [50, 0]
    assert people.scores == pytest.approx([0.8, 0.9 * (1 - 0.1 / 0.25)**0.5], rel=1e-4)
    certain = detector(net, score_threshold=0.75).decode(raw, picture)
    assert certain.scores == pytest.approx([0.8], rel=1e-4)


def test_each_layer_refines_the_last_ones_boxes(net):
    """Heads that have learned nothing move nothing: proposals stay where they are."""
    found = net.detect(255 * torch.rand(2, 3, 64, 96))
    (_, first), (_, last) = found.layers
    assert torch.allclose(first, last, atol=1e-4)
    sizes = {round(size, 3) for size in last[..., 2:].flatten().tolist()}
    assert sizes <= {0.05, 0.1, 0.2}  # of the levels
    assert len(found.proposals[1][0]) == 12 * 8 + 6 * 4 + 3 * 2


def test_one_head_for_what_is_proposed_and_for_what_is_refined(net):
    """`transformers` has two names for it; trained or loaded, they are one."""
    for own, decoders in ((net.detr.bbox_embed, net.detr.model.decoder.bbox_embed),
                          (net.detr.class_embed, net.detr.model.decoder.class_embed)):
        pairs = list(zip(own.parameters(), decoders.parameters(), strict=True))
        assert all(a is b for a, b in pairs) and len({id(a) for a, _ in pairs}) == len(pairs)


def test_layers_have_heads_of_their_own_where_each_refines():
    refining, shared = (made(two_stage=False, box_refine=refine).detr for refine in (True, False))
    assert refining.class_embed[0].weight is not refining.class_embed[1].weight
    assert refining.bbox_embed[0].layers[0].weight is not refining.bbox_embed[1].layers[0].weight
    assert shared.class_embed[0].weight is shared.class_embed[1].weight


@pytest.mark.parametrize("backbone, frozen", [
    ("efficientnet_lite0", ("stem", "stages.0.", "stages.1.")),
    ("resnet18", ("embedder", "encoder.stages.0."))])
def test_only_the_first_layers_of_a_backbone_are_frozen(backbone, frozen):
    weights = dict(TianNet(tiny(backbone=backbone)).detr.model.backbone.model.named_parameters())
    learning = [name for name, weight in weights.items() if weight.requires_grad]
    assert set(learning) == {name for name in weights if not any(f in name for f in frozen)}
    assert 0 < len(learning) < len(weights)


# ----------------------------------------------------------------------------------- pyramid


def bilinear(features, x, y):
    """(C,) of features (C, h, w) at a place in cells whose middles are at +0.5; 0 outside."""
    channels, height, width = features.shape
    column, row = int(np.floor(x - 0.5)), int(np.floor(y - 0.5))
    out = np.zeros(channels)
    for j, i in ((j, i) for j in (row, row + 1) for i in (column, column + 1)):
        if 0 <= j < height and 0 <= i < width:
            out += features[:, j, i] * (1 - abs(y - 0.5 - j)) * (1 - abs(x - 0.5 - i))
    return out


def test_boxes_are_sampled_bilinearly_wherever_they_are():
    maps = [torch.randn(2, 3, 512 // stride, 768 // stride) for stride in roi.STRIDES]
    boxes = torch.tensor([[13.0, 20, 35, 50], [-50, -60, 100, 90], [100, 50, 400, 300],
                          [600, 400, 660, 450], [0, 0, 768, 512], [900, 600, 1000, 700]])
    image = torch.tensor([0, 1, 1, 0, 1, 0])
    found = roi.roi_align(maps, boxes, image, 5).numpy()
    levels = roi.level_of(boxes, 5)
    assert set(levels.tolist()) == set(range(len(roi.STRIDES)))
    for number, (box, which, level) in enumerate(zip(boxes.numpy(), image, levels)):
        features, stride = maps[level][which].numpy(), roi.STRIDES[level]
        for i in range(5):
            for j in range(5):
                x, y = box[:2] + (np.array([j, i]) + 0.5) / 5 * (box[2:] - box[:2])
                expected = bilinear(features, x / stride, y / stride)
                assert np.allclose(found[number, :, i, j], expected, atol=1e-4)
    assert (found[5] == 0).all()


@pytest.mark.parametrize("cells", [7, 32])
def test_larger_boxes_are_sampled_from_coarser_levels(cells):
    sides = cells * torch.tensor([0.0, 1, 7.9, 8.1, 15.9, 16.1, 31, 33, 2000])
    boxes = torch.stack([sides * 0 - 3, sides * 0 + 7, 0.5 * sides - 3, 2 * sides + 7], 1)
    strides = [roi.STRIDES[level] for level in roi.level_of(boxes, cells)]
    assert strides == [4, 4, 4, 8, 8, 16, 16, 32, 32]


@pytest.mark.parametrize("top_down", [True, False])
def test_finer_levels_know_of_coarser_ones_in_the_pyramid_alone(top_down):
    pyramid = roi.Pyramid((4, 5, 6), 8, top_down)
    features = [torch.randn(1, c, 16 // 2**n, 12 // 2**n) for n, c in enumerate((4, 5, 6))]
    before = pyramid(features)
    features[2] += 1
    changed = [not torch.equal(a, b) for a, b in zip(before, pyramid(features))]
    assert changed == [top_down, top_down, True]


# --------------------------------------------------------------------------------- keypoints


def described(net, boxes):
    maps = [10 * torch.randn(1, 16, 96 // stride, 96 // stride) for stride in roi.STRIDES]
    images = 255 * torch.rand(1, 3, net.config.picture_size, net.config.picture_size)
    return net.describe(images, maps, boxes, torch.zeros(len(boxes), dtype=torch.long),
                        torch.randn(len(boxes), 32))


@pytest.mark.parametrize("changes", [{}, dict(keypoints="heatmap"), LOOK], ids=str)
def test_keypoints_lie_in_the_region(changes):
    net = made(**changes)
    boxes = torch.tensor([[10.0, 10, 50, 90], [-20, 30, 10, 50], [80, 80, 200, 300]])
    points, variance = net.in_px(boxes, described(net, boxes))
    size = boxes[:, None, 2:] - boxes[:, None, :2]
    middle = (boxes[:, None, 2:] + boxes[:, None, :2]) / 2
    if net.config.second_look:
        size = size.amax(2, keepdim=True).expand(-1, -1, 2)
    # The offsets of a second look lead out of a cell, and out of the region by two at most.
    beyond = 2 * 2 / net.config.cells if net.config.second_look else 0.0
    assert ((points - middle).abs() <= (1 + beyond) * 1.25 / 2 * size).all()
    assert (variance > 0).all() and (variance < (2 * size)**2).all()


def test_a_second_look_reads_what_thunder_reads(clip):
    """Its votes alone, decoded as Google decodes them: the refiner's, from the same square."""
    from ros2_pose.networks.refiner import Guide
    from ros2_pose.networks.thunder import Thunder
    from ros2_pose.networks.tian.second_look import SecondLook
    from ros2_pose.networks.votes import read_votes
    picture = clip[0]
    box = torch.tensor([[100.0, 300, 356, 556]])  # 256 px: nothing is resampled
    pictures = torch.from_numpy(np.ascontiguousarray(picture)).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        look = SecondLook().eval()
        votes, places = look(pictures, box, torch.zeros(1, dtype=torch.long))
        points, std = read_votes(10 * votes, places)
    crop = np.ascontiguousarray(picture[300:556, 100:356])
    nothing = np.full((17, 2), np.nan)
    refined = Thunder(PoseConfig(engine="torch")).refine(
        [crop], [Guide(nothing, np.array([128.0, 128.0]))])[0]
    sure = refined.keypoint_scores > 0.3
    assert sure.sum() >= 5
    off = np.linalg.norm(4 * points[0].numpy() - refined.keypoints, axis=1)
    assert np.median(off[sure]) < 2.0 and off[sure].max() < 8.0
    assert (std > 0).all()


def test_pose_features_stay_alive():
    """What is given to the shipped network is used as it was published: heat-maps show joints."""
    net = load_layers("", TianNet)
    given = TianNet(net.config).state_dict()
    for name, value in net.state_dict().items():
        if net.is_given(name):
            assert torch.equal(value, given[name]), name


def test_a_head_that_knows_nothing_says_what_the_lift_says(net):
    """Of the votes, seen by a usual camera; relative to the ray, so that the place in the image
    changes nothing but the perspective of a turned camera."""
    from ros2_pose.body.lift import Lift
    net = made()
    torch.nn.init.zeros_(net.smpl_head.out.weight)
    boxes = torch.tensor([[10.0, 10, 50, 90], [40, 5, 90, 80]])
    found = described(net, boxes)
    enlarged = roi.enlarged(boxes, net.config.box_factor)
    cell = roi.cell_size(enlarged, net.config.cells)[:, None]
    rays = (enlarged[:, None, :2] + found.points * cell - 48) / 96  # a picture of 96 px
    lifted = Lift.load()(rays, (found.std * cell / 96).square().diag_embed())
    best = lifted.theta[torch.arange(2), lifted.logits.argmax(1)]
    camera = torch.tensor([[96.0, 96, 48, 48]]).repeat(2, 1)
    quats = root_rotated(torch.nn.functional.normalize(found.quats, dim=2),
                      camera_from_box(boxes, camera))
    similarity = (quats * best).sum(2).abs()
    torch.testing.assert_close(similarity, torch.ones_like(similarity), rtol=0, atol=1e-4)


def test_cells_of_the_enlarged_box_are_pixels(net):
    boxes = torch.tensor([[20.0, 40, 60, 60]])  # enlarged by a quarter: 15 to 65, 37.5 to 62.5
    points = torch.tensor([[0.0, 0], [32, 32], [16, 16], [8, 16]]).repeat(5, 1)[None, :17]
    what = Described(None, points, torch.full((1, 17, 2), 3.2), None, None)
    pixels, variance = net.in_px(boxes, what)
    assert pixels[0, :4].tolist() == [[15, 37.5], [65, 62.5], [40, 50], [27.5, 50]]
    assert torch.allclose(variance, torch.tensor([5.0**2, 2.5**2]))
    measured = made()
    measured.votes.fill_(4), measured.floor.fill_(0.01)
    assert torch.allclose(measured.in_px(boxes, what)[1], torch.tensor([5.0**2, 2.5**2]) * 5)


def test_unanimous_votes_are_not_quite_certain_and_can_still_learn():
    net = TianNet(tiny())
    with torch.no_grad():
        net.map_head.joints.weight.mul_(1e5)
    out = described(net, torch.tensor([[10.0, 10, 50, 90]]))
    assert out.std.min().item() == pytest.approx(0.3)
    (out.points.sum() + out.std.sum() + out.betas.sum()).backward()
    assert all(p.grad.isfinite().all() for p in net.map_head.parameters())


def test_a_peak_lies_nearer_to_its_higher_neighbour():
    maps = torch.zeros(1, 2, 8, 8)
    maps[0, 0, 3, 5], maps[0, 0, 3, 6], maps[0, 0, 2, 5], maps[0, 0, 4, 5] = 1, 0.5, 0.7, 0.6
    maps[0, 1, 7, 0] = 0.25  # in a corner
    points, std = tian._peaks(maps)
    assert points[0, 0].tolist() == [5.75, 3.25]
    assert 0 <= points[0, 1, 0] <= 1 and 7 <= points[0, 1, 1] <= 8
    assert torch.equal(std[0, :, 0] * torch.tensor([1, 0.25]), torch.full((2,), 2.0))


# -------------------------------------------------------------------------------- in the frame


def test_the_axis_is_brought_onto_the_ray_without_a_roll():
    boxes = torch.tensor([[0.0, 0, 40, 80], [100, 20, 150, 110], [70, 60, 80, 72]])
    camera = torch.tensor([_CAMERA.fx, _CAMERA.fy, _CAMERA.cx, _CAMERA.cy]).expand(3, 4)
    rotation = camera_from_box(boxes, camera)
    middle = (boxes[:, :2] + boxes[:, 2:]).numpy() / 2
    rays = np.c_[_CAMERA.normalise(middle), np.ones(3)]
    axis = rotation[:, :, 2].numpy()
    assert np.allclose(np.cross(axis, rays), 0, atol=1e-6) and (axis[:, 2] > 0).all()
    assert np.allclose(rotation[:, 1, 0], 0, atol=1e-6)
    assert np.allclose(rotation @ rotation.mT, torch.eye(3), atol=1e-6)
    assert np.allclose(torch.linalg.det(rotation), 1)
    unknown = camera_from_box(boxes, torch.full((3, 4), torch.nan))
    assert torch.equal(unknown, torch.eye(3).expand(3, 3, 3))


def test_only_the_pelvis_turns_and_turns_back():
    theta = F.normalize(torch.randn(4, 24, 4), dim=2)
    rotation = torch.from_numpy(Rotation.random(4, random_state=1).as_matrix()).float()
    there = root_rotated(theta, rotation)
    expected = Rotation.from_matrix(rotation.numpy()) * Rotation.from_quat(theta[:, 0].numpy())
    assert np.allclose(Rotation.from_quat(there[:, 0].numpy()).as_matrix(),
                       expected.as_matrix(), atol=1e-5)
    assert torch.equal(there[:, 1:], theta[:, 1:])
    back = root_rotated(there, rotation.mT)
    assert torch.allclose((back * theta).sum(2).abs(), torch.ones(4, 24), atol=1e-5)


@pytest.mark.parametrize("correct", [False, True])
def test_a_person_described_rightly_is_placed_rightly(net, poses, correct):
    """What the heads should say of people in view, decoded: the people again, sizes as well."""
    network, body = Tian(net=net, correct=correct), BodyModel.load()
    theta = torch.from_numpy(Rotation.from_rotvec(poses[:2].reshape(-1, 3).numpy()).as_quat())
    theta = theta.view(2, 24, 4).float()
    theta[:, 0] = torch.tensor([1.0, 0, 0, 0])
    betas, root = torch.zeros(2, 10), torch.tensor([[-0.9, 0.1, 3.5], [1.1, -0.1, 5.0]])
    truth = body(theta, betas, root)
    pixels = torch.from_numpy(_CAMERA.project(truth.keypoints.numpy()))
    boxes = torch.cat([pixels.amin(1), pixels.amax(1)], 1)
    assert (boxes >= 0).all() and (boxes <= torch.tensor([160, 120] * 2)).all()
    camera = torch.tensor([_CAMERA.fx, _CAMERA.fy, _CAMERA.cx, _CAMERA.cy]).expand(2, 4)
    facing = root_rotated(theta, camera_from_box(boxes, camera).float().mT)
    shrunk = 96 / 160
    raw = (torch.tensor([0.9, 0.8]), boxes * shrunk, pixels * shrunk,
           torch.full((2, 17, 2), 0.01), -3 * facing, betas)
    people = network.decode([raw], Frame(np.zeros((120, 160, 3), np.uint8), _CAMERA))
    assert np.allclose(people.boxes, boxes, atol=1e-3)
    assert np.allclose(people.keypoints, pixels, atol=1e-2)
    assert np.allclose(np.linalg.norm(people.theta, axis=2), 1, atol=1e-6)
    assert np.allclose(np.abs((people.theta * theta.numpy()).sum(2)), 1, atol=1e-4)
    assert np.allclose(people.root, root, atol=0.02)
    assert np.allclose(people.joints, truth.joints, atol=0.02)


@pytest.mark.parametrize("size", [(100, 35), (35, 100), (333, 250)])
def test_pixels_of_the_network_are_pixels_of_the_picture(network, size):
    """Though a picture's short side is rounded to whole pixels."""
    width, height = size
    frame = Frame(np.zeros((height, width, 3), np.uint8))
    padded, = network.prepare(frame.image)
    inside = (padded == 0).all(0)
    corner = torch.tensor([inside.any(0).sum(), inside.any(1).sum()]).double()
    assert padded.shape[1] % 32 == padded.shape[2] % 32 == 0 and max(corner) == 96
    points = torch.stack([corner, corner / 2]).repeat(9, 1)[None, :17]
    raw = (torch.tensor([0.9]), torch.cat([corner / 2, corner])[None], points,
           torch.ones(1, 17, 2), torch.zeros(1, 24, 4), torch.zeros(1, 10))
    people = network.decode([raw], frame)
    assert np.allclose(people.boxes, [[width / 2, height / 2, width, height]])
    assert np.allclose(people.keypoints[0, :2], [[width, height], [width / 2, height / 2]])
    scale = np.array(size) / corner.numpy()
    assert np.allclose(people.keypoint_cov, np.diag(scale**2))


# -------------------------------------------------------------------------------- checkpoints


@pytest.fixture()
def saved(net, tmp_path):
    path = tmp_path / "net.pt"
    save_checkpoint(path, net, "abc")
    return path


def test_a_checkpoint_gives_the_network_back(net, saved):
    again = load_checkpoint(saved, tiny())
    assert again.config == net.config and not again.training
    weights = again.state_dict()
    for name, value in net.state_dict().items():
        assert torch.allclose(weights[name], value, rtol=1e-3, atol=1e-7), name
    rounded = made()
    rounded.load_state_dict({k: v.half().float() for k, v in net.state_dict().items()})
    images = 255 * torch.rand(1, 3, 96, 96)
    for a, b in zip(again.detect(images).layers, rounded.detect(images).layers, strict=True):
        assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])


def test_a_backbone_that_does_not_learn_is_not_saved(tmp_path):
    net = made(backbone="movenet")
    save_checkpoint(tmp_path / "net.pt", net, "")
    saved = torch.load(tmp_path / "net.pt", weights_only=True)["weights"]
    assert not any("backbone" in name for name in saved)
    weights = load_checkpoint(tmp_path / "net.pt").state_dict()
    for name, value in net.state_dict().items():
        assert torch.allclose(weights[name], value, rtol=1e-3, atol=1e-7), name


def test_a_backbone_that_learns_is_saved(tmp_path):
    net = TianNet(tiny(backbone="movenet", frozen="nothing"))
    weight = net.detr.model.backbone.model.levels.graph.layer0.weight
    assert weight.requires_grad
    weight.data.mul_(2)
    save_checkpoint(tmp_path / "net.pt", net, "")
    again = load_checkpoint(tmp_path / "net.pt").detr.model.backbone.model.levels.graph.layer0
    torch.testing.assert_close(again.weight, weight, rtol=1e-3, atol=1e-6)
    assert not again.weight.requires_grad


def test_files_that_are_no_checkpoint_are_named(saved, tmp_path):
    whole = saved.read_bytes()
    for number, content in enumerate((b"", b"hello", whole[:len(whole) // 2], whole[:-100])):
        path = tmp_path / f"broken{number}.pt"
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=f"{path} is not a checkpoint"):
            load_checkpoint(path)
    with pytest.raises(CheckpointError, match="missing.pt"):
        load_checkpoint(tmp_path / "missing.pt")


@pytest.mark.parametrize("change, message", [
    (lambda s: s.pop("weights"), "is not a checkpoint.*weights"),
    (lambda s: s["config"].update(colour=3), "is not a checkpoint.*colour"),
    (lambda s: s["config"].update(width=7), "is not a checkpoint.*width: 7"),
    (lambda s: s["config"].update(width=64), "does not fit its own config.*size mismatch"),
    (lambda s: s["weights"].pop("map_head.joints.bias"), "does not fit.*map_head.joints.bias"),
    (lambda s: s["weights"].update(tail=torch.ones(1)), "does not fit.*tail"),
    (lambda s: s.update(weights=3), "is not a checkpoint")])
def test_what_is_wrong_in_a_checkpoint_is_named(saved, change, message):
    content = torch.load(saved, weights_only=True)
    change(content)
    torch.save(content, saved)
    with pytest.raises(CheckpointError, match=f"(?s){saved} {message}"):
        load_checkpoint(saved)


def test_a_checkpoint_of_another_network_is_refused(saved):
    expected = TianConfig(**asdict(tiny()) | {"queries": 9, "features": "direct"})
    with pytest.raises(CheckpointError, match="queries is 6, expected 9; features is fpn, exp.*ct"):
        load_checkpoint(saved, expected)


def test_settings_that_exclude_each_other_are_refused():
    with pytest.raises(ConfigError, match="two_stage.*box_refine"):
        tiny(box_refine=False)
    with pytest.raises(ConfigError, match="input_size: 100 .*multiple of 32"):
        tiny(input_size=100)


# ------------------------------------------------------------------------- EfficientNet-Lite0

# Tan and Le 2019, table 1: channels in and out of each block, expansion, stride and kernel.
_BLOCKS = [(32, 16, 1, 1, 3), (16, 24, 6, 2, 3), (24, 24, 6, 1, 3), (24, 40, 6, 2, 5),
           (40, 40, 6, 1, 5), (40, 80, 6, 2, 3), (80, 80, 6, 1, 3), (80, 80, 6, 1, 3),
           (80, 112, 6, 1, 5), (112, 112, 6, 1, 5), (112, 112, 6, 1, 5), (112, 192, 6, 2, 5),
           (192, 192, 6, 1, 5), (192, 192, 6, 1, 5), (192, 192, 6, 1, 5), (192, 320, 6, 1, 3)]


def published():
    """Weights by chance, with the names and shapes of the published file."""
    random, weights = torch.Generator().manual_seed(0), {}

    def add(conv, norm, *shape):
        fan_in = shape[1] * shape[2] * shape[3]
        weights[f"{conv}.weight"] = torch.randn(shape, generator=random) / fan_in**0.5
        for name in ("weight", "bias", "running_mean", "running_var"):
            weights[f"{norm}.{name}"] = 0.5 + torch.rand(shape[0], generator=random)

    add("_conv_stem", "_bn0", 32, 3, 3, 3)
    for number, (inputs, outputs, expansion, _, kernel) in enumerate(_BLOCKS):
        at, wide = f"_blocks.{number}", inputs * expansion
        if expansion > 1:
            add(f"{at}._expand_conv", f"{at}._bn0", wide, inputs, 1, 1)
        add(f"{at}._depthwise_conv", f"{at}._bn1", wide, 1, kernel, kernel)
        add(f"{at}._project_conv", f"{at}._bn2", outputs, wide, 1, 1)
    return weights | {"_fc.weight": torch.zeros(1000, 1280)}


def unfolded(x, weights, conv, norm, stride=1, groups=1):
    """Convolution as TensorFlow's "SAME", then a batch norm."""
    kernel = weights[f"{conv}.weight"]
    beside = max((-(-x.shape[-1] // stride) - 1) * stride + kernel.shape[-1] - x.shape[-1], 0)
    x = F.pad(x, (beside // 2, beside - beside // 2) * 2)
    values = [weights[f"{norm}.{name}"]
              for name in ("running_mean", "running_var", "weight", "bias")]
    return F.batch_norm(F.conv2d(x, kernel, stride=stride, groups=groups), *values, eps=1e-3)


def features_of(x, weights):
    """At strides 4, 8, 16 and 32."""
    found, x = [], unfolded(x, weights, "_conv_stem", "_bn0", 2).clamp(0, 6)
    for number, (inputs, outputs, expansion, stride, _) in enumerate(_BLOCKS):
        at, out, wide = f"_blocks.{number}", x, inputs * expansion
        if expansion > 1:
            out = unfolded(out, weights, f"{at}._expand_conv", f"{at}._bn0").clamp(0, 6)
        out = unfolded(out, weights, f"{at}._depthwise_conv", f"{at}._bn1", stride, wide)
        out = unfolded(out.clamp(0, 6), weights, f"{at}._project_conv", f"{at}._bn2")
        x = x + out if stride == 1 and inputs == outputs else out
        if number in (2, 4, 10, 15):
            found.append(x)
    return found


@torch.no_grad()
def test_folded_batch_norms_are_those_that_were_published(tmp_path, monkeypatch):
    weights = published()
    torch.save(weights, tmp_path / "weights.pth")
    monkeypatch.setattr(efficientnet_lite, "fetch", lambda name: tmp_path / "weights.pth")
    backbone = efficientnet_lite.EfficientNetLite()
    backbone.load_imagenet()
    images = torch.randn(2, 3, 64, 64)
    for ours, expected in zip(backbone(images), features_of(images, weights), strict=True):
        assert torch.allclose(ours, expected, rtol=1e-3, atol=1e-4 * expected.abs().max())
