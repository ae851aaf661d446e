"""The pages below docs/: their commands, files, options and links exist; the recipe works."""

import contextlib
import importlib.util
import io
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from ros2_pose import cli
from ros2_pose.data.datasets import DATASETS
from ros2_pose.networks.registry import trainable_networks

_ROOT = Path(__file__).parent.parent
_PAGES = sorted([*_ROOT.glob("*.md"), *_ROOT.glob("docs/*.md")])
_INSTALL = (_ROOT / "docs" / "install.md").read_text()
_TRAINING = (_ROOT / "docs" / "training.md").read_text()


def _commands(page: str, begin: str) -> list[str]:
    """Commands of a page's bash blocks that hold `begin`."""
    text = (_ROOT / "docs" / page).read_text()
    blocks = re.findall(r"```bash\n(.*?)```", text, re.S)
    lines = [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines
            if begin in line and "ros2 launch" not in line and "python -m" not in line]


_OF_COMMAND_LINE = [*_commands("training.md", "ros2_pose"), *_commands("distil.md", "ros2_pose"),
                    *_commands("results.md", "ros2_pose "),
                    *_commands("replay.md", "ros2_pose "),
                    *_commands("install.md", "ros2_pose fetch"),
                    *re.findall(r"`(ros2_pose fetch \w+)`",
                                (_ROOT / "docs" / "jetson.md").read_text()),
                    *re.findall(r"^\| `(ros2_pose fetch .*?)` \|", _INSTALL, re.M)]
_MODULES = sorted({command for page in _PAGES for command in
                   re.findall(r"python -m (ros2_pose[\w.]+[^`#\n]*)", page.read_text())})


@pytest.mark.parametrize("command", _OF_COMMAND_LINE)
def test_the_command_line_understands_commands(command):
    words = shlex.split(re.split(r"ros2_pose(?:\.cli)? ", command, maxsplit=1)[1])
    options = cli._parser().parse_args(words)
    for word in words:
        if word.startswith("config/"):
            assert (_ROOT / word).exists()
    for name, *_ in getattr(options, "data", []) if words[0] == "train" else []:
        assert name in DATASETS


@pytest.mark.parametrize("command", _MODULES)
def test_modules_have_the_options_that_commands_name(command, monkeypatch):
    name, *words = shlex.split(command)
    assert importlib.util.find_spec(name), name
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with contextlib.redirect_stdout(io.StringIO()) as text, pytest.raises(SystemExit) as end:
        runpy.run_module(name, run_name="__main__")
    assert end.value.code == 0
    for word in words:
        if word.startswith("--"):
            assert word in text.getvalue(), word
        elif re.match(r"(config|ros2_pose)/", word):
            assert (_ROOT / word).exists(), word


def test_results_have_a_command_for_every_table():
    text = (_ROOT / "docs" / "results.md").read_text()
    assert len(_MODULES) >= 6
    for section in re.split(r"^#{2,3} ", text, flags=re.M)[1:]:
        assert "```bash" in section, section.splitlines()[0]
    defined = set(re.findall(r"^(\w+):", (_ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"^make (\w+)", text, re.M)) <= defined


def _in_the_tables_around(heading):
    """Names in the tables of docs/training.md before and after a heading."""
    before, after = _TRAINING.split(heading, 1)
    return [set(re.findall(r"^\| `(\w+)` \|", part, re.M)) for part in (before, after)]


def test_every_network_and_dataset_is_in_its_table():
    networks, datasets = _in_the_tables_around("\n## 1. Data\n")
    assert networks == set(trainable_networks()) and datasets == set(DATASETS)


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
        assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: page.name)
def test_links_lead_to_headings(page):
    for link, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", page.read_text()):
        text = (page.parent / link).read_text() if link else page.read_text()
        headings = re.findall(r"^#+ (.*)$", text, re.M)
        assert anchor in [re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-")
                          for line in headings], anchor


def test_the_recipe_for_a_network_works(tmp_path):
    """As the page says it: one new file, one line in the registry, one command."""
    page = (_ROOT / "docs" / "architecture.md").read_text()
    name, module = re.search(r"^```python file=(\S+)\n(.*?)^```", page, re.M | re.S).groups()
    entry = re.search(r"^```python entry\n(.*?)^```", page, re.M | re.S).group(1)
    command = re.search(r"^scripts/run ros2_pose (replay .*--network .*)$", page, re.M).group(1)
    shutil.copytree(_ROOT / "ros2_pose", tmp_path / "ros2_pose",
                    ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / name).write_text(module)
    registry = tmp_path / "ros2_pose" / "networks" / "registry.py"
    head, brace, rest = registry.read_text().partition("NETWORKS: dict[str, NetworkEntry] = {\n")
    assert brace
    registry.write_text(head + brace + entry + rest)
    _write_video(tmp_path / "walk.mp4", count=6)
    done = subprocess.run(
        [sys.executable, "-m", "ros2_pose.cli", *shlex.split(command)], cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "people.jsonl").read_text().splitlines()]
    assert [len(row["people"]) for row in rows] == [1] * 6
    assert rows[-1]["people"][0]["id"] == "p1"


def test_the_recipe_for_a_benchmark_works(tmp_path):
    from ros2_pose.evaluation import harness
    page = (_ROOT / "docs" / "architecture.md").read_text()
    names = {}
    exec(re.search(r"^```python benchmark\n(.*?)^```", page, re.M | re.S).group(1), names)
    options = harness.Options(data=tmp_path)
    assert "skipped: no my_data.npz" in harness.as_tables(harness.run(names["BENCHMARKS"], options))
    (tmp_path / "my_data.npz").touch()
    assert "| ours | 85" in harness.as_tables(harness.run(names["BENCHMARKS"], options))


def _write_video(path: Path, count: int) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (count, 240, 320, 3), np.uint8)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (320, 240))
    for picture in noise:
        writer.write(picture)
    writer.release()


def test_the_changelog_is_one_that_bloom_reads():
    changelog = pytest.importorskip("catkin_pkg.changelog", reason="a tool of ROS")
    text = (_ROOT / "CHANGELOG.rst").read_text()
    released = re.sub("Forthcoming\n-+", "0.1.0 (2026-01-01)\n------------------", text)
    read = changelog.populate_changelog_from_rst(changelog.Changelog("ros2_pose"), released)
    versions = {version: entries for version, _, entries in read.foreach_version()}
    assert versions.keys() == {"0.1.0"} and len(versions["0.1.0"][0].bullets) >= 5
