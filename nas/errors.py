"""The exception tree. Every error that a user can cause is a `SkipnasError`: one line, exit code 2.

A message names the value, the rule that it breaks and the fix. It has no final full stop where a command or path would
swallow it. Any other exception that escapes is a bug and shows its traceback.
"""

from __future__ import annotations

import re
import traceback

from nas.words import visible


class SkipnasError(Exception):
    """Base of every error that a user or an environment can cause. The command line exits with 2."""


class ConfigError(SkipnasError):
    """An option, name or setting is outside its rule."""


class SpecError(SkipnasError):
    """An architecture or recipe is not valid in its space or for its task."""


class DataError(SkipnasError):
    """A data source cannot be read, or lacks something that the task needs."""


class StorageError(SkipnasError):
    """A database cannot be opened, written or understood."""


class LeaseLostError(SkipnasError):
    """A trial belongs to another driver now, or its place in the budget is gone. Nothing was written."""


class ProposalError(SkipnasError):
    """A trial cannot be trained: it was not proposed, or its hyperparameters are no candidate of the space.

    Attributes:
        number: number of the trial, which waits to be failed.
        detail: the reason; a traceback where the code of a sampler or of a space raised.
    """

    def __init__(self, number: int, detail: str) -> None:
        super().__init__(f"trial {number} cannot be trained: {in_short(detail)}")
        self.number, self.detail = number, detail

    @classmethod
    def of(cls, number: int, error: Exception) -> ProposalError:
        """Makes one of an exception that the proposal of a trial raised."""
        told = isinstance(error, SkipnasError)
        return cls(number, str(error) if told else "".join(traceback.format_exception(error)))


class FailuresError(SkipnasError):
    """Trials ended one after the other for one reason, which a person has to look at before the search goes on."""


class LatencyError(SkipnasError):
    """The latency of a network cannot be measured."""


class StudyError(SkipnasError):
    """A study does not exist, or does not match the request."""


class BundleError(SkipnasError):
    """An exported bundle is incomplete, damaged or of another version."""


class NoStudiesError(StorageError):
    """The storage does not exist yet, or contains no study."""


class ClusterError(SkipnasError):
    """Ray or its resources do not fit the search."""


def in_short(what: object) -> str:
    """Shortens an error or a value to one line of at most 160 printable characters; an empty text becomes its type."""
    text = " ".join(str(what).split())
    return visible(text)[:160] or type(what).__name__


_FRAME = re.compile(r'^ +File "(.*)", line (\d+), in .*$', re.MULTILINE)


def cause(detail: str) -> str:
    """Returns the place and the kind of the error that a traceback ends with; "" for a text that is no traceback.

    Two failures with one cause may differ in their messages, because these often contain a candidate's sizes.
    """
    frames = _FRAME.findall(detail)
    if not frames:
        return ""
    kind = detail.strip().splitlines()[-1].partition(":")[0]
    return f"{kind} in {frames[-1][0]} line {frames[-1][1]}"


_NO_MEMORY = (
    "DefaultCPUAllocator",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""Texts of the errors by which torch tells it where it has no error of its own for it: the host's allocator, and what
CUDA and its libraries allocate for themselves beside torch."""

_NO_MEMORY_IN_ONNX_RUNTIME = ("Failed to allocate memory", "bad_alloc")
"""Texts by which ONNX Runtime 1.32 tells it, in errors that have no kind of their own for it."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, the host's or a device's."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if type(error).__module__.startswith("onnxruntime"):
        return any(text in str(error) for text in _NO_MEMORY_IN_ONNX_RUNTIME)
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _NO_MEMORY)
