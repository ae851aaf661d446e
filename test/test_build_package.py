"""What `make build` and pip install."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]
INSTALL = ROOT / "install"
SHIPPED = (".py", ".npz", ".npy", ".pt", ".onnx", ".json", ".yaml", ".rviz")

needs_install = pytest.mark.skipif(not INSTALL.exists(), reason="nothing built: run make test")


def _python(code: str, folder: Path, pythonpath: str) -> str:
    """What a new Python prints, started in a folder with a PYTHONPATH."""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, text=True, capture_output=True,
                          env={**os.environ, "PYTHONPATH": pythonpath})
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _shipped(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*")
            if p.suffix in SHIPPED and "__pycache__" not in p.parts}


def _site() -> Path:
    return next(INSTALL.glob("lib/python3*/site-packages"))


@needs_install
def test_the_installed_package_is_the_source(tmp_path):
    place = _python("import ros2_pose, ros2_pose.msg; print(ros2_pose.__file__)", tmp_path,
                    str(_site()))
    assert Path(place) == _site() / "ros2_pose" / "__init__.py"
    installed = {name for name in _shipped(_site() / "ros2_pose") if not name.startswith("msg")}
    assert installed == _shipped(ROOT / "ros2_pose")


@needs_install
@pytest.mark.parametrize("folder", ["launch", "config"])
def test_launch_and_config_are_installed(folder):
    assert _shipped(INSTALL / "share" / "ros2_pose" / folder) == _shipped(ROOT / folder)


@needs_install
@pytest.mark.parametrize("program", ["lib/ros2_pose/pose_node", "bin/ros2_pose"])
def test_programs_are_installed(program):
    assert os.access(INSTALL / program, os.X_OK)


@needs_install
@pytest.mark.parametrize("program", ["lib/ros2_pose/pose_node", "lib/ros2_pose/bag_player",
                                     "bin/ros2_pose"])
def test_programs_run_in_the_python_of_the_build(program):
    """So that ros2 launch needs no active virtual environment."""
    first = (INSTALL / program).read_text().splitlines()[0]
    assert Path(first.removeprefix("#!")).parent == Path(sys.executable).parent


@needs_install
def test_the_command_runs_from_anywhere(tmp_path):
    done = subprocess.run(["ros2_pose", "--help"], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, "PATH": f"{INSTALL}/bin:{os.environ['PATH']}"})
    assert done.returncode == 0 and "replay" in done.stdout


def test_pip_gets_the_core_and_the_command(tmp_path):
    """The wheel that pip would build, from a copy so that the sources stay clean."""
    pytest.importorskip("setuptools")
    source = tmp_path / "source"
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "package.xml", "requirements.txt",
                 "requirements-test.txt"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "ros2_pose", source / "ros2_pose")
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps",
                    "--no-build-isolation", "--no-index", "-w", str(tmp_path), str(source)],
                   check=True, capture_output=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
        info = next(n for n in names if n.endswith("entry_points.txt"))
        assert b"ros2_pose = ros2_pose.cli:main" in wheel.read(info)
    assert {f"ros2_pose/{name}" for name in _shipped(ROOT / "ros2_pose")} <= names


def test_the_manifest_declares_what_is_used():
    manifest = ElementTree.parse(ROOT / "package.xml").getroot()
    declared = {e.text for e in manifest if e.tag.endswith("depend")}
    assert {"rclpy", "sensor_msgs", "visualization_msgs", "diagnostic_msgs", "tf2_msgs", "tf2_ros",
            "cv_bridge", "tf_transformations", "launch_ros", "python3-numpy", "python3-scipy",
            "python3-opencv", "python3-pytorch-pip"} <= declared
