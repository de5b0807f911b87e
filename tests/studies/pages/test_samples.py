"""Images through networks of the front, the evidence for classes, the knee's answers, and what was removed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from bundle_samples import CLASSES, candidate, digits, network_of
from study_samples import Driver, make_measurement, read

from nas.data.splits import Dataset
from nas.errors import StudyError
from nas.types import Objective
from studies.notebook import Study
from studies.pages.report import _images, write_figures
from studies.pages.samples import REACH, autocorrelation, knee_answers, samples
from studies.reading.history import read_history
from studies.reading.study import StudyReader
from studies.store.ledger import SqlLedger

PSNR = Objective(name="psnr", direction="maximize", unit="dB", reference=14.0)
ACCURACY = Objective(name="accuracy", direction="maximize", unit="%", reference=10.0)
IN_SAMPLES = "studies.pages.samples"


@pytest.fixture
def study(new_study: Callable[..., SqlLedger], monkeypatch: pytest.MonkeyPatch) -> StudyReader:
    """A study of one trial, whose network and images are at hand."""
    ledger = new_study(objectives=(PSNR, ACCURACY))
    ledger.complete(Driver(ledger).start(), make_measurement(20.0))
    split = digits(60)
    data = Dataset("digits", train=split, validation=split, test=split, classes=CLASSES, fingerprint="00ff")
    network = network_of(candidate())
    monkeypatch.setattr(f"{IN_SAMPLES}.study_data", lambda *told: data)
    monkeypatch.setattr(f"{IN_SAMPLES}.study_space", lambda *told: SimpleNamespace(spec=dict))
    monkeypatch.setattr("studies.bundles.trained_network", lambda *told: network)
    return read(ledger)


def test_evidence_stands_below_each_denoised_image(study: StudyReader) -> None:
    found = samples(study, read_history(study))
    names = [name for name, _ in found.rows]
    assert names == ["clean", "noisy", "trial 0 (knee)", "evidence in trial 0"]
    assert {len(row) for _, row in found.rows} == {6}
    assert "orange pixels speak for the class" in _images(found)


def test_the_knee_answers_as_its_pictures_say(study: StudyReader) -> None:
    history = read_history(study)
    answered, shown = knee_answers(study, history), samples(study, history).answered
    assert answered is not None
    assert shown is not None
    assert (answered.trial, answered.classes, answered.draws) == (shown.trial, shown.classes, shown.draws)
    assert (answered.found.probabilities == shown.found.probabilities).all()


def test_a_notebook_and_the_files_have_the_curves_of_the_knee(
    study: StudyReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = Study(study)
    figure = notebook.figure("roc")
    assert len(figure.data) == 8 + 1, "the worst classes and the diagonal"
    assert "reliability" in notebook.figures()

    def draw(figures: Sequence[Any], suffix: str, option: str) -> None:
        for _, file, _ in figures:
            file.touch()

    monkeypatch.setattr("studies.pages.report.draw", draw)
    assert {"roc.svg", "reliability.svg"} <= {path.name for path in write_figures(study, tmp_path / "figures")}

    def lost(*told: object) -> None:
        raise StudyError("the weights are gone")

    monkeypatch.setattr("studies.bundles.trained_network", lost)
    assert "roc" in notebook.figures(), "it was computed already"
    assert "roc" not in notebook.refresh().figures()
    assert "roc.svg" not in {path.name for path in write_figures(study, tmp_path / "fewer")}


def noise(height: int, width: int, channels: int = 1) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (channels, height, width)))


@pytest.mark.parametrize("channels", [1, 3])
def test_white_noise_has_none(channels: int) -> None:
    found = autocorrelation(3 + noise(200, 160, channels))
    assert found.shape == (2 * REACH + 1, 2 * REACH + 1)
    assert found[REACH, REACH] == pytest.approx(1)
    found[REACH, REACH] = 0
    assert float(found.abs().max()) < 0.05


def test_neighbours_that_share_noise_are_alike() -> None:
    white = noise(200, 200)
    found = autocorrelation((white[..., :-1] + white[..., 1:]) / 2)
    assert found[REACH, REACH + 1] == pytest.approx(0.5, abs=0.02)
    assert found[REACH, REACH - 1] == pytest.approx(0.5, abs=0.02)
    assert found[REACH + 1, REACH] == pytest.approx(0, abs=0.02)
    assert found[REACH, REACH + 2] == pytest.approx(0, abs=0.02)


def test_rows_that_share_noise_are_alike_however_far() -> None:
    found = autocorrelation(noise(200, 1).expand(1, 200, 160))
    assert found[REACH].tolist() == pytest.approx([1] * (2 * REACH + 1))
    assert found[REACH + 3, REACH] == pytest.approx(0, abs=0.15)


def test_small_and_flat_images_have_one_too() -> None:
    assert autocorrelation(noise(8, 11)).shape == (9, 9)
    assert not autocorrelation(torch.full((1, 16, 16), 0.3)).any()
