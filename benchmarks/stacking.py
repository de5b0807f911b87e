"""Does it pay to train equal networks together? ``python -m benchmarks.stacking``.

Networks of one architecture that differ in their seed alone, as the seeds of a confirmation do, are trained one after
the other and as one. They become one as a network with all their channels in grouped convolutions, by `torch.func.vmap`
over their stacked weights, or as the program of this step, forward and backward, captured operator by operator and run
without modules and autograd. The table shows images per second and seed as a multiple of separate
training, in one thread and one process, in turns: the median over rounds of the ratio within a round. Batches, loss and
optimiser are the same, and both ways learn the same within rounding (`tests/benchmarks/test_stacking.py`).

The grouped form is built here, for the parts of the U-Net and the residual U-Net; it is not part of the product.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from benchmarks.lib.loops import NOISE, candidate, enlarged, in_turns
from benchmarks.lib.records import Record, measured
from nas.data.noise import parse_noise
from nas.data.splits import load, to_float
from nas.training.optimizers import Optimizer
from nas.types import Task
from search_spaces import get_space
from search_spaces.unet.fusion import Concat
from search_spaces.unet.heads import FeatureNorm
from search_spaces.unet.references import RECIPE

SIDES = (8, 28)
NETWORKS: tuple[tuple[str, int], ...] = (("unet", 4), ("unet", 16), ("residual-unet", 8), ("unet", 24))
SEEDS = (3, 5)
ROUNDS = 3
STEPS = 2
"""Steps of a timed round."""

FOLDER = Path("runs/stacking")
FORMS: Mapping[str, Sequence[str]] = {"fp32": ("grouped", "vmap", "captured"), "bf16": ("grouped", "vmap")}
"""The ways to stack by precision. torch's recorder does not run the products of vmap under autocast."""

Batch = tuple[Tensor, Tensor, Tensor]
"""Noisy and clean images (S, N, C, H, W) and labels (S, N), where each network has its own."""
Step = Callable[[Batch], Tensor]
"""Trains one step and returns the losses (S,)."""
Named = dict[str, Tensor]


class StackedLinear(nn.Module):
    """Linear layers side by side: (N, S * I) -> (N, S * O)."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.stack([layer.weight.detach() for layer in layers]))
        self.bias = nn.Parameter(torch.stack([layer.bias.detach() for layer in layers]))

    def forward(self, features: Tensor) -> Tensor:
        inputs = features.unflatten(1, (len(self.weight), -1)).transpose(0, 1)
        return torch.baddbmm(self.bias[:, None], inputs, self.weight.mT).transpose(0, 1).flatten(1)


class StackedConcat(nn.Module):
    """Concatenates [u, s] of each network: (N, S * C) twice -> (N, S * 2C)."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, state: Tensor, skip: Tensor) -> Tensor:
        return torch.cat([each.unflatten(1, (self.count, -1)) for each in (state, skip)], dim=2).flatten(1, 2)


def grouped(networks: Sequence[nn.Module]) -> nn.Module:
    """Makes one network of all: images (N, S * C, H, W) -> (denoised (N, S * C, H, W), logits (N, S * K)).

    Raises:
        ValueError: a part has weights that cannot be put side by side here.
    """
    whole = copy.deepcopy(networks[0])
    for name, first in list(whole.named_modules()):
        parts = [network.get_submodule(name) for network in networks]
        wide = _side_by_side(first, parts)
        if wide is not None:
            parent, _, leaf = name.rpartition(".")
            setattr(whole.get_submodule(parent), leaf, wide)
        elif next(first.parameters(recurse=False), None) is not None:
            raise ValueError(f"{name} is a {type(first).__name__}, which cannot be stacked")
    return whole


def _side_by_side(first: nn.Module, parts: Sequence[nn.Module]) -> nn.Module | None:
    """Makes one module of several; None where a single one works for all networks as it is."""
    count = len(parts)
    wide: nn.Module
    if isinstance(first, Concat):
        return StackedConcat(count)
    if isinstance(first, nn.Linear):
        return StackedLinear([part for part in parts if isinstance(part, nn.Linear)])
    if isinstance(first, nn.Conv2d):
        wide = nn.Conv2d(
            count * first.in_channels,
            count * first.out_channels,
            _pair(first.kernel_size),
            _pair(first.stride),
            _pair(first.padding),
            groups=count * first.groups,
            bias=first.bias is not None,
        )
    elif isinstance(first, FeatureNorm):
        wide = FeatureNorm(count * first.num_features)
    elif isinstance(first, nn.BatchNorm2d):
        wide = nn.BatchNorm2d(count * first.num_features)
    elif isinstance(first, nn.GroupNorm):
        wide = nn.GroupNorm(count * first.num_groups, count * first.num_channels)
    else:
        return None
    with torch.no_grad():
        for key, value in wide.state_dict().items():
            if value.dim():
                value.copy_(torch.cat([part.state_dict()[key] for part in parts]))
    return wide


def _pair(sizes: tuple[int, ...] | str) -> tuple[int, int]:
    """Returns (height, width) from a tuple that torch types as having any length."""
    height, width = (int(size) for size in sizes)
    return height, width


def separate_steps(networks: Sequence[nn.Module], *, bf16: bool) -> Step:
    """Trains one network after the other."""
    networks = [copy.deepcopy(each).to(memory_format=torch.channels_last) for each in networks]
    optimizers = [_optimizer(list(each.parameters())) for each in networks]

    def step(batch: Batch) -> Tensor:
        losses = []
        for network, optimizer, noisy, clean, labels in zip(networks, optimizers, *batch, strict=True):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                denoised, logits = network(noisy.contiguous(memory_format=torch.channels_last))
            losses.append(_loss(denoised, logits, clean, labels))
            _update(optimizer, losses[-1])
        return torch.stack(losses).detach()

    return step


def grouped_steps(networks: Sequence[nn.Module], *, bf16: bool) -> Step:
    """Trains all networks in one pass of wide, grouped layers."""
    count = len(networks)
    whole = grouped(networks).to(memory_format=torch.channels_last)
    optimizer = _optimizer(list(whole.parameters()))

    def step(batch: Batch) -> Tensor:
        noisy, clean, labels = batch
        wide = noisy.transpose(0, 1).flatten(1, 2).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            denoised, logits = (each.unflatten(1, (count, -1)).transpose(0, 1) for each in whole(wide))
        losses = torch.stack([_loss(*each) for each in zip(denoised, logits, clean, labels, strict=True)])
        _update(optimizer, losses.sum())
        return losses.detach()

    return step


def vmap_steps(networks: Sequence[nn.Module], *, bf16: bool) -> Step:
    """Trains all networks by `torch.func.vmap` over their stacked weights."""
    weights, buffers = stack_module_state([copy.deepcopy(each) for each in networks])
    skeleton = copy.deepcopy(networks[0])
    optimizer = _optimizer(list(weights.values()))

    def loss(weights: dict[str, Tensor], buffers: dict[str, Tensor], *each: Tensor) -> Tensor:
        noisy, clean, labels = each
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            denoised, logits = functional_call(skeleton, (weights, buffers), (noisy,))
        return _loss(denoised, logits, clean, labels)

    def step(batch: Batch) -> Tensor:
        losses: Tensor = vmap(loss, randomness="different")(weights, buffers, *batch)
        _update(optimizer, losses.sum())
        return losses.detach()

    return step


def captured_steps(networks: Sequence[nn.Module], *, bf16: bool) -> Step:
    """Trains all networks by one program: the operators of a step of `vmap_steps`, recorded once."""
    assert not bf16
    stacked, buffers = stack_module_state([copy.deepcopy(each) for each in networks])
    skeleton = copy.deepcopy(networks[0])
    weights = {name: nn.Parameter(_channels_last(weight.detach())) for name, weight in stacked.items()}
    values = {name: weight.data for name, weight in weights.items()}
    optimizer = _optimizer(list(weights.values()))

    def one(weights: Named, buffers: Named, noisy: Tensor, clean: Tensor, labels: Tensor) -> tuple[Any, ...]:
        def loss(weights: Named) -> tuple[Tensor, Named]:
            later = {name: buffer.clone() for name, buffer in buffers.items()}
            denoised, logits = functional_call(skeleton, (weights, later), (noisy,))
            return _loss(denoised, logits, clean, labels), later

        gradients, (value, later) = grad_and_value(loss, has_aux=True)(weights)
        return gradients, value, later

    program: Callable[..., Any] | None = None

    def step(batch: Batch) -> Tensor:
        nonlocal program, buffers
        program = program or make_fx(vmap(one, randomness="different"))(values, buffers, *batch)
        with torch.no_grad():
            gradients, losses, buffers = program(values, buffers, *batch)
        for name, weight in weights.items():
            weight.grad = gradients[name]
        optimizer.step()
        found: Tensor = losses
        return found

    return step


def _channels_last(weight: Tensor) -> Tensor:
    """Lays stacked weights of a convolution (S, O, I, H, W) out as channels-last ones; others stay as they are."""
    return weight.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3) if weight.dim() == 5 else weight


STEPS_OF: Mapping[str, Callable[..., Step]] = {
    "separate": separate_steps,
    "grouped": grouped_steps,
    "vmap": vmap_steps,
    "captured": captured_steps,
}


def _optimizer(parameters: list[Tensor]) -> Optimizer:
    return Optimizer("adamw", [{"params": parameters}], learning_rate=0.003, weight_decay=0.0001)


def _loss(denoised: Tensor, logits: Tensor, clean: Tensor, labels: Tensor) -> Tensor:
    return F.mse_loss(denoised.float(), clean) / 0.04 + 0.3 * F.cross_entropy(logits.float(), labels)


def _update(optimizer: Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def batches(side: int, seeds: int, count: int, size: int = RECIPE["batch_size"]) -> list[Batch]:
    """Returns batches of digits at `side`, for each network in an order and under a noise of its own."""
    data = enlarged(load("digits"), side, 1, 640)
    images, labels = torch.tensor(data.train.images), torch.as_tensor(data.train.labels)
    generator = torch.Generator().manual_seed(0)
    noise = parse_noise(NOISE)
    found = []
    for _ in range(count):
        rows = torch.stack([torch.randperm(len(images), generator=generator)[:size] for _ in range(seeds)])
        clean = to_float(images[rows])
        noisy = noise.add(clean.flatten(0, 1), generator).unflatten(0, rows.shape)
        found.append((noisy, clean, labels[rows]))
    return found


def built(side: int, name: str, width: int, seeds: int) -> list[nn.Module]:
    """Builds the same network under several seeds."""
    task = Task(channels=1, classes=10, height=side, width=side, noise=NOISE)
    networks = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        networks.append(get_space("unet").build(candidate(name, width, epochs=1).spec, task))
    return networks


def measure(what: Record) -> Record:
    """Times all forms of one case in both precisions."""
    networks = built(what["side"], what["network"], what["width"], what["seeds"])
    data = batches(what["side"], what["seeds"], STEPS)

    def all_of(step: Step) -> Callable[[], object]:
        return lambda: [step(batch) for batch in data]

    loops = {
        f"{form} {precision}": all_of(STEPS_OF[form](networks, bf16=precision == "bf16"))
        for precision, forms in FORMS.items()
        for form in ("separate", *forms)
    }
    in_turns(loops, 1, torch.device("cpu"))  # this round warms up
    return {**what, "seconds": in_turns(loops, ROUNDS, torch.device("cpu"))}


def gain(record: Record, form: str, precision: str) -> float:
    """Returns images per second and seed of a form over those of separate training in the same precision."""
    seconds = record["seconds"]
    separate, stacked = seconds[f"separate {precision}"], seconds[f"{form} {precision}"]
    return float(statistics.median(a / b for a, b in zip(separate, stacked, strict=True)))


def best(record: Record) -> float:
    """Returns the speed of the fastest stacked form over that of the fastest separate one, in any precision."""
    medians = {name: float(statistics.median(times)) for name, times in record["seconds"].items()}
    separate = min(time for name, time in medians.items() if name.startswith("separate"))
    return separate / min(time for name, time in medians.items() if not name.startswith("separate"))


def table(records: Sequence[Record]) -> str:
    """Writes every case, then the median at each size."""
    lines = [
        f"| images | network | width | seeds | {' | '.join(f'{form}, {p}' for p in FORMS for form in FORMS[p])} "
        "| best of each |",
        "|---|---|---|---|" + "---|" * (sum(map(len, FORMS.values())) + 1),
    ]
    for record in records:
        gains = [f"{gain(record, form, precision):.2f}" for precision in FORMS for form in FORMS[precision]]
        side = record["side"]
        lines.append(
            f"| {side}x{side} | {record['network']} | {record['width']} | {record['seeds']} "
            f"| {' | '.join(gains)} | {best(record):.2f} |"
        )
    lines.append("")
    for side in dict.fromkeys(record["side"] for record in records):
        found = [best(record) for record in records if record["side"] == side]
        lines.append(
            f"{side}x{side}: the best stacked form over the best separate one, median {statistics.median(found):.2f}, "
            f"least {min(found):.2f}, most {max(found):.2f} of {len(found)}."
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures the cases that are missing, then prints the table. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stacking", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sides", type=int, nargs="+", default=list(SIDES), help="pixels (default: 8 28)")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="networks together (default: 3 5)")
    parser.add_argument("--networks", type=int, default=len(NETWORKS), help="the first so many (default: all)")
    parser.add_argument("--results", type=Path, default=FOLDER, help=f"folder of what is finished (default: {FOLDER})")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    asked = [
        {"side": side, "network": name, "width": width, "seeds": seeds}
        for side in options.sides
        for name, width in NETWORKS[: options.networks]
        for seeds in options.seeds
    ]
    print(table(measured(asked, options.results / "speed.jsonl", measure)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
