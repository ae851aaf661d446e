"""Synthetic pictures: the rasteriser against OpenCV's polygons, the truth against the picture."""

import itertools

import cv2
import numpy as np
import pytest
import torch

from ros2_pose.body.model import BodyModel
from ros2_pose.data.synthetic import scene as scenes
from ros2_pose.data.synthetic.backgrounds import BackgroundError
from ros2_pose.data.synthetic.bodies import BodySampler
from ros2_pose.data.synthetic.lighting import Shadows
from ros2_pose.data.synthetic.pictures import (
    HIDDEN,
    OUTSIDE,
    VISIBLE,
    SyntheticPictures,
    _visibility,
    main,
    sheet,
)
from ros2_pose.data.synthetic.rasterizer import barycentric, rasterise, vertex_normals
from ros2_pose.data.synthetic.surfaces import render
from ros2_pose.skeleton import COCO17

_SIZE = 200


@pytest.fixture(scope="module")
def model():
    return BodyModel.load()


@pytest.fixture(scope="module")
def pictures(poses, model):
    return SyntheticPictures(poses, seed=3, model=model)


@pytest.fixture(scope="module")
def some(pictures):
    return [pictures[i] for i in range(12)]


def _body(upright):
    """Pixels (V, 2), 1/z (V,), faces of one person who fills the picture's height."""
    people, body = upright
    vertices = body(*(torch.from_numpy(v).float() for v in (people.theta, people.betas,
                                                            people.root))).vertices[0]
    return vertices[:, :2] / vertices[:, 2:] * 350 + 80, 1 / vertices[:, 2], body.faces, vertices


def _mask(hits, width, height):
    mask = np.zeros(width * height, np.uint8)
    mask[hits[0]] = 1
    return mask.reshape(height, width)


# ------------------------------------------------------------------------------- the rasteriser


def test_silhouette_is_the_union_of_the_triangles(upright):
    pixels, nearness, faces, _ = _body(upright)
    ours = _mask(rasterise(pixels, nearness, faces, 180, _SIZE), 180, _SIZE)
    union = np.zeros((_SIZE, 180), np.uint8)
    for corners in pixels[faces].numpy() - 0.5:
        cv2.fillConvexPoly(union, np.round(corners * 16).astype(np.int32), 1, shift=4)
    rim = np.ones((3, 3), np.uint8)
    assert union.sum() > 2000
    assert not (ours & ~cv2.dilate(union, rim)).any()
    assert not (cv2.erode(union, rim) & ~cv2.morphologyEx(ours, cv2.MORPH_CLOSE, rim)).any()


def test_silhouette_is_the_same_from_behind(upright):
    pixels, nearness, faces, _ = _body(upright)
    front = _mask(rasterise(pixels, nearness, faces, 180, _SIZE), 180, _SIZE)
    back = _mask(rasterise(pixels, nearness, faces, 180, _SIZE, back=True), 180, _SIZE)
    assert (front != back).mean() < 0.002


@pytest.mark.parametrize("what", ["body", "slope"])
def test_shares_of_corners_lead_to_the_pixel_and_its_depth(upright, what):
    pixels, nearness, faces, vertices = _body(upright)
    if what == "slope":  # large triangles that lead far away: perspective matters
        vertices = torch.tensor([[-0.5, 0.3, 1], [0.5, 0.4, 1.2], [0, -0.5, 6], [4, -0.9, 9]])
        faces = torch.tensor([[0, 1, 2], [1, 3, 2]])
        pixels, nearness = vertices[:, :2] / vertices[:, 2:] * 350 + 80, 1 / vertices[:, 2]
    shown, face, nearest = rasterise(pixels, nearness, faces, 180, _SIZE)
    assert len(shown) > 500
    shares = barycentric(shown, face, pixels, nearness, faces, 180)
    points = (shares[..., None] * vertices[faces[face]]).sum(1)
    centre = torch.stack([shown % 180, shown // 180], 1) + 0.5
    assert torch.allclose(points[:, :2] / points[:, 2:] * 350 + 80, centre, atol=1e-2)
    assert torch.allclose(points[:, 2], 1 / nearest, atol=1e-4)
    assert shares.min() > -0.01


def test_random_triangles_agree_with_a_loop_over_pixels():
    rng = np.random.default_rng(5)
    pixels = rng.uniform(-5, 25, (90, 2))
    nearness = rng.uniform(0.1, 2, 90)
    faces = np.arange(90).reshape(30, 3)
    shown, face, _ = rasterise(*map(torch.from_numpy, (pixels, nearness, faces)), 20, 20)
    ours = np.full(400, -1)
    ours[shown] = face
    expected = np.full(400, -1)
    for cell in range(400):
        at, nearest = np.array([cell % 20 + 0.5, cell // 20 + 0.5]), 0.0
        for number, face in enumerate(faces):
            edges = np.column_stack([pixels[face], np.ones(3)]).T
            share = np.linalg.solve(edges, [*at, 1.0])
            faces_us = np.linalg.det(edges) < 0
            if faces_us and share.min() >= 0 and share @ nearness[face] > nearest:
                expected[cell], nearest = number, share @ nearness[face]
    assert (expected >= 0).any()
    assert (ours == expected).all()


def _two_boxes(order):
    """Two boxes at 2 and 3 m, one behind the other and to its right; the nearer is order[0]."""
    vertices, faces = scenes._box()
    near, far = vertices * 0.3 + (0, 0, 2), vertices * 0.3 + (0.3, 0, 3)
    both = np.concatenate([(near, far)[k] for k in order])
    return torch.from_numpy(both), torch.from_numpy(np.concatenate([faces, faces + len(vertices)]))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_what_is_nearer_hides_what_is_behind(order):
    vertices, faces = _two_boxes(order)
    pixels = vertices[:, :2] / vertices[:, 2:] * 100 + 50
    shown, face, _ = rasterise(pixels, 1 / vertices[:, 2], faces, 100, 100)
    owner = np.full(100 * 100, -1)
    owner[shown] = face // 12
    owner = owner.reshape(100, 100)
    assert owner[50, 50] == owner[50, 66] == order.index(0)  # the near front's edge: 0.3 / 1.7
    assert owner[50, 70] == order.index(1)  # ends at 0.6 / 2.7
    assert owner[50, 90] == owner[5, 50] == -1
    normals = vertex_normals(vertices, faces)
    assert torch.allclose(normals.abs().amax(1), torch.ones(48).double())


def test_triangles_behind_the_camera_are_not_seen():
    vertices, faces = scenes._box()
    pixels = torch.from_numpy(vertices[:, :2] * 50 + 50)
    shown, _, _ = rasterise(pixels, torch.full((24,), -1.0).double(), torch.from_numpy(faces),
                            100, 100)
    assert not len(shown)


def test_shadow_falls_below_and_only_below():
    """A cube of a metre, 1 m up, under a sun from the right, 45 degrees high."""
    vertices, faces = scenes._box()
    shadows = Shadows((vertices * 0.5 + (0, 1.5, 0)).astype(np.float32), faces,
                      np.array([1.0, 1.0, 0.0]) / 2**0.5)
    on_floor = np.array([(-1.5, 0, 0), (-1.5, 0, 0.4), (0, 0, 0), (-3, 0, 0), (-1.5, 0, 0.6),
                         (40, 0, 0), (-40, 0, 30), (0, 0, 9)])
    assert np.allclose(shadows.lit(on_floor), [0, 0, 1, 1, 1, 1, 1, 1])
    on_cube = np.array([(0.0, 2.0, 0.0), (0.5, 1.5, 0)])  # the sides that face the sun
    assert np.allclose(shadows.lit(on_cube), 1)


# ---------------------------------------------------------------------------------- the scenes


def test_a_picture_is_the_same_whenever_it_is_made(pictures, poses, model, some):
    again = SyntheticPictures(poses, seed=3, model=model)[7]
    assert np.array_equal(again.frame.image, some[7].frame.image)
    assert np.array_equal(again.people.keypoints, some[7].people.keypoints)
    assert np.array_equal(again.people.keypoint_scores, some[7].people.keypoint_scores)
    other = SyntheticPictures(poses, seed=4, model=model)[7]
    assert not np.array_equal(other.frame.image, some[7].frame.image)
    third = next(itertools.islice(pictures, 3, None))
    assert np.array_equal(third.frame.image, some[3].frame.image)


def test_workers_share_the_pictures_out(poses, model, some):
    loader = torch.utils.data.DataLoader(SyntheticPictures(poses, seed=3, model=model),
                                         batch_size=None, num_workers=2, collate_fn=lambda s: s)
    for expected, loaded in zip(some[:4], loader):
        assert np.array_equal(loaded.frame.image, expected.frame.image)


def test_truth_projects_to_the_keypoints(some, model):
    for scene in some:
        people, camera = scene.people, scene.frame.camera
        posed = model(*(torch.from_numpy(v).float() for v in (people.theta, people.betas,
                                                              people.root)))
        image = posed.keypoints.numpy() @ camera.K.T
        ahead = image[..., 2] > 0.1
        pixels = image[..., :2] / image[..., 2:]
        assert np.allclose(pixels[ahead], people.keypoints[ahead], atol=0.05)
        assert np.allclose(posed.joints.numpy(), people.joints, atol=1e-4)
        assert np.allclose(people.joints[:, 0], people.root, atol=1e-5)


def test_boxes_lie_in_the_image_and_hold_what_is_visible(some):
    count = 0
    for scene in some:
        low, high = scene.people.boxes[:, :2], scene.people.boxes[:, 2:]
        assert (low >= 0).all() and (high <= 256).all() and (low < high).all()
        for i in range(len(scene.people)):
            seen = scene.people.keypoints[i][scene.people.keypoint_scores[i] == VISIBLE]
            assert (seen >= low[i] - 10).all() and (seen <= high[i] + 10).all()
            count += 1
        outside = scene.people.keypoint_scores == OUTSIDE
        points = scene.people.keypoints
        inside = ((points >= 0) & (points < 256)).all(-1)
        assert np.array_equal(outside, ~inside)
    assert count > 10


def test_people_do_not_stand_in_each_other(poses, model):
    """No vertex of a person is within 4 cm of another person's joints."""
    rng, pairs = np.random.default_rng(1), 0
    for number in range(6):
        bodies = BodySampler(model, poses, torch.Generator().manual_seed(number))
        layout = scenes.arrange(model, bodies, rng, scenes.random_camera(rng, 256, 256), 4)
        for a, b in itertools.permutations(range(len(layout.root)), 2):
            apart = np.linalg.norm(layout.vertices[a][:, None] - layout.joints[b], axis=-1)
            assert apart.min() > 0.04
            pairs += 1
        lowest = layout.vertices[..., 1].min(1)
        assert np.allclose(lowest, -layout.height, atol=1e-3)  # all on one floor
    assert pairs > 20


def _one_person(pictures, upright, things=()):
    """(17,) visibility of a person who faces a camera with things between."""
    people, model = upright
    camera = scenes.Camera.from_fov(256, 256, 60)
    rotation = np.diag([1.0, -1, -1])
    posed = model(*(torch.from_numpy(v).float() for v in (people.theta, people.betas,
                                                          people.root)))
    layout = scenes.Layout(
        camera,
        rotation,
        1.0,
        torch.eye(3).expand(1, 24, 3, 3),
        torch.zeros(1, 10),
        people.root @ rotation,
        (posed.joints.numpy() @ rotation).astype(np.float32),
        (posed.vertices.numpy() @ rotation).astype(np.float32),
        list(things),
    )
    surfaces = pictures._surfaces(layout, np.random.default_rng(0))
    seen = render(surfaces, camera, layout.to_camera, "cpu")
    positions = posed.keypoints.numpy().astype(float)
    return _visibility(camera.project(positions), positions[..., 2], *seen.maps((256, 256)),
                       pictures._keypoint_depth_m)[0]


def test_who_faces_the_camera_is_visible_altogether(pictures, upright):
    assert (_one_person(pictures, upright) == VISIBLE).all()


def test_what_a_box_hides_is_hidden(pictures, upright):
    local, faces = scenes._box()
    vertices = local * (1.0, 0.5, 0.1) + (0.1, -0.9, -2.5)  # before the legs
    hidden = _one_person(pictures, upright, [scenes.Mesh(vertices, faces, local)]) == HIDDEN
    legs = [COCO17.index(f"{s}_{j}") for s in ("left", "right") for j in ("knee", "ankle")]
    assert hidden[legs].all()
    assert not hidden[:11].any()


def test_a_back_hides_the_face(pictures, upright):
    people, model = upright
    theta = people.theta.copy()
    theta[:, 0] = (0, 0, 1, 0)  # faces away
    turned = people.with_fields(theta=theta), model
    seen = _one_person(pictures, turned) == VISIBLE
    assert not seen[:3].any()
    assert seen[5:].all()


def test_empty_scenes_are_possible(poses, model):
    scene = SyntheticPictures(poses, people=0, model=model)[0]
    assert len(scene.people) == 0 and scene.people.keypoint_scores.shape == (0, 17)
    assert scene.frame.image.std() > 1


def test_scenes_take_place_in_the_users_pictures(poses, model, tmp_path):
    cv2.imwrite(str(tmp_path / "green.png"), np.full((60, 80, 3), (20, 200, 20), np.uint8))
    pictures = SyntheticPictures(poses, people=0, backgrounds=tmp_path, model=model)
    means = [pictures[i].frame.image.reshape(-1, 3).mean(0) for i in range(8)]
    assert any(g > 2 * r and g > 2 * b for r, g, b in means)
    with pytest.raises(BackgroundError, match="no pictures"):
        SyntheticPictures(poses, backgrounds=tmp_path / "nothing", model=model)


def test_pictures_of_any_size(poses, model):
    scene = SyntheticPictures(poses, size=(96, 64), model=model)[1]
    assert scene.frame.image.shape == (64, 96, 3) and scene.frame.image.dtype == np.uint8
    assert (scene.frame.camera.width, scene.frame.camera.height) == (96, 64)


def test_contact_sheet(some, tmp_path, poses):
    assert sheet(some[:3], columns=2, scale=1).shape == (512, 1024, 3)
    mocap = tmp_path / "mocap.npz"
    np.savez(mocap, theta=poses.numpy(), src=np.arange(64) % 10)
    out = tmp_path / "sheet.png"
    main(["--mocap", str(mocap), "--out", str(out), "--count", "1", "--size", "64", "64"])
    assert cv2.imread(str(out)) is not None
