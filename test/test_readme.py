"""The README: its Python runs, its commands work, its links and topics exist."""

import re
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest

from ros2_pose import cli
from ros2_pose.offline import demo_clip

_ROOT = Path(__file__).parents[1]
_TEXT = (_ROOT / "README.md").read_text()
_BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", _TEXT, re.M | re.S)


def _lines(language: str) -> list[str]:
    """Commands of all blocks of a language, comments removed."""
    lines = (line.split("  #")[0].strip() for kind, block in _BLOCKS if kind == language
             for line in block.splitlines())
    return [line for line in lines if line]


@pytest.fixture
def recordings(tmp_path, monkeypatch, clip):
    """A folder with the files that the README's examples name."""
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("people.jpg", clip[0][..., ::-1])
    demo_clip.write_bag(tmp_path / "my_bag", count=3)
    writer = cv2.VideoWriter("walk.mp4", cv2.VideoWriter_fourcc(*"mp4v"), 10, (544, 960))
    for picture in clip[:3]:
        writer.write(picture[..., ::-1])
    writer.release()
    return tmp_path


def test_python_snippet_runs(recordings):
    snippets = [block for kind, block in _BLOCKS if kind == "python"]
    assert len(snippets) == 1
    names = {}
    exec(snippets[0], names)
    people = names["people"]
    assert people.ids == ("p1", "p2", "p3") and people.joints.shape == (3, 24, 3)
    assert np.isfinite(people.root).all() and (people.root[:, 2] > 1).all()


def test_replay_commands_run(recordings):
    commands = [line for line in _lines("bash") if line.startswith("ros2_pose ")]
    assert len(commands) == 2
    for command in commands:
        assert cli.main(shlex.split(command)[1:]) == 0
    assert (recordings / "people_bag" / "metadata.yaml").exists()
    assert (recordings / "people.jsonl").stat().st_size > 1000
    assert (recordings / "overlay.mp4").stat().st_size > 1000


def test_it_is_short():
    assert len(_TEXT.splitlines()) <= 150


def test_make_targets_exist():
    named = set(re.findall(r"\bmake (\w+)", _TEXT))
    assert {"demo", "test", "bench", "soak"} <= named
    defined = set(re.findall(r"^(\w+):", (_ROOT / "Makefile").read_text(), re.M))
    assert named <= defined


def test_launch_commands_name_files_and_arguments_that_exist():
    launches = [shlex.split(line.partition("ros2 launch ")[2]) for line in _lines("bash")
                if "ros2 launch" in line]
    assert len(launches) == 4
    pose = (_ROOT / "launch" / "pose.launch.py").read_text()
    for package, name, *arguments in launches:
        text = (_ROOT / "launch" / name).read_text() + pose
        assert package == "ros2_pose"
        for argument in arguments:
            assert f'"{argument.partition(":=")[0]}"' in text, argument


def test_links_lead_to_files():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", _TEXT)
    assert "docs/overview.jpg" in links and len(links) > 8
    for link in links:
        assert (_ROOT / link).exists(), link


def test_every_topic_of_the_node_is_in_the_table():
    nodes = "".join(path.read_text() for path in (_ROOT / "ros2_pose" / "nodes").glob("*.py"))
    published = {*re.findall(r'create_publisher\(\w+, "([^"]+)"', nodes),
                 *re.findall(r'topic, package = "([^"]+)"', nodes), "~/overlay"}
    assert len(published) >= 9
    table = "".join(line for line in _TEXT.splitlines() if line.startswith("| `"))
    for topic in published:
        assert f"`{topic}" in table, topic
