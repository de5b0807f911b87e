"""From a study to confirmed figures, a bundle that says them, and its evaluation, by the commands."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_samples import Said, Studied
from PIL import Image

from nas.engine.confirm import ConfirmEnd
from nas.outcome import Outcome
from nas.search.confirmation import ConfirmedRun, confirmation_seed
from nas.training.version import TRAINING_VERSION
from studies.bundles import export_choice
from studies.reading.study import StudyReader
from studies.store.ledger import SqlLedger

Run = Callable[..., Said]


def confirmed(storage: str, offset: float) -> list[int]:
    """Stores two runs of every trial on the front, as a confirmation would; their numbers."""
    with SqlLedger.open("small", storage) as ledger:
        front = ledger.front()
        for result in StudyReader.open("small", ledger.storage).results():
            if result.number not in front:
                continue
            for repeat in range(2):
                values = {name: value + offset + 0.1 * repeat for name, value in result.values.items()}
                values |= {f"test_{name}": values[name] for name in ("psnr", "accuracy")}
                ledger.confirm(
                    ConfirmedRun(
                        digest=result.digest,
                        repeat=repeat,
                        seed=confirmation_seed(0, repeat),
                        number=result.number,
                        reference=None,
                        spec=result.spec,
                        recipe=result.recipe,
                        outcome=Outcome.COMPLETE,
                        training_version=TRAINING_VERSION,
                        values=values,
                    )
                )
    return front


def test_confirm_trains_goes_on_and_says_when_it_is_done(studied: Studied, run: Run) -> None:
    said = run("confirm", "small", "--seeds", "2", "--top", "0", "--json")
    assert said.code == 0, said.err
    value = json.loads(said.out)
    assert (value["state"], value["runs"], value["of"], value["new"]) == ("complete", 2, 2, 2)
    (member,) = value["members"]
    assert value["knee"] == member["trial"]
    assert member["values"]["test_psnr"]["n"] == 2
    again = run("confirm", "small", "--seeds", "2", "--top", "0")
    assert "study small is confirmed: all 2 runs are there; nothing to do" in again.err
    assert "knee" in again.out
    plain = run("best", "small").out
    assert "confirmed under 2 seeds: means and 95 % intervals on validation" in plain
    assert "±" in plain
    assert "on the test split: psnr" in plain
    assert not list(studied.folder.rglob("*.checkpoint"))


def test_front_and_knee_are_those_of_all_that_is_confirmed(
    studied: Studied, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    front = confirmed("runs/studies.db", 1.0)
    monkeypatch.setattr(
        "studies.commands.confirm.run_confirmation",
        lambda *given: ConfirmEnd(reason="failed", total=2, done=0, new=0, messages=("a run failed",)),
    )
    said = run("confirm", "small", "--seeds", "2", "--top", "0", "--json")
    assert said.code == 1, "runs that ended by an error are no success"
    value = json.loads(said.out)
    choice = json.loads(run("best", "small", "--json").out)
    assert sorted(member["trial"] for member in value["members"]) == front
    assert value["front"] == [member["trial"] for member in choice["front"]]
    assert value["knee"] == choice["chosen"]["trial"]
    plain = run("confirm", "small", "--seeds", "2", "--top", "0").out
    assert f"trial {value['knee']} <- knee" in plain


def test_best_says_which_figures_it_shows(studied: Studied, run: Run) -> None:
    assert "confirm them with: skipnas confirm small" in run("best", "small").out
    before = json.loads(run("best", "small", "--json").out)
    assert before["confirmed"] is False
    assert before["chosen"]["confirmed"] is None
    front = confirmed("runs/studies.db", 1.0)
    after = json.loads(run("best", "small", "--json").out)
    assert after["confirmed"] is True
    assert {member["trial"] for member in after["front"]} <= set(front)
    figures = after["chosen"]["confirmed"]["psnr"]
    assert figures["n"] == 2
    assert after["chosen"]["values"]["psnr"] == figures["mean"]
    assert figures["low"] < figures["mean"] < figures["high"]


@pytest.fixture(scope="module")
def confirmed_folder(_searched: Studied, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the study with a bundle of its confirmed knee in it."""
    folder = tmp_path_factory.mktemp("confirmed") / "work"
    shutil.copytree(_searched.folder, folder)
    storage = str(folder / "runs" / "studies.db")
    confirmed(storage, 10.0)
    with StudyReader.open("small", storage) as study:
        export_choice(study, folder / "bundle", licence="MIT")
    return folder


@pytest.fixture
def bundle(confirmed_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bundle, from a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    return confirmed_folder / "bundle"


def test_a_confirmed_bundle_says_both_its_own_figures_and_the_means(bundle: Path, run: Run) -> None:
    facts = json.loads((bundle / "architecture.json").read_text())["facts"]
    with StudyReader.open("small", str(bundle.parent / "runs" / "studies.db")) as study:
        searched = study.trial(facts["trial"]).values or {}
    assert facts["values"]["psnr"] == searched["psnr"], "of the exported weights, not the means"
    assert facts["confirmed"]["values"]["psnr"]["mean"] == pytest.approx(searched["psnr"] + 10.05)
    assert facts["confirmed"]["seeds"] == [confirmation_seed(0, 0), confirmation_seed(0, 1)]
    card = (bundle / "README.md").read_text()
    for part in ("validation", "test"):
        found = evaluated(run, bundle, "--split", part)["levels"][0]
        for name in ("psnr", "ssim", "accuracy", "noisy_psnr", "noisy_ssim"):
            assert facts["measured"][part][name] == pytest.approx(found[name], abs=1e-6), (part, name)
        assert f"{found['psnr']:.2f} |" in card
    assert "Confirmed under 2 seeds" in card
    assert "## Licence\nMIT" in card


def photographs(folder: Path, sizes: list[tuple[int, int]], mode: str = "L") -> None:
    """Makes random images, which are others in a folder of another name."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(list(folder.name.encode()))
    for number, (width, height) in enumerate(sizes):
        shape = (height, width) if mode == "L" else (height, width, 3)
        Image.fromarray(generator.integers(0, 256, shape).astype(np.uint8)).save(folder / f"{number}.png")


def evaluated(run: Run, *arguments: object) -> dict[str, Any]:
    said = run("evaluate", *arguments, "--json")
    assert said.code == 0, said.err
    value: dict[str, Any] = json.loads(said.out)
    return value


def test_evaluate_on_photographs_and_folders(bundle: Path, run: Run) -> None:
    photographs(Path("photographs"), [(40, 30), (31, 57), (24, 24)])
    whole = evaluated(run, bundle, "--data", "images:photographs", "--noise", "gaussian:25,poisson:30,none")
    assert (whole["split"], whole["images"]) == ("all", 3), "a folder that the bundle has not seen is judged whole"
    assert [level["noise"] for level in whole["levels"]] == ["gaussian:25", "poisson:30", "none"]
    first, _, clean = whole["levels"]
    assert (first["accuracy"], first["confusion"], first["draws"]) == (None, None, 1)
    assert first["noisy_psnr"] == pytest.approx(20.2, abs=0.2)
    assert (clean["noisy_psnr"], clean["noisy_ssim"]) == (60, pytest.approx(1))
    Path("photographs/2.png").unlink()
    fewer = evaluated(run, bundle, "--data", "images:photographs", "--noise", "gaussian:25")["levels"][0]
    assert fewer["images"] == 2
    assert fewer["psnr"] != first["psnr"]
    photographs(Path("parted/train"), [(20, 20)] * 4)
    photographs(Path("parted/test"), [(20, 20)] * 3)
    assert evaluated(run, bundle, "--data", "images:parted")["images"] == 3
    for label in "0123456789":
        photographs(Path("classes", label), [(8, 8)] * 5)
    classes = evaluated(run, bundle, "--data", "folder:classes", "--reference", "nlm")
    assert (classes["split"], classes["images"]) == ("all", 50)
    level = classes["levels"][0]
    assert sum(map(sum, level["confusion"])) == pytest.approx(50)
    assert level["accuracy"] == pytest.approx(100 * sum(row[i] for i, row in enumerate(level["confusion"])) / 50)
    assert level["reference_psnr"] > 0
    assert evaluated(run, bundle, "--data", "folder:classes", "--split", "test")["images"] == 10
    plain = run("evaluate", bundle, "--data", "folder:classes", "--reference", "nlm").out
    assert "all images, 50 images" in plain
    assert "nlm" in plain
    assert "true class down, answer across" in plain


@pytest.mark.slow
def test_a_bundle_is_judged_under_corruptions(bundle: Path, run: Run) -> None:
    arguments = (bundle, "--corruptions", "--split", "validation")
    found = evaluated(run, *arguments, "--to", "curves.html")
    usual, levels = found["levels"][0], found["corruptions"]
    assert (len(levels), levels[0]["noise"], levels[0]["noisy_psnr"]) == (46, "none", 60)
    same = next(each for each in levels if each["noise"] == usual["noise"] == "gaussian:50")
    assert (same["kind"], same["strength"]) == ("gaussian noise", 3)
    names = ("psnr", "noisy_psnr", "accuracy", "auc")
    assert [same[name] for name in names] == [usual[name] for name in names], "the noise depends on the data alone"
    assert evaluated(run, *arguments)["corruptions"] == levels
    assert "strength (0: clean images)" in Path("curves.html").read_text()
    assert evaluated(run, bundle, "--split", "validation")["corruptions"] is None


def test_what_cannot_be_evaluated_is_told_in_one_line(bundle: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    photographs(Path("colour"), [(20, 20)] * 3, mode="RGB")
    photographs(Path("tiny"), [(7, 9)] * 3)
    for arguments, says in (
        (("--data", "images:colour"), "3 channel(s), the network takes 1"),
        (("--data", "images:tiny"), "sides must be at least 8"),
        (("--reference", "wavelets"), "reference 'wavelets' is not known; choose from nlm, bm3d"),
        (("--noise", "gaussian:25,rain"), "noise 'rain'"),
        (("--noise", "gaussian:25,"), "noise ''"),
        (("--to", "curves.html"), "--to draws the curves of --corruptions; give --corruptions too"),
        (("--corruptions", "--to", "curves.gif"), "its ending says no format"),
        (("--corruptions", "--data", "pairs:colour"), "colour has noise of its own, and clean images alone are"),
    ):
        said = run("evaluate", bundle, *arguments)
        assert (said.code, len(said.err.strip().splitlines())) == (2, 1), said
        assert says in said.err
    monkeypatch.setitem(sys.modules, "bm3d", None)
    assert "pip install 'skipnas[bm3d]'" in run("evaluate", bundle, "--reference", "bm3d").err


@pytest.mark.skipif(importlib.util.find_spec("bm3d") is None, reason="bm3d is not installed")
def test_bm3d_is_a_reference_where_it_is_installed(bundle: Path, run: Run) -> None:
    said = run("evaluate", bundle, "--reference", "bm3d")
    assert "BM3D of images with a side of 8 pixels: at least 16 are needed" in said.err
    photographs(Path("photographs"), [(32, 24)])
    found = evaluated(run, bundle, "--data", "images:photographs", "--reference", "bm3d")
    assert found["levels"][0]["reference_psnr"] > 0
