"""One offline page about a study: figures, images, failures and origin, inlined, in the order people ask for."""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import plotly.io
from plotly.offline import get_plotlyjs

from nas.data.noise import noise_in_words
from nas.errors import ConfigError, SkipnasError
from nas.files import write_whole
from nas.outcome import Outcome
from nas.search.confirmation import Confirmed, Interval, summarize
from nas.search.objectives import DEFAULT, METRICS, Metric, cautions, followed, metric_of, of_basis
from nas.settings import StudyConfig, kept_settings
from nas.types import Objective
from search_spaces import stored_space
from search_spaces.unet.spec import UNetSpec
from studies.pages.diagram import network_svg
from studies.pages.drawing import draw
from studies.pages.figures import Plot, all_plots
from studies.pages.recognition import Answered
from studies.pages.samples import EVIDENCE, Samples, knee_answers, samples
from studies.provenance import describe
from studies.reading.best import Choice, join_words
from studies.reading.history import FRONT, History, Trial, read_history
from studies.reading.sizes import Sized, best_at_sizes, measured, sized_of
from studies.reading.versions import latency_line, training_versions, versions_line
from studies.settings import FIGURE_FORMATS

if TYPE_CHECKING:
    from nas.training.recognition import Share
    from studies.reading.study import StudyReader

PAGE = Path(__file__).parent / "assets"


def write_report(
    study: StudyReader, target: Path, *, data_root: Path | None = None, own_space: str | None = None
) -> int:
    """Writes the page, whole or not at all; returns its size in bytes.

    Args:
        study: the study.
        target: HTML file to write.
        data_root: where the data lies, if not where it lay when the study was made.
        own_space: the study's own search space, whose code is imported; without it the page has no pictures of it.

    Raises:
        ConfigError: the file cannot be written.
    """
    if target.is_dir() or not target.parent.is_dir():
        what = f"{target} is a folder" if target.is_dir() else f"folder {target.parent} does not exist; create it first"
        raise ConfigError(f"`to` {target}: {what}; give the name of an HTML file")
    history = read_history(study)
    page = render(
        study, history, samples(study, history, data_root, own_space), summarize(study.progress.confirmations())
    )
    try:
        write_whole(target, lambda file: file.write_text(page, "utf-8"))
    except OSError as error:
        raise ConfigError(
            f"cannot write {target} ({error.strerror}); name a file in a folder that you can write to"
        ) from None
    return len(page.encode())


def write_figures(
    study: StudyReader,
    folder: Path,
    suffix: str = "svg",
    *,
    data_root: Path | None = None,
    own_space: str | None = None,
) -> list[Path]:
    """Writes each figure of a study into a folder, for papers; kaleido draws them in a browser.

    Args:
        study: the study.
        folder: it is made if need be.
        suffix: the format.
        data_root, own_space: as for `write_report`.

    Raises:
        ConfigError: an unknown format, no kaleido or browser, or a folder that cannot be written.
    """
    if suffix not in FIGURE_FORMATS:
        raise ConfigError(f"`format` {suffix!r} is not known; choose one of {', '.join(FIGURE_FORMATS)}")
    if not folder.parent.is_dir() or (folder.exists() and not folder.is_dir()):
        raise ConfigError(f"`figures` {folder}: give a folder to make, in a folder that exists")
    confirmed = summarize(study.progress.confirmations())
    history = read_history(study)
    answered = knee_answers(study, history, data_root, own_space)
    plots = [plot for plot in all_plots(history, confirmed, answered) if plot.figure is not None]
    try:
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
            figures = []
            for plot in plots:
                assert plot.figure is not None
                file = Path(temporary) / f"{plot.name}.{suffix}"
                figures.append((plot.figure, file, 900 if plot.wide else 640))
            draw(figures, suffix, "figures")
            folder.mkdir(exist_ok=True)
            return [path.replace(folder / path.name) for _, path, _ in figures]
    except OSError as error:
        raise ConfigError(f"`figures` {folder} cannot be written ({error.strerror}); give another folder") from None


def render(study: StudyReader, history: History, pictures: Samples, confirmed: Sequence[Confirmed] = ()) -> str:
    """The page as text."""
    plots = all_plots(history, confirmed, pictures.answered)
    recognition = []
    if history.config.task.classifies:
        recognition.append(("recognition", "Recognition", _recognition(pictures.answered, plots)))
    sections = [
        ("answer", "Answer", _answer(study, history, confirmed)),
        ("front-section", "Front", _front(history, plots)),
        ("by-size", "By size", _by_size(history, plots)),
        *recognition,
        ("progress", "Progress", _progress(plots)),
        ("importance", "What matters", _importance(history, plots)),
        ("parallel-section", "All at once", _grid(plots, "parallel")),
        ("curves", "Curves", _grid(plots, "curves", "grid thirds")),
        ("gates-section", "Gates", _grid(plots, "gates")),
        ("stability-section", "Stability", _stability(plots)),
        ("images", "Images", _images(pictures)),
        ("workers-section", "Workers", _grid(plots, "workers")),
        ("failures", "Failures", _failures(history)),
        ("origin", "Origin", _origin(study)),
    ]
    title = escape(f"{history.config.study} - skipnas")
    links = "".join(f'<a href="#{name}">{escape(words)}</a>' for name, words, _ in sections)
    body = "".join(f'<section id="{name}"><h2>{escape(words)}</h2>{html}</section>' for name, words, html in sections)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        # Nothing is asked of any other place, whatever the page holds.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data: blob:; '
        "style-src 'unsafe-inline'; script-src 'unsafe-inline' 'unsafe-eval'\">"
        f'<link rel="icon" href="data:,"><style>{(PAGE / "report.css").read_text()}</style></head><body>'
        f"<header><strong>{escape(history.config.study)}</strong><nav>{links}</nav>"
        '<button id="theme" type="button" aria-label="Switch between dark and light">◐ theme</button></header>'
        f"<main>{body}</main>"
        '<dialog><h3></h3><pre></pre><form method="dialog"><button>close</button></form></dialog>'
        f'<script type="application/json" id="data">{_page_data(history, plots)}</script>'
        f"<script>{get_plotlyjs()}</script><script>{(PAGE / 'report.js').read_text()}</script></body></html>"
    )


def _page_data(history: History, plots: Sequence[Plot]) -> str:
    """Figures and trials as JSON. What hovering shows is kept once for each trial, not once for each point."""
    figures = {}
    for plot in plots:
        if plot.figure is None:
            continue
        figure = json.loads(plotly.io.to_json(plot.figure, validate=False))
        figure["layout"].pop("template", None)
        for trace in figure["data"]:
            if trace.pop("hovertext", None) is not None:
                trace["meta"] = "trials"
                trace["hovertemplate"] = "%{hovertext}<extra></extra>"
        figures[plot.name] = figure
    trials = {str(t.number): {"hover": history.hover[t.number], "text": _trial_text(t)} for t in history.trials}
    text = json.dumps({"plots": figures, "trials": trials}, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c")


def _trial_text(trial: Trial) -> str:
    lines = [f"outcome   {FRONT if trial.on_front else trial.ending}"]
    lines += [f"{name:<9} {metric_of(name).text(value)}" for name, value in (trial.values or trial.last).items()]
    if trial.same_as is not None:
        lines.append(f"same as   trial {trial.same_as}")
    lines.append(f"epochs    {trial.epochs_done}")
    if trial.training_version is not None:
        lines.append(f"trained   by version {trial.training_version} of the training code")
    if trial.seconds is not None:
        lines.append(f"seconds   {trial.seconds:.1f}")
    lines += ["", "architecture", *(f"  {k} {v}" for k, v in trial.spec.items())]
    lines += ["", "recipe", *(f"  {k} {v}" for k, v in trial.recipe.items())]
    return "\n".join([*lines, *(["", trial.detail.strip()[-4000:]] if trial.detail else [])])


def _answer(study: StudyReader, history: History, confirmed: Sequence[Confirmed]) -> str:
    config, task = history.config, history.config.task
    told = noise_in_words(task.noise)
    noise = f"{'noise ' if told == task.noise else ''}<b>{escape(told)}</b>"
    counts = Counter(t.group for t in history.trials)
    classes = f", {task.classes} classes" if task.classes else ", without labels"
    parts = [
        f"<h1>{escape(config.study)}</h1><p>Networks of the space <b>{escape(config.space)}</b> that denoise"
        f"{' and classify' if task.classes else ''} images of <b>{escape(_source(config.data))}</b> "
        f"({task.channels}×{task.height}×{task.width}{classes}) under {noise}, searched for "
        f"{escape(join_words([f'{o.name} ({o.direction})' for o in config.objectives]))}.</p>",
        _cards(
            [
                (str(len(history.complete)), "complete trials"),
                (str(counts["pruned"]), "pruned"),
                (str(counts["failed"]), "failed"),
                (str(len(history.front)), "on the front"),
                (f"{history.hypervolume:.4g}", "hypervolume"),
            ]
        ),
    ]
    missing = sorted(
        set(DEFAULT) - {each for o in config.objectives for each in (o.name, metric_of(o.name).stands_for)}
    )
    if missing:
        reasons = dict.fromkeys(METRICS[name].missing(task) for name in missing)
        parts.append(
            _lacks("; ".join([f"Not among the objectives: {join_words(missing)}", *filter(None, reasons)]) + ".")
        )
    lines = versions_line(training_versions(study)), latency_line(config)
    told_too = [*cautions(config.objective_names), *filter(None, lines)]
    parts += [_lacks(f"{line[:1].upper()}{line[1:]}.") for line in told_too]
    if history.choice is None:
        state = (
            "No trial has been made yet" if not history.trials else "No trial is complete, so there is no answer yet"
        )
        parts.append(_lacks(f"{state}. Continue with: skipnas search --study {config.study}"))
        return "".join(parts)
    knee = next(t for t in history.front if t.number == history.knee)
    parts.append(f"<p>{escape(history.choice.reason[:1].upper() + history.choice.reason[1:])}.</p>")
    parts.append(_knee_cards(history, knee))
    parts.append(_drawn(config.space, knee))
    parts.append(_confirmed(config, history.choice, confirmed))
    parts.append(_front_table(history))
    return "".join(parts)


def _knee_cards(history: History, knee: Trial) -> str:
    """The knee's figures: confirmed means with the half width of their 95 % intervals, or those of its one run."""
    assert history.choice is not None
    found = history.choice.confirmed.get(knee.number)
    cards = []
    for o in history.config.objectives:
        if found is None:
            cards.append((metric_of(o.name).text(knee.values[o.name]), f"{o.name}, one run"))
        else:
            cards.append(_confirmed_card(metric_of(o.name), found.values[o.name], f", {found.runs} seeds"))
    for metric in followed(history.config.objective_names):
        if found is not None and f"test_{metric.name}" in found.values:
            cards.append(_confirmed_card(metric, found.values[f"test_{metric.name}"], " on test"))
    measured = {o.name for o in history.config.objectives}
    cards += [
        (metric.text(knee.values[metric.name]), metric.described)
        for metric in of_basis("cost")
        if metric.name in knee.values and metric.name not in measured
    ]
    return _cards(cards)


def _confirmed_card(metric: Metric, value: Interval, what: str) -> tuple[str, str]:
    return metric.text(value.mean), f"± {metric.figure(value.half)} {metric.name}{what}"


def _drawn(space: str, trial: Trial) -> str:
    """The network as a diagram; its spec as text where it is of another space, or of one that is not here."""
    try:
        spec = stored_space(space).spec(trial.spec)
    except SkipnasError:
        spec = None
    if isinstance(spec, UNetSpec):
        return f'<div class="scroll">{network_svg(spec, trial.gates)}</div>'
    return f"<pre>{escape(json.dumps(dict(trial.spec), indent=2))}</pre>"


def _front_table(history: History) -> str:
    objectives = history.config.objectives
    others = [m for m in of_basis("cost", "program") if m.name not in {o.name for o in objectives}]
    beside = [metric for metric in others if any(metric.name in t.values for t in history.front)]
    head = "".join(f'<th class="n">{escape(o.label)}</th>' for o in objectives)
    head += "".join(f'<th class="n">{escape(metric.label)}</th>' for metric in beside)
    rows = []
    first = objectives[0]
    ordered = sorted(history.front, key=lambda t: t.values[first.name], reverse=first.direction == "maximize")
    for t in ordered[:30]:
        shown = [*(metric_of(o.name) for o in objectives), *beside]
        cells = "".join(
            f'<td class="n">{metric.figure(t.values[metric.name]) if metric.name in t.values else ""}</td>'
            for metric in shown
        )
        mark = " ← knee" if t.number == history.knee else ""
        name = f" ({escape(t.reference)})" if t.reference else ""
        chosen = ' class="chosen"' if mark else ""
        rows.append(f'<tr{chosen}><td><a href="#trial-{t.number}">trial {t.number}</a>{name}{mark}</td>{cells}</tr>')
    reference = "".join(f'<td class="n">{metric_of(o.name).figure(o.reference)}</td>' for o in objectives)
    rows.append(
        f'<tr class="dim"><td>reference point</td>{reference}{"<td></td>" * len(beside)}</tr>'
        if all(abs(o.reference) < 1e300 for o in objectives)
        else ""
    )
    more = f'<p class="dim">and {len(ordered) - 30} more</p>' if len(ordered) > 30 else ""
    return (
        "<h3>The front as the search saw it</h3>"
        f'<div class="scroll"><table><thead><tr><th>front</th>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
        f'</div>{more}<p class="dim">Each figure is of one training run on validation images, and was selected for '
        f"being good.{_reference_point(objectives)}</p>"
    )


def _reference_point(objectives: Sequence[Objective]) -> str:
    """What the hypervolume of these objectives is measured from."""
    metrics = [metric_of(o.name) for o in objectives]
    told = [
        metric.reference_title or f"a {metric.name} of {metric.figure(o.reference)}"
        for metric, o in zip(metrics, objectives, strict=True)
    ]
    return f" The reference point is {join_words(told)}."


def _confirmed(config: StudyConfig, choice: Choice, confirmed: Sequence[Confirmed]) -> str:
    """Every network that was trained again, best first in the first objective; the knee among them is marked."""
    heading = "<h3>Confirmed under several seeds</h3>"
    if not confirmed:
        return heading + _lacks(
            f"The front was not trained again under other seeds. Do it with: skipnas confirm {config.study}"
        )
    metrics = [metric_of(o.name) for o in config.objectives]
    columns = [(metric.name, metric, metric.label) for metric in metrics]
    columns += [(f"test_{m.name}", m, f"test {m.label}") for m in metrics if m.basis == "images"]
    first = config.objectives[0]
    sign = -1 if first.direction == "maximize" else 1
    front = {result.digest for result in choice.confirmed_front}
    rows = []
    for one in sorted(
        confirmed, key=lambda c: sign * c.values[first.name].mean if first.name in c.values else math.inf
    ):
        chosen = one.digest in front and one.digest == choice.chosen.digest
        mark = " ← knee" if chosen else " front" if one.digest in front else ""
        cells = "".join(f'<td class="n">{_interval(metric, one.values.get(name))}</td>' for name, metric, _ in columns)
        size = METRICS["params"].figure(one.values["params"].mean) if "params" in one.values else "-"
        runs = f"{one.runs}" + (f", {one.failed} failed" if one.failed else "")
        row = f'<td>{_network(one)}{mark}</td>{cells}<td class="n">{size}</td><td class="n">{runs}</td>'
        rows.append(f'<tr class="chosen">{row}</tr>' if chosen else f"<tr>{row}</tr>")
    head = "".join(f'<th class="n">{escape(words)}</th>' for *_, words in columns)
    head += f'<th class="n">{METRICS["params"].label}</th>'
    beside = "networks of papers go by their name"
    lacks = ""
    if not any(one.reference for one in confirmed):
        beside = "nothing was chosen by the test split"
        if _has_references(config):
            lacks = _lacks(
                "The networks of the papers were not trained under the same seeds. Do it with: skipnas confirm "
                f"{config.study} --baselines"
            )
    return (
        f'{heading}<div class="scroll"><table><thead><tr><th>network</th>{head}'
        f'<th class="n">runs</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
        f'<p class="dim">Means and 95 % intervals, on validation images unless it says test; {beside}.</p>{lacks}'
    )


def _has_references(config: StudyConfig) -> bool:
    try:
        return bool(stored_space(config.space).baselines(config.task, config.epochs, config.constraints))
    except SkipnasError:  # a space of somebody's own that is not here
        return False


def _network(one: Confirmed) -> str:
    if one.number is None:
        return escape(str(one.reference))
    reference = f" ({escape(one.reference)})" if one.reference else ""
    return f'<a href="#trial-{one.number}">trial {one.number}</a>{reference}'


def _interval(metric: Metric, value: Interval | None) -> str:
    return "-" if value is None else metric.interval(value)


def _front(history: History, plots: Sequence[Plot]) -> str:
    counts = Counter(t.group for t in history.trials)
    placed = ""
    if counts["over_limit"]:
        placed = (
            f" Proposals that were over a limit and never trained ({counts['over_limit']}) are in the figure of sizes."
        )
    return (
        "<p>Hover over a point for its architecture; click it for everything that is known of the trial. "
        f"A pruned trial stands where it was when it was stopped, a duplicate where its original is.{placed}</p>"
        '<form id="go"><label>Trial <input type="number" min="0" style="width:5rem"></label> <button>show</button>'
        f"</form>{_grid(plots, 'front')}{_grid(plots, 'pairs')}"
    )


def _by_size(history: History, plots: Sequence[Plot]) -> str:
    names = history.config.objective_names
    rows = best_at_sizes(sized_of(history), names)
    if not rows:
        return _lacks("No complete trial was judged on images yet.")
    metrics = measured(sized_of(history), names)
    cells = []
    for row in rows:
        for kind, best in (("found", row.found), ("network of a paper", row.references)):
            if best:
                values = "".join(f"<td>{_at_size(metric, best[metric.name])}</td>" for metric in metrics)
                size = METRICS["macs"].figure(row.macs)
                cells.append(f'<tr><td class="n">{size}</td><td>{kind}</td>{values}</tr>')
    head = "".join(f"<th>{escape(metric.label)}</th>" for metric in metrics)
    return (
        "<p>The best that is known up to each size, whatever the objectives are: of the networks that the search found "
        "(solid line) and of the networks of the papers (dashed). Figures are of one run each. Choose among the trials "
        f"that fit with: skipnas best {escape(history.config.study)} --max-macs N</p>{_grid(plots, 'by-size')}"
        f'<div class="scroll"><table><thead><tr><th class="n">MACs up to</th><th>best</th>{head}</tr></thead>'
        f"<tbody>{''.join(cells)}</tbody></table></div>"
    )


def _at_size(metric: Metric, trial: Sized) -> str:
    link = f'<a href="#trial-{trial.number}">trial {trial.number}</a>'
    name = f" ({escape(trial.reference)})" if trial.reference else ""
    return f"{metric.figure(trial.values[metric.name])} {link}{name}"


def _recognition(answered: Answered | None, plots: Sequence[Plot]) -> str:
    grid = _grid(plots, "recognition")
    if answered is None:
        return grid
    told = ""
    if (threshold := answered.threshold) is not None:
        told = (
            f" A bundle answers {escape(answered.classes[1])} from a probability of {threshold:.3g} on, which has the "
            "largest balanced accuracy on these images."
        )
    rows = []
    for name, each in sorted(
        zip(answered.classes, answered.by_class, strict=True),
        key=lambda row: row[1].recall.value if row[1].recall else 1.0,
    ):
        cells = "".join(f'<td class="n">{_share(share)}</td>' for share in (each.recall, each.precision))
        rows.append(f'<tr><td>{escape(name)}</td><td class="n">{each.images:.0f}</td>{cells}</tr>')
    return (
        f'<p>The answers of <a href="#trial-{answered.trial}">trial {answered.trial}</a> for the validation images, by '
        f"the largest probability.{told}</p>"
        + _cards((metric.text(value), metric.title) for metric, value in answered.figures)
        + f'<div class="scroll"><table><thead><tr><th>class</th><th class="n">images</th><th class="n">recall (%)</th>'
        f'<th class="n">precision (%)</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
        f'<p class="dim">With 95 % intervals (Wilson), those of the lowest recall first.</p>{grid}'
    )


def _share(share: Share | None) -> str:
    if share is None:
        return "-"
    return f"{100 * share.value:.1f} ({100 * share.low:.1f} to {100 * share.high:.1f})"


def _progress(plots: Sequence[Plot]) -> str:
    return (
        "<p>The volume that the front dominates, from the reference point; it never falls. Units are those of the "
        f"objectives, multiplied.</p>{_grid(plots, 'progress', 'grid thirds')}"
    )


def _importance(history: History, plots: Sequence[Plot]) -> str:
    text = (
        "<p>The share of the differences between trials that each hyperparameter decides, with all others taken into "
        "account, and the interval of 95 % under resampling of the trials. The upright mark is what a hyperparameter "
        "would reach by chance if it decided nothing; a pale bar says no more than that. Below is the objective by the "
        "values of those that decide most.</p>"
    )
    if all(p.figure is None for p in plots if p.section == "importance"):
        return text + _lacks(next(p.lacks for p in plots if p.section == "importance"))
    return text + _grid(plots, "importance", "grid thirds") + _grid(plots, "slices", "grid thirds")


def _stability(plots: Sequence[Plot]) -> str:
    return (
        "<p>Losses on a fixed probe batch over the steps of a run, in units of the trivial answer's loss (dotted). The "
        "wide line is the worst that was still to come: what lies between it and 1 has been removed for good, and its "
        "mean is the score. Triangles are spikes. The score of each task stands in the legend; the trial's is their "
        f"geometric mean.</p>{_grid(plots, 'stability', 'grid thirds')}"
    )


def _images(pictures: Samples) -> str:
    html = _lacks(pictures.lacks) if pictures.lacks else ""
    if not pictures.rows:
        return html
    rows = []
    for name, row in pictures.rows:
        cells = []
        for picture in row:
            label = escape(picture.label) if picture.right else f'<span class="wrong">{escape(picture.label)}</span> ✗'
            psnr = "" if picture.psnr is None else METRICS["psnr"].text(picture.psnr)
            told = (label, psnr, escape(picture.note))
            cells.append(
                f'<td><img src="data:image/png;base64,{picture.png}" width="{pictures.size[0]}" '
                f'height="{pictures.size[1]}" alt="{escape(name)}">{"<br>".join(filter(None, told))}</td>'
            )
        rows.append(f"<tr><th>{escape(name)}</th>{''.join(cells)}</tr>")
    words = "Under a clean image is its class, under a denoised one the PSNR and the class that the network answers"
    if any(picture.note for _, row in pictures.rows for picture in row):
        words = (
            "No clean images are known, so what each network removed is shown, on gray, with its root mean square in "
            "levels of 255. Below it is its autocorrelation: in the middle each pixel with itself, around it with "
            "those up to 8 pixels away, and in figures with those beside and below it. It is gray, and the figures are "
            "near 0, where noise without structure was removed. It is brighter where edges and textures went with it, "
            "or where the noise itself is correlated. Under a denoised image is the class that the network answers"
        )
    evidence = ""
    if any(name.startswith(EVIDENCE) for name, _ in pictures.rows):
        evidence = (
            "The rows of evidence show where it lies: orange pixels speak for the class that the network answers, blue "
            "ones against it, by their share in its logit, the strongest of an image in the fullest colour. By "
            "gradient, which is where the head has hidden layers, they show how small changes would move the logit."
        )
    return (
        f"<p>Validation images through members of the front. {words}; ✗ marks a wrong one. {evidence} "
        f"{pictures.seen}</p>"
        f'<div class="scroll"><table class="images">{"".join(rows)}</table></div>{html}'
    )


def _failures(history: History) -> str:
    early: dict[Outcome, list[Trial]] = {}
    for trial in history.trials:
        if trial.outcome.ended_early:
            early.setdefault(trial.outcome, []).append(trial)
    if not early:
        return _lacks("Every trial that ended is complete.")
    rows = []
    for outcome, trials in sorted(early.items(), key=lambda item: -len(item[1])):
        links = ", ".join(f'<a href="#trial-{t.number}">{t.number}</a>' for t in trials[:40])
        links += f" and {len(trials) - 40} more" if len(trials) > 40 else ""
        rows.append(
            f"<tr><td>{escape(outcome.words)}</td><td class='n'>{len(trials)}</td>"
            f"<td>{links}{_details(trials)}</td></tr>"
        )
    return (
        "<p>Stopped, diverged and out-of-memory trials are pruned; duplicates and proposals over a limit were never "
        'trained and weigh nothing.</p><div class="scroll"><table><thead><tr><th>reason</th><th class="n">trials</th>'
        f"<th>which</th></tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _details(trials: Sequence[Trial]) -> str:
    """Each distinct last line once, with the full text of the first trial that has it."""
    seen: dict[str, list[Trial]] = {}
    for trial in trials:
        if trial.detail.strip():
            seen.setdefault(trial.detail.strip().splitlines()[-1], []).append(trial)
    return "".join(
        f"<details><summary>{escape(line)}{f' ({len(same)} trials)' if len(same) > 1 else ''}</summary>"
        f"<pre>{escape(same[0].detail.strip()[-6000:])}</pre></details>"
        for line, same in list(seen.items())[:12]
    )


def _origin(study: StudyReader) -> str:
    config = dataclasses.replace(study.config, data=_source(study.config.data))
    settings, provenance = kept_settings(config), study.provenance
    hardware = provenance.get("hardware")
    facts = {
        "command": f"<code>{escape(study.command)}</code>",
        "made": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(study.created)),
        "report of": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "space": f"{escape(config.space)}, version {config.space_version}, {len(study.distributions)} hyperparameters",
        "data": f"{escape(config.data)}, fingerprint <code>{escape(config.fingerprint)}</code>"
        + (f", {config.subset:,} training images" if config.subset else ""),
        "settings": escape(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in settings.items())),
        "training": f"on {escape(config.device)} with {config.threads} thread{'' if config.threads == 1 else 's'}, "
        f"begun by version {config.training_version} of the training code",
        "hardware": escape(describe(hardware)) if hardware else "not known",
        "commit": f"<code>{escape(str(provenance.get('commit') or 'not known'))}</code>",
        "versions": escape(", ".join(f"{k} {v}" for k, v in provenance.get("versions", {}).items()) or "not known"),
    }
    rows = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in facts.items())
    whole = escape(json.dumps(config.to_dict(), indent=2))
    return (
        f'<div class="scroll"><table>{rows}</table></div><details><summary>the whole configuration</summary>'
        f"<pre>{whole}</pre></details>"
    )


def _grid(plots: Iterable[Plot], section: str, columns: str = "grid") -> str:
    """The figures of a section."""
    return f'<div class="{columns}">{"".join(_plot(plot) for plot in plots if plot.section == section)}</div>'


def _plot(plot: Plot) -> str:
    heading = f"<h3>{escape(plot.title)}</h3>"
    caption = f"<figcaption>{escape(plot.text)}</figcaption>" if plot.text else ""
    if plot.figure is None:
        return f"<figure>{heading}{_lacks(plot.lacks)}</figure>"
    height = plot.figure.layout.height
    box = f'<div class="plot" id="{escape(plot.name)}" style="height:{height}px"></div>'
    box = f'<div class="scroll wide">{box}</div>' if plot.wide else box
    return f"<figure>{heading}{caption}{box}</figure>"


def _cards(cards: Iterable[tuple[str, str]]) -> str:
    inner = "".join(
        f'<div class="card"><b>{escape(value)}</b><span>{escape(name)}</span></div>' for value, name in cards
    )
    return f'<div class="cards">{inner}</div>'


def _lacks(text: str) -> str:
    return f'<p class="lacks">{escape(text)}</p>'


def _source(name: str) -> str:
    """A data source without the folders that lead to it."""
    kind, colon, folder = name.partition(":")
    return f"{kind}:{Path(folder).name}" if colon else name
