"""From motion capture to people in a picture, by the commands of docs/training.md."""

import json

import cv2
import numpy as np
import pytest

pytest.importorskip("transformers", reason="only where requirements.txt is installed")

from ros2_pose import cli
from ros2_pose.data import datasets
from ros2_pose.data.mocap import held_back
from ros2_pose.data.sample import DataError

_CONFIG = """
network: {backbone: movenet, input_size: 96, width: 32, decoder_layers: 1, heads: 4, points: 1,
          ffn: 32, queries: 6, roi_width: 16, roi_layers: 1}
training: {steps: 2, batch: 2, warmup: 1, workers: 0, vote_weight: 0.1}
"""


@pytest.fixture
def mocap(tmp_path, poses, monkeypatch):
    """A file of motion capture; synthetic datasets are small, and kept beside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "cache_dir", lambda: tmp_path)
    monkeypatch.setattr(datasets, "_SYNTHETIC_COUNTS", {"train": 4, "test": 3, "validation": 3})
    names = np.array([f"trial{number % 40:02}" for number in range(len(poses))])
    assert held_back(names).any() and not held_back(names).all()
    np.savez("mocap.npz", theta=poses.numpy(), src=names)
    return "mocap.npz"


def test_train_evaluate_replay(mocap, tmp_path, clip, capsys):
    (tmp_path / "tiny.yaml").write_text(_CONFIG)
    assert cli.main(["train", "tiny.yaml", "--data", "synthetic", mocap, "--held-back",
                     "synthetic", mocap, "--out", "run/tian.pt"]) == 0
    assert len((tmp_path / "run" / "tian.csv").read_text().splitlines()) == 2
    assert len(list((tmp_path / "synthetic" / "validation").glob("*.npz"))) == 3
    tian = ["--network", "tian", "--checkpoint", "run/tian.pt"]
    assert cli.main(["evaluate", "synthetic", mocap, "--pictures", "2", *tian]) == 0
    printed = capsys.readouterr().out
    for words in ("synthetic test, 2 pictures", "| box AP50 |", "| FPN + correction |"):
        assert words in printed
    cv2.imwrite("picture.png", clip[0][::4, ::4, ::-1])
    assert cli.main(["replay", "picture.png", "people.jsonl", *tian,
                     "--score-threshold", "0.0"]) == 0
    assert json.loads((tmp_path / "people.jsonl").read_text())["people"] is not None


def test_a_misspelt_key_is_named_before_anything_is_drawn(mocap, tmp_path, capsys):
    (tmp_path / "tiny.yaml").write_text(_CONFIG.replace("warmup", "warmpu"))
    assert cli.main(["train", "tiny.yaml", "--data", "synthetic", mocap, "--out", "a.pt"]) == 2
    assert "tiny.yaml: unknown setting 'warmpu'" in capsys.readouterr().err
    assert not (tmp_path / "synthetic").exists()


@pytest.mark.parametrize("name, root, split, words", [
    ("coconut", ".", "train", "unknown dataset 'coconut'"),
    ("synthetic", "mocap.npz", "held", "no split 'held'"),
    ("synthetic", "missing.npz", "train", "missing.npz is not motion capture")])
def test_data_that_is_not_there_is_named(mocap, name, root, split, words):
    with pytest.raises(DataError, match=words):
        datasets.load(name, root, split)


def test_every_part_of_a_mixture_is_seen_as_often():
    mixed = datasets.Mixed("abc", "d")
    assert [mixed[number] for number in range(len(mixed))] == ["a", "d", "b", "d", "c", "d"]


def test_the_parts_of_a_mixture_have_their_shares():
    mixed = datasets.Mixed("abcde", "xyz", shares=(3, 1))
    assert "".join(mixed[number] for number in range(len(mixed))) == "abcxdeaybcdz"
    assert len(mixed) == 12  # until each sample has come once
    assert list(datasets.Mixed("abc", shares=(3, 1))) == ["a", "b", "c"]
    with pytest.raises(DataError, match="3 shares for 2 datasets"):
        datasets.Mixed("abc", "d", shares=(1, 2, 1))
