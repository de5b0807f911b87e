"""The commands of skipnas: parse, call one library function, print.

Libraries are imported inside the commands, so that ``--help`` and ``studies list`` answer at once.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import os
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.exceptions import Abort, TyperException

from nas.bundles.formats import FORMATS, formats_in_short
from nas.errors import ConfigError, SkipnasError
from nas.search.objectives import OBJECTIVES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nas.types import TrialResult
    from studies.reading.best import Choice
    from studies.store.ledger import SqlLedger

app = typer.Typer(
    name="skipnas",
    help="Search for U-Nets that denoise an image and classify it at once.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
studies_app = typer.Typer(help="What is stored: list, show, delete, to-csv.", no_args_is_help=True)
app.add_typer(studies_app, name="studies")

Study = Annotated[str, typer.Argument(metavar="NAME", help="Name of the study (skipnas studies list).")]
Storage = Annotated[
    str | None,
    typer.Option(
        metavar="URL", help="SQLAlchemy URL or SQLite file. Default: runs/studies.db.", envvar="SKIPNAS_STORAGE"
    ),
]
DataRoot = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Where data sets lie or are downloaded to (~/.cache/skipnas/data).")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, everything else on stderr.")]
Pick = Annotated[str, typer.Option(help="knee, an objective (its best), or a trial's number.")]
Prefer = Annotated[
    str | None, typer.Option(metavar="NAME=WEIGHT,...", help="Weights of objectives for the knee: psnr=2,accuracy=1.")
]


@app.command()
def search(
    study: Annotated[
        str | None, typer.Option(help="Name; continued if it exists. Default: from data and noise.")
    ] = None,
    space: Annotated[
        str | None, typer.Option(help="Search space (skipnas spaces), or your own: module:object. Default: unet.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="digits, photos, a torchvision set, folder:DIR or images:DIR. Default: digits.")
    ] = None,
    data_root: DataRoot = None,
    noise: Annotated[
        str | None,
        typer.Option(help="gaussian:S or :A-B, poisson:PEAK, saltpepper:P, none. Default: gaussian:50."),
    ] = None,
    trials: Annotated[int, typer.Option(help="Size the study should have.")] = 24,
    epochs: Annotated[int | None, typer.Option(help="Full training budget of a candidate. Default: 27.")] = None,
    objectives: Annotated[
        str | None, typer.Option(help=f"Of {', '.join(OBJECTIVES)}. Default: the first three.")
    ] = None,
    max_params: Annotated[int | None, typer.Option(help="Limit of parameters. Default: the space's.")] = None,
    max_macs: Annotated[int | None, typer.Option(help="Limit of MACs for an image. Default: the space's.")] = None,
    sampler: Annotated[str | None, typer.Option(help="auto, tpe, gp, nsga2, random, qmc. Default: auto.")] = None,
    early_stopping: Annotated[
        bool | None,
        typer.Option("--early-stopping/--no-early-stopping", help="Stop weak trials at rungs. Default: no."),
    ] = None,
    within_rank: Annotated[
        str | None,
        typer.Option(help="Who goes on among equals at a rung: hypervolume or epsilon-net. Default: hypervolume."),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="Of training: auto (timed once, the faster one), fp32, bf16. Default: auto.")
    ] = None,
    cpus_per_trial: Annotated[float, typer.Option(help="CPU cores of a trial, which are its torch threads.")] = 1.0,
    gpus_per_trial: Annotated[
        float | None, typer.Option(help="GPUs of a trial. Default: 0.25 if there are any.")
    ] = None,
    concurrency: Annotated[int | None, typer.Option(help="Trials at a time. Default: as many as fit.")] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster to join: host:port or auto.")] = None,
    time_limit: Annotated[str | None, typer.Option(help="Stop after 90s, 30m or 2h; continue any time.")] = None,
    warm_start: Annotated[
        str | None, typer.Option(metavar="STUDY", help="Begin with the front of another study of this storage.")
    ] = None,
    baselines: Annotated[
        bool | None,
        typer.Option(
            help="Begin with the networks of the papers that lie in the space. "
            "Default: in a new study, if they are at most half of its trials."
        ),
    ] = None,
    trial_timeout: Annotated[str | None, typer.Option(help="Fail a trial that takes longer, e.g. 20m.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the search. Default: 0.")] = None,
    storage: Storage = None,
    subset: Annotated[int | None, typer.Option(help="Use only this many training images.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Nothing but the result.")] = False,
    as_json: Json = False,
) -> None:
    """Run or continue a study.

    Example: skipnas search --study cameras --data folder:images --noise gaussian:25 --trials 60
    """
    from nas.engine.search import RunOptions
    from studies.commands.search import SearchRequest, prepare
    from studies.commands.terminal import SearchDisplay, front_table, say, stdout, summary
    from studies.store.urls import masked_words

    options = RunOptions(
        trials=trials,
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=_default_gpus() if gpus_per_trial is None else gpus_per_trial,
        concurrency=concurrency,
        address=address,
        time_limit=_seconds("--time-limit", time_limit),
        trial_timeout=_seconds("--trial-timeout", trial_timeout),
    )
    request = SearchRequest(
        study=study,
        space=space,
        data=data,
        data_root=data_root,
        noise=noise,
        epochs=epochs,
        objectives=None if objectives is None else tuple(name.strip() for name in objectives.split(",")),
        max_params=max_params,
        max_macs=max_macs,
        sampler=sampler,
        seed=seed,
        subset=subset,
        early_stopping=early_stopping,
        within_rank=within_rank,
        precision=precision,
        warm_start=warm_start,
        baselines=baselines,
        storage=storage,
        command=shlex.join(masked_words(["skipnas", *sys.argv[1:]])),
    )
    prepared = prepare(request, options)
    config = prepared.ledger.config
    if not quiet:
        for note in prepared.notes:
            _say(note)
    with SearchDisplay(config, quiet=quiet) as display:
        end = prepared.run(options, display.observe)
    choice = _try_choose(prepared.ledger)
    lines = summary(end, config, trials, again=masked_words([*_program(), *sys.argv[1:]]))
    if as_json:
        front = [] if choice is None else [_result(r, choice) for r in choice.front]
        _print_json(
            {
                "study": config.study,
                "reason": end.reason,
                "trained": end.counts.trained,
                "complete": end.counts.complete,
                "pruned": end.counts.pruned,
                "failed": end.counts.failed,
                "new": end.new,
                "seconds": end.seconds,
                "busy": end.busy,
                "hypervolume": 0.0 if choice is None else choice.hypervolume,
                "front": front,
                "knee": None if choice is None else choice.chosen.number,
            }
        )
    elif choice is not None:
        stdout().print(front_table(choice, config.objectives))
        say(f"hypervolume {choice.hypervolume:.4g}; {choice.reason}")
    for line in lines if not quiet else ():
        _say(line)
    if choice is not None and not quiet:
        me, name = shlex.join(_program()), config.study
        at = ""
        if storage is not None and storage != os.environ.get("SKIPNAS_STORAGE"):
            at = f" {shlex.join(masked_words(['--storage', storage]))}"
        _say(f"next: {me} best {name}{at}")
        _say(f"      {me} report {name}{at} --to {name}.html")
        _say(f"      {me} export {name}{at} --to {name}-bundle")


@studies_app.command("list")
def studies_list(storage: Storage = None, as_json: Json = False) -> None:
    """Every stored study.

    Example: skipnas studies list --storage runs/studies.db
    """
    from studies.commands.show import summary_facts
    from studies.store.catalog import list_studies
    from studies.store.database import open_storage

    with open_storage(storage, must_exist=True) as opened:
        rows = [summary_facts(summary) for summary in list_studies(opened)]
    if as_json:
        _print_json({"studies": rows})
        return
    columns = ("study", "space", "data", "noise", "trained")
    _print_table(
        (*columns, "running", "failed"),
        [(*(r[c] for c in columns), r["counts"]["running"], r["counts"]["failed"]) for r in rows],
    )


@studies_app.command("show")
def studies_show(
    name: Study,
    trial: Annotated[int | None, typer.Option(help="Only this trial, with the whole of its traceback.")] = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """One study: what is fixed in it, how its trials ended, where it comes from.

    Example: skipnas studies show digits-gaussian-50 --trial 7
    """
    from studies.commands.show import study_facts, study_lines, trial_facts, trial_lines
    from studies.store.catalog import open_study

    ledger = open_study(name, storage)
    facts = study_facts(ledger) if trial is None else trial_facts(ledger, trial)
    if as_json:
        _print_json(facts)
        return
    for line in study_lines(ledger, facts) if trial is None else trial_lines(facts):
        typer.echo(line)


@studies_app.command("delete")
def studies_delete(
    name: Study,
    storage: Storage = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a study with its records and weights.

    Example: skipnas studies delete digits-gaussian-50 --yes
    """
    from studies.store.catalog import open_study
    from studies.store.database import open_storage
    from studies.store.deletion import delete_study
    from studies.store.files import drop_files

    with open_storage(storage, must_exist=True) as opened:
        trained = open_study(name, opened).counts().trained
        if not yes:
            typer.confirm(f"delete study {name} with {trained} trained trials?", abort=True)
        delete_study(opened, name)
        drop_files(opened, name)
    typer.echo(f"deleted {name}")


@studies_app.command("to-csv")
def studies_to_csv(
    name: Study,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV file to write.")],
    storage: Storage = None,
) -> None:
    """One row a trial: state, reason, values, costs and every hyperparameter.

    Example: skipnas studies to-csv digits-gaussian-50 trials.csv
    """
    from studies.reading.rows import to_csv
    from studies.store.catalog import open_study

    rows = to_csv(open_study(name, storage), file)
    typer.echo(f"{rows} trials written to {file}")


@studies_app.command("replay")
def studies_replay(name: Study, storage: Storage = None, as_json: Json = False) -> None:
    """Propose a study's candidates again in the stored order, train nothing, and say whether they are the same.

    Example: skipnas studies replay digits-gaussian-50
    """
    from studies.commands.replay import replay
    from studies.store.catalog import open_study

    replayed = replay(open_study(name, storage))
    if as_json:
        _print_json({"study": name, "proposed": replayed.proposed, "differs": replayed.differs})
    elif replayed.differs is None:
        typer.echo(f"{replayed.proposed} trials were proposed again, each the same candidate")
    else:
        typer.echo(f"trial {replayed.differs} is another candidate; the {replayed.proposed - 1} before it are the same")
    if replayed.differs is not None:
        raise typer.Exit(1)


@app.command()
def best(
    name: Study, pick: Pick = "knee", prefer: Prefer = None, storage: Storage = None, as_json: Json = False
) -> None:
    """The Pareto front and the choice from it, with the reason.

    Example: skipnas best digits-gaussian-50 --prefer psnr=2,accuracy=1
    """
    from studies.commands.terminal import describe, front_table, on_test, say, standing, stdout
    from studies.reading.best import choose
    from studies.reading.versions import training_versions, versions_line
    from studies.store.catalog import open_study

    ledger = open_study(name, storage)
    choice = choose(ledger, pick=pick, prefer=_weights(prefer))
    versions = training_versions(ledger)
    if as_json:
        _print_json(
            {
                "study": name,
                "objectives": [o.name for o in ledger.config.objectives],
                "confirmed": bool(choice.confirmed),
                "training_versions": versions,
                "front": [_result(r, choice) for r in choice.front],
                "chosen": _result(choice.chosen, choice),
                "reason": choice.reason,
                "hypervolume": choice.hypervolume,
            }
        )
        return
    stdout().print(front_table(choice, ledger.config.objectives))
    say(standing(choice, name))
    if told := versions_line(versions):
        say(told)
    say(choice.reason)
    if choice.chosen.number in choice.confirmed:
        say(f"on the test split: {on_test(choice.confirmed[choice.chosen.number])}")
    say(f"architecture: {describe(choice.chosen.spec)}")
    say(f"recipe: {describe(choice.chosen.recipe)}")


@app.command()
def confirm(
    name: Study,
    seeds: Annotated[int, typer.Option(help="Runs of each member, each under a seed of its own.")] = 5,
    top: Annotated[int, typer.Option(help="Members beside the knee, by hypervolume contribution.")] = 8,
    baselines: Annotated[
        bool, typer.Option("--baselines", help="Also train the networks of the papers, to compare with.")
    ] = False,
    data_root: DataRoot = None,
    cpus_per_trial: Annotated[float, typer.Option(help="CPU cores of a run.")] = 1.0,
    gpus_per_trial: Annotated[float | None, typer.Option(help="GPUs of a run. Default: 0.25 if there are any.")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Runs at a time. Default: as many as fit.")] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster to join: host:port or auto.")] = None,
    time_limit: Annotated[str | None, typer.Option(help="Stop after 90s, 30m or 2h; continue any time.")] = None,
    trial_timeout: Annotated[str | None, typer.Option(help="Give up a run that takes longer, e.g. 20m.")] = None,
    storage: Storage = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Nothing but the result.")] = False,
    as_json: Json = False,
) -> None:
    """Train the front again under several seeds: means and 95 % intervals on validation and test.

    Example: skipnas confirm digits-gaussian-50 --seeds 5 --baselines
    """
    from nas.engine.resources import Resources
    from studies.commands.confirm import confirm_study, confirmation_facts
    from studies.commands.terminal import ConfirmDisplay, confirmation_table, say, stdout
    from studies.reading.best import choose
    from studies.reading.versions import training_versions, versions_line
    from studies.store.catalog import open_study
    from studies.store.urls import masked_words

    resources = Resources(
        cpus_per_trial=cpus_per_trial,
        gpus_per_trial=_default_gpus() if gpus_per_trial is None else gpus_per_trial,
        concurrency=concurrency,
        address=address,
        time_limit=_seconds("--time-limit", time_limit),
        trial_timeout=_seconds("--trial-timeout", trial_timeout),
    )
    ledger = open_study(name, storage)
    if (told := versions_line(training_versions(ledger))) and not quiet:
        _say(told)
    with ConfirmDisplay(quiet=quiet) as display:
        end, found = confirm_study(
            ledger, resources, seeds=seeds, top=top, baselines=baselines, data_root=data_root, observe=display.observe
        )
    choice = choose(ledger)
    facts = confirmation_facts(ledger, seeds, found, end, choice)
    if as_json:
        _print_json(facts)
    else:
        stdout().print(confirmation_table(found, choice, ledger.config.objectives))
        say(facts["reason"])
    if not quiet:
        for line in end.lines(name, again=shlex.join(masked_words([*_program(), *sys.argv[1:]]))):
            _say(line)
    if end.reason == "failed":
        raise typer.Exit(1)


@app.command(
    help=f"Write a bundle: architecture, weights, {formats_in_short()} programs, parity, card.\n\n"
    "Example: skipnas export digits-gaussian-50 --pick knee --to bundle"
)
def export(
    name: Study,
    to: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the bundle; must not exist or be empty.")],
    pick: Pick = "knee",
    prefer: Prefer = None,
    quantize: Annotated[
        bool, typer.Option("--quantize", help="Also an int8 ONNX program; what it loses is on the card.")
    ] = False,
    licence: Annotated[
        str | None, typer.Option("--license", metavar="TEXT", help="Licence of the network, for its card.")
    ] = None,
    data_root: DataRoot = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Writes a bundle."""
    from studies.bundles import export_choice
    from studies.store.catalog import open_study

    facts = export_choice(
        open_study(name, storage),
        to,
        pick=pick,
        prefer=_weights(prefer),
        data_root=data_root,
        licence=licence,
        quantize=quantize,
    )
    if as_json:
        _print_json(facts)
        return
    typer.echo(facts["reason"])
    typer.echo(f"bundle written to {to}: {', '.join(facts['files'])}")
    differences = ", ".join(f"{each.title} {facts[key]:.1e}" for key, each in FORMATS.items())
    typer.echo(f"largest difference to PyTorch: {differences}")
    for part, found in facts["measured"].items():
        accuracy = f", accuracy {found['accuracy']:.2f} %" if "accuracy" in found else ""
        typer.echo(f"{part} split: PSNR {found['psnr']:.2f} dB, SSIM {found['ssim']:.4f}{accuracy}")
    if facts["int8"] is not None:
        found = facts["int8"]["measured"]["test"]
        accuracy = f", accuracy {found['accuracy']:.2f} %" if "accuracy" in found else ""
        typer.echo(f"int8, test split: PSNR {found['psnr']:.2f} dB{accuracy}, {facts['int8']['bytes']:,} bytes")


@app.command()
def train(
    what: Annotated[
        str,
        typer.Argument(
            metavar="SPEC.json|REFERENCE|NAME[:PICK]", help="A spec's file, a network of the papers, or a study."
        ),
    ],
    to: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the training; the same command goes on there.")],
    data: Annotated[str | None, typer.Option(help="As for search; images:DIR is trained on in patches.")] = None,
    data_root: DataRoot = None,
    noise: Annotated[str | None, typer.Option(help="As for search. Default: the study's, or gaussian:50.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training data. Default: 100.")] = None,
    subset: Annotated[int | None, typer.Option(help="Use only this many training images.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Default: the recipe's.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Default: the recipe's.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Default: the recipe's.")] = None,
    warmup: Annotated[float, typer.Option(help="Share of the run over which the learning rate rises.")] = 0.05,
    ema: Annotated[float, typer.Option(help="Decay of the averaged weights; 0 for none.")] = 0.999,
    augment: Annotated[
        bool | None, typer.Option("--augment/--no-augment", help="Flips and turns. Default: what suits the data.")
    ] = None,
    patch: Annotated[int | None, typer.Option(help="Side of the patches of images:DIR. Default: 64.")] = None,
    patches_per_epoch: Annotated[int | None, typer.Option(help="Default: as many as fill the photographs.")] = None,
    accumulate: Annotated[int, typer.Option(help="Batches whose gradients make one step.")] = 1,
    precision: Annotated[str, typer.Option(help="auto (the faster one), fp32, bf16.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="Threads of torch. Default: all cores.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights, order, patches and noise.")] = 0,
    log_dir: Annotated[Path | None, typer.Option(help="TensorBoard logs. Default: DIR/logs.")] = None,
    storage: Storage = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Nothing but the result.")] = False,
    as_json: Json = False,
) -> None:
    """Train one architecture for real, and write its bundle to DIR/bundle with numbers from the test split.

    Example: skipnas train residual-unet --data images:photos --noise gaussian:25 --to trained
    """
    from studies.commands.train import TrainRequest, train
    from studies.commands.train_display import TrainDisplay

    request = TrainRequest(
        what=what,
        to=to,
        data=data,
        data_root=data_root,
        noise=noise,
        epochs=epochs,
        subset=subset,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        warmup=warmup,
        ema=ema,
        augment=augment,
        patch=patch,
        patches_per_epoch=patches_per_epoch,
        accumulate=accumulate,
        precision=precision,
        threads=threads,
        seed=seed,
        log_dir=log_dir,
        storage=storage,
    )
    with TrainDisplay(quiet=quiet) as display:
        result = train(request, display.observe, display.say)
    if as_json:
        _print_json(result)
        return
    typer.echo(
        f"{result['epochs']} epochs in {result['seconds']:.0f} s; the best weights are of epoch {result['best_epoch']}"
    )
    accuracy = "" if result["accuracy"] is None else f", accuracy {result['accuracy']:.2f} %"
    typer.echo(
        f"test split, {result['images']} images, {result['noise']}: PSNR {result['psnr']:.2f} dB "
        f"(noisy {result['noisy_psnr']:.2f} dB), SSIM {result['ssim']:.4f}{accuracy}"
    )
    typer.echo(f"bundle written to {result['bundle']}")


@app.command()
def evaluate(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder that export wrote.")],
    data: Annotated[
        str | None,
        typer.Option(help="As for search; images:DIR at full size. Default: what the bundle was searched on."),
    ] = None,
    noise: Annotated[
        str | None, typer.Option(metavar="A[,B,...]", help="As for search, one or more. Default: the bundle's.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="test or validation. Default: test, and all of a folder without splits.")
    ] = None,
    reference: Annotated[str | None, typer.Option(help="Also judge a denoiser without training: nlm or bm3d.")] = None,
    data_root: DataRoot = None,
    as_json: Json = False,
) -> None:
    """PSNR, SSIM and accuracy of a bundle on a test split, a class folder or a folder of photographs.

    Example: skipnas evaluate bundle --data digits --noise gaussian:25,gaussian:50 --reference nlm
    """
    from studies.bundles import evaluate_bundle
    from studies.commands.terminal import confusion_table, stdout

    result = evaluate_bundle(bundle, data=data, noise=noise, split=split, reference=reference, data_root=data_root)
    if as_json:
        _print_json(result)
        return
    which = "all images" if result["split"] == "all" else f"{result['split']} split"
    typer.echo(f"{result['data']}, {which}, {result['images']} images")
    rows = []
    for level in result["levels"]:
        rows.append((level["noise"], "noisy input", f"{level['noisy_psnr']:.2f}", f"{level['noisy_ssim']:.4f}", ""))
        if reference is not None:
            rows.append(("", reference, f"{level['reference_psnr']:.2f}", f"{level['reference_ssim']:.4f}", ""))
        accuracy = "-" if level["accuracy"] is None else f"{level['accuracy']:.2f}"
        rows.append(("", "network", f"{level['psnr']:.2f}", f"{level['ssim']:.4f}", accuracy))
    _print_table(("noise", "", "PSNR (dB)", "SSIM", "accuracy (%)"), rows)
    for level in result["levels"]:
        if level["confusion"] is not None:
            typer.echo(f"confusion at {level['noise']}: true class down, answer across")
            stdout().print(confusion_table(result["classes"], level["confusion"]))


@app.command()
def denoise(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder that export or train wrote.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="PNG, JPEG and TIFF files, and folders.")],
    to: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the restored images, under their own names.")],
    onnx: Annotated[bool, typer.Option("--onnx", help="Run model.onnx with ONNX Runtime.")] = False,
    tile: Annotated[
        int | None, typer.Option(help="Side of tiles in pixels. Default: cut only where memory asks for it.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Nothing but errors.")] = False,
    as_json: Json = False,
) -> None:
    """Restore images of any size, gray or colour, of 8 or 16 bits; and name the class when there is one.

    Example: skipnas denoise bundle scans/ portrait.jpg --to restored
    """
    from studies.commands.denoise import denoise as restore_images

    finished, refused = restore_images(
        bundle,
        images,
        to,
        onnx=onnx,
        tile=tile,
        done=lambda result: None if quiet or as_json else typer.echo(result.line()),
        failed=lambda line: _say(f"error: {' '.join(line.split())}"),
    )
    if as_json:
        _print_json({"images": [result.to_dict() for result in finished], "refused": refused})
    if refused:
        raise typer.Exit(2)


@app.command()
def report(
    name: Study,
    to: Annotated[Path | None, typer.Option(metavar="FILE", help="HTML file to write; NAME.html if left out.")] = None,
    figures: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write each figure into this folder instead (needs a browser).")
    ] = None,
    file_format: Annotated[str, typer.Option("--format", help="Of --figures: svg, pdf or png.")] = "svg",
    data_root: DataRoot = None,
    storage: Storage = None,
) -> None:
    """One offline HTML page about a study, or its figures for a paper.

    Example: skipnas report digits-gaussian-50 --to report.html
    """
    from studies.pages.report import write_figures, write_report
    from studies.store.catalog import open_study

    with open_study(name, storage) as ledger:
        if figures is not None:
            if to is not None:
                raise ConfigError("--to and --figures are two different outputs; give one of them")
            written = write_figures(ledger, figures, file_format)
            typer.echo(f"{len(written)} figures written to {figures}")
            return
        target = to or Path(f"{name}.html")
        size = write_report(ledger, target, data_root=data_root)
    typer.echo(f"report written to {target} ({size / 1e6:.1f} MB); open it in a browser")


@app.command()
def dashboard(
    port: Annotated[int, typer.Option(help="Port on this machine, 1 to 65535.")] = 8080,
    next_free: Annotated[bool, typer.Option("--next-free", help="If --port is taken, take the next free one.")] = False,
    host: Annotated[str, typer.Option(help="Address to bind to; the dashboard has no passwords.")] = "127.0.0.1",
    storage: Storage = None,
) -> None:
    """Optuna Dashboard on the storage, until Ctrl-C.

    Example: skipnas dashboard --port 8081
    """
    from studies.pages.dashboard import serve

    serve(
        storage,
        host=host,
        port=port,
        next_free=next_free,
        ready=lambda url: _say(f"Optuna Dashboard at {url} - stop with Ctrl-C"),
    )


@app.command()
def spaces(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="A space; all of them when left out.")] = None,
    sample: Annotated[int, typer.Option(help="Also draw this many architectures with params and MACs.")] = 0,
    data: Annotated[str, typer.Option(help="Data whose image size and classes the space is shown for.")] = "digits",
    data_root: DataRoot = None,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    as_json: Json = False,
) -> None:
    """Hyperparameters, choices and size of each search space.

    Example: skipnas spaces unet --sample 5
    """
    from studies.commands.show import space_facts, space_lines

    facts = space_facts(name, sample=sample, data=data, data_root=data_root, seed=seed)
    if as_json:
        _print_json(facts)
    else:
        for line in space_lines(facts):
            typer.echo(line)


@app.command()
def doctor(storage: Storage = None, as_json: Json = False) -> None:
    """Versions, devices, Ray, storage, interrupted trials, and what to do about each.

    Example: skipnas doctor
    """
    from studies.commands.doctor import examine

    findings = examine(storage)
    if as_json:
        _print_json({"findings": [f.to_dict() for f in findings]})
    else:
        for finding in findings:
            typer.echo(finding.line())
    if any(f.state == "bad" for f in findings):
        raise typer.Exit(1)


def main() -> None:
    """Runs a command. A user's error is one line on stderr and exit code 2; only a bug shows a traceback."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for library in ("alembic", "choreographer", "kaleido", "logistro", "onnx_ir", "onnxscript", "ray", "torch"):
        logging.getLogger(library).setLevel(logging.WARNING)
    try:
        # Without its own handling of errors typer returns an exit code instead of raising one.
        code = app(standalone_mode=False)
    except SkipnasError as error:
        _fail(str(error))
    except TyperException as error:
        _fail(_one_line(error))
    except (Abort, KeyboardInterrupt):
        _say("stopped")
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    sys.exit(code if isinstance(code, int) else 0)


def _program() -> list[str]:
    """How this program was called, for commands to paste."""
    if Path(sys.argv[0]).suffix != ".py":
        return [Path(sys.argv[0]).name]
    return [os.path.relpath(sys.executable), sys.argv[0]]


def _fail(message: str) -> None:
    _say(f"error: {' '.join(message.split())}")
    sys.exit(2)


def _one_line(error: TyperException) -> str:
    """typer's message, with the value that it leaves out and where to look."""
    context, parameter = getattr(error, "ctx", None), getattr(error, "param", None)
    names = set(getattr(parameter, "opts", ()))
    given = [f" (given: {value})" for name, value in itertools.pairwise(sys.argv) if name in names]
    hint = f"; see: skipnas {' '.join(context.command_path.split()[1:])} --help" if context is not None else ""
    return f"{error.format_message().rstrip('.')}{''.join(given)}{hint}"


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _print_json(value: Mapping[str, Any]) -> None:
    typer.echo(json.dumps(value, indent=2, allow_nan=False))


def _print_table(header: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    cells = [header, *(tuple(str(cell) for cell in row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    for row in cells:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _result(result: TrialResult, choice: Choice) -> dict[str, Any]:
    confirmed = choice.confirmed.get(result.number)
    intervals = None
    if confirmed is not None:
        intervals = {name: dataclasses.asdict(value) for name, value in confirmed.values.items()}
    return {
        "trial": result.number,
        "digest": result.digest,
        "training_version": result.training_version,
        "values": dict(result.values),
        "confirmed": intervals,
        "spec": dict(result.spec),
        "recipe": dict(result.recipe),
    }


def _try_choose(ledger: SqlLedger) -> Choice | None:
    from studies.reading.best import choose

    return choose(ledger, confirmed=False) if ledger.objective_values() else None


def _default_gpus() -> float:
    """A quarter of a GPU where NVIDIA's driver shows one: candidates are far too small to fill it."""
    return 0.25 if Path("/proc/driver/nvidia/gpus").exists() else 0.0


def _seconds(option: str, text: str | None) -> float | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if match is None:
        raise ConfigError(f"{option} {text!r} is not a time; give a number and s, m or h, such as 30m")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def _weights(text: str | None) -> dict[str, float]:
    result = {}
    for part in text.split(",") if text else ():
        name, _, weight = part.partition("=")
        try:
            result[name.strip()] = float(weight)
        except ValueError:
            raise ConfigError(f"--prefer {part!r} is not NAME=WEIGHT, such as psnr=2") from None
    return result


if __name__ == "__main__":
    main()
