"""A network is one file and one entry: what follows from the entry, with a network made here."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

from ros2_pose import cli
from ros2_pose.config import ConfigError, PoseConfig, from_dict
from ros2_pose.networks.base import NetworkError
from ros2_pose.networks.registry import (
    NETWORKS,
    NetworkEntry,
    create_network,
    network_class,
    network_title,
)
from ros2_pose.people import Frame
from ros2_pose.pipeline import Pipeline
from ros2_pose.skeleton import COCO17

_FILE = '''
import numpy as np

from ros2_pose.networks.base import PoseNetwork
from ros2_pose.people import People


class Dummy(PoseNetwork):
    """Finds one person in the middle of every image, with made-up keypoints."""

    def find_people(self, frames):
        return [self._person(*frame.image.shape[1::-1]) for frame in frames]

    def _person(self, width, height):
        random = np.random.default_rng(0)
        keypoints = random.uniform(0.3, 0.7, (1, 17, 2)) * (width, height)
        box = np.array([[0.3 * width, 0.3 * height, 0.7 * width, 0.7 * height]])
        score = np.ones(1)
        cov = np.tile(9.0 * np.eye(2), (1, 17, 1, 1))
        return People(box, score, keypoints, cov, np.full((1, 17), 0.9))
'''


@pytest.fixture
def dummy(tmp_path, monkeypatch):
    """One file and one entry."""
    (tmp_path / "dummy_network.py").write_text(_FILE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(NETWORKS, "dummy", NetworkEntry("dummy_network:Dummy"))
    yield
    sys.modules.pop("dummy_network", None)


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)


def test_it_is_a_value_of_the_setting(dummy):
    assert from_dict(PoseConfig, {"network": "dummy"}).network == "dummy"
    with pytest.raises(ConfigError, match=", ".join(NETWORKS)):
        from_dict(PoseConfig, {"network": "dumy"})


def test_it_is_listed_in_the_help(dummy, capsys):
    from ros2_pose.nodes.launch_arguments import descriptions
    from ros2_pose.tools.parameter_file import text
    names = f"[{', '.join(NETWORKS)}]"
    file = " ".join(text().replace("#", " ").split())  # its comments are wrapped
    assert "dummy" in names and names in descriptions()["network"] and names in file
    with pytest.raises(SystemExit):
        cli.main(["replay", "--help"])
    assert names in " ".join(capsys.readouterr().out.split())


def test_it_runs_in_the_pipeline_and_in_replay(dummy, picture, tmp_path, capsys):
    pipeline = Pipeline(PoseConfig(network="dummy", body=False))
    people = pipeline.step(Frame(picture))
    assert pipeline.network_name == "dummy" and len(people) == 1
    cv2.imwrite(str(tmp_path / "picture.png"), picture)
    out = tmp_path / "people.jsonl"
    assert cli.main(["replay", str(tmp_path / "picture.png"), str(out), "--network", "dummy"]) == 0
    assert len(json.loads(out.read_text())["people"]) == 1
    assert "1 people" in capsys.readouterr().out


def test_reports_have_its_title(dummy):
    assert network_title(PoseConfig(network="dummy")) == "dummy"
    assert network_title(PoseConfig()) == "movenet, nanodet at 256, 512 px, thunder"
    assert network_title(PoseConfig(network="movenet")) == "movenet at 256, 512 px"
    assert network_title(PoseConfig(network="tian", checkpoint="a.pt")) == "tian, a.pt"
    assert list(create_network(PoseConfig(network="dummy")).variants()) == ["dummy"]


@pytest.mark.parametrize("find, message", [
    (lambda self, frames: [], "0 results for 1 frames"),
    (lambda self, frames: [None], "NoneType for a frame, expected People"),
    (lambda self, frames: [_with_nan(self._person(320, 240))], "keypoints that are not finite"),
    (lambda self, frames: [_changed(self, keypoint_cov=None)], "no keypoint_cov"),
    (lambda self, frames: [_changed(self, scores=np.array([5.0]))], "scores from 5 to 5"),
    (lambda self, frames: [_changed(self, keypoint_cov=np.zeros((1, 17, 2, 2)))],
     "keypoint_cov that is not positive definite")])
def test_what_violates_the_contract_is_refused(dummy, picture, monkeypatch, find, message):
    network = create_network(PoseConfig(network="dummy"))
    monkeypatch.setattr(type(network), "find_people", find)
    with pytest.raises(NetworkError, match=f"Dummy returned {message}"):
        network.detect([Frame(picture)])


def _changed(network, **fields):
    return network._person(320, 240).with_fields(**fields)


@pytest.mark.parametrize("path", ["dummy_network.Dummy", "dummy_network:Nothing", "nowhere:Dummy"])
def test_an_entry_that_leads_nowhere_is_named(dummy, monkeypatch, path):
    monkeypatch.setitem(NETWORKS, "dummy", NetworkEntry(path))
    with pytest.raises(ImportError, match=path):
        network_class("dummy")


def _with_nan(people):
    people.keypoints[0, COCO17.names.index("nose")] = np.nan
    return people


def test_entries_name_classes_and_functions_that_exist():
    pytest.importorskip("transformers", reason="only where requirements.txt is installed")
    from ros2_pose.networks.registry import layers_class, objective_class, trainable_networks
    assert all(network_class(name).__name__ for name in NETWORKS)
    assert trainable_networks()
    for name in trainable_networks():
        assert name == layers_class(name).NAME and callable(objective_class(name))


def test_settings_are_read_without_importing_a_network():
    code = ("import sys, ros2_pose.config; "
            "print([m for m in sys.modules if m == 'torch' or 'networks.' in m])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['ros2_pose.networks.registry']"
