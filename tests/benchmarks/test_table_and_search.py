"""The trained table, and searches on it: what is stored is what was measured, and the virtual clock adds up."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import runs, search, table, tabular, virtual
from benchmarks.made_up import values as made_up_values
from benchmarks.tabular import EPOCHS, OBJECTIVES, SPACE, TASK, UNITS, Table
from benchmarks.virtual import Values, run
from nas.search.pareto import hypervolume
from nas.types import Candidate


@pytest.fixture(scope="module")
def made_up() -> Table:
    """A table whose values come from the candidates' choices, and approach them over the epochs."""
    found = tabular.candidates()
    ends = [made_up_values(each.spec.to_dict(), each.recipe.to_dict()) for each in found]
    final = np.array([[end[name] for name in OBJECTIVES] for end in ends])
    start = np.array([14.0, 10.0, 0.0])
    learned = (1 - np.exp(-np.arange(1, EPOCHS + 1) / 8))[None, None, :, None]
    noise = np.random.default_rng(0).normal(size=(len(found), 2, EPOCHS, 3)) * np.array([0.1, 0.5, 0.01])
    stored = np.maximum(start + (final - start)[:, None, None, :] * learned + noise, 0.0)
    costs = [SPACE.cost(each.spec, TASK) for each in found]
    return Table(
        digests=np.array([each.digest for each in found]),
        stored=np.round(stored * UNITS).astype(np.int16),
        seconds=np.full((len(found), 2), 10.0, np.float32),
        params=np.array([cost.params for cost in costs]),
        macs=np.array([cost.macs for cost in costs]),
    )


def test_the_space_is_complete_and_each_architecture_in_it_once() -> None:
    found = tabular.candidates()
    assert len(found) == len({each.digest for each in found}) == 648
    assert len({each.recipe for each in found}) == 1
    assert all(SPACE.decode(SPACE.encode(each), TASK, EPOCHS) == each for each in found[::50])
    assert [each.digest for each in tabular.candidates()] == [each.digest for each in found]


def test_the_table_that_is_there_is_whole() -> None:
    found, candidates = Table.read(), tabular.candidates()
    assert found.digests.tolist() == [candidate.digest for candidate in candidates]
    assert found.all_values.shape == (648, 2, EPOCHS, 3)
    assert tabular.FILE.stat().st_size < 1e6
    costs = [SPACE.cost(candidate.spec, TASK) for candidate in candidates]
    assert found.params.tolist() == [cost.params for cost in costs]
    assert found.macs.tolist() == [cost.macs for cost in costs]
    psnr, accuracy, stability = np.moveaxis(found.all_values, -1, 0)
    # The noisy input has 14.15 dB.
    assert np.nanmedian(psnr[:, :, -1]) > 18
    assert np.nanmax(psnr) < 25
    assert np.nanmedian(accuracy[:, :, -1]) > 90
    assert np.nanmax(accuracy) <= 100
    assert np.nanmax(stability) <= 1


def test_a_run_is_kept_for_every_epoch_and_its_stability_is_that_of_its_probes() -> None:
    setting = runs.Setting(data="digits", subset=128, noise="gaussian:50", epochs=3)
    (candidate,) = [SPACE.decode(SPACE.encode(tabular.candidates()[0]), TASK, 3)]
    record = json.loads(json.dumps(table.perform(runs.Job(setting=setting, candidate=candidate, seed=0))))
    evaluation, _ = runs.trained(runs.Job(setting=setting, candidate=candidate, seed=0))
    assert len(record["epochs"]) == 3
    last = evaluation.rows[-1]
    assert record["epochs"][-1] == [pytest.approx(last.psnr, abs=1e-3), pytest.approx(last.accuracy, abs=1e-3)]
    for row in evaluation.rows:
        if row.stability is not None:
            assert table.stability_after(record, row.epoch, 3) == pytest.approx(row.stability, abs=1e-4)


def test_the_table_is_what_the_runs_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = tabular.candidates()[:4]
    monkeypatch.setattr(tabular, "candidates", lambda: few)
    curve = np.linspace(1.0, 0.4, 201).tolist()
    for number, job in enumerate(table.jobs()):
        epochs = [[15 + epoch / 10 + number, 50.0 + epoch] for epoch in range(EPOCHS)]
        record: dict[str, Any] = {"key": job.key, "seconds": 9.5, "epochs": epochs, "steps": 400}
        record |= {"denoise": curve, "classify": curve}
        if number == 2:
            record |= {"epochs": epochs[:5], "denoise": curve[:40], "classify": curve[:40], "diverged": "loss is nan"}
        runs.append(tmp_path / "runs" / f"shard-{number % 2}.jsonl", record)
    assert table.main(["--no-training", "--results", str(tmp_path / "runs"), "--to", str(tmp_path / "t.npz")]) == 0
    found = Table.read(tmp_path / "t.npz")
    assert found.values(few[1], seed=0, epoch=1) == pytest.approx((16.0, 50.0, found.all_values[1, 0, 0, 2]))
    assert found.values(few[1], seed=1, epoch=EPOCHS) == pytest.approx((22.6, 76.0, 0.3), abs=1e-2)
    assert found.values(few[2], seed=0, epoch=5) is not None
    assert found.values(few[2], seed=0, epoch=6) is None
    assert found.values(few[2], seed=0) is None
    assert "1 of 8 runs diverged" in (tmp_path / "TABLE.md").read_text()


def test_a_table_is_not_written_before_every_run_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "t.npz"
    assert table.main(["--no-training", "--results", str(tmp_path), "--to", str(target)]) == 1
    assert "1296 of 1296 runs are not in" in capsys.readouterr().out
    assert not target.exists()


@pytest.mark.parametrize("shard", ["0/4", "5/4", "1", "a/b"])
def test_a_shard_that_does_not_exist_is_refused(shard: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        table.main(["--shard", shard])
    assert "is not I/N with 1 <= I <= N" in capsys.readouterr().err


class Fixed:
    """Every epoch of a candidate takes as long as it is wide; values are of no interest."""

    def values(self, candidate: Candidate, epoch: int) -> Values | None:
        return (20.0, 90.0, 0.5)

    def seconds(self, candidate: Candidate) -> float:
        return float(candidate.spec.to_dict()["width"])


class InOrder:
    """Trains the first candidates in order; who is named in `stopped` ends at epoch 1."""

    looks = (1,)

    def __init__(self, stopped: Mapping[str, bool]) -> None:
        self.waiting, self.stopped = tabular.candidates()[:3], stopped
        self.ended: list[tuple[str, int]] = []

    def ask(self, name: str) -> Candidate | None:
        return self.waiting.pop(0) if self.waiting else None

    def after(self, name: str, epoch: int, values: Values) -> bool:
        return name not in self.stopped

    def end(self, name: str, epoch: int, values: Values | None) -> None:
        self.ended.append((name, epoch))


def test_the_virtual_clock_adds_up() -> None:
    method = InOrder({"1": True})
    trace = run(method, Fixed(), workers=2, epochs=EPOCHS)
    width = tabular.candidates()[0].spec.to_dict()["width"]
    assert method.ended == [("1", 1), ("0", 27), ("2", 27)]
    assert trace.clock == 28 * width, "the third candidate begins when the second is stopped"
    assert trace.epochs == 27 + 1 + 27
    assert [epochs for epochs, _ in trace.finished] == [27 + 1 + 26, 27 + 1 + 27]
    assert trace.waited == 0.0


def test_a_driver_that_takes_time_makes_workers_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(np.arange(0, 1000, 0.5))
    monkeypatch.setattr(virtual.time, "perf_counter", lambda: next(clock))
    trace = run(InOrder({}), Fixed(), workers=3, epochs=1, trials=3, deciding_takes_time=True)
    assert trace.decisions == 6
    assert trace.deciding == pytest.approx(3.0)
    assert trace.waited == pytest.approx(0.5 + 1.0 + 1.5), "three ask at once and are answered one after the other"


@pytest.mark.parametrize("method", [name for name in search.METHODS if name not in ("gp", "moasha")])
def test_every_method_finds_more_with_more_epochs(method: str, made_up: Table, tmp_path: Path) -> None:
    made_up.write(tmp_path / "t.npz")
    record = search.replay(method, 4, 0, tmp_path / "t.npz", trainings=6)
    again = search.replay(method, 4, 0, tmp_path / "t.npz", trainings=6)
    if method != "ray":  # whose scheduler draws from numpy's global generator
        assert record == again
    assert record["epochs"] <= 6 * EPOCHS + 4 * EPOCHS
    assert len(record["curve"]) == len(search.grid())
    assert all(0.0 <= value <= 1.0 for value in record["curve"])
    assert record["finished"] >= (1 if method.startswith("skipnas") or method == "ray" else 6)
    assert record["curve"][-1] > 0.0


def test_a_front_is_chosen_by_the_first_seed_and_scored_by_the_second(made_up: Table) -> None:
    candidates, (first, second) = tabular.candidates(), made_up.all_values[:, :, -1].swapaxes(0, 1)
    best = int(np.argmax(first[:, 0]))
    worse = int(np.flatnonzero((first < first[best]).all(axis=1))[0])
    other = int(np.argmax(first[:, 2]))
    order = [worse, best, other]
    trace = virtual.Trace(finished=[(27.0 * n, candidates[row]) for n, row in enumerate(order, start=1)])
    fronts = [[worse], [best], [best, other]]
    shares = [hypervolume(second[front], search.REFERENCE, search.MAXIMIZE) / search._all(made_up) for front in fronts]
    assert search.volumes(made_up, trace, [27, 54, 81]) == pytest.approx(shares)
    assert search.volumes(made_up, virtual.Trace(), [27]) == [0.0]


def test_the_report_names_the_epochs_that_reach_the_best_of_the_others(made_up: Table) -> None:
    grid = search.grid()
    slow = [min(1.0, 0.5 * epochs / grid[-1]) for epochs in grid]
    fast = [min(0.9, epochs / grid[-1]) for epochs in grid]
    found = {
        f"{name}/4/{seed}": {"curve": curve} for name, curve in (("tpe", slow), ("skipnas", fast)) for seed in (0, 1)
    }
    for most, goal in ((1.0, 0.499), (0.4, 0.399)):
        text = search.table_of(found, ["tpe", "skipnas"], 4, range(2), most)
        assert f"epochs to {goal:.4f} (tpe ends with 0.5000)" in text
        (line,) = [line for line in text.splitlines() if line.startswith("| skipnas ")]
        reached = float(line.split("|")[-2].replace(",", ""))
        assert reached == pytest.approx(grid[math.ceil(np.searchsorted(fast, goal))], abs=1)


def test_more_than_all_known_is_luck(made_up: Table) -> None:
    first, second = made_up.all_values[:, 0, -1], made_up.all_values[:, 1, -1]
    front = [row for row, mine in enumerate(first) if not any((each > mine).all() for each in first)]
    share = hypervolume(second[front], search.REFERENCE, search.MAXIMIZE) / search._all(made_up)
    assert search.all_known(made_up) == pytest.approx(share, abs=1e-3)
    assert search.all_known(made_up) < 1


def test_without_a_table_nothing_is_replayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        search.main(["--table", str(tmp_path / "none.npz")])
    assert ended.value.code == 2
    assert "make it with python -m benchmarks.table" in capsys.readouterr().err
