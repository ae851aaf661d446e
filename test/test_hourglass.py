"""Stacked hourglasses: decoding of perfect maps, losses at hand-made cases, masks, read-out."""

import math

import numpy as np
import pytest
import torch

from ros2_pose.body.model import BodyModel
from ros2_pose.camera import Camera
from ros2_pose.config import ConfigError, PoseConfig
from ros2_pose.networks.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from ros2_pose.networks.hourglass import grouping, joints, orpm
from ros2_pose.networks.hourglass.config import HourglassConfig
from ros2_pose.networks.hourglass.detector import HourglassFields, HourglassTags
from ros2_pose.networks.hourglass.network import HourglassNet, sampled, twice_as_fine
from ros2_pose.people import Frame
from ros2_pose.skeleton import COCO17, SMPL24
from ros2_pose.training import hourglass_losses as losses
from ros2_pose.training.augment import Batch
from ros2_pose.training.config import TrainingConfig
from ros2_pose.training.hourglass_objective import HourglassObjective

_SIDE, _STRIDE = 256, 8
_CAMERA = Camera(_SIDE, _SIDE, 300.0, 300.0, 128.0, 128.0)
_SHOULDERS = [SMPL24.index("left_shoulder"), SMPL24.index("right_shoulder")]


def tiny(**changes):
    return HourglassConfig(**{"backbone": "learned", "input_size": 64, "stacks": 2, "width": 16,
                              "halvings": 2, **changes})


def made(**changes):
    """A network that has learned nothing."""
    torch.manual_seed(0)
    return HourglassNet(tiny(**changes))


@pytest.fixture(scope="module")
def net():
    return made().eval().requires_grad_(False)


def detector(kind, net, **settings):
    return kind(PoseConfig(scales=(_SIDE,), score_threshold=0.05, **settings), net=net)


# ------------------------------------------------------------------------------- perfect maps


@pytest.fixture(scope="module")
def drawn_people():
    """A function: count and seed to keypoints (P, 17, 2) px and joints (P, 24, 3) m.

    People stand side by side with hanging arms, partly behind each other, 60 to 75 px a metre.
    """
    body = BodyModel.load()

    def draw(count, seed, apart=43.0):
        random = np.random.default_rng(seed)
        theta = torch.tensor([0.0, 0, 0, 1]).repeat(count, 24, 1)
        theta[:, 0] = torch.tensor([1.0, 0, 0, 0])  # facing the camera
        for joint, sign in zip(_SHOULDERS, (-1, 1)):
            angle = torch.from_numpy(random.uniform(0.9, 1.3, count)).float() * sign
            theta[:, joint, 2], theta[:, joint, 3] = (angle / 2).sin(), (angle / 2).cos()
        out = body(theta, torch.zeros(count, 10), with_vertices=False)
        root = out.joints[:, :1]
        scale = random.uniform(60, 75, (count, 1, 1))
        centre = np.stack([36 + apart * np.arange(count), random.uniform(110, 140, count)], 1)
        keypoints = scale * (out.keypoints - root)[..., :2].double().numpy() + centre[:, None]
        return keypoints, (out.joints - root).double().numpy()
    return draw


def with_anchors(keypoints):
    neck, pelvis = (keypoints[:, [a, a + 1]].mean(1) for a in (5, 11))
    return np.concatenate([keypoints, neck[:, None], pelvis[:, None]], 1)


def perfect_maps(keypoints, bones, missing=()):
    """Maps of people, drawn person by person and cell by cell.

    Args:
        keypoints (P, 17, 2): px; bones (P, 24, 3): m.
        missing: pairs of person and keypoint without a peak, and without 3D there.
    """
    points = with_anchors(keypoints)
    fine, coarse = _SIDE // 4, _SIDE // _STRIDE
    heat = np.full((19, fine, fine), 1e-4)
    tags = np.zeros((19, 2, coarse, coarse))
    volume = np.full((24, 3, coarse, coarse), 9.0)
    fields = np.zeros((len(joints.LIMBS), 2, coarse, coarse))
    rows, columns = np.mgrid[:fine, :fine] * 4.0
    where = np.stack(np.mgrid[:coarse, :coarse][::-1], -1) * float(_STRIDE)
    for person in range(len(points)):
        for kind, (x, y) in enumerate(points[person]):
            if (person, kind) in missing:
                continue
            bump = 0.95 * np.exp(-((columns - x)**2 + (rows - y)**2) / (2 * 6**2))
            heat[kind] = np.maximum(heat[kind], bump)
            column, row = int(x // _STRIDE), int(y // _STRIDE)
            near = np.s_[row:row + 2, column:column + 2]
            tags[(kind, slice(None), *near)] = np.array([3.0 * person, -person])[:, None, None]
            for joint, places in enumerate(joints.READ_OUT):
                if kind in places:
                    volume[(joint, slice(None), *near)] = bones[person, joint][:, None, None]
        for number, (a, b) in enumerate(joints.LIMBS):
            start, vector = points[person, a], points[person, b] - points[person, a]
            unit = vector / np.linalg.norm(vector)
            along = ((where - start) @ unit).clip(0, np.linalg.norm(vector))
            away = np.linalg.norm(where - start - along[..., None] * unit, axis=2)
            fields[number, :, away <= _STRIDE] = unit
    heat, tags, volume, fields = (torch.from_numpy(v).float() for v in (heat, tags, volume, fields))
    return heat.logit(), tags, volume, fields, torch.zeros(17, 2, fine, fine)


def bones_of(spaces):
    return spaces - spaces[:, [max(parent, 0) for parent in SMPL24.parents]]


@pytest.mark.parametrize("kind", [HourglassTags, HourglassFields])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_perfect_maps_give_the_people(kind, count, net, drawn_people):
    keypoints, spaces = drawn_people(count, seed=count)
    people = detector(kind, net).decode([perfect_maps(keypoints, bones_of(spaces))],
                                        Frame(np.zeros((_SIDE, _SIDE, 3), np.uint8)))
    assert len(people) == count
    order = people.keypoints[:, :, 0].mean(1).argsort()
    np.testing.assert_allclose(people.keypoints[order], keypoints, atol=1.5)
    assert (people.keypoint_scores > 0.6).all() and people.joints is None
    assert (people.boxes[order][:, :2] < keypoints.min(1)).all()
    assert (people.boxes[order][:, 2:] > keypoints.max(1)).all()


@pytest.mark.parametrize("kind", [HourglassTags, HourglassFields])
def test_a_camera_gives_joints_in_space(kind, net, drawn_people):
    """With every joint as deep as the root, at 5 m: parallel projection is perspective."""
    keypoints, spaces = drawn_people(2, seed=3, apart=120)
    spaces[..., 2] = 0
    scale = (keypoints[:, 15, 1] - keypoints[:, 5, 1]) / (spaces[:, 7, 1] - spaces[:, 16, 1])
    people = detector(kind, net).decode([perfect_maps(keypoints, bones_of(spaces))],
                                        Frame(np.zeros((_SIDE, _SIDE, 3), np.uint8), _CAMERA))
    order = people.keypoints[:, :, 0].mean(1).argsort()
    np.testing.assert_allclose(people.root[order, 2], 300 / scale, rtol=0.1)
    relative = people.joints[order] - people.joints[order][:, :1]
    assert np.linalg.norm(relative - spaces, axis=2).mean() < 0.1
    np.testing.assert_allclose(people.joints[:, 0], people.root, atol=1e-9)


def test_the_redundant_read_out_finds_hidden_joints_that_the_naive_one_misses(net, drawn_people):
    keypoints, spaces = drawn_people(1, seed=5)
    bones = bones_of(spaces)
    hidden = [(0, COCO17.index(f"left_{name}")) for name in ("elbow", "wrist", "knee", "ankle")]
    maps = perfect_maps(keypoints, bones, hidden)
    found, naive = (HourglassTags(PoseConfig(scales=(_SIDE,)), net=net, naive=is_naive)._found(
        maps, torch.tensor([_SIDE, _SIDE]))["bones"] for is_naive in (False, True))
    np.testing.assert_allclose(found[0, 1:], bones[0, 1:], atol=1e-5)
    wrong = {SMPL24.names[joint] for joint in range(1, 24)
             if np.abs(naive[0, joint].numpy() - bones[0, joint]).max() > 0.1}
    assert wrong == {f"left_{name}" for name in ("elbow", "wrist", "hand", "knee", "ankle",
                                                 "foot")}


def test_joints_without_a_valid_keypoint_are_the_mean_ones():
    values, mean = torch.rand(1, 19, 24, 3), torch.rand(24, 3)
    valid = torch.zeros(1, 19, dtype=torch.bool)
    assert torch.equal(orpm.read_bones(values, valid, mean)[0], mean)
    valid[0, joints.PELVIS] = True  # from which the whole person can be read
    assert torch.equal(orpm.read_bones(values, valid, mean)[0], values[0, joints.PELVIS])


def test_the_read_out_goes_up_the_limb_to_neck_and_pelvis():
    order = {name: [joints.NAMES[k] for k in places]
             for name, places in zip(SMPL24.names, joints.READ_OUT)}
    assert order["left_hand"] == ["left_wrist", "left_elbow", "left_shoulder", "neck", "pelvis"]
    assert order["right_knee"] == ["right_knee", "right_hip", "right_ankle", "neck", "pelvis"]
    assert order["spine2"] == ["neck", "pelvis"]


def test_keypoints_near_another_persons_or_uncertain_or_cut_are_not_read():
    points = torch.full((2, 19, 2), 50.0)
    points[1] += 40
    points[1, 3] = points[0, 3] + 2
    points[0, 4, 0] = 120
    points[0, 5] = torch.nan
    scores = torch.ones(2, 19)
    scores[1, 6] = 0.1
    valid = orpm.is_valid(points, scores, torch.tensor([100, 100]), 0.2, 8.0)
    expected = torch.ones(2, 19, dtype=torch.bool)
    expected[:, 3] = expected[0, 4] = expected[0, 5] = expected[1, 6] = False
    assert torch.equal(valid, expected)


def test_bones_and_joints_are_inverse(drawn_people):
    spaces = torch.from_numpy(drawn_people(2, 0)[1])
    back = orpm.joints_from_bones(orpm.bones_from_joints(spaces))
    np.testing.assert_allclose(back, spaces, atol=1e-12)


# ----------------------------------------------------------------------------------- grouping


def test_tags_decide_where_two_people_cross():
    """Each kind has two peaks, tags of 0 and 2; one hand is nearer to the other person."""
    kind = np.repeat(np.arange(19), 2)
    tags = np.tile([[0.0], [2.0]], (19, 1)) + 0.1 * np.sin(np.arange(38))[:, None]
    rows = grouping.group_by_tags(kind, np.linspace(0.3, 0.9, 38), tags)
    assert sorted(map(tuple, rows)) == [tuple(range(0, 38, 2)), tuple(range(1, 38, 2))]


def test_a_peak_with_a_tag_of_its_own_begins_another_person():
    kind = np.array([joints.NECK, 5, 6])
    rows = grouping.group_by_tags(kind, np.full(3, 0.5), np.array([[0.0], [0.2], [5.0]]))
    assert [(row >= 0).sum() for row in rows] == [2, 1]


def test_no_peaks_are_no_people():
    none = np.zeros(0, int)
    fields = torch.zeros(len(joints.LIMBS), 2, 4, 4)
    by_fields = grouping.group_by_fields(none, np.zeros(0), torch.zeros(0, 2), fields, 8)
    assert grouping.group_by_tags(none, np.zeros(0), np.zeros((0, 2))).shape == (0, 19)
    assert by_fields.shape == (0, 19)


def test_the_line_integral_of_a_perfect_field_is_one_and_of_a_crossing_limb_less():
    field = torch.zeros(2, 20, 20)
    field[0, 9:12] = 1  # along the row of 80 px, to the right
    points = torch.tensor([[20.0, 80], [120, 80], [70, 30], [70, 130]])
    integral = grouping.along_limbs(field, points, points, 8).mean(2)
    assert integral[0, 1].item() == pytest.approx(1)
    assert integral[1, 0].item() == pytest.approx(-1)
    assert abs(integral[2, 3].item()) < 1e-6 and integral[2, 1] < 0.6
    scores = grouping.limb_scores(field, points, points, 8)
    assert (scores > 0).nonzero().tolist() == [[0, 1]]


def test_the_field_of_a_limb_is_what_the_loss_wants(drawn_people):
    keypoints = torch.from_numpy(drawn_people(2, 1)[0])
    points = joints.with_anchors(keypoints)
    fields = losses.limb_fields(points, joints.LIMBS, torch.zeros(2, dtype=torch.long), 1,
                                (32, 32), 8)
    for number, (a, b) in enumerate(joints.LIMBS):
        if (points[:, a] - points[:, b]).norm(dim=1).min() < 8:
            continue
        integral = grouping.along_limbs(fields[0, number], points[:, a], points[:, b], 8).mean(2)
        assert (integral.diagonal() > 0.6).all(), joints.LIMBS[number]


# ------------------------------------------------------------------------------------ reading


def test_maps_are_read_linearly_between_cells():
    rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(9.0), indexing="ij")
    maps = torch.stack([columns * 8, rows * 8])[None]
    points = torch.tensor([[[3.0, 5.0], [60.0, 39.5], [-9.0, 90.0]]])
    read = sampled(maps, torch.zeros(1, dtype=torch.long), points, 8)
    assert torch.allclose(read[0, :2], points[0, :2]) and read[0, 2].tolist() == [0, 40]


def test_twice_as_fine_keeps_the_cells_in_place():
    maps = torch.rand(1, 2, 5, 4)
    fine = twice_as_fine(maps)
    assert torch.allclose(fine[..., ::2, ::2], maps, atol=1e-6)
    between = (maps[..., :-1, :] + maps[..., 1:, :]) / 2
    assert torch.allclose(fine[..., 1:-1:2, ::2], between, atol=1e-6)


# ------------------------------------------------------------------------------------- losses


def test_equal_tags_of_a_person_and_distant_ones_of_two_cost_nothing():
    tags = torch.tensor([[1.0, 1, 1], [9, 9, 9]])[..., None]
    known, image = torch.ones(2, 3, dtype=torch.bool), torch.zeros(2, dtype=torch.long)
    pull, push = losses.tag_loss(tags, known, image, 1)
    assert pull == 0 and push < 1e-6


def test_tags_at_hand_made_cases():
    """Person 0 with tags 0 and 2, person 1 with tags 1 and an unknown one, in one picture."""
    tags = torch.tensor([[0.0, 2.0], [1.0, 77.0]])[..., None]
    known = torch.tensor([[True, True], [True, False]])
    image = torch.zeros(2, dtype=torch.long)
    pull, push = losses.tag_loss(tags, known, image, 1)
    assert pull.item() == pytest.approx((1 + 0) / 2)  # mean squares 1 and 0
    assert push.item() == pytest.approx(2 / 4)  # both means are 1: two ordered pairs of N^2 = 4
    _, apart = losses.tag_loss(tags, known, torch.tensor([0, 1]), 2)
    assert apart == 0  # in two pictures nobody is to be told apart
    tags[1, 0] = 3.0
    _, push = losses.tag_loss(tags, known, image, 1, sigma=2.0)
    assert push.item() == pytest.approx(2 / 4 * math.exp(-4 / 8))


def test_overlapping_gaussians_give_their_maximum():
    points = torch.tensor([[[40.0, 40.0]], [[48.0, 40.0]]])
    maps = losses.gaussians(points, torch.zeros(2, 1), (32, 32), 4)
    highest = losses.highest(maps, torch.zeros(2, dtype=torch.long), 1)
    assert highest[0, 0, 10, 10] == 1 and highest[0, 0, 10, 12] == 1
    assert highest[0, 0, 10, 11].item() == pytest.approx(math.exp(-16 / 72))


def batch_of(keypoints, spaces, **changes):
    """One picture of people; a change replaces a field."""
    count = len(keypoints)
    points = torch.from_numpy(keypoints).float()
    low, high = points.nan_to_num(1e9).amin(1), points.nan_to_num(-1e9).amax(1)
    values = {"images": torch.zeros(1, 3, _SIDE, _SIDE, dtype=torch.uint8),
              "complete": torch.tensor([True]), "ignored": [torch.zeros(0, 4)],
              "image": torch.zeros(count, dtype=torch.long),
              "boxes": torch.cat([low - 5, high + 5], 1), "keypoints": points,
              "keypoint_std": torch.zeros(count, 17),
              "visible": torch.ones(count, 17, dtype=torch.bool),
              "camera": torch.tensor([[300.0, 300, 128, 128]]).repeat(count, 1),
              "theta": torch.full((count, 24, 4), torch.nan),
              "betas": torch.full((count, 10), torch.nan),
              "joints": torch.from_numpy(spaces).float(),
              "root": torch.full((count, 3), torch.nan)}
    return Batch(**values | changes)


def gradients(batch):
    """Gradients of the heat-maps' and fields' losses by the maps, all of them 0."""
    objective = HourglassObjective(made(), TrainingConfig(), None)
    truth = objective._truth(batch, 0)
    heat = torch.zeros(1, 19, 64, 64, requires_grad=True)
    fields = torch.zeros(1, len(joints.LIMBS), 2, 32, 32, requires_grad=True)
    (losses.heat_loss(heat, truth["heat"], truth["heat_counts"], 1)
     + losses.field_loss(fields, truth["fields"], truth["field_counts"])).backward()
    return heat.grad[0], fields.grad[0]


def test_ignored_regions_give_no_gradient(drawn_people):
    keypoints, spaces = drawn_people(1, 0)
    ignored = [torch.tensor([[150.0, 20, 240, 200]])]
    heat, fields = gradients(batch_of(keypoints, spaces, ignored=ignored))
    assert (heat[:, 5:51, 38:61] == 0).all() and (heat[:, 5:51, 61:] != 0).all()
    assert (fields[..., 3:26, 19:31] == 0).all()


def test_an_unlabelled_joint_gives_no_gradient_in_the_persons_box(drawn_people):
    keypoints, spaces = drawn_people(2, 0, apart=120)
    wrist = COCO17.index("left_wrist")
    keypoints[0, wrist] = np.nan
    batch = batch_of(keypoints, spaces)
    heat, _ = gradients(batch)
    x0, y0, x1, y1 = (batch.boxes[0] / 4).long().tolist()
    inside = np.s_[y0 + 1:y1, x0 + 1:x1]
    assert (heat[(wrist, *inside)] == 0).all() and (heat[(0, *inside)] != 0).all()
    column, row = (batch.keypoints[1, wrist] / 4).round().long().tolist()
    assert heat[wrist, row, column] < 0  # the other person's is learned


def test_where_not_everyone_is_labelled_the_rest_is_no_background(drawn_people):
    keypoints, spaces = drawn_people(1, 0)
    heat, fields = gradients(batch_of(keypoints, spaces, complete=torch.tensor([False])))
    assert (heat[:, :, 40:] == 0).all() and (heat[0] != 0).any() and (fields[..., 20:] == 0).all()


def test_unknown_poses_teach_no_3d(drawn_people):
    keypoints, spaces = drawn_people(2, 0)
    objective = HourglassObjective(made(), TrainingConfig(), None)
    flat = objective(batch_of(keypoints, np.full_like(spaces, np.nan)), 0)
    assert "orpm" not in flat and flat["total"].isfinite()
    spaces[0] = np.nan
    deep = objective(batch_of(keypoints, spaces), 0)
    assert deep["orpm"].isfinite() and deep["mpjpe_mm"].isfinite()


@pytest.mark.parametrize("changes", [{}, dict(tags="free", tag_dims=1, stride=4),
                                     dict(backbone="movenet", input_size=128)])
def test_every_weight_learns_and_gradients_are_finite(changes, drawn_people):
    keypoints, spaces = drawn_people(2, 0)
    net = made(**changes)
    batch = batch_of(keypoints, spaces)
    batch = batch._replace(images=torch.randint(0, 255, batch.images.shape, dtype=torch.uint8))
    HourglassObjective(net, TrainingConfig(), None)(batch, 0)["total"].backward()
    for name, weight in net.named_parameters():
        if not net.is_given(name):
            assert weight.grad is not None and weight.grad.isfinite().all(), name
            assert weight.grad.abs().max() > 0, name


def test_a_picture_of_no_one_has_finite_terms():
    none = batch_of(np.zeros((0, 17, 2)), np.zeros((0, 24, 3)), boxes=torch.zeros(0, 4))
    terms = HourglassObjective(made(), TrainingConfig(), None)(none, 0)
    assert all(term.isfinite() for term in terms.values())


# ------------------------------------------------------------------------------------ network


def test_maps_have_the_stated_shapes():
    found, offsets = made()(torch.zeros(2, 3, 64, 96))
    assert len(found) == 2 and offsets.shape == (2, 17, 2, 16, 24)
    assert {name: tuple(value.shape) for name, value in found[0].items()} == {
        "heat": (2, 19, 16, 24), "tags": (2, 19, 2, 8, 12), "orpm": (2, 24, 3, 8, 12),
        "fields": (2, len(joints.LIMBS), 2, 8, 12)}


def test_fewer_hourglasses_are_the_first_ones(net):
    images = 255 * torch.rand(1, 3, 64, 64)
    first, all_of_them = net(images, 1)[0], net(images)[0]
    assert len(first) == 1 and torch.equal(first[0]["heat"], all_of_them[0]["heat"])


def test_heatmaps_start_as_movenets():
    net = made(backbone="movenet", input_size=128).eval()
    for head in net.heads:
        torch.nn.init.zeros_(head.weight)
    images = torch.randint(0, 255, (1, 3, 128, 128)).float()
    with torch.no_grad():
        found, _ = net(images)
        theirs = net.movenet(images)[0][:, 24:41] / 6
    assert torch.allclose(found[-1]["heat"][:, :17].sigmoid(), theirs.clamp(1e-4), atol=1e-4)


def test_checkpoints_are_whole_and_strict(tmp_path):
    path = tmp_path / "some.pt"
    net = made()
    save_checkpoint(path, net, "")
    again = load_checkpoint(path, tiny())
    assert torch.allclose(again.heads[0].weight, net.heads[0].weight, atol=1e-3)
    with pytest.raises(CheckpointError, match="stacks is 2, expected 4"):
        load_checkpoint(path, tiny(stacks=4))
    saved = torch.load(path, weights_only=True)
    del saved["weights"]["mean_bones"]
    torch.save(saved, path)
    with pytest.raises(CheckpointError, match="mean_bones"):
        load_checkpoint(path)


@pytest.mark.parametrize("changes, message", [
    (dict(tag_dims=1), "tag_dims: 1 must be 2"), (dict(stride=6), "stride: 6 must be 4 or 8"),
    (dict(input_size=100), "multiple of 32")])
def test_settings_that_contradict_are_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        tiny(**changes)


@pytest.mark.parametrize("kind", [HourglassTags, HourglassFields])
def test_variants_are_the_ablations_of_the_paper(kind, net):
    variants = detector(kind, net).variants()
    assert list(variants) == ["2 hourglasses", "naive read-out", "1 hourglass"]
    assert all(type(variant) is kind for variant in variants.values())
