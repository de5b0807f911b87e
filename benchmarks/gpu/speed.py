"""How fast is the training loop on the device, and what keeps it from being faster?"""

from __future__ import annotations

import copy
import json
import math
import statistics
from collections.abc import Callable, Iterator, Sequence

import torch

from benchmarks.gpu.processes import environment
from benchmarks.gpu.setting import Setting, seconds_of
from benchmarks.lib.checks import Finding, Room

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


def captured(on: Setting, room: Room) -> Iterator[Finding]:
    """Times the project's loop with captured steps and without (`nas.training.captured`), beside the usual loop.

    On a CPU nothing is captured.
    """
    from benchmarks.lib.loops import NETWORKS, ours, people, subject
    from nas.training.batches import DeviceData
    from nas.training.captured import PLAIN_VARIABLE, Captured
    from search_spaces import get_space

    torch.set_num_threads(1)
    for side in on.scale.sides[0]:
        for name, width in NETWORKS[: on.scale.networks]:
            few = subject(side, name, width, on.scale.steps)
            torch.manual_seed(0)
            net = get_space("unet").build(few.candidate.spec, few.task)
            data = DeviceData.of(few.data, few.task, on.device)
            epochs: dict[str, Callable[[], object]] = {"people": people(copy.deepcopy(net), few, on.device)}
            for precision in ("fp32", "bf16"):
                with environment(**{PLAIN_VARIABLE: "1"}):
                    epochs[f"plain {precision}"] = ours(copy.deepcopy(net), few, data, precision)[0]
                epochs[f"captured {precision}"] = ours(copy.deepcopy(net), few, data, precision)[0]
            pace = {how: len(data) / _median_seconds(epoch, on) for how, epoch in epochs.items()}
            yield Finding(
                text=f"{side}x{side} {name}, images/s: "
                + ", ".join(f"{how} {value:,.0f} ({value / pace['people']:.2f})" for how, value in pace.items()),
                values={"side": side, "network": name, "pace": pace},
                right=not Captured.told if on.gpu else None,
            )


def _median_seconds(epoch: Callable[[], object], on: Setting) -> float:
    """Seconds of an epoch: the median over rounds, after one that warms up."""
    epoch()
    return statistics.median(seconds_of(epoch, on.device) for _ in range(ROUNDS if on.gpu else 1))
