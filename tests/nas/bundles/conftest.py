"""The bundle of `candidate()`, exported once for all tests that only read it, and its programs for further exports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from bundle_samples import candidate, network_of, write_bundle
from torch import nn
from torch.export import ExportedProgram

from nas.bundles import export, onnx_export
from nas.bundles.formats import FORMATS, ONNX
from nas.types import Task


@pytest.fixture(scope="session")
def standard(made_once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """The bundle of `candidate()`, which no test changes."""

    def make(folder: Path) -> None:
        write_bundle(folder / "new" / "bundle", candidate(), network_of(candidate()))

    return made_once("exported", make) / "new" / "bundle"


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return network_of(candidate())


@pytest.fixture(scope="session")
def _program(standard: Path) -> ExportedProgram:
    return torch.export.load(standard / FORMATS["torch_export"].file)


@pytest.fixture
def quick(standard: Path, _program: ExportedProgram, monkeypatch: pytest.MonkeyPatch) -> None:
    """The programs of the exported bundle in place of seconds in torch's exporters, for tests about what is made of
    them and about files."""
    convert = onnx_export.converted

    def converted(program: ExportedProgram, task: Task) -> onnx.ModelProto:
        return onnx.load(standard / ONNX) if program is _program else convert(program, task)

    monkeypatch.setattr(export, "_program", lambda bundle: _program)
    monkeypatch.setattr(onnx_export, "converted", converted)
