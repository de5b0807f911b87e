"""The atlases: candidates that can be made again, a file that keeps them, and the prior that is fitted to them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import atlas, prior, rungs
from benchmarks.lib import atlases
from benchmarks.lib.atlases import SPACE, VALUES, atlas_tasks
from benchmarks.lib.made_up import study_config
from benchmarks.lib.records import append
from nas.protocols import prior_of
from nas.search.prior import Prior
from nas.types import Task
from search_spaces import get_space

DIGITS = Task(channels=1, classes=10, height=8, width=8, noise="gaussian:50")


def record_of(entry: atlas.Entry, good: float) -> dict[str, Any]:
    """A made-up record: wide networks are good."""
    cost = SPACE.cost(entry.candidate.spec, DIGITS)
    end = [15.0 + good, 50.0 + 10 * good, 0.1 * good]
    return {
        "key": entry.key,
        "candidate": entry.candidate.digest,
        "number": entry.number,
        "origin": entry.origin,
        "hyperparameters": dict(entry.params),
        "params": cost.params,
        "macs": cost.macs,
        "cpu_seconds": 20.0,
        "image_seconds": 1e-4 * (2.0 + cost.macs / 1e6 + 40 / entry.params["batch_size"]),
        "curve": {"1": [14.0, None, 0.0], "27": end},
        **dict(zip(VALUES, end, strict=True)),
    }


@pytest.fixture(scope="module")
def known() -> list[dict[str, Any]]:
    made = atlas.wave(atlas_tasks(None)["digits"], DIGITS, 0, 48, [])
    return [record_of(entry, good=np.log2(entry.params["width"])) for entry in made]


def test_candidates_are_distinct_within_limits_and_the_same_again(known: list[dict[str, Any]]) -> None:
    assert [record["number"] for record in known] == list(range(48))
    assert len({record["candidate"] for record in known}) == 48
    limits = {limit.name: limit.upper for limit in SPACE.limits(DIGITS)}
    assert all(record["macs"] <= limits["macs"] and record["params"] <= limits["params"] for record in known)
    assert {record["origin"] for record in known[::3]} == {"random"}
    assert "random" not in {record["origin"] for record in known[1::3]}
    task = atlas_tasks(None)["digits"]
    first, again = (atlas.wave(task, DIGITS, 48, 12, known) for _ in range(2))
    assert [entry.candidate for entry in first] == [entry.candidate for entry in again]
    assert {entry.origin for entry in first[2::3]} == {"front"}
    assert not {entry.candidate.digest for entry in first} & {record["candidate"] for record in known}
    for record in known:
        candidate = SPACE.decode(record["hyperparameters"], DIGITS, 27)
        assert candidate.digest == record["candidate"]


def test_the_file_keeps_the_records(known: list[dict[str, Any]], tmp_path: Path) -> None:
    lost = {name: value for name, value in known[0].items() if name not in VALUES} | {"diverged": "loss", "curve": {}}
    atlases.write({"digits": [lost, *known[1:]], "photos": known[:5]}, tmp_path / "a.npz")
    found = atlases.read(tmp_path / "a.npz")
    assert [len(some) for some in found.values()] == [48, 5]
    assert found["digits"][0].keys() & {*VALUES, "diverged"} == {"diverged"}
    one, stored = known[7], found["digits"][7]
    assert stored["hyperparameters"] == one["hyperparameters"]
    for name in ("number", "origin", "params", "macs"):
        assert stored[name] == one[name]
    assert [stored[name] for name in VALUES] == pytest.approx([one[name] for name in VALUES], abs=1e-3)
    assert stored["curve"]["1"][0] == 14.0
    assert np.isnan(stored["curve"]["1"][1])


def test_a_prior_learns_what_matters(
    known: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prior, "STEPS", 40)
    (tmp_path / "prior.json").write_text(json.dumps(prior.prior_of([known, known[::2]])))
    found = Prior.read(tmp_path / "prior.json")
    assert len(found.trials) == 72
    assert found.trials[0].hyperparameters == {
        name: value for name, value in known[0]["hyperparameters"].items() if name in found.trials[0].hyperparameters
    }
    best = max(known, key=lambda record: record["psnr"])
    scores = {trial.params: trial.scores["psnr"] for trial in found.trials if trial.task == 0}
    assert scores[best["params"]] == 0.0
    relevance = found.beliefs["psnr"].relevance
    assert max(relevance, key=lambda name: relevance[name]) == "width"
    assert relevance["head_dropout"] < 0.2 * relevance["width"]


def test_the_prior_of_the_space_can_be_read_and_is_of_the_file() -> None:
    found = Prior.read(SPACE.prior)
    tasks = atlases.read()
    assert {trial.task for trial in found.trials} == set(range(len(tasks)))
    macs = {record["macs"] for records in tasks.values() for record in records}
    assert all(trial.macs in macs for trial in found.trials)
    assert SPACE.prior.stat().st_size < 200_000
    assert atlases.FILE.stat().st_size < 1_000_000


def test_rules_are_compared_on_the_atlas(capsys: pytest.CaptureFixture[str]) -> None:
    assert rungs.main(["--orders", "2"]) == 0
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines()[2:]]
    assert len(rows) == 6
    spent = {row[1].strip(): float(row[-2].split("±")[0]) for row in rows}
    assert all(share == 1.0 if name.endswith("none") else share < 0.6 for name, share in spent.items())


def test_a_restricted_space_learns_from_networks_of_its_own_alone() -> None:
    whole = study_config("s", "auto", prior="space")
    kept, all_of_them = prior_of(SPACE, whole, SPACE.distributions(DIGITS)).trials, Prior.read(SPACE.prior).trials
    assert all(trial in kept for trial in all_of_them if trial.hyperparameters["levels"] <= 3)
    assert all(trial.hyperparameters["levels"] <= 3 or trial.hyperparameters["resampling"] == "none" for trial in kept)
    classic = get_space("classic")
    config = study_config("s", "auto", space="classic", prior="space")
    found = prior_of(classic, config, classic.distributions(DIGITS)).trials
    assert 0 < len(found) < 100
    assert {trial.hyperparameters["columns"] for trial in found} == {1}
    assert {trial.hyperparameters["prediction"] for trial in found} == {"image"}
    assert not prior_of(classic, study_config("s", "auto", space="classic"), ()).trials


def test_runs_are_read_once_they_are_timed(known: list[dict[str, Any]], tmp_path: Path) -> None:
    runs, times = atlases.paths("digits", tmp_path)
    for record in known[:3]:
        append(runs, {name: value for name, value in record.items() if name != "image_seconds"})
    assert atlases.from_runs(tmp_path) == {}
    append(times, {"key": known[1]["key"], "number": 1, "image_seconds": known[1]["image_seconds"]})
    assert atlases.from_runs(tmp_path) == {"digits": [known[1]]}
    entry = atlas.wave(atlas_tasks(None)["digits"], DIGITS, 0, 1, [])[0]
    timing = atlas.perform_timing(entry)
    assert timing["key"] == known[0]["key"]
    assert 0 < timing["image_seconds"] < 1


def test_an_atlas_goes_on_from_its_file(
    known: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    atlases.write({"digits": known}, tmp_path / "a.npz")
    begun = atlases.read(tmp_path / "a.npz")
    made: list[atlas.Entry] = []

    def perform_all(entries: list[atlas.Entry], path: Path, work: object) -> bool:
        made.extend(entries)
        for entry in entries:
            append(path, record_of(entry, good=1.0))
            append(atlases.paths("digits", tmp_path)[1], {"key": entry.key, "number": entry.number, "image_seconds": 1})
        return True

    monkeypatch.setattr(atlas.runs, "perform_all", perform_all)
    digits = atlas_tasks(None)["digits"]
    assert atlas.grow("digits", digits, 60, tmp_path, begun["digits"])
    assert [entry.candidate for entry in made] == [
        entry.candidate for entry in atlas.wave(digits, DIGITS, 48, 12, known)
    ]
    found = atlases.from_runs(tmp_path, begun)["digits"]
    assert [record["number"] for record in found] == list(range(60))
    assert found[:48] == begun["digits"]
