"""What ``export`` and ``evaluate`` print of a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nas.bundles.formats import FORMATS
from studies.commands.terminal import confusion_table, say, stdout
from studies.commands.text import columns


def export_lines(facts: Mapping[str, Any]) -> list[str]:
    """Returns what `studies.bundles.export_choice` did, for people."""
    differences = ", ".join(f"{each.title} {facts[key]:.1e}" for key, each in FORMATS.items())
    lines = [
        facts["reason"],
        f"bundle written to {facts['to']}: {', '.join(facts['files'])}",
        f"largest difference to PyTorch: {differences}",
    ]
    for part, found in facts["measured"].items():
        lines.append(f"{part} split: PSNR {found['psnr']:.2f} dB, SSIM {found['ssim']:.4f}{_accuracy(found)}")
    if facts["int8"] is not None:
        found = facts["int8"]["measured"]["test"]
        size = f"{facts['int8']['bytes']:,} bytes"
        lines.append(f"int8, test split: PSNR {found['psnr']:.2f} dB{_accuracy(found)}, {size}")
    return lines


def _accuracy(found: Mapping[str, Any]) -> str:
    return f", accuracy {found['accuracy']:.2f} %" if "accuracy" in found else ""


def show_evaluation(result: Mapping[str, Any]) -> None:
    """Prints what `studies.bundles.evaluate_bundle` found: a table of all noise levels, and their mistakes."""
    which = "all images" if result["split"] == "all" else f"{result['split']} split"
    say(f"{result['data']}, {which}, {result['images']} images")
    rows = []
    for level in result["levels"]:
        rows.append((level["noise"], "noisy input", f"{level['noisy_psnr']:.2f}", f"{level['noisy_ssim']:.4f}", ""))
        if result["reference"] is not None:
            figures = f"{level['reference_psnr']:.2f}", f"{level['reference_ssim']:.4f}"
            rows.append(("", result["reference"], *figures, ""))
        accuracy = "-" if level["accuracy"] is None else f"{level['accuracy']:.2f}"
        rows.append(("", "network", f"{level['psnr']:.2f}", f"{level['ssim']:.4f}", accuracy))
    for line in columns(("noise", "", "PSNR (dB)", "SSIM", "accuracy (%)"), rows):
        say(line)
    for level in result["levels"]:
        if level["confusion"] is not None:
            say(f"confusion at {level['noise']}: true class down, answer across")
            stdout().print(confusion_table(result["classes"], level["confusion"]))
