"""NanoDet: boxes of people in pictures, decoding, properties of the contract."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from ros2_pose import boxes as box_math
from ros2_pose.config import PoseConfig
from ros2_pose.networks import nanodet, onnx_engine
from ros2_pose.networks.nanodet import NanoDet, _tile_limits
from ros2_pose.people import Frame


@pytest.fixture(scope="module", params=["torch", "onnxruntime"])
def network(request):
    if request.param == "onnxruntime" and not onnx_engine.available():
        pytest.skip("onnxruntime is not installed")
    return NanoDet(PoseConfig(engine=request.param))


def test_people_of_the_clip_are_found_best_first(network, clip):
    for picture in clip[::4]:
        boxes, scores = network.find_boxes(picture)
        assert (scores >= 0.5).sum() >= 2
        assert (np.diff(scores) <= 0).all() and scores.min() >= 0.25
        assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= (544, 960)).all()
        width, height = (boxes[scores >= 0.5, 2:] - boxes[scores >= 0.5, :2]).T
        assert (height > 1.2 * width).all()  # upright


def _is_found(box, found):
    return box_math.overlaps(box[None], found).max(initial=0) > 0.6


def test_boxes_follow_the_picture(network, clip):
    """Scaled, mirrored and moved pictures give the boxes scaled, mirrored and moved."""
    picture = clip[0]
    boxes, scores = network.find_boxes(picture)
    sure = boxes[scores > 0.5]
    assert len(sure) >= 2
    half = cv2.resize(picture, (272, 480), interpolation=cv2.INTER_AREA)
    mirrored = np.ascontiguousarray(picture[:, ::-1])
    moved = cv2.copyMakeBorder(picture, 0, 0, 96, 0, cv2.BORDER_REPLICATE)
    swapped = sure[:, [2, 1, 0, 3]] * (-1, 1, -1, 1)
    expected = {"half": sure / 2, "mirrored": swapped + (544, 0, 544, 0),
                "moved": sure + (96, 0, 96, 0)}
    for name, other in (("half", half), ("mirrored", mirrored), ("moved", moved)):
        found, _ = network.find_boxes(other)
        assert all(_is_found(box, found) for box in expected[name]), name


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (500, 3), (31, 33), (480, 640), (1080, 1920)])
@pytest.mark.parametrize("value", [0, 128, 255])
def test_nothing_to_see_has_no_boxes(network, shape, value):
    boxes, scores = network.find_boxes(np.full((*shape, 3), value, np.uint8))
    assert boxes.shape == (0, 4) and scores.shape == (0,)


def test_a_person_who_fills_the_picture_has_one_box(network, clip):
    boxes, scores = network.find_boxes(clip[0])
    left, top, right, bottom = boxes[0].astype(int)
    crop = np.ascontiguousarray(clip[0][top:bottom, left:right])
    found, found_scores = network.find_boxes(crop)
    whole = np.array([0, 0, right - left, bottom - top])
    assert found_scores[0] > 0.4 and _is_found(whole, found[:1])


def test_distances_are_means_of_their_distributions_in_strides():
    maps = np.full((45, 4, 6), -20.0, np.float32)
    row, col, distances = 2, 3, (1, 2, 3.5, 10)
    maps[0, row, col] = 2.0
    for side, distance in enumerate(distances):
        for share in (np.floor(distance), np.ceil(distance)):
            maps[1 + 11 * side + int(share), row, col] = 20.0
    boxes, scores = nanodet._decode(maps, 16)
    x, y = (col + 0.5) * 16, (row + 0.5) * 16
    np.testing.assert_allclose(boxes, [[x - 16, y - 32, x + 56, y + 160]], atol=1e-6)
    np.testing.assert_allclose(scores, [1 / (1 + np.exp(-2))])


def test_extreme_logits_are_finite():
    maps = np.full((45, 2, 2), 1e4, np.float32)
    maps[0, 0] = -1e4
    with np.errstate(all="raise", under="ignore"):
        boxes, scores = nanodet._decode(maps, 8)
    assert np.isfinite(boxes).all() and (scores == 1).all() and len(boxes) == 2


def test_the_layers_are_the_files_for_any_batch(network):
    images = torch.randint(0, 256, (3, 3, 64, 96), dtype=torch.uint8)
    with torch.inference_mode():
        for stride, together in zip((8, 16, 32), network.heads(images)):
            assert together.shape == (3, 45, 64 // stride, 96 // stride)


def test_suppression_keeps_the_best_of_each_heap():
    rng = np.random.default_rng(0)
    centres = np.array([[50, 50], [200, 80], [120, 300]])
    corner = centres.repeat(20, 0) + rng.normal(size=(60, 2))
    boxes, scores = np.concatenate([corner - 25, corner + 25], -1), rng.random(60)
    kept = box_math.suppress(boxes, scores, 0.6)
    best = [20 * heap + scores[20 * heap:20 * heap + 20].argmax() for heap in range(3)]
    assert sorted(kept) == best
    assert (np.diff(scores[kept]) <= 0).all()
    assert len(box_math.suppress(np.zeros((0, 4)), np.zeros(0), 0.6)) == 0
    # A box that overlaps only a dropped one is kept.
    chain = np.array([[0, 0, 10, 10], [0, 4, 10, 14], [0, 8, 10, 18.0]])
    assert list(box_math.suppress(chain, np.array([0.9, 0.8, 0.7]), 0.3)) == [0, 2]


@pytest.mark.parametrize("size", [(640, 480), (1920, 1080), (97, 33), (5, 7)])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_tiles_cover_the_picture_and_overlap(size, count):
    seen = np.zeros(size[::-1], int)
    for row in range(count):
        for col in range(count):
            low, high = _tile_limits(np.array(size), count, np.array([col, row]))
            assert (low >= 0).all() and (low < high).all() and (high <= size).all()
            seen[low[1]:high[1], low[0]:high[0]] += 1
    assert seen.min() >= 1
    if min(size) > 30:  # a person as wide as the overlap is whole in one of two neighbours
        assert (seen > 1).any(0).sum() >= 0.1 * size[0] * (count - 1)


def test_tiles_are_parts_of_the_search():
    assert len(NanoDet(PoseConfig()).searches()) == 1
    assert len(NanoDet(PoseConfig(tiles=3)).searches()) == 1 + 9


def test_a_person_cut_off_by_a_tile_is_left_to_the_next_one(monkeypatch):
    """The simulated detector sees a person, as far as within the tile."""
    person = np.array([[300.0, 100.0, 340.0, 180.0]])
    image = np.zeros((480, 640, 3), np.uint8)
    image[100:180, 300:340] = 255

    def find_boxes(self, picture):
        rows, cols = np.nonzero(picture[..., 0])
        if not len(rows):
            return np.zeros((0, 4)), np.zeros(0)
        return np.array([[cols.min(), rows.min(), cols.max() + 1.0, rows.max() + 1.0]]), np.ones(1)

    monkeypatch.setattr(NanoDet, "_find_boxes", lambda self, pictures: [
        find_boxes(self, picture) for picture in pictures])
    found = [part.find_people([Frame(image)])[0].boxes
             for part in NanoDet(PoseConfig(tiles=2)).searches()[1:]]
    boxes = np.concatenate(found)
    assert len(boxes) >= 1
    assert (boxes == person).all()


def test_on_a_gpu_pictures_of_one_shape_are_found_in_as_each_alone(network, clip, monkeypatch):
    """The same way on a CPU: the device is said to be another one, and pictures differ in size."""
    class Elsewhere(torch.nn.Module):
        device = type("Device", (), {"type": "elsewhere"})
        batches = []

        def forward(self, images):
            self.batches.append(len(images))
            return kept(images)

    kept = network.heads
    pictures = [clip[0], clip[3][:640], clip[3], clip[6], np.ascontiguousarray(clip[6][:640])]
    alone = [network.find_boxes(picture) for picture in pictures]
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *_: tensor)
    monkeypatch.setattr(nanodet, "on_host", lambda maps: maps)
    monkeypatch.setitem(network._modules, "heads", Elsewhere())
    together = network._find_boxes(pictures)
    assert Elsewhere.batches == [3, 2]
    for (boxes, scores), (own_boxes, own_scores) in zip(together, alone, strict=True):
        assert len(boxes) == len(own_boxes) >= 1
        np.testing.assert_allclose(boxes, own_boxes, atol=0.01)
        np.testing.assert_allclose(scores, own_scores, atol=1e-4)
