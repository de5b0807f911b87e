"""The commands of skipnas. Each parses its options, calls one library function and prints the result.

Options are declared by `nas.settings.Setting`, which `command` turns into typer's. Libraries are imported inside the
commands, so that ``--help`` and ``studies list`` answer at once.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import inspect
import io
import itertools
import json
import logging
import math
import os
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, TextIO, get_origin, get_type_hints

import typer
from typer.exceptions import Abort, TyperException

from nas.bundles.formats import NO_CONVERSIONS, NOTHING_FURTHER, Conversions, Further, formats_in_short
from nas.data.noise import parse_noises
from nas.data.sources import parse_source
from nas.engine import guardian
from nas.errors import ConfigError, SkipnasError
from nas.parsing import read_host
from nas.settings import (
    Declared,
    RunOptions,
    Setting,
    Settings,
    at_least,
    between,
    declared,
    no_file,
    one_line,
    one_of,
    parsed_by,
    regular_expression,
    settings_of,
)
from nas.words import visible
from studies.settings import (
    FIGURE_FORMATS,
    NO_LIMITS,
    STORAGE_VARIABLE,
    BundlePath,
    ConfirmRequest,
    DataRoot,
    Json,
    OwnSpace,
    Pick,
    Prefer,
    Quiet,
    SearchRequest,
    SelfEnsemble,
    SizeLimits,
    Storage,
    Study,
    TrainRequest,
    WhiteLevelAsked,
)

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

Command = Callable[..., None]

REFUSALS = {
    errno.EACCES: "give yourself the right to use it",
    errno.EPERM: "give yourself the right to use it",
    errno.EROFS: "name a place that can be written",
    errno.ENOSPC: "free some room",
    errno.EDQUOT: "free some room",
    errno.ELOOP: "mend the links",
    errno.ENAMETOOLONG: "give shorter names",
    errno.EMFILE: "allow more open files (ulimit -n)",
    errno.ENFILE: "close some programs",
    errno.EIO: "look at the disk",
}
"""What a person can do about a machine that refuses a file, by the number of the error."""


def command(group: typer.Typer, name: str | None = None, text: str | None = None) -> Callable[[Command], Command]:
    """Makes a command of a function whose parameters are settings, or dataclasses of settings.

    A dataclass stands for an option for each of its settings, and the function is given an instance of it. Every value
    is read and checked here, by what its setting declares.

    Args:
        group: the commands that it belongs to.
        name: of the command; the function's by default.
        text: its help; the function's docstring by default.
    """

    def register(function: Command) -> Command:
        hints = get_type_hints(function, include_extras=True)
        parameters = inspect.signature(function).parameters.values()
        wanted = {p.name: _settings(p.name, hints[p.name], p.default) for p in parameters}

        def call(**given: Any) -> None:
            arguments = {}
            for parameter, found in wanted.items():
                values = {each.name: _value(each, given[each.name]) for each in found}
                made = hints[parameter](**values) if _is_group(hints[parameter]) else values[parameter]
                arguments[parameter] = made
            # Libraries log what they do; a warning is told whoever asked for nothing but the result.
            logging.root.setLevel(logging.WARNING if arguments.get("quiet") else logging.INFO)
            function(**arguments)

        options = [_option(each) for found in wanted.values() for each in found]
        options.sort(key=lambda option: option.default is not inspect.Parameter.empty)
        call.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
        call.__annotations__ = {}
        group.command(name or function.__name__, help=text or function.__doc__)(call)
        return function

    return register


def _is_group(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, Settings)


def _settings(name: str, hint: Any, default: Any) -> list[Declared]:
    if _is_group(hint):
        return list(settings_of(hint).values())
    found = declared(name, hint, default)
    assert found is not None, f"{name} is no setting"
    return [found]


def _option(each: Declared) -> inspect.Parameter:
    """A setting as typer reads it: text, except for a flag."""
    setting, kind = each.setting, each.kind
    if each.reads_text:
        kind = list[str] if get_origin(kind) is list else str
    metavar = each.placeholder if each.reads_text else None
    text = setting.help
    if setting.default is not None and "Default:" not in text:
        text += f" Default: {each.told(setting.default)}."
    info: Any
    if setting.argument:
        info = typer.Argument(metavar=metavar, help=text)
    else:
        names = [f"--{setting.option or each.name.replace('_', '-')}"]
        if kind is bool and each.value is None:
            names = [f"{names[0]}/--no-{names[0][2:]}"]
        info = typer.Option(*names, metavar=metavar, help=text, envvar=setting.variable)
    default = None if setting.at_edge is not None else each.value
    empty = inspect.Parameter.empty
    return inspect.Parameter(
        each.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=empty if default in (dataclasses.MISSING, empty) else default,
        annotation=Annotated[kind | None if default is None else kind, info],
    )


def _value(each: Declared, given: Any) -> Any:
    """What a command is given for a setting. Raises ConfigError when it is outside its rule."""
    if given is None:
        return each.setting.at_edge() if each.setting.at_edge is not None else None
    if isinstance(given, str) and each.reads_text:
        given = each.read(given)
    elif isinstance(given, list):
        given = [each.read(text) for text in given]
    each.check(given)
    return given


@command(app)
def search(request: SearchRequest, options: RunOptions, quiet: Quiet = False, as_json: Json = False) -> None:
    """Run or continue a study.

    Example: skipnas search --study cameras --data folder:images --noise gaussian:25 --trials 60
    """
    from studies.commands.waiting import Waiting

    with Waiting("loading the libraries ...", quiet=quiet) as waiting:
        from studies.commands import searched
        from studies.store.urls import masked_words

        typed = dataclasses.replace(request, command=shlex.join(["skipnas", *_arguments()]))
        found = searched.search(typed, options, quiet, _say, waiting)
    if as_json:
        _print_json(found.facts())
    else:
        found.show()
    if not quiet:
        named = request.storage if request.storage != os.environ.get(STORAGE_VARIABLE) else None
        _say_all(found.closing(_program(), _arguments(), named and masked_words(["--storage", named])[1]))


@command(studies_app, "list")
def studies_list(storage: Storage = None, as_json: Json = False) -> None:
    """Every stored study.

    Example: skipnas studies list --storage runs/studies.db
    """
    from studies.commands.show import list_lines, summary_facts
    from studies.store.catalog import list_studies
    from studies.store.database import open_storage

    with open_storage(storage, must_exist=True) as opened:
        rows = [summary_facts(summary) for summary in list_studies(opened)]
    _print(as_json, {"studies": rows}, list_lines(rows))


@command(studies_app, "show")
def studies_show(
    name: Study,
    trial: Annotated[
        int | None, Setting(help="Only this trial, with the whole of its traceback.", rule=at_least(0))
    ] = None,
    pick: Annotated[
        str | None, Setting(help="Only the trial that best picks: knee, an objective, or a number.")
    ] = None,
    prefer: Prefer = None,
    limits: SizeLimits = NO_LIMITS,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """One study: what is fixed in it, how its trials ended, where it comes from. Or one of its trials.

    Example: skipnas studies show digits-gaussian-50 --trial 7
    """
    from studies.commands.show import study_facts, study_lines, trial_facts, trial_lines
    from studies.reading.best import choose
    from studies.reading.study import StudyReader

    stored = StudyReader.open(name, storage)
    if pick is not None or prefer or limits.upper:
        if trial is not None:
            raise ConfigError(f"`trial` {trial} names a trial, and `pick`, `prefer` and limits choose one; give either")
        trial = choose(stored, pick=pick or "knee", prefer=prefer, limits=limits).chosen.number
    facts = study_facts(stored) if trial is None else trial_facts(stored, trial)
    _print(as_json, facts, study_lines(stored, facts) if trial is None else trial_lines(facts))


@command(studies_app, "delete")
def studies_delete(
    name: Study, storage: Storage = None, yes: Annotated[bool, Setting(help="Do not ask.")] = False
) -> None:
    """Delete a study with its records and weights.

    Example: skipnas studies delete digits-gaussian-50 --yes
    """
    from studies.reading.study import StudyReader
    from studies.store.database import open_storage
    from studies.store.deletion import delete_study
    from studies.store.files import drop_files

    with open_storage(storage, must_exist=True) as opened:
        trained = StudyReader.open(name, opened).progress.counts().trained
        if not yes:
            typer.confirm(f"delete study {visible(name)} with {trained} trained trials?", abort=True)
        delete_study(opened, name)
        drop_files(opened, name)
    _tell(f"deleted {name}")


@command(studies_app, "to-csv")
def studies_to_csv(
    name: Study,
    file: Annotated[Path, Setting(help="CSV file to write.", metavar="FILE", argument=True)],
    storage: Storage = None,
) -> None:
    """One row a trial: state, reason, values, costs and every hyperparameter.

    Example: skipnas studies to-csv digits-gaussian-50 trials.csv
    """
    from nas.data.listing import counted
    from studies.reading.rows import to_csv
    from studies.reading.study import StudyReader

    rows = to_csv(StudyReader.open(name, storage), file)
    _tell(f"{counted(rows, 'trial')} written to {file}")


@command(studies_app, "replay")
def studies_replay(name: Study, own_space: OwnSpace = None, storage: Storage = None, as_json: Json = False) -> None:
    """Propose a study's candidates again in the stored order, train nothing, and say whether they are the same.

    Example: skipnas studies replay digits-gaussian-50
    """
    from studies.commands.replay import replay
    from studies.reading.study import StudyReader

    replayed = replay(StudyReader.open(name, storage), own_space)
    facts = {"study": name, "proposed": replayed.proposed, "differs": replayed.differs}
    _print(as_json, facts, [replayed.line()])
    if replayed.differs is not None:
        raise typer.Exit(1)


@command(app)
def best(
    name: Study,
    pick: Pick = "knee",
    prefer: Prefer = None,
    limits: SizeLimits = NO_LIMITS,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """The Pareto front, of all trials or of those that fit, and the choice from it, with the reason.

    Example: skipnas best digits-gaussian-50 --max-macs 1000000 --prefer psnr=2,accuracy=1
    """
    from studies.commands.best import best_facts, show_best
    from studies.reading.study import StudyReader

    stored = StudyReader.open(name, storage)
    if as_json:
        _print_json(best_facts(stored, pick, prefer, limits))
    else:
        show_best(stored, pick, prefer, limits)


@command(app)
def confirm(
    name: Study,
    request: ConfirmRequest,
    limits: SizeLimits = NO_LIMITS,
    storage: Storage = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train the front again under several seeds: means and 95 % intervals on validation and test.

    Example: skipnas confirm digits-gaussian-50 --seeds 5 --baselines
    """
    from studies.commands import confirmed
    from studies.reading.study import StudyReader

    found = confirmed.confirm(StudyReader.open(name, storage), request, quiet, _say, limits)
    if as_json:
        _print_json(found.facts())
    else:
        found.show()
    if not quiet:
        _say_all(found.end.lines(name, again=shlex.join([*_program(), *_arguments()])))
    if found.end.reason == "failed":
        raise typer.Exit(1)


@command(
    app,
    text=f"Write a bundle: architecture, weights, {formats_in_short()} programs, parity, card.\n\n"
    "Example: skipnas export digits-gaussian-50 --pick knee --to bundle",
)
def export(
    name: Annotated[
        str,
        Setting(
            help="Name of a study; or folder or name of a bundle, for further formats.", metavar="NAME", argument=True
        ),
    ],
    to: Annotated[Path, Setting(help="Folder of the bundle; must not exist or be empty.", metavar="DIR", rule=no_file)],
    pick: Pick = "knee",
    prefer: Prefer = None,
    limits: SizeLimits = NO_LIMITS,
    further: Further = NOTHING_FURTHER,
    licence: Annotated[
        str | None,
        Setting(help="Licence of the network, for its card.", option="license", metavar="TEXT", rule=one_line),
    ] = None,
    data_root: DataRoot = None,
    own_space: OwnSpace = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Writes a bundle."""
    from studies.commands.bundle_lines import export_lines
    from studies.commands.export import export as write

    facts = write(
        name,
        to,
        pick=pick,
        prefer=prefer,
        limits=limits,
        further=further,
        licence=licence,
        data_root=data_root,
        own_space=own_space,
        storage=storage,
    )
    _print(as_json, facts, export_lines(facts))


@command(app)
def show(
    bundle: BundlePath,
    as_json: Json = False,
) -> None:
    """What a bundle is: its task, inputs and outputs, how images are made ready, classes, figures and licence.

    Example: skipnas show bundle
    """
    from studies.bundles import open_bundle
    from studies.commands.bundle_lines import bundle_facts, bundle_lines

    facts = bundle_facts(open_bundle(bundle))
    _print(as_json, facts, bundle_lines(facts))


@command(app)
def train(
    request: TrainRequest,
    prefer: Prefer = None,
    limits: SizeLimits = NO_LIMITS,
    further: Conversions = NO_CONVERSIONS,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train one architecture for real, and write its bundle to DIR/bundle with numbers from the test split.

    Example: skipnas train residual-unet --data images:photos --noise gaussian:25 --to trained
    """
    from studies.commands.train import train
    from studies.commands.train_display import TrainDisplay, result_lines

    with TrainDisplay(quiet=quiet) as display:
        result = train(request, display.observe, display.say, prefer=prefer, limits=limits, further=further)
    _print(as_json, result, result_lines(result))


@command(app)
def evaluate(
    bundle: BundlePath,
    data: Annotated[
        str | None,
        Setting(
            help="As for search; images:DIR at full size. Default: the named set that the bundle was searched on.",
            rule=parsed_by(parse_source),
        ),
    ] = None,
    noise: Annotated[
        str | None,
        Setting(
            help="As for search, one or more. Default: the bundle's.", metavar="A[,B,...]", rule=parsed_by(parse_noises)
        ),
    ] = None,
    split: Annotated[
        str | None, Setting(help="test or validation. Default: test, and all of a folder without splits.")
    ] = None,
    reference: Annotated[str | None, Setting(help="Also judge a denoiser without training: nlm or bm3d.")] = None,
    corruptions: Annotated[
        bool, Setting(help="Also judge under nine kinds of corruption, each at five strengths.")
    ] = False,
    to: Annotated[
        Path | None,
        Setting(
            help="Draw the curves of --corruptions: FILE.html, or .svg, .pdf, .png (need a browser).", metavar="FILE"
        ),
    ] = None,
    pair_by: Annotated[
        str | None, Setting(help="As for search. Default: the bundle's.", rule=regular_expression, metavar="REGEX")
    ] = None,
    self_ensemble: SelfEnsemble = False,
    white_level: WhiteLevelAsked = None,
    data_root: DataRoot = None,
    as_json: Json = False,
) -> None:
    """PSNR, SSIM and accuracy of a bundle on a test split, a class folder or a folder of photographs.

    Example: skipnas evaluate bundle --data digits --noise gaussian:25,gaussian:50 --reference nlm
    """
    from studies.bundles import evaluate_bundle
    from studies.commands.bundle_lines import show_evaluation

    if to is not None:
        from studies.pages.drawing import check_target

        if not corruptions:
            raise ConfigError("`to` draws the curves of `corruptions`; give `corruptions` too, or leave it out")
        check_target(to)
    result = evaluate_bundle(
        bundle,
        data=data,
        noise=noise,
        split=split,
        reference=reference,
        corruptions=corruptions,
        pair_by=pair_by,
        white_level=white_level,
        ensemble=self_ensemble,
        data_root=data_root,
    )
    if as_json:
        _print_json(result)
    else:
        show_evaluation(result)
    if to is not None:  # at last, because a browser that does not start must not cost the figures
        from studies.pages.corruptions import corruption_curves
        from studies.pages.drawing import write_figure

        write_figure(corruption_curves(result), to)


@command(app)
def denoise(
    bundle: BundlePath,
    images: Annotated[list[Path], Setting(help="Image files, and folders of them.", metavar="IMAGE...", argument=True)],
    to: Annotated[
        Path, Setting(help="Folder for the restored images, under their own names.", metavar="DIR", rule=no_file)
    ],
    onnx: Annotated[bool, Setting(help="Run model.onnx with ONNX Runtime.")] = False,
    tile: Annotated[
        int | None,
        Setting(
            help="Side of tiles in pixels. Default: cut only where memory asks for it.",
            rule=at_least(16, " pixels", most=2**16),
        ),
    ] = None,
    explain: Annotated[
        bool, Setting(help="Also draw where the evidence for the class lies, as NAME.evidence.png.")
    ] = False,
    self_ensemble: SelfEnsemble = False,
    white_level: WhiteLevelAsked = None,
    quiet: Annotated[bool, Setting(help="Nothing but errors.")] = False,
    as_json: Json = False,
) -> None:
    """Restore images of any size, depth and number of pages, gray or colour; and name the class when there is one.

    Example: skipnas denoise bundle scans/ portrait.jpg --to restored
    """
    from studies.commands.denoise import denoise as restore_images
    from studies.commands.denoise import refused_lines

    finished, refused = restore_images(
        bundle,
        images,
        to,
        onnx=onnx,
        tile=tile,
        explain=explain,
        ensemble=self_ensemble,
        tell=lambda line: None if quiet else _say(line),
        white_level=white_level,
        done=lambda result: None if quiet or as_json else _tell(result.line()),
    )
    for line in refused_lines(refused):
        _say(f"error: {_one_line(line)}")
    if as_json:
        lines = [each.line() for each in refused]
        _print_json({"images": [result.to_dict() for result in finished], "refused": lines})
    if refused:
        raise typer.Exit(2)


@command(app)
def noise(
    folder: Annotated[Path, Setting(help="Folder of noisy images, or one file.", metavar="DIR|FILE", argument=True)],
    pairs: Annotated[
        bool, Setting(help="DIR has noisy images and clean ones beside them, as pairs:DIR wants them.")
    ] = False,
    pair_by: Annotated[
        str | None,
        Setting(help="With --pairs, as for search. Default: by name.", rule=regular_expression, metavar="REGEX"),
    ] = None,
    to: Annotated[
        Path | None,
        Setting(help="Draw noise against brightness: FILE.html, or .svg, .pdf, .png (need a browser).", metavar="FILE"),
    ] = None,
    white_level: WhiteLevelAsked = None,
    as_json: Json = False,
) -> None:
    """Measure the noise of images, and print the words for --noise.

    Example: skipnas noise scans --to noise.html
    """
    from studies.commands.noise import measure, noise_lines
    from studies.pages.drawing import check_target, write_figure

    if to is not None:
        check_target(to)
    measured = measure(folder, pairs=pairs, pair_by=pair_by, white_level=white_level, tell=_say)
    _print(as_json, measured.to_dict(), noise_lines(measured))
    if to is not None:
        from studies.pages.noise_level import noise_level

        write_figure(noise_level(measured), to)


@command(app)
def report(
    name: Study,
    to: Annotated[Path | None, Setting(help="HTML file to write; NAME.html if left out.", metavar="FILE")] = None,
    figures: Annotated[
        Path | None,
        Setting(help="Write each figure into this folder instead (needs a browser).", metavar="DIR", rule=no_file),
    ] = None,
    file_format: Annotated[
        str | None,
        Setting(
            help="Of --figures: svg (the default), pdf or png.", option="format", rule=one_of(lambda: FIGURE_FORMATS)
        ),
    ] = None,
    data_root: DataRoot = None,
    own_space: OwnSpace = None,
    storage: Storage = None,
) -> None:
    """One offline HTML page about a study, or its figures for a paper.

    Example: skipnas report digits-gaussian-50 --to report.html
    """
    from studies.pages.report import write_figures, write_report
    from studies.reading.study import StudyReader

    if figures is not None and to is not None:
        raise ConfigError("`to` and `figures` are two different outputs; give one of them")
    if figures is None and file_format is not None:
        raise ConfigError("`file_format` is a format of `figures`; give `figures` too, or leave it out")
    with StudyReader.open(name, storage) as stored:
        if figures is not None:
            suffix = file_format or FIGURE_FORMATS[0]
            written = write_figures(stored, figures, suffix, data_root=data_root, own_space=own_space)
            _tell(f"{len(written)} figures written to {figures}")
            return
        target = to or Path(f"{name}.html")
        size = write_report(stored, target, data_root=data_root, own_space=own_space)
    _tell(f"report written to {target} ({size / 1e6:.1f} MB); open it in a browser")


@command(app)
def dashboard(
    port: Annotated[int, Setting(help="Port on this machine, 1 to 65535.", rule=between(1, 65535))] = 8080,
    next_free: Annotated[bool, Setting(help="If --port is taken, take the next free one.")] = False,
    host: Annotated[
        str, Setting(help="Address to bind to; the dashboard has no passwords.", read=read_host)
    ] = "127.0.0.1",
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


@command(app)
def spaces(
    name: Annotated[
        str | None, Setting(help="A space; all of them when left out.", metavar="[NAME]", argument=True)
    ] = None,
    sample: Annotated[
        int, Setting(help="Also draw this many architectures with params and MACs.", rule=at_least(0, most=10_000))
    ] = 0,
    data: Annotated[
        str,
        Setting(help="Data whose image size and classes the space is shown for.", rule=parsed_by(parse_source)),
    ] = "digits",
    data_root: DataRoot = None,
    seed: Annotated[int, Setting(help="Seed of the draws.", rule=at_least(0))] = 0,
    as_json: Json = False,
) -> None:
    """Hyperparameters, choices and size of each search space.

    Example: skipnas spaces unet --sample 5
    """
    from studies.commands.show import space_facts, space_lines

    facts = space_facts(name, sample=sample, data=data, data_root=data_root, seed=seed)
    _print(as_json, facts, space_lines(facts))


@command(app)
def doctor(storage: Storage = None, as_json: Json = False) -> None:
    """Versions, devices, Ray, storage, interrupted trials, and what to do about each.

    Example: skipnas doctor
    """
    from studies.commands.doctor import examine

    findings = examine(storage)
    _print(as_json, {"findings": [f.to_dict() for f in findings]}, [_with_options(f.line()) for f in findings])
    if any(f.state == "bad" for f in findings):
        raise typer.Exit(1)


def main(*, guarded: bool = False) -> None:
    """Runs a command. A user's error is one line on stderr and exit code 2; only a bug shows a traceback.

    Args:
        guarded: whether a command that uses Ray works in a child process (`nas.engine.guardian`).
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that a terminal cannot write does not stop the rest
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[_Stderr()])
    for handler in logging.root.handlers:
        handler.addFilter(_visible)
    for library in ("alembic", "choreographer", "kaleido", "logistro", "onnx_ir", "onnxscript", "ray", "torch"):
        logging.getLogger(library).setLevel(logging.WARNING)
    # The end that SLURM, docker or systemd ask for is a Ctrl-C to every command. A search sets its own handlers.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, guardian.interrupt)
    try:
        if guarded and sys.argv[1:2] in (["search"], ["confirm"]):
            guardian.guard(_say)
        # Without its own handling of errors typer returns an exit code instead of raising one.
        code = _commands()(standalone_mode=False)
        if code == 130:  # by which it says that there was a KeyboardInterrupt
            _say("stopped")
    except SkipnasError as error:
        _fail(str(error))
    except TyperException as error:
        _fail(_typers_message(error))
    except (Abort, KeyboardInterrupt):
        _say("stopped")
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except OSError as error:
        # Wherever a command meets it: the machine refuses a file, and the user can mend it.
        if error.errno not in REFUSALS:
            raise
        where = f"{error.filename}: " if error.filename is not None else ""
        _fail(f"{where}{os.strerror(error.errno)}; {REFUSALS[error.errno]}, and give the same command again")
    sys.exit(code if isinstance(code, int) else 0)


def program() -> None:
    """Runs a command as the program `skipnas`."""
    main(guarded=True)


class _Stderr(logging.StreamHandler[TextIO]):
    """Logs to what is stderr at that moment: while a display is drawn, rich stands there and keeps lines apart."""

    def emit(self, record: logging.LogRecord) -> None:
        self.setStream(sys.stderr)
        super().emit(record)


def _visible(record: logging.LogRecord) -> bool:
    """Makes the message of a log visible text."""
    record.msg, record.args = visible(record.getMessage()), None
    return True


def _program() -> list[str]:
    """How this program was called, for commands to paste."""
    if Path(sys.argv[0]).suffix != ".py":
        return [Path(sys.argv[0]).name]
    return [os.path.relpath(sys.executable), sys.argv[0]]


def _arguments() -> list[str]:
    """What was typed after the program's name, without passwords."""
    from studies.store.urls import masked_words

    return masked_words(sys.argv[1:])


def _fail(message: str) -> None:
    from studies.store.urls import masked_text

    _say(f"error: {masked_text(_one_line(message))}")
    sys.exit(2)


def _one_line(message: str) -> str:
    """A message without line breaks, in which settings of the command that was given go by their options' names."""
    return _with_options(" ".join(message.split()))


def _with_options(text: str) -> str:
    """A text in which settings of the command that was given go by their options' names."""
    options = _options()
    return re.sub(r"`([a-z_]+)`", lambda found: options.get(found[1], found[0]), text)


@functools.cache
def _commands() -> Any:
    """All commands as typer runs them, which it would make again for every call and every error."""
    return typer.main.get_command(app)


def _options() -> dict[str, str]:
    """Setting -> option of the command that was given."""
    given = _commands()
    for word in sys.argv[1:]:
        if word not in getattr(given, "commands", ()):
            break
        given = given.commands[word]
    named = [parameter for parameter in given.params if parameter.param_type_name == "option"]
    return {parameter.opts[0].removeprefix("--"): parameter.opts[0] for parameter in named} | {
        str(parameter.name): parameter.opts[0] for parameter in named
    }


def _typers_message(error: TyperException) -> str:
    """typer's message, with the value that it leaves out and where to look."""
    context, parameter = getattr(error, "ctx", None), getattr(error, "param", None)
    names = set(getattr(parameter, "opts", ()))
    given = [f" (given: {value})" for name, value in itertools.pairwise(sys.argv) if name in names]
    hint = f"; see: skipnas {' '.join(context.command_path.split()[1:])} --help" if context is not None else ""
    return f"{error.format_message().rstrip('.')}{''.join(given)}{hint}"


def _tell(line: str) -> None:
    """Prints a line of a result."""
    typer.echo(visible(line))


def _say(line: str) -> None:
    """Prints a line about a result, or about its lack."""
    typer.echo(visible(line), err=True)


def _say_all(lines: Iterable[str]) -> None:
    for line in lines:
        _say(line)


def _print(as_json: bool, facts: Mapping[str, Any], lines: Iterable[str]) -> None:
    """Facts as JSON, or the lines that tell them to people."""
    if as_json:
        _print_json(facts)
        return
    for line in lines:
        _tell(line)


def _print_json(value: Mapping[str, Any]) -> None:
    typer.echo(json.dumps(_finite(value), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    """A JSON value with null for NaN and infinity, for which JSON has no words."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {name: _finite(each) for name, each in value.items()}
        case list() | tuple():
            return [_finite(each) for each in value]
        case _:
            return value


if __name__ == "__main__":
    program()
