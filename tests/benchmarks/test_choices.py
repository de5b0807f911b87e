"""The benchmark of choices tries each choice of the space, and marks those that are far worse than their neighbours."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.choices import (
    Change,
    Found,
    bases,
    changed,
    changes,
    choices_of,
    far_worse,
    jobs,
    main,
    spread,
    table,
    unreached,
)
from benchmarks.lib.runs import Setting
from nas.errors import ConfigError
from nas.types import Task
from search_spaces.unet.space import UNetSpace

DIGITS = Task(channels=1, classes=10, height=8, width=8, noise="gaussian:50")
SETTING = Setting(data="digits", subset=64, noise="gaussian:50", epochs=1)


@pytest.fixture(scope="module")
def found() -> dict[str, list[Change]]:
    return {name: changes(name, base, varied, DIGITS) for name, (base, varied) in bases(DIGITS, 9).items()}


def test_each_choice_of_each_hyperparameter_is_tried_or_said_to_be_another_one(found: dict[str, list[Change]]) -> None:
    assert unreached(DIGITS, bases(DIGITS, 9)) == []
    space = UNetSpace()
    shown: dict[str, set[Any]] = {name: set() for name in choices_of(DIGITS)}
    for rows in found.values():
        for change in rows:
            if change.same_as is None:
                shown[change.hyperparameter].add(space.encode(change.candidate)[change.hyperparameter])
    missing = {name: set(every) - shown[name] for name, every in choices_of(DIGITS).items()}
    assert all(set(every) <= set(choices_of(DIGITS)[name]) for name, every in space.choices(DIGITS).items())
    assert {name: lacking for name, lacking in missing.items() if lacking} == {"resampling": {"haar"}}


def test_one_hyperparameter_is_changed_and_what_it_switches_is_told(found: dict[str, list[Change]]) -> None:
    rows = {(change.hyperparameter, change.choice): change for change in found["unet++"]}
    base = bases(DIGITS, 9)["unet++"][0]
    rate = rows["learning_rate", 0.01]
    assert rate.candidate == changed(base, {"learning_rate": 0.01}, DIGITS)
    assert (rate.candidate.spec, rate.candidate.recipe.learning_rate) == (base.spec, 0.01)
    assert rate.switched == {}
    assert rate.over == ()
    assert rate.is_trained
    assert rows["learning_rate", 0.003].is_base
    assert not rows["learning_rate", 0.003].is_trained
    assert rows["resampling", "haar"].same_as == "average"
    assert not rows["resampling", "haar"].is_trained
    assert rows["update", "subtractive"].switched == {"fusion": "concat"}
    assert rows["width", 64].over == ("params", "macs")
    assert rows["width", 64].in_space
    assert rows["head_norm", "batch"].is_base
    assert rows["head_norm", "none"].is_trained
    assert not rows["head_norm", "none"].in_space


def test_what_the_references_switch_off_is_shown_on_a_third_network(found: dict[str, list[Change]]) -> None:
    assert list(found) == ["unet++", "nddr", "unet++, head_hidden 1"]
    assert {change.hyperparameter for change in found["unet++, head_hidden 1"]} == {"head_width"}
    assert "sharing" not in {change.hyperparameter for change in found["unet++"]}
    assert "sharing" in {change.hyperparameter for change in found["nddr"]}
    with pytest.raises(ConfigError, match="reference 'net' is unknown"):
        bases(DIGITS, 9, ["net"])


def test_a_new_choice_is_tried_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    known = UNetSpace.choices

    def more(self: UNetSpace, task: Task) -> dict[str, Sequence[Any]]:
        return {**known(self, task), "learning_rate": (0.003, 0.5)}

    monkeypatch.setattr(UNetSpace, "choices", more)
    base, varied = bases(DIGITS, 9)["unet++"]
    tried = [change for change in changes("unet++", base, varied, DIGITS) if change.hyperparameter == "learning_rate"]
    assert [(change.choice, change.is_trained) for change in tried] == [(0.003, False), (0.5, True)]


def test_one_seed_of_all_comes_before_the_next(found: dict[str, list[Change]]) -> None:
    networks = {name: base for name, (base, _) in bases(DIGITS, 9).items()}
    asked = [change for rows in found.values() for change in rows]
    plan = jobs(SETTING, networks, asked, 2)
    half = len(plan) // 2
    assert [job.seed for job in plan] == [0] * half + [1] * half
    assert [job.candidate for job in plan[:half]] == [job.candidate for job in plan[half:]]
    assert half == len(networks) + sum(change.is_trained for change in asked)


def of(psnr: Sequence[float], accuracy: float = 90.0, diverged: int = 0) -> Found:
    runs: list[Mapping[str, Any]] = [
        {"seed": seed, "psnr": value, "accuracy": accuracy, "stability": 0.7, "params": 1000, "macs": 2000}
        for seed, value in enumerate(psnr)
    ]
    lost = {"seed": len(psnr), "diverged": "loss is nan", "stability": 0.0, "params": 1000, "macs": 2000}
    return Found.of([*runs, *[lost] * diverged])


QUIET = {"psnr": 0.01, "accuracy": 0.1, "stability": 0.001}


def test_a_choice_far_below_the_median_of_the_others_is_marked() -> None:
    others = [of([20.0, 20.1]), of([19.9, 20.0]), of([12.0, 12.1])]
    assert far_worse(of([19.3, 19.4]), others, QUIET) == "psnr -0.60"
    assert far_worse(of([19.6, 19.7]), others, QUIET) == ""
    assert far_worse(of([20.0, 20.0], accuracy=80.0), others, QUIET) == "accuracy -10.0"
    # Under seeds that differ by a decibel, 0.6 dB says nothing.
    assert far_worse(of([19.3, 19.4]), others, {**QUIET, "psnr": 1.0}) == ""
    assert far_worse(of([19.3], diverged=1), others, QUIET) == "1 of 2 diverged"


def test_the_spread_is_the_median_deviation_between_seeds() -> None:
    assert spread([of([1.0, 3.0]), of([1.0, 5.0]), of([1.0, 1.0])], "psnr") == pytest.approx(2**0.5)
    assert spread([of([1.0])], "psnr") == 0.0


def test_differences_are_taken_between_the_same_seeds() -> None:
    assert of([20.0, 30.0, 40.0]).gain(of([19.0, 28.0]), "psnr") == pytest.approx(1.5)


def test_the_table_tells_values_costs_and_differences(found: dict[str, list[Change]]) -> None:
    asked = [change for change in found["unet++"] if change.hyperparameter in ("norm", "update", "resampling")]
    usual, worst = of([19.0, 19.2]), of([18.0, 18.2])
    rows = [(each, (worst if each.choice == "residual" else usual) if each.is_trained else None) for each in asked]
    lines = table("unet++", of([20.0, 20.2]), rows).splitlines()
    assert lines[2] == "| *unet++* | | 20.10 | 90.0 | 0.700 | 1,000 | 2,000 | | |"
    assert "| norm | batch | 20.10 | 90.0 | 0.700 | 1,000 | 2,000 | the base | |" in lines
    assert "| resampling | haar | | | | | | the same network as average | |" in lines
    costs = "90.0 | 0.700 | 1,000 | 2,000"
    told = [line for line in lines if line.startswith("| update | ")]
    assert told[1:] == [
        f"| update | residual | 18.10 | {costs} | -2.00 / +0.0 / +0.000 | **psnr -1.50** |",
        f"| update | subtractive | 19.10 | {costs} | -1.00 / +0.0 / +0.000 (with fusion concat) |  |",
    ]
    assert lines[-1].startswith("Means of 2 seeds; standard deviation between seeds, the median over rows: psnr 0.14")


@pytest.mark.slow
def test_a_small_run_goes_on_where_it_was_stopped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "runs.jsonl"
    asked = ["--epochs", "1", "--subset", "32", "--seeds", "1", "--workers", "1", "--results", str(file)]
    asked += ["--bases", "unet++", "--only", "prediction"]
    assert main(asked) == 0
    whole = capsys.readouterr().out
    first, second = file.read_text().splitlines()
    assert whole.startswith("### unet++\n")
    assert "| prediction | noise | " in whole
    file.write_text(f"{first}\n{second[:20]}")
    assert main([*asked, "--no-training"]) == 0
    assert "| prediction | noise | | | | | | not trained yet | |" in capsys.readouterr().out
    assert main(asked) == 0
    assert capsys.readouterr().out == whole
    again = file.read_text().splitlines()
    assert len(again) == 3
    assert again[0] == first
    assert json.loads(again[2])["psnr"] == json.loads(second)["psnr"]
    file.unlink()
    assert main([*asked, "--no-training"]) == 0
    assert capsys.readouterr().out == "### unet++\n\nNot trained yet.\n\n"
    assert main([*asked[:-1], "sharing_rate", "--no-training"]) == 0
    assert capsys.readouterr().out.startswith("Not shown: sharing_rate, which no choice of another hyperparameter")


def test_wrong_names_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for options, said in (
        (["--bases", "net"], "--bases net is no reference; choose among unet,"),
        (["--only", "hue"], "--only hue is no hyperparameter; choose among levels,"),
    ):
        with pytest.raises(SystemExit) as refused:
            main(options)
        assert refused.value.code == 2
        assert said in capsys.readouterr().err
