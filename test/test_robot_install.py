"""A robot: the README's commands replace nothing of its Python, and its few packages are enough."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch

from ros2_pose.config import PoseConfig
from ros2_pose.errors import PoseError
from ros2_pose.networks.registry import create_network

_ROOT = Path(__file__).parents[1]
_SCRIPT = _ROOT / "scripts" / "check_robot_install"
_SITE = Path(torch.__file__).parents[1]
_DISTRIBUTION = {"numpy", "scipy", "opencv-python-headless", "pyyaml", "tqdm"}  # from apt
_BY_TORCH = {"typing-extensions"}
# Of onnxruntime: what its tools import, not the session; see test_onnx_engine.py for the latter.
_UNUSED = {"coloredlogs", "flatbuffers", "packaging", "protobuf", "sympy"}


def _name(requirement: str) -> str:
    return re.split(r"[ ;<>=!~\[(]", requirement.strip())[0].lower().replace("_", "-")


def _lines(file: str) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in (_ROOT / file).read_text().splitlines())
    return [line for line in lines if line]


def _needs(name: str) -> set[str]:
    """Direct requirements of an installed package, extras left out."""
    try:
        requires = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return set()
    return {_name(line) for line in requires if "extra ==" not in line}


def _closure(names) -> set[str]:
    found, todo = set(), list(names)
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += _needs(name)
    return found


def test_the_robots_packages_are_pinned_as_those_that_are_tested():
    locked = set(_lines("constraints.txt"))
    assert set(_lines("requirements-robot.txt")) <= locked
    assert not {_name(line) for line in _lines("requirements-robot.txt")} & _DISTRIBUTION


def test_the_robots_packages_are_all_that_they_need():
    """They are installed with --no-deps."""
    names = {_name(line) for line in _lines("requirements-robot.txt")}
    missing = set().union(*map(_needs, names)) - names - _DISTRIBUTION - _BY_TORCH - _UNUSED
    assert not missing


def test_torch_brings_no_numpy():
    assert not _closure(["torch"]) & _DISTRIBUTION


def test_pip_is_never_called_by_rosdep():
    """pip for the whole system replaces its numpy; on Ubuntu 24.04 it refuses."""
    manifest = (_ROOT / "package.xml").read_text()
    for line in manifest.splitlines():
        if "-pip</" in line:
            assert 'condition="$ROS2_POSE_PIP_BY_ROSDEP == yes"' in line


def test_the_network_tian_says_what_it_lacks(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    wanted = next(line for line in _lines("requirements.txt") if line.startswith("transformers"))
    with pytest.raises(PoseError, match=f"pip install '{wanted}'") as caught:
        create_network(PoseConfig(network="tian"))
    assert len(str(caught.value).splitlines()) == 1


_COLLECT = """
import sys
sys.modules.update(dict.fromkeys(sys.argv[1:]))  # None: as if not installed
import pytest
sys.exit(pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", "test"]))
"""


def test_the_tests_are_collected_with_a_robots_packages_alone():
    robot = {_name(line) for line in _lines("requirements-robot.txt")} - {"onnxruntime"}
    allowed = _closure({"torch", "pytest", *robot, *_DISTRIBUTION})
    lacking = _closure(_name(line) for file in ("requirements.txt", "requirements-test.txt")
                       for line in _lines(file)) - allowed
    blocked = [module for module, packages in metadata.packages_distributions().items()
               if {_name(package) for package in packages} <= lacking]
    assert "onnxruntime" in blocked and "numpy" not in blocked
    done = subprocess.run([sys.executable, "-c", _COLLECT, *blocked], cwd=_ROOT, text=True,
                          capture_output=True,
                          env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr


def test_colcon_test_loads_no_other_packages_plugins():
    """launch_testing's stops pytest 9, and every pytest where osrf_pycommon is missing."""
    text = (_ROOT / "CMakeLists.txt").read_text()
    assert re.search(r"ament_add_pytest_test\([^)]*ENV PYTEST_DISABLE_PLUGIN_AUTOLOAD=1\)", text)


def _system_python() -> tuple[int, ...]:
    """Version of the distribution's Python that has the distribution's OpenCV, or ()."""
    code = "import cv2, scipy, sys, tqdm, venv, yaml; print(*sys.version_info[:2])"
    if not Path("/usr/bin/python3").exists():
        return ()
    done = subprocess.run(["/usr/bin/python3", "-I", "-c", code], capture_output=True, text=True)
    return tuple(map(int, done.stdout.split())) if done.returncode == 0 else ()


@pytest.mark.skipif(_system_python() != sys.version_info[:2],
                    reason="needs Debian's python3-opencv for the same Python: "
                           "run scripts/check_robot_install by hand")
def test_the_readmes_commands_work_beside_the_distributions_opencv(tmp_path):
    """What pip would download is taken from this environment: no network is needed."""
    environment = {**os.environ, "PACKAGES_FROM": str(_SITE)}
    done = subprocess.run([_SCRIPT, tmp_path / "workspace"], env=environment, text=True,
                          capture_output=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    commands = [line for line in done.stdout.splitlines() if line.startswith("robot: $ ")]
    assert any("pip install torch" in command for command in commands)
    assert any("--no-deps -r src/ros2_pose/requirements-robot.txt" in c for c in commands)
    assert re.search(r"cv2 \S+ /usr/lib/python3/dist-packages/", done.stdout)
    assert re.search(r"engine auto \(onnxruntime\): [23] people", done.stdout)
    assert done.stdout.endswith("robot: ok\n")
