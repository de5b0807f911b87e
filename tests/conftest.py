"""One real study, searched once through the command line, for every test that needs one."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

# The matrices of tests are too small for more threads, which would only wait for each other. Read with NumPy's import.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import hypothesis
import pytest
import torch
from command_samples import ROOT, SEARCH, Said, Studied
from optuna.storages import RDBStorage

import app_cli

# Ray's workers are no nicer than the tests, which would starve them at the niceness of 15 that Ray gives them.
os.environ.setdefault("RAY_worker_niceness", "0")

# Tests import ONNX Runtime beside `nas.bundles`, and some before it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# One commit has the same tests in every run: examples are drawn alike. On a loaded machine one may take any time.
hypothesis.settings.register_profile(
    "skipnas", derandomize=True, deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("skipnas")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins with the slow tests that may take longest, so that none of them is left for last. Skips those that need a
    server where there is none."""

    def limit(item: pytest.Item) -> float:
        own = item.get_closest_marker("timeout")
        return float(own.args[0]) if own is not None and item.get_closest_marker("slow") is not None else 0.0

    items.sort(key=limit, reverse=True)
    if not os.environ.get("SKIPNAS_TEST_POSTGRES"):
        for item in items:
            if item.get_closest_marker("postgres") is not None:
                item.add_marker(pytest.mark.skip(reason="SKIPNAS_TEST_POSTGRES names no server"))


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """The networks here are too small for more, which would only wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _one_look_at_migrations() -> Iterator[None]:
    """Optuna compiles its migrations, which takes 30 ms, whenever it is asked for its newest schema."""
    asked = RDBStorage.get_head_version
    answer: list[str] = []

    @functools.wraps(asked)
    def get_head_version(self: RDBStorage) -> str:
        if not answer:
            answer.append(asked(self))
        return answer[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RDBStorage, "get_head_version", get_head_version)
        yield


@pytest.fixture(scope="session")
def installs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], contextlib.AbstractContextManager[Path]]:
    """Makes folders for what a test installs, which are gone at the end of their block. Pytest keeps temporary folders,
    and packages have hundreds of megabytes."""

    @contextlib.contextmanager
    def folder() -> Iterator[Path]:
        place = tmp_path_factory.mktemp("installed")
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)

    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Said]]:
    """Runs a command in this process, which spares every test the imports."""
    level = logging.root.level

    def call(*arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["skipnas", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as stop:
            app_cli.main()
        captured = capfd.readouterr()
        return Said(int(stop.value.code or 0), captured.out, captured.err)

    yield call
    logging.root.setLevel(level)  # a command sets it


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Makes a folder that the tests of all processes share: the first of them that wants it makes it."""

    def made(name: str, make: Callable[[Path], object]) -> Path:
        base = tmp_path_factory.getbasetemp()
        if "PYTEST_XDIST_WORKER" in os.environ:
            base = base.parent  # which all of them share
        folder, whole = base / name, base / f"{name}.whole"
        with (base / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not whole.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a making that failed
                folder.mkdir()
                make(folder)
                whole.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def _searched(made_once: Callable[[str, Callable[[Path], object]], Path]) -> Studied:
    """The study of `SEARCH`."""

    def search(folder: Path) -> None:
        command = [sys.executable, str(ROOT / "app_cli.py"), *SEARCH]
        (folder / "work").mkdir()
        done = subprocess.run(command, cwd=folder / "work", capture_output=True, text=True, timeout=240)
        (folder / "said.json").write_text(json.dumps([done.returncode, done.stdout, done.stderr]))

    folder = made_once("searched", search)
    return Studied(folder / "work", "small", Said(*json.loads((folder / "said.json").read_text())))


@pytest.fixture
def studied(_searched: Studied, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Studied]:
    """A copy of the study of `SEARCH`, in the current folder."""
    folder = tmp_path / "work"
    shutil.copytree(_searched.folder, folder)
    monkeypatch.chdir(folder)
    yield Studied(folder, _searched.study, _searched.said)
    with contextlib.suppress(FileNotFoundError):
        os.chdir(ROOT)
