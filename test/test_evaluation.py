"""The evaluate command on pictures and annotations made up, where the answer is known."""

import json

import cv2
import numpy as np
import pytest

from ros2_pose.evaluation.benchmarks.keypoints import evaluate, read_image
from ros2_pose.evaluation.benchmarks.refinement import is_labelled, jumped
from ros2_pose.evaluation.harness import EvaluationError
from ros2_pose.evaluation.tables import tables
from ros2_pose.people import People

pytest.importorskip("pycocotools")


@pytest.fixture
def coco(tmp_path):
    """Two pictures: one of a person, one empty; the annotations' path and the truth (17, 2)."""
    points = np.random.default_rng(0).uniform(20, 80, (17, 2))
    for number in (1, 2):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((100, 100, 3), number, np.uint8))
    person = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 2000.0,
              "bbox": [20, 20, 60, 60], "num_keypoints": 17,
              "keypoints": np.c_[points - 0.5, np.full(17, 2)].ravel().tolist()}
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps({
        "images": [{"id": i, "file_name": f"{i}.png", "width": 100, "height": 100} for i in (1, 2)],
        "annotations": [person], "categories": [{"id": 1, "name": "person"}]}))
    return path, points


def _finder(points, score=0.9, in_empty=False):
    def detect(image):
        if image[0, 0, 0] == 2 and not in_empty:
            return People.nobody()
        return People(np.array([[20.0, 20, 80, 80]]), np.array([score]), points[None],
                      np.zeros((1, 17, 2, 2)), np.ones((1, 17)))
    return detect


def test_the_truth_scores_one_and_elsewhere_scores_nothing(coco):
    path, points = coco
    perfect, curves = evaluate("perfect", _finder(points), path, path.parent, 0.3)
    assert (perfect.values["AP"], perfect.values["AR"]) == pytest.approx((1, 1))
    assert perfect.values["people above 0.3 in 1 empty pictures"] == 0
    assert "OKS" in perfect.protocol and "2 pictures" in perfect.protocol
    assert [curve.label for curve in curves] == ["perfect, OKS 0.5", "perfect, OKS 0.75"]
    assert curves[0].x[::50] == [0, 0.5, 1] and curves[0].y == pytest.approx([1] * 101)
    elsewhere, _ = evaluate("elsewhere", _finder(points + 300), path, path.parent, 0.3)
    assert elsewhere.values["AP"] == 0


@pytest.mark.parametrize("score, false", [(0.4, 1), (0.2, 0)])
def test_people_in_empty_pictures_are_counted_above_the_threshold(coco, score, false):
    path, points = coco
    row, _ = evaluate("ghosts", _finder(points, score, True), path, path.parent, 0.3)
    assert row.values["people above 0.3 in 1 empty pictures"] == false


def test_no_detections_are_no_crash(coco):
    path, _ = coco
    row, curves = evaluate("none", lambda image: People.nobody(), path, path.parent, 0.3)
    assert row.values["AP"] == 0 and "| none | 0.00 |" in tables([row])
    assert max(curves[0].y) == 0


def test_missing_and_unreadable_pictures_are_different_errors(tmp_path):
    with pytest.raises(EvaluationError, match="no.png does not exist"):
        read_image(tmp_path / "no.png")
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    with pytest.raises(EvaluationError, match="bad.png is not a picture"):
        read_image(tmp_path / "bad.png")


def test_default_network_beats_the_original_on_the_development_set(devset, tmp_path):
    """The accuracy gate: at least the original file's AP, and nobody in empty pictures."""
    import runpy
    from pathlib import Path

    from ros2_pose.config import PoseConfig
    from ros2_pose.evaluation.benchmarks.keypoints import network_detector, reference_detector
    pytest.importorskip("ai_edge_litert")
    script = runpy.run_path(str(Path(__file__).parents[1] / "scripts" / "devset_to_coco.py"))
    script["main"](devset / "index.json", tmp_path / "devset.json")
    config = PoseConfig()
    ours, theirs = (
        evaluate("", detect, tmp_path / "devset.json", devset, config.score_threshold)[0].values
        for detect in (network_detector(config), reference_detector(config)))
    assert ours["AP"] >= theirs["AP"]
    assert ours[f"people above {config.score_threshold:g} in 10 empty pictures"] == 0


# Refinement -------------------------------------------------------------------------------------


def _pair():
    """Two people beside each other: their keypoints (2, 17, 2), People, and COCO labels."""
    points = np.random.default_rng(1).uniform(0, 50, (2, 17, 2)) + [[[10, 10]], [[90, 10]]]
    boxes = np.concatenate([points.min(1), points.max(1)], axis=1)
    people = People(boxes, np.full(2, 0.9), points, np.zeros((2, 17, 2, 2)), np.ones((2, 17)))
    labels = [{"area": 2500.0, "bbox": [*box[:2], *(box[2:] - box[:2])], "iscrowd": 0,
               "keypoints": np.c_[p - 0.5, np.full(17, 2)].ravel().tolist()}
              for box, p in zip(boxes, points)]
    return points, people, labels


@pytest.mark.parametrize("boxes_alone", [False, True])
def test_jumps_onto_a_neighbour_are_counted(boxes_alone):
    points, people, labels = _pair()
    proposed = people.with_fields(keypoints=np.full_like(points, np.nan)) if boxes_alone else people
    assert not jumped(proposed, people, labels).any()
    both_second = people.with_fields(keypoints=points[[1, 1]])
    assert jumped(proposed, both_second, labels).tolist() == [True, False]
    astray = people.with_fields(keypoints=points + 500)  # refined onto no one: not a jump
    assert jumped(proposed, astray, labels).tolist() == [False, False]
    assert len(jumped(proposed, people, labels[:1])) == 0  # there is no neighbour


def test_people_reported_are_people_where_a_label_or_a_crowd_is():
    _, people, labels = _pair()
    boxes = np.concatenate([people.boxes, people.boxes + [200, 0, 200, 0]])
    assert is_labelled(boxes, labels).tolist() == [True, True, False, False]
    crowd = {"bbox": [180, 0, 300, 100], "iscrowd": 1}
    assert is_labelled(boxes, [*labels, crowd]).all()
    assert not is_labelled(boxes, []).any()
