"""Heads that learn equally: from one detector, on the same pictures, scored alike."""

from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="only where requirements.txt is installed")

from ros2_pose.body.model import BodyModel
from ros2_pose.data.synthetic.pictures import SyntheticPictures
from ros2_pose.networks.checkpoint import save_checkpoint
from ros2_pose.networks.tian.config import TianConfig
from ros2_pose.networks.tian.network import TianNet
from ros2_pose.tools import ablation
from ros2_pose.training.config import TrainingConfig

_TINY = TianConfig(input_size=96, width=32, decoder_layers=2, heads=4, points=1, ffn=32, queries=6,
                   roi_width=16, roi_layers=1)
_SETTINGS = TrainingConfig(steps=2, batch=2, warmup=1, rate=1e-3, workers=0, log_every=1,
                           parts="people", vote_weight=0.1)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return TianNet(_TINY)


@pytest.fixture(scope="module")
def samples(poses):
    pictures = SyntheticPictures(poses, 1, (96, 96), people=2, model=BodyModel.load())
    return [pictures[i] for i in range(3)]


@pytest.fixture(scope="module")
def outcomes(net, samples, tmp_path_factory):
    folder = tmp_path_factory.mktemp("heads")
    return {name: ablation.learned(name, net, _SETTINGS, samples, samples, samples,
                                  folder / f"{number}.pt")
            for number, name in enumerate(ablation.VARIANTS)}


def test_a_new_head_finds_the_same_people_and_says_something_else_of_them(net):
    new = ablation.with_new_head(net, features="direct", keypoints="heatmap")
    for (name, weight), was in zip(new.detr.state_dict().items(), net.detr.state_dict().values(),
                                   strict=True):
        assert torch.equal(weight, was), name
    assert new.config == replace(net.config, features="direct", keypoints="heatmap")
    one, other = (ablation.with_new_head(net, keypoints=keypoints).state_dict()
                  for keypoints in ("kblock", "heatmap"))
    assert all(torch.equal(one[name], other[name]) for name in one)  # all start alike


def test_variants_differ_in_what_they_are_named_for_alone(net):
    kinds = {name: (ablation.with_new_head(net, **network).config, replace(_SETTINGS, **training))
             for name, (network, training) in ablation.VARIANTS.items()}
    network, training = kinds.pop(ablation.KBLOCK)
    assert training == _SETTINGS
    assert kinds == {"k-block, L_KB alone": (network, replace(training, vote_weight=0.0)),
                     ablation.HEATMAP: (replace(network, keypoints="heatmap"), training),
                     ablation.DIRECT_KBLOCK: (replace(network, features="direct"), training),
                     ablation.SECOND_LOOK: (replace(network, second_look=True, cells=64), training)}


def test_both_tables_have_a_row_for_each_variant(outcomes):
    text = ablation.report(outcomes, "three pictures")
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0][2:] for line in lines] == [
        "", "---", *ablation.VARIANTS, "", "---", "direct multi-scale", "FPN",
        "FPN + correction"]
    assert "after 1 steps | after 2 steps" in lines[0]
    for curve, reading_ms, _ in outcomes.values():
        assert list(curve) == [1, 2] and np.isfinite(list(curve.values())).all()
        assert reading_ms > 0
    curves = [tuple(curve.values()) for curve, _, _ in outcomes.values()]
    assert len(set(curves)) == len(curves)


def test_what_is_finished_is_not_trained_again(outcomes, net, samples, tmp_path, monkeypatch):
    def learned():
        return ablation.learned(ablation.KBLOCK, net, _SETTINGS, samples, samples, samples,
                               tmp_path / "head.pt")

    curve, _, scores = learned()
    assert curve == outcomes[ablation.KBLOCK][0]
    monkeypatch.setattr(ablation, "train", None)
    _, _, again = learned()
    assert again == scores or np.isnan(scores["FPN"].keypoint_error)


def test_the_command_prints_the_tables(net, samples, tmp_path, monkeypatch, capsys):
    save_checkpoint(tmp_path / "net.pt", net, "")
    (tmp_path / "net.yaml").write_text("training: {batch: 2, workers: 0}\n")
    monkeypatch.setattr(ablation, "opened", lambda words, split: samples)
    monkeypatch.setattr("sys.argv", ["compare", str(tmp_path / "net.pt"),
                                     str(tmp_path / "net.yaml"), "--data", "synthetic", "x",
                                     "--held-back", "synthetic", "x", "--steps", "1",
                                     "--out", str(tmp_path / "heads")])
    ablation.main()
    assert "| FPN + correction |" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "heads").glob("*.pt")) == [
        "heat-map.pt", "k-block.pt", "k-block_L_KB_alone.pt", "k-block_direct_multi-scale.pt",
        "k-block_second_look.pt"]
