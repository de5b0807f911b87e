"""Does the device compute what the CPU does?"""

from __future__ import annotations

import copy
import importlib.metadata
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.gpu.processes import environment
from benchmarks.gpu.setting import CPU, NOISE, Setting
from benchmarks.lib.checks import Finding, Room

if TYPE_CHECKING:
    from nas.data.splits import Dataset
    from nas.types import Candidate, Task

PACKAGES = ("torch", "torchvision", "numpy", "ray", "optuna", "sqlalchemy", "torchjd", "onnxruntime", "plotly")

MODES: Mapping[str, tuple[bool, bool]] = {"fp32": (False, False), "tf32": (True, False), "bf16": (True, True)}
"""Name -> whether a GPU may round fp32 to TF32, and whether autocast computes in bf16."""
LIMITS: Mapping[str, tuple[float, float]] = {"fp32": (1e-5, 1e-4), "tf32": (1e-2, 5e-2), "bf16": (0.1, 0.5)}
"""Distance from the CPU's fp32 that outputs and gradients may have. An H200's outputs are within a fifth of it."""
BATCH = 8

STEP_LIMIT = 0.3
"""Distance that a step's change may have: AdamW's first step has the sign of each gradient, also of those near zero.
A gradient in the wrong layout is more than 1 off."""

GRAPH_EPOCHS = 6
GRAPH_LIMIT = 1e-2
"""Distance by which what a run with graphs learns may differ from what one without learns."""

PSNR_LIMIT = 1e-3
"""dB by which the same weights may be judged otherwise than on the CPU."""


def machine(on: Setting, room: Room) -> Iterator[Finding]:
    """Says which machine and versions the other findings are of, and which packages are missing."""
    versions = {name: _version(name) for name in PACKAGES}
    facts: dict[str, Any] = {
        "device": torch.cuda.get_device_name(on.device) if on.gpu else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        **{name: version for name, version in versions.items() if version is not None},
    }
    if on.gpu:
        properties = torch.cuda.get_device_properties(on.device)
        facts["memory in GiB"] = round(properties.total_memory / 2**30, 1)
        facts["capability"] = f"{properties.major}.{properties.minor}"
        facts["bf16"] = torch.cuda.is_bf16_supported(including_emulation=False)
    yield Finding(text=", ".join(f"{name} {value}" for name, value in facts.items()), values=facts)
    if missing := [name for name, version in versions.items() if version is None]:
        yield Finding(text=f"what needs these packages is left out, as they are missing: {', '.join(missing)}")


def networks(on: Setting, room: Room) -> Iterator[Finding]:
    """Compares outputs and gradients of the papers' networks with the CPU's in fp32, for the same weights and images.

    The distance of two vectors is ``|a - b| / |b|``, here of all outputs and of the gradients of all parameters.
    """
    from nas.types import Task
    from search_spaces import get_space
    from search_spaces.unet.references import REFERENCES, reference_network

    task = Task(channels=1, classes=10, height=28, width=28, noise=NOISE)
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(BATCH, 1, 28, 28, generator=generator)
    noisy = clean + 50 / 255 * torch.randn(clean.shape, generator=generator)
    batch = noisy, clean, torch.arange(BATCH) % 10
    worst = dict.fromkeys(MODES, (0.0, 0.0))
    for name in list(REFERENCES)[: on.scale.references]:
        torch.manual_seed(0)
        network = get_space("unet").build(reference_network(name, task).spec, task)
        wanted = _answers(network, batch, CPU, "fp32")
        off = {}
        for mode in MODES:
            found = _answers(network, batch, on.device, mode)
            off[mode] = distance(found[0], wanted[0]), distance(found[1], wanted[1])
            worst[mode] = max(worst[mode][0], off[mode][0]), max(worst[mode][1], off[mode][1])
        yield Finding(text=f"{name}: {_distances(off)}", values={"network": name, "off": off}, right=_within(off))
    yield Finding(text=f"at most: {_distances(worst)}", values={"worst": worst}, right=_within(worst))


def steps(on: Setting, room: Room) -> Iterator[Finding]:
    """Compares what one step adds to the weights with the CPU's, for every way to balance losses and every optimiser.

    With gradient surgery each trial on a GPU once ended by an exception, as gradients came in another memory layout
    than their parameters (`nas.training.optimizers.Optimizer`).
    """
    from nas.data.splits import load
    from nas.training.balancing import BALANCES
    from nas.training.optimizers import OPTIMIZERS
    from nas.types import Task
    from search_spaces.unet.references import reference_network

    # Without noise, nothing in a step is drawn on the device.
    task = Task(channels=1, classes=10, height=8, width=8, noise="none")
    data = load("digits", subset=64)
    for name in ("unet", "nddr")[: on.scale.references]:
        candidate = reference_network(name, task)
        for balancing in BALANCES:
            for optimizer in OPTIMIZERS:
                own = replace(candidate, recipe=replace(candidate.recipe, balancing=balancing, optimizer=optimizer))
                off = distance(_change(own, task, data, on.device), _change(own, task, data, CPU))
                yield Finding(
                    text=f"{name}, {balancing}, {optimizer}: a step's change is {off:.1e} off the CPU's",
                    values={"network": name, "balancing": balancing, "optimizer": optimizer, "off": off},
                    right=off <= STEP_LIMIT,
                )


def graphs(on: Setting, room: Room) -> Iterator[Finding]:
    """Compares trainings with captured steps (`nas.training.captured`) with the same ones without, on the device.

    Kernels that add in any order drive two runs apart, so a run without graphs is made twice. On a CPU nothing is
    captured.
    """
    from nas.data.splits import load
    from nas.training.captured import PLAIN_VARIABLE, Captured
    from nas.types import Task
    from search_spaces.unet.references import REFERENCES, reference_network
    from search_spaces.unet.spec import UNetSpec

    task = Task(channels=1, classes=10, height=8, width=8, noise=NOISE)
    data = load("digits", subset=72)  # an epoch has two batches of 32 and one of 8
    variants: list[tuple[str, str, dict[str, Any]]] = [
        (name, "fp32", {}) for name in list(REFERENCES)[: on.scale.references]
    ]
    variants += [("unet", "bf16", {}), ("unet", "fp32", {"optimizer": "sgd"})]
    variants += [("nddr", "fp32", {"balancing": "uncertainty"}), ("sluice", "bf16", {"class_weights": "balanced"})]
    for name, precision, changes in variants:
        candidate = reference_network(name, task)
        assert isinstance(candidate.spec, UNetSpec)
        dropout = 0.25 if candidate.spec.tasks != "denoise" else candidate.spec.head_dropout
        spec = replace(candidate.spec, head_dropout=dropout)
        recipe = replace(candidate.recipe, epochs=GRAPH_EPOCHS, batch_size=32, **changes)
        own = replace(candidate, spec=spec, recipe=recipe)
        with environment(**{PLAIN_VARIABLE: "1"}):
            plain, again = (_trained(own, task, data, on.device, precision)[0] for _ in range(2))
        found, captured = _trained(own, task, data, on.device, precision)
        off, apart = distance(found, plain), distance(again, plain)
        yield Finding(
            text=f"{name} in {precision}{''.join(f', {value}' for value in changes.values())}: {captured} graphs; they "
            f"lead {off:.1e} off the run without, and another one without {apart:.1e}",
            values={"network": name, "precision": precision, **changes, "off": off, "apart": apart, "graphs": captured},
            right=off <= max(GRAPH_LIMIT, 3 * apart) and captured == (3 if on.gpu else 0) and not Captured.told,
        )


def validation(on: Setting, room: Room) -> Iterator[Finding]:
    """Trains a network on the device for an epoch, and judges it there and on the CPU."""
    from benchmarks.lib.loops import subject
    from nas.training.batches import DeviceData, calibration
    from nas.training.evaluation import judge
    from nas.training.loop import Training
    from search_spaces import get_space

    few = subject(28, "unet", 4, on.scale.steps)
    torch.manual_seed(0)
    network = get_space("unet").build(few.candidate.spec, few.task)
    data = DeviceData.of(few.data, few.task, on.device)
    Training(network, few.task, few.recipe, data, seed=0).run_epoch()
    shown = calibration(data, 8, seed=0)  # for an int8 program, drawn on the device and used on the CPU
    there = judge(network, data.validation).values
    here = judge(network.to(CPU), DeviceData.of(few.data, few.task, CPU).validation).values
    off = abs(there["psnr"] - here["psnr"])
    yield Finding(
        text=f"validation PSNR {there['psnr']:.4f} dB, {off:.1e} dB off the CPU's for the same weights; accuracy "
        f"{there['accuracy']:.2f} and {here['accuracy']:.2f} %",
        values={name: [there[name], here[name]] for name in ("psnr", "accuracy")},
        right=off <= PSNR_LIMIT and shown.device == CPU and len(shown) == 8,
    )


def distance(found: Tensor, wanted: Tensor) -> float:
    """``|a - b| / |b|``; NaN where something is not a number, which is within no limit."""
    return float((found - wanted).norm() / wanted.norm().clamp_min(1e-30))


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _answers(
    network: nn.Module, batch: tuple[Tensor, Tensor, Tensor], device: torch.device, mode: str
) -> tuple[Tensor, Tensor]:
    """Outputs of a network for a batch, and gradients of its loss, each as one vector on the CPU."""
    tf32, bf16 = MODES[mode]
    net = copy.deepcopy(network).to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    noisy, clean, labels = (part.to(device) for part in batch)
    with _tf32(tf32):
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            denoised, logits = net(noisy.contiguous(memory_format=torch.channels_last))
        (F.mse_loss(denoised.float(), clean) + F.cross_entropy(logits.float(), labels)).backward()
    gradients = [parameter.grad for parameter in net.parameters() if parameter.grad is not None]
    return _flat([denoised, logits]), _flat(gradients)


def _change(candidate: Candidate, task: Task, data: Dataset, device: torch.device) -> Tensor:
    """What one step on a fixed batch adds to fresh weights, as one vector on the CPU."""
    from nas.training.batches import DeviceData
    from nas.training.loop import Training
    from search_spaces import get_space

    torch.manual_seed(0)
    network = get_space("unet").build(candidate.spec, task)
    with _tf32(False):
        training = Training(network, task, candidate.recipe, DeviceData.of(data, task, device), seed=0)
        before = _flat(list(training.network.parameters()))
        training._learn(torch.arange(candidate.recipe.batch_size, device=device))
    return _flat(list(training.network.parameters())) - before


def _trained(
    candidate: Candidate, task: Task, data: Dataset, device: torch.device, precision: str
) -> tuple[Tensor, int]:
    """What a run adds to fresh weights and its probes, as one vector on the CPU; and how many graphs it had."""
    from nas.training.batches import DeviceData
    from nas.training.loop import Training
    from search_spaces import get_space

    torch.manual_seed(0)
    network = get_space("unet").build(candidate.spec, task)
    on_device = DeviceData.of(data, task, device)
    training = Training(network, task, candidate.recipe, on_device, seed=0, precision=precision)
    before = _flat(list(training.network.parameters()))
    for _ in range(candidate.recipe.epochs):
        training.run_epoch()
    curve = training.probe_curve()
    change = _flat(list(training.network.parameters())) - before
    graphs = [each.graphs for each in (training._captured_steps, training._captured_probes) if each is not None]
    return torch.cat([change, torch.tensor([*curve.denoise, *curve.classify]).double()]), sum(graphs)


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    """Whether cuDNN's convolutions may round fp32 to TF32 while the block runs; in training they may."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _flat(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([part.detach().double().cpu().flatten() for part in parts])


Off = Mapping[str, tuple[float, float]]
"""Mode -> distances of outputs and gradients."""


def _distances(off: Off) -> str:
    each = [f"{mode} {output:.1e} and {gradient:.1e}" for mode, (output, gradient) in off.items()]
    return f"outputs and gradients are off by {', '.join(each)}"


def _within(off: Off) -> bool:
    return all(value <= limit for mode, pair in off.items() for value, limit in zip(pair, LIMITS[mode], strict=True))
