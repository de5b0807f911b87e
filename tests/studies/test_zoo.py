"""The bundles that skipnas ships: found by name, small, and of use at once."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from skimage.data import data_dir

from nas.bundles.files import ARCHITECTURE
from nas.bundles.sums import card_is_edited
from nas.errors import BundleError
from studies import zoo
from studies.bundles import open_bundle
from studies.commands.denoise import denoise
from studies.zoo import SHIPPED, bundle_folder, shipped


@pytest.fixture
def some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one shipped bundle, gray, and another folder to be in."""
    (tmp_path / "shipped/gray").mkdir(parents=True)
    (tmp_path / "shipped/gray" / ARCHITECTURE).write_text("{}")
    (tmp_path / "shipped/else").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setattr(zoo, "SHIPPED", tmp_path / "shipped")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "shipped"


def test_a_name_stands_for_the_shipped_bundle(some: Path) -> None:
    assert shipped() == ("gray",)
    assert bundle_folder(Path("gray")) == some / "gray"
    Path("mine").mkdir()
    for other in (Path("mine"), Path("gray/bundle"), some / "gray", Path("../shipped/gray")):
        assert bundle_folder(other) == other
    with pytest.raises(
        BundleError, match=r"^'grey' is neither the folder .* nor a bundle that skipnas ships \(gray\); give"
    ):
        open_bundle("grey")
    with pytest.raises(BundleError, match=r"shipped/gray/architecture\.json: format is None"):
        open_bundle("gray")


def test_a_folder_here_wins_and_a_line_says_so(some: Path, caplog: pytest.LogCaptureFixture) -> None:
    Path("gray").mkdir()
    with caplog.at_level(logging.INFO):
        assert bundle_folder(Path("gray")) == Path("gray")
    assert caplog.messages == ["gray is taken for the one here, not for the bundle of this name that skipnas ships"]


def test_they_are_small() -> None:
    sizes = {name: sum(file.stat().st_size for file in (SHIPPED / name).iterdir()) for name in shipped()}
    assert max(sizes.values(), default=0) <= 300_000, sizes
    assert sum(sizes.values()) <= 1_000_000


def test_each_opens_by_its_name_and_says_where_it_comes_from() -> None:
    for name in shipped():
        bundle = open_bundle(name)
        assert bundle.description["licence"] == "CC0-1.0"
        assert bundle.facts["study"] == name, "it is found by a search"
        assert not card_is_edited(bundle.path), "the sums are those of the card that is shipped"
        card = (SHIPPED / name / "README.md").read_text("utf-8")
        assert f"`skipnas denoise {name} IMAGE --to DIR`" in card
        assert "scikit-" in card


def test_a_photograph_that_none_of_them_saw_is_restored(tmp_path: Path) -> None:
    for name in sorted({"gray", "color"} & set(shipped())):
        file = "moon.png" if name == "gray" else "motorcycle_left.png"
        with PIL.Image.open(Path(data_dir, file)) as image:
            clean = np.asarray(image.convert("L" if name == "gray" else "RGB").crop((100, 100, 260, 260)), float)
        for sigma, gain in ((15, 2), (25, 4), (50, 7)):
            noisy = np.clip(clean + np.random.default_rng(sigma).normal(0, sigma, clean.shape), 0, 255).astype(np.uint8)
            PIL.Image.fromarray(noisy).save(tmp_path / f"{name}-{sigma}.png")
            denoise(Path(name), [tmp_path / f"{name}-{sigma}.png"], tmp_path / "restored")
            restored = np.asarray(PIL.Image.open(tmp_path / f"restored/{name}-{sigma}.png"), float)
            before, after = (10 * np.log10(255**2 / np.mean((each - clean) ** 2)) for each in (noisy, restored))
            assert after >= before + gain, (sigma, before, after)
