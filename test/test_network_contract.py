"""The contract of every network in one place: what `PoseNetwork.detect` promises, on real pictures.

A new network is tested by its entry in the registry. People are compared by OKS: networks differ in
accuracy, not in what a moved, scaled or mirrored picture shows.
"""

import numpy as np
import pytest
import torch

from ros2_pose import oks
from ros2_pose.camera import Camera
from ros2_pose.config import PoseConfig
from ros2_pose.networks.registry import NETWORKS, create_network
from ros2_pose.people import DETECTED, Frame
from ros2_pose.skeleton import COCO17

pytest.importorskip("transformers", reason="only where requirements.txt is installed")

_CLEAR = 0.3  # score of people who must be found again
_SAME = 0.6  # OKS from which a person is found again


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    """With the thresholds that the pipeline sets: the tracker uses weak people, too."""
    torch.manual_seed(0)
    network = create_network(PoseConfig(network=request.param))
    network.configure(_CLEAR / 3, 20)
    return network


@pytest.fixture(scope="module")
def pictures(clip):
    """Three of the clip, the second of another shape."""
    return [clip[0], np.ascontiguousarray(clip[3][:640]), clip[6]]


def _pictures_of_nothing():
    """Flat pictures are none of them: the pipeline refuses what shows nothing."""
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (240, 320, 3), dtype=np.uint8)
    ramp = np.tile(np.arange(256, dtype=np.uint8)[:, None, None], (1, 200, 3))
    dark = np.abs(random.normal(0, 6, (240, 320, 3))).astype(np.uint8)
    return {"noise": noise, "dark": dark, "bright": 255 - dark, "ramp": ramp,
            "one pixel": noise[:1, :1], "a row": noise[:1], "a column": noise[:, :1],
            "wide": noise[:40], "tall": noise[:, :40], "view": np.rot90(noise)}


def found_again(people, keypoints):
    """OKS of the most certain person and the most similar of keypoints (P, 17, 2), mapped back."""
    assert people.scores[0] >= _CLEAR and len(people) >= 2
    return oks.similarity(people.keypoints[:1], keypoints, oks.area(people.boxes[:1])).max()


@pytest.mark.parametrize("name", _pictures_of_nothing())
def test_a_picture_without_people_shows_none(network, name):
    people = network.detect([Frame(_pictures_of_nothing()[name])])[0]
    assert people.scores.max(initial=0) < _CLEAR


def test_best_people_come_first_and_no_more_than_asked_for(network, pictures):
    people = network.detect([Frame(pictures[0])])[0]
    assert (np.diff(people.scores) <= 0).all()
    network.configure(network.score_threshold, 1)
    best = network.detect([Frame(pictures[0])])[0]
    network.configure(network.score_threshold, 20)
    assert len(best) == 1
    np.testing.assert_allclose(best.boxes, people.boxes[:1], atol=0.1)


def test_a_batch_is_its_pictures_in_any_order(network, pictures):
    frames = [Frame(picture, Camera.from_fov(*picture.shape[1::-1], 60)) for picture in pictures]
    alone = [network.detect([frame])[0] for frame in frames]
    for order in ([0, 1, 2], [2, 0, 1]):
        for people, number in zip(network.detect([frames[i] for i in order]), order):
            assert len(people) == len(alone[number]) >= 2
            for name in DETECTED:
                np.testing.assert_allclose(getattr(people, name), getattr(alone[number], name),
                                           atol=0.1, rtol=0.02)


def test_a_mirrored_picture_shows_mirrored_people(network, pictures):
    """In most pictures: a network may miss a person in one of them."""
    found = []
    for picture in pictures:
        people = network.detect([Frame(picture)])[0]
        mirrored = network.detect([Frame(np.ascontiguousarray(picture[:, ::-1]))])[0]
        back = mirrored.keypoints * (-1, 1) + (picture.shape[1], 0)
        same = found_again(people, back[:, COCO17.mirror])
        assert same > found_again(people, back)
        found.append(same > _SAME)
    assert sum(found) >= 2


def test_people_move_with_the_picture(network, pictures):
    picture = pictures[0]
    moved = np.full((picture.shape[0] + 64, picture.shape[1] + 96, 3), 114, np.uint8)
    moved[64:, 96:] = picture
    again = network.detect([Frame(moved)])[0]
    people = network.detect([Frame(picture)])[0]
    assert found_again(people, again.keypoints - (96, 64)) > _SAME


@pytest.mark.parametrize("angle_deg", [-12, 12])
def test_people_turn_with_the_picture(network, pictures, angle_deg):
    import cv2
    picture = pictures[0]
    height, width = picture.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle_deg, 0.9)
    turned = cv2.warpAffine(picture, matrix, (width, height), borderValue=(114,) * 3)
    again = network.detect([Frame(turned)])[0]
    linear, shift = matrix[:, :2], matrix[:, 2]
    back = (again.keypoints - 0.5 - shift) @ np.linalg.inv(linear).T + 0.5
    assert found_again(network.detect([Frame(picture)])[0], back) > _SAME


def test_a_larger_picture_of_the_same_scene_shows_the_same_people_and_metres(network, pictures):
    picture = pictures[0]
    camera = Camera.from_fov(*picture.shape[1::-1], 60)
    twice = picture.repeat(2, 0).repeat(2, 1)
    people = network.detect([Frame(picture, camera)])[0]
    again = network.detect([Frame(twice, camera.resized(*twice.shape[1::-1]))])[0]
    assert found_again(people, again.keypoints / 2) > _SAME
    if people.root is not None:
        row = oks.similarity(people.keypoints[:1], again.keypoints / 2,
                             oks.area(people.boxes[:1])).argmax()
        np.testing.assert_allclose(again.root[row], people.root[0], atol=0.1 * people.root[0, 2])


def test_bodies_come_with_a_camera_alone_and_are_whole(network, pictures):
    bare = network.detect([Frame(pictures[0])])[0]
    assert bare.root is None
    camera = Camera.from_fov(*pictures[0].shape[1::-1], 60)
    people = network.detect([Frame(pictures[0], camera)])[0]
    if people.theta is None:
        return
    known = np.isfinite(people.root).all(1)
    assert known.any()
    for name in ("theta", "betas", "joints"):
        value = getattr(people, name).reshape(len(people), -1)
        assert np.isfinite(value[known]).all()
    np.testing.assert_allclose(np.linalg.norm(people.theta[known], axis=2), 1, atol=1e-5)
    assert (people.root[known, 2] > 0).all()
