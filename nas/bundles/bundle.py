"""A bundle: a folder that contains one trained network and everything that is needed to use it, opened with suspicion.

Only JSON and safetensors are read here, never model.pt2 or anything else that is pickled, and nothing in a bundle names
code. Sizes, names and types are checked before they are used. `nas.bundles.export` writes bundles.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from nas.bundles.description import description
from nas.bundles.files import ARCHITECTURE, SUMS, WEIGHTS
from nas.bundles.sums import check_sums, sum_of
from nas.data.noise import parse_noise
from nas.data.preparation import Preparation
from nas.data.sources import preparation_for
from nas.errors import BundleError, SkipnasError
from nas.files import read_small
from nas.protocols import SearchSpace
from nas.types import MAX_CHANNELS, MAX_PARAMS, MAX_SIDE, Candidate, Recipe, Task, from_fields
from nas.words import visible

FORMAT = 2
"""The version of the layout of a bundle and of its architecture.json. Bundles have sums of their files since version 2,
and programs without an output of no classes."""

MAX_JSON = 2**20
"""The limit in bytes of architecture.json, and of the header in front of the tensors."""

DTYPES = {torch.float32: "F32", torch.int64: "I64"}
"""The types of the networks' tensors, by their names in safetensors."""

FINGERPRINT = re.compile("[0-9a-f]{16}")
"""The fingerprint of data, see `nas.data.splits.Dataset`."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """An opened bundle.

    Attributes:
        path: the folder.
        space: the search space that built the network.
        candidate: spec and training recipe.
        task: the task that the network was trained for; other image sizes work too.
        classes: class names by index; empty without classes.
        network: on the CPU, in evaluation mode: noisy (N, C, H, W) -> denoised (N, C, H, W), not clipped, and logits
            (N, K).
        facts: origin and measurements of the network, as given to `nas.bundles.export.export_bundle`.
        white_level: value of white in the training data; None where each type's own largest value is white.
        threshold: the probability of the second of two classes from which on it is answered, chosen on validation; None
            where the largest logit is answered.
        versions: version of each package that wrote the bundle.
        format: version of the layout.
    """

    path: Path
    space: SearchSpace
    candidate: Candidate
    task: Task
    classes: tuple[str, ...]
    network: nn.Module
    facts: Mapping[str, Any]
    white_level: float | None = None
    threshold: float | None = None
    versions: Mapping[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def description(self) -> dict[str, Any]:
        """What the network is, takes and gives, and its figures (see `nas.bundles.description`)."""
        return description(
            space=self.space,
            candidate=self.candidate,
            task=self.task,
            classes=self.classes,
            network=self.network,
            facts=self.facts,
            versions=self.versions,
            white_level=self.white_level,
            preparation=self.preparation,
            threshold=self.threshold,
        )

    @property
    def weights_digest(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of the weights' file.

        The candidate's digest is that of spec and recipe, which other weights have too.
        """
        return sum_of(self.path / WEIGHTS)[:16]

    @property
    def preparation(self) -> Preparation | None:
        """The form in which the network was shown the images whose classes it learned; see `preparation_for`."""
        return preparation_for(str(self.facts.get("data")), self.task)

    @property
    def seen(self) -> tuple[str, ...]:
        """The fingerprints of all data that the weights were trained on, the newest first; "" for unknown data.

        There are several where the training began with the weights of another bundle.
        """
        start = self.facts.get("start")
        older = start.get("seen") if isinstance(start, dict) else []
        found = [self.facts.get("fingerprint"), *(older if isinstance(older, list) else [None])]
        known = (each if isinstance(each, str) and FINGERPRINT.fullmatch(each) else "" for each in found)
        return tuple(dict.fromkeys(known))


def open_bundle(path: Path, get_space: Callable[[str], SearchSpace]) -> Bundle:
    """Opens a bundle that may come from a stranger.

    Args:
        path: the folder.
        get_space: name -> search space; raises SkipnasError for an unknown name.

    Raises:
        BundleError: the folder is no bundle, of another version, incomplete, changed, damaged or inconsistent.
    """
    try:
        if (path / SUMS).exists():
            check_sums(path)
        bundle = read_bundle(path, get_space)
        if bundle.format > 1 and not (path / SUMS).exists():
            _refuse(path / SUMS, "is missing; give a folder that `skipnas export` wrote")
        return bundle
    except OSError as error:
        raise BundleError(f"{path}: cannot be read ({error}); give a folder that can be") from None


def read_bundle(path: Path, get_space: Callable[[str], SearchSpace]) -> Bundle:
    """Reads a bundle without a look at its sums, as `open_bundle` does, which is not written to its end yet."""
    if not path.is_dir():
        raise BundleError(f"{path}: not a folder; give a folder that `skipnas export` wrote")
    source = path / ARCHITECTURE
    value = _read_object(source)
    if type(version := value.get("format")) is not int or not 1 <= version <= FORMAT:
        _refuse(source, f"format is {version!r}, this skipnas reads 1 to {FORMAT}; update skipnas")
    with _blaming(source):
        space = _space(_field(value, "space", dict), get_space)
        spec = space.spec(_field(value, "spec", dict))
        candidate = Candidate(spec=spec, recipe=Recipe.from_dict(_field(value, "recipe", dict)))
        task = _task(_field(value, "task", dict))
        classes = _classes(_field(value, "classes", list), task)
        facts = _field(value, "facts", dict)
        white_level = _white_level(value.get("white_level"))
        threshold = _threshold(value.get("threshold"), task)
        if (digest := _field(value, "digest", str)) != candidate.digest:
            raise BundleError(f"digest is {digest!r}, that of the spec and recipe is {candidate.digest!r}")
        if (params := space.cost(spec, task).params) > MAX_PARAMS:
            raise BundleError(f"the network has {params} parameters, a bundle at most {MAX_PARAMS}")
    # A file that is too small for them is refused before it takes memory, too.
    _check_size(path / WEIGHTS, 4 * params, 8 * MAX_PARAMS)
    with _blaming(source):
        # Fresh weights are drawn and thrown away, which must not change the caller's random numbers.
        with torch.random.fork_rng(devices=[]):
            network = space.build(spec, task).eval()
        bundle = Bundle(
            path=path,
            space=space,
            candidate=candidate,
            task=task,
            classes=classes,
            network=network,
            facts=facts,
            white_level=white_level,
            versions=_field(value, "versions", dict) if "versions" in value else {},
            format=version,
            threshold=threshold,
        )
        _check_preparation(value, bundle.preparation)
    network.load_state_dict(_read_weights(path / WEIGHTS, network.state_dict()))
    return bundle


@contextlib.contextmanager
def _blaming(file: Path) -> Iterator[None]:
    """Turns what is wrong with the values of a file into its refusal."""
    try:
        yield
    except SkipnasError as error:
        _refuse(file, f"{error}; export the bundle again")


def _refuse(file: Path, reason: str) -> NoReturn:
    """Raises BundleError in one short line, whatever a stranger has put into the values that it names."""
    reason = " ".join(reason.split())
    raise BundleError(f"{file}: {reason if len(reason) <= 240 else reason[:237] + '...'}") from None


def _read_object(file: Path) -> dict[str, Any]:
    _check_size(file, 0, MAX_JSON)
    try:
        value = json.loads(read_small(file, MAX_JSON))
    except (ValueError, RecursionError) as error:
        _refuse(file, f"not JSON ({error}); export the bundle again")
    if not isinstance(value, dict):
        _refuse(file, f"holds a JSON {type(value).__name__}, must be an object; export the bundle again")
    return value


def _check_size(file: Path, least: int, most: int) -> None:
    if not file.is_file():
        _refuse(file, "is missing; give a folder that `skipnas export` wrote")
    if not least <= (size := file.stat().st_size) <= most:
        _refuse(file, f"has {size} bytes, must have {least} to {most}; export the bundle again")


def _field(value: Mapping[str, Any], name: str, kind: type[T]) -> T:
    """Returns a field of exactly that type: JSON's true is no integer."""
    if type(found := value.get(name)) is not kind:
        raise BundleError(f"{name} is {found!r}, must be of type {kind.__name__}")
    return found


def _space(value: Mapping[str, Any], get_space: Callable[[str], SearchSpace]) -> SearchSpace:
    space = get_space(_field(value, "name", str))
    if not 1 <= (version := _field(value, "version", int)) <= space.version:
        raise BundleError(
            f"version {version} of space {space.name}, this skipnas knows 1 to {space.version}; update it"
        )
    return space


def _task(value: Mapping[str, Any]) -> Task:
    for name in ("channels", "classes", "height", "width"):
        low, most = 0 if name == "classes" else 1, MAX_CHANNELS if name == "channels" else MAX_SIDE
        if not low <= (number := _field(value, name, int)) <= most:
            raise BundleError(f"task: {name} is {number}, must be {low} to {most}")
    parse_noise(_field(value, "noise", str))
    return from_fields(Task, value, "task")


def _check_preparation(value: Mapping[str, Any], known: Preparation | None) -> None:
    """Checks that images are prepared as this bundle's were; bundles from before this was kept all have one way."""
    if "preparation" in value and value["preparation"] != (None if known is None else known.to_dict()):
        raise BundleError(f"preparation is {value['preparation']}, this skipnas prepares images otherwise; update it")


def _classes(value: list[Any], task: Task) -> tuple[str, ...]:
    if len(value) != task.classes:
        raise BundleError(f"{len(value)} class names for {task.classes} classes")
    for name in value:
        # Names are printed, and a terminal must not take one for a command.
        if not (isinstance(name, str) and visible(name) == name):
            raise BundleError(f"class name {name!r} has control characters")
    return tuple(value)


def _white_level(value: Any) -> float | None:
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 < value < 2**32:
        raise BundleError(f"white_level is {value!r}, must be a number above 0 and at most {2**32 - 1}")
    return float(value)


def _threshold(value: Any, task: Task) -> float | None:
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 < value < 1:
        raise BundleError(f"threshold is {value!r}, must be a probability above 0 and below 1")
    if task.classes != 2:
        raise BundleError(f"threshold is {value!r} for {task.classes} classes, must be for 2")
    return float(value)


def _read_weights(file: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Reads the tensors of a file, whose header must promise exactly `expected` before any of them is read."""
    needed = sum(tensor.nbytes for tensor in expected.values())
    _check_size(file, needed, needed + 2 * MAX_JSON)  # names of tensors, and of classes
    wanted = {name: (DTYPES[tensor.dtype], list(tensor.shape)) for name, tensor in expected.items()}
    try:
        with safe_open(file, framework="pt") as weights:
            parts = {name: weights.get_slice(name) for name in weights.keys()}  # noqa: SIM118 (not a mapping)
            found = {name: (part.get_dtype(), part.get_shape()) for name, part in parts.items()}
            for name in sorted(wanted.keys() | found.keys()):
                if found.get(name) != wanted.get(name):
                    rule = f"the architecture has {wanted.get(name, 'none')}"
                    _refuse(file, f"tensor {name!r} is {found.get(name, 'missing')}, {rule}; export the bundle again")
            tensors = {name: weights.get_tensor(name) for name in wanted}
    except SafetensorError as error:
        _refuse(file, f"not readable as safetensors ({error}); export the bundle again")
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            _refuse(file, f"tensor {name!r} holds values that are not finite; export the bundle again")
    return tensors
