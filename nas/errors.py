"""The exception tree. Everything a user can cause is a `SkipnasError`: one line, exit code 2.

A message names the value, the rule it breaks and the fix, in one line and without a final full stop
where a command or path would swallow it. Anything else that escapes is a bug and shows its traceback.
"""


class SkipnasError(Exception):
    """Base of every error that a user or an environment can cause; the command line exits with 2."""


class ConfigError(SkipnasError):
    """An option, name or setting is outside its rule."""


class SpecError(SkipnasError):
    """An architecture or recipe is not valid in its space or for its task."""


class DataError(SkipnasError):
    """A data source cannot be read or does not hold what the task needs."""


class StorageError(SkipnasError):
    """A database cannot be opened, written or understood."""


class LeaseLostError(SkipnasError):
    """A trial belongs to another driver now, or a place in the budget is gone; nothing was written."""


class StudyError(SkipnasError):
    """A study does not exist, or does not match what was asked of it."""


class BundleError(SkipnasError):
    """An exported bundle is incomplete, damaged or of another version."""


class NoStudiesError(StorageError):
    """The storage is not there yet, or no study has been kept in it."""


class ClusterError(SkipnasError):
    """Ray or its resources are not what the search needs."""


def in_short(what: object) -> str:
    """What an error or a value says in one line of at most 160 printable characters; its type when it says nothing."""
    text = " ".join(str(what).split())
    return "".join(letter if letter.isprintable() else "?" for letter in text)[:160] or type(what).__name__


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, the host's or a device's."""
    import torch

    # torch raises a plain RuntimeError when the host's allocator fails.
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
