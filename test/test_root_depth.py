"""Root depth: k by its definition, gamma for simulated people, positions in the pipeline."""

import numpy as np
import pytest
import torch

from ros2_pose.body.lift import person_view
from ros2_pose.body.root_depth import FILE, RootDepth, k_value, root_with_cov
from ros2_pose.camera import Camera
from ros2_pose.config import PoseConfig
from ros2_pose.messages.external import navigation_people
from ros2_pose.messages.people import STATUS_PARTIAL, has_body, people_from_message, status_of
from ros2_pose.people import Frame
from ros2_pose.pipeline import Pipeline
from ros2_pose.skeleton import COCO17


def standing(distance_m, aside_m=0.0, height_m=1.6):
    """Keypoints (1, 17, 2) at z = 1 of a cardboard person, nose to ankles height_m."""
    heights = {"nose": 1.0, "eye": 1.02, "ear": 1.0, "shoulder": 0.86, "elbow": 0.66,
               "wrist": 0.5, "hip": 0.56, "knee": 0.3, "ankle": 0.0}
    widths = {"shoulder": 0.2, "elbow": 0.25, "wrist": 0.25, "hip": 0.1, "knee": 0.1, "ankle": 0.1}
    points = []
    for name, kind in zip(COCO17.names, COCO17.kinds):
        side = {"l": 1, "r": -1}.get(name[0], 0) if "_" in name else 0
        points.append((aside_m + side * widths.get(kind, 0.04),
                       height_m * (0.56 - heights[kind])))
    return torch.tensor(points)[None].float() / distance_m


def cov_like(points, std=0.002):
    return std**2 * torch.eye(2).repeat(*points.shape[:2], 1, 1)


@pytest.mark.parametrize("distance_m", [1.5, 4.0, 12.0])
def test_k_is_the_distance_of_a_square_of_two_metres(distance_m):
    """In front of the camera: the hull's height times 1.25 fills the square."""
    points = standing(distance_m)
    features, _, rays_std = person_view(points, cov_like(points))
    side = 1.25 * float(points[0, :, 1].max() - points[0, :, 1].min())
    assert float(k_value(features, rays_std)) == pytest.approx(2.0 / side, rel=0.03)


def test_unseen_keypoints_do_not_count():
    points = standing(3.0)
    points[0, COCO17.index("left_ankle")] = torch.nan
    points[0, COCO17.index("right_ankle")] = torch.nan
    features, _, rays_std = person_view(points, cov_like(points))
    whole, _, whole_std = person_view(standing(3.0), cov_like(points))
    assert float(k_value(features, rays_std)) > 1.3 * float(k_value(whole, whole_std))
    nothing = torch.full((1, 17, 2), torch.nan)
    features, _, rays_std = person_view(nothing, cov_like(nothing))
    assert torch.isnan(k_value(features, rays_std)).all()


needs_weights = pytest.mark.skipif(not FILE.exists(), reason="not trained")


@needs_weights
@pytest.mark.parametrize("aside_m", [0.0, 1.5])
@pytest.mark.parametrize("distance_m", [2.0, 4.0, 8.0])
def test_a_standing_adult_is_where_it_stands(distance_m, aside_m):
    points = standing(distance_m, aside_m)
    root, root_cov = root_with_cov(RootDepth.load(), points, cov_like(points, 0.004 / distance_m))
    assert root[0, 2] == pytest.approx(distance_m, rel=0.12)
    assert abs(root[0, 0] - aside_m) < 0.05 + 0.03 * distance_m
    assert (np.linalg.eigvalsh(root_cov[0]) > 0).all()
    along = np.sqrt(root_cov[0, 2, 2])
    assert 0.02 * distance_m < along < 0.25 * distance_m


@needs_weights
def test_lens_and_focal_length_do_not_matter_people_are_rays():
    """Twice the focal length shows people twice as large; their rays are the same."""
    network = RootDepth.load()
    points = standing(3.0, 0.5)
    found = []
    for focal in (300.0, 600.0):
        camera = Camera(640, 480, focal, focal, 320, 240)
        pixels = points[0].numpy() * focal + (320, 240)
        rays, cov = camera.normalise_with_cov(pixels[None], 4.0 * (focal / 300)**2
                                              * np.eye(2) * np.ones((1, 17, 1, 1)))
        found.append(root_with_cov(network, torch.from_numpy(rays), torch.from_numpy(cov))[0])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3)


@needs_weights
def test_too_few_keypoints_have_no_position():
    points = standing(3.0)
    points[0, 1:] = torch.nan
    root, root_cov = root_with_cov(RootDepth.load(), points, cov_like(points))
    assert np.isnan(root).all() and np.isnan(root_cov).all()
    none = root_with_cov(RootDepth.load(), points[:0], cov_like(points)[:0])
    assert none[0].shape == (0, 3) and none[1].shape == (0, 6, 6)


@needs_weights
@pytest.mark.parametrize("network", ["movenet", "top_down"])
def test_positions_without_bodies_reach_navigation(clip, network):
    """About where the bodies are, for any network; what needs a body is absent."""
    camera = Camera.from_fov(*clip[0].shape[1::-1], 60)
    settings = {"network": network, "confirm_hits": 1}
    flat = Pipeline(PoseConfig(body=False, root_depth=True, **settings))
    whole = Pipeline(PoseConfig(**settings))
    for number, picture in enumerate(clip[:3]):
        frame = Frame(picture, camera, stamp=number * 10**8)
        people, bodies = flat.step(frame), whole.step(frame)
    assert len(people) == len(bodies) >= 2 and people.theta is None and people.joints is None
    ratio = people.root[:, 2] / bodies.root[:, 2]
    assert ((ratio > 0.75) & (ratio < 1.33)).all()
    assert np.isfinite(people.velocity).any() and status_of(people) == STATUS_PARTIAL
    from types import SimpleNamespace

    def make(_, **fields):
        return SimpleNamespace(**fields)
    message = navigation_people(make, None, people)
    assert len(message.people) == len(people) and not has_body(people, 0)


def test_without_both_there_are_pixels_alone(clip):
    camera = Camera.from_fov(*clip[0].shape[1::-1], 60)
    people = Pipeline(PoseConfig(network="movenet", body=False)).step(Frame(clip[0], camera))
    assert people.root is None and "root_depth" in people.note


@needs_weights
def test_people_who_leave_are_predicted_without_bodies(clip):
    camera = Camera.from_fov(*clip[0].shape[1::-1], 60)
    pipeline = Pipeline(PoseConfig(body=False, root_depth=True, confirm_hits=1))
    for number in range(4):
        pipeline.step(Frame(clip[number], camera, stamp=number * 10**8))
    noise = np.random.default_rng(0).integers(0, 256, clip[0].shape, dtype=np.uint8)
    people = pipeline.step(Frame(noise, camera, stamp=4 * 10**8))
    assert len(people) and np.isfinite(people.root).any()


def test_messages_give_positions_back():
    """A person with a position alone survives the message."""
    import math
    from types import SimpleNamespace

    from ros2_pose.messages.people import FrameReport, people_message
    from ros2_pose.people import People

    def make(_, **fields):
        return SimpleNamespace(**fields)
    root = np.array([[1.0, 0.5, 4.0], [np.nan] * 3])
    people = People(np.ones((2, 4)), np.ones(2), np.ones((2, 17, 2)),
                    np.tile(np.eye(2), (2, 17, 1, 1)), np.ones((2, 17)), root=root,
                    root_cov=np.tile(np.eye(6), (2, 1, 1)), velocity=np.zeros((2, 3)),
                    velocity_cov=np.tile(np.eye(3), (2, 1, 1)))
    message = people_message(make, None, people, FrameReport(640, 480))
    assert [person.has_body for person in message.people] == [False, False]
    assert math.isnan(message.people[0].pose.pose.orientation.x)
    again = people_from_message(message)
    np.testing.assert_allclose(again.root, root)
    assert again.theta is None
