"""Images of 2 to 16 channels from the command line: trained on, evaluated, restored, and refused in one line."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from command_samples import Said
from PIL import Image

from nas.data.noise import parse_noise
from nas.data.raw import PARTS
from nas.data.splits import load, split_photographs
from nas.errors import DataError
from nas.training.strips import png, seen_channels
from studies.bundles import open_bundle
from studies.commands.train import train
from studies.settings import TrainRequest

Run = Callable[..., Said]
CHANNELS = 5
SPEC = {
    "levels": 2, "width": 8, "growth": "constant", "fusion": "add", "gate": "none", "resampling": "average",
    "block": "residual", "norm": "none", "kernel": 3, "prediction": "noise",
}  # fmt: skip


def scene(number: int, channels: int = CHANNELS, height: int = 40, width: int = 44) -> np.ndarray:
    """Smooth shapes that differ between channels, (H, W, C) from 0 to 1."""
    down, right = np.mgrid[0:height, 0:width]
    planes = [0.5 + 0.4 * np.sin(down / (5 + number + c)) * np.cos(right / (7 + c) + number) for c in range(channels)]
    return np.stack(planes, 2)


def write_tiff(file: Path, values: np.ndarray, **options: Any) -> None:
    bands = ["unspecified"] * (values.shape[2] - 1)
    tifffile.imwrite(file, values, photometric="minisblack", planarconfig="contig", extrasamples=bands, **options)


def trained(folder: Path, to: str, data: str, **settings: Any) -> dict[str, Any]:
    (folder / "spec.json").write_text(json.dumps(SPEC))
    asked = {"noise": "gaussian:50", "epochs": 12, "threads": 1, "precision": "fp32", **settings}
    return train(TrainRequest(what=str(folder / "spec.json"), data=data, to=folder / to, **asked))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten images of five channels as CxHxW arrays, and the bundle of a network that was trained on them."""
    folder = tmp_path_factory.mktemp("channels")
    (folder / "arrays").mkdir()
    for i in range(10):
        np.save(folder / "arrays" / f"{i}.npy", np.rint(scene(i) * 65535).astype(np.uint16).transpose(2, 0, 1))
    result = trained(folder, "out", f"images:{folder / 'arrays'}", patch=16, batch_size=4)
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def test_a_network_for_five_channels_is_trained_exported_and_evaluated(folder: Path, run: Run) -> None:
    result = json.loads((folder / "result.json").read_text())
    assert result["noisy_psnr"] == pytest.approx(14.15, abs=0.1)
    assert result["psnr"] > result["noisy_psnr"] + 0.5
    bundle = open_bundle(folder / "out/bundle")
    assert bundle.task.channels == CHANNELS
    with torch.no_grad():
        assert bundle.network(torch.rand(1, CHANNELS, 9, 11))[0].shape == (1, CHANNELS, 9, 11)
    assert "noisy 5-channel images" in (folder / "out/bundle/README.md").read_text()
    said = run(
        "evaluate", folder / "out/bundle", "--data", f"images:{folder / 'arrays'}", "--json", "--reference", "nlm"
    )
    (level,) = json.loads(said.out)["levels"]
    assert level["psnr"] == pytest.approx(result["psnr"], abs=1e-4)
    assert level["ssim"] == pytest.approx(result["ssim"], abs=1e-4)


@pytest.mark.parametrize("onnx", [False, True])
def test_arrays_and_multiband_tiffs_are_restored_as_what_they_were(
    folder: Path, tmp_path: Path, run: Run, onnx: bool
) -> None:
    clean = scene(3)
    noisy = np.rint((clean + np.random.default_rng(0).normal(0, 50 / 255, clean.shape)).clip(0, 1) * 255) / 255
    np.save(tmp_path / "a.npy", np.rint(noisy * 255).astype(np.uint8))
    np.save(tmp_path / "b.npy", np.rint(noisy * 65535).astype(">u2").transpose(2, 0, 1))
    np.save(tmp_path / "c.npy", noisy.astype(np.float32))
    write_tiff(tmp_path / "d.tif", np.rint(noisy * 255).astype(np.uint8))
    write_tiff(tmp_path / "e.tif", np.rint(noisy * 65535).astype(np.uint16), byteorder=">")
    files = sorted(tmp_path.iterdir())
    said = run("denoise", folder / "out/bundle", *files, "--to", tmp_path / "to", *(["--onnx"] if onnx else []))
    assert said.code == 0, said.err
    bundle = open_bundle(folder / "out/bundle")
    with torch.no_grad():
        wanted = bundle.network(torch.from_numpy(noisy.astype(np.float32).transpose(2, 0, 1))[None])[0][0].clamp(0, 1)
    for name, full, atol in (("a.npy", 255, 0.51), ("b.npy", 65535, 3), ("c.npy", 1, 1e-4)):
        before, after = np.load(tmp_path / name), np.load(tmp_path / "to" / name, allow_pickle=False)
        assert (after.dtype.str, after.shape) == (before.dtype.str, before.shape)
        found = after if name != "b.npy" else after.transpose(1, 2, 0)
        np.testing.assert_allclose(found, full * wanted.numpy().transpose(1, 2, 0), atol=atol)
    for name, same in (("d.tif", "a.npy"), ("e.tif", "b.npy")):
        found = tifffile.imread(tmp_path / "to" / name)
        assert found.shape == clean.shape
        values = np.load(tmp_path / "to" / same)
        np.testing.assert_array_equal(found, values if same == "a.npy" else values.transpose(1, 2, 0))
    assert abs(wanted.numpy().transpose(1, 2, 0) - clean).mean() < abs(noisy - clean).mean()


def test_images_of_another_number_of_channels_are_one_line(folder: Path, tmp_path: Path, run: Run) -> None:
    np.save(tmp_path / "four.npy", scene(0, 4))
    Image.fromarray(np.rint(scene(0, 1)[..., 0] * 255).astype(np.uint8)).save(tmp_path / "gray.png")
    bundle = folder / "out/bundle"
    for name, told in (("four.npy", "4 channels"), ("gray.png", "1 channel")):
        said = run("denoise", bundle, tmp_path / name, "--to", tmp_path / "to")
        assert said.code == 2
        assert said.err == (f"error: image {tmp_path / name}: has {told}, and the network takes 5; give such images\n")
    (tmp_path / "grays").mkdir()
    for i in range(5):
        Image.fromarray(np.rint(scene(i, 1)[..., 0] * 255).astype(np.uint8)).save(tmp_path / "grays" / f"{i}.png")
    said = run("evaluate", bundle, "--data", f"images:{tmp_path / 'grays'}")
    assert said.code == 2
    assert "0.png: 1 channel(s), the network takes 5; evaluate it on such images" in said.err
    said = run(
        "train", "--from", bundle, "--data", f"images:{tmp_path / 'grays'}", "--patch", "16", "--to", tmp_path / "n"
    )
    assert said.code == 2
    assert "restores images of 5 channel(s), and those of --data have 1" in said.err


@pytest.mark.parametrize("kind", ["images", "folder", "pairs", "noisy"])
def test_a_folder_of_several_numbers_of_channels_is_one_line(tmp_path: Path, kind: str) -> None:
    tops = {"images": ["."], "folder": ["a", "b"], "pairs": ["noisy", "clean"], "noisy": ["."]}[kind]
    for top in tops:
        (tmp_path / top).mkdir(exist_ok=True)
        for i in range(4):
            values = scene(i, 4 if i == 2 else 5, 32, 32)
            noise = np.random.default_rng(i).normal(0, 0.1 if top == "noisy" else 0.0, values.shape)
            np.save(tmp_path / top / f"{i}.npy", (values + noise).clip(0, 1).astype(np.float32))
    with pytest.raises(DataError, match=r"2.npy has 4 channels, and others have 5; keep images of one number"):
        load(f"{kind}:{tmp_path}")


def test_a_gray_network_restores_each_channel(tmp_path: Path, run: Run) -> None:
    (tmp_path / "gray").mkdir()
    for i in range(6):
        Image.fromarray(np.rint(scene(i, 1)[..., 0] * 255).astype(np.uint8)).save(tmp_path / "gray" / f"{i}.png")
    trained(tmp_path, "out", f"images:{tmp_path / 'gray'}", patch=16, epochs=1)
    values = np.rint(scene(1) * 255).astype(np.uint8)
    np.save(tmp_path / "all.npy", values)
    for c in range(CHANNELS):
        np.save(tmp_path / f"{c}.npy", values[..., c])
    said = run("denoise", tmp_path / "out/bundle", *tmp_path.glob("*.npy"), "--to", tmp_path / "to")
    assert said.code == 0, said.err
    apart = np.stack([np.load(tmp_path / "to" / f"{c}.npy") for c in range(CHANNELS)], 2)
    assert abs(np.load(tmp_path / "to/all.npy").astype(int) - apart).max() <= 1


def test_classes_of_images_of_two_channels(tmp_path: Path, run: Run) -> None:
    """One class is brighter in the first channel, the other in the second, so the gray images are alike."""
    random = np.random.default_rng(0)
    for label in range(2):
        (tmp_path / "two" / "ab"[label]).mkdir(parents=True)
        for i in range(24):
            values = 0.3 + 0.05 * random.random((12, 12, 2))
            values[..., label] += 0.3
            np.save(tmp_path / "two" / "ab"[label] / f"{i}.npy", np.rint(values * 255).astype(np.uint8))
    data = f"folder:{tmp_path / 'two'}"
    result = trained(tmp_path, "out", data, noise="gaussian:10", batch_size=8, learning_rate=0.01)
    assert result["accuracy"] == 100
    assert load(data).train.images.shape[1:] == (2, 12, 12)
    bundle = tmp_path / "out/bundle"
    assert json.loads(run("evaluate", bundle, "--data", data, "--json").out)["levels"][0]["accuracy"] == 100
    said = run("denoise", bundle, tmp_path / "two/b/0.npy", "--to", tmp_path / "to", "--json")
    assert json.loads(said.out)["images"][0]["label"] == "b"


def test_arrays_beside_image_files_are_no_images(folder: Path, tmp_path: Path, run: Run) -> None:
    """Masks and features lie there, which would be restored or trained on without a word."""
    np.save(tmp_path / "mask.npy", np.zeros((40, 44), np.uint8))
    write_tiff(tmp_path / "a.tif", np.rint(scene(0) * 255).astype(np.uint8))
    said = run("denoise", folder / "out/bundle", tmp_path, "--to", tmp_path / "to")
    assert said.code == 0, said.err
    assert said.err.startswith(f"{tmp_path}: left out: 1 other file (.npy)\n")
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["a.tif"]


# --- what lies below ---
@pytest.mark.parametrize("pages", [2, 4])
def test_frames_of_a_stack_are_never_in_two_splits(tmp_path: Path, pages: int) -> None:
    """Of TIFFs with five channels; the frames are alike, but not equal."""
    for i in range(10):
        frames = np.stack([np.rint(scene(i + frame / 9) * 255).astype(np.uint8) for frame in range(pages)])
        with tifffile.TiffWriter(tmp_path / f"{i}.tif") as writer:
            for frame in frames:
                bands = ["unspecified"] * (CHANNELS - 1)
                writer.write(frame, photometric="minisblack", planarconfig="contig", extrasamples=bands, metadata=None)
    found = split_photographs(f"images:{tmp_path}")
    assert len(found.paths) == 10 * pages
    splits = set(zip(found.paths, found.part.tolist(), strict=True))
    assert len(splits) == 10, "one split for each file"
    assert {code for _, code in splits} == set(range(len(PARTS)))
    data = load(f"images:{tmp_path}")
    assert data.train.images.shape[1] == CHANNELS


@pytest.mark.parametrize(
    ("name", "spread"),
    [
        ("gaussian:25", 25 / 255),
        ("poisson:30", (0.5 / 30) ** 0.5),
        ("poisson-gaussian:2,5", (0.5 * 2 / 255 + (5 / 255) ** 2) ** 0.5),
        ("speckle:0.2", 0.1),
        ("correlated:25,1.5", 25 / 255),
        ("rows:20", 20 / 255),
        ("columns:20", 20 / 255),
        ("saltpepper:0.5", 0.5**0.5 / 2),
    ],
)
def test_noise_of_every_kind_is_drawn_for_each_channel(name: str, spread: float) -> None:
    images = torch.full((2, CHANNELS, 200, 200), 0.5)
    added = parse_noise(name).add(images, torch.Generator().manual_seed(0)) - 0.5
    assert added.std((0, 2, 3)).tolist() == pytest.approx([spread] * CHANNELS, rel=0.15)
    alike = torch.corrcoef(added.transpose(0, 1).flatten(1)) - torch.eye(CHANNELS)
    assert alike.abs().max() < 0.25, "the noise of two channels is independent"


def test_jpeg_compresses_each_channel_as_a_gray_image() -> None:
    images = torch.from_numpy(scene(0).astype(np.float32).transpose(2, 0, 1))[None]
    generator = torch.Generator()
    whole = parse_noise("jpeg:20").add(images, generator)
    apart = [parse_noise("jpeg:20").add(images[:, c : c + 1], generator) for c in range(CHANNELS)]
    torch.testing.assert_close(whole, torch.cat(apart, 1))


@pytest.mark.parametrize(("channels", "seen"), [(1, 1), (2, 1), (3, 3), (5, 3), (16, 3)])
def test_a_picture_shows_the_channels_that_are_told(channels: int, seen: int) -> None:
    image = torch.rand(channels, 6, 7, generator=torch.Generator().manual_seed(0))
    with Image.open(io.BytesIO(png(image))) as picture:
        assert picture.mode == {1: "L", 3: "RGB"}[seen]
        values = np.atleast_3d(np.asarray(picture))
    np.testing.assert_array_equal(values, (image[:seen] * 255).round().byte().numpy().transpose(1, 2, 0))
    told = {2: "Of 2 channels the first one", 5: "The first three of 5 channels", 16: "The first three of 16 channels"}
    assert seen_channels(channels).startswith(told.get(channels, ""))
    assert bool(seen_channels(channels)) == (channels in told)
