"""The report of the claims in Markdown: verdicts, method, rules, evidence, and every network."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.claims import networks
from benchmarks.claims.figure import FIGURE, gates_figure
from benchmarks.claims.networks import NETWORKS, SKIPS
from benchmarks.claims.protocol import BARELY, CLAIMS, FIRST_SEED, RULES
from benchmarks.claims.results import Results
from benchmarks.claims.verdicts import Claim, claims, moved_gates
from benchmarks.lib import runs
from benchmarks.lib.records import Record
from benchmarks.lib.stats import LEVEL, Cell, Interval, mean_interval

TITLES = {"psnr": "PSNR (dB)", "accuracy": "accuracy (%)", "stability": "stability"}


def report(results: Results, sessions: Sequence[Record], command: str) -> str:
    """Writes the whole report in Markdown."""
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
        lines += _evidence(claim, results)
        if claim.cells:
            lines += ["", *_cells(claim.cells)]
    lines += ["", "## Every network", "", "Means over seeds with 95 % intervals.", ""]
    lines += _table(results, list(NETWORKS))
    return "\n".join([*lines, ""])


def _barely_learned(results: Results) -> list[str]:
    """Names the networks that hardly learned to classify, as a warning before any comparison of accuracies."""
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
        f"- Heads read {networks.HEAD_NOTE}",
        "- Stability is the score with penalties (`benchmarks/lib/penalties.py`), for which the rules were written; "
        "the project's score is another one since (docs/stability.md).",
        f"- Precision {runs.PRECISION} in training, fp32 in judging; {runs.WORKERS} processes of one thread.",
        f"- Hardware: {'; '.join(where)}",
        f"- Versions: {'; '.join(versions)}",
        f"- Date: {' to '.join(dict.fromkeys((dates[0], dates[-1])))}; {results.seconds / 3600:.1f} hours of runs, two "
        "at a time. Seconds are of the clock, which other work on the cores lengthens.",
    ]


def _rules() -> list[str]:
    lines = [RULES, ""]
    for letter, text in CLAIMS.items():
        first, *rest = text.splitlines()
        lines += [f"- **({letter})** {first}", *(f"  {line}" for line in rest)]
    return lines


def _evidence(claim: Claim, results: Results) -> list[str]:
    """Returns the tables and the figure that are shown with a claim beside its comparisons."""
    if claim.letter == "b":
        return _gates(results)
    if claim.letter == "d":
        return _skip_table()
    shown = {"a": SKIPS, "c": networks.HEADS, "e": networks.SHARING, "f": networks.MULTI_RESNET}[claim.letter]
    return [*_table(results, shown), *(_spread_table(results) if claim.letter == "a" else [])]


def _gates(results: Results) -> list[str]:
    lines = [
        "",
        f"![Learned skip gates by depth]({FIGURE})",
        "",
        "The weaker reading, redistribution towards the deep half (decides nothing):",
        "",
        "| head | setting | deep minus shallow, joint minus alone [95 %] | n |",
        "|---|---|---|---|",
    ]
    for where, setting, moved in moved_gates(results):
        shift = mean_interval([change["deep"] - change["shallow"] for change in moved])
        lines.append(f"| {where} | {setting.name} | {_signed(shift, 3)} | {shift.n} |")
    return lines


def _skip_table() -> list[str]:
    lines = [
        "",
        "| levels | width | skips | no skips | added | scalar gate | concatenated |",
        "|---|---|---|---|---|---|---|",
    ]
    for levels, width, skips, (none, *counts) in networks.skip_counts():
        grown = (f"{count:,} (+{count - none:,})" for count in counts)
        lines.append(f"| {levels} | {width} | {skips} | {none:,} | {' | '.join(grown)} |")
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
    """Writes the report into a file, and the figure beside it. Returns the report."""
    text = report(results, sessions, command)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.with_name(FIGURE).write_text(gates_figure(results))
    return text
