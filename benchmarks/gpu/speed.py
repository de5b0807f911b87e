"""How fast is the training loop on the device, and what keeps it from being faster?"""

from __future__ import annotations

import copy
import json
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.gpu.setting import Setting, seconds_of
from benchmarks.lib.checks import Finding, Room

if TYPE_CHECKING:
    from benchmarks.lib.loops import Subject
    from nas.training.batches import DeviceData

ROUNDS = 4


def loop(on: Setting, room: Room, *, later: bool) -> Iterator[Finding]:
    """Times the project's loop against the one that people write (`benchmarks.lib.loops`), in images per second.

    Args:
        later: whether the images are those that are timed if time is left.
    """
    from benchmarks.lib.loops import NETWORKS, faster, speed, study_steps

    torch.set_num_threads(1)
    ratios = []
    for side in on.scale.sides[later]:
        for name, width in NETWORKS[: on.scale.networks]:
            record = speed(side, name, width, on.device)
            seconds, chosen = record["seconds"], record["chosen"]
            pace = record["images"] / statistics.median(seconds["people"])
            ratio = {each: faster(seconds, each, study_steps(side)) for each in ("fp32", "bf16")}
            ratios.append(ratio[chosen])
            yield Finding(
                text=f"{side}x{side} {name} of {record['params']:,} parameters: the usual loop {pace:,.0f} images/s, "
                f"ours {ratio['fp32']:.2f} of it in fp32, {ratio['bf16']:.2f} in bf16; {chosen} was chosen",
                values={**record, "pace": pace, "ratio": ratio},
            )
    yield Finding(
        text=f"ours to the usual loop, in the precision that was chosen: median {statistics.median(ratios):.2f}, least "
        f"{min(ratios):.2f}, most {max(ratios):.2f} of {len(ratios)}",
        values={"ratios": ratios},
    )


def busy(on: Setting, room: Room) -> Iterator[Finding]:
    """Profiles the project's loop: the share of its time in which the device works, and how many kernels a step has.

    The device's time is the union of its kernels and copies in a trace of an epoch. The epoch's is that of one without
    the profiler, since tracing slows the program down and not the device. On a CPU operators stand for kernels.
    """
    from torch.profiler import ProfilerActivity, profile

    from benchmarks.lib.loops import NETWORKS, ours, subject
    from nas.training.batches import DeviceData
    from search_spaces import get_space

    torch.set_num_threads(1)
    activity, kinds = ProfilerActivity.CPU, {"cpu_op"}
    if on.gpu:
        activity, kinds = ProfilerActivity.CUDA, {"kernel", "gpu_memcpy", "gpu_memset"}
    for side in on.scale.sides[0]:
        for name, width in NETWORKS[: on.scale.networks]:
            few = subject(side, name, width, on.scale.steps)
            torch.manual_seed(0)
            network = get_space("unet").build(few.candidate.spec, few.task)
            epoch = ours(network, few, DeviceData.of(few.data, few.task, on.device), "fp32")[0]
            seconds = _median_seconds(epoch, on)
            with profile(activities=[activity]) as seen:
                seconds_of(epoch, on.device)
            trace = room.folder / "trace.json"
            seen.export_chrome_trace(str(trace))
            spans = [
                (float(event["ts"]), float(event["ts"]) + float(event["dur"]))
                for event in json.loads(trace.read_text())["traceEvents"]
                if event.get("cat") in kinds and "dur" in event
            ]
            worked, each = covered(spans) / 1e6, 1e3 / on.scale.steps
            yield Finding(
                text=f"{side}x{side} {name}: the device works {100 * worked / seconds:.0f} % of the time; a step takes "
                f"{each * seconds:.2f} ms, in which {len(spans) / on.scale.steps:.0f} kernels work for "
                f"{each * worked:.2f} ms",
                values={"side": side, "network": name, "seconds": seconds, "worked": worked, "kernels": len(spans)},
                right=None if spans else False,
            )


def covered(spans: Sequence[tuple[float, float]]) -> float:
    """Length of the union of intervals, given by begin and end."""
    total, reached = 0.0, -math.inf
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, reached))
        reached = max(reached, end)
    return total


def captured(on: Setting, room: Room, *, network: int) -> Iterator[Finding]:
    """Times a whole step as one CUDA graph, which is started as one thing: what the loop could reach.

    The step has rows, noise, forward pass, losses, backward pass and AdamW. It stands beside the loop that people write
    and the project's; it is a measure, not a part of the product. On a CPU the step runs as it is.

    Args:
        network: which one of `benchmarks.lib.loops`. Each has a process of its own, since several graphs in one have
            ended in an assertion.
    """
    from benchmarks.lib.loops import NETWORKS, ours, people, subject
    from nas.training.batches import DeviceData
    from search_spaces import get_space

    torch.set_num_threads(1)
    name, width = NETWORKS[network]
    side = on.scale.sides[0][0]
    few = subject(side, name, width, on.scale.steps)
    torch.manual_seed(0)
    net = get_space("unet").build(few.candidate.spec, few.task)
    data = DeviceData.of(few.data, few.task, on.device)
    epochs: dict[str, Callable[[], object]] = {
        "people": people(copy.deepcopy(net), few, on.device),
        "ours": ours(copy.deepcopy(net), few, data, "fp32")[0],
    }
    for precision in ("fp32", "bf16"):
        epochs[f"graph in {precision}"] = _graph_epoch(copy.deepcopy(net), few, data, precision == "bf16")
    pace = {how: len(data) / _median_seconds(epoch, on) for how, epoch in epochs.items()}
    yield Finding(
        text=f"{side}x{side} {name}, images/s: "
        + ", ".join(f"{how} {value:,.0f} ({value / pace['people']:.2f})" for how, value in pace.items()),
        values={"side": side, "network": name, "pace": pace},
    )


def _graph_epoch(network: nn.Module, few: Subject, data: DeviceData, bf16: bool) -> Callable[[], None]:
    """An epoch as replays of one captured step."""
    from nas.data.splits import to_float

    device, batch = data.device, few.recipe.batch_size
    net = network.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True, capturable=device.type == "cuda")
    rows = torch.zeros(batch, dtype=torch.long, device=device)
    sums = torch.zeros(2, device=device)
    assert data.labels is not None
    labels = data.labels

    def step() -> None:
        clean = to_float(data.images[rows])
        noisy = clean + 50 / 255 * torch.randn_like(clean)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16, cache_enabled=False):
            denoised, logits = net(noisy.contiguous(memory_format=torch.channels_last))
        losses = F.mse_loss(denoised.float(), clean) / data.trivial, F.cross_entropy(logits.float(), labels[rows])
        (losses[0] + losses[1]).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        sums.add_(torch.stack(losses).detach())

    replay = _captured(step, device)

    def epoch() -> None:
        order = torch.randperm(len(data), device=device)
        for start in range(0, len(order) - batch + 1, batch):
            rows.copy_(order[start : start + batch])
            replay()
        sums.tolist()

    return epoch


def _captured(step: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """`step` as a CUDA graph, after some steps on a stream of their own as torch asks for; on a CPU `step` itself."""
    if device.type != "cuda":
        step()
        return step
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def _median_seconds(epoch: Callable[[], object], on: Setting) -> float:
    """Seconds of an epoch: the median over rounds, after one that warms up."""
    epoch()
    return statistics.median(seconds_of(epoch, on.device) for _ in range(ROUNDS if on.gpu else 1))
