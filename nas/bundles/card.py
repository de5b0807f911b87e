"""The card of a bundle, which people read before they use a network."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from nas.bundles.description import colours, start_in_words
from nas.bundles.files import ARCHITECTURE, PARITY, SUMS, WEIGHTS
from nas.bundles.formats import CONVERSIONS, ONNX, PARITY_LIMIT, Format
from nas.data.noise import parse_noise
from nas.search.objectives import METRICS, Metric, cautions, of_basis

SEARCHED_LIMIT = (
    "- The search picked this network by its values on validation, which are a little too good for that",
    "  reason. The test split took no part in the search.",
)

TRAINED_LIMIT = ("- The test split was looked at after the training alone.",)

STARTED_LIMIT = (
    "- The weights that the training began with were trained on other data. Images of the test split that were",
    "  among it would make the figures too good.",
)


def card(architecture: Mapping[str, Any], parity: Mapping[str, Any], formats: Mapping[str, Format]) -> str:
    """Writes Markdown from the contents of architecture.json and parity.json (see `nas.bundles.export.export_bundle`),
    and the formats that were written."""
    task, facts, cost = architecture["task"], architecture["facts"], architecture["cost"]
    classes, space, versions = architecture["classes"], architecture["space"], architecture["versions"]
    values, start = facts.get("values", {}), facts.get("start")
    compared = {name: formats[name] for name in parity["differences"]}
    exact = {name: each for name, each in compared.items() if each.pixel_limit == PARITY_LIMIT}
    difference = max(value for name in exact for value in parity["differences"][name].values())
    kind = colours(task["channels"])
    shape = f"1, {task['channels']}, {task['height']}, {task['width']}"
    threshold = architecture.get("threshold")
    answer = ", logits.argmax(1)" if classes else ""
    likely = ", probabilities[0].argmax(1)" if classes else ""
    if threshold is not None:  # the difference of the logits is the logarithm of the odds
        answer = f", (logits[:, 1] - logits[:, 0] >= {math.log(threshold / (1 - threshold)):.6g}) * 1"
        likely = f", (probabilities[0][:, 1] >= {threshold:.6g}) * 1"
    size = f"{task['height']}x{task['width']}"
    return "\n".join(
        (
            f"# {space['name']} {architecture['digest']}",
            "",
            f"A network that restores noisy {kind} images of any size"
            + (f" and tells which of {len(classes)} classes they show." if classes else "; it knows no classes."),
            f"{'Found' if facts.get('study') else 'Trained'} by skipnas, a multi-objective architecture search.",
            "",
            "## Task",
            *_items(
                {
                    "data": facts.get("data"),
                    "images": ", ".join(f"{number} {split}" for split, number in facts.get("images", {}).items()),
                    "image": f"{kind}, {size} pixels in training",
                    "white": None if (white := architecture.get("white_level")) is None else f"{white:.10g}",
                    "class": f"of an image turned as it is to be seen, cut at the centre and averaged to {size} pixels"
                    if architecture["preparation"]
                    else None,
                    "noise": _noise(task),
                    "classes": ", ".join(classes) or "none",
                    "threshold": None
                    if threshold is None
                    else f"{classes[1]} is answered from a probability of {threshold:.4g} on, which has the largest "
                    "balanced accuracy on validation",
                }
            ),
            "",
            *_measured(facts),
            *_items(
                {m.described: m.text(values[m.name]) for m in of_basis("run", "program", "doubt") if m.name in values}
            ),
            *_items(
                {
                    "time measured": facts.get("latency_of"),
                    "hardware of the time": facts.get("hardware") if "latency" in values else None,
                    "parameters": METRICS["params"].figure(cost["params"]),
                    "multiply-accumulates": f"{METRICS['macs'].figure(cost['macs'])} for {size} pixels",
                }
            ),
            "",
            *_confirmed(facts.get("confirmed")),
            *_conversions(facts),
            "## Made with",
            *_items({"study": facts.get("study"), "trial": facts.get("trial"), "seed": facts.get("seed")}),
            *_items({"start": start_in_words(start)}),
            f"- digest: {architecture['digest']}, of architecture and recipe alone, so that other weights may have it "
            f"too; the sums in {SUMS} tell weights apart",
            *_items({"architecture": _pairs(architecture["spec"]), "recipe": _pairs(architecture["recipe"])}),
            *_items({"version of the training code": facts.get("training_version"), "versions": _pairs(versions)}),
            "",
            "## Files",
            *_items({f"`{name}`": text for name, text in _files(formats, compared, facts, bool(classes)).items()}),
            "",
            "## Use",
            "With skipnas, on the data's test split or on other data:",
            "",
            f"    skipnas evaluate . --data {facts.get('data') or 'digits'} --noise {task['noise']}",
            "",
            "In Python, after `from studies.bundles import open_bundle`:",
            "",
            '    network = open_bundle(".").network  # noisy (N, C, H, W), 0 to 1, to denoised images and logits',
            "",
            "`skipnas show .` prints what these files say of themselves. In Python it is",
            "",
            '    open_bundle(".").description',
            "",
            "and the ONNX programs have it as their metadata.",
            "",
            *_usage(formats, shape, answer, likely),
            "## Licence",
            str(facts.get("licence") or "Not stated. Ask who made this network before you use it in earnest."),
            "",
            "## Limits",
            "- Trained and measured on this data and noise; other images and strengths may come out worse.",
            *(TRAINED_LIMIT if facts.get("split") == "test" else SEARCHED_LIMIT),
            *(STARTED_LIMIT if start and set(start["seen"]) != {facts.get("fingerprint")} else ()),
            f"- {_listed(each.file for each in exact.values())} differ from PyTorch by at most "
            f"{difference:.1e} at (N, C, H, W) = " + ", ".join(str(tuple(size)) for size in parity["sizes"]) + ".",
            "  Much smaller images may be refused.",
            *(
                f"- {each.file} differs from PyTorch, with the same rounding, by at most "
                f"{parity['differences'][name]['denoised']:.1e}, where a step of its pixels is {each.pixel_limit:.1e}."
                for name, each in compared.items()
                if name not in exact
            ),
            "",
        )
    )


def _noise(task: Mapping[str, Any]) -> str:
    if task["noise"] != "data":
        return f"`{task['noise']}`, added to values from 0 to 1" + (
            "" if parse_noise(task["noise"]).clips else " and not clipped"
        )
    if task.get("clean", True):
        return "that of noisy images beside the clean ones (`data`)"
    return "that of the images themselves (`data`); no clean ones are known, so its figures are self-supervised"


def _files(
    formats: Mapping[str, Format], compared: Mapping[str, Format], facts: Mapping[str, Any], classifies: bool
) -> dict[str, str]:
    """Returns what each file is. The formats that are `compared` have their differences to PyTorch in one of them."""
    outputs = "`denoised` and `logits`" if classifies else "`denoised`"
    probabilities = ", and with probabilities in place of logits" if classifies else ""
    return {
        ARCHITECTURE: "spec, recipe, task, classes, versions and every fact behind this card",
        WEIGHTS: f"the weights; with {ARCHITECTURE} and {SUMS} all that skipnas itself needs",
        **{each.file: each.described.format(outputs=outputs, probabilities=probabilities) for each in formats.values()},
        **{
            form.file: f"{ONNX} with {form.title}: less exact, and smaller or faster, as the section {form.title} says"
            for name, form in CONVERSIONS.items()
            if facts.get(name, {}).get("pays")
        },
        PARITY: f"largest differences of {_listed(each.file for each in compared.values())} to PyTorch",
        SUMS: "the SHA-256 sum of each file, which skipnas checks when it opens the bundle (so does `sha256sum -c`); "
        "this card may be edited, and files of other names may be added",
    }


def _usage(formats: Mapping[str, Format], shape: str, answer: str, likely: str) -> Iterable[str]:
    """Returns a program for each format that uses it without skipnas and prints the class; one for all programs for a
    size."""
    outputs = ("denoised", "logits") if answer else ("denoised",)
    sized = [each for each in formats.values() if each.size is not None]
    for each in formats.values():
        if each in sized[1:]:
            continue
        usage = each.usage.format(
            shape=shape,
            channels=shape.split(", ")[1],
            outputs=", ".join(outputs) if answer else f"({outputs[0]},)",
            names=json.dumps(outputs),
            answer=answer,
            likely=likely,
        )
        yield from (each.heading, "")
        if each.usage:
            yield from (f"```python\n{usage}```", "")


def _measured(facts: Mapping[str, Any]) -> list[str]:
    """Returns a table of these weights' figures by split; the search's figures where no others are known."""
    measured = facts.get("measured") or {facts.get("split", "unnamed"): facts.get("values", {})}
    splits = list(measured)
    lines = [
        f"## Measured on the {' and the '.join(splits)} split",
        "",
        f"| these weights | {' | '.join(splits)} |",
        "|---" * (len(splits) + 1) + "|",
    ]
    for metric in of_basis("images", "evaluation"):
        noisy = f"noisy_{metric.name}", f"{metric.title} of the noisy images"
        for name, words in ((metric.name, metric.described), noisy):
            if any(name in measured[split] for split in splits):
                cells = [metric.figure(measured[split][name]) if name in measured[split] else "-" for split in splits]
                lines.append(f"| {_with_unit(words, metric)} | {' | '.join(cells)} |")
    figures = dict.fromkeys(name for split in splits for name in measured[split])
    told = [f"{line[:1].upper()}{line[1:]}." for line in cautions(figures)]
    return [*lines, "", *(line for each in told for line in (each, ""))]


def _confirmed(confirmed: Mapping[str, Any] | None) -> list[str]:
    """Returns a table of means over seeds; nothing without them."""
    if not confirmed:
        return []
    seeds = confirmed["seeds"]
    lines = [
        f"## Confirmed under {len(seeds)} seeds",
        "The same architecture and recipe, trained again under other seeds than these weights"
        + (f", by version {version} of the training code:" if (version := confirmed.get("training_version")) else ":"),
        "",
        "| | mean | 95 % interval | standard deviation |",
        "|---|---|---|---|",
    ]
    on_images = of_basis("images")
    shown = [(m.name, f"{m.title} on validation", m) for m in on_images]
    shown += [(m.name, m.title, m) for m in of_basis("run")]
    shown += [(f"test_{m.name}", f"{m.title} on test", m) for m in on_images]
    for name, words, metric in shown:
        if (value := confirmed["values"].get(name)) is not None:
            mean, low, high, sd = (metric.figure(value[key]) for key in ("mean", "low", "high", "sd"))
            lines.append(f"| {_with_unit(words, metric)} | {mean} | {low} to {high} | {sd} |")
    return [*lines, "", f"Seeds: {', '.join(map(str, seeds))}.", ""]


def _conversions(facts: Mapping[str, Any]) -> Iterable[str]:
    """Returns what each less exact program pays, and a table of the quality that it costs; nothing without one."""
    for name, form in CONVERSIONS.items():
        if (told := facts.get(name)) is None:
            continue
        yield f"## {form.title}"
        ranges = f" Its ranges come from {told['images']} noisy training images." if "images" in told else ""
        differs = f" Its pixels differ by at most {told['difference']:.1e}." if "difference" in told else ""
        yield f"{form.file} is {'' if told['pays'] else 'left out: it would be '}{told['told']}.{ranges}{differs}"
        found, whole = told.get("measured", {}), facts.get("measured", {})
        if found:
            yield from ("", f"| {form.title}, and its difference to these weights | " + " | ".join(found) + " |")
            yield "|---" * (len(found) + 1) + "|"
            for metric in of_basis("images", "evaluation"):
                if all(metric.name in found[part] for part in found):
                    values = [(found[part][metric.name], whole[part][metric.name]) for part in found]
                    cells = [f"{metric.figure(own)} ({metric.difference(own - full)})" for own, full in values]
                    yield f"| {_with_unit(metric.described, metric)} | {' | '.join(cells)} |"
        yield ""


def _listed(names: Iterable[str]) -> str:
    """Returns two or more names as a sentence has them: a, b and c."""
    *most, last = names
    return f"{', '.join(most)} and {last}"


def _with_unit(words: str, metric: Metric) -> str:
    return f"{words}, {metric.unit}" if metric.unit else words


def _items(values: Mapping[str, Any]) -> Iterable[str]:
    """Returns a list entry for each known value."""
    return (f"- {label}: {value}" for label, value in values.items() if value not in (None, ""))


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
