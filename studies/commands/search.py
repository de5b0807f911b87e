"""From what a person asks for to a running search: data, objectives, limits, study, `run_search`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nas.data.noise import parse_noise
from nas.data.sources import noise_for, parse_source
from nas.data.splits import Dataset, class_counts, load
from nas.data.white import White
from nas.engine.search import Progress, SearchEnd, run_search
from nas.errors import ClusterError, ConfigError, StudyError
from nas.protocols import SearchSpace
from nas.search.objectives import TrivialQuality, resolve_objectives, unequal
from nas.search.sampler import AUTO
from nas.settings import TRIALS, RunOptions, StudyConfig, differences
from nas.training.version import TRAINING_VERSION
from nas.types import Constraint, Measurement, Task
from search_spaces import get_space, stored_space
from search_spaces.recipes import space_of_study
from studies.commands.enqueue import enqueue_baselines, enqueue_front, measured
from studies.commands.latency import check_study, largest_latency, try_latency
from studies.commands.precision import study_precision
from studies.commands.time_limit import limits_in_time
from studies.reading.data import study_data
from studies.reading.space import CODE, space_code, study_space
from studies.reading.study import StudyReader
from studies.reading.versions import training_versions, versions_line
from studies.settings import SearchRequest
from studies.store.catalog import create_study
from studies.store.connection import Storage
from studies.store.database import is_missing, open_storage
from studies.store.deletion import delete_study
from studies.store.files import check_name, claim_files, drop_files
from studies.store.finding import has_study, refuse_foreign
from studies.store.ledger import SqlLedger
from studies.store.urls import storage_url


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    """A study that is not in the storage yet, and what there is to say about it."""

    config: StudyConfig
    space: SearchSpace
    data: Dataset
    notes: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """A study that is ready to run: read as `study`, searched as `ledger`.

    `notes` are lines that a person should read first.
    """

    study: StudyReader
    ledger: SqlLedger
    space: SearchSpace
    data: Dataset
    files: Path
    notes: tuple[str, ...]
    created: bool
    known: Mapping[str, Measurement]
    latency_command: str | None

    def run(self, options: RunOptions, observe: Callable[[Progress], None] = lambda progress: None) -> SearchEnd:
        """See `nas.engine.search.run_search`. A study that was made for a run that cannot start is taken back."""
        config = self.ledger.config
        try:
            return run_search(
                config,
                self.space,
                self.ledger,
                self.data,
                self.files,
                dataclasses.replace(options, latency_command=self.latency_command),
                observe,
                self.known,
                hint=lambda number: f"; why: skipnas studies show {config.study} --trial {number}",
            )
        except (ConfigError, ClusterError):
            if self.created and not self.ledger.counts().proposals:
                delete_study(self.ledger.storage, config.study)
                drop_files(self.ledger.storage, config.study)
            raise


def prepare(
    request: SearchRequest,
    options: RunOptions,
    doing: Callable[[str], None] = lambda text: None,
    start_ray: Callable[[], None] = lambda: None,
) -> Search:
    """Opens the study that `request` names, or creates it, and loads its data.

    Args:
        request: what is asked for.
        options: resources and limits of the run.
        doing: told what is being done, where that takes seconds.
        start_ray: called once a run is sure to follow, or nearly so, where other work can go on beside Ray's start.

    Raises:
        SkipnasError: anything asked for that is outside its rule; nothing has been created then.
        StudyError: the study exists and something that is fixed in it was asked for differently.
    """
    if request.space is not None:
        get_space(request.space)
    name = request.study or default_name(request)
    check_name(storage_url(request.storage), name)
    warm = request.warm_start is not None
    # What would not begin is refused before a database is made for it.
    draft = _draft(request, options, name, None, doing, start_ray) if not warm and is_missing(request.storage) else None
    storage = open_storage(request.storage, must_exist=warm)
    source = None if request.warm_start is None else StudyReader.open(request.warm_start, storage)
    created = not has_study(storage, name)
    if created:
        refuse_foreign(storage, name)  # before the seconds that a new study takes
        draft = draft or _draft(request, options, name, source, doing, start_ray)
        try:
            search = _create(request, draft, storage, source)
        except StudyError:
            if not has_study(storage, name):
                raise
            created = False  # another search made it meanwhile
    if not created:
        search = _resume(request, options, StudyReader.open(name, storage), source)
    lines: list[str] = []
    if request.baselines:
        lines = enqueue_baselines(search.study, search.space)
    elif request.baselines is None and created and not warm:
        lines = enqueue_baselines(search.study, search.space, options.size or TRIALS)[:1]
    return dataclasses.replace(search, notes=(*search.notes, *lines))


def default_name(request: SearchRequest) -> str:
    """Data and noise as a study's name: ``digits-gaussian-50``."""
    wanted = request.settled()
    data = wanted["data"]
    noise = noise_for(parse_source(data), request.noise, wanted["noise"]).name
    text = f"{Path(data).name if ':' in data else data}-{noise}"
    return re.sub(r"[^A-Za-z0-9._]+", "-", text).strip("-._")[:64] or "study"


def _resume(request: SearchRequest, options: RunOptions, study: StudyReader, source: StudyReader | None) -> Search:
    config = study.config
    if asked_otherwise := differences(config, request):
        raise StudyError(
            f"study {config.study!r} is fixed where you ask otherwise ({'; '.join(asked_otherwise)}); "
            "leave those options out, or give another `study`"
        )
    check_study(config, request.latency_command)
    stored_space(config.space, request.space)
    trained = study.progress.counts().trained
    if not trained or CODE not in study.provenance:
        study.note_origin(CODE, space_code(config.space))  # nothing says yet what other code was
    space = study_space(study, request.space)
    data = study_data(study, request.data_root)
    if config.latency is not None and (options.size is None or trained < options.size):
        try_latency(space, config.task, config.constraints, config.latency)
    begun = [] if source is None else [enqueue_front(source, study, space)]
    return Search(
        study=study,
        ledger=SqlLedger.open(config.study, study.storage),
        space=space,
        data=data,
        files=claim_files(study.storage, config.study),
        notes=tuple(filter(None, (versions_line(training_versions(study)), *begun))),
        created=False,
        known={} if source is None else measured(source, study),
        latency_command=request.latency_command,
    )


def _draft(
    request: SearchRequest,
    options: RunOptions,
    name: str,
    source: StudyReader | None,
    doing: Callable[[str], None],
    start_ray: Callable[[], None],
) -> _Draft:
    """What was asked for as a new study; `source` is the one that it begins with."""
    wanted = request.settled()
    space = get_space(wanted["space"])
    noise = noise_for(parse_source(wanted["data"]), request.noise, wanted["noise"])
    doing(f"reading {wanted['data']} ...")
    data = load(
        wanted["data"],
        root=request.data_root,
        subset=wanted["subset"],
        group_by=wanted["group_by"],
        pair_by=wanted["pair_by"],
        white=White.asked(wanted["white_level"]),
    )
    task = data.task(noise.name)
    latency = request.latency_setting(wanted["objectives"], task)
    # What is measured in seconds that pass, and not in those of this process, has the machine for itself.
    if options.size is not None and latency is None:
        doing("starting Ray ...")
        start_ray()
    space = space_of_study(space, task, wanted["class_weights"], wanted["label_smoothing"])
    constraints = _limited(space.limits(task), wanted["max_params"], wanted["max_macs"])
    trivial = trivial_quality(data, task)
    objectives, notes = resolve_objectives(wanted["objectives"], task, trivial, constraints)
    line = unequal(data.classes, class_counts(data.train.labels, len(data.classes)))
    if line and "accuracy" in wanted["objectives"] and "balanced_accuracy" not in wanted["objectives"]:
        notes.append(f"{line} (--objectives psnr,balanced_accuracy,stability)")
    if latency is not None:
        doing("measuring latency ...")
    smallest = None if latency is None else try_latency(space, task, constraints, latency)
    device, threads = "cuda" if options.gpus_per_trial > 0 else "cpu", max(1, int(options.cpus_per_trial))
    precision = wanted["precision"]
    if precision == "auto" and source is not None:
        precision = source.config.precision  # its measurements are of use in no other
    elif precision == "auto":
        doing("timing training in fp32 and in bf16 ...")
        precision, problem = study_precision(space, data, task, constraints, wanted["epochs"], device, threads)
        notes += [problem] if problem else []
    # A front that a study begins with says itself which sizes are of use.
    if options.size is None and wanted["max_macs"] is None and source is None:
        constraints, lines = limits_in_time(
            space, data, task, constraints, wanted["epochs"], device, precision, options
        )
        notes += lines
        # The limit of a cost is also the reference of its objective.
        objectives, _ = resolve_objectives(wanted["objectives"], task, trivial, constraints)
    if latency is not None and any(each.name == "latency" for each in objectives):
        most = largest_latency(space, task, constraints, latency, smallest)
        objectives = tuple(
            dataclasses.replace(each, reference=most) if each.name == "latency" and most else each
            for each in objectives
        )
    if options.size is None and request.early_stopping is None:
        wanted["early_stopping"] = True
        notes += ["early stopping is on, because more is found with it in the same time"]
    decided = {
        "study": name,
        "space": space.name,
        "space_version": space.version,
        "data": data.name,
        "fingerprint": data.fingerprint,
        "task": task,
        "objectives": objectives,
        "constraints": constraints,
        "device": device,
        "precision": precision,
        "sampler": AUTO if wanted["sampler"] == "auto" else wanted["sampler"],
        "prior": wanted["prior"] if space.prior else "none",
        "threads": threads,
        "training_version": TRAINING_VERSION,
        "white_level": data.white_level,
        "latency": latency,
    }
    as_asked = {field.name: wanted[field.name] for field in dataclasses.fields(StudyConfig) if field.name in wanted}
    return _Draft(config=StudyConfig(**as_asked | decided), space=space, data=data, notes=notes)


def _create(request: SearchRequest, draft: _Draft, storage: Storage, source: StudyReader | None) -> Search:
    from studies.provenance import provenance

    config, space = draft.config, draft.space
    origin = provenance() | {
        "data_root": str(request.data_root.resolve()) if request.data_root else None,
        CODE: space_code(space.name),
    }
    ledger = create_study(storage, config, space.distributions(config.task), origin, request.command)
    study = StudyReader.open(config.study, storage)
    return Search(
        study=study,
        ledger=ledger,
        space=space,
        data=draft.data,
        files=claim_files(storage, config.study),
        notes=(*draft.notes, *([] if source is None else [enqueue_front(source, study, space)])),
        created=True,
        known={} if source is None else measured(source, study),
        latency_command=request.latency_command,
    )


def trivial_quality(data: Dataset, task: Task) -> TrivialQuality:
    """What the noisy validation images and their classes give without a network."""
    # torch takes a second to import, and a study that exists has its references.
    import torch

    from nas.training.batches import evaluation_batches
    from nas.training.evaluation import noisy_psnr

    return TrivialQuality(
        psnr=noisy_psnr(evaluation_batches(data, "validation", parse_noise(task.noise), torch.device("cpu"))),
        counts=class_counts(data.validation.labels, len(data.classes)),
    )


def _limited(limits: tuple[Constraint, ...], params: int | None, macs: int | None) -> tuple[Constraint, ...]:
    """A space's limits, with those that were asked for in the place of its own, or beside them."""
    found = {limit.name: limit for limit in limits}
    if params is not None:
        found["params"] = Constraint(name="params", upper=params)
    if macs is not None:
        found["macs"] = Constraint(name="macs", upper=macs)
    return tuple(found.values())
