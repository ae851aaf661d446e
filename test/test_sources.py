"""Pictures and videos as they come from phones, browsers and editors: order, time, orientation."""

import shutil
import subprocess

import cv2
import numpy as np
import pytest

from ros2_pose.camera import Camera
from ros2_pose.offline.sources import (
    PictureSource,
    SourceError,
    VideoSource,
    in_natural_order,
    picture_files,
)

_FPS = 10.0


def _video(path, count=6, size=(64, 48), codec="mp4v"):
    """A video whose image n has the grey level 20 n, below 12."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), _FPS, size)
    for number in range(count):
        writer.write(np.full((size[1], size[0], 3), 20 * (number % 12), np.uint8))
    writer.release()
    return path


# Order ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [
    ["frame_0", "frame_2", "frame_10", "frame_100"], ["1", "2", "10"], ["IMG_9", "img_10"],
    ["a1b2", "a1b10", "a2b1"], ["001", "2", "10"], ["2020-01-02_9", "2020-01-02_10"],
    ["0.25", "0.5", "1.125"], ["1700000000.25", "1700000000.5"], ["left", "right_1", "right_2"],
    ["10cm_1", "10cm_2", "x"], ["\u00b2", "\u0661"]])
def test_names_are_in_natural_order(tmp_path, names):
    paths = [tmp_path / f"{name}.jpg" for name in names]
    assert in_natural_order(sorted(paths, reverse=True)) == paths


def test_hidden_files_and_folders_are_no_pictures(tmp_path):
    for name in ("b.JPG", "a.Png", "._a.jpg", ".hidden.png", "Thumbs.db", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "c.jpg").mkdir()
    assert [p.name for p in picture_files(tmp_path)] == ["a.Png", "b.JPG"]


def test_a_folder_of_videos_is_named_for_what_it_is(tmp_path):
    (tmp_path / "walk.MP4").write_bytes(b"x")
    with pytest.raises(SourceError, match="walk.MP4"):
        picture_files(tmp_path)


@pytest.mark.parametrize("fps", [0, -5, float("nan"), float("inf"), 1e9])
def test_an_impossible_rate_of_pictures_is_refused(tmp_path, fps):
    with pytest.raises(SourceError, match="fps"):
        PictureSource([tmp_path / "a.jpg"], None, fps)


# Time of videos ---------------------------------------------------------------------------------


class _Header:
    """cv2.VideoCapture of a video whose header and times say what the test says."""

    def __init__(self, fps, count, times):
        self.fps, self.count, self.times, self.at = fps, count, times, 0

    def __call__(self, path):
        self.at = 0
        return self

    def isOpened(self):
        return True

    def release(self):
        pass

    def read(self):
        self.at += 1
        return self.at <= len(self.times), np.zeros((48, 64, 3), np.uint8)

    def get(self, key):
        return {cv2.CAP_PROP_FPS: self.fps, cv2.CAP_PROP_FRAME_COUNT: self.count,
                cv2.CAP_PROP_POS_MSEC: [0, *self.times, 0][self.at]}.get(key, 0.0)


def _stamps(monkeypatch, times, fps=_FPS, count=None) -> list[float]:
    """What the source makes of it, ms."""
    header = _Header(fps, len(times) if count is None else count, times)
    monkeypatch.setattr(cv2, "VideoCapture", header)
    return [shot.stamp / 1e6 for shot in VideoSource("x.mp4")]


@pytest.mark.parametrize("times, stamps", [
    ([0, 100, 200], [0, 100, 200]), ([0, 33, 400, 433], [0, 33, 400, 433]),
    ([500, 600, 700], [0, 100, 200]), ([-200, -100, 0], [0, 100, 200]),
    ([0, 0, 0, 0], [0, 100, 200, 300]), ([np.nan] * 3, [0, 100, 200]),
    ([0, 100, np.nan, 300], [0, 100, 200, 300]), ([0, 100, 90, 300], [0, 100, 200, 300]),
    ([0, 200, 100, 300, 400], [0, 200, 300, 400, 500]),
    ([0, 100, 95_000_000, 95_000_100], [0, 100, 200, 300]),
    ([95_000_000, 95_000_100, 0, 100], [0, 100, 200, 300]),
    ([0, 100, -np.inf, np.inf, 400], [0, 100, 200, 300, 400])])
def test_stamps_are_the_containers_and_rise_whatever_it_says(monkeypatch, times, stamps):
    assert _stamps(monkeypatch, times) == pytest.approx(stamps)


@pytest.mark.parametrize("count", [-9223372036854775808, -1, 0, 2, 3, 4, 62, 1e18, np.nan, np.inf])
def test_a_count_is_an_estimate(monkeypatch, count):
    assert _stamps(monkeypatch, [0, 100, 200], count=count) == [0, 100, 200]
    source = VideoSource("x.mp4")
    assert source.count is None or source.count > 0


@pytest.mark.parametrize("fps", [0, -1, np.nan, np.inf, 1e7, 90000, 1000])
def test_an_impossible_frame_rate_is_not_used(monkeypatch, fps):
    assert _stamps(monkeypatch, [0, 40, 80], fps) == [0, 40, 80]
    stamps = _stamps(monkeypatch, [0, 0, 0], fps)
    assert stamps == pytest.approx([0, 1000 / 30, 2000 / 30])
    assert VideoSource("x.mp4").fps == 30


@pytest.mark.parametrize("name, codec", [("a.mp4", "mp4v"), ("a.AVI", "MJPG"), ("a.mkv", "mp4v")])
def test_a_videos_images_have_their_times(tmp_path, name, codec):
    shots = list(VideoSource(_video(tmp_path / name, codec=codec)))
    assert [round(shot.stamp / 1e6) for shot in shots] == [0, 100, 200, 300, 400, 500]
    assert [round(shot.frame.image.mean() / 20) for shot in shots] == [0, 1, 2, 3, 4, 5]


def test_a_video_without_an_image_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(cv2, "VideoCapture", _Header(30, 5, []))
    with pytest.raises(SourceError, match="holds no image"):
        list(VideoSource("x.mp4"))


def _ffmpeg(*words, **options) -> bytes:
    if not shutil.which("ffmpeg"):
        pytest.skip("ffmpeg is not installed")
    return subprocess.run(["ffmpeg", "-loglevel", "error", "-y", *map(str, words)], check=True,
                          stdout=subprocess.PIPE, **options).stdout


def test_a_browsers_recording_without_a_count(tmp_path):
    data = _ffmpeg("-i", _video(tmp_path / "a.avi", codec="MJPG"), "-c:v", "libvpx", "-f", "webm",
                   "pipe:1")
    (tmp_path / "a.webm").write_bytes(data)
    shots = list(VideoSource(tmp_path / "a.webm"))
    assert [round(shot.stamp / 1e6) for shot in shots] == [0, 100, 200, 300, 400, 500]


def test_a_variable_frame_rate(tmp_path):
    _ffmpeg("-i", _video(tmp_path / "a.avi", 20, codec="MJPG"), "-vf",
            "select='lt(n,5)+not(mod(n,5))',format=yuv420p", "-vsync", "vfr", tmp_path / "a.mp4")
    stamps = [round(shot.stamp / 1e6) for shot in VideoSource(tmp_path / "a.mp4")]
    assert stamps == [0, 100, 200, 300, 400, 500, 1000, 1500]


def test_a_video_trimmed_without_encoding_it_again(tmp_path):
    _ffmpeg("-i", _video(tmp_path / "a.avi", 20, codec="MJPG"), "-vf", "format=yuv420p", "-g", 10,
            tmp_path / "whole.mp4")
    _ffmpeg("-ss", 0.5, "-i", tmp_path / "whole.mp4", "-t", 1, "-c", "copy", tmp_path / "cut.mp4")
    stamps = [shot.stamp for shot in VideoSource(tmp_path / "cut.mp4")]
    assert len(stamps) >= 10 and (np.diff(stamps) > 0).all()


def test_a_phones_video_is_upright_and_its_camera_with_it(tmp_path):
    plain = _video(tmp_path / "plain.mp4")
    _ffmpeg("-i", plain, "-c", "copy", "-metadata:s:v:0", "rotate=270", tmp_path / "phone.mp4")
    stored, shown = Camera.from_fov(64, 48, 60), Camera.from_fov(48, 64, 60)
    frame = next(iter(VideoSource(tmp_path / "phone.mp4", stored))).frame
    if frame.image.shape[:2] == (48, 64):
        pytest.skip("this OpenCV does not turn videos")
    assert (frame.camera.width, frame.camera.height) == (48, 64)
    assert frame.camera.fx == stored.fy
    assert next(iter(VideoSource(tmp_path / "phone.mp4", shown))).frame.camera == shown


# Orientation of pictures ------------------------------------------------------------------------


@pytest.mark.parametrize("value", range(1, 9))
def test_a_photo_is_looked_at_upright(tmp_path, value):
    stored = np.zeros((48, 64, 3), np.uint8)
    corner = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (1, 0), 5: (0, 0), 6: (1, 0), 7: (1, 1),
              8: (0, 1)}[value]  # of the stored rows, that a viewer shows at the upper left
    stored[24 * corner[0]:24 * corner[0] + 24, 32 * corner[1]:32 * corner[1] + 32] = 255
    data = cv2.imencode(".jpg", stored)[1].tobytes()
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01" + bytes([0, value, 0, 0]) \
        + b"\0\0\0\0"
    (tmp_path / "a.jpg").write_bytes(data[:2] + b"\xff\xe1" + bytes([0, len(exif) + 2]) + exif
                                     + data[2:])
    for camera in (None, Camera.from_fov(64, 48, 60)):
        shot, = PictureSource([tmp_path / "a.jpg"], camera)
        image = shot.frame.image
        assert image.shape[:2] == ((64, 48) if value >= 5 else (48, 64))
        assert image[:20, :20].min() > 200 and image[-20:].max() < 60 and image[:, -20:].max() < 60
        if camera is not None:
            assert (shot.frame.camera.height, shot.frame.camera.width) == image.shape[:2]
