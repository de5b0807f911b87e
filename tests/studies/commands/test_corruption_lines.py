"""What ``evaluate --corruptions`` shows: its table and its curves."""

from __future__ import annotations

from typing import Any

from nas.data.corruptions import CORRUPTIONS, levels_of_corruption
from studies.commands.bundle_lines import corruption_lines
from studies.pages.corruptions import corruption_curves


def levels(**more: float) -> list[dict[str, Any]]:
    return [
        {"kind": kind, "strength": strength, "noise": words, "noisy_psnr": 20.0, "psnr": 30.0 - strength, **more}
        for kind, strength, words in levels_of_corruption()
    ]


def test_a_line_for_each_level_names_its_noise() -> None:
    head, clean, first, second, *_ = corruption_lines(levels(accuracy=90.0, auc=0.75))
    assert head.split("  ")[-1] == "AUC"
    assert clean.split() == ["clean", "none", "20.00", "30.00", "90.00", "0.7500"]
    assert first.split() == ["gaussian", "noise", "gaussian:10", "20.00", "29.00", "90.00", "0.7500"]
    assert second.split() == ["gaussian:25", "20.00", "28.00", "90.00", "0.7500"]
    assert len(corruption_lines(levels())[1].split()) == 4, "without classes there is PSNR alone"


def test_curves_begin_at_clean_images_and_can_be_told_apart() -> None:
    figure = corruption_curves(levels(accuracy=90.0, auc=0.75))
    assert len(figure.data) == 3 * len(CORRUPTIONS)
    assert list(figure.data[0].x) == [0, 1, 2, 3, 4, 5]
    assert list(figure.data[0].y) == [30, 29, 28, 27, 26, 25]
    assert figure.data[0].customdata[:2] == ("none", "gaussian:10")
    styles = {(line.line.color, line.line.dash) for line in figure.data}
    assert len(styles) == len(CORRUPTIONS)
    assert len(corruption_curves(levels()).data) == len(CORRUPTIONS)
