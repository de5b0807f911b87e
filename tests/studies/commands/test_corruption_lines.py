"""What ``evaluate --corruptions`` shows: its table and its curves."""

from __future__ import annotations

from typing import Any

from nas.data.corruptions import CORRUPTIONS, levels_of_corruption
from studies.commands.bundle_lines import corruption_lines
from studies.pages.corruptions import corruption_curves
from studies.pages.style import DASHES, LINES, line_style


def levels(**more: float) -> list[dict[str, Any]]:
    return [
        {"kind": kind, "strength": strength, "noise": words, "noisy_psnr": 20.0, "psnr": 30.0 - strength, **more}
        for kind, strength, words in levels_of_corruption()
    ]


def test_a_line_for_each_level_names_its_noise() -> None:
    head, clean, first, second, *_ = corruption_lines(levels(accuracy=90.0, balanced_accuracy=50.0, auc=0.75))
    assert head.endswith("PSNR (dB)  accuracy (%)  balanced accuracy (%)  AUC")
    assert clean.split() == ["clean", "none", "20.00", "30.00", "90.00", "50.00", "0.7500"]
    assert first.split() == ["gaussian", "noise", "gaussian:10", "20.00", "29.00", "90.00", "50.00", "0.7500"]
    assert second.split() == ["gaussian:25", "20.00", "28.00", "90.00", "50.00", "0.7500"]
    assert len(corruption_lines(levels())[1].split()) == 4, "without classes there is PSNR alone"


def test_curves_begin_at_clean_images_and_can_be_told_apart() -> None:
    result = {"bundle": "b<i>", "data": "digits", "split": "test", "images": 1200}
    figure = corruption_curves(result | {"corruptions": levels(accuracy=90.0, balanced_accuracy=50.0, auc=0.75)})
    assert len(figure.data) == 4 * len(CORRUPTIONS)
    assert list(figure.data[0].x) == [0, 1, 2, 3, 4, 5]
    assert list(figure.data[0].y) == [30, 29, 28, 27, 26, 25]
    assert figure.data[0].customdata[:2] == ("none", "gaussian:10")
    assert len({line.line.color for line in figure.data}) == len(CORRUPTIONS), "each kind has a colour of its own"
    assert figure.layout.title.text == "b&lt;i&gt; under corruptions: digits, test split, 1,200 images"
    plain = corruption_curves(result | {"split": "all", "corruptions": levels()})
    assert len(plain.data) == len(CORRUPTIONS)
    assert plain.layout.title.text.endswith(": digits, all images, 1,200 images")


def test_the_first_lines_of_a_figure_all_differ() -> None:
    styles = [line_style(index) for index in range(len(LINES) * len(DASHES))]
    assert len({(style["color"], style["dash"]) for style in styles}) == len(styles) == 36
