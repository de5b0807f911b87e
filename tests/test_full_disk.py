"""A training on a disk that is full: one line that says how to go on, and the same command goes on."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_samples import Said

from nas.training import checkpoint

Run = Callable[..., Said]
TRAIN = ["train", "unet", "--subset", "60", "--epochs", "2", "--precision", "fp32", "--to", "out"]


def full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_training_without_room_is_one_line_and_goes_on(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "write_whole", full)
        said = run(*TRAIN)
    assert said.code == 2
    assert said.err.splitlines()[-1] == (
        "error: no room for the training in out (No space left on device); free some and give the same command again, "
        "which goes on from the last checkpoint"
    )
    assert "Traceback" not in said.err
    assert run(*TRAIN).code == 0


@pytest.mark.slow
def test_events_that_cannot_be_written_do_not_end_a_training(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from tensorboardX.record_writer import RecordWriter

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(RecordWriter, "flush", full)
    said = run(*TRAIN)
    assert said.code == 0, said.err
    assert caplog.messages.count("no more events are written to out/logs (No space left on device)") == 1


def test_tensors_without_room_are_an_error_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch and safetensors raise errors of their own, which say nothing about the disk."""
    import torch

    monkeypatch.setattr(Path, "write_bytes", full)
    for write in (
        lambda: checkpoint.write_tensors({"a": torch.zeros(3)}, tmp_path / "state"),
        lambda: checkpoint.save_weights(torch.nn.Linear(2, 2), tmp_path, 0, "digest"),
    ):
        with pytest.raises(OSError, match="No space left"):
            write()
    assert list(tmp_path.iterdir()) == []
