"""The requests that commands take beside `nas.settings`: where studies lie, and what to do with one."""

# Annotations are evaluated at once here, not kept as text, because they hold the settings.

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, get_args

from nas.data.noise import parse_noise
from nas.data.sources import parse_source
from nas.data.white import WhiteLevel
from nas.parsing import read_weights
from nas.settings import (
    MANY,
    FitSettings,
    Resources,
    Setting,
    Settings,
    StudyRequest,
    above,
    at_least,
    between,
    no_file,
    one_of,
    parsed_by,
    read_white_level,
    regular_expression,
    share,
    white_level,
)
from nas.types import PRECISIONS, ClassWeights

STORAGE_VARIABLE = "SKIPNAS_STORAGE"
"""The environment variable that names the storage where no option does."""

Study = Annotated[str, Setting(help="Name of the study (skipnas studies list).", metavar="NAME", argument=True)]
Storage = Annotated[
    str | None,
    Setting(help="SQLAlchemy URL or SQLite file. Default: runs/studies.db.", metavar="URL", variable=STORAGE_VARIABLE),
]
BundlePath = Annotated[
    Path,
    Setting(
        help="Folder that export or train wrote, or the name of a bundle that skipnas ships (gray, ...).",
        metavar="BUNDLE",
        argument=True,
    ),
]
DataRoot = Annotated[
    Path | None,
    Setting(help="Where data sets lie or are downloaded to (~/.cache/skipnas/data).", metavar="DIR", rule=no_file),
]
WhiteLevelAsked = Annotated[
    WhiteLevel | None,
    Setting(
        help="Value of white in the images, or data for their largest value. Default: what they or a bundle say, or "
        "their type's largest.",
        rule=white_level,
        read=read_white_level,
        metavar="LEVEL",
    ),
]
SelfEnsemble = Annotated[
    bool,
    Setting(
        help="Restore under all eight flips and turns, and take the mean: better where images have no direction, in "
        "eight times the time."
    ),
]
Pick = Annotated[str, Setting(help="knee, an objective (its best), or a trial's number.")]
Prefer = Annotated[
    dict[str, float] | None,
    Setting(
        help="Weights of objectives for the knee: psnr=2,accuracy=1.",
        metavar="NAME=WEIGHT,...",
        read=read_weights,
    ),
]
FIGURE_FORMATS = ("svg", "pdf", "png")
OwnSpace = Annotated[
    str | None,
    Setting(
        help="The study's own search space, module:object, if it has one: its code is imported.",
        metavar="MODULE:OBJECT",
        option="space",
    ),
]
Json = Annotated[bool, Setting(help="One JSON object on stdout, everything else on stderr.", option="json")]
Quiet = Annotated[bool, Setting(help="Nothing but the result.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeLimits(Settings):
    """The limits of size that a choice keeps. They are free each time; a search's own limits are in its study."""

    max_params: Annotated[
        int | None, Setting(help="Choose among trials with at most this many parameters.", rule=at_least(1))
    ] = None
    max_macs: Annotated[
        int | None, Setting(help="Choose among trials with at most this many MACs for an image.", rule=at_least(1))
    ] = None
    max_latency: Annotated[
        float | None,
        Setting(
            help="Choose among trials with at most this latency, in ms for an image.",
            rule=above(0, most=MANY),
            metavar="MS",
        ),
    ] = None

    @property
    def upper(self) -> dict[str, float]:
        """Returns the limits that are given, by the name of their metric: ``{"macs": 1000000}``."""
        limits = {"params": self.max_params, "macs": self.max_macs, "latency": self.max_latency}
        return {name: upper for name, upper in limits.items() if upper is not None}

    @property
    def options(self) -> str:
        """Returns the limits as the command line takes them, with a space before each: `` --max-macs 1000000``."""
        return "".join(f" --max-{name} {upper}" for name, upper in self.upper.items())


NO_LIMITS = SizeLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRequest(StudyRequest):
    """The request of a search: its study, where the study lies, and what it begins with.

    Attributes:
        command: the command line, to be stored with a new study.
    """

    study: Annotated[
        str | None, Setting(help="Name; continued if it exists. Default: from data and noise.", metavar="NAME")
    ] = None
    storage: Storage = None
    data_root: DataRoot = None
    warm_start: Annotated[
        str | None, Setting(help="Begin with the front of another study of this storage.", metavar="STUDY")
    ] = None
    baselines: Annotated[
        bool | None,
        Setting(
            help="Begin with the networks of the papers that lie in the space. "
            "Default: in a new study those that promise most, one for eight trials; without a prior all of them, "
            "if they are at most half of the trials."
        ),
    ] = None
    command: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRequest(FitSettings):
    """The request of a training; None means the default.

    Attributes:
        what: a spec's file, the name of a reference network, or a study with or without ``:PICK``; None with `start`.
        start: the bundle whose network is trained on, from its weights.
        to: folder of the training; its bundle lies in ``bundle`` there.
    """

    what: Annotated[
        str | None,
        Setting(
            help="A spec's file, a network of the papers, or a study. Left out with --from.",
            metavar="[SPEC.json|REFERENCE|NAME[:PICK]]",
            argument=True,
        ),
    ] = None
    start: Annotated[
        Path | None,
        Setting(
            help="Go on with the network and the weights of a bundle, given by its folder or name, on other noise or "
            "data.",
            metavar="BUNDLE",
            option="from",
        ),
    ] = None
    to: Annotated[
        Path, Setting(help="Folder of the training; the same command goes on there.", metavar="DIR", rule=no_file)
    ]
    own_space: OwnSpace = None
    data: Annotated[
        str | None,
        Setting(help="As for search; images:DIR is trained on in patches.", rule=parsed_by(parse_source)),
    ] = None
    data_root: DataRoot = None
    noise: Annotated[
        str | None,
        Setting(help="As for search. Default: the study's or bundle's, or gaussian:50.", rule=parsed_by(parse_noise)),
    ] = None
    epochs: Annotated[int, Setting(help="Passes over the training data.", rule=at_least(1, most=MANY))] = 100
    subset: Annotated[int | None, Setting(help="Use only this many training images.", rule=at_least(1))] = None
    group_by: Annotated[
        str | None,
        Setting(help="As for search. Default: the study's or bundle's.", rule=regular_expression, metavar="REGEX"),
    ] = None
    pair_by: Annotated[
        str | None,
        Setting(help="As for search. Default: the study's or bundle's.", rule=regular_expression, metavar="REGEX"),
    ] = None
    white_level: Annotated[
        WhiteLevel | None,
        Setting(
            help="As for search. Default: the study's or bundle's.",
            rule=white_level,
            read=read_white_level,
            metavar="LEVEL",
        ),
    ] = None
    batch_size: Annotated[int | None, Setting(help="Default: the recipe's.", rule=at_least(1, most=MANY))] = None
    learning_rate: Annotated[float | None, Setting(help="Default: the recipe's.", rule=above(0, most=MANY))] = None
    weight_decay: Annotated[float | None, Setting(help="Default: the recipe's.", rule=at_least(0, most=MANY))] = None
    class_weights: Annotated[
        str | None,
        Setting(
            help="For unequal classes: none, balanced, sampled, as for search. Default: the recipe's.",
            rule=one_of(lambda: get_args(ClassWeights)),
        ),
    ] = None
    label_smoothing: Annotated[float | None, Setting(help="As for search. Default: the recipe's.", rule=share)] = None
    augment: Annotated[bool | None, Setting(help="Flips and turns. Default: what suits the data.")] = None
    patch: Annotated[
        int | None,
        Setting(help="Side of the patches of images:DIR. Default: 64.", rule=at_least(8, " pixels", most=2**16)),
    ] = None
    patches_per_epoch: Annotated[
        int | None, Setting(help="Default: as many as fill the photographs.", rule=at_least(1, most=1000 * MANY))
    ] = None
    precision: Annotated[str, Setting(help="auto (the faster one), fp32, bf16.", rule=one_of(lambda: PRECISIONS))] = (
        "auto"
    )
    threads: Annotated[
        int | None, Setting(help="Threads of torch. Default: all cores.", rule=at_least(1, most=1024))
    ] = None
    log_dir: Annotated[
        Path | None, Setting(help="TensorBoard logs. Default: DIR/logs.", metavar="DIR", rule=no_file)
    ] = None
    storage: Storage = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmRequest(Resources):
    """The request of a confirmation, with the resources of its runs."""

    seeds: Annotated[
        int,
        Setting(
            help="Runs of each member, each under a seed of its own.",
            rule=between(2, 1000, ", as an interval needs two runs"),
        ),
    ] = 5
    top: Annotated[
        int,
        Setting(
            help="Members beside the knee, by hypervolume contribution.",
            rule=at_least(0, ", which confirms the knee alone", most=MANY),
        ),
    ] = 8
    baselines: Annotated[bool, Setting(help="Also train the networks of the papers, to compare with.")] = False
    latency_command: Annotated[
        str | None,
        Setting(
            help="The command by which the study measures latency, given again as a stored one is never run by itself.",
            metavar="COMMAND",
        ),
    ] = None
    own_space: OwnSpace = None
    data_root: DataRoot = None
