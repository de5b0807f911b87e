"""The card of a bundle: what a person reads before using a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

VALUES = {
    "psnr": ("PSNR of the restored images", "{:.2f} dB"),
    "noisy_psnr": ("PSNR of the noisy images", "{:.2f} dB"),
    "accuracy": ("top-1 accuracy on the noisy images", "{:.2f} %"),
    "stability": ("training stability, 0 to 1", "{:.3f}"),
    "latency": ("time for one image", "{:.3f} ms"),
}
"""Measured values that the card knows: name -> (label, format)."""

FILES = {
    "architecture.json": "spec, recipe, task, classes, versions and every fact behind this card",
    "weights.safetensors": "the weights; with architecture.json all that skipnas itself needs",
    "model.onnx": "for ONNX Runtime and its like: `noisy` to `denoised` and `logits`, any batch and size",
    "model.pt2": "for `torch.export.load`, any batch and size; **open model.pt2 only from a source you trust**",
    "parity.json": "largest differences of model.onnx and model.pt2 to PyTorch",
}

WITH_ONNX = """\
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
noisy = np.random.rand({shape}).astype(np.float32)  # your images: (N, C, H, W), 0 to 1
denoised, logits = session.run(["denoised", "logits"], {{"noisy": noisy}})
restored = denoised.clip(0, 1)
print(restored.shape, {answer})
"""

WITH_TORCH = """\
import torch

program = torch.export.load("model.pt2")  # can run code: open model.pt2 only from a source you trust
network = program.module()
noisy = torch.rand({shape})  # your images: (N, C, H, W), 0 to 1
with torch.inference_mode():
    denoised, logits = network(noisy)
restored = denoised.clamp(0, 1)
print(restored.shape, {answer})
"""


def card(architecture: Mapping[str, Any], parity: Mapping[str, Any]) -> str:
    """Markdown from what architecture.json and parity.json hold (see `nas.export.export_bundle`)."""
    task, facts, cost = architecture["task"], architecture["facts"], architecture["cost"]
    classes, space, versions = architecture["classes"], architecture["space"], architecture["versions"]
    values = facts.get("values", {})
    difference = max(value for found in parity["differences"].values() for value in found.values())
    kind = {1: "gray", 3: "colour"}.get(task["channels"], f"{task['channels']}-channel")
    shape = f"1, {task['channels']}, {task['height']}, {task['width']}"
    answer = "logits.argmax(1)" if classes else "logits.shape"
    size = f"{task['height']}x{task['width']}"
    return "\n".join(
        (
            f"# {space['name']} {architecture['digest']}",
            "",
            f"A network that restores noisy {kind} images of any size"
            + (f" and tells which of {len(classes)} classes they show." if classes else "; it knows no classes."),
            "Found by skipnas, a multi-objective architecture search.",
            "",
            "## Task",
            *_items(
                {
                    "data": facts.get("data"),
                    "images": ", ".join(f"{number} {split}" for split, number in facts.get("images", {}).items()),
                    "image": f"{kind}, {size} pixels in training",
                    "noise": f"`{task['noise']}`, added to values from 0 to 1 and not clipped",
                    "classes": ", ".join(classes) or "none, so logits have the shape (N, 0)",
                }
            ),
            "",
            f"## Measured on the {facts.get('split', 'unnamed')} split",
            *_items({label: form.format(values[name]) for name, (label, form) in VALUES.items() if name in values}),
            *_items(
                {
                    "hardware of the time": facts.get("hardware"),
                    "parameters": f"{cost['params']:,}",
                    "multiply-accumulates": f"{cost['macs']:,} for {size} pixels",
                }
            ),
            "",
            "## Made with",
            *_items({"study": facts.get("study"), "trial": facts.get("trial"), "seed": facts.get("seed")}),
            *_items({"architecture": _pairs(architecture["spec"]), "recipe": _pairs(architecture["recipe"])}),
            *_items({"versions": _pairs(versions)}),
            "",
            "## Files",
            *_items({f"`{name}`": text for name, text in FILES.items()}),
            "",
            "## Use",
            "With skipnas, on the data's test split or on other data:",
            "",
            f"    skipnas evaluate . --data {facts.get('data') or 'digits'} --noise {task['noise']}",
            "",
            "With ONNX Runtime alone:",
            "",
            f"```python\n{WITH_ONNX.format(shape=shape, answer=answer)}```",
            "",
            "With PyTorch alone. Open model.pt2 only from a source you trust: it can run code when it is loaded.",
            "",
            f"```python\n{WITH_TORCH.format(shape=shape, answer=answer)}```",
            "",
            "## Limits",
            "- Trained and measured on this data and noise; other images and strengths may come out worse.",
            "- The search picked this network by its measured values, which are a little too good for that reason.",
            "  The test split took no part in the search: `skipnas evaluate` judges on it.",
            f"- model.onnx and model.pt2 differ from PyTorch by at most {difference:.1e} at (N, C, H, W) = "
            + ", ".join(str(tuple(size)) for size in parity["sizes"])
            + ".",
            "  Much smaller images may be refused.",
            "",
        )
    )


def _items(values: Mapping[str, Any]) -> Iterable[str]:
    """A list entry for each value that is known."""
    return (f"- {label}: {value}" for label, value in values.items() if value not in (None, ""))


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
