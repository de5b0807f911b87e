"""The texts that ``export`` and ``evaluate`` print about a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nas.bundles.formats import FORMATS
from nas.search.objectives import of_basis, titled, unequal
from nas.types import labelled
from studies.commands.terminal import confusion_table, say, stdout
from studies.commands.text import columns


def export_lines(facts: Mapping[str, Any]) -> list[str]:
    """Returns the result of `studies.bundles.export_choice` for people."""
    differences = ", ".join(f"{each.title} {facts[key]:.1e}" for key, each in FORMATS.items())
    lines = [
        facts["reason"],
        f"bundle written to {facts['to']}: {', '.join(facts['files'])}",
        f"largest difference to PyTorch: {differences}",
    ]
    for part, found in facts["measured"].items():
        lines.append(f"{part} split: {titled(found)}")
    if facts["int8"] is not None:
        found = facts["int8"]["measured"]["test"]
        lines.append(f"int8, test split: {titled(found)}, {facts['int8']['bytes']:,} bytes")
    return lines


def show_evaluation(result: Mapping[str, Any]) -> None:
    """Prints the results of `studies.bundles.evaluate_bundle`: a table of all noise levels, and their mistakes."""
    which = "all images" if result["split"] == "all" else f"{result['split']} split"
    draws = max(level["draws"] for level in result["levels"])
    each = f", each under {draws} draws of the noise" if draws > 1 else ""
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
        rows.append(("", "network", *row(level, "", "-")))
    head = ("noise", "", *(labelled(metric.title, metric.unit) for metric in metrics))
    for line in columns(head, rows):
        say(line)
    if (confusion := levels[0]["confusion"]) is not None:
        told = unequal(result["classes"], [sum(row) for row in confusion])
        if told is not None:
            say(told)
    for level in levels:
        if level["confusion"] is not None:
            say(f"confusion at {level['noise']}: true class down, answer across")
            stdout().print(confusion_table(result["classes"], level["confusion"]))
