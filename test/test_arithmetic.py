"""Computed cost of the default network: layers counted by hand, turns of the search, times."""

import numpy as np
import pytest
import torch
from torch import nn

from ros2_pose.evaluation.benchmarks import arithmetic
from ros2_pose.networks import nanodet, thunder
from ros2_pose.networks.base import letterbox


def convolution_by_hand(conv, height, width):
    """MACs and bytes in half precision of a convolution of a picture, padded to keep its size."""
    stride = conv.stride[0]
    outputs = (height // stride) * (width // stride)
    taps = conv.kernel_size[0] * conv.kernel_size[1] * conv.in_channels // conv.groups
    moved = (height * width * conv.in_channels + outputs * conv.out_channels
             + conv.out_channels * taps + conv.out_channels)
    return outputs * conv.out_channels * taps, 2 * moved


@pytest.mark.parametrize("stride, groups", [(1, 1), (2, 1), (1, 4), (2, 4)])
def test_a_convolution_is_counted_as_by_hand(stride, groups):
    conv = nn.Conv2d(4, 8, 3, stride, padding=1, groups=groups)
    expected = convolution_by_hand(conv, 24, 16)
    found = arithmetic.counted(conv, torch.rand(1, 4, 24, 16))
    assert (found.macs, found.bytes) == expected
    assert found.largest == found.bytes


def test_a_matrix_product_is_counted_as_by_hand():
    found = arithmetic.counted(nn.Linear(5, 7), torch.rand(3, 5))
    assert found.macs == 3 * 5 * 7
    assert found.bytes == 2 * (3 * 5 + 5 * 7 + 7 + 3 * 7)


def test_layers_add_up_and_what_lies_between_them_is_free():
    first, second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 1)
    image = torch.rand(1, 3, 8, 8)
    one, two = arithmetic.counted(first, image), arithmetic.counted(second, first(image))
    both = arithmetic.counted(nn.Sequential(first, nn.ReLU(), second), image)
    assert (both.macs, both.bytes) == (one.macs + two.macs, one.bytes + two.bytes)
    assert both.largest == max(one.bytes, two.bytes)


def test_a_network_costs_the_sum_of_its_convolutions():
    layers = thunder.load_heads()
    by_hand = []

    def note(conv, _, output):
        by_hand.append(output.numel() * conv.weight[0].numel())

    for conv in layers.modules():
        if isinstance(conv, nn.Conv2d):
            conv.register_forward_hook(note)
    found = arithmetic.of_image(layers, (96, 64))
    assert by_hand and found.macs == sum(by_hand)


def test_inference_mode_changes_nothing():
    layer, rows = nn.Linear(5, 7), torch.rand(3, 5)
    expected = arithmetic.counted(layer, rows)
    with torch.inference_mode():
        found = arithmetic.counted(layer, rows)
    assert (found.macs, found.bytes) == (expected.macs, expected.bytes)


def test_without_people_each_image_is_searched_as_a_whole():
    assert all(sorted(image) == ["movenet 256", "movenet 512", "nanodet"]
               for image in arithmetic.calls(0, 8))


@pytest.mark.parametrize("people", [1, 3, 8, 10])
def test_each_person_is_refined_and_searches_take_turns(people):
    first, *others = arithmetic.calls(people, 8)
    assert all(image.count("thunder") == people for image in (first, *others))
    assert {"movenet 256", "movenet 512", "nanodet"} < set(first)
    small = sum("movenet 256" in image for image in others)
    large = sum("movenet 512" in image for image in others)
    assert small == sum("nanodet" in image for image in others)
    if people > 8:
        assert small == len(others)
    else:
        assert large < small < len(others) / 4
        assert not any({"movenet 256", "movenet 512"} <= set(image) for image in others)


@pytest.mark.parametrize("scale", [256, 512, nanodet._LONG_SIDE])
def test_inputs_have_the_size_that_finders_make(scale):
    width, height = arithmetic.padded(scale)
    assert letterbox(np.zeros((480, 640, 3), np.uint8), scale).shape == (height, width, 3)
    assert arithmetic._NANODET_PX == nanodet._LONG_SIDE


@pytest.mark.parametrize("module", arithmetic.MODULES)
def test_a_network_takes_as_long_as_its_slower_part(module):
    peak, bandwidth = arithmetic.MODULES[module]
    macs, moved = 1e9, 1e8
    computing = 2 * macs / (arithmetic.SHARE_OF_PEAK * peak * 1e12)
    moving = moved / (arithmetic.SHARE_OF_BANDWIDTH * bandwidth * 1e9)
    assert arithmetic.seconds((macs, 0), module) == pytest.approx(computing)
    assert arithmetic.seconds((0, moved), module) == pytest.approx(moving)
    assert arithmetic.seconds((macs, moved), module) == pytest.approx(max(computing, moving))


def test_the_cost_of_a_fit_grows_with_its_iterations():
    costs = [arithmetic.fit_macs(iterations) for iterations in range(4)]
    steps = {after - before for before, after in zip(costs, costs[1:])}
    assert len(steps) == 1 and steps.pop() > costs[0] == 34 * 85**2
