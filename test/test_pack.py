"""Packed labels: the pictures are smaller, and the labels lie on the same things."""

import json
import zipfile

import cv2
import numpy as np
import pytest

from ros2_pose.data.labelled import Labelled
from ros2_pose.data.sample import DataError
from ros2_pose.training.pack import main, packed


@pytest.fixture()
def labels(tmp_path):
    """Three pictures of 800x600 with a white disc at each of a person's keypoints."""
    images, people = [], []
    rng = np.random.default_rng(0)
    for number in range(3):
        picture = np.full((600, 800, 3), 40, np.uint8)
        points = rng.uniform(100, 500, (17, 2)).round()
        for x, y in points:
            cv2.circle(picture, (int(x), int(y)), 12, (255, 255, 255), -1)
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture)
        images.append({"id": number, "file_name": f"{number}.png", "width": 800, "height": 600,
                       "split": "train", "camera": [700.0, 700.0, 400.0, 300.0]})
        people.append({"id": number, "image_id": number, "category_id": 1, "iscrowd": 0,
                       "bbox": [100.0, 100.0, 400.0, 400.0], "area": 80000.0,
                       "num_keypoints": 16, "keypoints_cov": [[16.0, 4.0, 36.0]] * 17,
                       "keypoints": np.c_[points, np.full(17, 2)].ravel().tolist()})
        people[-1]["keypoints"][:3] = [0, 0, 0]  # not labelled
    file = tmp_path / "labels.json"
    file.write_text(json.dumps({"images": images, "annotations": people, "categories": []}))
    return file


def test_labels_stay_on_what_they_label(labels, tmp_path):
    packed(labels, tmp_path / "pack.zip", 30)
    zipfile.ZipFile(tmp_path / "pack.zip").extractall(tmp_path / "unpacked")
    before, after = Labelled(labels), Labelled(tmp_path / "unpacked")
    assert len(after) == len(before) == 3
    for big, small in ((before[i], after[i]) for i in range(3)):
        scale = small.frame.image.shape[1] / 800
        assert scale < 0.5
        people, was = small.people, big.people
        np.testing.assert_allclose(people.keypoints[0, 1:], scale * was.keypoints[0, 1:], atol=0.02)
        assert people.keypoint_scores[0, 0] == 0
        np.testing.assert_allclose(people.keypoint_cov, scale**2 * was.keypoint_cov, atol=0.01)
        np.testing.assert_allclose(people.boxes, scale * was.boxes, atol=0.02)
        assert small.frame.camera.fx == pytest.approx(scale * 700)
        for x, y in people.keypoints[0, 1:]:
            assert small.frame.image[int(y), int(x)].min() > 150


def test_a_smaller_file_has_smaller_pictures(labels, tmp_path):
    large, small = (packed(labels, tmp_path / f"{number}.zip", number) for number in (1, 0.014))
    assert small < large
    assert (tmp_path / "0.014.zip").stat().st_size < 14_000


def test_what_does_not_fit_is_said(labels, tmp_path):
    with pytest.raises(DataError, match="3 pictures do not fit into 0.001 MB: give fewer"):
        packed(labels, tmp_path / "pack.zip", 0.001)
    (tmp_path / "1.png").write_text("no picture")
    with pytest.raises(DataError, match="1.png is not a picture"):
        packed(labels, tmp_path / "pack.zip", 30)


def test_fewer_pictures_keep_their_own_people(labels, tmp_path):
    packed(labels, tmp_path / "pack.zip", 30, pictures=2)
    zipfile.ZipFile(tmp_path / "pack.zip").extractall(tmp_path / "unpacked")
    assert [len(sample.people) for sample in Labelled(tmp_path / "unpacked")] == [1, 1]


def test_the_command_says_what_it_chose(labels, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["pack", str(labels), str(tmp_path / "p.zip")])
    main()
    assert "pictures of 384 px, quality 80" in capsys.readouterr().out
