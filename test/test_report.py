"""The report on a network: what the network cannot give is said."""

import pytest

from ros2_pose.config import PoseConfig
from ros2_pose.data.synthetic.pictures import SyntheticPictures
from ros2_pose.evaluation import report as module


@pytest.mark.parametrize("network", ["movenet", "top_down"])
def test_a_network_without_bodies_says_so_in_one_line(poses, monkeypatch, network):
    pictures = SyntheticPictures(poses, 1, (128, 128), people=1)
    monkeypatch.setattr(module, "load", lambda *_: [pictures[0]])
    text = module.report(PoseConfig(network=network), "synthetic", None, "test")
    lines = [line for line in text.splitlines() if "gives no 3D" in line]
    assert len(lines) == 1
    assert network in lines[0] and "fit" in lines[0]
    assert "+ fit" in text
