"""CUDA graphs as they can be had on a CPU: the operators of torch that some work calls, with the tensors that it calls
them with. A replay knows nothing of Python, and finds and leaves everything where the capture did."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nas.training.captured import WARM_UPS

ASKING = (
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.lift_fresh.default,  # of a tensor made of Python's values
)
"""Operators with which a program waits for its device."""


class _Recorder(TorchDispatchMode):
    """Records every operator, of the backward pass too."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in ASKING:
            raise RuntimeError("operation not permitted when stream is capturing\nand what else CUDA says")
        made = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, made))
        return made


class Recorded:
    """Stands for `nas.training.captured.CudaGraphs`.

    Attributes:
        warmed, captured, replayed: how often that was done.
        room: whether there is memory.
    """

    def __init__(self) -> None:
        self.warmed, self.captured, self.replayed = 0, 0, 0
        self.room = True

    def affordable(self) -> bool:
        return self.room

    def warm_up(self, work: Callable[[], None]) -> None:
        for _ in range(WARM_UPS):
            work()
            self.warmed += 1

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        with _Recorder() as recorder:
            work()
        self.captured += 1

        def replay() -> None:
            self.replayed += 1
            with torch.no_grad():
                for call in recorder.calls:
                    _again(*call)

        return replay


def _again(func: Any, args: Any, kwargs: Any, made: Any) -> None:
    """Calls an operator again, with its result in the place of the first one's."""
    aliases = [returned.alias_info for returned in func._schema.returns if returned.alias_info is not None]
    if aliases and not any(alias.is_write for alias in aliases):
        return  # a view shows what its tensor holds now
    found = func(*args, **kwargs)
    if not aliases:
        for old, new in zip(tree_leaves(made), tree_leaves(found), strict=True):
            if isinstance(old, torch.Tensor):
                old.copy_(new)
