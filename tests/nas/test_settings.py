"""Settings are declared once, and what is read, refused, kept, compared and told of them follows."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from nas.errors import ConfigError, StudyError
from nas.search.early_stopping import RULES
from nas.search.sampler import CHOICES
from nas.settings import (
    FitSettings,
    Resources,
    RunOptions,
    Settings,
    StudyConfig,
    StudyRequest,
    above,
    at_least,
    between,
    checked_command,
    differences,
    kept_settings,
    no_file,
    one_line,
    one_of,
    settings_of,
    share,
)
from nas.types import Constraint, LatencySetting, Objective, Task
from studies.settings import ConfirmRequest, SearchRequest, TrainRequest

GROUPS = (StudyRequest, SearchRequest, RunOptions, Resources, FitSettings, TrainRequest, ConfirmRequest)


def study(**changes: Any) -> StudyConfig:
    """A study of everything but the defaults."""
    settings: dict[str, Any] = {
        "study": "s",
        "space": "addunet",
        "space_version": 2,
        "data": "photos",
        "fingerprint": "f",
        "task": Task(channels=1, classes=0, height=8, width=8, noise="gaussian:25"),
        "epochs": 9,
        "objectives": (
            Objective(name="stability", direction="maximize", unit="", reference=0.0),
            Objective(name="psnr", direction="maximize", unit="dB", reference=14.0),
        ),
        "constraints": (Constraint(name="params", upper=50_000),),
        "subset": 100,
        "sampler": "random",
        "seed": 3,
        "precision": "bf16",
        "early_stopping": True,
        "within_rank": "epsilon-net",
    }
    return StudyConfig(**settings | changes)


ASKED: dict[str, tuple[Any, str]] = {
    "space": ("unet", "space: study has addunet, asked for unet"),
    "data": ("digits", "data: study has photos, asked for digits"),
    "noise": ("gaussian:50", "noise: study has gaussian:25, asked for gaussian:50"),
    "subset": (60, "subset: study has 100, asked for 60"),
    "group_by": ("a+", "group by: study has none, asked for a+"),
    "pair_by": ("a+", "pair by: study has none, asked for a+"),
    "white_level": (4095.0, "white level: study has each type's largest, asked for 4095"),
    "class_weights": ("search", "class weights: study has none, asked for search"),
    "label_smoothing": (0.1, "label smoothing: study has 0, asked for 0.1"),
    "epochs": (27, "epochs: study has 9, asked for 27"),
    "objectives": (("psnr",), "objectives: study has stability,psnr, asked for psnr"),
    "max_params": (9, "max params: study has 50,000, asked for 9"),
    "max_macs": (9, "max macs: study has none, asked for 9"),
    "sampler": ("tpe", "sampler: study has random, asked for tpe"),
    "prior": ("space", "prior: study has none, asked for space"),
    "early_stopping": (False, "early stopping: study has yes, asked for no"),
    "within_rank": ("hypervolume", "within rank: study has epsilon-net, asked for hypervolume"),
    "precision": ("fp32", "precision: study has bf16, asked for fp32"),
    "seed": (0, "seed: study has 3, asked for 0"),
    "latency_size": ("64x64", "latency size: study has none, asked for 64x64"),
    "latency_batch": (1, "latency batch: study has none, asked for 1"),
    "latency_threads": (1, "latency threads: study has none, asked for 1"),
    "latency_provider": ("CPU", "latency provider: study has none, asked for cpu"),
    "latency_command": ("run {model}", "latency command: study has none, asked for run {model}"),
}


def test_every_setting_of_a_study_is_compared() -> None:
    assert ASKED.keys() == settings_of(StudyRequest).keys()
    assert all(each.setting.kept is not None for each in settings_of(StudyRequest).values())


@pytest.mark.parametrize("name", ASKED)
def test_a_study_that_is_asked_to_be_otherwise_says_what_it_has(name: str) -> None:
    asked, line = ASKED[name]
    assert differences(study(), StudyRequest(**{name: asked})) == [line]


def test_the_data_s_white_level_is_the_number_that_was_found_when_the_study_was_made() -> None:
    assert differences(study(white_level=610.0), StudyRequest(white_level="data")) == []
    line = "white level: study has each type's largest, asked for data"
    assert differences(study(), StudyRequest(white_level="data")) == [line]
    declared = settings_of(StudyRequest)["white_level"]
    assert (declared.read("data"), declared.read("4095"), declared.placeholder) == ("data", 4095.0, "LEVEL")
    for wrong in ("Data", "nan", "many"):
        with pytest.raises(ConfigError, match="give a number above 0 and at most 4294967295, or data for the largest"):
            declared.read(wrong)


def test_a_study_that_is_asked_for_as_it_is_has_no_differences() -> None:
    same = StudyRequest(
        space="addunet",
        data="Photos",
        noise="gaussian:25.0",
        subset=100,
        epochs=9,
        objectives=("psnr", "accuracy", "stability"),  # which drops accuracy again, as there are no labels
        max_params=50_000,
        sampler="random",
        early_stopping=True,
        within_rank="epsilon-net",
        precision="bf16",
        seed=3,
    )
    assert differences(study(), same) == []
    assert differences(study(), StudyRequest()) == []
    decided = StudyRequest(precision="auto", sampler="auto")
    assert differences(study(), decided) == [], "they were decided when the study was made"


def test_what_a_study_has_kept_is_told_in_the_words_of_the_command_line() -> None:
    assert kept_settings(study(subset=None)) == {
        "space": "addunet",
        "data": "photos",
        "noise": "gaussian:25",
        "subset": "all images",
        "group_by": "none",
        "pair_by": "none",
        "white_level": "each type's largest",
        "class_weights": "none",
        "label_smoothing": "0",
        "epochs": "9",
        "objectives": "stability,psnr",
        "max_params": "50,000",
        "max_macs": "none",
        "sampler": "random",
        "prior": "none",
        "early_stopping": "yes",
        "within_rank": "epsilon-net",
        "precision": "bf16",
        "seed": "3",
    }


HERE = LatencySetting(height=32, width=48, batch=2, threads=3, provider="cpu")
BOARD = LatencySetting(height=8, width=8, command="ssh board run {model}")


def test_where_latency_is_measured_is_told_where_it_is() -> None:
    told = {"latency_size": "32x48", "latency_batch": "2", "latency_threads": "3", "latency_provider": "cpu"}
    assert kept_settings(study(latency=HERE)).items() - kept_settings(study()).items() == set(told.items())
    assert kept_settings(study(latency=BOARD))["latency_command"] == "ssh board run {model}"
    same = StudyRequest(latency_size="032x48", latency_batch=2, latency_threads=3, latency_provider="CPU")
    assert differences(study(latency=HERE), same) == []
    other = StudyRequest(latency_size="48x32", latency_command="run {model}")
    assert differences(study(latency=HERE), other) == [
        "latency size: study has 32x48, asked for 48x32",
        "latency command: study has none, asked for run {model}",
    ]
    for each in (HERE, BOARD):
        config = study(latency=each)
        assert StudyConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(ConfigError, match="cannot be read"):
        StudyConfig.from_dict({**study().to_dict(), "latency": {"height": "32", "width": 32}})


def test_latency_is_measured_where_it_is_an_objective_or_asked_for() -> None:
    task = Task(channels=1, classes=0, height=28, width=30, noise="gaussian:25")

    def asked(objectives: tuple[str, ...] = ("psnr",), **given: Any) -> LatencySetting | None:
        return StudyRequest(**given).latency_setting(objectives, task)

    assert asked() is None
    data = LatencySetting(height=28, width=30, threads=1, provider="cpu")
    assert asked(("psnr", "latency")) == asked(latency_threads=1) == data
    assert asked(latency_size="64x96", latency_batch=4, latency_threads=2, latency_provider="CUDA") == LatencySetting(
        height=64, width=96, batch=4, threads=2, provider="cuda"
    )
    board = "ssh board run-model {model}"
    assert asked(latency_command=board) == LatencySetting(height=28, width=30, command=board)


def test_a_stored_command_is_run_only_when_it_is_given_again() -> None:
    config = study(latency=BOARD)
    checked_command(config, "ssh board run {model}")
    checked_command(study(), None)
    checked_command(study(latency=HERE), None)
    for given, what in ((None, "none"), ("ssh board run  {model}", "another one")):
        told = (
            f"study 's' measures latency by 'ssh board run {{model}}', and {what} was given: give it as "
            "`latency_command`, if you trust it; a stored command is never run by itself"
        )
        with pytest.raises(StudyError, match=re.escape(told)):
            checked_command(config, given)
    with pytest.raises(StudyError, match="by no command; leave out `latency_command`"):
        checked_command(study(latency=HERE), "run {model}")


def test_defaults_are_what_nobody_asked_for() -> None:
    assert StudyRequest(epochs=9, early_stopping=False).settled() == {
        "space": "unet",
        "data": "digits",
        "noise": "gaussian:50",
        "subset": None,
        "group_by": None,
        "pair_by": None,
        "white_level": None,
        "class_weights": "none",
        "label_smoothing": 0.0,
        "epochs": 9,
        "objectives": ("psnr", "accuracy", "stability"),
        "max_params": None,
        "max_macs": None,
        "sampler": "auto",
        "prior": "space",
        "early_stopping": False,
        "within_rank": "hypervolume",
        "precision": "auto",
        "seed": 0,
        "latency_size": None,
        "latency_batch": None,
        "latency_threads": None,
        "latency_provider": None,
        "latency_command": None,
    }


def test_a_configuration_survives_its_dictionary_and_older_ones_lack_fields() -> None:
    config = study()
    assert StudyConfig.from_dict(config.to_dict()) == config
    old = config.to_dict()
    for name in ("within_rank", "early_stopping", "precision", "training_version"):
        del old[name]
    read = StudyConfig.from_dict(old)
    assert (read.within_rank, read.early_stopping, read.precision) == ("hypervolume", False, "fp32")
    assert read.training_version == 1
    with pytest.raises(ConfigError, match=r"cannot be read .*unknown.*; update skipnas"):
        StudyConfig.from_dict({**old, "unknown": 1})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StudyRequest(epochs=0), "`epochs` is 0; give at least 1"),
        (lambda: StudyRequest(seed=-1), "`seed` is -1; give at least 0"),
        (lambda: StudyRequest(latency_size="64"), "`latency_size` is '64'; give HEIGHTxWIDTH in pixels"),
        (lambda: StudyRequest(latency_command="run"), "`latency_command` is 'run'; write {model} where the program's"),
        (lambda: StudyRequest(latency_command="{model}"), "`latency_command` is '{model}'; write {model} where"),
        (
            lambda: StudyRequest(latency_command="run '{model}"),
            "\"run '{model}\"; it is no command (no closing quotation); give one such as 'ssh board run-model {model}'",
        ),
        (
            lambda: StudyRequest(latency_command="run {model}", latency_threads=2),
            "`latency_threads` is 2, and `latency_command` measures by a command of your own; leave one of them out",
        ),
        (
            lambda: StudyRequest(sampler="oracle"),
            "`sampler` is 'oracle'; choose from auto, bayes, tpe, gp, nsga2, random, qmc",
        ),
        (lambda: StudyRequest(noise="rain:3"), "rain:3"),
        (lambda: SearchRequest(data="nothing"), "nothing"),
        (lambda: RunOptions(trials=0), "`trials` is 0; give at least 1"),
        (lambda: Resources(cpus_per_trial=0), "`cpus_per_trial` is 0; give more than 0"),
        (lambda: Resources(cpus_per_trial=math.nan), "`cpus_per_trial` is nan; give a finite number"),
        (lambda: Resources(address="head"), "`address` is 'head'; give host:port of a Ray head"),
        (lambda: FitSettings(warm_up=1.5), "`warm_up` is 1.5; give a number from 0 to below 1"),
        (lambda: TrainRequest(what="unet", to=Path("x"), patch=4), "`patch` is 4; give at least 8 pixels"),
        (lambda: ConfirmRequest(seeds=1), "`seeds` is 1; give 2 to 1000, as an interval needs two runs"),
    ],
)
def test_a_value_outside_its_rule_cannot_be_asked_for(make: Any, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        make()
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("rule", "kept", "broken"),
    [
        (at_least(1), [1, 2.5, 10**9], [0, -1, math.nan, math.inf]),
        (above(0), [0.1, 5], [0, -1, math.nan, math.inf]),
        (between(2, 5), [2, 5], [1, 6]),
        (share, [0, 0.5, 0.999], [1, -0.1, math.nan]),
        (one_of(lambda: ("a", "b")), ["a", "b"], ["c", "A", ""]),
        (at_least(1, most=5), [1, 5], [0, 6, math.inf]),
        (above(0, most=5), [0.1, 5], [0, 5.1]),
        (no_file, [Path("/"), Path("nowhere")], [Path(__file__)]),
        (one_line, ["MIT", "CC BY 4.0"], ["", " ", "a\nb", "a\x1b[31m"]),
    ],
)
def test_rules(rule: Any, kept: list[Any], broken: list[Any]) -> None:
    assert [value for value in kept if rule(value) is not None] == []
    assert [value for value in broken if rule(value) is None] == []


@pytest.mark.parametrize("group", GROUPS)
def test_every_setting_has_words_for_people(group: type[Settings]) -> None:
    for name, each in settings_of(group).items():
        assert each.setting.help.endswith("."), name


@pytest.mark.parametrize("name", ["sampler", "within_rank", "precision"])
def test_the_words_name_every_choice(name: str) -> None:
    setting = settings_of(StudyRequest)[name].setting
    assert setting.rule is not None
    choices = (setting.rule("no such choice") or "").removeprefix("choose from ").split(", ")
    assert len(choices) > 1
    assert [choice for choice in choices if choice not in setting.help] == []


def test_a_time_limit_takes_the_place_of_a_size() -> None:
    assert RunOptions().size == 24
    assert RunOptions(time_limit=60.0).size is None
    assert RunOptions(trials=3, time_limit=60.0).size == 3


def test_a_derived_class_tells_its_own_settings_first() -> None:
    assert list(settings_of(RunOptions))[:3] == ["trials", "until_flat", "cpus_per_trial"]
    assert next(iter(settings_of(SearchRequest))) == "study"
    fields = [field.name for field in dataclasses.fields(SearchRequest)]
    assert set(fields) - settings_of(SearchRequest).keys() == {"command"}


@pytest.mark.parametrize(("name", "known"), [("sampler", CHOICES), ("within_rank", RULES)])
def test_the_help_names_every_choice(name: str, known: Collection[str]) -> None:
    """Their tables are slow to import, so that the help cannot be made of them."""
    text = settings_of(StudyRequest)[name].setting.help
    assert [choice for choice in known if choice not in text] == []
