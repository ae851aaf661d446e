"""Calibration of a trained network: from errors of a known size the constants are found again."""

import numpy as np
import pytest
import torch

pytest.importorskip("transformers", reason="only where requirements.txt is installed")

from ros2_pose.networks.checkpoint import load_checkpoint, save_checkpoint
from ros2_pose.networks.tian.config import TianConfig
from ros2_pose.networks.tian.network import TianNet
from ros2_pose.skeleton import COCO17
from ros2_pose.training import calibrate as module
from ros2_pose.training.calibrate import cross_validated, fit_keypoints, fit_variance, main

_VOTES, _FLOOR = 0.6, 0.02**2


def drawn(people, seed=0, outliers=0.0):
    """Deviations and errors (N, 17, 2) whose variance is votes * c^2 + floor."""
    random = np.random.default_rng(seed)
    deviations = np.exp(random.normal(-3.5, 0.7, (people, 17, 2)))
    errors = random.normal(0, np.sqrt(_VOTES * deviations**2 + _FLOOR))
    gross = random.random(errors.shape) < outliers
    return deviations, np.where(gross, random.normal(0, 1.0, errors.shape), errors)


@pytest.mark.parametrize("outliers", [0.0, 0.02])
def test_constants_are_found_again_whatever_a_few_outliers_say(outliers):
    deviations, errors = drawn(1000, outliers=outliers)
    votes, floor = fit_variance(deviations.ravel(), errors.ravel())
    assert votes == pytest.approx(_VOTES, rel=0.15) and floor == pytest.approx(_FLOOR, rel=0.25)


def test_left_and_right_share_constants_and_rare_joints_have_none(caplog):
    deviations, errors = drawn(60)
    errors[20:, COCO17.index("nose")] = np.nan  # 40 of the 50 that are needed
    votes, floor = fit_keypoints(deviations, errors)
    assert (votes == votes[list(COCO17.mirror)]).all() and "nose: 40 errors" in caplog.text
    nose = COCO17.index("nose")
    assert votes[nose] == 1 and floor[nose] == 0 and (np.delete(floor, nose) > 0).all()


@pytest.mark.parametrize("share, limit", [(0.68, 2.279), (0.95, 5.991)])
def test_cross_validated_errors_are_inside_as_often_as_stated(share, limit):
    distance2 = cross_validated(*drawn(1500))
    assert np.mean(distance2 <= limit) == pytest.approx(share, abs=0.01)


def test_a_half_that_differs_shows(caplog):
    deviations, errors = drawn(400)
    errors[200:] *= 5  # judged by the constants of the first half
    distance2 = cross_validated(deviations, errors)
    assert np.mean(distance2[200:] <= 5.991) < 0.4 < 0.99 < np.mean(distance2[:200] <= 5.991)


def test_the_command_writes_the_checkpoint(tmp_path, monkeypatch, capsys):
    torch.manual_seed(0)
    net = TianNet(TianConfig(input_size=96, width=32, decoder_layers=2, heads=4, points=1, ffn=32,
                             queries=6, roi_width=16, roi_layers=1))
    save_checkpoint(tmp_path / "net.pt", net, "abc")
    deviations, errors = drawn(500)
    nothing = np.full((500, 24), np.nan)
    monkeypatch.setattr(module, "_collect", lambda *_: (deviations, errors, nothing, nothing))
    monkeypatch.setattr(module, "opened", lambda words: [])
    main([str(tmp_path / "net.pt"), "--data", "labelled", "x", "--out", str(tmp_path / "new.pt")])
    assert "68 / 95 % ellipses" in capsys.readouterr().out
    again = load_checkpoint(tmp_path / "new.pt")
    assert again.votes.mean().item() == pytest.approx(_VOTES, rel=0.2)
    assert torch.load(tmp_path / "new.pt", weights_only=True)["commit"] == "abc"
    assert (load_checkpoint(tmp_path / "net.pt").votes == 1).all()
