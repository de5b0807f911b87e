"""From what a person asks for to a running search: data, objectives, limits, study, `run_search`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from nas.data.noise import parse_noise
from nas.data.sources import parse_source
from nas.data.splits import Dataset, load, majority_accuracy
from nas.engine.resources import Resources
from nas.engine.search import Progress, RunOptions, SearchEnd, run_search
from nas.errors import ClusterError, ConfigError, StudyError
from nas.protocols import SearchSpace
from nas.search.objectives import DEFAULT, TrivialQuality, resolve_objectives
from nas.search.rungs import RULES
from nas.search.sampler import CHOICES
from nas.training.version import TRAINING_VERSION
from nas.types import PRECISIONS, Constraint, Measurement, Objective, StudyConfig, Task
from search_spaces import get_space
from studies.commands.enqueue import enqueue_baselines, enqueue_front, measured
from studies.commands.precision import study_precision
from studies.reading.data import path_or_none
from studies.reading.versions import training_versions, versions_line
from studies.store.catalog import create_study, open_study
from studies.store.connection import Storage
from studies.store.database import is_missing, open_storage
from studies.store.deletion import delete_study
from studies.store.files import check_name, claim_files, drop_files
from studies.store.finding import has_study
from studies.store.ledger import SqlLedger
from studies.store.urls import parse_url


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRequest:
    """What a search was asked for; None means: as the study has it, or else the default.

    Attributes are the options of ``skipnas search``.
    """

    study: str | None = None
    space: str | None = None
    data: str | None = None
    data_root: Path | None = None
    noise: str | None = None
    epochs: int | None = None
    objectives: tuple[str, ...] | None = None
    max_params: int | None = None
    max_macs: int | None = None
    sampler: str | None = None
    seed: int | None = None
    subset: int | None = None
    early_stopping: bool | None = None
    within_rank: str | None = None
    precision: str | None = None
    warm_start: str | None = None
    baselines: bool | None = None
    storage: str | None = None
    command: str = ""


DEFAULTS: Mapping[str, Any] = {
    "space": "unet",
    "data": "digits",
    "noise": "gaussian:50",
    "epochs": 27,
    "objectives": DEFAULT,
    "sampler": "auto",
    "seed": 0,
    "early_stopping": False,
    "within_rank": "hypervolume",
    "precision": "auto",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    """A study that is not in the storage yet, and what there is to say about it."""

    config: StudyConfig
    space: SearchSpace
    data: Dataset
    notes: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """A study that is ready to run. `notes` are lines that a person should read first."""

    ledger: SqlLedger
    space: SearchSpace
    data: Dataset
    files: Path
    notes: tuple[str, ...]
    created: bool
    known: Mapping[str, Measurement]

    def run(self, options: RunOptions, observe: Callable[[Progress], None] = lambda progress: None) -> SearchEnd:
        """See `nas.engine.search.run_search`. A study that was made for a run that cannot start is taken back."""
        try:
            return run_search(
                self.ledger.config, self.space, self.ledger, self.data, self.files, options, observe, self.known
            )
        except (ConfigError, ClusterError):
            if self.created and not self.ledger.counts().proposals:
                delete_study(self.ledger.storage, self.ledger.config.study)
                drop_files(self.ledger.storage, self.ledger.config.study)
            raise


def prepare(request: SearchRequest, options: RunOptions) -> Search:
    """Opens the study that `request` names, or creates it, and loads its data.

    Raises:
        SkipnasError: anything asked for that is outside its rule; nothing has been created then.
        StudyError: the study exists and something that is fixed in it was asked for differently.
    """
    _check(request, options)
    name = request.study or default_name(request)
    check_name(parse_url(request.storage), name)
    warm = request.warm_start is not None
    # What would not begin is refused before a database is made for it.
    draft = _draft(request, options, name, None) if not warm and is_missing(request.storage) else None
    storage = open_storage(request.storage, must_exist=warm)
    source = None if request.warm_start is None else open_study(request.warm_start, storage)
    created = not has_study(storage, name)
    if created:
        draft = draft or _draft(request, options, name, source)
        try:
            search = _create(request, draft, storage, source)
        except StudyError:
            if not has_study(storage, name):
                raise
            created = False  # another search made it meanwhile
    if not created:
        search = _resume(request, open_study(name, storage), source)
    lines: list[str] = []
    if request.baselines:
        lines = enqueue_baselines(search.ledger, search.space)
    elif request.baselines is None and created and not warm:
        lines = enqueue_baselines(search.ledger, search.space, most=options.trials // 2)[:1]
    return dataclasses.replace(search, notes=(*search.notes, *lines))


def default_name(request: SearchRequest) -> str:
    """Data and noise as a study's name: ``digits-gaussian-50``."""
    data, noise = request.data or DEFAULTS["data"], request.noise or DEFAULTS["noise"]
    text = f"{Path(data).name if ':' in data else data}-{noise}"
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-._")[:64] or "study"


def _check(request: SearchRequest, options: RunOptions) -> None:
    """Refuses what can be refused without touching data or storage."""
    if request.space is not None:
        get_space(request.space)
    if request.data is not None:
        parse_source(request.data)
    if request.noise is not None:
        parse_noise(request.noise)
    if request.sampler is not None and request.sampler not in CHOICES:
        raise ConfigError(f"sampler {request.sampler!r} is not known; choose from {', '.join(CHOICES)}")
    if request.within_rank is not None and request.within_rank not in RULES:
        raise ConfigError(f"--within-rank {request.within_rank!r} is not known; choose from {', '.join(RULES)}")
    if request.precision is not None and request.precision not in PRECISIONS:
        raise ConfigError(f"--precision {request.precision!r} is not known; choose from {', '.join(PRECISIONS)}")
    for option, value, low in (
        ("--trials", options.trials, 1),
        ("--epochs", request.epochs, 1),
        ("--max-params", request.max_params, 1),
        ("--max-macs", request.max_macs, 1),
        ("--subset", request.subset, 1),
        ("--seed", request.seed, 0),
    ):
        if value is not None and value < low:
            raise ConfigError(f"{option} is {value}; give at least {low}")
    check_resources(options)


def check_resources(resources: Resources) -> None:
    """Raises ConfigError for amounts that no machine has."""
    for option, value, low in (
        ("--concurrency", resources.concurrency, 1),
        ("--gpus-per-trial", resources.gpus_per_trial, 0),
    ):
        if value is not None and value < low:
            raise ConfigError(f"{option} is {value}; give at least {low}")
    if not resources.cpus_per_trial > 0:
        raise ConfigError(f"--cpus-per-trial is {resources.cpus_per_trial:g}; give more than 0")
    for option, seconds in (("--time-limit", resources.time_limit), ("--trial-timeout", resources.trial_timeout)):
        if seconds is not None and seconds <= 0:
            raise ConfigError(f"{option} is {seconds:g} s; give more than 0")


def _resume(request: SearchRequest, ledger: SqlLedger, source: SqlLedger | None) -> Search:
    stored = ledger.config
    space = get_space(stored.space if request.space is None else request.space)
    root = request.data_root or path_or_none(ledger.provenance.get("data_root"))
    asked = stored.data if request.data is None else parse_source(request.data)
    data = load(asked, root=root, subset=stored.subset if request.subset is None else request.subset)
    noise = stored.task.noise if request.noise is None else parse_noise(request.noise).name
    objectives = stored.objectives
    if request.objectives is not None and set(request.objectives) != {o.name for o in objectives}:
        unused = TrivialQuality(psnr=0.0, accuracy=0.0)
        objectives, _ = resolve_objectives(request.objectives, stored.task, unused, stored.constraints)
    wanted = dataclasses.replace(
        stored,
        space=space.name,
        data=asked,
        fingerprint=data.fingerprint,
        task=data.task(noise),
        epochs=request.epochs or stored.epochs,
        objectives=objectives,
        constraints=_limited(stored.constraints, request),
        sampler=request.sampler or stored.sampler,
        seed=stored.seed if request.seed is None else request.seed,
        subset=stored.subset if request.subset is None else request.subset,
        early_stopping=stored.early_stopping if request.early_stopping is None else request.early_stopping,
        within_rank=request.within_rank or stored.within_rank,
        precision=stored.precision if request.precision in (None, "auto") else request.precision,
    )
    if differences := difference(stored, wanted):
        raise StudyError(
            f"study {stored.study!r} is fixed where you ask otherwise ({'; '.join(differences)}); "
            "leave those options out, or give another --study name"
        )
    begun = [] if source is None else [enqueue_front(source, ledger, space)]
    return Search(
        ledger=ledger,
        space=space,
        data=data,
        files=claim_files(ledger.storage, stored.study),
        notes=tuple(filter(None, (versions_line(training_versions(ledger)), *begun))),
        created=False,
        known={} if source is None else measured(source, ledger),
    )


def _draft(request: SearchRequest, options: RunOptions, name: str, source: SqlLedger | None) -> _Draft:
    """What was asked for as a new study; `source` is the one that it begins with."""
    wanted = {
        key: default if getattr(request, key) is None else getattr(request, key) for key, default in DEFAULTS.items()
    }
    space = get_space(wanted["space"])
    data = load(parse_source(wanted["data"]), root=request.data_root, subset=request.subset)
    task = data.task(parse_noise(wanted["noise"]).name)
    constraints = _limited(space.limits(task), request)
    objectives, notes = resolve_objectives(wanted["objectives"], task, trivial_quality(data, task), constraints)
    device, threads = "cuda" if options.gpus_per_trial > 0 else "cpu", max(1, int(options.cpus_per_trial))
    precision = wanted["precision"]
    if precision == "auto" and source is not None:
        precision = source.config.precision  # its measurements are of use in no other
    elif precision == "auto":
        precision, problem = study_precision(space, data, task, constraints, wanted["epochs"], device, threads)
        notes += [problem] if problem else []
    config = StudyConfig(
        study=name,
        space=space.name,
        space_version=space.version,
        data=data.name,
        fingerprint=data.fingerprint,
        task=task,
        epochs=wanted["epochs"],
        objectives=objectives,
        constraints=constraints,
        subset=request.subset,
        sampler=wanted["sampler"],
        seed=wanted["seed"],
        device=device,
        precision=precision,
        threads=threads,
        early_stopping=wanted["early_stopping"],
        within_rank=wanted["within_rank"],
        training_version=TRAINING_VERSION,
    )
    return _Draft(config=config, space=space, data=data, notes=notes)


def _create(request: SearchRequest, draft: _Draft, storage: Storage, source: SqlLedger | None) -> Search:
    from studies.provenance import provenance

    config, space = draft.config, draft.space
    origin = provenance() | {"data_root": str(request.data_root.resolve()) if request.data_root else None}
    ledger = create_study(storage, config, space.distributions(config.task), origin, request.command)
    return Search(
        ledger=ledger,
        space=space,
        data=draft.data,
        files=claim_files(storage, config.study),
        notes=(*draft.notes, *([] if source is None else [enqueue_front(source, ledger, space)])),
        created=True,
        known={} if source is None else measured(source, ledger),
    )


def trivial_quality(data: Dataset, task: Task) -> TrivialQuality:
    """What the noisy validation images and the largest class give without a network."""
    # torch takes a second to import, and a study that exists has its references.
    import torch

    from nas.training.batches import evaluation_batches
    from nas.training.evaluation import noisy_psnr

    labels = data.validation.labels
    return TrivialQuality(
        psnr=noisy_psnr(evaluation_batches(data, "validation", parse_noise(task.noise), torch.device("cpu"))),
        accuracy=None if labels is None else majority_accuracy(labels, len(data.classes)),
    )


def _limited(constraints: tuple[Constraint, ...], request: SearchRequest) -> tuple[Constraint, ...]:
    """The limits, with those that were asked for in the place of the space's own, or beside them."""
    limits = {limit.name: limit for limit in constraints}
    if request.max_params is not None:
        limits["params"] = Constraint(name="params", upper=request.max_params)
    if request.max_macs is not None:
        limits["macs"] = Constraint(name="macs", upper=request.max_macs)
    return tuple(limits.values())


def difference(stored: StudyConfig, wanted: StudyConfig) -> list[str]:
    """One line for each setting that a study fixes and a command asks to be otherwise; empty when none."""
    lines = []
    for label, has, asks in _settings(stored, wanted):
        if has != asks:
            left, right = _show(has), _show(asks)
            if left == right:  # the same names, other figures
                left, right = repr(has), repr(asks)
            lines.append(f"{label}: study has {left}, asked for {right}")
    return lines


def _settings(stored: StudyConfig, wanted: StudyConfig) -> Iterator[tuple[str, Any, Any]]:
    """Label and both values of every setting; the task gives way to its fields."""
    for field in fields(StudyConfig):
        has, asks = getattr(stored, field.name), getattr(wanted, field.name)
        if field.name == "task":
            for part in fields(has):
                yield part.name, getattr(has, part.name), getattr(asks, part.name)
        elif field.name != "study":
            yield field.name.replace("_", " "), has, asks


def _show(value: Any) -> str:
    """A setting as the command line writes it."""
    match value:
        case None:
            return "all"
        case Objective():
            return value.name
        case Constraint():
            return f"{value.name}<={value.upper}"
        case tuple():
            return ",".join(map(_show, value)) or "none"
        case _:
            return str(value)
