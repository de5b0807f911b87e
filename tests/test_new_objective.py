"""The objective of docs/extending.md, added to a copy of the project: two files, and everything else knows it."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from extending_examples import EXAMPLES, copy_product

pytestmark = pytest.mark.slow

SCRIPT = """
import contextlib, io, json, sys
import app_cli

def run(*words):
    said = io.StringIO()
    sys.argv = ["skipnas", *words]
    with contextlib.redirect_stdout(said):
        try:
            app_cli.main()
        except SystemExit as end:
            assert not end.code, words
    return said.getvalue()

study = ["new", "--storage", "studies.db"]
search = ["search", "--study", *study, "--objectives", "psnr,lowest_recall,params", "--early-stopping"]
search += ["--trials", "7", "--epochs", "3", "--subset", "300", "--max-params", "30000", "--sampler", "random"]
search += ["--precision", "fp32", "--no-baselines", "--concurrency", "1", "--quiet", "--json"]
said = {"search": run(*search)}
said["best"] = run("best", *study, "--pick", "lowest_recall")
said["facts"] = run("best", *study, "--json")
said["report"] = run("report", *study, "--to", "report.html")
said["csv"] = run("studies", "to-csv", *study[:1], "trials.csv", *study[1:])
said["export"] = run("export", *study, "--pick", "lowest_recall", "--to", "bundle")
said["evaluate"] = run("evaluate", "bundle")

from studies.store.ledger import SqlLedger

with SqlLedger.open("new", "studies.db") as ledger:
    said["rungs"] = [o.name for o in ledger.rung_objectives()]
    said["rung"] = {number: values for number, values in ledger.rung(1).items()}
    said["epochs"] = {number: ledger.epochs_table(number)[0].values for number in ledger.rung(1)}
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def added(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the product with the example of the documentation in it."""
    folder = tmp_path_factory.mktemp("copy")
    copy_product(folder)
    EXAMPLES["An objective that rungs may use"].apply(folder)
    return folder


@pytest.fixture(scope="module")
def said(added: Path) -> dict[str, Any]:
    """What the commands said in the copy, one after the other, in a process that has nothing of this one's."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=added, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr
    value: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return value


@pytest.fixture(scope="module")
def rows(added: Path, said: dict[str, Any]) -> list[dict[str, str]]:
    """The trials of the CSV file."""
    with (added / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def test_rungs_judge_by_it(said: dict[str, Any], rows: list[dict[str, str]]) -> None:
    assert json.loads(said["search"])["trained"] == 7
    assert {row["reason"] for row in rows} >= {"", "stopped"}
    assert said["rungs"] == ["psnr", "lowest_recall", "params"]
    assert set(said["rung"]) == {row["number"] for row in rows if row["reason"] in ("", "stopped")}
    for number, values in said["rung"].items():
        known = said["epochs"][number]
        assert values[:2] == [known["psnr"], known["lowest_recall"]]
        assert 0 <= known["lowest_recall"] <= 100
        assert known["lowest_recall"] <= known["balanced_accuracy"]


def test_best_and_the_csv_show_it(said: dict[str, Any], rows: list[dict[str, str]]) -> None:
    front = json.loads(said["facts"])["front"]
    best = max(member["values"]["lowest_recall"] for member in front)
    assert "lowest_recall (%)" in said["best"]
    assert f"has the best lowest_recall of the front, {best:.2f} %" in said["best"]
    assert best == max(float(row["lowest_recall"]) for row in rows if row["state"] == "COMPLETE")


def test_the_report_draws_it_and_tells_its_reference(added: Path, said: dict[str, Any]) -> None:
    page = (added / "report.html").read_text()
    assert "report written" in said["report"]
    for name in ("front-psnr-lowest_recall", "curve-lowest_recall"):
        assert f'id="{name}"' in page
    told = "the noisy input's PSNR, a recall of 0 and the limit of parameters"
    assert f"The reference point is {told}." in page
    assert '<td class="n">0.00</td>' in page, "the reference point"


def test_the_card_and_evaluate_show_it_on_every_split(added: Path, said: dict[str, Any]) -> None:
    card = (added / "bundle" / "README.md").read_text()
    facts = json.loads((added / "bundle" / "architecture.json").read_text())["facts"]
    found = [facts["measured"][part]["lowest_recall"] for part in ("validation", "test")]
    assert f"| accuracy in the class that is recognised worst, % | {found[0]:.2f} | {found[1]:.2f} |" in card
    assert f"lowest recall {found[1]:.2f} %" in said["export"]
    header, _, network = said["evaluate"].splitlines()[1:4]
    assert "lowest recall (%)" in header
    assert f"{found[1]:.2f}" in network
