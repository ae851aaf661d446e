"""Frames over DDS: a camera that moves, TF that is late, missing or new, and who hears what."""

from __future__ import annotations

import os
import sys
import time
from functools import partial

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: run make test")
pytest.importorskip("ros2_pose.msg", reason="needs the built messages: run make test")

import cv2
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from ros2_pose.msg import People
from ros_helpers import (
    BEST_EFFORT,
    FRAME,
    PICTURE,
    FakePipeline,
    Graph,
    camera_info,
    installed_node,
)
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo
from tf2_msgs.msg import TFMessage

from ros2_pose.geometry import Transform, TransformError
from ros2_pose.imaging.contrast import grey_ramp
from ros2_pose.messages.image import image_message
from ros2_pose.messages.standard import header_message, quaternion_message, stamp_of, vector_message
from ros2_pose.nodes.message_factory import make, message_class
from ros2_pose.nodes.pose_node import PoseNode
from ros2_pose.people import LOST
from ros2_pose.people import People as CorePeople
from ros2_pose.skeleton import COCO17, SMPL24

_BEGIN = 100 * 10**9  # ns
_MS = 10**6
_OPTICAL = Transform(Rotation.from_matrix([[0, 0, 1], [-1, 0, 0], [0, -1, 0]]),
                     np.array([0.2, 0.0, 1.2]))  # of a camera on a robot, to its base
_VELOCITY = np.array([0.3, -0.4, 0.0])  # of the person, in the map
_STATIC = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def _base(stamp: int) -> Transform:
    """The robot's base in odom: it drives and turns."""
    seconds = (stamp - _BEGIN) * 1e-9
    return Transform(Rotation.from_euler("z", 0.8 * seconds), np.array([0.5 * seconds, 0.1, 0]))


_ODOM = Transform(Rotation.from_euler("z", 0.4), np.array([3.0, -1.0, 0.0]))  # in the map


def _camera(stamp: int) -> Transform:
    """The camera in the map."""
    return _ODOM @ _base(stamp) @ _OPTICAL


class Walker(FakePipeline):
    """Sees a person who walks through the map, from a camera that moves."""

    def __init__(self, config, people: CorePeople):
        super().__init__(config, people)  # in the map, at _BEGIN

    def step(self, frame) -> CorePeople:
        self.frames.append(frame)
        self.before(frame)
        if not len(self.people) or self.people.joints is None:
            return self.people
        way = _camera(frame.stamp).inverse()
        return _walked(self.people, frame.stamp).moved(way)


def _walked(people: CorePeople, stamp: int) -> CorePeople:
    step = _VELOCITY * (stamp - _BEGIN) * 1e-9
    return people.moved(Transform(Rotation.identity(), step))


@pytest.fixture
def person(upright) -> CorePeople:
    """Someone in the map who walks."""
    start = _camera(_BEGIN)
    velocity = np.tile(_VELOCITY, (1, 1))
    return upright[0].moved(start).with_fields(
        velocity=velocity, velocity_cov=np.tile(0.01 * np.eye(3), (1, 1, 1)),
        keypoints=np.full((1, 17, 2), 20.0), keypoint_cov=np.tile(np.eye(2), (1, 17, 1, 1)),
        keypoint_scores=np.full((1, 17), 0.8), boxes=np.array([[10.0, 10, 30, 40]]))


class Robot:
    """Publishes its tree of frames: map - odom - base - camera."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.dynamic = graph.node.create_publisher(TFMessage, "/tf", 100)
        self.static = graph.node.create_publisher(TFMessage, "/tf_static", _STATIC)
        self.static.publish(_tf((0, "base", FRAME, _OPTICAL)))

    def moves(self, node: PoseNode, *stamps: int) -> None:
        """Say where the base is at some times, until the node has heard the last of them."""
        heard = header_message(make, stamps[-1], FRAME)

        def say():
            for stamp in stamps:
                self.dynamic.publish(_tf((stamp, "map", "odom", _ODOM),
                                         (stamp, "odom", "base", _base(stamp))))

        def knows():
            try:
                return bool(node.tf_listener.lookup("map", heard))
            except TransformError:
                return False
        self.graph.until(knows, each=say, pause=0.5)


def _tf(*transforms) -> TFMessage:
    """Of (stamp, parent, child, Transform)."""
    stamped = []
    for stamp, parent, child, place in transforms:
        values = make("geometry_msgs/msg/Transform",
                      translation=vector_message(make, place.translation_m),
                      rotation=quaternion_message(make, place.rotation.as_quat()))
        stamped.append(make("geometry_msgs/msg/TransformStamped", child_frame_id=child,
                            header=header_message(make, stamp, parent), transform=values))
    return TFMessage(transforms=stamped)


def _image(stamp: int, picture=PICTURE, frame: str = FRAME):
    return image_message(make, header_message(make, stamp, frame), picture)


def _xyz(value) -> np.ndarray:
    return np.array([value.x, value.y, value.z])


@pytest.fixture
def start(start):
    """Function that starts a node that sees these people walk, with parameters."""
    return partial(start, make_pipeline=Walker)


# target_frame -----------------------------------------------------------------------------------


def test_people_stand_where_they_stand_though_the_camera_moves(graph, start, person):
    """At the image's stamp, between two transforms; later ones are known, and are not taken."""
    node, images, robot = start(person, target_frame="map"), graph.camera(), Robot(graph)
    frames = graph.listen(TFMessage, "/tf")
    robot.moves(node, *(_BEGIN + ms * _MS for ms in range(0, 1001, 50)))
    for ms in (20, 330, 605):
        stamp = _BEGIN + ms * _MS
        answer = graph.ask(images, _image(stamp))
        assert (answer.status, answer.status_text) == (People.STATUS_OK, "")
        assert answer.header.frame_id == "map" and stamp_of(answer.header) == stamp
        (found,), truth = answer.people, _walked(person, stamp)
        np.testing.assert_allclose(_xyz(found.pose.pose.position), truth.root[0], atol=1e-6)
        np.testing.assert_allclose(np.reshape(found.joints, (24, 3)), truth.joints[0], atol=1e-5)
        np.testing.assert_allclose(_xyz(found.velocity), _VELOCITY, atol=1e-6)
        assert found.keypoints[0] == 19.5  # of the image, whatever the frame

    def pelvis():
        return next((t for f in frames for t in f.transforms if t.child_frame_id == "p1"
                     and stamp_of(t.header) == _BEGIN + 605 * _MS), None)
    found = graph.until(pelvis)
    assert found.header.frame_id == "map"
    np.testing.assert_allclose(_xyz(found.transform.translation),
                               _walked(person, _BEGIN + 605 * _MS).root[0], atol=1e-6)


def test_the_cameras_pose_is_in_the_frame(graph, start, person):
    """For velocities: in fixed_frame, or in navigation_frame where none is given."""
    for number, parameters in enumerate((dict(fixed_frame="odom"), dict(navigation_frame="odom"),
                                         dict(navigation_frame="map", fixed_frame="odom"))):
        node, images, robot = start(person, **parameters), graph.camera(), Robot(graph)
        robot.moves(node, _BEGIN, _BEGIN + 100 * _MS)
        graph.people.clear()
        graph.ask(images, _image(_BEGIN + 50 * _MS))
        expected = (_base(_BEGIN + 50 * _MS) @ _OPTICAL).matrix
        found = node.pipeline.frames[-1].camera_to_fixed
        np.testing.assert_allclose(found.matrix, expected, atol=1e-9)
        node.close()
        graph.executor.remove_node(node)


def test_without_a_frame_nobody_listens(graph, start, person):
    node, images = start(person), graph.camera()
    assert graph.ask(images, _image(_BEGIN)).header.frame_id == FRAME
    assert node.pipeline.frames[-1].camera_to_fixed is None
    assert not node.get_subscriptions_info_by_topic("/tf")


# TF that is missing -----------------------------------------------------------------------------


def _seconds_to_answer(graph, images, stamps, status: int) -> list[float]:
    """From publication to answer, of images that must be answered with a status."""
    seconds = []
    for stamp in stamps:
        begin = time.monotonic()
        answer = graph.ask(images, _image(stamp))
        seconds.append(time.monotonic() - begin)
        assert answer.status == status, answer.status_text
    return seconds


def test_a_tree_that_breaks_and_heals(graph, start, person):
    """The status says which transform is missing and since when; nobody waits for it."""
    node, images, robot = start(person, target_frame="map"), graph.camera(), None
    graph.matched(images)
    unknown = graph.ask(images, _image(_BEGIN))
    assert unknown.status == People.STATUS_2D_ONLY and unknown.header.frame_id == "map"
    assert f"'{FRAME}' to 'map'" in unknown.status_text
    assert "nothing is known of 'map'" in unknown.status_text
    assert not unknown.people[0].has_body and unknown.people[0].keypoints[0] == 19.5
    assert np.isnan(unknown.people[0].pose.pose.position.x)
    assert node.statistics.problem == unknown.status_text  # and with it /diagnostics
    robot = Robot(graph)
    robot.moves(node, *(_BEGIN + ms * _MS for ms in range(0, 301, 50)))
    prior_mean = _seconds_to_answer(graph, images, (_BEGIN + ms * _MS for ms in range(10, 300, 50)),
                               People.STATUS_OK)
    broken = _seconds_to_answer(graph, images, (_BEGIN + ms * _MS for ms in range(1010, 1300, 50)),
                                People.STATUS_2D_ONLY)
    assert np.median(broken) < 3 * np.median(prior_mean) + 0.1
    assert "'base' in 'odom' is known from" in graph.people[-1].status_text
    assert "960 ms before it" in graph.people[-1].status_text
    robot.moves(node, *(_BEGIN + ms * _MS for ms in (1400, 1500)))
    healed = graph.ask(images, _image(_BEGIN + 1450 * _MS))
    assert healed.status == People.STATUS_OK and healed.people[0].has_body


def test_the_newest_transform_stands_in_for_a_moment(graph, start, person):
    """As old as tf_tolerance_s and no older; and people are where it says, not guessed ahead."""
    node, images, robot = start(person, target_frame="map"), graph.camera(), Robot(graph)
    robot.moves(node, _BEGIN, _BEGIN + 200 * _MS)
    late = graph.ask(images, _image(_BEGIN + 290 * _MS))
    assert late.status == People.STATUS_OK
    seen = _walked(person, _BEGIN + 290 * _MS)
    way = _camera(_BEGIN + 200 * _MS) @ _camera(_BEGIN + 290 * _MS).inverse()
    np.testing.assert_allclose(_xyz(late.people[0].pose.pose.position),
                               seen.moved(way).root[0], atol=1e-6)
    assert graph.ask(images, _image(_BEGIN + 310 * _MS)).status == People.STATUS_2D_ONLY
    assert node.set_parameters([Parameter("tf_tolerance_s", value=0.3)])[0].successful
    assert graph.ask(images, _image(_BEGIN + 320 * _MS)).status == People.STATUS_OK


def test_time_that_starts_again_takes_no_old_transforms(graph, start, person):
    """A recording that loops: the robot is elsewhere now, and was here an hour later."""
    node, images, robot = start(person, target_frame="map"), graph.camera(), Robot(graph)
    hour = 3600 * 10**9
    robot.moves(node, _BEGIN + hour, _BEGIN + hour + 100 * _MS)
    assert graph.ask(images, _image(_BEGIN + hour + 50 * _MS)).status == People.STATUS_OK
    robot.moves(node, _BEGIN, _BEGIN + 100 * _MS)
    answer = graph.ask(images, _image(_BEGIN + 50 * _MS))
    assert answer.status == People.STATUS_OK
    np.testing.assert_allclose(_xyz(answer.people[0].pose.pose.position),
                               _walked(person, _BEGIN + 50 * _MS).root[0], atol=1e-6)
    with pytest.raises(TransformError, match="before it"):
        node.tf_listener.lookup("map", header_message(make, _BEGIN + hour, FRAME))


def test_images_without_a_frame_are_told_so(graph, start, person):
    start(person, target_frame="map")
    answer = graph.ask(graph.camera(), _image(_BEGIN, frame=""))
    assert answer.status == People.STATUS_2D_ONLY and "header.frame_id" in answer.status_text


def test_our_own_frames_do_not_fill_the_memory(graph, start, person):
    node, images, robot = start(person, target_frame="map"), graph.camera(), Robot(graph)
    frames = graph.listen(TFMessage, "/tf")
    robot.moves(node, _BEGIN, _BEGIN + 1000 * _MS)
    for ms in range(0, 500, 100):
        graph.ask(images, _image(_BEGIN + ms * _MS))
    graph.until(lambda: sum(len(f.transforms) == 24 for f in frames) >= 5)
    robot.moves(node, _BEGIN + 1100 * _MS)  # so all that was said before has come, too
    assert len(node.tf_listener._buffer) == 3  # odom, base, camera


# /people ----------------------------------------------------------------------------------------


def test_navigation_hears_of_people_in_a_frame_that_stands_still(graph, start, person):
    """As nav2_social_costmap_plugin listens; empty when they leave, silent when nobody looked."""
    heard = graph.listen(message_class("people_msgs/msg/People"), "/people", BEST_EFFORT)
    node, images, robot = start(person, navigation_frame="map"), graph.camera(), Robot(graph)
    robot.moves(node, *(_BEGIN + ms * _MS for ms in range(0, 501, 50)))
    graph.until(lambda: graph.node.count_publishers("/people") == 1)

    def ask(image, status=People.STATUS_OK):
        heard.clear()
        answer = graph.ask(images, image)
        assert answer.status == status
        return answer
    stamp = _BEGIN + 120 * _MS
    graph.until(lambda: heard, each=lambda: images.publish(_image(stamp)), pause=0.2)
    answer = ask(_image(_BEGIN + 130 * _MS))
    assert answer.header.frame_id == FRAME  # target_frame was not asked for
    message = graph.until(lambda: next((m for m in heard if m.header.stamp == answer.header.stamp),
                                       None))
    (found,) = message.people
    assert (message.header.frame_id, found.name) == ("map", "p1")
    np.testing.assert_allclose(_xyz(found.position),
                               _walked(person, _BEGIN + 130 * _MS).root[0], atol=1e-6)
    np.testing.assert_allclose(_xyz(found.velocity), _VELOCITY, atol=1e-6)
    assert found.reliability == pytest.approx(0.9)

    broken = _image(_BEGIN + 200 * _MS)
    broken.step = 1
    ask(broken, People.STATUS_BAD_IMAGE)
    # no transform: placed in the image, not in the map; the velocity is that of no frame
    answer = ask(_image(_BEGIN + 900 * _MS), People.STATUS_PARTIAL)
    assert "no transform" in answer.status_text and answer.people[0].has_body
    assert np.isnan(answer.people[0].velocity.x)
    assert not heard
    node.pipeline.people = CorePeople.nobody()
    answer = ask(_image(_BEGIN + 950 * _MS), People.STATUS_2D_ONLY)
    graph.until(lambda: heard)
    assert [len(m.people) for m in heard] == [0] and heard[0].header.frame_id == "map"


def test_someone_out_of_sight_is_still_in_the_way(graph, start, person):
    heard = graph.listen(message_class("people_msgs/msg/People"), "/people", BEST_EFFORT)
    lost = person.with_fields(tracking_state=np.array([LOST]))
    start(lost, navigation_frame=FRAME)
    images = graph.camera()
    stamps = iter(range(_BEGIN, 2 * _BEGIN, 100 * _MS))
    graph.until(lambda: heard, each=lambda: images.publish(_image(next(stamps))), pause=0.2)
    assert dict(zip(heard[0].people[0].tagnames, heard[0].people[0].tags))["state"] == "lost"


# ROS4HRI, detections, names ---------------------------------------------------------------------


def test_ros4hri_hears_of_bodies_and_their_topics_come_and_go(graph, start, person):
    tracked = graph.listen(message_class("hri_msgs/msg/IdsList"), "/humans/bodies/tracked")
    skeletons = graph.listen(message_class("hri_msgs/msg/Skeleton2D"),
                             "/humans/bodies/p1/skeleton2d")
    regions = graph.listen(message_class("hri_msgs/msg/NormalizedRegionOfInterest2D"),
                           "/humans/bodies/p1/roi")
    frames = graph.listen(TFMessage, "/tf")
    node, images = start(person, rep155=True, tf_names="rep155"), graph.camera()
    stamps = iter(range(_BEGIN, 2 * _BEGIN, 100 * _MS))
    graph.until(lambda: tracked and skeletons and regions and frames, pause=0.3,
                each=lambda: images.publish(_image(next(stamps))))
    assert list(tracked[-1].ids) == ["p1"] and tracked[-1].header.frame_id == FRAME
    nose = skeletons[-1].skeleton[0]
    assert (nose.x, nose.y) == pytest.approx((20 / 64, 20 / 48)) and nose.c == pytest.approx(0.8)
    assert regions[-1].xmax == pytest.approx(30 / 64)
    names = {t.child_frame_id for t in frames[-1].transforms}
    assert {"body_p1", "torso_p1", "l_shoulder_p1", "r_ankle_p1"} <= names and len(names) == 16

    def topics() -> set[str]:
        return {topic for topic, _ in node.get_publisher_names_and_types_by_node("ros2_pose", "/")
                if topic.startswith("/humans/bodies/p")}
    assert len(topics()) == 2
    for number in range(2, 40):  # whoever comes and goes: no more than ten seconds' people stay
        node.pipeline.people = person.with_fields(ids=(f"p{number}",))
        graph.ask(images, _image(_BEGIN + number * 10**9 + 10**10))
        graph.until(lambda: f"/humans/bodies/p{number}/roi" in topics())
    graph.until(lambda: len(topics()) <= 2 * 11)
    node.pipeline.people = CorePeople.nobody()
    graph.ask(images, _image(3 * _BEGIN))
    graph.until(lambda: not topics() and list(tracked[-1].ids) == [])


def test_detections_are_in_the_frame_of_people(graph, start, person):
    heard = graph.listen(message_class("vision_msgs/msg/Detection3DArray"),
                         "/ros2_pose/detections")
    node, images = start(person, detections=True, target_frame="map"), graph.camera()
    Robot(graph).moves(node, _BEGIN, _BEGIN + 10**10)
    stamps = iter(range(_BEGIN, _BEGIN + 10**10, 100 * _MS))
    graph.until(lambda: heard, each=lambda: images.publish(_image(next(stamps))), pause=0.3)
    (found,) = heard[0].detections
    truth = _walked(person, stamp_of(heard[0].header))
    assert (heard[0].header.frame_id, found.id) == ("map", "p1")
    np.testing.assert_allclose(_xyz(found.results[0].pose.pose.position), truth.root[0], atol=1e-6)


def test_names_that_cannot_be_are_refused(start, person):
    node = start(person)
    for name, value, word in (("tf_joint", "{joint}", "<id>"), ("tf_person", "a b", "'a b'"),
                              ("tf_names", "mine", "rep155")):
        result = node.set_parameters([Parameter(name, value=value)])[0]
        assert not result.successful and word in result.reason
    assert node.set_parameters([Parameter("tf_person", value="person/{id}")])[0].successful
    assert node.parameters.node.frame_names.of("p1")[0] == "person/p1"


# Real processes ---------------------------------------------------------------------------------


def test_the_installed_node_with_a_tree_that_comes_late(graph, tmp_path, clip, monkeypatch):
    """Real pictures and networks: 2D and the reason, then people in the map, then none. Without
    vision_msgs, which costs the detections alone."""
    missing = tmp_path / "site" / "vision_msgs"
    missing.mkdir(parents=True)
    (missing / "__init__.py").write_text("raise ImportError('No module named vision_msgs')")
    monkeypatch.setenv("PYTHONPATH", f"{missing.parent}:{os.environ['PYTHONPATH']}")
    picture = cv2.resize(clip[0], (272, 480), interpolation=cv2.INTER_AREA)
    info, images = camera_info(272, 480), graph.camera()
    calibration = graph.node.create_publisher(CameraInfo, "/camera_info", 5)
    heard = graph.listen(message_class("people_msgs/msg/People"), "/people", BEST_EFFORT)
    settings = ("target_frame:=map", "navigation_frame:=map", "detections:=true")
    with installed_node(graph, tmp_path, *settings):
        graph.until(lambda: images.get_subscription_count(), 90)  # it loads networks
        graph.matched(calibration)
        graph.until(lambda: any("nothing is known of 'map'" in p.status_text and len(p.people) >= 2
                                and p.status == p.STATUS_2D_ONLY for p in graph.people), 60,
                    lambda: (calibration.publish(info), images.publish(graph.image(picture))), 0.3)
        assert not heard
        Robot(graph).static.publish(_tf((0, "map", FRAME, _OPTICAL)))
        solid = graph.until(lambda: next((p for p in graph.people if p.status == 0 and any(
            person.tracking_state == person.TRACKED for person in p.people)), None), 60,
            lambda: images.publish(graph.image(picture)), pause=0.3)
        assert solid.header.frame_id == "map"
        for person in solid.people:
            assert _pixels_off(person, info) < 0.1 * (person.box[3] - person.box[1])
        graph.until(lambda: any(m.people for m in heard))
        later = image_message(make, header_message(make, 10**12, FRAME),
                              grey_ramp(*picture.shape[1::-1]))
        assert not graph.ask(images, later).people
        graph.until(lambda: not heard[-1].people)


def _pixels_off(person, info) -> float:
    """Median distance of the joints, taken back from the map into the image, to the keypoints."""
    back = _OPTICAL.inverse()
    joints = back.rotation.apply(np.reshape(person.joints, (24, 3))) + back.translation_m
    pixels = joints @ np.reshape(info.k, (3, 3)).T
    pixels = pixels[:, :2] / pixels[:, 2:]
    names = [n for n in COCO17.names if n in SMPL24.names]
    found = np.reshape(person.keypoints, (17, 2))
    return float(np.median([np.linalg.norm(pixels[SMPL24.index(n)] - found[COCO17.index(n)])
                            for n in names]))


@pytest.mark.parametrize("package, parameter", [
    ("people_msgs", {"navigation_frame": FRAME}), ("hri_msgs", {"rep155": True}),
    ("vision_msgs", {"detections": True})])
def test_a_missing_package_costs_its_own_output_alone(graph, start, person, monkeypatch, caplog,
                                                      package, parameter):
    monkeypatch.setitem(sys.modules, f"{package}.msg", None)
    message_class.cache_clear()
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    start(person, **parameter)
    warnings = [r.message for r in caplog.records if r.levelname == "WARNING"]
    assert len(warnings) == 1 and f"ros-jazzy-{package.replace('_', '-')}" in warnings[0]
    assert graph.ask(graph.camera(), _image(_BEGIN)).people[0].has_body
