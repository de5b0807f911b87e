"""Models of bioimage.io: the description, its test tensors, and the test that their own validator makes of them."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from bundle_samples import CLASSES, FACTS, TASK, candidate, network_of, write_bundle

from nas.bundles.formats import BIOIMAGE, ONNX, Further
from nas.errors import BundleError
from nas.types import Task
from studies.bundles import open_bundle

BIOIMAGEIO = ("bioimageio.core==0.11.0", "pydantic<2.14", "onnxruntime")
"""Their validator, with the last Pydantic that it runs with."""

COLOUR = Task(channels=3, classes=0, height=16, width=16, noise="gaussian:25")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("bioimage") / "bundle"
    write_bundle(
        target,
        candidate(),
        network_of(candidate()),
        facts=FACTS | {"licence": "CC0-1.0"},
        white_level=4095.0,
        further=Further(bioimage=True),
    )
    return target


def test_the_description_names_the_files_of_the_bundle_and_their_sums(folder: Path) -> None:
    value = json.loads((folder / BIOIMAGE).read_text())
    named = [value["weights"]["onnx"], *(each["test_tensor"] for each in (*value["inputs"], *value["outputs"]))]
    assert [each["source"] for each in named] == [ONNX, "test_noisy.npy", "test_denoised.npy", "test_logits.npy"]
    for each in named:
        assert hashlib.sha256((folder / each["source"]).read_bytes()).hexdigest() == each["sha256"]
    assert value["weights"]["onnx"]["opset_version"] == 20
    assert value["license"] == "CC0-1.0"
    assert value["config"]["skipnas"]["classes"] == json.dumps(CLASSES)
    assert f"- `{BIOIMAGE}`: the description" in (folder / "README.md").read_text()


def test_pixels_are_those_of_files_and_the_tensors_are_what_the_program_computes(folder: Path) -> None:
    noisy, denoised, logits = (np.load(folder / f"test_{name}.npy") for name in ("noisy", "denoised", "logits"))
    assert noisy.dtype == denoised.dtype == np.float32
    assert (noisy == noisy.round()).all()
    assert 0 <= noisy.min() < noisy.max() <= 4095
    value = json.loads((folder / BIOIMAGE).read_text())
    assert value["inputs"][0]["preprocessing"] == [{"id": "scale_linear", "kwargs": {"gain": 1 / 4095, "offset": 0.0}}]
    session = onnxruntime.InferenceSession(folder / ONNX, providers=["CPUExecutionProvider"])
    found = session.run(None, {"noisy": noisy / np.float32(4095)})
    np.testing.assert_allclose(denoised, 4095 * found[0].clip(0, 1), atol=0.1)
    np.testing.assert_allclose(logits, found[1], atol=1e-4)


def test_a_tensor_that_was_changed_is_told(folder: Path) -> None:
    content = (folder / "test_noisy.npy").read_bytes()
    (folder / "test_noisy.npy").write_bytes(content[:-1] + b"\0")
    try:
        with pytest.raises(BundleError, match=r"test_noisy\.npy: is not the file that was exported"):
            open_bundle(folder)
    finally:
        (folder / "test_noisy.npy").write_bytes(content)


@pytest.fixture(scope="module")
def validator(installs: Callable[[], AbstractContextManager[Path]]) -> Iterator[Path]:
    with installs() as place:
        pip = [str(place / "bin/python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        for command in ([sys.executable, "-m", "venv", str(place)], [*pip, *BIOIMAGEIO]):
            ended = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
            if ended.returncode != 0:
                pytest.skip(f"it cannot be installed here: {' '.join(ended.stderr.split())[-200:]}")
        yield place / "bin/bioimageio"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("task", "gate"), [(TASK, "scalar"), (COLOUR, "squeeze_excitation")], ids=["classes", "colour"]
)
def test_their_validator_passes_the_model_without_a_network(
    task: Task, gate: str, tmp_path: Path, validator: Path
) -> None:
    import torch

    one = candidate(gate=gate)
    images = torch.rand(2, task.channels, task.height, task.width)
    write_bundle(tmp_path / "bundle", one, network_of(one, task), task, images=images, further=Further(bioimage=True))
    # Whatever it looks up would fail at once.
    nowhere = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
    ended = subprocess.run(
        [str(validator), "test", BIOIMAGE, "--summary", str(tmp_path / "summary.json")],
        cwd=tmp_path / "bundle",
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", **nowhere},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["status"] == "passed"
    told = [detail["name"] for detail in summary["details"] if detail["status"] == "passed"]
    assert any("Reproduce test outputs from test inputs (onnx)" in name for name in told), told
