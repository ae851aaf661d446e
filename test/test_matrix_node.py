"""The matrix of test_matrix.py once more through the node, over DDS, with transforms.

Crossed: people x lens x depth x mounting x rate x transform to target_frame (there, too old,
missing); every two values meet. The network is made up, all else is real.
"""

from __future__ import annotations

import itertools
import os
from functools import partial

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: run make test")
pytest.importorskip("ros2_pose.msg", reason="needs the built messages: run make test")

from ros2_pose.msg import People, Person
from ros_helpers import FRAME, LATCHED
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo
from test_matrix import (
    DEPTHS,
    HEIGHT,
    LENSES,
    LOST_S,
    MOUNTINGS,
    WIDTH,
    Case,
    K,
    MadeUpNetwork,
    _depth,
    _film,
    _picture,
    _roots,
    _scene,
    _taken_from_upright,
    every_pair,
)
from tf2_msgs.msg import TFMessage

from ros2_pose.geometry import Transform
from ros2_pose.messages.standard import header_message, quaternion_message, vector_message
from ros2_pose.nodes.message_factory import make
from ros2_pose.pipeline import Pipeline

MAP_FROM_CAMERA = Transform(Rotation.from_euler("xyz", (-100, 3, 40), degrees=True),
                            np.array([3.0, -2.0, 1.5]))
TRANSFORMS = ("there", "too old", "missing")
ALL = [(Case(*values[:5]), values[5]) for values in itertools.product(
    (0, 2, 30), LENSES, DEPTHS, MOUNTINGS, (0.5, 3.0, 30.0), TRANSFORMS)]
FEW = every_pair(ALL, np.random.default_rng(1), lambda case: (*vars(case[0]).values(), case[1]))
CASES = FEW if os.environ.get("ROS2_POSE_MATRIX") else FEW[:10]
_BEGIN = 10**11


@pytest.fixture(scope="module")
def pipeline():
    return Pipeline()


class MultiviewResult:
    """A node, its camera and the transforms of a case; asks and waits for answers."""

    def __init__(self, graph, start, pipeline, case: Case, transform: str):
        self.graph, self.case = graph, case
        pipeline.reset()
        pipeline.network = self.network = MadeUpNetwork(case, pipeline.body)

        def made(config, people):
            pipeline.configure(config)
            return pipeline
        self.node = start(make_pipeline=made, depth=case.depth, target_frame="map", lost_s=LOST_S,
                          camera_roll_deg=MOUNTINGS[case.mounting][0], max_people=40, fov_deg=0.0)
        self.images = graph.camera()
        infos = graph.node.create_publisher(CameraInfo, "/camera_info", 5)
        self.depths = graph.camera(topic="/depth") if case.depth else None
        frames = graph.node.create_publisher(TFMessage, "/tf_static", LATCHED) \
            if transform == "there" else graph.node.create_publisher(TFMessage, "/tf", 100)
        camera = self.node.camera_subscriptions[0]
        for publisher in filter(None, (self.images, infos, self.depths)):
            graph.matched(publisher)
        graph.until(lambda: camera.image.policy.name == "RELIABLE")
        graph.until(lambda: camera.camera, each=lambda: infos.publish(self._info()), pause=0.2)
        if transform != "missing":
            graph.until(lambda: len(self.node.tf_listener._buffer), pause=0.2,
                        each=lambda: frames.publish(self._transform()))
        self.picture = np.ascontiguousarray(_picture(case)[..., 0])
        self.depth = None
        if case.depth:
            self.depth = (1000 * _depth(case.people, case.lens, case.mounting, pipeline.body)
                          ).round().astype(np.uint16)

    def _info(self) -> CameraInfo:
        coefficients, fisheye = LENSES[self.case.lens]
        model = "equidistant" if fisheye else {0: "plumb_bob", 5: "plumb_bob"}.get(
            len(coefficients), "rational_polynomial")
        info = CameraInfo(width=WIDTH, height=HEIGHT, distortion_model=model, k=K.ravel(),
                          d=np.array(coefficients, float))
        info.header.frame_id = FRAME
        return info

    @staticmethod
    def _transform() -> TFMessage:
        values = make("geometry_msgs/msg/Transform",
                      translation=vector_message(make, MAP_FROM_CAMERA.translation_m),
                      rotation=quaternion_message(make, MAP_FROM_CAMERA.rotation.as_quat()))
        return TFMessage(transforms=[make(
            "geometry_msgs/msg/TransformStamped", transform=values, child_frame_id=FRAME,
            header=header_message(make, _BEGIN - 5 * 10**9, "map"))])

    def ask(self, stamp: int) -> People:
        header = header_message(make, stamp, FRAME)
        image = partial(make, "sensor_msgs/msg/Image", header=header, height=HEIGHT, width=WIDTH,
                        is_bigendian=0)
        if self.depth is not None:
            self.depths.publish(image(encoding="16UC1", step=2 * WIDTH,
                                      data=self.depth.view(np.uint8).reshape(-1)))
            self.graph.until(lambda: self.node.camera_subscriptions[0].depth._newest_ns == stamp)
        return self.graph.ask(self.images, image(encoding="mono8", step=WIDTH,
                                                 data=self.picture.reshape(-1)))


@pytest.mark.parametrize("case, transform", CASES, ids=lambda value: str(value))
def test_the_same_people_come_out_of_the_node(graph, start, pipeline, case, transform):
    scene, stamp = MultiviewResult(graph, start, pipeline, case, transform), _BEGIN
    away = int(np.ceil(max(LOST_S, 2.5 / case.rate) * case.rate)) + 2
    ids = {}
    for phase, images in (("present", 4), ("gone", away), ("back", 4)):
        scene.network.present = phase != "gone"
        for number in range(images):
            answer = scene.ask(stamp)
            stamp += round(1e9 / case.rate)
            _check(answer, case, transform, phase, number == images - 1)
        ids[phase] = {person.id for person in answer.people}
    assert ids["present"] == ids["back"] and not ids["gone"]
    if transform != "there" or not case.people:
        return
    film = _film(case, pipeline)  # the same by the pipeline alone, in the camera's frame
    expected = MAP_FROM_CAMERA.rotation.apply(_taken_from_upright(case).apply(
        _roots(case, film))) + MAP_FROM_CAMERA.translation_m
    found = np.array([[p.pose.pose.position.x, p.pose.pose.position.y, p.pose.pose.position.z]
                      for p in answer.people])
    apart = np.linalg.norm(found[:, None] - expected, axis=2)
    assert sorted(apart.argmin(1)) == list(range(case.people)) and apart.min(1).max() < 0.15
    assert _scene(case.people).root.shape == expected.shape


def _check(answer: People, case: Case, transform: str, phase: str, last: bool) -> None:
    expected = People.STATUS_OK if transform == "there" else People.STATUS_2D_ONLY
    assert answer.status == expected, answer.status_text
    assert (answer.status_text == "") == (transform == "there")
    assert answer.header.frame_id == "map"
    seen = [p for p in answer.people if p.tracking_state != Person.LOST]
    assert len(seen) == (0 if phase == "gone" else case.people)
    if last:
        assert all(p.tracking_state == Person.TRACKED for p in answer.people)
        assert len(answer.people) == len(seen)
    for person in answer.people:
        assert person.has_body == (transform == "there")
        pose = person.pose.pose
        numbers = [*person.box, *person.joints, *person.theta, *person.betas,
                   pose.position.x, pose.orientation.w]
        assert np.isfinite(numbers).all() == (transform == "there")
        assert np.isfinite(person.box).all()
    for person in seen:
        assert np.isfinite(person.keypoints).all()
