"""Gravity and floor of images by TF and IMU: what is used, and what is refused and said."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from ros2_pose.config import PoseConfig
from ros2_pose.geometry import Transform
from ros2_pose.imaging.upright import quarter_turns_to_upright
from ros2_pose.messages.standard import header_message
from ros2_pose.offline.rosbag_writer import make
from ros2_pose.sync.ground import GroundFinder, ground_from_config
from ros2_pose.sync.tf_buffer import TransformBuffer

_MS = 10**6
_BEGIN = 100 * 10**9
_TOLERANCE = 100 * _MS
# Camera axes (x right, y down, z forward) of a level camera that looks along x, in its base.
_OPTICAL = Rotation.from_matrix([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])
_HEIGHT_M = 1.3
# How the camera is mounted: degrees about its optical axis, and quarter turns to upright.
_MOUNTINGS = {"upright": (0, 0), "right side": (90, 3), "upside down": (180, 2),
              "left side": (-90, 1)}


def _camera(roll_deg: float = 0.0, pitch_deg: float = 0.0, yaw_deg: float = 0.0) -> Transform:
    """A camera in its base: pitch down is positive; roll is about the optical axis."""
    turn = Rotation.from_euler("ZY", [yaw_deg, pitch_deg], degrees=True) * _OPTICAL
    return Transform(turn * Rotation.from_euler("z", roll_deg, degrees=True),
                     np.array([0.2, 0.1, _HEIGHT_M]))


def _xyz_quat(transform: Transform) -> tuple[float, ...]:
    return (*transform.translation_m, *transform.rotation.as_quat())


class Robot:
    """A buffer with odom - base - camera, and a finder that asks it."""

    def __init__(self, camera: Transform = _camera(), floor_frame: str = "base", **finder):
        self.buffer = TransformBuffer()
        self.buffer.add_static("base", "camera", _xyz_quat(camera))
        self.finder = GroundFinder(floor_frame, finder.pop("reference", "odom"), **finder)

    def base(self, stamp: int, rotvec_deg=(0, 0, 0), xyz=(1, 2, 0)) -> None:
        """Where the base is in odom."""
        rotation = Rotation.from_rotvec(rotvec_deg, degrees=True)
        self.buffer.add("odom", "base", stamp, _xyz_quat(Transform(rotation, np.array(xyz))))

    def find(self, stamp: int = _BEGIN, frame: str = "camera"):
        """Ground and problem of an image."""
        header = header_message(make, stamp, frame)

        def lookup(target, header):
            return self.buffer.lookup_from(target, header, _TOLERANCE)
        return self.finder.find(header, stamp, lookup, _TOLERANCE)


def _imu(stamp: int, acceleration=(0, 0, 9.81), quat_xyzw=(0, 0, 0, 1), covariance=-1.0,
         frame: str = "imu"):
    x, y, z, w = quat_xyzw
    ax, ay, az = acceleration
    return SimpleNamespace(
        header=header_message(make, stamp, frame),
        orientation=SimpleNamespace(x=x, y=y, z=z, w=w),
        orientation_covariance=np.array([covariance, *[0.0] * 8]),
        linear_acceleration=SimpleNamespace(x=ax, y=ay, z=az))


# By TF ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("floor_frame", ["base", "odom", "/odom"])
@pytest.mark.parametrize("mounting", _MOUNTINGS)
@pytest.mark.parametrize("pitch_deg", [0, 20])
def test_the_floor_is_where_its_frame_says(floor_frame, mounting, pitch_deg):
    """Points of the plane z = 0, seen by the camera, lie on the ground."""
    roll_deg, quarter_turns = _MOUNTINGS[mounting]
    camera = _camera(roll_deg, pitch_deg, 30)
    robot = Robot(camera, floor_frame)
    robot.base(_BEGIN, (0, 0, 50))
    ground, problem = robot.find()
    assert not problem and ground.height_m == pytest.approx(_HEIGHT_M)
    on_floor = np.array([(3.0, 0, 0), (5, 2, 0), (1, -4, 0)])
    seen = camera.inverse().apply(on_floor)
    np.testing.assert_allclose(seen @ ground.up + ground.height_m, 0, atol=1e-9)
    assert quarter_turns_to_upright(ground.up) == quarter_turns
    by_settings = ground_from_config(PoseConfig(
        camera_roll_deg=roll_deg, camera_pitch_deg=pitch_deg, camera_height_m=_HEIGHT_M))
    np.testing.assert_allclose(ground.up, by_settings.up, atol=1e-9)


def test_a_head_that_moves_is_followed_between_two_transforms():
    robot = Robot()
    for ms in range(0, 1001, 100):
        camera = _camera(pitch_deg=0.04 * ms)
        robot.buffer.add("base", "camera", _BEGIN + ms * _MS, _xyz_quat(camera))
    for ms in (0, 33, 450, 999):
        ground, problem = robot.find(_BEGIN + ms * _MS)
        expected = ground_from_config(PoseConfig(camera_pitch_deg=0.04 * ms)).up
        assert not problem
        np.testing.assert_allclose(ground.up, expected, atol=1e-6)


def test_a_floor_that_is_lost_is_kept_for_the_tolerance_and_no_longer():
    robot = Robot(floor_frame="odom")
    robot.base(_BEGIN)
    assert robot.find(_BEGIN + _TOLERANCE)[0].height_m == pytest.approx(_HEIGHT_M)
    ground, problem = robot.find(_BEGIN + _TOLERANCE + 1)
    assert ground is None and "no transform" in problem and "no floor" in problem
    robot.base(_BEGIN + 2 * _TOLERANCE)
    assert robot.find(_BEGIN + 2 * _TOLERANCE)[0].height_m == pytest.approx(_HEIGHT_M)


@pytest.mark.parametrize("reference", ["odom", "nowhere"])
@pytest.mark.parametrize("tilt_deg, trusted", [(0, True), (20, True), (42, False), (178, False)])
def test_a_base_that_tilts_too_far_is_no_floor(tilt_deg, trusted, reference):
    """It is known by a world-fixed frame; without one it cannot be."""
    robot = Robot(reference=reference)
    robot.base(_BEGIN, (tilt_deg, 0, 0))
    ground, problem = robot.find()
    if trusted or reference == "nowhere":
        assert not problem and ground.height_m == pytest.approx(_HEIGHT_M)
        return
    assert f"{tilt_deg} degrees off gravity" in problem and ground.height_m is None
    up = (Rotation.from_rotvec([tilt_deg, 0, 0], degrees=True) * _camera().rotation).inv()
    np.testing.assert_allclose(ground.up, up.apply([0, 0, 1]), atol=1e-9)


@pytest.mark.parametrize("height_m", [-0.4, 0.0, 25.0, 1e300])
def test_a_camera_below_the_floor_or_far_above_it_has_gravity_alone(height_m):
    camera = Transform(_camera().rotation, np.array([0, 0, height_m]))
    ground, problem = Robot(camera).find()
    assert ground.height_m is None and "above the floor of 'base'" in problem
    np.testing.assert_allclose(ground.up, (0, -1, 0), atol=1e-9)


def test_the_images_own_frame_is_no_floor():
    ground, problem = Robot(floor_frame="camera").find()
    assert problem and ground.height_m is None


@pytest.mark.parametrize("jump, word, has_gravity", [
    (Transform(Rotation.identity(), np.array([0, 0, 2.0])), "height", True),
    (Transform(Rotation.from_rotvec([1.2, 0, 0]), np.zeros(3)), "jumped", False)])
def test_what_jumps_is_said_and_believed_only_if_it_stays(jump, word, has_gravity):
    robot = Robot(reference="")
    for ms in range(0, 2000, 33):
        moved = _camera() if ms < 330 else jump @ _camera()
        robot.buffer.add("base", "camera", _BEGIN + ms * _MS, _xyz_quat(moved))
        ground, problem = robot.find(_BEGIN + ms * _MS)
        if 330 <= ms < 430:
            assert word in problem and (ground is not None) == has_gravity
            assert ground is None or ground.height_m is None
        elif ms < 330 or ms > 1400:
            assert not problem and ground.height_m is not None


def test_an_image_that_jumps_alone_costs_no_other():
    robot = Robot(reference="")
    for number in range(20):
        height_m = 4.0 if number % 5 == 4 else _HEIGHT_M
        camera = Transform(_camera().rotation, np.array([0, 0, height_m]))
        robot.buffer.add_static("base", "camera", _xyz_quat(camera))
        ground, problem = robot.find(_BEGIN + number * 33 * _MS)
        assert bool(problem) == (number % 5 == 4) == (ground.height_m is None)


def test_slow_cameras_and_clocks_that_start_again_do_not_jump():
    robot = Robot(reference="")
    for stamp, pitch_deg in ((0, 0), (10**9 + 1, 60), (2 * 10**9 + 2, -60), (-10**10, 30)):
        robot.buffer.add_static("base", "camera", _xyz_quat(_camera(pitch_deg=pitch_deg)))
        ground, problem = robot.find(_BEGIN + stamp)
        assert not problem and ground.height_m == pytest.approx(_HEIGHT_M)


@pytest.mark.parametrize("seed", range(5))
def test_whatever_tf_says_the_ground_is_possible_or_refused(seed):
    """Random transforms, sizes, steps of time: no wild floor, and nothing without a reason."""
    rng, stamp = np.random.default_rng(seed), _BEGIN
    robot = Robot(floor_frame=("base", "odom")[seed % 2])
    trusted = 0
    for _ in range(300):
        stamp += int(rng.choice([10 * _MS, 33 * _MS, 10**9, -10**9, 10**12]))
        xyz = rng.normal(size=3) * rng.choice([0.5, 2, 1e3, 1e200])
        robot.base(stamp, rng.normal(size=3) * rng.choice([1, 90]), xyz)
        ground, problem = robot.find(stamp)
        if ground is not None:
            assert np.linalg.norm(ground.up) == pytest.approx(1)
            assert ground.height_m is None or 0.02 < ground.height_m < 20
        assert bool(problem) == (ground is None or ground.height_m is None)
        trusted += not problem
    assert 0 < trusted < 300


def test_cameras_do_not_disturb_each_other():
    robot = Robot()
    other = Transform(_camera(180, 40).rotation, np.array([0, 0, 3.0]))
    robot.buffer.add_static("base", "other", _xyz_quat(other))
    for number in range(4):
        for frame, height_m in (("camera", _HEIGHT_M), ("other", 3.0)):
            ground, problem = robot.find(_BEGIN + number * 33 * _MS, frame)
            assert not problem and ground.height_m == pytest.approx(height_m)


# By an IMU --------------------------------------------------------------------------------------


@pytest.fixture
def imu_robot():
    """A robot without floor frame whose IMU is mounted on its side; the IMU in the base."""
    def build(floor_frame: str = "", **camera):
        robot = Robot(_camera(**camera), floor_frame, has_imu=True)
        base_from_imu = Rotation.from_euler("xz", [90, 30], degrees=True)
        robot.buffer.add_static("base", "imu", _xyz_quat(Transform(base_from_imu, np.zeros(3))))
        return robot, base_from_imu
    return build


@pytest.mark.parametrize("mounting", _MOUNTINGS)
@pytest.mark.parametrize("by", ["orientation", "acceleration"])
def test_an_imu_gives_gravity(imu_robot, mounting, by):
    roll_deg, quarter_turns = _MOUNTINGS[mounting]
    robot, base_from_imu = imu_robot(roll_deg=roll_deg, pitch_deg=25)
    if by == "orientation":  # heading is arbitrary
        world_from_imu = Rotation.from_euler("z", 77, degrees=True) * base_from_imu
        robot.finder.imu.take_in(_imu(_BEGIN, (0, 0, 0), world_from_imu.as_quat(), 0.01))
    else:
        up = base_from_imu.inv().apply([0, 0, 9.7])
        for ms in range(20):
            robot.finder.imu.take_in(_imu(_BEGIN - ms + 20, up))
    ground, problem = robot.find(_BEGIN + 50 * _MS)
    expected = ground_from_config(PoseConfig(camera_roll_deg=roll_deg, camera_pitch_deg=25))
    assert not problem and ground.height_m is None
    np.testing.assert_allclose(ground.up, expected.up, atol=1e-6)
    assert quarter_turns_to_upright(ground.up) == quarter_turns
    assert robot.find(_BEGIN + 10**9)[0] is None  # too old


def test_an_imu_that_is_shaken_keeps_its_direction_for_a_moment(imu_robot):
    robot, base_from_imu = imu_robot()
    rng = np.random.default_rng(1)
    for ms in range(0, 1000, 5):  # walks: noise of 1 m/s^2, then hits
        up = base_from_imu.inv().apply([0, 0, 9.81]) + rng.normal(size=3) * 0.5
        robot.finder.imu.take_in(_imu(_BEGIN + ms * _MS, up if ms < 700 else 3 * up[::-1]))
    ground, problem = robot.find(_BEGIN + 1000 * _MS)
    assert not problem
    assert np.degrees(np.arccos(ground.up @ (0, -1, 0))) < 3
    for ms in range(1000, 1600, 5):
        robot.finder.imu.take_in(_imu(_BEGIN + ms * _MS, (np.nan, 0, 30)))
    assert robot.find(_BEGIN + 1600 * _MS)[0] is None


@pytest.mark.parametrize("message", [
    _imu(_BEGIN, (0, 0, 0), (0, 0, 0, 1), 0.0),  # as a driver without orientation leaves it
    _imu(_BEGIN, (0, 0, 0), (0, 0, 0, 0), 0.1), _imu(_BEGIN, (np.nan, 0, 0)),
    _imu(_BEGIN, (0, 0, 0), (0, 0, 0, 1), np.nan), _imu(_BEGIN, frame=""),
    _imu(_BEGIN, frame="unknown")])
def test_an_imu_that_knows_nothing_is_said(imu_robot, message):
    robot, _ = imu_robot()
    robot.finder.imu.take_in(message)
    ground, problem = robot.find()
    assert ground is None and problem


def test_tf_comes_first_and_the_imu_stands_in_and_checks(imu_robot):
    robot, base_from_imu = imu_robot("base", pitch_deg=10)
    robot.finder.imu.take_in(_imu(_BEGIN, base_from_imu.inv().apply([0, 0, 9.81])))
    ground, problem = robot.find()
    assert not problem and ground.height_m == pytest.approx(_HEIGHT_M)
    robot.finder.floor_frame = "nowhere"
    instead, problem = robot.find()
    assert "gravity by imu" in problem and instead.height_m is None
    np.testing.assert_allclose(instead.up, ground.up, atol=1e-9)
    fallen = Rotation.from_rotvec([1.0, 0, 0])
    robot.finder.floor_frame = "base"
    robot.finder.imu.take_in(_imu(_BEGIN + 1, (fallen * base_from_imu).inv().apply([0, 0, 9.81])))
    for stamp in range(_BEGIN + 10**9, _BEGIN + 3 * 10**9, 50 * _MS):
        robot.finder.imu.take_in(_imu(stamp, (fallen * base_from_imu).inv().apply([0, 0, 9.81])))
    ground, problem = robot.find(_BEGIN + 3 * 10**9)
    assert "off gravity" in problem and ground.height_m is None
