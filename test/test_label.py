"""`ros2_pose label`: who is labelled, what is written, and what training reads of it."""

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from ros2_pose import cli, oks
from ros2_pose.config import PoseConfig
from ros2_pose.data.labelled import LABELS, Labelled
from ros2_pose.data.sample import DataError
from ros2_pose.networks.registry import create_network
from ros2_pose.people import Frame, People
from ros2_pose.training.label import LabelError, agreed, write_labels


def someone(count=2, std=2.0, seed=0):
    """Made-up people, each keypoint with a standard deviation in px."""
    random = np.random.default_rng(seed)
    points = random.uniform(0, 100, (count, 17, 2)) + 300 * np.arange(count)[:, None, None]
    boxes = np.concatenate([points.min(1), points.max(1)], 1)
    return People(boxes, np.full(count, 0.9), points,
                  np.tile(std**2 * np.eye(2), (count, 17, 1, 1)), np.full((count, 17), 0.8))


# Agreement --------------------------------------------------------------------------------------


def test_people_whom_all_versions_show_alike_are_sure():
    people = someone()
    same, sure = agreed(people, [people[[1, 0]], people])  # in any order
    assert sure.all()
    np.testing.assert_allclose(same.keypoints, people.keypoints)
    np.testing.assert_allclose(same.keypoint_cov, people.keypoint_cov)
    assert (same.keypoint_scores == people.keypoint_scores).all()


@pytest.mark.parametrize("version", [0, 1])
def test_people_whom_one_version_lacks_are_not(version):
    people = someone()
    versions = [people, people]
    versions[version] = people[[0]]
    assert agreed(people, versions)[1].tolist() == [True, False]
    versions[version] = People.nobody()
    assert agreed(people, versions)[1].tolist() == [False, False]
    assert len(agreed(People.nobody(), versions)[1]) == 0


def test_joints_are_labelled_where_versions_agree_within_their_covariances():
    people = someone(std=2.0)
    moved = people.keypoints.copy()
    moved[0, 5] += (4, 0)  # 1.4 standard deviations of the difference
    moved[1, 9] += (12, 0)  # 4.2
    other = people.with_fields(keypoints=moved)
    found, sure = agreed(people, [other, people])
    assert sure.all()
    missing = np.argwhere(found.keypoint_scores == 0)
    assert missing.tolist() == [[1, 9]]
    np.testing.assert_allclose(found.keypoints[0, 5], people.keypoints[0, 5] + (4 / 3, 0))
    # The difference is part of the covariance, along its direction alone.
    np.testing.assert_allclose(found.keypoint_cov[0, 5].diagonal(), [4 + 16 / 3, 4])


def test_people_of_few_joints_are_not_labelled():
    people = someone(1)
    scores = people.keypoint_scores.copy()
    scores[:, 4:] = 0.1
    assert not agreed(people.with_fields(keypoint_scores=scores), [people, people])[1].any()


# From pictures to samples -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def labels(clip, tmp_path_factory):
    """The folder of the labels of two pictures of the clip, made by the command."""
    folder = tmp_path_factory.mktemp("labels")
    (folder / "lab").mkdir()
    for number in (0, 6):
        cv2.imwrite(str(folder / "lab" / f"{number:02}.png"), clip[number][..., ::-1])
    assert cli.main(["label", str(folder / "lab"), str(folder / "out")]) == 0
    return folder


def test_labels_are_the_people_of_the_picture_in_cocos_layout(labels, clip):
    table = json.loads((labels / "out" / LABELS).read_text())
    assert [image["file_name"] for image in table["images"]] == [
        "pictures/lab_000000.jpg", "pictures/lab_000001.jpg"]
    people = [one for one in table["annotations"] if not one["iscrowd"]]
    assert len(people) >= 4 and len({one["id"] for one in table["annotations"]}) == len(
        table["annotations"])
    seen = create_network(PoseConfig()).detect([Frame(clip[0])])[0]
    for one in people:
        if one["image_id"] != 1:
            continue
        points = np.array(one["keypoints"]).reshape(17, 3)
        assert one["num_keypoints"] == (points[:, 2] > 0).sum() >= 5
        known = np.where(points[:, 2:] > 0, points[:, :2] + 0.5, np.nan)
        similar = oks.similarity(known[None], seen.keypoints, oks.area(seen.boxes))
        assert similar.max() > 0.8


def test_training_reads_bodies_that_project_onto_the_keypoints(labels):
    samples = Labelled(labels / "out" / LABELS, "train")
    assert len(samples) == 2
    for number in range(2):
        sample = samples[number]
        people, camera = sample.people, sample.frame.camera
        assert sample.complete and camera is not None and np.isfinite(people.theta).all()
        assert (np.linalg.eigvalsh(people.keypoint_cov) > 0).all()
        # SMPL's ankles and COCO's are the same joints; the left one is the person's own left.
        for smpl, coco in ((7, 15), (8, 16), (20, 9), (21, 10)):
            pixels = camera.project(people.joints[:, smpl])
            far = np.linalg.norm(pixels - people.keypoints[:, coco], axis=1)
            height = people.boxes[:, 3] - people.boxes[:, 1]
            shown = people.keypoint_scores[:, coco] > 0
            assert (far[shown] < 0.15 * height[shown]).all(), (smpl, far, height)


def test_the_same_command_adds_nothing_and_another_recording_is_added(labels, clip):
    before = json.loads((labels / "out" / LABELS).read_text())
    assert cli.main(["label", str(labels / "lab"), str(labels / "out")]) == 0
    assert json.loads((labels / "out" / LABELS).read_text()) == before
    cv2.imwrite(str(labels / "hall.png"), clip[3][..., ::-1])
    assert cli.main(["label", str(labels / "hall.png"), str(labels / "out")]) == 0
    after = json.loads((labels / "out" / LABELS).read_text())
    assert after["images"][:2] == before["images"] and len(after["images"]) == 3
    assert after["images"][2]["file_name"] == "pictures/hall_000000.jpg"


class _Nothing:
    """A labeller that finds nobody."""

    def __init__(self):
        self.pipeline = SimpleNamespace(config=PoseConfig(fov_deg=60.0))

    def label(self, frame):
        return People.nobody(), np.zeros((0, 4))


def recorded(count, image, broken=()):
    from ros2_pose.offline.sources import RecordedFrame
    for number in range(count):
        frame = None if number in broken else Frame(image)
        yield RecordedFrame(number * 250_000_000, "camera", str(number), frame, "torn")


def test_a_recording_is_thinned_and_its_split_is_by_blocks(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    counts = write_labels(recorded(400, image), "bag", _Nothing(), tmp_path, every_s=1.0)
    assert counts["images"] == 100 and counts["unreadable"] == 0
    table = json.loads((tmp_path / LABELS).read_text())
    val = [k for k, one in enumerate(table["images"]) if one["split"] == "val"]
    assert val == [*range(45, 50), *range(95, 100)]
    assert len(Labelled(tmp_path / LABELS, "validation")) == 10


def test_images_that_cannot_be_read_are_counted_and_an_interrupted_run_goes_on(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)

    def cut():
        yield from recorded(3, image)
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        write_labels(cut(), "bag", _Nothing(), tmp_path, every_s=0.0)
    assert len(json.loads((tmp_path / LABELS).read_text())["images"]) == 3
    counts = write_labels(recorded(6, image, broken=[4]), "bag", _Nothing(), tmp_path, every_s=0.0)
    assert counts["images"] == 5 and counts["unreadable"] == 1


@pytest.mark.parametrize("content", ["", "[]", '{"images": 3}', "{"])
def test_a_file_that_holds_no_labels_is_named_and_kept(tmp_path, content):
    (tmp_path / LABELS).write_text(content)
    with pytest.raises(LabelError, match="is not a file of labels"):
        write_labels(iter(()), "bag", _Nothing(), tmp_path, every_s=0.0)
    assert (tmp_path / LABELS).read_text() == content
    with pytest.raises(DataError, match=str(tmp_path / LABELS)):
        Labelled(tmp_path / LABELS, "train")


def test_a_split_without_pictures_is_named(tmp_path):
    (tmp_path / LABELS).write_text('{"images": [], "annotations": []}')
    with pytest.raises(DataError, match="no pictures of the split validation"):
        Labelled(tmp_path / LABELS, "validation")
