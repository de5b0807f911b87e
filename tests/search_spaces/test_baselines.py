"""``search --baselines``: the reference networks of a study's space come first, once."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from nas.search.past import Past
from nas.settings import RunOptions
from search_spaces import get_space
from search_spaces.unet.references import reference_network
from studies.commands.search import Search, prepare
from studies.reading.study import StudyReader
from studies.settings import SearchRequest

ASSET = Path(__file__).parents[1] / "assets" / "studies-0.1.db"
OPTIONS = RunOptions(trials=20)


def prepared(folder: Path, **asked: Any) -> Search:
    request = SearchRequest(study="s", storage=f"sqlite:///{folder / 's.db'}", epochs=3, baselines=True)
    return prepare(replace(request, **asked), OPTIONS)


def never(number: int, past: Past) -> dict[str, Any]:
    raise AssertionError(f"trial {number} was enqueued with every hyperparameter")


def waiting(search: Search) -> list[str]:
    trials = search.ledger.optuna_study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    return [trial.user_attrs["baseline"] for trial in trials]


def test_a_study_begins_with_the_references_in_its_space(tmp_path: Path) -> None:
    search = prepared(tmp_path)
    names = waiting(search)
    assert names[:2] == ["unet", "attention-unet"]
    assert len(names) == 12
    assert search.notes == (
        f"baselines: {', '.join(names)}",
        "left out: addunet-denoise (not in the study's space), single-task-denoise (not in the study's space), "
        "single-task-classify (not in the study's space)",
    )
    for name in names:
        _, params = search.ledger.ask(never)
        found = search.space.decode(params, search.ledger.config.task, 3)
        assert found == reference_network(name, search.ledger.config.task, epochs=3)


def test_they_are_enqueued_only_once(tmp_path: Path) -> None:
    first = prepared(tmp_path)
    first.ledger.ask(never)
    again = prepared(tmp_path)
    assert waiting(again) == waiting(first)
    assert len(again.ledger.optuna_study.get_trials()) == 12
    assert again.notes[0] == "baselines: none that the study does not hold"


def test_a_new_study_of_enough_trials_begins_with_them_unless_told_otherwise(tmp_path: Path) -> None:
    def begun(name: str, trials: int, **asked: Any) -> Search:
        storage = f"sqlite:///{tmp_path / 's.db'}"
        return prepare(SearchRequest(study=name, storage=storage, epochs=3, **asked), RunOptions(trials=trials))

    search = begun("a", 24, prior="none")
    assert len(waiting(search)) == 12
    assert search.notes == (f"baselines: {', '.join(waiting(search))}",)
    assert waiting(begun("b", 23, prior="none")) == waiting(begun("c", 24, baselines=False)) == []
    assert waiting(begun("b", 24)) == [], "it is not new any more"
    assert len(waiting(begun("b", 4, baselines=True))) == 12
    assert waiting(begun("d", 100, warm_start="a")) == []


def test_with_a_prior_a_search_begins_with_those_that_promise_most(tmp_path: Path) -> None:
    def begun(name: str, trials: int) -> list[str]:
        request = SearchRequest(study=name, storage=f"sqlite:///{tmp_path / 's.db'}", epochs=3)
        return waiting(prepare(request, RunOptions(trials=trials)))

    assert begun("few", 7) == []
    three = begun("usual", 24)
    assert len(three) == 3
    assert begun("more", 48)[:3] == three
    assert len(begun("many", 200)) == 12


def test_what_a_smaller_space_or_a_limit_leaves_out_is_said(tmp_path: Path) -> None:
    search = prepared(tmp_path, space="multi_resnet", max_params=8_000)
    assert waiting(search) == ["multi-resnet-none-added"]
    assert "multi-resnet (over the limit of params)" in search.notes[1]
    assert "addunet (" in search.notes[1]


def test_a_study_of_version_1_takes_what_it_can_express(tmp_path: Path) -> None:
    (tmp_path / "s.db").write_bytes(ASSET.read_bytes())
    search = prepared(tmp_path, study="first", epochs=None)
    assert search.ledger.config.space_version == 1
    assert waiting(search) == [], "their heads are normalised, which such a study cannot express"
    assert "addunet (not in the study's space)" in search.notes[-1]
    assert "unet++ (fusion dense is not in the study's space)" in search.notes[-1]


def test_a_study_of_version_1_decodes_to_the_candidates_that_it_trained(tmp_path: Path) -> None:
    (tmp_path / "s.db").write_bytes(ASSET.read_bytes())
    study = StudyReader.open("first", f"sqlite:///{tmp_path / 's.db'}")
    params = {trial.number: trial.params for trial in study.optuna_study.get_trials(deepcopy=False)}
    records = study.trials()
    assert records
    for record in records:
        decoded = get_space("unet").decode(params[record.number], study.config.task, study.config.epochs)
        assert decoded.digest == record.digest


def test_a_space_without_references_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search_spaces.unet.space.UNetSpace.baselines", lambda *_: {})
    search = prepared(tmp_path)
    assert search.notes == ("baselines: space unet has none",)
    assert waiting(search) == []
    unasked = prepared(tmp_path, study="other", baselines=None)
    assert unasked.notes == (), "nobody asked for them"
