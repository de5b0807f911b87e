"""``denoise --explain``: a picture of where the evidence for the class lies, beside the restored image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle_samples import CLASSES, SPACE, TASK, candidate, network_of
from PIL import Image

from nas.bundles.bundle import Bundle
from nas.errors import ConfigError
from nas.training.strips import GAP, LETTERS
from studies.commands.denoise import EVIDENCE_SIDE, EXPLAINED, Denoised, denoise


@pytest.fixture
def bundle(monkeypatch: pytest.MonkeyPatch) -> Bundle:
    one = candidate()
    made = Bundle(
        path=Path("bundle"),
        space=SPACE,
        candidate=one,
        task=TASK,
        classes=CLASSES,
        network=network_of(one).eval(),
        facts={"data": "digits"},
    )
    monkeypatch.setattr("studies.commands.denoise.open_bundle", lambda path: made)
    return made


@pytest.fixture
def image(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).integers(0, 256, (3, 40, 30)).astype(np.uint8)
    first, *others = map(Image.fromarray, values)
    first.save(tmp_path / "scan.png")
    first.save(tmp_path / "stack.tif", save_all=True, append_images=others)
    return tmp_path / "scan.png"


SIDE, ABOVE = EVIDENCE_SIDE, LETTERS + 2 * GAP  # of an image of 8x8 pixels, and the caption above it


def explained(image: Path, to: str, **options: Any) -> tuple[list[Denoised], list[str]]:
    found, refused = denoise(Path("bundle"), [image], image.parent / to, explain=True, **options)
    return found, [each.reason for each in refused]


def test_the_picture_has_the_restored_image_and_the_evidence_below(bundle: Bundle, image: Path) -> None:
    [found], refused = explained(image, "out")
    assert not refused
    file = image.parent / "out/scan.png.evidence.png"
    assert found.to_dict()["evidence"] == str(file)
    assert f"evidence in {file}" in found.line()
    with Image.open(file) as picture:
        assert (picture.mode, picture.height) == ("RGB", 2 * (ABOVE + SIDE) + GAP)
        assert picture.info["Description"] == (
            f"restored; evidence for {found.label} ({100 * (found.probability or 0):.0f} %): orange for it, blue "
            "against it"
        )
        values = np.asarray(picture).astype(int)
    captions, (restored, evidence) = parts(values)
    assert all((caption < 128).any() and (caption == 255).any() for caption in captions), "black letters on white"
    assert (restored[..., 0] == restored[..., 2]).all(), "above there is gray"
    assert (evidence[..., 0] != evidence[..., 2]).any(), "below there is colour"
    assert (values[ABOVE + SIDE : ABOVE + SIDE + GAP] == 255).all(), "and white between them"
    assert {path.name for path in (image.parent / "out").iterdir()} == {"scan.png", "scan.png.evidence.png"}
    [plain], _ = denoise(Path("bundle"), [image], image.parent / "plain")
    assert (plain.evidence, plain.label) == (None, found.label)


def parts(values: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Returns the captions of the two rows of a picture, and the first image of each row."""
    tops = [0, ABOVE + SIDE]
    return [values[top : top + ABOVE] for top in tops], [
        values[top + ABOVE : top + ABOVE + SIDE, GAP : GAP + SIDE] for top in tops
    ]


def test_pages_stand_side_by_side(bundle: Bundle, image: Path) -> None:
    [found], _ = explained(image.parent / "stack.tif", "out")
    assert (found.pages, found.evidence_pages) == (3, 3)
    assert f", evidence in {found.evidence}, 3 pages" in found.line()
    with Image.open(image.parent / "out/stack.tif.evidence.png") as picture:
        assert picture.size == (GAP + 3 * (SIDE + GAP), 2 * (ABOVE + SIDE) + GAP)
        assert picture.info["Description"].startswith("restored, pages 1 to 3 of 3; ")
        assert (np.asarray(picture)[ABOVE : ABOVE + SIDE, GAP + SIDE : 2 * GAP + SIDE] == 255).all()


def test_a_picture_of_some_pages_says_which(bundle: Bundle, tmp_path: Path) -> None:
    first, *others = (Image.new("L", (20 + number, 16), 10 * number) for number in range(EXPLAINED + 3))
    first.save(tmp_path / "long.tif", save_all=True, append_images=others)
    [found], refused = explained(tmp_path / "long.tif", "out")
    assert not refused
    assert f", evidence of the first {EXPLAINED} pages in {found.evidence}, {EXPLAINED + 3} pages" in found.line()
    with Image.open(str(found.evidence)) as picture:
        assert picture.info["Description"].startswith(f"restored, pages 1 to {EXPLAINED} of {EXPLAINED + 3}; ")


def test_pages_of_several_sizes_stand_side_by_side(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(bundle.facts, "data", "photos")  # type: ignore[arg-type]
    wide, high = Image.new("L", (128, 64), 90), Image.new("L", (32, 64), 30)
    wide.save(tmp_path / "sizes.tif", save_all=True, append_images=[high])
    [found], refused = explained(tmp_path / "sizes.tif", "out")
    assert not refused
    with Image.open(str(found.evidence)) as picture:  # 2 * 128x64 and 4 * 32x64 pixels
        assert picture.size == (GAP + 256 + GAP + 128 + GAP, 2 * (ABOVE + 256) + GAP)


def test_a_class_in_other_letters_is_named(bundle: Bundle, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    russian = replace(bundle, classes=tuple(f"\u043a\u043e\u0442 {name}" for name in CLASSES))
    monkeypatch.setattr("studies.commands.denoise.open_bundle", lambda path: russian)
    [found], _ = explained(image, "out")
    with Image.open(str(found.evidence)) as picture:
        assert f"evidence for {found.label} " in picture.info["Description"]


def test_the_pictures_are_no_images_of_a_folder(bundle: Bundle, image: Path) -> None:
    explained(image, "out")
    told: list[str] = []
    found, refused = denoise(Path("bundle"), [image.parent / "out"], image.parent / "again", tell=told.append)
    assert ([Path(each.image).name for each in found], refused) == (["scan.png"], [])
    assert told == [f"{image.parent / 'out'}: left out: 1 other file (.evidence.png)"]


def test_a_file_that_is_given_twice_is_told_so(bundle: Bundle, image: Path) -> None:
    for twice in ([image, image], [image.parent, image]):
        with pytest.raises(ConfigError, match=rf"^{image} is given twice; give it once$"):
            denoise(Path("bundle"), twice, image.parent / "out")
    other = image.parent / "other/scan.png"
    other.parent.mkdir()
    image.rename(other)
    Image.new("L", (16, 16)).save(image)
    with pytest.raises(ConfigError, match=r"would both become .*; restore them into two folders, each with a `to`"):
        denoise(Path("bundle"), [image, other], image.parent / "out")


def test_no_picture_is_written_over(bundle: Bundle, image: Path) -> None:
    there = image.parent / "out/scan.png.evidence.png"
    there.parent.mkdir()
    there.write_text("mine")
    found, [refused] = explained(image, "out")
    assert not found
    assert "scan.png.evidence.png exists; remove it, or choose another `to`" in refused
    assert there.read_text() == "mine"
    assert not (image.parent / "out/scan.png").exists()


def test_a_class_of_tiles_lies_nowhere(bundle: Bundle, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bundle.facts, "data", "photos")  # type: ignore[arg-type]
    assert bundle.preparation is None
    found, [refused] = explained(image, "out", tile=16)
    assert not found
    assert "its class comes from" in refused
    assert not (image.parent / "out/scan.png").exists()
    [whole], _ = explained(image, "whole")
    assert whole.tiles == 1
    with Image.open(image.parent / "whole/scan.png.evidence.png") as picture:
        assert picture.height == 2 * (ABOVE + 40 * 6) + GAP


def test_what_cannot_be_explained_is_refused(bundle: Bundle, image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="`explain` needs the weights; leave `onnx` out"):
        explained(image, "out", onnx=True)
    blind = candidate(tasks="denoise")
    other = replace(bundle, network=network_of(blind).eval(), candidate=blind)
    monkeypatch.setattr("studies.commands.denoise.open_bundle", lambda path: other)
    with pytest.raises(ConfigError, match="does not learn classes"):
        explained(image, "out")
    monkeypatch.setattr("studies.commands.denoise.open_bundle", lambda path: replace(other, classes=()))
    with pytest.raises(ConfigError, match="knows no classes"):
        explained(image, "out")
    assert not (image.parent / "out").exists()
