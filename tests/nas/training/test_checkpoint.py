"""A resumed run is the run that never stopped, bit for bit; files are whole, and safe to read."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import IO, Any, get_args

import pytest
import torch
from safetensors.torch import save_file
from toy_space import ToySpace, ToySpec

from nas.data.splits import load
from nas.errors import StudyError
from nas.training.batches import DeviceData
from nas.training.checkpoint import (
    checkpoint_epoch,
    checkpoint_path,
    drop_all,
    drop_checkpoint,
    load_checkpoint,
    load_weights,
    save_checkpoint,
    save_weights,
    weights_path,
)
from nas.training.evaluation import Evaluation
from nas.training.version import TRAINING_VERSION
from nas.types import Balancing, Optimizer, Recipe, Task
from search_spaces import get_space
from search_spaces.unet.spec import CHOICES

TASK = Task(channels=1, classes=10, height=8, width=8, noise="gaussian:50")
WHO = {"digest": "d", "seed": 1}
UNET = {
    "levels": 2,
    "width": 4,
    "growth": "constant",
    "fusion": "concat",
    "gate": "channel",
    "resampling": "max",
    "block": "conv",
    "norm": "batch",
    "kernel": 3,
    "head_hidden": 1,
    "head_width": 8,
    "head_dropout": 0.25,
}


@pytest.fixture(scope="module")
def data() -> DeviceData:
    return DeviceData.of(load("digits", subset=200), TASK, torch.device("cpu"))


def start(
    data: DeviceData, precision: str = "fp32", spec: Mapping[str, Any] = MappingProxyType({}), **recipe_changes: Any
) -> Evaluation:
    """A network with dropout and batch statistics, so that every kind of state matters."""
    space = get_space("unet")
    spec = space.spec(UNET | dict(spec))
    settings: dict[str, Any] = {
        "epochs": 4,
        "batch_size": 32,
        "learning_rate": 3e-3,
        "weight_decay": 1e-3,
        "classification_weight": 0.3,
    }
    recipe = Recipe(**settings | recipe_changes)
    return Evaluation(
        lambda: space.build(spec, TASK), TASK, recipe, data, space.cost(spec, TASK), seed=1, precision=precision
    )


def finish(run: Evaluation, after_step: Callable[[], None] = lambda: None) -> tuple[list[torch.Tensor], object]:
    while not run.done:
        run.advance(after_step)
    rows = [(row.epoch, row.denoise_loss, row.classify_loss, row.values) for row in run.rows]
    return list(run.training.network.state_dict().values()), (rows, run.training.probe_curve())


@pytest.mark.parametrize(
    ("steps", "precision"), [*((steps, "fp32") for steps in (1, 6, 7, 8, 20)), (1, "bf16"), (8, "bf16")]
)
def test_resuming_changes_no_bit(data: DeviceData, tmp_path: Path, steps: int, precision: str) -> None:
    assert_resumed(lambda: start(data, precision), tmp_path, steps)


@pytest.mark.parametrize(
    ("sharing", "optimizer", "balancing"),
    [
        *((sharing, optimizer, "fixed") for sharing in CHOICES["sharing"] for optimizer in get_args(Optimizer)),
        *(("sluice_2", "adamw", balancing) for balancing in get_args(Balancing)[1:]),
    ],
)
def test_resuming_changes_no_bit_of_columns_and_whatever_trains_them(
    data: DeviceData, tmp_path: Path, sharing: str, optimizer: str, balancing: str
) -> None:
    """In the second of two epochs of four steps momentum, rates and the tasks' weights are under way."""
    spec = {"columns": 2, "sharing": sharing, "head_attach": "decoder"}
    changes = {"epochs": 2, "batch_size": 64, "optimizer": optimizer, "balancing": balancing, "sharing_rate": 10.0}
    run = assert_resumed(lambda: start(data, spec=spec, **changes), tmp_path, 6)
    assert len(run.training.optimizer.param_groups) == 1 + (sharing != "none") + (balancing == "uncertainty")


def assert_resumed(begin: Callable[[], Evaluation], tmp_path: Path, steps: int) -> Evaluation:
    """A run that goes on in another process from a checkpoint, taken after so many steps, ends as the first."""
    run = begin()

    def after_step() -> None:
        if run.training.step == steps:
            save_checkpoint(run.state(), tmp_path, 0, **WHO)

    expected_weights, expected_history = finish(run, after_step)
    torch.manual_seed(12345)  # whatever the process did in between
    resumed = begin()
    state = load_checkpoint(tmp_path, 0, **WHO)
    assert state is not None
    resumed.load_state(state)
    assert resumed.training.step == steps
    weights, history = finish(resumed)
    assert history == expected_history
    assert all(torch.equal(a, b) for a, b in zip(weights, expected_weights, strict=True))
    return resumed


def test_a_checkpoint_of_another_candidate_is_not_taken(data: DeviceData, tmp_path: Path) -> None:
    save_checkpoint(start(data).state(), tmp_path, 0, **WHO)
    assert load_checkpoint(tmp_path, 0, digest="other", seed=1) is None
    assert load_checkpoint(tmp_path, 0, digest="d", seed=2) is None
    assert load_checkpoint(tmp_path, 1, **WHO) is None


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half a zip", pickle.dumps({"digest": print})])
def test_a_damaged_or_hostile_checkpoint_starts_the_trial_again(tmp_path: Path, content: bytes) -> None:
    checkpoint_path(tmp_path, 0).write_bytes(content)
    assert load_checkpoint(tmp_path, 0, **WHO) is None


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_any_damage_starts_the_trial_again(data: DeviceData, tmp_path: Path) -> None:
    save_checkpoint(start(data).state(), tmp_path, 0, **WHO)
    path = checkpoint_path(tmp_path, 0)
    whole, random = path.read_bytes(), Random(0)
    pickled = whole.find(b"\x80\x02")
    refused = 0
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[random.randrange(pickled, pickled + 900)] = random.randrange(256)
        path.write_bytes(damaged)
        refused += load_checkpoint(tmp_path, 0, **WHO) is None
    assert refused > 100, "a changed number is no damage that can be seen"


def test_a_checkpoint_of_a_gpu_is_read_without_one(
    data: DeviceData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the run goes on, with new streams of random numbers, as those of a GPU mean nothing to a CPU."""
    run = start(data)
    run.advance()
    state = run.state()
    state["training"] |= {"cuda_rng": torch.zeros(16, dtype=torch.uint8), "generator": torch.zeros(16).byte()}
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        save_checkpoint(state, tmp_path, 0, **WHO)
    with pytest.raises(RuntimeError, match="deserialize object on a CUDA device"):
        torch.load(checkpoint_path(tmp_path, 0), weights_only=True)
    assert checkpoint_epoch(tmp_path, 0) == 1
    read = load_checkpoint(tmp_path, 0, **WHO)
    assert read is not None
    resumed = start(data)
    resumed.load_state(read)
    weights = zip(
        resumed.training.network.state_dict().values(), run.training.network.state_dict().values(), strict=True
    )
    assert all(torch.equal(*pair) for pair in weights)
    finish(resumed)
    assert len(resumed.rows) == 4


def test_a_checkpoint_of_an_older_version_starts_the_trial_again(
    data: DeviceData, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.save({**WHO, "state": start(data).state()}, checkpoint_path(tmp_path, 0))
    assert load_checkpoint(tmp_path, 0, **WHO) is None
    assert "cannot be read (ValueError); its training starts again" in caplog.text


@pytest.mark.parametrize("written", [1, None], ids=["another version", "no version"])
def test_a_checkpoint_of_another_training_code_starts_the_trial_again(
    data: DeviceData, tmp_path: Path, caplog: pytest.LogCaptureFixture, written: int | None
) -> None:
    save_checkpoint(start(data).state(), tmp_path, 0, **WHO)
    assert checkpoint_epoch(tmp_path, 0) == 0
    content = torch.load(checkpoint_path(tmp_path, 0), weights_only=True)
    assert content.pop("training") == TRAINING_VERSION
    torch.save(content if written is None else content | {"training": written}, checkpoint_path(tmp_path, 0))
    assert load_checkpoint(tmp_path, 0, **WHO) is None
    assert checkpoint_epoch(tmp_path, 0) is None
    told = f"is of version 1 of the training code, and this is version {TRAINING_VERSION}; its training starts again"
    assert told in caplog.text


def test_memory_that_runs_out_says_nothing_about_a_checkpoint(
    data: DeviceData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(start(data).state(), tmp_path, 0, **WHO)
    host, device = RuntimeError("DefaultCPUAllocator: can't allocate memory"), torch.OutOfMemoryError("CUDA")
    for error in (MemoryError(), host, device):

        def scarce(*_: Any, error: Exception = error, **__: Any) -> None:
            raise error

        monkeypatch.setattr(torch, "load", scarce)
        with pytest.raises(type(error)):
            load_checkpoint(tmp_path, 0, **WHO)


def test_a_failed_write_leaves_the_old_file(data: DeviceData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(start(data).state(), tmp_path, 0, **WHO)
    before = checkpoint_path(tmp_path, 0).read_bytes()

    def full(content: object, file: IO[bytes]) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint({}, tmp_path, 0, **WHO)
    assert checkpoint_path(tmp_path, 0).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["trial-0.checkpoint"]


def test_weights_come_back_and_are_dropped(tmp_path: Path) -> None:
    space = ToySpace()
    first, second = (space.build(ToySpec(width=4), TASK) for _ in range(2))
    folder = tmp_path / "study"
    save_weights(first, folder, 3, "mine")
    load_weights(second, folder, 3, "mine")
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    with pytest.raises(StudyError, match="trial 4 has no weights"):
        load_weights(second, folder, 4, "mine")
    (folder / "mine.txt").write_text("kept")
    drop_checkpoint(folder, 3)
    drop_all(folder)
    assert not weights_path(folder, 3).exists()
    assert (folder / "mine.txt").exists()


def test_weights_of_another_candidate_or_damaged_ones_are_refused_in_one_line(tmp_path: Path) -> None:
    space = ToySpace()
    network = space.build(ToySpec(width=4), TASK)
    save_weights(network, tmp_path, 3, "theirs")
    with pytest.raises(StudyError, match=r"are of candidate theirs, and trial 3 is mine.*`study` name of its own"):
        load_weights(network, tmp_path, 3, "mine")
    save_file(network.state_dict(), weights_path(tmp_path, 3))  # as older versions wrote them
    load_weights(network, tmp_path, 3, "mine")
    with pytest.raises(StudyError, match="are of another network than trial 3") as told:
        load_weights(space.build(ToySpec(width=8), TASK), tmp_path, 3, "mine")
    assert "\n" not in str(told.value)
    weights_path(tmp_path, 3).write_bytes(weights_path(tmp_path, 3).read_bytes()[:-20])
    with pytest.raises(StudyError, match="weights of trial 3 cannot be read"):
        load_weights(network, tmp_path, 3, "mine")
