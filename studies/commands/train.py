"""One architecture trained for real: from what was asked for to a bundle, with numbers from the test split."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.bundles.files import ARCHITECTURE
from nas.bundles.formats import CALIBRATION_IMAGES, CONVERSIONS, NO_CONVERSIONS, Conversions, Further
from nas.data.augmentation import Augmentation
from nas.data.noise import Noise, noise_in_words, parse_noise
from nas.data.sources import augmentation_for, check_paired, noise_for, parse_source, source_of
from nas.data.white import White
from nas.errors import BundleError, ConfigError, SpecError, StorageError, in_short, is_out_of_memory
from nas.files import read_small
from nas.machine import keep_memory, processors
from nas.protocols import Abilities
from nas.search.objectives import of_basis, titled, unequal
from nas.settings import FitSettings, settings_of
from nas.training.run_folder import refuse_foreign
from nas.training.version import FIRST_VERSION, TRAINING_VERSION
from nas.types import MAX_PARAMS, Candidate, Recipe, Task, without_defaults
from nas.words import visible
from search_spaces import get_space, known_space
from search_spaces.recipes import check_classes
from search_spaces.unet.references import RECIPE, REFERENCES, reference_network
from studies.settings import NO_LIMITS, SizeLimits, TrainRequest
from studies.store.urls import storage_url

if TYPE_CHECKING:
    import torch

    from nas.bundles.assess import Assessment
    from nas.bundles.bundle import Bundle
    from nas.bundles.inference import Predict
    from nas.data.photographs import Photographs
    from nas.data.splits import Dataset
    from nas.protocols import SearchSpace
    from nas.training.batches import TrainingData
    from nas.training.fit import Fit, FitProgress

PATCH = 64
TESTED = (*(metric.name for metric in of_basis("images", "evaluation")), "noisy_psnr", "noisy_self_psnr")
"""Figures on the test split that a training is told with."""

BUNDLE, LOGS = "bundle", "logs"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """What is to be trained: its name for people, a space, and for a task the candidate; data and noise where it knows
    them, and the bundle whose weights are the start."""

    name: str
    space: SearchSpace
    candidate: Callable[[Task, int], Candidate]
    data: str = "digits"
    noise: str = "gaussian:50"
    data_root: Path | None = None
    group_by: str | None = None
    pair_by: str | None = None
    white_level: float | None = None
    study: str | None = None
    trial: int | None = None
    start: Bundle | None = None


def train(
    request: TrainRequest,
    observe: Callable[[FitProgress], None] = lambda progress: None,
    say: Callable[[str], None] = lambda line: None,
    *,
    prefer: Mapping[str, float] | None = None,
    limits: SizeLimits = NO_LIMITS,
    further: Conversions = NO_CONVERSIONS,
) -> dict[str, Any]:
    """Trains, or goes on where the folder was left, and writes the bundle.

    Args:
        request: see `TrainRequest`.
        observe: told of every step.
        say: told what is trained, in lines.
        prefer, limits: of the choice from a study (see `studies.reading.best.choose`).
        further: the less exact programs that the bundle has too, if they pay.

    Returns:
        The result as JSON values: test figures, the epoch of the best weights, seconds, the bundle.

    Raises:
        SkipnasError: something is outside its rule, the folder holds another training, or the run diverged.
    """
    if request.log_dir is not None and not _can_be_made(request.log_dir):
        raise ConfigError(f"`log_dir` {request.log_dir} cannot be written; choose another folder")
    storage_url(request.storage)  # a mistyped one is told of even where no study is asked for
    refuse_foreign(request.to)
    source = _source(request, prefer, limits)
    noise = noise_for(parse_source(request.data or source.data), request.noise, source.noise)
    import torch

    from nas.bundles.files import CARD
    from nas.bundles.start import carry_over, origin
    from nas.training.fit import Fit, fit
    from nas.training.loop import Diverged
    from nas.training.precision import faster_precision
    from nas.training.recognition import best_threshold, recognition_of
    from nas.training.run_folder import claimed, write_run

    torch.set_num_threads(request.threads or processors())
    keep_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = _read(request, source, noise, device)
    candidate = _candidate(request, source, data.task)
    if (params := source.space.cost(candidate.spec, data.task).params) > MAX_PARAMS:
        raise ConfigError(
            f"{source.name} has {params:,} parameters, a bundle at most {MAX_PARAMS:,}; give a smaller one"
        )
    start = None if source.start is None else origin(source.start)
    # The first that differs from an earlier training is named to the user, so causes stand before what follows from
    # them: images without classes make another recipe, for example.
    configuration = {
        "data": data.name,
        **({"group_by": data.group_by} if data.group_by is not None else {}),
        **({"pair_by": data.pair_by} if data.pair_by is not None else {}),
        **({"white_level": data.white_level} if data.white_level is not None else {}),
        "fingerprint": data.fingerprint,
        "subset": request.subset,
        **without_defaults(data.task),
        **({} if start is None else {"start": start["weights"]}),
        "space": source.space.name,
        "architecture": candidate.spec.to_dict(),
        **candidate.recipe.to_dict(),
        **{name: getattr(request, name) for name in settings_of(FitSettings)},
        "augmentation": data.augmentation.name,
        "images_per_epoch": len(data.training),
        "precision": request.precision,
    }
    torch.manual_seed(request.seed)
    network = source.space.build(candidate.spec, data.task)
    anew = [] if source.start is None else carry_over(source.start, network, data.task, data.classes)
    bundle = request.to / BUNDLE
    with (
        _enough_room(request.to),
        claimed(request.to, configuration) as run_file,
        _enough_memory(candidate.recipe, device),
    ):
        # A bundle is moved to its place when it is whole.
        if "result" in run_file and (bundle / CARD).is_file():
            by = run_file.get("training_version", FIRST_VERSION)
            other = f" by version {by} of the training code, and this is version {TRAINING_VERSION}"
            say(f"{request.to} is trained already{other if by != TRAINING_VERSION else ''}; nothing to do")
            told = _conversions_of(bundle)
            if lacking := [CONVERSIONS[name].title for name in further.conversions if told[name] is None]:
                asked = " or ".join(lacking)
                say(f"its bundle has no {asked}; remove {bundle}, and the same command writes it again with them")
            return {**run_file["result"], "bundle": str(bundle), **told}
        run_file = {**run_file, "training_version": TRAINING_VERSION}  # no other one's checkpoint is gone on from
        write_run(request.to, run_file)
        precision = run_file.get("precision", request.precision)
        if precision == "auto":
            precision = faster_precision(network, data.task, candidate.recipe, data.training)
            run_file = {**run_file, "precision": precision}
            write_run(request.to, run_file)
        cost = source.space.cost(candidate.spec, data.task)
        for line in (
            f"{source.name}: {titled(asdict(cost))} for {data.task.height}x{data.task.width} pixels",
            *([] if source.start is None else _start_lines(source.start, data, anew)),
            f"{data.name}, {noise_in_words(noise.name)}: {len(data.training)} {data.unit} an epoch, augmentation: "
            f"{data.augmentation.name}; {precision} on {device.type}, {torch.get_num_threads()} threads",
        ):
            say(line)
        if data.unequal is not None:
            say(data.unequal)
        torch.manual_seed(request.seed)
        run = Fit(network, data.task, candidate.recipe, data.training, request, precision=precision)
        logs = request.log_dir or request.to / LOGS
        try:
            best = fit(run, request.to, observe, logs, judge_start=source.start is not None)
        except Diverged as error:
            too = f", at {0.5**run.cuts:g} of its rate too" if run.cuts else ""
            raise ConfigError(
                f"the training diverged{too}: {error}; give a smaller `learning_rate` than "
                f"{candidate.recipe.learning_rate:g} and another `to`"
            ) from None
        threshold = best_threshold(recognition_of(best.eval(), data.training.validation))
        values, images = data.test(best.cpu(), noise, threshold)
        result = _result(run, values, images, data)
        write_run(request.to, {**run_file, "result": result})
        for cut_off in (bundle, *request.to.glob(f".{BUNDLE}.*.partial")):  # of a process that was killed
            shutil.rmtree(cut_off, ignore_errors=True)
        _write_bundle(bundle, source, candidate, data, best, request, result, configuration, start, threshold, further)
    return {**result, "bundle": str(bundle), **_conversions_of(bundle)}


@contextmanager
def _enough_room(folder: Path) -> Iterator[None]:
    """Says so in one line when the block finds no room on the disk."""
    try:
        yield
    except (OSError, BundleError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError) or cause.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise StorageError(
            f"no room for the training in {folder} ({cause.strerror}); free some and give the same command again, "
            "which goes on from the last checkpoint"
        ) from None


@contextmanager
def _enough_memory(recipe: Recipe, device: torch.device) -> Iterator[None]:
    """Says so in one line when the block runs out of memory."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        place = "the GPU's memory" if device.type == "cuda" else "memory"
        raise ConfigError(
            f"--batch-size {recipe.batch_size} does not fit into {place} ({in_short(error)}); give a smaller one and "
            "another --to (--accumulate makes a step of several batches)"
        ) from None


# --- what is trained ---
def _source(request: TrainRequest, prefer: Mapping[str, float] | None, limits: SizeLimits) -> _Source:
    what, start = request.what, request.start
    if what is None and start is None:
        raise ConfigError("there is nothing to train; name a spec's file, a network of the papers, a study, or `start`")
    if what is not None and start is not None:
        raise ConfigError(f"`start` {start} has an architecture of its own, and {what} names another; leave one out")
    chosen = [*(f"max_{name}" for name in limits.upper), *(["prefer"] if prefer else [])]
    if start is not None:
        _refuse_choice(chosen, start, "a bundle")
        return _from_bundle(start, request)
    assert what is not None
    if what.endswith(".json") or _is_file(what):
        _refuse_choice(chosen, what, "the file of a spec")
        return _from_file(Path(what))
    if what in REFERENCES:
        _refuse_choice(chosen, what, "a network of the papers")
        return _Source(
            name=what,
            space=get_space("unet"),
            candidate=lambda task, epochs: reference_network(what, task, epochs=epochs),
        )
    return _from_study(what, request, prefer, limits)


def _refuse_choice(settings: Sequence[str], what: object, kind: str) -> None:
    for setting in settings:
        raise ConfigError(f"`{setting}` is for the choice from a study, and {what} is {kind}; leave it out")


def _is_file(what: str) -> bool:
    try:
        return Path(what).is_file()
    except OSError:  # too long for a file's name, or in a folder that nobody may enter
        return False


def _from_file(file: Path) -> _Source:
    """A spec as `Spec.to_dict` gives it; or an object with ``spec``, and ``recipe`` and ``space`` if it has them."""
    try:
        value = json.loads(read_small(file))
    except OSError as error:
        raise ConfigError(f"{file} cannot be read ({error.strerror}); give a spec's file, or a name") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file} is not JSON ({error}); give an object with a spec") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{file} holds a JSON {type(value).__name__}; give an object with a spec")
    whole = value if isinstance(value.get("spec"), dict) else {"spec": value}
    named = whole.get("space", "unet")
    space = known_space(str(named.get("name") if isinstance(named, dict) else named))
    try:
        spec = space.spec(whole["spec"])
        recipe = Recipe.from_dict({"epochs": 1, **RECIPE, **dict(whole.get("recipe") or {})})
    except (SpecError, TypeError, ValueError) as error:
        raise SpecError(f"{file}: {error}") from None
    return _Source(
        name=str(file),
        space=space,
        candidate=lambda task, epochs: Candidate(spec=spec, recipe=replace(recipe, epochs=epochs)),
    )


def _from_bundle(folder: Path, request: TrainRequest) -> _Source:
    from studies.bundles import data_of, open_bundle

    bundle = open_bundle(folder)
    recipe = bundle.candidate.recipe

    def candidate(task: Task, epochs: int) -> Candidate:
        own = recipe
        if task.classifies and not bundle.task.classifies and recipe.classification_weight == 0:
            # Without classes nothing was weighed against them, and a head of weight 0 would learn nothing.
            own = replace(recipe, classification_weight=RECIPE["classification_weight"])
        return Candidate(spec=bundle.candidate.spec, recipe=replace(own, epochs=epochs))

    return _Source(
        name=str(folder),
        space=bundle.space,
        candidate=candidate,
        data=parse_source(request.data or data_of(bundle)),
        noise=bundle.task.noise,
        start=bundle,
    )


def _from_study(what: str, request: TrainRequest, prefer: Mapping[str, float] | None, limits: SizeLimits) -> _Source:
    from studies.reading.best import choose
    from studies.reading.space import study_space
    from studies.reading.study import StudyReader
    from studies.store.database import open_storage
    from studies.store.finding import has_study

    name, _, pick = what.partition(":")
    why = ""
    try:
        storage = open_storage(request.storage, must_exist=True)
        found = has_study(storage, name)
    except StorageError as error:
        if request.storage is not None or pick:
            raise
        # Perhaps no study was meant; a database that is there and cannot be read is told of all the same.
        found, why = False, f" ({error})"
    if not found:
        raise ConfigError(
            f"{what!r} is neither a spec's file, nor a reference ({', '.join(REFERENCES)}), nor a study "
            f"of this storage{why}; see: skipnas studies list"
        )
    study = StudyReader.open(name, storage)
    config, chosen = study.config, choose(study, pick=pick or "knee", prefer=prefer, limits=limits).chosen
    space = study_space(study, request.own_space)
    spec, recipe = space.spec(chosen.spec), Recipe.from_dict(chosen.recipe)
    root = study.provenance.get("data_root")
    return _Source(
        name=what,
        space=space,
        candidate=lambda task, epochs: Candidate(spec=spec, recipe=replace(recipe, epochs=epochs)),
        data=config.data,
        noise=config.task.noise,
        data_root=Path(root) if root else None,
        group_by=config.group_by,
        pair_by=config.pair_by,
        white_level=config.white_level,
        study=config.study,
        trial=chosen.number,
    )


def _candidate(request: TrainRequest, source: _Source, task: Task) -> Candidate:
    candidate = source.candidate(task, request.epochs)
    asked = {
        name: value
        for name in ("batch_size", "learning_rate", "weight_decay", "class_weights", "label_smoothing")
        if (value := getattr(request, name)) is not None
    }
    check_classes(task, request.class_weights, request.label_smoothing)
    if not task.classifies:
        asked |= {"classification_weight": 0.0, "class_weights": "none", "label_smoothing": 0.0}
    return replace(candidate, recipe=replace(candidate.recipe, **asked))


# --- what it is trained on ---
@dataclass(frozen=True, slots=True, kw_only=True)
class _Data:
    """Training data, and the test split that is looked at once, at the end.

    Attributes:
        training: for `nas.training.fit`.
        test: a network, the noise and the threshold of two classes to the test figures, and how many images they are
            from.
        images: images of each split; unit: what an epoch counts.
        group_by, pair_by: see `nas.data.splits.load`.
        unequal: a line where one class has most of the training images.
        white_level, deep: see `nas.data.splits.Dataset`.
    """

    name: str
    fingerprint: str
    task: Task
    classes: tuple[str, ...]
    training: TrainingData
    augmentation: Augmentation
    unit: str
    images: Mapping[str, int]
    group_by: str | None
    white_level: float | None
    deep: bool
    test: Callable[[Any, Noise, float | None], tuple[dict[str, float | None], int]]
    pair_by: str | None = None
    unequal: str | None = None


def _read(request: TrainRequest, source: _Source, noise: Noise, device: torch.device) -> _Data:
    """Reads the data, with the expressions of the bundle whose weights are the start where it has any.

    An expression that matches some of the files and not all is refused, because images that belong together might lie
    in two splits. One that matches none was made for other files.
    """
    if source.start is None:
        return _read_by(request, source, noise, device)
    from nas.data.alike import NothingToGroupError
    from studies.bundles import expressions

    named = source_of(source.data)
    kept: dict[str, Any] = expressions(source.start, [*(["group_by"] * named.files), *(["pair_by"] * named.paired)])
    try:
        return _read_by(request, replace(source, **kept), noise, device)
    except NothingToGroupError:
        if request.group_by is not None:
            raise
    del kept["group_by"]
    return _read_by(request, replace(source, **kept), noise, device)


def _read_by(request: TrainRequest, source: _Source, noise: Noise, device: torch.device) -> _Data:
    name = parse_source(request.data or source.data)
    # A study's expression is made for the names of its own files.
    group_by = request.group_by or (source.group_by if name == source.data else None)
    pair_by = request.pair_by or (source.pair_by if name == source.data else None)
    white = White.asked(
        request.white_level or (source.white_level if name == source.data else None),
        trained=None if source.start is None else source.start.white_level,
    )
    augmentation = augmentation_for(name, request.augment)  # an impossible one is refused before anything is read
    check_paired(name, pair_by)
    if source_of(name).photographs:
        return _read_photographs(request, name, noise, augmentation, device, group_by, white)
    for setting, value in (("patch", request.patch), ("patches_per_epoch", request.patches_per_epoch)):
        if value is not None:
            raise ConfigError(f"`{setting}` {value}: {name} has images of one size; it is for images:DIR")
    from nas.data.splits import class_counts, load
    from nas.training.batches import DeviceData

    root = request.data_root or source.data_root
    loaded = load(name, root=root, subset=request.subset, group_by=group_by, pair_by=pair_by, white=white)
    task = loaded.task(noise.name)
    augmentation = augmentation_for(name, request.augment, labelled=bool(loaded.classes))
    return _Data(
        name=name,
        fingerprint=loaded.fingerprint,
        task=task,
        classes=loaded.classes,
        training=DeviceData.of(loaded, task, device, augmentation),
        augmentation=augmentation,
        unit="images",
        images={part: len(getattr(loaded, part).images) for part in ("train", "validation", "test")},
        group_by=group_by,
        white_level=loaded.white_level,
        deep=loaded.deep,
        test=lambda network, noise, threshold: _test_split(network, loaded, noise, threshold),
        pair_by=pair_by,
        unequal=unequal(loaded.classes, class_counts(loaded.train.labels, len(loaded.classes))),
    )


def _read_photographs(
    request: TrainRequest,
    name: str,
    noise: Noise,
    augmentation: Augmentation,
    device: torch.device,
    group_by: str | None,
    white: White,
) -> _Data:
    from nas.data.photographs import Photographs
    from nas.data.raw import PARTS
    from nas.training.patches import Patches

    photographs = Photographs.read(name, _existing(request.to), group_by=group_by, white=white)
    white = white.fixed(photographs.white_level)
    patches = Patches(
        photographs,
        noise,
        patch=request.patch or PATCH,
        per_epoch=request.patches_per_epoch,
        augmentation=augmentation,
        device=device,
        subset=request.subset,
    )
    task = Task(channels=photographs.channels, classes=0, height=patches.patch, width=patches.patch, noise=noise.name)
    counts = {part: len(photographs.of(code)) for code, part in enumerate(PARTS)}
    return _Data(
        name=name,
        fingerprint=photographs.fingerprint,
        task=task,
        classes=(),
        training=patches,
        augmentation=augmentation,
        unit=f"patches of {patches.patch}x{patches.patch} pixels",
        images={**counts, "train": len(patches.chosen)},
        group_by=group_by,
        white_level=photographs.white_level,
        deep=photographs.deep,
        test=lambda network, noise, threshold: _test_photographs(network, photographs, noise, white),
    )


def _test_split(
    network: Any, data: Dataset, noise: Noise, threshold: float | None
) -> tuple[dict[str, float | None], int]:
    from nas.bundles.assess import assess_data

    return _figures(assess_data(network, data, noise, part="test", threshold=threshold))


def _test_photographs(
    network: Any, photographs: Photographs, noise: Noise, white: White
) -> tuple[dict[str, float | None], int]:
    from nas.bundles.assess import assess_photographs
    from nas.data.raw import TEST

    paths = list(dict.fromkeys(photographs.paths[index] for index in photographs.of(TEST)))
    return _figures(assess_photographs(network, photographs.channels, paths, noise, white=white))


def _figures(found: Assessment) -> tuple[dict[str, float | None], int]:
    values = found.to_dict()
    return {name: values[name] for name in TESTED if name in values}, found.images


def _start_lines(start: Bundle, data: _Data, anew: Sequence[str]) -> Iterator[str]:
    """What a person should know of a training that goes on from a bundle."""
    trained_on = visible(str(start.facts.get("data")))
    yield f"it begins with the weights of {start.candidate.digest}, trained on {trained_on}, {start.task.noise}"
    if anew:
        known = "others than those that it knows" if start.classes else "new to it"
        yield (
            f"the {len(data.classes)} classes of {data.name} are {known}: what tells classes apart begins anew, all "
            "other weights are kept"
        )
    elif start.classes and not data.classes and "classify" in Abilities.of(start.network).tasks:
        yield f"{data.name} has no classes: the head that tells {len(start.classes)} apart is left out"
    by = start.facts.get("group_by")
    if isinstance(by, str) and data.group_by is None and source_of(data.name).files:
        yield f"its data was grouped by {visible(by)!r}, which finds nothing in these files: nothing is grouped"
    kind, colon, folder = data.name.partition(":")
    if data.fingerprint not in start.seen and f"{kind}{colon}{Path(folder).name}" == start.facts.get("data"):
        yield "its images are others than then, and some of today's test split may have been trained on"


# --- what comes of it ---
def _result(run: Fit, values: Mapping[str, float | None], images: int, data: _Data) -> dict[str, Any]:
    assert run.best is not None
    return {
        "data": data.name,
        "noise": data.task.noise,
        "epochs": run.epoch,
        "best_epoch": run.best.epoch,
        "rate_cuts": run.cuts,
        **{f"validation_{metric.name}": run.best.values.get(metric.name) for metric in of_basis("images")},
        "seconds": run.seconds,
        "split": "test",
        "images": images,
        **values,
    }


def _write_bundle(
    target: Path,
    source: _Source,
    candidate: Candidate,
    data: _Data,
    network: Any,
    request: TrainRequest,
    result: Mapping[str, Any],
    configuration: Mapping[str, Any],
    start: Mapping[str, Any] | None,
    threshold: float | None,
    further: Conversions,
) -> None:
    from nas.bundles.export import PARITY_IMAGES, export_bundle
    from nas.training.batches import calibration
    from studies.provenance import describe, hardware

    def judge(predict: Predict) -> dict[str, Any]:
        values, _ = data.test(predict, parse_noise(data.task.noise), threshold)
        return {"test": {name: value for name, value in values.items() if value is not None}}

    told = ("subset", "warm_up", "ema", "accumulate", "augmentation", "images_per_epoch", "precision")
    export_bundle(
        target,
        space=source.space,
        candidate=candidate,
        task=data.task,
        classes=data.classes,
        white_level=data.white_level,
        threshold=threshold,
        network=network,
        images=data.training.validation[0][0][:PARITY_IMAGES].cpu(),
        facts={
            "study": source.study,
            "trial": source.trial,
            "seed": request.seed,
            "training_version": TRAINING_VERSION,
            "data": data.name,
            "fingerprint": data.fingerprint,
            "group_by": data.group_by,
            "pair_by": data.pair_by,
            "deep": data.deep,
            "images": dict(data.images),
            **({} if start is None else {"start": start}),
            "values": {name: value for name in TESTED if (value := result.get(name)) is not None},
            "split": "test",
            "hardware": describe(hardware()),
            "training": {
                **{name: configuration[name] for name in told},
                "best_epoch": result["best_epoch"],
                **({"rate_cuts": result["rate_cuts"]} if result["rate_cuts"] else {}),
                "seconds": round(result["seconds"], 1),
            },
        },
        judge=judge if further.conversions else None,
        calibration=calibration(data.training, CALIBRATION_IMAGES, request.seed) if further.quantize else None,
        further=Further(**asdict(further)),
    )


def _conversions_of(bundle: Path) -> dict[str, Any]:
    """Returns what the bundle of a training says of each conversion, by name; None of one that was not asked for."""
    file = bundle / ARCHITECTURE
    try:
        facts = json.loads(read_small(file))["facts"]
        return {name: facts.get(name) for name in CONVERSIONS}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise BundleError(
            f"{file}: cannot be read ({in_short(error)}); remove {bundle}, and the same command writes it again"
        ) from None


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    folder = folder.resolve()
    return next(each for each in (folder, *folder.parents) if each.is_dir())


def _can_be_made(folder: Path) -> bool:
    resolved = folder.resolve()
    first = next(each for each in (resolved, *resolved.parents) if each.exists())
    return first.is_dir() and os.access(first, os.W_OK | os.X_OK)
