"""The verdict on each claim, from finished runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.claims import networks
from benchmarks.claims.networks import NETWORKS
from benchmarks.claims.protocol import GATE_MARGIN, LITTLE, MARGINS
from benchmarks.claims.results import Results
from benchmarks.lib.runs import Setting
from benchmarks.lib.stats import (
    Cell,
    Interval,
    Verdict,
    claim_verdict,
    compare_spread,
    corrected,
    non_inferiority,
    part_verdict,
    superiority,
)

UNITS = {"psnr": "dB", "accuracy": "points", "stability": ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A claim that was judged.

    Attributes:
        letter: its letter, a to f.
        text: the claim in one line.
        cells: its comparisons, corrected together; none where parameters are counted.
        parts: the verdict on each of its parts.
    """

    letter: str
    text: str
    cells: Sequence[Cell]
    parts: Mapping[str, Verdict]

    @property
    def verdict(self) -> Verdict:
        """The claim holds when all of its parts do."""
        return claim_verdict(list(self.parts.values()))


def judge(letter: str, text: str, cells: Sequence[Cell]) -> Claim:
    """Corrects the cells of a claim together and counts them, part by part."""
    cells = corrected(cells)
    parts = {
        part: part_verdict([cell.outcome for cell in cells if cell.part == part])
        for part in dict.fromkeys(cell.part for cell in cells)
    }
    return Claim(letter=letter, text=text, cells=cells, parts=parts)


def claim_a(results: Results) -> Claim:
    """Judges the stability of gated additive skips against concatenation."""
    cells = []
    for gated in ("addunet", "channel gate"):
        for setting in results.plan.settings:
            cells.append(
                superiority(
                    results.differences(gated, "concat", setting, "stability"),
                    margin=MARGINS["stability"],
                    part="stability score",
                    label=f"stability: {gated} - concat",
                    setting=setting.name,
                    unit="",
                )
            )
    for gated in ("addunet", "channel gate"):
        for metric in ("psnr", "accuracy"):
            cells += [_spread(results, gated, s, metric) for s in results.plan.settings if s.data == "digits"]
    return judge("a", "Gated additive skips train more stably than concatenated ones", cells)


def _spread(results: Results, gated: str, setting: Setting, metric: str) -> Cell:
    ours, theirs = (results.values(name, setting, metric) for name in (gated, "concat"))
    seeds = sorted(ours.keys() & theirs.keys())
    spread = compare_spread([ours[s] for s in seeds], [theirs[s] for s in seeds])
    return Cell(
        part="spread over seeds",
        label=f"ln of sd({metric}) of {gated} over concat, negated",
        setting=setting.name,
        unit="nats",
        difference=Interval(-spread.log_ratio.mean, -spread.log_ratio.high, -spread.log_ratio.low, spread.log_ratio.n),
        p_for=spread.p_smaller,
        p_against=spread.p_larger,
    )


def claim_b(results: Results) -> Claim:
    """Judges whether gates rise from denoising alone to the joint task."""
    cells = [
        superiority(
            [change[half] for change in moved],
            margin=GATE_MARGIN,
            part=f"{half} half rises",
            label=f"{half} gates, joint (head at {where}) - alone",
            setting=setting.name,
            unit="",
        )
        for where, setting, moved in moved_gates(results)
        for half in ("shallow", "deep")
    ]
    return judge("b", "From denoising alone to the joint task the gates move: shallow up, deep up", cells)


def moved_gates(results: Results) -> Iterator[tuple[str, Setting, list[dict[str, float]]]]:
    """Yields by how much gates moved from denoising alone to the joint task.

    Yields:
        the place of the head, the setting, and for each seed the change of the mean gate of the shallow and of the deep
        half. A gate in the middle is in neither half.
    """
    for joint, where in (("addunet", "bottleneck"), ("addunet, head at decoder end", "decoder end")):
        for setting in results.plan.settings:
            if setting.data not in NETWORKS[joint].data:
                continue
            together, alone = results.gates(joint, setting), results.gates("addunet, denoising alone", setting)
            moved = []
            for seed in sorted(together.keys() & alone.keys()):
                change = [a - b for a, b in zip(together[seed], alone[seed], strict=True)]
                half = len(change) // 2
                moved.append({"shallow": sum(change[:half]) / half, "deep": sum(change[-half:]) / half})
            yield where, setting, moved


def claim_c(results: Results) -> Claim:
    """Judges PSNR with and without a wide head."""
    cells = [
        non_inferiority(
            results.differences("addunet", "addunet, head of 256", setting, "psnr"),
            margin=MARGINS["psnr"],
            part="PSNR",
            label="PSNR: no hidden units - 256",
            setting=setting.name,
            unit="dB",
        )
        for setting in results.plan.settings
    ]
    text = "PSNR holds when the head shrinks from 256 to 0 hidden units"
    return judge("c", text, cells)


def claim_d() -> Claim:
    """Judges the parameters of skips, which are counted."""
    add_holds = concat_holds = True
    for _, width, skips, (none, add, scalar, concat) in networks.skip_counts():
        add_holds &= add == none and scalar == none + skips
        concat_holds &= concat - none >= skips * width**2
    parts: dict[str, Verdict] = {
        "AddUNet gains one scalar for each skip and no weight": "holds" if add_holds else "does not hold",
        "concatenation gains at least width squared for each skip": "holds" if concat_holds else "does not hold",
    }
    text = "AddUNet's parameters do not grow with skips, concatenation's do"
    return Claim(letter="d", text=text, cells=(), parts=parts)


def claim_e(results: Results) -> Claim:
    """Judges NDDR against its rivals."""
    cells = []
    for rival, metrics in (
        ("sluice", ("psnr", "accuracy")),
        ("cross-stitch", ("psnr", "accuracy")),
        ("hard-sharing", ("psnr", "accuracy")),
        ("single-task-denoise", ("psnr",)),
        ("single-task-classify", ("accuracy",)),
    ):
        for metric in metrics:
            cells += [
                superiority(
                    results.differences("nddr", rival, setting, metric),
                    margin=MARGINS[metric],
                    part="single task" if rival.startswith("single") else rival,
                    label=f"{metric}: nddr - {rival}",
                    setting=setting.name,
                    unit=UNITS[metric],
                )
                for setting in results.plan.settings
            ]
    text = "NDDR beats sluice, cross-stitch, hard sharing and single task"
    return judge("e", text, cells)


def claim_f(results: Results) -> Claim:
    """Judges Multi-ResNets against their residual U-Net."""
    cells = []
    for network, margins, part in (
        ("multi-resnet", MARGINS, "parameters returned: matches"),
        ("multi-resnet-none-added", LITTLE, "none added: loses at most little"),
    ):
        for metric in ("psnr", "accuracy"):
            cells += [
                non_inferiority(
                    results.differences(network, "residual-unet", setting, metric),
                    margin=margins[metric],
                    part=part,
                    label=f"{metric}: {network} - residual-unet",
                    setting=setting.name,
                    unit=UNITS[metric],
                )
                for setting in results.plan.settings
            ]
    text = "A Multi-ResNet with parameters returned matches its residual U-Net, one without loses at most little"
    return judge("f", text, cells)


def claims(results: Results) -> list[Claim]:
    """Judges all six claims."""
    return [
        claim_a(results),
        claim_b(results),
        claim_c(results),
        claim_d(),
        claim_e(results),
        claim_f(results),
    ]
