"""The build script says in one line what it misses, and does nothing twice."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def _build(**changes: str) -> subprocess.CompletedProcess:
    env = {"PYTHON": "python3", "TORCH": "torch", "TORCH_INDEX": "", **os.environ, **changes}
    return subprocess.run([ROOT / "scripts" / "build"], env=env, text=True, capture_output=True)


def _program(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("machine", ["Linux aarch64", "Darwin arm64"])
def test_another_machine_is_sent_to_its_own_ros(machine, tmp_path):
    _program(tmp_path, "uname", f'echo "{machine}"')
    done = _build(PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == 1 and machine in done.stderr and "colcon build" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_another_python_is_refused(tmp_path):
    old = _program(tmp_path, "python3.9", '[ "$1" = --version ] && echo Python 3.9.2 || exit 1')
    done = _build(PYTHON=str(old))
    assert done.returncode == 1 and "Python 3.9.2 is out of range" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_missing_python_is_named():
    done = _build(PYTHON="no-such-python")
    assert done.returncode == 1 and "no no-such-python here" in done.stderr


@pytest.mark.skipif("TORCH_INDEX" not in os.environ, reason="only under make test")
def test_the_second_build_takes_seconds_and_no_network():
    """Under make test everything is built; an index that is not there would be noticed."""
    start = time.monotonic()
    done = _build(PIP_NO_INDEX="1", PIP_FIND_LINKS="/nowhere")
    assert done.returncode == 0, done.stderr
    assert "[2/3]" not in done.stdout and time.monotonic() - start < 60
