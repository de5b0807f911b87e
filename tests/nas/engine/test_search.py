"""Whole searches through Ray Tune, over a toy space: what they try, keep and come to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from toy_search import TASK, Search
from toy_space import ToySpace

from nas.data.splits import Dataset
from nas.engine import executor
from nas.engine.search import _Busy
from nas.errors import StudyError
from nas.training.checkpoint import load_weights, weights_path
from nas.types import Constraint, EpochRow


def test_a_search_fills_the_study_and_continues_it(make: Any, tmp_path: Path) -> None:
    search = make()
    first = search.run(3, time_limit=100)
    assert (first.reason, first.new, first.counts.complete) == ("complete", 3, 3), "a size is reached if there is time"
    again = search.run(3)
    assert (again.reason, again.new, again.workers) == ("complete", 0, 0)
    more = search.run(5, concurrency=2)
    assert (more.new, more.counts.trained) == (2, 5)
    for result in search.study.results():
        of_classes = {"accuracy", "balanced_accuracy", "macro_f1", "auc", "calibration_error"}
        assert {"psnr", "stability", "params", "macs"} | of_classes == set(result.values)
        rows = search.ledger.epochs_table(result.number)
        assert [row.epoch for row in rows] == [1, 2, 3]
        assert rows[-1].values["psnr"] == result.values["psnr"]
        assert len(search.study.probe(result.number).steps) > 3
        assert search.study.trial(result.number).gates
    check_weights(search)
    by_optuna = optuna.load_study(study_name="toy", storage=f"sqlite:///{tmp_path / 'studies.db'}")
    assert by_optuna.metric_names == ["psnr", "accuracy", "stability"]
    assert np.isfinite([t.values for t in by_optuna.trials]).all()


def check_weights(search: Search) -> None:
    """Checks that weights are kept for what may be chosen alone."""
    kept = sorted(int(path.stem.split("-")[1]) for path in search.files.glob("*.safetensors"))
    assert kept == search.ledger.kept()
    (shown,) = search.study.results(kept[:1])
    network = search.space.build(search.space.spec(shown.spec), TASK)
    load_weights(network, search.files, kept[0], shown.digest)
    off = next((n for n in range(5) if n not in kept), None)
    if off is not None:
        with pytest.raises(StudyError, match=f"trial {off} has no weights"):
            load_weights(network, search.files, off, "")
    assert not list(search.files.glob("*.partial"))


@pytest.mark.slow
def test_a_long_search_has_several_tuners_and_loses_nothing_between_them(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuners: list[float] = []
    fit = executor._fit

    def noting(searcher: Any, *given: Any) -> None:
        tuners.append(searcher.left)
        fit(searcher, *given)

    monkeypatch.setattr(executor, "_fit", noting)
    monkeypatch.setattr(executor, "TRIALS_OF_A_TUNER", 3)
    monkeypatch.setattr(executor, "AND_OF_A_WORKER", 1)
    search = make(epochs=1)
    outcome = search.run(4, concurrency=2)
    assert tuners == [3, 3]
    assert (outcome.reason, outcome.counts.complete, outcome.counts.proposals) == ("complete", 4, 4)
    assert search.states() == ["COMPLETE"] * 4


def test_weak_candidates_are_stopped_at_rungs(make: Any, tmp_path: Path) -> None:
    search = make(epochs=9, early_stopping=True)
    outcome = search.run(9, concurrency=2)
    assert outcome.counts.trained == 9
    stopped = [r for r in search.study.trials() if r.reason == "stopped"]
    assert stopped, "of nine, six at least are not among the best third"
    for record in stopped:
        assert record.epochs_done in (1, 3)
        assert record.detail == f"not among the best at epoch {record.epochs_done}"
        assert search.ledger.epochs_table(record.number)[-1].epoch == record.epochs_done
        trial = search.ledger.optuna_study.trials[record.number]
        assert trial.state.name == "PRUNED"
        assert trial.values is None
        assert not trial.intermediate_values
    assert not set(search.ledger.front()) & {r.number for r in stopped}
    assert not list(search.files.glob("*.checkpoint"))
    judged = search.ledger.progress.judged()
    assert {judged[r.number][0] for r in stopped} <= {1, 3}


def test_nothing_over_a_limit_is_trained(make: Any) -> None:
    limits = (Constraint(name="params", upper=400), Constraint(name="macs", upper=10_000_000))
    search = make(constraints=limits)
    search.ledger.optuna_study.enqueue_trial({"width": 64, "fault": "none"})
    outcome = search.run(5)
    assert search.study.trial(0).reason == "over_limit", "an enqueued candidate is told, and another one is asked for"
    assert (outcome.counts.trained, outcome.counts.failed) == (5, 0)
    assert outcome.counts.over_limit == sum(record.reason == "over_limit" for record in search.study.trials())
    for record in search.study.trials():
        assert record.params <= 400 or record.reason == "over_limit"
    assert all(result.values["params"] <= 400 for result in search.study.results())


def test_a_finite_space_is_never_trained_twice_and_ends_exhausted(make: Any, tmp_path: Path) -> None:
    search = make(ToySpace(widths=3, scratch=str(tmp_path)), epochs=1)
    outcome = search.run(4)
    assert outcome.reason == "exhausted"
    assert outcome.counts.trained == 3
    digests = [search.study.trial(r.number).digest for r in search.study.results()]
    assert len(set(digests)) == 3
    assert outcome.counts.proposals <= 20 * 4


def test_workers_are_busy_with_epochs_of_this_search_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("nas.engine.search.time.monotonic", lambda: clock[0])

    def rows(*seconds: float) -> list[EpochRow]:
        return [
            EpochRow(epoch=n, denoise_loss=1.0, classify_loss=None, seconds=took)
            for n, took in enumerate(seconds, start=1)
        ]

    busy = _Busy((7, row) for row in rows(50.0, 60.0))
    assert busy.share(1) is None
    busy.add(3, [])
    assert busy.share(1) is None, "a trial that fails before its first epoch"
    clock[0] = 110.0
    busy.add(7, rows(50.0, 4.0))  # it went on from a checkpoint after epoch 1
    assert busy.share(1) == pytest.approx(4 / 10)
    busy.add(7, rows(50.0, 4.0))  # a worker that was lost tells all once more
    assert busy.share(1) == pytest.approx(4 / 10)
    busy.add(8, rows(4.0))
    assert busy.share(2) == pytest.approx(8 / 20)


@pytest.mark.slow
def test_the_same_seed_proposes_the_same_one_at_a_time(make: Any, tmp_path: Path, digits: Dataset) -> None:
    proposals = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        search = Search(folder, digits, ToySpace(scratch=str(folder)), sampler="tpe", epochs=1, seed=3)
        if name == "a":
            search.run(14)
        else:  # in two goes
            for trials in (11, 14):
                search.run(trials)
        proposals.append([(t.params, t.values) for t in search.ledger.optuna_study.get_trials(deepcopy=False)])
        search.ledger.close()
    assert proposals[0] == proposals[1]


def test_weights_path_is_keyed_by_number(tmp_path: Path) -> None:
    assert weights_path(tmp_path, 7).name == "trial-7.safetensors"
