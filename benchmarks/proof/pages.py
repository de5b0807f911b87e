"""The tables of finished cells in Markdown, and one picture of them all."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from benchmarks.lib.records import Record
from benchmarks.lib.stats import Interval, mean_interval
from benchmarks.proof.cells import SHARES, Cell, Kind, RecipeOf
from benchmarks.proof.verdicts import METRICS, VERDICTS, Comparison, compare, wins
from nas.search.objectives import METRICS as TABLE
from studies.pages.style import COLOURS, LINES, laid_out

RECIPES = {"own": "its own", "found": "found"}
ROW = 250
"""The height of a row of the picture in pixels."""

NOT_LEARNED = {"psnr": "classify", "accuracy": "denoise"}
"""Metric -> the task of networks that do not learn it."""


def found_in(record: Record) -> list[Record]:
    """Returns the knee, then the other ends of the front."""
    return [each for each in record["networks"] if each["kind"] in ("knee", "end")]


def known_in(record: Record) -> list[Record]:
    """Returns the known networks, under both recipes."""
    return [each for each in record["networks"] if each["kind"] not in ("knee", "end")]


def values_of(network: Record, metric: str) -> list[float]:
    """Returns the figures of the runs that ended well."""
    return [value for value in network[metric] if value is not None]


def details(record: Record) -> list[str]:
    """Returns the lines of one cell: the found networks, every rival with its differences to the knee, and the ends."""
    found = found_in(record)
    knee, seeds = found[0], len(found[0]["psnr"])
    compared = compare(knee, known_in(record))
    heads = [TABLE[name].label for name in METRICS]
    over = f" Over the limit at every width: {', '.join(record['over'])}." if record["over"] else ""
    lines = [
        f"### {record['cell']}: at most {record['macs']:,} MACs",
        "",
        f"{record['data']}, {record['noise']}, {record['epochs']} epochs. The search took "
        f"{record['searched_minutes']:.1f} minutes and trained {record['trials']} candidates in "
        f"{record['core_minutes']:.1f} core minutes; training all networks under {seeds} seeds took "
        f"{record['trained_minutes']:.0f} more, on {record['machine']}. Figures are of {record['test_images']:,} test "
        f"images; differences are the knee's less the rival's, with Holm's correction for {2 * len(compared)}.{over}",
        "",
        f"| network | recipe | parameters | MACs | {' | '.join(heads)} "
        f"| {' | '.join(f'difference in {name}' for name in METRICS)} | the knee is |",
        "|---" * 9 + "|",
    ]
    lines += [f"| **{each['name']}** | found | {size(each)} | {figures(each)} | | | |" for each in found]
    for one in sorted(compared, key=lambda each: _order(each.rival)):
        its = one.rival
        gaps = [difference(metric, one.differences[metric].shown, seeds) for metric in METRICS]
        lines.append(
            f"| {its['name']} | {RECIPES[its['recipe']]} | {size(its)} | {figures(its)} | {' | '.join(gaps)} "
            f"| {one.verdict} |"
        )
    lines += ["", f"{knee['name']}: {counted(compared)}."]
    lines += [f"{each['name']}: {counted(compare(each, known_in(record)))}." for each in found[1:]]
    return lines


def _order(rival: Record) -> tuple[int, float]:
    """Own recipes come first, and the best PSNR first among those of a recipe."""
    return list(RECIPES).index(rival["recipe"]), -mean_interval(values_of(rival, "psnr") or [0.0]).mean


def size(network: Record) -> str:
    return f"{network['params']:,} | {network['macs']:,}"


def figures(network: Record) -> str:
    """Returns the cells of PSNR and accuracy: means with half the width of their 95 % intervals."""
    return " | ".join(mean_of(network, metric) for metric in METRICS)


def mean_of(network: Record, metric: str) -> str:
    """Returns ``20.84 ± 0.05``, with the number of runs where some diverged."""
    found, figure = mean_interval(values_of(network, metric)), TABLE[metric].figure
    if not found.n:
        return "diverged"
    text = figure(found.mean) + (f" ± {figure(found.high - found.mean)}" if found.n > 1 else "")
    return text + ("" if found.n == len(network[metric]) else f" ({found.n} of {len(network[metric])} runs)")


def difference(metric: str, found: Interval, seeds: int) -> str:
    """Returns ``+0.57 (+0.31 to +0.83)``, with the number of pairs where runs diverged."""
    if found.n < 2:
        return "-"
    told = TABLE[metric].difference
    few = "" if found.n == seeds else f", {found.n} pairs"
    return f"{told(found.mean)} ({told(found.low)} to {told(found.high)}{few})"


def counted(compared: Sequence[Comparison]) -> str:
    """Returns ``better than 31 of 32, mixed 1``."""
    counts = Counter(each.verdict for each in compared)
    others = [f"{verdict} {counts[verdict]}" for verdict in VERDICTS[1:] if counts[verdict]]
    return ", ".join([f"better than {counts['better']} of {len(compared)}", *others])


def groups(found: Record, record: Record) -> dict[str, list[Comparison]]:
    """Returns the comparisons of a found network: references with own recipes and with the knee's, and the pairs."""
    compared = compare(found, known_in(record))
    return {
        "own": [each for each in compared if each.rival["kind"] == "reference" and each.rival["recipe"] == "own"],
        "found": [each for each in compared if each.rival["kind"] == "reference" and each.rival["recipe"] == "found"],
        "pair": [each for each in compared if each.rival["kind"] == "pair"],
    }


def summary(cells: Sequence[Cell], finished: Mapping[str, Record]) -> list[str]:
    """Returns the table of all finished cells, what it says under each limit, and the cells that are missing."""
    heads = [TABLE[name].label for name in METRICS]
    lines = [
        f"| cell | found | MACs | {' | '.join(heads)} | references, own recipes | references, the knee's recipe "
        "| single-task pairs |",
        "|---" * 8 + "|",
    ]
    won: dict[str, list[tuple[bool, bool]]] = {share: [] for share in SHARES}
    for cell in cells:
        if cell.name not in finished:
            continue
        record = finished[cell.name]
        for each in found_in(record):
            compared = groups(each, record)
            told = [counted(of) if of else "-" for of in compared.values()]
            lines.append(f"| {cell.name} | {each['name']} | {each['macs']:,} | {figures(each)} | {' | '.join(told)} |")
            if each["kind"] == "knee":
                own = wins(each, compared["own"])
                won[cell.share].append((own, own and wins(each, compared["found"])))
    lines.append("")
    for share, of in won.items():
        if of:
            own, both = (sum(each) for each in zip(*of, strict=True))
            lines.append(
                f"Limit {share}: the knee is better than every reference under its own recipe in {own}, and under the "
                f"knee's recipe as well in {both}, of {len(of)} finished cells ({sum(c.share == share for c in cells)} "
                "in all)."
            )
    missing = [cell.name for cell in cells if cell.name not in finished]
    told_missing = f"{len(missing)} of {len(cells)} cells are missing: {', '.join(missing)}."
    lines.append(told_missing if missing else "All cells are there.")
    return lines


def picture(records: Sequence[Record]) -> go.Figure:
    """Draws PSNR and accuracy on the test split against MACs: a row for each data set and noise, with all its limits.

    Networks that do not learn a task are left out of its panels. Only found networks have the bars of their 95 %
    intervals, because those of so many others would hide the points.
    """
    settings: dict[str, list[Record]] = {}
    for each in records:
        settings.setdefault(each["cell"].rpartition("-")[0].replace("-gaussian-", ", gaussian:"), []).append(each)
    figure = make_subplots(
        rows=len(settings), cols=len(METRICS), horizontal_spacing=0.12, vertical_spacing=0.2 / max(1, len(settings))
    )
    for row, (setting, cells) in enumerate(settings.items(), 1):
        for column, metric in enumerate(METRICS, 1):
            place = {"row": row, "col": column}
            low, high = math.inf, -math.inf
            for family in FAMILIES:
                points = family.points(cells, metric)
                means = [found.mean for _, found in points]
                low, high = min([low, *means]), max([high, *means])
                figure.add_trace(family.drawn(points, legend=row == column == 1), **place)
            for cell in cells:
                line = {"dash": "dot", "width": 1, "color": COLOURS["over_limit"]}
                figure.add_vline(x=cell["macs"], line=line, **place)
            room = 0.08 * (high - low)
            figure.update_yaxes(
                title=f"{setting}<br>{TABLE[metric].label}" if column == 1 else TABLE[metric].label, **place
            )
            figure.update_yaxes(range=[low - room, high + room], **place)
            macs = [each["macs"] for cell in cells for each in cell["networks"]]
            figure.update_xaxes(type="log" if max(macs) > 5 * min(macs) else "linear", **place)
        figure.update_xaxes(title=TABLE["macs"].described, row=len(settings))
    return laid_out(figure, 100 + ROW * len(settings))


@dataclass(frozen=True, slots=True)
class Family:
    """The networks of the picture that look alike.

    Attributes:
        name: the name in the legend.
        kinds: kinds of contenders.
        recipe: their recipe.
        symbol, colour, size: their look.
        bars: whether intervals are drawn.
    """

    name: str
    kinds: tuple[Kind, ...]
    recipe: RecipeOf
    symbol: str
    colour: str
    size: int
    bars: bool

    def points(self, cells: Sequence[Record], metric: str) -> list[tuple[Record, Interval]]:
        """Returns the networks of some cells that learn the task of a metric, each with its mean."""
        found = []
        for each in (network for cell in cells for network in cell["networks"]):
            learned = {network["spec"].get("tasks", "joint") for network in each["networks"]} - {NOT_LEARNED[metric]}
            if each["kind"] in self.kinds and each["recipe"] == self.recipe and learned and values_of(each, metric):
                found.append((each, mean_interval(values_of(each, metric))))
        return found

    def drawn(self, points: Sequence[tuple[Record, Interval]], *, legend: bool) -> go.Scatter:
        halves = [0.0 if found.n < 2 else found.high - found.mean for _, found in points]
        return go.Scatter(
            x=[each["macs"] for each, _ in points],
            y=[found.mean for _, found in points],
            error_y={"type": "data", "array": halves, "width": 3, "thickness": 1} if self.bars else None,
            mode="markers",
            marker={"symbol": self.symbol, "color": self.colour, "size": self.size},
            name=self.name,
            legendgroup=self.name,
            showlegend=legend,
            hovertext=[each["name"] for each, _ in points],
        )


FAMILIES = (
    Family("known, own recipe", ("reference", "pair"), "own", "square-open", LINES[1], 7, False),
    Family("known, found recipe", ("reference", "pair"), "found", "circle-open", LINES[2], 7, False),
    Family("found, other ends", ("end",), "found", "diamond-open", COLOURS["front"], 9, True),
    Family("found, knee", ("knee",), "found", "diamond", COLOURS["front"], 10, True),
)
