"""Runtimes that people have: each runs the exported programs, with the values of PyTorch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import get_args

import pytest

from benchmarks import clients
from benchmarks.lib import clients as lib
from benchmarks.lib.clients import CLIENTS, Job, NotInstalledError, Takes, differences
from nas.bundles.formats import LOWEST_RUNTIME
from search_spaces.unet.blocks import BLOCKS, NORMS, POOLS
from search_spaces.unet.fusion import FUSIONS, GATES
from search_spaces.unet.sharing import SHARINGS

KINDS = ("add, scalar gate", "dense, attention gate", "selective kernel, group norm", "Haar encoder, extra blocks")
NO_CLASSES = "no classes"


def test_the_kinds_have_every_part_of_a_network() -> None:
    specs = [clients.SPACE.spec({**clients.BASE, **kind.changes}).to_dict() for kind in clients.KINDS.values()]
    tables = {
        "fusion": FUSIONS,
        "gate": GATES,
        "block": BLOCKS,
        "norm": NORMS,
        "resampling": POOLS,
        "sharing": {**SHARINGS},
    }
    for name, table in tables.items():
        assert {spec.get(name, "none") for spec in specs} >= set(table), name


def test_the_lowest_runtime_is_among_the_clients() -> None:
    assert f"ONNX Runtime {LOWEST_RUNTIME}" in {client.title for client in CLIENTS.values()}


def test_a_refusal_and_a_large_difference_are_told_and_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import numpy as np

    job = Job(tmp_path, np.zeros((1, 1, 2, 2), np.float32), ())
    found = {
        "openvino": [1e-6, 2e-6],
        "opencv-4.10": [1e-6, "unknown operator"],
        "ncnn": [1e-4, 0.0],
        "node": NotInstalledError("npm is not installed"),
    }

    def measured(name: str, jobs: object, folder: Path, work: Path) -> list[float | str]:
        values = found[name]
        if isinstance(values, Exception):
            raise values
        return values  # type: ignore[return-value]

    monkeypatch.setattr(clients, "exported", lambda kind, folder: {takes: [job, job] for takes in get_args(Takes)})
    monkeypatch.setattr(clients, "differences", measured)
    assert clients.main(["--clients", "openvino", "node", "--kinds", "concat"]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[2] == "| concat | 2e-06 |"
    assert "node is left out: npm is not installed" in said.err
    assert clients.main(["--clients", "openvino", "opencv-4.10", "ncnn", "--kinds", "concat"]) == 1
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| concat | 2e-06 | refused | 1e-04 |",
        "concat, OpenCV 4.10: unknown operator",
        "concat, ncnn 20261020: differs by 1.0e-04",
    ]


def test_a_client_that_does_not_end_is_told_of_in_each_of_its_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    endless = tmp_path / "endless.py"
    endless.write_text("while True: pass")
    monkeypatch.setattr(lib, "installed", lambda name, folder: Path(sys.executable))
    monkeypatch.setattr(lib, "PROGRAMS", {"python": endless})
    monkeypatch.setattr(lib, "PROGRAM_SECONDS", 0.1)
    job = Job(tmp_path, np.zeros((1, 1, 2, 2), np.float32), ())
    assert differences("litert", [job, job], tmp_path, tmp_path) == ["all programs together took more than 0.2 s"] * 2
    monkeypatch.setattr(lib, "INSTALL_SECONDS", 0.1)
    with pytest.raises(NotInstalledError, match=r"took more than 0\.1 s"):
        lib._step([sys.executable, str(endless)])


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> dict[Takes, list[Job]]:
    """The programs of a few kinds of networks, by what clients take."""
    folder = tmp_path_factory.mktemp("exported")
    made = [clients.exported(kind, folder / str(place)) for place, kind in enumerate((*KINDS, NO_CLASSES))]
    return {takes: [job for each in made for job in each[takes]] for takes in get_args(Takes)}


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_computes_what_pytorch_does(
    name: str,
    jobs: dict[Takes, list[Job]],
    tmp_path: Path,
    installs: Callable[[], AbstractContextManager[Path]],
) -> None:
    with installs() as folder:
        try:
            found = differences(name, jobs[CLIENTS[name].takes], folder, tmp_path)
        except NotInstalledError as error:
            pytest.skip(f"it cannot be installed here: {error}")
    assert [each for each in found if isinstance(each, str)] == []
    assert max(each for each in found if isinstance(each, float)) <= clients.MOST
