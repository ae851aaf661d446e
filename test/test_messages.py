"""Messages say what People says, in rclpy's classes and in those of rosbags alike."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from scipy.spatial.transform import Rotation

from ros2_pose import messages
from ros2_pose.camera import CameraError
from ros2_pose.markers import marker_array
from ros2_pose.messages import Look
from ros2_pose.people import LOST, TENTATIVE, People
from ros2_pose.skeleton import SMPL24

MSG = Path(__file__).parents[1] / "msg"


def _rosbags_make():
    store = get_typestore(Stores.ROS2_JAZZY)
    for name in ("Person", "People", "SkeletonInfo"):
        text = (MSG / f"{name}.msg").read_text()
        store.register(get_types_from_msg(text, f"ros2_pose/msg/{name}"))

    def make(type_name, **fields):
        message = store.types[type_name](**fields)
        store.serialize_cdr(message, type_name)  # refuses values of the wrong kind
        return message
    return make


def _rclpy_make():
    pytest.importorskip("rclpy", reason="needs ROS 2: run make test")
    from ros2_pose.nodes import convert
    return convert.make


@pytest.fixture(params=[_rosbags_make, _rclpy_make], ids=["rosbags", "rclpy"], scope="module")
def make(request, monkeypatch_module):
    monkeypatch_module.setenv("ROS_PYTHON_CHECK_FIELDS", "1")
    return request.param()


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture
def header(make):
    return messages.header(make, 1_234_567_890_123_456_789, "camera")


def _same(a: People, b: People) -> None:
    for name, value in vars(a).items():
        other = getattr(b, name)
        if isinstance(value, np.ndarray):
            np.testing.assert_allclose(other, value, rtol=1e-5, atol=1e-4, err_msg=name)
        else:
            assert other == value, name


def test_people_come_back(make, header, some_people):
    message = messages.people_message(make, header, some_people, Look(640, 480))
    _same(some_people, messages.people_from_message(message))


def test_nobody_comes_back(make, header):
    message = messages.people_message(make, header, People.nobody(), Look(640, 480, received=3))
    assert list(message.people) == [] and message.status == messages.STATUS_OK
    assert (message.image_width, message.frames_received) == (640, 3)
    assert len(messages.people_from_message(message)) == 0


def test_people_without_bodies_have_nan_never_zero(make, header, some_people):
    flat = some_people.with_fields(**dict.fromkeys(
        ("joints", "joint_cov", "joint_source", "theta", "betas", "root", "root_cov", "velocity",
         "velocity_cov")), note="no calibration")
    message = messages.people_message(make, header, flat, Look(640, 480, 1, flat.note))
    person = message.people[0]
    assert not person.has_body and len(person.joints) == len(person.theta) == 0
    assert np.isnan(person.pose.pose.position.x) and np.isnan(person.pose.pose.orientation.w)
    assert np.isnan(person.velocity.x) and np.isnan(person.pose.covariance).all()
    _same(flat, messages.people_from_message(message))


def test_one_body_of_three(make, header, some_people):
    theta = some_people.theta.copy()
    theta[1] = np.nan
    message = messages.people_message(make, header, some_people.with_fields(theta=theta),
                                      Look(640, 480))
    assert [p.has_body for p in message.people] == [True, False, True]
    back = messages.people_from_message(message)
    assert np.isnan(back.joints[1]).all() and np.isfinite(back.joints[[0, 2]]).all()


def test_first_pixel_centre_is_zero_in_messages(make, header, some_people):
    keypoints = np.full_like(some_people.keypoints, 0.5)
    message = messages.people_message(make, header, some_people.with_fields(keypoints=keypoints),
                                      Look(640, 480))
    assert np.all(np.asarray(message.people[0].keypoints) == 0)


def test_body_pose_is_x_forward_y_left_z_up(make, header, some_people):
    """Someone upright who faces the camera: forward is -z, left is +x, up is -y of the camera."""
    facing = Rotation.from_matrix(np.diag([1.0, -1.0, -1.0])).as_quat()
    theta = some_people.theta.copy()
    theta[:, 0] = facing
    message = messages.people_message(make, header, some_people.with_fields(theta=theta),
                                      Look(640, 480))
    q = message.people[0].pose.pose.orientation
    axes = Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix()
    np.testing.assert_allclose(axes.T, [[0, 0, -1], [1, 0, 0], [0, -1, 0]], atol=1e-6)


def test_body_pose_agrees_with_tf_transformations(make, header, some_people):
    tft = pytest.importorskip("tf_transformations", reason="part of a ROS installation")
    message = messages.people_message(make, header, some_people, Look(640, 480))
    axes = np.eye(4)
    axes[:3, :3] = [[0, 1, 0], [0, 0, 1], [1, 0, 0]]
    expected = tft.quaternion_multiply(some_people.theta[0, 0], tft.quaternion_from_matrix(axes))
    q = message.people[0].pose.pose.orientation
    assert abs(np.dot(expected, [q.x, q.y, q.z, q.w])) == pytest.approx(1, abs=1e-6)


def test_tf_frames_chain_to_the_joints(make, header, some_people):
    message = messages.tf_message(make, header, some_people)
    assert len(message.transforms) == 3 * 24
    places, turns = {"camera": np.zeros(3)}, {"camera": Rotation.identity()}
    for t in message.transforms:
        above, v, q = t.header.frame_id, t.transform.translation, t.transform.rotation
        places[t.child_frame_id] = places[above] + turns[above].apply([v.x, v.y, v.z])
        turns[t.child_frame_id] = turns[above] * Rotation.from_quat([q.x, q.y, q.z, q.w])
    for i, person in enumerate(some_people.ids):
        for joint, name in list(enumerate(SMPL24.names))[1:]:
            np.testing.assert_allclose(places[f"{person}_{name}"], some_people.joints[i, joint],
                                       atol=1e-9)
    assert all(t.header.stamp == header.stamp for t in message.transforms)


def test_tf_frames_only_of_people_in_sight(make, header, some_people):
    states = np.array([LOST, TENTATIVE, 1])
    message = messages.tf_message(make, header, some_people.with_fields(tracking_state=states))
    assert {t.child_frame_id.split("_")[0] for t in message.transforms} == {"p3"}


def test_markers_are_deleted_once_and_only_when_gone(make, header, some_people):
    first, shown = marker_array(make, header, some_people, set(), 0.5)
    assert shown == {"p1", "p2", "p3"} and {m.action for m in first.markers} == {0}
    second, shown = marker_array(make, header, some_people[[0]], shown, 0.5)
    assert {m.ns for m in second.markers if m.action == 2} == {"p2", "p3"}
    third, _ = marker_array(make, header, some_people[[0]], shown, 0.5)
    assert {m.action for m in third.markers} == {0}
    assert {(m.ns, m.id) for m in third.markers} == {("p1", 0), ("p1", 1), ("p1", 2)}


def test_markers_tell_left_from_right(make, header, some_people):
    joints = marker_array(make, header, some_people[[0]], set(), 0.5)[0].markers[1]
    left, right = (joints.colors[SMPL24.index(f"{side}_knee")] for side in ("left", "right"))
    assert left.r > left.b and right.b > right.r
    assert len(joints.points) == len(joints.colors) == 24
    assert joints.lifetime.nanosec == 500_000_000


def test_body_surface_stands_where_the_person_stands(make, header, upright):
    people, body = upright
    markers, _ = marker_array(make, header, people, set(), 0.5, body)
    surface = markers.markers[-1]
    assert surface.type == 11 and len(surface.points) == 3 * len(body.coarse_faces)
    places = np.array([[p.x, p.y, p.z] for p in surface.points])
    assert (np.abs(places - people.root[0]) < 1.1).all()  # arms' length, m
    assert np.ptp(places[:, 1]) > 1.5 and 0 < surface.color.a < 1
    _, shown = marker_array(make, header, people, set(), 0.5, body)
    gone = marker_array(make, header, people[:0], shown, 0.5, body)[0].markers
    assert {m.id for m in gone} == {0, 1, 2, 3} and {m.action for m in gone} == {2}


def test_skeleton_info_names_everything(make, header):
    info = messages.skeleton_info(make, header, "movenet", "open_body")
    assert (len(info.keypoint_names), len(info.joint_names)) == (17, 24)
    assert info.joint_parents[0] == -1 and max(info.keypoint_edges) < 17


def _info(**changes):
    roi = SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0, do_rectify=False)
    k, p = np.diag([500.0, 510.0, 1]), np.zeros((3, 4))
    k[:2, 2], p[:2, :2], p[:2, 2] = (320, 240), np.diag([450.0, 460]), (330, 250)
    values = dict(width=640, height=480, distortion_model="plumb_bob", d=[0.1, 0, 0, 0, 0],
                  k=k.ravel(), p=p.ravel(), binning_x=0, binning_y=0, roi=roi)
    return SimpleNamespace(**values | changes)


def test_camera_of_raw_and_of_rectified_images():
    raw, rectified = (messages.camera_from_info(_info(), r) for r in (False, True))
    assert (raw.fx, raw.cx, raw.distortion) == (500, 320.5, (0.1, 0, 0, 0, 0))
    assert (rectified.fx, rectified.cx, rectified.distortion) == (450, 330.5, ())


def test_camera_of_a_binned_region():
    """A ray through the region keeps its direction; the pixel moves by crop and bin."""
    full = messages.camera_from_info(_info(d=[]))
    roi = SimpleNamespace(x_offset=100, y_offset=40, width=400, height=300, do_rectify=False)
    part = messages.camera_from_info(_info(d=[], roi=roi, binning_x=2, binning_y=2))
    assert (part.width, part.height) == (200, 150)
    seen = np.array([0.3, -0.2, 4.0])
    np.testing.assert_allclose(part.project(seen), (full.project(seen) - (100, 40)) / 2)


@pytest.mark.parametrize("changes, word", [
    (dict(k=np.zeros(9)), "fx=0"), (dict(k=np.full(9, np.nan)), "not finite"),
    (dict(distortion_model="fov"), "'fov'"), (dict(width=0), "0x480"),
    (dict(distortion_model="equidistant"), "4 distortion coefficients")])
def test_unusable_calibrations_say_why(changes, word):
    with pytest.raises(CameraError, match=word):
        messages.camera_from_info(_info(**changes))


def test_a_changed_number_is_a_new_calibration():
    k = _info().k.copy()
    k[0] += 1
    assert messages.calibration_key(_info()) == messages.calibration_key(_info())
    assert messages.calibration_key(_info()) != messages.calibration_key(_info(k=k))
