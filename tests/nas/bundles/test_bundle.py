"""Bundles, opened: what was exported comes back, and whatever is broken is refused in one line."""

from __future__ import annotations

import copy
import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bundle_samples import CLASSES, FACTS, RECIPE, SPACE, TASK, candidate, noisy_digits
from safetensors.torch import load, save
from torch import Tensor, nn

from nas.bundles.bundle import MAX_JSON, open_bundle
from nas.bundles.files import ARCHITECTURE, CARD, PARITY, SUMS, WEIGHTS
from nas.bundles.formats import FORMATS, ONNX
from nas.bundles.sums import card_is_edited, write_sums
from nas.errors import BundleError
from search_spaces import get_space

PROGRAM = FORMATS["torch_export"].file


@pytest.fixture
def folder(standard: Path, tmp_path: Path) -> Path:
    """A copy that may be broken."""
    return Path(shutil.copytree(standard, tmp_path / "bundle"))


def edit(folder: Path, **changes: Any) -> None:
    """Replaces fields of architecture.json; ``task__height=1`` reaches inside."""
    file = folder / ARCHITECTURE
    value = json.loads(file.read_text())
    for name, new in changes.items():
        *outer, last = name.split("__")
        inner = value
        for key in outer:
            inner = inner[key]
        inner[last] = new
    file.write_text(json.dumps(value))


def edit_weights(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load((folder / WEIGHTS).read_bytes())
    change(tensors)
    (folder / WEIGHTS).write_bytes(save(tensors))


def refusal(folder: Path) -> str:
    """The one line with which a bundle is refused, whose files were changed on purpose, together with their sums."""
    if (folder / SUMS).is_file():
        write_sums(folder)
    with pytest.raises(BundleError) as raised:
        open_bundle(folder, get_space)
    text = str(raised.value)
    assert text.isprintable()
    assert len(text) < 240 + len(str(folder)) + 60
    assert text.startswith(str(folder))
    return text


def test_what_was_exported_comes_back(standard: Path, network: nn.Module) -> None:
    bundle = open_bundle(standard, get_space)
    assert (bundle.path, bundle.space, bundle.task, bundle.classes) == (standard, SPACE, TASK, CLASSES)
    assert bundle.candidate == candidate()
    assert bundle.candidate.recipe == RECIPE
    assert bundle.facts == FACTS
    assert not bundle.network.training
    noisy = noisy_digits(5)
    # The layout of training rounds differently in the seventh digit.
    network = copy.deepcopy(network).to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    with torch.no_grad():
        found, wanted = bundle.network(noisy), network(noisy)
    assert all(map(torch.equal, found, wanted))


def test_opening_draws_no_random_numbers(standard: Path) -> None:
    before = torch.random.get_rng_state()
    open_bundle(standard, get_space)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_only_json_and_safetensors_are_read(folder: Path) -> None:
    for name in (PROGRAM, ONNX, CARD, PARITY):
        (folder / name).write_bytes(b"never read")
    write_sums(folder)
    open_bundle(folder, get_space)


@pytest.mark.parametrize("name", [ARCHITECTURE, WEIGHTS, ONNX, PARITY, PROGRAM, SUMS])
def test_a_changed_byte_of_any_file_is_refused(folder: Path, name: str) -> None:
    content = (folder / name).read_bytes()
    start = content.index(b"\n") if name == SUMS else 0  # behind the sum of the card, which may be edited
    places = [*range(start, len(content), max(1, len(content) // 40)), len(content) - 1]
    for place in places:
        (folder / name).write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(BundleError) as raised:
            open_bundle(folder, get_space)
        assert str(raised.value).startswith(str(folder))
        assert "\n" not in str(raised.value)
    (folder / name).write_bytes(content)
    open_bundle(folder, get_space)


def test_files_of_another_bundle_are_refused(folder: Path, tmp_path: Path, network: nn.Module) -> None:
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    edit_weights(other, lambda tensors: tensors["stem.bias"].add_(1))
    write_sums(other)
    open_bundle(other, get_space)
    shutil.copy(other / WEIGHTS, folder / WEIGHTS)
    with pytest.raises(BundleError, match=r"weights.safetensors: is not the file that was exported, by its sum in SHA"):
        open_bundle(folder, get_space)


def test_a_card_may_be_edited_programs_removed_and_own_files_added(folder: Path) -> None:
    assert not card_is_edited(folder)
    with (folder / CARD).open("a") as card:
        card.write("Seen on Monday.\n")
    (folder / "mine.onnx").write_bytes(b"my own")
    (folder / PROGRAM).unlink()
    open_bundle(folder, get_space)
    assert card_is_edited(folder)


def test_a_program_that_came_later_is_refused(folder: Path) -> None:
    (folder / "model.64x64.onnx").write_bytes(b"another")
    with pytest.raises(BundleError, match=r"model\.64x64\.onnx: has no sum in SHA256SUMS, so it came later"):
        open_bundle(folder, get_space)


def test_sums_are_there_unless_the_bundle_is_older_than_they_are(folder: Path) -> None:
    (folder / SUMS).unlink()
    assert "SHA256SUMS: is missing" in refusal(folder)
    edit(folder, format=1)
    open_bundle(folder, get_space)


def test_sums_are_as_coreutils_read_them(folder: Path) -> None:
    done = subprocess.run(["sha256sum", "-c", SUMS], cwd=folder, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0
    assert set(done.stdout.splitlines()) == {f"{file.name}: OK" for file in folder.iterdir() if file.name != SUMS}


def test_an_added_file_is_nobodys_business(folder: Path) -> None:
    (folder / "setup.py").write_text("raise SystemExit('executed')")
    open_bundle(folder, get_space)


def test_no_bundle_at_all(tmp_path: Path) -> None:
    assert "not a folder" in refusal(tmp_path / "absent")
    (tmp_path / "file").touch()
    assert "not a folder" in refusal(tmp_path / "file")
    assert "architecture.json: is missing" in refusal(tmp_path)


@pytest.mark.parametrize("name", [ARCHITECTURE, WEIGHTS])
def test_a_file_that_is_missing_or_no_file(folder: Path, name: str) -> None:
    (folder / name).unlink()
    wanted = f"{folder / name}: is missing; give a folder that `skipnas export` wrote"
    assert refusal(folder) == wanted
    (folder / name).mkdir()
    assert refusal(folder) == wanted


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not JSON"),
        (b"{'format': 1}", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[1, 2]", "holds a JSON list"),
        (b" " * (MAX_JSON + 1), "bytes, must have 0 to"),
    ],
    ids=["empty", "quotes", "binary", "deep", "list", "large"],
)
def test_an_architecture_that_is_no_json_object(folder: Path, content: bytes, reason: str) -> None:
    (folder / ARCHITECTURE).write_bytes(content)
    assert reason in refusal(folder)


def test_a_cut_off_architecture(folder: Path) -> None:
    text = (folder / ARCHITECTURE).read_text()
    (folder / ARCHITECTURE).write_text(text[: len(text) // 2])
    assert "not JSON" in refusal(folder)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"format": 3}, "format is 3, this skipnas reads 1 to 2; update skipnas"),
        ({"format": "x" * 10_000}, "format is 'xxx"),
        ({"space": "unet"}, "space is 'unet', must be of type dict"),
        ({"space__name": "os.system"}, "search space 'os.system' is unknown"),
        ({"space__name": ["unet"]}, "name is ['unet'], must be of type str"),
        ({"space__version": 99}, "version 99 of space unet, this skipnas knows 1 to"),
        ({"space__version": True}, "version is True, must be of type int"),
        ({"spec__levels": 99}, "levels is 99"),
        ({"spec__width": "4"}, "width is '4'"),
        ({"spec__module": "os"}, "unknown field 'module'"),
        ({"spec__kernel": 10**400}, "kernel is 1000"),
        ({"spec": {}}, "'levels' is missing"),
        ({"spec__width": 8}, "digest is"),
        ({"recipe__epochs": 4}, "digest is"),
        ({"recipe__epochs": "3"}, "recipe: epochs is '3', must be a whole number"),
        ({"recipe__learning_rate": float("inf")}, "recipe: learning_rate is inf, must be a finite number"),
        ({"recipe__learning_rate": 10**400}, "recipe: learning_rate is 1000"),
        ({"recipe__weight_decay": [1]}, "recipe: weight_decay is [1], must be a finite number"),
        ({"recipe__batch_size": True}, "recipe: batch_size is True, must be a whole number"),
        ({"recipe__epochs": 0}, "epochs is 0, must be at least 1"),
        ({"recipe": {"epochs": 3}}, "'batch_size' is missing"),
        ({"recipe__momentum": 1}, "unknown field 'momentum'"),
        ({"recipe__optimizer": "adam"}, "recipe: optimizer is 'adam'; choose one of adamw, sgd"),
        ({"digest": None}, "digest is None"),
        ({"digest": "0" * 16}, "digest is '0000000000000000'"),
        ({"task__channels": 0}, "task: channels is 0, must be 1 to"),
        ({"task__height": 8.5}, "height is 8.5, must be of type int"),
        ({"task__height": 10**9}, "task: height is 1000000000"),
        ({"task__height": 1}, "under 2 pixels"),
        ({"task__noise": "plasma:3"}, "noise 'plasma:3': unknown kind"),
        ({"task__depth": 3}, "unknown field 'depth'"),
        ({"classes": ["0", "1"]}, "2 class names for 10 classes"),
        ({"classes": ["\x1b[2J"] * 10}, "has control characters"),
        ({"classes": list(range(10))}, "class name 0 has control characters"),
        ({"facts": "none"}, "facts is 'none', must be of type dict"),
        ({"threshold": 0.3}, "threshold is 0.3 for 10 classes, must be for 2"),
        ({"threshold": 1}, "threshold is 1, must be a probability above 0 and below 1"),
        ({"threshold": True}, "threshold is True, must be a probability"),
        ({"white_level": -1}, "white_level is -1, must be a number above 0"),
        ({"white_level": True}, "white_level is True, must be a number above 0"),
        ({"white_level": float("nan")}, "white_level is nan, must be a number above 0"),
        ({"white_level": "4095"}, "white_level is '4095', must be a number above 0"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_an_architecture_that_says_what_cannot_be(folder: Path, changes: dict[str, Any], reason: str) -> None:
    edit(folder, **changes)
    assert reason in refusal(folder)


def test_a_bundle_of_an_older_version_knows_no_white_level(folder: Path) -> None:
    edit(folder, white_level=4095)
    write_sums(folder)
    assert open_bundle(folder, get_space).white_level == 4095
    value = json.loads((folder / ARCHITECTURE).read_text())
    del value["white_level"]
    (folder / ARCHITECTURE).write_text(json.dumps(value))
    write_sums(folder)
    assert open_bundle(folder, get_space).white_level is None


@pytest.mark.parametrize("name", ["format", "space", "spec", "recipe", "task", "digest", "classes", "facts"])
def test_an_architecture_that_lacks_a_field(folder: Path, name: str) -> None:
    value = json.loads((folder / ARCHITECTURE).read_text())
    del value[name]
    (folder / ARCHITECTURE).write_text(json.dumps(value))
    assert f"{name} is None" in refusal(folder)


def test_a_network_too_large_to_build(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nas.bundles.bundle.MAX_PARAMS", 100)
    monkeypatch.setattr(type(SPACE), "build", lambda *args: pytest.fail("was built"))
    assert "parameters, a bundle at most 100" in refusal(folder)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.pop("stem.bias"), "tensor 'stem.bias' is missing"),
        (lambda t: t.update(spy=torch.zeros(1)), "tensor 'spy' is ('F32', [1]), the architecture has none"),
        (lambda t: t.update({"stem.bias": torch.zeros(5)}), "tensor 'stem.bias' is ('F32', [5])"),
        (lambda t: t.update({"stem.bias": torch.zeros(2, 2)}), "tensor 'stem.bias' is ('F32', [2, 2])"),
        (lambda t: t.update({"stem.bias": torch.zeros(4).double()}), "tensor 'stem.bias' is ('F64', [4])"),
        (lambda t: t["stem.bias"].fill_(float("nan")), "tensor 'stem.bias' holds values that are not finite"),
        (lambda t: t["stem.bias"].fill_(float("inf")), "tensor 'stem.bias' holds values that are not finite"),
        (lambda t: t.update(spy=torch.zeros(2**19)), "bytes, must have"),
        (lambda t: t.clear(), "bytes, must have"),
    ],
    ids=["missing", "extra", "longer", "shape", "dtype", "nan", "inf", "oversized", "empty"],
)
def test_weights_of_another_network(folder: Path, change: Callable[[dict[str, Tensor]], object], reason: str) -> None:
    edit_weights(folder, change)
    assert reason in refusal(folder)


@pytest.mark.parametrize("keep", [0, 7, 8, 100, 2000, -1])
def test_cut_off_weights(folder: Path, keep: int) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:keep])
    assert "weights.safetensors: " in refusal(folder)


@pytest.mark.parametrize(
    "header", [b"not json", b"[]", b'{"a": {}}', b'{"stem.bias": {"dtype": "F32", "shape": [-1]}}']
)
@pytest.mark.parametrize("length", [None, 0, 2**63])
def test_weights_with_a_damaged_header(folder: Path, header: bytes, length: int | None) -> None:
    size = (folder / WEIGHTS).stat().st_size
    content = struct.pack("<Q", len(header) if length is None else length) + header
    (folder / WEIGHTS).write_bytes(content.ljust(size, b"\0"))
    assert "not readable as safetensors" in refusal(folder)


def test_a_pickle_in_place_of_weights(folder: Path) -> None:
    size = (folder / WEIGHTS).stat().st_size
    torch.save(load((folder / WEIGHTS).read_bytes()), folder / WEIGHTS)
    with (folder / WEIGHTS).open("r+b") as file:
        file.truncate(size)
    assert "not readable as safetensors" in refusal(folder)


def test_a_folder_that_may_not_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(*args: Any) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", forbid)
    assert "cannot be read" in refusal(folder)


LITTLE = """
import resource, sys
from pathlib import Path
import torch
from nas.bundles.onnx_model import open_onnx

run = open_onnx(Path(sys.argv[1]), trusted=True)
images = torch.zeros(1, 1, 4000, 4000)
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**27,) * 2)
try:
    run(images)
except MemoryError:
    print("no memory")
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux tells how much memory a process has")
def test_a_program_without_memory_is_no_broken_one(folder: Path) -> None:
    words = [sys.executable, "-c", LITTLE, str(folder / ONNX)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.stdout == "no memory\n", done.stderr
