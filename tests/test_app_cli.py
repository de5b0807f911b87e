"""The commands on a real study: what they print, what they leave behind, and how fast they give up."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import optuna
import pytest
import torch
from command_samples import ROOT, SEARCH, SHARED, Said, Studied
from PIL import Image
from safetensors.torch import save_file

from nas.errors import ClusterError, ConfigError
from nas.training.checkpoint import weights_path
from nas.training.version import TRAINING_VERSION
from studies.commands import searched
from studies.reading.study import StudyReader
from studies.settings import SearchRequest

Run = Callable[..., Said]


def test_the_search_ends_with_a_front_and_what_comes_next(studied: Studied) -> None:
    said = studied.said
    assert said.code == 0, said.err
    assert "psnr (dB)" in said.out
    assert "<- chosen" in said.out
    assert "macs <=" in said.out, "the best at each size"
    assert "4 trials in" in said.err
    assert "workers were busy" in said.err
    assert "best small" in said.err
    assert "report small --to small.html" in said.err
    assert "export small" in said.err
    assert "\x1b" not in said.out + said.err, "no control codes in a pipe"
    assert not any(word in said.out + said.err for word in ("Traceback", "(raylet)", "[I 20", "WARNING"))
    assert all(len(line) < 160 for line in said.out.partition("hypervolume")[0].splitlines())


def test_nothing_is_left_but_the_study(studied: Studied) -> None:
    left = {path.relative_to(studied.folder).as_posix() for path in studied.folder.rglob("*") if path.is_file()}
    assert {path for path in left if not path.endswith((".safetensors", ".png"))} == {
        "runs/studies.db",
        "runs/small/.database",
    }


def test_every_complete_trial_has_a_small_picture(studied: Studied) -> None:
    with StudyReader.open("small") as study:
        complete = {result.number for result in study.results()}
    pictures = {path.name: path.stat().st_size for path in (studied.folder / "runs" / "small").glob("*.png")}
    assert set(pictures) == {f"trial-{number}.png" for number in complete}
    assert all(100 < size < 60_000 for size in pictures.values())
    with Image.open(studied.folder / "runs" / "small" / next(iter(pictures))) as picture:
        assert picture.size == (6 * 64 + 5 * 4, 3 * 64 + 2 * 4), "six images a row: noisy, denoised, clean"


def test_a_report_and_an_example_of_python(studied: Studied, run: Run) -> None:
    said = run("report", "small", "--to", "small.html")
    assert said.code == 0
    assert "report written to small.html" in said.out
    page = (studied.folder / "small.html").read_text()
    assert "data:image/png;base64," in page
    assert "There are no images here" not in page
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "explore_study.py"), "small"],
        cwd=studied.folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "knee" in done.stdout
    assert (studied.folder / "front.html").exists()


def test_one_trial_is_shown_by_itself(studied: Studied, run: Run) -> None:
    said = run("studies", "show", "small", "--trial", "0")
    assert said.code == 0
    assert "spec " in said.out
    assert json.loads(run("studies", "show", "small", "--trial", "0", "--json").out)["trial"] == 0


def test_the_same_command_again_says_that_nothing_is_to_do(studied: Studied, run: Run) -> None:
    said = run(*SEARCH)
    assert said.code == 0
    assert "study small is complete: it has 4 trained trials of 4; nothing to do" in said.err
    assert "<- chosen" in said.out


def test_fewer_options_continue_the_same_study(studied: Studied, run: Run) -> None:
    assert run("search", "--study", "small", "--trials", "4").code == 0


def test_json_is_all_there_is_on_stdout(studied: Studied, run: Run) -> None:
    said = run(*SEARCH, "--json")
    value = json.loads(said.out)
    assert value["trained"] == 4
    assert value["reason"] == "complete"
    assert {"psnr", "accuracy", "stability"} <= set(value["front"][0]["values"])
    largest = value["by_size"][-1]
    assert (set(largest["found"]), largest["references"]) == ({"psnr", "accuracy"}, {}), "none was enqueued"
    assert largest["found"]["psnr"]["value"] == max(member["values"]["psnr"] for member in value["front"])
    for command in (
        ("studies", "list"),
        ("studies", "show", "small"),
        ("best", "small"),
        ("spaces", "unet", "--sample", "2"),
        ("doctor",),
    ):
        json.loads(run(*command, "--json").out)


def test_a_study_is_proposed_again_and_a_changed_one_is_noticed(studied: Studied, run: Run, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patched:
        # However many proposals of its searches were in vain one after the other, they are made again.
        patched.setattr("nas.engine.searcher.IN_VAIN", 0)
        assert run("studies", "replay", "small").out == "4 trials were proposed again, each the same candidate\n"
    changed = tmp_path / "changed.db"
    changed.write_bytes((studied.folder / "runs" / "studies.db").read_bytes())
    with contextlib.closing(sqlite3.connect(changed)) as connection:
        connection.execute("UPDATE skipnas_trials SET digest = '0' WHERE number = 2")
        connection.commit()
    said = run("studies", "replay", "small", "--storage", f"sqlite:///{changed}")
    assert (said.code, said.out) == (1, "trial 2 is another candidate; the 2 before it are the same\n")


def test_best_picks_and_says_why(studied: Studied, run: Run) -> None:
    knee = json.loads(run("best", "small", "--json").out)
    assert "knee" in knee["reason"] or "only member" in knee["reason"]
    numbers = [member["trial"] for member in knee["front"]]
    top = json.loads(run("best", "small", "--pick", "psnr", "--json").out)["chosen"]
    assert top["values"]["psnr"] == max(member["values"]["psnr"] for member in knee["front"])
    assert json.loads(run("best", "small", "--pick", numbers[-1], "--json").out)["chosen"]["trial"] == numbers[-1]
    preferred = json.loads(run("best", "small", "--prefer", "psnr=1000,accuracy=0,stability=0", "--json").out)
    assert preferred["chosen"]["trial"] == top["trial"]
    plain = run("best", "small")
    assert "architecture: levels" in plain.out
    assert "recipe: epochs 2" in plain.out


def test_the_best_that_fits_is_shown_and_trained(studied: Studied, run: Run) -> None:
    with StudyReader.open("small") as study:
        macs = {result.number: int(result.values["macs"]) for result in study.results()}
    limit = ("--max-macs", min(macs.values()))
    best = json.loads(run("best", "small", *limit, "--json").out)
    chosen = best["chosen"]["trial"]
    assert (best["limits"], macs[chosen]) == ({"macs": limit[1]}, limit[1])
    assert f"among trials with at most {limit[1]:,} MACs" in best["reason"]
    plain = run("best", "small", "--max-latency", 1e6)
    assert plain.code == 2
    assert "because none was measured in this; leave the limit out" in plain.err
    assert json.loads(run("studies", "show", "small", *limit, "--json").out)["trial"] == chosen
    assert json.loads(run("studies", "show", "small", "--pick", "knee", "--json").out)["trial"] in {
        member["trial"] for member in json.loads(run("best", "small", "--json").out)["front"]
    }
    training = ("--epochs", 1, "--subset", 60, "--threads", 1, "--precision", "fp32", "--to", "trained", "--quiet")
    said = run("train", "small", *limit, *training)
    assert said.code == 0, said.err
    facts = json.loads((studied.folder / "trained/bundle/architecture.json").read_text())["facts"]
    assert facts["trial"] == chosen


def test_figures_of_other_training_code_are_told_in_a_line(studied: Studied, run: Run) -> None:
    for command in (("best", "small"), ("studies", "show", "small"), SEARCH):
        said = run(*command)
        assert said.code == 0
        assert "figures of different versions" not in said.out + said.err, "all are of this version"
    with contextlib.closing(sqlite3.connect("runs/studies.db")) as connection:
        connection.execute("UPDATE skipnas_trials SET training_version = NULL WHERE number < 3")
        connection.commit()
    told = (
        f"raining code: version 1 trained 3 trials and version {TRAINING_VERSION} trained 1 trial, and this is version"
    )
    for command in (("best", "small"), ("studies", "show", "small"), SEARCH, ("report", "small")):
        said = run(*command)
        page = Path("small.html").read_text() if command[0] == "report" else ""
        assert said.code == 0
        assert (said.out + said.err + page).count(told) == 1, command
        assert page.count(f"trained   by version {TRAINING_VERSION} of the training code") == bool(page)
    versions = {"trials": {"1": 3, str(TRAINING_VERSION): 1}, "confirming runs": {}}
    assert json.loads(run("best", "small", "--json").out)["training_versions"] == versions
    assert json.loads(run("studies", "show", "small", "--json").out)["training_versions"] == versions
    trial = json.loads(run("studies", "show", "small", "--trial", "1", "--json").out)
    assert trial["training_version"] == 1
    assert run("studies", "to-csv", "small", "trials.csv").code == 0
    rows = list(csv.DictReader(Path("trials.csv").read_text().splitlines()))
    assert [row["training_version"] for row in rows] == ["1", "1", "1", str(TRAINING_VERSION)]


def test_studies_are_listed_shown_written_and_deleted(studied: Studied, run: Run) -> None:
    assert "small" in run("studies", "list").out
    shown = run("studies", "show", "small").out
    assert "gaussian:50" in shown
    assert "4 trained" in shown
    assert run("studies", "to-csv", "small", "trials.csv").code == 0
    rows = list(csv.DictReader((studied.folder / "trials.csv").read_text().splitlines()))
    assert len(rows) == 4
    assert {"number", "state", "psnr", "fusion", "learning_rate", "digest"} <= set(rows[0])
    assert run("studies", "delete", "small", "--yes").code == 0
    assert not list((studied.folder / "runs").rglob("*.safetensors"))
    assert "error: no study 'small'" in run("studies", "show", "small").err


def test_a_bundle_evaluates_to_what_the_study_measured(studied: Studied, run: Run) -> None:
    with StudyReader.open("small") as study:
        smallest = min(study.results(), key=lambda result: result.values["macs"])
    best = smallest.values
    said = run("export", "small", "--max-macs", int(best["macs"]), "--integer-io", "--to", "bundle", "--json")
    assert said.code == 0, said.err
    exported = json.loads(said.out)
    assert exported["trial"] == smallest.number, "the best that fits"
    assert "model.uint8.onnx" in exported["files"]
    assert exported["differences"]["onnx"] < 1e-4
    assert exported["differences"]["torch_export"] < 1e-4
    found = json.loads(run("evaluate", "bundle", "--split", "validation", "--json").out)["levels"][0]
    assert found["psnr"] == pytest.approx(best["psnr"], abs=0.01)
    assert found["accuracy"] == pytest.approx(best["accuracy"], abs=0.1)
    test = run("evaluate", "bundle")
    assert "digits, test split, 359 images" in test.out
    assert "gaussian:50" in test.out
    assert "noisy input" in test.out
    assert re.search(r"noisy input +14\.[12]", test.out)
    noises = "poisson-gaussian:2,5+depth:8,gaussian:25"
    sensor, weaker = json.loads(run("evaluate", "bundle", "--noise", noises, "--json").out)["levels"]
    assert sensor["noise"] == "poisson-gaussian:2,5+depth:8"
    assert weaker["noise"] == "gaussian:25"
    assert weaker["noisy_psnr"] == pytest.approx(20.2, abs=0.1)
    assert sum(map(sum, weaker["confusion"])) == pytest.approx(359)
    assert weaker["draws"] == 6


def test_weights_of_another_network_are_told_and_the_report_does_without_them(studied: Studied, run: Run) -> None:
    for number in json.loads(run("studies", "show", "small", "--json").out)["front"]:
        save_file({"other": torch.zeros(3)}, weights_path(studied.folder / "runs/small", number))
    said = run("export", "small", "--to", "bundle")
    assert (said.code, len(said.err.splitlines())) == (2, 1), said.err
    assert "are of another network" in said.err
    said = run("report", "small", "--to", "small.html")
    assert said.code == 0, said.err
    assert "the weights are not on this machine, or not of this version" in Path("small.html").read_text()


def test_a_plain_optuna_script_reads_the_study(studied: Studied) -> None:
    study = optuna.load_study(study_name="small", storage="sqlite:///runs/studies.db")
    assert study.metric_names == ["psnr", "accuracy", "stability"]
    assert len(study.trials) == 4
    assert study.best_trials


def test_spaces_are_shown_for_a_task(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = run("spaces").out
    assert "unet (version" in shown
    assert "fusion" in shown
    assert len([line for line in run("spaces", "unet", "--sample", "3").out.splitlines() if " MACs: " in line]) == 3


def test_doctor_looks_and_changes_nothing(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = run("doctor")
    assert "torch" in said.out
    assert (
        "no studies yet in sqlite:///runs/studies.db; run `skipnas search` first or name another --storage" in said.out
    )
    assert not list(tmp_path.iterdir())


def test_doctor_says_what_a_search_may_use(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr("nas.machine.quota", lambda: 2.5)
    assert "a search starts its own, with 2 trials at a time" in run("doctor").out

    def useless() -> NoReturn:
        raise ClusterError("/tmp cannot be used")

    monkeypatch.setattr("studies.commands.doctor.temporary_folder", useless)
    found = {finding["subject"]: finding for finding in json.loads(run("doctor", "--json").out)["findings"]}
    assert (found["temporary"]["state"], found["temporary"]["text"]) == ("bad", "/tmp cannot be used")


@pytest.mark.parametrize("command", [("studies", "to-csv", "small"), ("report", "small", "--to")], ids=lambda it: it[0])
def test_results_are_written_through_what_is_there(studied: Studied, run: Run, command: tuple[str, ...]) -> None:
    Path("file").write_text("old")
    Path("file").chmod(0o640)
    Path("link").symlink_to("file")
    assert run(*command, "link").code == 0
    assert Path("link").is_symlink()
    assert Path("file").stat().st_mode & 0o777 == 0o640
    written = Path("file").read_text()
    assert ("<html" in written) == (command[0] == "report")
    os.mkfifo("pipe")
    for target, code in (("/dev/null", 0), ("/dev/full", 2), ("pipe", 2)):  # nobody reads the pipe
        before = Path(target).stat()
        said = run(*command, target)
        assert (said.code, len(said.err.splitlines())) == (code, int(code == 2)), said
        assert Path(target).stat().st_mode == before.st_mode
    assert Path("file").read_text() == written


@pytest.mark.parametrize("command", ["search", "best", "report", "export", "evaluate", "dashboard", "spaces", "doctor"])
def test_every_help_holds_an_example(run: Run, command: str) -> None:
    said = run(command, "--help")
    assert said.code == 0
    assert f"Example: skipnas {command}" in said.out


def test_the_dashboard_serves_every_trial_and_stops(studied: Studied) -> None:
    server = subprocess.Popen(
        [sys.executable, str(ROOT / "app_cli.py"), "dashboard", "--next-free"],
        cwd=studied.folder,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stderr is not None
        address = re.search(r"http://127\.0\.0\.1:\d+/", server.stderr.readline())
        assert address is not None
        base = f"{address[0]}api/studies"
        with urllib.request.urlopen(base, timeout=20) as answer:
            study = json.load(answer)["study_summaries"][0]
        with urllib.request.urlopen(f"{base}/{study['study_id']}?after=0", timeout=20) as answer:
            detail = json.load(answer)
        assert detail["objective_names"] == ["psnr", "accuracy", "stability"]
        assert len(detail["trials"]) == 4
        assert all(trial["constraints"] for trial in detail["trials"])
        complete = [trial for trial in detail["trials"] if trial["state"] == "Complete"]
        assert complete
        for trial in complete:
            assert len(trial["values"]) == 3
            (picture,) = trial["artifacts"]
            place = f"{study['study_id']}/{trial['trial_id']}/{picture['artifact_id']}"
            with urllib.request.urlopen(f"{address[0]}artifacts/{place}", timeout=20) as answer:
                assert answer.read(8) == b"\x89PNG\r\n\x1a\n"
        wait_until(lambda: all(trial["note"]["body"] for trial in trials_of(f"{base}/{study['study_id']}?after=0")))
    finally:
        server.send_signal(signal.SIGINT)
        _, rest = server.communicate(timeout=20)
    assert "Traceback" not in rest
    assert server.returncode == 0


def trials_of(url: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(url, timeout=20) as answer:
        found: list[dict[str, Any]] = json.load(answer)["trials"]
    return found


def has_trials(database: Path) -> bool:
    """Looked up without Optuna, which would create its tables in a database that has none yet."""
    if not database.exists():
        return False
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return bool(connection.execute("SELECT count(*) FROM trials").fetchone()[0])


def wait_until(happened: Callable[[], bool], seconds: float = 120) -> None:
    for _ in range(int(seconds / 0.5)):
        with contextlib.suppress(sqlite3.OperationalError):  # tables that are not there yet
            if happened():
                return
        time.sleep(0.5)
    pytest.fail(f"it did not happen within {seconds:g} seconds")


LONG = ["--study", "cut", "--trials", "1", "--subset", "200", "--max-macs", "400000", "--no-baselines"]


def test_ctrl_c_stops_a_search_and_says_how_to_go_on(tmp_path: Path) -> None:
    search = subprocess.Popen(
        [sys.executable, str(ROOT / "app_cli.py"), "search", *LONG, "--trials", "2", "--epochs", "900"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    url = f"sqlite:///{tmp_path}/runs/studies.db"
    try:
        wait_until(lambda: has_trials(tmp_path / "runs" / "studies.db"))
        search.send_signal(signal.SIGINT)
        _, rest = search.communicate(timeout=120)
    finally:
        search.kill()
    assert search.returncode == 0
    assert "stopped by an interrupt; trials under way are kept. Go on with:" in rest
    assert "Traceback" not in rest
    study = optuna.load_study(study_name="cut", storage=url)
    assert {trial.state.name for trial in study.trials} == {"RUNNING"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "command", "under_way", "code", "told"),
    [
        ([], ["search", *LONG, "--epochs", "900"], "runs/cut/*.checkpoint", 0, "stopped by an interrupt"),
        (["search", *LONG, "--epochs", "60"], ["confirm", "cut"], "runs/cut/confirm/*", 0, "stopped by an interrupt"),
        ([], ["train", "unet", "--epochs", "5000", "--to", "out"], "out/checkpoint.pt", 130, "stopped"),
    ],
    ids=["search", "confirm", "train"],
)
def test_the_end_that_a_batch_system_asks_for_is_a_ctrl_c(
    tmp_path: Path, before: list[str], command: list[str], under_way: str, code: int, told: str
) -> None:
    program = [sys.executable, str(ROOT / "app_cli.py")]
    if before:
        subprocess.run([*program, *before], cwd=tmp_path, capture_output=True, check=True, timeout=200)
    run = subprocess.Popen(
        [*program, *command],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_until(lambda: any(tmp_path.glob(under_way)))
        os.killpg(run.pid, signal.SIGTERM)  # as `timeout` does, whose signal is for the whole group
        _, said = run.communicate(timeout=50)  # Ray waits for a control store that has ended for 60 s
    finally:
        run.kill()
    assert run.returncode == code, said
    assert told in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_two_searches_started_on_one_study_at_once_reach_its_size_together(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "app_cli.py"), "search", "--study", "both", "--trials", "6", "--epochs", "9"]
    command += ["--subset", "128", "--max-params", "12000", "--concurrency", "1", "--quiet"]
    both = [subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        said = [search.communicate(timeout=240)[1] for search in both]
    finally:
        for search in both:
            search.kill()
    assert [search.returncode for search in both] == [0, 0], said
    study = optuna.load_study(study_name="both", storage=f"sqlite:///{tmp_path}/runs/studies.db")
    states = [trial.state.name for trial in study.trials if trial.user_attrs.get("reason") not in ("duplicate",)]
    assert len(states) == 6
    assert set(states) <= {"COMPLETE", "PRUNED"}


shared = pytest.mark.skipif(not SHARED.exists(), reason=f"no real images at {SHARED.name} beside the project")


@shared
@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "objectives"),
    [
        (["--data", "fashion-mnist", "--data-root", str(SHARED), "--subset", "6000"], 3),
        (["--data", f"folder:{SHARED / 'cifar10-subset'}", "--subset", "2000"], 3),
        (["--data", "photos", "--noise", "poisson:30"], 3),
        (["--data", f"images:{SHARED / 'train400'}", "--subset", "200"], 2),
    ],
    ids=["fashion", "cifar", "photos", "images"],
)
def test_real_data_searches(tmp_path: Path, options: list[str], objectives: int) -> None:
    command = [
        "search",
        "--study",
        "real",
        "--trials",
        "3",
        "--epochs",
        "1",
        "--max-macs",
        "8000000",
        *options,
        "--json",
    ]
    done = subprocess.run(
        [sys.executable, str(ROOT / "app_cli.py"), *command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert value["trained"] == 3
    study = optuna.load_study(study_name="real", storage=f"sqlite:///{tmp_path}/runs/studies.db")
    assert len(study.metric_names) == objectives
    assert ("accuracy drops out" in done.stderr) == (objectives == 2)


@pytest.mark.parametrize("url", ["postgresql://me:hunter2@host/db", "postgresql://host/db?user=me&password=hunter2"])
@pytest.mark.parametrize("joined", [False, True])
def test_what_is_stored_of_a_search_holds_no_password(
    run: Run, monkeypatch: pytest.MonkeyPatch, url: str, joined: bool
) -> None:
    def refuse(request: SearchRequest, *others: object) -> NoReturn:
        assert request.storage == url
        raise ConfigError(request.command)

    monkeypatch.setattr(searched, "prepare", refuse)
    said = run("search", *([f"--storage={url}"] if joined else ["--storage", url]), "--trials", "4")
    assert said.err.startswith("error: skipnas search")
    assert "host/db" in said.err
    assert "hunter2" not in said.err


def test_commands_to_paste_name_the_storage(studied: Studied, run: Run) -> None:
    Path("runs/studies.db").rename("runs/a@b.db")
    said = run(*SEARCH, "--storage", "sqlite:///runs/a@b.db")
    assert said.code == 0, said.err
    assert "best small --storage sqlite:///runs/a@b.db\n" in said.err
