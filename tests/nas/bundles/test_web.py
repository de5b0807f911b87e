"""The page for browsers as a file: what it holds, what it may do, and for whom there is none."""

from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path

import onnx
import pytest
from bundle_samples import SPACE, TASK, candidate, network_of, write_bundle

from nas.bundles.description import description, metadata
from nas.bundles.formats import ONNX, WEB, Exportable, Further
from nas.bundles.web import SCRIPT, WASM, installed_runtime, write_page
from nas.data.preparation import Preparation
from nas.errors import BundleError, ConfigError
from nas.types import Task

HOSTILE = "</script><img src=x onerror=alert(1)>{program}"


@pytest.fixture
def runtime(tmp_path: Path) -> Path:
    """A folder with the files of a runtime."""
    folder = tmp_path / "onnxruntime-web"
    (folder / "dist").mkdir(parents=True)
    (folder / "dist" / SCRIPT).write_text("export default 1;")
    (folder / "dist" / WASM).write_bytes(b"\0asm")
    (folder / "package.json").write_text('{"version": "9.8.7"}')
    return folder


def page_of(
    tmp_path: Path, runtime: Path, task: Task = TASK, *, data: str = "digits", names: str = "0123456789"
) -> str:
    one = candidate()
    network = network_of(one, task).eval()
    form = Preparation(height=task.height, width=task.width, channels=task.channels) if task.classes else None
    said = description(
        space=SPACE,
        candidate=one,
        task=task,
        classes=[HOSTILE, *names[1 : task.classes]] if task.classes else [],
        network=network,
        facts={"data": data, "licence": HOSTILE, "values": {"psnr": 20.125}, "split": "test"},
        versions={},
        white_level=None,
        preparation=form,
    )
    program = tmp_path / ONNX
    program.write_bytes(b"the program")
    write_page(Exportable(network, None, task, metadata(said)), program, runtime, tmp_path / WEB)  # type: ignore[arg-type]
    return (tmp_path / WEB).read_text("utf-8")


def held(page: str, name: str) -> str:
    found = re.search(rf'<script type="[^"]*" id="{name}">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return found[1]


def test_a_page_holds_the_program_and_the_runtime(tmp_path: Path, runtime: Path) -> None:
    page = page_of(tmp_path, runtime)
    for name, content in (("model", b"the program"), ("runtime", b"export default 1;"), ("wasm", b"\0asm")):
        assert gzip.decompress(base64.b64decode(held(page, name))) == content
    assert "ONNX Runtime Web 9.8.7, Copyright (c) Microsoft" in page
    assert "on the test split</dt><dd>PSNR 20.12 dB</dd>" in page


def test_a_page_may_ask_nothing_of_any_other_place(tmp_path: Path, runtime: Path) -> None:
    page = page_of(tmp_path, runtime)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert policy[1].startswith("default-src 'none';")
    assert not re.search(r"connect-src|https?:|\*", policy[1])
    assert not re.search(r'(?:src|href)="(?!data:,)', page)


def test_names_that_others_chose_are_no_part_of_the_page(tmp_path: Path, runtime: Path) -> None:
    page = page_of(tmp_path, runtime)
    assert HOSTILE not in page
    assert "&lt;/script&gt;&lt;img src=x" in page
    assert json.loads(held(page, "network"))["classes"][0] == HOSTILE


def test_a_network_has_what_the_page_computes_with(tmp_path: Path, runtime: Path) -> None:
    network = json.loads(held(page_of(tmp_path, runtime), "network"))
    form = {"orientation": "as seen", "crop": "centre", "averaged": "by area", "height": 8, "width": 8, "channels": 1}
    assert network["preparation"] == {**form, "side": 64, "kept_side": 128}
    assert network["threshold"] is None
    assert network["tiling"] == {"side": 512, "whole": 512**2, "overlap": 32, "blend": False}
    colour = Task(channels=3, classes=0, height=16, width=16, noise="gaussian:50")
    network = json.loads(held(page_of(tmp_path, runtime, colour), "network"))
    assert (network["channels"], network["classes"], network["preparation"]) == (3, [], None)
    assert network["tiling"]["side"] <= 512


@pytest.mark.parametrize(
    ("task", "white_level", "message"),
    [
        (Task(channels=4, classes=0, height=8, width=8, noise="gaussian:50"), None, "no images of 4 channels"),
        (TASK, 200.0, "white is 200 in the training images, and 255 in a browser"),
    ],
)
def test_a_network_of_other_images_than_browsers_have_is_refused(
    runtime: Path, task: Task, white_level: float | None, message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        Further(web=True, web_runtime=runtime).formats(task, white_level, deep=False)
    assert set(Further(web=True, web_runtime=runtime).formats(TASK, 4095.0, deep=True)) == {"web"}


def test_a_runtime_that_is_missing_is_told_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        BundleError,
        match=r"node_modules/onnxruntime-web is not the folder of an installed onnxruntime-web, nor .* `npm install ",
    ):
        Further(web=True).formats(TASK, None, deep=False)


def test_the_folder_around_a_runtime_will_do(tmp_path: Path, runtime: Path) -> None:
    (tmp_path / "around").mkdir()
    inside = runtime.rename(tmp_path / "around/onnxruntime-web")
    assert installed_runtime(tmp_path / "around") == installed_runtime(inside) == inside


def test_a_runtime_without_a_page_is_refused() -> None:
    with pytest.raises(ConfigError, match="`web_runtime` somewhere is for a page; give `web` too"):
        Further(web_runtime=Path("somewhere"))


def test_a_bundle_may_have_a_page(tmp_path: Path, runtime: Path) -> None:
    folder = tmp_path / "bundle"
    parity = write_bundle(folder, candidate(), network_of(candidate()), further=Further(web=True, web_runtime=runtime))
    assert set(parity["differences"]) == {"onnx", "torch_export"}
    card = (folder / "README.md").read_text()
    assert f"- `{WEB}`: a page that restores images in a browser" in card
    assert f"open {WEB}, from a disk or from any web server.\n\n## Licence" in card
    assert WEB in (folder / "SHA256SUMS").read_text()
    model = gzip.decompress(base64.b64decode(held((folder / WEB).read_text("utf-8"), "model")))
    assert onnx.load_model_from_string(model) == onnx.load(folder / ONNX)
