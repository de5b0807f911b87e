"""The page of a bundle in a browser: it restores and names images as `denoise` does, and asks for nothing."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from bundle_samples import SPACE, candidate, network_of
from skimage import data as photographs
from visit import Visit

from benchmarks.lib.clients import NotInstalledError, installed
from nas.bundles import inference
from nas.bundles.bundle import open_bundle
from nas.bundles.export import export_bundle
from nas.bundles.formats import WEB, Further
from nas.data.image_file import ImageFile, Page
from nas.data.images import shown_images
from nas.data.preparation import Preparation
from nas.types import Task
from search_spaces import get_space
from studies.commands.denoise import denoise

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

HOSTILE = "<img src=x onerror=alert(1)>"
GRAY = Task(channels=1, classes=3, height=12, width=12, noise="gaussian:25")
COLOUR = Task(channels=3, classes=0, height=12, width=12, noise="gaussian:25")
TWO = Task(channels=3, classes=2, height=24, width=16, noise="gaussian:25")
WHOLE = {"gate": "squeeze_excitation"}
"""A network that looks at the whole image, whose tiles are blended."""


@pytest.fixture(scope="module")
def runtime(installs: Callable[[], AbstractContextManager[Path]]) -> Iterator[Path]:
    with installs() as folder:
        try:
            installed("web", folder)
        except NotInstalledError as error:
            pytest.skip(f"onnxruntime-web cannot be installed here: {error}")
        yield folder / "web/node_modules/onnxruntime-web"


def write(folder: Path, runtime: Path, task: Task, *, threshold: float | None = None, **changes: Any) -> Path:
    """Writes the bundle of a network that shrinks noise a little and says much of classes."""
    torch.manual_seed(0)
    one = candidate(prediction="noise", **changes)
    network = network_of(one, task)
    images = torch.rand(16, task.channels, task.height, task.width)
    with torch.no_grad():
        for _ in range(10):
            network.train()(images)
        for name, weights in network.named_parameters():
            if name.startswith("head"):
                weights.mul_(3)
    export_bundle(
        folder,
        space=SPACE,
        candidate=one,
        task=task,
        classes=["one", HOSTILE, "three"][: task.classes],
        network=network,
        images=images[:2],
        facts={"data": "folder:photographs", "values": {}, "split": "test"},
        further=Further(web=True, web_runtime=runtime),
        threshold=threshold,
    )
    return folder


def noisy(image: Any, height: int, width: int) -> Any:
    values = image[:height, :width].astype(float)
    return np.clip(values + np.random.default_rng(0).normal(0, 25, values.shape), 0, 255).astype(np.uint8)


def saved(folder: Path, **images: Any) -> list[Path]:
    folder.mkdir()
    for name, values in images.items():
        PIL.Image.fromarray(values).save(folder / f"{name}.png")
    return sorted(folder.iterdir())


def restored(visit: Visit, files: Sequence[Path], to: Path) -> list[tuple[Any, str, str]]:
    """Drops images on a page. Returns the pixels of each restored image, its class and its note."""
    to.mkdir()
    before = visit.page.locator("article").count()
    found = []
    for number, file in enumerate(files):
        visit.page.set_input_files("input[type=file]", file)
        visit.page.locator("article:not(.working)").nth(before + number).wait_for(timeout=120_000)
        article = visit.page.locator("article").first
        with visit.page.expect_download() as download:
            article.locator(".save").click()
        assert download.value.suggested_filename == f"{file.stem}-restored.png"
        download.value.save_as(to / file.name)
        pixels = np.asarray(PIL.Image.open(to / file.name).convert("RGB"))
        found.append((pixels, article.locator(".named").inner_text(), article.locator(".note").inner_text()))
    return found


def wanted(bundle: Path, file: Path, tile: int | None = None) -> Any:
    """Returns the values (H, W, 3) of a restored image on the scale to 255, not rounded; see `denoise`."""
    opened = open_bundle(bundle, get_space)
    pixels = np.asarray(PIL.Image.open(file))
    planes = torch.from_numpy(np.atleast_3d(pixels).transpose(2, 0, 1).astype(np.float32) / np.float32(255))
    images = planes[:, None] if opened.task.channels == 1 else planes.expand(3, -1, -1)[None]
    tiling = inference.Tiling.of(opened.network, opened.task.channels, side=tile)
    values = inference.restore(opened.network, images, tiling).image.flatten(0, 1).numpy()
    if len(planes) == 1:
        values = values.mean(0, keepdims=True)
    return 255 * np.clip(np.broadcast_to(values, (3, *values.shape[1:])).transpose(1, 2, 0), 0, 1)


def told(bundle: Path, files: Sequence[Path], to: Path) -> list[str]:
    finished, refused = denoise(bundle, files, to)
    assert refused == []
    return ["" if each.label is None else f"{each.label} ({100 * (each.probability or 0):.0f} %)" for each in finished]


@pytest.mark.parametrize(
    ("task", "changes", "threshold"),
    [(GRAY, {}, None), (COLOUR, {"norm": "none"}, None), (TWO, {}, 0.9), (GRAY, WHOLE, None)],
    ids=["gray", "colour", "two classes", "whole image"],
)
def test_an_image_is_restored_and_named_as_denoise_does_it(
    task: Task, changes: dict[str, Any], threshold: float | None, tmp_path: Path, runtime: Path, browser: Any
) -> None:
    bundle = write(tmp_path / "bundle", runtime, task, threshold=threshold, **changes)
    cat, camera = photographs.chelsea(), photographs.camera()
    files = saved(
        tmp_path / "noisy",
        colour=noisy(cat, 201, 299),
        gray=noisy(camera, 256, 256),
        large=noisy(camera, 512, 512),
        small=noisy(cat, 9, 21),
    )
    visit = Visit(browser, (bundle / WEB).as_uri())
    found = restored(visit, files, tmp_path / "page")
    for file, (pixels, _, note) in zip(files, found, strict=True):
        values = wanted(bundle, file)
        assert np.abs(pixels - values).max() <= 0.51, file.name
        height, width = values.shape[:2]
        assert note.startswith(f"{width}x{height} pixels, ")
    assert [name for _, name, _ in found] == told(bundle, files, tmp_path / "denoise")
    assert visit.wrong == []


@pytest.mark.parametrize("changes", [{}, WHOLE], ids=["with a reach", "blended"])
def test_a_large_image_is_restored_in_tiles_as_denoise_does_it(
    changes: dict[str, Any], tmp_path: Path, runtime: Path, browser: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for budget in ("WHOLE_MEMORY", "TILE_MEMORY"):
        monkeypatch.setattr(inference, budget, 2**24)
    bundle = write(tmp_path / "bundle", runtime, GRAY, **changes)
    files = saved(tmp_path / "noisy", cat=noisy(photographs.chelsea(), 300, 451))
    visit = Visit(browser, (bundle / WEB).as_uri())
    ((pixels, name, note),) = restored(visit, files, tmp_path / "page")
    assert np.abs(pixels - wanted(bundle, files[0])).max() <= 0.51
    assert int(note.split(", ")[1].removesuffix(" tiles")) > 3
    assert [name] == told(bundle, files, tmp_path / "denoise")


@pytest.fixture(scope="module")
def gray(tmp_path_factory: pytest.TempPathFactory, runtime: Path) -> Path:
    return write(tmp_path_factory.mktemp("gray") / "bundle", runtime, GRAY)


def test_images_are_made_ready_for_their_class_as_pillow_does_it(gray: Path, browser: Any) -> None:
    page = Visit(browser, (gray / WEB).as_uri()).page
    generator = np.random.default_rng(0)
    sides = [(12, 12), (11, 30), (40, 25), (130, 129), (64, 200), (333, 77), (5, 7)]
    forms = [(12, 12, 1), (12, 12, 3), (70, 70, 1), (10, 17, 3), (100, 100, 3)]
    for height, width in sides:
        pixels = generator.integers(0, 256, (height, width, 4), np.uint8)
        pixels[..., 3] = 255
        file = ImageFile(path=Path("one.png"), format="PNG", pages=(Page(pixels=pixels[..., :3]),), full=255)
        for high, wide, channels in forms:
            form = Preparation(height=high, width=wide, channels=channels)
            made = np.atleast_3d(np.asarray(form.apply(shown_images(file, 255)[0]))).transpose(2, 0, 1)
            found = page.evaluate(
                """([form, pixels, width, height]) => {
                    network.preparation = form;
                    const { values, shape } = prepared({ pixels, width, height, gray: false });
                    return [Array.from(values, (value) => Math.round(255 * value)), shape];
                }""",
                [{**form.to_dict(), "side": 64, "kept_side": 128}, pixels.flatten().tolist(), width, height],
            )
            assert found[1] == [1, channels, high, wide]
            difference = np.abs(np.reshape(found[0], made.shape) - made.astype(int)).max()
            # Pillow 13 goes along columns first where this is less work, and rounds in between.
            assert difference <= 1, f"{(height, width)} to {form}"


def test_what_a_browser_would_change_without_a_word_is_refused(gray: Path, tmp_path: Path, browser: Any) -> None:
    shallow = np.full((16, 16), 99, np.uint8)
    PIL.Image.fromarray(shallow.astype(np.uint16) * 200).save(tmp_path / "deep.png")
    clear = np.dstack((shallow, np.arange(256, dtype=np.uint8).reshape(16, 16)))
    PIL.Image.fromarray(clear, "LA").save(tmp_path / "clear.png")
    PIL.Image.fromarray(shallow).save(tmp_path / "one.tif")
    PIL.Image.fromarray(np.dstack((shallow,) * 4), "CMYK").save(tmp_path / "print.jpg")
    several = [PIL.Image.fromarray(shallow + number) for number in (0, 100)]
    several[0].save(tmp_path / "several.png", save_all=True, append_images=several[1:])
    several[0].save(tmp_path / "several.webp", save_all=True, append_images=several[1:])
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff" + b"\0" * 40)
    visit = Visit(browser, (gray / WEB).as_uri())
    reasons = {
        "deep.png": "has 16 bits a channel, of which a browser keeps 8",
        "clear.png": "has transparent pixels",
        "one.tif": "is no PNG, JPEG or WebP image",
        "print.jpg": "has the mode CMYK",
        "several.png": "holds several images that follow each other",
        "several.webp": "holds several images that follow each other",
        "broken.jpg": "cannot be read as an image",
    }
    for number, (name, reason) in enumerate(reasons.items()):
        visit.page.set_input_files("input[type=file]", tmp_path / name)
        visit.page.locator("article:not(.working)").nth(number).wait_for(timeout=60_000)
        assert visit.page.locator(".wrong").first.inner_text().startswith(f"{name} {reason}")
    assert visit.wrong == []


@pytest.fixture
def address(gray: Path) -> Iterator[str]:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=gray)) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/{WEB}"
        server.shutdown()


def test_a_static_server_is_as_good_as_a_disk(address: str, tmp_path: Path, browser: Any) -> None:
    visit = Visit(browser, address)
    files = saved(tmp_path / "noisy", one=noisy(photographs.camera(), 64, 80))
    ((pixels, name, _),) = restored(visit, files, tmp_path / "page")
    assert pixels.shape == (64, 80, 3)
    assert "%" in name
    assert visit.wrong == []
