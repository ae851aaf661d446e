"""The bounds that the code keeps, measured by scripts/structure."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]
_SCRIPT = _ROOT / "scripts" / "structure"

_AT_MOST = {
    "records": 80,
    "duplicates": 0,
    "top": 14,
    "files": 0,
    "functions": 40,
    "imports": 0,
    "phrases": 9,
}
_AT_LEAST = {"docstrings": 90, "arguments": 60}


def _run(*arguments: str) -> str:
    done = subprocess.run([sys.executable, str(_SCRIPT), *arguments], capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def figures() -> dict[str, float]:
    return json.loads(_run("--json"))


@pytest.mark.parametrize("name", _AT_MOST)
def test_not_more_than(figures, name):
    assert figures[name] <= _AT_MOST[name], _run("--list", name)


@pytest.mark.parametrize("name", _AT_LEAST)
def test_not_less_than(figures, name):
    assert figures[name] >= _AT_LEAST[name], _run("--list", name)


def test_counts_what_is_there(tmp_path):
    package = tmp_path / "package"
    for room in ("low", "high"):
        (package / room).mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "top.py").write_text("\n" * 351)
    (package / "low" / "a.py").write_text(
        "from typing import NamedTuple\n"
        "from package.high import b\n"
        "class Same(NamedTuple):\n"
        "    value: Tensor  # a field of someone whose shape is open\n")
    (package / "high" / "b.py").write_text(
        "from ..low.a import Same as Other\n"
        "class Same:\n"
        "    def shape(self, x: Tensor):\n"
        "        '''x (P, 3).'''\n"
        "        return x\n"
        "def nothing(y: Tensor):\n"
        "    '''It is nobody's.'''\n")
    figures = json.loads(_run(str(package), "--json"))
    expected = {"records": 1, "duplicates": 1, "top": 1, "files": 1, "functions": 2, "imports": 1,
                "phrases": 2, "docstrings": 33.3, "arguments": 33.3}
    assert {name: figures[name] for name in expected} == expected
    assert "low/a.py:2 imports high.b" in _run(str(package), "--list", "imports")
