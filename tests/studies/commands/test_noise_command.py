"""The noise of folders from the command line: files of any depth, pairs, pictures, and calls that are wrong."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy.ndimage import gaussian_filter

from nas.data.measured_noise import Level, MeasuredNoise
from nas.data.noise import parse_noise
from nas.data.sensor import Sensor
from nas.errors import ConfigError, DataError
from studies.commands.noise import MOST_IMAGES, measure, noise_lines
from studies.pages.drawing import check_target, write_figure
from studies.pages.noise_level import noise_level

ROOT = Path(__file__).parents[3]
SIGMA = 10.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pairs of soft images (``noisy`` and ``clean``) and noisy ones of 12 bits (``deep``), with noise of 10."""
    random = np.random.default_rng(0)
    for name in ("pairs/noisy", "pairs/clean", "deep"):
        (tmp_path / name).mkdir(parents=True)
    for number in range(3):
        clean = 128 + 600 * gaussian_filter(random.normal(0, 1, (96, 96)), 8)
        noisy = (clean + random.normal(0, SIGMA, clean.shape)).clip(0, 255)
        for side, image in (("noisy", noisy), ("clean", clean)):
            pixels = np.rint(image.clip(0, 255)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"pairs/{side}/{number}.png")
        tifffile.imwrite(tmp_path / f"deep/{number}.tif", np.rint(noisy * 4095 / 255).astype(np.uint16))
    return tmp_path


def test_images_and_pairs_are_measured(folder: Path) -> None:
    for found in (measure(folder / "pairs/noisy"), measure(folder / "pairs", pairs=True)):
        assert found.images == 3
        assert found.bits == 8
        assert found.sensor.read == pytest.approx(SIGMA, rel=0.05)
        assert parse_noise(found.words).name == found.words


def test_pairs_of_other_names_are_paired_by_an_expression(folder: Path) -> None:
    same = measure(folder / "pairs", pairs=True)
    for number in range(3):
        (folder / f"pairs/clean/{number}.png").rename(folder / f"pairs/clean/{number}-mean.png")
        (folder / f"pairs/noisy/{number}.png").rename(folder / f"pairs/noisy/{number}-iso800.png")
    with pytest.raises(DataError, match="`pair_by`"):
        measure(folder / "pairs", pairs=True)
    assert measure(folder / "pairs", pairs=True, pair_by="^([0-9]+)-") == same
    with pytest.raises(ConfigError, match=r"`pair_by` 'a': .* is measured without clean images; add --pairs, or leave"):
        measure(folder / "pairs/noisy", pair_by="a")


def test_deep_images_need_their_white(folder: Path) -> None:
    assert measure(folder / "deep", white_level=4095).words.endswith("+depth:12")
    assert measure(folder / "deep", white_level=4095).sensor.read == pytest.approx(SIGMA, rel=0.05)
    with pytest.raises(DataError, match="give `white_level`"):
        measure(folder / "deep")
    with pytest.raises(
        DataError, match=r"has values from \d+ to \d,\d+, and black is 0 and white 1,500; give `white_level`"
    ):
        measure(folder / "deep", white_level=1500)


def test_pairs_of_two_sizes_are_named(folder: Path) -> None:
    Image.new("L", (50, 96)).save(folder / "pairs/clean/1.png")
    with pytest.raises(DataError, match=r"1 pair not fitting together: 1.png \(96x96 beside 50x96 pixels\)"):
        measure(folder / "pairs", pairs=True)


def test_pairs_that_a_training_refuses_are_refused(folder: Path) -> None:
    noisy, clean = folder / "pairs/noisy", folder / "pairs/clean"
    with Image.open(clean / "0.png") as image:
        moved = np.roll(np.asarray(image), 5, 1)
    kept = (clean / "0.png").read_bytes()
    Image.fromarray(moved).save(clean / "0.png")
    with pytest.raises(DataError, match=r"0.png \(shifted by \d\.\d pixels\)"):
        measure(folder / "pairs", pairs=True)
    (clean / "0.png").write_bytes(kept)
    noisy.rename(folder / "pairs/lq")
    clean.rename(folder / "pairs/input")
    (folder / "pairs/lq").rename(folder / "pairs/target")
    with pytest.raises(DataError, match="the sides look swapped"):
        measure(folder / "pairs", pairs=True)


def test_two_sides_need_pairs(folder: Path) -> None:
    with pytest.raises(DataError, match=r"has a noisy and a clean side; add --pairs .* or give .*pairs/noisy alone"):
        measure(folder / "pairs")


@pytest.mark.parametrize("pairs", [False, True])
def test_images_that_judge_networks_are_not_measured(folder: Path, pairs: bool) -> None:
    said: list[str] = []
    (folder / "split").mkdir()
    for part in ("train", "test"):
        shutil.copytree(folder / ("pairs" if pairs else "pairs/noisy"), folder / "split" / part)
    for path in folder.glob("split/test/**/*.png"):
        pixels = np.random.default_rng(0).normal(128, 60, (96, 96)).clip(0, 255)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    found = measure(folder / "split", pairs=pairs, tell=said.append)
    assert found.images == 3
    assert found.sensor.read == pytest.approx(SIGMA, rel=0.05)
    (line,) = said
    assert f"the training images alone are measured, 3 of 6 {'scenes' if pairs else 'images'}" in line


def test_pages_of_pairs_are_measured_in_part(tmp_path: Path) -> None:
    clean = np.tile(np.linspace(60, 190, 32, dtype=np.float32), (32, 1))
    pages = clean + np.random.default_rng(0).normal(0, SIGMA, (MOST_IMAGES + 5, 32, 32))
    for side, pixels in (("noisy", pages), ("clean", clean)):
        (tmp_path / side).mkdir()
        tifffile.imwrite(tmp_path / side / "0.tif", np.rint(pixels).astype(np.uint8), photometric="minisblack")
    said: list[str] = []
    assert measure(tmp_path, pairs=True, tell=said.append).images == MOST_IMAGES
    assert said == [f"pairs:{tmp_path}: 48 of 53 images are measured, spread evenly"]


def test_many_images_are_measured_in_part(tmp_path: Path) -> None:
    random, said = np.random.default_rng(0), []
    for number in range(MOST_IMAGES + 2):
        pixels = random.normal(128, 5, (16, 16)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    (tmp_path / "notes.txt").touch()
    assert measure(tmp_path, tell=said.append).images == MOST_IMAGES
    assert said == [
        f"{tmp_path}: left out: 1 other file (.txt)",
        f"{tmp_path}: 48 of 50 images are measured, spread evenly",
    ]


def test_no_images_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no images"):
        measure(tmp_path)
    with pytest.raises(DataError, match="cannot be read"):
        measure(tmp_path / "absent")


FOUND = MeasuredNoise(
    images=2,
    pairs=False,
    levels=(Level(brightness=20, sigma=6, areas=100), Level(brightness=200, sigma=11, areas=50)),
    sensor=Sensor(0.5, 4),
    correlated=2.0,
    radius=1.5,
    rows=3.0,
    saltpepper=0.01,
    jpeg=(70, 80),
    bits=8,
    clipped=0.02,
    remarks=("Something else.",),
)


def test_the_lines_end_with_the_words() -> None:
    lines = list(noise_lines(FOUND))
    assert lines[0] == "2 images, on the scale from 0 to 255"
    table = [re.split(r"  +", line) for line in lines]
    for row in (
        ["gain", "0.5 levels for an electron"],
        ["read noise", "4"],
        ["correlated noise", "2, with a radius of 1.5 pixels"],
        ["rows", "3"],
        ["salt and pepper", "1 % of the pixels"],
        ["JPEG", "qualities 70 to 80"],
        ["black or white", "2 % of the pixels"],
        ["200", "11.00", "10.95", "50"],
    ):
        assert row in table
    assert lines[-2:] == [
        "Something else.",
        "--noise poisson-gaussian:0.5,4+correlated:2,1.5+rows:3+saltpepper:0.01+jpeg:70-80",
    ]


def test_the_figure_has_what_was_measured_and_the_fit(tmp_path: Path) -> None:
    measured, fit = noise_level(FOUND).data
    assert list(measured.y) == [6, 11]
    assert fit.name == FOUND.words
    assert fit.y[100] == pytest.approx(np.sqrt(0.5 * 100 + 16 + 4))
    write_figure(noise_level(FOUND), tmp_path / "noise.html")
    assert "standard deviation of the noise" in (tmp_path / "noise.html").read_text()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.gif", "no format"),
        ("no/a.svg", "does not exist"),
        (".", "no format"),
        ("/proc/a.html", r"cannot write /proc/a.html \(No such file or directory\)"),
        ("/dev/null/a.html", "does not exist"),
    ],
)
def test_a_picture_that_cannot_be_is_refused_first(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        check_target(tmp_path / name)
    check_target(tmp_path / "a.html")
    assert not list(tmp_path.iterdir())


def test_one_file_is_measured(folder: Path) -> None:
    found = measure(folder / "pairs/noisy/0.png")
    assert found.images == 1
    assert found.sensor.read == pytest.approx(SIGMA, rel=0.1)
    (folder / "text.png").write_text("no image")
    with pytest.raises(DataError, match=r"text\.png: cannot be read"):
        measure(folder / "text.png")
    with pytest.raises(DataError, match=r"0\.png cannot be read \(Not a directory\); give a folder"):
        measure(folder / "pairs/noisy/0.png", pairs=True)


def test_the_command_prints_one_object(folder: Path) -> None:
    command = [sys.executable, str(ROOT / "app_cli.py"), "noise", "pairs", "--pairs", "--json", "--to", "noise.html"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["noise"].startswith("gaussian:")
    assert (folder / "noise.html").stat().st_size > 1e6
