"""Captured steps, with operators recorded on the CPU in the place of CUDA graphs.

They are those of the plain loop but for rounding, and where anything is wrong with them the run is the plain loop's to
the bit.
"""

from __future__ import annotations

import copy
import dataclasses
import gc
import math
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from PIL import Image
from recorded import ASKING, Recorded
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from nas.data.augmentation import TURNS
from nas.data.noise import parse_noise
from nas.data.photographs import Photographs
from nas.data.raw import Shots
from nas.data.splits import Dataset, Split, load
from nas.settings import FitSettings
from nas.training import captured
from nas.training.batches import DeviceData, TrainingData
from nas.training.captured import FIRST, PLAIN_VARIABLE, Captured, CudaGraphs, graphs_on
from nas.training.fit import Fit
from nas.training.loop import Diverged, Training
from nas.training.patches import Patches
from nas.training.precision import faster_precision
from nas.types import Optimizer, Recipe, Task
from search_spaces import get_space
from search_spaces.unet.references import REFERENCES, reference_network

CPU = torch.device("cpu")
TASK = Task(channels=1, classes=10, height=8, width=8, noise="gaussian:50")
RECIPE = Recipe(epochs=5, batch_size=32, learning_rate=3e-3, weight_decay=1e-3, classification_weight=0.3)
SPACE = get_space("unet")
UNET: Mapping[str, Any] = {
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
EPOCH = 5
"""Steps of an epoch of 136 images: four of 32 and one of 8."""
REPLAYED = 4 * RECIPE.epochs - FIRST + RECIPE.epochs - FIRST
"""Steps of a run that are replayed, with those that are captured: a capture's check is a replay too."""


@pytest.fixture(scope="module")
def data() -> DeviceData:
    return DeviceData.of(load("digits", subset=136), TASK, CPU)


@pytest.fixture(autouse=True)
def _a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Captured, "broken", False)
    monkeypatch.setattr(Captured, "told", False)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    return using(Recorded(), monkeypatch)


def using(graphs: Recorded, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    """Has every training that is made from here on use these."""
    monkeypatch.setattr("nas.training.loop.graphs_on", lambda device: graphs)
    return graphs


def start(
    data: TrainingData, task: Task = TASK, spec: Mapping[str, Any] = UNET, precision: str = "fp32", **recipe: Any
) -> Training:
    torch.manual_seed(1)
    network = SPACE.build(SPACE.spec({**UNET, **spec}), task)
    return Training(network, task, dataclasses.replace(RECIPE, **recipe), data, seed=1, precision=precision)


Run = tuple[list[Tensor], list[tuple[float, float]], Any, Tensor]


def finished(run: Training, after_step: Callable[[], None] = lambda: None) -> Run:
    """The weights, statistics and optimiser's state of a run at its end, its losses and probes, and torch's state."""
    losses = []
    while run.epoch < run.recipe.epochs:
        denoise, classify = run.run_epoch(after_step)
        losses.append((denoise, classify or 0.0))
    states = [value for state in run.optimizer.state.values() for value in state.values()]
    values = [*run.network.state_dict().values(), *run.balance.state_dict().values(), *states]
    return [value.clone() for value in values], losses, run.probe_curve(), torch.get_rng_state()


def plain(begin: Callable[[], Training]) -> Run:
    """A run without graphs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nas.training.loop.graphs_on", lambda device: None)
        return finished(begin())


def assert_close(found: Run, wanted: Run) -> None:
    for ours, theirs in zip(found[0], wanted[0], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
    assert found[1] == [pytest.approx(losses, rel=1e-4) for losses in wanted[1]]
    for name in ("steps", "denoise", "classify"):
        assert getattr(found[2], name) == pytest.approx(getattr(wanted[2], name), rel=1e-3)
    assert torch.equal(found[3], wanted[3]), "dropout has drawn as often"


def assert_equal(found: Run, wanted: Run) -> None:
    assert all(torch.equal(*pair) for pair in zip(found[0], wanted[0], strict=True))
    assert found[1:3] == wanted[1:3]
    assert torch.equal(found[3], wanted[3])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("norm", ["none", "batch", "group"])
@pytest.mark.parametrize("optimizer", get_args(Optimizer))
def test_captured_steps_are_the_plain_ones(
    optimizer: str, norm: str, precision: str, data: DeviceData, graphs: Recorded
) -> None:
    if precision == "bf16":
        wanted = plain(lambda: start(data, spec={"norm": norm}, precision=precision, optimizer=optimizer))
        found = finished(start(data, spec={"norm": norm}, precision=precision, optimizer=optimizer))
        assert found[1][-1] == pytest.approx(wanted[1][-1], rel=0.02)
    else:
        wanted = plain(lambda: start(data, spec={"norm": norm}, optimizer=optimizer))
        assert_close(finished(start(data, spec={"norm": norm}, optimizer=optimizer)), wanted)
    assert graphs.captured == 3, "two shapes of batches, and the probes"
    assert graphs.replayed == REPLAYED + RECIPE.epochs * EPOCH + 1 - FIRST


@pytest.mark.parametrize(
    ("spec", "recipe"),
    [
        ({}, {"balancing": "uncertainty"}),
        ({}, {"balancing": "uncertainty", "optimizer": "sgd"}),
        ({}, {"class_weights": "balanced", "label_smoothing": 0.1}),
        ({}, {"class_weights": "sampled"}),
        ({"columns": 2, "sharing": "sluice_2", "head_attach": "decoder"}, {"sharing_rate": 10.0}),
        ({"columns": 2, "sharing": "nddr", "head_attach": "decoder"}, {"balancing": "uncertainty"}),
        ({"head_norm": "batch"}, {"batch_size": 45}),  # the last batch is one image
    ],
    ids=["uncertainty", "uncertainty, sgd", "weights", "sampled", "penalty", "nddr", "one image"],
)
def test_whatever_a_recipe_asks_for_is_captured(
    spec: Mapping[str, Any], recipe: Mapping[str, Any], data: DeviceData, graphs: Recorded
) -> None:
    wanted = plain(lambda: start(data, spec=spec, **recipe))
    assert_close(finished(start(data, spec=spec, **recipe)), wanted)
    assert graphs.captured == 3


@pytest.mark.parametrize("name", REFERENCES)
def test_no_step_of_a_known_network_asks_the_device(name: str, data: DeviceData, graphs: Recorded) -> None:
    candidate = reference_network(name, TASK)
    recipe = dataclasses.replace(candidate.recipe, epochs=2, batch_size=32, balancing="uncertainty")

    def begin() -> Training:
        torch.manual_seed(0)
        network = SPACE.build(dataclasses.replace(candidate.spec, width=4), TASK)
        return Training(network, TASK, recipe, data, seed=0)

    wanted = plain(begin)
    assert_close(finished(begin()), wanted)
    assert graphs.captured == 2
    assert not Captured.told


def test_an_epoch_of_captured_steps_asks_the_device_once(data: DeviceData, graphs: Recorded) -> None:
    class Listening(TorchDispatchMode):
        asked = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.asked += func in ASKING
            return func(*args, **(kwargs or {}))

    run = start(data)
    for _ in range(4):
        run.run_epoch()
    captured, asked = graphs.captured, []
    with Listening() as mode:
        denoise, _ = run.run_epoch(lambda: asked.append(mode.asked))
        float(torch.tensor(denoise))
    assert graphs.captured == captured
    assert asked == [0] * EPOCH
    assert mode.asked > 0, "whoever asks is heard"


@pytest.mark.parametrize("single", [True, False])
def test_held_out_targets_are_captured(single: bool, graphs: Recorded) -> None:
    generator = torch.Generator().manual_seed(2)
    shots = torch.rand(40, 1, 1, 16, 16, generator=generator) + 0.1 * torch.randn(40, 3, 1, 16, 16, generator=generator)
    if single:
        split = Split(shots[:, 0].numpy(), None, None, clean=False)
    else:
        split = Split(shots.mean(1).numpy(), None, Shots(shots.flatten(0, 1).numpy(), np.arange(41) * 3), clean=False)
    scans = Dataset("noisy:/scans", split, split, split, (), "0123456789abcdef")
    task = scans.task("data")
    images = DeviceData.of(scans, task, CPU, TURNS)
    wanted = plain(lambda: start(images, task, batch_size=8))
    assert_close(finished(start(images, task, batch_size=8)), wanted)
    assert graphs.captured == 2


def fit_of(data: TrainingData, task: Task = TASK, **settings: Any) -> Fit:
    torch.manual_seed(1)
    return Fit(
        SPACE.build(SPACE.spec(UNET), task),
        task,
        dataclasses.replace(RECIPE, batch_size=12),
        data,
        FitSettings(**settings),
        precision="fp32",
    )


def test_batches_that_make_one_step_together_are_captured(data: DeviceData, graphs: Recorded) -> None:
    def begin() -> Fit:
        return fit_of(data, accumulate=3)

    wanted = plain(begin)
    run = begin()
    assert_close(finished(run), wanted)
    assert graphs.captured == 3
    assert [len(batch.noisy) for batch in run._batches(torch.arange(28))] == [10, 9, 9]


def test_patches_of_photographs_are_captured(tmp_path: Path, graphs: Recorded) -> None:
    folder = tmp_path / "photographs"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(6):
        Image.fromarray(random.integers(0, 256, (40, 48), np.uint8)).save(folder / f"{number}.png")
    patches = Patches(
        Photographs.read(f"images:{folder}", tmp_path),
        parse_noise("gaussian:25"),
        patch=16,
        per_epoch=64,
        augmentation=TURNS,
        device=CPU,
    )
    task = Task(channels=1, classes=0, height=16, width=16, noise="gaussian:25")
    wanted = plain(lambda: fit_of(patches, task))
    assert_close(finished(fit_of(patches, task)), wanted)
    assert graphs.captured == 3


@pytest.mark.parametrize("steps", [1, FIRST + 2, 12, 17])
def test_a_run_goes_on_from_a_state_within_an_epoch(steps: int, data: DeviceData, graphs: Recorded) -> None:
    states = []
    run = start(data)
    whole = finished(run, lambda: states.append(copy.deepcopy(run.state())) if run.step == steps else None)
    resumed = start(data)
    resumed.load_state(copy.deepcopy(states[0]))
    assert resumed.step == steps
    left = finished(resumed)
    assert left[1] == [pytest.approx(losses, rel=1e-4) for losses in whole[1][-len(left[1]) :]]
    for ours, theirs in zip(left[0], whole[0], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
    captured = graphs.captured
    run.load_state(states[0])  # and so does the run itself, whose graphs know of other states of the optimiser
    again = finished(run)
    assert_equal(again, left)
    assert graphs.captured > captured


def test_a_run_that_goes_back_is_captured_anew(data: DeviceData, graphs: Recorded) -> None:
    def begin() -> Fit:
        run = fit_of(data)
        run.run_epoch()
        run.go_back(None)
        return run

    wanted = plain(begin)
    assert_close(finished(begin()), wanted)
    assert graphs.captured == 2 + 3


class Wrong(Recorded):
    """Graphs whose replays are not the work."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        replay = super().capture(work)
        recording: Any = work.func.__self__  # type: ignore[attr-defined]
        training: Training = work.args[0].__self__  # type: ignore[attr-defined]

        def wrong() -> None:
            if self.how == "it does nothing":
                return
            if self.how == "it reads other images":
                recording._batches[0].noisy.zero_()
            if self.how == "it does not see the rates":
                for rate in recording._rates:
                    rate.zero_()
            first = next(training.network.parameters())
            before = first.detach().clone()
            replay()
            if self.how == "it does everything twice":
                replay()
            if self.how == "it forgets a parameter":
                first.detach().copy_(before)
            if self.how == "it writes beyond":
                next(reversed(list(training.optimizer.state.values())))["exp_avg"].add_(1.0)
            if self.how == "it is no number":
                recording._losses.fill_(math.nan)

        return wrong


@pytest.mark.parametrize(
    "how",
    [
        "it does nothing",
        "it reads other images",
        "it does not see the rates",
        "it does everything twice",
        "it forgets a parameter",
        "it writes beyond",
        "it is no number",
    ],
)
def test_a_replay_that_is_wrong_is_told_once_and_never_used(
    how: str, data: DeviceData, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = plain(lambda: start(data))
    graphs = using(Wrong(how), monkeypatch)
    run = start(data)
    assert run._captured_probes is not None
    run._captured_probes = None
    assert_equal(finished(run), wanted)
    assert graphs.captured == 1, "it is not tried again"
    (line,) = caplog.messages
    assert line.startswith(
        "steps are started kernel by kernel, which is slower, because one could not be captured: its"
    )
    assert " off, " in line
    assert not Captured.broken, "other networks may well be captured"


def test_a_small_tensor_that_is_forgotten_is_noticed_among_large_ones() -> None:
    large, gate, still = torch.zeros(500, 500), torch.ones(()), torch.ones(3)
    moved = {"parameters": [large, gate, still]}
    before = captured._Snapshot(moved)
    large += 0.01
    gate += 0.01
    after = captured._Snapshot(moved)
    losses = torch.ones(2)
    assert captured._difference(losses, losses, before, after) is None
    gate.fill_(1.0)
    said = captured._difference(losses, losses, before, after)
    assert said == "one of its parameters of shape () stays where it was, and the step changes it"


@pytest.mark.parametrize("which", [1, 2])
def test_a_run_without_memory_for_the_check_goes_on_without_a_word(
    which: int,
    data: DeviceData,
    graphs: Recorded,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    wanted = plain(lambda: start(data))
    taken: list[object] = []

    class Snapshot(captured._Snapshot):
        def __init__(self, moved: Any) -> None:
            taken.append(self)
            if len(taken) == which:
                raise torch.OutOfMemoryError("CUDA out of memory")
            super().__init__(moved)

    monkeypatch.setattr(captured, "_Snapshot", Snapshot)
    run = start(data)
    run._captured_probes = None
    assert_equal(finished(run), wanted)
    assert (len(taken), graphs.captured, caplog.messages) == (which, 0, [])


def test_a_probe_that_is_wrong_leaves_the_steps_alone(data: DeviceData, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = plain(lambda: start(data))
    wrong, right = Wrong("it reads other images"), Recorded()
    given = iter([right, wrong])
    monkeypatch.setattr("nas.training.loop.graphs_on", lambda device: object())
    monkeypatch.setattr("nas.training.loop.Captured", lambda graphs: Captured(next(given)))
    assert_close(finished(start(data)), wanted)
    assert (right.captured, wrong.captured) == (2, 1)


@pytest.mark.parametrize("where", ["warm_up", "capture", "replay"])
def test_what_raises_is_told_once_and_not_tried_again_in_its_process(
    where: str, data: DeviceData, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(Recorded):
        def fail(self, place: str) -> None:
            if place == where and self.captured >= 1 + (where == "replay"):  # the probes are captured before that
                try:
                    raise torch.AcceleratorError("CUDA error: operation not permitted\nand so on")
                finally:
                    if where == "capture":
                        raise RuntimeError("operation failed due to a previous error")

        def warm_up(self, work: Callable[[], None]) -> None:
            super().warm_up(work)
            self.fail("warm_up")

        def capture(self, work: Callable[[], None]) -> Callable[[], None]:
            self.fail("capture")
            replay, number = super().capture(work), self.captured

            def failing() -> None:
                replay()
                if number > 1:
                    self.fail("replay")

            return failing

    wanted = plain(lambda: start(data))
    graphs = using(Failing(), monkeypatch)
    replayed = []
    run = start(data)
    assert_equal(finished(run, lambda: replayed.append(graphs.replayed)), wanted)
    assert replayed[-1] == replayed[FIRST], "what was captured before is not replayed either"
    assert caplog.messages == [
        "steps are started kernel by kernel, which is slower, because one could not be captured: AcceleratorError: "
        "CUDA error: operation not permitted"
    ]
    warmed = graphs.warmed
    assert_equal(finished(start(data)), wanted)
    assert graphs.warmed == warmed
    assert len(caplog.messages) == 1


class Asking(nn.Module):
    """Says that it may be captured, and is mistaken."""

    capturable = True

    def __init__(self) -> None:
        super().__init__()
        self.network = SPACE.build(SPACE.spec({**UNET, "head_dropout": 0.0}), TASK)

    def forward(self, noisy: Tensor) -> Any:
        return self.network(noisy * (1.0 + 0.0 * noisy.mean().item()))


class Counting(Asking):
    """Has a constant in it that Python changes: it is what it was while the graph was captured."""

    calls = 0

    def forward(self, noisy: Tensor) -> Any:
        self.calls += self.training
        return self.network(noisy * (0.5 + self.calls % 2))


@pytest.mark.parametrize(
    ("network", "said"), [(Asking, "operation not permitted when stream is capturing"), (Counting, "its losses are")]
)
def test_a_network_that_cannot_be_captured_is_trained_without(
    network: Callable[[], nn.Module], said: str, data: DeviceData, graphs: Recorded, caplog: pytest.LogCaptureFixture
) -> None:
    def begin() -> Training:
        torch.manual_seed(1)
        return Training(network(), TASK, RECIPE, data, seed=1)

    run = begin()
    finished(run)
    assert said in caplog.messages[0]
    if network is Asking:
        torch.manual_seed(0)
        assert_equal(finished(begin()), plain(begin))


def test_other_recipes_go_without_a_word(
    data: DeviceData, graphs: Recorded, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(data, balancing="surgery")
    assert run._captured_steps is run._captured_probes is None
    network = SPACE.build(SPACE.spec(UNET), TASK)
    assert Training(network, TASK, RECIPE, data, seed=1, capture=False)._captured_steps is None
    network.capturable = False
    assert Training(network, TASK, RECIPE, data, seed=1)._captured_steps is None
    graphs.room = False
    wanted = plain(lambda: start(data))
    assert_equal(finished(start(data)), wanted)
    graphs.room = True
    with pytest.raises(Diverged):
        finished(start(data, optimizer="sgd", learning_rate=1e12))
    assert not caplog.messages
    assert graphs.captured == 0


def test_a_cpu_captures_nothing(data: DeviceData, monkeypatch: pytest.MonkeyPatch) -> None:
    assert graphs_on(CPU) is None
    assert start(data)._captured_steps is None
    made: list[torch.device] = []
    monkeypatch.setattr(captured, "CudaGraphs", lambda device: made.append(device) or Recorded())
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert isinstance(graphs_on(torch.device("cuda", 1)), Recorded)
    assert made == [torch.device("cuda", 1)]
    monkeypatch.setenv(PLAIN_VARIABLE, "1")
    assert graphs_on(torch.device("cuda", 1)) is None
    monkeypatch.delenv(PLAIN_VARIABLE)
    monkeypatch.setattr(torch.version, "cuda", None)  # another maker's GPU, which torch calls cuda too
    assert graphs_on(torch.device("cuda", 1)) is None


def test_graphs_end_with_their_training_at_once(data: DeviceData, monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgetful(Recorded):
        """Graphs that hold no work, as those of CUDA."""

        def __init__(self) -> None:
            super().__init__()
            self.alive: weakref.WeakSet[Any] = weakref.WeakSet()

        def capture(self, work: Any) -> Callable[[], None]:
            self.captured += 1
            recording, own = weakref.ref(work.func.__self__), weakref.WeakMethod(work.args[0])
            self.alive.add(work.func.__self__)

            def replay() -> None:
                there, method = recording(), own()
                assert there is not None
                assert method is not None
                there.run(method)

            return replay

    graphs = using(Forgetful(), monkeypatch)
    gc.collect()
    gc.disable()
    try:
        run = start(data)
        finished(run)
        assert len(graphs.alive) == graphs.captured == 3
        training = weakref.ref(run)
        del run
        assert training() is None
        assert not graphs.alive
    finally:
        gc.enable()


def test_a_timing_times_what_runs_on_a_gpu(data: DeviceData, graphs: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(10_000))
    monkeypatch.setattr("nas.training.precision.clock", lambda device: lambda: float(next(ticks)))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)

    class Elsewhere:
        """The data, which say that they lie on a GPU when they are asked about the timing."""

        device = torch.device("cuda", 0)

        def __getattr__(self, name: str) -> Any:
            return getattr(data, name)

    elsewhere: Any = Elsewhere()
    monkeypatch.setattr(
        "nas.training.precision.Training",
        lambda network, task, recipe, _, **given: Training(network, task, recipe, data, **given),
    )
    monkeypatch.setattr(torch.random, "fork_rng", lambda devices: _nothing())
    assert faster_precision(SPACE.build(SPACE.spec(UNET), TASK), TASK, RECIPE, elsewhere) == "fp32"
    assert graphs.captured == 2
    assert graphs.replayed > 30


@contextmanager
def _nothing() -> Iterator[None]:
    yield


class Card:
    """What `CudaGraphs` calls of `torch.cuda`, in the order in which it is called."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.called: list[str] = []
        self.free, self.used = 1000, 5000 + 10
        self.raises = False
        note = self.called.append

        class Stream:
            def __init__(self, device: torch.device) -> None:
                note(f"stream of {device}")

            def wait_stream(self, other: object) -> None:
                note("side waits" if other is current else "current waits")

        class Generator:
            def clone_state(self) -> str:
                note("clone")
                return "spare"

            def graphsafe_set_state(self, state: str) -> None:
                note(f"take {state}")

        card = self

        class Graph:
            def replay(self) -> None:
                note("replay")

        current = Stream(CPU)

        @contextmanager
        def stream(given: Stream) -> Iterator[None]:
            note("on side")
            try:
                yield
            finally:
                note("off side")

        @contextmanager
        def graph(given: Graph, pool: object, on: Stream) -> Iterator[None]:
            assert isinstance(given, Graph)
            note(f"begin in {pool}")
            yield
            if card.raises:
                raise RuntimeError("invalidated")
            note("end")

        cuda = SimpleNamespace(
            Stream=Stream,
            CUDAGraph=Graph,
            current_device=lambda: 0,
            current_stream=lambda device: current,
            stream=stream,
            graph=graph,
            graph_pool_handle=lambda: "pool",
            default_generators=(Generator(),),
            mem_get_info=lambda device: (self.free, 10_000),
            max_memory_allocated=lambda device: self.used,
            memory_allocated=lambda device: 5000,
        )
        monkeypatch.setattr(captured.torch, "cuda", cuda)
        monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", lambda *given: note(f"end in {given}"))
        self.called.clear()


def test_cuda_s_graphs_are_made_as_torch_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card(monkeypatch)
    captured._stream.cache_clear()
    graphs, others = CudaGraphs(torch.device("cuda")), CudaGraphs(torch.device("cuda", 0))
    assert card.called == ["stream of cuda:0"], "one for all trainings"
    assert graphs._stream is others._stream
    card.called.clear()
    graphs.warm_up(lambda: card.called.append("work"))
    assert card.called == ["side waits", "on side", *["work"] * captured.WARM_UPS, "off side", "current waits"]
    card.called.clear()
    graphs.capture(lambda: card.called.append("work"))()
    assert card.called == ["clone", "on side", "begin in pool", "work", "end", "off side", "replay"]
    assert graphs.affordable()
    card.used = 5000 + 200
    assert not graphs.affordable()
    card.called.clear()
    card.raises = True
    with pytest.raises(RuntimeError, match="invalidated"):
        graphs.capture(lambda: card.called.append("work"))
    assert card.called[3:] == ["work", "off side", "take spare", "end in (0, 'pool')"]
    captured._stream.cache_clear()
