"""Examples to train on: a mirrored or moved picture is a picture of a possible scene."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ros2_pose.body.model import BodyModel
from ros2_pose.camera import Camera
from ros2_pose.data.sample import Sample
from ros2_pose.data.synthetic.pictures import SyntheticPictures
from ros2_pose.people import Frame, People
from ros2_pose.skeleton import COCO17, SMPL24, common_joints
from ros2_pose.training import augment
from ros2_pose.training.augment import (
    close_up,
    collate,
    example,
    hidden_behind,
    mirrored,
    mosaic,
)
from ros2_pose.training.disturb import degraded, occluded

_SIZE = 128
_COCO, _SMPL = common_joints(COCO17, SMPL24)


@pytest.fixture(scope="module")
def body():
    return BodyModel.load()


@pytest.fixture(scope="module")
def samples(poses, body):
    """Of people in a picture that is no square, with something ignored in it."""
    pictures = SyntheticPictures(poses, 5, (160, 120), people=3, model=body)
    ignored = np.array([[3.0, 5, 30, 60]])
    return [pictures[i]._replace(ignored=ignored) for i in range(3)]


def with_joints_as_keypoints(sample):
    """Keypoints that a body has as joints, too, are those joints; the others are not known."""
    keypoints = np.full((len(sample.people), 17, 2), np.nan)
    keypoints[:, _COCO] = sample.frame.camera.project(sample.people.joints[:, _SMPL])
    return sample._replace(people=sample.people.with_fields(keypoints=keypoints))


def people_at(boxes):
    """People of whom boxes (P, 4) px are known."""
    boxes = np.array(boxes, float)
    count = len(boxes)
    return People(boxes, np.ones(count), np.full((count, 17, 2), np.nan),
                  np.zeros((count, 17, 2, 2)), np.ones((count, 17)))


# ------------------------------------------------------------------------------------ mirror


def test_mirrored_twice_is_the_original(samples):
    for sample in samples:
        twice = mirrored(mirrored(sample))
        assert np.array_equal(twice.frame.image, sample.frame.image)
        assert np.allclose(twice.frame.camera.K, sample.frame.camera.K)
        assert np.allclose(twice.ignored, sample.ignored)
        for name in ("boxes", "keypoints", "keypoint_scores", "joints", "theta", "betas", "root"):
            assert np.allclose(getattr(twice.people, name), getattr(sample.people, name)), name


@pytest.mark.parametrize("distortion, fisheye", [
    ((), False), ((-0.2, 0.05, 0.01, -0.02, 0.01), False), ((-0.1, 0.02, 0.003, 0.001), True)])
def test_the_mirrored_camera_sees_the_mirrored_people(samples, distortion, fisheye):
    for sample in samples:
        camera = replace(sample.frame.camera, distortion=distortion, fisheye=fisheye)
        sample = sample._replace(frame=replace(sample.frame, camera=camera))
        sample = with_joints_as_keypoints(sample)
        other = mirrored(sample)
        seen = other.frame.camera.project(other.people.joints[:, _SMPL])
        assert np.allclose(seen, other.people.keypoints[:, _COCO], atol=1e-6)
        assert np.allclose(other.people.root, other.people.joints[:, 0], atol=1e-6)
        left, right = COCO17.index("left_wrist"), COCO17.index("right_wrist")
        assert np.allclose(other.people.keypoints[:, left, 0],
                           160 - sample.people.keypoints[:, right, 0])
        assert (other.people.boxes[:, 0] < other.people.boxes[:, 2]).all()
        assert np.allclose(other.ignored, [[130, 5, 157, 60]])


def test_a_mirrored_pose_is_that_of_the_mirrored_person(samples, body):
    for sample in samples:
        theta, root = (torch.from_numpy(getattr(mirrored(sample).people, name)).float()
                       for name in ("theta", "root"))
        betas = torch.zeros(len(root), 10)
        here = body(torch.from_numpy(sample.people.theta).float(), betas,
                    torch.from_numpy(sample.people.root).float())
        there = body(theta, betas, root)
        expected = here.joints[:, SMPL24.mirror] * torch.tensor([-1.0, 1, 1])
        assert (there.joints - expected).norm(dim=2).max() < 0.01
        expected = here.keypoints[:, COCO17.mirror] * torch.tensor([-1.0, 1, 1])
        assert (there.keypoints - expected).norm(dim=2).max() < 0.01


def test_a_picture_without_camera_and_bodies_has_a_mirror_image():
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    other = mirrored(Sample.whole(Frame(image), people_at([[1, 0, 3, 4]])))
    assert other.people.boxes.tolist() == [[3, 0, 5, 4]] and other.people.theta is None
    assert np.array_equal(other.frame.image[:, 0], image[:, -1])


# ----------------------------------------------------------------------------------- example


def place_of(relative, pixels, camera):
    """(3,) m of a pelvis with joints relative (N, 3) m to it that are seen at pixels (N, 2) by a
    camera fx, fy, cx, cy; and the greatest error, px. Linear in the place, so exact."""
    rays = (pixels - camera[2:]) / camera[:2]
    rows = np.concatenate([np.c_[np.tile(np.eye(2)[k], (len(rays), 1)), -rays[:, k]]
                           for k in range(2)])
    goal = np.concatenate([rays[:, k] * relative[:, 2] - relative[:, k] for k in range(2)])
    position = np.linalg.lstsq(rows, goal, rcond=None)[0]
    seen = relative + position
    seen = seen[:, :2] / seen[:, 2:] * camera[:2] + camera[2:]
    return position, np.abs(seen - pixels).max()


def mosaic_of(sample, size, random):
    return mosaic([close_up(sample, size // 2, random) for _ in range(4)])


def rolled(sample, size, random):
    return example(sample, size, random, roll_deg=180)


def rolled_close_up(sample, size, random):
    return close_up(sample, size, random, roll_deg=40)


_MADE = pytest.mark.parametrize("make", [example, close_up, mosaic_of, rolled, rolled_close_up])


@_MADE
@pytest.mark.parametrize("seed", range(6))
def test_the_camera_sees_people_where_their_keypoints_are(samples, make, seed):
    for sample in samples:
        made = make(with_joints_as_keypoints(sample), _SIZE, np.random.default_rng(seed))
        depths = []
        for joints, keypoints, camera in zip(*(made.people[name] for name in
                                               ("joints", "keypoints", "camera"))):
            known = np.isfinite(keypoints[_COCO]).all(1)
            if known.sum() < 6:
                continue
            position, error = place_of(joints[_SMPL][known], keypoints[_COCO][known], camera)
            # A roll takes pixels to be square; these cameras' are so to about 1 %.
            assert error < (0.4 if make in (rolled, rolled_close_up) else 1e-2)
            depths.append(position[2])
        true = sample.people.root[:, 2]
        off = np.abs(np.subtract.outer(depths, true)).min(1) / np.array(depths)
        assert depths and (off < (0.03 if make in (rolled, rolled_close_up) else 2e-3)).all()


@_MADE
def test_bodies_are_those_of_the_joints(samples, body, make):
    made = make(samples[0], _SIZE, np.random.default_rng(4))
    theta, betas, joints = (torch.from_numpy(made.people[name]).float()
                            for name in ("theta", "betas", "joints"))
    posed = body(theta, betas, with_vertices=False).joints
    torch.testing.assert_close(posed - posed[:, :1], joints, rtol=0, atol=1e-4)


def test_a_rolled_camera_is_rolled_as_far_as_asked_for(samples):
    up = []
    for seed in range(40):
        made = example(samples[0], 300, np.random.default_rng(seed), roll_deg=30)
        spine = made.people["joints"][0, SMPL24.index("neck")]
        up.append(np.degrees(np.arctan2(spine[0], -spine[1])))
    spread = max(up) - min(up)
    assert 40 < spread < 60 + 2 * 45  # and mirrored ones lean the other way


@pytest.mark.parametrize("size", [64, 128, 300])
def test_without_chance_the_whole_picture_is_shown(samples, size):
    sample = with_joints_as_keypoints(samples[0])
    made = example(sample, size)
    assert made.image.shape == (size, size, 3)
    assert np.allclose(made.people["boxes"], sample.people.boxes * size / 160)
    assert np.allclose(made.people["keypoints"], sample.people.keypoints * size / 160,
                       equal_nan=True)
    assert np.allclose(made.people["theta"], sample.people.theta)
    assert (made.people["joints"][:, 0] == 0).all()
    assert (made.image[round(size * 0.75) + 1:] == augment.PAD).all()


@_MADE
@pytest.mark.parametrize("size", [70, 128, 200])
def test_what_is_seen_moves_as_its_keypoint_does(make, size, monkeypatch):
    monkeypatch.setattr(augment, "_recoloured", lambda image, random: image)
    y, x = np.mgrid[:120, :160] + 0.5
    spot = 140 * np.exp(-((x - 79.5)**2 + (y - 64.5)**2) / (2 * 6**2))
    image = (augment.PAD + spot[..., None].repeat(3, 2)).astype(np.uint8)
    people = people_at([[60, 40, 100, 90]])
    people.keypoints[:, 0] = 79.5, 64.5
    for seed in range(8):
        made = make(Sample.whole(Frame(image), people), size, np.random.default_rng(seed))
        for box, points in zip(made.people["boxes"], made.people["keypoints"]):
            x, y = np.clip(box.round().astype(int), 0, size)[:2]
            right, low = np.clip(box.round().astype(int), 0, size)[2:]
            bright = made.image[y:low, x:right, 0].astype(float) - augment.PAD
            rows, columns = np.mgrid[y:low, x:right] + 0.5
            found = np.array([(bright * columns).sum(), (bright * rows).sum()]) / bright.sum()
            assert np.allclose(found, points[0], atol=0.05)


def test_the_same_seed_makes_the_same_example(samples):
    def made(seed):
        return example(samples[0], _SIZE, np.random.default_rng(seed))

    one, same = made(3), made(3)
    assert np.array_equal(one.image, same.image)
    for name, value in one.people.items():
        assert np.array_equal(value, same.people[name], equal_nan=True), name
    different = [made(seed).people["camera"][0] for seed in range(10)]
    assert len({tuple(camera) for camera in different}) == 10


def test_a_close_up_shows_somebody_whatever_the_size_in_the_picture(samples):
    for seed in range(10):
        made = close_up(samples[seed % 3], _SIZE, np.random.default_rng(seed))
        middle = (made.people["boxes"][:, :2] + made.people["boxes"][:, 2:]) / 2
        assert (np.abs(middle / _SIZE - 0.5) < 0.35).all(1).any()
    nobody = Sample.whole(Frame(np.zeros((20, 30, 3), np.uint8)), People.nobody())
    assert not len(close_up(nobody, _SIZE, np.random.default_rng(0)).people["boxes"])


def test_a_mosaic_is_its_quarters_and_knows_nothing_across_their_borders(samples):
    random = np.random.default_rng(1)
    four = [close_up(sample, _SIZE, random) for sample in (*samples, samples[0])]
    whole, first = mosaic(four), 0
    assert whole.image.shape == (2 * _SIZE, 2 * _SIZE, 3) and whole.complete
    for quarter, (x, y) in zip(four, ((0, 0), (_SIZE, 0), (0, _SIZE), (_SIZE, _SIZE))):
        assert np.array_equal(whole.image[y:y + _SIZE, x:x + _SIZE], quarter.image)
        rows = slice(first, first := first + len(quarter.people["boxes"]))
        points = quarter.people["keypoints"]
        outside = ~((points >= 0) & (points < _SIZE)).all(2)
        assert np.isnan(whole.people["keypoints"][rows][outside]).all()
        assert not whole.people["visible"][rows][outside].any()
        assert np.allclose(whole.people["keypoints"][rows][~outside], (points + (x, y))[~outside])
        assert np.allclose(whole.people["boxes"][rows], quarter.people["boxes"] + (x, y, x, y))
    assert first == len(whole.people["boxes"])
    assert not mosaic([*four[:3], four[3]._replace(complete=False)]).complete


def test_colours_change_and_stay_colours(samples):
    grey = np.full((32, 32, 3), 100, np.uint8)
    sample = Sample.whole(Frame(grey), People.nobody())
    means = [example(sample, 32, np.random.default_rng(seed)).image.mean() for seed in range(40)]
    assert min(means) < 85 and max(means) > 115 and abs(np.mean(means) - 100) < 15


# --------------------------------------------------------------------------- spoilt pictures


def test_joints_behind_something_are_not_visible_and_everything_else_stays(samples):
    made = example(samples[0], _SIZE, None)
    other = np.full((20, 30, 3), 255, np.uint8)
    some = 0
    for seed in range(20):
        image, covered = occluded(made.image, made.people, other, np.random.default_rng(seed))
        assert (image[covered] == 255).all() and np.array_equal(image[~covered],
                                                                made.image[~covered])
        after = hidden_behind(made._replace(image=image), covered)
        count = len(after.people["boxes"])
        assert count + len(after.ignored) == len(made.people["boxes"]) + len(made.ignored)
        if count < len(made.people["boxes"]):
            continue
        x, y = made.people["keypoints"].clip(0, _SIZE - 1).astype(int).transpose(2, 0, 1)
        behind = covered[y, x] & ((made.people["keypoints"] >= 0)
                                  & (made.people["keypoints"] < _SIZE)).all(2)
        assert np.array_equal(after.people["visible"], made.people["visible"] & ~behind)
        assert np.array_equal(after.people["keypoints"], made.people["keypoints"], equal_nan=True)
        some += int(behind.sum())
    assert some > 20


def test_a_person_behind_something_whole_is_ignored(samples):
    made = example(samples[0], _SIZE, None)
    after = hidden_behind(made, np.ones((_SIZE, _SIZE), bool))
    inside = ((made.people["keypoints"] >= 0) & (made.people["keypoints"] < _SIZE)).all(2).any(1)
    assert inside.any() and len(after.people["boxes"]) == (~inside).sum()
    assert len(after.ignored) == inside.sum() + len(made.ignored)


def test_pictures_are_spoilt_in_several_ways_and_stay_pictures():
    y, x = np.mgrid[:64, :64]
    image = np.where(((x // 8 + y // 8) % 2 == 0)[..., None], 180, 80).astype(np.uint8)
    image = image.repeat(3, 2)
    sharpness, means = [], []
    for seed in range(60):
        spoilt = degraded(image, np.random.default_rng(seed))
        assert spoilt.shape == image.shape and spoilt.dtype == np.uint8
        assert not np.array_equal(spoilt, image)
        sharpness.append(np.abs(np.diff(spoilt[..., 0].astype(float), axis=1)).mean())
        means.append(spoilt.mean())
    plain = np.abs(np.diff(image[..., 0].astype(float), axis=1)).mean()
    assert min(sharpness) < 0.8 * plain < 1.5 * plain < max(sharpness)  # blurred, noisy
    assert min(means) < 0.5 * image.mean()  # dark
    assert np.median(np.abs(np.array(means) - image.mean())) < 2


# ------------------------------------------------------------------------------ who is cut off


def test_who_is_cut_off_is_ignored():
    image = np.zeros((100, 100, 3), np.uint8)
    people = people_at([[10, 10, 30, 60], [-80, 0, 20, 50], [50, 80, 70, 120], [150, 0, 170, 50]])
    made = example(Sample.whole(Frame(image), people), 100)
    assert made.people["boxes"].tolist() == [[10, 10, 30, 60], [50, 80, 70, 100]]
    assert made.ignored.tolist() == [[0, 0, 20, 50], [100, 0, 100, 50]]
    assert all(len(value) == 2 for value in made.people.values())


@_MADE
@pytest.mark.parametrize("seed", range(6))
def test_nobody_is_lost(samples, make, seed):
    times = 4 if make is mosaic_of else 1
    for sample in samples:
        made = make(sample, _SIZE, np.random.default_rng(seed))
        boxes = np.concatenate([made.people["boxes"], made.ignored])
        assert len(boxes) == times * (len(sample.people) + len(sample.ignored))
        assert (boxes >= 0).all() and (boxes <= _SIZE).all()
        size = made.people["boxes"][:, 2:] - made.people["boxes"][:, :2]
        assert (size > 0).all()


# ------------------------------------------------------------------------------------- batch


def test_a_batch_holds_its_examples_and_says_what_is_not_known(samples):
    bare = Sample(Frame(samples[0].frame.image), people_at([[20, 20, 60, 100]]),
                  np.zeros((0, 4)), False)
    nobody = Sample.whole(Frame(samples[0].frame.image, Camera.from_fov(160, 120, 60)),
                          People.nobody())
    batch = collate([example(s, _SIZE) for s in (samples[0], nobody, bare)])
    count = len(samples[0].people)
    assert batch.images.shape == (3, 3, _SIZE, _SIZE) and batch.images.dtype == torch.uint8
    assert batch.image.tolist() == [0] * count + [2]
    assert batch.complete.tolist() == [True, True, False]
    assert [len(ignored) for ignored in batch.ignored] == [1, 0, 0]
    assert batch.camera[:-1].isfinite().all() and batch.camera[-1].isnan().all()
    assert batch.theta[:-1].isfinite().all() and batch.joints.dtype == torch.float32
    for name in ("keypoints", "theta", "betas", "joints"):
        assert getattr(batch, name)[-1].isnan().all(), name
    moved = batch.to(torch.device("cpu"))
    assert all(torch.equal(a, b) for a, b in zip(moved.ignored, batch.ignored))


def test_a_batch_without_people():
    sample = Sample.whole(Frame(np.zeros((20, 30, 3), np.uint8)), People.nobody())
    batch = collate([example(sample, 32)] * 2)
    assert batch.boxes.shape == (0, 4) and batch.theta.shape == (0, 24, 4)
    assert batch.image.dtype == torch.long
