"""The settings of studies and runs. Each is declared once, with its type, default, rule and words for people.

A setting is a field of a dataclass, here or in `studies.settings`, whose type is ``Annotated`` with a `Setting`. The
command line makes its options of these fields, and the dataclass checks their values when it is made. `kept_settings`
returns the settings that a study has fixed, and `differences` the fixed settings that a request asks otherwise.

Messages name a setting by its field, in backticks; the command line shows its option instead.
"""

# Annotations are evaluated at once here instead of being kept as text, because they contain the settings.

import dataclasses
import functools
import math
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from nas.data.noise import noises_in_short
from nas.data.sources import parse_source, sources_in_short
from nas.data.white import DATA, MOST_LEVEL, WhiteLevel
from nas.errors import ConfigError, StudyError, in_short
from nas.parsing import (
    LONGEST_TIME,
    read_address,
    read_names,
    read_number,
    read_path,
    read_seconds,
    read_size,
    read_text,
    read_whole,
)
from nas.search.growth import LEAST_TRIALS
from nas.search.objectives import DEFAULT, OBJECTIVES, TrivialQuality, check_objectives, resolve_objectives
from nas.types import (
    MAX_PARAMS,
    PRECISIONS,
    ClassWeights,
    Constraint,
    LatencySetting,
    Objective,
    Task,
    check_types,
)

Rule = Callable[[Any], str | None]
"""Returns the words that say how to mend a value; None when there is nothing to mend."""


READERS: Mapping[Any, Callable[[str], Any]] = {
    int: read_whole,
    float: read_number,
    str: read_text,
    Path: read_path,
    list[Path]: read_path,
    list[tuple[int, int]]: read_size,
}
"""The reader of each type of value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The declaration of a setting, beside the name, type and default value of its field.

    Attributes:
        help: a sentence for people.
        default: the value that is used where a field of None means that nothing was asked for.
        rule: the rule that a value must keep.
        read: makes the value from text; raises ValueError with words that say how to mend the text. None where the
            reader of its type does (`READERS`).
        kept: returns the value that a study has kept of it; None for a setting that is free each time.
        as_kept: returns the requested value in the form that this study would keep.
        undecided: a value that may be requested whatever a study has kept.
        nothing: the word for None in a study that has kept it; empty where people are not shown it then.
        option: its option on the command line, where this is not the field's name.
        metavar: placeholder of the value in the help.
        argument: whether it has no option, and is known by its place.
        variable: an environment variable that gives its default.
        at_edge: the command line's default, where this depends on the machine.
    """

    help: str
    default: Any = None
    rule: Rule | None = None
    read: Callable[[str], Any] | None = None
    kept: "Callable[[StudyConfig], Any] | None" = None
    as_kept: "Callable[[Any, StudyConfig], Any]" = lambda asked, config: asked
    undecided: Any = None
    nothing: str = "none"
    option: str | None = None
    metavar: str | None = None
    argument: bool = False
    variable: str | None = None
    at_edge: Callable[[], Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """A field with its `Setting`. `kind` is its type without None; `value` is its default, MISSING without one."""

    name: str
    kind: Any
    setting: Setting
    value: Any = MISSING

    @property
    def reads_text(self) -> bool:
        """Whether the value, or each of several values, is made from the command line's text."""
        return self.kind is not bool

    @property
    def placeholder(self) -> str:
        """The word that stands for the value in the help."""
        words = {int: "N", float: "X", Path: "PATH"}
        return self.setting.metavar or words.get(self.kind, "TEXT")

    def check(self, value: Any) -> None:
        """Raises ConfigError when a value, which is not None, is outside the rule."""
        if self.setting.rule is not None and (mend := self.setting.rule(value)) is not None:
            raise ConfigError(f"`{self.name}` is {written(value)}; {mend}")

    def read(self, text: str) -> Any:
        """Returns the value that a text stands for. Raises ConfigError."""
        reader = self.setting.read or READERS[self.kind]
        try:
            return reader(text)
        except ValueError as error:
            raise ConfigError(f"`{self.name}` is {written(text)}; {error}") from None

    def told(self, value: Any) -> str:
        """Returns a study's value as the command line would write it."""
        match value:
            case None:
                return self.setting.nothing or "none"
            case bool():
                return "yes" if value else "no"
            case tuple():
                return ",".join(map(str, value))
            case _:
                if isinstance(value, float):
                    return f"{value:.10g}"
                return f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)


def declared(name: str, hint: Any, value: Any = MISSING) -> Declared | None:
    """Returns a name and its type hint as a setting; None for one that is no setting."""
    if get_origin(hint) is not Annotated:
        return None
    kind, *marks = get_args(hint)
    setting = next((mark for mark in marks if isinstance(mark, Setting)), None)
    if setting is None:
        return None
    some = [each for each in get_args(kind) if each is not NoneType]
    optional = NoneType in get_args(kind)
    return Declared(name=name, kind=some[0] if optional and len(some) == 1 else kind, setting=setting, value=value)


@functools.cache
def settings_of(group: type) -> Mapping[str, Declared]:
    """Returns the settings among the fields of a dataclass by name; a derived class's own come first."""
    hints = get_type_hints(group, include_extras=True)
    inherited = {
        name for base in group.__bases__ if dataclasses.is_dataclass(base) for name in base.__dataclass_fields__
    }
    found = [
        each
        for field in sorted(dataclasses.fields(group), key=lambda field: field.name in inherited)
        if (each := declared(field.name, hints[field.name], field.default)) is not None
    ]
    return {each.name: each for each in found}


class Settings:
    """Base of dataclasses whose fields are settings. An instance with a value outside its rule cannot be made."""

    __slots__ = ()

    def __post_init__(self) -> None:
        for name, each in settings_of(type(self)).items():  # type: ignore[arg-type]  # a class can be hashed
            if (value := getattr(self, name)) is not None:
                each.check(value)


# --- rules ---
MANY = 1_000_000
"""The limit of trials, epochs and the like, far above what anybody needs."""

TRIALS = 24
"""The size of a study for which neither a size nor a limit of time is given."""


def at_least(low: float, words: str = "", *, most: float = math.inf) -> Rule:
    """Allows a number from `low` to `most`, but not NaN or infinity."""
    return lambda value: _too_large(value, most) or (None if low <= value else f"give at least {low:g}{words}")


def above(low: float, *, most: float = math.inf) -> Rule:
    """Allows a number above `low` and up to `most`, but not NaN or infinity."""
    return lambda value: _too_large(value, most) or (None if low < value else f"give more than {low:g}")


def _too_large(value: float, most: float) -> str | None:
    if value <= most and value != math.inf:
        return None
    return f"give at most {most:,.10g}" if value > most else "give a finite number"


def between(low: int, high: int, words: str = "") -> Rule:
    """Allows a number from `low` to `high`, both included."""
    return lambda value: None if low <= value <= high else f"give {low} to {high}{words}"


def share(value: float) -> str | None:
    """Allows a number from 0 to below 1."""
    return None if 0 <= value < 1 else "give a number from 0 to below 1"


def one_of(choices: Callable[[], Iterable[str]]) -> Rule:
    """Allows one of some names. They are asked for late, because their modules are slow to import."""
    return lambda value: None if value in (known := tuple(choices())) else f"choose from {', '.join(known)}"


def regular_expression(value: str) -> str | None:
    """Allows a regular expression of Python."""
    try:
        re.compile(value)
    except (re.error, OverflowError, RecursionError) as error:
        return f"it is no regular expression ({error}); give one such as ([^/]+)_[0-9]+[.]"
    return None


_WHITE_LEVELS = f"give a number above 0 and at most {MOST_LEVEL}, or {DATA} for the largest value of the images"


def white_level(value: WhiteLevel) -> str | None:
    """Allows a value that can be white in an image of at most 32 bits, and the word for that of the data."""
    is_level = value == DATA or (not isinstance(value, str) and 0 < value <= MOST_LEVEL)
    return None if is_level else _WHITE_LEVELS


def read_white_level(text: str) -> WhiteLevel:
    """Reads what `white_level` allows."""
    if text == DATA:
        return DATA
    try:
        return read_number(text)
    except ValueError:
        raise ValueError(_WHITE_LEVELS) from None


MODEL = "{model}"
"""What stands for the program's file in a command that measures its latency."""


def measuring_command(value: str) -> str | None:
    """Allows a command whose words a shell would take apart, and that names the program's file."""
    if (mend := one_line(value)) is not None:
        return mend
    try:
        words = shlex.split(value)
    except ValueError as error:
        return f"it is no command ({str(error).lower()}); give one such as 'ssh board run-model {MODEL}'"
    return None if any(MODEL in word for word in words[1:]) else f"write {MODEL} where the program's file should stand"


PRIORS = ("space", "none")
"""What a search may know at its start: the earlier trials that its space comes with, or nothing."""


def parsed_by(parse: Callable[[Any], object]) -> Rule:
    """Allows every value that `parse` accepts; `parse` raises its own SkipnasError for others."""

    def rule(value: Any) -> None:
        parse(value)

    return rule


def readable_by(read: Callable[[str], object]) -> Rule:
    """Allows every text that a reader of `nas.parsing` accepts."""

    def rule(value: str) -> str | None:
        try:
            read(value)
        except ValueError as error:
            return str(error)
        return None

    return rule


def no_file(value: Path) -> str | None:
    """Allows a folder that exists, and one that does not exist yet."""
    return "it is no folder; give a folder" if value.exists() and not value.is_dir() else None


def one_line(value: str) -> str | None:
    """Allows text that a terminal shows as one line."""
    return None if value.strip() and value.isprintable() else "give one line of printable text"


def written(value: Any) -> str:
    """Returns a value for a message: text in quotes and shortened, numbers as people type them."""
    if isinstance(value, float):
        return f"{value:g}"
    return in_short(repr(value) if isinstance(value, str) else str(value))


# --- a study ---
@dataclass(frozen=True, slots=True, kw_only=True)
class StudyConfig:
    """Everything that defines a study and is fixed when it is created.

    The default of a field is the value of studies that were made before the field was kept.

    Attributes:
        study: name of the study.
        space: name of the search space.
        space_version: version of the search space.
        data: data source (``digits``, ``folder:DIR``, ...), canonical.
        fingerprint: digest of the data itself, so that a changed folder is noticed.
        task: the task that data and noise make.
        epochs: full training budget of a candidate.
        objectives: objectives in the order of the study's values.
        constraints: limits that a candidate keeps before training.
        subset: number of training images used, None for all.
        group_by: regular expression on the paths of images, by which those that belong together stay in one split; None
            for none.
        pair_by: regular expression on the paths of images, by which a clean image and its noisy shots belong together;
            None where they have the same name.
        sampler: the name of a sampler (`nas.search.sampler.SAMPLERS`), or ``auto``, as older versions wrote.
        prior: what proposals are based on before the study has trials: of `PRIORS`.
        seed: seed of the search; every candidate's own seed comes from it and the candidate's digest.
        device: ``cpu`` or ``cuda``, as the workers see it.
        precision: ``fp32`` or ``bf16``.
        threads: torch threads in each worker.
        early_stopping: whether candidates are stopped at rungs.
        within_rank: the rule by which candidates are stopped (`nas.search.early_stopping.RULES`).
        training_version: version of the training code that made the study (`nas.training.version`); each trial keeps
            its own.
        white_level: value of white in images of more than 8 bits; None where each has its type's largest.
        class_weights: those of every recipe (`nas.types.Recipe`), or ``search`` where each candidate has its own.
        label_smoothing: that of every recipe.
        latency: where latency is measured; None where it is not. Studies that older versions made have none either,
            and trials whose latency is that of eager PyTorch, which no trial has that is trained now.
    """

    study: str
    space: str
    space_version: int
    data: str
    fingerprint: str
    task: Task
    epochs: int
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    subset: int | None = None
    group_by: str | None = None
    pair_by: str | None = None
    sampler: str = "auto"
    prior: str = "none"
    seed: int = 0
    device: str = "cpu"
    precision: str = "fp32"
    threads: int = 1
    early_stopping: bool = False
    within_rank: str = "hypervolume"
    training_version: int = 1
    white_level: float | None = None
    class_weights: str = "none"
    label_smoothing: float = 0.0
    latency: LatencySetting | None = None

    @property
    def objective_names(self) -> tuple[str, ...]:
        """The names of the objectives, in their order."""
        return tuple(objective.name for objective in self.objectives)

    @property
    def max_macs(self) -> int:
        """The limit of MACs, 0 where there is none."""
        return next((limit.upper for limit in self.constraints if limit.name == "macs"), 0)

    def in_order(self, values: Mapping[str, float]) -> tuple[float, ...]:
        """Returns the values of the objectives, in their order, out of all that were measured.

        Raises:
            ConfigError: one is missing, as in a database of a stranger.
        """
        found = {objective.name: (values or {}).get(objective.name) for objective in self.objectives}
        if missing := [name for name, value in found.items() if value is None]:
            raise ConfigError(f"a complete trial has no value of {missing[0]}: another program wrote its record")
        return tuple(value for value in found.values() if value is not None)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "StudyConfig":
        """Reads a stored configuration. Raises ConfigError when fields are missing or unknown."""
        try:
            fields = dict(value)
            fields["task"] = Task(**fields["task"])
            fields["objectives"] = tuple(Objective(**o) for o in fields["objectives"])
            fields["constraints"] = tuple(Constraint(**c) for c in fields["constraints"])
            if (latency := fields.get("latency")) is not None:
                fields["latency"] = LatencySetting(**latency)
            made = cls(**fields)
            for part in (made, made.task, *made.objectives, *made.constraints, *filter(None, [made.latency])):
                check_types(part)  # a database may come from a stranger
            return made
        except (KeyError, TypeError) as error:
            raise ConfigError(
                f"stored study configuration cannot be read ({in_short(error)}); update skipnas"
            ) from None


def _limit(name: str) -> Callable[[StudyConfig], int | None]:
    return lambda config: next((limit.upper for limit in config.constraints if limit.name == name), None)


def _of_latency(name: str) -> Callable[[StudyConfig], Any]:
    return lambda config: None if config.latency is None else getattr(config.latency, name)


def _noise(name: str) -> str:
    from nas.data.noise import parse_noise

    return parse_noise(name).name


def _samplers() -> Iterable[str]:
    from nas.search.sampler import CHOICES

    return CHOICES


def _rules_of_rungs() -> Iterable[str]:
    from nas.search.early_stopping import RULES

    return RULES


def _objectives_for(asked: tuple[str, ...], config: StudyConfig) -> tuple[str, ...]:
    """Returns the requested objectives that are left, in the study's order."""
    unused = TrivialQuality(psnr=0.0, counts=(1,) * config.task.classes)
    left, _ = resolve_objectives(asked, config.task, unused, config.constraints)
    order = config.objective_names
    return tuple(sorted((o.name for o in left), key=lambda name: order.index(name) if name in order else len(order)))


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRequest(Settings):
    """The request of a study. None means: as the study has it, or the setting's default in a new one."""

    space: Annotated[
        str | None,
        Setting(
            help="Search space (skipnas spaces), or your own: module:object.",
            default="unet",
            kept=lambda config: config.space,
        ),
    ] = None
    data: Annotated[
        str | None,
        Setting(
            help=f"{sources_in_short()}.",
            default="digits",
            rule=parsed_by(parse_source),
            kept=lambda config: config.data,
            as_kept=lambda asked, config: parse_source(asked),
        ),
    ] = None
    noise: Annotated[
        str | None,
        Setting(
            help=f"{noises_in_short()}.",
            default="gaussian:50",
            rule=parsed_by(_noise),
            kept=lambda config: config.task.noise,
            as_kept=lambda asked, config: _noise(asked),
        ),
    ] = None
    subset: Annotated[
        int | None,
        Setting(
            help="Use only this many training images.",
            rule=at_least(1),
            kept=lambda config: config.subset,
            nothing="all images",
        ),
    ] = None
    group_by: Annotated[
        str | None,
        Setting(
            help="Keep images together in one split in whose paths this regular expression finds the same.",
            rule=regular_expression,
            kept=lambda config: config.group_by,
            metavar="REGEX",
        ),
    ] = None
    pair_by: Annotated[
        str | None,
        Setting(
            help="Of pairs:DIR: what this regular expression finds is the same in the paths of a clean image and its "
            "noisy shots. Default: they have the same name.",
            rule=regular_expression,
            kept=lambda config: config.pair_by,
            metavar="REGEX",
        ),
    ] = None
    white_level: Annotated[
        WhiteLevel | None,
        Setting(
            help="Value of white in images of more than 8 bits, or data for their largest value, of those for training "
            "where splits are given. Default: what they say, or their type's largest.",
            rule=white_level,
            read=read_white_level,
            kept=lambda config: config.white_level,
            # What was found in the data when the study was made is its number since.
            as_kept=lambda asked, config: (config.white_level or asked) if asked == DATA else asked,
            nothing="each type's largest",
            metavar="LEVEL",
        ),
    ] = None
    class_weights: Annotated[
        str | None,
        Setting(
            help="For unequal classes: none, balanced (images of small classes weigh more in the loss), sampled (they "
            "are drawn more often), or search (each candidate has its own).",
            default="none",
            rule=one_of(lambda: (*get_args(ClassWeights), "search")),
            kept=lambda config: config.class_weights,
        ),
    ] = None
    label_smoothing: Annotated[
        float | None,
        Setting(
            help="Share of the target that is spread over all classes.",
            default=0.0,
            rule=share,
            kept=lambda config: config.label_smoothing,
        ),
    ] = None
    epochs: Annotated[
        int | None,
        Setting(
            help="Full training budget of a candidate.",
            default=27,
            rule=at_least(1, most=MANY),
            kept=lambda config: config.epochs,
        ),
    ] = None
    objectives: Annotated[
        tuple[str, ...] | None,
        Setting(
            help=f"Of {', '.join(OBJECTIVES)}.",
            default=DEFAULT,
            read=read_names,
            rule=parsed_by(check_objectives),
            kept=lambda config: config.objective_names,
            as_kept=_objectives_for,
        ),
    ] = None
    max_params: Annotated[
        int | None,
        Setting(
            help="Limit of parameters. Default: the space's.",
            rule=at_least(1, most=MAX_PARAMS),
            kept=_limit("params"),
        ),
    ] = None
    max_macs: Annotated[
        int | None,
        Setting(
            help="Limit of MACs for an image. Default: the space's, or what a time limit without a size bears.",
            rule=at_least(1),
            kept=_limit("macs"),
        ),
    ] = None
    sampler: Annotated[
        str | None,
        Setting(
            help="auto, bayes, tpe, gp, nsga2, random, qmc.",
            default="auto",
            rule=one_of(_samplers),
            kept=lambda config: config.sampler,
            undecided="auto",
        ),
    ] = None
    prior: Annotated[
        str | None,
        Setting(
            help="What is known before the search: space (earlier trials that the space comes with) or none.",
            default="space",
            rule=one_of(lambda: PRIORS),
            kept=lambda config: config.prior,
        ),
    ] = None
    early_stopping: Annotated[
        bool | None,
        Setting(
            help="Stop weak trials at rungs. Default: only in a new study with a time limit and no number of trials.",
            default=False,
            kept=lambda config: config.early_stopping,
        ),
    ] = None
    within_rank: Annotated[
        str | None,
        Setting(
            help="Rule of early stopping, by what counts among equals at a rung: hypervolume or epsilon-net.",
            default="hypervolume",
            rule=one_of(_rules_of_rungs),
            kept=lambda config: config.within_rank,
        ),
    ] = None
    precision: Annotated[
        str | None,
        Setting(
            help="Of training: auto (timed once, the faster one), fp32, bf16.",
            default="auto",
            rule=one_of(lambda: PRECISIONS),
            kept=lambda config: config.precision,
            undecided="auto",
        ),
    ] = None
    seed: Annotated[
        int | None,
        Setting(help="Seed of the search.", default=0, rule=at_least(0), kept=lambda config: config.seed),
    ] = None
    latency_size: Annotated[
        str | None,
        Setting(
            help="Measure latency on images of this size. Default: the data's, where latency is an objective.",
            rule=readable_by(read_size),
            kept=_of_latency("size"),
            as_kept=lambda asked, config: "x".join(map(str, read_size(asked))),
            nothing="",
            metavar="HxW",
        ),
    ] = None
    latency_batch: Annotated[
        int | None,
        Setting(
            help="Images at a time in a measurement of latency, which is the time for one of them. Default: 1.",
            rule=at_least(1, most=1024),
            kept=_of_latency("batch"),
            nothing="",
        ),
    ] = None
    latency_threads: Annotated[
        int | None,
        Setting(
            help="Threads of ONNX Runtime in a measurement of latency. Default: 1.",
            rule=at_least(1, most=1024),
            kept=_of_latency("threads"),
            nothing="",
        ),
    ] = None
    latency_provider: Annotated[
        str | None,
        Setting(
            help="What ONNX Runtime computes with in a measurement of latency: cpu, cuda, ... Default: cpu.",
            rule=one_line,
            kept=_of_latency("provider"),
            as_kept=lambda asked, config: asked.lower(),
            nothing="",
            metavar="NAME",
        ),
    ] = None
    latency_command: Annotated[
        str | None,
        Setting(
            help="Measure latency by a command that prints milliseconds, such as 'ssh board run-model {model}'. It has "
            "to be given again whenever the study is continued.",
            rule=measuring_command,
            kept=_of_latency("command"),
            nothing="",
            metavar="COMMAND",
        ),
    ] = None

    def __post_init__(self) -> None:
        Settings.__post_init__(self)
        for name in ("latency_threads", "latency_provider"):
            if self.latency_command is not None and (value := getattr(self, name)) is not None:
                raise ConfigError(
                    f"`{name}` is {written(value)}, and `latency_command` measures by a command of your own; leave one "
                    "of them out"
                )

    def latency_setting(self, objectives: Iterable[str], task: Task) -> LatencySetting | None:
        """Returns where a new study of these objectives measures latency; None where nothing asks for it."""
        asked = (
            self.latency_size,
            self.latency_batch,
            self.latency_threads,
            self.latency_provider,
            self.latency_command,
        )
        if "latency" not in objectives and not any(asked):
            return None
        height, width = read_size(self.latency_size) if self.latency_size else (task.height, task.width)
        runtime = self.latency_command is None
        return LatencySetting(
            height=height,
            width=width,
            batch=self.latency_batch or 1,
            threads=(self.latency_threads or 1) if runtime else None,
            provider=(self.latency_provider or "cpu").lower() if runtime else None,
            command=self.latency_command,
        )

    def settled(self) -> dict[str, Any]:
        """Returns the settings of a new study by name: the requested values, and the defaults of the others."""
        asked = {name: getattr(self, name) for name in settings_of(StudyRequest)}
        return {
            name: settings_of(StudyRequest)[name].setting.default if value is None else value
            for name, value in asked.items()
        }


def kept_settings(config: StudyConfig) -> dict[str, str]:
    """Returns every setting that a study has fixed, by name, as the command line would write it."""
    kept = [
        (each, each.setting.kept(config))
        for each in settings_of(StudyRequest).values()
        if each.setting.kept is not None
    ]
    return {each.name: each.told(value) for each, value in kept if each.setting.nothing or value is not None}


def differences(config: StudyConfig, request: StudyRequest) -> list[str]:
    """Returns a line for each fixed setting of a study that a request asks otherwise; empty when there is none."""
    lines = []
    for name, each in settings_of(StudyRequest).items():
        asked, setting = getattr(request, name), each.setting
        if setting.kept is None or asked in (None, setting.undecided):
            continue
        has, asks = setting.kept(config), setting.as_kept(asked, config)
        if has != asks:
            lines.append(f"{name.replace('_', ' ')}: study has {each.told(has)}, asked for {each.told(asks)}")
    return lines


def checked_command(config: StudyConfig, given: str | None) -> None:
    """Refuses to measure by the command of a study unless it was given for this run, as a study may be a stranger's.

    Raises:
        StudyError: another command was given, or none.
    """
    stored = None if config.latency is None else config.latency.command
    if stored != given:
        what = "another one" if given else "none"
        raise StudyError(
            f"study {config.study!r} measures latency by {written(stored)}, and {what} was given: give it as "
            "`latency_command`, if you trust it; a stored command is never run by itself"
            if stored
            else f"study {config.study!r} measures latency by no command; leave out `latency_command`"
        )


# --- a run ---
def default_gpus() -> float:
    """Returns a quarter of a GPU where NVIDIA's driver shows one, because candidates are far too small to fill it."""
    return 0.25 if Path("/proc/driver/nvidia/gpus").exists() else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources(Settings):
    """The resources of trials in one run. They do not change the results of a trial.

    Attributes:
        concurrency: trials at a time; None for as many as the machine or cluster has room for.
        address: a Ray cluster to join; None starts a local Ray.
        time_limit: seconds after which the search stops; None for no limit.
        trial_timeout: seconds after which a trial counts as hanging and fails; None for no limit.
        latency_command: the command by which this run may measure latency, as a person has given it.
    """

    latency_command: str | None = None
    cpus_per_trial: Annotated[
        float,
        Setting(help="CPU cores of a trial; those of a new study have as many threads.", rule=above(0, most=1024)),
    ] = 1.0
    gpus_per_trial: Annotated[
        float,
        Setting(
            help="GPUs of a trial, fractions too. Default: 0.25 if there are any.",
            rule=at_least(0, most=1024),
            at_edge=default_gpus,
        ),
    ] = 0.0
    concurrency: Annotated[
        int | None, Setting(help="Trials at a time. Default: as many as fit.", rule=at_least(1, most=MANY))
    ] = None
    address: Annotated[
        str | None,
        Setting(help="Ray cluster to join: host:port, ray://host:port or auto.", rule=readable_by(read_address)),
    ] = None
    time_limit: Annotated[
        float | None,
        Setting(
            help="Stop after 90s, 30m or 2h; continue any time.",
            rule=above(0, most=LONGEST_TIME),
            read=read_seconds,
            metavar="TIME",
        ),
    ] = None
    trial_timeout: Annotated[
        float | None,
        Setting(
            help="Give up a trial that takes longer, e.g. 20m.",
            rule=above(0, most=LONGEST_TIME),
            read=read_seconds,
            metavar="TIME",
        ),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions(Resources):
    """The options of one run of a study.

    Attributes:
        trials: the size that the study should have; None for `TRIALS` or, with a time limit or `until_flat`, for any.
        until_flat: share of the hypervolume by which it should be expected to grow in a minute; the search ends when it
            is less (`nas.search.growth`). None to go on.
    """

    trials: Annotated[
        int | None,
        Setting(
            help=f"Size the study should have. Default: {TRIALS}, or any where time or flatness ends it.",
            rule=at_least(1, most=MANY),
        ),
    ] = None
    until_flat: Annotated[
        float | None,
        Setting(
            help="Stop when a minute more would add less than this share to the hypervolume, as the second half of the "
            f"run tells, after {LEAST_TRIALS} trials or more. Example: 0.001.",
            rule=above(0, most=1),
            metavar="SHARE",
        ),
    ] = None

    @property
    def size(self) -> int | None:
        """The size that the study should have; None for as many trials as another limit allows."""
        return TRIALS if self.trials is None and self.time_limit is None and self.until_flat is None else self.trials


# --- a training for real ---
@dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings(Settings):
    """The settings that a long training adds to a recipe.

    Attributes:
        warm_up: share of the run over which the learning rate rises from zero, in [0, 1).
        ema: decay of the averaged weights per step, in [0, 1); 0 for no averaging.
        accumulate: number of batches whose gradients make one step.
        seed: seed of weights, order, patches, augmentation and noise.

    Raises:
        ConfigError: a value is outside its rule.
    """

    warm_up: Annotated[
        float, Setting(help="Share of the run over which the learning rate rises.", rule=share, option="warmup")
    ] = 0.05
    ema: Annotated[float, Setting(help="Decay of the averaged weights; 0 for none.", rule=share)] = 0.999
    accumulate: Annotated[int, Setting(help="Batches whose gradients make one step.", rule=at_least(1, most=MANY))] = 1
    seed: Annotated[int, Setting(help="Seed of weights, order, patches and noise.", rule=at_least(0))] = 0
