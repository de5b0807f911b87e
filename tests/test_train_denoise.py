"""``train`` and ``denoise`` from the command line."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tifffile
import torch
from command_samples import ROOT, Said
from PIL import Image, TiffImagePlugin

from nas.data.reader import read_file
from nas.errors import StudyError
from nas.settings import RunOptions, kept_settings
from nas.training.loop import Diverged
from nas.training.version import TRAINING_VERSION
from studies.commands.search import prepare
from studies.settings import SearchRequest

Run = Callable[..., Said]

SPEC = {
    "levels": 2,
    "width": 8,
    "growth": "constant",
    "fusion": "add",
    "gate": "none",
    "resampling": "average",
    "block": "residual",
    "norm": "none",
    "kernel": 3,
    "prediction": "noise",
    "tasks": "denoise",
}
OPTIONS = ["--noise", "gaussian:25", "--epochs", "2", "--patch", "16", "--threads", "1", "--precision", "fp32"]


def photograph(height: int, width: int, channels: int = 1, seed: int = 0, noise: float = 20.0) -> np.ndarray:
    """Smooth shapes with noise, (H, W) or (H, W, C), uint8."""
    down, right = np.mgrid[0:height, 0:width]
    planes = [120 + 80 * np.sin(down / (5 + i) + seed) * np.cos(right / (7 + i)) for i in range(channels)]
    noisy = np.stack(planes, 2) + np.random.default_rng(seed).normal(0, noise, (height, width, channels))
    return noisy.clip(0, 255).astype(np.uint8).squeeze()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photographs, a spec, and a training of it with its bundle."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "images").mkdir()
    for i in range(8):
        Image.fromarray(photograph(48 + i, 64, seed=i)).save(folder / "images" / f"{i}.png")
    (folder / "spec.json").write_text(json.dumps(SPEC))
    command = ["train", "spec.json", "--data", "images:images", *OPTIONS, "--to", "out", "--json", "--float16-weights"]
    done = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "app_cli.py"), *command],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    (folder / "said.json").write_text(done.stdout)
    (folder / "said.err").write_text(done.stderr)
    return folder


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    shutil.copytree(trained, folder)
    monkeypatch.chdir(folder)
    return folder


def test_a_training_leaves_a_bundle_with_test_numbers(here: Path) -> None:
    result = json.loads((here / "said.json").read_text())
    facts = json.loads((here / "out/bundle/architecture.json").read_text())["facts"]
    assert result["split"] == facts["split"] == "test"
    assert result["psnr"] == facts["values"]["psnr"]
    assert result["noisy_psnr"] == pytest.approx(20.17, abs=0.3)
    assert facts["data"] == "images:images", "no folder of this machine"
    assert facts["training"]["augmentation"] == "flips and quarter turns"
    short = result["float16_weights"]
    assert short == facts["float16_weights"]
    assert (here / "out/bundle/model.float16-weights.onnx").exists() == short["pays"]
    assert short["told"] in (here / "out/bundle/README.md").read_text()
    assert result["int8"] is None
    assert "epoch 2/2: PSNR" in (here / "said.err").read_text()
    assert "augmentation: flips and quarter turns" in (here / "said.err").read_text()


def test_evaluate_finds_the_figures_of_a_training_on_the_photographs_that_it_left_out(here: Path, run: Run) -> None:
    result = json.loads((here / "said.json").read_text())
    said = run("evaluate", "out/bundle", "--data", "images:images", "--json")
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert (found["split"], found["images"]) == ("test", result["images"])
    for name in ("psnr", "ssim", "noisy_psnr"):
        assert found["levels"][0][name] == pytest.approx(result[name], abs=1e-4)


def test_the_same_command_again_has_nothing_to_do_and_another_is_refused(here: Path, run: Run) -> None:
    # The data's name in the folder is the place where it was trained, so the photographs are read from there.
    source = json.loads((here / "out/run.json").read_text())["configuration"]["data"]
    command = ["train", "spec.json", "--data", source, *OPTIONS, "--to", "out"]
    said = run(*command)
    assert said.code == 0, said.err
    assert "trained already" in said.err
    assert "has no" not in said.err
    said = run(*command, "--float16-weights", "--int8-weights")
    assert said.err.splitlines()[-1] == (
        "its bundle has no int8 weights; remove out/bundle, and the same command writes it again with them"
    )
    said = run(*command, "--learning-rate", "0.001")
    assert said.code == 2
    assert said.err.strip().splitlines()[-1].startswith("error: --to out holds another training: learning_rate is")


def test_a_training_that_was_killed_around_its_bundle_is_finished_by_the_same_command(here: Path, run: Run) -> None:
    stored = json.loads((here / "out/run.json").read_text())
    data = stored["configuration"]["data"]
    command = ["train", "spec.json", "--data", data, *OPTIONS, "--to", "out", "--float16-weights"]
    bundle = here / "out/bundle"
    whole = {path.name for path in bundle.iterdir()}
    weights = (bundle / "weights.safetensors").read_bytes()

    def finished() -> None:
        said = run(*command)
        assert said.code == 0, said.err
        assert {path.name for path in bundle.iterdir()} == whole
        assert (bundle / "weights.safetensors").read_bytes() == weights
        assert "result" in json.loads((here / "out/run.json").read_text())
        assert not list((here / "out").glob(".bundle*"))

    # After the result, while the bundle was written.
    bundle.rename(here / "out/.bundle.1.partial")
    finished()
    # After the bundle of older versions, which kept the result last; and one of which the disk holds a part.
    (here / "out/run.json").write_text(json.dumps({k: v for k, v in stored.items() if k != "result"}))
    finished()
    (bundle / "README.md").unlink()
    (bundle / "model.onnx").write_bytes(b"")
    finished()


def test_a_training_by_other_training_code_is_told_and_no_half_of_one_goes_on(
    here: Path, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    file, checkpoint = here / "out/run.json", here / "out/checkpoint.pt"
    stored = json.loads(file.read_text())
    assert stored.pop("training_version") == TRAINING_VERSION
    bundle = json.loads((here / "out/bundle/architecture.json").read_text())
    assert bundle["facts"]["training_version"] == TRAINING_VERSION
    command = ["train", "spec.json", "--data", stored["configuration"]["data"], *OPTIONS, "--to", "out"]
    file.write_text(json.dumps(stored))
    said = run(*command)
    told = f"version 1 of the training code, and this is version {TRAINING_VERSION}"
    assert said.err.splitlines()[0] == f"out is trained already by {told}; nothing to do"
    del stored["result"]
    file.write_text(json.dumps(stored))
    state = torch.load(checkpoint, weights_only=True)
    state["state"]["epoch"] = 1
    del state["training"]
    torch.save(state, checkpoint)
    said = run(*command)
    assert said.code == 0, said.err
    assert f"checkpoint out/checkpoint.pt is of {told}; its training starts again" in caplog.text
    assert "epoch 1/2: PSNR" in said.err
    assert json.loads(file.read_text())["training_version"] == TRAINING_VERSION
    assert torch.load(checkpoint, weights_only=True)["training"] == TRAINING_VERSION


@pytest.mark.slow
def test_a_reference_is_trained_with_classes(here: Path, run: Run) -> None:
    said = run(
        "train", "unet", "--subset", "60", "--epochs", "1", "--threads", "1", "--to", "digits", "--quiet", "--json",
        "--quantize",
    )  # fmt: skip
    assert said.code == 0, said.err
    assert said.err == ""
    result = json.loads(said.out)
    # The weights are most of this network's bytes.
    assert result["int8"]["pays"]
    assert result["int8"]["bytes"] < 0.5 * result["int8"]["float_bytes"]
    assert abs(result["int8"]["measured"]["test"]["psnr"] - result["psnr"]) < 1
    assert 0 <= result["accuracy"] <= 100
    assert result["images"] == 359
    said = run("denoise", "digits/bundle", "images/0.png", "--to", "classed", "--json")
    assert json.loads(said.out)["images"][0]["label"] in list("0123456789")


def test_a_batch_that_memory_does_not_hold_is_refused(here: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr("nas.training.loop.Training._backward", fails)
    said = run(
        "train", "spec.json", "--data", "images:images", *OPTIONS, "--batch-size", "40", "--to", "new", "--quiet"
    )
    assert said.code == 2
    assert said.err == (
        "error: --batch-size 40 does not fit into memory (CUDA out of memory. Tried to allocate 2.00 GiB); "
        "give a smaller one and another --to (--accumulate makes a step of several batches)\n"
    )


@pytest.mark.parametrize(("epochs", "told"), [("1", ""), ("9", ", at 0.125 of its rate too")])
def test_a_training_that_diverges_at_every_rate_is_one_line(
    here: Path, run: Run, monkeypatch: pytest.MonkeyPatch, epochs: str, told: str
) -> None:
    def diverges(training: Any, after_step: object) -> None:
        training.epoch += 1
        raise Diverged(f"loss is nan in epoch {training.epoch}")

    monkeypatch.setattr("nas.training.loop.Training.run_epoch", diverges)
    options = [*OPTIONS, "--epochs", epochs, "--learning-rate", "0.5", "--to", "new", "--quiet"]
    said = run("train", "spec.json", "--data", "images:images", *options)
    assert said.code == 2
    last = said.err.splitlines()[-1]
    assert last == (
        f"error: the training diverged{told}: loss is nan in epoch {min(int(epochs), 4)}; give a smaller "
        "--learning-rate than 0.5 and another --to"
    )


def test_every_kind_of_image_comes_out_under_its_name(here: Path, run: Run) -> None:
    (here / "in/deeper").mkdir(parents=True)
    Image.fromarray(photograph(40, 30)).save(here / "in/gray.png")
    Image.fromarray(photograph(41, 33, 3)).save(here / "in/colour.jpg")
    Image.fromarray(photograph(23, 37, 4)).save(here / "in/deeper/clear.png")
    Image.fromarray(photograph(20, 21).astype(np.uint16) * 257).save(here / "in/deep.tif")
    said = run("denoise", "out/bundle", "in", "--to", "restored")
    assert said.code == 0, said.err
    files = {path.relative_to(here / "restored").as_posix() for path in (here / "restored").rglob("*.*")}
    assert files == {"gray.png", "colour.jpg", "deeper/clear.png", "deep.tif"}
    for name in files:
        with Image.open(here / "in" / name) as before, Image.open(here / "restored" / name) as after:
            assert (before.size, before.mode, before.format) == (after.size, after.mode, after.format)
            if name == "deeper/clear.png":
                assert before.getchannel("A").tobytes() == after.getchannel("A").tobytes()
            else:
                assert before.tobytes() != after.tobytes()


def test_a_gray_network_restores_each_channel_and_tiles_and_onnx_agree(here: Path, run: Run) -> None:
    colour = photograph(90, 110, 3)
    Image.fromarray(colour).save("colour.png")
    for i in range(3):
        Image.fromarray(colour[..., i]).save(f"{i}.png")
    images = ["colour.png", "0.png", "1.png", "2.png"]
    assert run("denoise", "out/bundle", *images, "--to", "a").code == 0
    whole = np.asarray(Image.open("a/colour.png"))
    apart = np.stack([np.asarray(Image.open(f"a/{i}.png")) for i in range(3)], 2)
    assert abs(whole.astype(int) - apart).max() <= 1
    said = run("denoise", "out/bundle", "colour.png", "--to", "b", "--tile", "32", "--json")
    assert json.loads(said.out)["images"][0]["tiles"] == 12
    assert abs(whole.astype(int) - np.asarray(Image.open("b/colour.png"))).max() <= 1
    assert run("denoise", "out/bundle", "colour.png", "--to", "c", "--onnx").code == 0
    assert abs(whole.astype(int) - np.asarray(Image.open("c/colour.png"))).max() <= 1


def test_a_self_ensemble_is_an_option_of_restoring_and_of_judging(here: Path, run: Run) -> None:
    Image.fromarray(photograph(40, 56, 1)[..., 0]).save("gray.png")
    for name, options in {"once": [], "mean": ["--self-ensemble"], "onnx": ["--self-ensemble", "--onnx"]}.items():
        assert run("denoise", "out/bundle", "gray.png", "--to", name, *options).code == 0
    once, mean, onnx = (np.asarray(Image.open(f"{name}/gray.png")).astype(int) for name in ("once", "mean", "onnx"))
    assert (once != mean).any()
    assert abs(onnx - mean).max() <= 1

    refused = run("denoise", "out/bundle", "gray.png", "--to", "shown", "--self-ensemble", "--explain")
    assert refused.code == 2
    assert "leave --self-ensemble out" in refused.err
    assert not Path("shown").exists()

    judged = ["evaluate", "out/bundle", "--data", "images:images", "--noise", "gaussian:25"]
    alone, together = (json.loads(run(*judged, *more, "--json").out) for more in ([], ["--self-ensemble"]))
    assert (alone["self_ensemble"], together["self_ensemble"]) == (False, True)
    assert alone["levels"][0]["noisy_psnr"] == together["levels"][0]["noisy_psnr"]
    assert together["levels"][0]["once_psnr"] == alone["levels"][0]["psnr"] != together["levels"][0]["psnr"]
    shown = run(*judged, "--self-ensemble").out
    assert "network, once" in shown
    assert "self-ensemble" in shown


def test_quiet_holds_for_what_libraries_log_too(here: Path, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    (here / "images" / ".hidden.png").write_bytes((here / "images" / "0.png").read_bytes())
    train = ["train", "spec.json", "--data", "images:images", *OPTIONS[:-1], "auto", "--epochs", "1"]
    assert run(*train, "--to", "loud").code == 0
    assert "a step takes" in caplog.text
    assert "left out: 1 hidden" in caplog.text
    caplog.clear()
    said = run(*train, "--to", "silent", "--quiet", "--json")
    ours = [record for record in caplog.records if record.name.partition(".")[0] in ("nas", "studies")]
    assert (said.code, said.err, ours) == (0, "", [])


def test_many_images_that_are_refused_for_one_reason_are_one_line(here: Path, run: Run) -> None:
    (here / "counts").mkdir()
    for number in range(5):
        tiff(deep(photograph(40, 48, seed=number), white=4000 + number))(here / "counts" / f"{number}.tif")
    said = run("denoise", "out/bundle", "counts", "images/0.png", "missing.png", "--to", "restored", "--json")
    lines = said.err.splitlines()
    assert (said.code, len(lines)) == (2, 2)
    assert re.match(
        r"error: image counts/0.tif \(and counts/1.tif, counts/2.tif, \S+ and 1 more\): its values end at \d,\d+, ",
        lines[0],
    )
    assert lines[1].startswith("error: image missing.png: ")
    refused = json.loads(said.out)["refused"]
    assert [line.partition(":")[0] for line in refused] == [
        *(f"image counts/{n}.tif" for n in range(5)),
        "image missing.png",
    ]
    again = run("denoise", "out/bundle", "images", "--to", "restored")
    assert again.err == ("error: image images/0.png: restored/0.png exists; remove it, or choose another --to\n")
    again = run("denoise", "out/bundle", "images", "--to", "restored")
    assert again.err == (
        "error: image images/0.png (and images/1.png, images/2.png, images/3.png and 4 more): restored/0.png exists; "
        "remove it, or choose another --to\n"
    )


def test_broken_images_are_refused_and_the_rest_goes_on(here: Path, run: Run) -> None:
    (here / "broken.png").write_bytes((here / "images/0.png").read_bytes()[:200])
    said = run("denoise", "out/bundle", "broken.png", "missing.png", "images/1.png", "--to", "restored")
    assert said.code == 2
    lines = said.err.strip().splitlines()
    assert len(lines) == 2
    assert all(line.startswith("error: image ") for line in lines)
    assert [path.name for path in (here / "restored").iterdir()] == ["1.png"]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate")])
def test_an_image_that_memory_does_not_hold_is_refused(
    here: Path, run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fails(*arguments: object, **options: bool) -> None:
        raise error

    monkeypatch.setattr("nas.bundles.inference.restore", fails)
    said = run("denoise", "out/bundle", "images/0.png", "--to", "restored")
    assert (said.code, said.err) == (2, "error: image images/0.png: not enough memory; give a smaller --tile\n")


def test_nothing_is_written_over(here: Path, run: Run) -> None:
    before = (here / "images/0.png").read_bytes()
    said = run("denoise", "out/bundle", "images/0.png", "--to", "images")
    assert said.code == 2
    assert "images/0.png exists; remove it, or choose another --to" in said.err
    assert (here / "images/0.png").read_bytes() == before


def test_a_link_does_not_lead_out_of_the_target(here: Path, run: Run) -> None:
    (here / "in/deeper").mkdir(parents=True)
    shutil.copy("images/0.png", "in/deeper/0.png")
    (here / "restored").mkdir()
    (here / "elsewhere").mkdir()
    (here / "restored/deeper").symlink_to(here / "elsewhere")
    said = run("denoise", "out/bundle", "in", "--to", "restored")
    assert said.code == 2
    assert "leads out of" in said.err
    assert not list((here / "elsewhere").iterdir())


@pytest.mark.slow
def test_a_photograph_of_12_million_pixels_needs_less_than_3_gib(here: Path) -> None:
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (3000, 4000, 3), np.uint8)).save("large.jpg")
    script = (
        "import resource, sys, app_cli\n"
        "sys.argv = ['skipnas', 'denoise', 'out/bundle', 'large.jpg', '--to', 'restored']\n"
        "try:\n    app_cli.main()\nexcept SystemExit as stop:\n    code = stop.code\n"
        "print(code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    code, peak = done.stdout.split()[-2:]
    assert code == "0", done.stderr
    assert int(peak) < 3 * 2**20


# --- images as instruments, phones and people leave them ---
NOISY, NOISY_COLOUR = photograph(40, 48), photograph(40, 48, 3)
ALPHA = np.repeat([[255] * 24 + [128] * 24], 40, 0).astype(np.uint8)


def tiff(values: np.ndarray, **options: Any) -> Callable[[Path], object]:
    plain = {"photometric": "rgb" if values.ndim == 3 and values.shape[-1] in (3, 4) else "minisblack"}
    return lambda file: tifffile.imwrite(file, values, **(plain | options))


def deep(values: np.ndarray, dtype: str = "u2", white: float = 65535) -> np.ndarray:
    """Values of 8 bits on another scale."""
    return (values / 255 * white).round(0 if np.dtype(dtype).kind != "f" else 9).astype(dtype)


WHITE_12 = (281, "H", 1, 4095, False)
SAME: dict[str, tuple[Callable[[Path], object], float, list[str]]] = {
    "plain.png": (lambda file: Image.fromarray(NOISY).save(file), 255, []),
    "little.tif": (tiff(deep(NOISY)), 65535, []),
    "big.tif": (tiff(deep(NOISY), byteorder=">"), 65535, []),
    "imagej.tif": (tiff(deep(NOISY), imagej=True), 65535, []),
    "lzw.tif": (tiff(deep(NOISY), compression="lzw", predictor=True), 65535, []),
    "zstd.tif": (tiff(NOISY, compression="zstd", tile=(16, 16), bigtiff=True), 255, []),
    "white8.tif": (tiff(255 - NOISY, photometric="miniswhite"), 255, []),
    "white16.tif": (tiff(65535 - deep(NOISY), photometric="miniswhite"), 65535, []),
    "told12.tif": (tiff(deep(NOISY, white=4095), extratags=[WHITE_12]), 4095, []),
    "given12.tif": (tiff(deep(NOISY, white=4095)), 4095, ["--white-level", "4095"]),
    "counts.tif": (tiff(deep(NOISY, white=600)), 600, ["--white-level", "600"]),
    "signed.tif": (tiff(deep(NOISY, "i2", 25500)), 25500, ["--white-level", "25500"]),
    "long.tif": (tiff(deep(NOISY, "u4", 65535)), 65535, ["--white-level", "65535"]),
    "float.tif": (tiff(deep(NOISY, "f4", 1)), 1, []),
    "half.tif": (tiff(deep(NOISY, "f2", 1)), 1, []),
    "double.tif": (tiff(deep(NOISY, "f8", 255), byteorder=">"), 255, ["--white-level", "255"]),
    "packed.pgm": (
        lambda file: file.write_bytes(b"P5 48 40 1023\n" + deep(NOISY, ">u2", 1023).tobytes()), 1023, [],
    ),
    "colour.tif": (tiff(deep(NOISY_COLOUR)), 65535, []),
    "planes.tif": (tiff(deep(NOISY_COLOUR).transpose(2, 0, 1), photometric="rgb", planarconfig="separate"), 65535, []),
    "clear.tif": (tiff(np.dstack([deep(NOISY_COLOUR), deep(ALPHA)]), extrasamples=["unassalpha"]), 65535, []),
    "times.tif": (
        tiff(
            np.dstack([np.rint(NOISY_COLOUR * (ALPHA / 255.0)[..., None]), ALPHA]).astype(np.uint8),
            extrasamples=["assocalpha"],
        ), 255, [],
    ),
    "stack.tif": (tiff(np.stack([deep(NOISY)] * 3), imagej=True, metadata={"axes": "TYX"}), 65535, []),
    "one.tif": (tiff(np.stack([deep(NOISY)] * 3), truncate=True, metadata={"axes": "ZYX"}), 65535, []),
}  # fmt: skip
"""Files with the values of one noisy image, by the value of white in them and what the command is told."""


def decibels(found: np.ndarray) -> float:
    """PSNR of values on the 0..255 scale, (H, W, C), against the image before its noise."""
    clean = photograph(40, 48, found.shape[2], noise=0)
    return float(10 * np.log10(255**2 / np.mean((found - np.atleast_3d(clean).astype(float)) ** 2)))


@pytest.mark.parametrize("options", [[], ["4095"], ["600"], ["25500"], ["65535"], ["255"]], ids=" ".join)
def test_an_image_is_restored_as_its_eight_bits_are(here: Path, run: Run, options: list[str]) -> None:
    options = options and ["--white-level", *options]
    cases = {name: case for name, case in SAME.items() if case[2] == options}
    (here / "in").mkdir()
    for name, (write, _, _) in cases.items():
        write(here / "in" / name)
    Image.fromarray(NOISY).save("gray.png")
    Image.fromarray(NOISY_COLOUR).save("colour.png")
    assert run("denoise", "out/bundle", "gray.png", "colour.png", "--to", "plain").code == 0
    wanted = {1: np.asarray(Image.open("plain/gray.png"))[..., None], 3: np.asarray(Image.open("plain/colour.png"))}
    said = run("denoise", "out/bundle", "in", "--to", "restored", *options)
    assert said.code == 0, said.err
    for name, (_, level, _) in cases.items():
        file = read_file(here / "restored" / name)
        assert len(file.pages) == (3 if name in ("stack.tif", "one.tif") else 1), name
        for page in file.pages:
            found = 255 * page.floats(level)
            assert found.mean() == pytest.approx(wanted[found.shape[2]].mean(), rel=0.01), name
            assert decibels(found) == pytest.approx(decibels(wanted[found.shape[2]]), abs=0.5), name
            difference = np.abs(found - wanted[found.shape[2]])
            # Two roundings; and premultiplied colours of 8 bits know half as many levels.
            assert difference.max() <= (4 if name == "times.tif" else 2 if name in ("counts.tif", "half.tif") else 1), (
                name
            )


def test_what_a_restored_file_lacks_is_told(here: Path, run: Run) -> None:
    with tifffile.TiffWriter("pyramid.tif") as writer:
        writer.write(NOISY, photometric="minisblack", metadata=None)
        writer.write(NOISY[::2, ::2], photometric="minisblack", subfiletype=1, metadata=None)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[0x8769] = {0x829A: 0.004, 0x927C: b"at 512"}
    Image.fromarray(NOISY).save("camera.tif", tiffinfo=tags)
    for name, lacks in (
        ("pyramid.tif", "the smaller copies of its images (pyramid or thumbnail)"),
        ("camera.tif", "the maker's note of its EXIF"),
    ):
        said = run("denoise", "out/bundle", name, "--to", "restored")
        assert (said.code, said.out) == (0, f"{name} -> restored/{name}, without {lacks}\n"), said.err


NAN = np.where(np.arange(NOISY.size).reshape(NOISY.shape) == 99, np.nan, 0.5).astype("f4")
REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "dim.tif": (tiff(deep(NOISY, white=4095)), "far below the 65,535 of their type, .*; give --white-level"),
    "long.tif": (tiff(deep(NOISY, "u4", 65535)), "far below the 4,294,967,295 of their type, .*; give --white-level"),
    "bright.tif": (tiff(deep(NOISY, "f4", 2)), "and black is 0 and white 1; give --white-level"),
    "nan.tif": (tiff(NAN), "no finite numbers"),
    "near.tif": (
        tiff(
            np.dstack([NOISY_COLOUR] * 2),
            photometric="rgb",
            planarconfig="contig",
            extrasamples=["unspecified", "unassalpha", "unspecified"],
        ),
        "has alpha among 6 samples a pixel",
    ),
    "print.jpg": (lambda file: Image.fromarray(NOISY_COLOUR).convert("CMYK").save(file), "has the mode CMYK"),
    "cut.png": (lambda file: file.write_bytes(Path("images/0.png").read_bytes()[:300]), "cannot be read"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_image_that_could_be_misread_is_one_line(here: Path, run: Run, name: str) -> None:
    write, told = REFUSED[name]
    write(here / name)
    said = run("denoise", "out/bundle", name, "--to", "restored")
    assert said.code == 2
    assert re.fullmatch(rf"error: image {re.escape(name)}: .*{told}.*\n", said.err), said.err
    assert not (here / "restored").exists()


@pytest.mark.parametrize("level", ["0", "-1", "nan", "1e10", "many"])
def test_a_white_level_that_is_none_is_refused(here: Path, run: Run, level: str) -> None:
    said = run("denoise", "out/bundle", "images/0.png", "--to", "restored", "--white-level", level)
    assert said.code == 2
    assert len(said.err.splitlines()) == 1
    assert not (here / "restored").exists()


@pytest.fixture
def camera(here: Path) -> Path:
    """Photographs of a camera of 12 bits, which do not say so."""
    (here / "camera").mkdir()
    for i in range(8):
        tiff(deep(photograph(48 + i, 64, seed=i), white=4095))(here / "camera" / f"{i}.tif")
    return here / "camera"


def test_data_of_unknown_white_is_asked_for_before_anything_is_made(camera: Path, run: Run) -> None:
    for words in (
        ["train", "spec.json", "--data", f"images:{camera}", *OPTIONS, "--to", "new"],
        ["search", "--data", f"images:{camera}", "--study", "camera"],
        ["evaluate", "out/bundle", "--data", f"images:{camera}"],
    ):
        said = run(*words)
        assert said.code == 2
        last = said.err.splitlines()[-1]
        assert re.search(
            r"values of its images end at \d,\d+, far below the 65,535 .*; give --white-level .*data for", last
        )
    assert not Path("new").exists()
    assert not Path("runs").exists()
    said = run("train", "spec.json", "--data", "digits", "--white-level", "4095", "--to", "new")
    assert (said.code, said.err) == (2, "error: --white-level 4095: digits has a scale of its own; leave it out\n")


def test_a_white_level_is_kept_and_used_by_every_command(camera: Path, run: Run) -> None:
    """A camera's 12 bits are trained on, judged and restored as photographs in 8 bits are."""
    train = ["train", "spec.json", "--data", f"images:{camera}", *OPTIONS, "--to", "new", "--json"]
    said = run(*train, "--white-level", "4095")
    assert said.code == 0, said.err
    before, found = json.loads(Path("said.json").read_text()), json.loads(said.out)
    # Other values have another fingerprint, and so another split. Nearly black images would have over 35 dB.
    assert found["psnr"] == pytest.approx(before["psnr"], abs=3)
    assert found["noisy_psnr"] == pytest.approx(before["noisy_psnr"], abs=0.3)
    written = json.loads(Path("new/bundle/architecture.json").read_text())
    assert (written["white_level"], written["facts"]["deep"]) == (4095, True)
    program = onnx.load("new/bundle/model.onnx")
    assert float({each.key: each.value for each in program.metadata_props}["white_level"]) == 4095
    said = run("evaluate", "new/bundle", "--data", f"images:{camera}", "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out)["levels"][0]["psnr"] == pytest.approx(found["psnr"], abs=1e-3)
    tiff(deep(NOISY, white=4095))(camera.parent / "noisy.tif")
    Image.fromarray(NOISY).save("noisy.png")
    for program in ([], ["--onnx"]):
        to = "a" if program else "b"
        assert run("denoise", "new/bundle", "noisy.tif", "noisy.png", "--to", to, *program).code == 0
        deep_values = tifffile.imread(f"{to}/noisy.tif") / 4095 * 255
        assert np.abs(deep_values - np.asarray(Image.open(f"{to}/noisy.png"))).max() <= 1


def test_the_largest_value_of_the_data_is_a_white_level_in_every_command(camera: Path, run: Run) -> None:
    """It is kept as a number, and what is done with it is what is done with the number."""
    level = max(int(tifffile.imread(file).max()) for file in camera.iterdir())
    assert 3900 < level <= 4095
    train = ["train", "spec.json", "--data", f"images:{camera}", *OPTIONS, "--json"]
    found = {}
    for to, given in (("new", "data"), ("number", str(level))):
        said = run(*train, "--to", to, "--white-level", given)
        assert said.code == 0, said.err
        found[to] = json.loads(said.out)
    assert found["new"]["psnr"] == found["number"]["psnr"]
    assert json.loads(Path("new/bundle/architecture.json").read_text())["white_level"] == level
    # A bundle of 8 bits has no level, and what it restores or is judged on may decide.
    noise, judged, names = {}, {}, [file.name for file in sorted(camera.iterdir())]
    for to, given in (("a", "data"), ("b", str(level))):
        said = run("denoise", "out/bundle", str(camera), "--to", to, "--white-level", given)
        told = f"the images: white is {level:,}, the largest value of 8 files\n" if given == "data" else ""
        assert (said.code, said.err) == (0, told)
        said = run("evaluate", "out/bundle", "--data", f"images:{camera}", "--white-level", given, "--json")
        assert said.code == 0, said.err
        judged[given] = json.loads(said.out)
        noise[given] = run("noise", str(camera), "--white-level", given, "--json").out
    assert judged["data"] == judged[str(level)]
    assert noise["data"] == noise[str(level)] != ""
    assert all(Path("a", name).read_bytes() == Path("b", name).read_bytes() for name in names)
    for words in (
        ["denoise", "new/bundle", str(camera / "0.tif"), "--to", "c"],
        ["evaluate", "new/bundle", "--data", f"images:{camera}"],
    ):
        said = run(*words, "--white-level", "data")
        assert (said.code, len(said.err.splitlines())) == (2, 1)
        assert f"--white-level data: the network was trained with {level} as white" in said.err
    assert not Path("c").exists()


def test_a_search_keeps_the_white_level_that_it_found(camera: Path) -> None:
    request = SearchRequest(data=f"images:{camera}", study="camera", noise="gaussian:25", white_level="data")
    found = prepare(request, RunOptions(trials=1)).study.config
    level = max(int(tifffile.imread(file).max()) for file in camera.iterdir())
    assert found.white_level == level
    assert kept_settings(found)["white_level"] == str(level)
    again = prepare(request, RunOptions(trials=1))
    assert (again.created, again.data.fingerprint, again.data.white_level) == (False, found.fingerprint, level)
    tifffile.imwrite(camera / "one-more.tif", np.full((64, 64), 900, np.uint16))
    with pytest.raises(StudyError, match="has changed"):
        prepare(request, RunOptions(trials=1))
