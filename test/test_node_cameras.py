"""A depth topic, and several cameras in one node."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: run make test")
pytest.importorskip("ros2_pose.msg", reason="needs the built messages: run make test")

from geometry_msgs.msg import TransformStamped
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ros2_pose.msg import People, Person
from ros_helpers import PICTURE, RELIABLE, camera_info, installed_node
from sensor_msgs.msg import CameraInfo, Image
from tf2_msgs.msg import TFMessage

from ros2_pose.config import ConfigError
from ros2_pose.imaging.contrast import grey_ramp
from ros2_pose.messages.image import image_message
from ros2_pose.messages.standard import header_message
from ros2_pose.nodes.message_factory import make
from ros2_pose.people import People as CorePeople

MS = 1_000_000


def colour(stamp: int):
    return image_message(make, header_message(make, stamp, "camera"), PICTURE)


def depth(stamp: int, metres: float, encoding: str = "32FC1"):
    values = np.full((48, 64), metres, np.float32)
    if encoding == "16UC1":
        values = (1000 * values).astype(np.uint16)
    return make("sensor_msgs/msg/Image", header=header_message(make, stamp, "camera"),
                height=48, width=64, encoding=encoding, is_bigendian=0, step=64 * values.itemsize,
                data=values.reshape(-1).view(np.uint8))


# Depth ------------------------------------------------------------------------------------------


class Rgbd:
    """A colour and a depth topic at 30 Hz, and the frames that a node made of them."""

    def __init__(self, graph, start, **parameters):
        self.graph = graph
        self.node = start(depth=True, **parameters)
        self.images = graph.camera()
        self.depths = graph.camera(topic="/depth")
        camera = self.node.camera_subscriptions[0]  # recreated as offers arrive
        graph.until(lambda: all(heard.policy == ReliabilityPolicy.RELIABLE
                                for heard in (camera.image, camera.depth)))
        graph.matched(self.images)
        graph.matched(self.depths)

    @property
    def frames(self):
        return self.node.pipeline.frames

    def heard(self, count: int) -> None:
        """Wait until so many frames were looked at."""
        self.graph.until(lambda: len(self.frames) >= count)

    def say(self, publisher, message) -> None:
        """Publish, and let it be heard."""
        publisher.publish(message)
        for _ in range(20):
            self.graph.executor.spin_once(timeout_sec=0.005)


@pytest.mark.parametrize("encoding", ["32FC1", "16UC1"])
def test_depth_that_comes_after_its_image_is_waited_for(graph, start, encoding):
    rgbd = Rgbd(graph, start)
    for number in range(1, 5):
        rgbd.say(rgbd.depths, depth(number * 33 * MS, 9.0, encoding))  # the period is learned
    for number in range(5, 8):
        rgbd.say(rgbd.images, colour(number * 33 * MS))
        rgbd.say(rgbd.depths, depth((number * 33 + 4) * MS, number, encoding))
        rgbd.heard(number - 4)
        np.testing.assert_allclose(rgbd.frames[-1].depth, number)
        assert rgbd.frames[-1].stamp == number * 33 * MS


def test_an_image_whose_depth_does_not_come_is_looked_at_without(graph, start):
    rgbd = Rgbd(graph, start)
    for number in range(1, 5):
        rgbd.say(rgbd.depths, depth(number * 33 * MS, 9.0))
    for number in range(10, 13):
        rgbd.say(rgbd.images, colour(number * 33 * MS))
    rgbd.heard(2)
    assert all(frame.depth is None for frame in rgbd.frames)


def test_depth_that_is_several_images_late_is_waited_for_or_missed(graph, start):
    """Depth of image n comes after image n + 3."""
    for wait_s in (0.0, 5.0):
        rgbd = Rgbd(graph, start, depth_wait_s=wait_s)
        for number in range(1, 20):
            if number > 8:
                rgbd.say(rgbd.images, colour(number * 33 * MS))
            rgbd.say(rgbd.depths, depth((number - 3) * 33 * MS, number - 3))
        rgbd.heard(5)
        stamps = [frame.stamp // (33 * MS) for frame in rgbd.frames]
        assert stamps == sorted(stamps)
        if wait_s:
            for stamp, frame in zip(stamps, rgbd.frames):
                np.testing.assert_allclose(frame.depth, stamp)
        else:
            graph.until(lambda: "raise depth_wait_s" in graph.people[-1].status_text)
            assert all(frame.depth is None for frame in rgbd.frames)
        rgbd.node.close()
        graph.executor.remove_node(rgbd.node)


@pytest.mark.parametrize("published", [True, False])
def test_first_images_wait_for_a_calibration_that_somebody_publishes(graph, start, published):
    node, images = start(), graph.camera()
    infos = graph.node.create_publisher(CameraInfo, "/camera_info", 5)
    graph.matched(images)
    graph.matched(infos)
    graph.until(lambda: node.camera_subscriptions[0].info.offers())
    for number in range(3):
        images.publish(colour((number + 1) * 33 * MS))
        graph.until(lambda: node.camera_subscriptions[0]._window.images > number)
    if published:
        assert not node.pipeline.frames
        infos.publish(camera_info(64, 48))
    graph.until(lambda: node.pipeline.frames, 5)
    assert (node.pipeline.frames[0].camera is not None) == published
    graph.until(lambda: node.statistics.received == 3)  # all are counted


def test_without_any_depth_images_are_not_held_back_and_the_reason_is_told(graph, start):
    rgbd = Rgbd(graph, start)
    answer = graph.ask(rgbd.images, graph.image(PICTURE))
    assert answer.status == People.STATUS_2D_ONLY and rgbd.frames[0].depth is None
    assert "no depth image on /depth" in answer.status_text
    graph.until(lambda: "no depth image on /depth" in rgbd.node.camera_subscriptions[0].problem, 30,
                lambda: rgbd.images.publish(graph.image(PICTURE)), pause=0.2)


def test_depth_of_another_encoding_costs_the_depth_alone(graph, start):
    rgbd = Rgbd(graph, start)
    rgbd.node.pipeline.people = CorePeople.nobody().with_fields(root=np.zeros((0, 3)))
    bad = depth(33 * MS, 1.0)
    bad.encoding = "rgb8"
    rgbd.say(rgbd.depths, bad)
    rgbd.say(rgbd.images, colour(33 * MS))
    answer = graph.until(lambda: graph.people and graph.people[-1])
    assert answer.status == People.STATUS_PARTIAL and "depth: " in answer.status_text
    assert rgbd.frames[0].depth is None


# Several cameras --------------------------------------------------------------------------------


class Rig:
    """Cameras of one picture each, calibrated, with static transforms into world."""

    def __init__(self, graph, names, picture):
        self.graph, self.names, self.picture = graph, names, picture
        self.images = {n: graph.camera(topic=f"/{n}/image") for n in names}
        self.infos = {n: graph.node.create_publisher(CameraInfo, f"/{n}/camera_info", RELIABLE)
                      for n in names}
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.tf = graph.node.create_publisher(TFMessage, "/tf_static", latched)
        self.tf.publish(TFMessage(transforms=[self._pose(n) for n in names]))

    def _pose(self, name):
        """A level camera 1.5 m above the ground that looks along x."""
        pose = TransformStamped(child_frame_id=f"{name}_optical")
        pose.header.frame_id = "world"
        pose.transform.translation.z = 1.5
        q = pose.transform.rotation
        q.x, q.y, q.z, q.w = -0.5, 0.5, -0.5, 0.5
        return pose

    def shoot(self, names=None) -> None:
        """An image of each, of one time."""
        stamp = self.graph.header().stamp
        height, width = self.picture.shape[:2]
        for name in names or self.names:
            image = self.graph.image(self.picture)
            image.header.stamp, image.header.frame_id = stamp, f"{name}_optical"
            self.infos[name].publish(camera_info(width, height))
            self.images[name].publish(image)

    def until(self, condition, names=None):
        return self.graph.until(lambda: next(filter(condition, self.graph.people[::-1]), None), 60,
                                lambda: self.shoot(names), pause=0.5)


def test_two_cameras_in_one_place_see_everybody_once(graph, clip, tmp_path):
    """In the common frame, upright and ahead; one that stops is reported and the other goes on."""
    picture = cv2.resize(clip[0], (272, 480), interpolation=cv2.INTER_AREA)
    rig = Rig(graph, ["left", "right"], picture)
    overlay = graph.listen(Image, "/ros2_pose/left/overlay")
    with installed_node(graph, tmp_path, "cameras:=left right", "target_frame:=world",
                        "silence_s:=1.0"):
        both = rig.until(lambda p: p.status == 0 and not p.status_text and sum(
            q.tracking_state == Person.TRACKED and q.has_body for q in p.people) >= 2)
        assert both.header.frame_id == "world" and len(both.people) <= 3
        for person in both.people:
            position = person.pose.pose.position
            assert 0.5 < position.x < 30 and -1 < position.z < 3  # the real camera was tilted
        assert overlay and overlay[-1].header.frame_id == "left_optical"
        graph.people.clear()
        alone = rig.until(lambda p: "right" in p.status_text and p.people, ["left"])
        assert alone.status == People.STATUS_PARTIAL and len(alone.people) <= 3
        assert {p.id for p in both.people} <= {p.id for p in alone.people}
        again = rig.until(lambda p: not p.status_text and p.people)
        assert again.status == 0


def test_a_camera_without_a_place_is_left_out_and_named(graph, tmp_path):
    rig = Rig(graph, ["left", "right"], grey_ramp(160, 120))
    rig.tf.publish(TFMessage(transforms=[rig._pose("left")]))
    with installed_node(graph, tmp_path, "cameras:=left right", "target_frame:=world"):
        said = rig.until(lambda p: "camera 2" in p.status_text)
        assert "pose is not known" in said.status_text
        assert said.status == People.STATUS_PARTIAL and not said.people


def test_several_cameras_need_a_common_frame(start):
    with pytest.raises(ConfigError, match="target_frame"):
        start(cameras="left right")
    with pytest.raises(ConfigError, match="names one twice"):
        start(cameras="left left", target_frame="world")
