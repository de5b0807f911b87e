"""A study of latency: what is asked, kept and tried before it begins, and whose figures are not mixed."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from study_samples import Driver, make_config
from torch import nn

import studies.commands.latency as asked
from nas.bundles import latency
from nas.errors import ConfigError, StudyError
from nas.settings import RunOptions, StudyConfig, kept_settings
from nas.types import LatencySetting, Task
from studies.commands.confirm import confirm_study
from studies.commands.search import Search, prepare
from studies.reading.versions import latency_line
from studies.settings import ConfirmRequest, SearchRequest

HERE = LatencySetting(height=8, width=8, threads=1, provider="cpu")


MADE: dict[object, bytes] = {}


@pytest.fixture(autouse=True)
def _made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exporters take seconds, so that networks of one shape have one program here."""
    make = latency.program

    def program(build: Callable[[], nn.Module], task: Task, setting: LatencySetting) -> bytes:
        network = build()
        key = (str(network), task, setting.height, setting.width, setting.batch)
        if key not in MADE:
            MADE[key] = make(lambda: network, task, setting)
        return MADE[key]

    monkeypatch.setattr(latency, "program", program)


def prepared(folder: Path, trials: int = 2, **given: Any) -> Search:
    request = SearchRequest(
        study="new",
        storage=f"sqlite:///{folder / 's.db'}",
        precision="fp32",
        baselines=False,
        objectives=("psnr", "latency"),
    )
    return prepare(replace(request, **given), RunOptions(trials=trials))


def command(folder: Path, text: str) -> str:
    """A command that counts its runs in the file ``runs``."""
    count = f"from pathlib import Path; Path({str(folder / 'runs')!r}).open('a').write('x'); "
    return shlex.join([sys.executable, "-c", count + text, "{model}"])


def runs(folder: Path) -> int:
    file = folder / "runs"
    return len(file.read_text()) if file.exists() else 0


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[LatencySetting]:
    """The settings that were tried before a search, without measuring anything."""
    found: list[LatencySetting] = []
    monkeypatch.setattr(
        "studies.commands.search.try_latency", lambda space, task, limits, setting: found.append(setting)
    )
    monkeypatch.setattr("studies.commands.search.largest_latency", lambda *given: 50.0)
    return found


def test_a_new_study_keeps_where_its_latency_is_measured(tmp_path: Path, tried: list[LatencySetting]) -> None:
    config = prepared(tmp_path, latency_size="64x96").ledger.config
    wanted = LatencySetting(height=64, width=96, threads=1, provider="cpu")
    assert config.latency == wanted
    assert kept_settings(config)["latency_size"] == "64x96"
    assert prepared(tmp_path).ledger.config == config
    assert prepared(tmp_path, latency_threads=1).ledger.config == config
    assert tried == [wanted] * 3
    with pytest.raises(StudyError, match="latency size: study has 64x96, asked for 32x32"):
        prepared(tmp_path, latency_size="32x32")
    with pytest.raises(StudyError, match=r"latency command: study has none, asked for measure \{model\}"):
        prepared(tmp_path, latency_command="measure {model}")
    assert prepared(tmp_path, study="other", objectives=("psnr",)).ledger.config.latency is None
    assert len(tried) == 3


def test_a_command_is_tried_on_a_small_network_and_on_a_large_one(tmp_path: Path) -> None:
    """The small one may fail soon, and the time of the large one tells from where the hypervolume is measured."""
    text = "import os, sys; print(os.path.getsize(sys.argv[1]) / 1000)"
    search = prepared(tmp_path, latency_command=command(tmp_path, text))
    config, space = search.ledger.config, search.space
    assert runs(tmp_path) == 2
    specs = asked._by_size(space, config.task, config.constraints)
    costs = [space.cost(spec, config.task).macs for spec in specs]
    assert costs == sorted(costs)
    assert len(costs) == asked.DRAWN
    assert config.latency is not None
    file = tmp_path / "largest.onnx"
    file.write_bytes(latency.program(lambda: space.build(specs[-1], config.task), config.task, config.latency))
    most = next(limit.upper for limit in config.constraints if limit.name == "macs")
    reference = {each.name: each.reference for each in config.objectives}["latency"]
    assert reference == pytest.approx(file.stat().st_size / 1000 * most / costs[-1])
    assert config.latency is not None
    assert (config.latency.size, config.latency.threads, config.latency.provider) == ("8x8", None, None)


@pytest.mark.parametrize(
    ("text", "told"), [("print(5)", True), ("import sys, os; print(os.path.getsize(sys.argv[1]))", False)]
)
def test_a_command_that_prints_one_value_for_all_networks_is_remarked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, told: bool
) -> None:
    prepared(tmp_path, latency_command=command(tmp_path, text))
    lines = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert bool(lines) is told
    if told:
        assert re.fullmatch(
            r"the latency command prints 5 ms for a small network and for one of [\d,]+ MACs; if it does not run the "
            r"program that takes the place of \{model\}, stop the search and mend it",
            *lines,
        )


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"latency_command": "no-such-program {model}"},
            r"`latency_command`: 'no-such-program \{model\}' cannot be started \(No such file",
        ),
        ({"latency_provider": "npu"}, r"`latency_provider`: ONNX Runtime [0-9.]+ has no provider 'npu' here"),
    ],
)
def test_what_cannot_measure_is_refused_before_anything_is_made(
    tmp_path: Path, given: dict[str, str], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        prepared(tmp_path, **given)
    assert not list(tmp_path.iterdir())


def test_a_stored_command_is_not_run_until_it_is_given_again(tmp_path: Path) -> None:
    """A study may come from a stranger."""
    own = command(tmp_path, "print(3)")
    made = prepared(tmp_path, latency_command=own)
    Driver(made.ledger).complete(latency=3.0)
    before = runs(tmp_path)
    for given in ({}, {"latency_size": "8x8"}):
        with pytest.raises(StudyError, match="and none was given: give it as `latency_command`, if you trust it"):
            prepared(tmp_path, **given)
    with pytest.raises(StudyError, match=r"latency command: study has .*, asked for other \{model\}"):
        prepared(tmp_path, latency_command="other {model}")
    with pytest.raises(StudyError, match="and none was given"):
        confirm_study(made.study, ConfirmRequest())
    with pytest.raises(StudyError, match="and none was given"):
        replace(made, latency_command=None).run(RunOptions(trials=2, concurrency=1))
    assert runs(tmp_path) == before
    assert prepared(tmp_path, latency_command=own).ledger.config == made.ledger.config
    assert runs(tmp_path) == before + 1
    prepared(tmp_path, trials=1, latency_command=own)
    assert runs(tmp_path) == before + 1, "the study is as large as it should be"


def test_an_own_space_whose_networks_cannot_be_exported_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*given: Any) -> bytes:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(latency, "program", broken)
    with pytest.raises(RuntimeError, match="no such operator"):  # in a space of the project it is a bug
        prepared(tmp_path)
    monkeypatch.setattr(asked, "SPACES", {})
    told = r"latency cannot be measured: a network of unet cannot be exported for an image of 8x8 \(no such operator\)"
    with pytest.raises(ConfigError, match=told):
        prepared(tmp_path)


def old(config: StudyConfig) -> StudyConfig:
    return replace(config, latency=None)


def test_a_study_of_eager_latency_is_read_and_goes_on_no_more(
    tmp_path: Path, tried: list[LatencySetting], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = prepared(tmp_path)
    Driver(made.ledger).complete()
    monkeypatch.setattr(StudyConfig, "from_dict", classmethod(lambda cls, value: old(made.ledger.config)))
    told = "study 'new' has the latency of eager PyTorch as an objective, .*; begin another study, with its front by"
    with pytest.raises(StudyError, match=told):
        prepared(tmp_path)
    made.study.config = old(made.study.config)
    with pytest.raises(StudyError, match=told):
        confirm_study(made.study, ConfirmRequest())


def test_measurements_of_another_place_are_not_taken_over(tmp_path: Path, tried: list[LatencySetting]) -> None:
    """They would be mixed with those of this one without a word."""
    first = prepared(tmp_path, study="old")
    Driver(first.ledger).complete()
    assert len(prepared(tmp_path, warm_start="old").known) == 1
    assert prepared(tmp_path, study="larger", warm_start="old", latency_size="9x9").known == {}


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        (None, "latency: of eager PyTorch, by an older version; it does not compare with that of exported programs"),
        (HERE, "latency: the time for one image, of a run on an image of 8x8, in ONNX Runtime (cpu, 1 thread)"),
        (
            LatencySetting(height=32, width=48, batch=4, threads=2, provider="cuda"),
            "latency: the time for one image, of a run on 4 images of 32x48, in ONNX Runtime (cuda, 2 threads)",
        ),
        (
            LatencySetting(height=8, width=8, command="ssh board run {model}"),
            "latency: the time for one image, of a run on an image of 8x8, as a command of the search measured it",
        ),
    ],
)
def test_people_are_told_where_latency_was_measured(setting: LatencySetting | None, told: str) -> None:
    config = make_config(latency=setting)
    assert latency_line(config).startswith(told)
    others = replace(config, objectives=config.objectives[:1])
    assert latency_line(others) == ""
    assert latency_line(others, ["latency"]) == latency_line(config)
