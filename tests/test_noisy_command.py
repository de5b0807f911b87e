"""Studies of noisy images alone from the command line: shots with classes, and single images without."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_samples import ROOT, Said
from PIL import Image

from nas.data.splits import load
from studies.bundles import open_bundle

Run = Callable[..., Said]
SIDE = 16
SHORT = ["--trials", "2", "--epochs", "1", "--max-macs", "300000", "--max-params", "30000"]
STUDIES = {"shots": "noisy", "single": "noisy-single"}


def scene(folder: Path, label: str, number: int, shots: int) -> None:
    """Shots of stripes that lie or stand, clipped and rounded as a sensor does it."""
    random = np.random.default_rng([len(label), number])
    down, right = np.mgrid[:SIDE, :SIDE] / SIDE
    clean = 120 + 90 * np.sin(random.uniform(6, 12) * (down if label == "lying" else right) + random.uniform(0, 6))
    folder.mkdir(parents=True, exist_ok=True)
    for shot in range(shots):
        values = (random.poisson(clean / 3) * 3 + random.normal(0, 6, clean.shape)).round().clip(0, 255)
        Image.fromarray(values.astype(np.uint8)).save(folder / f"{label}{number}_{shot}.png")


def called(folder: Path, *words: str) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "app_cli.py"), *words], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module", params=["shots", pytest.param("single", marks=pytest.mark.slow)])
def study(request: pytest.FixtureRequest) -> str:
    """The name of a study and of its folder of images."""
    return str(request.param)


@pytest.fixture(scope="module")
def searched(study: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("noisy")
    for label in ("lying", "standing"):
        for number in range(15):
            scene(folder / "shots" / label, label, number, shots=2)
            scene(folder / "single", label, number, shots=1)
    called(folder, "search", "--data", f"{STUDIES[study]}:{study}", "--study", study, *SHORT)
    return folder


@pytest.fixture
def here(searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    shutil.copytree(searched, folder)
    monkeypatch.chdir(folder)
    return folder


def test_a_study_of_noisy_images_has_a_psnr_of_its_own(here: Path, run: Run, study: str) -> None:
    shown = json.loads(run("studies", "show", study, "--json").out)["config"]
    names = [objective["name"] for objective in shown["objectives"]]
    assert names == ["self_psnr", *(["accuracy"] if study == "shots" else []), "stability"]
    assert shown["task"]["clean"] is False
    data = load(f"{STUDIES[study]}:{here / study}")
    assert [len(part.images) for part in (data.train, data.validation, data.test)] == [18, 6, 6]
    again = run("search", "--study", study, "--trials", "2", "--noise", "data", "--objectives", ",".join(names))
    assert again.code == 0, again.err
    table = run("best", study)
    assert table.code == 0, table.err
    assert "self_psnr" in table.out
    assert " psnr" not in table.out
    assert "it is no PSNR to report" in table.out
    said = run("search", "--data", f"noisy:{study}", "--objectives", "psnr", "--noise", "gaussian:25", "--study", "new")
    assert (said.code, len(said.err.splitlines())) == (2, 1)
    assert "has noisy images of its own; leave --noise out, or give data" in said.err


def test_a_bundle_of_noisy_images_says_what_its_psnr_is(here: Path, run: Run, study: str) -> None:
    said = run("export", study, "--quantize", "--integer-io", "--to", "bundle")
    assert said.code == 0, said.err
    assert Path("bundle/model.uint8.onnx").is_file(), "its files have 8 bits, whatever their means have"
    assert "self-supervised PSNR" in said.out
    card = Path("bundle/README.md").read_text()
    assert "no clean ones are known, so its figures are self-supervised" in card
    assert "| self-supervised PSNR, estimated from noisy images alone, dB |" in card
    assert "| PSNR of" not in card
    assert "SSIM" not in card
    assert open_bundle("bundle").task.clean is False
    source = f"{STUDIES[study]}:{study}"
    said = run("evaluate", "bundle", "--data", source, "--json")
    assert said.code == 0, said.err
    (level,) = json.loads(said.out)["levels"]
    facts = json.loads(Path("bundle/architecture.json").read_text())["facts"]
    assert level["self_psnr"] == pytest.approx(facts["measured"]["test"]["self_psnr"], abs=1e-4)
    assert (level["psnr"], level["ssim"], level["images"]) == (None, None, 6)
    assert level["noisy_self_psnr"] is not None
    told = run("evaluate", "bundle", "--data", source).out
    assert "self-supervised PSNR" in told
    drawn = {"shots": "in 2 of its shots", "single": "under 8 draws of hidden pixels"}[study]
    assert f"test split, 6 images, each {drawn}\n" in told
    said = run("evaluate", "bundle", "--data", source, "--reference", "nlm")
    assert (said.code, len(said.err.splitlines())) == (2, 1)
    assert "has no clean images, beside which it would be judged" in said.err
    said = run("denoise", "bundle", "single", "--to", "restored")
    assert said.code == 0, said.err
    assert len(list(Path("restored").iterdir())) == 30


def test_a_report_of_noisy_images_shows_what_was_removed(here: Path, run: Run, study: str) -> None:
    said = run("report", study, "--to", "report.html")
    assert said.code == 0, said.err
    page = Path("report.html").read_text()
    assert "removed by trial" in page
    assert "No clean images are known" in page
    assert "its autocorrelation" in page
    assert "self-supervised PSNR" in page or "self_psnr" in page


def test_a_training_on_noisy_images_is_told_by_its_own_psnr(here: Path, run: Run, study: str) -> None:
    common = ["--epochs", "1", "--threads", "1", "--precision", "fp32"]
    said = run("train", study, *common, "--to", "out")
    assert said.code == 0, said.err
    assert "self-supervised PSNR" in said.out + said.err
    result = json.loads(run("train", study, *common, "--to", "out", "--json").out)
    assert (result["noise"], result["images"], result["psnr"]) == ("data", 6, None)
    found = json.loads(run("evaluate", "out/bundle", "--data", f"{STUDIES[study]}:{study}", "--json").out)["levels"][0]
    assert found["self_psnr"] == pytest.approx(result["self_psnr"], abs=1e-4)


@pytest.mark.slow
def test_a_confirmation_judges_by_noisy_images(here: Path, run: Run, study: str) -> None:
    said = run("confirm", study, "--seeds", "2", "--top", "1", "--json")
    assert said.code == 0, said.err
    assert "test_self_psnr" in said.out


@pytest.mark.parametrize(
    ("source", "told"),
    [("noisy-shots:single", "is a single shot, and Noise2Noise needs two"), ("noisy:empty", "holds no images")],
)
def test_images_that_do_not_do_are_one_line(here: Path, run: Run, source: str, told: str) -> None:
    Path("empty").mkdir()
    said = run("search", "--data", source, "--study", "new")
    assert (said.code, len(said.err.splitlines())) == (2, 1)
    assert told in said.err
