"""The command that makes the shipped bundles: what it asks for, and what it writes."""

from __future__ import annotations

from pathlib import Path

import PIL.Image
import pytest
import torch

from benchmarks import zoo
from nas.bundles.export import export_bundle
from nas.types import Candidate, Recipe, Task
from search_spaces import get_space
from studies.bundles import open_bundle

SPACE = get_space("unet")


def bundle(folder: Path) -> Path:
    task = Task(channels=1, classes=0, height=16, width=16, noise="gaussian:5-50")
    shape = {"levels": 2, "width": 4, "growth": "constant", "resampling": "max", "kernel": 3}
    spec = SPACE.spec({**shape, "fusion": "add", "gate": "none", "block": "conv", "norm": "batch"})
    recipe = Recipe(epochs=3, batch_size=32, learning_rate=0.001, weight_decay=0.0, classification_weight=0.1)
    export_bundle(
        folder,
        space=SPACE,
        candidate=Candidate(spec=spec, recipe=recipe),
        task=task,
        classes=[],
        network=SPACE.build(spec, task),
        images=torch.rand(2, 1, 16, 16),
        facts={"study": "gray", "data": "images:gray", "values": {"psnr": 27.5}, "split": "test"},
    )
    return folder


def test_a_bundle_is_searched_trained_and_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(zoo, "SHIPPED", tmp_path / "shipped")
    asked: list[tuple[str, ...]] = []

    def skipnas(*words: str) -> None:
        asked.append(words)
        if words[0] == "train":
            bundle(Path(words[words.index("--to") + 1], "bundle"))

    monkeypatch.setattr(zoo, "skipnas", skipnas)
    kodak = tmp_path / "kodak"
    kodak.mkdir()
    for number in range(zoo.KODAK):
        PIL.Image.new("RGB", (24, 16), (number, 0, 0)).save(kodak / f"{number:02}.png")
    words = ["gray", "--kodak", str(kodak), "--trials", "5", "--search-epochs", "2", "--epochs", "7"]
    assert zoo.main(words) == 0
    assert [words[0] for words in asked] == ["search", "train"]
    search = " ".join(asked[0])
    assert "--noise gaussian:5-50 --group-by (.+)-[0-9] --objectives psnr --early-stopping" in search
    assert "--max-params 60000 --trials 5 --epochs 2" in search
    assert asked[1][1:4] == ("gray", "--epochs", "7")
    photographs = sorted((tmp_path / zoo.FOLDER / "photographs/gray").iterdir())
    assert len(photographs) == 4 * (zoo.KODAK + len(zoo.INSTALLED))
    for name, size in {"23-3.png": (12, 8), "astronaut-0.png": (256, 256)}.items():
        with PIL.Image.open(photographs[0].with_name(name)) as image:
            assert (image.mode, image.size) == ("L", size)
    made = tmp_path / "shipped/gray"
    assert {file.name for file in made.iterdir()} == {
        "README.md", "SHA256SUMS", "architecture.json", "weights.safetensors",
    }  # fmt: skip
    assert open_bundle(made).description["licence"] == "CC0-1.0"
    card = (made / "README.md").read_text()
    assert card.index("`skipnas denoise gray IMAGE --to DIR`") < card.index("## Task")
    assert "astronaut.png" in card
    assert "27.50" in card


def test_photographs_that_are_missing_are_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        zoo.main(["gray", "--kodak", str(tmp_path)])
    assert "--kodak must be a folder with the 24 photographs" in capsys.readouterr().err
