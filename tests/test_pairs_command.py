"""A study of pairs from the command line: search, confirm, export with int8, evaluate, train, report and denoise."""

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
PAIR_BY = r"^(\w+/\d+)"
STUDY = ["--data", "pairs:bursts", "--pair-by", PAIR_BY, "--study", "bursts", "--trials", "2", "--epochs", "1"]


def burst(folder: Path, label: str, number: int) -> None:
    """A clean image of stripes that lie or stand, and two shots as a sensor makes them: clipped and rounded."""
    random = np.random.default_rng([len(label), number])
    down, right = np.mgrid[:SIDE, :SIDE] / SIDE
    clean = 120 + 90 * np.sin(random.uniform(6, 12) * (down if label == "lying" else right) + random.uniform(0, 6))
    for side in ("clean", "noisy"):
        (folder / side / label).mkdir(parents=True, exist_ok=True)
    Image.fromarray(clean.astype(np.uint8)).save(folder / "clean" / label / f"{number}-mean.png")
    for shot in range(2):
        electrons = random.poisson(clean / 3) * 3 + random.normal(0, 6, clean.shape)
        values = electrons.round().clip(0, 255).astype(np.uint8)
        Image.fromarray(values).save(folder / "noisy" / label / f"{number}-{shot}-iso.png")


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    for label in ("lying", "standing"):
        for number in range(15):
            burst(folder / "bursts", label, number)
    command = ["search", *STUDY, "--max-macs", "300000", "--max-params", "30000"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "app_cli.py"), *command], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def here(searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    shutil.copytree(searched, folder)
    monkeypatch.chdir(folder)
    return folder


def test_a_study_of_pairs_has_the_noise_of_its_data(here: Path, run: Run) -> None:
    (shown,) = json.loads(run("studies", "list", "--json").out)["studies"]
    assert (shown["noise"], shown["trained"]) == ("data", 2)
    data = load(f"pairs:{here / 'bursts'}", pair_by=PAIR_BY)
    assert [len(part.images) for part in (data.train, data.validation, data.test)] == [18, 6, 6]
    assert data.validation.draws == 2
    again = run("search", "--study", "bursts", "--trials", "2", "--noise", "data")
    assert again.code == 0, again.err
    said = run("search", "--data", "pairs:bursts", "--noise", "gaussian:25", "--study", "new")
    assert said.code == 2
    told = f"noise 'gaussian:25': pairs:{here / 'bursts'} has noisy images of its own; leave --noise out, or give data"
    assert said.err == f"error: {told}\n"


def test_a_bundle_of_pairs_is_judged_on_shots_it_never_saw(here: Path, run: Run) -> None:
    said = run("export", "bursts", "--quantize", "--to", "bundle")
    assert said.code == 0, said.err
    facts = json.loads(Path("bundle/architecture.json").read_text())["facts"]
    assert facts["pair_by"] == PAIR_BY
    assert "noise: that of noisy images beside the clean ones" in Path("bundle/README.md").read_text()
    assert open_bundle("bundle").task.noise == "data"
    said = run("evaluate", "bundle", "--data", "pairs:bursts", "--reference", "nlm", "--json")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    (level,) = found["levels"]
    assert (found["split"], level["noise"], level["images"], level["draws"]) == ("test", "data", 6, 2)
    data = load(f"pairs:{here / 'bursts'}", pair_by=PAIR_BY)
    assert data.test.shots is not None
    errors = [
        np.square(data.test.shots.images[data.test.shots.fixed(draw, 2)] / 255 - data.test.images / 255).mean((1, 2, 3))
        for draw in range(2)
    ]
    assert level["noisy_psnr"] == pytest.approx(float(-10 * np.log10(np.array(errors)).mean()), abs=1e-3)
    assert level["psnr"] == pytest.approx(facts["measured"]["test"]["psnr"], abs=1e-4)
    assert level["reference_psnr"] is not None
    assert sum(map(sum, level["confusion"])) == pytest.approx(6)
    said = run("evaluate", "bundle", "--data", "digits")
    assert said.code == 2
    assert "noise 'data': digits has no noisy images beside the clean ones; give a --noise" in said.err
    said = run("denoise", "bundle", "bursts/noisy/lying", "--to", "restored")
    assert said.code == 0, said.err
    assert len(list(Path("restored").iterdir())) == 30


def test_a_report_of_pairs_shows_their_noise(here: Path, run: Run) -> None:
    said = run("report", "bursts", "--to", "report.html")
    assert said.code == 0, said.err
    page = Path("report.html").read_text()
    assert "under <b>its own noise</b>" in page
    assert "There are no images here" not in page


def test_a_training_goes_on_with_the_pairs_of_its_study(here: Path, run: Run) -> None:
    common = ["--epochs", "1", "--threads", "1", "--precision", "fp32", "--json"]
    said = run("train", "bursts", *common, "--to", "out")
    assert said.code == 0, said.err
    result = json.loads(said.out)
    assert (result["noise"], result["images"]) == ("data", 6)
    found = json.loads(run("evaluate", "out/bundle", "--data", "pairs:bursts", "--json").out)["levels"][0]
    assert found["psnr"] == pytest.approx(result["psnr"], abs=1e-4)
    said = run("train", "bursts", "--data", "digits", *common, "--to", "other")
    assert (said.code, "noise 'data': digits has no noisy images" in said.err) == (2, True)
    assert not Path("other").exists()


@pytest.mark.slow
def test_a_confirmation_trains_on_pairs(here: Path, run: Run) -> None:
    said = run("confirm", "bursts", "--seeds", "2", "--top", "1", "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--pair-by", r"^(\d+)"], r"--pair-by '^(\\d+)' finds nothing in clean/lying/0-mean.png"),
        ([], "90 images without a partner"),
        (["--pair-by", "("], "--pair-by"),
    ],
)
def test_pairs_that_are_not_found_are_one_line(here: Path, run: Run, words: list[str], told: str) -> None:
    said = run("search", "--data", "pairs:bursts", "--study", "new", *words)
    assert said.code == 2
    assert len(said.err.splitlines()) == 1
    assert told in said.err


def test_only_pairs_have_an_expression_for_them(here: Path, run: Run) -> None:
    said = run("search", "--data", "digits", "--pair-by", "a", "--study", "new")
    assert (said.code, said.err) == (2, "error: --pair-by 'a': digits has no pairs; it is for pairs:DIR\n")
