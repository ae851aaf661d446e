"""Random images, calibrations and damaged bags: an error of ours or a result, and always soon."""

from __future__ import annotations

import shutil
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("hypothesis", reason="only where requirements-test.txt is installed")

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ros2_pose.camera import Camera, CameraError
from ros2_pose.errors import PoseError
from ros2_pose.messages.camera_info import camera_from_info
from ros2_pose.messages.image import (
    ENCODINGS,
    ImageError,
    depth_from_image,
    rgb_from_compressed,
    rgb_from_image,
)
from ros2_pose.offline.rosbag_reader import BagSource

_ANY_UINT32 = st.one_of(st.integers(0, 64), st.integers(0, 2**32 - 1))
_ENCODINGS = st.one_of(st.sampled_from([*ENCODINGS, "32FC1", "16UC1", "64FC4", "rgb16"]),
                       st.text(max_size=12))
_FLOATS = st.one_of(st.floats(), st.floats(-1e4, 1e4))
_MOST_MB = 64


@st.composite
def images(draw):
    """A sensor_msgs/Image whose fields fit together more often than by chance."""
    height, width = draw(_ANY_UINT32), draw(_ANY_UINT32)
    fits = draw(st.booleans()) and height * width < 10_000
    step = width * draw(st.sampled_from([1, 2, 3, 4])) if fits else draw(_ANY_UINT32)
    length = step * height if fits else draw(st.integers(0, 5000))
    seed = draw(st.integers(0, 2**32 - 1))
    return SimpleNamespace(height=height, width=width, step=step, encoding=draw(_ENCODINGS),
                           is_bigendian=draw(st.integers(0, 255)),
                           data=np.random.default_rng(seed).bytes(length))


@settings(max_examples=400, deadline=10_000)
@given(images())
def test_an_image_is_read_or_refused(message):
    try:
        picture = rgb_from_image(message)
    except ImageError as error:
        assert str(error)
    else:
        assert picture.shape == (message.height, message.width, 3) and picture.dtype == np.uint8


@settings(max_examples=300, deadline=10_000)
@given(images())
def test_a_depth_image_is_read_or_refused(message):
    try:
        depth = depth_from_image(message)
    except ImageError as error:
        assert str(error)
    else:
        assert depth.shape == (message.height, message.width) and depth.dtype == np.float32
        assert not (depth <= 0).any()


@settings(max_examples=200, deadline=10_000)
@given(data=st.binary(max_size=300), start=st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n"]),
       form=st.text(max_size=20))
def test_a_compressed_image_is_read_or_refused(data, start, form):
    try:
        rgb_from_compressed(SimpleNamespace(format=form, data=start + data))
    except ImageError as error:
        assert str(error)


@settings(max_examples=200, deadline=10_000)
@given(st.integers(0, 2**32 - 1), st.integers(4, 60))
def test_a_picture_with_flipped_bytes_is_read_or_refused(seed, flips):
    import cv2
    rng = np.random.default_rng(seed)
    data = cv2.imencode(".jpg" if seed % 2 else ".png",
                        rng.integers(0, 255, (20, 30, 3), np.uint8))[1].ravel().copy()
    data[rng.integers(0, len(data), flips)] ^= rng.integers(1, 255, flips, np.uint8)
    try:
        rgb_from_compressed(SimpleNamespace(format="", data=data.tobytes()))
    except ImageError as error:
        assert str(error)


@settings(max_examples=300, deadline=10_000)
@given(width=_ANY_UINT32, height=_ANY_UINT32, k=st.lists(_FLOATS, min_size=9, max_size=9),
       p=st.lists(_FLOATS, min_size=12, max_size=12), d=st.lists(_FLOATS, max_size=14),
       model=st.one_of(st.sampled_from(["", "plumb_bob", "rational_polynomial", "equidistant"]),
                       st.text(max_size=10)), rectified=st.booleans())
def test_a_calibration_is_usable_or_refused(width, height, k, p, d, model, rectified):
    roi = SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0, do_rectify=False)
    info = SimpleNamespace(width=width, height=height, k=k, p=p, d=d, distortion_model=model,
                           r=[1.0, 0, 0, 0, 1, 0, 0, 0, 1], binning_x=0, binning_y=0, roi=roi)
    try:
        camera = camera_from_info(info, rectified)
    except CameraError as error:
        assert str(error)
    else:
        assert isinstance(camera, Camera) and camera.fx > 0 and np.isfinite(camera.K).all()


@pytest.fixture(scope="module", params=["sqlite3", "mcap"])
def bag(request, tmp_path_factory):
    """A bag of six small images with their calibrations."""
    from rosbags.rosbag2 import Writer

    from ros2_pose.messages.camera_info import camera_info_message
    from ros2_pose.messages.image import image_message
    from ros2_pose.messages.standard import header_message
    from ros2_pose.offline.rosbag_files import typestore
    from ros2_pose.offline.rosbag_writer import STORAGE, make
    path = tmp_path_factory.mktemp("fuzz") / "bag"
    camera = Camera(32, 24, 30.0, 30.0, 16.0, 12.0)
    with Writer(path, version=8, storage_plugin=STORAGE[request.param]) as writer:
        topics = {name: writer.add_connection(f"/cam/{name}", kind, typestore=typestore())
                  for name, kind in (("image", "sensor_msgs/msg/Image"),
                                     ("camera_info", "sensor_msgs/msg/CameraInfo"))}
        for number in range(6):
            stamp = 10**9 + number * 33_000_000
            head = header_message(make, stamp, "cam")
            picture = np.full((24, 32, 3), number, np.uint8)
            for name, message in (("camera_info", camera_info_message(make, head, camera)),
                                  ("image", image_message(make, head, picture))):
                data = typestore().serialize_cdr(message, topics[name].msgtype)
                writer.write(topics[name], stamp, data)
    return path


@settings(max_examples=40, deadline=20_000,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), flips=st.integers(1, 200), cut=st.booleans())
def test_a_damaged_bag_is_read_or_refused(bag, tmp_path_factory, seed, flips, cut):
    """Images, then an end or one error that names the bag; never a crash, never much memory."""
    rng = np.random.default_rng(seed)
    damaged = tmp_path_factory.mktemp("damaged") / "bag"
    shutil.copytree(bag, damaged)
    victim = sorted(damaged.iterdir())[int(rng.integers(len(list(damaged.iterdir()))))]
    data = np.frombuffer(victim.read_bytes(), np.uint8).copy()
    data[rng.integers(0, len(data), flips)] ^= rng.integers(1, 255, flips, np.uint8)
    victim.write_bytes(data[: int(rng.integers(1, len(data)))].tobytes() if cut else data.tobytes())
    tracemalloc.start()
    try:
        shots = list(BagSource(damaged))
        assert len(shots) < 10_000
    except PoseError as error:
        assert "bag" in str(error) or "cam" in str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1] / 2**20
        tracemalloc.stop()
        shutil.rmtree(damaged)
    assert peak < _MOST_MB, f"{peak:.0f} MB"
