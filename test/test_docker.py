"""The container files belong together, and name no server: those are given when one builds."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

_ROOT = Path(__file__).parent.parent
_DOCKER = _ROOT / "docker"
_TARGETS = sorted(_DOCKER.glob("*.env"))
_COMPOSE = (_DOCKER / "compose.yaml").read_text()
_FILE = (_DOCKER / "Dockerfile").read_text()


def settings(path):
    """Values of an .env file by name."""
    lines = path.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def to_be_set(path):
    """Names that an .env file's comments leave to the shell."""
    comments = re.findall(r"^# ([A-Z_]+(?:, [A-Z_]+)*)  ", path.read_text(), re.M)
    return {name for names in comments for name in names.split(", ")}


def test_compose_gives_the_arguments_that_the_image_takes():
    given = yaml.safe_load(_COMPOSE)["services"]["pose"]["build"]["args"]
    assert set(given) == set(re.findall(r"^ARG (\w+)", _FILE, re.M))


@pytest.mark.parametrize("path", _TARGETS, ids=lambda path: path.stem)
def test_each_target_sets_what_has_no_default(path):
    needed = set(re.findall(r"\$\{(\w+)\}", _COMPOSE)) | {"TARGET"}
    assert needed <= set(settings(path)) | to_be_set(path)
    assert settings(path)["TARGET"] == path.stem
    known = set(re.findall(r"\$\{(\w+)[:}]", _COMPOSE))
    assert set(settings(path)) | to_be_set(path) <= known


@pytest.mark.parametrize("path", sorted(_DOCKER.iterdir()), ids=lambda path: path.name)
def test_no_server_is_named(path):
    assert not re.search(r"https?://|\b[\w-]+\.(com|org|io|net|dev)\b", path.read_text())


def test_the_cpu_has_the_robots_onnxruntime():
    pinned = re.search(r"^(onnxruntime==\S+)", (_ROOT / "requirements-robot.txt").read_text(), re.M)
    assert settings(_DOCKER / "cpu.env")["ONNXRUNTIME"] == pinned.group(1)


def test_what_the_image_copies_exists():
    for line in re.findall(r"^COPY (.*)$", _FILE, re.M):
        for source in line.split()[:-1]:
            assert (_ROOT / source).exists(), source
    for script in re.findall(r"src/ros2_pose/(\S+\.(?:py|txt))", _FILE):
        assert (_ROOT / script).exists(), script


def test_the_page_names_each_target():
    page = (_ROOT / "docs" / "jetson.md").read_text()
    assert all(f"docker/{path.name}" in page for path in _TARGETS)


def test_commands_are_valid_shell():
    commands = re.findall(r"^RUN (.*)$", _FILE.replace("\\\n", " "), re.M)
    assert len(commands) >= 5
    for command in commands:
        subprocess.run(["bash", "-n", "-c", command], check=True)
