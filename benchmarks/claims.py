"""What the papers claim, measured: ``python -m benchmarks.claims [--quick]``.

The reference networks are trained at equal parameter budgets, joint denoising and classification unless
said otherwise, on digits (27 epochs; 20 seeds for the four networks of claim a, 8 for the others) and on
6,000 training images of Fashion-MNIST (9 epochs, 5 seeds), each under gaussian:25 and gaussian:50. Seeds
are paired: a seed fixes data order and training noise for every network. Judged on the validation split.

The rules were written before the first full run.

Every comparison in a setting (data and noise) is a cell with two one-sided paired t tests over seeds: *for*
(the true mean lies above the claimed bound) and *against* (it lies below the bound at which the claim is
worthless). All tests of a claim are corrected together by Holm's method and held against 0.025 each. A
claim of being better has the bounds 0 and the margin, so that a real but negligible advantage counts
against it; a claim of losing at most a margin has minus the margin as both bounds. Margins: 0.1 dB, 1 point of
accuracy, 0.02 of stability, 0.02 of a gate. A part holds when more than half of its cells are for and none
against; it does not hold when at least half are against; else it is undecided. A claim holds when all its
parts hold, and does not hold when one of them does not.

(a) Gated additive skips train more stably than concatenated ones. Four networks that differ in the skip
    only, on AddUNet's trunk: concatenated, added, scalar gate (AddUNet itself), channel gate. Parts: the
    stability score of the scalar gate and of the channel gate is higher than that of concatenation; the
    spread over seeds of final PSNR and accuracy is smaller (Brown and Forsythe's test, on digits only,
    where there are 20 seeds). The ungated sum is shown beside them and decides nothing.
(b) From denoising alone to the joint task AddUNet's gates move, shallow up for reconstruction and deep up
    for classification. Parts: the mean gate of the shallow half rises; that of the deep half rises (of three
    skips, the first and the last). Twice on digits: with the head at the bottleneck, which no gate leads to,
    so that classification moves gates only through what it makes of the encoder, and at the end of the
    decoder, which all gates lead to. The weaker reading, that weight is redistributed towards the deep half,
    is shown and decides nothing.
(c) PSNR holds when the head shrinks from one hidden layer of 256 units to none, on one and the same trunk:
    it loses at most 0.1 dB.
(d) AddUNet's parameters do not grow with skips, concatenation's do. Exact counts, no training: with every
    skip AddUNet gains its gate, one scalar, and no weight at any width and depth tried; concatenation gains
    at least width squared.
(e) NDDR beats sluice, cross-stitch, hard sharing and single-task networks; one part for each rival, in PSNR
    and in accuracy. The single-task networks have half of the budget each, as the columns of NDDR do. All
    train by one recipe. Sluice, cross-stitch and NDDR under the recipe of their papers (SGD, the layers
    between columns at 100 times the rate) are shown on digits and decide nothing, since then two of the four
    comparisons would be of SGD with AdamW.
(f) A Multi-ResNet with the encoder's parameters returned to the decoder matches its residual U-Net (it
    loses at most 0.1 dB and 1 point), and one without loses at most little (0.3 dB and 2 points, with
    fewer parameters: the width of the residual U-Net, the encoder's parameters gone).
"""

from __future__ import annotations

import argparse
import datetime
import logging
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import networks, runs
from benchmarks.gates_figure import gates_svg
from benchmarks.networks import NETWORKS, SKIPS
from benchmarks.penalties import penalised
from benchmarks.runs import Job, Record, Setting
from benchmarks.stats import (
    LEVEL,
    Cell,
    Interval,
    Verdict,
    claim_verdict,
    compare_spread,
    corrected,
    mean_interval,
    non_inferiority,
    part_verdict,
    superiority,
)
from nas.errors import SkipnasError
from studies import provenance

FIRST_SEED = 2
"""Seeds 0 and 1 were used in pilot runs, before the rules were settled, and are left out."""

NOISES = ("gaussian:25", "gaussian:50")
FOLDER = Path("runs/claims")
REPORT = Path("benchmarks/CLAIMS.md")
RESULTS = Path("benchmarks/claims.jsonl")
FIGURE = "claims-gates.svg"

MARGINS = {"psnr": 0.1, "accuracy": 1.0, "stability": 0.02}
LITTLE = {"psnr": 0.3, "accuracy": 2.0}
GATE_MARGIN = 0.02
BARELY = 60.0
"""Accuracy in percent below which a network counts as one that has hardly learned to classify."""
UNITS = {"psnr": "dB", "accuracy": "points", "stability": ""}
TITLES = {"psnr": "PSNR (dB)", "accuracy": "accuracy (%)", "stability": "stability"}

log = logging.getLogger("benchmarks.claims")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is trained: settings, and the number of seeds of a network in one of them.

    Attributes:
        quick: a check that everything runs; its verdicts mean nothing, and the report says so.
        fewest: networks with fewer seeds than `many` have these, by data source.
    """

    settings: tuple[Setting, ...]
    many: Mapping[str, int]
    fewest: Mapping[str, int]
    quick: bool = False

    def seeds(self, network: str, setting: Setting) -> range:
        if setting.data not in NETWORKS[network].data:
            return range(0)
        return self._first((self.many if network in SKIPS else self.fewest)[setting.data])

    def jobs(self) -> list[Job]:
        """Setting by setting, seed by seed, so that what is there after an interruption is paired."""
        return [
            self.job(name, setting, seed)
            for setting in self.settings
            for seed in self._first(max(self.many[setting.data], self.fewest[setting.data]))
            for name in NETWORKS
            if seed in self.seeds(name, setting)
        ]

    @staticmethod
    def _first(count: int) -> range:
        return range(FIRST_SEED, FIRST_SEED + count)

    def job(self, network: str, setting: Setting, seed: int) -> Job:
        candidate = networks.candidate(network, runs.task_of(setting), setting)
        return Job(setting=setting, candidate=candidate, seed=seed)


def plan(*, quick: bool = False, only: str | None = None, root: Path | None = None) -> Plan:
    """The full plan, the quick one, or the part of it that is about one data source."""
    if quick:
        settings = tuple(Setting(data="digits", subset=300, noise=noise, epochs=3) for noise in NOISES)
        return Plan(settings=settings, many={"digits": 2}, fewest={"digits": 2}, quick=True)
    settings = (
        *(Setting(data="digits", subset=None, noise=noise, epochs=27) for noise in NOISES),
        *(Setting(data="fashion-mnist", subset=6000, noise=noise, epochs=9, root=root) for noise in NOISES),
    )
    chosen = tuple(s for s in settings if only is None or s.data.startswith(only))
    return Plan(settings=chosen, many={"digits": 20, "fashion-mnist": 5}, fewest={"digits": 8, "fashion-mnist": 5})


class Results:
    """Finished runs of a plan, by network and setting."""

    def __init__(self, plan: Plan, records: Mapping[str, Record]) -> None:
        self.plan = plan
        self._found: dict[tuple[str, Setting], dict[int, Record]] = {}
        for setting in plan.settings:
            for name in NETWORKS:
                jobs = {seed: plan.job(name, setting, seed) for seed in plan.seeds(name, setting)}
                self._found[name, setting] = {s: records[j.key] for s, j in jobs.items() if j.key in records}

    def runs(self, network: str, setting: Setting) -> dict[int, Record]:
        """By seed."""
        return self._found[network, setting]

    def values(self, network: str, setting: Setting, metric: str) -> dict[int, float]:
        """By seed; without runs that lack the metric, as diverged ones lack all but stability."""
        return {s: float(r[metric]) for s, r in self._found[network, setting].items() if metric in r}

    def differences(self, ours: str, theirs: str, setting: Setting, metric: str) -> list[float]:
        """Ours minus theirs, for the seeds that both have."""
        a, b = self.values(ours, setting, metric), self.values(theirs, setting, metric)
        return [a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())]

    def gates(self, network: str, setting: Setting) -> dict[int, list[float]]:
        """By seed, shallow first."""
        return {s: list(r["gates"]) for s, r in self._found[network, setting].items() if r.get("gates")}

    @property
    def seconds(self) -> float:
        """Of all runs together, each counted once."""
        records = {r["key"]: r for found in self._found.values() for r in found.values()}
        return sum(float(r["seconds"]) for r in records.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A claim with its evidence. `parts` are the verdicts of its parts; `extra` is shown with it."""

    letter: str
    text: str
    cells: Sequence[Cell]
    parts: Mapping[str, Verdict]
    extra: Sequence[str] = field(default=())

    @property
    def verdict(self) -> Verdict:
        return claim_verdict(list(self.parts.values()))


def judge(letter: str, text: str, cells: Sequence[Cell], extra: Sequence[str] = ()) -> Claim:
    """Corrects the cells of a claim together and counts them, part by part."""
    cells = corrected(cells)
    parts = {
        part: part_verdict([cell.outcome for cell in cells if cell.part == part])
        for part in dict.fromkeys(cell.part for cell in cells)
    }
    return Claim(letter=letter, text=text, cells=cells, parts=parts, extra=extra)


def claim_a(results: Results) -> Claim:
    """Stability of gated additive skips against concatenation."""
    cells = []
    for gated in ("addunet", "channel gate"):
        for setting in results.plan.settings:
            cells.append(
                superiority(
                    results.differences(gated, "concat", setting, "stability"),
                    margin=MARGINS["stability"],
                    part="stability score",
                    label=f"stability: {gated} - concat",
                    setting=setting.name,
                    unit="",
                )
            )
    for gated in ("addunet", "channel gate"):
        for metric in ("psnr", "accuracy"):
            cells += [_spread(results, gated, s, metric) for s in results.plan.settings if s.data == "digits"]
    extra = [*_table(results, SKIPS), *_spread_table(results)]
    return judge("a", "Gated additive skips train more stably than concatenated ones", cells, extra)


def _spread(results: Results, gated: str, setting: Setting, metric: str) -> Cell:
    ours, theirs = (results.values(name, setting, metric) for name in (gated, "concat"))
    seeds = sorted(ours.keys() & theirs.keys())
    spread = compare_spread([ours[s] for s in seeds], [theirs[s] for s in seeds])
    return Cell(
        part="spread over seeds",
        label=f"ln of sd({metric}) of {gated} over concat, negated",
        setting=setting.name,
        unit="nats",
        difference=Interval(-spread.log_ratio.mean, -spread.log_ratio.high, -spread.log_ratio.low, spread.log_ratio.n),
        p_for=spread.p_smaller,
        p_against=spread.p_larger,
    )


def claim_b(results: Results) -> Claim:
    """Gates of denoising alone against the joint task."""
    cells: list[Cell] = []
    redistribution = ["| head | setting | deep minus shallow, joint minus alone [95 %] | n |", "|---|---|---|---|"]
    for joint, where in (("addunet", "bottleneck"), ("addunet, head at decoder end", "decoder end")):
        for setting in results.plan.settings:
            if setting.data not in NETWORKS[joint].data:
                continue
            moved = _moved(results, joint, setting)
            for half, which in (("shallow", 0), ("deep", 1)):
                cells.append(
                    superiority(
                        [pair[which] for pair in moved],
                        margin=GATE_MARGIN,
                        part=f"{half} half rises",
                        label=f"{half} gates, joint (head at {where}) - alone",
                        setting=setting.name,
                        unit="",
                    )
                )
            shift = mean_interval([deep - shallow for shallow, deep in moved])
            redistribution.append(f"| {where} | {setting.name} | {_signed(shift, 3)} | {shift.n} |")
    extra = [
        "",
        f"![Learned skip gates by depth]({FIGURE})",
        "",
        "The weaker reading, redistribution towards the deep half (decides nothing):",
        "",
        *redistribution,
    ]
    return judge("b", "From denoising alone to the joint task the gates move: shallow up, deep up", cells, extra)


def _moved(results: Results, joint: str, setting: Setting) -> list[tuple[float, float]]:
    """(shallow, deep) change of the mean gate of each half, seed by seed; a middle gate is in neither half."""
    together, alone = results.gates(joint, setting), results.gates("addunet, denoising alone", setting)
    moved = []
    for seed in sorted(together.keys() & alone.keys()):
        change = [a - b for a, b in zip(together[seed], alone[seed], strict=True)]
        half = len(change) // 2
        moved.append((sum(change[:half]) / half, sum(change[-half:]) / half))
    return moved


def gates_figure(results: Results) -> str:
    """The figure of claim b."""
    lines = {
        "denoising alone": "addunet, denoising alone",
        "joint, head at bottleneck": "addunet",
        "joint, head at decoder end": "addunet, head at decoder end",
    }
    panels = {}
    for setting in results.plan.settings:
        panel = {}
        for label, network in lines.items():
            by_seed = list(results.gates(network, setting).values())
            if by_seed:
                panel[label] = [mean_interval(level) for level in zip(*by_seed, strict=True)]
        panels[setting.name] = panel
    return gates_svg(panels)


def claim_c(results: Results) -> Claim:
    """PSNR with and without a wide head."""
    cells = [
        non_inferiority(
            results.differences("addunet", "addunet, head of 256", setting, "psnr"),
            margin=MARGINS["psnr"],
            part="PSNR",
            label="PSNR: no hidden units - 256",
            setting=setting.name,
            unit="dB",
        )
        for setting in results.plan.settings
    ]
    text = "PSNR holds when the head shrinks from 256 to 0 hidden units"
    return judge("c", text, cells, _table(results, networks.HEADS))


def claim_d() -> Claim:
    """Parameters of skips, counted."""
    rows = [
        "| levels | width | skips | no skips | added | scalar gate | concatenated |",
        "|---|---|---|---|---|---|---|",
    ]
    add_holds = concat_holds = True
    for levels, width, skips, counts in networks.skip_counts():
        none, add, scalar, concat = counts
        add_holds &= add == none and scalar == none + skips
        concat_holds &= concat - none >= skips * width**2
        grown = (f"{c:,} (+{c - none:,})" for c in (add, scalar, concat))
        rows.append(f"| {levels} | {width} | {skips} | {none:,} | {' | '.join(grown)} |")
    parts: dict[str, Verdict] = {
        "AddUNet gains one scalar for each skip and no weight": "holds" if add_holds else "does not hold",
        "concatenation gains at least width squared for each skip": "holds" if concat_holds else "does not hold",
    }
    text = "AddUNet's parameters do not grow with skips, concatenation's do"
    return Claim(letter="d", text=text, cells=(), parts=parts, extra=["", *rows])


def claim_e(results: Results) -> Claim:
    """NDDR against its rivals."""
    cells = []
    for rival, metrics in (
        ("sluice", ("psnr", "accuracy")),
        ("cross-stitch", ("psnr", "accuracy")),
        ("hard-sharing", ("psnr", "accuracy")),
        ("single-task-denoise", ("psnr",)),
        ("single-task-classify", ("accuracy",)),
    ):
        for metric in metrics:
            cells += [
                superiority(
                    results.differences("nddr", rival, setting, metric),
                    margin=MARGINS[metric],
                    part="single task" if rival.startswith("single") else rival,
                    label=f"{metric}: nddr - {rival}",
                    setting=setting.name,
                    unit=UNITS[metric],
                )
                for setting in results.plan.settings
            ]
    text = "NDDR beats sluice, cross-stitch, hard sharing and single task"
    return judge("e", text, cells, _table(results, networks.SHARING))


def claim_f(results: Results) -> Claim:
    """Multi-ResNets against their residual U-Net."""
    cells = []
    for network, margins, part in (
        ("multi-resnet", MARGINS, "parameters returned: matches"),
        ("multi-resnet-none-added", LITTLE, "none added: loses at most little"),
    ):
        for metric in ("psnr", "accuracy"):
            cells += [
                non_inferiority(
                    results.differences(network, "residual-unet", setting, metric),
                    margin=margins[metric],
                    part=part,
                    label=f"{metric}: {network} - residual-unet",
                    setting=setting.name,
                    unit=UNITS[metric],
                )
                for setting in results.plan.settings
            ]
    text = "A Multi-ResNet with parameters returned matches its residual U-Net, one without loses at most little"
    return judge("f", text, cells, _table(results, networks.MULTI_RESNET))


def claims(results: Results) -> list[Claim]:
    """All six, judged."""
    trained: tuple[Callable[[Results], Claim], ...] = (claim_a, claim_b, claim_c, claim_e, claim_f)
    return sorted([*(claim(results) for claim in trained), claim_d()], key=lambda claim: claim.letter)


def report(results: Results, sessions: Sequence[Record], command: str) -> str:
    """The whole report in Markdown."""
    found = claims(results)
    plan = results.plan
    have = sum(len(results.runs(name, setting)) for name in NETWORKS for setting in plan.settings)
    planned = sum(len(plan.seeds(name, setting)) for name in NETWORKS for setting in plan.settings)
    lines = ["# What the papers claim, measured", ""]
    if plan.quick:
        lines += [
            "**Quick check: few epochs, few seeds. It shows that everything runs; its verdicts mean nothing.**",
            "",
        ]
    if have < planned:
        lines += [f"**Incomplete: {have} of {planned} runs.**", ""]
    lines += ["| | claim | verdict | parts |", "|---|---|---|---|"]
    for claim in found:
        parts = "; ".join(f"{part}: {verdict}" for part, verdict in claim.parts.items())
        lines.append(f"| {claim.letter} | {claim.text} | **{claim.verdict}** | {parts} |")
    lines += ["", *_barely_learned(results), "## How it was measured", "", *_method(results, sessions, command)]
    lines += ["", "## How it is decided", "", *_rules()]
    for claim in found:
        lines += ["", f"## {claim.letter}. {claim.text}: {claim.verdict}", ""]
        lines += [f"- {part}: **{verdict}**" for part, verdict in claim.parts.items()]
        lines += claim.extra
        if claim.cells:
            lines += ["", *_cells(claim.cells)]
    lines += ["", "## Every network", "", "Means over seeds with 95 % intervals.", ""]
    lines += _table(results, list(NETWORKS))
    return "\n".join([*lines, ""])


def _barely_learned(results: Results) -> list[str]:
    """What a reader must know before believing a comparison of accuracies."""
    found = [
        f"{name} {statistics.mean(values):.0f} % ({setting.name})"
        for setting in results.plan.settings
        for name in NETWORKS
        if "accuracy" in NETWORKS[name].metrics
        and (values := list(results.values(name, setting, "accuracy").values()))
        and statistics.mean(values) < BARELY
    ]
    if not found:
        return []
    return [
        f"At this size, recipe and budget some networks hardly learn to classify (mean accuracy under {BARELY:.0f} %). "
        f"Verdicts on accuracy that involve them are about this budget, not about the methods: {'; '.join(found)}.",
        "",
    ]


def _method(results: Results, sessions: Sequence[Record], command: str) -> list[str]:
    settings = [
        f"{s.name} ({f'{s.subset:,} training images' if s.subset else 'all training images'}, {s.epochs} epochs, "
        f"{results.plan.many[s.data]} seeds for claim a's networks, {results.plan.fewest[s.data]} for the others)"
        for s in results.plan.settings
    ]
    budgets = ", ".join(f"{count:,} on {data}" for data, count in networks.BUDGETS.items())
    where = list(dict.fromkeys(str(s["hardware"]) for s in sessions)) or ["not recorded"]
    versions = list(dict.fromkeys(str(s["versions"]) for s in sessions)) or ["not recorded"]
    dates = [str(s["date"]) for s in sessions] or ["not recorded"]
    return [
        f"- Command: `{command}`",
        f"- Settings: {'; '.join(settings)}. Seeds count from {FIRST_SEED} and are paired.",
        "- Figures are those of the validation split after the last epoch; the test split is not touched.",
        f"- Parameters: networks are as wide as comes closest to the budget ({budgets}); {networks.BUDGET_NOTE}",
        f"- Recipe: {networks.RECIPE_NOTE}",
        "- Stability is the score with penalties (`benchmarks/penalties.py`), for which the rules were written; the "
        "project's score is another one since (docs/stability.md).",
        f"- Precision {runs.PRECISION} in training, fp32 in judging; {runs.WORKERS} processes of one thread.",
        f"- Hardware: {'; '.join(where)}",
        f"- Versions: {'; '.join(versions)}",
        f"- Date: {' to '.join(dict.fromkeys((dates[0], dates[-1])))}; {results.seconds / 3600:.1f} hours of runs, two "
        "at a time. Seconds are of the clock, which other work on the cores lengthens.",
    ]


def _rules() -> list[str]:
    """The rules and claims as the module's docstring states them."""
    text = (__doc__ or "").split("\n\n")
    return ["\n\n".join(text[2:4]), "", *_claims_as_list("\n\n".join(text[4:]))]


def _claims_as_list(text: str) -> list[str]:
    lines: list[str] = []
    for line in text.strip().splitlines():
        if line.startswith("("):
            lines.append(f"- **{line[:3]}** {line[4:]}")
        else:
            lines.append(f"  {line.strip()}")
    return lines


def _cells(cells: Sequence[Cell]) -> list[str]:
    lines = [
        "| comparison | setting | difference [95 %] | n | p for | p against | Wilcoxon | says |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for cell in cells:
        digits = 3 if cell.unit in ("", "nats") else 2
        unit = f" {cell.unit}" if cell.unit else ""
        wilcoxon = "" if cell.wilcoxon != cell.wilcoxon else _p(cell.wilcoxon)
        lines.append(
            f"| {cell.label} | {cell.setting} | {_signed(cell.difference, digits)}{unit} | {cell.difference.n} "
            f"| {_p(cell.p_for)} | {_p(cell.p_against)} | {wilcoxon} | {cell.outcome} |"
        )
    return [*lines, "", f"p are one-sided and corrected within the claim, held against {LEVEL}; Wilcoxon is neither."]


def _table(results: Results, names: Sequence[str]) -> list[str]:
    lines: list[str] = []
    for setting in results.plan.settings:
        lines += [
            "",
            f"{setting.name}:",
            "",
            "| network | parameters | MACs | runs | diverged | PSNR (dB) | accuracy (%) | stability |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for name in names:
            found = results.runs(name, setting)
            if not found:
                continue
            first = next(iter(found.values()))
            diverged = sum("diverged" in run for run in found.values())
            figures = []
            for metric, digits in (("psnr", 2), ("accuracy", 2), ("stability", 3)):
                values = list(results.values(name, setting, metric).values())
                measured = values and metric in NETWORKS[name].metrics
                figures.append(_interval(mean_interval(values), digits) if measured else "-")
            lines.append(
                f"| {name} | {int(first['params']):,} | {int(first['macs']):,} | {len(found)} | {diverged} "
                f"| {' | '.join(figures)} |"
            )
    return lines


def _spread_table(results: Results) -> list[str]:
    lines = [
        "",
        "Standard deviation over seeds:",
        "",
        "| setting | network | n | PSNR (dB) | accuracy (points) | stability |",
        "|---|---|---|---|---|---|",
    ]
    for setting in results.plan.settings:
        for name in SKIPS:
            columns = [list(results.values(name, setting, metric).values()) for metric in TITLES]
            sds = (f"{statistics.stdev(column):.3f}" if len(column) > 1 else "-" for column in columns)
            lines.append(f"| {setting.name} | {name} | {len(columns[0])} | {' | '.join(sds)} |")
    return lines


def _interval(value: Interval, digits: int) -> str:
    half = value.high - value.mean
    return f"{value.mean:.{digits}f}" + (f" ± {half:.{digits}f}" if half == half else "")


def _signed(value: Interval, digits: int) -> str:
    if value.mean != value.mean:
        return "not measured"
    if value.low != value.low:
        return f"{value.mean:+.{digits}f}"
    return f"{value.mean:+.{digits}f} [{value.low:+.{digits}f}, {value.high:+.{digits}f}]"


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def write(results: Results, path: Path, sessions: Sequence[Record], command: str) -> str:
    """Writes the report and, beside it, the figure. Returns the report."""
    text = report(results, sessions, command)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.with_name(FIGURE).write_text(gates_figure(results))
    return text


def session() -> dict[str, str]:
    """When and where runs are made. No paths and no names of machines or people."""
    found = provenance.versions()
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "hardware": provenance.describe(provenance.hardware()),
        "versions": ", ".join(f"{name} {found[name]}" for name in ("python", "torch", "numpy")),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains what is missing, then writes the report. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.claims", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few epochs and seeds on digits, to see that it runs")
    parser.add_argument("--only", choices=("digits", "fashion"), help="one data source")
    parser.add_argument("--data-root", type=Path, help="where the files of Fashion-MNIST are")
    parser.add_argument("--results", type=Path, help=f"finished runs, one a line (default: {RESULTS}, or in {FOLDER})")
    parser.add_argument("--report", type=Path, help=f"default: {REPORT} for the full run, else in {FOLDER}")
    parser.add_argument("--no-training", action="store_true", help="only the report, from the runs that there are")
    options = parser.parse_args(arguments)
    if options.quick and options.only == "fashion":
        parser.error("--quick trains on digits only; leave out --only fashion")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)

    kind = "quick" if options.quick else options.only or "full"
    results_path = options.results or (FOLDER / "quick.jsonl" if options.quick else RESULTS)
    report_path = options.report or (REPORT if kind == "full" else FOLDER / kind / REPORT.name)
    try:
        todo = plan(quick=options.quick, only=options.only, root=options.data_root)
        if not options.no_training and not train(todo, results_path):
            print(f"stopped; {results_path} has what is finished, and the same command goes on", file=sys.stderr)
            return 130
    except SkipnasError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    command = "python -m benchmarks.claims"
    command += " --quick" if options.quick else f" --only {options.only}" if options.only else ""
    print(write(Results(todo, runs.read(results_path)), report_path, runs.sessions(results_path), command))
    print(f"written to {report_path}", file=sys.stderr)
    return 0


def perform(job: runs.Job) -> dict[str, Any]:
    """As `runs.perform`, with the stability score that the rules were written for, so that all runs have the same."""
    evaluation, diverged = runs.trained(job)
    training = evaluation.training
    probe, done = training.probe_curve(), training.step / training.total_steps
    scores = [penalised(losses, done) for losses in (probe.denoise, probe.classify) if losses]
    return {**runs.record_of(job, evaluation, diverged), "stability": math.prod(scores) ** (1 / len(scores))}


def train(plan: Plan, path: Path) -> bool:
    """Performs the runs of `plan` that the file lacks. False when it was stopped."""
    todo = runs.missing(plan.jobs(), path)
    if not todo:
        log.info("every run is in %s", path)
        return True
    log.info("%d runs to do, about %.1f h on %d free cores", len(todo), runs.estimate(todo), runs.WORKERS)
    runs.note_session(path, session())
    return runs.perform_all(todo, path, perform)


if __name__ == "__main__":
    sys.exit(main())
