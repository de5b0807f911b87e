"""The threshold of two classes on its way: into a bundle and its card, and into every answer of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bundle_samples import TASK, candidate, digits, network_of, noisy_digits, write_bundle
from PIL import Image

from nas.bundles.assess import assess_bundle
from nas.bundles.files import ARCHITECTURE, CARD
from nas.bundles.formats import Further
from nas.bundles.sums import write_sums
from nas.data.noise import parse_noise
from nas.data.splits import Dataset, Split
from studies.bundles import open_bundle
from studies.commands.denoise import denoise

TWO = replace(TASK, classes=2)
CLASSES = ("even", "odd")
NOISE = parse_noise("gaussian:50")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("two") / "bundle"
    write_bundle(target, candidate(), network_of(candidate(), TWO), TWO, classes=CLASSES, threshold=0.25)
    return target


def with_threshold(folder: Path, threshold: float | None) -> None:
    file = folder / ARCHITECTURE
    file.write_text(json.dumps({**json.loads(file.read_text()), "threshold": threshold}))
    write_sums(folder)


def test_the_card_says_by_which_probability_the_second_class_is_answered(folder: Path) -> None:
    assert open_bundle(folder).threshold == 0.25
    card = (folder / CARD).read_text()
    assert "- threshold: odd is answered from a probability of 0.25 on" in card
    assert card.count(f"logits[:, 1] - logits[:, 0] >= {np.log(1 / 3):.6g}") == 2, "in the program of each format"


@pytest.mark.slow
def test_the_program_of_whole_numbers_answers_by_it_in_the_card(tmp_path: Path) -> None:
    for threshold, odd in ((1e-9, 1), (1 - 1e-9, 0)):
        target = tmp_path / str(odd)
        write_bundle(
            target,
            candidate(),
            network_of(candidate(), TWO),
            TWO,
            classes=CLASSES,
            threshold=threshold,
            further=Further(integer_io=True),
        )
        examples = re.findall(r"```python\n(.*?)```", (target / CARD).read_text(), re.DOTALL)
        (example,) = (each for each in examples if "uint8" in each)
        done = subprocess.run(
            [sys.executable, "-I", "-c", example], cwd=target, capture_output=True, text=True, timeout=120, check=True
        )
        assert done.stdout.startswith("uint8 (1, 1, 8, 8)")
        assert done.stdout.endswith(f"[{odd}]\n")


def test_every_answer_keeps_to_it(folder: Path, tmp_path: Path) -> None:
    split = digits(60)
    assert split.labels is not None
    data = Split(split.images, split.labels % 2)
    set_ = Dataset("digits", train=data, validation=data, test=data, classes=CLASSES, fingerprint="00ff")
    Image.fromarray(split.images[0, 0]).save(tmp_path / "image.png")
    with torch.inference_mode():
        chances = open_bundle(folder).network(noisy_digits(60))[1].softmax(1)[:, 1]
    for threshold, odd in ((float(chances.min()) / 2, 1), (1 - float(1 - chances.max()) / 2, 0)):
        with_threshold(folder, threshold)
        bundle = open_bundle(folder)
        found = assess_bundle(bundle, set_, NOISE)
        assert found.confusion is not None
        answered = np.array(found.confusion).sum(0)
        assert answered[odd] == pytest.approx(60, abs=1.1), "noise may reach beyond the probabilities that were seen"
        assert found.values["accuracy"] == pytest.approx(100 * np.trace(found.confusion) / 60)
        restored, refused = denoise(folder, [tmp_path / "image.png"], tmp_path / str(odd))
        assert not refused
        assert restored[0].label == CLASSES[odd]
        assert restored[0].probability is not None
        assert (restored[0].probability > 0.5) == ((float(chances[0]) > 0.5) == bool(odd))
        likely, level = restored[0].probability > 0.5, f"{100 * threshold:.3g}"
        why = "" if likely else f", as {CLASSES[1]} is answered from {level} % on"
        assert f", {CLASSES[odd]} ({100 * restored[0].probability:.0f} %{why})" in restored[0].line()
    with_threshold(folder, None)
    assert open_bundle(folder).threshold is None
