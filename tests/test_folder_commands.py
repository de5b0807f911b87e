"""Folders as people have them, from the command line: classes named as in training, and what is left out."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_samples import ROOT, Said
from PIL import Image

from nas.data.images import SMALLEST_SIDE
from nas.data.preparation import Preparation
from nas.training.metrics import answered
from studies.bundles import calibration_rows, open_bundle

Run = Callable[..., Said]
GROUP_BY = r"(\w+/t\d+)_"
OPTIONS = ["--noise", "gaussian:25", "--epochs", "1", "--threads", "1", "--precision", "fp32"]


def picture(label: int, seed: int, side: int = 140) -> Image.Image:
    """Stripes that lie (0) or stand (1), with a shade that tells up from down."""
    random = np.random.default_rng([label, seed])
    down, right = np.mgrid[:side, :side] / side
    waves = np.sin(2 * np.pi * random.uniform(4, 6) * (right if label else down) + random.uniform(0, 6))
    values = 110 + 60 * waves + 40 * down + random.normal(0, 8, (side, side))
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with class folders of tracks (``set``), new images (``new``), and a training on the first (``out``)."""
    folder = tmp_path_factory.mktemp("tracks")
    for label, name in enumerate(("lying", "standing")):
        (folder / "set" / name).mkdir(parents=True)
        for track in range(5):
            for frame in range(2):
                picture(label, 10 * track + frame).save(folder / "set" / name / f"t{track}_{frame}.png")
    (folder / "new").mkdir()
    for number in range(4):
        picture(number % 2, 100 + number, 140 + 20 * number).save(folder / "new" / f"{number}.png")
    command = [
        "train",
        "hard-sharing",
        "--data",
        "folder:set",
        "--group-by",
        GROUP_BY,
        *OPTIONS,
        "--to",
        "out",
        "--json",
    ]
    done = subprocess.run(
        [sys.executable, str(ROOT / "app_cli.py"), *command], cwd=folder, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    (folder / "said.json").write_text(done.stdout)
    (folder / "said.err").write_text(done.stderr)
    return folder


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    shutil.copytree(trained, folder)
    monkeypatch.chdir(folder)
    return folder


def denoised(run: Run, *arguments: object) -> list[dict[str, Any]]:
    said = run("denoise", "out/bundle", *arguments, "--json")
    assert said.code == 0, said.err
    images: list[dict[str, Any]] = json.loads(said.out)["images"]
    return images


def test_a_training_keeps_tracks_together_and_says_how_images_were_made_ready(here: Path, run: Run) -> None:
    architecture = json.loads((here / "out/bundle/architecture.json").read_text())
    assert architecture["facts"]["group_by"] == GROUP_BY
    assert architecture["facts"]["images"] == {"train": 12, "validation": 4, "test": 4}
    assert "20 images in 10 groups by" in (here / "said.err").read_text()
    assert architecture["preparation"] == {
        "orientation": "as seen",
        "crop": "centre",
        "averaged": "by area",
        "height": 64,
        "width": 64,
        "channels": 1,
    }
    result = json.loads((here / "said.json").read_text())
    said = run("evaluate", "out/bundle", "--data", "folder:set", "--json")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert (found["split"], found["images"]) == ("test", 4), "the bundle knows which tracks were left out"
    assert found["levels"][0]["psnr"] == pytest.approx(result["psnr"], abs=1e-4)
    assert sum(map(sum, found["levels"][0]["confusion"])) == pytest.approx(4), "images, whatever the draws"


def test_denoise_names_a_class_as_training_and_evaluate_do(here: Path, run: Run) -> None:
    bundle = open_bundle("out/bundle")
    assert bundle.preparation == Preparation(height=64, width=64, channels=1)
    for found in denoised(run, "new", "--to", "restored"):
        with Image.open(found["image"]) as image:
            ready = torch.from_numpy(np.array(bundle.preparation.apply(image)))[None, None] / 255
            assert (found["height"], found["width"]) == (image.height, image.width)
        with torch.inference_mode():
            logits = bundle.network(ready)[1]
        answer = int(answered(logits, bundle.threshold))
        assert found["probability"] == pytest.approx(float(logits.softmax(1)[0, answer]), abs=1e-4)
        assert found["label"] == bundle.classes[answer]
    onnx = denoised(run, "new", "--to", "by_onnx", "--onnx")
    again = denoised(run, "new", "--to", "again")
    assert [one["label"] for one in onnx] == [one["label"] for one in again]
    for label in bundle.classes:
        (here / "sorted" / label).mkdir(parents=True)
        for file in sorted((here / "new").iterdir()):
            if bundle.classes[int(file.stem) % 2] == label:
                shutil.copy(file, here / "sorted" / label)
    said = run("evaluate", "out/bundle", "--data", "folder:sorted", "--noise", "none", "--json")
    assert said.code == 2, "two images of a class are too few to split"
    for label in bundle.classes:
        picture(bundle.classes.index(label), 7, 300).save(here / "sorted" / label / "7.png")
    said = run("evaluate", "out/bundle", "--data", "folder:sorted", "--noise", "none", "--json")
    assert said.code == 0, said.err
    right = sum(
        label in Path(one["image"]).parts for one in denoised(run, "sorted", "--to", "s") for label in [one["label"]]
    )
    level = json.loads(said.out)["levels"][0]
    assert level["accuracy"] == pytest.approx(100 * right / 6)


def test_a_phone_s_image_has_one_class_and_keeps_its_pixels(here: Path, run: Run) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = picture(0, 200)
    upright.save("upright.png")
    upright.rotate(90).save("tagged.png", exif=exif)
    first, second = denoised(run, "upright.png", "tagged.png", "--to", "restored")
    assert first["label"] == second["label"]
    assert first["probability"] == pytest.approx(second["probability"], abs=1e-6)
    with Image.open("restored/tagged.png") as image, Image.open("restored/upright.png") as other:
        assert image.getexif()[0x0112] == 6
        turned = np.asarray(image.rotate(-90)).astype(int)
        assert abs(turned - np.asarray(other).astype(int)).mean() < 10, "stored on its side as before"


def test_small_images_are_named_too(here: Path, run: Run) -> None:
    picture(0, 300, SMALLEST_SIDE - 3).save("tiny.png")
    assert denoised(run, "tiny.png", "--to", "restored")[0]["label"] in ("lying", "standing")


def test_denoise_says_what_it_leaves_out_and_leaves_its_own_results_alone(here: Path, run: Run) -> None:
    (here / "new/.ipynb_checkpoints").mkdir()
    shutil.copy("new/0.png", "new/.ipynb_checkpoints/0-checkpoint.png")
    (here / "new/@eaDir").mkdir()
    shutil.copy("new/0.png", "new/@eaDir/SYNOPHOTO_THUMB_M.png")
    (here / "new/notes.txt").touch()
    (here / "elsewhere").mkdir()
    shutil.copy("new/1.png", "elsewhere/z.png")
    (here / "new/linked").symlink_to(here / "elsewhere")
    said = run("denoise", "out/bundle", "new", "--to", "new/results")
    assert said.code == 0, said.err
    assert said.err.splitlines() == [
        "new: left out: 2 hidden or system files (.ipynb_checkpoints, @eaDir), 1 other file (.txt)"
    ]
    written = sorted(path.relative_to("new/results").as_posix() for path in Path("new/results").rglob("*.png"))
    assert written == ["0.png", "1.png", "2.png", "3.png", "linked/z.png"]
    said = run("denoise", "out/bundle", "new", "--to", "new/results", "--quiet")
    assert said.code == 2
    assert said.err == (
        "error: image new/0.png (and new/1.png, new/2.png, new/3.png and 1 more): new/results/0.png exists; remove it, "
        "or choose another --to\n"
    ), "five images whose results exist, and nothing of the results"
    assert not Path("new/results/results").exists()
    said = run("denoise", "out/bundle", "new", "--to", "other", "--quiet")
    assert (said.code, said.out, said.err) == (0, "", "")
    assert (here / "other/results/0.png").exists(), "results of another call are images as any"


@pytest.mark.parametrize(("images", "shown"), [(1, 1), (60, 60), (128, 128), (60_000, 128)])
def test_each_image_calibrates_an_int8_program_once(images: int, shown: int) -> None:
    rows = calibration_rows(images)
    assert len(rows) == len(set(rows)) == shown
    assert (rows[0], rows[-1]) == (0, images - 1)


def test_an_expression_that_is_none_is_told_in_one_line(here: Path, run: Run) -> None:
    for command in (["search"], ["train", "unet", "--to", "there"]):
        said = run(*command, "--data", "folder:set", "--group-by", "(", "--storage", "none.db")
        assert (said.code, len(said.err.splitlines())) == (2, 1), said.err
        assert said.err.startswith("error: --group-by is '('; it is no regular expression (")
    said = run("train", "unet", "--to", "there", "--data", "digits", "--group-by", "x")
    sources = "folder:DIR, csv:FILE, images:DIR, pairs:DIR and noisy:DIR"
    assert said.err == f"error: --group-by 'x': digits has no files to group; it is for {sources}\n"
    said = run("train", "unet", "--to", "there", "--data", "folder:set", "--group-by", "x")
    assert "--group-by 'x' finds nothing in lying/t0_0.png and 19 more" in said.err
    assert not Path("there").exists()
