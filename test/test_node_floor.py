"""floor_frame and imu over DDS: the ground of each image, live as offline."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: run make test")
pytest.importorskip("ros2_pose.msg", reason="needs the built messages: run make test")

import cv2
from ros2_pose.msg import People
from ros_helpers import FRAME, LATCHED, PICTURE, installed_node
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import Imu
from tf2_msgs.msg import TFMessage

from ros2_pose.config import PoseConfig
from ros2_pose.geometry import Transform, TransformError
from ros2_pose.messages.image import image_message
from ros2_pose.messages.standard import header_message, quaternion_message, vector_message
from ros2_pose.node_config import NodeConfig
from ros2_pose.nodes.frame_assembly import MultiCameraAssembly
from ros2_pose.nodes.message_factory import make
from ros2_pose.nodes.subscriptions import ImageArrival
from ros2_pose.offline import rosbag_writer
from ros2_pose.offline.recording import open_recording
from ros2_pose.offline.rosbag_writer import BagWriter
from ros2_pose.skeleton import SMPL24
from ros2_pose.sync.ground import ground_from_config

_BEGIN, _MS = 100 * 10**9, 10**6
_OPTICAL = Rotation.from_matrix([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])
_IN_BASE = {"upright": 0, "left side": -90, "upside down": 180}
_STAMPS = [_BEGIN + ms * _MS for ms in (50, 83, 370, 777)]


def _head(ms: int, roll_deg: float) -> Transform:
    """A camera on a pan-tilt head, in the base."""
    turn = Rotation.from_euler("ZY", [0.06 * ms, 0.03 * ms], degrees=True)
    return Transform(turn * _OPTICAL * Rotation.from_euler("z", roll_deg, degrees=True),
                     np.array([0.1, 0, 1.2]))


def _expected(stamp: int, roll_deg: float):
    pitch_deg = 0.03 * (stamp - _BEGIN) / _MS
    return ground_from_config(PoseConfig(camera_pitch_deg=pitch_deg, camera_roll_deg=roll_deg,
                                         camera_height_m=1.2))


def _transforms(make, roll_deg: float, camera: str = FRAME) -> list[tuple[int, object]]:
    """Messages of /tf each 20 ms for a second: odom - base - camera."""
    messages = []
    for ms in range(0, 1001, 20):
        stamp = _BEGIN + ms * _MS
        base = Transform(Rotation.from_rotvec([0, 0, 0.002 * ms]), np.array([ms / 1e3, 0, 0]))
        stamped = []
        for parent, child, pose in (("odom", "base", base), ("base", camera, _head(ms, roll_deg))):
            values = make("geometry_msgs/msg/Transform",
                          translation=vector_message(make, pose.translation_m),
                          rotation=quaternion_message(make, pose.rotation.as_quat()))
            stamped.append(make("geometry_msgs/msg/TransformStamped", child_frame_id=child,
                                header=header_message(make, stamp, parent), transform=values))
        messages.append((stamp, make("tf2_msgs/msg/TFMessage", transforms=stamped)))
    return messages


def _image(make, stamp: int):
    return image_message(make, header_message(make, stamp, FRAME), PICTURE)


def _tell(graph, node, roll_deg: float) -> None:
    """Publish the second's transforms until the node knows them."""
    publisher = graph.node.create_publisher(TFMessage, "/tf", 100)
    messages = [message for _, message in _transforms(make, roll_deg)]
    header = header_message(make, _BEGIN + 1000 * _MS, FRAME)

    def knows():
        try:
            return bool(node.tf_listener._buffer.lookup_from("odom", header))
        except TransformError:
            return False
    graph.until(knows, each=lambda: [publisher.publish(m) for m in messages], pause=1.0)


def _recorded(path, roll_deg: float, settings: NodeConfig, more=lambda bag: None):
    """The frames of a bag with the same messages."""
    bag = BagWriter(path, "sqlite3")
    for stamp, message in _transforms(rosbag_writer.make, roll_deg):
        bag.put("/tf", message, stamp)
    for stamp in _STAMPS:
        bag.put("/image", _image(rosbag_writer.make, stamp), stamp + 10 * _MS)
    more(bag)
    bag.close()
    return list(open_recording(path, settings=settings))


@pytest.mark.parametrize("mounting", _IN_BASE)
@pytest.mark.parametrize("floor_frame", ["base", "odom"])
def test_each_image_has_the_floor_of_its_time_live_and_offline(graph, start, tmp_path, mounting,
                                                              floor_frame):
    roll_deg = _IN_BASE[mounting]
    node, images = start(floor_frame=floor_frame), graph.camera()
    _tell(graph, node, roll_deg)
    settings = NodeConfig(floor_frame=floor_frame)
    offline = _recorded(tmp_path / "bag", roll_deg, settings)
    for stamp, recorded in zip(_STAMPS, offline):
        answer = graph.ask(images, _image(make, stamp))
        assert (answer.status, answer.status_text) == (People.STATUS_OK, "")
        live, expected = node.pipeline.frames[-1].ground, _expected(stamp, roll_deg)
        np.testing.assert_allclose(live.up, expected.up, atol=1e-4)
        assert live.height_m == pytest.approx(1.2) and not recorded.note
        np.testing.assert_array_equal(live.up, recorded.frame.ground.up)
        assert live.height_m == recorded.frame.ground.height_m


def test_without_floor_frame_there_is_no_ground_and_nothing_is_heard(graph, start):
    node, images = start(), graph.camera()
    graph.ask(images, _image(make, _BEGIN))
    assert node.pipeline.frames[-1].ground is None
    assert graph.node.count_subscribers("/tf") == 0


def test_a_lost_floor_is_partial_and_said(graph, start, upright):
    node, images = start(upright[0], floor_frame="odom"), graph.camera()
    answer = graph.ask(images, _image(make, _BEGIN))
    assert answer.status == People.STATUS_PARTIAL and "no floor" in answer.status_text
    assert node.pipeline.frames[-1].ground is None and answer.people[0].has_body
    _tell(graph, node, 0)
    assert graph.ask(images, _image(make, _BEGIN + 1090 * _MS)).status == People.STATUS_OK
    assert node.pipeline.frames[-1].ground.height_m == pytest.approx(1.2)
    answer = graph.ask(images, _image(make, _BEGIN + 1110 * _MS))
    assert answer.status == People.STATUS_PARTIAL and "'base'" in answer.status_text
    assert node.pipeline.frames[-1].ground is None


def _imu_message(make, stamp: int, up):
    """An IMU in the base without orientation, which measures this acceleration."""
    return make("sensor_msgs/msg/Imu", header=header_message(make, stamp, "base"),
                orientation=quaternion_message(make, (0, 0, 0, 1)),
                orientation_covariance=np.array([-1.0, *[0.0] * 8]),
                angular_velocity=vector_message(make, (0, 0, 0)),
                angular_velocity_covariance=np.zeros(9),
                linear_acceleration=vector_message(make, up),
                linear_acceleration_covariance=np.zeros(9))


def test_an_imu_gives_gravity_where_there_is_no_floor_live_and_offline(graph, start, tmp_path):
    node, images = start(floor_frame="nowhere", imu="/imu/data"), graph.camera()
    _tell(graph, node, 180)
    heard = graph.node.create_publisher(Imu, "/imu/data", 100)
    graph.matched(heard)
    tilt = Rotation.from_rotvec([0.1, 0.05, 0])
    stamps = range(_BEGIN, _BEGIN + 1001 * _MS, 10 * _MS)

    def say():
        for stamp in stamps:
            heard.publish(_imu_message(make, stamp, 9.8 * tilt.apply([0, 0, 1])))
    graph.until(lambda: node.tf_listener._ground.imu._stamps[-1:] == [stamps[-1]], each=say,
                pause=1.0)
    offline = _recorded(
        tmp_path / "bag", 180, NodeConfig(floor_frame="nowhere", imu="imu/data"),
        lambda bag: [bag.put("/imu/data", _imu_message(rosbag_writer.make, stamp,
                                                       9.8 * tilt.apply([0, 0, 1])), stamp)
                     for stamp in stamps])
    for stamp, recorded in zip(_STAMPS, offline):
        answer = graph.ask(images, _image(make, stamp))
        assert "gravity by imu" in answer.status_text and "gravity by imu" in recorded.note
        live = node.pipeline.frames[-1].ground
        base_from_camera = _head((stamp - _BEGIN) // _MS, 180).rotation
        expected = base_from_camera.inv().apply(tilt.apply([0, 0, 1]))  # of the last 20 ms
        np.testing.assert_allclose(live.up, expected, atol=1e-4)
        np.testing.assert_allclose(live.up, recorded.frame.ground.up, atol=1e-12)
        assert live.height_m is None


def test_the_installed_node_with_a_camera_upside_down(graph, tmp_path, clip):
    """Real pictures and networks: by TF alone, people are found upright and above the floor."""
    picture = cv2.resize(clip[0], (272, 480), interpolation=cv2.INTER_AREA)[::-1, ::-1]
    images = graph.camera()
    static = graph.node.create_publisher(TFMessage, "/tf_static", LATCHED)
    _, message = _transforms(make, 180)[0]
    message.transforms[0].child_frame_id = "elsewhere"
    static.publish(message)
    settings = "floor_frame:=base", "target_frame:=base", "fov_deg:=40.0"
    with installed_node(graph, tmp_path, *settings):
        graph.until(lambda: images.get_subscription_count(), 90)  # it loads networks
        answer = graph.until(lambda: next((p for p in graph.people if p.status == 0 and any(
            person.tracking_state == person.TRACKED for person in p.people)), None), 60,
            lambda: images.publish(graph.image(picture)), pause=0.3)
    for person in answer.people:
        joints = np.reshape(person.joints, (24, 3))
        head, ankles = (joints[[SMPL24.index(name) for name in names]].mean(0) for names in
                        (["head"], ["left_ankle", "right_ankle"]))
        assert head[2] - ankles[2] > 0.8 and person.pose.pose.position.x > 1


def test_several_cameras_have_a_floor_each(graph, start):
    """Of which one knows no transform to the floor: it is named, and has none."""
    node = start(floor_frame="base", target_frame="odom")
    _tell(graph, node, 180)
    assembly = MultiCameraAssembly(None, ["left", "right"], node.tf_listener, "odom")
    found = {}
    for name, frame_id in (("left", FRAME), ("right", "lost"), ("again", FRAME)):
        message = image_message(make, header_message(make, _STAMPS[1], frame_id), PICTURE)
        found[name] = assembly._frame_or_reason(ImageArrival(message, None, "", 0.0))
    for name in ("left", "again"):
        frame, note = found[name]
        np.testing.assert_allclose(frame.ground.up, _expected(_STAMPS[1], 180).up, atol=1e-4)
        assert frame.ground.height_m == pytest.approx(1.2) and not note
    frame, note = found["right"]
    assert frame.ground is None and "no floor" in note and "'lost'" in note
