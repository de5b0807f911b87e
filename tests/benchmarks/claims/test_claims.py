"""The report of the claims, from made-up results; that finished runs are not done again; the quick run."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.claims import __main__ as command
from benchmarks.claims import networks
from benchmarks.claims.__main__ import main
from benchmarks.claims.figure import FIGURE, gates_figure
from benchmarks.claims.networks import NETWORKS
from benchmarks.claims.protocol import Plan, plan
from benchmarks.claims.report import report
from benchmarks.claims.results import Results
from benchmarks.claims.verdicts import claim_a, claim_d, claim_e, claim_f
from benchmarks.lib import runs
from benchmarks.lib.records import append, note_session
from benchmarks.lib.runs import Setting
from nas.errors import SkipnasError
from nas.types import Task

SMALL = replace(plan(quick=True), many={"digits": 3}, fewest={"digits": 3})
"""The quick plan with one seed more, so that there is something to test."""
SESSION = {"date": "2026-01-02", "hardware": "a machine, 2 cores", "versions": "python 3"}


def made_up(better: dict[str, float] | None = None) -> dict[str, dict[str, Any]]:
    """Records of every run of `SMALL`: noise of 0.004 around 20 dB, 90 % and 0.9, plus `better`."""
    generator = random.Random(0)
    records = {}
    for setting in SMALL.settings:
        for name in NETWORKS:
            for seed in SMALL.seeds(name, setting):
                job = SMALL.job(name, setting, seed)
                shift = (better or {}).get(name, 0.0)
                value = shift + generator.gauss(0, 0.004)
                records[job.key] = {
                    "key": job.key,
                    "seed": seed,
                    "params": 30_000,
                    "macs": 1_000_000,
                    "psnr": 20 + value,
                    "stability": 0.5 + value / 20,
                    "gates": [1.0, 1.1, 1.2],
                    "seconds": 1.0,
                    "accuracy": 90 + 8 * value,
                }
    return records


def written(path: Path, records: dict[str, dict[str, Any]]) -> Path:
    note_session(path, SESSION)
    for record in records.values():
        append(path, record)
    return path


def test_the_full_plan_is_what_the_claims_ask_for() -> None:
    full = plan(root=Path("nowhere"))
    assert [(s.data, s.noise, s.epochs, s.subset) for s in full.settings] == [
        ("digits", "gaussian:25", 27, None),
        ("digits", "gaussian:50", 27, None),
        ("fashion-mnist", "gaussian:25", 9, 6000),
        ("fashion-mnist", "gaussian:50", 9, 6000),
    ]
    digits, fashion = full.settings[0], full.settings[2]
    assert len(networks.SKIPS) == 4
    assert all(len(full.seeds(name, digits)) == (20 if name in networks.SKIPS else 8) for name in NETWORKS)
    assert all(len(full.seeds(name, fashion)) == (5 if fashion.data in NETWORKS[name].data else 0) for name in NETWORKS)
    assert {s.data for s in plan(only="fashion").settings} == {"fashion-mnist"}


def test_networks_keep_to_the_budget() -> None:
    for data, side in (("digits", 8), ("fashion-mnist", 28)):
        setting = Setting(data=data, subset=None, noise="gaussian:25", epochs=9)
        task = Task(channels=1, classes=10, height=side, width=side, noise=setting.noise)
        for name, network in NETWORKS.items():
            params = networks.cost(networks.candidate(name, task, setting), task).params
            if name not in networks.OWN_SIZE and data in network.data:
                share = networks.ADDUNET_SHARE[data] if name in networks.SKIPS else network.share
                assert params == pytest.approx(share * networks.BUDGETS[data], rel=0.14), name


def test_a_clear_advantage_holds_and_a_clear_loss_does_not() -> None:
    assert claim_e(Results(SMALL, made_up({"nddr": 3.0}))).verdict == "holds"
    assert claim_e(Results(SMALL, made_up({"nddr": -3.0}))).verdict == "does not hold"
    found = claim_e(Results(SMALL, made_up({"nddr": 3.0, "sluice": 6.0})))
    assert found.parts["sluice"] == "does not hold"
    assert found.parts["cross-stitch"] == "holds"


def test_a_claim_of_losing_little_knows_its_margins() -> None:
    assert claim_f(Results(SMALL, made_up())).verdict == "holds"
    found = claim_f(Results(SMALL, made_up({"multi-resnet": -0.3, "multi-resnet-none-added": -0.13})))
    assert list(found.parts.values()) == ["does not hold", "holds"]


def test_stability_needs_both_score_and_spread() -> None:
    found = claim_a(Results(SMALL, made_up({"addunet": 5.0, "channel gate": 5.0})))
    assert found.parts["stability score"] == "holds"
    assert found.parts["spread over seeds"] == "undecided"
    assert found.verdict == "undecided"


def test_parameters_of_skips_are_counted() -> None:
    found = claim_d()
    assert found.verdict == "holds"
    assert not found.cells


def test_pairs_need_both_runs() -> None:
    records = made_up()
    setting = SMALL.settings[0]
    gone, diverged = (SMALL.job("nddr", setting, seed).key for seed in SMALL.seeds("nddr", setting)[:2])
    del records[gone]
    records[diverged] = {k: v for k, v in records[diverged].items() if k not in ("psnr", "accuracy", "gates")} | {
        "diverged": "loss is nan in epoch 1"
    }
    results = Results(SMALL, records)
    assert len(results.differences("nddr", "sluice", setting, "psnr")) == 1
    assert len(results.differences("nddr", "sluice", setting, "stability")) == 2
    assert "Incomplete" in report(results, [SESSION], "command")


def test_the_report_says_what_was_done_and_what_came_out() -> None:
    text = report(Results(SMALL, made_up()), [SESSION], "python -m benchmarks.claims --quick")
    assert "Quick check" in text
    assert "Incomplete" not in text
    for needed in ("python -m benchmarks.claims --quick", "2026-01-02", "a machine, 2 cores", "3 seeds", FIGURE):
        assert needed in text
    assert len(re.findall(r"^\| [a-f] \| .*\*\*(holds|does not hold|undecided)\*\*", text, re.M)) == 6
    for line in text.splitlines():
        if line.startswith("|"):
            assert line.endswith("|")
    for name in NETWORKS:
        assert f"| {name} |" in text


def test_the_figure_is_small_and_well_formed() -> None:
    svg = gates_figure(Results(SMALL, made_up()))
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg")
    assert svg.count("<polyline") == 3 * len(SMALL.settings)
    assert len(svg.encode()) < 100_000


def test_the_figure_of_nothing_is_still_one() -> None:
    ElementTree.fromstring(gates_figure(Results(SMALL, {})))


def test_a_finished_benchmark_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "results.jsonl", made_up())
    before = path.read_bytes()
    monkeypatch.setattr(runs, "perform_all", lambda *_: pytest.fail("trained"))
    code = main(["--quick", "--results", str(path), "--report", str(tmp_path / "CLAIMS.md")])
    assert code == 0
    assert path.read_bytes() == before
    assert (tmp_path / "CLAIMS.md").read_text().strip() == capsys.readouterr().out.strip()
    assert (tmp_path / FIGURE).exists()


def test_a_stopped_benchmark_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runs, "perform_all", lambda *_: False)
    monkeypatch.setattr(runs, "estimate", lambda _: 1.0)
    assert main(["--quick", "--results", str(tmp_path / "r.jsonl"), "--report", str(tmp_path / "C.md")]) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert not (tmp_path / "C.md").exists()


def test_a_report_can_be_had_before_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "perform_all", lambda *_: pytest.fail("trained"))
    path = written(tmp_path / "results.jsonl", dict(list(made_up().items())[:40]))
    assert main(["--quick", "--no-training", "--results", str(path), "--report", str(tmp_path / "C.md")]) == 0
    assert "Incomplete" in (tmp_path / "C.md").read_text()


def test_data_that_is_not_there_is_a_users_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> Plan:
        raise SkipnasError("no such data")

    monkeypatch.setattr(command, "plan", broken)
    assert main(["--only", "fashion", "--results", str(tmp_path / "r.jsonl")]) == 2
    assert capsys.readouterr().err.endswith("error: no such data\n")


def test_fashion_is_never_quick() -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--quick", "--only", "fashion"])
    assert stop.value.code == 2


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_quick_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--quick"]) == 0
    text = (tmp_path / "runs/claims/quick/CLAIMS.md").read_text()
    assert "Quick check" in text
    assert "Incomplete" not in text
    finished = (tmp_path / "runs/claims/quick.jsonl").read_bytes()
    assert main(["--quick"]) == 0
    assert (tmp_path / "runs/claims/quick.jsonl").read_bytes() == finished
