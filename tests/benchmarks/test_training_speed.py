"""The benchmark of training compares what it says, and a tiny run of it goes from timing to table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import training
from benchmarks.training import (
    NETWORKS,
    SIZES,
    candidate,
    differences,
    enlarged,
    faster,
    judged,
    main,
    missing,
    ours,
    people,
    quality_table,
    speed_table,
    study_steps,
    subject,
)
from nas.data.splits import load
from nas.training.batches import DeviceData
from nas.types import Task
from search_spaces import get_space

CPU = torch.device("cpu")


def test_the_networks_span_ten_thousand_to_two_million_parameters_at_every_size() -> None:
    space = get_space("unet")
    for side, channels in SIZES.items():
        task = Task(channels=channels, classes=10, height=side, width=side, noise=training.NOISE)
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
    record = {"side": 64, "network": "unet", "params": 10, "images": 64, "chosen": "bf16", "seconds": seconds}
    lines = speed_table([record]).splitlines()
    assert lines[2] == "| 64x64 | unet | 10 | 32 | 2.00 | 1.00 | bf16 | 1.00 | 0.82 |"
    assert "median 1.00, least 1.00, most 1.00 of 1" in lines[4]
    assert "median 0.82" in lines[5]


def _values(seed: int, precision: str, psnr: float) -> dict[str, object]:
    values = {"psnr": psnr, "accuracy": 50.0, "stability": 0.5}
    return {"network": "unet", "seed": seed, "precision": precision, "values": values}


def test_quality_is_compared_in_pairs() -> None:
    records = [_values(seed, "fp32", 15.0 + seed) for seed in range(5)]
    lost = [_values(seed, "bf16", 14.0 + seed - 0.01 * seed) for seed in range(4)]
    assert differences([*records, *lost], "psnr") == pytest.approx([-1.0, -1.01, -1.02, -1.03])
    assert judged([*records, *lost], "psnr").outcome == "against"
    equal = [_values(seed, "bf16", 15.0 + seed - 0.01 * seed) for seed in range(5)]
    assert judged([*records, *equal], "psnr").outcome == "for"
    assert "| psnr | 17.000 | 16.980 | -0.020 [" in quality_table([*records, *equal])


def test_what_is_finished_is_not_measured_again(tmp_path: Path) -> None:
    asked = [{"side": 8}, {"side": 28}]
    file = tmp_path / "speed.jsonl"
    first = missing(asked[:1], file, lambda what: {"found": what["side"]})
    both = missing(asked, file, lambda what: {"found": -what["side"]})
    assert both[0] == first[0]
    assert [record["found"] for record in both] == [8, -28]


@pytest.fixture
def threads() -> Iterator[None]:
    """The benchmark sets the number of torch's threads; afterwards it is as before."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_a_small_run_ends_in_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quality = ["--quality", "--networks", "1", "--seeds", "1", "--epochs", "1", "--device", "cpu"]
    assert main([*quality, "--results", str(tmp_path)]) == 0
    assert [line.split(" | ")[0] for line in capsys.readouterr().out.splitlines()[2:]] == [
        "| psnr",
        "| accuracy",
        "| stability",
    ]
    assert len((tmp_path / "quality.jsonl").read_text().splitlines()) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("threads")
def test_speed_is_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--sides", "8", "--networks", "1", "--device", "cpu", "--results", str(tmp_path)]
    assert main(options) == 0
    assert "| 8x8 | unet | 10,219 |" in capsys.readouterr().out
