"""ruff and mypy find nothing; their rules are in pyproject.toml."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("command", [
    ["ruff", "check", "--quiet", "--no-cache", "--output-format", "concise"],
    ["mypy", "--no-error-summary"],
], ids=lambda command: command[0])
def test_nothing_is_found(command):
    pytest.importorskip(command[0], reason="only where requirements-test.txt is installed")
    done = subprocess.run([sys.executable, "-m", *command], cwd=_ROOT, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stdout + done.stderr
