"""``search --warm-start``: another study's front comes first, and what was measured there is not trained again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from sqlalchemy import event, update
from study_samples import Driver, make_measurement, read

from nas.engine.searcher import StudySearcher
from nas.errors import StudyError
from nas.settings import RunOptions
from nas.training.version import TRAINING_VERSION
from nas.types import Candidate
from search_spaces.unet.references import reference_network
from studies.commands.replay import Replayed, replay
from studies.commands.search import Search, prepare
from studies.reading.study import StudyReader
from studies.settings import SearchRequest
from studies.store.database import open_storage
from studies.store.records import TrialRecord

OPTIONS = RunOptions(trials=2)
FRONT = {"unet": (21.0, 90.0), "addunet": (20.0, 97.0)}
BEHIND = {"residual-unet": (19.0, 80.0)}


def prepared(folder: Path, **asked: Any) -> Search:
    request = SearchRequest(
        study="new", storage=f"sqlite:///{folder / 's.db'}", epochs=3, objectives=("psnr", "accuracy")
    )
    return prepare(replace(request, **asked), OPTIONS)


@pytest.fixture
def source(tmp_path: Path) -> dict[str, Candidate]:
    """Candidates by name of a study whose front is `FRONT`."""
    search = prepared(tmp_path, study="old")
    ledger, space = search.ledger, search.space
    candidates = {name: reference_network(name, ledger.config.task, epochs=3) for name in FRONT | BEHIND}
    for name, (psnr, accuracy) in (FRONT | BEHIND).items():
        candidate = candidates[name]
        ledger.optuna_study.enqueue_trial({k: space.encode(candidate)[k] for k in ledger.distributions})
        number = Driver(ledger).ask()
        assert ledger.start(number, candidate, space.cost(candidate.spec, ledger.config.task), "worker")
        ledger.complete(number, make_measurement(psnr, accuracy=accuracy))
    ledger.close()
    return candidates


def proposed(search: Search, trials: int) -> tuple[list[str], list[tuple[int, str]]]:
    """Digests that are trained for a study of that size, and trials that ended without training."""
    ends: list[tuple[int, str]] = []
    with search.ledger.drive():
        searcher = StudySearcher(
            search.ledger,
            search.space,
            trials=trials,
            stopping=lambda: False,
            on_end=lambda *end: ends.append(end),
            known=search.known,
        )
        found = [searcher.ask(str(index)) for index in range(trials)]
    return [job.digest for job in found if job is not None], ends


def test_a_front_that_was_measured_alike_is_answered_from_the_store(
    tmp_path: Path, source: dict[str, Candidate]
) -> None:
    search = prepared(tmp_path, warm_start="old")
    assert "warm start: 2 candidates from study old" in search.notes
    assert search.known.keys() == {candidate.digest for candidate in source.values()}
    trained, ends = proposed(search, trials=2)
    assert trained == []
    assert ends == [(0, "complete"), (1, "complete")]
    values = search.ledger.objective_values()
    assert sorted(values.values()) == sorted(FRONT.values())


def test_a_front_that_other_training_code_measured_is_trained_again_and_told(
    tmp_path: Path, source: dict[str, Candidate]
) -> None:
    with open_storage(f"sqlite:///{tmp_path / 's.db'}") as storage, storage.session() as session:
        session.execute(update(TrialRecord).values(training_version=None))
    search = prepared(tmp_path, warm_start="old")
    told = (
        f"candidates that version 1 of the training code trained there are trained again, by version {TRAINING_VERSION}"
    )
    assert f"warm start: 2 candidates from study old; {told}" in search.notes
    assert search.known == {}
    trained, ends = proposed(search, trials=2)
    assert (set(trained), ends) == ({source[name].digest for name in FRONT}, [])


def test_a_study_that_other_training_code_trained_goes_on_with_a_line(
    tmp_path: Path, source: dict[str, Candidate]
) -> None:
    assert prepared(tmp_path, study="old").notes == ()
    with open_storage(f"sqlite:///{tmp_path / 's.db'}") as storage, storage.session() as session:
        session.execute(update(TrialRecord).values(training_version=None))
    search = prepared(tmp_path, study="old")
    (note,) = search.notes
    told = f"training code: version 1 trained 3 trials, and this is version {TRAINING_VERSION}"
    assert note == f"{told}; figures of different versions do not compare (CHANGELOG.md)"
    # The networks of the papers are not there yet, as far as this version is concerned.
    with_baselines = prepared(tmp_path, study="old", baselines=True)
    assert with_baselines.notes[0] == note
    assert {"unet", "addunet", "residual-unet"} <= set(with_baselines.notes[1].removeprefix("baselines: ").split(", "))


def test_a_study_of_two_versions_is_proposed_again_as_it_was(tmp_path: Path, source: dict[str, Candidate]) -> None:
    """What one version trained is new to the next, so that the same candidate stands in the study twice."""
    search = prepared(tmp_path, study="mixed", sampler="random")
    ledger, space, candidate = search.ledger, search.space, source["unet"]
    config = ledger.config
    for version in (TRAINING_VERSION - 1, TRAINING_VERSION):
        ledger.training_version = version
        ledger.optuna_study.enqueue_trial({k: space.encode(candidate)[k] for k in ledger.distributions})
        with ledger.drive():
            searcher = StudySearcher(
                ledger, space, trials=9, stopping=lambda: False, on_end=lambda number, outcome: None
            )
            for _ in range(2):
                job = searcher.ask("worker")
                assert job is not None
                ledger.complete(job.number, make_measurement(accuracy=50.0))
    digests = [record.digest for record in read(ledger).trials()]
    assert (digests[0], digests[2]) == (candidate.digest, candidate.digest)
    assert [record.trained_by for record in read(ledger).trials()] == [
        *[TRAINING_VERSION - 1] * 2,
        *[TRAINING_VERSION] * 2,
    ]
    assert ledger.config == config
    assert replay(read(ledger)) == Replayed(proposed=4, differs=None)


def test_under_another_noise_the_front_is_trained_first(tmp_path: Path, source: dict[str, Candidate]) -> None:
    search = prepared(tmp_path, warm_start="old", noise="gaussian:25")
    assert search.known == {}
    trained, ends = proposed(search, trials=2)
    assert set(trained) == {source[name].digest for name in FRONT}
    assert ends == []


def test_a_study_that_is_not_there_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    prepared(tmp_path, study="other").ledger.close()
    with pytest.raises(StudyError, match="no study 'gone'"):
        prepared(tmp_path, warm_start="gone")
    with pytest.raises(StudyError, match="no study 'new'"):
        prepared(tmp_path, study="third", warm_start="new")


def test_a_search_that_was_cut_off_while_it_enqueued_goes_on(
    tmp_path: Path, source: dict[str, Candidate], monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueue, enqueued = optuna.Study.enqueue_trial, []

    def cut_off(study: optuna.Study, params: dict[str, Any]) -> None:
        if enqueued:
            raise KeyboardInterrupt
        enqueued.append(params)
        enqueue(study, params)

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "enqueue_trial", cut_off)
        with pytest.raises(KeyboardInterrupt):
            prepared(tmp_path, warm_start="old")
    assert "warm start: 1 candidates from study old" in prepared(tmp_path, warm_start="old").notes
    search = prepared(tmp_path, warm_start="old")
    assert search.notes == ("warm start: no further candidates from study old",)
    assert search.ledger.counts().waiting == len(FRONT)
    proposed(search, trials=2)
    assert prepared(tmp_path, warm_start="old").ledger.counts().waiting == 0, "what was proposed is not enqueued again"


def test_measurements_are_read_at_once(tmp_path: Path, source: dict[str, Candidate]) -> None:
    with StudyReader.open("old", f"sqlite:///{tmp_path / 's.db'}") as study:
        one_by_one = {result.digest: study.measurement(result.number) for result in study.results()}
        statements: list[str] = []
        event.listen(study.storage.engine, "before_cursor_execute", lambda *call: statements.append(call[2]))
        assert study.measurements() == one_by_one
        assert len(one_by_one) == 3
        assert len(statements) == 1
