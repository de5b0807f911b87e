"""The tables of finished cells in Markdown, and one picture of them all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from benchmarks.lib.records import Record
from benchmarks.lib.stats import Interval, mean_interval
from benchmarks.proof.cells import SHARES, Cell
from benchmarks.proof.verdicts import METRICS, VERDICTS, Comparison, compare, wins
from nas.search.objectives import METRICS as TABLE
from studies.pages.style import COLOURS, LINES, laid_out

RECIPES = {"own": "its own", "found": "found"}
ROW = 250
"""The height of a row of the picture in pixels."""

FAMILIES: Mapping[str, tuple[str, str, str]] = {
    "known, own recipe": ("own", "square-open", LINES[1]),
    "known, found recipe": ("found", "circle-open", LINES[2]),
}
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
        f"{record['core_minutes']:.1f} core minutes; all networks under {seeds} seeds took "
        f"{record['trained_minutes']:.0f}, on {record['machine']}. Figures are those of {record['test_images']:,} test "
        f"images; differences are the knee's less the rival's, with Holm's correction for {2 * len(compared)}.{over}",
        "",
        f"| network | recipe | parameters | MACs | {' | '.join(heads)} "
        f"| {' | '.join(f'knee less its {name}' for name in METRICS)} | the knee is |",
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
    return text + ("" if found.n == len(network[metric]) else f" ({found.n} runs)")


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


def groups(record: Record) -> dict[str, list[Comparison]]:
    """Returns the comparisons of the knee: references under their own recipes and under its recipe, and the pairs."""
    compared = compare(found_in(record)[0], known_in(record))
    return {
        "own": [each for each in compared if each.rival["kind"] == "reference" and each.rival["recipe"] == "own"],
        "found": [each for each in compared if each.rival["kind"] == "reference" and each.rival["recipe"] == "found"],
        "pair": [each for each in compared if each.rival["kind"] == "pair"],
    }


def summary(cells: Sequence[Cell], finished: Mapping[str, Record]) -> list[str]:
    """Returns the table of all finished cells, what it says under each limit, and the cells that are missing."""
    done = [cell for cell in cells if cell.name in finished]
    heads = [TABLE[name].label for name in METRICS]
    lines = [
        f"| cell | most MACs | the knee's MACs | {' | '.join(heads)} | references, own recipes "
        "| references, its recipe | single-task pairs |",
        "|---" * 8 + "|",
    ]
    for cell in done:
        record = finished[cell.name]
        knee = found_in(record)[0]
        told = [counted(compared) if compared else "-" for compared in groups(record).values()]
        lines.append(f"| {cell.name} | {cell.macs:,} | {knee['macs']:,} | {figures(knee)} | {' | '.join(told)} |")
    lines.append("")
    for share in SHARES:
        of = [finished[cell.name] for cell in done if cell.share == share]
        asked = sum(cell.share == share for cell in cells)
        own = sum(wins(found_in(each)[0], groups(each)["own"]) for each in of)
        both = sum(wins(found_in(each)[0], groups(each)["own"] + groups(each)["found"]) for each in of)
        lines.append(
            f"Limit {share}: the knee is better than every reference under its own recipe in {own}, and under the "
            f"knee's recipe as well in {both}, of {len(of)} finished cells ({asked} in all)."
        )
    missing = [cell.name for cell in cells if cell.name not in finished]
    lines.append(
        f"{len(missing)} of {len(cells)} cells are missing: {', '.join(missing)}."
        if missing
        else "All cells are there."
    )
    return lines


def picture(records: Sequence[Record]) -> go.Figure:
    """Draws PSNR and accuracy on the test split against MACs: a row for each data set and noise, all limits in it.

    Networks that do not learn a task are left out of its panels.
    """
    settings: dict[str, list[Record]] = {}
    for each in records:
        settings.setdefault(each["cell"].rpartition("-")[0].replace("gaussian-", "gaussian:"), []).append(each)
    figure = make_subplots(
        rows=len(settings),
        cols=len(METRICS),
        shared_xaxes="rows",
        horizontal_spacing=0.1,
        vertical_spacing=0.28 / max(1, len(settings)),
        subplot_titles=[
            f"{name.replace('-', ', ')}" if metric == METRICS[0] else "" for name in settings for metric in METRICS
        ],
    )
    shown: set[str] = set()
    for row, found in enumerate(settings.values(), 1):
        for column, metric in enumerate(METRICS, 1):
            for name, (recipe, symbol, colour) in FAMILIES.items():
                networks = [each for one in found for each in known_in(one) if each["recipe"] == recipe]
                marker = {"symbol": symbol, "color": colour, "size": 7}
                _scatter(figure, (row, column), metric, networks, name, marker, shown)
            for name, kind in (("found, other ends", "end"), ("found, knee", "knee")):
                networks = [each for one in found for each in found_in(one) if each["kind"] == kind]
                full = kind == "knee"
                marker = {
                    "symbol": "diamond" if full else "diamond-open",
                    "color": COLOURS["front"],
                    "size": 11 if full else 8,
                }
                _scatter(figure, (row, column), metric, networks, name, marker, shown)
            for one in found:
                figure.add_vline(
                    x=one["macs"], row=row, col=column, line={"dash": "dot", "width": 1, "color": COLOURS["over_limit"]}
                )
            figure.update_yaxes(title=TABLE[metric].label, row=row, col=column)
            figure.update_xaxes(
                type="log", title=TABLE["macs"].described if row == len(settings) else None, row=row, col=column
            )
    return laid_out(figure, 110 + ROW * len(settings))


def _scatter(
    figure: go.Figure,
    place: tuple[int, int],
    metric: str,
    networks: Sequence[Record],
    name: str,
    marker: Mapping[str, object],
    shown: set[str],
) -> None:
    """Adds networks with their 95 % intervals, and their name to the legend once."""
    points = []
    for each in networks:
        values = values_of(each, metric)
        learned = {network["spec"].get("tasks", "joint") for network in each["networks"]} - {NOT_LEARNED[metric]}
        if values and learned:
            points.append((each, mean_interval(values)))
    if not points:
        return
    halves = [0.0 if found.n < 2 else found.high - found.mean for _, found in points]
    figure.add_scatter(
        x=[each["macs"] for each, _ in points],
        y=[found.mean for _, found in points],
        error_y={"type": "data", "array": halves, "width": 2, "thickness": 1},
        mode="markers",
        marker=marker,
        name=name,
        legendgroup=name,
        showlegend=name not in shown,
        hovertext=[f"{each['name']}, {each['recipe']} recipe" for each, _ in points],
        row=place[0],
        col=place[1],
    )
    shown.add(name)
