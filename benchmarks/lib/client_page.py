"""Runs ONNX programs in the page that bundles have for browsers, in a headless Chromium, as client_program.py does.

Images are given to the page's own worker, so that values from 0 to 1 of any kind can be compared.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from playwright.sync_api import Page, sync_playwright

from nas.bundles.inference import Tiling
from nas.bundles.web import page_text

FLAGS = ["--no-sandbox", "--disable-gpu"]
RUN = """async ([values, shape]) => {
    const { denoised, logits } = await ask({ values: Float32Array.from(values), shape });
    return [Array.from(denoised), Array.from(logits)];
}"""


def open_page(page: Page, program: Path, runtime: Path, file: Path) -> None:
    """Writes the page of a program to a file, and opens it."""
    model = onnx.load(program)
    said = {each.key: each.value for each in model.metadata_props}
    channels = model.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    whole = Tiling(side=512, whole=2**20, overlap=0, blend=False)
    file.write_text(page_text(said, channels, whole, program, runtime), "utf-8")
    page.goto(file.as_uri())
    page.locator("#state:has-text('ready'), #state.wrong").wait_for(timeout=60_000)


def main() -> None:
    runtime = Path(sys.argv[2], "node_modules", sys.argv[1])
    results: list[str] = []
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page()
        opened = None
        for job in json.load(sys.stdin):
            try:
                if opened != job["program"]:
                    opened = None  # a page that fails to open has taken the place of the one before
                    open_page(page, Path(job["program"]), runtime, Path(folder, "web.html"))
                    opened = job["program"]
                images = np.load(job["images"])
                found = page.evaluate(RUN, [images.flatten().tolist(), images.shape])
                for place, shape in enumerate((images.shape, (len(images), -1))[: job["outputs"]]):
                    np.save(f"{job['to']}{place}.npy", np.array(found[place], np.float32).reshape(shape))
                results.append("")
            except Exception as error:
                results.append(" ".join(str(error).split())[:300] or type(error).__name__)
        browser.close()
    print(json.dumps(results))


if __name__ == "__main__":
    main()
