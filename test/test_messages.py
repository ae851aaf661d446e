"""Messages say what People says, in rclpy's classes and in those of rosbags alike."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from scipy.spatial.transform import Rotation

from ros2_pose import messages
from ros2_pose import people as people_module
from ros2_pose.camera import CameraError
from ros2_pose.config import ConfigError
from ros2_pose.geometry import Transform
from ros2_pose.messages import (
    FrameReport,
    camera_from_info,
    external,
    header_message,
    people_from_message,
)
from ros2_pose.messages.camera_info import calibration_key, warning_of_offset
from ros2_pose.messages.markers import marker_array
from ros2_pose.messages.people import (
    BODY_IN_SMPL,
    STATUS_OK,
    people_message,
    skeleton_info_message,
)
from ros2_pose.messages.tf import REP155, FrameNames, tf_message
from ros2_pose.people import LOST, TENTATIVE, TRACKED, People
from ros2_pose.skeleton import COCO17, SMPL24

ROOT = Path(__file__).parents[1]


def _rosbags_make():
    store = get_typestore(Stores.ROS2_JAZZY)
    types = {}
    for path in [*ROOT.glob("msg/*.msg"), *ROOT.glob("ros_compat/*/msg/*.msg")]:
        package = "ros2_pose" if path.parents[1] == ROOT else path.parents[1].name
        types |= get_types_from_msg(path.read_text(), f"{package}/msg/{path.stem}")
    store.register({name: kind for name, kind in types.items() if name not in store.types})

    def make(type_name, **fields):
        message = store.types[type_name](**fields)
        store.serialize_cdr(message, type_name)  # refuses values of the wrong kind
        return message
    return make


def _rclpy_make():
    pytest.importorskip("rclpy", reason="needs ROS 2: run make test")
    from ros2_pose.nodes import message_factory
    return message_factory.make


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
    return header_message(make, 1_234_567_890_123_456_789, "camera")


def _constants(message: str) -> dict[str, int]:
    """The constants that a .msg file of the package defines."""
    text = (ROOT / "msg" / f"{message}.msg").read_text()
    return {name: int(value) for name, value in re.findall(r"^\w+ ([A-Z0-9_]+)=(\d+)", text, re.M)}


def test_status_constants_are_those_of_the_message():
    ours = {name: value for name, value in vars(messages).items()
            if name.startswith("STATUS_") and name != "STATUS_NAMES"}
    assert ours == _constants("People")
    assert {value: name.removeprefix("STATUS_").lower()
                                     for name, value in ours.items()} == messages.STATUS_NAMES


def test_constants_of_people_are_those_of_the_message():
    counts = {"KEYPOINT_COUNT": len(COCO17), "JOINT_COUNT": len(SMPL24)}
    named = {name: getattr(people_module, name) for name in
             ("TENTATIVE", "TRACKED", "LOST", "INFERRED", "OBSERVED", "DEPTH")}
    assert counts | named == _constants("Person")


def test_the_package_exports_its_names_without_torch():
    code = ("import sys; from ros2_pose.messages import *; print(people_from_message.__name__, "
            "'torch' in sys.modules)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["people_from_message", "False"]


def _same(a: People, b: People) -> None:
    for name, value in vars(a).items():
        other = getattr(b, name)
        if isinstance(value, np.ndarray):
            np.testing.assert_allclose(other, value, rtol=1e-5, atol=1e-4, err_msg=name)
        else:
            assert other == value, name


def test_people_come_back(make, header, some_people):
    message = people_message(make, header, some_people, FrameReport(640, 480))
    _same(some_people, people_from_message(message))


def test_nobody_comes_back(make, header):
    message = people_message(make, header, People.nobody(), FrameReport(640, 480, received=3))
    assert list(message.people) == [] and message.status == STATUS_OK
    assert (message.image_width, message.frames_received) == (640, 3)
    assert len(people_from_message(message)) == 0


def test_people_without_bodies_have_nan_never_zero(make, header, some_people):
    flat = some_people.without_bodies("no calibration")
    message = people_message(make, header, flat, FrameReport(640, 480, 1, flat.note))
    person = message.people[0]
    assert not person.has_body and len(person.joints) == len(person.theta) == 0
    assert np.isnan(person.pose.pose.position.x) and np.isnan(person.pose.pose.orientation.w)
    assert np.isnan(person.velocity.x) and np.isnan(person.pose.covariance).all()
    _same(flat, people_from_message(message))


def test_one_body_of_three(make, header, some_people):
    theta = some_people.theta.copy()
    theta[1] = np.nan
    message = people_message(make, header, some_people.with_fields(theta=theta),
                                      FrameReport(640, 480))
    assert [p.has_body for p in message.people] == [True, False, True]
    back = people_from_message(message)
    assert np.isnan(back.joints[1]).all() and np.isfinite(back.joints[[0, 2]]).all()


def test_first_pixel_centre_is_zero_in_messages(make, header, some_people):
    keypoints = np.full_like(some_people.keypoints, 0.5)
    message = people_message(make, header, some_people.with_fields(keypoints=keypoints),
                                      FrameReport(640, 480))
    assert np.all(np.asarray(message.people[0].keypoints) == 0)


def test_body_pose_is_x_forward_y_left_z_up(make, header, some_people):
    """Someone upright who faces the camera: forward is -z, left is +x, up is -y of the camera."""
    facing = Rotation.from_matrix(np.diag([1.0, -1.0, -1.0])).as_quat()
    theta = some_people.theta.copy()
    theta[:, 0] = facing
    message = people_message(make, header, some_people.with_fields(theta=theta),
                                      FrameReport(640, 480))
    q = message.people[0].pose.pose.orientation
    axes = Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix()
    np.testing.assert_allclose(axes.T, [[0, 0, -1], [1, 0, 0], [0, -1, 0]], atol=1e-6)


def test_body_pose_agrees_with_tf_transformations(make, header, some_people):
    tft = pytest.importorskip("tf_transformations", reason="part of a ROS installation")
    message = people_message(make, header, some_people, FrameReport(640, 480))
    axes = np.eye(4)
    axes[:3, :3] = [[0, 1, 0], [0, 0, 1], [1, 0, 0]]
    expected = tft.quaternion_multiply(some_people.theta[0, 0], tft.quaternion_from_matrix(axes))
    q = message.people[0].pose.pose.orientation
    assert abs(np.dot(expected, [q.x, q.y, q.z, q.w])) == pytest.approx(1, abs=1e-6)


def _chained(message, root: str):
    """Place and rotation in the root frame of every frame of a TFMessage."""
    positions, turns = {root: np.zeros(3)}, {root: Rotation.identity()}
    for t in message.transforms:
        above, v, q = t.header.frame_id, t.transform.translation, t.transform.rotation
        positions[t.child_frame_id] = positions[above] + turns[above].apply([v.x, v.y, v.z])
        turns[t.child_frame_id] = turns[above] * Rotation.from_quat([q.x, q.y, q.z, q.w])
    return positions, turns


@pytest.fixture
def held_together(some_people):
    """The made-up people, their pelvis where their root is."""
    joints = some_people.joints.copy()
    joints[:, 0] = some_people.root
    return some_people.with_fields(joints=joints)


def test_tf_frames_chain_to_the_joints(make, header, held_together):
    message = tf_message(make, header, held_together)
    assert len(message.transforms) == 3 * 24
    positions, turns = _chained(message, "camera")
    for i, person in enumerate(held_together.ids):
        for joint, name in list(enumerate(SMPL24.names))[1:]:
            np.testing.assert_allclose(
                positions[f"{person}_{name}"], held_together.joints[i, joint], atol=1e-9
            )
        # down the arm: SMPL's rotations one after another, seen in a body's own axes
        turn = Rotation.identity()
        for joint in ("pelvis", "spine1", "spine2", "spine3", "left_collar", "left_shoulder"):
            turn = turn * Rotation.from_quat(held_together.theta[i, SMPL24.index(joint)])
        apart = turns[f"{person}_left_shoulder"].inv() * turn * BODY_IN_SMPL
        assert apart.magnitude() < 1e-6
    assert all(t.header.stamp == header.stamp for t in message.transforms)


def test_rep155_frames_are_the_same_joints_under_other_names(make, header, held_together):
    """Joints that REP-155 does not know are left out; those below them stay where they are."""
    ours = _chained(tf_message(make, header, held_together), "camera")
    theirs = _chained(tf_message(make, header, held_together, REP155), "camera")
    assert len(theirs[0]) == 1 + 3 * 16
    for rep155, smpl in (("body_p2", "p2"), ("waist_p2", "p2_spine1"), ("torso_p2", "p2_spine3"),
                         ("head_p2", "p2_head"), ("l_shoulder_p2", "p2_left_shoulder"),
                         ("r_ankle_p2", "p2_right_ankle"), ("l_wrist_p2", "p2_left_wrist")):
        np.testing.assert_allclose(theirs[0][rep155], ours[0][smpl], atol=1e-9)
        assert (theirs[1][rep155].inv() * ours[1][smpl]).magnitude() < 1e-6


def test_tf_names_follow_the_patterns(make, header, some_people):
    names = FrameNames("human/{id}", "human/{id}/{joint}")
    message = tf_message(make, header, some_people[[1]], names)
    assert [t.child_frame_id for t in message.transforms] == names.of("p2")
    assert names.of("p2")[:2] == ["human/p2", "human/p2/left_hip"]


@pytest.mark.parametrize("person, joint, word", [
    ("person", "{id}_{joint}", "tf_person: 'person' must hold <id>"),
    ("{id}", "{joint}", "tf_joint: '{joint}' must hold <id> and <joint>"),
    ("{id}{id}", "{id}_{joint}", "tf_person"), ("/{id}", "{id}_{joint}", "not at the beginning"),
    ("the {id}", "{id}_{joint}", "'the {id}'"), ("{id.__class__}", "{id}_{joint}", "tf_person"),
    ("{id}", "{id}_{joint!r}", "tf_joint"), ("{id}", "{id}_{joint}{", "tf_joint"),
    ("{id}_head", "{id}_{joint}", "also the name of a joint's frame"),
    ("<id>_head", "{id}_<joint>", "also the name of a joint's frame"),
    ("<id>{id}", "<id>", "once")])
def test_bad_patterns_are_refused(person, joint, word):
    with pytest.raises(ConfigError) as refused:
        FrameNames(person, joint)
    assert word in str(refused.value)


def test_tf_frames_only_of_people_in_sight(make, header, some_people):
    states = np.array([LOST, TENTATIVE, TRACKED])
    message = tf_message(make, header, some_people.with_fields(tracking_state=states))
    assert {t.child_frame_id.split("_")[0] for t in message.transforms} == {"p3"}


def test_navigation_gets_places_and_velocities(make, header, some_people):
    velocity = some_people.velocity.copy()
    velocity[2] = np.nan
    states = np.array([TRACKED, TENTATIVE, LOST])
    people = some_people.with_fields(velocity=velocity, tracking_state=states)
    message = external.navigation_people(make, header, people)
    assert [p.name for p in message.people] == ["p1", "p3"] and message.header == header
    seen, lost = message.people
    assert (seen.position.x, seen.position.z) == (people.root[0, 0], people.root[0, 2])
    assert (seen.velocity.x, seen.velocity.y) == tuple(velocity[0, :2])
    assert seen.reliability == people.scores[0]
    assert (lost.velocity.x, lost.velocity.y, lost.velocity.z) == (0, 0, 0)
    tags = [dict(zip(p.tagnames, p.tags)) for p in message.people]
    assert tags == [{"state": "tracked", "velocity": "known"},
                    {"state": "lost", "velocity": "unknown"}]


def test_navigation_hears_of_an_empty_room_only_if_it_is_empty(make, header, some_people):
    assert list(external.navigation_people(make, header, People.nobody()).people) == []
    assert external.navigation_people(make, header, some_people.without_bodies("no TF")) is None
    root = some_people.root.copy()
    root[0] = np.nan
    some = external.navigation_people(make, header, some_people.with_fields(root=root))
    assert [p.name for p in some.people] == ["p2", "p3"]


def test_navigation_needs_a_position_not_a_body(make, header, some_people):
    flat = some_people.with_fields(theta=None, joints=None, betas=None)
    assert len(external.navigation_people(make, header, flat).people) == len(flat)


def test_a_detection_is_a_box_around_the_body(make, header, upright):
    people, _ = upright
    message = external.detections(make, header, people)
    (found,) = message.detections
    assert (found.id, found.results[0].hypothesis.class_id) == ("p1", "person")
    centre, size = found.bbox.center, found.bbox.size
    turn = Rotation.from_quat([getattr(centre.orientation, k) for k in "xyzw"])
    inside = turn.inv().apply(people.joints[0] - [getattr(centre.position, k) for k in "xyz"])
    half = np.array([size.x, size.y, size.z]) / 2
    np.testing.assert_allclose(np.abs(inside).max(0), half - 0.1, atol=1e-6)
    assert size.z > size.y > size.x and 1.5 < size.z < 2.1  # upright, arms to the sides
    pose = found.results[0].pose
    assert pose.pose.position.z == pytest.approx(4) and pose.covariance[0] == pytest.approx(0.01)


def test_detections_are_of_this_image(make, header, some_people):
    people = some_people.with_fields(tracking_state=np.array([LOST, TENTATIVE, TRACKED]))
    assert [d.id for d in external.detections(make, header, people).detections] == ["p2", "p3"]
    flat = some_people.without_bodies("")
    assert list(external.detections(make, header, flat).detections) == []


def test_ros4hri_has_its_own_order_of_keypoints(make, header, some_people):
    """By the constants of hri_msgs, where they are."""
    kind = pytest.importorskip("hri_msgs.msg", reason="needs hri_msgs: run make test").Skeleton2D
    keypoints = np.tile(np.arange(17.0)[:, None], (3, 1, 2)) * (10, 20)
    keypoints[0, COCO17.index("left_wrist")] = (700, 20)  # out of the image
    keypoints[0, COCO17.index("left_knee")] = np.nan
    people = some_people.with_fields(keypoints=keypoints)
    points = external.hri_skeleton(make, header, people, 0, (640, 480)).skeleton
    assert len(points) == 18
    for index, name in enumerate(COCO17.names):
        point = points[getattr(kind, name.upper())]
        if name in ("left_wrist", "left_knee"):
            assert point.c == 0 and np.isnan(point.x) and np.isnan(point.y)
        else:
            assert (point.x, point.y) == pytest.approx((index * 10 / 640, index * 20 / 480))
            assert point.c == pytest.approx(people.keypoint_scores[0, index])
    neck = points[kind.NECK]
    left, right = points[kind.LEFT_SHOULDER], points[kind.RIGHT_SHOULDER]
    assert neck.x == pytest.approx((left.x + right.x) / 2) and neck.c == min(left.c, right.c)


def test_ros4hri_bodies_are_those_in_sight(make, header, some_people):
    boxes = np.array([[64.0, 48, 320, 240], [-64, 0, 64, 600], [0, 0, 1, 1]])
    people = some_people.with_fields(boxes=boxes, tracking_state=np.array([TRACKED, TRACKED, LOST]))
    message, rows = external.tracked_bodies(make, header, people)
    assert list(message.ids) == ["p1", "p2"] and rows == [0, 1]
    regions = [external.hri_region(make, header, people, i, (640, 480)) for i in rows]
    found = [(r.xmin, r.ymin, r.xmax, r.ymax) for r in regions]
    np.testing.assert_allclose(found, [[0.1, 0.1, 0.5, 0.5], [0, 0, 0.1, 1]])


def test_markers_are_deleted_once_and_only_when_gone(make, header, some_people):
    first, shown = marker_array(make, header, some_people, set(), 0.5)
    assert shown == {"p1", "p2", "p3"} and {m.action for m in first.markers} == {0}
    second, shown = marker_array(make, header, some_people[[0]], shown, 0.5)
    assert {m.ns for m in second.markers if m.action == 2} == {"p2", "p3"}
    third, _ = marker_array(make, header, some_people[[0]], shown, 0.5)
    assert {m.action for m in third.markers} == {0}
    assert {(m.ns, m.id) for m in third.markers} == {("p1", 0), ("p1", 1), ("p1", 2)}


def test_a_label_is_beyond_the_head_in_every_frame(make, header, upright):
    """Turned into a frame with z up, the label stands as far over the person as before."""
    people, _ = upright
    up = Transform(Rotation.from_matrix([[0, 0, 1], [-1, 0, 0], [0, -1, 0]]), np.zeros(3))
    for shown, axis, sign in ((people, "y", -1), (people.moved(up), "z", 1)):
        label = marker_array(make, header, shown, set(), 0.5)[0].markers[2].pose.position
        head = shown.joints[0, SMPL24.index("head"), "xyz".index(axis)]
        assert sign * (getattr(label, axis) - head) == pytest.approx(0.35, abs=0.02)


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
    positions = np.array([[p.x, p.y, p.z] for p in surface.points])
    assert (np.abs(positions - people.root[0]) < 1.1).all()  # arms' length, m
    assert np.ptp(positions[:, 1]) > 1.5 and 0 < surface.color.a < 1
    _, shown = marker_array(make, header, people, set(), 0.5, body)
    gone = marker_array(make, header, people[:0], shown, 0.5, body)[0].markers
    assert {m.id for m in gone} == {0, 1, 2, 3} and {m.action for m in gone} == {2}


def test_skeleton_info_names_everything(make, header):
    info = skeleton_info_message(make, header, "movenet", "open_body")
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
    raw, rectified = (camera_from_info(_info(), r) for r in (False, True))
    assert (raw.fx, raw.cx, raw.distortion) == (500, 320.5, (0.1, 0, 0, 0, 0))
    assert (rectified.fx, rectified.cx, rectified.distortion) == (450, 330.5, ())


@pytest.mark.parametrize("model", ["equidistant", "fisheye"])
@pytest.mark.parametrize("count", [0, 4, 5])
def test_a_fisheye_without_distortion_is_no_pinhole(model, count):
    """280 px from the centre at f = 300 px is 280 / 300 rad off the axis."""
    camera = camera_from_info(_info(distortion_model=model, d=[0.0] * count,
                                             k=[300.0, 0, 319.5, 0, 300, 239.5, 0, 0, 1]))
    assert np.isclose(camera.normalise(np.array([600.0, 240.0]))[0], np.tan(280 / 300))


def test_the_right_camera_of_a_stereo_pair_is_beside_the_left_ones_frame():
    info = _info(p=[500.0, 0, 320, -60.0, 0, 500, 240, 0, 0, 0, 1, 0])
    right = camera_from_info(info, rectified=True)
    left = replace(right, centre_m=(0.0, 0.0, 0.0))
    point = np.array([0.3, 0.1, 2.0])
    assert np.allclose(right.centre_m, (0.12, 0, 0))
    assert "0.120 m to the right of the frame 'left'" in warning_of_offset(right, "left")
    assert not warning_of_offset(left, "left")
    assert np.allclose(right.project(point), left.project(point - (0.12, 0, 0)))
    u, v, w = np.reshape(info.p, (3, 4)) @ [*point, 1]  # CameraInfo's own formula
    assert np.allclose(right.project(point), np.array([u, v]) / w + 0.5)
    assert camera_from_info(info).centre_m == (0.0, 0.0, 0.0)  # of raw images


def test_camera_of_a_binned_region():
    """A ray through the region keeps its direction; the pixel moves by crop and bin."""
    full = camera_from_info(_info(d=[]))
    roi = SimpleNamespace(x_offset=100, y_offset=40, width=400, height=300, do_rectify=False)
    part = camera_from_info(_info(d=[], roi=roi, binning_x=2, binning_y=2))
    assert (part.width, part.height) == (200, 150)
    seen = np.array([0.3, -0.2, 4.0])
    np.testing.assert_allclose(part.project(seen), (full.project(seen) - (100, 40)) / 2)


@pytest.mark.parametrize("changes, word", [
    (dict(k=np.zeros(9)), "fx=0"), (dict(k=np.full(9, np.nan)), "not finite"),
    (dict(distortion_model="fov"), "'fov'"), (dict(width=0), "0x480"),
    (dict(distortion_model="fov", d=[0.0]), "'fov'"),
    (dict(distortion_model="equidistant", d=[0.1, 0, 0, 0, 0.1]), "4 distortion coefficients")])
def test_unusable_calibrations_say_why(changes, word):
    with pytest.raises(CameraError, match=word):
        camera_from_info(_info(**changes))


def test_a_changed_number_is_a_new_calibration():
    k = _info().k.copy()
    k[0] += 1
    assert calibration_key(_info()) == calibration_key(_info())
    assert calibration_key(_info()) != calibration_key(_info(k=k))
