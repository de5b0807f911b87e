"""One long training of a network: the search's loop with a longer schedule, averaged weights, and a resumable
folder."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nas.settings import FitSettings
from nas.training.batches import TrainingData
from nas.training.checkpoint import read_state, write_state, write_tensors
from nas.training.evaluation import judge
from nas.training.loop import Diverged, Training
from nas.training.precision import Precision
from nas.types import Recipe, Task, flat, from_flat

log = logging.getLogger(__name__)
VALIDATIONS = 100
"""A run is validated after each epoch, or this many times if it has more epochs."""

CHECKPOINT_SECONDS = 60.0
CHECKPOINT, BEST = "checkpoint.pt", "best.pt"


@dataclass(frozen=True, slots=True, kw_only=True)
class FitProgress:
    """The progress of a run.

    Attributes:
        epoch, epochs: epochs done, and all of them.
        step, steps: steps done, and all of them.
        images_per_second: recent speed of training.
        seconds_left: remaining time at this speed.
        validated: the newest validation; None before the first.
        best: the validation whose weights are kept; None before the first.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    images_per_second: float
    seconds_left: float
    validated: Validation | None
    best: Validation | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """The averaged network's figures on the validation split.

    Attributes:
        epoch: epoch after which it was judged; 0 for the start of a training that goes on from a bundle.
        loss: the recipe's loss, in trivial losses and nats; the least one is the best.
        train_loss: denoising loss of the epoch, in trivial losses; None before the first.
        seconds: seconds of training so far, over all sittings.
        values: every metric on images that applies, by name (see `nas.training.metrics.ON_IMAGES`).
    """

    epoch: int
    loss: float
    train_loss: float | None
    seconds: float
    values: Mapping[str, float]


RATE_CUTS = 3
"""The number of times that a run which diverges goes on at half the rate."""


class Fit(Training):
    """A `Training` whose weights are also averaged over steps. The average is judged and kept.

    The average's decay rises to `FitSettings.ema` as (1 + t) / (10 + t), so that it forgets the first steps. Buffers,
    such as the statistics of batch normalisation, are the newest.

    A rate that a short search has found good may be too high for a long training. So a run that diverges goes back to
    the best weights and on at half the rate, see `go_back`.

    Attributes:
        cuts: the number of times that the rate was halved.
    """

    def __init__(
        self,
        network: nn.Module,
        task: Task,
        recipe: Recipe,
        data: TrainingData,
        settings: FitSettings,
        *,
        precision: Precision,
    ) -> None:
        self.settings = settings
        self.warm_up, self.accumulate = settings.warm_up, settings.accumulate
        super().__init__(network, task, recipe, data, seed=settings.seed, precision=precision)
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.best: Validation | None = None
        self.validated: Validation | None = None
        self.seconds = 0.0
        self.cuts = 0
        self._untrained = copy.deepcopy(self.average.state_dict()), copy.deepcopy(self.balance.state_dict())

    @property
    def done(self) -> bool:
        return self.epoch >= self.recipe.epochs

    def run_epoch(self, after_step: Callable[[], None] = lambda: None) -> tuple[float, float | None]:
        def averaged() -> None:
            self._average()
            after_step()

        return super().run_epoch(averaged)

    def validate(self, train_loss: float | None) -> Validation:
        """Judges the averaged network, and remembers the result if it is the best so far.

        Raises:
            Diverged: the loss is not finite.
        """
        found = judge(self.average, self.data.validation, self.data.trivial, self.class_weights)
        loss = self._total(
            found.denoise if "denoise" in self.tasks else 0.0,
            found.classify if found.classify is not None and "classify" in self.tasks else 0.0,
        )
        if not math.isfinite(loss):
            raise Diverged(f"validation loss is {loss} after epoch {self.epoch}")
        self.validated = Validation(
            epoch=self.epoch,
            loss=loss,
            train_loss=train_loss,
            seconds=self.seconds,
            values=found.values,
        )
        if self.best is None or loss < self.best.loss:
            self.best = self.validated
        return self.validated

    def go_back(self, best: Mapping[str, Tensor] | None) -> None:
        """Goes on after a divergence: from the best averaged weights, or the first ones, at half the rate.

        What the optimiser and the balance of losses have learned may be spoilt, so they begin anew. Epochs that were
        lost are not trained again.
        """
        weights, balance = self._untrained
        for network in (self.network, self.average):
            network.load_state_dict(weights if best is None else best)
        self.balance.load_state_dict(balance)
        self.optimizer.state.clear()
        self._order = None
        self.cuts += 1

    def _schedule(self) -> float:
        return super()._schedule() * 0.5**self.cuts

    def state(self) -> dict[str, Any]:
        return {
            **super().state(),
            "cuts": self.cuts,
            "average": self.average.state_dict(),
            "best": None if self.best is None else flat(self.best),
            "validated": None if self.validated is None else flat(self.validated),
            "seconds": self.seconds,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        super().load_state(state)
        self.average.load_state_dict(state["average"])
        self.best, self.validated = (
            None if state[name] is None else from_flat(Validation, state[name]) for name in ("best", "validated")
        )
        self.seconds = state["seconds"]
        self.cuts = state.get("cuts", 0)  # files of older versions have none

    def _average(self) -> None:
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.network.parameters()), 1 - decay)
            for average, newest in zip(self.average.buffers(), self.network.buffers(), strict=True):
                average.copy_(newest)


def fit(
    run: Fit,
    folder: Path,
    observe: Callable[[FitProgress], None] = lambda progress: None,
    log_to: Path | None = None,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    *,
    judge_start: bool = False,
) -> nn.Module:
    """Brings a run to its end, from the folder's checkpoint, and returns the best averaged network.

    Args:
        run: freshly made, with the configuration that the folder belongs to.
        folder: keeps the newest state and the best weights, each written whole or not at all.
        observe: called after every step.
        log_to: folder of TensorBoard's event files; None for none.
        checkpoint_seconds: seconds between two checkpoints; one is also written after each validation.
        judge_start: whether the network is judged before the first step too, because it was trained already. What is
            returned is then never worse on the validation split than the start.

    Raises:
        Diverged: it diverged once more after `RATE_CUTS` times, or ended so before it was judged.
    """
    checkpoint, best = folder / CHECKPOINT, folder / BEST
    if (state := read_state(checkpoint)) is not None:
        run.load_state(state)
    # A folder may contain better weights than its checkpoint knows of; the run reaches them again.
    clock = _Clock(run)

    def save() -> None:
        clock.count()
        write_state(run.state(), checkpoint)
        clock.saved = time.monotonic()

    def after_step() -> None:
        clock.step()
        observe(clock.progress())
        if time.monotonic() - clock.saved > checkpoint_seconds:
            save()

    with _event_log(log_to, run.step) as write_event:

        def validate(train_loss: float | None) -> None:
            clock.count()
            found = run.validate(train_loss)
            if run.best is found:
                write_tensors(run.average.state_dict(), best)
            save()
            write_event(run, clock.images_per_second)
            observe(clock.progress())

        if judge_start and run.validated is None:
            validate(None)
        while not run.done:
            epochs = run.recipe.epochs
            try:
                train_loss, _ = run.run_epoch(after_step)
                if run.epoch == epochs or run.epoch * VALIDATIONS // epochs != (run.epoch - 1) * VALIDATIONS // epochs:
                    validate(train_loss)
            except Diverged as error:
                if run.cuts == RATE_CUTS or (run.done and run.best is None):
                    raise
                came = "the first weights" if run.best is None else f"the weights of epoch {run.best.epoch}"
                if run.done:
                    log.warning("the training diverged in its last epoch (%s); it ends with %s", error, came)
                    break
                run.go_back(None if run.best is None else _read_best(best, run.device))
                rate = 0.5**run.cuts
                log.warning("the training diverged (%s); it goes on from %s at %g of its rate", error, came, rate)
                save()
    network: nn.Module = copy.deepcopy(run.average)
    network.load_state_dict(_read_best(best, run.device))
    return network


def _read_best(file: Path, device: torch.device) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = torch.load(file, weights_only=True, map_location=device)
    return weights


class _Clock:
    """The speed and time of a run."""

    def __init__(self, run: Fit) -> None:
        self.run = run
        self.saved = self._counted = self._last = time.monotonic()
        self._step_seconds: float | None = None

    def step(self) -> None:
        now = time.monotonic()
        took, self._last = now - self._last, now
        # The first step of a sitting also waits for libraries to warm up; later steps smooth it away.
        self._step_seconds = took if self._step_seconds is None else 0.95 * self._step_seconds + 0.05 * took

    def count(self) -> None:
        """Adds the time since the last call to the run's seconds."""
        now = time.monotonic()
        self.run.seconds += now - self._counted
        self._counted = self._last = now

    @property
    def images_per_second(self) -> float:
        return self.run.images_per_step / self._step_seconds if self._step_seconds else 0.0

    def progress(self) -> FitProgress:
        run = self.run
        return FitProgress(
            epoch=run.epoch,
            epochs=run.recipe.epochs,
            step=run.step,
            steps=run.total_steps,
            images_per_second=self.images_per_second,
            seconds_left=(run.total_steps - run.step) * (self._step_seconds or 0.0),
            validated=run.validated,
            best=run.best,
        )


@contextmanager
def _event_log(folder: Path | None, step: int) -> Iterator[Callable[[Fit, float], None]]:
    """Writes validations for TensorBoard. Validations that a former sitting wrote after its last checkpoint are
    hidden."""
    if folder is None:
        yield lambda run, speed: None
        return
    # Its SummaryWriter has a thread, which would print pages about a full disk.
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.record_writer import RecordWriter
    from tensorboardX.summary import scalar

    failed, writer = False, None

    @contextmanager
    def noted() -> Iterator[None]:
        """Gives the log up where it cannot be written, because the training can do without it."""
        nonlocal failed
        try:
            yield
        except OSError as error:
            log.warning("no more events are written to %s (%s)", folder, error.strerror)
            failed = True

    with noted():
        folder.mkdir(parents=True, exist_ok=True)
        now = time.time()
        writer = RecordWriter(str(folder / f"events.out.tfevents.{now:.0f}.skipnas"))
        writer.write(Event(wall_time=now, file_version="brain.Event:2").SerializeToString())
        if step:
            start = Event(wall_time=now, step=step, session_log=SessionLog(status=SessionLog.START))
            writer.write(start.SerializeToString())

    def write(run: Fit, speed: float) -> None:
        found = run.validated
        assert found is not None
        values = {
            "train/loss": found.train_loss,
            "train/learning_rate": run.optimizer.param_groups[0]["lr"],
            "train/images_per_second": speed,
            "validation/loss": found.loss,
            **{f"validation/{name}": value for name, value in found.values.items()},
        }
        if writer is not None and not failed:
            with noted():
                for name, value in values.items():
                    if value is not None:
                        event = Event(wall_time=time.time(), step=run.step, summary=scalar(name, value))
                        writer.write(event.SerializeToString())
                writer.flush()

    try:
        yield write
    finally:
        if writer is not None:
            with suppress(OSError):
                writer.close()
