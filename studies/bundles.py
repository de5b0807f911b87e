"""Bundles: written from a study's choice, opened by the name of their space, evaluated by name of data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas.bundle import Bundle
from nas.bundle import open_bundle as _open_bundle
from nas.errors import BundleError, ConfigError
from nas.types import Candidate, Recipe
from search_spaces import get_space, known_space
from studies.best import choose
from studies.launch import study_data
from studies.provenance import describe
from studies.storage import files_dir

if TYPE_CHECKING:
    from studies.ledger import SqlLedger

PARITY_IMAGES = 16
SPLITS = ("test", "validation")


def open_bundle(path: Path | str) -> Bundle:
    """Opens a bundle of any of the project's spaces; ``open_bundle(path).network`` is ready to use.

    Raises:
        BundleError: the folder is not a complete, undamaged bundle of a known version and space.
    """
    return _open_bundle(Path(path), known_space)  # never a space that has to be imported


def export_choice(
    ledger: SqlLedger,
    target: Path,
    *,
    pick: str = "knee",
    prefer: Mapping[str, float] | None = None,
    data_root: Path | None = None,
) -> dict[str, Any]:
    """Writes the bundle of a member of a study's front.

    Args:
        ledger: the study.
        target: folder to make.
        pick, prefer: see `studies.best.choose`.
        data_root: where the data lies, if not where it lay when the study was made.

    Returns:
        What was chosen and why, the files, and the parity of the programs.

    Raises:
        StudyError, ConfigError: no such choice, or its weights are gone. BundleError: it cannot be written.
    """
    import torch

    from nas.checkpoint import load_weights
    from nas.evaluation import noisy_psnr
    from nas.export import export_bundle
    from nas.training import DeviceData

    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        # Refused before anything is loaded; export_bundle holds the same rule.
        raise BundleError(f"--to {target} exists and is not an empty folder; choose another")
    choice = choose(ledger, pick=pick, prefer=prefer)
    config = ledger.config
    space = get_space(config.space)
    spec = space.spec(choice.chosen.spec)
    candidate = Candidate(spec=spec, recipe=Recipe.from_dict(choice.chosen.recipe))
    network = space.build(spec, config.task)
    load_weights(network, files_dir(ledger.storage.url, config.study), choice.chosen.number)
    data = study_data(ledger, data_root)
    batches = DeviceData.of(data, config.task, torch.device("cpu"))
    parity = export_bundle(
        target,
        space=space,
        candidate=candidate,
        task=config.task,
        classes=data.classes,
        network=network,
        images=batches.validation[0][0][:PARITY_IMAGES],
        facts={
            "study": config.study,
            "trial": choice.chosen.number,
            "seed": ledger.trial(choice.chosen.number).seed,
            "data": config.data,
            "images": {part: len(getattr(data, part).images) for part in ("train", "validation", "test")},
            "values": {**choice.chosen.values, "noisy_psnr": noisy_psnr(batches)},
            "split": "validation",
            "hardware": describe(ledger.provenance["hardware"]),
            "reason": choice.reason,
        },
    )
    largest = {program: max(outputs.values()) for program, outputs in parity["differences"].items()}
    return {
        "trial": choice.chosen.number,
        "reason": choice.reason,
        "to": str(target),
        "files": sorted(path.name for path in target.iterdir()),
        **largest,
    }


def evaluate_bundle(
    path: Path,
    *,
    data: str | None = None,
    noise: str | None = None,
    split: str = "test",
    data_root: Path | None = None,
) -> dict[str, Any]:
    """PSNR, SSIM and accuracy of a bundle, beside the noisy input's.

    Args:
        path: folder of the bundle.
        data: source as for a search; by default the one that the bundle was searched on.
        noise: by default the bundle's.
        split: one of `SPLITS`.
        data_root: see `nas.data.load`.

    Raises:
        BundleError, DataError, ConfigError: the bundle, the data or a name is not as it must be.
    """
    from nas.assess import assess_bundle
    from nas.data import load
    from nas.noise import parse_noise

    if split not in SPLITS:
        raise ConfigError(f"--split {split!r} is not known; choose from {', '.join(SPLITS)}")
    bundle = open_bundle(path)
    source = data or bundle.facts.get("data")
    if not isinstance(source, str):
        raise ConfigError("the bundle does not say what data it was made on; give --data")
    if data is None and ":" in source:
        raise ConfigError(f"the bundle was made on {source}, a folder that it does not know the place of; give --data")
    parsed = parse_noise(noise or bundle.task.noise)
    loaded = load(source, root=data_root)
    return {
        "bundle": str(path),
        "data": loaded.name,
        "noise": parsed.name,
        "split": split,
        **asdict(assess_bundle(bundle, loaded, parsed, part=split)),
    }
