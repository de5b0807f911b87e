"""The texts that ``export``, ``show`` and ``evaluate`` print about a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nas.bundles.files import CARD, WEIGHTS
from nas.bundles.formats import CONVERSIONS, FORMATS
from nas.bundles.sums import card_is_edited
from nas.data.corruptions import SHOWN
from nas.search.objectives import METRICS, of_basis, titled, unequal
from nas.types import labelled
from studies.commands.terminal import class_table, confusion_table, say, stdout
from studies.commands.text import columns

if TYPE_CHECKING:
    from nas.bundles.bundle import Bundle

DRAWN = {
    "noise": "under {} draws of the noise",
    "shots": "in {} of its shots",
    "hidden pixels": "under {} draws of hidden pixels",
}
"""How images are judged several times, by `nas.data.splits.Split.drawn`."""


def export_lines(facts: Mapping[str, Any]) -> list[str]:
    """Returns the result of `studies.bundles.export_choice` for people."""
    titles = {key: each.title for key, each in FORMATS.items()}
    differences = ", ".join(
        f"{titles.get(key, key).replace('_', ' ')} {value:.1e}" for key, value in facts["differences"].items()
    )
    lines = [
        facts["reason"],
        f"bundle written to {facts['to']}: {', '.join(facts['files'])}",
        f"largest difference to PyTorch: {differences}",
    ]
    # A search answers with the likelier class, so its figures are others.
    by = "" if (threshold := facts["threshold"]) is None else f", the second class answered from {threshold:.3g} on"
    for part, found in facts["measured"].items():
        lines.append(f"{part} split{by}: {titled(found)}")
    return [*lines, *conversion_lines(facts)]


def conversion_lines(facts: Mapping[str, Any]) -> list[str]:
    """Returns what facts of a bundle say of its less exact programs for people; nothing without one."""
    lines = []
    for name, form in CONVERSIONS.items():
        if (told := facts.get(name)) is None:
            continue
        left_out = "" if told["pays"] else "left out: it would be "
        lines.append(f"{form.file} is {left_out}{told['told']}")
        lines += [
            f"{form.title}, {part} split: {titled(found)}"
            for part, found in told.get("measured", {}).items()
            if part == "test"
        ]
    return lines


def bundle_facts(bundle: Bundle) -> dict[str, Any]:
    """Returns what ``show`` tells of a bundle."""
    return {
        "bundle": str(bundle.path),
        **bundle.description,
        "weights": bundle.weights_digest,
        "files": sorted(file.name for file in bundle.path.iterdir()),
        "card_edited": card_is_edited(bundle.path),
    }


def bundle_lines(facts: Mapping[str, Any]) -> list[str]:
    """Returns `bundle_facts` for people."""
    lines = []
    for name, value in facts.items():
        match name, value:
            case "measured", _:
                lines += [(f"on the {split} split", titled(found)) for split, found in value.items()]
            case "confirmed", _:
                lines += [_interval(key, found) for key, found in value.items()]
            case "searched", _:
                lines += [(METRICS[key].title, METRICS[key].text(figure)) for key, figure in value.items()]
            case "latency_of", _:
                lines.append(("time measured", value))
            case "params" | "macs", _:
                lines.append((METRICS[name].title, METRICS[name].text(value)))
            case "digest", _:
                lines.append((name, f"{value}, of architecture and recipe alone"))
            case "weights", _:
                lines.append((name, f"{value}, the beginning of the SHA-256 of {WEIGHTS}"))
            case "card_edited", True:
                lines.append(("card", f"{CARD} was edited after the export"))
            case _, bool():
                pass
            case _, list():
                lines.append((name, ", ".join(map(str, value))))
            case _:
                lines.append((name.replace("_", " "), str(value)))
    width = max(len(name) for name, _ in lines)
    return [f"{name:<{width}}  {text}" for name, text in lines]


def _interval(name: str, found: Mapping[str, Any]) -> tuple[str, str]:
    """Returns a mean over seeds with its interval."""
    metric = METRICS.get(name.removeprefix("test_"))
    told = {key: metric.figure(found[key]) if metric else f"{found[key]:.4g}" for key in ("mean", "low", "high")}
    split = "" if metric and metric.basis == "run" else " on test" if name.startswith("test_") else " on validation"
    where = f"{metric.title if metric else name}{split}"
    unit = f" {metric.unit}" if metric and metric.unit else ""
    return where, f"{told['mean']}{unit}, {told['low']} to {told['high']} (95 %, {found['n']:.0f} seeds)"


def show_evaluation(result: Mapping[str, Any]) -> None:
    """Prints the results of `studies.bundles.evaluate_bundle`: a table of all noise levels, and their mistakes."""
    which = "all images" if result["split"] == "all" else f"{result['split']} split"
    draws = max(level["draws"] for level in result["levels"])
    each = f", each {DRAWN[result['drawn']].format(draws)}" if draws > 1 else ""
    say(f"{result['data']}, {which}, {result['images']} images{each}")
    levels = result["levels"]
    metrics = [m for m in of_basis("images", "evaluation") if any(level[m.name] is not None for level in levels)]

    def row(level: Mapping[str, Any], prefix: str, lacking: str) -> list[str]:
        values = [(metric, level.get(f"{prefix}{metric.name}")) for metric in metrics]
        return [lacking if value is None else metric.figure(value) for metric, value in values]

    rows = []
    for level in levels:
        rows.append((level["noise"], "noisy input", *row(level, "noisy_", "")))
        if result["reference"] is not None:
            rows.append(("", result["reference"], *row(level, "reference_", "")))
        if result["self_ensemble"]:
            rows.append(("", "network, once", *row(level, "once_", "-")))
        rows.append(("", "self-ensemble" if result["self_ensemble"] else "network", *row(level, "", "-")))
    head = ("noise", "", *(labelled(metric.title, metric.unit) for metric in metrics))
    for line in columns(head, rows):
        say(line)
    if (confusion := levels[0]["confusion"]) is not None:
        told = unequal(result["classes"], [sum(row) for row in confusion])
        if told is not None:
            say(told)
    for level in levels:
        if level["confusion"] is not None:
            say(f"confusion at {level['noise']}: true class down, answer across{_answered(result)}")
            stdout().print(confusion_table(result["classes"], level["confusion"]))
            stdout().print(class_table(result["classes"], level["per_class"]))
    if result["corruptions"] is not None:
        say("corruptions of the clean images, alone; PSNR is against the clean image, before and after the network")
        for line in corruption_lines(result["corruptions"]):
            say(line)


def corruption_lines(corruptions: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the table of all corruptions, a line for each level."""
    metrics = [METRICS[name] for name in SHOWN if name in corruptions[0]]
    before = METRICS["psnr"]
    rows, last = [], ""
    for each in corruptions:
        kind, last = "" if each["kind"] == last else each["kind"], each["kind"]
        figures = (metric.figure(each[metric.name]) for metric in metrics)
        rows.append((kind, each["noise"], before.figure(each["noisy_psnr"]), *figures))
    head = ("corruption", "noise", "PSNR before (dB)", *(labelled(m.title, m.unit) for m in metrics))
    return columns(head, rows)


def _answered(result: Mapping[str, Any]) -> str:
    """Tells by which threshold a bundle answers; nothing where it answers the most probable class."""
    if (threshold := result["threshold"]) is None:
        return ""
    return f"; {result['classes'][1]} is answered from a probability of {threshold:.4g} on, as chosen on validation"
