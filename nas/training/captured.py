"""Steps that a GPU is given as a whole, instead of kernel by kernel.

A step of a small network is hundreds of kernels, and a GPU is done with each before the program has started the next.
So a step is captured once for each shape of batch as a CUDA graph, which keeps its kernels with the addresses that they
read and write. A replay of the graph is started as one thing. It finds its batch and its learning rates in buffers of
its own, and moves parameters, statistics and the optimiser's state where they lie.

Images are gathered and noise is drawn outside of the graph. These few kernels of a step are still started one by one.
In return no generator of the data takes part in the graph, and data may be made in any way, on the CPU too. Dropout
draws from torch's global generator, which every graph advances as the kernels themselves would.

A graph knows nothing of Python, so what it has captured must do the same work in every step. Trainings go without one,
and say nothing, on all devices but CUDA's, with gradient surgery (`nas.training.balancing`), with networks that do not
call themselves `capturable` (`nas.protocols.Abilities`), where memory is short, and with `PLAIN_VARIABLE` set.

Every graph is checked before it is used, and the check leaves no trace: see `Captured`.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from nas.training.batches import NoisyBatch

log = logging.getLogger(__name__)

PLAIN_VARIABLE = "SKIPNAS_PLAIN_STEPS"
"""While this environment variable is set and not empty, nothing is captured."""

FIRST = 3
"""So many batches of each shape are learned from without a graph. A capture takes about as long as six steps, which the
last, smaller batch of an epoch is not worth in a run of few epochs."""

WARM_UPS = 2
"""Runs before a capture, in which libraries allocate what they keep. torch asks for some, on a stream of their own."""

LOSS_LIMIT = 2e-4
"""The share of the losses by which those of a replay may differ. The kernels are the same. An untrained network, which
hardly sees what it is given, makes a difference of 1e-3 between an image and black."""

CHANGE_LIMIT = 0.02
"""The share of what a step changes by which a replay may differ. Kernels that add in any order make a difference of
some 1e-5; one parameter of a hundred that stays where it was, one of 0.1."""

ROUNDING = 1e-6
"""The share of the values themselves by which they may differ as well: the graph's learning rates are in float32."""

MEMORY = 0.1
"""The largest share of a device's free memory that a step may take. Every graph holds as much for as long as it lives,
and large networks, whose kernels take long, hardly gain by one."""

Work = Callable[[Iterable[NoisyBatch], Sequence[Tensor] | None], Tensor]
"""From batches to losses (2,). It moves what it changes in place. The tensors are learning rates, see
`nas.training.optimizers.Optimizer.step`."""

Moved = Mapping[str, Sequence[Tensor]]
"""All tensors that some work changes, by kind. Those of one kind are compared together."""


class Graphs(Protocol):
    """A device's means to capture work."""

    def affordable(self) -> bool:
        """Tells whether there is memory enough."""

    def warm_up(self, work: Callable[[], None]) -> None:
        """Runs the work a few times, as it will be captured."""

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Returns what does the work again, in the same memory. The work itself is not done by this call."""


class CudaGraphs:
    """CUDA graphs, each with memory of its own, which is free again when the graph is forgotten."""

    def __init__(self, device: torch.device) -> None:
        self._device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
        self._stream = _stream(self._device)

    def affordable(self) -> bool:
        free, _ = torch.cuda.mem_get_info(self._device)
        taken = torch.cuda.max_memory_allocated(self._device) - torch.cuda.memory_allocated(self._device)
        return taken <= MEMORY * free

    def warm_up(self, work: Callable[[], None]) -> None:
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UPS):
                work()
        current.wait_stream(self._stream)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
        generator = torch.cuda.default_generators[self._device.index]
        spare = generator.clone_state()
        try:
            # The outer block takes the stream back also where the inner one fails at its end. Errors are looked for in
            # all threads ("global"), because the backward pass runs in a thread of torch's.
            with torch.cuda.stream(self._stream), torch.cuda.graph(graph, pool, self._stream):
                work()
        except BaseException:
            # A capture that has failed may leave a global generator that refuses to draw, as every later dropout would
            # tell, and an allocator that takes the capture for under way. Newer versions of torch tidy up themselves.
            generator.graphsafe_set_state(spare)
            with contextlib.suppress(RuntimeError, AttributeError):
                torch._C._cuda_endAllocateToPool(self._device.index, pool)
            raise
        return graph.replay


@functools.cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """Returns the stream for captures, one for all trainings of a process: cuBLAS keeps memory for every stream that it
    has seen, 32 MiB on an H200, and never gives it back."""
    return torch.cuda.Stream(device)


def graphs_on(device: torch.device) -> Graphs | None:
    """Returns the means of a device to capture work; None where there are none, or the user wants none."""
    if device.type != "cuda" or torch.version.cuda is None or os.environ.get(PLAIN_VARIABLE):
        return None
    return CudaGraphs(device)


class Captured:
    """One kind of work, which is captured for each shape of batches and from then on replayed.

    In the call that captures, the work is done as it is, and its result stands whatever becomes of the capture. Then
    everything is put back to where it was before, the work is captured and replayed, and the replay's losses and
    changes are compared with those of the work. At last everything is put where the work had left it, torch's global
    generators too. Where capturing raises, or the results differ, the work is never replayed, and one line of the log
    says so, once in a process. Only these calls wait for the device.

    The memory that a graph reads and writes is kept as long as the graph. A benchmark once ended in an assertion of a
    kernel that was given an index beyond its tensor. It had kept a graph, and neither the network nor the optimiser's
    state that the graph was moving. Their memory was given away, to the order of the next network's images among
    others, and the graph went on to write into it.

    Nothing here refers to the work, which belongs to a training, so that a training's graphs end with it at once.
    """

    broken: ClassVar[bool] = False
    """Whether a capture has raised in this process. From then on nothing is captured in it, as the cause is hardly
    gone, and no graph is replayed, as those with dropout would draw from the generator that was taken out of service
    (`CudaGraphs.capture`)."""
    told: ClassVar[bool] = False
    """Whether the log has its line."""

    def __init__(self, graphs: Graphs) -> None:
        self._graphs = graphs
        self._plain = False
        self._runs: Counter[tuple[torch.Size, ...]] = Counter()
        self._recordings: dict[tuple[torch.Size, ...], _Recording] = {}

    def __call__(
        self, work: Work, batches: Iterable[NoisyBatch], rates: Sequence[float], moved: Callable[[], Moved]
    ) -> Tensor:
        """Does the work, and returns its losses (2,).

        Args:
            work: the same in every call.
            batches: what it is done with.
            rates: learning rates for a replay; the work knows them without being told.
            moved: lists what the work changes.
        """
        if self._plain or Captured.broken:
            return work(batches, None)
        batches = list(batches)
        shapes = tuple(tensor.shape for batch in batches for tensor in batch.tensors())
        if (recording := self._recordings.get(shapes)) is not None:
            return recording.replayed(batches, rates)
        self._runs[shapes] += 1
        if self._runs[shapes] <= FIRST:
            return work(batches, None)
        if not self._graphs.affordable():
            self._plain = True
            return work(batches, None)
        try:
            before = _Snapshot(moved())
        except torch.OutOfMemoryError:  # the work itself may still have room
            self._plain = True
            return work(batches, None)
        losses = work(batches, None)
        try:
            after = _Snapshot(moved())
        except torch.OutOfMemoryError:
            self._plain = True
            return losses
        if after.places != before.places or not math.isfinite(_norm([losses, *after.all()])):
            self._runs[shapes] = 0  # a state of the optimiser is new, or the run is about to diverge
            return losses
        try:
            recording = _Recording(batches, rates, after)
            captured = functools.partial(recording.run, work)
            self._graphs.warm_up(captured)
            before.restore()
            recording.replay = self._graphs.capture(captured)
            before.restore()
            found = recording.replayed(batches, rates)
            if difference := _difference(found, losses, before, after):
                self._give_up(difference)
            else:
                self._recordings[shapes] = recording
        except Exception as error:
            Captured.broken = True
            first = error.__context__ or error  # the end of a capture that has failed fails as well
            self._give_up(f"{type(first).__name__}: {str(first).strip().partition(chr(10))[0]}")
        finally:
            after.restore()
        return losses

    @property
    def graphs(self) -> int:
        """The number of shapes that are replayed."""
        return len(self._recordings)

    def renew(self, moved: Callable[[], Moved]) -> None:
        """Forgets all graphs if something that they move lies elsewhere now, as after a checkpoint was loaded.

        They are captured anew when the work has run `FIRST` times.
        """
        if self._recordings and {each.places for each in self._recordings.values()} != {_places(moved())}:
            self._recordings.clear()
            self._runs.clear()

    def _give_up(self, cause: str) -> None:
        self._plain = True
        if not Captured.told:
            Captured.told = True
            log.warning(
                "steps are started kernel by kernel, which is slower, because one could not be captured: %s", cause
            )


class _Snapshot:
    """Tensors that work changes, and the values that they have now, with the states of torch's global generators."""

    def __init__(self, moved: Moved) -> None:
        self.places = _places(moved)
        # They share the memory of the tensors, and keep it.
        self.moved = {kind: [tensor.detach() for tensor in tensors] for kind, tensors in moved.items()}
        self.values = {kind: [tensor.clone() for tensor in tensors] for kind, tensors in self.moved.items()}
        self._device = next(self.all()).device
        cuda = self._device.type == "cuda"
        self._random = torch.get_rng_state(), torch.cuda.get_rng_state(self._device) if cuda else None

    def all(self) -> Iterator[Tensor]:
        return (value for values in self.values.values() for value in values)

    def restore(self) -> None:
        """Gives the tensors their values back."""
        for kind, tensors in self.moved.items():
            for tensor, value in zip(tensors, self.values[kind], strict=True):
                tensor.copy_(value)
        on_cpu, on_cuda = self._random
        torch.set_rng_state(on_cpu)
        if on_cuda is not None:
            torch.cuda.set_rng_state(on_cuda, self._device)


class _Recording:
    """Captured work with its buffers.

    The buffers begin with zeros, also while the work is captured, so that the check would notice what is captured in
    the place of being copied.
    """

    def __init__(self, batches: Sequence[NoisyBatch], rates: Sequence[float], moved: _Snapshot) -> None:
        self._batches = [batch.mapped(torch.zeros_like) for batch in batches]
        self._inputs = [tensor for batch in self._batches for tensor in batch.tensors()]
        device = self._inputs[0].device
        self._rates = [torch.zeros((), device=device) for _ in rates]
        self._losses = torch.zeros(2, device=device)
        self.places, self._kept = moved.places, moved.moved
        self.replay: Callable[[], None]

    def run(self, work: Work) -> None:
        """Does the work in the buffers."""
        self._losses.copy_(work(self._batches, self._rates))

    def replayed(self, batches: Sequence[NoisyBatch], rates: Sequence[float]) -> Tensor:
        """Does it again with these batches and rates, and returns the losses (2,)."""
        for buffer, tensor in zip(self._inputs, (each for batch in batches for each in batch.tensors()), strict=True):
            buffer.copy_(tensor)
        for buffer, rate in zip(self._rates, rates, strict=True):
            buffer.fill_(rate)
        self.replay()
        return self._losses.clone()


def _places(moved: Moved) -> tuple[int, ...]:
    return tuple(tensor.data_ptr() for tensors in moved.values() for tensor in tensors)


def _norm(tensors: Iterable[Tensor]) -> float:
    """Returns the Euclidean norm of all values together."""
    return float(torch.stack([tensor.double().norm() for tensor in tensors]).norm())


def _distance(some: Sequence[Tensor], others: Sequence[Tensor]) -> float:
    """Returns the norm of all differences together."""
    return _norm(one.double() - other.double() for one, other in zip(some, others, strict=True))


def _difference(found: Tensor, losses: Tensor, before: _Snapshot, after: _Snapshot) -> str | None:
    """Says what a replay has made otherwise than the work, which led from one snapshot to the other; None for
    nothing.

    Args:
        found: losses of the replay, after which the snapshots' tensors are as it has left them.
        losses: those of the work.
    """
    off, size = _distance([found], [losses]), _norm([losses])
    if not off <= LOSS_LIMIT * size:
        return f"its losses are {off:.1e} off, and {size:.1e} in size"
    for kind, now in after.moved.items():
        wanted = after.values[kind]
        off, change = _distance(now, wanted), _distance(before.values[kind], wanted)
        if not off <= CHANGE_LIMIT * change + ROUNDING * _norm(wanted):
            return f"its {kind} are {off:.1e} off, where the step changes them by {change:.1e}"
        # A small tensor that stays where it was is little among large ones.
        for tensor, old, new in zip(now, before.values[kind], wanted, strict=True):
            if torch.equal(tensor, old) and _distance([new], [old]) > ROUNDING * _norm([old]):
                return f"one of its {kind} of shape {tuple(tensor.shape)} stays where it was, and the step changes it"
    return None
