"""``train --from``: a bundle's weights as the start of another training."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_samples import Said
from PIL import Image
from sklearn.datasets import load_digits

from nas.bundles.bundle import Bundle
from nas.bundles.start import carry_over
from nas.data.splits import load
from nas.errors import BundleError, ConfigError, DataError
from nas.training.fit import FitProgress
from studies.bundles import evaluate_bundle, open_bundle, seen_by
from studies.commands.train import train
from studies.settings import TrainRequest

Run = Callable[..., Said]

SPEC = {
    "levels": 2, "width": 8, "growth": "constant", "fusion": "add", "gate": "none", "resampling": "average",
    "block": "residual", "norm": "batch", "kernel": 3, "head_norm": "batch", "head_hidden": 1, "head_width": 16,
    "head_dropout": 0.1,
}  # fmt: skip
HEAD = {"head.layers.4.weight", "head.layers.4.bias"}
"""The last layer of the head, whose shape depends on the number of classes."""


def request(to: Path, **settings: Any) -> TrainRequest:
    return TrainRequest(**{"to": to, "epochs": 2, "threads": 1, "precision": "fp32", "subset": 400, **settings})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of three digits, folders of gray and colour photographs, and the bundle of ten digits."""
    folder = tmp_path_factory.mktemp("from")
    digits = load_digits()
    for digit in range(3):
        (folder / "three" / f"c{digit}").mkdir(parents=True)
        for i, image in enumerate(digits.images[digits.target == digit][:30]):
            Image.fromarray((image * 15.9).astype(np.uint8)).save(folder / "three" / f"c{digit}" / f"{i}.png")
    down, right = np.mgrid[0:40, 0:44]
    for name, shape in (("gray", ()), ("colour", (3,))):
        (folder / name).mkdir()
        for i in range(6):
            plane = (120 + 80 * np.sin(down / (5 + i)) * np.cos(right / 7)).astype(np.uint8)
            Image.fromarray(np.broadcast_to(plane.T, (*shape, *plane.T.shape)).T.copy()).save(
                folder / name / f"{i}.png"
            )
    (folder / "spec.json").write_text(json.dumps(SPEC))
    train(request(folder / "first", what=str(folder / "spec.json"), epochs=6, data="digits", noise="gaussian:50"))
    return folder


@pytest.fixture
def first(folder: Path) -> Bundle:
    return open_bundle(folder / "first/bundle")


def outputs(network: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        denoised, logits = network.eval()(torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
    return denoised, logits


def test_the_first_output_is_the_bundles(first: Bundle) -> None:
    network = first.space.build(first.candidate.spec, first.task)
    assert not torch.equal(outputs(network)[0], outputs(first.network)[0])
    assert carry_over(first, network, first.task, first.classes) == []
    for found, wanted in zip(outputs(network), outputs(first.network), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_other_classes_keep_all_weights_but_the_last_layer(first: Bundle) -> None:
    """Also when there are as many of them, so that the shapes are the same."""
    for classes in (("cat", "dog"), tuple(f"kind {i}" for i in range(10))):
        task = replace(first.task, classes=len(classes))
        network = first.space.build(first.candidate.spec, task)
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        random = torch.random.get_rng_state()
        assert set(carry_over(first, network, task, classes)) == HEAD
        assert torch.equal(random, torch.random.get_rng_state()), "the training draws what it would have drawn"
        for name, tensor in network.state_dict().items():
            assert torch.equal(tensor, before[name] if name in HEAD else first.network.state_dict()[name])
        torch.testing.assert_close(outputs(network)[0], outputs(first.network)[0], rtol=0, atol=0)


def test_a_head_is_left_out_and_comes_anew(first: Bundle) -> None:
    unlabelled = replace(first.task, classes=0)
    network = first.space.build(first.candidate.spec, unlabelled)
    assert carry_over(first, network, unlabelled, ()) == []
    torch.testing.assert_close(outputs(network)[0], outputs(first.network)[0], rtol=0, atol=0)
    without = replace(first, task=unlabelled, classes=(), network=network)
    again = first.space.build(first.candidate.spec, first.task)
    anew = carry_over(without, again, first.task, first.classes)
    assert anew == [name for name in again.state_dict() if name.startswith("head.")]
    torch.testing.assert_close(outputs(again)[0], outputs(first.network)[0], rtol=0, atol=0)


def test_a_network_of_other_shapes_is_refused(first: Bundle) -> None:
    wider = first.space.build(first.space.spec({**SPEC, "width": 12}), first.task)
    with pytest.raises(BundleError, match=r"tensor '.*' is .*, and the network for `data` has"):
        carry_over(first, wider, first.task, first.classes)


@pytest.mark.slow
def test_a_short_training_under_other_noise_beats_its_start_and_one_from_nothing(folder: Path, tmp_path: Path) -> None:
    start, lines = folder / "first/bundle", []
    seen: list[FitProgress] = []
    tuned = train(request(tmp_path / "tuned", start=start, noise="gaussian:25"), seen.append, lines.append)
    fresh = train(request(tmp_path / "fresh", what=str(folder / "spec.json"), noise="gaussian:25"))
    before = evaluate_bundle(start, noise="gaussian:25")["levels"][0]
    assert tuned["psnr"] > max(before["psnr"], fresh["psnr"]) + 0.5
    assert tuned["accuracy"] > fresh["accuracy"] + 10
    assert tuned["data"] == "digits", "the bundle's, as no other was asked for"
    validation = evaluate_bundle(start, noise="gaussian:25", split="validation")["levels"][0]
    judged = next(each.validated for each in seen if each.validated is not None)
    assert judged.epoch == 0
    assert judged.values["psnr"] == pytest.approx(validation["psnr"], abs=1e-4)
    assert (
        lines[1]
        == f"it begins with the weights of {open_bundle(start).candidate.digest}, trained on digits, gaussian:50"
    )


def test_a_bundle_says_which_one_it_came_from_and_what_that_had_seen(folder: Path, tmp_path: Path, run: Run) -> None:
    start = open_bundle(folder / "first/bundle")
    lines: list[str] = []
    three = f"folder:{folder / 'three'}"
    settings = {"subset": None, "epochs": 1}
    train(request(tmp_path / "a", start=start.path, data=three, **settings), say=lines.append)
    assert lines[2] == (
        f"the 3 classes of {three} are others than those that it knows: what tells classes apart begins anew, all "
        "other weights are kept"
    )
    second = open_bundle(tmp_path / "a/bundle")
    assert second.classes == ("c0", "c1", "c2")
    digits, own = load("digits").fingerprint, load(three).fingerprint
    origin = second.facts["start"]
    assert origin == {
        "digest": start.candidate.digest, "weights": origin["weights"], "data": "digits", "noise": "gaussian:50",
        "seen": [digits],
    }  # fmt: skip
    card = (tmp_path / "a/bundle/README.md").read_text()
    assert "Trained by skipnas" in card, "no search found it"
    told = f"the weights {origin['weights']} of a bundle {start.candidate.digest}, trained on digits under gaussian:50"
    assert f"- start: {told}\n" in card
    assert f"- digest: {second.candidate.digest}, of architecture and recipe alone, so that other weights may" in card
    shown = run("show", second.path)
    assert re.search(rf"^start +{told}$", shown.out, re.MULTILINE)
    assert re.search(rf"^digest +{second.candidate.digest}, of architecture and recipe alone$", shown.out, re.MULTILINE)
    assert re.search(rf"^weights +{second.weights_digest}, the beginning of the SHA-256 of", shown.out, re.MULTILINE)
    earlier = json.loads(run("show", start.path, "--json").out)
    assert (earlier["weights"], "start" in earlier) == (origin["weights"], False)
    sums = (start.path / "SHA256SUMS").read_text()
    assert re.search(rf"^{origin['weights']}[0-9a-f]{{48}}  weights.safetensors$", sums, re.MULTILINE)
    assert "The weights that the training began with were trained on other data." in card
    assert second.seen == (own, digits)
    said = run(
        "train", "--from", second.path, "--data", three, "--epochs", "1", "--to", tmp_path / "c", "--threads", "1"
    )
    assert said.code == 0, said.err
    assert "trained on other data" in (tmp_path / "c/bundle/README.md").read_text(), "of the first of the three"


def test_data_counts_as_new_only_where_all_that_the_weights_have_seen_is_known(first: Bundle) -> None:
    known = {"data": "images:new", "fingerprint": "0" * 16}
    for facts, kind, seen in (
        (known, "images", ("0" * 16,)),
        ({**known, "fingerprint": None}, "images", None),
        ({**known, "fingerprint": None}, "folder", ("",)),
        ({**known, "start": {"data": "folder:old", "seen": ["1" * 16]}}, "folder", ("0" * 16, "1" * 16)),
        ({**known, "start": {"data": "folder:old", "seen": [None]}}, "folder", None),
    ):
        assert seen_by(replace(first, facts=facts), kind) == seen


def test_a_training_from_a_bundle_goes_on_bit_for_bit(folder: Path, tmp_path: Path) -> None:
    """After the start was judged, in the first epoch, and in the second."""
    asked = {"start": folder / "first/bundle", "noise": "poisson:20"}
    train(request(tmp_path / "whole", **asked))

    stops = [0, 5, 18]

    def stop(progress: FitProgress) -> None:
        if progress.step >= stops[0]:
            raise KeyboardInterrupt

    while stops:
        with pytest.raises(KeyboardInterrupt):
            train(request(tmp_path / "parts", **asked), stop)
        stops.pop(0)
    train(request(tmp_path / "parts", **asked))
    whole, parts = (tmp_path / name / "bundle/weights.safetensors" for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()


def test_a_training_is_never_worse_than_its_start(folder: Path, tmp_path: Path) -> None:
    start = folder / "first/bundle"
    result = train(request(tmp_path / "out", start=start, epochs=1, learning_rate=0.05))
    assert result["best_epoch"] == 0
    wanted = open_bundle(start).network.state_dict()
    for name, tensor in open_bundle(tmp_path / "out/bundle").network.state_dict().items():
        assert torch.equal(tensor, wanted[name]), name


REFUSED = {
    "nothing": ([], "there is nothing to train; name a spec's file, a network of the papers, a study, or --from"),
    "another architecture": (
        ["unet", "--from", "first/bundle"],
        "--from first/bundle has an architecture of its own, and unet names another; leave one out",
    ),
    "a choice": (
        ["--from", "first/bundle", "--prefer", "psnr=2"],
        "--prefer is for the choice from a study, and first/bundle is a bundle; leave it out",
    ),
    "no bundle": (
        ["--from", "three"],
        "three/architecture.json: is missing; give a folder that `skipnas export` wrote",
    ),
    "colours": (
        ["--from", "first/bundle", "--data", "images:colour", "--patch", "16"],
        "first/bundle restores images of 1 channel(s), and those of --data have 3; give such images, or train a "
        "network for them",
    ),
    "an empty name": (["--from", ""], "--from is ''; "),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_start_that_does_not_fit_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, run: Run, case: str
) -> None:
    monkeypatch.chdir(folder)
    arguments, told = REFUSED[case]
    said = run("train", *arguments, "--to", "new", "--epochs", "1", "--threads", "1")
    assert said.code == 2
    assert said.err.startswith(f"error: {told}"), said.err
    assert said.err.count("\n") == 1
    assert not (folder / "new").exists()


def test_other_data_is_named_before_what_follows_from_it(folder: Path, tmp_path: Path, run: Run) -> None:
    """Images without classes make another recipe and another task."""
    train(request(tmp_path / "out", start=folder / "first/bundle", epochs=1))
    options = ["--epochs", "1", "--threads", "1", "--precision", "fp32", "--data", f"noisy-single:{folder / 'gray'}"]
    said = run("train", "--from", folder / "first/bundle", *options, "--to", tmp_path / "out")
    assert said.code == 2
    assert " holds another training: data is 'digits' there, asked for 'noisy-single:" in said.err


def test_another_start_in_a_folder_is_another_training(folder: Path, tmp_path: Path, run: Run) -> None:
    train(request(tmp_path / "out", start=folder / "first/bundle", epochs=1))
    options = ["--epochs", "1", "--threads", "1", "--precision", "fp32", "--subset", "400"]
    said = run("train", "--from", tmp_path / "out/bundle", *options, "--to", tmp_path / "out")
    assert said.code == 2
    assert " holds another training: start is '" in said.err
    assert said.err.count("\n") == 1


def test_classes_that_come_new_are_learned_though_the_start_weighed_none(folder: Path, tmp_path: Path) -> None:
    gray = f"images:{folder / 'gray'}"
    lines: list[str] = []
    settings = {"subset": None, "epochs": 1}
    train(request(tmp_path / "gray", start=folder / "first/bundle", data=gray, patch=16, **settings), say=lines.append)
    assert lines[2] == f"{gray} has no classes: the head that tells 10 apart is left out"
    without = open_bundle(tmp_path / "gray/bundle")
    assert without.classes == ()
    assert without.candidate.recipe.classification_weight == 0
    train(request(tmp_path / "out", start=without.path, data=f"folder:{folder / 'three'}", **settings))
    assert open_bundle(tmp_path / "out/bundle").candidate.recipe.classification_weight == 0.3


@pytest.mark.slow
def test_groups_and_white_of_a_bundle_hold_for_its_data(tmp_path: Path) -> None:
    """Frames of a track that were kept together stay together, so that none of the test split was trained on."""
    frames = tmp_path / "frames"
    frames.mkdir()
    random = np.random.default_rng(0)
    for track in range(6):
        for frame in range(3):
            values = (random.random((24, 24)) * 1000).astype(np.uint16)
            Image.fromarray(values).save(frames / f"t{track}_{frame}.png")
    (tmp_path / "spec.json").write_text(json.dumps(SPEC))
    data, settings = f"images:{frames}", {"subset": None, "epochs": 1, "patch": 16}
    asked = {"data": data, "noise": "gaussian:25", **settings}
    train(request(tmp_path / "a", what=str(tmp_path / "spec.json"), group_by="t\\d", white_level=1023.0, **asked))
    lines: list[str] = []
    train(request(tmp_path / "b", start=tmp_path / "a/bundle", **asked), say=lines.append)
    first, second = open_bundle(tmp_path / "a/bundle"), open_bundle(tmp_path / "b/bundle")
    for name in ("fingerprint", "group_by", "images"):
        assert first.facts[name] == second.facts[name], name
    assert second.facts["group_by"] == "t\\d"
    assert first.white_level == second.white_level == 1023
    assert "trained on other data" not in (tmp_path / "b/bundle/README.md").read_text()
    # On another scale the data has another fingerprint, and so another test split, with images of the training in it.
    for split in (None, "test"):
        with pytest.raises(ConfigError, match=r"has learned from these very images, with 1023 as white, and which of"):
            evaluate_bundle(tmp_path / "a/bundle", data=data, white_level=2047.0, split=split)
    judged = [evaluate_bundle(tmp_path / "a/bundle", data=data, white_level=level) for level in (None, 1023.0)]
    assert judged[0] == judged[1]
    assert judged[0]["split"] == "test"
    (frames / "extra.png").write_bytes((frames / "t0_0.png").read_bytes())
    with pytest.raises(DataError, match=r"finds nothing in extra.png; give an expression that matches the path"):
        train(request(tmp_path / "d", start=tmp_path / "a/bundle", **asked))
    (frames / "extra.png").unlink()
    other = tmp_path / "other"
    shutil.copytree(frames, other)
    for file in list(other.iterdir()):
        file.rename(other / f"scan{file.stem[1:]}.png")
    told: list[str] = []
    train(request(tmp_path / "e", start=tmp_path / "a/bundle", **{**asked, "data": f"images:{other}"}), say=told.append)
    assert "its data was grouped by 't\\\\d', which finds nothing in these files: nothing is grouped" in told
    assert open_bundle(tmp_path / "e/bundle").facts["group_by"] is None
    (frames / "t5_2.png").unlink()
    train(request(tmp_path / "c", start=tmp_path / "a/bundle", **asked), say=lines.append)
    assert "its images are others than then, and some of today's test split may have been trained on" in lines
