"""The tour of docs/tour.md on real data, from a search to restored images. Its cards' figures are computed again by
``evaluate`` on the bundle, and by ONNX Runtime and PyTorch without skipnas.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_samples import ROOT, SHARED
from PIL import Image

from nas.bundles.formats import INT8

QUALITY = {
    "psnr": "PSNR of the restored images, dB",
    "noisy_psnr": "PSNR of the noisy images, dB",
    "ssim": "SSIM of the restored images",
    "noisy_ssim": "SSIM of the noisy images",
    "accuracy": "top-1 accuracy on the noisy images, %",
    "balanced_accuracy": "balanced accuracy (mean recall of the classes), %",
    "macro_f1": "macro F1 (mean over the classes)",
    "auc": "area under the ROC curve (one class against the rest, mean over the classes)",
}
"""Figures of a bundle -> their labels on its card."""

CONFIRMED = {
    "psnr": ("PSNR on validation, dB", 2),
    "accuracy": ("accuracy on validation, %", 2),
    "stability": ("training stability", 3),
    "test_psnr": ("PSNR on test, dB", 2),
    "test_accuracy": ("accuracy on test, %", 2),
}
"""Confirmed figures -> their labels on a card, and the decimals there."""

ALONE = Path(__file__).with_name("judge_alone.py")


def tour() -> list[list[str]]:
    """The commands of docs/tour.md, without comments."""
    text = (ROOT / "docs" / "tour.md").read_text("utf-8")
    block = text.partition("```sh\n")[2].partition("```")[0]
    return [shlex.split(line, comments=True)[1:] for line in block.splitlines()]


def command(folder: Path, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "app_cli.py"), *arguments, "--json"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def alone(runtime: str, program: Path, arrays: Path) -> dict[str, float]:
    """PSNR in dB and accuracy in percent, by a script that has nothing of the project."""
    asked = [sys.executable, "-I", str(ALONE), runtime, str(program), str(arrays)]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=300, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def noisy_split(part: str, target: Path) -> Path:
    """A split of Fashion-MNIST under the noise that figures of a card are for, as arrays in a file."""
    import torch

    from nas.data.noise import parse_noise
    from nas.data.splits import load, noise_seed, validation_draws
    from nas.training.batches import noisy_batches

    data = load("fashion-mnist", root=SHARED)
    split = getattr(data, part)
    batches = list(
        noisy_batches(
            split,
            parse_noise("gaussian:50"),
            torch.device("cpu"),
            seed=noise_seed(data.fingerprint),
            draws=validation_draws(len(split.images)),
        )
    )
    noisy, clean, labels = (torch.cat([batch[column] for batch in batches]).numpy() for column in range(3))
    np.savez(target, noisy=noisy, clean=clean, labels=labels)
    return target


def on_card(bundle: Path) -> dict[str, list[float]]:
    """The figures of a card's tables by the label of their row; those of the weights come before those of int8."""
    rows = re.findall(r"^\| ([^|]+?) \| (.+) \|$", (bundle / "README.md").read_text(), re.MULTILINE)
    return {label: [float(x) for x in re.findall(r"-?\d+\.\d+", cells)] for label, cells in reversed(rows)}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not SHARED.exists(), reason=f"no real images at {SHARED.name} beside the project")
def test_from_search_to_a_network_in_use(tmp_path: Path) -> None:
    steps = {words[0]: words for words in tour()}
    assert list(steps) == ["search", "confirm", "best", "export", "train", "evaluate", "denoise"]
    root = ["--data-root", str(SHARED)]

    assert command(tmp_path, *steps["search"], *root)["trained"] == 8
    confirmed = command(tmp_path, *steps["confirm"])
    assert confirmed["state"] == "complete"
    assert all(member["runs"] == 3 for member in confirmed["members"])
    chosen = command(tmp_path, *steps["best"])["chosen"]
    assert chosen["trial"] == confirmed["knee"]
    exported = command(tmp_path, *steps["export"])
    assert exported["trial"] == confirmed["knee"]
    command(tmp_path, *steps["train"])

    arrays = {part: noisy_split(part, tmp_path / f"{part}.npz") for part in ("validation", "test")}
    exact = {"psnr": 0.01, "noisy_psnr": 0.01, "ssim": 1e-4, "noisy_ssim": 1e-4, "accuracy": 0.1}
    exact |= {"balanced_accuracy": 0.1, "macro_f1": 1e-3, "auc": 1e-4}

    bundle = tmp_path / "tour-bundle"
    card, facts = on_card(bundle), json.loads((bundle / "architecture.json").read_text())["facts"]
    for column, part in enumerate(arrays):
        found = command(tmp_path, "evaluate", "tour-bundle", "--split", part, *root)["levels"][0]
        for name, label in QUALITY.items():
            assert card[label][column] == pytest.approx(found[name], abs=exact[name]), (part, name)
        for program in ("model.onnx", "model.pt2"):
            by_others = alone(program.removeprefix("model.").replace("pt2", "torch"), bundle / program, arrays[part])
            assert by_others == pytest.approx({name: found[name] for name in by_others}, abs=0.01), (part, program)
        for name, value in (alone("onnx", bundle / INT8, arrays[part]) if facts["int8"]["pays"] else {}).items():
            assert value == pytest.approx(facts["int8"]["measured"][part][name], abs=exact[name])
    for name, (label, digits) in CONFIRMED.items():
        values = chosen["confirmed"][name]
        assert card[label] == pytest.approx([values[key] for key in ("mean", "low", "high", "sd")], abs=10**-digits)
    assert facts["values"]["psnr"] == pytest.approx(exported["measured"]["validation"]["psnr"], abs=0.01)

    trained = tmp_path / "trained" / "bundle"
    card = on_card(trained)
    found = command(tmp_path, *steps["evaluate"], *root)["levels"][0]
    for name in ("psnr", "noisy_psnr", "ssim", "accuracy"):
        assert card[QUALITY[name]] == pytest.approx([found[name]], abs=exact[name])
    for program in ("model.onnx", "model.pt2"):
        by_others = alone(program.removeprefix("model.").replace("pt2", "torch"), trained / program, arrays["test"])
        assert by_others == pytest.approx({name: found[name] for name in by_others}, abs=0.01), program
    assert found["psnr"] > found["noisy_psnr"] + 4
    assert found["accuracy"] > 50

    test = np.load(arrays["test"])
    (tmp_path / "scans").mkdir()
    for index in range(10):
        pixels = (test["noisy"][index, 0].clip(0, 1) * 255).round().astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "scans" / f"{index}.png")
    restored = command(tmp_path, *steps["denoise"])["images"]
    assert len(restored) == 10
    left = []
    for index in range(10):
        before, after = (
            np.asarray(Image.open(tmp_path / folder / f"{index}.png"), dtype=float) / 255
            for folder in ("scans", "restored")
        )
        clean = test["clean"][index, 0]
        left.append(((after - clean) ** 2).mean() / ((before - clean) ** 2).mean())
    assert np.mean(left) < 0.6, "a file's values are clipped, which takes a part of the noise already"
    classes = json.loads((trained / "architecture.json").read_text())["classes"]
    seen = {Path(image["image"]).name: image["label"] for image in restored}
    assert sum(seen[f"{index}.png"] == classes[test["labels"][index]] for index in range(10)) >= 4
