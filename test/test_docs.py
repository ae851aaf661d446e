"""The pages beside the README: their commands, files and links exist."""

import re
import shlex
from pathlib import Path

import pytest

from ros2_pose import cli
from ros2_pose.data.datasets import DATASETS

_ROOT = Path(__file__).parent.parent
_TRAINING = (_ROOT / "docs" / "training.md").read_text()
_COMMANDS = [line for block in re.findall(r"```bash\n(.*?)```", _TRAINING, re.S)
             for line in block.splitlines() if "ros2_pose" in line and "launch" not in line]


@pytest.mark.parametrize("command", _COMMANDS)
def test_commands_of_the_training_page_are_understood(command):
    words = shlex.split(re.split(r"ros2_pose(?:\.cli)? ", command, maxsplit=1)[1])
    options = cli._parser().parse_args(words)
    for word in words:
        if word.startswith("config/"):
            assert (_ROOT / word).exists()
    for name, *_ in getattr(options, "data", []) if words[0] == "train" else []:
        assert name in DATASETS


def test_every_dataset_is_in_the_table():
    assert set(re.findall(r"^\| `(\w+)` \|", _TRAINING, re.M)) == set(DATASETS)


@pytest.mark.parametrize("page", sorted([*_ROOT.glob("*.md"), *_ROOT.glob("docs/*.md")]),
                         ids=lambda page: page.name)
def test_links_lead_to_files(page):
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text()):
        assert (page.parent / link).exists(), link


def test_the_changelog_is_one_that_bloom_reads():
    changelog = pytest.importorskip("catkin_pkg.changelog", reason="a tool of ROS")
    text = (_ROOT / "CHANGELOG.rst").read_text()
    released = re.sub("Forthcoming\n-+", "0.1.0 (2026-01-01)\n------------------", text)
    read = changelog.populate_changelog_from_rst(changelog.Changelog("ros2_pose"), released)
    versions = {version: entries for version, _, entries in read.foreach_version()}
    assert versions.keys() == {"0.1.0"} and len(versions["0.1.0"][0].bullets) >= 5
