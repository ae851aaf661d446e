"""Shared by the tests: real pictures of the demo clip, made-up people, the development set."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ros2_pose.people import INFERRED, OBSERVED, TRACKED, People
from ros2_pose.weights import fetch

_DEVSET = Path(__file__).parents[2] / "shared" / "devset"
# What a robot may lack: each costs the node its own output alone.
_OPTIONAL = ("hri_msgs", "people_msgs", "vision_msgs")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Seed torch before each test and its fixtures: what ran before does not change what it draws.
    """
    torch.manual_seed(0)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """A test that needs an optional package is skipped where that is missing, but not in CI."""
    report = (yield).get_result()
    error = call.excinfo.value if call.excinfo else None
    missing = (error.name or "").partition(".")[0] if isinstance(error, ImportError) else ""
    if missing in _OPTIONAL and not os.environ.get("CI"):
        report.outcome = "skipped"
        report.longrepr = (*item.location[:2], f"Skipped: {missing} is not installed")


@pytest.fixture(scope="session")
def clip() -> list[np.ndarray]:
    """Ten pictures (960, 544, 3) uint8 RGB, a sixth of a second apart, of three people."""
    video = cv2.VideoCapture(str(fetch("demo_cam02.mp4")))
    pictures = []
    for number in range(100):
        read, picture = video.read()
        assert read, f"the clip ends at picture {number}"
        if number % 10 == 0:
            small = cv2.resize(picture, (544, 960), interpolation=cv2.INTER_AREA)
            pictures.append(small[..., ::-1])
    return [np.ascontiguousarray(picture) for picture in pictures]


@pytest.fixture(scope="session")
def devset() -> Path:
    """The folder of the development set; tests that need it are skipped where there is none."""
    if not _DEVSET.exists():
        pytest.skip("no development set beside this repository")
    return _DEVSET


@pytest.fixture
def some_people() -> People:
    """Three people with every field filled, numbers made up but possible."""
    rng = np.random.default_rng(7)
    count = 3
    theta = rng.normal(size=(count, 24, 4))
    spread = rng.normal(size=(count, 24, 3, 3)) * 0.05
    root_spread = rng.normal(size=(count, 6, 6)) * 0.1
    joints = rng.normal(size=(count, 24, 3)) * 0.4 + (0, 0, 4)
    low = rng.uniform(0, 300, (count, 2))
    pixel_spread = rng.normal(size=(count, 17, 2, 2)) * 3
    return People(
        boxes=np.c_[low, low + rng.uniform(50, 150, (count, 2))],
        scores=rng.uniform(0.3, 0.9, count),
        keypoints=rng.uniform(0, 480, (count, 17, 2)),
        keypoint_cov=pixel_spread @ pixel_spread.swapaxes(-1, -2) + np.eye(2),
        keypoint_scores=rng.uniform(0, 1, (count, 17)),
        joints=joints,
        joint_cov=spread @ spread.swapaxes(-1, -2) + 1e-4 * np.eye(3),
        joint_source=rng.choice([INFERRED, OBSERVED], (count, 24)),
        theta=theta / np.linalg.norm(theta, axis=-1, keepdims=True),
        betas=rng.normal(size=(count, 10)),
        root=joints[:, 0].copy(),
        root_cov=root_spread @ root_spread.swapaxes(-1, -2) + 1e-4 * np.eye(6),
        velocity=rng.normal(size=(count, 3)),
        velocity_cov=np.tile(0.04 * np.eye(3), (count, 1, 1)),
        joint_velocity=rng.normal(size=(count, 24, 3)),
        joint_velocity_cov=0.5 * spread @ spread.swapaxes(-1, -2) + 1e-3 * np.eye(3),
        tracking_state=np.full(count, TRACKED),
        age=np.array([0.5, 1.0, 2.0]),
        ids=("p1", "p2", "p3"))


@pytest.fixture(scope="session")
def poses() -> torch.Tensor:
    """(64, 24, 3) rotation vectors that people may well have: no motion capture is at hand."""
    from ros2_pose.body.prior import PosePrior
    white = torch.randn(64, 69, generator=torch.Generator().manual_seed(2)).double()
    quats = PosePrior.load().pose(0.7 * white).float()
    vectors = 2 * torch.atan2(quats[..., :3].norm(dim=2, keepdim=True), quats[..., 3:]) \
        * torch.nn.functional.normalize(quats[..., :3], dim=2)
    return torch.cat([torch.zeros(64, 1, 3), vectors], 1)


@pytest.fixture(scope="session")
def upright():
    """One person 4 m away who faces the camera, in the open body's rest pose; the body."""
    from ros2_pose.body.model import BodyModel
    body = BodyModel.load()
    theta = torch.tensor([0.0, 0, 0, 1]).repeat(1, 24, 1)
    theta[:, 0] = torch.tensor([1.0, 0, 0, 0])  # half a turn about x: y down, facing the camera
    betas, root = torch.zeros(1, 10), torch.tensor([[0.1, 0.2, 4.0]])
    joints = body(theta, betas, root).joints
    spread = np.tile(0.01 * np.eye(6), (1, 1, 1))
    people = People(
        np.array([[100.0, 40, 220, 230]]), np.array([0.9]), np.full((1, 17, 2), np.nan),
        np.full((1, 17, 2, 2), np.nan), np.zeros((1, 17)), joints=joints.numpy().astype(float),
        joint_cov=np.tile(0.01 * np.eye(3), (1, 24, 1, 1)), joint_source=np.ones((1, 24), int),
        theta=theta.numpy().astype(float), betas=betas.numpy().astype(float),
        root=root.numpy().astype(float), root_cov=spread, ids=("p1",),
        tracking_state=np.array([TRACKED]), age=np.array([1.0]))
    return people, body


@pytest.fixture
def graph():
    """A ROS domain of its own, with a camera's and listener's node in it."""
    from ros_helpers import Graph
    graph = Graph()
    yield graph
    graph.close()


@pytest.fixture
def start(graph):
    """Function that starts a node in the graph, around a pipeline that is made up and sees these
    people, with parameters."""
    from rclpy.parameter import Parameter
    from ros_helpers import FakePipeline

    from ros2_pose.nodes.pose_node import PoseNode
    nodes = []

    def run(people=None, remap=(), make_pipeline=FakePipeline, **parameters) -> PoseNode:
        arguments = ["--ros-args", *(word for rule in remap for word in ("-r", rule))]
        node = PoseNode(lambda config: make_pipeline(config, people), context=graph.context,
                        cli_args=arguments, use_global_arguments=False,
                        parameter_overrides=[Parameter(k, value=v) for k, v in parameters.items()])
        nodes.append(graph.add(node))
        if node.parameters.node.autostart:
            node.autostart()
        return node
    yield run
    for node in nodes:
        node.close()
