"""Size and cost of networks: weights count once, and multiply-accumulates as by hand."""

import pytest
from torch import nn

from ros2_pose.config import PoseConfig
from ros2_pose.evaluation.benchmarks import systems
from ros2_pose.networks import nanodet, thunder
from ros2_pose.networks.base import TorchNetwork
from ros2_pose.networks.movenet import MoveNet, load_heads
from ros2_pose.networks.registry import NETWORKS, REFINERS, NetworkEntry, create_network
from ros2_pose.people import Frame, People


def count(module):
    return sum(weight.numel() for weight in module.parameters())


def test_weights_that_scales_share_count_once():
    network = MoveNet(PoseConfig())
    assert len(network.searches()) == 2
    assert systems.parameters(network) == count(network)


def test_a_network_of_networks_has_the_weights_of_all():
    expected = count(load_heads()) + count(nanodet.load_heads()) + count(thunder.load_heads())
    assert systems.parameters(create_network(PoseConfig())) == expected


def test_every_network_and_refiner_is_in_the_table():
    configs = systems.configurations()
    assert {config.network for config in configs} == set(NETWORKS)
    assert {config.refiner for config in configs} == set(REFINERS)


class OneConvolution(TorchNetwork):
    """A convolution of 3 to 8 channels, 3 x 3, on the picture as it is."""

    def __init__(self, config=PoseConfig(), device="cpu"):
        super().__init__(config, device)
        self.layer = nn.Conv2d(3, 8, 3, padding=1)

    def prepare(self, image):
        import torch
        return [torch.from_numpy(image.copy()).permute(2, 0, 1).float()]

    def forward(self, batch):
        return (self.layer(batch),)

    def decode(self, raw, frame):
        return People.nobody()


def test_multiply_accumulates_are_those_of_the_convolution(monkeypatch, clip):
    monkeypatch.setitem(NETWORKS, "one", NetworkEntry(f"{__name__}:OneConvolution"))
    height, width = clip[0].shape[:2]
    found = systems.macs(PoseConfig(network="one"), [Frame(clip[0])])
    assert found == pytest.approx(height * width * 3 * 8 * 9)
