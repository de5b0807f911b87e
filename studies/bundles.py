"""Bundles: written from a study's choice, opened by the name of their space, evaluated by name of data."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from nas.bundles.bundle import MAX_JSON, Bundle
from nas.bundles.bundle import open_bundle as _open_bundle
from nas.bundles.files import ARCHITECTURE
from nas.bundles.formats import CALIBRATION_IMAGES, CONVERSIONS, FORMATS, NOTHING_FURTHER, Further
from nas.data.white import DATA, White, WhiteLevel
from nas.errors import BundleError, ConfigError, DataError, in_short
from nas.files import read_small
from nas.search.confirmation import comparable
from nas.settings import regular_expression
from nas.types import Candidate, Recipe, Spec, Task
from search_spaces import known_space
from studies.provenance import describe
from studies.reading.best import choose
from studies.reading.data import study_data
from studies.reading.space import study_space
from studies.settings import NO_LIMITS, SizeLimits
from studies.store.files import files_dir
from studies.zoo import bundle_folder

if TYPE_CHECKING:
    from torch import nn

    from nas.bundles.assess import Assessment
    from nas.bundles.export import Judge
    from nas.bundles.inference import Predict
    from nas.data.splits import Dataset
    from nas.protocols import SearchSpace
    from nas.search.confirmation import Confirmed
    from studies.reading.study import StudyReader

T = TypeVar("T")
SPLITS = ("test", "validation")


def open_bundle(path: Path | str) -> Bundle:
    """Opens a bundle of any of the project's spaces; ``open_bundle(path).network`` is ready to use.

    Args:
        path: its folder, or the name of one that skipnas ships (see `studies.zoo`).

    Raises:
        BundleError: the folder is not a complete, undamaged bundle of a known version and space.
    """
    return _open_bundle(bundle_folder(Path(path)), known_space)  # never a space that has to be imported


def export_choice(
    study: StudyReader,
    target: Path,
    *,
    pick: str = "knee",
    prefer: Mapping[str, float] | None = None,
    limits: SizeLimits = NO_LIMITS,
    data_root: Path | None = None,
    licence: str | None = None,
    further: Further = NOTHING_FURTHER,
    own_space: str | None = None,
) -> dict[str, Any]:
    """Writes the bundle of a member of a study's front.

    Args:
        study: the study.
        target: folder to make.
        pick, prefer, limits: see `studies.reading.best.choose`.
        data_root: where the data lies, if not where it lay when the study was made.
        licence: of the network, for its card.
        further: see `nas.bundles.export.export_bundle`.
        own_space: the study's own search space, whose code is imported; see `search_spaces.stored_space`.

    Returns:
        What was chosen and why, the files, what was measured on validation and test, and the parity of the programs.

    Raises:
        StudyError, ConfigError: no such choice, or its weights are gone. BundleError: it cannot be written.
    """
    import torch

    from nas.bundles.export import PARITY_IMAGES, export_bundle
    from nas.data.noise import parse_noise
    from nas.training.batches import evaluation_batches, noisy_batches
    from nas.training.evaluation import noisy_psnr
    from nas.training.recognition import best_threshold, recognition_of

    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        # Refused before anything is loaded; export_bundle holds the same rule.
        raise BundleError(f"`to` {target} exists and is not an empty folder; choose another")
    choice = choose(study, pick=pick, prefer=prefer, limits=limits)
    chosen = choice.chosen
    config = study.config
    space = study_space(study, own_space)
    spec = space.spec(chosen.spec)
    candidate = Candidate(spec=spec, recipe=Recipe.from_dict(chosen.recipe))
    network = trained_network(study, space, spec, chosen.number, chosen.digest)
    data = study_data(study, data_root)
    noise, cpu = parse_noise(config.task.noise), torch.device("cpu")
    batches = list(evaluation_batches(data, "validation", noise, cpu))
    threshold = best_threshold(recognition_of(network.eval(), batches))
    calibration = None
    if further.quantize:
        shown = data.train.chosen(calibration_rows(len(data.train.images)))
        calibration = next(noisy_batches(shown, noise, cpu, seed=0))[0]
    searched = study.trial(chosen.number)
    latency, eager = config.latency, "latency" in (searched.values or {})
    facts = {
        "study": config.study,
        "trial": chosen.number,
        "seed": searched.seed,
        "training_version": searched.trained_by,
        "data": config.data,
        "fingerprint": config.fingerprint,
        "group_by": config.group_by,
        "pair_by": config.pair_by,
        "deep": data.deep,
        "images": {part: len(getattr(data, part).images) for part in ("train", "validation", "test")},
        "values": {
            **(searched.values or {}),
            "noisy_psnr" if config.task.clean else "noisy_self_psnr": noisy_psnr(batches),
        },
        "split": "validation",
        # A command measures on other hardware, which nobody knows here.
        "hardware": None if latency and latency.command else describe(study.provenance["hardware"]),
        "latency_of": f"on {latency.images}, {latency.place}" if latency else "in eager PyTorch" if eager else None,
        "reason": choice.reason,
        "licence": licence,
    }
    if chosen.number in choice.confirmed:
        facts["confirmed"] = _confirmed_facts(study, choice.confirmed[chosen.number])
    parity = export_bundle(
        target,
        space=space,
        candidate=candidate,
        task=config.task,
        classes=data.classes,
        network=network,
        images=batches[0][0][:PARITY_IMAGES],
        facts=facts,
        judge=_measuring(data, config.task, threshold),
        calibration=calibration,
        white_level=data.white_level,
        further=further,
        threshold=threshold,
    )
    return {"trial": chosen.number, "reason": choice.reason, **_exported(target, parity, space)}


def export_again(
    path: Path, target: Path, *, further: Further = NOTHING_FURTHER, licence: str | None = None
) -> dict[str, Any]:
    """Writes the bundle of an existing one's network, with the formats that are asked for now.

    Its figures stay. Its int8 program is left out, because that needs images of the training.

    Args:
        path: the existing bundle.
        target: folder to make.
        further: see `nas.bundles.export.export_bundle`.
        licence: of the network, for its card; by default what the existing one says.

    Returns:
        See `export_choice`.

    Raises:
        BundleError: `path` is no bundle, or the new one cannot be written.
    """
    import torch

    from nas.bundles.export import PARITY_IMAGES, export_bundle

    bundle = open_bundle(path)
    _check_card(bundle.path)
    task = bundle.task
    facts = {name: value for name, value in bundle.facts.items() if name not in CONVERSIONS}
    generator = torch.Generator().manual_seed(0)
    parity = export_bundle(
        target,
        space=bundle.space,
        candidate=bundle.candidate,
        task=task,
        classes=bundle.classes,
        network=bundle.network,
        images=torch.rand(PARITY_IMAGES, task.channels, task.height, task.width, generator=generator),
        facts=facts if licence is None else facts | {"licence": licence},
        white_level=bundle.white_level,
        further=further,
        threshold=bundle.threshold,
    )
    return {"trial": facts.get("trial"), "reason": f"the network of {path}", **_exported(target, parity, bundle.space)}


def _check_card(path: Path) -> None:
    """Raises BundleError for facts that a card cannot be written of, as a stranger's bundle may have them."""
    from nas.bundles.card import card

    parity = {"sizes": [], "differences": {name: {"denoised": 0.0} for name in FORMATS}}
    try:
        card(json.loads(read_small(path / ARCHITECTURE, MAX_JSON)), parity, FORMATS)
    except KeyError as error:
        raise BundleError(
            f"{path / ARCHITECTURE}: lacks {error}, as bundles of older versions do; export its study again, or "
            "train it again"
        ) from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise BundleError(f"{path / ARCHITECTURE}: has facts that no export writes ({in_short(error)})") from None


def _exported(target: Path, parity: Mapping[str, Any], space: SearchSpace) -> dict[str, Any]:
    """Returns what is told of a bundle of this space that was written, with its `parity`."""
    written = _open_bundle(target, lambda _: space)  # it may be the user's own, which no bundle names for import
    return {
        "to": str(target),
        "files": sorted(path.name for path in target.iterdir()),
        "measured": written.facts.get("measured") or written.description.get("measured", {}),
        "threshold": written.threshold,
        **{name: written.facts.get(name) for name in CONVERSIONS},
        "differences": {program: max(outputs.values()) for program, outputs in parity["differences"].items()},
    }


def calibration_rows(images: int) -> list[int]:
    """Returns which of so many training images calibrate an int8 program: some of every class, and each once."""
    return sorted({place * (images - 1) // (CALIBRATION_IMAGES - 1) for place in range(CALIBRATION_IMAGES)})


def trained_network(study: StudyReader, space: SearchSpace, spec: Spec, number: int, digest: str) -> nn.Module:
    """A trial's network with the weights that the search kept.

    Raises:
        StudyError: they are gone, damaged, or of another candidate than `digest`.
    """
    from nas.training.checkpoint import load_weights

    network = space.build(spec, study.config.task)
    load_weights(network, files_dir(study.storage.url, study.config.study), number, digest)
    return network


def _confirmed_facts(study: StudyReader, confirmed: Confirmed) -> dict[str, Any]:
    """A candidate's means and intervals, and the seeds and the training code behind them, for the card."""
    runs = [run for run in comparable(study.progress.confirmations()) if run.digest == confirmed.digest]
    return {
        "seeds": [run.seed for run in runs],
        "training_version": runs[0].training_version,
        "values": {name: asdict(value) for name, value in confirmed.values.items()},
    }


def _measuring(data: Dataset, task: Task, threshold: float | None) -> Judge:
    """What finds what ``evaluate`` does on validation and test by its defaults, for the card."""
    from nas.bundles.assess import assess_data, assess_photographs
    from nas.data.noise import parse_noise
    from nas.data.raw import PARTS
    from nas.data.sources import source_of
    from nas.data.splits import split_photographs

    noise = parse_noise(task.noise)
    white = White(given=data.white_level, ask=False)
    whole: dict[str, list[Path]] = {part: [] for part in PARTS}
    if source_of(data.name).photographs:
        split = split_photographs(data.name, group_by=data.group_by, white=white, tell=lambda *told: None)
        whole = {part: split.files(code) for code, part in enumerate(PARTS)}

    def measure(predict: Predict) -> dict[str, Any]:
        measured = {}
        for part in ("validation", "test"):
            if whole[part]:
                found = assess_photographs(predict, task.channels, whole[part], noise, white=white)
            else:
                found = assess_data(predict, data, noise, part=part, threshold=threshold)
            measured[part] = found.figures() | {"images": found.images, "draws": found.draws}
        return measured

    return measure


def evaluate_bundle(
    path: Path,
    *,
    data: str | None = None,
    noise: str | None = None,
    split: str | None = None,
    reference: str | None = None,
    corruptions: bool = False,
    pair_by: str | None = None,
    white_level: WhiteLevel | None = None,
    ensemble: bool = False,
    data_root: Path | None = None,
) -> dict[str, Any]:
    """PSNR, SSIM and accuracy of a bundle at each noise level, beside the noisy input's.

    Args:
        path: folder of the bundle.
        data: source as for a search; by default the one that the bundle was searched on. The photographs
            of ``images:DIR`` are judged whole, at their full sizes.
        noise: one or more, with commas between them; by default the bundle's.
        split: one of `SPLITS`; by default ``test``, and all of a folder that has no splits of its own and
            is not what the bundle was searched on.
        reference: name of a denoiser of `nas.bundles.reference_denoisers` to judge as well.
        corruptions: whether it is also judged under every corruption of `nas.data.corruptions`.
        pair_by: see `nas.data.splits.load`; by default the bundle's, where it fits.
        white_level: value of white in the images, or the word for their largest; by default what their files say, or
            that of the bundle's data.
        ensemble: whether the network restores each image by `nas.bundles.inference.self_ensemble`. Its figures without
            that are then in each level too, as ``once_psnr`` and so on.
        data_root: see `nas.data.splits.load`.

    Returns:
        What was judged, what was drawn for each image, the class names, and under ``levels`` an
        `nas.bundles.assess.Assessment` for each noise. Under ``corruptions`` are the figures under each corruption,
        with its kind, noise and strength, from 0 for clean images to 5; None without them.

    Raises:
        BundleError, DataError, ConfigError: the bundle, the data or a name is not as it must be.
    """
    from nas.bundles.assess import assess_bundle, assess_photographs
    from nas.bundles.inference import self_ensemble, tiled
    from nas.bundles.reference_denoisers import Denoiser, reference_denoiser
    from nas.data.corruptions import levels_of_corruption
    from nas.data.noise import Noise, parse_noise, parse_noises
    from nas.data.sources import check_paired, noise_for, parse_source, source_of
    from nas.data.splits import load, photographs

    if split is not None and split not in SPLITS:
        raise ConfigError(f"`split` {split!r} is not known; choose from {', '.join(SPLITS)}")
    denoiser = None if reference is None else reference_denoiser(reference)
    bundle = open_bundle(path)
    name = parse_source(data or data_of(bundle))
    asked = [None] if noise is None else [each.name for each in parse_noises(noise)]
    noises = [noise_for(name, part, bundle.task.noise) for part in asked]
    check_paired(name, pair_by)
    if reference is not None and source_of(name).noisy:
        raise ConfigError(
            f"`reference` {reference}: {name} has no clean images, beside which it would be judged; leave it out"
        )
    if corruptions and source_of(name).own_noise:
        raise ConfigError(
            f"`corruptions`: {name} has noise of its own, and clean images alone are corrupted; leave it out, or give "
            "other `data`"
        )
    kind, _, own = name.partition(":")
    seen = seen_by(bundle, kind)
    white = white_asked(bundle, white_level)
    if source_of(name).files and white_level not in (None, bundle.white_level):
        check_scale(bundle, name, data_root)
    drawn = "noise"
    alone: Predict = bundle.network
    if source_of(name).photographs:
        alone = tiled(bundle.network, bundle.task.channels)
        paths, part, white = read_for_bundle(
            bundle, ("group_by",), lambda **kept: photographs(name, split, seen=seen, white=white, **kept)
        )

        def judged(run: Predict, level: Noise, denoiser: Denoiser | None, structure: bool) -> Assessment:
            return assess_photographs(
                run,
                bundle.task.channels,
                paths,
                level,
                denoiser=denoiser,
                structure=structure,
                white=white,
            )
    else:
        fixed: dict[str, Any] = {"root": data_root, "wanted": bundle.preparation, "white": white}
        fixed |= {} if pair_by is None else {"pair_by": pair_by}
        by = ["group_by", *(["pair_by"] if source_of(name).paired and pair_by is None else [])]
        loaded = read_for_bundle(bundle, by, lambda **kept: load(name, **fixed, **kept))
        foreign = own and seen is not None and loaded.fingerprint not in seen
        part = split or ("all" if foreign and not loaded.has_own_splits else "test")
        drawn = loaded.test.drawn

        def judged(run: Predict, level: Noise, denoiser: Denoiser | None, structure: bool) -> Assessment:
            return assess_bundle(bundle, loaded, level, part=part, denoiser=denoiser, structure=structure, run=run)

    judge = partial(judged, self_ensemble(alone) if ensemble else alone)
    found = [judge(level, denoiser, True) for level in noises]
    once = [judged(alone, level, None, True) if ensemble else None for level in noises]
    corrupted = None
    if corruptions:
        corrupted = [
            {"kind": kind, "strength": strength, "noise": words, **judge(parse_noise(words), None, False).figures()}
            for kind, strength, words in levels_of_corruption()
        ]
    return {
        "bundle": str(path),
        "data": name,
        "split": part,
        "images": found[0].images,
        "drawn": drawn,
        "reference": reference,
        "self_ensemble": ensemble,
        "classes": list(bundle.classes),
        "threshold": bundle.threshold,
        "levels": [
            {"noise": level.name, **one.to_dict(), **_once(before)}
            for level, one, before in zip(noises, found, once, strict=True)
        ],
        "corruptions": corrupted,
    }


def _once(found: Assessment | None) -> dict[str, float]:
    """Returns the figures of a network that restores an image once, beside those of its self-ensemble."""
    return {} if found is None else {f"once_{name}": value for name, value in found.values.items()}


def data_of(bundle: Bundle) -> str:
    """The data that a bundle was made on. Raises ConfigError where it does not know, or knows no place."""
    source = bundle.facts.get("data")
    if not isinstance(source, str):
        raise ConfigError("the bundle does not say what data it was made on; give `data`")
    if ":" in source:
        raise ConfigError(f"the bundle was made on {source}, whose place it does not know; give `data`")
    return source


def white_asked(bundle: Bundle, level: WhiteLevel | None) -> White:
    """Returns what is known of white in other images that a bundle is to restore.

    Raises:
        ConfigError: these images are to decide it, and the network has learned on a scale of its own.
    """
    if level == DATA and bundle.white_level is not None:
        raise ConfigError(
            f"`white_level` {DATA}: the network was trained with {bundle.white_level:.10g} as white, and these images "
            "would be on another scale; leave it out, or give the value of white where their camera is another one"
        )
    return White.asked(level, bundle.white_level)


def check_scale(bundle: Bundle, name: str, data_root: Path | None = None) -> None:
    """Refuses to read a bundle's own data on another scale, on which its splits would be others.

    Data is known by its values, so that on another scale images of the training might be judged as those of the test.

    Args:
        bundle: the bundle.
        name: source of the data.
        data_root: see `nas.data.splits.load`.

    Raises:
        ConfigError: on the scale of the training, the data is what the bundle was trained on.
    """
    from nas.data.sources import source_of
    from nas.data.splits import load

    own = white_asked(bundle, None)
    try:
        loaded = read_for_bundle(
            bundle,
            ["group_by", *(["pair_by"] if source_of(name).paired else [])],
            lambda **kept: load(name, root=data_root, wanted=bundle.preparation, white=own, **kept),
        )
    except DataError:  # it cannot be read on that scale, and was not trained on
        return
    if loaded.fingerprint in bundle.seen:
        scale = "" if bundle.white_level is None else f", with {bundle.white_level:.10g} as white"
        raise ConfigError(
            f"`white_level` is another one than that of the training: the network has learned from these very images"
            f"{scale}, and which of them are for the test holds on that scale alone; leave it out"
        )


def read_for_bundle(bundle: Bundle, names: Sequence[str], read: Callable[..., T]) -> T:
    """Reads data with the expressions by which a bundle's own data was grouped and paired; without them where the names
    of the files do not fit them."""
    if kept := expressions(bundle, names):
        with suppress(ConfigError, DataError):
            return read(**kept)
    return read()


def expressions(bundle: Bundle, names: Sequence[str]) -> dict[str, str]:
    """Returns those of the bundle's settings of these names that are regular expressions, as theirs may be anything."""
    told = {name: bundle.facts.get(name) for name in names}
    return {name: found for name, found in told.items() if isinstance(found, str) and not regular_expression(found)}


def seen_by(bundle: Bundle, kind: str) -> Collection[str] | None:
    """Fingerprints of the data that a bundle comes from; None when it may be any data of `kind`."""
    # What a start was trained on may be of any kind.
    may_be = "start" in bundle.facts or str(bundle.facts.get("data")).partition(":")[0] == kind
    return None if may_be and "" in bundle.seen else bundle.seen
