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
from nas.training.evidence import SIDE
from studies.commands.denoise import Denoised, denoise


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
        assert (picture.size, picture.mode) == ((SIDE, 2 * SIDE), "RGB")
        values = np.asarray(picture).astype(int)
    restored, evidence = values[:SIDE], values[SIDE:]
    assert (restored[..., 0] == restored[..., 2]).all(), "above there is gray"
    assert (evidence[..., 0] != evidence[..., 2]).any(), "below there is colour"
    assert {path.name for path in (image.parent / "out").iterdir()} == {"scan.png", "scan.png.evidence.png"}
    [plain], _ = denoise(Path("bundle"), [image], image.parent / "plain")
    assert (plain.evidence, plain.label) == (None, found.label)


def test_pages_stand_side_by_side(bundle: Bundle, image: Path) -> None:
    [found], _ = explained(image.parent / "stack.tif", "out")
    assert found.pages == 3
    with Image.open(image.parent / "out/stack.tif.evidence.png") as picture:
        assert picture.size == (3 * SIDE, 2 * SIDE)


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
        assert picture.size == (30 * 6, 2 * 40 * 6)


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
