"""What becomes of a trial that is interrupted, or that memory runs out for?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from benchmarks.gpu.processes import ON_ONE_CORE, elsewhere, environment
from benchmarks.gpu.setting import CPU, NOISE, Scale, Setting
from benchmarks.lib.checks import Finding, Room

if TYPE_CHECKING:
    from benchmarks.lib.loops import Subject
    from nas.engine.report import Report
    from nas.protocols import SearchSpace
    from nas.training.evaluation import Evaluation
    from nas.types import Spec, Task

RESUME_LIMIT, ELSEWHERE_LIMIT = 0.1, 2.0
"""dB by which a trial that went on may end otherwise than one that was not interrupted: on the same device, where
kernels that add in any order make a difference; and on the CPU, which draws another noise."""
IDENTITY: Mapping[str, Any] = {"digest": "interrupted", "seed": 1}
"""Whose checkpoint it is."""

IMPOSSIBLE = 2**50
"""Bytes that no device has."""
LEFT_MIB = (0, 32, 256)
"""Free memory of the GPU with which a trial is tried."""

MORE_MIB = 8
"""Memory that a process may hold after many trainings beyond what it held after one."""


def evaluation_of(
    spec: Mapping[str, Any], recipe: Mapping[str, Any], seed: int, subset: int | None, device: torch.device
) -> Evaluation:
    """A candidate of the space ``unet`` on digits, untrained."""
    from nas.data.splits import load
    from nas.training.batches import DeviceData
    from nas.training.evaluation import Evaluation
    from nas.types import Recipe, Task
    from search_spaces import get_space

    task = Task(channels=1, classes=10, height=8, width=8, noise=NOISE)
    space = get_space("unet")
    own = space.spec(spec)
    data = DeviceData.of(load("digits", subset=subset), task, device)
    return Evaluation(
        partial(space.build, own, task), task, Recipe.from_dict(recipe), data, space.cost(own, task), seed=seed
    )


def finished(evaluation: Evaluation) -> dict[str, float]:
    """What a candidate reaches at its end."""
    while not evaluation.done:
        evaluation.advance()
    return dict(evaluation.measurement().values)


def resume(on: Setting, room: Room) -> Iterator[Finding]:
    """Interrupts a trial in the middle of an epoch, and has other processes go on from its checkpoint.

    One goes on on the same device. One does not see the GPU, and goes on on the CPU.
    """
    from nas.training.checkpoint import save_checkpoint

    class Interrupted(Exception):  # noqa: N818
        """What stops the trial."""

    whole = finished(_trial(on.device, on.scale))
    again = finished(_trial(on.device, on.scale))
    evaluation = _trial(on.device, on.scale)
    total = evaluation.training.total_steps

    def after_step() -> None:
        if evaluation.training.step == total // 2:
            save_checkpoint(evaluation.state(), room.folder, 0, **IDENTITY)
            raise Interrupted

    try:
        while True:
            evaluation.advance(after_step)
    except Interrupted:
        pass
    apart = abs(again["psnr"] - whole["psnr"])
    for place, device, limit in (("there", on.device, RESUME_LIMIT), ("without a GPU", CPU, ELSEWHERE_LIMIT)):
        with environment(**ON_ONE_CORE) if device == CPU else environment():
            found = elsewhere(partial(_go_on, device, on.scale, room.folder), room)
        off = abs(found["psnr"] - whole["psnr"])
        right = found["began_at"] == total // 2 and off <= max(limit, 3 * apart)
        yield Finding(
            text=f"interrupted after {total // 2} of {total} steps and resumed {place} at {found['began_at']}: PSNR "
            f"{found['psnr']:.3f} dB, {off:.1e} off {whole['psnr']:.3f} of a run without an interruption (two of those "
            f"differ by {apart:.1e})",
            values={"device": device.type, "total": total, "off": off, "apart": apart, **found},
            right=right and not (device == CPU and found["gpu_seen"]),
        )


def _trial(device: torch.device, scale: Scale, seed: int = 1) -> Evaluation:
    """The trial that is interrupted: a small U-Net."""
    from benchmarks.lib.loops import candidate

    made = candidate("unet", 8, scale.epochs)
    return evaluation_of(made.spec.to_dict(), made.recipe.to_dict(), seed, scale.subset, device)


def _go_on(device: torch.device, scale: Scale, folder: Path) -> dict[str, Any]:
    """Trains the trial that was interrupted from its checkpoint to its end."""
    from nas.training.checkpoint import load_checkpoint

    evaluation = _trial(device, scale)
    state = load_checkpoint(folder, 0, **IDENTITY)
    if state is None:
        raise RuntimeError(f"no checkpoint can be read in {folder}")
    evaluation.load_state(state)
    began_at = evaluation.training.step
    return {"began_at": began_at, "gpu_seen": torch.cuda.is_available(), **finished(evaluation)}


def memory(on: Setting, room: Room) -> Iterator[Finding]:
    """Lets memory run out in a worker's trial: that is one outcome, its reason is one line, and the next trial trains.

    One trial asks for more than any device has. On a GPU others begin when all of its memory but a little is taken.
    """
    from nas.errors import is_out_of_memory

    error = _refusal(on.device)
    yield Finding(text=f"of more memory than any device has {_told(error)}", right=is_out_of_memory(error))
    # The least first: what libraries allocate once for themselves is then asked for in need.
    for left in LEFT_MIB if on.gpu else ():
        taken = _taken_but(left * 2**20, on.device)
        yield _outcome(f"a trial with {left} MiB left", ("out_of_memory", "complete"), on, room)
        taken.clear()
        torch.cuda.empty_cache()
    yield _outcome("a trial that asks for too much", ("out_of_memory",), on, room, greedy=True)
    yield _outcome("the next trial", ("complete",), on, room)


def trainings(on: Setting, room: Room) -> Iterator[Finding]:
    """Trains many networks one after the other in one process, as a worker does, and looks whether memory is left."""
    from nas.training.captured import Captured

    held: list[int] = []
    for number in range(on.scale.trainings):
        evaluation = _trial(on.device, on.scale, number)
        finished(evaluation)
        del evaluation
        if on.gpu:
            torch.cuda.empty_cache()
        held.append(torch.cuda.memory_reserved(on.device) if on.gpu else 0)
    # The first one has libraries allocate what they keep.
    more = (held[-1] - held[0]) / 2**20
    yield Finding(
        text=f"after {len(held)} trainings in one process it holds {held[-1] / 2**20:.0f} MiB, {more:.0f} more than "
        "after the first",
        values={"held": held, "told": Captured.told},
        right=more <= MORE_MIB and not Captured.told if on.gpu else None,
    )


def refused(on: Setting, room: Room) -> Iterator[Finding]:
    """Captures what cannot be captured: the run goes on without, and so do the later ones in its process."""
    from nas.errors import is_out_of_memory
    from nas.training.captured import Captured

    class Asking(nn.Module):
        """Waits for its device in each step, and says that it does not. It has dropout."""

        capturable = True

        def __init__(self) -> None:
            super().__init__()
            self.out, self.head, self.dropout = nn.Conv2d(1, 1, 3, padding=1), nn.Linear(64, 10), nn.Dropout(0.5)

        def forward(self, noisy: Tensor) -> tuple[Tensor, Tensor]:
            denoised = self.dropout(self.out(noisy))
            return denoised, self.head(denoised.flatten(1)) + 0 * denoised.mean().item()

    finished(_own_network(Asking, on))
    after = finished(_trial(on.device, on.scale))
    error = _refusal(on.device)
    yield Finding(
        text=f"a step that waits for its device {'is' if Captured.broken else 'is not'} refused, and the next trial "
        f"reaches {after['psnr']:.2f} dB; then of more memory than any device has {_told(error)}",
        values={"broken": Captured.broken, **after},
        # An allocator that takes a capture for under way would end in an assertion instead.
        right=Captured.broken == on.gpu and is_out_of_memory(error),
    )


def _refusal(device: torch.device) -> BaseException:
    """Asks for more memory than any device has, and returns what torch raises."""
    try:
        torch.empty(IMPOSSIBLE, dtype=torch.uint8, device=device)
    except Exception as error:
        return error
    raise RuntimeError("torch gave more memory than any device has")


def _told(error: BaseException) -> str:
    first = str(error).partition("\n")[0]
    return f"torch says {type(error).__name__}: {first}"


def _own_network(build: Callable[[], nn.Module], on: Setting) -> Evaluation:
    """A network of one's own on digits, untrained, under the recipe of the trial that is interrupted."""
    from benchmarks.lib.loops import candidate
    from nas.data.splits import load
    from nas.training.batches import DeviceData
    from nas.training.evaluation import Evaluation
    from nas.types import Cost, Task

    task = Task(channels=1, classes=10, height=8, width=8, noise=NOISE)
    data = DeviceData.of(load("digits", subset=on.scale.subset), task, on.device)
    recipe = candidate("unet", 8, on.scale.epochs).recipe
    return Evaluation(build, task, recipe, data, Cost(params=0, macs=0), seed=1)


def _taken_but(left: int, device: torch.device) -> list[Tensor]:
    """All of a GPU's memory but for about `left` bytes, in ever smaller pieces."""
    taken: list[Tensor] = []
    piece = 2**34
    while piece >= 2**20:
        free, _ = torch.cuda.mem_get_info(device)
        try:
            if free - left < piece:
                raise torch.OutOfMemoryError
            taken.append(torch.empty(piece, dtype=torch.uint8, device=device))
        except torch.OutOfMemoryError:
            piece //= 2
    return taken


def _outcome(who: str, wanted: Sequence[str], on: Setting, room: Room, *, greedy: bool = False) -> Finding:
    """How a large network's trial ends in a worker, which is in this process."""
    from benchmarks.lib.loops import subject
    from search_spaces import get_space

    few = subject(32, "unet", 56 if on.gpu else 4, 1)
    few = replace(few, candidate=replace(few.candidate, recipe=replace(few.recipe, epochs=1)))
    space = get_space("unet")
    last = _last_report(Greedy(space) if greedy else space, few, on, room)
    reason = (last.detail.strip().splitlines() or [""])[-1]
    return Finding(
        text=f"{who} ended: {last.outcome}{reason and f' ({reason[:200]})'}",
        values={"outcome": str(last.outcome), "detail": last.detail},
        right=last.outcome in wanted,
    )


class Greedy:
    """The space `space`, with networks that ask for `IMPOSSIBLE` bytes of their device whenever they are used."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space

    def __getattr__(self, name: str) -> Any:
        return getattr(self._space, name)

    def build(self, spec: Spec, task: Task) -> nn.Module:
        def take(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            torch.empty(IMPOSSIBLE, dtype=torch.uint8, device=inputs[0].device)

        network = self._space.build(spec, task)
        network.register_forward_pre_hook(take)
        return network


def _last_report(space: Any, few: Subject, on: Setting, room: Room) -> Report:
    """Trains a candidate as a worker does, without Ray's processes."""
    from nas.engine.job import Job
    from nas.engine.trainable import CandidateTrainable, WorkerSettings

    worker = CandidateTrainable.__new__(CandidateTrainable)
    worker.config = {"job": Job.of(few.candidate, number=0, seed=0)}
    settings = WorkerSettings(
        task=few.task, device=on.device.type, precision="fp32", threads=1, files=room.folder, trial_timeout=None
    )
    worker.setup({}, data=few.data, space=space, settings=settings)
    try:
        while True:
            report: Report = worker.step()["report"]
            if report.outcome is not None:
                return report
    finally:
        worker.cleanup()
