"""The two training loops that are timed take the same steps, on the same enlarged digits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.lib.loops import NETWORKS, NOISE, SIZES, candidate, enlarged, faster, ours, people, study_steps, subject
from nas.data.splits import load
from nas.training.batches import DeviceData
from nas.types import Task
from search_spaces import get_space

CPU = torch.device("cpu")


def test_the_networks_span_ten_thousand_to_two_million_parameters_at_every_size() -> None:
    space = get_space("unet")
    for side, channels in SIZES.items():
        task = Task(channels=channels, classes=10, height=side, width=side, noise=NOISE)
        params = [space.cost(candidate(name, width, 1).spec, task).params for name, width in NETWORKS]
        assert len(params) == 6
        assert params == sorted(params)
        assert params[0] == pytest.approx(10_000, rel=0.05)
        assert params[-1] == pytest.approx(2_000_000, rel=0.05)


def test_digits_are_enlarged_and_repeated() -> None:
    digits = load("digits")
    large = enlarged(digits, 16, 3, len(digits.train.images) + 2)
    assert large.train.images.shape == (len(digits.train.images) + 2, 3, 16, 16)
    assert large.train.images.dtype == np.uint8
    np.testing.assert_array_equal(large.train.images[-2:], large.train.images[:2])
    np.testing.assert_array_equal(large.train.images[:, 0], large.train.images[:, 2])
    same = enlarged(digits, 8, 1, 10)
    small = digits.train.images[:10]
    np.testing.assert_array_equal(same.train.images, small if small.dtype == np.uint8 else np.rint(255 * small))


def test_both_loops_take_the_same_steps_and_learn() -> None:
    on = subject(8, "unet", 4, steps=5)
    assert len(on.data.train.images) == 5 * on.recipe.batch_size
    space = get_space("unet")
    data = DeviceData.of(on.data, on.task, CPU)
    for make in (lambda net: people(net, on, CPU), lambda net: ours(net, on, data, "fp32")[0]):
        torch.manual_seed(0)
        network = space.build(on.candidate.spec, on.task)
        before = [parameter.detach().clone() for parameter in network.parameters()]
        make(network)()
        assert all(not torch.equal(old, new) for old, new in zip(before, network.parameters(), strict=True))
        norm = next(module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d))
        assert norm.num_batches_tracked == 5


def test_ratios_are_taken_within_rounds_and_probes_counted_by_the_length_of_a_run() -> None:
    seconds = {"people": [1.0, 2.0, 9.0], "fp32": [1.0, 1.0, 1.0], "bf16": [2.0, 2.0, 2.0]}
    seconds |= {"fp32, probes": [0.0, 0.0, 0.0], "bf16, probes": [0.4, 0.4, 0.4]}
    assert faster(seconds, "fp32") == 2.0
    assert faster(seconds, "bf16") == 1.0
    # A probe for every fifth step is what was timed, and what a run of 1,000 steps has.
    assert faster(seconds, "bf16", 1000) == pytest.approx(2.0 / 2.4)
    assert study_steps(8) == 918
    assert study_steps(64) == 27 * 3125
