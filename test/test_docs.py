"""The pages in docs: their commands exist, and the files of ours that they name."""

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
