"""The table of metrics, which gives the figures of networks and their form for people, and the objectives of a study.

A new metric is one entry of `METRICS` and, under the same name, a function in `nas.training.metrics` that computes it.
Training, records, rungs, tables, pages and cards read the entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from nas.errors import ConfigError
from nas.types import Constraint, Direction, Objective, Task, labelled

if TYPE_CHECKING:
    from nas.search.confirmation import Interval

Basis = Literal["cost", "images", "run", "program", "doubt", "evaluation"]

DEFAULT = ("psnr", "accuracy", "stability")
SENSITIVITY = 0.95
"""The sensitivity to the second of two classes at which accuracy is measured."""

LARGEST_SHARE = 0.6
"""The share of the images in one class above which people are told that accuracy says little."""

LATENCY_REFERENCE = 1000.0
"""The latency in ms per image that contributes nothing, where it is not known how long the largest networks take. Costs
have the space's limits as their reference, but no space limits latency."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrivialQuality:
    """The quality without a network, which is the zero of every quality.

    Attributes:
        psnr: mean PSNR in dB of the noisy validation images; self-supervised where no clean ones are known.
        counts: validation images of each class; empty without labels.
    """

    psnr: float
    counts: tuple[int, ...] = ()

    @property
    def present(self) -> int:
        """The number of classes of which validation has images."""
        return sum(count > 0 for count in self.counts)

    def share(self, label: int) -> float:
        """Returns the share of the validation images that are of a class."""
        return self.counts[label] / sum(self.counts)

    @property
    def largest(self) -> float:
        """The share of the largest class, which is the accuracy of always answering it."""
        return max(self.counts) / sum(self.counts)


def unequal(classes: Sequence[str], counts: Sequence[float]) -> str | None:
    """Returns a line that recommends balanced accuracy where one class has most of the images, and None elsewhere.

    Args:
        classes: names by index.
        counts: images of each class.
    """
    if not counts or max(counts) <= LARGEST_SHARE * sum(counts):
        return None
    name, share = classes[counts.index(max(counts))], 100 * max(counts) / sum(counts)
    return (
        f"{share:.0f} % of the images are of class {name}, so always answering it has an accuracy of {share:.0f} %; "
        "look at balanced accuracy"
    )


def _nothing(task: Task, trivial: TrivialQuality, limits: Mapping[str, int]) -> float:
    return 0.0


def _macro_f1_of_the_largest(task: Task, trivial: TrivialQuality, limits: Mapping[str, int]) -> float:
    # Its precision is its share and its recall is 1. The F1 of every other class is 0.
    return 2 * trivial.largest / (1 + trivial.largest) / trivial.present


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One quantity that is measured on a network or its training.

    Attributes:
        name: its name in options, records, tables and JSON.
        title: its name in sentences: ``PSNR``.
        described: its name on cards: ``PSNR of the restored images``.
        basis: the thing that it is computed from, which decides when it is known:
            ``cost``: from the spec alone, before training; it is a field of `nas.types.Cost`.
            ``images``: from the network's outputs for noisy images; after each validation, in a confirmation also on
                the test split, and by ``evaluate``.
            ``run``: from the probe curve so far; after each validation.
            ``program``: from the exported program (`nas.bundles.latency`), where a study says how it is measured.
            ``doubt``: how much the figures of another metric differ. It is no objective.
            ``evaluation``: by ``evaluate`` and for cards alone. No search measures it, so it is no objective.
        direction: ``maximize`` or ``minimize``.
        unit: the unit that people are shown; empty for none.
        digits: decimals that people are shown; None for amounts, which are whole numbers.
        reference: the value that contributes no hypervolume, from the task, the trivial quality and the limits by name.
        reference_title: that value in words; empty for ``a latency of 1000.000``.
        missing: the reason why a task cannot have it as an objective, or None when it can.
        classes: the number of classes of which validation must have images, because it is undefined with fewer.
        stands_for: the metric in whose place it is where a task cannot have that one; empty for none.
        caution: what people have to know who choose by it, as a line without a full stop; empty for nothing.
    """

    name: str
    title: str
    described: str
    basis: Basis
    direction: Direction
    unit: str = ""
    digits: int | None = 3
    reference: Callable[[Task, TrivialQuality, Mapping[str, int]], float] = _nothing
    reference_title: str = ""
    missing: Callable[[Task], str | None] = lambda task: None
    classes: int = 0
    stands_for: str = ""
    caution: str = ""

    @property
    def per_epoch(self) -> bool:
        """Whether every validation measures it."""
        return self.basis in ("images", "run")

    @property
    def at_rungs(self) -> bool:
        """Whether it is known where trials are stopped early: after each validation, or from the start."""
        return self.per_epoch or self.basis == "cost"

    @property
    def label(self) -> str:
        """The head of its column: ``psnr (dB)``, or the name alone without a unit."""
        return labelled(self.name, self.unit)

    @property
    def form(self) -> str:
        """The format of its figures, which Python and the figures' JavaScript read alike: ``.2f``."""
        return ",.0f" if self.digits is None else f".{self.digits}f"

    def figure(self, value: float) -> str:
        """Returns a value without its unit: ``20.84``, ``0.796``, ``1,234,567``."""
        return format(value, self.form)

    def text(self, value: float) -> str:
        """Returns a value with its unit: ``20.84 dB``, ``97.82 %``."""
        return f"{self.figure(value)} {self.unit}".strip()

    def titled(self, value: float) -> str:
        """Returns a value in a sentence: ``PSNR 20.84 dB``, ``1,234,567 parameters``."""
        return f"{self.figure(value)} {self.title}" if self.digits is None else f"{self.title} {self.text(value)}"

    def difference(self, value: float) -> str:
        """Returns a difference of two values, with its sign and without a unit: ``+0.12``."""
        return format(value, f"+{self.form}")

    def short(self, value: float) -> str:
        """Does the same as `figure`, but shows amounts in three digits: ``1.23M``."""
        for factor, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
            if self.digits is None and abs(value) >= factor:
                return f"{value / factor:.3g}{suffix}"
        return self.figure(value)

    def interval(self, value: Interval, *, short: bool = False) -> str:
        """Returns a mean and the half width of its interval: ``19.50 ± 0.40``; only the mean of an amount that never
        differs.

        With `short` amounts are shown as `short` shows them.
        """
        figure = self.short if short else self.figure
        if self.digits is None and not value.half:
            return figure(value.mean)
        return f"{figure(value.mean)} ± {figure(value.half)}"


def _needs_labels(task: Task) -> str | None:
    return None if task.classifies else "the data has no labels"


def _needs_two_classes(task: Task) -> str | None:
    return _needs_labels(task) or (
        None if task.classes == 2 else f"it is for 2 classes, and the data has {task.classes}"
    )


def _needs_noise(task: Task) -> str | None:
    return None if task.denoises else "noise is none, so there is nothing to restore"


def _needs_clean(task: Task) -> str | None:
    return _needs_noise(task) if task.clean else "no clean images are known"


def _needs_only_noisy(task: Task) -> str | None:
    return "clean images are known, so psnr can be measured" if task.clean else None


def _needs_learning(task: Task) -> str | None:
    return None if task.denoises or task.classifies else "noise is none and the data has no labels: no task is left"


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            name="psnr",
            title="PSNR",
            described="PSNR of the restored images",
            basis="images",
            direction="maximize",
            unit="dB",
            digits=2,
            reference=lambda task, trivial, limits: trivial.psnr,
            reference_title="the noisy input's PSNR",
            missing=_needs_clean,
        ),
        Metric(
            name="self_psnr",
            title="self-supervised PSNR",
            described="self-supervised PSNR, estimated from noisy images alone",
            basis="images",
            direction="maximize",
            unit="dB",
            digits=2,
            reference=lambda task, trivial, limits: trivial.psnr,
            reference_title="the noisy input's self-supervised PSNR",
            missing=_needs_only_noisy,
            stands_for="psnr",
            caution="the self-supervised PSNR is estimated from noisy images alone: from shots it is about the true "
            "PSNR, and ranked networks as that did (correlation 0.99); from single images the noise's own variance is "
            "in it, so that it is no PSNR to report, and it ranked networks a little less well (0.97, and 0.8 among "
            "good ones)",
        ),
        Metric(
            name="ssim",
            title="SSIM",
            described="SSIM of the restored images",
            basis="evaluation",
            direction="maximize",
            digits=4,
        ),
        Metric(
            name="accuracy",
            title="accuracy",
            described="top-1 accuracy on the noisy images",
            basis="images",
            direction="maximize",
            unit="%",
            digits=2,
            reference=lambda task, trivial, limits: 100.0 * trivial.largest,
            reference_title="the accuracy of always answering the largest class",
            missing=_needs_labels,
        ),
        Metric(
            name="stability",
            title="training stability",
            described="training stability, 0 to 1",
            basis="run",
            direction="maximize",
            digits=3,
            reference_title="a stability of 0",
            missing=_needs_learning,
        ),
        Metric(
            name="balanced_accuracy",
            title="balanced accuracy",
            described="balanced accuracy (mean recall of the classes)",
            basis="images",
            direction="maximize",
            unit="%",
            digits=2,
            reference=lambda task, trivial, limits: 100.0 / trivial.present,
            reference_title="the balanced accuracy of always answering one class",
            missing=_needs_labels,
        ),
        Metric(
            name="macro_f1",
            title="macro F1",
            described="macro F1 (mean over the classes)",
            basis="images",
            direction="maximize",
            digits=4,
            reference=_macro_f1_of_the_largest,
            reference_title="the macro F1 of always answering the largest class",
            missing=_needs_labels,
        ),
        Metric(
            name="auc",
            title="AUC",
            described="area under the ROC curve (one class against the rest, mean over the classes)",
            basis="images",
            direction="maximize",
            digits=4,
            reference=lambda task, trivial, limits: 0.5,
            reference_title="the AUC of chance",
            missing=_needs_labels,
            classes=2,
        ),
        Metric(
            name="accuracy_at_sensitivity",
            title=f"accuracy at {100 * SENSITIVITY:.0f} % sensitivity (best threshold on these images)",
            described=f"accuracy where {100 * SENSITIVITY:.0f} % of the second class are found (best threshold on "
            "these images)",
            basis="images",
            direction="maximize",
            unit="%",
            digits=2,
            reference=lambda task, trivial, limits: 100.0 * trivial.share(1),
            reference_title="the accuracy of always answering the second class",
            missing=_needs_two_classes,
            classes=2,
        ),
        Metric(
            name="calibration_error",
            title="calibration error",
            described="expected calibration error (15 bins)",
            basis="images",
            direction="minimize",
            unit="%",
            digits=2,
            reference=lambda task, trivial, limits: 100.0 - 100.0 / max(2, task.classes),
            reference_title="the calibration error of being certain of random answers",
            missing=_needs_labels,
        ),
        Metric(
            name="params",
            title="parameters",
            described="parameters",
            basis="cost",
            direction="minimize",
            digits=None,
            reference=lambda task, trivial, limits: float(limits["params"]),
            reference_title="the limit of parameters",
        ),
        Metric(
            name="macs",
            title="MACs",
            described="MACs for an image",
            basis="cost",
            direction="minimize",
            digits=None,
            reference=lambda task, trivial, limits: float(limits["macs"]),
            reference_title="the limit of MACs",
        ),
        Metric(
            name="latency",
            title="latency",
            described="time for one image",
            basis="program",
            direction="minimize",
            unit="ms",
            digits=3,
            reference=lambda task, trivial, limits: LATENCY_REFERENCE,
        ),
        Metric(
            name="latency_spread",
            title="spread of the latency",
            described="difference of the longest and the shortest measurement of that time",
            basis="doubt",
            direction="minimize",
            unit="ms",
            digits=3,
        ),
    )
}
"""The metrics by name, in the order in which people are shown them."""

OBJECTIVES = tuple(name for name, metric in METRICS.items() if metric.basis not in ("doubt", "evaluation"))
"""The names of the metrics that a study may optimise."""


RESTORING = ("psnr", "self_psnr")
"""The metrics that tell how well images are restored. Every validation has the one that its data allows."""


def metric_of(name: str) -> Metric:
    """Returns the entry of a metric; a plain one for a name that only a newer version knows."""
    return METRICS.get(name) or Metric(name=name, title=name, described=name, basis="evaluation", direction="maximize")


def of_basis(*bases: Basis) -> list[Metric]:
    """Returns the metrics that are computed from one of `bases`, in the order of the table."""
    return [metric for metric in METRICS.values() if metric.basis in bases]


def cautions(names: Iterable[str]) -> list[str]:
    """Returns what people have to know who choose by these metrics."""
    return [metric.caution for metric in map(metric_of, names) if metric.caution]


def followed(objectives: Iterable[str] = ()) -> list[Metric]:
    """Returns the metrics on images that figures and tables of many trials follow: the usual ones, those that stand for
    them, and those of `objectives`."""
    names = {*DEFAULT, *objectives}
    return [metric for metric in of_basis("images") if metric.name in names or metric.stands_for in names]


def titled(values: Mapping[str, float | None]) -> str:
    """Returns figures in a sentence, in the order of the table: ``PSNR 20.84 dB, SSIM 0.7961, accuracy 97.82 %``.

    Values that are None, and names of no metric, are left out.
    """
    known = ((metric, values.get(name)) for name, metric in METRICS.items())
    return ", ".join(metric.titled(value) for metric, value in known if value is not None)


def limits_text(constraints: Sequence[Constraint]) -> str:
    """Returns limits as people read them: ``params <= 2,000,000, macs <= 6,400,000``; ``none`` without any."""
    return ", ".join(f"{c.name} <= {metric_of(c.name).figure(c.upper)}" for c in constraints) or "none"


def check_objectives(names: Sequence[str]) -> None:
    """Checks the names of objectives, of which nothing else is known yet.

    Raises:
        ConfigError: a name is unknown or repeated.
    """
    for name in names:
        if name not in OBJECTIVES:
            raise ConfigError(f"objective {name!r} is not known; choose from {', '.join(OBJECTIVES)}")
        if list(names).count(name) > 1:
            raise ConfigError(f"objective {name!r} is named twice; name each objective once")


def resolve_objectives(
    names: Sequence[str], task: Task, trivial: TrivialQuality, constraints: Sequence[Constraint]
) -> tuple[tuple[Objective, ...], list[str]]:
    """Returns the objectives of a study, and a line for each of the usual ones that drops out because the task cannot
    have it.

    Raises:
        ConfigError: a name is unknown or repeated, an objective that is not one of the usual ones cannot be had, a cost
            has no limit, or no objective is left.
    """
    check_objectives(names)
    metrics, notes = [], []
    for name in names:
        metric = METRICS[name]
        others = (other for other in METRICS.values() if other.stands_for == name and other.missing(task) is None)
        if (reason := metric.missing(task)) is not None and (other := next(others, None)) is not None:
            notes.append(f"objective {name} is {other.name}: {reason}")
            metric = other
        if metric not in metrics:
            metrics.append(metric)
    reasons = {metric.name: metric.missing(task) for metric in metrics}
    notes += [f"objective {name} drops out: {reason}" for name, reason in reasons.items() if reason]
    limits: dict[str, int] = {c.name: c.upper for c in constraints}
    for metric in metrics:
        reason = reasons[metric.name]
        if reason is None and metric.classes > trivial.present:
            reason = f"it needs {metric.classes} classes in the validation images, which are of {trivial.present}"
        if reason is not None and metric.name not in DEFAULT:
            raise ConfigError(f"objective {metric.name!r} cannot be had ({reason}); leave it out of `objectives`")
        if metric.basis == "cost" and metric.name not in limits:
            raise ConfigError(
                f"objective {metric.name!r} needs a limit as its reference, the space has none; "
                f"give `max_{metric.name}`"
            )
    objectives = tuple(
        Objective(
            name=metric.name,
            direction=metric.direction,
            unit=metric.unit,
            reference=metric.reference(task, trivial, limits),
        )
        for metric in metrics
        if not reasons[metric.name]
    )
    if not objectives:
        raise ConfigError(f"no objective is left of {','.join(names)}: {'; '.join(filter(None, reasons.values()))}")
    return objectives, notes
